/* Outgoing connections to the shards of other servers: everything about a partition that goes to
 * another server goes over the one to its shard of that partition, so that the order per partition
 * holds. */
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
    shard_thread_hello(l->thread, l->shard, out);
}

static int on_up(struct rpc *rpc, void *ctx, struct mp_reader *answer)
{
    struct peer_link *l = ctx;
    struct msg_hello h;

    (void) rpc;
    const struct peer_address *a = address_find(l->thread, l->server);

    msg_get_hello(answer, &h);
    if (!answer->failed && a && h.shards != a->shards) {
        return -EAGAIN; /* it restarted with other threads: the manager's table will say so */
    }
    if (answer->failed || h.role != ROLE_SERVER || h.server != l->server) {
        log_ratelimit(LOG_LEVEL_WARNING, "%s is not the server that it should be",
                      rpc_peer_name(rpc));
        return -EPROTO;
    }
    shard_thread_step(l->thread, &(struct shard_event){ .kind = SHARD_CLOCK,
                                                        .from = l->server,
                                                        .clock = { .usec = h.clock_usec } });
    shard_thread_step(l->thread, &(struct shard_event){ .kind = SHARD_PEER_UP, .from = l->server });
    return 0;
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
    .on_closed = on_closed,
};

static struct peer_link *link_free(struct peer_link *l)
{
    rpc_link_free(l->link);
    buf_free(&l->prepares.items);
    buf_free(&l->acks.items);
    buf_free(&l->resends.items);
    buf_free(&l->commits.items);
    free(l);
    return NULL;
}

static struct peer_link *link_new(struct shard_thread *t, const struct peer_address *a,
                                  uint32_t shard)
{
    struct peer_link *l = mem_zalloc(1, sizeof(*l));
    struct rpc_config config = {
        .ops = &peer_ops,
        .ctx = l,
        .message_bytes_max = ENTRY_BYTES_MAX + 2 * GATHER_BYTES_MAX,
        .out_bytes_max = PEER_OUT_BYTES_MAX,
    };

    l->thread = t;
    l->server = a->server;
    l->shard = shard;
    l->link = rpc_link_new(t->loop, &a->addr, 1, &config);
    mem_grow(&t->links, &t->cap_links, t->n_links + 1, sizeof(*t->links));
    t->links[t->n_links++] = l;
    return l;
}

/* The link for a partition to a server, made when first needed. NULL: its address isn't known. */
static struct peer_link *link_for(struct shard_thread *t, uint32_t server, uint16_t partition)
{
    const struct peer_address *a = address_find(t, server);
    uint32_t shard;

    if (!a || !a->usable) {
        return NULL;
    }
    shard = partition % a->shards;
    for (size_t i = 0; i < t->n_links; i++) {
        if (t->links[i]->server == server && t->links[i]->shard == shard) {
            return t->links[i];
        }
    }
    return link_new(t, a, shard);
}

static bool gather_is_full(const struct gather *g)
{
    return buf_len(&g->items) >= GATHER_BYTES_MAX;
}

/* What can't be sent is dropped: when the connection comes up, or progress stands still, the core
 * sends it again (SHARD_PEER_UP, SHARD_RESEND_USEC). */
void peers_act(struct shard_thread *t, const struct action *a)
{
    uint16_t partition = a->kind == ACTION_PREPARE  ? a->prepare.partition
                         : a->kind == ACTION_COMMIT ? a->commit.partition
                                                    : a->note.partition;
    struct peer_link *l = link_for(t, a->server, partition);
    struct rpc *rpc = l ? rpc_link_rpc(l->link) : NULL;

    if (!rpc || rpc_out_full(rpc)) {
        return;
    }
    switch (a->kind) {
    case ACTION_PREPARE:
        msg_put_prepare(&l->prepares.items, &a->prepare);
        l->prepares.n++;
        if (gather_is_full(&l->prepares)) {
            gather_send(&l->prepares, rpc, MSG_PREPARES, NULL);
        }
        return;
    case ACTION_ACK:
        msg_put_at(&l->acks.items, &a->note);
        l->acks.n++;
        return;
    case ACTION_RESEND:
        msg_put_at(&l->resends.items, &a->note);
        l->resends.n++;
        return;
    default:
        msg_put_commit(&l->commits.items, &a->commit);
        l->commits.n++;
    }
}

static void gather_flush(struct gather *g, struct rpc *rpc, uint32_t method,
                         const struct shard_thread *clock_of)
{
    if (g->n == 0) {
        return;
    }
    if (rpc) {
        gather_send(g, rpc, method, clock_of);
    } else {
        buf_clear(&g->items);
        g->n = 0;
    }
}

void peers_flush(struct shard_thread *t)
{
    for (size_t i = 0; i < t->n_links; i++) {
        struct peer_link *l = t->links[i];
        struct rpc *rpc = rpc_link_rpc(l->link);
        gather_flush(&l->prepares, rpc, MSG_PREPARES, NULL);
        gather_flush(&l->acks, rpc, MSG_ACKS, t);
        gather_flush(&l->resends, rpc, MSG_RESEND, NULL);
        gather_flush(&l->commits, rpc, MSG_COMMITS, t);
    }
}

/* R13: clocks are learned with heartbeats, commits or not. */
void peers_heartbeat(struct shard_thread *t)
{
    for (size_t i = 0; i < t->n_links; i++) {
        struct rpc *rpc = rpc_link_rpc(t->links[i]->link);
        if (rpc && !rpc_out_full(rpc)) {
            gather_send(&t->links[i]->commits, rpc, MSG_COMMITS, t);
        }
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
