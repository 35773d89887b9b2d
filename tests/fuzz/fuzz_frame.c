/* Fuzzes what is read from disks: entries, frames, groups and whole logs. A log is made of the
 * input's bytes in up to four segments, whose checksums are put right where the input asks for it,
 * so that the judgement behind them is reached. */
#include "base/assert.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "core/wal.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define SEGMENTS_MAX 4

/* Decoded means encodable, to the same bytes. */
static void try_entry(const uint8_t *p, size_t len)
{
    struct entry e, trusted;

    if (entry_decode(p, len, &e) == 0) {
        _cleanup_free_ uint8_t *out = malloc(len);
        kumo_assert(entry_bytes(&e) == len);
        entry_encode(&e, out);
        kumo_assert(memcmp(out, p, len) == 0);
        kumo_assert(entry_decode_trusted(p, len, &trusted) == 0);
        kumo_assert(trusted.key == e.key && trusted.value == e.value);
    }
    if (entry_decode_trusted(p, len, &e) == 0) {
        kumo_assert(e.key + e.key_len == e.value);
        kumo_assert(e.value + e.value_len == p + len);
    }
}

static void try_frame(const uint8_t *p, size_t len)
{
    struct frame f;
    uint64_t time_usec;
    struct name name;
    struct frame_view view;
    uint8_t out[FRAME_HEAD_BYTES];
    int64_t n = frame_decode(p, len, &f);

    if (n < 0) {
        return;
    }
    kumo_assert((size_t) n <= len);
    kumo_assert(f.payload + f.payload_bytes == p + n);
    if (p[9] == 0) {
        frame_head_encode(&f, out);
        kumo_assert(memcmp(out, p, FRAME_HEAD_BYTES) == 0);
    }
    (void) frame_commit_decode(&f, &name, &time_usec);
    if (frame_view_decode(&f, &view) == 0) {
        kumo_assert(view.n_members <= REPLICAS_MAX);
    }
}

struct counts {
    uint64_t frames;
    struct position last;
};

static int count_frame(void *ctx, const struct frame *f, struct position at)
{
    struct counts *c = ctx;

    kumo_assert(position_compare(at, c->last) > 0);
    c->last = at;
    c->frames++;
    try_frame(f->payload - FRAME_HEAD_BYTES, FRAME_HEAD_BYTES + f->payload_bytes);
    return 0;
}

/* Makes the checksums of a segment right, as far as it has the structure. */
static void mend(uint8_t *p, size_t len, uint32_t number)
{
    uint32_t crc;
    size_t at = SEGMENT_HEAD_BYTES;

    if (len < SEGMENT_HEAD_BYTES) {
        return;
    }
    memcpy(p, "KUMOSEG\n", 8);
    bytes_put_u32(p + 12, SEGMENT_VERSION);
    bytes_put_u32(p + 16, number);
    crc = crc32c(0, p + 12, SEGMENT_HEAD_BYTES - 12);
    bytes_put_u32(p + 8, crc);
    while (len - at >= GROUP_HEAD_BYTES) {
        size_t bytes = bytes_get_u32(p + at + 8), frame = at + GROUP_HEAD_BYTES;
        bytes_put_u32(p + at, 0x50524b47u);
        bytes_put_u32(p + at + 4, crc32c(crc, p + at + 8, GROUP_HEAD_BYTES - 8));
        at += GROUP_HEAD_BYTES;
        if (bytes > len - at) {
            return;
        }
        for (at += bytes; at - frame >= FRAME_HEAD_BYTES;) {
            size_t payload = bytes_get_u32(p + frame + 4);
            bool entry = frame_kind_has_entry(p[frame + 8]);
            if (payload > at - frame - FRAME_HEAD_BYTES) {
                return;
            }
            if (entry && payload >= ENTRY_HEAD_BYTES) {
                uint8_t *e = p + frame + FRAME_HEAD_BYTES;
                bytes_put_u32(e + 4, (uint32_t) payload);
                bytes_put_u32(e, crc32c(0, e + 4, payload - 4));
            }
            bytes_put_u32(p + frame,
                          crc32c(0, p + frame + 4, FRAME_HEAD_BYTES - 4 + (entry ? 0 : payload)));
            frame += FRAME_HEAD_BYTES + payload;
        }
    }
}

static void try_log(struct wal_segment *s, size_t n)
{
    struct wal_damage damage = { 0 };
    struct counts first = { 0 }, again = { 0 };

    if (wal_check(s, n, NULL, &damage) < 0) {
        kumo_assert(damage.what);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        kumo_assert(s[i].good_bytes <= s[i].bytes);
        kumo_assert(wal_walk(&s[i], count_frame, &first) == 0);
        s[i].bytes = s[i].good_bytes;
    }
    for (size_t i = 0; i < n; i++) { /* a start cuts what was not good, and removes files */
        if (s[i].bytes == 0) {
            memmove(&s[i], &s[i + 1], (n - i - 1) * sizeof(*s));
            n--;
            i--;
        }
    }
    /* Heads that lie may contradict each other only now; honest ones are tried by test_wal_starts.
     */
    for (size_t i = 0; wal_check(s, n, NULL, &damage) == 0 && i < n; i++) {
        kumo_assert(wal_walk(&s[i], count_frame, &again) == 0);
    }
    kumo_assert(first.frames >= again.frames);
}

/* The first byte says what it is. Logs: bits 2 and 3 how many segments, bit 4: mend checksums; then
 * a 2-byte length before each segment but the last. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct wal_segment s[SEGMENTS_MAX];
    uint8_t *copies[SEGMENTS_MAX] = { NULL };
    size_t n, i;
    uint8_t what;

    if (len < 1) {
        return 0;
    }
    what = data[0];
    data++;
    len--;
    if (what % 4 == 0) {
        try_entry(data, len);
        try_frame(data, len);
        return 0;
    }
    n = 1 + (what >> 2) % SEGMENTS_MAX;
    for (i = 0; i < n; i++) {
        size_t bytes = len;
        if (i + 1 < n) {
            bytes = len >= 2 ? MIN_OF((size_t) bytes_get_u16(data), len - 2) : 0;
            data += MIN_OF(len, 2);
            len -= MIN_OF(len, 2);
        }
        copies[i] = malloc(bytes > 0 ? bytes : 1);
        memcpy(copies[i], data, bytes);
        data += bytes;
        len -= bytes;
        if (what & 16) {
            mend(copies[i], bytes, (uint32_t) i + 1);
        }
        s[i] =
            (struct wal_segment){ .number = (uint32_t) i + 1, .data = copies[i], .bytes = bytes };
    }
    try_log(s, n);
    for (i = 0; i < n; i++) {
        free(copies[i]);
    }
    return 0;
}
