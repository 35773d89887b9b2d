/* The life of a raft node: start, proposals, end. See raft_node.h; its turns are in raft_loop.c. */
#include "io/raft_node.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/raft_internal.h"
#include "io/raft_wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <syslog.h>

/* Times for managers in one data centre. */
#define ELECTION_MSEC  500
#define HEARTBEAT_MSEC 50
/* The default of 30 s stalls a follower that takes a snapshot itself. */
#define SNAPSHOT_INSTALL_MSEC 1000

static int error_from_raft(int rv)
{
    switch (rv) {
    case 0:
        return 0;
    case RAFT_NOMEM:
        return -ENOMEM;
    case RAFT_CORRUPT:
    case RAFT_MALFORMED:
        return -EBADMSG;
    case RAFT_NOSPACE:
        return -ENOSPC;
    case RAFT_NOTFOUND:
        return -ENOENT;
    case RAFT_UNAUTHORIZED:
        return -EACCES;
    case RAFT_INVALID:
        return -EINVAL;
    case RAFT_NAMETOOLONG:
        return -ENAMETOOLONG;
    default:
        return -EIO;
    }
}

static bool node_is_leader(const struct raft_node *n)
{
    return n->state == NODE_RUNNING && n->announced && n->raft.state == RAFT_LEADER &&
           n->leader_term == raft_current_term(&n->raft);
}

static const struct raft_node *node_of(const struct consensus *c)
{
    return (const struct raft_node *) (const void *) c;
}

static void proposal_done(struct raft_apply *req, int status, void *result)
{
    struct proposal *p = req->data;
    struct raft_node *n = p->owner;
    consensus_done_fn done = p->done;
    void *ctx = p->ctx;
    uint64_t index = status == 0 ? p->req.index : 0;

    (void) result;
    list_remove(&p->node);
    n->n_pending--;
    n->pending_bytes -= p->bytes;
    free(p);
    if (done) {
        done(ctx, status == 0 ? 0 : status == RAFT_LEADERSHIPLOST ? -EREMOTEIO : -EIO, index);
    }
}

/* Whether a proposal of so many bytes may be made now. */
static int propose_check(const struct raft_node *n, size_t bytes)
{
    if (n->state == NODE_FAILED || n->io_failed || n->io.errmsg[0] != '\0') {
        return -EIO;
    }
    if (!node_is_leader(n)) {
        return -EAGAIN;
    }
    if (bytes > RAFT_NODE_ENTRY_BYTES_MAX) {
        return -EMSGSIZE;
    }
    if (n->n_pending >= RAFT_NODE_PENDING_MAX ||
        n->pending_bytes + bytes > RAFT_NODE_PENDING_BYTES_MAX) {
        return -ENOBUFS;
    }
    return 0;
}

static void on_handed_over(struct raft_transfer *req)
{
    struct raft_node *n = req->data;

    n->handing_over = false;
}

/* A leader without room decides nothing any more: another one may have room. */
static void node_hand_over(struct raft_node *n)
{
    if (n->raft.configuration.n == 1 || n->handing_over) {
        return;
    }
    n->transfer.data = n;
    n->handing_over = raft_transfer(&n->raft, &n->transfer, 0, on_handed_over) == 0;
    if (n->handing_over) {
        raft_glue_log(&n->options, LOG_WARNING,
                      "no room on the disk for the raft log: another manager is to lead");
        raft_loop_wake(n);
    }
}

/* Hands the entry to raft, which owns its memory when it takes it. */
static int propose_submit(struct raft_node *n, struct proposal *p, const struct raft_buffer *entry)
{
    int rv = raft_apply(&n->raft, &p->req, entry, 1, proposal_done);

    if (rv == RAFT_NOTLEADER || rv == RAFT_NOSPACE) {
        raft_free(entry->base);
        if (rv == RAFT_NOSPACE) {
            node_hand_over(n);
        }
        return rv == RAFT_NOSPACE ? -ENOSPC : -EAGAIN;
    }
    if (rv != 0) {
        n->io_failed = true; /* half done: raft can't go on, and may have freed the entry */
        return -EIO;
    }
    return 0;
}

static int node_propose(struct consensus *c, const uint8_t *data, size_t bytes,
                        consensus_done_fn done, void *ctx)
{
    struct raft_node *n = (struct raft_node *) (void *) c;
    struct raft_buffer entry;
    int r = propose_check(n, bytes);

    kumo_assert(!n->in_fsm);
    if (r < 0) {
        return r;
    }
    r = raft_store_entry_encode(data, bytes, &entry);
    if (r < 0) {
        return r;
    }
    struct proposal *p = mem_zalloc(1, sizeof(*p));
    *p = (struct proposal){ .owner = n, .bytes = bytes, .done = done, .ctx = ctx };
    p->req.data = p;
    r = propose_submit(n, p, &entry);
    if (r < 0) {
        free(p);
        return r;
    }
    raft_loop_wake(n);
    list_push_back(&n->pending, &p->node);
    n->n_pending++;
    n->pending_bytes += bytes;
    return 0;
}

static bool consensus_op_is_leader(const struct consensus *c)
{
    return node_is_leader(node_of(c));
}

static uint64_t consensus_op_applied(const struct consensus *c)
{
    return node_of(c)->raft.last_applied;
}

static const struct consensus_ops node_ops = {
    .propose = node_propose,
    .is_leader = consensus_op_is_leader,
    .applied = consensus_op_applied,
};

struct consensus *raft_node_consensus(struct raft_node *n)
{
    return &n->consensus;
}

void raft_node_free_events(struct raft_node *n)
{
    if (n->readable) {
        event_free(TAKE_PTR(n->readable));
    }
    if (n->timer) {
        event_free(TAKE_PTR(n->timer));
    }
}

/* The library must hold nothing any more. */
static void node_free(struct raft_node *n)
{
    int rv = uv_loop_close(&n->loop);

    kumo_assert(rv == 0);
    kumo_assert(list_empty(&n->pending));
    raft_node_free_events(n);
    raft_store_close(&n->store);
    free(n->dir);
    free(n);
}

static int node_bootstrap(struct raft_node *n)
{
    const struct raft_node_server alone = { .id = n->options.id, .address = n->options.address };
    const struct raft_node_server *servers = n->options.n_servers > 0 ? n->options.servers : &alone;
    struct raft_configuration conf;
    int rv = 0;

    raft_configuration_init(&conf);
    for (size_t i = 0; i < MAX_OF(n->options.n_servers, (size_t) 1) && rv == 0; i++) {
        rv = raft_configuration_add(&conf, servers[i].id, servers[i].address, RAFT_VOTER);
    }
    if (rv == 0) {
        rv = raft_bootstrap(&n->raft, &conf);
    }
    raft_configuration_close(&conf);
    return rv;
}

static void node_set_up_raft(struct raft_node *n)
{
    n->raft.data = n;
    n->raft.tracer = NULL;
    raft_set_election_timeout(&n->raft, ELECTION_MSEC);
    raft_set_heartbeat_timeout(&n->raft, HEARTBEAT_MSEC);
    raft_set_install_snapshot_timeout(&n->raft, SNAPSHOT_INSTALL_MSEC);
    raft_set_pre_vote(&n->raft, true);
    raft_set_snapshot_threshold(&n->raft, RAFT_NODE_SNAPSHOT_THRESHOLD);
    raft_set_snapshot_trailing(&n->raft, RAFT_NODE_SNAPSHOT_TRAILING);
}

/* Starts raft on what the directory holds. After an error raft has still to be closed. */
static int node_start_raft(struct raft_node *n, char *why)
{
    int rv = n->options.bootstrap && n->store.empty ? node_bootstrap(n) : 0;

    if (rv == 0) {
        rv = raft_start(&n->raft);
    }
    if (rv != 0 || n->io_failed) {
        const char *text = n->io.errmsg[0] != '\0' ? n->io.errmsg : raft_strerror(rv);
        snprintf(why, RAFT_WHY_BYTES, "%s", text);
        return rv != 0 ? error_from_raft(rv) : -EIO;
    }
    if (n->raft.configuration.n > 0 && raft_role(&n->raft) < 0) {
        snprintf(why, RAFT_WHY_BYTES, "it belongs to another manager than number %llu",
                 (unsigned long long) n->options.id);
        return -EINVAL;
    }
    /* Loading leaves words there also when it succeeds; from here on they are news. */
    n->io.errmsg[0] = '\0';
    return 0;
}

void raft_node_free(struct raft_node *n)
{
    raft_uv_close(&n->io);
    node_free(n);
}

/* Closes raft and waits: nothing is under way yet that could take long. */
static void node_stop_raft(struct raft_node *n)
{
    raft_close(&n->raft, raft_loop_closed);
    while (!n->uv_closed || uv_loop_alive(&n->loop)) {
        uv_run(&n->loop, UV_RUN_ONCE);
    }
}

static int node_open(struct raft_node *n, char *why)
{
    int rv = raft_uv_init(&n->io, &n->loop, n->dir, &n->transport);
    int r;

    if (rv != 0) {
        snprintf(why, RAFT_WHY_BYTES, "%s", n->io.errmsg);
        return error_from_raft(rv);
    }
    raft_glue_watch_io(n);
    rv = raft_init(&n->raft, &n->io, &n->raft_fsm, n->options.id, n->options.address);
    if (rv != 0) {
        snprintf(why, RAFT_WHY_BYTES, "%s", raft_errmsg(&n->raft));
        raft_uv_close(&n->io);
        return error_from_raft(rv);
    }
    node_set_up_raft(n);
    r = node_start_raft(n, why);
    if (r < 0) {
        node_stop_raft(n);
        raft_uv_close(&n->io);
    }
    return r;
}

static int node_start_events(struct raft_node *n)
{
    struct event_base *base = n->options.base;

    n->readable = event_new(base, uv_backend_fd(&n->loop), EV_READ | EV_PERSIST, raft_loop_turn, n);
    n->timer = evtimer_new(base, raft_loop_turn, n);
    if (!n->readable || !n->timer || event_add(n->readable, NULL) < 0) {
        return -ENOMEM;
    }
    raft_loop_wake(n);
    return 0;
}

static struct raft_node *node_new(const struct raft_node_options *o)
{
    struct raft_node *n = mem_zalloc(1, sizeof(*n));

    n->consensus.ops = &node_ops;
    n->options = *o;
    n->dir = mem_alloc(strlen(o->dir) + 1);
    strcpy(n->dir, o->dir);
    n->options.dir = n->dir;
    n->store.lock_fd = -1;
    list_init(&n->pending);
    raft_glue_prepare(n);
    return n;
}

/* Tells why a start failed, once and as a whole sentence. */
static int start_failed(const struct raft_node_options *o, const char *why, int r)
{
    char text[RAFT_WHY_BYTES + 256];

    snprintf(text, sizeof(text), "manager's raft log in %s can't be opened: %s",
             o->dir ? o->dir : "(no directory)", why);
    raft_glue_log(o, LOG_ERR, text);
    return r;
}

int raft_node_start(const struct raft_node_options *o, struct raft_node **ret_node)
{
    char why[RAFT_WHY_BYTES] = "";
    int r;

    if (!o->base || !o->dir || !o->address || o->id == 0) {
        return start_failed(o, "no loop, directory, address, or manager number given", -EINVAL);
    }
    struct raft_node *n = node_new(o);
    r = uv_loop_init(&n->loop);
    if (r < 0) {
        r = start_failed(o, uv_strerror(r), r); /* libuv's errors are -errno here */
        free(n->dir);
        free(n);
        return r;
    }
    r = raft_store_open(n->dir, &n->store, why, sizeof(why));
    if (r == 0) {
        r = node_open(n, why);
    }
    if (r < 0) {
        node_free(n);
        return start_failed(o, why, r);
    }
    r = node_start_events(n);
    if (r < 0) {
        node_stop_raft(n);
        raft_node_free(n);
        return start_failed(o, "out of memory", r);
    }
    *ret_node = n;
    return 0;
}

/* ---- the other managers ---- */

int raft_node_look(const struct raft_node_options *o, bool *ret_begun)
{
    char why[RAFT_WHY_BYTES] = "";
    struct raft_store store;
    int r = raft_store_open(o->dir, &store, why, sizeof(why));

    if (r < 0) {
        return start_failed(o, why, r);
    }
    *ret_begun = !store.empty;
    raft_store_close(&store);
    return 0;
}

size_t raft_node_servers(const struct raft_node *n, struct raft_node_server *ret, size_t max)
{
    const struct raft_configuration *c = &n->raft.configuration;

    for (unsigned i = 0; i < c->n && i < max; i++) {
        ret[i] = (struct raft_node_server){ c->servers[i].id, c->servers[i].address };
    }
    return c->n;
}

/* Whether raft can't take the message now, or at all. */
static bool message_is_refused(struct raft_node *n, const struct raft_message *m)
{
    bool leads = raft_state(&n->raft) == RAFT_LEADER;
    raft_term term = raft_current_term(&n->raft);

    if (m->type == RAFT_INSTALL_SNAPSHOT && n->raft.legacy.snapshot_taking) {
        return true; /* 0.22.1 would forget it and then look at it; it is sent again */
    }
    if (leads && ((m->type == RAFT_APPEND_ENTRIES && m->append_entries.term == term) ||
                  (m->type == RAFT_INSTALL_SNAPSHOT && m->install_snapshot.term == term))) {
        n->fatal = "two managers lead in the same term: one of the group has lost its data-dir, or "
                   "runs on a copy of it; stop the one that does";
        raft_loop_wake(n);
        return true; /* raft trusts that this can't be */
    }
    return false;
}

int raft_node_receive(struct raft_node *n, uint64_t from, struct mp_reader *message)
{
    struct raft_message m;
    int r;

    kumo_assert(!n->in_fsm);
    if (n->state != NODE_RUNNING || n->io_failed || n->io.errmsg[0] != '\0' || n->fatal) {
        return 0;
    }
    r = raft_wire_get(message, &m);
    if (r < 0) {
        return r == -EBADMSG ? r : 0; /* without memory it is lost, as on a network */
    }
    if (message_is_refused(n, &m)) {
        raft_wire_free(&m);
        return 0;
    }
    m.server_id = from;
    m.server_address = "-"; /* it goes by ids */
    uv_update_time(&n->loop);
    n->recv(&n->io, &m);
    raft_loop_wake(n);
    return 0;
}

void raft_node_state(struct raft_node *n, struct raft_node_state *ret)
{
    const char *address;
    raft_id leader = 0;

    if (n->state == NODE_RUNNING) {
        raft_leader(&n->raft, &leader, &address);
    }
    *ret = (struct raft_node_state){
        .leads = node_is_leader(n),
        .leader = leader,
        .term = raft_current_term(&n->raft),
    };
}

void raft_node_close(struct raft_node *n, void (*closed)(void *ctx), void *ctx)
{
    kumo_assert(!n->close_queued);
    kumo_assert(!n->in_fsm);
    n->close_queued = true;
    n->closed = closed;
    n->closed_ctx = ctx;
    if (n->state == NODE_RUNNING) {
        n->state = NODE_CLOSING;
    }
    raft_loop_wake(n);
}
