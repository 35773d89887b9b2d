/* A disk without room (R15): what is refused, what goes on, and that it comes back by itself. */
#include "shard_rig_ops.h"

static void space(struct rig *g, uint32_t server, enum shard_space level)
{
    rig_step(g, server, &(struct shard_event){ .kind = SHARD_SPACE, .space = level });
}

static void space_heard(struct rig *g, uint32_t server, uint32_t from, enum shard_space level)
{
    struct shard_event e = { .kind = SHARD_CLOCK, .from = from };

    e.clock.usec = RIG_T0_USEC + g->boot_usec;
    e.clock.space = (uint8_t) level;
    rig_step(g, server, &e);
}

static int op_now(struct rig *g, uint8_t code, const char *value)
{
    uint64_t id = rig_kv(g, 1, code, "k", value);

    rig_run(g, "12");
    return rig_answer(g, id);
}

static struct rig *rig_pair(void)
{
    struct rig *g = rig_new(1);

    rig_form(g, 1, "12");
    assert_int_equal(op_now(g, OP_SET, "v"), RESULT_STORED);
    return g;
}

static void test_low_takes_what_makes_room(void **state)
{
    struct rig *g = rig_pair();

    (void) state;
    space(g, 1, SPACE_LOW);
    assert_int_equal(op_now(g, OP_SET, "w"), RESULT_NO_SPACE);
    assert_int_equal(op_now(g, OP_APPEND, "w"), RESULT_NO_SPACE);
    assert_string_equal(rig_get(g, 1, "k"), "v");
    assert_int_equal(op_now(g, OP_DELETE, NULL), RESULT_DELETED);
    space(g, 1, SPACE_ROOM);
    assert_int_equal(op_now(g, OP_SET, "w"), RESULT_STORED);
    rig_free(g);
}

static void test_full_takes_nothing(void **state)
{
    struct rig *g = rig_pair();

    (void) state;
    space(g, 1, SPACE_FULL);
    assert_int_equal(op_now(g, OP_DELETE, NULL), RESULT_NO_SPACE);
    assert_string_equal(rig_get(g, 1, "k"), "v");
    space(g, 1, SPACE_ROOM);
    assert_int_equal(op_now(g, OP_DELETE, NULL), RESULT_DELETED);
    rig_free(g);
}

/* A retry of what was done before the disk was full hears what was done. */
static void test_retry_of_what_was_done(void **state)
{
    struct rig *g = rig_pair();
    uint64_t done = rig_id(g, 1, OP_ADD, "a", "1", 1, 1);
    uint64_t again;

    (void) state;
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, done), RESULT_STORED);
    space(g, 1, SPACE_FULL);
    again = rig_id(g, 1, OP_ADD, "a", "1", 1, 1);
    assert_int_equal(rig_answer(g, again), RESULT_STORED);
    rig_free(g);
}

/* The primary refuses for a member whose disk is full, rather than wait for it. */
static void test_full_secondary(void **state)
{
    struct rig *g = rig_pair();

    (void) state;
    space_heard(g, 1, 2, SPACE_LOW);
    assert_int_equal(op_now(g, OP_SET, "w"), RESULT_NO_SPACE);
    space_heard(g, 1, 3, SPACE_FULL); /* no member */
    space_heard(g, 1, 2, SPACE_ROOM);
    assert_int_equal(op_now(g, OP_SET, "w"), RESULT_STORED);
    rig_free(g);
}

/* What was under way when the disk became full waits, and is done when there is room. */
static void test_prepares_to_a_full_disk(void **state)
{
    struct rig *g = rig_pair();
    uint64_t set;

    (void) state;
    space(g, 2, SPACE_FULL);
    set = rig_kv(g, 1, OP_SET, "k", "late");
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, set), 0);
    space(g, 2, SPACE_ROOM);
    rig_tick(g, 1, SHARD_RESEND_USEC);
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, set), RESULT_STORED);
    rig_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_low_takes_what_makes_room), cmocka_unit_test(test_full_takes_nothing),
        cmocka_unit_test(test_retry_of_what_was_done),    cmocka_unit_test(test_full_secondary),
        cmocka_unit_test(test_prepares_to_a_full_disk),
    };
    return cmocka_run_group_tests_name("shard_space", tests, NULL, NULL);
}
