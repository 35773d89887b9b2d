/* Accepted connections of a shard: operations in, results out; prepares and acks of other servers
 * in. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/clock.h"
#include "io/log.h"
#include "shard_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct client *client_find(const struct shard_thread *t, uint64_t id)
{
    struct map_node *n = map_first(&t->clients, id);

    return n ? MAP_ENTRY(n, struct client, node) : NULL;
}

static void client_free(struct client *c)
{
    map_remove(&c->thread->clients, &c->node);
    list_remove(&c->dirty);
    buf_free(&c->results.items);
    free(c);
}

/* Another connection of the same session, or NULL. */
static struct client *session_other(const struct client *c)
{
    const struct map *m = &c->thread->clients;

    for (size_t i = 0; i < m->n_buckets; i++) {
        for (struct map_node *n = m->buckets[i]; n; n = n->next) {
            struct client *other = MAP_ENTRY(n, struct client, node);
            if (other != c && other->session == c->session) {
                return other;
            }
        }
    }
    return NULL;
}

/* A message that can't be read: the connection ends. */
static void client_malformed(struct client *c, uint32_t method)
{
    log_ratelimit(LOG_LEVEL_WARNING, "closing %s: malformed message %u", rpc_peer_name(c->rpc),
                  method);
    rpc_close(c->rpc);
    client_free(c);
}

/* ---- operations ---- */

/* Results go back over the connection that asked, if it is still there. */
void clients_result(struct shard_thread *t, const struct action *a)
{
    struct client *c = client_find(t, a->answer.asker.conn);

    if (!c) {
        return;
    }
    msg_put_result(&c->results.items, &a->answer.result);
    c->results.n++;
    if (list_empty(&c->dirty)) {
        list_push_back(&t->dirty_clients, &c->dirty);
    }
    if (buf_len(&c->results.items) >= GATHER_BYTES_MAX) {
        gather_send(t, &c->results, c->rpc, MSG_RESULTS, HEAD_NONE);
    }
}

void clients_peek(struct shard_thread *t, const struct action *a)
{
    struct client *c = client_find(t, a->peek.asker.conn);
    struct buf *b;

    if (!c) {
        return;
    }
    b = rpc_begin_response(c->rpc, a->peek.asker.id);
    mp_put_array(b, 1);
    msg_put_peek(b, &a->peek.peek);
    rpc_end(c->rpc);
    if (list_empty(&c->dirty)) {
        list_push_back(&t->dirty_clients, &c->dirty); /* it is paused when it doesn't read */
    }
}

/* Over the connection that asked: a grant belongs to one pair of processes (R10). */
void clients_grants(struct shard_thread *t, const struct action *a)
{
    struct buf *b;

    if (!t->granting || t->granting->server != a->server || rpc_out_full(t->granting->rpc)) {
        return; /* who asked is gone, or does not read: it asks again */
    }
    b = rpc_begin_notify(t->granting->rpc, MSG_GRANTS);
    mp_put_array(b, 4);
    mp_put_uint(b, clock_real_usec());
    mp_put_uint(b, t->space);
    mp_put_uint(b, a->leases.sent_usec);
    mp_put_array(b, (uint32_t) a->leases.n);
    for (size_t i = 0; i < a->leases.n; i++) {
        msg_put_lease(b, &a->leases.v[i]);
    }
    (void) rpc_end(t->granting->rpc);
}

void clients_flush(struct shard_thread *t)
{
    LIST_FOR_EACH_SAFE(i, &t->dirty_clients)
    {
        struct client *c = LIST_ENTRY(i, struct client, dirty);
        list_remove(i);
        if (c->results.n > 0) {
            gather_send(t, &c->results, c->rpc, MSG_RESULTS, HEAD_NONE);
        }
        if (!c->paused && rpc_out_full(c->rpc)) {
            c->paused = true;
            rpc_pause_read(c->rpc);
        }
    }
}

static void on_drained(struct rpc *rpc, void *ctx)
{
    struct client *c = ctx;

    if (c->paused) {
        c->paused = false;
        rpc_resume_read(rpc);
    }
}

/* A client that doesn't read its results gets no more than its limit of them: a short message can
 * ask for gigabytes. */
static bool is_over_limit(const struct client *c)
{
    return rpc_out_bytes(c->rpc) + buf_len(&c->results.items) > GATEWAY_OUT_BYTES_MAX;
}

static void answer_busy(struct client *c, uint64_t id)
{
    struct action busy = { .kind = ACTION_RESULT };

    busy.answer.asker = (struct asker){ c->id, id };
    busy.answer.result = (struct result){ .id = id, .code = RESULT_BUSY };
    clients_result(c->thread, &busy);
}

/* A session comes over one connection. What still lies unread in an older one is older than
 * anything here: an operation that was tried again over this one, and found nothing to do, must not
 * be done by its first copy. */
static void session_set(struct client *c, uint64_t session)
{
    struct client *old;

    if (c->session == session || session == 0) {
        return;
    }
    c->session = session;
    while ((old = session_other(c))) {
        rpc_close(old->rpc);
        client_free(old);
    }
}

static bool on_ops(struct client *c, struct mp_reader *r)
{
    struct shard_event e = { .kind = SHARD_OP, .op = { .asker = { .conn = c->id } } };
    uint32_t items = mp_get_array(r);
    uint64_t session = mp_get_uint(r);
    uint32_t n = mp_get_array(r);

    session_set(c, session);
    for (uint32_t i = 0; i < n && !r->failed; i++) {
        msg_get_op(r, ENTRY_VALUE_BYTES_MAX, &e.op.op);
        if (!r->failed && is_over_limit(c)) {
            answer_busy(c, e.op.op.id);
        } else if (!r->failed) {
            e.op.op.op.session = session;
            e.op.asker.id = e.op.op.id;
            shard_thread_step(c->thread, &e);
        }
    }
    return items >= 2 && !r->failed;
}

/* ---- replication ---- */

/* The messages of other servers, by method. */
static const struct replication {
    uint32_t method;
    enum msg_lane lane;
    enum shard_event_kind kind;
    enum gather_head head;
} replications[] = {
    { MSG_PREPARES, LANE_DATA, SHARD_PREPARE, HEAD_NONE },
    { MSG_ACKS, LANE_DATA, SHARD_ACK, HEAD_CLOCK },
    { MSG_RESEND, LANE_DATA, SHARD_RESEND, HEAD_NONE },
    { MSG_COMMITS, LANE_DATA, SHARD_COMMIT, HEAD_CLOCK },
    { MSG_CATCHUP_ASK, LANE_DATA, SHARD_CATCHUP_ASK, HEAD_NONE },
    { MSG_CATCHUP, LANE_DATA, SHARD_CATCHUP, HEAD_NONE },
    { MSG_CATCHUP_ACK, LANE_DATA, SHARD_CATCHUP_ACK, HEAD_NONE },
    { MSG_LEARNED, LANE_DATA, SHARD_LEARNED, HEAD_NONE },
    { MSG_LEASES, LANE_LEASES, SHARD_LEASES, HEAD_LEASES },
    { MSG_LEASES_BACK, LANE_LEASES, SHARD_LEASE_BACK, HEAD_NONE },
};

/* NULL: this connection carries no such message. */
static const struct replication *replication_find(const struct client *c, uint32_t method)
{
    for (size_t i = 0; i < ARRAY_LEN(replications) && c->role == ROLE_SERVER; i++) {
        if (replications[i].method == method && replications[i].lane == c->lane) {
            return &replications[i];
        }
    }
    return NULL;
}

/* One item of a replication message into the event. */
static void replication_item(struct mp_reader *r, struct shard_event *e)
{
    switch (e->kind) {
    case SHARD_PREPARE:
        msg_get_prepare(r, &e->prepare);
        return;
    case SHARD_COMMIT:
        msg_get_commit(r, &e->commit);
        return;
    case SHARD_CATCHUP_ASK:
        msg_get_catchup_ask(r, &e->ask);
        return;
    case SHARD_LEARNED:
        msg_get_learned(r, &e->learned);
        return;
    default:
        msg_get_at(r, &e->note);
    }
}

static bool on_items(struct client *c, const struct replication *kind, struct mp_reader *r)
{
    struct shard_event e = { .kind = kind->kind, .from = c->server, .incarnation = c->incarnation };
    bool clock = kind->head == HEAD_CLOCK;
    uint32_t items = mp_get_array(r);
    uint32_t n;

    if (clock) {
        uint64_t clock_usec = mp_get_uint(r);
        uint8_t space = (uint8_t) mp_get_uint_max(r, _SPACE_MAX - 1);
        if (!r->failed) {
            shard_thread_clock(c->thread, c->server, clock_usec, space);
        }
    }
    n = mp_get_array(r);
    for (uint32_t i = 0; i < n && !r->failed; i++) {
        replication_item(r, &e);
        if (!r->failed) {
            shard_thread_step(c->thread, &e);
        }
    }
    return items >= (clock ? 3u : 1u) && !r->failed;
}

static bool on_leases(struct client *c, struct mp_reader *r)
{
    struct shard_thread *t = c->thread;
    bool ok;

    t->granting = c;
    ok = shard_thread_leases(t, SHARD_LEASES, c->server, c->incarnation, r);
    t->granting = NULL;
    return ok;
}

/* One message each: it is large. */
static bool on_catchup(struct client *c, struct mp_reader *r)
{
    struct shard_event e = { .kind = SHARD_CATCHUP,
                             .from = c->server,
                             .incarnation = c->incarnation };

    msg_get_catchup(r, &e.catchup);
    if (!r->failed) {
        shard_thread_step(c->thread, &e);
    }
    return !r->failed;
}

static bool on_replication(struct client *c, uint32_t method, struct mp_reader *r)
{
    const struct replication *kind = replication_find(c, method);

    if (!kind) {
        return false;
    }
    switch (kind->kind) {
    case SHARD_LEASES:
        return on_leases(c, r);
    case SHARD_CATCHUP:
        return on_catchup(c, r);
    default:
        return on_items(c, kind, r);
    }
}

/* ---- the connection ---- */

static void on_notify(struct rpc *rpc, void *ctx, uint32_t method, struct mp_reader *params)
{
    struct client *c = ctx;
    bool ok;

    (void) rpc;
    if (method == MSG_OPS && c->role != ROLE_SERVER) {
        ok = on_ops(c, params);
    } else {
        ok = on_replication(c, method, params);
    }
    if (!ok) {
        client_malformed(c, method);
    }
}

static void on_request(struct rpc *rpc, void *ctx, uint64_t id, uint32_t method,
                       struct mp_reader *params)
{
    struct client *c = ctx;
    struct shard_event e = { .kind = SHARD_PEEK, .peek = { .asker = { c->id, id } } };

    if (is_over_limit(c)) {
        rpc_pause_read(rpc);
        c->paused = true;
    }
    if (method != MSG_PEEK_KEY) {
        rpc_error(rpc, id, MSG_ERROR_REFUSED, "this server doesn't know such a request");
        return;
    }
    if (mp_get_array(params) >= 1) {
        e.peek.key = mp_get_bin(params, ENTRY_KEY_BYTES_MAX, &e.peek.key_len);
    }
    if (params->failed || e.peek.key_len == 0) {
        rpc_error(rpc, id, MSG_ERROR_REFUSED, "no such key is possible");
        return;
    }
    if (is_over_limit(c)) {
        rpc_error(rpc, id, MSG_ERROR_REFUSED, "too many answers are not read");
        return;
    }
    shard_thread_step(c->thread, &e);
}

static void on_closed(struct rpc *rpc, void *ctx, int error, const char *why)
{
    struct client *c = ctx;

    (void) rpc;
    (void) error;
    (void) why;
    client_free(c);
}

/* Another connection of the same shard of the same server, or of an earlier process of it. */
static struct client *server_other(const struct client *c)
{
    const struct map *m = &c->thread->clients;

    for (size_t i = 0; i < m->n_buckets; i++) {
        for (struct map_node *n = m->buckets[i]; n; n = n->next) {
            struct client *other = MAP_ENTRY(n, struct client, node);
            if (other != c && other->role == ROLE_SERVER && other->server == c->server &&
                (other->incarnation < c->incarnation ||
                 (other->lane == c->lane && other->from_shard == c->from_shard))) {
                return other;
            }
        }
    }
    return NULL;
}

/* Nothing of an older connection is read behind this one's first message: what a learner acked
 * there it may have cut since (R17). */
static void server_take_over(struct client *c)
{
    struct client *old;

    while (c->from_shard != SHARD_NONE && (old = server_other(c))) {
        rpc_close(old->rpc);
        client_free(old);
    }
}

static enum rpc_verdict on_hello(struct rpc *rpc, void *ctx, struct mp_reader *params,
                                 struct buf *answer)
{
    struct client *c = ctx;
    struct msg_hello h;

    (void) rpc;
    msg_get_hello(params, &h); /* the main thread found it good */
    c->role = h.role;
    c->lane = (enum msg_lane) h.lane;
    c->server = h.server;
    c->incarnation = h.incarnation;
    c->from_shard = h.from_shard;
    shard_thread_hello(c->thread, h.shard, LANE_DATA, answer);
    if (c->role == ROLE_SERVER) {
        server_take_over(c);
        shard_thread_clock(c->thread, c->server, h.clock_usec, SPACE_ROOM);
    }
    return RPC_HELLO_ACCEPT;
}

static const struct rpc_ops client_ops = {
    .on_hello = on_hello,
    .on_request = on_request,
    .on_notify = on_notify,
    .on_closed = on_closed,
    .on_drained = on_drained,
};

void clients_adopt(struct shard_thread *t, struct rpc_parcel *parcel)
{
    struct client *c;
    struct rpc_config config = {
        .ops = &client_ops,
        .message_bytes_max = ENTRY_BYTES_MAX + 2 * GATHER_BYTES_MAX,
        .out_bytes_max = GATEWAY_OUT_BYTES_MAX,
    };

    if (t->clients.count >= CONNS_MAX) {
        log_ratelimit(LOG_LEVEL_WARNING, "a shard has %u connections: one more was refused",
                      CONNS_MAX);
        rpc_parcel_free(parcel);
        return;
    }
    c = mem_zalloc(1, sizeof(*c));
    c->thread = t;
    c->id = ++t->next_client;
    list_init(&c->dirty);
    map_insert(&t->clients, &c->node, c->id);
    config.ctx = c;
    c->rpc = rpc_adopt(t->loop, parcel, &config);
}

void clients_close(struct shard_thread *t)
{
    struct map_node *n;

    while ((n = map_any(&t->clients))) {
        struct client *c = MAP_ENTRY(n, struct client, node);
        rpc_close(c->rpc);
        client_free(c);
    }
}
