/* Connections, waiting, and requests; what is asked of managers is in client_manager.c, of servers
 * in client_server.c. */
#include "client_private.h"

#include "base/cleanup.h"
#include "base/mem.h"
#include "io/addr.h"
#include "io/clock.h"
#include "io/keyring.h"
#include "io/loop.h"
#include "io/rpc.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define CLIENT_LOOK_USEC 20000 /* how often a wait looks at the clock and for an interruption */

/* ---- waiting ---- */

static void on_look(void *ctx)
{
    (void) ctx; /* the loop's turn is all that is wanted */
}

bool client_is_interrupted(const struct client *c)
{
    return c->o.interrupted && *c->o.interrupted;
}

int client_wait(struct client *c, const bool *flag, const struct link *l, uint64_t until_usec)
{
    while (!*flag) {
        if (client_is_interrupted(c)) {
            return -EINTR;
        }
        if (l && !l->rpc) {
            return l->error ? l->error : -ECONNRESET;
        }
        if (clock_boot_usec() >= until_usec) {
            return -ETIMEDOUT;
        }
        loop_turn(c->loop, true);
    }
    return 0;
}

int client_sleep(struct client *c, uint64_t usec)
{
    bool never = false;
    int r = client_wait(c, &never, NULL, clock_boot_usec() + usec);

    return r == -ETIMEDOUT ? 0 : r;
}

void client_say_errno(int error, char *out, size_t cap)
{
    const char *text = strerrordesc_np(error < 0 ? -error : error);

    snprintf(out, cap, "%s", text ? text : "unknown error");
    out[0] = (char) tolower((unsigned char) out[0]);
}

/* ---- connections ---- */

static void on_pack_hello(struct rpc *rpc, void *ctx, struct buf *out)
{
    struct link *l = ctx;
    struct msg_hello h = { .protocol_min = MSG_PROTOCOL_MIN,
                           .protocol_max = MSG_PROTOCOL_MAX,
                           .role = ROLE_CTL,
                           .shard = l->shard,
                           .clock_usec = clock_real_usec() };

    (void) rpc;
    if (l->server != 0) {
        memcpy(h.cluster_id, l->client->space.cluster_id, UUID_BYTES);
    }
    msg_put_hello(out, &h);
}

static int on_up(struct rpc *rpc, void *ctx, struct mp_reader *answer)
{
    struct link *l = ctx;
    struct msg_hello h;
    uint32_t role = l->server == 0 ? ROLE_MANAGER : ROLE_SERVER;

    (void) rpc;
    msg_get_hello_answer(answer, role, &h);
    if (answer->failed) {
        return -EPROTO;
    }
    l->up = true;
    return 0;
}

static void on_closed(struct rpc *rpc, void *ctx, int error, const char *why)
{
    struct link *l = ctx;

    (void) rpc;
    l->rpc = NULL;
    l->up = false;
    l->error = error ? error : -ECONNRESET;
    snprintf(l->why, sizeof(l->why), "%s", why);
}

/* A result for the operation under way ends it; others are late ones. */
static void take_result(struct client *c, const struct result *res)
{
    if (!c->result || res->id != c->last_op) {
        return;
    }
    c->result->code = res->code;
    c->result->flags = res->flags;
    c->result->cas = res->cas;
    buf_clear(&c->result->bytes);
    if (res->code == RESULT_VALUE) {
        buf_append(&c->result->bytes, res->value, res->value_len);
    }
    c->answered = true;
}

static void on_notify(struct rpc *rpc, void *ctx, uint32_t method, struct mp_reader *params)
{
    struct link *l = ctx;
    uint32_t n;

    (void) rpc;
    if (method != MSG_RESULTS) {
        return; /* changes of the table: it is asked for when it is needed */
    }
    mp_get_array_exact(params, 1);
    n = mp_get_array(params);
    for (uint32_t i = 0; i < n && !params->failed; i++) {
        struct result res;
        msg_get_result(params, &res);
        if (!params->failed) {
            take_result(l->client, &res);
        }
    }
}

static const struct rpc_ops link_ops = {
    .pack_hello = on_pack_hello,
    .on_up = on_up,
    .on_notify = on_notify,
    .on_closed = on_closed,
};

struct link *client_link_free(struct link *l)
{
    rpc_close(l->rpc);
    list_remove(&l->node);
    free(l);
    return NULL;
}

/* One that was reached and closed at once is tried again until the time is over: it may have too
 * many connections just now. */
static int link_dial(struct client *c, struct link *l, const struct addr *addr,
                     const struct rpc_config *config, uint64_t until_usec)
{
    int r;

    do {
        l->why[0] = '\0';
        r = rpc_connect(c->loop, addr, config, &l->rpc);
        r = r < 0 ? r : client_wait(c, &l->up, l, until_usec);
    } while ((r == -ECONNRESET || r == -EPIPE) && clock_boot_usec() < until_usec &&
             client_sleep(c, CLIENT_RETRY_USEC) == 0);
    return r;
}

/* Connects to one of the addresses that the text means and says hello. */
static int link_connect(struct client *c, struct link *l, const char *address, uint16_t port,
                        uint64_t until_usec, struct io_error *error)
{
    const struct rpc_config config = { .ops = &link_ops,
                                       .ctx = l,
                                       .message_bytes_max = ENTRY_BYTES_MAX + MSG_BYTES_MAX,
                                       .out_bytes_max = MSG_BYTES_MAX };
    struct addr addrs[ADDR_RESOLVED_MAX];
    int n = addr_parse(address, port, addrs, ARRAY_LEN(addrs), error);
    int r = n;

    if (n < 0) {
        snprintf(l->why, sizeof(l->why), "%s", error->text);
        return n;
    }
    for (int i = 0; i < n; i++) {
        uint64_t now = clock_boot_usec();
        uint64_t until = now + (until_usec > now ? (until_usec - now) / (uint64_t) (n - i) : 0);
        r = link_dial(c, l, &addrs[i], &config, until);
        if (r == 0 || r == -EINTR || r == -EPERM || r == -EPROTO || r == -EKEYREJECTED) {
            return r; /* it was reached: another address won't say otherwise */
        }
        l->rpc = rpc_close(l->rpc);
    }
    return r;
}

int client_link_open(struct client *c, const char *address, uint32_t server, uint32_t shard,
                     uint64_t until_usec, struct link **ret, struct io_error *why)
{
    struct link *l = mem_zalloc(1, sizeof(*l));
    int r;

    l->client = c;
    l->server = server;
    l->shard = shard;
    list_push_back(&c->links, &l->node);
    r = link_connect(c, l, address, server ? SERVER_PORT : MANAGER_PORT, until_usec, why);
    if (r == 0) {
        *ret = l;
        return 0;
    }
    if (r == -ETIMEDOUT) {
        io_error_set(why, r, "no answer in time");
    } else if (r == -EPERM || r == -EINVAL || r == -ENOENT || r == -EKEYREJECTED) {
        io_error_set(why, r, "%s", l->why);
    } else if (r == -EPROTO) {
        io_error_set(why, r, "what listens there is not %s",
                     server ? "a kumo-server" : "a kumo-manager");
    } else {
        client_say_errno(r, why->text, sizeof(why->text));
    }
    client_link_free(l);
    return r;
}

void client_hang_up(struct client *c)
{
    while (!list_empty(&c->links)) {
        client_link_free(LIST_ENTRY(c->links.next, struct link, node));
    }
    c->manager = NULL;
    loop_turn(c->loop, false);
}

/* ---- asking ---- */

static void on_answer(void *ctx, const struct rpc_answer *answer)
{
    struct client *c = ctx;

    c->answered = true;
    c->status = answer->status;
    c->code = answer->error_code;
    snprintf(c->text, sizeof(c->text), "%s", answer->error_text);
    buf_clear(&c->answer);
    if (answer->status == 0) {
        buf_append(&c->answer, answer->result->p,
                   (size_t) (answer->result->end - answer->result->p));
    }
}

int client_ask(struct client *c, struct link *l, uint32_t method, const struct buf *params)
{
    uint64_t now = clock_boot_usec();
    uint64_t left = c->deadline_usec > now ? c->deadline_usec - now : 1;
    struct buf *out;
    uint64_t id;
    int r = rpc_begin_request(l->rpc, method, on_answer, c, left, &out, &id);

    c->answered = false;
    if (r == 0) {
        if (params) {
            buf_append(out, params->data + params->start, buf_len(params));
        } else {
            mp_put_array(out, 0);
        }
        r = rpc_end(l->rpc);
    }
    if (r == 0) {
        r = client_wait(c, &c->answered, NULL, UINT64_MAX); /* rpc keeps the time */
        if (r == -EINTR) {
            rpc_cancel(l->rpc, id);
            snprintf(c->text, sizeof(c->text), "interrupted");
            return r;
        }
        return c->status;
    }
    client_say_errno(r, c->text, sizeof(c->text));
    return r;
}

void client_begin(struct client *c)
{
    c->deadline_usec = clock_boot_usec() + c->o.timeout_usec;
}

/* ---- the door ---- */

int client_new(const struct client_options *o, struct client **ret, struct io_error *error)
{
    struct client *c = mem_zalloc(1, sizeof(*c));
    int r = loop_new(&c->loop);

    if (r < 0) {
        free(c);
        return io_error_set(error, r, "no event loop: %s", strerrordesc_np(-r));
    }
    c->o = *o;
    list_init(&c->links);
    c->look = loop_timer_new(c->loop, on_look, c);
    loop_timer_every(c->look, CLIENT_LOOK_USEC);
    *ret = c;
    return 0;
}

struct client *client_free(struct client *c)
{
    if (!c) {
        return NULL;
    }
    client_hang_up(c);
    loop_timer_free(c->look);
    loop_free(c->loop);
    keyring_use(NULL);
    hashspace_free(&c->space);
    buf_free(&c->answer);
    free(c);
    return NULL;
}

void client_set_timeout(struct client *c, uint64_t timeout_usec)
{
    c->o.timeout_usec = timeout_usec;
}

const char *client_manager_name(const struct client *c)
{
    return c->manager_name;
}
