/* What the fuzzers of a server's files share: a shard to replay into, and repair of what guards the
 * bytes, so that the judgement behind it is reached. */
#pragma once

#include "base/assert.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "core/index_map.h"
#include "core/shard.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RIG_PARTITIONS    4
#define RIG_SERVER        1
#define RIG_FIRST_SEGMENT (1u << 20) /* above every segment of an input */

/* What an input announces must not become memory: far more than any input can justify. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "max_allocation_size_mb=64";
}

static inline int rig_read(void *ctx, struct position at, size_t bytes, const uint8_t **ret)
{
    (void) ctx;
    (void) at;
    (void) bytes;
    (void) ret;
    return -EIO;
}

/* A server with one shard that holds every partition. */
static inline struct shard *rig_shard(void)
{
    struct shard_options o = {
        .log = { .start = 2,
                 .shards = 1,
                 .partitions = RIG_PARTITIONS,
                 .first_segment = RIG_FIRST_SEGMENT },
        .server = RIG_SERVER,
        .value_bytes_max = 1u << 20,
        .index_open = index_map_open,
        .read = rig_read,
    };
    struct shard *s;
    int r = shard_new(&o, &s);

    kumo_assert(r == 0);
    return s;
}

struct rig_tail {
    uint64_t seq; /* of the last entry that was met */
    uint16_t partition;
};

static inline void rig_tail_entry(void *ctx, const struct entry *e, bool durable)
{
    struct rig_tail *t = ctx;

    (void) durable;
    kumo_assert(e->partition == t->partition);
    kumo_assert(e->name.seq == t->seq + 1);
    t->seq = e->name.seq;
}

/* Two shards that were made of the same bytes are the same, and their tails have no gap. */
static inline void rig_compare(const struct shard *a, const struct shard *b)
{
    struct shard_counts of_a, of_b;

    for (uint16_t p = 0; p < RIG_PARTITIONS; p++) {
        struct replica_info x, y;
        struct rig_tail t = { .partition = p };
        kumo_assert(shard_replica_info(a, p, &x) == 0);
        kumo_assert(shard_replica_info(b, p, &y) == 0);
        kumo_assert(x.view == y.view && x.state == y.state);
        kumo_assert(name_equal(x.commit, y.commit) && name_equal(x.last, y.last));
        kumo_assert(x.digest == y.digest);
        t.seq = x.commit.seq;
        shard_tail_walk(a, p, rig_tail_entry, &t);
        kumo_assert(t.seq == x.last.seq);
    }
    shard_count(a, &of_a);
    shard_count(b, &of_b);
    kumo_assert(of_a.records == of_b.records);
    kumo_assert(of_a.tail_bytes == of_b.tail_bytes);
}

/* ---- checksums, and the lengths and counts under them ---- */

static inline void mend_entry(uint8_t *p, size_t bytes)
{
    if (bytes >= ENTRY_HEAD_BYTES) {
        bytes_put_u32(p + 4, (uint32_t) bytes);
        bytes_put_u32(p, crc32c(0, p + 4, bytes - 4));
    }
}

/* Of the frames of one group; a last one that is too long is cut. Returns how many there are. */
static inline uint32_t mend_frames(uint8_t *p, size_t bytes)
{
    uint32_t n = 0;

    while (bytes >= FRAME_HEAD_BYTES) {
        size_t payload = MIN_OF((size_t) bytes_get_u32(p + 4), bytes - FRAME_HEAD_BYTES);
        bool entry = frame_kind_has_entry(p[8]);
        bytes_put_u32(p + 4, (uint32_t) payload);
        if (entry) {
            mend_entry(p + FRAME_HEAD_BYTES, payload);
        }
        bytes_put_u32(p, crc32c(0, p + 4, FRAME_HEAD_BYTES - 4 + (entry ? 0 : payload)));
        p += FRAME_HEAD_BYTES + payload;
        bytes -= FRAME_HEAD_BYTES + payload;
        n++;
    }
    return n;
}

/* Of a segment, as far as it has the structure of one. */
static inline void mend_segment(uint8_t *p, size_t bytes, uint32_t number)
{
    size_t at = SEGMENT_HEAD_BYTES;
    uint32_t crc;

    if (bytes < SEGMENT_HEAD_BYTES) {
        return;
    }
    memcpy(p, "KUMOSEG\n", 8);
    bytes_put_u32(p + 12, SEGMENT_VERSION);
    bytes_put_u32(p + 16, number);
    crc = crc32c(0, p + 12, SEGMENT_HEAD_BYTES - 12);
    bytes_put_u32(p + 8, crc);
    while (bytes - at >= GROUP_HEAD_BYTES) {
        size_t left = bytes - at - GROUP_HEAD_BYTES;
        size_t frames = MIN_OF((size_t) bytes_get_u32(p + at + 8), left);
        memcpy(p + at, "GKRP", 4);
        bytes_put_u32(p + at + 8, (uint32_t) frames);
        bytes_put_u32(p + at + 12, mend_frames(p + at + GROUP_HEAD_BYTES, frames));
        bytes_put_u32(p + at + 4, crc32c(crc, p + at + 8, GROUP_HEAD_BYTES - 8));
        at += GROUP_HEAD_BYTES + frames;
    }
}
