/* Reading a segment past its damage. An entry whose frame's head is whole is passed over alone;
 * behind anything else the next group is looked for. */
#include "offline_private.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crc32c.h"

#include <stdio.h>

/* The first offset from `at` on where a group of that segment begins; its end when there is none.
 */
static uint64_t group_find(const struct wal_segment *s, uint64_t at, uint32_t segment_crc)
{
    struct group_head h;

    for (; at + GROUP_HEAD_BYTES <= s->bytes; at++) {
        if (group_head_decode(s->data + at, s->bytes - at, segment_crc, &h) == 0) {
            return at;
        }
    }
    return s->bytes;
}

/* Length of the frame of an entry that can't be read, 0 when its head can't be trusted either: the
 * head has a checksum of its own, for the entry bears one. */
static uint64_t damaged_entry(const uint8_t *p, uint64_t left)
{
    uint64_t bytes;

    if (left < FRAME_HEAD_BYTES || !frame_kind_has_entry(p[8]) ||
        crc32c(0, p + 4, FRAME_HEAD_BYTES - 4) != bytes_get_u32(p)) {
        return 0;
    }
    bytes = FRAME_HEAD_BYTES + (uint64_t) bytes_get_u32(p + 4);
    return bytes <= left ? bytes : 0;
}

static void group_scan(const struct wal_segment *s, uint64_t at, uint64_t end,
                       const struct scan *scan)
{
    while (at < end) {
        const uint8_t *p = s->data + at;
        struct frame f;
        char what[64];
        int64_t n = frame_decode(p, end - at, &f);
        if (n > 0) {
            scan->frame(scan->ctx, s, &f,
                        (struct position){ s->number, (uint32_t) (at + FRAME_HEAD_BYTES) });
            at += (uint64_t) n;
            continue;
        }
        n = (int64_t) damaged_entry(p, end - at);
        if (n == 0) {
            scan->lost(scan->ctx, s, at, end, "the rest of a group");
            return;
        }
        (void) snprintf(what, sizeof(what), "an entry of partition %u", bytes_get_u16(p + 10));
        scan->lost(scan->ctx, s, at, at + (uint64_t) n, what);
        at += (uint64_t) n;
    }
}

/* The checksum that the segment's groups continue: that of its head, or, where the head is rotten,
 * whichever of the two that it may have been some group fits. */
static bool segment_crc(const struct wal_segment *s, const struct scan *scan, uint32_t *ret)
{
    struct segment_head head;

    if (s->bytes >= SEGMENT_HEAD_BYTES && segment_head_decode(s->data, s->bytes, &head) == 0 &&
        head.segment == s->number) {
        *ret = head.crc;
        return true;
    }
    if (s->bytes > SEGMENT_HEAD_BYTES) {
        *ret = segment_head_crc_stored(s->data);
        if (group_find(s, SEGMENT_HEAD_BYTES, *ret) == s->bytes) {
            *ret = segment_head_crc_computed(s->data);
        }
        if (group_find(s, SEGMENT_HEAD_BYTES, *ret) < s->bytes) {
            scan->lost(scan->ctx, s, 0, SEGMENT_HEAD_BYTES, "the segment's head");
            return true;
        }
    }
    scan->lost(scan->ctx, s, 0, s->bytes, "the whole segment");
    return false;
}

void offline_scan(const struct wal_segment *s, const struct scan *scan)
{
    uint64_t at = SEGMENT_HEAD_BYTES;
    uint32_t crc;

    if (!segment_crc(s, scan, &crc)) {
        return;
    }
    while (at < s->bytes) {
        struct group_head h;
        uint64_t begin = group_find(s, at, crc);
        uint64_t end;
        if (begin > at) {
            scan->lost(scan->ctx, s, at, begin, "no group");
        }
        if (begin == s->bytes) {
            return;
        }
        (void) group_head_decode(s->data + begin, s->bytes - begin, crc, &h);
        end = MIN_OF(begin + GROUP_HEAD_BYTES + h.bytes, s->bytes);
        group_scan(s, begin + GROUP_HEAD_BYTES, end, scan);
        at = end;
    }
}
