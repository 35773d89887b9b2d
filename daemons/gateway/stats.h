/* What the gateway counts, and memcached's "stats" made of it. Each thread counts for itself;
 * whoever is asked adds them up. */
#pragma once

#include "base/buf.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gateway;

enum counter {
    COUNTER_CMD_GET, /* keys asked for, as memcached counts them */
    COUNTER_CMD_SET,
    COUNTER_CMD_FLUSH,
    COUNTER_CMD_TOUCH,
    COUNTER_CMD_META,
    COUNTER_GET_HITS,
    COUNTER_GET_MISSES,
    COUNTER_DELETE_HITS,
    COUNTER_DELETE_MISSES,
    COUNTER_INCR_HITS,
    COUNTER_INCR_MISSES,
    COUNTER_DECR_HITS,
    COUNTER_DECR_MISSES,
    COUNTER_CAS_HITS,
    COUNTER_CAS_MISSES,
    COUNTER_CAS_BADVAL,
    COUNTER_TOUCH_HITS,
    COUNTER_TOUCH_MISSES,
    COUNTER_TOTAL_ITEMS,       /* values stored through this gateway */
    COUNTER_TOTAL_CONNECTIONS, /* client connections accepted */
    COUNTER_BYTES_READ,
    COUNTER_BYTES_WRITTEN,
    COUNTER_CONN_YIELDS,  /* times that a client was not read because it was ahead of its answers */
    COUNTER_TOO_LARGE,    /* values refused for their size */
    COUNTER_ERRORS,       /* requests that ended with an error of the gateway or a server */
    COUNTER_OPS_SENT,     /* operations sent to servers, those sent again included */
    COUNTER_OPS_MESSAGES, /* messages that carried them */
    _COUNTER_MAX,
};

/* Written by its own thread only, read by all. */
struct counters {
    _Atomic uint64_t v[_COUNTER_MAX];
};

static inline void counter_add(struct counters *c, enum counter which, uint64_t n)
{
    uint64_t v = atomic_load_explicit(&c->v[which], memory_order_relaxed);

    atomic_store_explicit(&c->v[which], v + n, memory_order_relaxed);
}

static inline uint64_t counter_get(const struct counters *c, enum counter which)
{
    return atomic_load_explicit(&c->v[which], memory_order_relaxed);
}

/* Appends the answer to "stats" and its end; from any thread. */
void stats_write(const struct gateway *g, struct buf *out);
/* "stats settings". */
void stats_write_settings(const struct gateway *g, struct buf *out);
/* "stats reset": counts from now on. */
void stats_reset(struct gateway *g);
