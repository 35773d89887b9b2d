/* memcached's text protocol, as requests: bytes in, one struct out. Pure: no socket, no clock, no
 * allocation. Answers are in mc_text_reply.h.
 *
 * How a connection drives it, with the bytes it has received and not yet consumed:
 *
 *     r = mc_text_parse(&parser, &limits, data, len, &req, &consumed, &need);
 *     ... act on r; req points into data, so copy or finish before the bytes move ...
 *     drop `consumed` bytes from the front
 *     MC_NEED_MORE: make room for `need` bytes in all, read more, call again
 *     MC_CLOSE: send what is still to be answered, close
 *     MC_META: give the line to the meta parser, call again behind what that consumes
 *     anything else: call again
 *
 * The same bytes give the same requests, in whatever pieces they arrive. */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MC_KEY_BYTES_MAX 250

/* A command line may have this many bytes before its newline. A get line may have more: it is then
 * handed out in pieces. A connection needs a buffer of at least MC_LINE_BYTES_MAX + 1. */
#define MC_LINE_BYTES_MAX 2048

enum mc_cmd {
    MC_GET,
    MC_GETS,
    MC_GAT,
    MC_GATS,
    MC_SET,
    MC_ADD,
    MC_REPLACE,
    MC_APPEND,
    MC_PREPEND,
    MC_CAS,
    MC_DELETE,
    MC_INCR,
    MC_DECR,
    MC_TOUCH,
    MC_FLUSH_ALL,
    MC_VERSION,
    MC_VERBOSITY,
    MC_STATS,
    MC_METADUMP, /* lru_crawler metadump all: list the keys */
    MC_QUIT,     /* close without an answer */
    _MC_CMD_MAX,
    _MC_CMD_INVALID = -EINVAL,
};

/* What the gateway is configured to. */
struct mc_limits {
    size_t value_bytes_max; /* at most 1 GiB */
};

/* One request; all pointers lead into the caller's bytes. Which fields have a meaning depends on
 * the command; the others are zero. */
struct mc_request {
    enum mc_cmd cmd; /* _MC_CMD_INVALID when the first word is no command */
    bool noreply;    /* answer nothing, whatever happens */
    bool more;       /* get kinds: keys of this line are still to come; END is not due yet */

    const uint8_t *key; /* commands on one key */
    size_t key_len;
    const uint8_t *keys; /* get kinds: walk by mc_text_next_token; all keys are good ones */
    size_t keys_len;
    const uint8_t *args; /* stats: what follows the word, walk by mc_text_next_token */
    size_t args_len;

    uint32_t flags;
    int32_t exptime; /* also of gat and touch; the delay of flush_all (below 1: now) */
    uint64_t delta;
    uint64_t cas; /* of the cas command, where 0 is a condition like any other */
    uint64_t verbosity;

    const uint8_t *value;
    size_t value_len;

    const char *error; /* MC_ERROR, MC_TOO_LARGE: the line to answer; NULL: answer nothing */
};

enum mc_parse_result {
    /* No whole request. *ret_need bytes, counted from the first one not consumed, are needed before
     * another call can do more; it is always more than what is left. */
    MC_NEED_MORE,
    /* ret_req is a request. */
    MC_REQUEST,
    /* The request is refused: answer ret_req->error. Behind requests with `more` it stands instead
     * of END. */
    MC_ERROR,
    /* The value is over the limit: ret_req has cmd, key, noreply and error. When cmd is MC_SET the
     * old value must be removed before the answer: stale data must not survive (memcached keeps it
     * for the other commands). The next calls consume the value. */
    MC_TOO_LARGE,
    /* A whole line that begins with a meta command (mg, ms, md, ma, mn, me) is there: *ret_need
     * bytes with its newline, of which none are consumed. The meta parser takes it from here. */
    MC_META,
    /* Close the connection without an answer: a line without an end, or HTTP. */
    MC_CLOSE,
    _MC_PARSE_RESULT_MAX,
    _MC_PARSE_RESULT_INVALID = -EINVAL,
};

enum mc_parser_state {
    MC_PARSER_COMMAND,    /* a command line comes next */
    MC_PARSER_KEYS,       /* inside a long get line */
    MC_PARSER_SKIP_LINE,  /* the rest of a refused get line */
    MC_PARSER_SKIP_BYTES, /* the rest of a refused value */
    _MC_PARSER_STATE_MAX,
    _MC_PARSER_STATE_INVALID = -EINVAL,
};

/* What has to be known between calls. Valid when zeroed; plain data, may be copied and saved. */
struct mc_parser {
    enum mc_parser_state state;
    enum mc_cmd keys_cmd; /* MC_PARSER_KEYS: get, gets, gat or gats */
    int32_t keys_exptime; /* and for gat and gats */
    bool keys_seen;       /* and whether the line had a key yet */
    uint64_t skip_bytes;  /* MC_PARSER_SKIP_BYTES */
};

/* Takes at most one request from data[0..len). Sets *ret_consumed to the bytes that are done with
 * and must be dropped (also on MC_NEED_MORE), *ret_need only for MC_NEED_MORE and MC_META (else 0),
 * ret_req for MC_REQUEST, MC_ERROR and MC_TOO_LARGE (else meaningless). What wasn't consumed must
 * be at the front of the next call's bytes. Never asks for more than the longest line plus a value
 * at the limit. */
enum mc_parse_result mc_text_parse(struct mc_parser *p, const struct mc_limits *limits,
                                   const uint8_t *data, size_t len, struct mc_request *ret_req,
                                   size_t *ret_consumed, size_t *ret_need);

/* Has the next `bytes` bytes of the connection dropped unread: for the meta parser, which refuses
 * values too. Only between requests. */
void mc_text_skip(struct mc_parser *p, uint64_t bytes);

/* Takes the first token off a list separated by spaces: *rest and *rest_len move behind it. Returns
 * false, and leaves the outputs alone, when there are no more. */
bool mc_text_next_token(const uint8_t **rest, size_t *rest_len, const uint8_t **ret_token,
                        size_t *ret_len);

/* May this be a key in the text protocol: 1 to 250 bytes without space, newline, return and NUL. */
bool mc_text_key_ok(const uint8_t *key, size_t len);
