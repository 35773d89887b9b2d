/* Compaction: what is still needed of a segment is copied to the log's end, what is dead is left
 * behind, and then the file may go. One victim at a time; a shard copies what its own indexes point
 * at. Pure.
 *
 * A victim must lie wholly below X of both generations of checkpoints, for every partition: no
 * replay begins before it. A copy is a FRAME_COPY with the entry's bytes; the index follows when
 * that is durable. Tombstones, and records that are long expired or flushed, are dropped with a
 * FRAME_GONE, so that a replay drops them too; the highest seq so dropped is the partition's
 * horizon. A victim that holds a pending entry is refused. */
#pragma once

#include "core/shard.h"

#define COMPACTION_SLICE_BYTES (256u << 10) /* of the victim, read in one step, at most… */
#define COMPACTION_SLICE_MIN   (32u << 10)  /* …and at least */
/* How fast it reads: so much, and so many bytes for each that is prepared meanwhile. Where 70 % of
 * the log lives, a victim is half alive, and two bytes must be read for one that is written. */
#define COMPACTION_BYTES_PER_SEC (32u << 20)
#define COMPACTION_PER_PREPARED  3
#define COMPACTION_BUDGET_MAX    (16u << 20) /* that was not used */
/* The log may be this much of the live bytes, and a slack beside. */
#define COMPACTION_LOG_PERCENT 140
/* A segment with more live bytes than this is left alone: copying it gains nothing. */
#define COMPACTION_VICTIM_PERCENT_MAX 90
#define COMPACTION_EXPIRED_USEC                                                                    \
    (UINT64_C(600) * UINT64_C(1000000)) /* a record is long expired after this */

/* Live bytes of each segment, as checkpoint_take met them: what a victim is chosen by. */
struct compaction_live {
    uint32_t first; /* number of the segment of bytes[0] */
    uint64_t *bytes;
    size_t n;
    size_t cap;
};
void compaction_live_add(struct compaction_live *l, uint32_t segment, uint64_t bytes);
/* 0 for a segment that isn't there. */
uint64_t compaction_live_bytes(const struct compaction_live *l, uint32_t segment);
void compaction_live_free(struct compaction_live *l);

/* A segment of the log, for the choice of victims. */
struct compaction_file {
    uint32_t number;
    uint32_t shard; /* of `shards`: its stream */
    uint32_t shards;
    uint64_t bytes;
};
/* Is it wholly below X of every partition in it? */
bool compaction_may(const struct compaction_file *f, const struct wal_floor *floor);
/* Victims below the floor (of both generations): fewest live bytes first, until the log is no
 * larger than COMPACTION_LOG_PERCENT of what lives in it and the slack. Returns how many; their
 * numbers go to ret_victims, which has room for n. */
size_t compaction_choose(const struct compaction_file *files, size_t n,
                         const struct wal_floor *floor, const struct compaction_live *live,
                         uint64_t slack_bytes, uint32_t *ret_victims);
