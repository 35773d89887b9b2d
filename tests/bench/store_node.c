#include "bench/store_node.h"

#include "server_private.h"
#include "settings.h"

#include "io/daemon.h"
#include "io/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define READY_POLL_USEC 1000

static struct node {
    const struct contestant_options *o;
    struct settings settings;
    struct server *server;
    struct loop_timer *ready_timer; /* until it serves, and for upkeep then */
    bool orders_run;
    pthread_t orders; /* reads them */
    int in;
    int out;
    struct order order;
    struct meter meter;
    struct sample sample;
    uint64_t log_bytes;       /* when the round began */
    _Atomic uint32_t running; /* shards that are at the order */
} node;

/* ---- what is measured ---- */

static uint64_t log_bytes(void)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < node.server->n_shards; i++) {
        bytes += segment_writer_bytes(node.server->shards[i]->writer);
    }
    return bytes;
}

enum upkeep node_upkeep(void)
{
    /* Of the main thread: a look without a lock is exact enough for a label. */
    bool checkpoint = __atomic_load_n(&node.server->generation.running, __ATOMIC_RELAXED);
    bool compaction = __atomic_load_n(&node.server->compactor.running, __ATOMIC_RELAXED);

    return (checkpoint ? UPKEEP_CHECKPOINT : UPKEEP_NONE) |
           (compaction ? UPKEEP_COMPACTION : UPKEEP_NONE);
}

static void loads_collect(struct sample *s)
{
    struct histogram get = { 0 };
    struct histogram set = { 0 };

    for (int k = 0; k < _UPKEEP_MAX; k++) {
        get = set = (struct histogram){ 0 };
        for (uint32_t i = 0; i < node.server->n_shards; i++) {
            const struct client_load *l = client_load(node.server->shards[i]);
            histogram_merge(&get, &l->get[k]);
            histogram_merge(&set, &l->set[k]);
        }
        s->get[k] = histogram_latency(&get);
        s->set[k] = histogram_latency(&set);
    }
    for (uint32_t i = 0; i < node.server->n_shards; i++) {
        const struct client_load *l = client_load(node.server->shards[i]);
        struct shard_counts counts;
        shard_count(node.server->shards[i]->shard, &counts);
        s->records += counts.records;
        s->ops += l->ops;
        s->user_bytes += l->user_bytes;
        if (l->misses > 0) {
            bench_fail("%llu reads did not find their record", (unsigned long long) l->misses);
        }
    }
}

void node_load_done(void)
{
    struct sample *s = &node.sample;

    if (atomic_fetch_sub(&node.running, 1) > 1) {
        return;
    }
    meter_end(&node.meter, s);
    loads_collect(s);
    s->log_bytes = log_bytes() - node.log_bytes;
    s->folder_bytes = folder_bytes(node.server->segments.dir);
    s->memory_bytes = memory_used();
    sample_write(node.out, s);
}

/* ---- orders ---- */

static void begin_on_shard(void *arg)
{
    client_begin(client_load(arg), &node.order);
}

static void *orders_main(void *arg)
{
    (void) arg;
    while (order_read(node.in, &node.order)) {
        if (node.order.sets_upkeep) {
            node.settings.checkpoint_log_bytes = node.order.checkpoints;
            node.settings.compaction_slack_bytes = node.order.slack;
        }
        node.sample = (struct sample){ 0 };
        node.log_bytes = log_bytes();
        node.running = node.server->n_shards;
        meter_begin(&node.meter);
        for (uint32_t i = 0; i < node.server->n_shards; i++) {
            (void) loop_post(node.server->shards[i]->loop, begin_on_shard, node.server->shards[i]);
        }
    }
    return NULL;
}

/* ---- in the manager's place ---- */

static void lead_on_shard(void *arg)
{
    client_lead(client_load(arg));
}

/* The server serves: the time until here is the start's. Then it gets its views, whose end the
 * parent waits for. */
static void on_ready_timer(void *ctx)
{
    struct server *s = ctx;

    if (node.orders_run) {
        if (node.order.sets_upkeep) { /* else a generation waits for twice its own size of log */
            s->generation.bytes = 0;
        }
        return;
    }
    if (!s->serving) {
        return;
    }
    node.orders_run = true;
    meter_end(&node.meter, &node.sample);
    node.log_bytes = 0;
    node.running = s->n_shards;
    pthread_create(&node.orders, NULL, orders_main, NULL);
    for (uint32_t i = 0; i < s->n_shards; i++) {
        (void) loop_post(s->shards[i]->loop, lead_on_shard, s->shards[i]);
    }
}

int manager_link_start(struct server *s, struct io_error *error)
{
    (void) error;
    node.server = s;
    s->registered = true;
    server_serve_if_ready(s);
    node.ready_timer = loop_timer_new(s->loop, on_ready_timer, s);
    loop_timer_every(node.ready_timer, READY_POLL_USEC);
    return 0;
}

void manager_link_sealed(void *ctx, const struct msg_sealed *sealed, size_t n)
{
    (void) ctx;
    (void) sealed;
    (void) n;
}

void manager_link_reconfig(void *ctx, const struct msg_reconfig *asked, size_t n)
{
    (void) ctx;
    (void) asked;
    (void) n;
}

/* ---- the contestant ---- */

/* A server that a manager has accepted. */
static void superblock_make(const char *dir, uint32_t partitions)
{
    struct superblock b = {
        .server_id = { 1 }, .cluster_id = { 2 }, .server = 1, .partitions = partitions
    };
    struct io_error error;
    int r = superblock_read(dir, &b, &error);

    if (r < 0 && (r != -ENOENT || superblock_write(dir, &b, &error) < 0)) {
        bench_fail("%s", error.text);
    }
}

/* The defaults, but for what the contest says; it listens nowhere. */
static void settings_make(struct settings *c, const struct contestant_options *o)
{
    struct io_error error;

    for (const struct conf_option *i = settings_program.options; i->key; i++) {
        if (i->default_value && conf_set(i, c, i->default_value, &error) < 0) {
            bench_fail("%s: %s", i->key, error.text);
        }
    }
    c->listen.n = 0;
    c->advertise = (char *) "127.0.0.1:1";
    c->data_dir = (char *) o->dir;
    c->threads = o->shards;
    c->sync = o->sync ? SYNC_ALWAYS : SYNC_OS;
    c->checkpoint_log_bytes = o->checkpoints;
    c->compaction_slack_bytes = o->slack;
    c->segment_bytes = o->segment_bytes;
}

int store_contestant(const struct contestant_options *o, int in, int out)
{
    meter_begin(&node.meter);
    node.o = o;
    node.in = in;
    node.out = out;
    settings_make(&node.settings, o);
    log_init("bench-store");
    log_set_level(LOG_LEVEL_WARNING);
    daemon_prepare();
    superblock_make(o->dir, o->partitions);
    return server_run(&node.settings);
}
