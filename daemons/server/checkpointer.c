/* Generations of checkpoints: begun when enough log was written and at a clean stop, published when
 * every shard has written its part and synced its log through every X in it. */
#include "io/clock.h"
#include "io/log.h"
#include "server_private.h"

#include "base/cleanup.h"
#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* After a generation that failed, and between two on a full disk. */
#define RETRY_USEC (UINT64_C(10) * 1000000)

/* Compaction goes on before the next one up to so many times what makes it due. */
#define OVERDUE 4

static uint64_t log_bytes(const struct server *s)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < s->n_shards; i++) {
        const struct shard_thread_counts *c = shard_thread_counts(s->shards[i]);
        bytes += atomic_load_explicit(&c->log_bytes, memory_order_relaxed);
    }
    return bytes;
}

static void generation_end(struct server *s)
{
    s->generation.running = false;
    manifest_free(&s->generation.manifest);
    if (s->generation.last) {
        loop_stop(s->loop);
    }
}

static void generation_begin(struct server *s)
{
    struct generation *g = &s->generation;

    g->number = MAX_OF(g->number, s->checkpoints.highest) + 1;
    g->running = true;
    g->shards_done = 0;
    compaction_live_free(&s->compactor.live);
    g->status = 0;
    g->log_bytes = log_bytes(s);
    g->began_usec = clock_boot_usec();
    g->manifest =
        (struct manifest){ .generation = g->number, .partitions = s->superblock.partitions };
    g->manifest.items = mem_zalloc(g->manifest.partitions, sizeof(*g->manifest.items));
    log_debug("checkpoint generation %llu begins", (unsigned long long) g->number);
    for (uint32_t i = 0; i < s->n_shards; i++) {
        if (shard_thread_checkpoint(s->shards[i], g->number, g->last) < 0) {
            struct shard_generation none = { .generation = g->number, .status = -ENOBUFS };
            checkpointer_shard_done(s, &none);
        }
    }
}

static void on_discarded(void *ctx, int status)
{
    struct server *s = ctx;

    (void) status;
    if (s->generation.running) { /* else it comes after the server's end began */
        generation_end(s);
    }
}

static uint64_t bytes_of(const struct manifest *m)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < m->partitions; i++) {
        bytes += m->items[i].bytes;
    }
    return bytes;
}

void checkpointer_start(struct server *s)
{
    if (s->checkpoints.found) {
        s->generation.good = s->checkpoints.manifest.generation;
        s->generation.bytes = bytes_of(&s->checkpoints.manifest);
    }
}

static void on_published(void *ctx, int status)
{
    struct server *s = ctx;

    if (!s->generation.running) {
        return; /* the server's end has begun */
    }
    if (status < 0) {
        s->generation.retry_usec = clock_boot_usec() + RETRY_USEC;
        log_error("checkpoint generation %llu could not be written: %s; the log keeps everything",
                  (unsigned long long) s->generation.number, strerror(-status));
        checkpoint_writer_discard(s->checkpoint_writer, s->generation.number, s->loop, on_discarded,
                                  s);
        return;
    }
    s->generation.good = s->generation.number;
    s->generation.bytes = bytes_of(&s->generation.manifest);
    s->finished = s->generation.last;
    if (!s->generation.last) {
        compactor_begin(s, &s->generation.manifest);
    }
    log_info("checkpoint generation %llu is written", (unsigned long long) s->generation.number);
    generation_end(s);
}

void checkpointer_shard_done(void *ctx, const struct shard_generation *part)
{
    struct server *s = ctx;
    struct generation *g = &s->generation;
    struct buf b = { 0 };

    if (!g->running || part->generation != g->number) {
        return;
    }
    if (part->status < 0) {
        g->status = part->status;
    }
    for (size_t i = 0; i < part->n && part->items; i++) {
        g->manifest.items[part->items[i].partition] = part->items[i];
    }
    compactor_count(s, &part->live);
    if (++g->shards_done < s->n_shards) {
        return;
    }
    if (g->status < 0) {
        on_published(s, g->status);
        return;
    }
    manifest_encode(&b, &g->manifest);
    checkpoint_writer_publish(s->checkpoint_writer, g->number, g->good, b.data, buf_len(&b),
                              s->loop, on_published, s);
}

/* A generation of many small records is larger than the log that makes one due: then twice as much
 * log as that, so that checkpoints are no more than half of what the disk is given. */
static uint64_t due_bytes(const struct server *s)
{
    return MAX_OF(s->settings->checkpoint_log_bytes, 2 * s->generation.bytes);
}

bool checkpointer_is_overdue(const struct server *s)
{
    return log_bytes(s) - s->generation.log_bytes >= OVERDUE * due_bytes(s);
}

static bool is_due(const struct server *s)
{
    uint64_t written = log_bytes(s) - s->generation.log_bytes;

    /* On a full disk sooner: compaction begins behind it. */
    return written >= due_bytes(s) || (s->room.level != SPACE_ROOM && written > 0 &&
                                       clock_boot_usec() - s->generation.began_usec >= RETRY_USEC);
}

void checkpointer_tick(struct server *s)
{
    if (s->generation.last && s->room.level == SPACE_FULL) {
        loop_stop(s->loop); /* the last generation would wait for ever */
        return;
    }
    if (s->serving && !s->generation.running && !s->compactor.running && is_due(s) &&
        clock_boot_usec() >= s->generation.retry_usec) {
        generation_begin(s);
    }
}

void checkpointer_stop(struct server *s)
{
    s->generation.last = true;
    if (s->n_shards == 0 || s->n_replayed < s->n_shards || s->failed ||
        s->room.level == SPACE_FULL) { /* nothing could be written */
        loop_stop(s->loop);
    } else if (!s->generation.running) {
        generation_begin(s);
    }
}
