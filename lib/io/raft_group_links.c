/* The connections of a group of managers. What comes in is checked here as a whole; a malformed
 * message ends its connection. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/addr.h"
#include "io/clock.h"
#include "io/log.h"
#include "io/raft_group_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Tells the log why a member is not talked with, once for each reason. */
static void member_trouble(struct member *m, const char *why)
{
    m->here = false;
    if (strncmp(m->trouble, why, sizeof(m->trouble) - 1) != 0) {
        snprintf(m->trouble, sizeof(m->trouble), "%s", why);
        raft_group_log(m->group, LOG_WARNING,
                       "no connection to the manager at %s: %s; trying again", m->address, why);
    }
}

/* ---- who they are ---- */

static void on_answer(void *ctx, const struct rpc_answer *answer)
{
    struct member *m = ctx;
    struct raft_group *g = m->group;

    m->asking = false;
    if (answer->status == -ECONNRESET) {
        return; /* on_closed tells */
    }
    if (answer->status == -ETIMEDOUT) {
        member_trouble(m, "it gives no answer");
        rpc_link_next(m->link);
        return;
    }
    if (answer->status < 0) {
        m->known = false;
        member_trouble(m, answer->error_text);
        return;
    }
    msg_get_manager(answer->result, &m->info);
    m->known = !answer->result->failed;
    if (!m->known) {
        member_trouble(m, "its answer makes no sense");
        rpc_link_next(m->link);
        return;
    }
    m->answered_usec = clock_boot_usec();
    raft_group_heard(g, m);
}

static void member_ask(struct member *m)
{
    struct rpc *rpc = m->link ? rpc_link_rpc(m->link) : NULL;
    struct buf *out;

    if (!rpc || m->asking ||
        rpc_begin_request(rpc, MSG_MANAGER, on_answer, m, RAFT_GROUP_ANSWER_USEC, &out, NULL) < 0) {
        return;
    }
    mp_put_array(out, 1);
    msg_put_manager(out, &m->group->self);
    m->asking = rpc_end(rpc) == 0;
}

void raft_group_ask(struct raft_group *g)
{
    for (size_t i = 0; i < g->options.n; i++) {
        member_ask(&g->members[i]);
    }
}

/* ---- connections that this manager makes ---- */

static void pack_hello(struct rpc *rpc, void *ctx, struct buf *out)
{
    const struct member *m = ctx;
    const struct raft_group *g = m->group;
    struct msg_hello h = {
        .protocol_min = MSG_PROTOCOL_MIN,
        .protocol_max = MSG_PROTOCOL_MAX,
        .role = ROLE_MANAGER,
        .server = g->self.number,
        .shard = SHARD_NONE,
        .clock_usec = clock_real_usec(),
    };

    (void) rpc;
    g->options.cluster_id(g->options.fsm.ctx, h.cluster_id);
    msg_put_hello(out, &h);
}

/* Both sides compare: the one that knows refuses. */
static bool is_other_cluster(const struct raft_group *g, const uint8_t id[UUID_BYTES])
{
    static const uint8_t unknown[UUID_BYTES];
    uint8_t own[UUID_BYTES];

    g->options.cluster_id(g->options.fsm.ctx, own);
    return memcmp(own, unknown, UUID_BYTES) != 0 && memcmp(id, unknown, UUID_BYTES) != 0 &&
           memcmp(own, id, UUID_BYTES) != 0;
}

static int on_up(struct rpc *rpc, void *ctx, struct mp_reader *answer)
{
    struct member *m = ctx;
    struct msg_hello h;

    (void) rpc;
    msg_get_hello(answer, &h);
    if (answer->failed || h.role != ROLE_MANAGER) {
        member_trouble(m, "what listens there is no manager");
        return -EPROTO;
    }
    if (is_other_cluster(m->group, h.cluster_id)) {
        member_trouble(m, "it belongs to another cluster");
        return -EPROTO;
    }
    m->asking = false;
    member_ask(m);
    return 0;
}

static void on_closed(struct rpc *rpc, void *ctx, int error, const char *why)
{
    struct member *m = ctx;

    (void) rpc;
    m->known = false;
    if (error != -EPROTO && error != -EAGAIN && !m->group->closing) {
        member_trouble(m, why);
    }
}

static const struct rpc_ops link_ops = {
    .pack_hello = pack_hello,
    .on_up = on_up,
    .on_closed = on_closed,
};

static int member_connect(struct raft_group *g, struct member *m)
{
    const struct rpc_config config = { .ops = &link_ops,
                                       .ctx = m,
                                       .message_bytes_max = MSG_BYTES_MAX,
                                       .out_bytes_max = RAFT_GROUP_OUT_BYTES_MAX };
    struct addr addrs[ADDR_RESOLVED_MAX];
    struct io_error error = { "" };
    int n = addr_parse(m->address, RAFT_GROUP_PORT, addrs, ARRAY_LEN(addrs), &error);

    if (n < 0) {
        raft_group_log(g, LOG_ERR, "managers = ...: %s", error.text);
        return n;
    }
    m->link = rpc_link_new(g->options.loop, addrs, (size_t) n, &config);
    return 0;
}

int raft_group_connect(struct raft_group *g)
{
    int r = 0;

    for (size_t i = 0; i < g->options.n && r == 0; i++) {
        if (i != g->options.self) {
            r = member_connect(g, &g->members[i]);
        }
    }
    return r;
}

void raft_group_send(void *ctx, uint64_t to, const struct buf *message)
{
    struct raft_group *g = ctx;
    struct member *m = to >= 1 && to <= g->options.n ? &g->members[to - 1] : NULL;
    struct rpc *rpc = m && m->link ? rpc_link_rpc(m->link) : NULL;
    struct buf *out;

    if (!rpc || rpc_out_full(rpc) || !m->known || !raft_group_agrees(g, &m->info)) {
        return;
    }
    out = rpc_begin_notify(rpc, MSG_RAFT);
    mp_put_array(out, 1);
    buf_append(out, message->data + message->start, buf_len(message));
    if (rpc_end(rpc) == -EMSGSIZE) {
        log_ratelimit(LOG_LEVEL_ERROR,
                      "a message to the manager at %s was too long and was not sent", m->address);
    }
}

/* ---- connections that others make ---- */

static void incoming_gone(struct incoming *in)
{
    struct raft_group *g = in->group;

    if (in->member && in->member->in == in->rpc) {
        in->member->in = NULL;
    }
    list_remove(&in->link);
    rpc_close(in->rpc);
    free(in);
    g->options.released(g->options.fsm.ctx);
}

static void incoming_malformed(struct incoming *in, const char *what)
{
    log_ratelimit(LOG_LEVEL_WARNING, "closed the connection with %s: it sent %s",
                  rpc_peer_name(in->rpc), what);
    incoming_gone(in);
}

/* The connection now speaks for this member; one that it had before is dead, and perhaps nobody has
 * noticed. */
static void incoming_bind(struct incoming *in, struct member *m)
{
    struct rpc *old = m->in;

    if (old == in->rpc) {
        return;
    }
    in->member = m;
    m->in = in->rpc;
    if (old) {
        incoming_gone(rpc_ctx(old));
    }
}

static void on_manager(struct incoming *in, uint64_t id, struct mp_reader *r)
{
    struct raft_group *g = in->group;
    struct msg_manager info;
    struct buf *out;

    mp_get_array_exact(r, 1);
    msg_get_manager(r, &info);
    if (r->failed) {
        incoming_malformed(in, "a malformed word about who it is");
        return;
    }
    if (info.number > g->options.n || info.number == g->self.number ||
        (in->member && in->member->number != info.number)) {
        rpc_error(in->rpc, id, MSG_ERROR_REFUSED,
                  "the lists of managers differ: each manager needs the same `managers`, in the "
                  "same order");
        return;
    }
    incoming_bind(in, &g->members[info.number - 1]);
    out = rpc_begin_response(in->rpc, id);
    msg_put_manager(out, &g->self);
    rpc_end(in->rpc);
    in->member->info = info;
    raft_group_heard(g, in->member);
}

static void on_request(struct rpc *rpc, void *ctx, uint64_t id, uint32_t method,
                       struct mp_reader *params)
{
    if (method == MSG_MANAGER) {
        on_manager(ctx, id, params);
    } else { /* of a newer version */
        rpc_error(rpc, id, MSG_ERROR_REFUSED,
                  "this manager does not know the request; is it older than you?");
    }
}

static void on_notify(struct rpc *rpc, void *ctx, uint32_t method, struct mp_reader *params)
{
    struct incoming *in = ctx;
    struct raft_group *g = in->group;

    (void) rpc;
    if (method != MSG_RAFT || !in->member || !g->node || !raft_group_agrees(g, &in->member->info)) {
        return; /* of a newer version, or of another group */
    }
    mp_get_array_exact(params, 1);
    if (params->failed || raft_node_receive(g->node, in->member->number, params) < 0) {
        incoming_malformed(in, "a malformed message of Raft");
    }
}

static void on_incoming_closed(struct rpc *rpc, void *ctx, int error, const char *why)
{
    (void) rpc;
    (void) error;
    (void) why;
    incoming_gone(ctx);
}

static const struct rpc_ops incoming_ops = {
    .on_request = on_request,
    .on_notify = on_notify,
    .on_closed = on_incoming_closed,
};

void raft_group_adopt(struct raft_group *g, struct rpc *rpc)
{
    struct incoming *in = mem_zalloc(1, sizeof(*in));

    in->group = g;
    in->rpc = rpc;
    list_push_back(&g->incoming, &in->link);
    rpc_set_owner(rpc, &incoming_ops, in);
}

void raft_group_disconnect(struct raft_group *g)
{
    while (!list_empty(&g->incoming)) {
        incoming_gone(LIST_ENTRY(g->incoming.next, struct incoming, link));
    }
    for (size_t i = 0; i < g->options.n; i++) {
        g->members[i].link = rpc_link_free(g->members[i].link);
        g->members[i].known = false;
    }
}
