/* How entries and notes lie in a log segment. Pure; little-endian.
 *
 *   segment := segment head, group*           a file of up to 128 MiB, or one larger entry
 *   group   := group head, frame+             what one loop turn wrote; replayed whole or not at
 * all frame   := frame head, payload
 *
 *   segment head (96)  magic 8, crc 4, version 4, segment 4, shard 4, shards 4, partitions 4,
 *                      start 8, server id 16, first segment of the start 4,
 *                      end of the stream's segment before it: segment 4, offset 4, zeros
 *   group head (32)    magic 4, crc 4, bytes of frames 4, number of frames 4,
 *                      synced end when it was written: segment 4, offset 4, zeros
 *   frame head (16)    crc 4, payload bytes 4, kind 1, zero 1, partition 2, view 4
 *
 * A head's crc covers the rest of the head; a group head's continues from that of its segment's
 * head, which holds the server's random id: bytes of another segment, or of a value made to look
 * so, are no group. A frame's crc covers the rest of its head, and its payload unless that is an
 * entry, which bears its own. */
#pragma once

#include "wire/entry.h"

#include <stddef.h>
#include <stdint.h>

#define SEGMENT_HEAD_BYTES 96
#define SEGMENT_VERSION    1
#define GROUP_HEAD_BYTES   32
#define FRAME_HEAD_BYTES   16

/* A place in a server's log. Numbers of segments only grow, so that positions order what was
 * written for one partition, across restarts and changes of the number of shards. Segment 0 does
 * not exist. */
struct position {
    uint32_t segment;
    uint32_t offset;
};

static inline int position_compare(struct position a, struct position b)
{
    if (a.segment != b.segment) {
        return a.segment < b.segment ? -1 : 1;
    }
    return a.offset < b.offset ? -1 : a.offset > b.offset;
}

struct segment_head {
    uint32_t segment;
    uint32_t shard; /* of `shards`: whose stream this is */
    uint32_t shards;
    uint32_t partitions; /* of the cluster */
    uint64_t start;      /* which start of the server opened it */
    uint8_t server_id[16];
    uint32_t first;           /* lowest number of that start: shard i has first + i + k * shards */
    uint32_t crc;             /* of the head: made by encode, found by decode */
    struct position prev_end; /* end of the stream's segment before it; segment 0: there is none */
};

struct group_head {
    uint32_t bytes; /* of its frames */
    uint32_t frames;
    struct position
        synced_end; /* everything of this stream before it was durable when this was written */
};

enum frame_kind {
    FRAME_PREPARE = 1, /* an entry, prepared */
    FRAME_COMMIT,      /* everything up to a name is committed */
    FRAME_VIEW,        /* the partition's view and membership, and the server's part in it */
    FRAME_COPY,        /* a committed entry, moved by compaction or received by a catch-up */
    FRAME_BASE,        /* a catch-up began, or ended (R17) */
    FRAME_HORIZON,     /* reserved: highest seq of a dropped tombstone */
    FRAME_GONE,        /* a tombstone or dead record was dropped */
    FRAME_DROP,        /* the copy was emptied: it is not trusted any more (R15) */
    _FRAME_KIND_MAX,
    _FRAME_KIND_INVALID = -22,
};

struct frame {
    uint8_t kind;
    uint16_t partition;
    uint32_t view; /* the current view of the partition when it was written */
    uint32_t payload_bytes;
    const uint8_t *payload;
};

static inline int frame_kind_has_entry(uint8_t kind)
{
    return kind == FRAME_PREPARE || kind == FRAME_COPY;
}

/* Sets h->crc too. */
void segment_head_encode(struct segment_head *h, uint8_t out[SEGMENT_HEAD_BYTES]);
/* -EBADMSG: no such head. -EPROTONOSUPPORT: of a newer version. */
int segment_head_decode(const uint8_t *p, size_t bytes, struct segment_head *ret);

/* Of SEGMENT_HEAD_BYTES that segment_head_decode refuses: the checksum that stands there, and the
 * one that they have. */
uint32_t segment_head_crc_stored(const uint8_t *p);
uint32_t segment_head_crc_computed(const uint8_t *p);

/* segment_crc: of the segment's head. */
void group_head_encode(const struct group_head *h, uint32_t segment_crc,
                       uint8_t out[GROUP_HEAD_BYTES]);
/* -EBADMSG when these bytes do not begin a group of that segment. */
int group_head_decode(const uint8_t *p, size_t bytes, uint32_t segment_crc, struct group_head *ret);

/* Writes the head of a frame whose payload (payload_bytes at payload) will follow it. */
void frame_head_encode(const struct frame *f, uint8_t out[FRAME_HEAD_BYTES]);
/* Reads the frame at `p` with all its checksums, an entry's included. Returns its length with head,
 * or -EBADMSG. */
int64_t frame_decode(const uint8_t *p, size_t bytes, struct frame *ret);

/* Payload of FRAME_COMMIT: seq 8, view 4, partition time given out so far 8 (R13). */
#define FRAME_COMMIT_BYTES 20
void frame_commit_encode(struct name name, uint64_t time_usec, uint8_t out[FRAME_COMMIT_BYTES]);
int frame_commit_decode(const struct frame *f, struct name *ret, uint64_t *ret_time_usec);

/* Payload of FRAME_GONE: seq 8, partition time of the decision 8, key. */
#define FRAME_GONE_HEAD_BYTES 16
#define FRAME_GONE_BYTES_MAX  (FRAME_GONE_HEAD_BYTES + ENTRY_KEY_BYTES_MAX)
struct frame_gone {
    uint64_t seq;
    uint64_t time_usec;
    const uint8_t *key;
    size_t key_len;
};
/* Returns the number of bytes written. */
size_t frame_gone_encode(const struct frame_gone *g, uint8_t out[FRAME_GONE_BYTES_MAX]);
int frame_gone_decode(const struct frame *f, struct frame_gone *ret);

/* Payload of FRAME_VIEW. The members are server numbers, the primary first. */
#define REPLICAS_MAX 7
struct frame_view {
    uint8_t part; /* enum view_part */
    uint8_t n_members;
    uint32_t members[REPLICAS_MAX];
};
enum view_part {
    VIEW_NONE,      /* not a member */
    VIEW_PRIMARY,   /* members[0] is this server */
    VIEW_SECONDARY, /* another member is */
    VIEW_WAITING,   /* a member that may not act in this view (R6): it was formed with an earlier
                       process */
    VIEW_LEARNER,   /* not a member: receives all writes and catches up */
    _VIEW_PART_MAX,
};
#define FRAME_VIEW_BYTES_MAX (4 + 4 * REPLICAS_MAX)
/* Returns the number of bytes written. */
size_t frame_view_encode(const struct frame_view *v, uint8_t out[FRAME_VIEW_BYTES_MAX]);
int frame_view_decode(const struct frame *f, struct frame_view *ret);
