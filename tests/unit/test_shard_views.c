/* Views of one partition: R4 (durable first), R5 (re-propose, no-op), R6 (restart), R7 (seal), R9
 * (two memberships), and the stories behind R1, R2 and R3. */
#include "shard_rig_ops.h"

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

static const char *const keys[] = { "a", "b", "c", "d", "e", "k" };

static size_t noops_of(const struct rig *g, uint32_t to)
{
    size_t n = 0;
    struct entry e;

    for (size_t i = 0; i < g->n_msgs; i++) {
        const struct rig_msg *m = &g->msgs[i];
        if (m->kind == ACTION_PREPARE && m->to == to) {
            assert_int_equal(entry_decode(m->entry, m->prepare.entry_bytes, &e), 0);
            n += e.kind == ENTRY_NOOP;
        }
    }
    return n;
}

/* R4: nothing leaves before the view is durable; lower views are refused for ever. */
static void test_view_durable_first(void **state)
{
    struct rig *g = *state;

    rig_view(g, 1, 3, "12");
    rig_view(g, 2, 3, "12");
    rig_turn(g, 1);
    rig_turn(g, 2);
    assert_int_equal(g->n_msgs, 0);
    rig_event(g, 1, SHARD_PEER_UP, 2);
    rig_event(g, 2, SHARD_PEER_UP, 1);
    rig_tick(g, 1, SHARD_RESEND_USEC);
    rig_turn(g, 2);
    assert_int_equal(g->n_msgs, 0);
    assert_int_equal(g->nodes[1].accuses, 0);
    rig_synced(g, 1);
    assert_int_equal(noops_of(g, 2), 1);
    rig_deliver_all(g, ACTION_PREPARE, 1, 2); /* entering still: it takes nothing */
    assert_int_equal(rig_info(g, 2).last.seq, 0);
    rig_synced(g, 2);
    assert_int_equal(rig_msg_count(g, ACTION_RESEND, 2, 1), 1);
    rig_run(g, "12");
    rig_assert_state(g, 1, REPLICA_PRIMARY);
    rig_view(g, 1, 2, "1"); /* lower */
    rig_view(g, 2, 1, "21");
    assert_int_equal(rig_info(g, 1).view, 3);
    rig_assert_state(g, 1, REPLICA_PRIMARY);
    rig_assert_state(g, 2, REPLICA_SECONDARY);
    rig_restart(g, 1);
    rig_view(g, 1, 2, "1");
    rig_sync(g, 1);
    assert_int_equal(rig_info(g, 1).view, 3);
    rig_assert_state(g, 1, REPLICA_WAITING);
}

/* A newer view arrives while the one before is not durable yet: only the newer one begins. */
static void test_view_overtaken(void **state)
{
    struct rig *g = *state;

    rig_view(g, 1, 1, "123");
    rig_turn(g, 1);
    rig_view(g, 1, 2, "12");
    rig_synced(g, 1);
    rig_assert_state(g, 1, REPLICA_ENTERING);
    assert_int_equal(g->n_msgs, 0);
    rig_sync(g, 1);
    rig_assert_state(g, 1, REPLICA_RECONCILING);
    assert_int_equal(rig_msg_count(g, 0, 1, 3), 0);
    rig_view(g, 1, 3, "2"); /* out, before the no-op committed */
    rig_assert_state(g, 1, REPLICA_NONE);
    rig_drop_all(g, 0, 0, 0);
    rig_sync(g, 1);
    rig_tick(g, 1, SHARD_RESEND_USEC);
    assert_int_equal(g->n_msgs, 0);
    rig_assert_replay(g, 1, keys, ARRAY_LEN(keys));
}

/* R5: the whole tail goes out again with its names, then a no-op; it serves when that committed. */
static void test_new_view(void **state)
{
    struct rig *g = *state;
    uint64_t op;

    rig_form(g, 1, "123");
    rig_id(g, 1, OP_SET, "a", "1", 1, 1);
    rig_kv(g, 1, OP_SET, "b", "2");
    rig_deliver_all(g, ACTION_PREPARE, 1, 2); /* 2 alone holds them */
    rig_sync(g, 2);
    rig_drop_all(g, 0, 0, 0);
    rig_view(g, 2, 2, "23");
    rig_view(g, 3, 2, "23");
    rig_sync(g, 2);
    rig_sync(g, 3);
    rig_assert_state(g, 2, REPLICA_RECONCILING);
    op = rig_id(g, 2, OP_SET, "a", "1", 1, 1);
    assert_int_equal(rig_answer(g, op), RESULT_NOT_PRIMARY);
    rig_drop_all(g, ACTION_RESEND, 3, 2);
    assert_int_equal(rig_msg_count(g, ACTION_PREPARE, 2, 3), 3);
    assert_int_equal(noops_of(g, 3), 1);
    rig_deliver(g, ACTION_PREPARE, 2, 3);
    rig_deliver(g, ACTION_PREPARE, 2, 3); /* all but the no-op */
    rig_sync(g, 2);
    rig_sync(g, 3);
    rig_deliver_all(g, ACTION_ACK, 3, 2);
    rig_assert_name(rig_info(g, 2).commit, 1, 3);
    rig_assert_state(g, 2, REPLICA_RECONCILING);
    rig_run(g, "23");
    rig_assert_state(g, 2, REPLICA_PRIMARY);
    rig_assert_name(rig_info(g, 2).commit, 2, 4);
    assert_string_equal(rig_get(g, 2, "a"), "1");
    op = rig_id(g, 2, OP_SET, "a", "1", 1, 1); /* the retry finds it done */
    assert_int_equal(rig_answer(g, op), RESULT_STORED);
    rig_assert_name(rig_info(g, 2).last, 2, 4);
    rig_assert_replay(g, 2, keys, ARRAY_LEN(keys));
    rig_assert_replay(g, 3, keys, ARRAY_LEN(keys));
}

/* The same primary in a new view starts over, too; what waited is sent back. */
static void test_same_primary(void **state)
{
    struct rig *g = *state;
    uint64_t set, again;

    rig_form(g, 1, "123");
    set = rig_id(g, 1, OP_SET, "a", "1", 1, 1);
    rig_view(g, 1, 2, "12");
    assert_int_equal(rig_answer(g, set), RESULT_NOT_PRIMARY);
    assert_int_equal(rig_find_answer(g, set)->result.number, 2);
    rig_view(g, 2, 2, "12");
    rig_drop_all(g, 0, 0, 0);
    rig_run(g, "12");
    rig_assert_state(g, 1, REPLICA_PRIMARY);
    again = rig_id(g, 1, OP_SET, "a", "1", 1, 1);
    assert_int_equal(rig_answer(g, again), RESULT_STORED);
    rig_assert_name(rig_info(g, 1).last, 2, 3);
}

/* U1: C already holds 101-105, which B sends again: it must not cut them. */
static void test_story_u1(void **state)
{
    struct rig *g = *state;

    rig_form(g, 1, "123");
    for (size_t i = 0; i < 5; i++) {
        rig_kv(g, 1, OP_SET, keys[i], keys[i]);
    }
    rig_deliver_all(g, ACTION_PREPARE, 1, 0);
    rig_sync(g, 2);
    rig_sync(g, 3);
    rig_drop_all(g, 0, 0, 0); /* 1 is dead */
    rig_view(g, 2, 2, "23");
    rig_view(g, 3, 2, "23");
    rig_sync(g, 2);
    rig_sync(g, 3);
    assert_true(rig_deliver(g, ACTION_PREPARE, 2, 3)); /* the first of them, then 2 dies */
    rig_sync(g, 3);
    rig_assert_name(rig_info(g, 3).last, 1, 6);
    assert_int_equal(rig_info(g, 3).durable.seq, 6);
    rig_drop_all(g, 0, 0, 0);
    rig_view(g, 3, 3, "3");
    rig_run(g, "3");
    for (size_t i = 0; i < 5; i++) {
        assert_string_equal(rig_get(g, 3, keys[i]), keys[i]);
    }
    rig_assert_replay(g, 3, keys, ARRAY_LEN(keys));
}

/* S3: a dead tail is cut from the first differing name on, never below the commit. */
static void test_dead_tail(void **state)
{
    struct rig *g = *state;
    char out[64];

    rig_form(g, 1, "123");
    rig_kv(g, 1, OP_SET, "a", "old");
    rig_run(g, "123");
    rig_kv(g, 1, OP_SET, "a", "lost");
    rig_kv(g, 1, OP_SET, "b", "lost");
    rig_sync(g, 1); /* 1 alone holds 3 and 4 */
    rig_drop_all(g, 0, 0, 0);
    rig_form(g, 2, "23");
    rig_kv(g, 2, OP_SET, "c", "new");
    rig_view(g, 1, 3, "231");
    rig_view(g, 2, 3, "231");
    rig_view(g, 3, 3, "231");
    rig_run(g, "23"); /* nothing of view 2 reached 1: 3 is its no-op, 4 is c */
    rig_run(g, "123");
    rig_assert_state(g, 2, REPLICA_RECONCILING);
    assert_true(g->nodes[1].lacking > 0); /* it lacks the committed 3: no catch-up yet */
    rig_assert_name(rig_info(g, 1).commit, 1, 0 + rig_info(g, 1).commit.seq);
    assert_string_equal(rig_peek(g, 1, "b", out), "");
    assert_true(rig_info(g, 1).commit.seq <= 2);
}

/* A secondary with a dead tail in a view whose primary has uncommitted entries of the same seqs. */
static void test_tail_cut(void **state)
{
    struct rig *g = *state;
    char out[64];

    rig_form(g, 1, "123");
    rig_kv(g, 1, OP_SET, "a", "dead");
    rig_kv(g, 1, OP_SET, "b", "dead");
    rig_deliver_all(g, ACTION_PREPARE, 1, 3); /* only 3 takes them, 1 dies */
    rig_sync(g, 3);
    rig_drop_all(g, 0, 0, 0);
    rig_assert_name(rig_info(g, 3).last, 1, 3);
    rig_view(g, 2, 2, "23");
    rig_view(g, 3, 2, "23");
    rig_run(g, "23");
    rig_assert_state(g, 2, REPLICA_PRIMARY);
    rig_assert_name(rig_info(g, 3).last, 2, 2); /* the no-op stands where a was */
    rig_kv(g, 2, OP_SET, "c", "live");
    rig_run(g, "23");
    rig_tick(g, 2, SHARD_COMMIT_USEC);
    rig_run(g, "23");
    assert_string_equal(rig_peek(g, 3, "a", out), "");
    assert_string_equal(rig_peek(g, 3, "b", out), "");
    assert_string_equal(rig_peek(g, 3, "c", out), "live");
    rig_assert_replay(g, 3, keys, ARRAY_LEN(keys));
}

/* An ack speaks of the primary's history, not of a dead tail of the same length. */
static void test_dead_tail_not_acked(void **state)
{
    struct rig *g = *state;

    rig_form(g, 1, "123");
    rig_kv(g, 1, OP_SET, "a", "dead");
    rig_deliver_all(g, ACTION_PREPARE, 1, 3); /* (1, 2), at 3 alone */
    rig_sync(g, 3);
    rig_drop_all(g, 0, 0, 0);
    rig_view(g, 2, 2, "23");
    rig_view(g, 3, 2, "23");
    rig_sync(g, 2);
    rig_sync(g, 2); /* the no-op (2, 2) */
    rig_sync(g, 3);
    rig_event(g, 3, SHARD_PEER_UP, 2);
    rig_sync(g, 3);
    rig_tick(g, 3, SHARD_RESEND_USEC);
    rig_sync(g, 3);
    assert_true(rig_msg_count(g, ACTION_ACK, 3, 2) > 0);
    rig_deliver_all(g, ACTION_ACK, 3, 2);
    rig_assert_name(rig_info(g, 2).commit, 1, 1);
    rig_assert_state(g, 2, REPLICA_RECONCILING);
    rig_run(g, "23");
    rig_assert_name(rig_info(g, 3).last, 2, 2);
}

/* U3, T6: C seals, refuses the next entry, and acks nothing of the view any more. */
static void test_story_u3(void **state)
{
    struct rig *g = *state;
    uint64_t set;

    rig_form(g, 1, "123");
    set = rig_kv(g, 1, OP_SET, "a", "1");
    rig_deliver(g, ACTION_PREPARE, 1, 3);
    rig_turn(g, 3); /* its group is in flight */
    rig_seal(g, 3, 1);
    assert_int_equal(g->nodes[3].seals, 0); /* reported when durable */
    rig_kv(g, 1, OP_SET, "b", "2");
    rig_deliver_all(g, ACTION_PREPARE, 1, 3);
    rig_assert_name(rig_info(g, 3).last, 1, 2);
    rig_synced(g, 3);
    assert_int_equal(g->nodes[3].seals, 1);
    rig_assert_name(g->nodes[3].sealed.last, 1, 2);
    assert_int_equal(g->nodes[3].sealed.view, 1);
    rig_event(g, 3, SHARD_PEER_UP, 1);
    rig_tick(g, 3, SHARD_RESEND_USEC);
    rig_sync(g, 3);
    assert_int_equal(rig_msg_count(g, ACTION_ACK, 3, 0), 0);
    assert_int_equal(rig_msg_count(g, ACTION_RESEND, 3, 0), 0);
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, set), 0);
    rig_seal(g, 3, 1); /* asked again, it says the same */
    assert_int_equal(g->nodes[3].seals, 2);
    rig_assert_name(g->nodes[3].sealed.last, 1, 2);
}

/* R7: only a member of the very view seals; a primary sends its waiters back. */
static void test_seal(void **state)
{
    struct rig *g = *state;
    uint64_t set;

    rig_seal(g, 1, 0);
    rig_seal(g, 1, 1);
    assert_int_equal(g->nodes[1].seals, 0);
    rig_view(g, 1, 1, "1");
    rig_seal(g, 1, 1); /* before the view is durable */
    assert_int_equal(g->nodes[1].seals, 0);
    rig_sync(g, 1);
    assert_int_equal(g->nodes[1].seals, 1);
    rig_assert_state(g, 1, REPLICA_WAITING);
    rig_form(g, 2, "12");
    set = rig_kv(g, 1, OP_SET, "a", "1");
    rig_seal(g, 1, 1); /* of the past */
    rig_seal(g, 1, 3);
    assert_int_equal(rig_answer(g, set), 0);
    rig_seal(g, 1, 2);
    assert_int_equal(rig_answer(g, set), RESULT_NOT_PRIMARY);
    assert_int_equal(rig_answer(g, rig_kv(g, 1, OP_GET, "a", NULL)), RESULT_NOT_PRIMARY);
    rig_run(g, "12"); /* acks arrive: too late */
    rig_assert_name(rig_info(g, 1).commit, 2, 1);
    assert_int_equal(g->nodes[1].seals, 2);
    rig_assert_name(g->nodes[1].sealed.last, 2, 2);
    rig_seal(g, 3, 2); /* not a member */
    assert_int_equal(g->nodes[3].seals, 0);
}

/* T8: an answer that waits for (v, s) is not released by another s. */
static void test_story_t8(void **state)
{
    struct rig *g = *state;
    uint64_t add;

    rig_form(g, 1, "123");
    rig_kv(g, 1, OP_SET, "a", "1");
    add = rig_kv(g, 1, OP_ADD, "a", "2");
    assert_int_equal(rig_answer(g, add), 0);
    rig_drop_all(g, 0, 0, 0);
    rig_form(g, 2, "23");
    rig_kv(g, 2, OP_SET, "b", "other");
    rig_run(g, "23");
    rig_view(g, 1, 3, "231");
    assert_int_equal(rig_answer(g, add), RESULT_NOT_PRIMARY);
    rig_find_answer(g, add); /* once */
}

/* R6: all is waiting after a restart, accuses, and acts in no view that was formed before. */
static void test_restart(void **state)
{
    struct rig *g = *state;

    rig_form(g, 1, "12");
    rig_kv(g, 1, OP_SET, "a", "1");
    rig_run(g, "12");
    rig_restart(g, 1);
    rig_assert_state(g, 1, REPLICA_WAITING);
    assert_int_equal(rig_answer(g, rig_kv(g, 1, OP_SET, "a", "2")), RESULT_NOT_PRIMARY);
    rig_tick(g, 1, SHARD_TICK_USEC);
    assert_int_equal(g->nodes[1].accuses, 1);
    assert_int_equal(g->nodes[1].accused.view, 1);
    rig_tick(g, 1, SHARD_TICK_USEC);
    assert_int_equal(g->nodes[1].accuses, 1); /* not at every tick */
    rig_tick(g, 1, SHARD_ACCUSE_USEC);
    assert_int_equal(g->nodes[1].accuses, 2);
    rig_row(g, 1, SHARD_FLOOR, 0, 2, "12"); /* formed while it was away */
    rig_view(g, 1, 2, "12");
    rig_view(g, 1, 1, "12");
    rig_sync(g, 1);
    rig_assert_state(g, 1, REPLICA_WAITING);
    assert_int_equal(rig_msg_count(g, 0, 1, 0), 0);
    rig_tick(g, 1, SHARD_ACCUSE_USEC);
    assert_int_equal(g->nodes[1].accused.view, 2);
    rig_seal(g, 1, 2); /* for R7 it is a member */
    assert_int_equal(g->nodes[1].seals, 1);
    rig_assert_name(g->nodes[1].sealed.last, 1, 2);
    rig_form(g, 3, "12");
    assert_string_equal(rig_get(g, 1, "a"), "1");
    rig_assert_replay(g, 1, keys, ARRAY_LEN(keys));
}

/* All at once go down with a tail that is durable somewhere: the answered write is there again. */
static void test_all_restart(void **state)
{
    struct rig *g = *state;
    uint64_t set;

    rig_form(g, 1, "123");
    set = rig_kv(g, 1, OP_SET, "a", "1");
    rig_run(g, "123");
    assert_int_equal(rig_answer(g, set), RESULT_STORED);
    for (uint32_t i = 1; i <= 3; i++) {
        rig_restart(g, i); /* no commit was noted: it is the tail */
    }
    rig_form(g, 2, "312");
    assert_string_equal(rig_get(g, 3, "a"), "1");
    for (uint32_t i = 1; i <= 3; i++) {
        rig_assert_replay(g, i, keys, ARRAY_LEN(keys));
    }
}

/* R9: two memberships with one number: it stops, and does nothing ever after. */
static void test_two_memberships(void **state)
{
    static const char *const others[] = { "13", "21", "1", "123", "" };
    struct rig *g = *state;

    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        struct rig *h = rig_new(1);
        rig_form(h, 1, "12");
        rig_view(h, 1, 1, "12"); /* the same again */
        assert_null(h->nodes[1].halted);
        rig_view(h, 1, 1, others[i]);
        assert_non_null(h->nodes[1].halted);
        rig_drop_all(h, 0, 0, 0);
        rig_kv(h, 1, OP_SET, "a", "1");
        rig_sync(h, 1);
        assert_int_equal(h->n_msgs, 0);
        assert_int_equal(h->n_answers, 0);
        rig_free(h);
    }
    rig_form(g, 2, "12");
    rig_restart(g, 1);
    rig_row(g, 1, SHARD_FLOOR, 0, 2, "13"); /* also after a restart */
    assert_non_null(g->nodes[1].halted);
    rig_restart(g, 2);
    rig_row(g, 2, SHARD_FLOOR, 0, 1, "12"); /* the manager went back in time */
    assert_non_null(g->nodes[2].halted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_view_durable_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_view_overtaken, setup, teardown),
        cmocka_unit_test_setup_teardown(test_new_view, setup, teardown),
        cmocka_unit_test_setup_teardown(test_same_primary, setup, teardown),
        cmocka_unit_test_setup_teardown(test_story_u1, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dead_tail, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tail_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dead_tail_not_acked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_story_u3, setup, teardown),
        cmocka_unit_test_setup_teardown(test_seal, setup, teardown),
        cmocka_unit_test_setup_teardown(test_story_t8, setup, teardown),
        cmocka_unit_test_setup_teardown(test_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_all_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_memberships, setup, teardown),
    };

    return cmocka_run_group_tests_name("shard_views", tests, NULL, NULL);
}
