/* Leases (R10): who may answer reads, who may act when; and who is accused (R14), who resigns
 * (R16).
 */
#include "shard_rig_ops.h"

static int setup(void **state)
{
    struct rig *g = rig_new(1);

    g->keeps_promises = true;
    rig_form(g, 1, "12");
    *state = g;
    return 0;
}

static int teardown(void **state)
{
    rig_free(*state);
    return 0;
}

/* A tick of a server at the present time. */
static void tick(struct rig *g, uint32_t server)
{
    rig_tick(g, server, 0);
    rig_turn(g, server);
}

static void pass(struct rig *g, uint64_t usec)
{
    g->boot_usec += usec;
}

/* No lease, no answer: of a read, and of what finds nothing to do. It comes with the leases. */
static void test_reads_wait(void **state)
{
    struct rig *g = *state;
    uint64_t set, get, add, miss;

    set = rig_kv(g, 1, OP_SET, "a", "1");
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, set), RESULT_STORED);
    g->loses_leases = true;
    pass(g, LEASE_USEC);
    get = rig_kv(g, 1, OP_GET, "a", NULL);
    miss = rig_kv(g, 1, OP_GET, "b", NULL);
    add = rig_kv(g, 1, OP_ADD, "a", "2");
    set = rig_kv(g, 1, OP_SET, "c", "3");
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, set), RESULT_STORED); /* a write needs none */
    assert_int_equal(rig_answer(g, get), 0);
    assert_int_equal(rig_answer(g, miss), 0);
    assert_int_equal(rig_answer(g, add), 0);
    g->loses_leases = false;
    pass(g, SHARD_LEASE_USEC);
    tick(g, 1);
    assert_int_equal(rig_answer(g, get), RESULT_VALUE);
    assert_int_equal(rig_answer(g, miss), RESULT_NOT_FOUND);
    assert_int_equal(rig_answer(g, add), RESULT_NOT_STORED);
}

/* A lease counts from when it was asked for, not from when it came. */
static void test_counts_from_asking(void **state)
{
    struct rig *g = *state;
    uint64_t get;

    g->loses_leases = true;
    pass(g, LEASE_USEC);
    g->loses_leases = false;
    g->holds_leases = true;
    tick(g, 1);
    assert_int_equal(g->n_leases, 1);
    pass(g, LEASE_USEC);
    rig_lease_pass(g); /* the request arrives now, and so does the grant */
    rig_lease_pass(g);
    get = rig_kv(g, 1, OP_GET, "a", NULL);
    assert_int_equal(rig_answer(g, get), 0);
    g->n_leases = 0;
}

/* What was parked is sent back when the view ends. */
static void test_parked_and_view(void **state)
{
    struct rig *g = *state;
    uint64_t get;

    g->loses_leases = true;
    pass(g, LEASE_USEC);
    get = rig_kv(g, 1, OP_GET, "a", NULL);
    rig_seal(g, 1, 1);
    assert_int_equal(rig_answer(g, get), RESULT_NOT_PRIMARY);
}

/* A primary of another view waits for the promises that it gave. */
static void test_promise(void **state)
{
    struct rig *g = *state;

    g->loses_leases = true; /* the old primary can't give back */
    rig_view(g, 2, 2, "2+1");
    rig_run(g, "2");
    rig_assert_state(g, 2, REPLICA_RECONCILING);
    pass(g, PROMISE_USEC - 1);
    tick(g, 2);
    rig_run(g, "2");
    rig_assert_state(g, 2, REPLICA_RECONCILING);
    pass(g, 1);
    tick(g, 2);
    rig_run(g, "2");
    rig_assert_name(rig_info(g, 2).commit, 2, 2);
    rig_assert_state(g, 2, REPLICA_PRIMARY);
}

/* One that restarts while it waits for that has not been alone: the old primary reads on. */
static void test_promise_and_restart(void **state)
{
    struct rig *g = *state;

    g->loses_leases = true;
    rig_view(g, 2, 2, "2+1");
    rig_run(g, "2");
    pass(g, SHARD_COMMIT_USEC);
    tick(g, 2); /* what is committed is noted */
    rig_sync(g, 2);
    rig_restart(g, 2);
    tick(g, 2);
    rig_view(g, 2, 3, "2+1");
    rig_run(g, "2");
    rig_assert_state(g, 2, REPLICA_RECONCILING);
    pass(g, PROMISE_USEC);
    tick(g, 2);
    rig_run(g, "2");
    rig_assert_state(g, 2, REPLICA_PRIMARY);
}

/* …every promise, of views before the last as well (T5). */
static void test_promise_of_earlier_view(void **state)
{
    struct rig *g = *state;

    g->loses_leases = true;
    rig_view(g, 2, 2, "32");
    rig_sync(g, 2);
    rig_view(g, 2, 3, "2");
    rig_run(g, "2");
    rig_assert_state(g, 2, REPLICA_RECONCILING);
    pass(g, PROMISE_USEC);
    tick(g, 2);
    rig_run(g, "2");
    rig_assert_state(g, 2, REPLICA_PRIMARY);
}

/* The old primary hears of the end of its view, and gives back. */
static void test_give_back(void **state)
{
    struct rig *g = *state;

    rig_seal(g, 1, 1);
    rig_view(g, 2, 2, "21");
    rig_view(g, 1, 2, "21");
    rig_run(g, "12");
    rig_assert_state(g, 2, REPLICA_PRIMARY);
}

/* What was given back of one view leaves a promise of a later one standing. */
static void test_late_give_back(void **state)
{
    struct rig *g = *state;
    struct shard_event back = { .kind = SHARD_LEASE_BACK, .from = 1, .note = { .view = 1 } };

    rig_view(g, 1, 2, "12");
    rig_view(g, 2, 2, "12");
    rig_run(g, "12"); /* promised again, in view 2 */
    g->loses_leases = true;
    rig_step(g, 2, &back);
    rig_view(g, 2, 3, "2");
    rig_run(g, "2");
    rig_assert_state(g, 2, REPLICA_RECONCILING);
}

/* A restarted process does not know what its earlier one promised. */
static void test_restart_waits(void **state)
{
    struct rig *g = *state;

    rig_restart(g, 2);
    tick(g, 2);
    rig_view(g, 2, 2, "2");
    rig_run(g, "2");
    rig_assert_state(g, 2, REPLICA_RECONCILING);
    pass(g, PROMISE_USEC);
    tick(g, 2);
    rig_run(g, "2");
    rig_assert_state(g, 2, REPLICA_PRIMARY);
    rig_kv(g, 2, OP_SET, "a", "1");
    rig_run(g, "2");
    rig_tick(g, 2, SHARD_COMMIT_USEC);
    rig_sync(g, 2);
    rig_restart(g, 2); /* it was alone in its last view: it promised nobody anything */
    tick(g, 2);
    rig_view(g, 2, 3, "2");
    rig_run(g, "2");
    rig_assert_state(g, 2, REPLICA_PRIMARY);
}

/* A learner of a view of another server alone is not alone: its earlier process may have promised.
 */
static void test_learner_restarts(void **state)
{
    struct rig *g = *state;

    rig_view(g, 1, 2, "1+2");
    rig_view(g, 2, 2, "1+2");
    rig_run(g, "12");
    rig_assert_state(g, 2, REPLICA_LEARNER);
    pass(g, 2 * SHARD_COMMIT_USEC);
    tick(g, 1);
    rig_run(g, "12");
    rig_assert_name(rig_info(g, 2).commit, 2, 2);
    pass(g, SHARD_COMMIT_USEC);
    tick(g, 2);
    rig_sync(g, 2);
    rig_restart(g, 2);
    tick(g, 2);
    rig_view(g, 2, 3, "12");
    rig_sync(g, 2);
    rig_view(g, 2, 4, "2");
    rig_run(g, "2");
    rig_assert_state(g, 2, REPLICA_RECONCILING);
}

/* A sealed secondary grants nothing (R7). */
static void test_sealed_grants_nothing(void **state)
{
    struct rig *g = *state;
    uint64_t get;

    rig_seal(g, 2, 1);
    pass(g, LEASE_USEC);
    tick(g, 1);
    get = rig_kv(g, 1, OP_GET, "a", NULL);
    rig_turn(g, 1);
    assert_int_equal(rig_answer(g, get), 0);
}

static void tick_for(struct rig *g, uint32_t server, uint64_t usec)
{
    for (uint64_t t = 0; t < usec; t += SHARD_TICK_USEC) {
        rig_tick(g, server, SHARD_TICK_USEC);
        rig_turn(g, server);
    }
}

/* Two that are silent are accused together, and leave in one view. */
static void test_accuses_all(void **state)
{
    struct rig *g = rig_new(1);

    (void) state;
    rig_form(g, 1, "123");
    g->loses_leases = true;
    tick_for(g, 1, REPLICA_USEC_DEFAULT + 2 * SHARD_TICK_USEC);
    assert_int_equal(g->nodes[1].accuses, 2);
    tick_for(g, 1, SHARD_ACCUSE_USEC);
    assert_int_equal(g->nodes[1].accuses, 4);
    rig_free(g);
}

/* A grant of what was not asked for yet is none. */
static void test_grant_of_tomorrow(void **state)
{
    struct rig *g = *state;
    struct msg_lease l = { .partition = 0, .view = 1 };
    struct shard_event e = { .kind = SHARD_GRANTS, .from = 2, .incarnation = 1 };
    uint64_t get;

    e.leases.sent_usec = g->boot_usec + 60 * LEASE_USEC;
    e.leases.v = &l;
    e.leases.n = 1;
    rig_step(g, 1, &e);
    g->loses_leases = true;
    pass(g, LEASE_USEC);
    get = rig_kv(g, 1, OP_GET, "a", NULL);
    assert_int_equal(rig_answer(g, get), 0);
}

/* R14: a primary whose disk hangs is heard as always, and leaves by itself: another one has all. */
static void test_hung_disk(void **state)
{
    struct rig *g = *state;
    uint64_t set;

    set = rig_kv(g, 1, OP_SET, "a", "1");
    rig_turn(g, 1);
    rig_deliver_all(g, 0, 1, 2);
    for (uint64_t t = 0; t < 3 * REPLICA_USEC_DEFAULT - 2 * SHARD_TICK_USEC; t += SHARD_TICK_USEC) {
        tick_for(g, 1, SHARD_TICK_USEC);
        rig_run(g, "2");
        rig_deliver_all(g, ACTION_ACK, 2, 1);
    }
    assert_int_equal(g->nodes[1].accuses, 0);
    tick_for(g, 1, 4 * SHARD_TICK_USEC);
    assert_int_equal(rig_answer(g, set), 0);
    assert_int_equal(g->nodes[1].accuses, 1);
    assert_int_equal(g->nodes[1].accused.kind, RECONFIG_REMOVE);
    assert_int_equal(g->nodes[1].accused.server, 1);
}

/* R14: a primary that is silent is accused, and so is a secondary; again and again. */
static void test_accusations(void **state)
{
    struct rig *g = *state;

    g->loses_leases = true;
    tick_for(g, 2, FAILURE_USEC_DEFAULT - 2 * SHARD_TICK_USEC);
    assert_int_equal(g->nodes[2].accuses, 0);
    tick_for(g, 2, 4 * SHARD_TICK_USEC);
    assert_int_equal(g->nodes[2].accuses, 1);
    assert_int_equal(g->nodes[2].accused.kind, RECONFIG_REMOVE);
    assert_int_equal(g->nodes[2].accused.server, 1);
    tick_for(g, 2, SHARD_ACCUSE_USEC);
    assert_int_equal(g->nodes[2].accuses, 2);
    tick_for(g, 1, REPLICA_USEC_DEFAULT + 4 * SHARD_TICK_USEC);
    assert_true(g->nodes[1].accuses > 0);
    assert_int_equal(g->nodes[1].accused.kind, RECONFIG_REMOVE);
    assert_int_equal(g->nodes[1].accused.server, 2);
}

/* …but nobody is blamed by whoever did not run itself. */
static void test_gap(void **state)
{
    struct rig *g = *state;

    tick(g, 1);
    tick(g, 2);
    g->loses_leases = true;
    pass(g, 60 * FAILURE_USEC_DEFAULT);
    tick(g, 1);
    tick(g, 2);
    assert_int_equal(g->nodes[1].accuses, 0);
    assert_int_equal(g->nodes[2].accuses, 0);
}

/* A secondary that grants leases, but whose disk stands still. */
static void test_stalled_disk(void **state)
{
    struct rig *g = *state;

    rig_kv(g, 1, OP_SET, "a", "1");
    tick_for(g, 1, 2 * REPLICA_USEC_DEFAULT);
    assert_int_equal(g->nodes[1].accuses, 0);
    tick_for(g, 1, 2 * REPLICA_USEC_DEFAULT);
    assert_true(g->nodes[1].accuses > 0);
    assert_int_equal(g->nodes[1].accused.server, 2);
}

/* R16: what was taken is committed first, nothing more is taken, and the leases are given back. */
static void test_resign(void **state)
{
    struct rig *g = *state;
    uint64_t before, after;

    before = rig_kv(g, 1, OP_SET, "a", "1");
    rig_event(g, 1, SHARD_LEAVE, 0);
    tick(g, 1);
    rig_assert_state(g, 1, REPLICA_PRIMARY); /* nobody could form a view */
    rig_event(g, 1, SHARD_MANAGER, 0);
    tick(g, 1);
    after = rig_kv(g, 1, OP_SET, "a", "2");
    assert_int_equal(rig_answer(g, after), RESULT_NOT_PRIMARY);
    assert_int_equal(g->nodes[1].accuses, 0);
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, before), RESULT_STORED);
    assert_int_equal(g->nodes[1].accuses, 1);
    assert_int_equal(g->nodes[1].accused.kind, RECONFIG_RESIGN);
    assert_int_equal(g->nodes[1].accused.server, 2);
    rig_view(g, 2, 2, "21"); /* it acts without waiting */
    rig_view(g, 1, 2, "21");
    rig_run(g, "12");
    rig_assert_state(g, 2, REPLICA_PRIMARY);
    tick(g, 1);
    assert_int_equal(g->nodes[1].accused.kind, RECONFIG_REMOVE); /* then it leaves altogether */
    assert_int_equal(g->nodes[1].accused.server, 1);
}

/* The successor dies before anybody hears of it: whoever is left leads, the leaving one as well. */
static void test_resign_in_vain(void **state)
{
    struct rig *g = *state;

    rig_event(g, 1, SHARD_LEAVE, 0);
    rig_event(g, 1, SHARD_MANAGER, 0);
    tick(g, 1);
    assert_int_equal(g->nodes[1].accused.kind, RECONFIG_RESIGN);
    rig_assert_state(g, 1, REPLICA_WAITING);
    tick_for(g, 1, SHARD_RESIGN_USEC + SHARD_ACCUSE_USEC);
    assert_int_equal(g->nodes[1].accused.kind, RECONFIG_RENEW);
    rig_seal(g, 1, 1);
    assert_int_equal(g->nodes[1].seals, 1);
    rig_view(g, 1, 2, "1+2");
    rig_run(g, "1");
    rig_assert_state(g, 1, REPLICA_PRIMARY);
}

/* A secondary that may not leave, with too few others, still says that the primary is silent. */
static void test_leaving_accuses(void **state)
{
    struct rig *g = *state;

    rig_event(g, 2, SHARD_LEAVE, 0);
    tick(g, 2);
    assert_int_equal(g->nodes[2].accused.server, 2);
    g->loses_leases = true;
    tick_for(g, 2, FAILURE_USEC_DEFAULT + 2 * SHARD_ACCUSE_USEC);
    assert_int_equal(g->nodes[2].accused.kind, RECONFIG_REMOVE);
    assert_int_equal(g->nodes[2].accused.server, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_reads_wait),
        TEST(test_counts_from_asking),
        TEST(test_parked_and_view),
        TEST(test_promise),
        TEST(test_promise_and_restart),
        TEST(test_promise_of_earlier_view),
        TEST(test_give_back),
        TEST(test_late_give_back),
        TEST(test_restart_waits),
        TEST(test_learner_restarts),
        TEST(test_sealed_grants_nothing),
        TEST(test_accusations),
        cmocka_unit_test(test_accuses_all),
        TEST(test_grant_of_tomorrow),
        TEST(test_hung_disk),
        TEST(test_gap),
        TEST(test_stalled_disk),
        TEST(test_resign),
        TEST(test_resign_in_vain),
        TEST(test_leaving_accuses),
    };

    return cmocka_run_group_tests_name("shard_lease", tests, NULL, NULL);
}
