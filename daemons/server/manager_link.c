/* The connection to the managers: registration, views, seals. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/clock.h"
#include "io/daemon.h"
#include "io/log.h"
#include "server_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REGISTER_TIMEOUT_USEC 5000000
#define MANAGERS_MAX          16
#define MANAGER_OUT_BYTES_MAX (16u << 20)

/* ---- to the manager ---- */

void manager_link_sealed(void *ctx, const struct msg_sealed *sealed, size_t n)
{
    struct server *s = ctx;
    struct rpc *rpc = s->manager ? rpc_link_rpc(s->manager) : NULL;
    struct buf *b;

    if (!rpc || !s->registered) {
        return; /* asked for again */
    }
    b = rpc_begin_notify(rpc, MSG_SEALED);
    mp_put_array(b, (uint32_t) n);
    for (size_t i = 0; i < n; i++) {
        msg_put_sealed(b, &sealed[i]);
    }
    rpc_end(rpc);
}

void manager_link_reconfig(void *ctx, const struct msg_reconfig *asked, size_t n)
{
    struct server *s = ctx;
    struct rpc *rpc = s->manager ? rpc_link_rpc(s->manager) : NULL;
    struct buf *b;

    if (!rpc || !s->registered) {
        return; /* made again */
    }
    b = rpc_begin_notify(rpc, MSG_RECONFIG);
    mp_put_array(b, (uint32_t) n);
    for (size_t i = 0; i < n; i++) {
        msg_put_reconfig(b, &asked[i]);
    }
    rpc_end(rpc);
}

/* ---- rows and seals to the shards ---- */

static bool on_views(struct server *s, struct mp_reader *params)
{
    size_t n;
    _cleanup_free_ struct view_row *rows = rows_read(params, &n);

    if (rows && s->registered) {
        rows_take(s, rows, n, ROWS_CHANGED);
    }
    return rows != NULL;
}

/* The manager leads; it is told that this process lives: a clone of its data must not take its
 * place.
 */
static void on_beat(struct server *s, struct rpc *rpc)
{
    mp_put_array(rpc_begin_notify(rpc, MSG_BEAT), 0);
    (void) rpc_end(rpc);
    for (uint32_t shard = 0; shard < s->n_shards && s->registered; shard++) {
        (void) shard_thread_beat(s->shards[shard]); /* the next one comes soon */
    }
}

static bool on_seal(struct server *s, struct mp_reader *params)
{
    uint32_t n = mp_get_array(params);
    _cleanup_free_ struct msg_at *all = NULL;
    _cleanup_free_ struct msg_at *mine = NULL;

    if (n > PARTITIONS_MAX || params->failed) {
        return false;
    }
    all = mem_alloc(n * sizeof(*all));
    mine = mem_alloc(n * sizeof(*mine));
    for (uint32_t i = 0; i < n; i++) {
        msg_get_at(params, &all[i]);
    }
    for (uint32_t shard = 0; shard < s->n_shards && s->registered && !params->failed; shard++) {
        size_t k = 0;
        for (uint32_t i = 0; i < n; i++) {
            if (all[i].partition % s->n_shards == shard) {
                mine[k++] = all[i];
            }
        }
        if (k > 0) {
            (void) shard_thread_seals(s->shards[shard], mine, k); /* asked for again */
        }
    }
    return !params->failed;
}

/* Each shard keeps the set for itself. */
static bool on_sessions(struct server *s, struct mp_reader *params)
{
    _cleanup_free_ uint64_t *ids = mem_alloc((size_t) (params->end - params->p + 1) * sizeof(*ids));
    struct msg_sessions m;

    msg_get_sessions(params, ids, &m);
    for (uint32_t shard = 0; shard < s->n_shards && !params->failed; shard++) {
        if (shard_thread_sessions(s->shards[shard], &m) < 0) {
            server_fail(s, "a shard's mailbox is full");
        }
    }
    return !params->failed;
}

/* ---- the table of servers ---- */

static void peers_distribute(struct server *s)
{
    struct io_error error;

    for (uint32_t shard = 0; shard < s->n_shards; shard++) {
        struct peer_table *t =
            mem_alloc(sizeof(*t) + s->space.n_servers * sizeof(struct peer_address));
        t->n = s->space.n_servers;
        for (size_t i = 0; i < t->n; i++) {
            const struct hashspace_server *h = &s->space.servers[i];
            t->v[i] = (struct peer_address){ .server = h->server, .shards = h->shards };
            t->v[i].usable = addr_parse_numeric(h->address, 0, &t->v[i].addr, &error) == 0;
            if (!t->v[i].usable && shard == 0) {
                log_warning("server %s: %s", h->name, error.text);
            }
        }
        if (shard_thread_peers(s->shards[shard], t) < 0) {
            log_warning("a shard's mailbox is full: it keeps its old table of servers");
        }
    }
}

static void on_table(void *ctx, const struct rpc_answer *answer)
{
    struct server *s = ctx;

    if (answer->status < 0) {
        log_debug("no table from the manager: %s", answer->error_text);
    } else if (hashspace_merge(&s->space, answer->result) < 0) {
        log_warning("the manager's hash space can't be read");
    } else {
        peers_distribute(s);
    }
}

static void table_ask(struct server *s, struct rpc *rpc)
{
    struct buf *b;

    if (rpc_begin_request(rpc, MSG_TABLE, on_table, s, REGISTER_TIMEOUT_USEC, &b, NULL) == 0) {
        mp_put_array(b, 0);
        rpc_end(rpc);
    }
}

/* ---- registration ---- */

/* The manager's first answer to this process: every row it has was formed with an earlier one (R6).
 */
static int accepted(struct server *s, const struct msg_registered *m, const struct view_row *rows,
                    size_t n, struct io_error *error)
{
    bool first = !s->registered;
    int r = 0;

    if (first) {
        r = identity_accepted(s, m, error);
    }
    if (r == 0 && s->n_shards == 0) {
        r = server_start_shards(s, error);
    }
    if (r < 0) {
        return r;
    }
    s->registered = true;
    if (first) {
        log_info("registered as server %u of the cluster", m->server);
    }
    rows_take(s, rows, n, first ? ROWS_FIRST : ROWS_WHOLE);
    return 0;
}

static void on_registered(void *ctx, const struct rpc_answer *answer)
{
    struct server *s = ctx;
    struct msg_registered m;
    struct io_error error;
    size_t n;
    _cleanup_free_ struct view_row *rows = NULL;

    if (answer->status == -EREMOTEIO && answer->error_code == MSG_ERROR_DENIED) {
        server_fail(s, answer->error_text);
        return;
    }
    if (answer->status == -EREMOTEIO) {
        log_ratelimit(answer->error_code == MSG_ERROR_NOT_LEADER ? LOG_LEVEL_DEBUG
                                                                 : LOG_LEVEL_WARNING,
                      "the manager does not accept this server: %s", answer->error_text);
    }
    if (answer->status < 0) {
        if (answer->status != -ECONNRESET) {
            rpc_link_next(s->manager);
        }
        return;
    }
    if (mp_get_array(answer->result) >= 2) {
        msg_get_registered(answer->result, &m);
        rows = rows_read(answer->result, &n);
    }
    if (!rows) {
        log_ratelimit(LOG_LEVEL_WARNING, "the manager's acceptance can't be read");
        return;
    }
    if (accepted(s, &m, rows, n, &error) < 0) {
        server_fail(s, error.text);
        return;
    }
    if (s->manager_why[0] != '\0') {
        log_notice("connected to the manager at %s", rpc_peer_name(rpc_link_rpc(s->manager)));
        s->manager_why[0] = '\0';
    }
    table_ask(s, rpc_link_rpc(s->manager));
    server_serve_if_ready(s);
}

/* ---- the connection ---- */

static void pack_hello(struct rpc *rpc, void *ctx, struct buf *out)
{
    const struct server *s = ctx;
    struct msg_hello h = {
        .protocol_min = MSG_PROTOCOL_MIN,
        .protocol_max = MSG_PROTOCOL_MAX,
        .role = ROLE_SERVER,
        .server = s->superblock.server,
        .incarnation = s->superblock.incarnation.counter,
        .shard = SHARD_NONE,
        .clock_usec = clock_real_usec(),
    };

    (void) rpc;
    memcpy(h.cluster_id, s->superblock.cluster_id, UUID_BYTES);
    msg_put_hello(out, &h);
}

static int on_up(struct rpc *rpc, void *ctx, struct mp_reader *answer)
{
    struct server *s = ctx;
    struct msg_register m = {
        .shards = (uint32_t) s->settings->threads,
    };
    struct msg_hello h;
    struct io_error error;
    struct buf *b;

    msg_get_hello_answer(answer, ROLE_MANAGER, &h);
    if (answer->failed) {
        log_ratelimit(LOG_LEVEL_ERROR, "there is no manager of this release at %s",
                      rpc_peer_name(rpc));
        return -EPROTO;
    }
    if (identity_sending(s, &error) < 0) {
        server_fail(s, error.text);
        return -EIO;
    }
    memcpy(m.server_id, s->superblock.server_id, UUID_BYTES);
    incarnation_fill(&s->superblock.incarnation, &m);
    memcpy(m.name, s->name, sizeof(m.name));
    memcpy(m.address, s->address, sizeof(m.address));
    if (rpc_begin_request(rpc, MSG_REGISTER, on_registered, s, REGISTER_TIMEOUT_USEC, &b, NULL) ==
        0) {
        msg_put_register(b, &m);
        rpc_end(rpc);
    }
    return 0;
}

static void on_notify(struct rpc *rpc, void *ctx, uint32_t method, struct mp_reader *params)
{
    struct server *s = ctx;
    bool ok = true;

    switch (method) {
    case MSG_VIEWS:
        ok = on_views(s, params);
        break;
    case MSG_BEAT:
        on_beat(s, rpc);
        break;
    case MSG_SEAL:
        ok = on_seal(s, params);
        break;
    case MSG_SESSIONS:
        ok = on_sessions(s, params);
        break;
    case MSG_TABLE_CHANGED:
        ok = hashspace_merge(&s->space, params) == 0;
        if (ok && s->n_shards > 0) {
            peers_distribute(s);
        }
        break;
    default:
        log_debug("the manager sent message %u, which is not known here", method);
    }
    if (!ok) {
        log_ratelimit(LOG_LEVEL_WARNING, "a malformed message from the manager at %s",
                      rpc_peer_name(rpc));
        rpc_link_next(s->manager);
    }
}

static void on_closed(struct rpc *rpc, void *ctx, int error, const char *why)
{
    struct server *s = ctx;

    if (error == -EAGAIN) {
        return; /* it went to the next one, and why was told */
    }
    if (error == -EPERM) {
        log_ratelimit(LOG_LEVEL_WARNING, "the manager at %s refuses this server: %s",
                      rpc_peer_name(rpc), why);
        return;
    }
    if (strncmp(s->manager_why, why, sizeof(s->manager_why) - 1) != 0) { /* once for each reason */
        log_ratelimit(LOG_LEVEL_WARNING, "no connection to the manager at %s: %s; trying again%s",
                      rpc_peer_name(rpc), why,
                      s->registered ? ", and records are served as before" : "");
        snprintf(s->manager_why, sizeof(s->manager_why), "%s", why);
    }
}

static const struct rpc_ops manager_ops = {
    .pack_hello = pack_hello,
    .on_up = on_up,
    .on_notify = on_notify,
    .on_closed = on_closed,
};

int manager_link_start(struct server *s, struct io_error *error)
{
    struct addr addrs[MANAGERS_MAX];
    struct rpc_config config = {
        .ops = &manager_ops,
        .ctx = s,
        .message_bytes_max = MSG_BYTES_MAX,
        .out_bytes_max = MANAGER_OUT_BYTES_MAX,
    };
    size_t n = 0;

    for (size_t i = 0; i < s->settings->manager.n && n < MANAGERS_MAX; i++) {
        int r =
            addr_parse(s->settings->manager.items[i], 19700, &addrs[n], MANAGERS_MAX - n, error);
        if (r < 0) {
            return r;
        }
        n += (size_t) r;
    }
    if (n == 0) {
        return io_error_set(error, -EINVAL, "manager = names no manager");
    }
    s->manager = rpc_link_new(s->loop, addrs, n, &config);
    rpc_link_set_silence(s->manager, MSG_MANAGER_SILENCE_USEC);
    return 0;
}
