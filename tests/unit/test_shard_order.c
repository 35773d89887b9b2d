/* Order and commit of one partition: R1 (names held, differing, missing), R2 (who counts, and
 * when), and that the log alone gives the same state again. */
#include "core/checkpoint.h"
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

static const char *const keys[] = { "a", "b", "c", "k", "x" };

static void test_single(void **state)
{
    struct rig *g = *state;
    char out[64];
    uint64_t set;

    assert_int_equal(rig_answer(g, rig_kv(g, 1, OP_SET, "k", "v")), RESULT_NOT_PRIMARY);
    rig_view(g, 1, 1, "1");
    rig_assert_state(g, 1, REPLICA_ENTERING);
    rig_sync(g, 1); /* the view */
    rig_assert_state(g, 1, REPLICA_RECONCILING);
    assert_int_equal(rig_answer(g, rig_kv(g, 1, OP_GET, "k", NULL)), RESULT_NOT_PRIMARY);
    rig_sync(g, 1); /* the no-op */
    rig_assert_state(g, 1, REPLICA_PRIMARY);
    set = rig_kv(g, 1, OP_SET, "k", "v");
    assert_int_equal(rig_answer(g, set), 0);
    assert_string_equal(rig_get(g, 1, "k"), ""); /* not committed yet */
    rig_turn(g, 1);
    assert_int_equal(rig_answer(g, set), 0);
    rig_synced(g, 1);
    assert_int_equal(rig_answer(g, set), RESULT_STORED);
    assert_int_equal(rig_find_answer(g, set)->result.cas, 2);
    assert_string_equal(rig_get(g, 1, "k"), "v");
    assert_string_equal(rig_peek(g, 1, "k", out), "v");
    rig_assert_name(g->nodes[1].peek.record, 1, 2);
    rig_assert_replay(g, 1, keys, ARRAY_LEN(keys));
}

/* Each order in which the three logs become durable; the answer comes with the last one. */
static void test_commit_orders(void **state)
{
    static const char *const orders[] = { "123", "132", "213", "231", "312", "321" };
    struct rig *g = *state;

    rig_form(g, 1, "123");
    for (size_t i = 0; i < ARRAY_LEN(orders); i++) {
        uint64_t set = rig_kv(g, 1, OP_SET, "k", orders[i]);
        rig_turn(g, 1);
        rig_deliver_all(g, ACTION_PREPARE, 0, 0);
        rig_turn(g, 2);
        rig_turn(g, 3);
        assert_int_equal(rig_msg_count(g, ACTION_ACK, 0, 0), 0); /* nothing is durable yet */
        for (const char *s = orders[i]; *s; s++) {
            assert_int_equal(rig_answer(g, set), 0);
            rig_synced(g, (uint32_t) (*s - '0'));
            if (*s != '1') {
                assert_true(rig_deliver(g, ACTION_ACK, (uint32_t) (*s - '0'), 1));
            }
        }
        assert_int_equal(rig_answer(g, set), RESULT_STORED);
        assert_string_equal(rig_get(g, 1, "k"), orders[i]);
        rig_run(g, "123");
    }
    for (uint32_t i = 1; i <= 3; i++) {
        rig_assert_replay(g, i, keys, ARRAY_LEN(keys));
    }
}

/* A secondary applies only what it was told is committed. */
static void test_commit_told(void **state)
{
    struct rig *g = *state;
    char out[64];

    rig_form(g, 1, "123");
    rig_kv(g, 1, OP_SET, "k", "v");
    rig_run(g, "123");
    assert_string_equal(rig_peek(g, 1, "k", out), "v");
    assert_string_equal(rig_peek(g, 2, "k", out), "");
    rig_tick(g, 1, SHARD_COMMIT_USEC);
    assert_int_equal(rig_deliver_all(g, ACTION_COMMIT, 1, 2), 1);
    assert_string_equal(rig_peek(g, 2, "k", out), "v");
    assert_string_equal(rig_peek(g, 3, "k", out), "");
    rig_kv(g, 1, OP_SET, "a", "w"); /* prepares carry the commit too */
    rig_deliver_all(g, ACTION_PREPARE, 1, 3);
    assert_string_equal(rig_peek(g, 3, "k", out), "v");
}

/* An ack is of the durable part of the primary's history: a commit beyond it changes nothing. */
static void test_commit_ahead(void **state)
{
    struct rig *g = *state;
    struct shard_event e = { .kind = SHARD_COMMIT, .from = 1 };

    rig_form(g, 1, "12");
    rig_kv(g, 1, OP_SET, "k", "v");
    rig_deliver_all(g, ACTION_PREPARE, 1, 2);
    e.commit = (struct msg_commit){ .partition = 0, .view = 1, .seq = 2 };
    rig_step(g, 2, &e);
    rig_assert_name(rig_info(g, 2).commit, 1, 0 + rig_info(g, 2).durable.seq);
    assert_int_equal(rig_info(g, 2).durable.seq, 1);
    e.commit.seq = UINT64_MAX;
    rig_step(g, 2, &e);
    e.commit.view = 2;
    rig_step(g, 2, &e);
    e.commit.view = 1;
    e.from = 3; /* not the primary */
    rig_sync(g, 2);
    rig_step(g, 2, &e);
    assert_true(rig_info(g, 2).commit.seq <= 1);
}

/* Acks that say too much, come from strangers or bear another view count for nothing. */
static void test_acks_hostile(void **state)
{
    static const struct {
        uint32_t from, view;
        uint64_t seq;
    } acks[] = { { 3, 1, 2 }, { 2, 1, 3 }, { 2, 1, UINT64_MAX }, { 2, 0, 2 },
                 { 2, 2, 2 }, { 2, 1, 1 }, { 1, 1, 2 },          { 9, 1, 2 } };
    struct rig *g = *state;
    uint64_t set;

    rig_form(g, 1, "12");
    set = rig_kv(g, 1, OP_SET, "k", "v");
    rig_sync(g, 1);
    for (size_t i = 0; i < ARRAY_LEN(acks); i++) {
        struct shard_event e = { .kind = SHARD_ACK, .from = acks[i].from };
        e.note = (struct msg_at){ 0, acks[i].view, acks[i].seq };
        rig_step(g, 1, &e);
        assert_int_equal(rig_answer(g, set), 0);
    }
}

/* R1: prepares that come twice are acked again and change nothing. */
static void test_held(void **state)
{
    struct rig *g = *state;
    struct rig_msg m;

    rig_form(g, 1, "12");
    rig_kv(g, 1, OP_SET, "a", "1");
    rig_kv(g, 1, OP_SET, "b", "2");
    assert_int_equal(rig_msg_count(g, ACTION_PREPARE, 1, 2), 2);
    m = g->msgs[rig_msg_find(g, ACTION_PREPARE, 1, 2)];
    rig_msg_show(g, &m);
    rig_msg_show(g, &m);
    rig_assert_name(rig_info(g, 2).last, 1, 2);
    rig_turn(g, 2); /* an ack is owed, but of nothing that isn't durable */
    rig_drop_all(g, ACTION_ACK, 2, 1);
    rig_synced(g, 2);
    assert_int_equal(rig_drop_all(g, ACTION_ACK, 2, 1), 1);
    rig_msg_show(g, &m);
    rig_turn(g, 2);
    assert_int_equal(rig_msg_count(g, ACTION_ACK, 2, 1), 1); /* the last one was lost */
    assert_int_equal(g->msgs[rig_msg_find(g, ACTION_ACK, 2, 1)].at.seq, 2);
    assert_int_equal(rig_msg_count(g, ACTION_RESEND, 2, 1), 0);
    rig_run(g, "12");
    rig_assert_name(rig_info(g, 2).last, 1, 3);
    rig_assert_replay(g, 2, keys, ARRAY_LEN(keys));
}

/* R1: a gap is refused and asked for from the commit, once until the next tick. */
static void test_gap(void **state)
{
    struct rig *g = *state;
    uint64_t ids[3];

    rig_form(g, 1, "12");
    ids[0] = rig_kv(g, 1, OP_SET, "a", "1");
    ids[1] = rig_kv(g, 1, OP_SET, "b", "2");
    ids[2] = rig_kv(g, 1, OP_SET, "c", "3");
    rig_msg_free(g, (size_t) rig_msg_find(g, ACTION_PREPARE, 1, 2)); /* the first is lost */
    assert_int_equal(rig_deliver_all(g, ACTION_PREPARE, 1, 2), 2);
    rig_assert_name(rig_info(g, 2).last, 1, 1);
    assert_int_equal(rig_msg_count(g, ACTION_RESEND, 2, 1), 1);
    assert_int_equal(g->msgs[rig_msg_find(g, ACTION_RESEND, 2, 1)].at.seq,
                     rig_info(g, 2).commit.seq);
    rig_sync(g, 2);
    assert_int_equal(rig_answer(g, ids[0]), 0);
    rig_run(g, "12");
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        assert_int_equal(rig_answer(g, ids[i]), RESULT_STORED);
    }
    rig_assert_name(rig_info(g, 2).last, 1, 4);
}

/* Prepares in any other order than theirs lose nothing. */
static void test_reordered(void **state)
{
    struct rig *g = *state;
    uint64_t ids[8];
    char key[8];

    rig_form(g, 1, "12");
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        snprintf(key, sizeof(key), "k%zu", i);
        ids[i] = rig_kv(g, 1, OP_SET, key, key);
    }
    for (size_t i = ARRAY_LEN(ids); i-- > 0;) {
        struct rig_msg m = g->msgs[i];
        rig_msg_show(g, &m);
        rig_sync(g, 2);
        rig_deliver_all(g, ACTION_ACK, 2, 1);
    }
    rig_drop_all(g, ACTION_PREPARE, 1, 2);
    for (int i = 0; i < 4; i++) {
        rig_tick(g, 2, SHARD_TICK_USEC);
        rig_tick(g, 1, SHARD_RESEND_USEC);
        rig_run(g, "12");
    }
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        assert_int_equal(rig_answer(g, ids[i]), RESULT_STORED);
    }
}

/* A tail without progress is sent again, and what the new connection lost too. */
static void test_resend(void **state)
{
    struct rig *g = *state;
    uint64_t id;

    rig_form(g, 1, "12");
    id = rig_kv(g, 1, OP_SET, "a", "1");
    rig_drop_all(g, 0, 1, 2);
    rig_tick(g, 1, SHARD_RESEND_USEC);
    assert_int_equal(rig_msg_count(g, ACTION_PREPARE, 1, 2), 1);
    rig_drop_all(g, 0, 1, 2);
    rig_event(g, 1, SHARD_PEER_UP, 2);
    assert_int_equal(rig_msg_count(g, ACTION_PREPARE, 1, 2), 1);
    rig_deliver_all(g, ACTION_PREPARE, 1, 2);
    rig_sync(g, 2);
    assert_int_equal(rig_drop_all(g, ACTION_ACK, 2, 1), 1); /* the ack is lost */
    rig_event(g, 2, SHARD_PEER_UP, 1);
    rig_sync(g, 1);
    assert_int_equal(rig_answer(g, id), 0);
    rig_run(g, "12");
    assert_int_equal(rig_answer(g, id), RESULT_STORED);
}

/* A member that lacks committed entries says so, acks nothing and applies nothing. */
static void test_lacking(void **state)
{
    struct rig *g = *state;
    char out[64];

    rig_form(g, 1, "1");
    rig_kv(g, 1, OP_SET, "a", "1");
    rig_run(g, "1");
    rig_view(g, 1, 2, "12");
    rig_view(g, 2, 2, "12");
    rig_run(g, "12");
    assert_true(g->nodes[2].lacking > 0);
    rig_assert_state(g, 1, REPLICA_RECONCILING);
    rig_tick(g, 1, SHARD_COMMIT_USEC);
    rig_run(g, "12");
    assert_string_equal(rig_peek(g, 2, "a", out), "");
    assert_int_equal(rig_info(g, 2).commit.seq, 0);
}

/* Segments roll, many writes lie in the air, and the log gives all of it again. */
static void test_replay_long(void **state)
{
    struct rig *g = *state;
    char key[16], value[900];

    memset(value, 'v', sizeof(value));
    value[sizeof(value) - 1] = 0;
    rig_form(g, 1, "123");
    for (int i = 0; i < 400; i++) {
        snprintf(key, sizeof(key), "k%d", i % 37);
        rig_kv(g, 1, i % 5 == 4 ? OP_DELETE : OP_SET, key, i % 5 == 4 ? NULL : value);
        if (i % 7 == 0) {
            rig_run(g, "123");
            rig_tick(g, (uint32_t) (i % 3 + 1), SHARD_COMMIT_USEC);
        }
    }
    assert_true(g->nodes[1].n_files > 3);
    for (uint32_t i = 1; i <= 3; i++) {
        rig_assert_replay(g, i, keys, ARRAY_LEN(keys));
    }
    rig_run(g, "123");
    for (uint32_t i = 1; i <= 3; i++) {
        rig_assert_replay(g, i, keys, ARRAY_LEN(keys));
    }
}

/* Several partitions in one shard: their names and acks are their own. */
static void test_partitions(void **state)
{
    struct rig *g = rig_new(4);
    uint64_t ids[16];
    char key[16];

    (void) state;
    for (uint16_t p = 0; p < 4; p++) {
        rig_row(g, 1, SHARD_VIEW, p, 1, "12");
        rig_row(g, 2, SHARD_VIEW, p, 1, "12");
    }
    rig_run(g, "12");
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        snprintf(key, sizeof(key), "key%zu", i);
        ids[i] = rig_kv(g, 1, OP_SET, key, key);
    }
    rig_run(g, "12");
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        snprintf(key, sizeof(key), "key%zu", i);
        assert_int_equal(rig_answer(g, ids[i]), RESULT_STORED);
        assert_string_equal(rig_get(g, 1, key), key);
    }
    rig_assert_replay(g, 1, keys, ARRAY_LEN(keys));
    rig_assert_replay(g, 2, keys, ARRAY_LEN(keys));
    rig_free(g);
}

/* Frames of a log go to whichever shard has the partition now. */
static int reshard_frame(void *ctx, const struct frame *f, struct position at)
{
    struct shard **shards = ctx;

    assert_int_equal(shard_replay_frame(shards[0], f, at), 0);
    return shard_replay_frame(shards[1], f, at);
}

/* The number of shards changes between two starts: each partition is where it belongs, whole. */
static void test_reshard(void **state)
{
    struct rig *g = rig_new(5);
    struct shard *shards[2];
    struct wal_segment segment = { 0 };
    struct wal_damage damage;
    struct index_record rec;

    (void) state;
    for (uint16_t p = 0; p < 5; p++) {
        rig_row(g, 1, SHARD_VIEW, p, 1, "1");
    }
    rig_run(g, "1");
    rig_kv(g, 1, OP_SET, "a", "1");
    rig_kv(g, 1, OP_SET, "b", "2");
    rig_kv(g, 1, OP_SET, "c", "3");
    rig_run(g, "1");
    rig_tick(g, 1, SHARD_COMMIT_USEC);
    rig_sync(g, 1);
    assert_int_equal(g->nodes[1].n_files, 1);
    segment.number = g->nodes[1].files[0].number;
    segment.data = g->nodes[1].files[0].data;
    segment.bytes = g->nodes[1].files[0].bytes;
    assert_int_equal(wal_check(&segment, 1, NULL, &damage), 0);
    for (uint32_t i = 0; i < 2; i++) {
        struct shard_options o = {
            .log = { .start = 2, .shards = 2, .shard = i, .partitions = 5, .first_segment = 2 },
            .server = 1,
            .value_bytes_max = RIG_VALUE_MAX,
            .index_open = index_map_open,
        };
        assert_int_equal(shard_new(&o, &shards[i]), 0);
    }
    assert_int_equal(wal_walk(&segment, reshard_frame, shards), 0);
    for (uint16_t p = 0; p < 5; p++) {
        struct replica_info have, want;
        assert_int_equal(shard_replica_info(shards[1 - p % 2], p, &have), -ENOENT);
        assert_int_equal(shard_replica_info(shards[p % 2], p, &have), 0);
        assert_int_equal(shard_replica_info(g->nodes[1].shard, p, &want), 0);
        rig_assert_name(have.commit, want.commit.view, want.commit.seq);
        assert_int_equal(have.view, 1);
    }
    for (size_t i = 0; i < 3; i++) {
        int n = shard_record(shards[0], (const uint8_t *) keys[i], 1, &rec) == 0;
        n += shard_record(shards[1], (const uint8_t *) keys[i], 1, &rec) == 0;
        assert_int_equal(n, 1);
    }
    shard_free(shards[0]);
    shard_free(shards[1]);
    rig_free(g);
}

/* A server that asks to send again from beyond the end, or from nowhere, gets what there is: no
 * more. */
static void test_resend_asked_beyond(void **state)
{
    static const uint64_t seqs[] = { UINT64_MAX, UINT64_MAX - 1, 1000, 2 };
    struct rig *g = *state;
    struct shard_event e = { .kind = SHARD_RESEND, .from = 2 };

    rig_form(g, 1, "123");
    rig_kv(g, 1, OP_SET, "k", "v"); /* pending: nobody has synced it */
    rig_drop_all(g, ACTION_PREPARE, 0, 0);
    for (size_t i = 0; i < ARRAY_LEN(seqs); i++) {
        e.note = (struct msg_at){ .partition = 0, .view = 1, .seq = seqs[i] };
        rig_step(g, 1, &e);
        assert_int_equal(rig_msg_count(g, ACTION_PREPARE, 0, 0), 0);
    }
    e.note.seq = 1;
    rig_step(g, 1, &e);
    assert_int_equal(rig_msg_count(g, ACTION_PREPARE, 1, 2), 1);
}

/* Between a turn's end and the next step what was flushed lies in memory still: a checkpoint that
 * is taken then needs the group that was flushed, not one that may never come. */
static void test_checkpoint_behind_turn(void **state)
{
    struct rig *g = *state;
    struct buf b = { 0 };
    struct position x;
    uint64_t group;

    rig_form(g, 1, "1");
    rig_kv(g, 1, OP_SET, "k", "v");
    assert_int_equal(checkpoint_take(g->nodes[1].shard, 0, &b, NULL, &x, &group), 0);
    assert_int_equal(group, g->nodes[1].written_group + 1);
    rig_turn(g, 1);
    assert_int_equal(group, g->nodes[1].written_group);
    assert_int_equal(checkpoint_take(g->nodes[1].shard, 0, &b, NULL, &x, &group), 0);
    assert_int_equal(group, g->nodes[1].written_group);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_resend_asked_beyond, setup, teardown),
        cmocka_unit_test_setup_teardown(test_checkpoint_behind_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(test_single, setup, teardown),
        cmocka_unit_test_setup_teardown(test_commit_orders, setup, teardown),
        cmocka_unit_test_setup_teardown(test_commit_told, setup, teardown),
        cmocka_unit_test_setup_teardown(test_commit_ahead, setup, teardown),
        cmocka_unit_test_setup_teardown(test_acks_hostile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_held, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reordered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_resend, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lacking, setup, teardown),
        cmocka_unit_test_setup_teardown(test_replay_long, setup, teardown),
        cmocka_unit_test(test_partitions),
        cmocka_unit_test(test_reshard),
    };

    return cmocka_run_group_tests_name("shard_order", tests, NULL, NULL);
}
