/* The sweep: what nobody can read any more leaves the index, and stays away after a replay. */
#include "shard_rig_ops.h"

static uint64_t records(struct rig *g)
{
    struct shard_counts c;

    shard_count(g->nodes[1].shard, &c);
    return c.records;
}

static void set_until(struct rig *g, const char *key, int64_t exptime)
{
    struct op op = op_of(OP_SET, key, "v");

    op.exptime = exptime;
    (void) rig_op(g, 1, &op);
    rig_run(g, "1");
}

/* A whole pass, and time for it to be synced. */
static void pass(struct rig *g)
{
    for (unsigned i = 0; i < 4; i++) {
        rig_tick(g, 1, SWEEP_USEC_DEFAULT);
        rig_run(g, "1");
    }
}

static void test_long_expired(void **state)
{
    static const char *const keys[] = { "kept", "young", "old" };
    struct rig *g = rig_new(1);

    (void) state;
    rig_form(g, 1, "1");
    set_until(g, "kept", 0);
    set_until(g, "young", 86400);
    set_until(g, "old", 60);
    assert_int_equal(records(g), 3);
    rig_tick(g, 1, SWEEP_USEC_DEFAULT);
    assert_int_equal(records(g), 3); /* expired, but not long ago */
    pass(g);
    assert_int_equal(records(g), 2);
    assert_string_equal(rig_get(g, 1, "old"), "");
    assert_string_equal(rig_get(g, 1, "young"), "v");
    rig_assert_replay(g, 1, keys, ARRAY_LEN(keys));
    rig_free(g);
}

static void test_flushed(void **state)
{
    static const char *const keys[] = { "a", "b", "c" };
    struct op flush = { .code = OP_FLUSH };
    struct rig *g = rig_new(1);

    (void) state;
    rig_form(g, 1, "1");
    set_until(g, "a", 0);
    set_until(g, "b", 0);
    (void) rig_op(g, 1, &flush);
    rig_run(g, "1");
    set_until(g, "c", 0);
    pass(g);
    assert_int_equal(records(g), 1);
    assert_string_equal(rig_get(g, 1, "c"), "v");
    rig_assert_replay(g, 1, keys, ARRAY_LEN(keys));
    rig_free(g);
}

/* More than one step may drop: it comes back to the partition until all is gone. */
static void test_many(void **state)
{
    struct rig *g = rig_new(1);
    char key[16];

    (void) state;
    rig_form(g, 1, "1");
    for (unsigned i = 0; i < SWEEP_RECORDS_MAX + 10; i++) {
        snprintf(key, sizeof(key), "k%u", i);
        set_until(g, key, 1);
    }
    rig_tick(g, 1, 3 * SWEEP_USEC_DEFAULT);
    assert_int_equal(records(g), 10);
    rig_tick(g, 1, SHARD_TICK_USEC);
    assert_int_equal(records(g), 0);
    rig_free(g);
}

static void test_not_on_a_full_disk(void **state)
{
    struct rig *g = rig_new(1);

    (void) state;
    rig_form(g, 1, "1");
    set_until(g, "old", 1);
    rig_step(g, 1, &(struct shard_event){ .kind = SHARD_SPACE, .space = SPACE_FULL });
    pass(g);
    assert_int_equal(records(g), 1);
    rig_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_long_expired),
        cmocka_unit_test(test_flushed),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_not_on_a_full_disk),
    };
    return cmocka_run_group_tests_name("shard_sweep", tests, NULL, NULL);
}
