#include "link.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "gateway.h"
#include "io/clock.h"
#include "io/log.h"
#include "io/rpc.h"
#include "thread.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct shard_link {
    struct list node;  /* in thread.links */
    struct list dirty; /* in thread.dirty_links */
    struct thread *thread;
    uint32_t server;
    uint32_t shard;
    bool up;
    bool silent; /* to be broken at the turn's end */
    struct rpc_link *rpc_link;
    char address[ADDRESS_BYTES_MAX]; /* that rpc_link was made with */
    uint64_t session;                /* of what is gathered */
    uint32_t n_ops;
    struct buf ops;
};

/* ---- what is gathered ---- */

static const char *server_name(const struct shard_link *l)
{
    const struct hashspace_server *s = hashspace_server(&l->thread->table, l->server);

    return s ? s->name : "(unknown)";
}

static void link_flush(struct shard_link *l)
{
    struct rpc *rpc = l->rpc_link ? rpc_link_rpc(l->rpc_link) : NULL;
    struct buf *out;
    int r;

    list_remove(&l->dirty);
    if (l->silent && rpc) {
        log_ratelimit(LOG_LEVEL_NOTICE, "server %s gives no answer: connecting anew",
                      server_name(l));
        rpc_link_next(l->rpc_link);
        return;
    }
    if (rpc && l->n_ops > 0) {
        out = rpc_begin_notify(rpc, MSG_OPS);
        mp_put_array(out, 2);
        mp_put_uint(out, l->session);
        mp_put_array(out, l->n_ops);
        buf_append(out, buf_head(&l->ops), buf_len(&l->ops));
        r = rpc_end(rpc);
        kumo_assert(r != -EMSGSIZE);
        counter_add(&l->thread->counters, COUNTER_OPS_SENT, l->n_ops);
        counter_add(&l->thread->counters, COUNTER_OPS_MESSAGES, 1);
    }
    l->silent = false;
    l->n_ops = 0;
    buf_clear(&l->ops);
    buf_trim(&l->ops, LINK_MESSAGE_BYTES / 16);
}

void link_flush_all(struct thread *t)
{
    while (!list_empty(&t->dirty_links)) {
        link_flush(LIST_ENTRY(t->dirty_links.next, struct shard_link, dirty));
    }
}

static struct shard_link *link_find(const struct thread *t, uint32_t server, uint32_t shard)
{
    return server < t->n_link_servers && shard < SHARDS_MAX ? t->link_table[server][shard] : NULL;
}

void link_send(struct thread *t, uint32_t server, uint32_t shard, uint64_t session,
               const struct op *op)
{
    struct shard_link *l = link_find(t, server, shard);

    kumo_assert(l);
    /* a get has no session and may go with any */
    if (l->n_ops > 0 && ((session > 0 && l->session > 0 && l->session != session) ||
                         buf_len(&l->ops) + op->value_len > LINK_MESSAGE_BYTES)) {
        link_flush(l);
    }
    if (l->n_ops == 0) {
        l->session = 0;
        if (list_empty(&l->dirty)) {
            list_push_back(&t->dirty_links, &l->dirty);
        }
        thread_wake(t);
    }
    l->session = session > 0 ? session : l->session;
    l->n_ops++;
    msg_put_op(&l->ops, op);
}

void link_reconnect(struct thread *t, uint32_t server, uint32_t shard)
{
    struct shard_link *l = link_find(t, server, shard);

    kumo_assert(l);
    l->silent = true;
    if (list_empty(&l->dirty)) {
        list_push_back(&t->dirty_links, &l->dirty);
    }
    thread_wake(t);
}

/* ---- the connection ---- */

static void pack_hello(struct rpc *rpc, void *ctx, struct buf *out)
{
    struct shard_link *l = ctx;
    struct msg_hello h = { .protocol_min = MSG_PROTOCOL_MIN,
                           .protocol_max = MSG_PROTOCOL_MAX,
                           .role = ROLE_GATEWAY,
                           .shard = l->shard,
                           .clock_usec = clock_real_usec() };

    (void) rpc;
    memcpy(h.cluster_id, l->thread->table.cluster_id, UUID_BYTES);
    msg_put_hello(out, &h);
}

static int on_up(struct rpc *rpc, void *ctx, struct mp_reader *answer)
{
    struct shard_link *l = ctx;
    const struct hashspace_server *known;
    struct msg_hello h;

    msg_get_hello_answer(answer, ROLE_SERVER, &h);
    if (answer->failed) {
        return -EBADMSG;
    }
    if (h.server != l->server) {
        log_ratelimit(LOG_LEVEL_WARNING,
                      "at %s there is server number %u, not %s (number %u); trying again",
                      rpc_peer_name(rpc), h.server, server_name(l), l->server);
        return -EPERM;
    }
    known = hashspace_server(&l->thread->table, l->server);
    if (!known || known->shards != h.shards) {
        return -EAGAIN; /* it restarted with other threads: the manager's table will say so */
    }
    if (atomic_exchange(&l->thread->gateway->server_down[l->server], false)) {
        log_notice("server %s at %s answers again", server_name(l), rpc_peer_name(rpc));
    }
    thread_note_time(l->thread);
    l->up = true;
    route_link_up(l->thread->route, l->thread->now_usec, l->server, l->shard, &l->thread->actions);
    thread_act(l->thread);
    return 0;
}

static void on_closed(struct rpc *rpc, void *ctx, int error, const char *why)
{
    struct shard_link *l = ctx;

    (void) rpc;
    (void) error;
    if (!l->thread->stopping &&
        !atomic_exchange(&l->thread->gateway->server_down[l->server], true)) {
        log_warning("no connection to server %s at %s: %s; trying again", server_name(l),
                    l->address, why);
    }
    l->silent = false;
    l->n_ops = 0;
    buf_clear(&l->ops);
    list_remove(&l->dirty);
    if (l->up) {
        thread_note_time(l->thread);
        l->up = false;
        route_link_down(l->thread->route, l->thread->now_usec, l->server, l->shard,
                        &l->thread->actions);
        thread_act(l->thread);
    }
}

/* MSG_RESULTS: [[result…]] */
static void on_notify(struct rpc *rpc, void *ctx, uint32_t method, struct mp_reader *params)
{
    struct shard_link *l = ctx;
    struct result res;
    uint32_t n;

    if (method != MSG_RESULTS) {
        return;
    }
    thread_note_time(l->thread);
    (void) mp_get_array(params);
    n = mp_get_array(params);
    for (uint32_t i = 0; i < n && !params->failed; i++) {
        msg_get_result(params, &res);
        if (!params->failed) {
            route_result(l->thread->route, l->thread->now_usec, l->server, l->shard, &res,
                         &l->thread->actions);
            thread_act(l->thread);
        }
    }
    if (params->failed) {
        log_ratelimit(LOG_LEVEL_ERROR, "server %s sent results that can't be read: closing",
                      server_name(l));
        rpc_close_after_flush(rpc);
    }
}

static const struct rpc_ops link_ops = {
    .pack_hello = pack_hello,
    .on_up = on_up,
    .on_notify = on_notify,
    .on_closed = on_closed,
};

/* Numbers first: names ask the resolver, which takes its time. */
static int address_parse(const char *text, struct addr *addrs)
{
    struct io_error error;
    int n = addr_parse_numeric(text, 0, &addrs[0], &error);

    if (n == 0) {
        return 1;
    }
    n = addr_parse(text, 0, addrs, LINK_ADDRESSES_MAX, &error);
    if (n < 0) {
        log_ratelimit(LOG_LEVEL_ERROR, "server address %s: %s", text, error.text);
    }
    return n;
}

/* Connects to the address that the hash space has, when it is another one. */
static void link_check_address(struct shard_link *l)
{
    const struct hashspace_server *s = hashspace_server(&l->thread->table, l->server);
    struct rpc_config config = { .ops = &link_ops,
                                 .ctx = l,
                                 .message_bytes_max = LINK_MESSAGE_BYTES_MAX,
                                 .out_bytes_max = LINK_OUT_BYTES_MAX };
    struct addr addrs[LINK_ADDRESSES_MAX];
    int n;

    if (s && l->shard >= s->shards) { /* it came back with fewer threads */
        l->rpc_link = rpc_link_free(l->rpc_link);
        l->address[0] = '\0';
        return;
    }
    if (!s || strcmp(s->address, l->address) == 0) {
        return;
    }
    n = address_parse(s->address, addrs);
    if (n > 0) {
        memcpy(l->address, s->address, sizeof(l->address));
    }
    if (n > 0 && l->rpc_link) {
        rpc_link_set_addrs(l->rpc_link, addrs, (size_t) n);
    } else if (n > 0) {
        l->rpc_link = rpc_link_new(l->thread->loop, addrs, (size_t) n, &config);
    }
}

static void link_table_add(struct thread *t, struct shard_link *l)
{
    if (l->server >= t->n_link_servers) {
        t->link_table = mem_realloc(t->link_table, (l->server + 1) * sizeof(*t->link_table));
        memset(t->link_table + t->n_link_servers, 0,
               (l->server + 1 - t->n_link_servers) * sizeof(*t->link_table));
        t->n_link_servers = l->server + 1;
    }
    t->link_table[l->server][l->shard] = l;
}

void link_connect(struct thread *t, uint32_t server, uint32_t shard)
{
    struct shard_link *l = mem_zalloc(1, sizeof(*l));

    kumo_assert(!link_find(t, server, shard));
    kumo_assert(shard < SHARDS_MAX);
    l->thread = t;
    l->server = server;
    l->shard = shard;
    list_init(&l->dirty);
    list_push_back(&t->links, &l->node);
    link_table_add(t, l);
    link_check_address(l);
}

void link_check_addresses(struct thread *t)
{
    LIST_FOR_EACH_SAFE(node, &t->links)
    {
        link_check_address(LIST_ENTRY(node, struct shard_link, node));
    }
}

void link_free_all(struct thread *t)
{
    LIST_FOR_EACH_SAFE(node, &t->links)
    {
        struct shard_link *l = LIST_ENTRY(node, struct shard_link, node);
        rpc_link_free(l->rpc_link);
        buf_free(&l->ops);
        free(l);
    }
    list_init(&t->links);
    list_init(&t->dirty_links);
    free(t->link_table);
    t->link_table = NULL;
    t->n_link_servers = 0;
}
