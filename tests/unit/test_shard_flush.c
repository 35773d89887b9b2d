/* flush_all of a partition: at once, later, pending, more than one; over views and restarts. */
#include "shard_rig_ops.h"

static int setup(void **state)
{
    *state = rig_new(1);
    rig_form(*state, 1, "12");
    return 0;
}

static int teardown(void **state)
{
    rig_free(*state);
    return 0;
}

static const char *const keys[] = { "a", "b", "k" };

static uint64_t flush(struct rig *g, uint32_t server, int64_t exptime)
{
    struct op op = { .code = OP_FLUSH, .exptime = exptime };

    return rig_op(g, server, &op);
}

static void set(struct rig *g, const char *key, const char *value)
{
    uint64_t id = rig_kv(g, 1, OP_SET, key, value);

    rig_run(g, "12");
    assert_int_equal(rig_answer(g, id), RESULT_STORED);
}

static void test_at_once(void **state)
{
    struct rig *g = *state;
    uint64_t id;

    set(g, "a", "1");
    id = flush(g, 1, 0);
    assert_string_equal(rig_get(g, 1, "a"), "1"); /* not committed yet */
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, id), RESULT_FLUSHED);
    assert_string_equal(rig_get(g, 1, "a"), "");
    assert_int_equal(rig_answer(g, rig_kv(g, 1, OP_DELETE, "a", NULL)), RESULT_NOT_FOUND);
    set(g, "b", "2");
    assert_string_equal(rig_get(g, 1, "b"), "2");
    rig_restart(g, 1);
    rig_form(g, 2, "21");
    assert_string_equal(rig_get(g, 2, "a"), "");
    assert_string_equal(rig_get(g, 2, "b"), "2");
    rig_assert_replay(g, 1, keys, ARRAY_LEN(keys));
}

static void test_later(void **state)
{
    struct rig *g = *state;

    set(g, "a", "1");
    flush(g, 1, 10);
    rig_run(g, "12");
    set(g, "b", "2");
    assert_string_equal(rig_get(g, 1, "a"), "1");
    g->boot_usec += 11 * 1000000;
    assert_string_equal(rig_get(g, 1, "a"), "");
    assert_string_equal(rig_get(g, 1, "b"), "");
    set(g, "k", "3");
    assert_string_equal(rig_get(g, 1, "k"), "3");
    flush(g, 1, 10); /* another one keeps what the first killed dead */
    rig_run(g, "12");
    assert_string_equal(rig_get(g, 1, "a"), "");
    assert_string_equal(rig_get(g, 1, "k"), "3");
    g->boot_usec += 11 * 1000000;
    assert_string_equal(rig_get(g, 1, "k"), "");
}

/* R3: evaluated on the pending flush, answered when it commits. */
static void test_pending(void **state)
{
    struct rig *g = *state;
    uint64_t add, del, del_new;

    set(g, "a", "1");
    set(g, "b", "1");
    flush(g, 1, 0);
    add = rig_kv(g, 1, OP_ADD, "a", "2");
    del = rig_kv(g, 1, OP_DELETE, "b", NULL);
    del_new = rig_kv(g, 1, OP_DELETE, "a", NULL);
    assert_int_equal(rig_answer(g, del), 0); /* depends on the flush */
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, add), RESULT_STORED);
    assert_int_equal(rig_answer(g, del), RESULT_NOT_FOUND);
    assert_int_equal(rig_answer(g, del_new), RESULT_DELETED);
}

/* A pending write, then a flush: the write is dead for what comes. */
static void test_pending_write_first(void **state)
{
    struct rig *g = *state;
    uint64_t del;

    rig_kv(g, 1, OP_SET, "a", "1");
    flush(g, 1, 0);
    del = rig_kv(g, 1, OP_DELETE, "a", NULL);
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, del), RESULT_NOT_FOUND);
    assert_string_equal(rig_get(g, 1, "a"), "");
}

/* Two pending flushes: the later, delayed one must not hide the one that is at once. */
static void test_pending_two(void **state)
{
    struct rig *g = *state;
    uint64_t add;

    set(g, "a", "1");
    flush(g, 1, 0);
    flush(g, 1, 100);
    add = rig_kv(g, 1, OP_ADD, "a", "2");
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, add), RESULT_STORED);
    assert_string_equal(rig_get(g, 1, "a"), "2");
}

/* A cut takes the pending flush with it, and the one before it counts again. */
static void test_pending_cut(void **state)
{
    struct rig *g = *state;
    uint64_t add;

    set(g, "a", "1");
    set(g, "b", "1");
    rig_num(g, 1, OP_TOUCH, "a", 0, 0);
    flush(g, 1, 0); /* nobody else gets these two */
    rig_sync(g, 1);
    rig_drop_all(g, 0, 0, 0);
    rig_form(g, 2, "21");
    rig_assert_name(rig_info(g, 1).last, 2, 4);
    rig_form(g, 3, "12");
    add = rig_kv(g, 1, OP_ADD, "a", "2");
    assert_int_equal(rig_answer(g, add), RESULT_NOT_STORED);
    assert_string_equal(rig_get(g, 1, "a"), "1");
    assert_string_equal(rig_get(g, 1, "b"), "1");
    rig_assert_replay(g, 1, keys, ARRAY_LEN(keys));
}

/* A retried flush is not done again. */
static void test_dedup(void **state)
{
    struct rig *g = *state;
    struct op op = { .code = OP_FLUSH, .op = { 77, 1, 1 } };
    uint64_t id = rig_op(g, 1, &op);

    rig_run(g, "12");
    set(g, "a", "1");
    id = rig_op(g, 1, &op);
    assert_int_equal(rig_answer(g, id), RESULT_FLUSHED);
    rig_run(g, "12");
    assert_string_equal(rig_get(g, 1, "a"), "1");
}

/* Of a partition that isn't here. */
static void test_elsewhere(void **state)
{
    struct rig *g = *state;
    const uint64_t partitions[] = { 1, PARTITIONS_MAX, UINT32_MAX, UINT64_MAX };

    for (size_t i = 0; i < ARRAY_LEN(partitions); i++) {
        struct op op = { .code = OP_FLUSH, .operand = partitions[i] };
        assert_int_equal(rig_answer(g, rig_op(g, 1, &op)), RESULT_REFUSED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_later, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pending, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pending_write_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pending_two, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pending_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dedup, setup, teardown),
        cmocka_unit_test_setup_teardown(test_elsewhere, setup, teardown),
    };

    return cmocka_run_group_tests_name("shard_flush", tests, NULL, NULL);
}
