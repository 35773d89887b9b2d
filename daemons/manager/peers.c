#include "peers.h"

#include "base/assert.h"
#include "base/mem.h"
#include "host.h"
#include "io/listener.h"
#include "io/log.h"
#include "io/rpc.h"
#include "peer.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- life ---- */

void peers_init(struct peers *ps, struct host *host)
{
    ps->host = host;
    ps->lobby = rpc_lobby_new();
    list_init(&ps->all);
    list_init(&ps->dirty);
    ps->is_changed = mem_zalloc(PARTITIONS_MAX, sizeof(*ps->is_changed));
    ps->changed_rows = mem_zalloc(PARTITIONS_MAX, sizeof(*ps->changed_rows));
}

static struct peer *peer_find(const struct peers *ps, uint64_t id)
{
    struct map_node *node = map_first(&ps->by_id, map_hash_u64(id));

    return node ? MAP_ENTRY(node, struct peer, node) : NULL; /* the hash is one to one */
}

void peers_accept(struct peers *ps, int fd)
{
    struct peer *p = mem_zalloc(1, sizeof(*p));
    struct rpc_config config = { .ops = &peer_rpc_ops,
                                 .ctx = p,
                                 .message_bytes_max = MSG_BYTES_MAX,
                                 .out_bytes_max = PEERS_OUT_BYTES_MARK,
                                 .lobby = ps->lobby };

    p->peers = ps;
    p->id = ++ps->last_id;
    list_init(&p->dirty);
    list_push_back(&ps->all, &p->link);
    map_insert(&ps->by_id, &p->node, map_hash_u64(p->id));
    p->rpc = rpc_accept(ps->host->loop, fd, &config);
}

/* Forgets it, but for its connection. */
static void peer_free(struct peer *p)
{
    map_remove(&p->peers->by_id, &p->node);
    list_remove(&p->link);
    list_remove(&p->dirty);
    buf_free(&p->batch);
    free(p);
}

void peer_is_manager(struct peer *p)
{
    raft_group_adopt(p->peers->host->group, p->rpc);
    peer_free(p);
}

void peer_gone(struct peer *p, const char *why)
{
    struct peers *ps = p->peers;
    struct manager_event e = { .kind = MANAGER_GONE, .conn = p->id };

    if (p->registered && !ps->host->stopping) {
        log_info("server %s is gone: %s", p->server, why);
    }
    rpc_close(p->rpc);
    peer_free(p);
    listener_release(ps->host->listener);
    host_step(ps->host, &e);
}

void peer_malformed(struct peer *p, const char *what)
{
    log_ratelimit(LOG_LEVEL_WARNING, "closed the connection with %s: it sent %s",
                  rpc_peer_name(p->rpc), what);
    peer_gone(p, "it sent something malformed");
}

void peers_close(struct peers *ps)
{
    while (!list_empty(&ps->all)) {
        peer_gone(LIST_ENTRY(ps->all.next, struct peer, link), "this manager stops");
    }
}

void peers_dismiss(struct peers *ps)
{
    LIST_FOR_EACH_SAFE(i, &ps->all)
    {
        struct peer *p = LIST_ENTRY(i, struct peer, link);
        if (p->role == ROLE_SERVER || p->role == ROLE_GATEWAY) {
            peer_gone(p, "this manager leads no more");
        }
    }
}

void peers_free(struct peers *ps)
{
    kumo_assert(list_empty(&ps->all));
    rpc_lobby_free(ps->lobby);
    map_free(&ps->by_id);
    free(ps->is_changed);
    free(ps->changed_rows);
}

/* ---- sending ---- */

/* Sends the batch; whatever is sent to the peer afterwards comes behind it. */
static void peer_flush(struct peer *p)
{
    struct buf *out;

    if (p->batch_n == 0) {
        return;
    }
    out = rpc_begin_notify(p->rpc, p->batch_method);
    mp_put_array(out, p->batch_n);
    buf_append(out, buf_head(&p->batch), buf_len(&p->batch));
    peer_end(p);
    buf_clear(&p->batch);
    p->batch_n = 0;
    list_remove(&p->dirty);
}

/* Where to append one more item of a notify of this method. */
static struct buf *peer_batch(struct peer *p, uint32_t method)
{
    if (p->batch_method != method) {
        peer_flush(p);
        p->batch_method = method;
    }
    if (p->batch_n++ == 0) {
        list_push_back(&p->peers->dirty, &p->dirty);
    }
    return &p->batch;
}

struct buf *peer_begin_response(struct peer *p, uint64_t request)
{
    peer_flush(p);
    return rpc_begin_response(p->rpc, request);
}

void peer_end(struct peer *p)
{
    if (rpc_end(p->rpc) < 0) {
        log_ratelimit(LOG_LEVEL_ERROR, "a message to %s was too long and was not sent",
                      rpc_peer_name(p->rpc));
    }
}

void peer_error(struct peer *p, uint64_t request, uint32_t code, const char *text)
{
    peer_flush(p);
    rpc_error(p->rpc, request, code, text);
}

void peers_beat(struct peers *ps)
{
    LIST_FOR_EACH(i, &ps->all)
    {
        struct peer *p = LIST_ENTRY(i, struct peer, link);
        if (p->role == ROLE_GATEWAY && rpc_is_up(p->rpc)) {
            peer_flush(p);
            mp_put_array(rpc_begin_notify(p->rpc, MSG_BEAT), 0);
            peer_end(p);
        }
    }
}

/* ---- actions ---- */

static void do_accept(struct peer *p, const struct manager_action *a)
{
    const struct hashspace *space = &manager_cluster(p->peers->host->manager)->space;
    const struct hashspace_server *s = hashspace_server(space, a->accept.server);
    struct buf *out = peer_begin_response(p, a->request);
    uint32_t n = 0;
    size_t place;

    mp_put_array(out, 2);
    msg_put_registered(out, &a->accept);
    place = mp_open_array(out);
    for (uint32_t i = 0; i < space->n_partitions; i++) {
        if (hashspace_row_has(&space->rows[i], a->accept.server)) {
            msg_put_view_row(out, &space->rows[i]);
            n++;
        }
    }
    mp_close_array(out, place, n);
    peer_end(p);
    p->registered = true;
    snprintf(p->server, sizeof(p->server), "%s", s->name);
    log_info("server %s at %s is here: number %u, process %llu, %u shards, in %u partitions",
             s->name, s->address, s->server, (unsigned long long) s->incarnation, s->shards, n);
}

static void do_refuse(struct peer *p, const struct manager_action *a)
{
    if (p->server[0] != '\0' && !p->registered) {
        log_ratelimit(LOG_LEVEL_WARNING, "refused server %s (%s): %s", p->server,
                      rpc_peer_name(p->rpc), a->text);
    }
    peer_error(p, a->request, a->kind == MANAGER_DO_DENY ? MSG_ERROR_DENIED : MSG_ERROR_REFUSED,
               a->text);
}

static void do_changed(struct peers *ps, const struct manager_action *a)
{
    ps->changed = true;
    for (size_t i = 0; i < a->changed.n; i++) {
        uint16_t row = a->changed.rows[i];
        if (!ps->is_changed[row]) {
            ps->is_changed[row] = true;
            ps->changed_rows[ps->n_changed++] = row;
        }
    }
}

static void peer_do(struct peer *p, const struct manager_action *a)
{
    struct buf *out;

    switch (a->kind) {
    case MANAGER_DO_ACCEPT:
        do_accept(p, a);
        return;
    case MANAGER_DO_SESSION:
        out = peer_begin_response(p, a->request);
        mp_put_array(out, 1);
        mp_put_uint(out, a->session);
        peer_end(p);
        return;
    case MANAGER_DO_OVER:
        out = peer_begin_response(p, a->request);
        mp_put_array(out, 1);
        msg_put_session_ids(out, a->over.ids, a->over.n);
        peer_end(p);
        return;
    case MANAGER_DO_SESSIONS:
        peer_flush(p);
        msg_put_sessions(rpc_begin_notify(p->rpc, MSG_SESSIONS), &a->sessions);
        peer_end(p);
        return;
    case MANAGER_DO_TEXT:
        out = peer_begin_response(p, a->request);
        mp_put_array(out, 1);
        mp_put_str(out, a->text);
        peer_end(p);
        log_notice("%s", a->text);
        return;
    case MANAGER_DO_REFUSE:
    case MANAGER_DO_DENY:
        do_refuse(p, a);
        return;
    case MANAGER_DO_CLOSE:
        peer_gone(p, "a newer process of it is here");
        return;
    case MANAGER_DO_SEAL:
        msg_put_at(peer_batch(p, MSG_SEAL), &a->note);
        return;
    case MANAGER_DO_VIEW:
        msg_put_view_row(peer_batch(p, MSG_VIEWS), &a->row);
        return;
    case MANAGER_DO_BEAT:
        peer_flush(p);
        mp_put_array(rpc_begin_notify(p->rpc, MSG_BEAT), 0);
        peer_end(p);
        return;
    default:
        kumo_unreachable();
    }
}

void peers_do(struct peers *ps, const struct manager_action *a)
{
    struct peer *p;

    if (a->kind == MANAGER_DO_CHANGED) {
        do_changed(ps, a);
        return;
    }
    p = peer_find(ps, a->conn);
    if (p && rpc_is_up(p->rpc)) {
        peer_do(p, a);
    }
}

/* ---- the end of a turn ---- */

/* `changes` is the encoded news, the same for all. */
static void peer_tell(struct peer *p, const struct buf *changes)
{
    struct buf *out;

    if (!p->subscribed || !rpc_is_up(p->rpc)) {
        return;
    }
    if (p->stale || rpc_out_full(p->rpc)) {
        p->stale = true; /* on_drained sends the whole table */
        return;
    }
    peer_flush(p);
    out = rpc_begin_notify(p->rpc, MSG_TABLE_CHANGED);
    buf_append(out, changes->data + changes->start, buf_len(changes));
    peer_end(p);
}

static void peers_tell(struct peers *ps)
{
    struct buf changes = { 0 };

    if (!ps->changed) {
        return;
    }
    hashspace_put(&changes, &manager_cluster(ps->host->manager)->space, ps->changed_rows,
                  ps->n_changed);
    LIST_FOR_EACH(i, &ps->all)
    {
        peer_tell(LIST_ENTRY(i, struct peer, link), &changes);
    }
    buf_free(&changes);
    for (size_t i = 0; i < ps->n_changed; i++) {
        ps->is_changed[ps->changed_rows[i]] = false;
    }
    ps->n_changed = 0;
    ps->changed = false;
}

void peers_flush(struct peers *ps)
{
    while (!list_empty(&ps->dirty)) {
        peer_flush(LIST_ENTRY(ps->dirty.next, struct peer, dirty));
    }
    peers_tell(ps);
    LIST_FOR_EACH_SAFE(i, &ps->all)
    {
        struct peer *p = LIST_ENTRY(i, struct peer, link);
        if (rpc_out_bytes(p->rpc) > PEERS_OUT_BYTES_MAX) {
            log_ratelimit(LOG_LEVEL_WARNING, "closed the connection with %s: it reads too slowly",
                          rpc_peer_name(p->rpc));
            peer_gone(p, "it reads too slowly");
        }
    }
}
