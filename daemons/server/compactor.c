/* Which segments are compacted, and when: after each published generation, while the log is larger
 * than its live records justify. One victim at a time: every shard copies what it needs of it, then
 * the file goes. */
#include "io/log.h"
#include "server_private.h"

#include "base/cleanup.h"
#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void victim_begin(struct server *s);

void compactor_count(struct server *s, const struct compaction_live *live)
{
    for (size_t i = 0; i < live->n; i++) {
        if (live->bytes[i] > 0) {
            compaction_live_add(&s->compactor.live, live->first + (uint32_t) i, live->bytes[i]);
        }
    }
}

/* ---- choosing ---- */

/* Which stream a segment belongs to: those of this start by number, older ones by their head. */
static struct compaction_file file_of(const struct server *s, const struct segment_size *z)
{
    struct compaction_file f = { .number = z->number, .bytes = z->bytes, .shards = s->n_shards };
    const struct wal_segment *old;

    if (z->number >= s->superblock.first_segment) {
        f.shard = (z->number - s->superblock.first_segment) % s->n_shards;
        return f;
    }
    old = segment_set_find(&s->segments, z->number);
    if (old) {
        f.shard = old->head.shard;
        f.shards = old->head.shards;
    }
    return f;
}

static void choose(struct server *s, const struct segment_size *sizes, size_t n)
{
    struct compactor *c = &s->compactor;
    _cleanup_free_ struct compaction_file *files = mem_alloc((n + 1) * sizeof(*files));
    _cleanup_(wal_floor_free) struct wal_floor floor = { 0 };

    for (size_t i = 0; i < n; i++) {
        files[i] = file_of(s, &sizes[i]);
    }
    wal_floor_copy(&c->floor, &floor);
    wal_floor_lower(&floor, &c->floor_before);
    c->victims = mem_alloc((n + 1) * sizeof(*c->victims));
    c->n = compaction_choose(files, n, &floor, &c->live,
                             s->room.level == SPACE_ROOM ? s->settings->compaction_slack_bytes : 0,
                             c->victims);
}

/* ---- one victim after the other ---- */

void compactor_end(struct server *s)
{
    struct compactor *c = &s->compactor;

    free(c->victims);
    c->victims = NULL;
    c->n = c->next = 0;
    c->running = false;
}

static int unlink_victim(void *arg)
{
    const struct server *s = arg;

    return segment_set_unlink(&s->segments, s->compactor.victim);
}

static void victim_gone(void *ctx, int status)
{
    struct server *s = ctx;
    struct compactor *c = &s->compactor;
    uint32_t segment;
    int r = status;

    if (!c->running) {
        return; /* the server's end has begun */
    }
    segment = c->victims[c->next++];
    if (r == -EBADMSG) {
        log_error("segment %u can't be read whole: it is kept, and what it holds may be damaged",
                  segment);
    } else if (r < 0 && r != -EBUSY) {
        log_error("segment %u could not be compacted: %s", segment, strerror(-r));
    }
    if (r == 0) {
        segment_set_forget(&s->segments, segment);
    }
    for (uint32_t i = 0; i < s->n_shards && r == 0; i++) {
        (void) shard_thread_forget(s->shards[i],
                                   segment); /* else its mapping stays until the stop */
    }
    victim_begin(s);
}

static void victim_end(struct server *s)
{
    struct compactor *c = &s->compactor;
    int r = c->status;

    /* A generation that is taken meanwhile may point into the victim, with X behind the copies. */
    if (r == 0 && (s->generation.running || s->generation.last)) {
        r = -EBUSY;
    }
    if (r == 0) {
        r = identity_compacted(s);
    }
    if (r < 0) {
        victim_gone(s, r);
        return;
    }
    checkpoint_writer_call(s->checkpoint_writer, unlink_victim, s, s->loop, victim_gone, s);
}

void compactor_shard_done(void *ctx, uint32_t segment, int status, uint64_t copied,
                          uint64_t dropped)
{
    struct server *s = ctx;
    struct compactor *c = &s->compactor;

    if (!c->running || c->next >= c->n || c->victims[c->next] != segment) {
        return;
    }
    c->copied += copied;
    c->dropped += dropped;
    if (status < 0) {
        c->status = status;
    }
    if (++c->shards_done == s->n_shards) {
        victim_end(s);
    }
}

static int look_at_victim(void *arg)
{
    const struct server *s = arg;

    return segment_set_look(&s->segments, s->compactor.victim);
}

/* It can be read: the shards copy what they need. */
static void victim_looked_at(void *ctx, int status)
{
    struct server *s = ctx;
    struct compactor *c = &s->compactor;

    if (!c->running) {
        return; /* the server's end has begun */
    }
    if (status < 0) {
        victim_gone(s, status);
        return;
    }
    for (uint32_t i = 0; i < s->n_shards && c->running; i++) {
        if (shard_thread_compact(s->shards[i], c->victim) < 0) {
            compactor_shard_done(s, c->victim, -ENOBUFS, 0, 0);
        }
    }
}

static void victim_begin(struct server *s)
{
    struct compactor *c = &s->compactor;

    if (c->next >= c->n || s->generation.last || checkpointer_is_overdue(s)) {
        log_info("compacted %zu segments: %llu bytes copied, %llu dead records dropped", c->next,
                 (unsigned long long) c->copied, (unsigned long long) c->dropped);
        compactor_end(s);
        return;
    }
    c->shards_done = 0;
    c->status = 0;
    c->victim = c->victims[c->next];
    checkpoint_writer_call(s->checkpoint_writer, look_at_victim, s, s->loop, victim_looked_at, s);
}

void compactor_begin(struct server *s, const struct manifest *manifest)
{
    struct compactor *c = &s->compactor;
    _cleanup_free_ struct segment_size *sizes = NULL;
    size_t n;

    wal_floor_free(&c->floor_before);
    if (c->floor.partitions == 0 && s->checkpoints.found) {
        manifest_floor(&s->checkpoints.manifest, &c->floor);
    }
    c->floor_before = c->floor;
    manifest_floor(manifest, &c->floor);
    if (c->running || segment_set_sizes(&s->segments, &sizes, &n) < 0) {
        return;
    }
    choose(s, sizes, n);
    if (c->n == 0) {
        compactor_end(s);
        return;
    }
    c->running = true;
    c->copied = c->dropped = 0;
    victim_begin(s);
}
