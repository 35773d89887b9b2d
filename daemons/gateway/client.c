#include "client.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "gateway.h"
#include "io/conn.h"
#include "io/listener.h"
#include "io/log.h"
#include "reply.h"
#include "thread.h"
#include "wire/mc_text_reply.h"

#include <stdlib.h>
#include <string.h>

#define BINARY_MAGIC 0x80

/* ---- slots ---- */

struct slot *client_add_slot(struct client *c, enum mc_cmd cmd, bool noreply)
{
    struct thread *t = c->thread;
    struct slot *s;

    if (list_empty(&t->free_slots)) {
        s = mem_alloc(sizeof(*s));
    } else {
        s = LIST_ENTRY(t->free_slots.next, struct slot, node);
        list_remove(&s->node);
        t->n_free_slots--;
    }
    *s = (struct slot){ .client = c, .cmd = cmd, .noreply = noreply };
    list_init(&s->unsent);
    list_push_back(&c->slots, &s->node);
    c->n_slots++;
    return s;
}

static bool is_get(enum mc_cmd cmd)
{
    return cmd == MC_GET || cmd == MC_GETS || cmd == MC_GAT || cmd == MC_GATS;
}

/* The slot's key is not on the wire, or no more. */
static void client_end_get(struct slot *s)
{
    struct client *c = s->client;

    if (s->get_bytes > 0) {
        kumo_assert(c->gets > 0);
        kumo_assert(c->thread->get_bytes >= s->get_bytes);
        c->gets--;
        c->thread->get_bytes -= s->get_bytes;
        s->get_bytes = 0;
    }
}

static void slot_free(struct slot *s)
{
    struct client *c = s->client;

    list_remove(&s->node);
    list_remove(&s->unsent);
    client_end_get(s);
    c->n_slots--;
    buf_free(&s->reply);
    if (c->thread->n_free_slots == THREAD_FREE_SLOTS_MAX) {
        free(s);
        return;
    }
    list_push_front(&c->thread->free_slots, &s->node);
    c->thread->n_free_slots++;
}

/* Whether the answer at the head is to be written. After an error in a get only the rest of its
 * line is left out, and its END. */
static bool slot_is_spoken(struct slot *s)
{
    struct client *c = s->client;
    bool get = s->end || is_get(s->cmd);
    bool muted = get && c->get_failed;

    if (get) {
        c->get_failed = s->end ? false : c->get_failed || s->failed;
    }
    return !s->noreply && !muted;
}

/* Large answers are handed over, small ones copied. */
static void reply_write(struct client *c, struct slot *s)
{
    struct buf *reply = &s->reply;

    if (buf_len(reply) == 0) {
        if (s->line) {
            buf_append(conn_out(c->conn), s->line, strlen(s->line));
            conn_mark(c->conn);
        }
        return;
    }
    if (buf_len(reply) >= CONN_REF_MIN_BYTES && reply->start == 0) {
        conn_out_ref(c->conn, reply->data, buf_len(reply), free, reply->data);
        *reply = (struct buf){ 0 };
        return;
    }
    buf_append(conn_out(c->conn), buf_head(reply), buf_len(reply));
    conn_mark(c->conn);
}

/* Writes the answers that are due, up to the first that isn't there yet. */
static void slots_write(struct client *c)
{
    while (!list_empty(&c->slots)) {
        struct slot *s = LIST_ENTRY(c->slots.next, struct slot, node);
        if (!s->done) {
            return;
        }
        c->reply_bytes -= buf_len(&s->reply);
        if (slot_is_spoken(s)) {
            reply_write(c, s);
        }
        slot_free(s);
    }
}

void client_slot_done(struct slot *s)
{
    struct client *c = s->client;

    kumo_assert(!s->done);
    s->done = true;
    c->reply_bytes += buf_len(&s->reply);
    if (c->slots.next == &s->node) {
        slots_write(c);
    }
}

void client_answer(struct client *c, const void *line, size_t bytes)
{
    struct slot *s;

    if (list_empty(&c->slots)) {
        buf_append(conn_out(c->conn), line, bytes);
        conn_mark(c->conn);
        return;
    }
    s = client_add_slot(c, _MC_CMD_INVALID, false);
    buf_append(&s->reply, line, bytes);
    client_slot_done(s);
}

void client_answer_error(struct client *c, enum mc_cmd cmd, const char *line)
{
    struct slot *s = client_add_slot(c, _MC_CMD_INVALID, false);

    s->end = is_get(cmd);
    s->line = line;
    client_slot_done(s);
}

/* ---- reading ---- */

bool client_is_behind(const struct client *c)
{
    return c->reply_bytes > CLIENT_REPLY_BYTES_MAX || conn_out_full(c->conn);
}

static bool client_is_full(const struct client *c)
{
    return c->barrier || !list_empty(&c->unsent) || c->n_slots >= CLIENT_SLOTS_MAX ||
           c->value_bytes > CLIENT_VALUE_BYTES_MAX || client_is_behind(c);
}

static void client_pause(struct client *c)
{
    if (!c->paused) {
        c->paused = true;
        counter_add(&c->thread->counters, COUNTER_CONN_YIELDS, 1);
        conn_pause_read(c->conn);
    }
}

/* Has client_continue called at the turn's end. */
static void client_set_ready(struct client *c)
{
    if (list_empty(&c->ready)) {
        list_push_back(&c->thread->ready_clients, &c->ready);
        thread_wake(c->thread);
    }
}

static void client_end(struct client *c)
{
    c->closing = true;
    client_set_ready(c);
}

/* Takes one request off what was read. False: no whole one is there. */
static bool client_parse_one(struct client *c)
{
    struct mc_limits limits = { .value_bytes_max =
                                    (size_t) c->thread->gateway->settings.max_value_bytes };
    struct buf *in = conn_in(c->conn);
    struct mc_request req;
    size_t consumed;
    size_t need;
    enum mc_parse_result r =
        mc_text_parse(&c->parser, &limits, buf_head(in), buf_len(in), &req, &consumed, &need);

    if (r == MC_NEED_MORE) {
        buf_consume(in, consumed);
        c->needs = need > CONN_IN_BYTES_MAX / 2;
        conn_need(c->conn, c->needs ? need : 0);
        return false;
    }
    if (c->needs) {
        c->needs = false;
        conn_need(c->conn, 0);
    }
    if (r == MC_META) { /* not spoken yet; what follows is read as commands */
        consumed = need;
    }
    request_handle(c, r, &req);
    buf_consume(in, consumed);
    return true;
}

static void client_parse(struct client *c)
{
    while (!c->closing && buf_len(conn_in(c->conn)) > 0) {
        if (client_is_full(c)) {
            client_pause(c);
            return;
        }
        if (!client_parse_one(c)) {
            break;
        }
    }
    if (c->closing || conn_eof(c->conn)) {
        client_end(c);
    }
}

/* ---- the connection ---- */

static void client_count_bytes(struct client *c)
{
    uint64_t in = conn_bytes_in(c->conn);
    uint64_t out = conn_bytes_out(c->conn);

    counter_add(&c->thread->counters, COUNTER_BYTES_READ, in - c->bytes_in);
    counter_add(&c->thread->counters, COUNTER_BYTES_WRITTEN, out - c->bytes_out);
    c->bytes_in = in;
    c->bytes_out = out;
}

static void on_data(struct conn *conn, void *ctx)
{
    struct client *c = ctx;

    thread_note_time(c->thread);
    client_count_bytes(c);
    if (!c->begun) {
        c->begun = true;
        if (*buf_head(conn_in(conn)) == BINARY_MAGIC) {
            log_ratelimit(LOG_LEVEL_WARNING,
                          "a client at %s speaks the binary protocol, which is not supported: "
                          "use the text protocol",
                          conn_peer_name(conn));
            client_end(c);
        }
    }
    client_parse(c);
}

static void on_eof(struct conn *conn, void *ctx)
{
    struct client *c = ctx;

    (void) conn;
    thread_note_time(c->thread);
    client_parse(c);
    client_set_ready(c);
}

static void on_drained(struct conn *conn, void *ctx)
{
    (void) conn;
    client_set_ready(ctx);
}

/* Everything but the connection. */
static void client_drop(struct client *c)
{
    struct thread *t = c->thread;

    client_count_bytes(c);
    thread_note_time(t);
    route_forget(t->route, t->now_usec, &c->route, &t->actions);
    thread_act(t);
    while (!list_empty(&c->slots)) {
        slot_free(LIST_ENTRY(c->slots.next, struct slot, node));
    }
    list_remove(&c->node);
    list_remove(&c->ready);
    listener_release(t->gateway->listener);
    free(c);
    thread_client_gone(t);
}

static void on_closed(struct conn *conn, void *ctx, int error)
{
    struct client *c = ctx;

    if (error < 0) {
        log_debug("client %s: %s", conn_peer_name(conn), strerror(-error));
    }
    client_drop(c);
}

static const struct conn_ops client_ops = {
    .on_data = on_data,
    .on_eof = on_eof,
    .on_closed = on_closed,
    .on_drained = on_drained,
};

void client_new(struct thread *t, int fd)
{
    struct client *c = mem_zalloc(1, sizeof(*c));

    c->thread = t;
    list_init(&c->ready);
    list_init(&c->slots);
    list_init(&c->unsent);
    c->get_bytes = MAX_OF(t->value_bytes, (size_t) CLIENT_GET_BYTES_FIRST);
    list_push_back(&t->clients, &c->node);
    route_client_init(&c->route, ++t->next_client_id);
    c->conn = conn_new(t->loop, fd, &client_ops, c, CLIENT_OUT_BYTES_MAX);
    counter_add(&t->counters, COUNTER_TOTAL_CONNECTIONS, 1);
    if (t->stopping) {
        client_stop(c);
    }
}

void client_free(struct client *c)
{
    struct conn *conn = c->conn;

    client_drop(c);
    conn_close(conn);
}

void client_stop(struct client *c)
{
    client_end(c);
}

/* ---- answers ---- */

static void slot_fill_failure(struct slot *s, const struct route_failure *f)
{
    char text[ROUTE_TEXT_BYTES];

    reply_error(&s->reply, route_failure_text(s->client->thread->route, f, text));
    s->failed = true;
}

/* The answer in one copy, when nothing is due before it. */
static bool slot_write_at_once(struct slot *s, const struct route_action *a)
{
    struct client *c = s->client;

    if (c->slots.next != &s->node || s->noreply || c->get_failed) {
        return false;
    }
    s->failed = reply_result(conn_out(c->conn), s->cmd, a->done.op, &a->done.result);
    conn_mark(c->conn);
    return true;
}

static void slot_fill(struct slot *s, const struct route_action *a)
{
    if (a->done.failed) {
        slot_fill_failure(s, &a->done.failure);
    } else if (s->too_large) {
        s->line = MC_LINE_TOO_LARGE;
    } else if (!slot_write_at_once(s, a)) {
        s->failed = reply_result(&s->reply, s->cmd, a->done.op, &a->done.result);
    }
}

/* One partition's answer to a flush_all: the first error, or the last answer, is the client's.
 * Returns whether it was the last. */
static bool slot_fill_part(struct slot *s, const struct route_action *a)
{
    kumo_assert(s->parts > 0);
    s->parts--;
    if (!s->failed && (s->parts == 0 || a->done.failed || a->done.result.code != RESULT_FLUSHED)) {
        slot_fill(s, a);
    }
    if (s->parts == 0) {
        s->client->barrier = false;
    }
    return s->parts == 0;
}

/* What a value is to be expected to have: large ones count at once, small ones slowly. */
static size_t expect(size_t expected, size_t seen, size_t slowness)
{
    if (seen < expected) {
        seen = expected - (expected - seen) / slowness;
    }
    return MAX_OF(seen, (size_t) CLIENT_GET_BYTES_LEAST);
}

/* A key of a get is off the wire. */
static void client_note_get(struct slot *s, const struct route_action *a)
{
    struct client *c = s->client;
    size_t bytes = a->done.result.value_len;

    client_end_get(s);
    if (a->done.failed) {
        return;
    }
    c->get_bytes = expect(c->get_bytes, bytes, 16);
    c->thread->value_bytes = expect(c->thread->value_bytes, bytes, 64);
}

void client_done(struct slot *s, const struct route_action *a)
{
    struct client *c = s->client;
    struct counters *counters = &c->thread->counters;

    c->value_bytes -= s->value_bytes;
    if (is_get(s->cmd)) {
        client_note_get(s, a);
    }
    if (s->cmd != MC_FLUSH_ALL) {
        slot_fill(s, a);
    } else if (!slot_fill_part(s, a)) {
        return;
    }
    if (s->failed) {
        counter_add(counters, COUNTER_ERRORS, 1);
    } else if (!s->too_large) {
        reply_count(counters, s->cmd, &a->done.result);
    }
    client_slot_done(s);
    if (c->paused || c->closing || c->barrier || !list_empty(&c->unsent) || conn_eof(c->conn)) {
        client_set_ready(c);
    }
}

static void client_begin_barrier(struct client *c)
{
    struct slot *head;

    if (list_empty(&c->slots)) {
        return;
    }
    head = LIST_ENTRY(c->slots.next, struct slot, node);
    if (head->cmd == MC_FLUSH_ALL && !head->begun && !head->done) {
        head->begun = true;
        request_begin_flush(c, head);
    }
}

void client_continue(struct client *c)
{
    client_count_bytes(c);
    if (c->barrier) {
        client_begin_barrier(c);
    }
    request_continue_get(c);
    if (c->paused && !c->closing && !client_is_full(c)) {
        c->paused = false;
        conn_resume_read(c->conn);
        client_parse(c);
    }
    if (c->closing && list_empty(&c->slots)) {
        conn_close_after_flush(c->conn);
    }
}
