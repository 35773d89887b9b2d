/* Fuzzes the reader of manifests. The first byte of an input says whether the checksum is repaired,
 * the rest is a manifest. What is accepted, written again, reads the same. */
#include "base/cleanup.h"
#include "core/checkpoint.h"
#include "rig.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define MANIFEST_HEAD_BYTES 12

static void mend(uint8_t *p, size_t bytes)
{
    if (bytes >= MANIFEST_HEAD_BYTES) {
        memcpy(p, "KUMOMANI", 8);
        bytes_put_u32(p + 8, crc32c(0, p + MANIFEST_HEAD_BYTES, bytes - MANIFEST_HEAD_BYTES));
    }
}

static void try_floor(const struct manifest *m)
{
    struct wal_floor floor;

    manifest_floor(m, &floor);
    kumo_assert(floor.partitions == m->partitions);
    for (uint32_t p = 0; p < m->partitions; p++) {
        kumo_assert(m->items[p].partition == p);
        kumo_assert(m->items[p].file <= SHARDS_MAX);
        kumo_assert(wal_floor_of(&floor, 0, 1) <= m->items[p].x.segment);
    }
    wal_floor_free(&floor);
}

static void try_manifest(const uint8_t *p, size_t bytes)
{
    _cleanup_(buf_free) struct buf once = { 0 };
    _cleanup_(buf_free) struct buf twice = { 0 };
    struct manifest m, again;

    if (manifest_decode(p, bytes, &m) < 0) {
        return;
    }
    try_floor(&m);
    manifest_encode(&once, &m);
    kumo_assert(buf_len(&once) <= bytes);
    kumo_assert(manifest_decode(once.data, buf_len(&once), &again) == 0);
    manifest_encode(&twice, &again);
    kumo_assert(buf_len(&once) == buf_len(&twice));
    kumo_assert(memcmp(once.data, twice.data, buf_len(&once)) == 0);
    manifest_free(&m);
    manifest_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    _cleanup_free_ uint8_t *copy = malloc(len > 0 ? len : 1);

    if (len < 1) {
        return 0;
    }
    kumo_assert(copy);
    memcpy(copy, data + 1, len - 1);
    if (data[0] & 1) {
        mend(copy, len - 1);
    }
    try_manifest(copy, len - 1);
    return 0;
}
