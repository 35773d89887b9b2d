/* The write-ahead log of one shard: frames become groups, groups become writes to segments, and
 * segments become frames again at a start. Decides positions; others do the I/O. Pure.
 * (docs/architecture.md, "The log") */
#pragma once

#include "base/buf.h"
#include "core/actions.h"
#include "wire/frame.h"

#include <stdbool.h>

#define WAL_SEGMENT_BYTES_DEFAULT (128u << 20)
/* A group is cut when it is this long, so that a turn's burst does not become one endless write. */
#define WAL_GROUP_BYTES_MAX (8u << 20)

struct wal_options {
    uint8_t server_id[UUID_BYTES];
    uint64_t start; /* number of this start of the server */
    uint32_t shard;
    uint32_t shards;
    uint32_t partitions;
    uint32_t first_segment; /* above every segment that exists; this shard takes first + shard + k *
                               shards */
    uint32_t segment_bytes; /* 0: WAL_SEGMENT_BYTES_DEFAULT */
};

/* A run of the gathered bytes that belongs to one segment. */
struct wal_chunk {
    struct position at;
    size_t begin; /* in `bytes` */
    size_t end;
    uint8_t creates; /* the segment is new and begins with this chunk */
};

struct wal {
    struct wal_options o;
    struct position end;  /* where the next byte goes; segment 0: none is open */
    uint32_t opened;      /* segments opened so far */
    uint32_t segment_crc; /* of the open segment's head */

    struct buf bytes; /* what was appended since the last flush */
    struct wal_chunk *chunks;
    size_t n_chunks;
    size_t cap_chunks;
    bool group_open;    /* a group's frames are being gathered */
    size_t group_begin; /* where its head stands in `bytes` */
    uint32_t group_frames;

    uint64_t group;        /* number of the group that is gathered now; from 1 */
    uint64_t synced_group; /* counts as durable */
    uint64_t disk_group;   /* is on the disk; the same in sync mode always */
    struct position synced_end;
    struct position *flushed_ends; /* ends of the flushes above disk_group, oldest first */
    size_t n_flushed;
    size_t cap_flushed;
};

void wal_init(struct wal *l, const struct wal_options *o);
void wal_free(struct wal *l);

/* Adds a frame to the group. Returns where its payload will stand. It is durable when
 * wal_is_synced(l, g), g being l->group at the time of the call. */
struct position wal_append(struct wal *l, uint8_t kind, uint16_t partition, uint32_t view,
                           const uint8_t *payload, size_t payload_bytes);

/* Anything gathered since the last flush? */
static inline bool wal_dirty(const struct wal *l)
{
    return buf_len(&l->bytes) > 0;
}

/* Where the next appended frame will begin, or before that: frames that begin at or after it are
 * appended later than this call, those before it were appended earlier. */
struct position wal_end(const struct wal *l);

/* Emits the writes and one sync for what was gathered, if anything; the next group begins. */
void wal_flush(struct wal *l, struct actions *out);
/* After the actions of a flush were carried out: gives the gathered bytes up. */
void wal_flushed(struct wal *l);

/* Everything up to and including this group is on the disk: group heads may name it. */
void wal_synced(struct wal *l, uint64_t group);
/* It is written, and the sync mode lets that count as durable: wal_is_synced, but no head names it.
 */
void wal_written(struct wal *l, uint64_t group);
static inline bool wal_is_synced(const struct wal *l, uint64_t group)
{
    return group <= l->synced_group;
}

/* ---- reading segments at a start ---- */

/* A segment file as it was found. The reader sets what follows `bytes`. */
struct wal_segment {
    uint32_t number; /* from its name */
    const uint8_t *data;
    size_t bytes;
    struct segment_head head;
    bool trusted;              /* below the floor: durable, and not looked through */
    size_t good_bytes;         /* keep this much; 0: remove the file */
    size_t looked_bytes;       /* by the check, so far */
    struct position named_end; /* highest synced end that its groups name */
    size_t synced_bytes; /* of them, what was surely synced: the rest may not be on the disk */
};

/* What a start found wrong with a log. */
struct wal_damage {
    uint32_t segment;
    uint64_t offset;
    const char *what; /* a sentence */
};

/* What a generation of checkpoints covers: by partition the place X where its replay begins. The
 * log was durable up to there. Empty: nothing is covered. */
struct wal_floor {
    uint32_t partitions;
    struct position *x;
};
/* Segments of the streams that these shards write are covered below this number: a stream holds
 * frames of the partitions p = shard (mod shards) only. */
uint32_t wal_floor_of(const struct wal_floor *f, uint32_t shard, uint32_t shards);
/* Takes the lower one of each partition; empty when one of them is. */
void wal_floor_lower(struct wal_floor *f, const struct wal_floor *other);
void wal_floor_copy(const struct wal_floor *f, struct wal_floor *ret);
void wal_floor_free(struct wal_floor *f);

/* Looks at all segments, sorted by number: finds the torn tail of the newest start's streams and
 * sets good_bytes of each. Segments below the floor of their stream are covered by a checkpoint:
 * they are trusted, and may be missing. `floor` may be NULL. -EBADMSG with *ret_damage when
 * something below a synced end or an X is unreadable (R15): nothing may be served from this log. */
int wal_check(struct wal_segment *segments, size_t n, const struct wal_floor *floor,
              struct wal_damage *ret_damage);
/* The same in three steps, for who looks through several segments at a time, or tells how far it
 * is: the heads of all; the groups of each, step by step, about `bytes` of them in each step, until
 * false is returned (it touches this segment only: from any thread); the judgement. */
int wal_check_begin(struct wal_segment *segments, size_t n, const struct wal_floor *floor,
                    struct wal_damage *ret_damage);
bool wal_check_step(struct wal_segment *s, size_t bytes);
int wal_check_end(struct wal_segment *segments, size_t n, const struct wal_floor *floor,
                  struct wal_damage *ret_damage);

/* A walk through the frames of a segment. Valid when zeroed: at its beginning. */
struct wal_cursor {
    size_t offset;
    uint32_t frames; /* left in the group */
};
/* The next frame; `at` is where its payload stands. 1, or 0 at the end, or -EBADMSG when it can't
 * be read. */
int wal_next(const struct wal_segment *s, struct wal_cursor *c, struct frame *ret,
             struct position *ret_at);

/* Calls fn for each frame of a checked segment, in order. A negative return of fn ends the walk and
 * is returned. */
typedef int (*wal_frame_fn)(void *ctx, const struct frame *f, struct position at);
int wal_walk(const struct wal_segment *s, wal_frame_fn fn, void *ctx);
