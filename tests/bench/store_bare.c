/* What the store is compared with: the bare log, and bare Tokyo Cabinet. */
#include "bench/store_bench.h"

#include "base/mem.h"
#include "base/rng.h"
#include "core/wal.h"
#include "io/loop.h"
#include "io/segments.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <tchdb.h>
#include <unistd.h>

/* ---- the log: the same entries and groups, but no index, no operations ---- */

struct bare_log {
    const struct contestant_options *o;
    struct loop *loop;
    struct segment_set set;
    struct segment_writer *writer;
    struct wal wal;
    struct actions actions;
    uint64_t synced;
    uint8_t bytes[ENTRY_HEAD_BYTES + KEY_BYTES_MAX + VALUE_BYTES_MAX];
};

static void on_synced(void *ctx, uint64_t group)
{
    struct bare_log *b = ctx;

    wal_synced(&b->wal, group);
}

static void on_written(void *ctx, uint64_t group)
{
    struct bare_log *b = ctx;

    wal_written(&b->wal, group);
}

static void on_failed(void *ctx, int error, const char *what)
{
    (void) ctx;
    bench_fail("%s failed: %s", what, strerror(-error));
}

/* A log with no files, in a folder of its own. */
static void log_open(struct bare_log *b)
{
    struct segment_writer_options w = {
        .set = &b->set,
        .loop = b->loop,
        .wal = { .server_id = { 1 },
                 .start = 1,
                 .shards = 1,
                 .partitions = b->o->partitions,
                 .first_segment = segment_set_highest(&b->set) + 1,
                 .segment_bytes = (uint32_t) b->o->segment_bytes },
        .sync = b->o->sync ? SYNC_ALWAYS : SYNC_OS,
        .on_synced = on_synced,
        .on_written = on_written,
        .on_failed = on_failed,
        .ctx = b,
    };
    struct io_error error;

    mkdir(b->o->dir, 0700);
    if (segment_set_open(&b->set, b->o->dir, &error) < 0) {
        bench_fail("%s", error.text);
    }
    wal_init(&b->wal, &w.wal);
    if (segment_writer_new(&w, &b->writer) < 0) {
        bench_fail("no thread for the log");
    }
}

static void log_close(struct bare_log *b)
{
    struct segment_size *sizes = NULL;
    size_t n = 0;
    char path[sizeof(b->set.dir) + 32];

    b->writer = segment_writer_free(b->writer);
    wal_free(&b->wal);
    (void) segment_set_sizes(&b->set, &sizes, &n);
    for (size_t i = 0; i < n; i++) {
        snprintf(path, sizeof(path), "%s/%010u.seg", b->set.dir, sizes[i].number);
        unlink(path);
    }
    free(sizes);
    segment_set_close(&b->set);
}

static void log_append(struct bare_log *b, const struct order *o, uint64_t key, struct sample *s)
{
    uint8_t key_bytes[KEY_BYTES_MAX];
    size_t key_len = key_make(key, o->short_keys, key_bytes);
    struct entry e = {
        .partition = (uint16_t) (key % b->o->partitions),
        .kind = ENTRY_SET,
        .name = { .seq = s->ops + 1, .view = 1 },
        .key = key_bytes,
        .key_len = (uint8_t) key_len,
        .value = value_bytes() + key % 64,
        .value_len = o->value_bytes,
    };

    entry_encode(&e, b->bytes);
    wal_append(&b->wal, FRAME_PREPARE, e.partition, 1, b->bytes, entry_bytes(&e));
    s->ops++;
    s->user_bytes += key_len + o->value_bytes;
}

static void log_group(struct bare_log *b, const struct order *o, struct rng *rng, struct sample *s)
{
    uint64_t group = b->wal.group;

    for (unsigned i = 0; i < GROUP_OPS; i++) {
        log_append(b, o, rng_below(rng, o->keys), s);
    }
    wal_flush(&b->wal, &b->actions);
    for (size_t i = 0; i < b->actions.n; i++) {
        segment_writer_act(b->writer, &b->actions.v[i]);
    }
    b->actions.n = 0;
    wal_flushed(&b->wal);
    while (!wal_is_synced(&b->wal, group)) {
        (void) loop_turn(b->loop, true);
    }
}

int bare_log_contestant(const struct contestant_options *o, int in, int out)
{
    struct bare_log *b = mem_zalloc(1, sizeof(*b));
    struct rng rng = { 1 };
    struct sample s = { 0 };
    struct order order;
    struct meter m;

    b->o = o;
    if (loop_new(&b->loop) < 0) {
        bench_fail("no loop");
    }
    sample_write(out, &s);
    while (order_read(in, &order)) {
        s = (struct sample){ 0 };
        log_open(b);
        meter_begin(&m);
        while (s.ops < order.ops) {
            log_group(b, &order, &rng, &s);
        }
        meter_end(&m, &s);
        s.log_bytes = segment_writer_bytes(b->writer);
        log_close(b);
        sample_write(out, &s);
    }
    return 0;
}

/* ---- Tokyo Cabinet ---- */

struct bare_tc {
    TCHDB *db;
    struct rng rng;
    uint8_t value[VALUE_BYTES_MAX];
};

static TCHDB *tc_open(const struct contestant_options *o)
{
    TCHDB *db = tchdbnew();
    char path[sizeof(o->dir) + 16];

    if (o->in_memory) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d", memfd_create("bare", MFD_CLOEXEC));
    } else {
        snprintf(path, sizeof(path), "%s.tch", o->dir);
    }
    if (!tchdbtune(db, (int64_t) o->keys * 2, -1, -1, HDBTLARGE) ||
        !tchdbsetxmsiz(db, (int64_t) o->keys * 4096) ||
        !tchdbopen(db, path, HDBOWRITER | HDBOCREAT | HDBOTRUNC)) {
        bench_fail("Tokyo Cabinet: %s", tchdberrmsg(tchdbecode(db)));
    }
    return db;
}

static void tc_put(struct bare_tc *t, const struct order *o, uint64_t key, struct sample *s)
{
    uint8_t bytes[KEY_BYTES_MAX];
    size_t n = key_make(key, o->short_keys, bytes);

    if (!tchdbput(t->db, bytes, (int) n, value_bytes() + key % 64, (int) o->value_bytes)) {
        bench_fail("Tokyo Cabinet: %s", tchdberrmsg(tchdbecode(t->db)));
    }
    s->user_bytes += n + o->value_bytes;
}

static void tc_get(struct bare_tc *t, const struct order *o, uint64_t key)
{
    uint8_t bytes[KEY_BYTES_MAX];
    size_t n = key_make(key, o->short_keys, bytes);

    if (tchdbget3(t->db, bytes, (int) n, t->value, VALUE_BYTES_MAX) != (int) o->value_bytes) {
        bench_fail("Tokyo Cabinet lacks a record");
    }
}

static void tc_work(struct bare_tc *t, const struct order *o, struct sample *s)
{
    uint64_t ops = o->work == WORK_FILL ? o->keys : o->ops;

    for (; s->ops < ops; s->ops++) {
        if (o->work == WORK_GET) {
            tc_get(t, o, rng_below(&t->rng, o->keys));
        } else {
            tc_put(t, o, o->work == WORK_FILL ? s->ops : rng_below(&t->rng, o->keys), s);
        }
        if (o->work == WORK_SET && s->ops % GROUP_OPS == GROUP_OPS - 1 && !tchdbsync(t->db)) {
            bench_fail("Tokyo Cabinet: %s", tchdberrmsg(tchdbecode(t->db)));
        }
    }
}

int bare_tc_contestant(const struct contestant_options *o, int in, int out)
{
    struct bare_tc *t = mem_zalloc(1, sizeof(*t));
    struct sample s = { 0 };
    struct order order;
    struct meter m;

    t->db = tc_open(o);
    t->rng.state = 1;
    sample_write(out, &s);
    while (order_read(in, &order)) {
        s = (struct sample){ 0 };
        meter_begin(&m);
        tc_work(t, &order, &s);
        meter_end(&m, &s);
        s.memory_bytes = memory_used();
        sample_write(out, &s);
    }
    return 0;
}
