/* Entries and frames, the bytes that lie on disks and go between servers: what goes in comes out, a
 * changed bit is found, lengths are not believed, and the format does not change unnoticed. */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/rng.h"
#include "wire/frame.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BYTES_MAX 2048

static const struct entry golden = {
    .partition = 0x1234,
    .kind = ENTRY_SET,
    .answer = 1,
    .key_len = 3,
    .value_len = 5,
    .name = { .view = 0x01020304, .seq = 0x1112131415161718 },
    .prev_view = 0x01020303,
    .time_usec = 0x2122232425262728,
    .op = { .session = 0x3132333435363738,
            .number = 0x4142434445464748,
            .first = 0x4142434445464748 - 3 },
    .cas = 0x5152535455565758,
    .flags = 0x61626364,
    .expiry_sec = 0x71727374,
    .key = (const uint8_t *) "key",
    .value = (const uint8_t *) "value",
};

/* Made from the description of the format by other means. Disks are full of these: they change only
 * together with the version of the segment. */
static const char golden_hex[] = "366dc8f050000000341202010300030004030201030302011817161514131211"
                                 "2827262524232221383736353433323148474645444342415857565554535251"
                                 "64636261747372716b657976616c7565";

static size_t unhex(const char *hex, uint8_t *out)
{
    size_t n = strlen(hex) / 2;
    unsigned byte;

    for (size_t i = 0; i < n; i++) {
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        out[i] = (uint8_t) byte;
    }
    return n;
}

static void assert_entries_equal(const struct entry *a, const struct entry *b)
{
    assert_int_equal(a->partition, b->partition);
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->answer, b->answer);
    assert_int_equal(a->item_bits, b->item_bits);
    assert_int_equal(a->prev_view, b->prev_view);
    assert_true(name_equal(a->name, b->name));
    assert_int_equal(a->time_usec, b->time_usec);
    assert_int_equal(a->op.session, b->op.session);
    assert_int_equal(a->op.number, b->op.number);
    assert_int_equal(a->op.first, b->op.first);
    assert_int_equal(a->cas, b->cas);
    assert_int_equal(a->flags, b->flags);
    assert_int_equal(a->expiry_sec, b->expiry_sec);
    assert_int_equal(a->key_len, b->key_len);
    assert_int_equal(a->value_len, b->value_len);
    assert_memory_equal(a->key, b->key, a->key_len);
    assert_memory_equal(a->value, b->value, a->value_len);
}

static void test_golden(void **state)
{
    uint8_t want[BYTES_MAX], got[BYTES_MAX];
    size_t n = unhex(golden_hex, want);
    struct entry e;

    (void) state;
    assert_int_equal(entry_bytes(&golden), n);
    entry_encode(&golden, got);
    assert_memory_equal(got, want, n);
    assert_int_equal(entry_decode(want, n, &e), 0);
    assert_entries_equal(&e, &golden);
    assert_ptr_equal(e.key, want + ENTRY_HEAD_BYTES);
}

static void random_entry(struct rng *rng, struct entry *e, const uint8_t *text)
{
    *e = (struct entry){
        .partition = (uint16_t) rng_below(rng, PARTITIONS_MAX),
        .kind = (uint8_t) rng_between(rng, 1, _ENTRY_KIND_MAX - 1),
        .answer = (uint8_t) rng_u64(rng),
        .item_bits = (uint8_t) rng_u64(rng),
        .name = { .view = (uint32_t) rng_u64(rng), .seq = rng_u64(rng) },
        .prev_view = (uint32_t) rng_u64(rng),
        .time_usec = rng_u64(rng),
        .op = { .session = rng_u64(rng), .first = rng_u64(rng) >> rng_between(rng, 1, 63) },
        .cas = rng_u64(rng),
        .flags = (uint32_t) rng_u64(rng),
        .expiry_sec = (uint32_t) rng_u64(rng),
        .key = text,
        .value = text + 300,
        .value_len = (uint32_t) rng_below(rng, 1000),
    };
    e->op.number = e->op.first + rng_below(rng, UINT16_MAX + 1);
    if (e->kind == ENTRY_SET || e->kind == ENTRY_DELETE) {
        e->key_len = (uint8_t) rng_between(rng, 1, ENTRY_KEY_BYTES_MAX);
    } else {
        e->key_len = 0;
    }
}

static void test_round_trips(void **state)
{
    struct rng rng = { 8 };
    uint8_t text[BYTES_MAX], out[BYTES_MAX];

    (void) state;
    for (size_t i = 0; i < sizeof(text); i++) {
        text[i] = (uint8_t) rng_u64(&rng);
    }
    for (int i = 0; i < 5000; i++) {
        struct entry e, back;
        random_entry(&rng, &e, text);
        entry_encode(&e, out);
        assert_int_equal(entry_decode(out, entry_bytes(&e), &back), 0);
        assert_entries_equal(&e, &back);
        assert_int_equal(entry_decode_trusted(out, entry_bytes(&e), &back), 0);
        assert_entries_equal(&e, &back);
    }
}

/* The smallest, and the largest that there may be. */
static void test_sizes(void **state)
{
    size_t n = ENTRY_BYTES_MAX;
    _cleanup_free_ uint8_t *value = calloc(1, ENTRY_VALUE_BYTES_MAX);
    _cleanup_free_ uint8_t *out = calloc(1, n + 1);
    uint8_t key[ENTRY_KEY_BYTES_MAX] = { 0 };
    struct entry e = { .kind = ENTRY_NOOP }, back;

    (void) state;
    entry_encode(&e, out);
    assert_int_equal(entry_bytes(&e), ENTRY_HEAD_BYTES);
    assert_int_equal(entry_decode(out, ENTRY_HEAD_BYTES, &back), 0);
    e = (struct entry){ .kind = ENTRY_SET,
                        .key = key,
                        .key_len = ENTRY_KEY_BYTES_MAX,
                        .value = value,
                        .value_len = ENTRY_VALUE_BYTES_MAX };
    assert_int_equal(entry_bytes(&e), n);
    entry_encode(&e, out);
    assert_int_equal(entry_decode(out, n, &back), 0);
    assert_int_equal(back.value_len, ENTRY_VALUE_BYTES_MAX);
    bytes_put_u32(out + 4, (uint32_t) n + 1);
    assert_int_equal(entry_decode_trusted(out, n + 1, &back), -EBADMSG);
}

/* A flipped bit anywhere is found, and a length that isn't the entry's is refused. */
static void test_flips(void **state)
{
    uint8_t bytes[BYTES_MAX];
    size_t n = unhex(golden_hex, bytes);
    struct entry e = { .kind = 99 };

    (void) state;
    for (size_t bit = 0; bit < 8 * n; bit++) {
        bytes[bit / 8] ^= (uint8_t) (1 << bit % 8);
        assert_int_equal(entry_decode(bytes, n, &e), -EBADMSG);
        bytes[bit / 8] ^= (uint8_t) (1 << bit % 8);
    }
    for (size_t len = 0; len < sizeof(bytes); len++) {
        _cleanup_free_ uint8_t *exact = malloc(len + 1); /* for the address sanitizer */
        if (len != n) {
            memcpy(exact, bytes, len);
            assert_int_equal(entry_decode(exact, len, &e), -EBADMSG);
            assert_int_equal(entry_decode_trusted(exact, len, &e), -EBADMSG);
        }
    }
    assert_int_equal(e.kind, 99); /* untouched on failure */
}

/* Fields that lie, under a checksum that doesn't: each at its offset. */
static void test_hostile_fields(void **state)
{
    static const struct {
        size_t offset;
        unsigned bytes;
        uint64_t v;
    } lies[] = {
        { 4, 4, 81 },
        { 4, 4, 79 },
        { 4, 4, 0 },
        { 4, 4, UINT32_MAX },
        { 8, 2, PARTITIONS_MAX },
        { 8, 2, 0xffff },
        { 10, 1, 0 },
        { 10, 1, _ENTRY_KIND_MAX },
        { 10, 1, 255 },
        { 12, 1, 9 },
        { 12, 1, 251 },
        { 12, 1, 255 },
        { 48, 8, 2 }, /* the op number is below what is unanswered "before" it */
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
        uint8_t b[BYTES_MAX];
        size_t n = unhex(golden_hex, b);
        struct entry e;
        for (unsigned j = 0; j < lies[i].bytes; j++) {
            b[lies[i].offset + j] = (uint8_t) (lies[i].v >> 8 * j);
        }
        if (entry_decode_trusted(b, n, &e) != -EBADMSG) {
            fail_msg("lie %zu was believed", i);
        }
    }
}

/* ---- frames ---- */

static size_t frame_make(uint8_t *out, uint8_t kind, const uint8_t *payload, size_t bytes)
{
    struct frame f = { kind, 0x1234, 0xa1a2a3a4, (uint32_t) bytes, payload };

    frame_head_encode(&f, out);
    memcpy(out + FRAME_HEAD_BYTES, payload, bytes);
    return FRAME_HEAD_BYTES + bytes;
}

static void test_frames(void **state)
{
    uint8_t entry[BYTES_MAX], b[BYTES_MAX];
    size_t n = unhex(golden_hex, entry);

    (void) state;
    for (uint8_t kind = 1; kind < _FRAME_KIND_MAX; kind++) {
        bool with_entry = frame_kind_has_entry(kind);
        size_t bytes = frame_make(b, kind, entry, with_entry ? n : 12);
        struct frame f;
        assert_int_equal(with_entry, kind == FRAME_PREPARE || kind == FRAME_COPY);
        assert_int_equal(frame_decode(b, sizeof(b), &f), bytes);
        assert_int_equal(f.kind, kind);
        assert_int_equal(f.partition, 0x1234);
        assert_int_equal(f.view, 0xa1a2a3a4);
        assert_int_equal(f.payload_bytes, bytes - FRAME_HEAD_BYTES);
        assert_ptr_equal(f.payload, b + FRAME_HEAD_BYTES);
        for (size_t bit = 0; bit < 8 * bytes; bit++) {
            b[bit / 8] ^= (uint8_t) (1 << bit % 8);
            assert_int_equal(frame_decode(b, sizeof(b), &f), -EBADMSG);
            b[bit / 8] ^= (uint8_t) (1 << bit % 8);
        }
        for (size_t len = 0; len < bytes; len++) {
            _cleanup_free_ uint8_t *exact = malloc(len + 1);
            memcpy(exact, b, len);
            assert_int_equal(frame_decode(exact, len, &f), -EBADMSG);
        }
    }
}

/* The frame's partition and its entry's are the same. */
static void test_frame_other_partition(void **state)
{
    uint8_t entry[BYTES_MAX], b[BYTES_MAX];
    struct entry e = golden;
    struct frame f;

    (void) state;
    e.partition++;
    entry_encode(&e, entry);
    frame_make(b, FRAME_PREPARE, entry, entry_bytes(&e));
    assert_int_equal(frame_decode(b, sizeof(b), &f), -EBADMSG);
}

static void test_commit_payload(void **state)
{
    struct name name = { .view = 0x01020304, .seq = 0x1112131415161718 }, back;
    uint8_t b[FRAME_COMMIT_BYTES + 1];
    uint64_t time_usec;
    struct frame f = { FRAME_COMMIT, 0, 0, FRAME_COMMIT_BYTES, b };

    (void) state;
    frame_commit_encode(name, 0x0807060504030201, b);
    assert_memory_equal(
        b, "\x18\x17\x16\x15\x14\x13\x12\x11\x04\x03\x02\x01\x01\x02\x03\x04\x05\x06\x07\x08",
        FRAME_COMMIT_BYTES);
    assert_int_equal(frame_commit_decode(&f, &back, &time_usec), 0);
    assert_true(name_equal(name, back));
    f.payload_bytes++;
    assert_int_equal(frame_commit_decode(&f, &back, &time_usec), -EBADMSG);
    f.payload_bytes = 0;
    assert_int_equal(frame_commit_decode(&f, &back, &time_usec), -EBADMSG);
    f.payload_bytes = FRAME_COMMIT_BYTES;
    f.kind = FRAME_VIEW;
    assert_int_equal(frame_commit_decode(&f, &back, &time_usec), -EBADMSG);
}

static void test_view_payload(void **state)
{
    uint8_t b[FRAME_VIEW_BYTES_MAX + 4];
    struct frame f = { .kind = FRAME_VIEW, .payload = b };
    struct frame_view v = { .part = VIEW_SECONDARY }, back;

    (void) state;
    for (uint8_t n = 0; n <= REPLICAS_MAX; n++) {
        v.n_members = n;
        for (uint8_t i = 0; i < n; i++) {
            v.members[i] = 0x01020304u * (i + 1u);
        }
        f.payload_bytes = (uint32_t) frame_view_encode(&v, b);
        assert_int_equal(f.payload_bytes, 4 + 4 * n);
        assert_int_equal(frame_view_decode(&f, &back), 0);
        assert_memory_equal(&v, &back, sizeof(v));
        f.payload_bytes++;
        assert_int_equal(frame_view_decode(&f, &back), -EBADMSG);
        for (f.payload_bytes -= 2; f.payload_bytes > 0; f.payload_bytes--) {
            assert_int_equal(frame_view_decode(&f, &back), -EBADMSG);
        }
    }
    memset(b, 0, sizeof(b));
    b[1] = REPLICAS_MAX + 1;
    f.payload_bytes = 4 + 4 * (REPLICAS_MAX + 1);
    assert_int_equal(frame_view_decode(&f, &back), -EBADMSG);
    b[0] = _VIEW_PART_MAX;
    b[1] = 0;
    f.payload_bytes = 4;
    assert_int_equal(frame_view_decode(&f, &back), -EBADMSG);
}

/* The order of names is that of R7: the view first. */
static void test_names(void **state)
{
    static const struct name order[] = { { 0, 0 }, { 9, 1 },          { 1, 2 },
                                         { 2, 2 }, { 0, UINT32_MAX }, { UINT64_MAX, UINT32_MAX } };

    (void) state;
    for (int i = 0; i < (int) ARRAY_LEN(order); i++) {
        for (int j = 0; j < (int) ARRAY_LEN(order); j++) {
            int c = name_compare(order[i], order[j]);
            assert_int_equal((c > 0) - (c < 0), (i > j) - (i < j));
            assert_int_equal(name_equal(order[i], order[j]), i == j);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_flips),
        cmocka_unit_test(test_hostile_fields),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_frame_other_partition),
        cmocka_unit_test(test_commit_payload),
        cmocka_unit_test(test_view_payload),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests_name("wire_entry", tests, NULL, NULL);
}
