/* Checkpoints: what a start needs of a partition besides the log behind a place X in it. Taken at
 * one instant, between two steps of its shard. All checkpoints of one generation lie in one file
 * per shard; a manifest names them.
 *
 *   checkpoint := head, state, record*, crc
 *   head (40)     magic 8, crc of the rest of the head 4, version 4, partition 2, zero 2, bytes of
 * state 4, number of records 8, X: segment 4, offset 4 state         one MessagePack array: view,
 * members, commit, flush mark, horizon, time, digest, view table,
 * catch-up under way, sessions, and the tail's *bytes*: an entry
 * prepared before X and committed behind it must not be missed record        key length 1, key,
 * index record (core/index.h) crc (4)       of all that stands before it
 *
 * A manifest may be used only once the log is durable through every X in it. Pure. */
#pragma once

#include "core/compaction.h"

#define CHECKPOINT_HEAD_BYTES 40
#define CHECKPOINT_VERSION    2

/* Appends the partition's checkpoint, and counts the bytes that it needs of each segment (live may
 * be NULL). *ret_group: the log is durable through X when this group is synced. -ENOENT when the
 * partition is not of this shard. */
int checkpoint_take(const struct shard *s, uint16_t partition, struct buf *out,
                    struct compaction_live *live, struct position *ret_x, uint64_t *ret_group);

/* The checksum that ends a checkpoint of `bytes` bytes. */
uint32_t checkpoint_crc(const uint8_t *p, size_t bytes);

/* Loads a checkpoint into a new shard, before any replay: shard_replay_frame then passes over what
 * stands before X. -EBADMSG: damaged; -ENOMEM: of the index (the shard must be given up); -ENOENT:
 * of another shard; -EPROTONOSUPPORT: of a newer version. */
int checkpoint_load(struct shard *s, const uint8_t *p, size_t bytes);

/* Where a manifest says that a checkpoint lies. */
struct manifest_item {
    uint16_t partition;
    uint16_t file; /* the shard that wrote it */
    uint32_t crc;  /* the checkpoint's last four bytes: names exactly this one */
    uint64_t offset;
    uint64_t bytes;
    struct position x;
};

/* One generation: every partition of the server once. */
struct manifest {
    uint64_t generation;
    uint32_t partitions;
    struct manifest_item *items; /* by partition */
};

/* Appends the manifest's bytes, checksum included. */
void manifest_encode(struct buf *b, const struct manifest *m);
/* -EBADMSG. *ret is the caller's; manifest_free. */
int manifest_decode(const uint8_t *p, size_t bytes, struct manifest *ret);
void manifest_free(struct manifest *m);
/* Which segments are not needed for a replay behind this generation. *ret is the caller's. */
void manifest_floor(const struct manifest *m, struct wal_floor *ret);
