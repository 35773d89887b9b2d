/* The parser of memcached's text protocol: where requests begin and end in the stream, and what is
 * dropped of those that are refused; see mc_text.h. What a line says is read in mc_text_line.c. */
#include "wire/mc_text.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "wire/mc_text_line.h"
#include "wire/mc_text_reply.h"

#include <string.h>

/* The most that is looked at of one line. */
#define WINDOW_BYTES (MC_LINE_BYTES_MAX + 1)

/* One call of mc_text_parse: the bytes not yet consumed, and where the results go. */
struct call {
    struct mc_parser *parser;
    const struct mc_limits *limits;
    const uint8_t *data;
    size_t len;
    struct mc_request *req;
    size_t consumed;
    size_t need;
};

/* ---- results ---- */

static void consume(struct call *c, size_t bytes)
{
    kumo_assert(bytes <= c->len);
    c->data += bytes;
    c->len -= bytes;
    c->consumed += bytes;
}

static enum mc_parse_result need_more(struct call *c, size_t need)
{
    kumo_assert(need > c->len);
    c->need = need;
    return MC_NEED_MORE;
}

/* Refuses the request; silent under noreply. */
static enum mc_parse_result refuse(struct call *c, const char *error)
{
    c->req->error = c->req->noreply ? NULL : error;
    return MC_ERROR;
}

/* The newline within the window, or NULL. */
static const uint8_t *find_newline(const struct call *c)
{
    return memchr(c->data, '\n', MIN_OF(c->len, (size_t) WINDOW_BYTES));
}

/* Length of a line whose newline is at data[n]: without the one '\r' that may stand before it. */
static size_t line_length(const uint8_t *data, size_t n)
{
    return n > 0 && data[n - 1] == '\r' ? n - 1 : n;
}

/* ---- what is refused but still to come ---- */

/* Consumes what the state says to drop. Returns whether that is done and a request may follow. */
static bool skip_refused(struct call *c)
{
    struct mc_parser *p = c->parser;
    size_t n = c->len;

    if (p->state == MC_PARSER_SKIP_BYTES) {
        n = MIN_OF((uint64_t) n, p->skip_bytes);
        p->skip_bytes -= n;
        if (p->skip_bytes == 0) {
            p->state = MC_PARSER_COMMAND;
        }
    } else if (p->state == MC_PARSER_SKIP_LINE) {
        const uint8_t *newline = memchr(c->data, '\n', n);

        if (newline) {
            n = (size_t) (newline - c->data) + 1;
            p->state = MC_PARSER_COMMAND;
        }
    } else {
        return true;
    }
    consume(c, n);
    return p->state == MC_PARSER_COMMAND;
}

void mc_text_skip(struct mc_parser *p, uint64_t bytes)
{
    kumo_assert(p->state == MC_PARSER_COMMAND);
    if (bytes > 0) {
        p->state = MC_PARSER_SKIP_BYTES;
        p->skip_bytes = bytes;
    }
}

/* ---- command lines ---- */

/* The data block behind a good line of `line_bytes` bytes. */
static enum mc_parse_result parse_data(struct call *c, size_t line_bytes)
{
    struct mc_request *req = c->req;
    size_t total = line_bytes + req->value_len + 2;

    if (req->value_len > c->limits->value_bytes_max) {
        consume(c, line_bytes);
        mc_text_skip(c->parser, req->value_len + 2);
        req->value_len = 0;
        req->error = req->noreply ? NULL : MC_LINE_TOO_LARGE;
        return MC_TOO_LARGE;
    }
    if (c->len < total) {
        return need_more(c, total);
    }
    req->value = c->data + line_bytes;
    consume(c, total);
    if (memcmp(req->value + req->value_len, "\r\n", 2) != 0) {
        return refuse(c, MC_LINE_BAD_CHUNK);
    }
    return MC_REQUEST;
}

/* A line of `line_bytes` bytes, the newline included, as a command. */
static enum mc_parse_result parse_read(struct call *c, const struct mc_line *l, size_t line_bytes)
{
    const char *error = mc_line_read(l, false, c->req);

    if (!error && mc_line_kind(l) == MC_LINE_DATA) {
        return parse_data(c, line_bytes);
    }
    consume(c, line_bytes);
    return error ? refuse(c, error) : MC_REQUEST;
}

/* A line whose newline is at data[newline]. */
static enum mc_parse_result parse_line(struct call *c, size_t newline)
{
    struct mc_line l;

    mc_line_split(c->data, line_length(c->data, newline), &l);
    switch (mc_line_kind(&l)) {
    case MC_LINE_META:
        c->need = newline + 1;
        return MC_META;
    case MC_LINE_HTTP:
        return MC_CLOSE;
    case MC_LINE_UNKNOWN:
        consume(c, newline + 1);
        return refuse(c, MC_LINE_ERROR);
    default:
        return parse_read(c, &l, newline + 1);
    }
}

/* ---- get lines of any length ---- */

/* Ends one piece of a long get line: settles where the parser stands, and hands the keys out unless
 * there is an error. */
static enum mc_parse_result finish_piece(struct call *c, const char *error)
{
    struct mc_parser *p = c->parser;

    if (!error && !c->req->more && !p->keys_seen) {
        error = MC_LINE_ERROR;
    }
    if (!c->req->more) {
        p->state = MC_PARSER_COMMAND;
    } else {
        p->state = error ? MC_PARSER_SKIP_LINE : MC_PARSER_KEYS;
    }
    return error ? refuse(c, error) : MC_REQUEST;
}

/* A window without a newline: only a get line may be so long. Its whole words are taken; the last
 * one may go on. The cut depends on nothing but the bytes, however they arrived. */
static enum mc_parse_result parse_long_line(struct call *c)
{
    const uint8_t *cut = memrchr(c->data, ' ', WINDOW_BYTES);
    struct mc_parser *p = c->parser;
    struct mc_line l;
    const char *error;

    if (!cut) {
        return MC_CLOSE;
    }
    mc_line_split(c->data, (size_t) (cut - c->data), &l);
    if (mc_line_kind(&l) != MC_LINE_KEYS) {
        return MC_CLOSE;
    }
    error = mc_line_read(&l, true, c->req);
    p->keys_cmd = c->req->cmd;
    p->keys_exptime = c->req->exptime;
    p->keys_seen = c->req->keys_len > 0;
    consume(c, (size_t) (cut - c->data) + 1);
    return finish_piece(c, error);
}

/* The next piece of a long get line. */
static enum mc_parse_result parse_keys(struct call *c)
{
    const uint8_t *newline = find_newline(c), *cut = newline;
    struct mc_request *req = c->req;
    int n_keys;

    if (!newline && c->len < WINDOW_BYTES) {
        return need_more(c, c->len + 1);
    }
    req->cmd = c->parser->keys_cmd;
    req->exptime = c->parser->keys_exptime;
    req->more = !newline;
    if (!newline) {
        cut = memrchr(c->data, ' ', WINDOW_BYTES);
    }
    if (!cut) {
        consume(c, WINDOW_BYTES); /* the beginning of a key that is far too long */
        return finish_piece(c, MC_LINE_BAD_FORMAT);
    }
    req->keys = c->data;
    req->keys_len = (size_t) (cut - c->data);
    if (newline) {
        req->keys_len = line_length(c->data, req->keys_len);
    }
    consume(c, (size_t) (cut - c->data) + 1);
    n_keys = mc_text_count_keys(req->keys, req->keys_len);
    c->parser->keys_seen = c->parser->keys_seen || n_keys > 0;
    return finish_piece(c, n_keys < 0 ? MC_LINE_BAD_FORMAT : NULL);
}

static enum mc_parse_result parse_command(struct call *c)
{
    const uint8_t *newline = find_newline(c);

    if (newline) {
        return parse_line(c, (size_t) (newline - c->data));
    }
    return c->len < WINDOW_BYTES ? need_more(c, c->len + 1) : parse_long_line(c);
}

enum mc_parse_result mc_text_parse(struct mc_parser *p, const struct mc_limits *limits,
                                   const uint8_t *data, size_t len, struct mc_request *ret_req,
                                   size_t *ret_consumed, size_t *ret_need)
{
    struct call c = {
        .parser = p,
        .limits = limits,
        .data = len > 0 ? data : (const uint8_t *) "", /* an empty buffer may have no memory */
        .len = len,
        .req = ret_req,
    };
    enum mc_parse_result r;

    kumo_assert(limits->value_bytes_max <= 1U << 30);
    *ret_req = (struct mc_request){ .cmd = _MC_CMD_INVALID };
    if (!skip_refused(&c)) {
        r = need_more(&c, c.len + 1);
    } else if (p->state == MC_PARSER_KEYS) {
        r = parse_keys(&c);
    } else {
        r = parse_command(&c);
    }
    *ret_consumed = c.consumed;
    *ret_need = c.need;
    return r;
}
