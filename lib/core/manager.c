#include "core/manager.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/list.h"
#include "base/mem.h"
#include "core/placement.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* A request that waits for its proposal. */
struct request {
    struct list link;
    uint64_t tag;
    uint64_t conn;
    uint64_t request;
    enum manager_event_kind kind;
    struct msg_register registration;
    char text[MANAGER_TEXT_BYTES_MAX]; /* the answer when it has happened */
};

/* A registered connection of a server: `conn` 0 while it has none. */
struct link {
    uint64_t conn;
    uint64_t incarnation; /* that registered over it */
};

/* What one member reported of a sealed view. */
struct report {
    uint64_t incarnation; /* 0: nothing yet */
    struct name last;
    uint64_t time_usec;
};

/* A partition that needs a new view. */
struct need {
    bool needed;
    uint64_t asked_usec;                 /* when its members were asked to seal; 0: not yet */
    struct report reports[REPLICAS_MAX]; /* by position in the row */
};

struct manager {
    struct manager_options o;
    struct cluster cluster;
    struct cluster_effect effect;
    bool leader;
    bool forming;       /* a CLUSTER_FORM is under way */
    uint64_t views_tag; /* of the CLUSTER_VIEWS under way; 0: none */
    uint64_t next_tag;
    struct link *links; /* by server number - 1 */
    size_t n_links;
    size_t cap_links;
    struct need *needs; /* by partition */
    uint32_t n_needs;   /* room */
    uint32_t n_needed;
    struct list requests;
    uint32_t n_requests;
    struct buf bytes; /* of the proposals of the step in progress */

    /* of the step in progress */
    struct manager_actions *out;
    uint64_t now_usec;
};

/* ---- small things ---- */

static struct manager_action *act(struct manager *m, enum manager_action_kind kind, uint64_t conn,
                                  uint64_t request)
{
    struct manager_actions *a = m->out;

    mem_grow(&a->v, &a->cap, a->n + 1, sizeof(*a->v));
    a->v[a->n] = (struct manager_action){ .kind = kind, .conn = conn, .request = request };
    return &a->v[a->n++];
}

void manager_actions_free(struct manager_actions *a)
{
    free(a->v);
    *a = (struct manager_actions){ 0 };
}

static void refuse(struct manager *m, uint64_t conn, uint64_t request, const char *text)
{
    struct manager_action *a = act(m, MANAGER_DO_REFUSE, conn, request);

    snprintf(a->text, sizeof(a->text), "%s", text);
}

/* Answers a registration that the replicated state refuses: by an incarnation it is refused for
 * good. */
static void deny(struct manager *m, uint64_t conn, uint64_t request, const struct msg_register *r,
                 const char *text)
{
    refuse(m, conn, request, text);
    if (cluster_find(&m->cluster, r->server_id) > 0) {
        m->out->v[m->out->n - 1].kind = MANAGER_DO_DENY;
    }
}

/* Proposes what was appended to m->bytes since `begin`. Returns the tag. */
static uint64_t propose(struct manager *m, size_t begin)
{
    struct manager_action *a = act(m, MANAGER_DO_PROPOSE, 0, 0);

    /* `p` is set in propose_fix: the buffer may still move */
    a->propose.bytes = buf_len(&m->bytes) - begin;
    a->propose.tag = ++m->next_tag;
    return a->propose.tag;
}

/* At the end of a step the proposals lie behind each other in m->bytes. */
static void propose_fix(struct manager *m)
{
    const uint8_t *p = buf_head(&m->bytes);

    for (size_t i = 0; i < m->out->n; i++) {
        struct manager_action *a = &m->out->v[i];
        if (a->kind == MANAGER_DO_PROPOSE) {
            a->propose.p = p;
            p += a->propose.bytes;
        }
    }
}

/* NULL when too many requests wait. */
static struct request *request_add(struct manager *m, const struct manager_event *e, uint64_t tag)
{
    struct request *q = mem_zalloc(1, sizeof(*q));

    q->tag = tag;
    q->conn = e->conn;
    q->request = e->request;
    q->kind = e->kind;
    list_push_back(&m->requests, &q->link);
    m->n_requests++;
    return q;
}

static void request_free(struct manager *m, struct request *q)
{
    list_remove(&q->link);
    m->n_requests--;
    free(q);
}

/* May this request be taken? Answers it otherwise. */
static bool request_allowed(struct manager *m, const struct manager_event *e)
{
    if (!m->leader) {
        refuse(m, e->conn, e->request, "this manager does not lead");
        return false;
    }
    if (m->n_requests >= MANAGER_REQUESTS_MAX) {
        refuse(m, e->conn, e->request, "the manager has too many unanswered requests");
        return false;
    }
    return true;
}

/* ---- links ---- */

static struct link *link_of(struct manager *m, uint32_t server)
{
    if (server > m->n_links) {
        mem_grow(&m->links, &m->cap_links, server, sizeof(*m->links));
        memset(&m->links[m->n_links], 0, (server - m->n_links) * sizeof(*m->links));
        m->n_links = server;
    }
    return &m->links[server - 1];
}

bool manager_server_is_up(const struct manager *m, uint32_t server)
{
    const struct hashspace_server *s = hashspace_server(&m->cluster.space, server);

    return s && server <= m->n_links && m->links[server - 1].conn != 0 &&
           m->links[server - 1].incarnation == s->incarnation;
}

/* The server that registered over this connection, 0 for none. */
static uint32_t server_of(const struct manager *m, uint64_t conn)
{
    for (size_t i = 0; i < m->n_links; i++) {
        if (m->links[i].conn == conn) {
            return (uint32_t) (i + 1);
        }
    }
    return 0;
}

static int member_slot(const struct view_row *row, uint32_t server)
{
    for (unsigned i = 0; i < row->n_members; i++) {
        if (row->members[i] == server) {
            return (int) i;
        }
    }
    return -1;
}

/* ---- registration (R6, incarnations) ---- */

static void accept(struct manager *m, uint64_t conn, uint64_t request,
                   const struct msg_register *registration)
{
    uint32_t server = cluster_find(&m->cluster, registration->server_id);
    struct link *old = link_of(m, server);
    struct manager_action *a;

    if (old->conn != 0 && old->conn != conn) {
        act(m, MANAGER_DO_CLOSE, old->conn, 0); /* an older process learns that it is over */
    }
    a = act(m, MANAGER_DO_ACCEPT, conn, request);
    memcpy(a->accept.cluster_id, m->cluster.space.cluster_id, UUID_BYTES);
    a->accept.server = server;
    a->accept.partitions = m->cluster.space.n_partitions;
    *old = (struct link){ conn, registration->counter };
}

/* Is the registration in the replicated state, as it is? */
static bool is_registered(const struct cluster *c, const struct msg_register *r)
{
    uint32_t server = cluster_find(c, r->server_id);
    const struct hashspace_server *s = hashspace_server(&c->space, server);

    return s && s->incarnation == r->counter && c->servers[server - 1].random == r->random &&
           s->shards == r->shards && strcmp(s->name, r->name) == 0 &&
           strcmp(s->address, r->address) == 0;
}

static void on_register(struct manager *m, const struct manager_event *e)
{
    const char *why;
    size_t begin;

    if (!request_allowed(m, e)) {
        return;
    }
    why = cluster_refuses(&m->cluster, &e->registration);
    if (why) {
        deny(m, e->conn, e->request, &e->registration, why);
        return;
    }
    if (is_registered(&m->cluster, &e->registration)) {
        accept(m, e->conn, e->request, &e->registration);
        return;
    }
    begin = buf_len(&m->bytes);
    cluster_put_register(&m->bytes, &e->registration);
    request_add(m, e, propose(m, begin))->registration = e->registration;
}

/* ---- view changes ---- */

static void need_clear(struct manager *m, uint32_t partition)
{
    m->n_needed -= m->needs[partition].needed;
    m->needs[partition] = (struct need){ 0 };
}

static void on_accuse(struct manager *m, const struct manager_event *e)
{
    const struct hashspace *h = &m->cluster.space;
    uint32_t p = e->note.partition;

    /* R14: by a member of the named view, which is the newest. */
    if (!m->leader || p >= h->n_partitions || e->note.view != h->rows[p].view ||
        member_slot(&h->rows[p], server_of(m, e->conn)) < 0 || m->needs[p].needed) {
        return;
    }
    m->needs[p].needed = true;
    m->n_needed++;
}

static void on_sealed(struct manager *m, const struct manager_event *e)
{
    const struct hashspace *h = &m->cluster.space;
    uint32_t server = server_of(m, e->conn);
    uint32_t p = e->sealed.partition;
    int slot;

    if (p >= h->n_partitions || e->sealed.view != h->rows[p].view || !m->needs[p].needed ||
        !manager_server_is_up(m, server)) {
        return;
    }
    slot = member_slot(&h->rows[p], server);
    if (slot >= 0) {
        m->needs[p].reports[slot] = (struct report){ m->links[server - 1].incarnation,
                                                     e->sealed.last, e->sealed.time_usec };
    }
}

static bool is_reported(const struct manager *m, const struct view_row *row, unsigned slot)
{
    uint32_t server = row->members[slot];
    const struct report *r = &m->needs[row->partition].reports[slot];

    return manager_server_is_up(m, server) && r->incarnation == m->links[server - 1].incarnation;
}

/* Asks every member that has not reported to seal; needs all of them connected. */
static void seal_ask(struct manager *m, const struct view_row *row)
{
    struct need *n = &m->needs[row->partition];

    if (n->asked_usec != 0 && m->now_usec - n->asked_usec < MANAGER_SEAL_USEC) {
        return;
    }
    for (unsigned i = 0; i < row->n_members; i++) {
        if (!manager_server_is_up(m, row->members[i])) {
            return;
        }
    }
    n->asked_usec = m->now_usec;
    for (unsigned i = 0; i < row->n_members; i++) {
        if (!is_reported(m, row, i)) {
            act(m, MANAGER_DO_SEAL, m->links[row->members[i] - 1].conn, 0)->note =
                (struct msg_at){ .partition = row->partition, .view = row->view };
        }
    }
}

/* The next view, when every member has reported: the highest (view, seq) leads (R7). */
static bool view_next(const struct manager *m, const struct view_row *row, uint32_t preferred,
                      struct view_row *ret)
{
    const struct need *n = &m->needs[row->partition];
    unsigned best = 0;

    *ret = *row;
    ret->view = row->view + 1;
    for (unsigned i = 0; i < row->n_members; i++) {
        int c;
        if (!is_reported(m, row, i)) {
            return false;
        }
        ret->time_usec = MAX_OF(ret->time_usec, n->reports[i].time_usec);
        c = name_compare(n->reports[i].last, n->reports[best].last);
        if (c > 0 || (c == 0 && row->members[i] == preferred)) {
            best = i;
        }
    }
    ret->members[0] = row->members[best];
    ret->members[best] = row->members[0];
    return true;
}

static void views_propose(struct manager *m)
{
    const struct hashspace *h = &m->cluster.space;
    _cleanup_free_ struct view_row *rows = NULL;
    uint32_t servers[SERVERS_MAX];
    uint32_t n_servers;
    size_t n = 0;
    size_t begin = buf_len(&m->bytes);

    if (m->n_needed == 0) {
        return;
    }
    n_servers = cluster_attached(&m->cluster, servers);
    rows = mem_alloc(MANAGER_VIEWS_MAX * sizeof(*rows));
    for (uint32_t p = 0; p < h->n_partitions && n < MANAGER_VIEWS_MAX; p++) {
        if (m->needs[p].needed) {
            const struct view_row *row = &h->rows[p];
            seal_ask(m, row);
            n += view_next(m, row,
                           placement_primary((uint16_t) p, h->n_partitions, servers, n_servers,
                                             row->members, row->n_members),
                           &rows[n]);
        }
    }
    if (n > 0 && m->views_tag == 0) {
        cluster_put_views(&m->bytes, &m->cluster, rows, n);
        m->views_tag = propose(m, begin);
    }
}

uint32_t manager_waiting(const struct manager *m, uint32_t *ret_server)
{
    const struct hashspace *h = &m->cluster.space;

    *ret_server = 0;
    for (uint32_t p = 0; p < m->n_needs && *ret_server == 0; p++) {
        for (unsigned i = 0; m->needs[p].needed && i < h->rows[p].n_members; i++) {
            if (!manager_server_is_up(m, h->rows[p].members[i])) {
                *ret_server = h->rows[p].members[i];
            }
        }
    }
    return m->n_needed;
}

/* ---- attach ---- */

static bool is_wanted(const struct manager_event *e, const struct hashspace_server *s)
{
    for (uint32_t i = 0; i < e->attach.n; i++) {
        if (strcmp(e->attach.names[i], s->name) == 0) {
            return true;
        }
    }
    return e->attach.n == 0;
}

/* NULL, or why this name does not name one server (in `text`). */
static const char *name_refuses(const struct manager *m, const char *name, char *text,
                                size_t text_bytes)
{
    const struct hashspace *h = &m->cluster.space;
    uint32_t known = 0;
    uint32_t up = 0;

    for (uint32_t i = 0; i < h->n_servers; i++) {
        bool same = strcmp(h->servers[i].name, name) == 0;
        known += same;
        up += same && manager_server_is_up(m, i + 1);
    }
    if (known == 0) {
        snprintf(text, text_bytes, "no server is called \"%s\"; `kumoctl status` lists them", name);
        return text;
    }
    if (up > 1) {
        snprintf(
            text, text_bytes,
            "%u servers are called \"%s\": give each a name of its own (name = in server.conf)", up,
            name);
        return text;
    }
    return NULL;
}

/* NULL, or why these servers can't be attached (in `text`). Fills servers[]. */
static const char *attach_choose(const struct manager *m, const struct manager_event *e,
                                 uint32_t *servers, uint32_t *ret_n, char *text, size_t text_bytes)
{
    const struct hashspace *h = &m->cluster.space;

    *ret_n = 0;
    if (h->n_partitions > 0 && h->rows[0].view > 0) {
        return "the partitions are placed already, and this version can't move them to other "
               "servers";
    }
    for (uint32_t i = 0; i < e->attach.n; i++) {
        const char *why = name_refuses(m, e->attach.names[i], text, text_bytes);
        if (why) {
            return why;
        }
    }
    for (uint32_t i = 0; i < h->n_servers; i++) {
        if (is_wanted(e, &h->servers[i]) && manager_server_is_up(m, i + 1)) {
            servers[(*ret_n)++] = i + 1;
        }
    }
    return NULL;
}

static void on_attach(struct manager *m, const struct manager_event *e)
{
    uint32_t replicas = e->attach.replicas ? e->attach.replicas : m->cluster.replicas;
    char text[MANAGER_TEXT_BYTES_MAX];
    uint32_t servers[SERVERS_MAX];
    struct request *q;
    const char *why;
    size_t begin;
    uint32_t n;

    if (!request_allowed(m, e)) {
        return;
    }
    why = attach_choose(m, e, servers, &n, text, sizeof(text));
    if (!why && n < replicas) {
        snprintf(text, sizeof(text),
                 "%u replicas need %u servers, and %u can be attached now. Start more servers, or "
                 "keep fewer "
                 "copies: attach --replicas %u",
                 replicas, replicas, n, n > 0 ? n : 1);
        why = text;
    }
    if (why) {
        refuse(m, e->conn, e->request, why);
        return;
    }
    begin = buf_len(&m->bytes);
    cluster_put_attach(&m->bytes, replicas, servers, n);
    q = request_add(m, e, propose(m, begin));
    snprintf(q->text, sizeof(q->text), "attached %u server%s: %u partitions, %u replica%s each", n,
             n == 1 ? "" : "s", m->cluster.space.n_partitions, replicas, replicas == 1 ? "" : "s");
}

/* ---- sessions ---- */

static void on_session(struct manager *m, const struct manager_event *e)
{
    size_t begin = buf_len(&m->bytes);

    if (!request_allowed(m, e)) {
        return;
    }
    if (m->cluster.sessions >= MANAGER_SESSIONS_MAX) {
        refuse(m, e->conn, e->request, "too many sessions were opened");
        return;
    }
    cluster_put_session(&m->bytes);
    request_add(m, e, propose(m, begin));
}

/* ---- the log ---- */

static void push_row(struct manager *m, const struct view_row *row)
{
    for (unsigned i = 0; i < row->n_members; i++) {
        if (manager_server_is_up(m, row->members[i])) {
            act(m, MANAGER_DO_VIEW, m->links[row->members[i] - 1].conn, 0)->row = *row;
        }
    }
}

static void push_rows(struct manager *m)
{
    for (size_t i = 0; i < m->effect.n_rows && m->leader; i++) {
        push_row(m, &m->cluster.space.rows[m->effect.rows[i]]);
    }
}

static void on_committed(struct manager *m, const struct manager_event *e)
{
    struct manager_action *a;

    cluster_apply(&m->cluster, e->data.p, e->data.bytes, &m->effect);
    if (m->cluster.space.n_partitions > m->n_needs) {
        kumo_assert(m->n_needs == 0);
        m->n_needs = m->cluster.space.n_partitions;
        m->needs = mem_zalloc(m->n_needs, sizeof(*m->needs));
    }
    for (size_t i = 0; i < m->effect.n_rows; i++) {
        need_clear(m, m->effect.rows[i]);
    }
    push_rows(m);
    if (m->effect.servers || m->effect.n_rows > 0) {
        a = act(m, MANAGER_DO_CHANGED, 0, 0);
        a->changed.rows = m->effect.rows;
        a->changed.n = m->effect.n_rows;
    }
}

static void request_done(struct manager *m, const struct request *q, uint64_t index)
{
    switch (q->kind) {
    case MANAGER_REGISTER:
        if (is_registered(&m->cluster, &q->registration)) {
            accept(m, q->conn, q->request, &q->registration);
        } else {
            const char *why = cluster_refuses(&m->cluster, &q->registration);
            deny(m, q->conn, q->request, &q->registration,
                 why ? why : "registered otherwise at the same time");
        }
        return;
    case MANAGER_SESSION:
        act(m, MANAGER_DO_SESSION, q->conn, q->request)->session = index;
        return;
    default:
        memcpy(act(m, MANAGER_DO_TEXT, q->conn, q->request)->text, q->text, sizeof(q->text));
    }
}

static const char *failure_text(int status)
{
    switch (status) {
    case -EAGAIN:
        return "this manager does not lead";
    case -EREMOTEIO:
        return "outcome unknown: the manager lost its lead";
    case -ENOSPC:
        return "nothing was done: the manager's disk is full";
    default:
        return "nothing was done: the manager's log takes no more now";
    }
}

static void on_done(struct manager *m, const struct manager_event *e)
{
    if (e->done.tag == m->views_tag) {
        m->views_tag = 0; /* whatever became of it: what is still needed is proposed again */
    }
    LIST_FOR_EACH_SAFE(i, &m->requests)
    {
        struct request *q = LIST_ENTRY(i, struct request, link);
        if (q->tag != e->done.tag) {
            continue;
        }
        if (e->done.status == 0) {
            request_done(m, q, e->done.index);
        } else {
            refuse(m, q->conn, q->request, failure_text(e->done.status));
        }
        request_free(m, q);
    }
    if (m->forming && m->cluster.space.n_partitions == 0) {
        m->forming = false;
    }
}

static void on_gone(struct manager *m, uint64_t conn)
{
    uint32_t server = server_of(m, conn);

    if (server > 0) {
        m->links[server - 1] = (struct link){ 0 };
    }
    LIST_FOR_EACH_SAFE(i, &m->requests)
    {
        struct request *q = LIST_ENTRY(i, struct request, link);
        if (q->conn == conn) {
            request_free(m, q);
        }
    }
}

static void tick(struct manager *m)
{
    size_t begin = buf_len(&m->bytes);

    if (!m->leader) {
        return;
    }
    if (m->cluster.space.n_partitions == 0 && !m->forming) {
        cluster_put_form(&m->bytes, m->o.cluster_id, m->o.partitions, m->o.replicas);
        propose(m, begin);
        m->forming = true;
        return;
    }
    views_propose(m);
}

/* What was known by hearsay belongs to the time as leader; rows that committed before it were
 * pushed to nobody. */
static void on_leader(struct manager *m, bool leader)
{
    m->leader = leader;
    m->forming = false;
    m->views_tag = 0;
    for (uint32_t p = 0; p < m->n_needs; p++) {
        need_clear(m, p);
        if (leader) {
            push_row(m, &m->cluster.space.rows[p]);
        }
    }
}

/* ---- the door ---- */

struct manager *manager_new(const struct manager_options *o)
{
    struct manager *m = mem_zalloc(1, sizeof(*m));

    m->o = *o;
    m->effect.rows = mem_alloc(PARTITIONS_MAX * sizeof(*m->effect.rows));
    list_init(&m->requests);
    return m;
}

struct manager *manager_free(struct manager *m)
{
    if (!m) {
        return NULL;
    }
    LIST_FOR_EACH_SAFE(i, &m->requests)
    {
        request_free(m, LIST_ENTRY(i, struct request, link));
    }
    cluster_free(&m->cluster);
    free(m->effect.rows);
    free(m->links);
    free(m->needs);
    buf_free(&m->bytes);
    free(m);
    return NULL;
}

const struct cluster *manager_cluster(const struct manager *m)
{
    return &m->cluster;
}

void manager_step(struct manager *m, uint64_t now_usec, const struct manager_event *e,
                  struct manager_actions *out)
{
    m->out = out;
    m->now_usec = now_usec;
    buf_clear(&m->bytes);
    switch (e->kind) {
    case MANAGER_LEADER:
        on_leader(m, e->flag);
        break;
    case MANAGER_COMMITTED:
        on_committed(m, e);
        break;
    case MANAGER_DONE:
        on_done(m, e);
        break;
    case MANAGER_REGISTER:
        on_register(m, e);
        break;
    case MANAGER_GONE:
        on_gone(m, e->conn);
        break;
    case MANAGER_ACCUSE:
        on_accuse(m, e);
        break;
    case MANAGER_SEALED:
        on_sealed(m, e);
        break;
    case MANAGER_ATTACH:
        on_attach(m, e);
        break;
    case MANAGER_SESSION:
        on_session(m, e);
        break;
    case MANAGER_TICK:
        tick(m);
        break;
    default:
        kumo_unreachable();
    }
    propose_fix(m);
    m->out = NULL;
}

void manager_snapshot(const struct manager *m, struct buf *out)
{
    cluster_put(out, &m->cluster);
}

int manager_restore(struct manager *m, const uint8_t *data, size_t bytes)
{
    struct mp_reader r = mp_reader_of(data, bytes);
    struct cluster c = { 0 };
    int err = cluster_get(&r, &c);

    if (err < 0) {
        cluster_free(&c);
        return err;
    }
    cluster_free(&m->cluster);
    m->cluster = c;
    free(m->needs);
    m->n_needs = c.space.n_partitions;
    m->needs = mem_zalloc(m->n_needs, sizeof(*m->needs));
    m->n_needed = 0;
    return 0;
}
