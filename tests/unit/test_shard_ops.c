/* Operations at the primary: R3 (evaluated on pending writes, answers wait for names), R12 (a retry
 * is the same write), R13 (partition time), flush_all, limits. */
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

static const char *const keys[] = { "a", "b", "c", "k", "n" };

/* R3: what proposes nothing waits for the pending write that made it so. */
static void test_depends(void **state)
{
    static const struct {
        uint8_t before, code, answer;
    } cases[] = {
        { OP_SET, OP_ADD, RESULT_NOT_STORED },        { OP_SET, OP_CAS, RESULT_EXISTS },
        { OP_SET, OP_INCR, RESULT_NON_NUMERIC },      { OP_DELETE, OP_DELETE, RESULT_NOT_FOUND },
        { OP_DELETE, OP_REPLACE, RESULT_NOT_STORED }, { OP_DELETE, OP_APPEND, RESULT_NOT_STORED },
        { OP_DELETE, OP_INCR, RESULT_NOT_FOUND },     { OP_DELETE, OP_TOUCH, RESULT_NOT_FOUND },
        { OP_DELETE, OP_GAT, RESULT_NOT_FOUND },      { OP_DELETE, OP_CAS, RESULT_NOT_FOUND },
    };
    struct rig *g = *state;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        bool set = cases[i].before == OP_SET;
        uint64_t before, op;
        if (!set) {
            rig_kv(g, 1, OP_SET, "k", "there");
            rig_run(g, "12");
        }
        before = rig_kv(g, 1, cases[i].before, "k", set ? "x" : NULL);
        op = rig_kv(g, 1, cases[i].code, "k", "y");
        rig_sync(g, 1); /* not at the other yet */
        assert_int_equal(rig_answer(g, op), 0);
        rig_run(g, "12");
        assert_int_equal(rig_answer(g, before), set ? RESULT_STORED : RESULT_DELETED);
        assert_int_equal(rig_answer(g, op), cases[i].answer);
        assert_string_equal(rig_get(g, 1, "k"), set ? "x" : "");
        rig_kv(g, 1, OP_DELETE, "k", NULL);
        rig_run(g, "12");
    }
}

/* R3: a failed add waits for the pending set's name and is sent back at the seal. */
static void test_depends_sealed(void **state)
{
    struct rig *g = *state;
    uint64_t set = rig_kv(g, 1, OP_SET, "k", "1");
    uint64_t add = rig_kv(g, 1, OP_ADD, "k", "2");

    assert_int_equal(rig_answer(g, add), 0);
    rig_seal(g, 1, 1);
    assert_int_equal(rig_answer(g, set), RESULT_NOT_PRIMARY);
    assert_int_equal(rig_answer(g, add), RESULT_NOT_PRIMARY);
    rig_run(g, "12");
    rig_find_answer(g, add);
}

/* A chain of writes of one key in flight: each sees the one before. */
static void test_pending_chain(void **state)
{
    struct rig *g = *state;
    uint64_t add, incr[3], append, numbers[3] = { 7, 17, 27 };

    add = rig_kv(g, 1, OP_ADD, "n", "7");
    for (int i = 0; i < 3; i++) {
        incr[i] = rig_num(g, 1, OP_INCR, "n", i == 0 ? 0 : 10, 0);
    }
    append = rig_kv(g, 1, OP_APPEND, "n", "5");
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, add), RESULT_STORED);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(rig_answer(g, incr[i]), RESULT_NUMBER);
        assert_int_equal(rig_find_answer(g, incr[i])->result.number, numbers[i]);
    }
    assert_int_equal(rig_answer(g, append), RESULT_STORED);
    assert_string_equal(rig_get(g, 1, "n"), "275");
    rig_assert_replay(g, 1, keys, ARRAY_LEN(keys));
}

/* cas: the token is the seq, a touch keeps it, any other write changes it. */
static void test_cas(void **state)
{
    struct rig *g = *state;
    uint64_t id = rig_kv(g, 1, OP_SET, "k", "1"), cas;

    rig_run(g, "12");
    cas = rig_find_answer(g, id)->result.cas;
    assert_int_equal(cas, 2);
    id = rig_num(g, 1, OP_TOUCH, "k", 0, 100);
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, id), RESULT_TOUCHED);
    id = rig_num(g, 1, OP_CAS, "k", cas, 0);
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, id), RESULT_STORED);
    assert_int_equal(rig_find_answer(g, id)->result.cas, 4);
    id = rig_num(g, 1, OP_CAS, "k", cas, 0);
    assert_int_equal(rig_answer(g, id), RESULT_EXISTS);
    rig_num(g, 1, OP_CAS, "k", 4, 0); /* two with one token: the first wins */
    id = rig_num(g, 1, OP_CAS, "k", 4, 0);
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, id), RESULT_EXISTS);
}

/* R12: a pending duplicate joins, a done one is answered as before, an old one is unknown. */
static void test_dedup(void **state)
{
    struct rig *g = *state;
    uint64_t first, joined, again, old;

    rig_kv(g, 1, OP_SET, "n", "10");
    first = rig_id(g, 1, OP_INCR, "n", NULL, 1, 1);
    joined = rig_id(g, 1, OP_INCR, "n", NULL, 1, 1);
    rig_assert_name(rig_info(g, 1).last, 1, 3); /* one entry */
    assert_int_equal(rig_answer(g, joined), 0);
    rig_run(g, "12");
    again = rig_id(g, 1, OP_INCR, "n", NULL, 1, 1);
    assert_int_equal(rig_answer(g, first), RESULT_NUMBER);
    assert_int_equal(rig_answer(g, joined), RESULT_NUMBER);
    assert_int_equal(rig_answer(g, again), RESULT_NUMBER);
    assert_int_equal(rig_find_answer(g, joined)->result.number, 10);
    assert_int_equal(rig_find_answer(g, again)->result.number, 10);
    assert_int_equal(rig_find_answer(g, again)->result.cas, rig_find_answer(g, first)->result.cas);
    rig_id(g, 1, OP_SET, "a", "x", 2, 2); /* nobody waits for 1 any more */
    rig_run(g, "12");
    old = rig_id(g, 1, OP_INCR, "n", NULL, 1, 1);
    assert_int_equal(rig_answer(g, old), RESULT_UNKNOWN);
    rig_run(g, "12");
    assert_string_equal(rig_get(g, 1, "n"), "10");
}

/* R12: every outcome is found again, also at the next primary and after restarts. */
static void test_dedup_moves(void **state)
{
    static const struct {
        uint8_t code, answer;
    } cases[] = { { OP_SET, RESULT_STORED },     { OP_APPEND, RESULT_STORED },
                  { OP_TOUCH, RESULT_TOUCHED },  { OP_REPLACE, RESULT_STORED },
                  { OP_DELETE, RESULT_DELETED }, { OP_ADD, RESULT_STORED },
                  { OP_PREPEND, RESULT_STORED } };
    struct rig *g = *state;
    uint64_t cas[ARRAY_LEN(cases)];

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t id = rig_id(g, 1, cases[i].code, "k", "v", i + 1, 1);
        rig_run(g, "12");
        assert_int_equal(rig_answer(g, id), cases[i].answer);
        cas[i] = rig_find_answer(g, id)->result.cas;
    }
    rig_form(g, 2, "21");
    rig_restart(g, 1);
    rig_form(g, 3, "21");
    rig_restart(g, 2);
    rig_form(g, 4, "12");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t id = rig_id(g, 1, cases[i].code, "k", "v", i + 1, 1);
        assert_int_equal(rig_answer(g, id), cases[i].answer);
        assert_int_equal(rig_find_answer(g, id)->result.cas, cas[i]);
    }
    assert_string_equal(rig_get(g, 1, "k"), "vv");
}

/* A retried gat is answered again only while its record is the newest. */
static void test_dedup_gat(void **state)
{
    struct rig *g = *state;
    uint64_t gat, again;

    rig_kv(g, 1, OP_SET, "k", "v");
    gat = rig_id(g, 1, OP_GAT, "k", NULL, 1, 1);
    again = rig_id(g, 1, OP_GAT, "k", NULL, 1, 1);
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, gat), RESULT_VALUE);
    assert_string_equal(rig_find_answer(g, gat)->value, "v");
    assert_string_equal(rig_find_answer(g, again)->value, "v");
    again = rig_id(g, 1, OP_GAT, "k", NULL, 1, 1);
    assert_int_equal(rig_answer(g, again), RESULT_VALUE);
    assert_string_equal(rig_find_answer(g, again)->value, "v");
    rig_kv(g, 1, OP_SET, "k", "w");
    rig_run(g, "12");
    again = rig_id(g, 1, OP_GAT, "k", NULL, 1, 1);
    assert_int_equal(rig_answer(g, again), RESULT_UNKNOWN);
}

/* R12: the window of numbers. */
static void test_window(void **state)
{
    struct rig *g = *state;

    assert_int_equal(rig_answer(g, rig_id(g, 1, OP_SET, "k", "v", 1025, 1)), RESULT_REFUSED);
    assert_int_equal(rig_answer(g, rig_id(g, 1, OP_SET, "k", "v", 1024, 1)), 0);
    assert_int_equal(rig_answer(g, rig_id(g, 1, OP_SET, "k", "v", UINT64_MAX, 1)), RESULT_REFUSED);
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, rig_id(g, 1, OP_SET, "k", "v", 2000, 1500)), 0);
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, rig_id(g, 1, OP_SET, "k", "v", 1024, 1)), RESULT_UNKNOWN);
}

static void clock_tell(struct rig *g, uint32_t server, uint32_t from, int64_t skew_usec)
{
    struct shard_event e = { .kind = SHARD_CLOCK, .from = from };

    e.clock.usec = (uint64_t) ((int64_t) (RIG_T0_USEC + g->boot_usec) + skew_usec);
    rig_step(g, server, &e);
}

static uint64_t stamp_of_last(struct rig *g, uint32_t to)
{
    struct entry e = { 0 };

    for (size_t i = 0; i < g->n_msgs; i++) {
        if (g->msgs[i].kind == ACTION_PREPARE && g->msgs[i].to == to) {
            assert_int_equal(entry_decode(g->msgs[i].entry, g->msgs[i].prepare.entry_bytes, &e), 0);
        }
    }
    return e.time_usec;
}

/* R13: the median of the clocks known; it never falls. */
static void test_clock(void **state)
{
    struct rig *g = rig_new(1);
    uint64_t t0, t1;

    (void) state;
    rig_form(g, 1, "123");
    clock_tell(g, 1, 2, 5000000);
    clock_tell(g, 1, 3, 9000000);
    rig_kv(g, 1, OP_SET, "k", "1");
    t0 = stamp_of_last(g, 2);
    assert_int_equal(t0, RIG_T0_USEC + g->boot_usec + 5000000);
    clock_tell(g, 1, 2, -5000000);
    clock_tell(g, 1, 3, -9000000);
    g->boot_usec += 1000000;
    rig_kv(g, 1, OP_SET, "k", "2");
    assert_int_equal(stamp_of_last(g, 2), t0);
    g->boot_usec += 100000000; /* the clocks told run on */
    rig_kv(g, 1, OP_SET, "k", "3");
    t1 = stamp_of_last(g, 2);
    assert_int_equal(t1, RIG_T0_USEC + g->boot_usec - 5000000);
    rig_free(g);
}

/* R13: a new primary whose clock is behind stamps nothing below what it holds. */
static void test_clock_of_new_primary(void **state)
{
    struct rig *g = *state;
    uint64_t stamp;

    g->nodes[1].clock_skew_usec = 60000000;
    rig_kv(g, 1, OP_SET, "k", "1");
    stamp = stamp_of_last(g, 2);
    rig_deliver_all(g, ACTION_PREPARE, 1, 2);
    rig_sync(g, 2);
    rig_drop_all(g, 0, 0, 0);
    rig_seal(g, 2, 1);
    assert_true(g->nodes[2].sealed.time_usec >= stamp);
    rig_view(g, 2, 2, "23");
    rig_sync(g, 2);
    assert_true(rig_msg_count(g, ACTION_PREPARE, 2, 3) >= 2);
    assert_true(stamp_of_last(g, 3) >= stamp);
}

/* Records end at their time, for reads, for writes, and in what is said of another's clock. */
static void test_expiry(void **state)
{
    struct rig *g = *state;
    uint64_t id;
    struct op op = op_of(OP_SET, "k", "v");

    op.exptime = 2;
    rig_op(g, 1, &op);
    rig_run(g, "12");
    g->boot_usec += 1600000;
    assert_string_equal(rig_get(g, 1, "k"), "v");
    g->boot_usec += 1500000;
    assert_string_equal(rig_get(g, 1, "k"), "");
    assert_int_equal(rig_answer(g, rig_num(g, 1, OP_TOUCH, "k", 0, 0)), RESULT_NOT_FOUND);
    g->nodes[1].clock_skew_usec = -10000000; /* it stays gone */
    assert_string_equal(rig_get(g, 1, "k"), "");
    id = rig_kv(g, 1, OP_ADD, "k", "w");
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, id), RESULT_STORED);
    op.exptime = -1;
    rig_op(g, 1, &op);
    rig_run(g, "12");
    assert_string_equal(rig_get(g, 1, "k"), "");
    rig_assert_replay(g, 1, keys, ARRAY_LEN(keys));
    rig_assert_replay(g, 2, keys, ARRAY_LEN(keys));
}

/* R13: a miss by expiry is told, so that a slower server doesn't show the key again. */
static void test_expiry_told(void **state)
{
    struct rig *g = *state;
    struct op op = op_of(OP_SET, "k", "v");

    op.exptime = 5;
    rig_op(g, 1, &op);
    rig_run(g, "12");
    rig_tick(g, 1, SHARD_COMMIT_USEC);
    rig_run(g, "12");
    g->nodes[1].clock_skew_usec = g->nodes[2].clock_skew_usec = 10000000;
    rig_kv(g, 1, OP_SET, "other", "v"); /* its ack bears the other's clock */
    rig_run(g, "12");
    assert_string_equal(rig_get(g, 1, "k"), "");
    rig_tick(g, 1, SHARD_COMMIT_USEC);
    rig_run(g, "12");
    g->nodes[1].clock_skew_usec = g->nodes[2].clock_skew_usec = 0;
    rig_form(g, 2, "21");
    assert_string_equal(rig_get(g, 2, "k"), "");
}

/* R13: a primary that has heard of nobody's clock since its start does not move the time. */
static void test_clock_of_its_own(void **state)
{
    struct rig *g = *state;
    struct op op = op_of(OP_SET, "k", "v");

    op.exptime = 3600;
    rig_op(g, 1, &op);
    rig_run(g, "12");
    rig_tick(g, 1, SHARD_COMMIT_USEC);
    rig_run(g, "12");
    rig_restart(g, 1);
    g->nodes[1].clock_skew_usec = INT64_C(7200) * 1000000;
    rig_form(g, 2, "12");
    assert_string_equal(rig_get(g, 1, "k"), "v");
}

/* Limits: a full tail refuses, and takes again when it drains. */
static void test_tail_limit(void **state)
{
    struct rig *g = *state;
    char key[16];
    size_t n = 0;

    for (;; n++) {
        snprintf(key, sizeof(key), "k%zu", n);
        if (rig_answer(g, rig_kv(g, 1, OP_SET, key, "v")) != 0) {
            break;
        }
    }
    assert_int_equal(n, TAIL_ENTRIES_MAX);
    assert_int_equal(g->answers[g->n_answers - 1].result.code, RESULT_BUSY);
    assert_int_equal(rig_answer(g, rig_kv(g, 1, OP_GET, "k0", NULL)), RESULT_NOT_FOUND);
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, rig_kv(g, 1, OP_SET, "k", "v")), 0);
    rig_run(g, "12");
    rig_assert_replay(g, 2, keys, ARRAY_LEN(keys));
}

/* Values up to the limit; what would be longer is refused without an entry. */
static void test_value_limit(void **state)
{
    struct rig *g = *state;
    char value[RIG_VALUE_MAX + 2];
    uint64_t id;

    memset(value, 'v', sizeof(value));
    value[RIG_VALUE_MAX + 1] = 0;
    assert_int_equal(rig_answer(g, rig_kv(g, 1, OP_SET, "k", value)), RESULT_TOO_LARGE);
    value[RIG_VALUE_MAX] = 0;
    id = rig_kv(g, 1, OP_SET, "k", value);
    assert_int_equal(rig_answer(g, rig_kv(g, 1, OP_APPEND, "k", "v")), 0);
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, id), RESULT_STORED);
    assert_int_equal(rig_answer(g, rig_kv(g, 1, OP_PREPEND, "k", "v")), RESULT_TOO_LARGE);
    rig_assert_name(rig_info(g, 1).last, 1, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_depends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_depends_sealed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pending_chain, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cas, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dedup, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dedup_moves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dedup_gat, setup, teardown),
        cmocka_unit_test_setup_teardown(test_window, setup, teardown),
        cmocka_unit_test(test_clock),
        cmocka_unit_test_setup_teardown(test_clock_of_new_primary, setup, teardown),
        cmocka_unit_test_setup_teardown(test_expiry, setup, teardown),
        cmocka_unit_test_setup_teardown(test_expiry_told, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clock_of_its_own, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tail_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_value_limit, setup, teardown),
    };

    return cmocka_run_group_tests_name("shard_ops", tests, NULL, NULL);
}
