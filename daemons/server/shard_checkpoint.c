/* A shard's part of a generation of checkpoints: one partition after the other, copied between two
 * steps, written by the checkpoint writer's thread, at a bounded rate. */
#include "io/clock.h"
#include "io/log.h"
#include "shard_private.h"

#include "base/cleanup.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static void take_next(struct shard_thread *t);

static void report(struct shard_thread *t, int status)
{
    struct checkpoint_run *c = &t->checkpoint;
    struct shard_generation g = {
        .generation = c->generation,
        .status = status,
        .n = c->n,
        .items = TAKE_PTR(c->items),
        .live = c->live,
    };

    c->running = false;
    c->live = (struct compaction_live){ 0 };
    shard_thread_report_checkpoint(t, &g);
}

static void on_log_durable(void *ctx)
{
    report(ctx, 0);
}

static void on_file_durable(void *ctx, int status)
{
    struct shard_thread *t = ctx;

    if (t->stopping) {
        return;
    }
    if (status < 0) {
        report(t, status);
        return;
    }
    /* The log through every X: the manifest must not be ahead of it, in any sync mode. */
    segment_writer_flush(t->writer, on_log_durable, t);
}

static void on_appended(void *ctx, int status)
{
    struct shard_thread *t = ctx;
    struct checkpoint_run *c = &t->checkpoint;
    uint64_t pause_usec;

    if (t->stopping) {
        return;
    }
    if (status < 0) {
        report(t, status);
        return;
    }
    pause_usec = MAX_OF(c->took_usec * (CHECKPOINT_SHARE - 1),
                        c->items[c->n - 1].bytes * 1000000 / CHECKPOINT_BYTES_PER_SEC);
    loop_timer_start(c->timer, c->hurry ? 1 : MAX_OF(1, pause_usec));
}

static void on_timer(void *ctx)
{
    take_next(ctx);
}

static void take_next(struct shard_thread *t)
{
    struct checkpoint_run *c = &t->checkpoint;
    const struct wal_options *l = &t->o.shard.log;
    uint32_t partition = l->shard + (uint32_t) c->n * l->shards;
    struct manifest_item *it;
    struct buf b = { 0 };
    uint64_t group;
    int r;

    if (partition >= l->partitions) {
        checkpoint_writer_sync(t->o.checkpoint_writer, c->generation, l->shard, t->loop,
                               on_file_durable, t);
        return;
    }
    it = &c->items[c->n++];
    *it = (struct manifest_item){ .partition = (uint16_t) partition, .file = (uint16_t) l->shard };
    c->took_usec = clock_boot_usec();
    r = checkpoint_take(t->shard, (uint16_t) partition, &b, &c->live, &it->x, &group);
    c->took_usec = clock_boot_usec() - c->took_usec;
    if (r < 0) {
        buf_free(&b);
        report(t, r);
        return;
    }
    it->offset = c->offset;
    it->bytes = buf_len(&b);
    it->crc = checkpoint_crc(b.data, buf_len(&b));
    c->offset += it->bytes;
    checkpoint_writer_append(t->o.checkpoint_writer, c->generation, l->shard, b.data, buf_len(&b),
                             t->loop, on_appended, t);
}

void shard_checkpoint_begin(struct shard_thread *t, uint64_t generation, bool hurry)
{
    struct checkpoint_run *c = &t->checkpoint;

    if (c->running) {
        return; /* the main thread runs one at a time */
    }
    if (!c->timer) {
        c->timer = loop_timer_new(t->loop, on_timer, t);
    }
    c->running = true;
    c->hurry = hurry;
    c->generation = generation;
    c->n = 0;
    c->offset = 0;
    c->items = mem_zalloc(t->o.shard.log.partitions / t->o.shard.log.shards + 1, sizeof(*c->items));
    take_next(t);
}

int shard_checkpoint_load(struct shard_thread *t)
{
    const struct wal_options *l = &t->o.shard.log;

    for (uint32_t p = l->shard; p < l->partitions; p += l->shards) {
        size_t n;
        const uint8_t *bytes = checkpoint_set_get(t->o.checkpoints, (uint16_t) p, &n);
        int r = bytes ? checkpoint_load(t->shard, bytes, n) : 0;
        if (r == 0 && bytes) {
            r = progress_add(t->o.progress, n);
        }
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

void shard_checkpoint_end(struct shard_thread *t)
{
    loop_timer_free(t->checkpoint.timer);
    free(t->checkpoint.items);
    compaction_live_free(&t->checkpoint.live);
}
