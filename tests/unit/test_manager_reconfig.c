/* What is decided at once, without sealing: removal by the primary, leaving, resignation, promotion
 * (R8, R14, R16), and who may ask for it. */
#include "manager_rig.h"

/* Partition 0 of three servers: "1: 1 2 3" by placement. */
#define P 0

static struct rig *rig_of(void **state)
{
    struct rig *g = three(state);

    assert_string_equal(row_text(g, P), "1: 1 2 3");
    return g;
}

/* What was asked for is decided in one entry, without a word to anybody before. */
static void at_once(struct rig *g, const char *row)
{
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(g->n_seen, 0);
    assert_int_equal(g->n_proposals, 1);
    conclude(g, 0);
    assert_string_equal(row_text(g, P), row);
}

static void nothing(struct rig *g)
{
    uint32_t server;

    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(g->n_seen + g->n_proposals, 0);
    assert_int_equal(manager_waiting(g->m, &server), 0);
}

static void promote(struct rig *g, uint64_t conn, uint32_t learner, uint64_t incarnation)
{
    step(g, &(struct manager_event){ .kind = MANAGER_RECONFIG,
                                     .conn = conn,
                                     .reconfig = { .partition = P,
                                                   .view = row_of(g, P)->view,
                                                   .kind = RECONFIG_PROMOTE,
                                                   .server = learner,
                                                   .incarnation = incarnation } });
}

static void test_primary_removes(void **state)
{
    struct rig *g = rig_of(state);

    ask(g, 1, P, RECONFIG_REMOVE, 2);
    at_once(g, "2: 1 3 | 2");
    assert_int_equal(count(g, MANAGER_DO_VIEW), 3);
    ask(g, 1, P, RECONFIG_REMOVE, 3);
    at_once(g, "3: 1 | 2 3");
    ask(g, 1, P, RECONFIG_REMOVE, 1); /* the last one stays */
    nothing(g);
}

/* Two in one tick: both go, in one view. */
static void test_primary_removes_two(void **state)
{
    struct rig *g = rig_of(state);

    ask(g, 1, P, RECONFIG_REMOVE, 3);
    ask(g, 1, P, RECONFIG_REMOVE, 2);
    at_once(g, "2: 1 | 2 3");
}

/* R8: withdrawing a learner is a new view of the same. */
static void test_withdraw(void **state)
{
    struct rig *g = *state;

    rig_manager(g, 0, 3);
    servers(g, 3);
    ask(g, 1, P, RECONFIG_REMOVE, 2); /* below min-replicas-auto */
    nothing(g);
    rig_manager(g, 0, 0);
    servers(g, 3);
    ask(g, 1, P, RECONFIG_REMOVE, 2);
    at_once(g, "2: 1 3 | 2");
    ask(g, 1, P, RECONFIG_REMOVE, 2);
    at_once(g, "3: 1 3 | 2");
}

static void test_secondary_leaves(void **state)
{
    struct rig *g = rig_of(state);

    ask(g, 3, P, RECONFIG_REMOVE, 3);
    ask(g, 1, P, RECONFIG_REMOVE, 2); /* at the same time */
    at_once(g, "2: 1 | 2 3");
}

/* R6: one that restarted and lacks something leaves as well. */
static void test_restarted_leaves(void **state)
{
    struct rig *g = rig_of(state);

    enrol(g, 13, 3, 2);
    ask(g, 13, P, RECONFIG_REMOVE, 3);
    at_once(g, "2: 1 2 | 3");
}

/* But if the primary has restarted as well it does not act, and may have lost what only others
 * hold: they have to report. */
static void test_restarted_primary(void **state)
{
    struct rig *g = rig_of(state);

    enrol(g, 11, 1, 2);
    ask(g, 11, P, RECONFIG_REMOVE, 2);
    ask(g, 11, P, RECONFIG_RESIGN, 2);
    nothing(g);
    ask(g, 3, P, RECONFIG_REMOVE, 3);
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(count(g, MANAGER_DO_SEAL), 3);
    sealed(g, 11, P, 1, 1, 4);
    sealed(g, 2, P, 1, 1, 5);
    at_once(g, "2: 2 1 | 3");
    ask(g, 2, P, RECONFIG_REMOVE, 1); /* in the new view everybody is who they were */
    at_once(g, "3: 2 | 3 1");
}

static void test_primary_restarts_meanwhile(void **state)
{
    struct rig *g = rig_of(state);

    ask(g, 1, P, RECONFIG_REMOVE, 2);
    enrol(g, 11, 1, 2);
    nothing(g);
}

/* The proposal is on its way when the primary restarts: the log decides that it is void. */
static void test_primary_restarts_before_commit(void **state)
{
    struct rig *g = rig_of(state);
    struct proposal views;

    ask(g, 1, P, RECONFIG_REMOVE, 2);
    tick(g, MANAGER_TICK_USEC);
    gone(g, 1);
    say_register(g, 11, 1, 2, 52);
    views = g->proposals[0];
    g->proposals[0] = g->proposals[1];
    g->proposals[1] = views;
    conclude(g, 0);
    conclude(g, 0);
    assert_string_equal(row_text(g, P), "1: 1 2 3");
    nothing(g);
}

static void test_resign(void **state)
{
    struct rig *g = rig_of(state);

    ask(g, 1, P, RECONFIG_RESIGN, 1); /* to itself */
    ask(g, 1, P, RECONFIG_RESIGN, 4); /* to nobody */
    ask(g, 2, P, RECONFIG_RESIGN, 3); /* not the primary's word */
    nothing(g);
    ask(g, 1, P, RECONFIG_RESIGN, 3);
    at_once(g, "2: 3 2 1");
    ask(g, 3, P, RECONFIG_RESIGN, 2);
    at_once(g, "3: 2 1 3");
    gone(g, 3);
    ask(g, 2, P, RECONFIG_RESIGN, 3); /* it is away */
    enrol(g, 13, 3, 2);
    ask(g, 2, P, RECONFIG_RESIGN, 3); /* it restarted */
    nothing(g);
}

static void test_promote(void **state)
{
    struct rig *g = rig_of(state);

    promote(g, 1, 2, 1); /* a member already */
    nothing(g);
    ask(g, 1, P, RECONFIG_REMOVE, 2);
    at_once(g, "2: 1 3 | 2");
    promote(g, 1, 4, 1); /* nobody */
    promote(g, 3, 2, 1); /* not the primary's word */
    promote(g, 2, 2, 1);
    promote(g, 1, 2, 2); /* another process of it */
    nothing(g);
    gone(g, 2);
    promote(g, 1, 2, 1); /* away */
    nothing(g);
    enrol(g, 12, 2, 2);
    promote(g, 1, 2, 1); /* the process that had caught up is over */
    nothing(g);
    promote(g, 1, 2, 2);
    at_once(g, "3: 1 3 2");
}

/* Between proposal and commit the learner restarts: it is no member. */
static void test_promote_restarted(void **state)
{
    struct rig *g = rig_of(state);
    struct proposal views;

    ask(g, 1, P, RECONFIG_REMOVE, 2);
    at_once(g, "2: 1 3 | 2");
    promote(g, 1, 2, 1);
    tick(g, MANAGER_TICK_USEC);
    gone(g, 2);
    say_register(g, 12, 2, 2, 52);
    views = g->proposals[0];
    g->proposals[0] = g->proposals[1];
    g->proposals[1] = views;
    conclude(g, 0);
    conclude(g, 0);
    assert_string_equal(row_text(g, P), "2: 1 3 | 2");
    nothing(g);
}

/* An accusation goes before a promotion, in whatever order they come; a seal before both. */
static void test_order(void **state)
{
    struct rig *g = rig_of(state);

    ask(g, 1, P, RECONFIG_REMOVE, 2);
    at_once(g, "2: 1 3 | 2");
    promote(g, 1, 2, 1);
    ask(g, 1, P, RECONFIG_REMOVE, 3);
    at_once(g, "3: 1 | 2 3");
    promote(g, 1, 2, 1);
    at_once(g, "4: 1 2 | 3");
    ask(g, 2, P, RECONFIG_REMOVE, 1);
    promote(g, 1, 3, 1);
    ask(g, 1, P, RECONFIG_REMOVE, 2);
    sealed(g, 2, P, 4, 1, 1);
    tick(g, MANAGER_TICK_USEC);
    conclude(g, 0);
    assert_string_equal(row_text(g, P), "5: 2 | 3 1");
}

static void test_ignored(void **state)
{
    struct rig *g = rig_of(state);

    ask(g, 2, P, RECONFIG_REMOVE, 3);  /* secondaries don't hear each other */
    ask(g, 1, P, RECONFIG_REMOVE, 7);  /* who is that */
    ask(g, 77, P, RECONFIG_REMOVE, 2); /* and who is this */
    ask(g, 1, P, 0, 2);
    ask(g, 1, P, _RECONFIG_MAX, 2);
    enrol(g, 4, 4, 1);
    ask(g, 4, P, RECONFIG_REMOVE, 1); /* no member */
    enrol(g, 12, 2, 2);
    ask(g, 2, P, RECONFIG_REMOVE, 2);  /* the old process, late */
    ask(g, 12, P, RECONFIG_REMOVE, 1); /* a new one has seen nothing of this view */
    nothing(g);
    step(g, &(struct manager_event){
                .kind = MANAGER_RECONFIG,
                .conn = 1,
                .reconfig = { .partition = P, .view = 2, .kind = RECONFIG_REMOVE, .server = 2 } });
    nothing(g);
    lead(g, false);
    ask(g, 1, P, RECONFIG_REMOVE, 3);
    lead(g, true);
    nothing(g);
}

/* min-replicas-auto bounds what leaves, too. */
static void test_min_replicas(void **state)
{
    struct rig *g = *state;

    rig_manager(g, 0, 2);
    servers(g, 3);
    ask(g, 1, P, RECONFIG_REMOVE, 2);
    ask(g, 1, P, RECONFIG_REMOVE, 3); /* one of them, not both */
    at_once(g, "2: 1 3 | 2");
    ask(g, 3, P, RECONFIG_REMOVE, 3);
    nothing(g);
}

/* ---- what the restart of managers keeps ---- */

/* Who restarted since a view is in the replicated state: another leader knows it as well. */
static void test_next_leader(void **state)
{
    struct rig *g = rig_of(state);
    _cleanup_(buf_free) struct buf snapshot = { 0 };

    enrol(g, 11, 1, 2);
    manager_snapshot(g->m, &snapshot);
    rig_manager(g, 0, 0);
    assert_int_equal(manager_restore(g->m, buf_head(&snapshot), buf_len(&snapshot)), 0);
    lead(g, true);
    enrol(g, 21, 1, 2);
    enrol(g, 22, 2, 1);
    enrol(g, 23, 3, 1);
    ask(g, 21, P, RECONFIG_REMOVE, 2);
    nothing(g);
    accuse(g, 21, P, 1);
    sealed(g, 21, P, 1, 1, 9);
    sealed(g, 22, P, 1, 1, 9);
    sealed(g, 23, P, 1, 1, 9);
    tick(g, MANAGER_TICK_USEC);
    conclude(g, 0);
    assert_string_equal(row_text(g, P), "2: 1 2 3");
    ask(g, 21, P, RECONFIG_REMOVE, 2);
    at_once(g, "3: 1 3 | 2");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_primary_removes),
        TEST(test_primary_removes_two),
        TEST(test_withdraw),
        TEST(test_secondary_leaves),
        TEST(test_restarted_leaves),
        TEST(test_restarted_primary),
        TEST(test_primary_restarts_meanwhile),
        TEST(test_primary_restarts_before_commit),
        TEST(test_resign),
        TEST(test_promote),
        TEST(test_promote_restarted),
        TEST(test_order),
        TEST(test_ignored),
        TEST(test_min_replicas),
        TEST(test_next_leader),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
