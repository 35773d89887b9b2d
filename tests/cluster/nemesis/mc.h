/* A client of memcached's text protocol that does one operation at a time and tells what became of
 * it. Belongs to one thread. */
#pragma once

#include "base/buf.h"
#include "lin/lin.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MC_KEY_BYTES 64

struct mc {
    int fd; /* -1: not connected */
    struct buf in;
    uint64_t deadline_nsec; /* of the operation under way */
};

/* CLOCK_MONOTONIC. */
uint64_t mc_now_nsec(void);

/* 0 or -errno; a connection that is open is closed first. Valid when zeroed but for fd = -1. */
int mc_connect(struct mc *m, uint16_t port, uint64_t timeout_nsec);
void mc_close(struct mc *m);

/* Does o->code on the key and fills in what it was told: result, flags, token, number, and for a
 * read the value, which is copied to `value` (o->value stays as it is otherwise). result is
 * LIN_UNKNOWN when nothing is known, RESULT_REFUSED when certainly nothing happened. Returns 0, or
 * -errno: the connection is closed then. `error`: the server's words, "" when it said none. */
int mc_do(struct mc *m, const char *key, struct lin_op *o, uint64_t timeout_nsec, struct buf *value,
          char error[static 160]);

/* Sends the requests, which are answered by `n` lines; all must be `want`. 0, or -errno: -EBADMSG
 * when one is not. */
int mc_pipeline(struct mc *m, struct buf *requests, size_t n, const char *want,
                uint64_t timeout_nsec);

/* One value of mc_get_many: `o` is of keys[i]. */
typedef void (*mc_value_fn)(void *ctx, size_t i, const struct lin_op *o);

/* Gets many keys at once; tells each one that is there, in their order. 0 or -errno. */
int mc_get_many(struct mc *m, char (*keys)[MC_KEY_BYTES], size_t n, uint64_t timeout_nsec,
                mc_value_fn fn, void *ctx);
