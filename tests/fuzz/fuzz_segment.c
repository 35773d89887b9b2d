/* Fuzzes what a start makes of a log: hostile bytes as one to three segment files are checked,
 * walked and replayed, with a checkpoint's floor or without. What is accepted must read the same
 * again, and make the same shard again. */
#include "base/cleanup.h"
#include "rig.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define SEGMENTS_MAX 3

/* The first byte of an input. Behind it an X of each partition, if there are any, and two bytes of
 * length before each segment but the last. */
#define INPUT_SEGMENTS 0x03 /* how many, less one */
#define INPUT_MEND     0x04 /* checksums are repaired */
#define INPUT_FLOOR    0x08 /* a checkpoint covers what lies before X: segment 1, offset 2 */

struct log {
    struct wal_segment segments[SEGMENTS_MAX];
    size_t n;
    struct wal_floor floor;
    struct position x[RIG_PARTITIONS];
};

struct reading {
    struct shard *shard; /* NULL: only counts */
    struct position last;
    uint64_t frames;
    uint32_t crc; /* of all that was read */
};

static int read_frame(void *ctx, const struct frame *f, struct position at)
{
    struct reading *r = ctx;
    struct entry e;

    kumo_assert(position_compare(at, r->last) > 0);
    r->last = at;
    r->frames++;
    r->crc = crc32c(r->crc, (const uint8_t *) &at, sizeof(at));
    r->crc = crc32c(r->crc, f->payload - FRAME_HEAD_BYTES, FRAME_HEAD_BYTES + f->payload_bytes);
    kumo_assert(!frame_kind_has_entry(f->kind) ||
                entry_decode(f->payload, f->payload_bytes, &e) == 0);
    return r->shard ? shard_replay_frame(r->shard, f, at) : 0;
}

/* As a start does. */
static int log_read(const struct log *l, struct reading *r)
{
    int err = 0;

    for (size_t i = 0; i < l->n && err == 0; i++) {
        if (!l->segments[i].trusted && l->segments[i].good_bytes > 0) {
            err = wal_walk(&l->segments[i], read_frame, r);
        }
    }
    return err;
}

static void try_replay(const struct log *l)
{
    struct reading once = { .shard = rig_shard() };
    struct reading twice = { .shard = rig_shard() };
    int err = log_read(l, &once);

    kumo_assert(log_read(l, &twice) == err);
    kumo_assert(once.frames == twice.frames && once.crc == twice.crc);
    if (err == 0) {
        shard_replay_end(once.shard);
        shard_replay_end(twice.shard);
    }
    rig_compare(once.shard, twice.shard);
    shard_free(once.shard);
    shard_free(twice.shard);
}

/* Cuts what was not good, as a start does. */
static void log_cut(struct log *l)
{
    size_t kept = 0;

    for (size_t i = 0; i < l->n; i++) {
        if (l->segments[i].good_bytes > 0) {
            l->segments[kept] = l->segments[i];
            l->segments[kept].bytes = l->segments[i].good_bytes;
            kept++;
        }
    }
    l->n = kept;
}

static void try_log(struct log *l)
{
    const struct wal_floor *floor = l->floor.partitions > 0 ? &l->floor : NULL;
    struct wal_damage damage = { 0 };
    struct reading first = { 0 }, again = { 0 };

    if (wal_check(l->segments, l->n, floor, &damage) < 0) {
        kumo_assert(damage.what);
        return;
    }
    for (size_t i = 0; i < l->n; i++) {
        kumo_assert(l->segments[i].good_bytes <= l->segments[i].bytes);
        kumo_assert(l->segments[i].synced_bytes <= l->segments[i].good_bytes);
        kumo_assert(!l->segments[i].trusted || floor);
    }
    kumo_assert(log_read(l, &first) == 0);
    try_replay(l);
    log_cut(l);
    /* Heads that lie may contradict each other only now. */
    if (wal_check(l->segments, l->n, floor, &damage) == 0) {
        kumo_assert(log_read(l, &again) == 0);
        kumo_assert(again.frames <= first.frames);
        kumo_assert(again.frames < first.frames || again.crc == first.crc);
    }
}

/* Takes the next segment off the input, into memory of exactly its size. */
static uint8_t *segment_take(const uint8_t **data, size_t *len, bool last, size_t *ret_bytes)
{
    size_t bytes = *len;
    uint8_t *copy;

    if (!last) {
        size_t head = MIN_OF(*len, (size_t) 2);
        bytes = head == 2 ? MIN_OF((size_t) bytes_get_u16(*data), *len - 2) : 0;
        *data += head;
        *len -= head;
    }
    copy = malloc(bytes > 0 ? bytes : 1);
    kumo_assert(copy);
    memcpy(copy, *data, bytes);
    *data += bytes;
    *len -= bytes;
    *ret_bytes = bytes;
    return copy;
}

static bool floor_take(const uint8_t **data, size_t *len, struct log *l)
{
    if (*len < 3 * RIG_PARTITIONS) {
        return false;
    }
    l->floor = (struct wal_floor){ RIG_PARTITIONS, l->x };
    for (unsigned p = 0; p < RIG_PARTITIONS; p++, *data += 3, *len -= 3) {
        l->x[p] = (struct position){ (*data)[0], bytes_get_u16(*data + 1) };
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct log l = { 0 };
    uint8_t *copies[SEGMENTS_MAX];
    size_t n;
    uint8_t how;

    if (len < 1) {
        return 0;
    }
    how = *data++;
    len--;
    if ((how & INPUT_FLOOR) && !floor_take(&data, &len, &l)) {
        return 0;
    }
    n = l.n = 1 + (how & INPUT_SEGMENTS) % SEGMENTS_MAX;
    for (size_t i = 0; i < n; i++) {
        struct wal_segment *s = &l.segments[i];
        s->number = (uint32_t) i + 1;
        copies[i] = segment_take(&data, &len, i + 1 == n, &s->bytes);
        s->data = copies[i];
        if (how & INPUT_MEND) {
            mend_segment(copies[i], s->bytes, s->number);
        }
    }
    try_log(&l);
    for (size_t i = 0; i < n; i++) {
        free(copies[i]);
    }
    return 0;
}
