/* Fuzzes entries and frames, one by one; their checksums are put right where the input asks for it.
 * Groups, segments and logs are fuzz_segment's. */
#include "base/assert.h"
#include "base/cleanup.h"
#include "rig.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

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

/* The first byte says what is put right: bit 0 the frames, bit 1 the entry. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    _cleanup_free_ uint8_t *p = malloc(len > 0 ? len : 1);

    if (len == 0) {
        return 0;
    }
    kumo_assert(p);
    memcpy(p, data + 1, len - 1);
    if (data[0] & 2) {
        mend_entry(p, len - 1);
    }
    try_entry(p, len - 1);
    if (data[0] & 1) {
        (void) mend_frames(p, len - 1);
    }
    try_frame(p, len - 1);
    return 0;
}
