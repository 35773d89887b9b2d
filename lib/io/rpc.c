/* MessagePack-RPC over one connection, and the hello. Knows framing, ids and deadlines; never what
 * a method means. */
#include "io/rpc.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "io/clock.h"
#include "io/conn.h"
#include "io/keyring.h"
#include "io/log.h"
#include "io/loop.h"
#include "io/rpc_private.h"
#include "io/tls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TLS_FIRST_BYTE_MIN 0x15 /* of a record: an alert; */
#define TLS_FIRST_BYTE_MAX 0x16 /* a handshake */

enum rpc_message { RPC_REQUEST = 0, RPC_RESPONSE = 1, RPC_NOTIFY = 2 };

struct rpc_parcel {
    int fd;
    struct buf in;
    struct tls *tls;
};

/* ---- ending ---- */

static void rpc_free_now(struct loop_task *task)
{
    struct rpc *rpc = LIST_ENTRY(task, struct rpc, free_task);

    map_free(&rpc->calls);
    free(rpc->why);
    free(rpc);
}

static void rpc_call_remove(struct rpc *rpc, struct rpc_call *call)
{
    map_remove(&rpc->calls, &call->node);
    list_remove(&call->by_deadline);
}

/* Tells the owner of a request, which is out of the table already, and frees it. */
static void rpc_call_end(struct rpc_call *call, const struct rpc_answer *answer)
{
    call->fn(call->ctx, answer);
    free(call);
}

static void rpc_call_fail(struct rpc *rpc, struct rpc_call *call, int status, const char *text)
{
    struct rpc_answer answer = { .status = status, .error_text = text };

    rpc_call_remove(rpc, call);
    rpc_call_end(call, &answer);
}

static void rpc_fail_calls(struct rpc *rpc)
{
    while (!list_empty(&rpc->by_deadline)) {
        rpc_call_fail(rpc, LIST_ENTRY(rpc->by_deadline.next, struct rpc_call, by_deadline),
                      -ECONNRESET, "the connection ended");
    }
}

/* What another try with another key needs is not needed any more. */
static void rpc_drop_keys(struct rpc *rpc)
{
    free(TAKE_PTR(rpc->addr));
    rpc->ring = keyring_unref(rpc->ring);
}

/* Out of the loop, nobody told. */
static void rpc_retire(struct rpc *rpc)
{
    rpc->state = RPC_DEAD;
    rpc_leave_lobby(rpc);
    rpc_drop_keys(rpc);
    rpc->timer = loop_timer_free(rpc->timer);
    rpc->message_timer = loop_timer_free(rpc->message_timer);
    conn_close(rpc->conn);
    loop_task_add(rpc->loop, &rpc->free_task, LOOP_FREE);
}

void rpc_end_with(struct rpc *rpc, int error, const char *why)
{
    struct rpc_link *link = rpc->link;

    if (rpc->state == RPC_DEAD) {
        return;
    }
    rpc_retire(rpc);
    if (link) {
        rpc->link = NULL;
        rpc_link_on_closed(link);
    }
    rpc_fail_calls(rpc);
    if (!rpc->owner_closed && rpc->ops->on_closed) {
        rpc->ops->on_closed(rpc, rpc->ctx, error, why);
    }
}

struct rpc *rpc_close(struct rpc *rpc)
{
    if (rpc) {
        rpc->owner_closed = true;
        rpc_end_with(rpc, 0, "closed here");
    }
    return NULL;
}

static void rpc_flush_and_end(struct rpc *rpc, int error, const char *why)
{
    if (rpc->state == RPC_HELLO || rpc->state == RPC_UP) {
        rpc->state = RPC_CLOSING;
        rpc->closing_error = error;
        rpc->why = strdup(why);
        conn_close_after_flush(rpc->conn);
    }
}

void rpc_close_after_flush(struct rpc *rpc)
{
    rpc_flush_and_end(rpc, 0, "closed here");
}

void rpc_malformed(struct rpc *rpc, int error, const char *why)
{
    log_ratelimit(LOG_LEVEL_WARNING, "closed the connection with %s: %s", conn_peer_name(rpc->conn),
                  why);
    rpc_end_with(rpc, error, why);
}

/* ---- deadlines ---- */

static void rpc_timer_set(struct rpc *rpc, uint64_t deadline_usec)
{
    uint64_t now = clock_boot_usec();

    if (rpc->timer_usec != 0 && rpc->timer_usec <= deadline_usec) {
        return; /* it fires early enough and looks again */
    }
    rpc->timer_usec = deadline_usec;
    loop_timer_start(rpc->timer, deadline_usec > now ? deadline_usec - now : 0);
}

static void rpc_on_timer(void *ctx)
{
    struct rpc *rpc = ctx;
    uint64_t now = clock_boot_usec();

    rpc->timer_usec = 0;
    if (rpc->state == RPC_HELLO) {
        if (now >= rpc->hello_deadline_usec) {
            rpc_malformed(rpc, -ETIMEDOUT, "the hello took too long");
        } else {
            rpc_timer_set(rpc, rpc->hello_deadline_usec);
        }
        return;
    }
    while (rpc->state != RPC_DEAD && !list_empty(&rpc->by_deadline)) {
        struct rpc_call *call = LIST_ENTRY(rpc->by_deadline.next, struct rpc_call, by_deadline);

        if (call->deadline_usec > now) {
            rpc_timer_set(rpc, call->deadline_usec);
            return;
        }
        rpc_call_fail(rpc, call, -ETIMEDOUT, "no answer in time");
    }
}

/* Sorted from the back: with equal timeouts the place is the end. */
static void rpc_deadline_insert(struct rpc *rpc, struct rpc_call *call)
{
    struct list *at = rpc->by_deadline.prev;

    while (at != &rpc->by_deadline &&
           LIST_ENTRY(at, struct rpc_call, by_deadline)->deadline_usec > call->deadline_usec) {
        at = at->prev;
    }
    list_push_front(at, &call->by_deadline);
}

/* ---- sending ---- */

static struct buf *rpc_begin(struct rpc *rpc)
{
    struct buf *out = conn_out(rpc->conn);

    kumo_assert(!rpc->building);
    rpc->building = true;
    rpc->begun_bytes = buf_len(out);
    return out;
}

struct buf *rpc_begin_notify(struct rpc *rpc, uint32_t method)
{
    struct buf *out = rpc_begin(rpc);

    kumo_assert(rpc->state != RPC_HELLO);
    mp_put_array(out, 3);
    mp_put_uint(out, RPC_NOTIFY);
    mp_put_uint(out, method);
    return out;
}

struct buf *rpc_begin_response(struct rpc *rpc, uint64_t id)
{
    struct buf *out = rpc_begin(rpc);

    mp_put_array(out, 4);
    mp_put_uint(out, RPC_RESPONSE);
    mp_put_uint(out, id);
    mp_put_nil(out);
    return out;
}

static struct buf *rpc_put_request(struct rpc *rpc, uint64_t id, uint32_t method)
{
    struct buf *out = rpc_begin(rpc);

    mp_put_array(out, 4);
    mp_put_uint(out, RPC_REQUEST);
    mp_put_uint(out, id);
    mp_put_uint(out, method);
    return out;
}

int rpc_begin_request(struct rpc *rpc, uint32_t method, rpc_answer_fn fn, void *ctx,
                      uint64_t timeout_usec, struct buf **ret_out, uint64_t *ret_id)
{
    struct rpc_call *call;

    if (rpc->state != RPC_UP) {
        return -ENOTCONN;
    }
    if (rpc->calls.count >= RPC_PENDING_MAX) {
        return -ENOBUFS;
    }
    call = mem_zalloc(1, sizeof(*call));
    call->id = rpc->next_id++;
    call->fn = fn;
    call->ctx = ctx;
    call->deadline_usec = clock_boot_usec() + timeout_usec;
    *ret_out = rpc_put_request(rpc, call->id, method);
    rpc->begun_call = call;
    if (ret_id) {
        *ret_id = call->id;
    }
    return 0;
}

void rpc_abort(struct rpc *rpc)
{
    struct buf *out = conn_out(rpc->conn);

    kumo_assert(rpc->building);
    out->end = out->start + rpc->begun_bytes;
    rpc->building = false;
    free(TAKE_PTR(rpc->begun_call));
}

int rpc_end(struct rpc *rpc)
{
    struct rpc_call *call;

    kumo_assert(rpc->building);
    if (rpc->state == RPC_DEAD) {
        rpc_abort(rpc);
        return -ENOTCONN;
    }
    if (buf_len(conn_out(rpc->conn)) - rpc->begun_bytes > rpc->message_bytes_max) {
        rpc_abort(rpc);
        return -EMSGSIZE;
    }
    rpc->building = false;
    call = TAKE_PTR(rpc->begun_call);
    if (call) {
        map_insert(&rpc->calls, &call->node, call->id);
        rpc_deadline_insert(rpc, call);
        rpc_timer_set(rpc, call->deadline_usec);
    }
    conn_mark(rpc->conn);
    return 0;
}

/* Length of the text cut at RPC_ERROR_TEXT_MAX, never within a character. */
static size_t rpc_text_bytes(const char *text, size_t bytes)
{
    if (bytes > RPC_ERROR_TEXT_MAX) {
        bytes = RPC_ERROR_TEXT_MAX;
        while (bytes > 0 && ((unsigned char) text[bytes] & 0xc0) == 0x80) {
            bytes--;
        }
    }
    return bytes;
}

static void rpc_send_error(struct rpc *rpc, uint64_t id, uint32_t code, const char *text,
                           size_t bytes)
{
    struct buf *out = rpc_begin(rpc);

    mp_put_array(out, 4);
    mp_put_uint(out, RPC_RESPONSE);
    mp_put_uint(out, id);
    mp_put_array(out, 2);
    mp_put_uint(out, code);
    mp_put_strn(out, text, rpc_text_bytes(text, bytes));
    mp_put_nil(out);
    rpc->building = false;
    conn_mark(rpc->conn);
}

void rpc_error(struct rpc *rpc, uint64_t id, uint32_t code, const char *text)
{
    rpc_send_error(rpc, id, code, text, strlen(text));
}

void rpc_cancel(struct rpc *rpc, uint64_t id)
{
    struct map_node *node = map_first(&rpc->calls, id);

    if (node) {
        struct rpc_call *call = MAP_ENTRY(node, struct rpc_call, node);

        rpc_call_remove(rpc, call);
        free(call);
    }
}

/* ---- the hello ---- */

/* Hello of the connecting side; its id is 0, those of requests begin at 1. */
static void rpc_say_hello(struct rpc *rpc)
{
    struct buf *out = rpc_put_request(rpc, 0, RPC_METHOD_HELLO);

    rpc->ops->pack_hello(rpc, rpc->ctx, out);
    if (rpc_end(rpc) == -EMSGSIZE) {
        rpc_end_with(rpc, -EMSGSIZE, "our hello is too long");
    }
}

static void rpc_accept_hello(struct rpc *rpc, uint64_t id, const struct buf *result)
{
    struct buf *out = rpc_begin_response(rpc, id);

    buf_append(out, result->data + result->start, buf_len(result));
    if (rpc_end(rpc) == -EMSGSIZE) {
        rpc_end_with(rpc, -EMSGSIZE, "our hello is too long");
        return;
    }
    rpc_leave_lobby(rpc);
    rpc->state = RPC_UP;
}

static void rpc_refuse_hello(struct rpc *rpc, uint64_t id, struct buf *text)
{
    size_t bytes = buf_len(text);

    buf_append(text, "", 1);
    rpc_send_error(rpc, id, RPC_ERROR_REFUSED, (const char *) buf_head(text), bytes);
    log_ratelimit(LOG_LEVEL_WARNING, "refused the connection of %s: %s", rpc_peer_name(rpc),
                  (const char *) buf_head(text));
    rpc_flush_and_end(rpc, -EPERM, (const char *) buf_head(text));
}

/* The first message on the accepting side. */
static void rpc_take_hello(struct rpc *rpc, uint64_t id, struct mp_reader *params)
{
    struct buf answer = { 0 };
    enum rpc_verdict verdict = rpc->ops->on_hello(rpc, rpc->ctx, params, &answer);

    if (rpc->state == RPC_HELLO) {
        kumo_assert(verdict != RPC_HELLO_DETACHED);
        if (verdict == RPC_HELLO_ACCEPT) {
            rpc_accept_hello(rpc, id, &answer);
        } else {
            rpc_refuse_hello(rpc, id, &answer);
        }
    }
    buf_free(&answer);
}

/* ---- receiving ---- */

/* The error of a response: nil, or [code, text] into `answer` and `text`. */
static void rpc_read_error(struct mp_reader *r, struct rpc_answer *answer, char *text)
{
    const uint8_t *p;
    size_t bytes = 0;

    text[0] = '\0';
    answer->error_text = text;
    if (mp_peek_nil(r)) {
        mp_skip(r);
        return;
    }
    mp_get_array_exact(r, 2);
    answer->error_code = (uint32_t) mp_get_uint_max(r, UINT32_MAX);
    p = mp_get_bin(r, RPC_ERROR_TEXT_MAX, &bytes);
    if (p) {
        memcpy(text, p, bytes);
        text[bytes] = '\0';
    }
    answer->status = -EREMOTEIO;
}

static void rpc_take_hello_answer(struct rpc *rpc, const struct rpc_answer *answer)
{
    int r = 0;

    if (answer->status != 0) {
        rpc_end_with(rpc, -EPERM, answer->error_text);
        return;
    }
    rpc_drop_keys(rpc);
    rpc->state = RPC_UP;
    if (rpc->link) {
        rpc_link_on_up(rpc->link);
    }
    if (rpc->ops->on_up) {
        r = rpc->ops->on_up(rpc, rpc->ctx, answer->result);
    }
    if (r < 0) {
        rpc_end_with(rpc, r, "the peer's hello is not acceptable");
    }
}

static void rpc_take_response(struct rpc *rpc, struct mp_reader *r)
{
    char text[RPC_ERROR_TEXT_MAX + 1];
    struct rpc_answer answer = { .result = r };
    uint64_t id = mp_get_uint(r);
    struct map_node *node;

    rpc_read_error(r, &answer, text);
    if (r->failed || id >= rpc->next_id || (rpc->state == RPC_HELLO) != (id == 0)) {
        rpc_malformed(rpc, -EBADMSG, "it sent an answer that makes no sense");
        return;
    }
    if (answer.status != 0) {
        answer.result = NULL;
    }
    if (id == 0) {
        rpc_take_hello_answer(rpc, &answer);
        return;
    }
    node = map_first(&rpc->calls, id);
    if (node) { /* otherwise cancelled, or late */
        struct rpc_call *call = MAP_ENTRY(node, struct rpc_call, node);

        rpc_call_remove(rpc, call);
        rpc_call_end(call, &answer);
    }
}

static void rpc_take_request(struct rpc *rpc, struct mp_reader *r)
{
    uint64_t id = mp_get_uint(r);
    uint32_t method = (uint32_t) mp_get_uint_max(r, RPC_METHOD_MAX);
    bool hello = rpc->state == RPC_HELLO;

    if (r->failed || mp_peek_type(r) != MP_ARRAY || hello != (method == RPC_METHOD_HELLO)) {
        rpc_malformed(rpc, -EBADMSG,
                      hello ? "it did not begin with a hello" : "it sent a malformed request");
    } else if (hello) {
        rpc_take_hello(rpc, id, r);
    } else if (rpc->ops->on_request) {
        rpc->ops->on_request(rpc, rpc->ctx, id, method, r);
    } else {
        rpc_error(rpc, id, RPC_ERROR_REFUSED, "no requests are taken on this connection");
    }
}

static void rpc_take_notify(struct rpc *rpc, struct mp_reader *r)
{
    uint32_t method = (uint32_t) mp_get_uint_max(r, RPC_METHOD_MAX);

    if (r->failed || mp_peek_type(r) != MP_ARRAY || method == RPC_METHOD_HELLO) {
        rpc_malformed(rpc, -EBADMSG, "it sent a malformed notification");
    } else if (rpc->ops->on_notify) {
        rpc->ops->on_notify(rpc, rpc->ctx, method, r);
    }
}

/* One whole message. */
static void rpc_take(struct rpc *rpc, const uint8_t *p, size_t bytes)
{
    struct mp_reader r = mp_reader_of(p, bytes);
    uint32_t items = mp_get_array(&r);
    uint64_t type = mp_get_uint_max(&r, RPC_NOTIFY);
    bool hello = rpc->state == RPC_HELLO;

    if (r.failed || items != (type == RPC_NOTIFY ? 3 : 4)) {
        rpc_malformed(rpc, -EBADMSG, "it sent something else than a message");
    } else if (hello && type != (rpc->accepted ? RPC_REQUEST : RPC_RESPONSE)) {
        rpc_malformed(rpc, -EBADMSG, "it did not begin with a hello");
    } else if (type == RPC_REQUEST) {
        rpc_take_request(rpc, &r);
    } else if (type == RPC_RESPONSE) {
        rpc_take_response(rpc, &r);
    } else {
        rpc_take_notify(rpc, &r);
    }
}

/* As that of rpc_malformed, with a limit of lines of its own: who has set up a machine wrongly
 * finds the line also while others send garbage. */
static void rpc_log_key(const struct rpc *rpc, const char *why)
{
    log_ratelimit(LOG_LEVEL_WARNING, "closed the connection with %s: %s", conn_peer_name(rpc->conn),
                  why);
}

static void rpc_reject_key(struct rpc *rpc, const char *why)
{
    rpc_log_key(rpc, why);
    rpc_end_with(rpc, -EKEYREJECTED, why);
}

/* Without a key: is this the beginning of TLS, where a hello or its answer should be? No message of
 * ours begins like that. */
static bool rpc_met_tls(const struct rpc *rpc, const struct buf *in)
{
    uint8_t first = buf_len(in) > 0 ? in->data[in->start] : 0;

    return rpc->state == RPC_HELLO && !conn_is_secured(rpc->conn) && first >= TLS_FIRST_BYTE_MIN &&
           first <= TLS_FIRST_BYTE_MAX;
}

/* Who connected under TLS hears why it is closed. */
static void rpc_answer_tls(struct rpc *rpc)
{
    static const char why[] = "it uses TLS and there is no cluster key here: give this process the "
                              "key file of that cluster (cluster-key)";

    if (!rpc->accepted) {
        rpc_reject_key(rpc, why);
        return;
    }
    rpc_log_key(rpc, why);
    buf_append(conn_out(rpc->conn), tls_no_key_alert, sizeof(tls_no_key_alert));
    conn_mark(rpc->conn);
    rpc_flush_and_end(rpc, -EKEYREJECTED, why);
}

static void rpc_on_data(struct conn *conn, void *ctx)
{
    struct rpc *rpc = ctx;
    struct buf *in = conn_in(conn);

    if (rpc_met_tls(rpc, in)) {
        rpc_answer_tls(rpc);
        return;
    }
    while ((rpc->state == RPC_HELLO || rpc->state == RPC_UP) && !rpc->paused && buf_len(in) > 0) {
        size_t max = rpc->state == RPC_HELLO
                         ? MIN_OF(rpc->message_bytes_max, (size_t) RPC_HELLO_BYTES_MAX)
                         : rpc->message_bytes_max;
        size_t need = 0;
        int64_t n = mp_scan(&rpc->scan, buf_head(in), buf_len(in), max, &need);

        if (n < 0) {
            rpc_malformed(rpc, (int) n,
                          n == -EMSGSIZE ? "it sent a message over the limit"
                                         : "it sent bytes that are not MessagePack");
            return;
        }
        if (n == 0) {
            conn_need(conn, need);
            rpc_watch_message(rpc);
            return;
        }
        rpc->scan = (struct mp_scan){ 0 };
        rpc->messages++;
        rpc->heard_usec = clock_boot_usec();
        rpc_take(rpc, buf_head(in), (size_t) n);
        if (rpc->state == RPC_DEAD) {
            return; /* the bytes may be gone with a parcel */
        }
        buf_consume(in, (size_t) n);
    }
    conn_need(conn, 0);
}

static bool rpc_try_next_key(struct rpc *rpc);

static void rpc_on_connected(struct conn *conn, void *ctx)
{
    (void) conn;
    rpc_say_hello(ctx);
}

static void rpc_on_eof(struct conn *conn, void *ctx)
{
    struct rpc *rpc = ctx;

    if (buf_len(conn_in(conn)) > 0) {
        rpc_end_with(rpc, -ECONNRESET, "the peer closed in the middle of a message");
    } else {
        rpc_end_with(rpc, 0, "the peer closed the connection");
    }
}

static void rpc_on_conn_closed(struct conn *conn, void *ctx, int error)
{
    struct rpc *rpc = ctx;

    if (rpc->state == RPC_CLOSING) {
        rpc_end_with(rpc, rpc->closing_error, rpc->why ? rpc->why : "closed here");
    } else if (error == -EKEYREJECTED && rpc_try_next_key(rpc)) {
        return;
    } else if (error == -EKEYREJECTED) {
        rpc_reject_key(rpc, conn_why(conn));
    } else if (error == -EBADMSG) {
        rpc_malformed(rpc, error, conn_why(conn));
    } else {
        rpc_end_with(rpc, error,
                     error == 0 ? "the peer closed the connection" : strerrordesc_np(-error));
    }
}

static void rpc_on_drained(struct conn *conn, void *ctx)
{
    struct rpc *rpc = ctx;

    (void) conn;
    if (rpc->state == RPC_UP && rpc->ops->on_drained) {
        rpc->ops->on_drained(rpc, rpc->ctx);
    }
}

static const struct conn_ops rpc_conn_ops = {
    .on_data = rpc_on_data,
    .on_connected = rpc_on_connected,
    .on_eof = rpc_on_eof,
    .on_closed = rpc_on_conn_closed,
    .on_drained = rpc_on_drained,
};

/* Connects with the key that is due; plain without a keyring. */
static int rpc_dial(struct rpc *rpc, const struct addr *addr)
{
    int r = conn_connect(rpc->loop, addr, &rpc_conn_ops, rpc, rpc->out_bytes_max, &rpc->conn);

    if (r == 0) {
        conn_set_patience(rpc->conn, RPC_PATIENCE_USEC);
    }
    if (r == 0 && rpc->ring) {
        conn_use_tls(rpc->conn, tls_new(rpc->ring, TLS_CONNECTS, rpc->key));
    }
    return r;
}

/* While keys are exchanged the peer may not have our first one yet. */
static bool rpc_try_next_key(struct rpc *rpc)
{
    if (!rpc->addr || rpc->key + 1 >= keyring_count(rpc->ring)) {
        return false;
    }
    rpc->key++;
    return rpc_dial(rpc, rpc->addr) == 0;
}

/* ---- beginning ---- */

static struct rpc *rpc_make(struct loop *loop, const struct rpc_config *config, bool accepted)
{
    struct rpc *rpc = mem_zalloc(1, sizeof(*rpc));

    kumo_assert(config->message_bytes_max > 0);
    kumo_assert(config->out_bytes_max > 0);
    kumo_assert(accepted ? config->ops->on_hello != NULL : config->ops->pack_hello != NULL);
    rpc->loop = loop;
    rpc->ops = config->ops;
    rpc->ctx = config->ctx;
    rpc->message_bytes_max = config->message_bytes_max;
    rpc->out_bytes_max = config->out_bytes_max;
    rpc->accepted = accepted;
    rpc->next_id = 1;
    rpc->hello_deadline_usec = clock_boot_usec() + RPC_HELLO_TIMEOUT_USEC;
    rpc->timer = loop_timer_new(loop, rpc_on_timer, rpc);
    list_init(&rpc->by_deadline);
    loop_task_init(&rpc->free_task, rpc_free_now);
    rpc_timer_set(rpc, rpc->hello_deadline_usec);
    return rpc;
}

static struct rpc *rpc_take_over(struct loop *loop, int fd, struct tls *tls,
                                 const struct rpc_config *config)
{
    struct rpc *rpc = rpc_make(loop, config, true);

    rpc->conn = conn_new(loop, fd, &rpc_conn_ops, rpc, config->out_bytes_max);
    conn_set_patience(rpc->conn, RPC_PATIENCE_USEC);
    if (tls) {
        conn_use_tls(rpc->conn, tls);
    }
    if (config->lobby) {
        rpc_enter_lobby(rpc, config->lobby);
    }
    return rpc;
}

struct rpc *rpc_accept(struct loop *loop, int fd, const struct rpc_config *config)
{
    struct keyring *ring = keyring_current();
    struct tls *tls = ring ? tls_new(ring, TLS_ACCEPTS, 0) : NULL;

    keyring_unref(ring);
    return rpc_take_over(loop, fd, tls, config);
}

int rpc_connect(struct loop *loop, const struct addr *addr, const struct rpc_config *config,
                struct rpc **ret_rpc)
{
    struct rpc *rpc = rpc_make(loop, config, false);
    int r;

    rpc->ring = keyring_current();
    r = rpc_dial(rpc, addr);
    if (r < 0) {
        rpc_retire(rpc);
        return r;
    }
    if (rpc->ring && keyring_count(rpc->ring) > 1) {
        rpc->addr = mem_alloc(sizeof(*addr));
        *rpc->addr = *addr;
    }
    *ret_rpc = rpc;
    return 0;
}

struct rpc_parcel *rpc_detach(struct rpc *rpc)
{
    struct rpc_parcel *parcel = mem_zalloc(1, sizeof(*parcel));

    kumo_assert(rpc->accepted && rpc->state == RPC_HELLO);
    parcel->fd = conn_detach(rpc->conn, &parcel->in, &parcel->tls);
    rpc_retire(rpc);
    return parcel;
}

struct rpc *rpc_adopt(struct loop *loop, struct rpc_parcel *parcel, const struct rpc_config *config)
{
    struct rpc *rpc = rpc_take_over(loop, parcel->fd, TAKE_PTR(parcel->tls), config);

    conn_unread(rpc->conn, buf_head(&parcel->in), buf_len(&parcel->in));
    parcel->fd = -1;
    rpc_parcel_free(parcel);
    return rpc;
}

struct rpc_parcel *rpc_parcel_free(struct rpc_parcel *parcel)
{
    if (parcel) {
        if (parcel->fd >= 0) {
            close(parcel->fd);
        }
        tls_free(parcel->tls);
        buf_free(&parcel->in);
        free(parcel);
    }
    return NULL;
}

/* ---- asking ---- */

void rpc_set_owner(struct rpc *rpc, const struct rpc_ops *ops, void *ctx)
{
    rpc->ops = ops;
    rpc->ctx = ctx;
}

void *rpc_ctx(const struct rpc *rpc)
{
    return rpc->ctx;
}

bool rpc_is_up(const struct rpc *rpc)
{
    return rpc->state == RPC_UP;
}

bool rpc_is_secured(const struct rpc *rpc)
{
    return conn_is_secured(rpc->conn);
}

const char *rpc_peer_name(const struct rpc *rpc)
{
    return conn_peer_name(rpc->conn);
}

struct loop *rpc_loop(const struct rpc *rpc)
{
    return rpc->loop;
}

bool rpc_out_full(const struct rpc *rpc)
{
    return conn_out_full(rpc->conn);
}

size_t rpc_out_bytes(const struct rpc *rpc)
{
    return conn_out_bytes(rpc->conn);
}

size_t rpc_pending(const struct rpc *rpc)
{
    return rpc->calls.count;
}

uint64_t rpc_progress_usec(const struct rpc *rpc)
{
    return conn_progress_usec(rpc->conn);
}

uint64_t rpc_heard_usec(const struct rpc *rpc)
{
    return rpc->heard_usec;
}

void rpc_pause_read(struct rpc *rpc)
{
    rpc->paused = true;
    conn_pause_read(rpc->conn);
}

void rpc_resume_read(struct rpc *rpc)
{
    rpc->paused = false;
    conn_resume_read(rpc->conn);
}

void rpc_set_link(struct rpc *rpc, struct rpc_link *link)
{
    rpc->link = link;
}
