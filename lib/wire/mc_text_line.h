/* One line of memcached's text protocol, cut into words and read into a request. The inside of
 * mc_text.c, which knows where lines begin and end; nobody else includes this. */
#pragma once

#include "wire/mc_text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* cas has six with noreply; one more shows that there are too many. */
#define MC_LINE_ARGS_MAX 7

struct mc_command;

struct mc_token {
    const uint8_t *p;
    size_t len;
};

struct mc_line {
    const struct mc_command *command; /* NULL: none */
    struct mc_token word;             /* the first; empty when the line is */
    struct mc_token args[MC_LINE_ARGS_MAX];
    size_t n_args;      /* as far as the command wants to know: for a list of keys, the least */
    const uint8_t *end; /* of the line, without its newline */
};

enum mc_line_kind {
    MC_LINE_ALONE,   /* a command on a line of its own */
    MC_LINE_KEYS,    /* get, gets, gat, gats: a list of keys, which may be a long one */
    MC_LINE_DATA,    /* a block of data follows, whose length is in req->value_len */
    MC_LINE_META,    /* mg, ms, md, ma, mn, me: not read here */
    MC_LINE_HTTP,    /* no command, and ends like a browser's request */
    MC_LINE_UNKNOWN, /* no command */
    _MC_LINE_KIND_MAX,
    _MC_LINE_KIND_INVALID = -EINVAL,
};

/* Cuts a line, given without its newline, into words and looks its command up. */
void mc_line_split(const uint8_t *p, size_t len, struct mc_line *ret_line);

enum mc_line_kind mc_line_kind(const struct mc_line *l);

/* Reads a line that has a command into the request, which is zeroed. `more`: this is the beginning
 * of a list of keys that goes on. Returns NULL, or the line that refuses it; cmd, more and noreply
 * are set in both cases. */
const char *mc_line_read(const struct mc_line *l, bool more, struct mc_request *req);

/* How many keys the list has; -EINVAL when one of them is bad. */
int mc_text_count_keys(const uint8_t *keys, size_t len);
