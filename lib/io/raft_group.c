/* The life of a group of managers: the log, who is who, the first start. See raft_group.h. */
#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/clock.h"
#include "io/log.h"
#include "io/loop.h"
#include "io/raft_group_private.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* In the log a member's address carries its id: "10.0.0.1:19700#0f…". */
#define ID_MARK '#'

void raft_group_log(const struct raft_group *g, int level, const char *fmt, ...)
{
    char text[1024];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (g->options.log) {
        g->options.log(g->options.fsm.ctx, level, text);
    }
}

void raft_group_fail(struct raft_group *g, const char *why)
{
    if (!g->failed && !g->closing) {
        g->failed = true;
        g->options.fsm.failed(g->options.fsm.ctx, why);
    }
}

static bool is_alone(const struct raft_group *g)
{
    return g->options.n == 1;
}

/* ---- consensus ---- */

static int op_propose(struct consensus *c, const uint8_t *data, size_t bytes,
                      consensus_done_fn done, void *ctx)
{
    struct raft_group *g = (struct raft_group *) (void *) c;

    return g->node ? consensus_propose(raft_node_consensus(g->node), data, bytes, done, ctx)
                   : -EAGAIN;
}

static bool op_is_leader(const struct consensus *c)
{
    const struct raft_group *g = (const struct raft_group *) (const void *) c;

    return g->node && consensus_is_leader(raft_node_consensus(g->node));
}

static uint64_t op_applied(const struct consensus *c)
{
    const struct raft_group *g = (const struct raft_group *) (const void *) c;

    return g->node ? consensus_applied(raft_node_consensus(g->node)) : 0;
}

static const struct consensus_ops group_ops = {
    .propose = op_propose,
    .is_leader = op_is_leader,
    .applied = op_applied,
};

struct consensus *raft_group_consensus(struct raft_group *g)
{
    return &g->consensus;
}

/* ---- the log ---- */

static void node_options(const struct raft_group *g, struct raft_node_options *ret)
{
    *ret = (struct raft_node_options){
        .base = loop_base(g->options.loop),
        .dir = g->dir,
        .id = g->self.number,
        .address = g->members[g->options.self].address,
        .send = raft_group_send,
        .send_ctx = (void *) (uintptr_t) g,
        .fsm = g->options.fsm,
        .log = g->options.log,
        .log_ctx = g->options.fsm.ctx,
    };
}

/* "a, b, c" of what the log says, for the operator. */
static void servers_say(const struct raft_node_server *servers, size_t n, char *out, size_t cap)
{
    size_t used = 0;

    out[0] = '\0';
    for (size_t i = 0; i < n && used < cap; i++) {
        size_t bytes = strcspn(servers[i].address, "#");
        used += (size_t) snprintf(out + used, cap - used, "%s%.*s", i > 0 ? ", " : "", (int) bytes,
                                  servers[i].address);
    }
}

/* Takes one server of the log for the member at its place. */
static bool member_take(struct raft_group *g, size_t i, const struct raft_node_server *s)
{
    struct msg_manager_member *m = &g->self.members[i];
    size_t bytes = strcspn(s->address, "#");

    return s->id == i + 1 && strlen(m->address) == bytes &&
           strncmp(m->address, s->address, bytes) == 0 && s->address[bytes] == ID_MARK &&
           raft_identity_parse(s->address + bytes + 1, m->id);
}

/* The log must name the list's managers, and this one by its id. */
static int group_check(struct raft_group *g)
{
    struct raft_node_server servers[MANAGERS_MAX];
    size_t n = raft_node_servers(g->node, servers, MANAGERS_MAX);
    bool same = n == g->options.n;
    char text[512];

    for (size_t i = 0; i < n && same && !is_alone(g); i++) {
        same = member_take(g, i, &servers[i]);
    }
    if (!same) {
        servers_say(servers, MIN_OF(n, (size_t) MANAGERS_MAX), text, sizeof(text));
        raft_group_log(g, LOG_ERR,
                       "the group in %s has %s: %s; set managers = to exactly that, in that order "
                       "(a group can't be changed in this version)",
                       g->dir, n == 1 ? "this one manager" : "these managers", text);
        return -EINVAL;
    }
    if (!is_alone(g) &&
        memcmp(g->self.members[g->options.self].id, g->identity.id, UUID_BYTES) != 0) {
        raft_group_log(g, LOG_ERR,
                       "%s holds the log of one manager and the identity of another; restore the "
                       "directory as a whole",
                       g->dir);
        return -EINVAL;
    }
    return 0;
}

static void on_node_closed(void *ctx)
{
    *(bool *) ctx = true;
}

/* The log was opened and must not be used. */
static void node_drop(struct raft_group *g)
{
    bool closed = false;

    raft_node_close(TAKE_PTR(g->node), on_node_closed, &closed);
    while (!closed) { /* ends within 10 s, whatever the disk does */
        loop_turn(g->options.loop, true);
    }
}

/* What the log holds counts: it was begun, by whichever start. */
static int node_started(struct raft_group *g)
{
    struct io_error error = { "" };
    int r = group_check(g);

    if (r == 0 && !is_alone(g) && !g->identity.begun) {
        r = raft_identity_begin(g->dir, &g->identity, &error);
        if (r < 0) {
            raft_group_log(g, LOG_ERR, "%s", error.text);
        }
    }
    if (r < 0) {
        node_drop(g);
        return r;
    }
    g->self.begun = true;
    return 0;
}

static int node_open(struct raft_group *g)
{
    struct raft_node_options o;
    int r;

    node_options(g, &o);
    o.bootstrap = is_alone(g);
    r = raft_node_start(&o, &g->node);
    return r == 0 ? node_started(g) : r;
}

/* All managers of the new group do this with the same members. */
static int node_begin(struct raft_group *g, const struct msg_manager_member *members)
{
    struct raft_node_server servers[MANAGERS_MAX];
    char texts[MANAGERS_MAX][ADDRESS_BYTES_MAX + RAFT_IDENTITY_TEXT + 1];
    struct raft_node_options o;
    int r;

    for (size_t i = 0; i < g->options.n; i++) {
        char id[RAFT_IDENTITY_TEXT];
        raft_identity_format(members[i].id, id);
        snprintf(texts[i], sizeof(texts[i]), "%s%c%s", members[i].address, ID_MARK, id);
        servers[i] = (struct raft_node_server){ .id = i + 1, .address = texts[i] };
    }
    node_options(g, &o);
    o.bootstrap = true;
    o.servers = servers;
    o.n_servers = g->options.n;
    r = raft_node_start(&o, &g->node);
    if (r == 0) {
        r = node_started(g);
    }
    if (r == 0) {
        raft_group_log(g, LOG_INFO, "the group of %zu managers begins", g->options.n);
        raft_group_ask(g); /* and tell */
    }
    return r;
}

/* ---- who is who ---- */

static bool is_same_list(const struct raft_group *g, const struct msg_manager *info)
{
    bool same = info->n == g->options.n;

    for (size_t i = 0; i < g->options.n && same; i++) {
        same = strcmp(info->members[i].address, g->self.members[i].address) == 0;
    }
    return same;
}

bool raft_group_agrees(const struct raft_group *g, const struct msg_manager *info)
{
    if (!g->self.begun || !info->begun || !is_same_list(g, info) ||
        memcmp(info->id, g->self.members[info->number - 1].id, UUID_BYTES) != 0) {
        return false;
    }
    for (size_t i = 0; i < g->options.n; i++) {
        if (memcmp(info->members[i].id, g->self.members[i].id, UUID_BYTES) != 0) {
            return false;
        }
    }
    return true;
}

/* The log of a begun manager names this one: with another id when this one's disk was lost. */
static void begin_with(struct raft_group *g, const struct member *m)
{
    const struct msg_manager_member *own = &m->info.members[g->options.self];
    char text[640];

    if (memcmp(own->id, g->identity.id, UUID_BYTES) == 0) {
        if (node_begin(g, m->info.members) < 0) {
            raft_group_fail(g, "the log of the group could not be begun");
        }
        return;
    }
    snprintf(text, sizeof(text),
             "the group that the manager at %s belongs to knows this one (%s) by another identity: "
             "was its data-dir lost or exchanged? It must not vote a second time. Restore its "
             "data-dir, or leave this manager off: the others go on without it",
             m->address, own->address);
    raft_group_fail(g, text);
}

static bool is_cloned(const struct raft_group *g, const struct msg_manager_member *members)
{
    for (size_t i = 0; i < g->options.n; i++) {
        for (size_t j = 0; j < i; j++) {
            if (memcmp(members[i].id, members[j].id, UUID_BYTES) == 0) {
                return true;
            }
        }
    }
    return false;
}

/* A new group begins when all have told who they are and nobody has begun. */
static void try_begin(struct raft_group *g)
{
    struct msg_manager_member members[MANAGERS_MAX];

    for (size_t i = 0; i < g->options.n; i++) {
        const struct member *m = &g->members[i];
        members[i] = g->self.members[i];
        if (i != g->options.self && (!m->known || m->info.begun || !is_same_list(g, &m->info))) {
            return;
        }
        memcpy(members[i].id, i == g->options.self ? g->identity.id : m->info.id, UUID_BYTES);
    }
    if (is_cloned(g, members)) {
        raft_group_fail(g, "two managers of the new group have the same identity: one data-dir is "
                           "a copy of the other; empty one of them");
        return;
    }
    if (node_begin(g, members) < 0) {
        raft_group_fail(g, "the log of the group could not be begun");
    }
}

/* Why a member is not of this group, or NULL. */
static const char *member_wrong(const struct raft_group *g, const struct member *m)
{
    if (m->info.number != m->number || !is_same_list(g, &m->info)) {
        return "its list of managers is another one: each manager needs the same `managers`, in "
               "the same order";
    }
    if (g->self.begun && memcmp(m->info.id, g->self.members[m->number - 1].id, UUID_BYTES) != 0) {
        return "it has another identity than the manager that this group began with: its data-dir "
               "was lost or exchanged. It is not let in";
    }
    if (g->self.begun && m->info.begun && !raft_group_agrees(g, &m->info)) {
        return "it belongs to another group of managers";
    }
    return NULL;
}

void raft_group_heard(struct raft_group *g, struct member *m)
{
    const char *wrong = member_wrong(g, m);

    if (g->failed || g->closing) {
        return;
    }
    if (wrong) {
        m->here = false;
        if (strcmp(m->trouble, wrong) != 0) {
            snprintf(m->trouble, sizeof(m->trouble), "%s", wrong);
            raft_group_log(g, LOG_ERR, "the manager at %s: %s", m->address, wrong);
        }
        return;
    }
    if (!g->node && m->info.begun) {
        begin_with(g, m);
    } else if (!g->node) {
        try_begin(g);
    }
    if (!m->here && m->known && raft_group_agrees(g, &m->info)) {
        m->here = true;
        m->trouble[0] = '\0';
        raft_group_log(g, LOG_INFO, "the manager at %s is here", m->address);
    }
}

/* ---- the clock ---- */

static size_t n_known(const struct raft_group *g)
{
    size_t n = 1;

    for (size_t i = 0; i < g->options.n; i++) {
        n += g->members[i].known;
    }
    return n;
}

static void on_timer(void *ctx)
{
    struct raft_group *g = ctx;
    uint64_t now = clock_boot_usec();

    raft_group_ask(g);
    if (!g->node && !g->failed && now - g->said_usec >= RAFT_GROUP_SAY_USEC) {
        g->said_usec = now;
        raft_group_log(g, LOG_NOTICE,
                       "a new manager: waits for all others before the group can begin; %zu of %zu "
                       "are here",
                       n_known(g), g->options.n);
    }
}

static uint8_t role_of(const struct raft_group *g, const struct raft_node_state *s)
{
    if (!g->node) {
        return MANAGER_WAITING;
    }
    return s->leads                                        ? MANAGER_LEADS
           : s->leader != 0 && s->leader != g->self.number ? MANAGER_FOLLOWS
                                                           : MANAGER_LOOKING;
}

void raft_group_tell(struct raft_group *g, struct msg_managers *ret)
{
    struct raft_node_state s = { 0 };
    uint64_t now = clock_boot_usec();

    if (g->node) {
        raft_node_state(g->node, &s);
    }
    ret->number = g->self.number;
    ret->role = role_of(g, &s);
    ret->term = s.term;
    ret->leader = (uint32_t) s.leader;
    ret->applied = op_applied(&g->consensus);
    ret->n = (uint32_t) g->options.n;
    for (size_t i = 0; i < g->options.n; i++) {
        const struct member *m = &g->members[i];
        snprintf(ret->members[i].address, sizeof(ret->members[i].address), "%s", m->address);
        ret->members[i].reachable =
            i == g->options.self ||
            (m->known && now - m->answered_usec <= RAFT_GROUP_ASK_USEC + RAFT_GROUP_ANSWER_USEC);
    }
}

/* ---- begin and end ---- */

static struct raft_group *group_new(const struct raft_group_options *o)
{
    struct raft_group *g = mem_zalloc(1, sizeof(*g));

    kumo_assert(o->n >= 1 && o->n <= MANAGERS_MAX);
    kumo_assert(o->self < o->n);
    g->consensus.ops = &group_ops;
    g->options = *o;
    g->options.addresses = NULL;
    g->dir = mem_alloc(strlen(o->dir) + 1);
    strcpy(g->dir, o->dir);
    g->options.dir = g->dir;
    list_init(&g->incoming);
    g->self.number = (uint32_t) o->self + 1;
    g->self.n = (uint32_t) o->n;
    for (size_t i = 0; i < o->n; i++) {
        struct member *m = &g->members[i];
        m->group = g;
        m->number = (uint32_t) i + 1;
        m->address = mem_alloc(strlen(o->addresses[i]) + 1);
        strcpy(m->address, o->addresses[i]);
        snprintf(g->self.members[i].address, sizeof(g->self.members[i].address), "%s", m->address);
    }
    g->said_usec = clock_boot_usec();
    return g;
}

static void group_free(struct raft_group *g)
{
    raft_group_disconnect(g);
    loop_timer_free(g->timer);
    for (size_t i = 0; i < g->options.n; i++) {
        free(g->members[i].address);
    }
    free(g->dir);
    free(g);
}

/* The identity, and the log if there is one. */
static int group_open(struct raft_group *g)
{
    struct raft_node_options o;
    struct io_error error = { "" };
    bool begun;
    int r;

    if (is_alone(g)) {
        return node_open(g);
    }
    node_options(g, &o);
    r = raft_node_look(&o, &begun);
    if (r < 0) {
        return r;
    }
    r = raft_identity_open(g->dir, &g->identity, &error);
    if (r == 0 && g->identity.begun && !begun) {
        r = io_error_set(&error, -EBADMSG,
                         "the raft log in %s is gone: this manager must not vote a second time. "
                         "Restore its data-dir, or leave it off: the others go on without it",
                         g->dir);
    }
    if (r < 0) {
        raft_group_log(g, LOG_ERR, "%s", error.text);
        return r;
    }
    memcpy(g->self.id, g->identity.id, UUID_BYTES);
    return begun ? node_open(g) : 0;
}

int raft_group_start(const struct raft_group_options *o, struct raft_group **ret_group)
{
    struct raft_group *g = group_new(o);
    int r = group_open(g);

    if (r == 0) {
        r = raft_group_connect(g);
        if (r < 0 && g->node) {
            node_drop(g);
        }
    }
    if (r < 0) {
        group_free(g);
        return r;
    }
    g->timer = loop_timer_new(g->options.loop, on_timer, g);
    if (!is_alone(g)) {
        loop_timer_every(g->timer, RAFT_GROUP_ASK_USEC);
    }
    *ret_group = g;
    return 0;
}

static void on_closed(void *ctx)
{
    struct raft_group *g = ctx;
    void (*closed)(void *ctx) = g->closed;
    void *closed_ctx = g->closed_ctx;

    group_free(g);
    if (closed) {
        closed(closed_ctx);
    }
}

void raft_group_close(struct raft_group *g, void (*closed)(void *ctx), void *ctx)
{
    g->closing = true;
    g->closed = closed;
    g->closed_ctx = ctx;
    raft_group_disconnect(g);
    if (g->node) {
        raft_node_close(g->node, on_closed, g);
    } else if (loop_post(g->options.loop, on_closed, g) < 0) {
        on_closed(g); /* the mailbox is full */
    }
}
