/* From a request of the text protocol to operations, or to an answer at once. */
#include "client.h"

#include "base/assert.h"
#include "gateway.h"
#include "io/log.h"
#include "reply.h"
#include "stats.h"
#include "thread.h"
#include "wire/mc_text_reply.h"

#include <string.h>

static const uint8_t op_codes[_MC_CMD_MAX] = {
    [MC_GET] = OP_GET,         [MC_GETS] = OP_GET,      [MC_GAT] = OP_GAT,
    [MC_GATS] = OP_GAT,        [MC_SET] = OP_SET,       [MC_ADD] = OP_ADD,
    [MC_REPLACE] = OP_REPLACE, [MC_APPEND] = OP_APPEND, [MC_PREPEND] = OP_PREPEND,
    [MC_CAS] = OP_CAS,         [MC_DELETE] = OP_DELETE, [MC_INCR] = OP_INCR,
    [MC_DECR] = OP_DECR,       [MC_TOUCH] = OP_TOUCH,   [MC_FLUSH_ALL] = OP_FLUSH,
};

static void answer_line(struct client *c, const struct mc_request *req, const char *line)
{
    if (!req->noreply) {
        client_answer(c, line, strlen(line));
    }
}

/* The slot's operation could not be taken. */
static void slot_refuse(struct slot *s, const struct route_failure *f)
{
    char text[ROUTE_TEXT_BYTES];

    reply_error(&s->reply, route_failure_text(s->client->thread->route, f, text));
    s->failed = true;
    counter_add(&s->client->thread->counters, COUNTER_ERRORS, 1);
    client_slot_done(s);
}

/* Returns whether the operation was taken. */
static bool submit(struct client *c, struct slot *s, const struct op *op)
{
    struct route_failure f;

    if (thread_submit(c->thread, &c->route, s, op, &f) < 0) {
        slot_refuse(s, &f);
        return false;
    }
    s->value_bytes = op->value_len;
    c->value_bytes += op->value_len;
    return true;
}

/* ---- commands on keys ---- */

/* Whether one more key may be on the wire: reads are cheap to ask for, their answers aren't. */
static bool may_get(const struct client *c)
{
    if (client_is_behind(c)) {
        return false;
    }
    return c->gets == 0 || ((c->gets + 1) * c->get_bytes <= CLIENT_GET_BYTES_MAX &&
                            c->thread->get_bytes + c->get_bytes <= THREAD_GET_BYTES_MAX);
}

static void submit_get(struct client *c, struct slot *s, const uint8_t *key, size_t key_len)
{
    struct op op = {
        .code = op_codes[s->cmd], .exptime = s->exptime, .key = key, .key_len = (uint8_t) key_len
    };

    if (submit(c, s, &op)) {
        s->get_bytes = c->get_bytes;
        c->thread->get_bytes += c->get_bytes;
        c->gets++;
    }
}

void request_continue_get(struct client *c)
{
    while (!list_empty(&c->unsent) && may_get(c)) {
        struct slot *s = LIST_ENTRY(c->unsent.next, struct slot, unsent);
        struct buf key = s->reply;
        s->reply = (struct buf){ 0 };
        list_remove(&s->unsent);
        submit_get(c, s, buf_head(&key), buf_len(&key));
        buf_free(&key);
    }
}

static void handle_get(struct client *c, const struct mc_request *req)
{
    const uint8_t *rest = req->keys;
    size_t rest_len = req->keys_len;
    const uint8_t *key;
    size_t key_len;
    struct slot *s;

    while (mc_text_next_token(&rest, &rest_len, &key, &key_len)) {
        s = client_add_slot(c, req->cmd, false);
        s->exptime = req->exptime;
        if (list_empty(&c->unsent) && may_get(c)) {
            submit_get(c, s, key, key_len);
        } else {
            buf_append(&s->reply, key, key_len);
            list_push_back(&c->unsent, &s->unsent);
        }
    }
    if (!req->more) {
        s = client_add_slot(c, _MC_CMD_INVALID, false);
        s->end = true;
        s->line = MC_LINE_END;
        client_slot_done(s);
    }
}

static void handle_write(struct client *c, const struct mc_request *req)
{
    struct op op = {
        .code = op_codes[req->cmd],
        .key = req->key,
        .key_len = (uint8_t) req->key_len,
        .flags = req->flags,
        .exptime = req->exptime,
        .operand = req->cmd == MC_CAS ? req->cas : req->delta,
        .value = req->value,
        .value_len = (uint32_t) req->value_len,
    };

    (void) submit(c, client_add_slot(c, req->cmd, req->noreply), &op);
}

/* The old value must not survive a set that was refused. */
static void handle_too_large(struct client *c, const struct mc_request *req)
{
    struct op op = { .code = OP_DELETE, .key = req->key, .key_len = (uint8_t) req->key_len };
    struct slot *s;

    counter_add(&c->thread->counters, COUNTER_TOO_LARGE, 1);
    if (req->cmd != MC_SET) {
        if (req->error) {
            client_answer(c, req->error, strlen(req->error));
        }
        return;
    }
    s = client_add_slot(c, MC_SET, req->noreply);
    s->too_large = true;
    (void) submit(c, s, &op);
}

/* ---- flush_all ---- */

/* It takes effect after what this client sent before, and before what it sends next: nothing more
 * is read until all partitions have answered. */
static void handle_flush(struct client *c, const struct mc_request *req)
{
    struct slot *s;

    if (!c->thread->gateway->settings.allow_flush_all) {
        answer_line(c, req, "SERVER_ERROR flush_all is disabled\r\n");
        return;
    }
    if (c->thread->table.n_partitions == 0) {
        answer_line(c, req, "SERVER_ERROR no servers are attached yet; run kumoctl attach\r\n");
        return;
    }
    s = client_add_slot(c, MC_FLUSH_ALL, req->noreply);
    s->parts = c->thread->table.n_partitions;
    s->value_bytes = 0;
    s->exptime = req->exptime;
    c->barrier = true;
    if (c->slots.next == &s->node) {
        s->begun = true;
        request_begin_flush(c, s);
    }
}

void request_begin_flush(struct client *c, struct slot *s)
{
    struct op op = { .code = OP_FLUSH, .exptime = s->exptime };
    uint32_t n = s->parts;
    struct route_failure f;
    char text[ROUTE_TEXT_BYTES];

    kumo_assert(c->barrier);
    for (uint32_t i = 0; i < n; i++) {
        op.operand = i;
        if (thread_submit(c->thread, &c->route, s, &op, &f) < 0) {
            s->parts--;
            if (!s->failed) {
                reply_error(&s->reply, route_failure_text(c->thread->route, &f, text));
                s->failed = true;
            }
        }
    }
    if (s->parts == 0) {
        c->barrier = false;
        counter_add(&c->thread->counters, COUNTER_ERRORS, 1);
        client_slot_done(s);
    }
}

/* ---- commands of the gateway itself ---- */

static void handle_stats(struct client *c, const struct mc_request *req)
{
    struct gateway *g = c->thread->gateway;
    const uint8_t *rest = req->args;
    size_t rest_len = req->args_len;
    const uint8_t *word = (const uint8_t *) "";
    size_t len = 0;
    struct buf out = { 0 };

    (void) mc_text_next_token(&rest, &rest_len, &word, &len);
    if (len == 0) {
        stats_write(g, &out);
    } else if (len == 8 && memcmp(word, "settings", len) == 0) {
        stats_write_settings(g, &out);
    } else if (len == 5 && memcmp(word, "reset", len) == 0) {
        stats_reset(g);
        buf_append(&out, MC_LINE_RESET, strlen(MC_LINE_RESET));
    } else if (len == 5 && (memcmp(word, "items", len) == 0 || memcmp(word, "slabs", len) == 0)) {
        buf_append(&out, MC_LINE_END, strlen(MC_LINE_END));
    } else {
        buf_append(&out, MC_LINE_ERROR, strlen(MC_LINE_ERROR));
    }
    client_answer(c, buf_head(&out), buf_len(&out));
    buf_free(&out);
}

static void handle_request(struct client *c, const struct mc_request *req)
{
    switch (req->cmd) {
    case MC_GET:
    case MC_GETS:
    case MC_GAT:
    case MC_GATS:
        handle_get(c, req);
        return;
    case MC_FLUSH_ALL:
        handle_flush(c, req);
        return;
    case MC_VERSION:
        answer_line(c, req, MC_LINE_VERSION("1.6.18"));
        return;
    case MC_VERBOSITY:
        answer_line(c, req, MC_LINE_OK);
        return;
    case MC_STATS:
        handle_stats(c, req);
        return;
    case MC_METADUMP:
        answer_line(c, req, "SERVER_ERROR keys can't be listed\r\n");
        return;
    case MC_QUIT:
        client_stop(c);
        return;
    default:
        handle_write(c, req);
        return;
    }
}

void request_handle(struct client *c, enum mc_parse_result r, const struct mc_request *req)
{
    switch (r) {
    case MC_REQUEST:
        handle_request(c, req);
        return;
    case MC_ERROR:
        if (req->error) {
            client_answer_error(c, req->cmd, req->error);
        }
        return;
    case MC_TOO_LARGE:
        handle_too_large(c, req);
        return;
    case MC_META:
        counter_add(&c->thread->counters, COUNTER_CMD_META, 1);
        client_answer(c, MC_LINE_ERROR, strlen(MC_LINE_ERROR));
        return;
    default:
        client_stop(c);
        return;
    }
}
