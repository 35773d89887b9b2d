/* What peers say to a manager: every message is checked here as a whole before the machine hears of
 * it. A malformed one ends its connection. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "host.h"
#include "io/clock.h"
#include "io/log.h"
#include "io/rpc.h"
#include "peer.h"
#include "status.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* ---- hello ---- */

/* rpc logs it. */
static enum rpc_verdict hello_refuse(struct buf *answer, const char *text)
{
    buf_append(answer, text, strlen(text));
    return RPC_HELLO_REFUSE;
}

static enum rpc_verdict hello_check(struct peer *p, const struct msg_hello *hello,
                                    struct buf *answer)
{
    static const uint8_t unknown[UUID_BYTES];
    const struct host *h = p->peers->host;
    const struct hashspace *space = &manager_cluster(p->peers->host->manager)->space;
    char text[160];

    if (hello->protocol_min > MSG_PROTOCOL_MAX || hello->protocol_max < MSG_PROTOCOL_MIN ||
        hello->protocol_min > hello->protocol_max) {
        snprintf(text, sizeof(text), "speaks protocol %u..%u, this manager speaks %u..%u",
                 hello->protocol_min, hello->protocol_max, MSG_PROTOCOL_MIN, MSG_PROTOCOL_MAX);
        return hello_refuse(answer, text);
    }
    if (hello->role == ROLE_MANAGER && h->managers.n == 1) {
        return hello_refuse(answer, "this manager is alone: its configuration names no managers = "
                                    "that it should share the cluster with");
    }
    /* One of a group may not have heard yet which cluster it belongs to. */
    if (memcmp(hello->cluster_id, unknown, UUID_BYTES) != 0 &&
        (h->managers.n == 1 || memcmp(space->cluster_id, unknown, UUID_BYTES) != 0) &&
        memcmp(hello->cluster_id, space->cluster_id, UUID_BYTES) != 0) {
        return hello_refuse(
            answer, "belongs to another cluster. Was this manager's data-dir lost or exchanged? "
                    "Then restore that, and keep the other's data. Otherwise point it at its own "
                    "manager (manager = ...)");
    }
    return RPC_HELLO_ACCEPT;
}

static enum rpc_verdict on_hello(struct rpc *rpc, void *ctx, struct mp_reader *params,
                                 struct buf *answer)
{
    struct peer *p = ctx;
    struct msg_hello theirs;
    struct msg_hello ours = { .role = ROLE_MANAGER, .shard = SHARD_NONE };
    enum rpc_verdict verdict;

    (void) rpc;
    msg_get_hello(params, &theirs);
    if (params->failed || theirs.role == 0) {
        return hello_refuse(answer, "sent a malformed hello");
    }
    verdict = hello_check(p, &theirs, answer);
    if (verdict != RPC_HELLO_ACCEPT) {
        return verdict;
    }
    p->role = theirs.role;
    ours.protocol_min = MIN_OF(theirs.protocol_max, (uint32_t) MSG_PROTOCOL_MAX);
    ours.protocol_max = ours.protocol_min;
    memcpy(ours.cluster_id, manager_cluster(p->peers->host->manager)->space.cluster_id, UUID_BYTES);
    ours.clock_usec = clock_real_usec();
    ours.server = (uint32_t) p->peers->host->managers.self + 1;
    msg_put_hello(answer, &ours);
    if (theirs.role == ROLE_MANAGER) {
        peer_is_manager(p);
    }
    return RPC_HELLO_ACCEPT;
}

/* ---- requests ---- */

/* Names and addresses end up in files, logs and on terminals: graphic ASCII only. */
static bool is_clean(const char *text)
{
    for (; *text; text++) {
        if (!isgraph((unsigned char) *text) || *text == '"' || *text == '\\') {
            return false;
        }
    }
    return true;
}

static void on_register(struct peer *p, uint64_t id, struct mp_reader *r)
{
    struct manager_event e = { .kind = MANAGER_REGISTER, .conn = p->id, .request = id };

    msg_get_register(r, &e.registration);
    if (r->failed) {
        peer_malformed(p, "a malformed registration");
        return;
    }
    if (!is_clean(e.registration.name) || !is_clean(e.registration.address)) {
        peer_error(p, id, MSG_ERROR_REFUSED,
                   "the server's name or address has characters that are not allowed; use letters, "
                   "digits, and . : - _");
        return;
    }
    p->registered = false;
    memcpy(p->server, e.registration.name, sizeof(p->server));
    host_step(p->peers->host, &e);
}

static void put_table(struct buf *out, const struct peer *p)
{
    hashspace_put(out, &manager_cluster(p->peers->host->manager)->space, NULL, 0);
}

static void on_table(struct peer *p, uint64_t id)
{
    put_table(peer_begin_response(p, id), p);
    peer_end(p);
    p->subscribed = true;
    p->stale = false;
}

static void on_attach(struct peer *p, uint64_t id, struct mp_reader *r)
{
    struct manager_event e = { .kind = MANAGER_ATTACH, .conn = p->id, .request = id };
    char(*names)[NAME_BYTES_MAX];

    mp_get_array_exact(r, 2);
    e.attach.replicas = (uint32_t) mp_get_uint_max(r, REPLICAS_MAX);
    e.attach.n = mp_get_array(r);
    if (r->failed || e.attach.n > ATTACH_NAMES_MAX) {
        peer_malformed(p, "a malformed attach");
        return;
    }
    names = mem_zalloc(e.attach.n + 1, sizeof(*names));
    for (uint32_t i = 0; i < e.attach.n; i++) {
        mp_get_str(r, names[i], sizeof(names[i]));
    }
    e.attach.names = names;
    if (r->failed) {
        peer_malformed(p, "a malformed attach");
    } else {
        host_step(p->peers->host, &e);
    }
    free(names);
}

static void on_session(struct peer *p, uint64_t id)
{
    struct manager_event e = { .kind = MANAGER_SESSION, .conn = p->id, .request = id };

    host_step(p->peers->host, &e);
}

static void on_sessions_alive(struct peer *p, uint64_t id, struct mp_reader *r)
{
    struct manager_event e = { .kind = MANAGER_SESSIONS_ALIVE, .conn = p->id, .request = id };
    _cleanup_free_ uint64_t *ids = mem_alloc((size_t) (r->end - r->p + 1) * sizeof(*ids));

    mp_get_array_exact(r, 1);
    e.alive.n = msg_get_session_ids(r, ids);
    e.alive.ids = ids;
    if (r->failed) {
        peer_malformed(p, "malformed sessions");
        return;
    }
    host_step(p->peers->host, &e);
}

static void on_status(struct peer *p, uint64_t id)
{
    status_put(peer_begin_response(p, id), p->peers->host);
    peer_end(p);
}

static void on_managers(struct peer *p, uint64_t id)
{
    managers_put(peer_begin_response(p, id), p->peers->host);
    peer_end(p);
}

/* Only the leader knows what holds. */
static void refuse_as_follower(struct peer *p, uint64_t id)
{
    char text[ADDRESS_BYTES_MAX + 100];

    managers_refusal(p->peers->host, text, sizeof(text));
    peer_error(p, id, MSG_ERROR_NOT_LEADER, text);
}

/* Who may ask: 0 is anyone. */
static uint32_t role_of_method(uint32_t method)
{
    switch (method) {
    case MSG_REGISTER:
    case MSG_RECONFIG:
    case MSG_SEALED:
        return ROLE_SERVER;
    case MSG_SESSION:
    case MSG_SESSIONS_ALIVE:
        return ROLE_GATEWAY;
    case MSG_ATTACH:
        return ROLE_CTL;
    default:
        return 0;
    }
}

static void on_request(struct rpc *rpc, void *ctx, uint64_t id, uint32_t method,
                       struct mp_reader *params)
{
    struct peer *p = ctx;
    uint32_t role = role_of_method(method);

    (void) rpc;
    if (role != 0 && role != p->role) {
        peer_error(p, id, MSG_ERROR_REFUSED, "this request is not for your role");
        return;
    }
    if (method != MSG_MANAGERS && !host_answers(p->peers->host)) {
        refuse_as_follower(p, id);
        return;
    }
    switch (method) {
    case MSG_REGISTER:
        on_register(p, id, params);
        return;
    case MSG_TABLE:
        on_table(p, id);
        return;
    case MSG_SESSION:
        on_session(p, id);
        return;
    case MSG_SESSIONS_ALIVE:
        on_sessions_alive(p, id, params);
        return;
    case MSG_ATTACH:
        on_attach(p, id, params);
        return;
    case MSG_STATUS:
        on_status(p, id);
        return;
    case MSG_MANAGERS:
        on_managers(p, id);
        return;
    default: /* of a newer version */
        peer_error(p, id, MSG_ERROR_REFUSED,
                   "this manager does not know the request; is it older than you?");
    }
}

/* ---- notifies of servers ---- */

static uint32_t notify_begin(struct mp_reader *r)
{
    uint32_t n = mp_get_array(r);

    if (n > PARTITIONS_MAX) {
        r->failed = true;
    }
    return r->failed ? 0 : n;
}

static void on_reconfig(struct peer *p, struct mp_reader *r)
{
    struct host *h = p->peers->host;
    uint32_t n = notify_begin(r);
    struct manager_event e = { .kind = MANAGER_RECONFIG, .conn = p->id };

    for (uint32_t i = 0; i < n && !r->failed; i++) {
        msg_get_reconfig(r, &e.reconfig);
        if (!r->failed) {
            host_step(h, &e);
        }
    }
    if (r->failed) {
        peer_malformed(p, "a malformed wish for a new view");
    }
}

static void on_sealed(struct peer *p, struct mp_reader *r)
{
    struct host *h = p->peers->host;
    uint32_t n = notify_begin(r);
    struct manager_event e = { .kind = MANAGER_SEALED, .conn = p->id };

    for (uint32_t i = 0; i < n && !r->failed; i++) {
        msg_get_sealed(r, &e.sealed);
        if (!r->failed) {
            host_step(h, &e);
        }
    }
    if (r->failed) {
        peer_malformed(p, "a malformed report of a sealed view");
    }
}

static void on_notify(struct rpc *rpc, void *ctx, uint32_t method, struct mp_reader *params)
{
    struct peer *p = ctx;

    (void) rpc;
    if (role_of_method(method) == ROLE_SERVER && p->role != ROLE_SERVER) {
        peer_malformed(p, "what only servers send");
    } else if (!host_answers(p->peers->host)) {
        return; /* it is told again to the leader */
    } else if (method == MSG_BEAT) {
        host_step(p->peers->host, &(struct manager_event){ .kind = MANAGER_HEARD, .conn = p->id });
    } else if (method == MSG_RECONFIG) {
        on_reconfig(p, params);
    } else if (method == MSG_SEALED) {
        on_sealed(p, params);
    } /* others are of a newer version */
}

/* ---- the connection ---- */

static void on_closed(struct rpc *rpc, void *ctx, int error, const char *why)
{
    struct peer *p = ctx;

    (void) rpc;
    peer_gone(p, error == 0 ? "it closed the connection" : why);
}

static void on_drained(struct rpc *rpc, void *ctx)
{
    struct peer *p = ctx;

    if (p->subscribed && p->stale) {
        put_table(rpc_begin_notify(rpc, MSG_TABLE_CHANGED), p);
        peer_end(p);
        p->stale = false;
    }
}

const struct rpc_ops peer_rpc_ops = {
    .on_hello = on_hello,
    .on_request = on_request,
    .on_notify = on_notify,
    .on_closed = on_closed,
    .on_drained = on_drained,
};
