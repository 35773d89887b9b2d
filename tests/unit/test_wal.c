/* Writing the log: positions, groups, segments, what is synced, the exact bytes. */
#include "base/rng.h"
#include "wal_rig.h"

#include "wire/msg.h"

/* The bytes of one segment, made from the description of the format by other means: a view and an
 * entry in one group, its commit in the next. */
static const char golden_hex[] = "4b554d4f5345470a38c512280100000009000000010000000200000040000000"
                                 "0500000000000000000102030405060708090a0b0c0d0e0f0800000000000000"
                                 "0000000000000000000000000000000000000000000000000000000000000000"
                                 "474b5250ba6d482c7c0000000200000000000000000000000000000000000000"
                                 "c97d7cf10c0000000300070003000000010200000100000003000000b105b9fb"
                                 "500000000100070003000000c1af871950000000070002010300000003000000"
                                 "02000000290000000000000000401e18240a0600000000000000000000000000"
                                 "00000000290000000000000000000000000000006b657976616c7565474b5250"
                                 "c459af9b240000000100000009000000fc000000000000000000000080aed4cd"
                                 "1400000002000700030000002900000000000000030000000000000000000000";

static void test_golden(void **state)
{
    struct wal_options o = log_options(5, 8, 1, 2, 0);
    struct frame_view v = { VIEW_PRIMARY, 2, { 1, 3 } };
    struct entry e = { .partition = 7,
                       .kind = ENTRY_SET,
                       .answer = RESULT_STORED,
                       .key_len = 3,
                       .value_len = 5,
                       .prev_view = 2,
                       .name = { .view = 3, .seq = 41 },
                       .time_usec = 1700000000000000,
                       .cas = 41,
                       .key = (const uint8_t *) "key",
                       .value = (const uint8_t *) "value" };
    struct log_image g = { 0 };
    struct wal l;
    uint8_t bytes[128];
    char hex[2 * 512 + 1] = "";

    (void) state;
    wal_init(&l, &o);
    wal_append(&l, FRAME_VIEW, 7, 3, bytes, frame_view_encode(&v, bytes));
    entry_encode(&e, bytes);
    wal_append(&l, FRAME_PREPARE, 7, 3, bytes, entry_bytes(&e));
    wal_synced(&l, image_flush(&g, &l));
    frame_commit_encode(e.name, 0, bytes);
    wal_append(&l, FRAME_COMMIT, 7, 3, bytes, FRAME_COMMIT_BYTES);
    image_flush(&g, &l);
    assert_int_equal(g.n_files, 1);
    assert_int_equal(g.files[0].number, 9);
    for (size_t i = 0; i < buf_len(&g.files[0].data); i++) {
        sprintf(hex + 2 * i, "%02x", g.files[0].data.data[i]);
    }
    assert_string_equal(hex, golden_hex);
    wal_free(&l);
    image_free(&g);
}

/* Random frames and flushes: where wal_append said, the frame is, in this order, and all of it. */
static void test_positions(void **state)
{
    static const uint32_t segment_bytes[] = { 200, 300, 1000, 4096, 65536 };

    (void) state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct wal_options o = log_options(1, 1, 0, 1, segment_bytes[seed % 5]);
        struct rng rng = { seed };
        struct log_image g = { 0 };
        _cleanup_free_ struct log_frame *want = calloc(200, sizeof(*want));
        _cleanup_free_ struct log_walk *w = calloc(1, sizeof(*w));
        struct wal_damage damage;
        struct wal l;
        size_t n = 0;
        wal_init(&l, &o);
        assert_int_equal(image_flush(&g, &l), 0); /* nothing to flush */
        while (n < 200 && g.n_files < 40) {
            size_t bytes = 8 + rng_below(&rng, rng_chance(&rng, 1, 20) ? 3000 : 60);
            uint64_t group = l.group;
            want[n].at = log_append(&l, n, bytes);
            want[n].tag = n;
            n++;
            assert_true(wal_dirty(&l));
            assert_false(wal_is_synced(&l, group));
            if (rng_chance(&rng, 1, 3)) {
                assert_int_equal(image_flush(&g, &l), group);
                assert_false(wal_dirty(&l));
                if (rng_chance(&rng, 1, 2)) {
                    wal_synced(&l, group);
                    assert_true(wal_is_synced(&l, group));
                }
            }
        }
        image_flush(&g, &l);
        assert_int_equal(image_read(&g, w, &damage), 0);
        assert_int_equal(w->n, n);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(w->frames[i].tag, i);
            assert_int_equal(position_compare(w->frames[i].at, want[i].at), 0);
        }
        wal_free(&l);
        image_free(&g);
    }
}

/* No segment is longer than it may be, but for one with a single entry that fits no other. */
static void test_oversize(void **state)
{
    struct wal_options o = log_options(1, 5, 0, 1, 1000);
    static const size_t sizes[] = { 100, 5000, 100, 5000, 5000, 800, 8 };
    struct log_image g = { 0 };
    struct wal l;

    (void) state;
    wal_init(&l, &o);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct position at = log_append(&l, i, sizes[i]);
        if (sizes[i] == 5000) { /* the first in its segment */
            assert_int_equal(at.offset, SEGMENT_HEAD_BYTES + GROUP_HEAD_BYTES + FRAME_HEAD_BYTES);
        }
    }
    image_flush(&g, &l);
    assert_int_equal(g.n_files, 6);
    for (size_t i = 0; i < g.n_files; i++) {
        struct segment_head h;
        const struct buf *b = &g.files[i].data;
        assert_int_equal(segment_head_decode(b->data, buf_len(b), &h), 0);
        assert_int_equal(h.segment, 5 + i);
        assert_true(buf_len(b) <= 1000 || buf_len(b) == 96 + 32 + 16 + 5000);
        if (i > 0) { /* each names where the one before it ended */
            assert_int_equal(h.prev_end.segment, 4 + i);
            assert_int_equal(h.prev_end.offset, buf_len(&g.files[i - 1].data));
        } else {
            assert_int_equal(h.prev_end.segment, 0);
        }
    }
    wal_free(&l);
    image_free(&g);
}

/* Segments of several shards interleave: numbers are unique, each stream's chain is its own. */
static void test_shards(void **state)
{
    struct log_image g = { 0 };
    _cleanup_free_ struct log_walk *w = calloc(1, sizeof(*w));
    struct wal_damage damage;
    uint64_t last[3] = { 0 }, tag = 0;
    struct wal l[3];

    (void) state;
    for (uint32_t i = 0; i < 3; i++) {
        struct wal_options o = log_options(4, 10, i, 3, 400);
        wal_init(&l[i], &o);
    }
    for (int round = 0; round < 60; round++) {
        struct wal *x = &l[round * 7 % 3];
        log_append(x, ++tag, 8 + (size_t) round);
        wal_synced(x, image_flush(&g, x));
    }
    assert_int_equal(image_read(&g, w, &damage), 0);
    assert_int_equal(w->n, tag);
    for (size_t i = 0; i < w->n; i++) {
        uint32_t shard = (w->frames[i].at.segment - 10) % 3;
        assert_true(w->frames[i].tag > last[shard]);
        last[shard] = w->frames[i].tag;
    }
    for (int i = 0; i < 3; i++) {
        wal_free(&l[i]);
    }
    image_free(&g);
}

/* Syncs may come late and for several flushes at once; heads name what was synced when they were
 * written. */
static void test_synced_end(void **state)
{
    struct wal_options o = log_options(1, 1, 0, 1, 0);
    struct log_image g = { 0 };
    struct group_head h;
    struct segment_head sh;
    struct wal l;
    size_t ends[5], at;

    (void) state;
    wal_init(&l, &o);
    for (int i = 0; i < 5; i++) {
        log_append(&l, (uint64_t) i, 20);
        assert_int_equal(image_flush(&g, &l), i + 1);
        ends[i] = buf_len(&g.files[0].data);
        if (i == 2) {
            wal_synced(&l, 2);
            wal_synced(&l, 1); /* an old one is harmless */
            assert_true(wal_is_synced(&l, 2));
            assert_false(wal_is_synced(&l, 3));
        }
    }
    assert_int_equal(segment_head_decode(g.files[0].data.data, ends[4], &sh), 0);
    at = ends[3];
    assert_int_equal(group_head_decode(g.files[0].data.data + at, ends[4] - at, sh.crc, &h), 0);
    assert_int_equal(h.synced_end.segment, 1);
    assert_int_equal(h.synced_end.offset, ends[1]);
    at = ends[1];
    assert_int_equal(group_head_decode(g.files[0].data.data + at, ends[4] - at, sh.crc, &h), 0);
    assert_int_equal(h.synced_end.segment, 0);
    assert_int_equal(group_head_decode(g.files[0].data.data + at, ends[4] - at, sh.crc + 1, &h),
                     -EBADMSG); /* of another segment */
    wal_free(&l);
    image_free(&g);
}

/* What is only written counts for acks; a power loss may take it, so no head names it. */
static void test_written_is_not_named(void **state)
{
    struct wal_options o = log_options(1, 1, 0, 1, 0);
    struct log_image g = { 0 };
    struct position end;
    struct wal l;

    (void) state;
    wal_init(&l, &o);
    for (uint64_t i = 0; i < 5; i++) {
        uint64_t group;
        log_append(&l, i, 20);
        group = image_flush(&g, &l);
        assert_false(wal_is_synced(&l, group));
        wal_written(&l, group);
        assert_true(wal_is_synced(&l, group));
        assert_int_equal(l.synced_end.segment, 0);
    }
    wal_synced(&l, 3);
    end = l.synced_end;
    assert_int_equal(end.segment, 1);
    wal_synced(&l, 2); /* late: changes nothing */
    assert_int_equal(position_compare(l.synced_end, end), 0);
    wal_synced(&l, 5);
    assert_true(position_compare(l.synced_end, end) > 0);
    wal_free(&l);
    image_free(&g);
}

/* A burst becomes several groups of bounded size, in one flush. */
static void test_group_limit(void **state)
{
    struct wal_options o = log_options(1, 1, 0, 1, 0);
    struct log_image g = { 0 };
    _cleanup_free_ struct log_walk *w = calloc(1, sizeof(*w));
    struct wal_damage damage;
    struct wal l;

    (void) state;
    wal_init(&l, &o);
    for (uint64_t i = 0; i < 20; i++) {
        log_append(&l, i, 1 << 20);
    }
    assert_int_equal(image_flush(&g, &l), 1);
    for (size_t at = SEGMENT_HEAD_BYTES; at < buf_len(&g.files[0].data);) {
        struct segment_head sh;
        struct group_head h;
        const uint8_t *p = g.files[0].data.data;
        assert_int_equal(segment_head_decode(p, SEGMENT_HEAD_BYTES, &sh), 0);
        assert_int_equal(group_head_decode(p + at, GROUP_HEAD_BYTES, sh.crc, &h), 0);
        assert_true(h.bytes + GROUP_HEAD_BYTES <= WAL_GROUP_BYTES_MAX);
        at += GROUP_HEAD_BYTES + h.bytes;
    }
    assert_int_equal(image_read(&g, w, &damage), 0);
    assert_int_equal(w->n, 20);
    wal_free(&l);
    image_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written_is_not_named),
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_positions),
        cmocka_unit_test(test_oversize),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_synced_end),
        cmocka_unit_test(test_group_limit),
    };

    return cmocka_run_group_tests_name("wal", tests, NULL, NULL);
}
