/* A shard's thread: its loop, the core's shard machine, the log's files, and the connections that
 * belong to it. It carries out what the machine decides and tells it what happens. */
#pragma once

#include "core/shard.h"
#include "io/addr.h"
#include "io/checkpoints.h"
#include "io/progress.h"
#include "io/readers.h"
#include "io/rpc.h"
#include "io/segments.h"

#include <stdatomic.h>

#define PEER_OUT_BYTES_MAX   (128u << 20) /* queue to another server's shard */
#define LEASES_OUT_BYTES_MAX (4u << 20)   /* the same, of leases: then they are not asked for */
#define GATEWAY_OUT_BYTES_MAX                                                                      \
    (64u << 20) /* results that a gateway does not read: then it is not read either */
#define CONNS_MAX        65536      /* of one shard */
#define GATHER_BYTES_MAX (4u << 20) /* one message of many items */

struct shard_thread;

/* How to reach another server; part of a table that the main thread posts. */
struct peer_address {
    uint32_t server;
    uint32_t shards;
    struct addr addr;
    bool usable; /* the address could be read */
};
struct peer_table {
    size_t n;
    struct peer_address v[];
};

/* A shard's part of a generation of checkpoints. */
struct shard_generation {
    uint64_t generation;
    int status;
    size_t n;
    struct manifest_item *items;
    struct compaction_live live; /* what its indexes need of each segment */
};

/* What shards tell the main thread, on its loop. */
struct shard_thread_owner {
    struct loop *loop;
    void *ctx;
    void (*on_sealed)(void *ctx, const struct msg_sealed *sealed, size_t n);
    void (*on_reconfig)(void *ctx, const struct msg_reconfig *asked, size_t n);
    /* The process has to stop. `damaged`: the disk or what lies on it is to blame (R15). */
    void (*on_failed)(void *ctx, const char *why, bool damaged);
    void (*on_checkpointed)(void *ctx, const struct shard_generation *g);
    /* All that is needed of a segment is copied and on the disk; or -errno */
    void (*on_compacted)(void *ctx, uint32_t segment, int status, uint64_t copied,
                         uint64_t dropped);
    void (*on_replayed)(void *ctx); /* the log was read: events are taken now */
};

struct shard_thread_options {
    struct shard_options shard; /* read, index and wal are filled in here */
    const char *data_dir;
    struct segment_set *set;
    const struct checkpoint_set *checkpoints; /* read by the start only */
    struct progress *progress;                /* likewise */
    struct checkpoint_writer *checkpoint_writer;
    struct readers *readers;
    enum sync_mode sync;
    uint64_t sync_interval_usec;
    uint8_t cluster_id[UUID_BYTES];
    uint64_t incarnation;
    struct shard_thread_owner owner;
};

int shard_thread_start(const struct shard_thread_options *o, struct shard_thread **ret);
/* Ends the thread; everything written is synced. Others may still post to it. */
void shard_thread_join(struct shard_thread *t);
/* After shard_thread_join, and when nobody posts any more. NULL is fine; returns NULL. */
struct shard_thread *shard_thread_free(struct shard_thread *t);

/* From the main thread; all are done in order. The arrays are copied. */
int shard_thread_rows(struct shard_thread *t, const struct view_row *rows, size_t n, bool floor);
int shard_thread_seals(struct shard_thread *t, const struct msg_at *at, size_t n);
/* A manager that leads was heard. */
int shard_thread_beat(struct shard_thread *t);
/* The server stops: what the shard leads is to be handed over (R16). */
int shard_thread_leave(struct shard_thread *t);
int shard_thread_sessions(struct shard_thread *t, const struct msg_sessions *m);
/* Takes the table over (malloc'ed). */
int shard_thread_peers(struct shard_thread *t, struct peer_table *table);
/* Takes a connection over whose hello asks for this shard. */
int shard_thread_adopt(struct shard_thread *t, struct rpc_parcel *parcel);

/* Takes part in a generation of checkpoints; on_checkpointed follows. `hurry`: nobody waits for
 * this loop any more. */
int shard_thread_checkpoint(struct shard_thread *t, uint64_t generation, bool hurry);

/* Copies what is needed of a segment; on_compacted follows. */
int shard_thread_compact(struct shard_thread *t, uint32_t segment);
/* The segment's file is gone. */
int shard_thread_forget(struct shard_thread *t, uint32_t segment);

/* How much room the disk has, and below how much it is low: a disk can fill between two looks of
 * the main thread, so the shard looks again when it has written its share of what there was. */
int shard_thread_space(struct shard_thread *t, enum shard_space space, uint64_t low_bytes);

/* For status; from any thread, a tick old. */
struct shard_thread_counts {
    _Atomic uint32_t members;
    _Atomic uint32_t primary;
    _Atomic uint32_t waiting;
    _Atomic uint32_t learning;
    _Atomic uint64_t learnt_bytes;
    _Atomic uint64_t taught_bytes;
    _Atomic uint32_t distrusted;
    _Atomic uint32_t untrusted;
    _Atomic uint64_t records;
    _Atomic uint64_t log_bytes; /* written since the start */
    _Atomic bool disk_full;     /* what is written waits in memory */
};
const struct shard_thread_counts *shard_thread_counts(const struct shard_thread *t);
/* Loop turns: does it live? */
uint64_t shard_thread_turns(const struct shard_thread *t);
