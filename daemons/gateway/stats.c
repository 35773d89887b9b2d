#include "stats.h"

#include "base/assert.h"
#include "gateway.h"
#include "io/clock.h"
#include "io/listener.h"
#include "thread.h"
#include "wire/mc_text_reply.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define STAT_LINE_BYTES_MAX 256

/* There is no limit here, but tools divide by it. */
#define LIMIT_MAXBYTES (UINT64_C(1) << 50)

static void put(struct buf *out, const char *name, const char *value)
{
    int n =
        mc_text_write_stat(buf_reserve(out, STAT_LINE_BYTES_MAX), STAT_LINE_BYTES_MAX, name, value);

    kumo_assert(n > 0);
    out->end += (size_t) n;
}

static void put_u64(struct buf *out, const char *name, uint64_t v)
{
    int n =
        mc_text_write_stat_u64(buf_reserve(out, STAT_LINE_BYTES_MAX), STAT_LINE_BYTES_MAX, name, v);

    kumo_assert(n > 0);
    out->end += (size_t) n;
}

static void put_end(struct buf *out)
{
    buf_append(out, MC_LINE_END, strlen(MC_LINE_END));
}

/* ---- counters ---- */

static uint64_t counter_sum(const struct gateway *g, enum counter which)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < g->n_threads; i++) {
        sum += counter_get(&g->threads[i]->counters, which);
    }
    return sum;
}

static uint64_t counter_since_reset(const struct gateway *g, enum counter which)
{
    return counter_sum(g, which) - counter_get(&g->reset, which);
}

void stats_reset(struct gateway *g)
{
    for (int i = 0; i < _COUNTER_MAX; i++) {
        atomic_store_explicit(&g->reset.v[i], counter_sum(g, (enum counter) i),
                              memory_order_relaxed);
    }
}

static const struct {
    const char *name;
    enum counter counter;
} counter_names[] = {
    { "total_connections", COUNTER_TOTAL_CONNECTIONS },
    { "cmd_get", COUNTER_CMD_GET },
    { "cmd_set", COUNTER_CMD_SET },
    { "cmd_flush", COUNTER_CMD_FLUSH },
    { "cmd_touch", COUNTER_CMD_TOUCH },
    { "cmd_meta", COUNTER_CMD_META },
    { "get_hits", COUNTER_GET_HITS },
    { "get_misses", COUNTER_GET_MISSES },
    { "delete_hits", COUNTER_DELETE_HITS },
    { "delete_misses", COUNTER_DELETE_MISSES },
    { "incr_hits", COUNTER_INCR_HITS },
    { "incr_misses", COUNTER_INCR_MISSES },
    { "decr_hits", COUNTER_DECR_HITS },
    { "decr_misses", COUNTER_DECR_MISSES },
    { "cas_hits", COUNTER_CAS_HITS },
    { "cas_misses", COUNTER_CAS_MISSES },
    { "cas_badval", COUNTER_CAS_BADVAL },
    { "touch_hits", COUNTER_TOUCH_HITS },
    { "touch_misses", COUNTER_TOUCH_MISSES },
    { "total_items", COUNTER_TOTAL_ITEMS },
    { "bytes_read", COUNTER_BYTES_READ },
    { "bytes_written", COUNTER_BYTES_WRITTEN },
    { "conn_yields", COUNTER_CONN_YIELDS },
    { "store_too_large", COUNTER_TOO_LARGE },
    { "kumofs_errors", COUNTER_ERRORS },
    { "kumofs_ops_sent", COUNTER_OPS_SENT },
    { "kumofs_ops_messages", COUNTER_OPS_MESSAGES },
};

/* Names that monitoring reads and that mean nothing here: nothing is evicted, and items are counted
 * by the servers, not by a gateway. */
static const char *const zero_names[] = {
    "curr_items",
    "bytes",
    "evictions",
    "reclaimed",
    "expired_unfetched",
    "evicted_unfetched",
    "get_expired",
    "get_flushed",
    "auth_cmds",
    "auth_errors",
    "hash_bytes",
    "hash_is_expanding",
    "rejected_connections",
    "reserved_fds",
    "crawler_reclaimed",
    "lrutail_reflocked",
    "evicted_active",
    "store_no_memory",
    "malloc_fails",
    "direct_reclaims",
};

/* ---- stats ---- */

static void put_usage(struct buf *out)
{
    struct rusage usage = { 0 };
    char text[64];

    (void) getrusage(RUSAGE_SELF, &usage);
    snprintf(text, sizeof(text), "%ld.%06ld", (long) usage.ru_utime.tv_sec,
             (long) usage.ru_utime.tv_usec);
    put(out, "rusage_user", text);
    snprintf(text, sizeof(text), "%ld.%06ld", (long) usage.ru_stime.tv_sec,
             (long) usage.ru_stime.tv_usec);
    put(out, "rusage_system", text);
}

static void put_process(const struct gateway *g, struct buf *out)
{
    put_u64(out, "pid", (uint64_t) getpid());
    put_u64(out, "uptime", (clock_boot_usec() - g->started_usec) / 1000000);
    put_u64(out, "time", (uint64_t) time(NULL));
    put(out, "version", "1.6.18");
    put(out, "kumofs_version", KUMO_VERSION);
    put_u64(out, "pointer_size", 8 * sizeof(void *));
    put_usage(out);
}

static void put_connections(const struct gateway *g, struct buf *out)
{
    uint64_t connections = listener_connections(g->listener);

    put_u64(out, "max_connections", g->settings.max_connections);
    put_u64(out, "curr_connections", connections);
    put_u64(out, "connection_structures", connections);
    put_u64(out, "listen_disabled_num", listener_pauses(g->listener));
    put_u64(out, "accepting_conns", connections < g->settings.max_connections);
    put_u64(out, "threads", g->n_threads);
}

void stats_write(const struct gateway *g, struct buf *out)
{
    put_process(g, out);
    put_connections(g, out);
    for (size_t i = 0; i < sizeof(counter_names) / sizeof(counter_names[0]); i++) {
        put_u64(out, counter_names[i].name, counter_since_reset(g, counter_names[i].counter));
    }
    for (size_t i = 0; i < sizeof(zero_names) / sizeof(zero_names[0]); i++) {
        put_u64(out, zero_names[i], 0);
    }
    put_u64(out, "hash_power_level", 16);
    put_u64(out, "limit_maxbytes", LIMIT_MAXBYTES);
    put_end(out);
}

void stats_write_settings(const struct gateway *g, struct buf *out)
{
    const struct settings *s = &g->settings;
    struct addr addr;

    put_u64(out, "maxbytes", LIMIT_MAXBYTES);
    put_u64(out, "maxconns", s->max_connections);
    put_u64(out, "tcpport",
            listener_addr(g->listener, 0, &addr) == 0 ? (uint64_t) addr_port(&addr) : 0);
    put_u64(out, "udpport", 0);
    put_u64(out, "verbosity", 0);
    put_u64(out, "oldest", 0);
    put(out, "evictions", "off");
    put_u64(out, "umask", 27);
    put_u64(out, "num_threads", g->n_threads);
    put(out, "stat_key_prefix", ":");
    put(out, "detail_enabled", "no");
    put_u64(out, "reqs_per_event", 0);
    put(out, "cas_enabled", "yes");
    put(out, "auth_enabled_sasl", "no");
    put_u64(out, "item_size_max", s->max_value_bytes);
    put(out, "maxconns_fast", "no");
    put(out, "flush_enabled", s->allow_flush_all ? "yes" : "no");
    put(out, "dump_enabled", "no");
    put(out, "binding_protocol", "ascii");
    put_u64(out, "request_timeout_ms", s->request_timeout_usec / 1000);
    put_u64(out, "server_queue_bytes", s->server_queue_bytes);
    put_end(out);
}
