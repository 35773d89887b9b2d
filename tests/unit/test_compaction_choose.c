/* Which segments may be compacted and which are: by stream, so that an idle shard holds nothing up.
 */
#include "core/compaction.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Four partitions; shard 0 of 2 has written nothing since segment 10, shard 1 is at 41. */
static struct position x[] = { { 10, 50 }, { 41, 0 }, { 10, 50 }, { 39, 7 } };
static const struct wal_floor floor_skewed = { 4, x };

static void test_floor_is_by_stream(void **state)
{
    struct wal_floor none = { 0 };

    (void) state;
    assert_int_equal(wal_floor_of(&floor_skewed, 0, 2), 10);
    assert_int_equal(wal_floor_of(&floor_skewed, 1, 2), 39);
    assert_int_equal(wal_floor_of(&floor_skewed, 0, 1), 10);         /* a start with one shard */
    assert_int_equal(wal_floor_of(&floor_skewed, 5, 8), UINT32_MAX); /* holds no partition */
    assert_int_equal(wal_floor_of(&none, 0, 2), 0);
}

static void test_lower_of_two_generations(void **state)
{
    struct position before[] = { { 8, 0 }, { 43, 0 }, { 10, 40 }, { 20, 0 } };
    struct wal_floor other = { 4, before };
    struct wal_floor none = { 0 };
    struct wal_floor f;

    (void) state;
    wal_floor_copy(&floor_skewed, &f);
    wal_floor_lower(&f, &other);
    assert_int_equal(f.x[0].segment, 8);
    assert_int_equal(f.x[1].segment, 41);
    assert_int_equal(f.x[2].offset, 40);
    assert_int_equal(f.x[3].segment, 20);
    wal_floor_lower(&f, &none);
    assert_int_equal(wal_floor_of(&f, 1, 2), 0);
    wal_floor_free(&f);
}

static void test_hot_shard_beside_an_idle_one(void **state)
{
    struct compaction_file files[40];
    struct compaction_live live = { 0 };
    uint32_t victims[40];
    size_t n = 0;
    size_t chosen;

    (void) state;
    files[n++] = (struct compaction_file){ 10, 0, 2, 1000 }; /* open, and idle */
    for (uint32_t i = 11; i < 43; i += 2) {
        files[n++] = (struct compaction_file){ i, 1, 2, 1000 };
        compaction_live_add(&live, i, i % 4 == 1 ? 100 : 950);
    }
    chosen = compaction_choose(files, n, &floor_skewed, &live, 0, victims);
    assert_int_equal(chosen, 6); /* 13, 17 ... 33: then the log is small enough */
    for (size_t i = 0; i < chosen; i++) {
        assert_int_equal(victims[i], 13 + 4 * i);
    }
    /* and no more than is needed */
    assert_int_equal(compaction_choose(files, n, &floor_skewed, &live, 1000000, victims), 0);
    compaction_live_free(&live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_floor_is_by_stream),
        cmocka_unit_test(test_lower_of_two_generations),
        cmocka_unit_test(test_hot_shard_beside_an_idle_one),
    };
    return cmocka_run_group_tests_name("compaction_choose", tests, NULL, NULL);
}
