/* Outgoing connections to the shards of other servers: everything about a partition that goes to
 * another server goes over the one to its shard of that partition, so that the order per partition
 * holds; leases over a second one beside it, so that they wait behind nothing (R10). */
#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/clock.h"
#include "io/log.h"
#include "shard_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct peer_address *address_find(const struct shard_thread *t, uint32_t server)
{
    for (size_t i = 0; t->peers && i < t->peers->n; i++) {
        if (t->peers->v[i].server == server) {
            return &t->peers->v[i];
        }
    }
    return NULL;
}

static void pack_hello(struct rpc *rpc, void *ctx, struct buf *out)
{
    const struct peer_link *l = ctx;

    (void) rpc;
    shard_thread_hello(l->thread, l->shard, l->lane, out);
}

static int on_up(struct rpc *rpc, void *ctx, struct mp_reader *answer)
{
    struct peer_link *l = ctx;
    const struct peer_address *a = address_find(l->thread, l->server);
    struct msg_hello h;

    msg_get_hello_answer(answer, ROLE_SERVER, &h);
    if (!answer->failed && a && h.shards != a->shards) {
        return -EAGAIN; /* it restarted with other threads: the manager's table will say so */
    }
    if (answer->failed || h.server != l->server) {
        log_ratelimit(LOG_LEVEL_WARNING, "%s is not the server that it should be",
                      rpc_peer_name(rpc));
        return -EPROTO;
    }
    l->incarnation = h.incarnation;
    shard_thread_clock(l->thread, l->server, h.clock_usec, SPACE_ROOM);
    if (l->lane == LANE_DATA) {
        shard_thread_step(l->thread, &(struct shard_event){ .kind = SHARD_PEER_UP,
                                                            .from = l->server,
                                                            .incarnation = l->incarnation });
    }
    return 0;
}

/* Grants come back over the connection that asked for leases; nothing else does. */
static void on_notify(struct rpc *rpc, void *ctx, uint32_t method, struct mp_reader *params)
{
    struct peer_link *l = ctx;

    if (method != MSG_GRANTS || l->lane != LANE_LEASES ||
        !shard_thread_leases(l->thread, SHARD_GRANTS, l->server, l->incarnation, params)) {
        log_ratelimit(LOG_LEVEL_WARNING, "closing %s: malformed message %u", rpc_peer_name(rpc),
                      method);
        rpc_link_next(l->link);
    }
}

static void on_closed(struct rpc *rpc, void *ctx, int error, const char *why)
{
    (void) rpc;
    (void) ctx;
    (void) error;
    log_debug("a connection to another server ended: %s", why);
}

static const struct rpc_ops peer_ops = {
    .pack_hello = pack_hello,
    .on_up = on_up,
    .on_notify = on_notify,
    .on_closed = on_closed,
};

static struct peer_link *link_free(struct peer_link *l)
{
    rpc_link_free(l->link);
    for (size_t i = 0; i < _GATHER_MAX; i++) {
        buf_free(&l->gathers[i].items);
    }
    free(l);
    return NULL;
}

static struct peer_link *link_new(struct shard_thread *t, const struct peer_address *a,
                                  uint32_t shard, enum msg_lane lane)
{
    struct peer_link *l = mem_zalloc(1, sizeof(*l));
    struct rpc_config config = {
        .ops = &peer_ops,
        .ctx = l,
        .message_bytes_max = ENTRY_BYTES_MAX + 2 * GATHER_BYTES_MAX,
        .out_bytes_max = lane == LANE_DATA ? PEER_OUT_BYTES_MAX : LEASES_OUT_BYTES_MAX,
    };

    l->thread = t;
    l->server = a->server;
    l->shard = shard;
    l->lane = lane;
    l->link = rpc_link_new(t->loop, &a->addr, 1, &config);
    mem_grow(&t->links, &t->cap_links, t->n_links + 1, sizeof(*t->links));
    t->links[t->n_links++] = l;
    return l;
}

/* The link for a partition to a server, made when first needed. NULL: its address isn't known. */
static struct peer_link *link_for(struct shard_thread *t, uint32_t server, uint16_t partition,
                                  enum msg_lane lane)
{
    const struct peer_address *a = address_find(t, server);
    uint32_t shard;

    if (!a || !a->usable) {
        return NULL;
    }
    shard = partition % a->shards;
    for (size_t i = 0; i < t->n_links; i++) {
        struct peer_link *l = t->links[i];
        if (l->server == server && l->shard == shard && l->lane == lane) {
            return l;
        }
    }
    return link_new(t, a, shard, lane);
}

/* ---- sending ---- */

static const struct {
    uint32_t method;
    enum gather_head head;
} messages[] = {
    [GATHER_PREPARES] = { MSG_PREPARES, HEAD_NONE },
    [GATHER_ACKS] = { MSG_ACKS, HEAD_CLOCK },
    [GATHER_RESENDS] = { MSG_RESEND, HEAD_NONE },
    [GATHER_COMMITS] = { MSG_COMMITS, HEAD_CLOCK },
    [GATHER_CATCHUP_ASKS] = { MSG_CATCHUP_ASK, HEAD_NONE },
    [GATHER_CATCHUP_ACKS] = { MSG_CATCHUP_ACK, HEAD_NONE },
    [GATHER_LEARNED] = { MSG_LEARNED, HEAD_NONE },
    [GATHER_LEASES] = { MSG_LEASES, HEAD_LEASES },
    [GATHER_LEASES_BACK] = { MSG_LEASES_BACK, HEAD_NONE },
};

/* Sends what was gathered; without connection it is dropped. */
static void link_flush(struct peer_link *l, enum peer_gather kind)
{
    struct gather *g = &l->gathers[kind];
    struct rpc *rpc = rpc_link_rpc(l->link);

    if (g->n > 0 && rpc) {
        gather_send(l->thread, g, rpc, messages[kind].method, messages[kind].head);
    }
    buf_clear(&g->items);
    g->n = 0;
}

static struct buf *gather_begin(struct peer_link *l, enum peer_gather kind)
{
    l->gathered = true;
    l->gathers[kind].n++;
    return &l->gathers[kind].items;
}

/* In the order of the prepares; how much of it is under way is the machine's to limit. */
static void catchup_send(struct peer_link *l, struct rpc *rpc, const struct msg_catchup *m)
{
    link_flush(l, GATHER_PREPARES);
    msg_put_catchup(rpc_begin_notify(rpc, MSG_CATCHUP), m);
    if (rpc_end(rpc) < 0) {
        log_ratelimit(LOG_LEVEL_ERROR, "a part of a catch-up is too large for %s and was dropped",
                      rpc_peer_name(rpc));
    }
}

/* The other side may have another number of shards: each gets its own. */
static void leases_put(struct shard_thread *t, const struct action *a)
{
    for (size_t i = 0; i < a->leases.n; i++) {
        struct peer_link *l = link_for(t, a->server, a->leases.v[i].partition, LANE_LEASES);
        struct rpc *rpc = l ? rpc_link_rpc(l->link) : NULL;
        if (!rpc || rpc_out_full(rpc)) {
            continue;
        }
        if (l->gathers[GATHER_LEASES].sent_usec != a->leases.sent_usec) {
            link_flush(l, GATHER_LEASES);
        }
        l->gathers[GATHER_LEASES].sent_usec = a->leases.sent_usec;
        msg_put_lease(gather_begin(l, GATHER_LEASES), &a->leases.v[i]);
    }
}

static uint16_t partition_of(const struct action *a)
{
    switch (a->kind) {
    case ACTION_PREPARE:
        return a->prepare.partition;
    case ACTION_COMMIT:
        return a->commit.partition;
    case ACTION_CATCHUP_ASK:
        return a->ask.partition;
    case ACTION_CATCHUP:
        return a->catchup.partition;
    case ACTION_LEARNED:
        return a->learned.partition;
    default:
        return a->note.partition;
    }
}

static void link_put(struct peer_link *l, const struct action *a)
{
    switch (a->kind) {
    case ACTION_PREPARE:
        msg_put_prepare(gather_begin(l, GATHER_PREPARES), &a->prepare);
        if (buf_len(&l->gathers[GATHER_PREPARES].items) >= GATHER_BYTES_MAX) {
            link_flush(l, GATHER_PREPARES);
        }
        return;
    case ACTION_ACK:
        msg_put_at(gather_begin(l, GATHER_ACKS), &a->note);
        return;
    case ACTION_RESEND:
        msg_put_at(gather_begin(l, GATHER_RESENDS), &a->note);
        return;
    case ACTION_COMMIT:
        msg_put_commit(gather_begin(l, GATHER_COMMITS), &a->commit);
        return;
    case ACTION_CATCHUP_ASK:
        msg_put_catchup_ask(gather_begin(l, GATHER_CATCHUP_ASKS), &a->ask);
        return;
    case ACTION_CATCHUP_ACK:
        msg_put_at(gather_begin(l, GATHER_CATCHUP_ACKS), &a->note);
        return;
    case ACTION_LEARNED:
        msg_put_learned(gather_begin(l, GATHER_LEARNED), &a->learned);
        return;
    case ACTION_LEASE_BACK:
        msg_put_at(gather_begin(l, GATHER_LEASES_BACK), &a->note);
        return;
    default:
        kumo_unreachable();
    }
}

/* What can't be sent is dropped: when the connection comes up, or progress stands still, the core
 * sends it again (SHARD_PEER_UP, SHARD_RESEND_USEC). */
void peers_act(struct shard_thread *t, const struct action *a)
{
    enum msg_lane lane = a->kind == ACTION_LEASE_BACK ? LANE_LEASES : LANE_DATA;
    struct peer_link *l;
    struct rpc *rpc;

    if (a->kind == ACTION_LEASES) {
        leases_put(t, a);
        return;
    }
    l = link_for(t, a->server, partition_of(a), lane);
    rpc = l ? rpc_link_rpc(l->link) : NULL;
    if (rpc && a->kind == ACTION_CATCHUP) {
        catchup_send(l, rpc, &a->catchup);
    } else if (rpc && !rpc_out_full(rpc)) {
        link_put(l, a);
    }
}

void peers_flush(struct shard_thread *t)
{
    for (size_t i = 0; i < t->n_links; i++) {
        for (enum peer_gather kind = 0; t->links[i]->gathered && kind < _GATHER_MAX; kind++) {
            link_flush(t->links[i], kind);
        }
        t->links[i]->gathered = false;
    }
}

void peers_set(struct shard_thread *t, struct peer_table *table)
{
    struct peer_table *old = t->peers;
    size_t kept = 0;

    t->peers = table;
    for (size_t i = 0; i < t->n_links; i++) {
        struct peer_link *l = t->links[i];
        const struct peer_address *a = address_find(t, l->server);
        if (a && a->usable && l->shard < a->shards) {
            rpc_link_set_addrs(l->link, &a->addr, 1);
            t->links[kept++] = l;
        } else {
            link_free(l);
        }
    }
    t->n_links = kept;
    free(old);
}

void peers_close(struct shard_thread *t)
{
    for (size_t i = 0; i < t->n_links; i++) {
        link_free(t->links[i]);
    }
    t->n_links = 0;
}
