/* The segment files of a server's log: DIR/log/NNNNNNNNNN.seg. Those found at the start are mapped
 * and read by all shards; each shard writes its own new ones and has its own sync thread, so that
 * no loop ever waits in fsync. */
#pragma once

#include "core/actions.h"
#include "core/wal.h"
#include "io/io_error.h"

struct loop;
struct progress;
struct residency;

/* ---- what a start finds ---- */

struct segment_set {
    struct wal_segment *v; /* sorted by number; data is mapped */
    size_t n;
    char dir[4096];            /* DIR/log */
    uint64_t cut_bytes;        /* by segment_set_check: torn tails */
    struct progress *progress; /* of segment_set_check; NULL: nobody watches */
};

/* A segment of the set, or NULL. */
const struct wal_segment *segment_set_find(const struct segment_set *set, uint32_t number);
/* Finds and maps the segments, making the folder if needed. */
int segment_set_open(struct segment_set *set, const char *data_dir, struct io_error *error);
/* wal_check, then cuts torn tails, removes what never was durable, and makes the rest durable.
 * Segments below the floor (may be NULL) are covered by a checkpoint and not looked through.
 * -EBADMSG: damage, with a sentence; nothing was changed. -ECANCELED: what was not settled yet is
 * as it was. */
int segment_set_check(struct segment_set *set, const struct wal_floor *floor,
                      struct io_error *error);
/* Bytes that a replay of these shards will read, each its own streams, or all of them when their
 * number has changed. */
uint64_t segment_set_replay_bytes(const struct segment_set *set, uint32_t shards);
/* The replay is over: from now on single records are read, and the kernel should read no more than
 * that. It would read ahead at every page that is not in memory, 8 MiB on some disks. */
void segment_set_replayed(const struct segment_set *set);
/* Reads a segment's file, from any thread: -EIO when the disk can't give all of it. Whoever reads
 * it by its mapping then meets no SIGBUS, and it is in memory. */
int segment_set_look(const struct segment_set *set, uint32_t number);
/* Removes a segment's file, durably; from any thread. */
int segment_set_unlink(const struct segment_set *set, uint32_t number);
/* Then lets go of its mapping. Nobody may read it any more. */
void segment_set_forget(struct segment_set *set, uint32_t number);
/* Numbers and sizes of all segments that lie in the folder now, sorted; *ret is the caller's. */
struct segment_size {
    uint32_t number;
    uint64_t bytes;
};
int segment_set_sizes(const struct segment_set *set, struct segment_size **ret, size_t *ret_n);
void segment_set_close(struct segment_set *set);
/* Highest number present, 0 for none (before segment_set_check). */
uint32_t segment_set_highest(const struct segment_set *set);

/* ---- what a shard writes ---- */

enum sync_mode {
    SYNC_ALWAYS,   /* acknowledged when on the disk */
    SYNC_INTERVAL, /* when written; on the disk an interval later */
    SYNC_OS,       /* when written; on the disk when the kernel likes */
};

#define SEGMENT_BACKLOG_BYTES_MAX (UINT64_C(256) << 20)

struct segment_writer;

struct segment_writer_options {
    const struct segment_set *set;
    struct loop *loop;
    struct wal_options wal; /* for the numbers and sizes of new segments */
    enum sync_mode sync;
    uint64_t sync_interval_usec;
    struct residency *residency; /* tells what is in memory; NULL: reads wait for the disk */
    /* On the loop, later than the call that caused it: everything up to `group` is on the disk. */
    void (*on_synced)(void *ctx, uint64_t group);
    /* In the weaker modes, the same way: everything up to `group` is written. */
    void (*on_written)(void *ctx, uint64_t group);
    /* On the loop: a write or sync failed with -errno; nothing more is written. The process must
     * stop (R15). */
    void (*on_failed)(void *ctx, int error, const char *what);
    /* On the loop, within the call or later: the disk is full, or no more. Meanwhile what is
     * written waits in memory, and is tried again (R15); SEGMENT_BACKLOG_BYTES_MAX of it. */
    void (*on_full)(void *ctx, bool full);
    void *ctx;
};

int segment_writer_new(const struct segment_writer_options *o, struct segment_writer **ret);
/* Waits for the sync under way, syncs what is written, and closes. NULL is fine; returns NULL. */
struct segment_writer *segment_writer_free(struct segment_writer *w);

/* ACTION_CREATE, ACTION_WRITE and ACTION_SYNC. */
void segment_writer_act(struct segment_writer *w, const struct action *a);

/* Calls fn(ctx) on the loop, later, when all that was written so far is on the disk, whatever the
 * mode. One at a time. Not called when that fails (on_failed is). */
void segment_writer_flush(struct segment_writer *w, void (*fn)(void *ctx), void *ctx);
/* Bytes written so far. */
uint64_t segment_writer_bytes(const struct segment_writer *w);

/* A segment that is complete: of the set, or one of this writer's. -ENOENT. */
int segment_writer_get(const struct segment_writer *w, uint32_t number, struct wal_segment *ret);
/* Lets go of one of this writer's, after its file was removed. */
void segment_writer_forget(struct segment_writer *w, uint32_t number);

/* Begins to bring bytes of a segment into memory, if it is there. */
void segment_writer_prefetch(const struct segment_writer *w, struct position at, size_t bytes);

/* The shard_options.read of this writer and its set; ctx is the writer. -EAGAIN: not in memory;
 * -ENOENT: no such bytes; -EIO: the disk failed (after bus_prepare; else the process ends). */
int segment_writer_read(void *ctx, struct position at, size_t bytes, const uint8_t **ret);
