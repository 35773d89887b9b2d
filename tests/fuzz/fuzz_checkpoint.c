/* Fuzzes the reader of checkpoints. The first byte of an input says whether its checksums, and the
 * lengths and counts that must fit, are repaired; the rest is one partition's checkpoint. What is
 * accepted must make the same shard again, and a checkpoint of that shard must make it once more.
 */
#include "base/cleanup.h"
#include "core/checkpoint.h"
#include "rig.h"
#include "wire/mp.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Repairs the entries of the tail, which is the last item of the state. Returns the state's length,
 * 0 when it is none. */
static size_t mend_state(uint8_t *p, size_t bytes)
{
    struct mp_reader r = mp_reader_of(p, bytes);
    uint32_t n = mp_get_array(&r);

    for (uint32_t i = 1; i < n && !r.failed; i++) {
        mp_skip(&r);
    }
    n = mp_get_array(&r);
    for (uint32_t i = 0; i < n && !r.failed; i++) {
        const uint8_t *entry;
        size_t entry_bytes;
        mp_get_array(&r);
        entry = mp_get_bin(&r, ENTRY_BYTES_MAX, &entry_bytes);
        if (!r.failed) {
            mend_entry(p + (entry - p), entry_bytes);
        }
        mp_skip(&r);
        mp_skip(&r);
    }
    return r.failed ? 0 : (size_t) (r.p - p);
}

static uint64_t count_records(const uint8_t *p, size_t bytes)
{
    uint64_t n = 0;

    while (bytes > 0 && bytes >= 1u + *p + INDEX_RECORD_BYTES) {
        bytes -= 1u + *p + INDEX_RECORD_BYTES;
        p += 1u + *p + INDEX_RECORD_BYTES;
        n++;
    }
    return n;
}

static void mend(uint8_t *p, size_t bytes)
{
    uint8_t *state = p + CHECKPOINT_HEAD_BYTES;
    size_t left, state_bytes;

    if (bytes < CHECKPOINT_HEAD_BYTES + 4) {
        return;
    }
    left = bytes - CHECKPOINT_HEAD_BYTES - 4;
    state_bytes = mend_state(state, left);
    if (state_bytes > 0) {
        bytes_put_u32(p + 20, (uint32_t) state_bytes);
        bytes_put_u64(p + 24, count_records(state + state_bytes, left - state_bytes));
    }
    memcpy(p, "KUMOCKPT", 8);
    bytes_put_u32(p + 12, CHECKPOINT_VERSION);
    bytes_put_u16(p + 16, bytes_get_u16(p + 16) % RIG_PARTITIONS);
    bytes_put_u32(p + 8, crc32c(0, p + 12, CHECKPOINT_HEAD_BYTES - 12));
    bytes_put_u32(p + bytes - 4, crc32c(0, p, bytes - 4));
}

/* A checkpoint of what was loaded, loaded. */
static void try_again(const struct shard *s, uint16_t partition)
{
    _cleanup_(buf_free) struct buf b = { 0 };
    struct shard *copy = rig_shard();
    struct position x;
    uint64_t group;

    kumo_assert(checkpoint_take(s, partition, &b, NULL, &x, &group) == 0);
    kumo_assert(checkpoint_load(copy, b.data, buf_len(&b)) == 0);
    rig_compare(s, copy);
    shard_free(copy);
}

static void try_checkpoint(const uint8_t *p, size_t bytes)
{
    struct shard *once = rig_shard();
    struct shard *twice = rig_shard();
    int err = checkpoint_load(once, p, bytes);

    kumo_assert(err == 0 || err == -EBADMSG || err == -ENOENT || err == -EPROTONOSUPPORT);
    kumo_assert(checkpoint_load(twice, p, bytes) == err);
    rig_compare(once, twice);
    if (err == 0) {
        try_again(once, bytes_get_u16(p + 16));
        shard_replay_end(once);
    }
    shard_free(once);
    shard_free(twice);
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
    try_checkpoint(copy, len - 1);
    return 0;
}
