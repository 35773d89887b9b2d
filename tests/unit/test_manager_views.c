/* View changes: who asks for what, what is decided at once, and what needs all to seal (R6 to R9,
 * R11, R14, R16). */
#include "manager_rig.h"

/* ---- new views (R6, R7, R9) ---- */

static void test_view_round(void **state)
{
    struct rig *g = three(state);
    const struct view_row *row = &cluster(g)->space.rows[5];
    bool asked[4] = { false };
    uint32_t server;

    accuse(g, 2, 5, 1);
    assert_int_equal(manager_waiting(g->m, &server), 1);
    assert_int_equal(server, 0);
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(g->n_seen, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(g->seen[i].kind, MANAGER_DO_SEAL);
        assert_int_equal(g->seen[i].note.partition, 5);
        assert_int_equal(g->seen[i].note.view, 1);
        asked[g->seen[i].conn] = true;
    }
    assert_true(asked[1] && asked[2] && asked[3]);
    sealed(g, 1, 5, 1, 1, 10);
    sealed(g, 2, 5, 1, 1, 12);
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(g->n_seen + g->n_proposals, 0); /* one is missing: nothing, not even again */
    sealed(g, 3, 5, 1, 1, 11);
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(g->n_proposals, 1);
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(g->n_proposals, 1); /* one at a time */
    conclude(g, 0);
    assert_int_equal(count(g, MANAGER_DO_VIEW), 3);
    assert_int_equal(only(g, MANAGER_DO_CHANGED)->changed.n, 1);
    assert_int_equal(row->view, 2);
    assert_int_equal(row->n_members, 3);
    assert_int_equal(row->members[0], 2); /* the highest seq */
    assert_true(row->time_usec == 1003);  /* the latest time */
    assert_int_equal(manager_waiting(g->m, &server), 0);
}

/* (view, seq) in this order: an entry of a later view beats a longer tail of an earlier one. */
static void test_view_order(void **state)
{
    struct rig *g = three(state);

    accuse(g, 1, 3, 1);
    tick(g, MANAGER_TICK_USEC);
    sealed(g, 1, 3, 1, 1, 900);
    sealed(g, 2, 3, 1, 1, 901);
    sealed(g, 3, 3, 1, 2, 7);
    tick(g, MANAGER_TICK_USEC);
    conclude(g, 0);
    assert_int_equal(cluster(g)->space.rows[3].members[0], 3);
}

/* When all hold the same, the one that placement wants leads. */
static void test_view_preferred(void **state)
{
    struct rig *g = three(state);

    for (uint16_t p = 0; p < N_PARTITIONS; p++) {
        uint32_t first = cluster(g)->space.rows[p].members[0];
        accuse(g, 1, p, 1);
        tick(g, MANAGER_TICK_USEC);
        for (unsigned i = 1; i <= 3; i++) {
            sealed(g, i, p, 1, 1, 4);
        }
        tick(g, MANAGER_TICK_USEC);
        conclude(g, 0);
        assert_int_equal(cluster(g)->space.rows[p].members[0], first);
        assert_int_equal(cluster(g)->space.rows[p].view, 2);
    }
}

static void test_renew_ignored(void **state)
{
    struct rig *g = three(state);
    uint32_t server;

    accuse(g, 77, 5, 1); /* nobody */
    accuse(g, 1, 5, 0);  /* of another view */
    accuse(g, 1, 5, 2);
    accuse(g, 1, N_PARTITIONS, 1); /* no such partition */
    enrol(g, 4, 4, 1);
    accuse(g, 4, 5, 1); /* no member */
    lead(g, false);
    accuse(g, 1, 5, 1); /* not the leader's business */
    lead(g, true);
    assert_int_equal(manager_waiting(g->m, &server), 0);
}

static void test_sealed_ignored(void **state)
{
    struct rig *g = three(state);

    for (unsigned i = 1; i <= 3; i++) {
        sealed(g, i, 5, 1, 1, 1); /* nobody asked */
    }
    accuse(g, 1, 5, 1);
    tick(g, MANAGER_TICK_USEC);
    sealed(g, 1, 5, 1, 1, 1);
    sealed(g, 2, 5, 2, 1, 1); /* another view */
    sealed(g, 3, 5, 1, 1, 1);
    sealed(g, 77, 5, 1, 1, 1);
    sealed(g, 2, N_PARTITIONS, 1, 1, 1);
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(g->n_proposals, 0);
}

/* One that is away is waited for until the failure timeout, and is a learner then. */
static void test_member_away(void **state)
{
    struct rig *g = three(state);
    uint32_t server;

    gone(g, 2);
    accuse(g, 1, 4, 1);
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(count(g, MANAGER_DO_SEAL), 2); /* the others at once */
    assert_int_equal(manager_waiting(g->m, &server), 1);
    assert_int_equal(server, 2);
    sealed(g, 1, 4, 1, 1, 9);
    sealed(g, 3, 4, 1, 1, 9);
    tick(g, MANAGER_FAILURE_USEC_DEFAULT - MANAGER_TICK_USEC - 1);
    assert_int_equal(g->n_proposals, 0);
    tick(g, 1);
    assert_int_equal(g->n_proposals, 1);
    conclude(g, 0);
    assert_int_equal(row_of(g, 4)->n_members, 2);
    assert_int_equal(row_of(g, 4)->n_learners, 1);
    assert_int_equal(row_of(g, 4)->learners[0], 2);
    assert_int_equal(manager_waiting(g->m, &server), 0);
    enrol(g, 12, 2, 2);
    accuse(g, 12, 4, 2); /* a learner has no say */
    assert_int_equal(manager_waiting(g->m, &server), 0);
}

/* One that comes back within it is asked when it comes, and stays. */
static void test_member_back(void **state)
{
    struct rig *g = three(state);

    gone(g, 2);
    accuse(g, 1, 5, 1);
    tick(g, MANAGER_TICK_USEC);
    sealed(g, 1, 5, 1, 1, 9);
    sealed(g, 3, 5, 1, 1, 9);
    tick(g, MANAGER_FAILURE_USEC_DEFAULT / 2);
    assert_int_equal(g->n_seen, 0);
    enrol(g, 12, 2, 2);
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(only(g, MANAGER_DO_SEAL)->conn, 12);
    sealed(g, 12, 5, 1, 1, 9);
    tick(g, MANAGER_TICK_USEC);
    conclude(g, 0);
    assert_int_equal(row_of(g, 5)->n_members, 3);
}

static void test_seal_again(void **state)
{
    struct rig *g = *state;

    rig_manager(g, 3 * MANAGER_SEAL_USEC, 0);
    servers(g, 3);
    accuse(g, 1, 5, 1);
    tick(g, MANAGER_TICK_USEC);
    sealed(g, 1, 5, 1, 1, 1);
    sealed(g, 3, 5, 1, 1, 1);
    tick(g, MANAGER_SEAL_USEC - 1);
    assert_int_equal(g->n_seen, 0);
    tick(g, 1);
    assert_int_equal(only(g, MANAGER_DO_SEAL)->conn, 2);
}

/* A report counts only for the process that made it. */
static void test_restart_after_report(void **state)
{
    struct rig *g = three(state);

    accuse(g, 1, 5, 1);
    tick(g, MANAGER_TICK_USEC);
    sealed(g, 2, 5, 1, 1, 9);
    enrol(g, 12, 2, 2);
    sealed(g, 1, 5, 1, 1, 8);
    sealed(g, 3, 5, 1, 1, 8);
    sealed(g, 2, 5, 1, 1, 9); /* over the old connection */
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(g->n_proposals, 0);
    assert_int_equal(only(g, MANAGER_DO_SEAL)->conn, 12);
    sealed(g, 12, 5, 1, 1, 3);
    tick(g, MANAGER_TICK_USEC);
    conclude(g, 0);
    assert_int_equal(cluster(g)->space.rows[5].view, 2);
    assert_int_not_equal(cluster(g)->space.rows[5].members[0], 2);
}

/* Between proposal and commit a member restarts: the view that has committed is void. */
static void test_restart_before_commit(void **state)
{
    struct rig *g = three(state);
    struct proposal views;

    accuse(g, 1, 5, 1);
    tick(g, MANAGER_TICK_USEC);
    for (unsigned i = 1; i <= 3; i++) {
        sealed(g, i, 5, 1, 1, 9);
    }
    tick(g, MANAGER_TICK_USEC);
    gone(g, 2);
    say_register(g, 12, 2, 2, 52);
    assert_int_equal(g->n_proposals, 2);
    views = g->proposals[0]; /* the log has them in the other order */
    g->proposals[0] = g->proposals[1];
    g->proposals[1] = views;
    conclude(g, 0);
    conclude(g, 0);
    assert_int_equal(g->n_seen, 0);
    assert_int_equal(cluster(g)->space.rows[5].view, 1);
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(only(g, MANAGER_DO_SEAL)->conn, 12);
    sealed(g, 12, 5, 1, 1, 9);
    tick(g, MANAGER_TICK_USEC);
    conclude(g, 0);
    assert_int_equal(cluster(g)->space.rows[5].view, 2);
}

/* A lost proposal is made again from what is still known. */
static void test_views_lost(void **state)
{
    struct rig *g = three(state);

    accuse(g, 1, 5, 1);
    tick(g, MANAGER_TICK_USEC);
    for (unsigned i = 1; i <= 3; i++) {
        sealed(g, i, 5, 1, 1, 9);
    }
    tick(g, MANAGER_TICK_USEC);
    conclude(g, -EREMOTEIO);
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(g->n_proposals, 1);
    conclude(g, 0);
    assert_int_equal(cluster(g)->space.rows[5].view, 2);
}

/* What was heard while leading is forgotten with the lead. */
static void test_new_leader(void **state)
{
    struct rig *g = three(state);
    uint32_t server;

    accuse(g, 1, 5, 1);
    lead(g, false);
    assert_int_equal(manager_waiting(g->m, &server), 0);
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(g->n_seen + g->n_proposals, 0);
    lead(g, true);
    accuse(g, 1, 5, 1);
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(count(g, MANAGER_DO_SEAL), 3);
}

/* ---- removal by sealing (R7, R11, R14) ---- */

static uint32_t primary_of(const struct rig *g, uint16_t partition)
{
    return row_of(g, partition)->members[0];
}

/* A partition that this server leads. */
static uint16_t led_by(const struct rig *g, uint32_t server)
{
    uint16_t p = 0;

    while (primary_of(g, p) != server) {
        p++;
        assert_true(p < N_PARTITIONS);
    }
    return p;
}

/* An accused primary is not waited for. */
static void test_accused_primary(void **state)
{
    struct rig *g = three(state);
    uint16_t p = led_by(g, 1);

    ask(g, 2, p, RECONFIG_REMOVE, 1);
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(count(g, MANAGER_DO_SEAL), 3); /* it is asked, too */
    sealed(g, 2, p, 1, 1, 9);
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(g->n_proposals, 0);
    sealed(g, 3, p, 1, 1, 10);
    tick(g, MANAGER_TICK_USEC);
    conclude(g, 0);
    assert_string_equal(row_text(g, p), "2: 3 2 | 1");
    assert_int_equal(count(g, MANAGER_DO_VIEW), 3); /* the learner hears of it */
}

/* It stays a member if it reports in time, but it does not lead, though it holds most. */
static void test_accused_primary_reports(void **state)
{
    struct rig *g = three(state);
    uint16_t p = led_by(g, 2);

    accuse(g, 3, p, 1);               /* somebody restarted… */
    ask(g, 1, p, RECONFIG_REMOVE, 2); /* …and the primary is accused: the stronger counts */
    sealed(g, 2, p, 1, 1, 12);
    sealed(g, 1, p, 1, 1, 9);
    sealed(g, 3, p, 1, 1, 9);
    tick(g, MANAGER_TICK_USEC);
    conclude(g, 0);
    assert_int_equal(row_of(g, p)->n_members, 3);
    assert_int_not_equal(primary_of(g, p), 2);
}

/* Two of three die: the last one accuses, and leads alone after the failure timeout. */
static void test_last_member(void **state)
{
    struct rig *g = three(state);
    uint16_t p = led_by(g, 1);

    gone(g, 1);
    gone(g, 2);
    ask(g, 3, p, RECONFIG_REMOVE, 1);
    sealed(g, 3, p, 1, 1, 9);
    tick(g, MANAGER_FAILURE_USEC_DEFAULT - 1);
    assert_int_equal(g->n_proposals, 0);
    tick(g, 1);
    conclude(g, 0);
    assert_string_equal(row_text(g, p), "2: 3 | 1 2");
}

/* Nobody but the accused is left: it leads again. */
static void test_accuser_dies(void **state)
{
    struct rig *g = three(state);
    uint16_t p = led_by(g, 1);

    ask(g, 2, p, RECONFIG_REMOVE, 1);
    gone(g, 2);
    gone(g, 3);
    sealed(g, 1, p, 1, 1, 9);
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(g->n_proposals, 0);
    tick(g, MANAGER_FAILURE_USEC_DEFAULT);
    conclude(g, 0);
    assert_string_equal(row_text(g, p), "2: 1 | 2 3");
}

/* min-replicas-auto: fewer are not enough, however long it takes. */
static void test_min_replicas(void **state)
{
    struct rig *g = *state;
    uint16_t p;

    rig_manager(g, 0, 2);
    servers(g, 3);
    p = led_by(g, 1);
    gone(g, 1);
    gone(g, 2);
    ask(g, 3, p, RECONFIG_REMOVE, 1);
    sealed(g, 3, p, 1, 1, 9);
    tick(g, 10 * MANAGER_FAILURE_USEC_DEFAULT);
    assert_int_equal(g->n_proposals, 0);
    enrol(g, 12, 2, 1);
    sealed(g, 12, p, 1, 1, 8);
    tick(g, MANAGER_TICK_USEC);
    conclude(g, 0);
    assert_string_equal(row_text(g, p), "2: 3 2 | 1");
}

/* R14: after a gap in its own turns, and after an election, the manager waits a whole timeout. */
static void test_gap(void **state)
{
    struct rig *g = three(state);
    uint16_t p = led_by(g, 1);

    ask(g, 2, p, RECONFIG_REMOVE, 1);
    sealed(g, 2, p, 1, 1, 9);
    tick(g, MANAGER_TICK_USEC);
    tick(g, MANAGER_GAP_USEC + 1);
    assert_int_equal(g->n_proposals, 0); /* 3 may have been silent only because nobody listened */
    tick(g, MANAGER_FAILURE_USEC_DEFAULT - 1);
    assert_int_equal(g->n_proposals, 0);
    tick(g, 1);
    conclude(g, 0);
    assert_string_equal(row_text(g, p), "2: 2 | 1 3");
}

/* A copy that may have lost answered writes is not enough for a view: all are waited for, until one
 * comes that has lost nothing. */
static void test_untrusted(void **state)
{
    struct rig *g = three(state);
    uint16_t p = led_by(g, 1);
    struct msg_sealed s = { .partition = p,
                            .view = 1,
                            .last = { .view = 1, .seq = 9 },
                            .commit = { .view = 1, .seq = 8 } };
    uint32_t server;

    gone(g, 1);
    accuse(g, 2, p, 1);
    report(g, 2, &s);
    report(g, 3, &s);
    tick(g, MANAGER_TICK_USEC);
    tick(g, MANAGER_FAILURE_USEC_DEFAULT);
    tick(g, MANAGER_FAILURE_USEC_DEFAULT);
    assert_int_equal(g->n_proposals, 0);
    assert_int_equal(manager_waiting(g->m, &server), 1);
    assert_int_equal(server, 1);
    s.trusted = true;
    report(g, 3, &s);
    tick(g, MANAGER_TICK_USEC);
    conclude(g, 0);
    assert_int_equal(row_of(g, p)->n_members, 2);
    assert_int_equal(row_of(g, p)->learners[0], 1);
}

/* All have reported, and none is to be trusted: the highest leads; who lacks what that one knows as
 * committed learns anew. */
static void test_untrusted_all(void **state)
{
    struct rig *g = three(state);
    uint16_t p = led_by(g, 1);
    struct msg_sealed s = { .partition = p,
                            .view = 1,
                            .last = { .view = 1, .seq = 9 },
                            .commit = { .view = 1, .seq = 7 } };

    accuse(g, 2, p, 1);
    report(g, 1, &s);
    s.last.seq = 7;
    report(g, 2, &s);
    s.last.seq = 6;
    s.commit.seq = 6;
    report(g, 3, &s);
    tick(g, MANAGER_TICK_USEC);
    conclude(g, 0);
    assert_string_equal(row_text(g, p), "2: 1 2 | 3");
}

/* An accused primary leads all the same if only it is sure to hold what was answered. */
static void test_untrusted_accuser(void **state)
{
    struct rig *g = three(state);
    uint16_t p = led_by(g, 1);
    struct msg_sealed s = {
        .partition = p, .view = 1, .last = { .view = 1, .seq = 9 }, .trusted = true
    };

    ask(g, 2, p, RECONFIG_REMOVE, 1);
    report(g, 1, &s);
    s.last.seq = 5;
    s.trusted = false;
    report(g, 2, &s);
    report(g, 3, &s);
    tick(g, MANAGER_TICK_USEC);
    conclude(g, 0);
    assert_int_equal(row_of(g, p)->n_members, 3);
    assert_int_equal(primary_of(g, p), 1);
}

/* What one has committed the leader has to hold. */
static void test_disagreeing_copy(void **state)
{
    struct rig *g = three(state);
    uint16_t p = led_by(g, 1);
    struct msg_sealed s = { .partition = p, .view = 1, .trusted = true };

    accuse(g, 2, p, 1);
    s.last = s.commit = (struct name){ .view = 1, .seq = 20 };
    report(g, 1, &s);
    s.last = s.commit = (struct name){ .view = 2, .seq = 15 };
    report(g, 2, &s);
    report(g, 3, &s);
    tick(g, MANAGER_TICK_USEC);
    conclude(g, 0);
    assert_int_equal(row_of(g, p)->n_members, 2);
    assert_int_equal(row_of(g, p)->learners[0], 1);
}

/* A member that says during the round that it is no good is not waited for. */
static void test_leaves_while_sealing(void **state)
{
    struct rig *g = three(state);
    uint16_t p = led_by(g, 1);

    accuse(g, 1, p, 1);
    sealed(g, 1, p, 1, 1, 9);
    sealed(g, 2, p, 1, 1, 9);
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(g->n_proposals, 0);
    ask(g, 3, p, RECONFIG_REMOVE, 3);
    tick(g, MANAGER_TICK_USEC);
    conclude(g, 0);
    assert_string_equal(row_text(g, p), "2: 1 2 | 3");
}

/* A primary that restarted without its copy: the others go on without waiting for it. */
static void test_primary_lost_its_copy(void **state)
{
    struct rig *g = three(state);
    uint16_t p = led_by(g, 1);

    enrol(g, 11, 1, 2);
    ask(g, 11, p, RECONFIG_REMOVE, 1);
    sealed(g, 2, p, 1, 1, 9);
    sealed(g, 3, p, 1, 1, 9);
    tick(g, MANAGER_TICK_USEC);
    conclude(g, 0);
    assert_int_equal(row_of(g, p)->n_members, 2);
    assert_int_equal(row_of(g, p)->learners[0], 1);
}

/* ---- many at once ---- */

/* A server dies with all partitions: one entry, as many rows as fit, then the rest. */
static void test_many(void **state)
{
    struct rig *g = three(state);
    size_t changed = 0;

    gone(g, 1);
    for (uint16_t p = 0; p < N_PARTITIONS; p++) {
        uint64_t asker = primary_of(g, p) == 2 ? 2 : 3;
        ask(g, asker, p, RECONFIG_REMOVE, 1);
    }
    for (uint16_t p = 0; p < N_PARTITIONS; p++) {
        sealed(g, 2, p, 1, 1, 9);
        sealed(g, 3, p, 1, 1, 9);
    }
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(g->n_proposals, 1);
    conclude(g, 0);
    for (uint16_t p = 0; p < N_PARTITIONS; p++) {
        assert_int_equal(row_of(g, p)->view, 2);
        assert_int_equal(row_of(g, p)->n_members, 2);
        assert_int_equal(row_of(g, p)->learners[0], 1);
    }
    for (size_t i = 0; i < g->n_seen; i++) {
        const struct manager_action *a = &g->seen[i];
        if (a->kind == MANAGER_DO_CHANGED) {
            changed += a->changed.n;
            assert_int_equal(a->changed.before[0].n_members, 3);
        }
    }
    assert_int_equal(changed, N_PARTITIONS);
}

/* The leader tells its servers that it lives, and nobody else does. */
static void test_beat(void **state)
{
    struct rig *g = three(state);

    tick(g, MANAGER_BEAT_USEC);
    assert_int_equal(g->n_beats, 3);
    tick(g, MANAGER_BEAT_USEC - 1);
    assert_int_equal(g->n_beats, 0);
    gone(g, 2);
    tick(g, 1);
    assert_int_equal(g->n_beats, 2);
    lead(g, false);
    tick(g, MANAGER_BEAT_USEC);
    assert_int_equal(g->n_beats, 0);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_view_round),
        TEST(test_view_order),
        TEST(test_view_preferred),
        TEST(test_renew_ignored),
        TEST(test_sealed_ignored),
        TEST(test_member_away),
        TEST(test_member_back),
        TEST(test_seal_again),
        TEST(test_restart_after_report),
        TEST(test_restart_before_commit),
        TEST(test_views_lost),
        TEST(test_new_leader),
        TEST(test_accused_primary),
        TEST(test_accused_primary_reports),
        TEST(test_last_member),
        TEST(test_accuser_dies),
        TEST(test_min_replicas),
        TEST(test_gap),
        TEST(test_untrusted),
        TEST(test_untrusted_all),
        TEST(test_untrusted_accuser),
        TEST(test_disagreeing_copy),
        TEST(test_leaves_while_sealing),
        TEST(test_primary_lost_its_copy),
        TEST(test_many),
        TEST(test_beat),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
