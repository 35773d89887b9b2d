/* Sessions at the servers (R12): who is refused, and how what is remembered of an ended session
 * goes from every replica at the same place of the history. */
#include "shard_rig_ops.h"

#define OTHER 78 /* another session */

static int setup(void **state)
{
    *state = rig_new(1);
    return 0;
}

static int teardown(void **state)
{
    rig_free(*state);
    return 0;
}

static int answer_to(struct rig *g, uint32_t server, uint64_t session, uint64_t number)
{
    struct op op = op_of(OP_INCR, "n", NULL);
    uint64_t id;

    op.operand = 1;
    op.op = (struct op_id){ session, number, 1 };
    id = rig_op(g, server, &op);
    rig_run(g, "123");
    return rig_answer(g, id);
}

/* The managers say that the session is over. */
static void over(struct rig *g, uint32_t server, uint64_t index)
{
    rig_sessions(g, server, index, false, (uint64_t[]){ RIG_SESSION }, 0, 1);
}

/* Entries of a server's log that end a session. */
struct ends {
    unsigned n;
    uint64_t known;
};

static int ends_count(void *ctx, const struct frame *f, struct position at)
{
    struct ends *ends = ctx;
    struct entry e;

    (void) at;
    if (f->kind == FRAME_PREPARE && entry_decode(f->payload, f->payload_bytes, &e) == 0 &&
        e.kind == ENTRY_SESSION) {
        assert_int_equal(e.op.session, RIG_SESSION);
        ends->n++;
        ends->known = e.cas;
    }
    return 0;
}

static struct ends ends_of(struct rig *g, uint32_t server)
{
    struct wal_segment segments[RIG_FILES_MAX] = { 0 };
    struct rig_node *n = &g->nodes[server];
    struct wal_damage damage;
    struct ends ends = { 0 };

    for (size_t i = 0; i < n->n_files; i++) {
        segments[i] = (struct wal_segment){ .number = n->files[i].number,
                                            .data = n->files[i].data,
                                            .bytes = n->files[i].bytes };
    }
    assert_int_equal(wal_check(segments, n->n_files, NULL, &damage), 0);
    for (size_t i = 0; i < n->n_files; i++) {
        assert_int_equal(wal_walk(&segments[i], ends_count, &ends), 0);
    }
    return ends;
}

static void test_unknown_sessions(void **state)
{
    struct rig *g = *state;

    rig_form(g, 1, "123");
    rig_kv(g, 1, OP_SET, "n", "1"); /* without a session: always */
    assert_int_equal(answer_to(g, 1, RIG_SESSION, 1), RESULT_NUMBER);
    assert_int_equal(answer_to(g, 1, 99, 1), RESULT_NO_SESSION);
    assert_int_equal(answer_to(g, 1, 101, 1), RESULT_BUSY); /* above what is known here */
    rig_sessions(g, 1, 101, false, (uint64_t[]){ 101 }, 1, 0);
    assert_int_equal(answer_to(g, 1, 101, 1), RESULT_NUMBER);
    over(g, 1, 102);
    assert_int_equal(answer_to(g, 1, RIG_SESSION, 1), RESULT_NO_SESSION); /* what it did, too */
    assert_int_equal(answer_to(g, 1, 101, 1), RESULT_NUMBER);
    assert_string_equal(rig_get(g, 1, "n"), "3");
}

/* What was told before is told again by a manager that is behind. */
static void test_told_twice(void **state)
{
    struct rig *g = *state;

    rig_form(g, 1, "123");
    rig_kv(g, 1, OP_SET, "n", "1");
    over(g, 1, 200);
    rig_session_open(g, 1); /* as of 100 */
    assert_int_equal(answer_to(g, 1, RIG_SESSION, 1), RESULT_NO_SESSION);
    rig_sessions(g, 1, 200, true, (uint64_t[]){ RIG_SESSION }, 1, 0);
    assert_int_equal(answer_to(g, 1, RIG_SESSION, 1), RESULT_NO_SESSION);
    rig_sessions(g, 1, 201, true, (uint64_t[]){ OTHER }, 1, 0);
    assert_int_equal(answer_to(g, 1, OTHER, 1), RESULT_NUMBER);
}

/* The primary ends it by an entry, once; a replica that has not heard yet serves nobody until then:
 * it has forgotten what the session did. */
static void test_ends_by_an_entry(void **state)
{
    struct rig *g = *state;

    rig_form(g, 1, "123");
    rig_kv(g, 1, OP_SET, "n", "1");
    assert_int_equal(answer_to(g, 1, RIG_SESSION, 1), RESULT_NUMBER);
    over(g, 1, 150);
    for (int i = 0; i < 3; i++) {
        rig_tick(g, 1, SHARD_TICK_USEC);
        rig_run(g, "123");
    }
    for (uint32_t server = 1; server <= 3; server++) {
        assert_int_equal(ends_of(g, server).n, 1);
        assert_int_equal(ends_of(g, server).known, 150);
    }
    rig_tick(g, 1, 2 * SHARD_COMMIT_USEC);
    rig_run(g, "123");
    rig_form(g, 2, "213");
    assert_int_equal(answer_to(g, 2, RIG_SESSION, 1), RESULT_BUSY);
    over(g, 2, 150);
    assert_int_equal(answer_to(g, 2, RIG_SESSION, 1), RESULT_NO_SESSION);
    assert_string_equal(rig_get(g, 2, "n"), "2");
}

/* The note of it is in the log. */
static void test_replay(void **state)
{
    struct rig *g = *state;

    rig_form(g, 1, "123");
    rig_kv(g, 1, OP_SET, "n", "1");
    assert_int_equal(answer_to(g, 1, RIG_SESSION, 1), RESULT_NUMBER);
    over(g, 1, 150);
    rig_tick(g, 1, SHARD_TICK_USEC);
    rig_run(g, "123");
    rig_tick(g, 1, 2 * SHARD_COMMIT_USEC);
    rig_run(g, "123");
    rig_assert_replay(g, 1, (const char *const[]){ "n" }, 1);
    for (uint32_t server = 1; server <= 3; server++) {
        rig_restart(g, server); /* and is told of index 100 only */
    }
    rig_form(g, 2, "123");
    assert_int_equal(answer_to(g, 1, RIG_SESSION, 1), RESULT_BUSY);
    over(g, 1, 150);
    assert_int_equal(answer_to(g, 1, RIG_SESSION, 1), RESULT_NO_SESSION);
}

/* An end that was cut, or was on the way at a change of view, is proposed again. */
static void test_new_primary_ends_it(void **state)
{
    struct rig *g = *state;

    rig_form(g, 1, "123");
    rig_kv(g, 1, OP_SET, "n", "1");
    assert_int_equal(answer_to(g, 1, RIG_SESSION, 1), RESULT_NUMBER);
    for (uint32_t server = 1; server <= 3; server++) {
        over(g, server, 150);
    }
    rig_tick(g, 1, SHARD_TICK_USEC);
    rig_turn(g, 1);
    rig_drop_all(g, 0, 1, 0); /* nobody hears of it */
    rig_form(g, 2, "231");
    assert_int_equal(ends_of(g, 2).n, 0);
    rig_tick(g, 2, SHARD_TICK_USEC);
    rig_run(g, "123");
    assert_int_equal(ends_of(g, 2).n, 1);
    rig_tick(g, 2, SHARD_TICK_USEC);
    rig_run(g, "123");
    assert_int_equal(ends_of(g, 2).n, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_unknown_sessions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_told_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ends_by_an_entry, setup, teardown),
        cmocka_unit_test_setup_teardown(test_replay, setup, teardown),
        cmocka_unit_test_setup_teardown(test_new_primary_ends_it, setup, teardown),
    };

    return cmocka_run_group_tests_name("shard, sessions", tests, NULL, NULL);
}
