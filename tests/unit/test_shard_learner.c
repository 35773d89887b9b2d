/* Learners: catch-up between two shards (R17), the joint rule (R8), and a copy that is not trusted
 * any more (R15). Server 3 is the one that was away. */
#include "shard_rig_ops.h"

static const char *const keys[] = { "a", "b", "c", "d" };

static void set(struct rig *g, const char *key, const char *value)
{
    uint64_t id = rig_kv(g, 1, OP_SET, key, value);

    rig_run(g, "12");
    assert_int_equal(rig_answer(g, id), RESULT_STORED);
}

/* View 2 without server 3, which missed some writes. */
static int setup(void **state)
{
    struct rig *g = rig_new(1);

    rig_form(g, 1, "123");
    rig_kv(g, 1, OP_SET, "a", "1");
    rig_kv(g, 1, OP_SET, "b", "1");
    rig_run(g, "123");
    for (uint32_t i = 1; i <= 2; i++) {
        rig_view(g, i, 2, "12+3");
    }
    rig_run(g, "12");
    rig_assert_state(g, 1, REPLICA_PRIMARY);
    set(g, "b", "2");
    set(g, "c", "2");
    rig_drop_all(g, 0, 0, 3);
    *state = g;
    return 0;
}

static int teardown(void **state)
{
    rig_free(*state);
    return 0;
}

static void assert_same(struct rig *g)
{
    char mine[64];
    char its[64];

    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        assert_string_equal(rig_peek(g, 3, keys[i], its), rig_peek(g, 1, keys[i], mine));
    }
    assert_true(rig_info(g, 3).digest == rig_info(g, 1).digest);
}

static void tick_all(struct rig *g, uint64_t usec)
{
    g->boot_usec += usec;
    for (uint32_t i = 1; i <= RIG_SERVERS; i++) {
        rig_tick(g, i, 0);
    }
    rig_run(g, "123");
}

/* It is told of the view, and learns. */
static void learn(struct rig *g)
{
    rig_view(g, 3, 2, "12+3");
    rig_run(g, "123");
    rig_assert_state(g, 3, REPLICA_LEARNER);
    tick_all(g, SHARD_LEASE_USEC);
}

static void joint(struct rig *g)
{
    rig_event(g, 1, SHARD_MANAGER, 0);
    tick_all(g, 0);
    assert_true(rig_info(g, 1).joint);
}

static void test_returns(void **state)
{
    struct rig *g = *state;
    struct shard_counts c;

    learn(g);
    assert_true(rig_info(g, 3).complete);
    assert_same(g);
    shard_count(g->nodes[1].shard, &c);
    assert_in_range(c.taught_bytes, 1, 600); /* a start and two records: what has changed */
    set(g, "d", "3");                        /* the stream reaches it too */
    rig_run(g, "123");
    joint(g);
    assert_int_equal(g->nodes[1].accused.kind, RECONFIG_PROMOTE);
    assert_int_equal(g->nodes[1].accused.server, 3);
    assert_int_equal(g->nodes[1].accused.incarnation, 1);
    rig_form(g, 3, "123");
    tick_all(g, SHARD_COMMIT_USEC);
    assert_same(g);
    rig_assert_replay(g, 3, keys, ARRAY_LEN(keys));
}

/* Writes that come while it learns. */
static void test_stream_meanwhile(void **state)
{
    struct rig *g = *state;

    rig_view(g, 3, 2, "12+3");
    rig_sync(g, 3);
    rig_deliver_all(g, ACTION_CATCHUP_ASK, 3, 1);
    rig_turn(g, 1);
    assert_true(rig_deliver(g, ACTION_CATCHUP, 1, 3)); /* the start */
    set(g, "c", "3");
    rig_kv(g, 1, OP_DELETE, "b", NULL);
    rig_run(g, "12");
    rig_deliver_all(g, ACTION_PREPARE, 1, 3);
    rig_sync(g, 3);
    assert_false(rig_info(g, 3).complete);
    rig_run(g, "123");
    tick_all(g, SHARD_COMMIT_USEC);
    assert_true(rig_info(g, 3).complete);
    assert_same(g);
}

/* It waited for its turn so long that it seems silent when it has only begun: the stream goes on
 * all the same. */
static void test_turn_comes_late(void **state)
{
    struct rig *g = *state;

    rig_view(g, 3, 2, "12+3");
    rig_sync(g, 3);
    rig_deliver_all(g, ACTION_CATCHUP_ASK, 3, 1);
    g->boot_usec += 3000000;
    rig_turn(g, 1);
    rig_tick(g, 1, 3000000);
    rig_run(g, "123");
    assert_true(rig_info(g, 3).complete);
    set(g, "d", "3");
    rig_run(g, "123");
    tick_all(g, SHARD_LEASE_USEC);
    assert_same(g);
    joint(g);
}

/* A piece was lost: it is asked for again, from the beginning. */
static void test_lost_piece(void **state)
{
    struct rig *g = *state;

    rig_view(g, 3, 2, "12+3");
    rig_sync(g, 3);
    rig_deliver_all(g, ACTION_CATCHUP_ASK, 3, 1);
    rig_turn(g, 1);
    rig_deliver(g, ACTION_CATCHUP, 1, 3);
    rig_drop_all(g, ACTION_CATCHUP, 1, 3);
    rig_run(g, "123");
    assert_false(rig_info(g, 3).complete);
    tick_all(g, 3000000);
    tick_all(g, SHARD_COMMIT_USEC);
    assert_true(rig_info(g, 3).complete);
    assert_same(g);
}

/* It restarts in the view in which it had learned, and what it asks then is lost: the leases that
 * the primary goes on asking for don't keep it from asking again. */
static void test_restarts_unheard(void **state)
{
    struct rig *g = *state;

    learn(g);
    rig_restart(g, 3);
    rig_row(g, 3, SHARD_FLOOR, 0, 2, "12+3");
    rig_drop_all(g, ACTION_CATCHUP_ASK, 3, 1);
    for (unsigned i = 0; i < 15; i++) {
        tick_all(g, SHARD_LEASE_USEC);
    }
    set(g, "d", "3");
    rig_run(g, "123");
    tick_all(g, SHARD_COMMIT_USEC);
    assert_same(g);
}

/* It hears of a commit before the entry is durable in its own log: nobody waited for it. */
static void test_commit_before_durable(void **state)
{
    struct rig *g = *state;

    learn(g);
    set(g, "d", "3"); /* committed without it */
    rig_deliver_all(g, ACTION_PREPARE, 1, 3);
    g->boot_usec += SHARD_COMMIT_USEC;
    rig_tick(g, 1, 0);
    assert_true(rig_deliver_all(g, ACTION_COMMIT, 1, 3) > 0);
    assert_true(rig_info(g, 3).commit.seq < rig_info(g, 1).commit.seq);
    rig_sync(g, 3);
    assert_int_equal(rig_info(g, 3).commit.seq, rig_info(g, 1).commit.seq);
    assert_same(g);
}

/* A prepare that is lost on its way to it, and committed without it, is nowhere to be sent again:
 * it is taught anew, whether another one follows or only the word of the commit. */
static void test_lost_prepare(void **state)
{
    struct rig *g = *state;

    learn(g);
    for (unsigned i = 0; i < 2; i++) {
        set(g, "d", i ? "4" : "3");
        rig_drop_all(g, ACTION_PREPARE, 1, 3);
        if (i) {
            set(g, "c", "4");
        }
        tick_all(g, SHARD_COMMIT_USEC);
        tick_all(g, SHARD_LEASE_USEC);
        assert_int_equal(rig_info(g, 3).commit.seq, rig_info(g, 1).commit.seq);
        assert_same(g);
    }
}

/* R8: without the manager's word there is no joint state: nobody could end it. */
static void test_no_manager(void **state)
{
    struct rig *g = *state;

    learn(g);
    tick_all(g, SHARD_LEASE_USEC);
    assert_false(rig_info(g, 1).joint);
    assert_int_equal(g->nodes[1].accuses, 0);
}

/* R8: in the joint state nothing is committed, and nothing read, without the learner. */
static void test_joint(void **state)
{
    struct rig *g = *state;
    uint64_t id;
    uint64_t get;

    learn(g);
    joint(g);
    id = rig_kv(g, 1, OP_SET, "d", "1");
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, id), 0);
    rig_run(g, "123");
    assert_int_equal(rig_answer(g, id), RESULT_STORED);
    g->holds_leases = true;
    g->boot_usec += LEASE_USEC;
    rig_tick(g, 1, 0);
    rig_turn(g, 1);
    for (size_t i = 0; i < g->n_leases; i++) {
        if (g->leases[i].to == 3) {
            g->leases[i].n = 0; /* it does not get there */
        }
    }
    while (g->n_leases > 0) {
        rig_lease_pass(g);
    }
    get = rig_kv(g, 1, OP_GET, "a", NULL);
    assert_int_equal(rig_answer(g, get), 0);
}

/* R8: a joint learner that is not heard: the manager is asked for a view without the need. */
static void test_withdrawn(void **state)
{
    struct rig *g = *state;
    uint64_t id;

    learn(g);
    joint(g);
    id = rig_kv(g, 1, OP_SET, "d", "1");
    g->loses_leases = true;
    for (unsigned i = 0; i < 25; i++) {
        rig_tick(g, 1, SHARD_TICK_USEC);
        rig_run(g, "12");
    }
    assert_int_equal(rig_answer(g, id), 0);
    g->loses_leases = false;
    rig_drop_all(g, 0, 0, 3);
    assert_int_equal(g->nodes[1].accused.kind, RECONFIG_REMOVE);
    for (uint32_t i = 1; i <= 2; i++) {
        rig_view(g, i, 3, "12+3");
    }
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, id), RESULT_NOT_PRIMARY); /* R3: asked again, found there */
    rig_assert_state(g, 1, REPLICA_PRIMARY);
    set(g, "d", "2");
}

/* A joint learner that turns out to differ is not promoted: the need for it is taken back. */
static void test_joint_differs(void **state)
{
    struct rig *g = *state;
    struct shard_event e = { .kind = SHARD_LEARNED, .from = 3, .incarnation = 1 };

    learn(g);
    joint(g);
    e.learned = (struct msg_learned){ 0, 2, rig_info(g, 1).commit.seq, rig_info(g, 1).digest + 1 };
    g->boot_usec += SHARD_ACCUSE_USEC;
    rig_step(g, 1, &e);
    assert_int_equal(g->nodes[1].differs, 1);
    assert_int_equal(g->nodes[1].accused.kind, RECONFIG_REMOVE);
    assert_int_equal(g->nodes[1].accused.server, 3);
}

/* A joint learner that begins anew is not the process that promised. */
static void test_joint_restarts(void **state)
{
    struct rig *g = *state;

    learn(g);
    joint(g);
    rig_restart(g, 3);
    g->boot_usec += SHARD_ACCUSE_USEC;
    rig_row(g, 3, SHARD_FLOOR, 0, 2, "12+3");
    rig_run(g, "123");
    assert_true(rig_info(g, 1).joint);
    assert_int_equal(g->nodes[1].accused.kind, RECONFIG_REMOVE);
    assert_int_equal(g->nodes[1].accused.server, 3);
}

/* A slow disk at the learner's: it does not begin anew because nothing comes while it syncs. */
static void test_slow_learner(void **state)
{
    struct rig *g = *state;
    uint64_t starts;

    rig_view(g, 3, 2, "12+3");
    rig_sync(g, 3);
    rig_deliver_all(g, ACTION_CATCHUP_ASK, 3, 1);
    rig_turn(g, 1);
    starts = rig_msg_count(g, ACTION_CATCHUP, 1, 3);
    assert_true(starts > 1);
    assert_true(rig_deliver(g, ACTION_CATCHUP, 1, 3));
    rig_turn(g, 3);
    rig_tick(g, 3, 3000000);
    assert_int_equal(rig_msg_count(g, ACTION_CATCHUP_ASK, 3, 1), 0);
    rig_synced(g, 3);
    rig_tick(g, 3, 0);
    assert_int_equal(rig_msg_count(g, ACTION_CATCHUP_ASK, 3, 1), 0);
    rig_tick(g, 3, 3000000); /* now it is the primary that says nothing */
    assert_int_equal(rig_msg_count(g, ACTION_CATCHUP_ASK, 3, 1), 1);
}

/* What a learner said before it took the start of this catch-up counts for nothing: it may have cut
 * that since. */
static void test_stale_words(void **state)
{
    struct rig *g = *state;
    struct shard_event e = { .kind = SHARD_ACK, .from = 3, .incarnation = 1 };

    rig_view(g, 3, 2, "12+3");
    rig_sync(g, 3);
    rig_deliver_all(g, ACTION_CATCHUP_ASK, 3, 1);
    rig_turn(g, 1);
    assert_int_equal(rig_msg_count(g, ACTION_CATCHUP, 1, 3), 3);
    e.note = (struct msg_at){ 0, 2, rig_info(g, 1).last.seq };
    rig_step(g, 1, &e);
    e.kind = SHARD_LEARNED;
    e.learned = (struct msg_learned){ 0, 2, rig_info(g, 1).commit.seq, rig_info(g, 1).digest };
    rig_step(g, 1, &e);
    rig_tick(g, 1, SHARD_LEASE_USEC);
    rig_turn(g, 1);
    rig_event(g, 1, SHARD_MANAGER, 0);
    rig_tick(g, 1, 0);
    assert_false(rig_info(g, 1).joint);
    rig_run(g, "123"); /* and then it learns */
    joint(g);
}

/* What server 1 has written reads back wrong. */
static void rot(struct rig *g)
{
    struct rig_node *n = &g->nodes[1];

    for (size_t i = 0; i < n->n_files; i++) {
        for (size_t j = SEGMENT_HEAD_BYTES; j < n->files[i].bytes; j++) {
            n->files[i].data[j] ^= 0xff;
        }
    }
}

/* A record that can't be read: the copy stops and leaves, and is emptied when another one leads. */
static void test_distrust(void **state)
{
    struct rig *g = *state;
    struct rig_node *n = &g->nodes[1];
    uint64_t get;

    rot(g);
    get = rig_kv(g, 1, OP_GET, "a", NULL);
    assert_int_equal(rig_answer(g, get), RESULT_NOT_PRIMARY);
    rig_assert_state(g, 1, REPLICA_WAITING);
    rig_tick(g, 1, 2 * SHARD_ACCUSE_USEC);
    assert_int_equal(n->accused.kind, RECONFIG_REMOVE);
    assert_int_equal(n->accused.server, 1);
    assert_true(rig_info(g, 1).complete);
    rig_view(g, 1, 3, "2+13");
    rig_sync(g, 1);
    rig_assert_state(g, 1, REPLICA_LEARNER);
    assert_false(rig_info(g, 1).complete);
    rig_assert_name(rig_info(g, 1).commit, 0, 0);
    rig_view(g, 2, 3, "2+13");
    rig_run(g, "12");
    rig_tick(g, 1, SHARD_LEASE_USEC * 10);
    rig_run(g, "12");
    assert_true(rig_info(g, 1).complete);
}

/* The others have died meanwhile: then it is the last copy, and most of it can be read. */
static void test_distrust_last(void **state)
{
    struct rig *g = *state;
    struct rig_node *n = &g->nodes[1];
    uint64_t get;

    rig_kv(g, 1, OP_SET, "d", "4");
    rig_run(g, "12");
    n->cold = true;
    get = rig_kv(g, 1, OP_GET, "a", NULL);
    assert_int_equal(n->n_reads, 1);
    n->cold = false;
    rig_step(g, 1,
             &(struct shard_event){ .kind = SHARD_READ,
                                    .read = { .number = n->reads[0].read.number, .error = -EIO } });
    assert_int_equal(rig_answer(g, get), RESULT_NOT_PRIMARY);
    rig_seal(g, 1, 2);
    assert_int_equal(n->seals, 1);
    rig_view(g, 1, 3, "1+23");
    rig_run(g, "1");
    rig_assert_state(g, 1, REPLICA_PRIMARY);
    assert_string_equal(rig_get(g, 1, "d"), "4");
}

/* The primary finds rot while it teaches: somebody else must, or the learner never comes back. */
static void test_distrust_teaching(void **state)
{
    struct rig *g = *state;

    rig_tick(g, 1, SHARD_LEASE_USEC);
    rig_turn(g, 1);
    rot(g);
    rig_view(g, 3, 2, "12+3");
    rig_run(g, "123");
    assert_int_equal(g->nodes[1].damaged, 1);
    rig_assert_state(g, 1, REPLICA_WAITING);
    rig_tick(g, 1, 2 * SHARD_ACCUSE_USEC);
    assert_int_equal(g->nodes[1].accused.kind, RECONFIG_REMOVE);
    assert_int_equal(g->nodes[1].accused.server, 1);
}

/* What the server has is set aside: it starts with nothing, and says so. */
static void set_aside(struct rig_node *n)
{
    struct shard_options o = {
        .log = { .start = 2, .shards = 1, .partitions = 1, .first_segment = n->next_segment },
        .server = n->server,
        .value_bytes_max = RIG_VALUE_MAX,
        .index_open = index_map_open,
        .read = rig_read,
        .read_ctx = n,
        .distrusted = true,
    };

    shard_free(n->shard);
    while (n->n_files > 0) {
        free(n->files[--n->n_files].data);
    }
    assert_int_equal(shard_new(&o, &n->shard), 0);
    n->start = 2;
    n->written_group = n->synced_group = 0;
    shard_replay_end(n->shard);
}

/* …and it comes back with everything. */
static void test_distrust_returns(void **state)
{
    struct rig *g = *state;
    struct rig_node *n = &g->nodes[3];
    struct shard_counts c;

    set_aside(n);
    shard_count(n->shard, &c);
    assert_int_equal(c.distrusted, 1);
    rig_sync(g, 3);
    shard_count(n->shard, &c);
    assert_int_equal(c.distrusted, 0);
    assert_false(rig_info(g, 3).complete);
    rig_restart(g, 3); /* the emptied state is in the log */
    assert_false(rig_info(g, 3).complete);
    learn(g);
    tick_all(g, SHARD_COMMIT_USEC);
    assert_true(rig_info(g, 3).complete);
    assert_same(g);
}

/* …and a start that is told again that nothing counts, since the process died before it noted that
 * all was emptied, keeps what it has learnt since. */
static void test_distrust_told_again(void **state)
{
    struct rig *g = *state;
    struct rig_node *n = &g->nodes[3];

    set_aside(n);
    rig_sync(g, 3);
    learn(g);
    tick_all(g, SHARD_COMMIT_USEC);
    assert_true(rig_info(g, 3).complete);
    n->distrusted = true;
    rig_restart(g, 3);
    assert_true(rig_info(g, 3).complete);
    assert_same(g);
}

/* Set aside before there was anything: the first view makes it complete, and so does a replay. */
static void test_distrust_unborn(void **state)
{
    struct rig *g = rig_new(1);

    (void) state;
    set_aside(&g->nodes[1]);
    rig_session_open(g, 1);
    rig_sync(g, 1);
    assert_false(rig_info(g, 1).complete);
    rig_form(g, 1, "1");
    rig_kv(g, 1, OP_SET, "a", "1");
    rig_run(g, "1");
    rig_tick(g, 1, SHARD_COMMIT_USEC);
    rig_sync(g, 1);
    rig_restart(g, 1);
    assert_true(rig_info(g, 1).complete);
    rig_form(g, 2, "1");
    assert_string_equal(rig_get(g, 1, "a"), "1");
    rig_free(g);
}

/* …but not one that an earlier process was a member of. */
static void test_distrust_floor(void **state)
{
    struct rig *g = rig_new(1);

    (void) state;
    rig_form(g, 1, "1");
    set_aside(&g->nodes[1]);
    rig_row(g, 1, SHARD_FLOOR, 0, 1, "1");
    rig_sync(g, 1);
    assert_false(rig_info(g, 1).complete);
    rig_restart(g, 1);
    assert_false(rig_info(g, 1).complete);
    rig_free(g);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_returns),
        TEST(test_stream_meanwhile),
        TEST(test_turn_comes_late),
        TEST(test_lost_piece),
        TEST(test_restarts_unheard),
        TEST(test_commit_before_durable),
        TEST(test_lost_prepare),
        TEST(test_no_manager),
        TEST(test_joint),
        TEST(test_withdrawn),
        TEST(test_joint_differs),
        TEST(test_joint_restarts),
        TEST(test_slow_learner),
        TEST(test_stale_words),
        TEST(test_distrust),
        TEST(test_distrust_last),
        TEST(test_distrust_teaching),
        TEST(test_distrust_returns),
        TEST(test_distrust_told_again),
        cmocka_unit_test(test_distrust_unborn),
        cmocka_unit_test(test_distrust_floor),
    };

    return cmocka_run_group_tests_name("shard_learner", tests, NULL, NULL);
}
