/* Catch-up (R17), cases in which a copy that was caught up can't be read again, or forgets what it
 * had forgotten. */
#include "core/catchup.h"
#include "shard_rig_ops.h"

/* Carries what the source has to the sink, whole. */
static void catch_up(struct rig *g, uint32_t from, uint32_t to)
{
    struct shard *sink = g->nodes[to].shard;
    struct catchup_source *source;
    struct actions out = { 0 };
    struct buf b = { 0 };
    struct catchup_ask ask;
    struct position at;
    size_t n;

    assert_int_equal(catchup_ask(sink, 0, &ask), 0);
    assert_int_equal(catchup_source_begin(g->nodes[from].shard, 0, &ask, &b, &source), 0);
    assert_int_equal(catchup_sink_begin(sink, 0, buf_head(&b), buf_len(&b), &out), 0);
    buf_clear(&b);
    assert_int_equal(catchup_source_next(source, NULL, SIZE_MAX, &b, &at, &n), 0);
    assert_int_equal(catchup_sink_records(sink, 0, buf_head(&b), buf_len(&b), &out), 0);
    assert_int_equal(catchup_sink_end(sink, 0, &out), 0);
    for (size_t i = 0; i < out.n; i++) {
        rig_act(&g->nodes[to], &out.v[i]);
    }
    rig_sync(g, to);
    assert_true(rig_info(g, to).complete);
    catchup_source_free(source);
    actions_free(&out);
    buf_free(&b);
}

/* The sink's commit moved less than SHARD_COMMIT_USEC ago: the log must say so before it says where
 * the catch-up begins, or a replay finds another n and refuses the log. */
static void test_commit_noted_before_base(void **state)
{
    static const char *const keys[] = { "a", "b", "c" };
    struct rig *g = rig_new(1);

    (void) state;
    rig_form(g, 1, "21");
    rig_kv(g, 2, OP_SET, "a", "1");
    rig_run(g, "12");
    rig_tick(g, 2, 2 * SHARD_COMMIT_USEC); /* noted and told so far */
    rig_run(g, "12");
    rig_kv(g, 2, OP_SET, "b", "1"); /* committed, and not yet noted */
    rig_run(g, "12");
    rig_view(g, 1, 2, "1"); /* 1 goes on without 2 */
    rig_run(g, "1");
    rig_kv(g, 1, OP_SET, "c", "1");
    rig_run(g, "1");
    catch_up(g, 1, 2);
    rig_assert_replay(g, 2, keys, ARRAY_LEN(keys));
    rig_free(g);
}

/* What the sink itself has dropped is still dropped after a catch-up from a source that has not:
 * when the sink is a source later, it can't tell of that record any more, and must name all keys.
 */
static void test_horizon_never_falls(void **state)
{
    struct rig *g = rig_new(1);
    struct op op = op_of(OP_SET, "k", "short");
    struct index_record rec;
    char value[64];

    (void) state;
    rig_form(g, 1, "123");
    rig_kv(g, 1, OP_SET, "k", "old");
    rig_run(g, "123");
    rig_tick(g, 1, 2 * SHARD_COMMIT_USEC);
    rig_run(g, "123");
    rig_tick(g, 3, 2 * SHARD_COMMIT_USEC);
    rig_run(g, "123");
    rig_restart(g, 3); /* 3 is away, with k = old */
    rig_form(g, 2, "21");
    op.exptime = 60;
    (void) rig_op(g, 2, &op);
    rig_run(g, "12");
    rig_tick(g, 2, 2 * SHARD_COMMIT_USEC);
    rig_run(g, "12");
    for (unsigned i = 0; i < 4; i++) { /* k is long expired: 2 forgets it, 1 does not yet */
        rig_tick(g, 2, SWEEP_USEC_DEFAULT);
        rig_sync(g, 2);
    }
    rig_restart(g, 2);
    assert_int_equal(shard_record(g->nodes[2].shard, (const uint8_t *) "k", 1, &rec), -ENOENT);
    assert_int_equal(shard_record(g->nodes[1].shard, (const uint8_t *) "k", 1, &rec), 0);
    rig_view(g, 1, 3, "1");
    rig_run(g, "1");
    rig_kv(g, 1, OP_SET, "b", "1");
    rig_run(g, "1");
    catch_up(g, 1, 2);
    catch_up(g, 2, 3);
    assert_string_equal(rig_peek(g, 3, "k", value), "");
    rig_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commit_noted_before_base),
        cmocka_unit_test(test_horizon_never_falls),
    };
    return cmocka_run_group_tests_name("catchup_chain", tests, NULL, NULL);
}
