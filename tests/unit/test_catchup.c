/* Catch-up (R17): whatever the sink held, and whatever happens meanwhile, it ends with what the
 * source has, durably; until then it is incomplete. */
#include "base/rng.h"
#include "core/catchup.h"
#include "core/checkpoint.h"
#include "core/replica.h"
#include "shard_rig_ops.h"

#define SOURCE 1
#define SINK   2

static void carry_out(struct rig *g, uint32_t server, struct actions *out)
{
    for (size_t i = 0; i < out->n; i++) {
        rig_act(&g->nodes[server], &out->v[i]);
    }
    out->n = 0;
}

struct run {
    struct rig *g;
    struct catchup_source *source;
    struct actions out;
    size_t bytes; /* that were sent */
    bool more;
};

static void run_begin(struct run *c, struct rig *g)
{
    struct buf start = { 0 };
    struct catchup_ask ask;

    *c = (struct run){ .g = g, .more = true };
    assert_int_equal(catchup_ask(g->nodes[SINK].shard, 0, &ask), 0);
    assert_int_equal(catchup_source_begin(g->nodes[SOURCE].shard, 0, &ask, &start, &c->source), 0);
    assert_int_equal(
        catchup_sink_begin(g->nodes[SINK].shard, 0, buf_head(&start), buf_len(&start), &c->out), 0);
    carry_out(g, SINK, &c->out);
    assert_false(rig_info(g, SINK).complete);
    buf_free(&start);
}

/* One record, or a few. */
static void run_on(struct run *c, size_t bytes)
{
    struct rig_node *from = &c->g->nodes[SOURCE];
    struct shard_read read = { 0 };
    struct position at;
    struct buf b = { 0 };
    size_t n;
    int r = catchup_source_next(c->source, NULL, bytes, &b, &at, &n);

    for (unsigned i = 0; r == -EAGAIN; i++) { /* not in memory */
        assert_true(i < 1000);
        (void) rig_read(from, at, n, &read.data);
        read.bytes = n;
        r = catchup_source_next(c->source, &read, bytes, &b, &at, &n);
    }
    assert_true(r >= 0);
    c->more = r > 0;
    c->bytes += buf_len(&b);
    assert_int_equal(
        catchup_sink_records(c->g->nodes[SINK].shard, 0, buf_head(&b), buf_len(&b), &c->out), 0);
    carry_out(c->g, SINK, &c->out);
    buf_free(&b);
}

static void run_free(struct run *c)
{
    c->source = catchup_source_free(c->source);
    actions_free(&c->out);
}

static void run_end(struct run *c)
{
    while (c->more) {
        run_on(c, 1);
    }
    assert_int_equal(catchup_sink_end(c->g->nodes[SINK].shard, 0, &c->out), 0);
    carry_out(c->g, SINK, &c->out);
    assert_false(rig_info(c->g, SINK).complete); /* only the synced end counts */
    rig_sync(c->g, SINK);
    assert_true(rig_info(c->g, SINK).complete);
    run_free(c);
}

static size_t catch_up(struct rig *g)
{
    struct run c;

    run_begin(&c, g);
    run_end(&c);
    return c.bytes;
}

/* Both hold the same, and so does what the sink's log alone leads to. */
static void assert_same(struct rig *g, const char *const *keys, size_t n_keys)
{
    for (size_t i = 0; i < n_keys; i++) {
        char a[64];
        char b[64];
        assert_string_equal(rig_peek(g, SINK, keys[i], b), rig_peek(g, SOURCE, keys[i], a));
    }
    assert_true(rig_info(g, SINK).digest == rig_info(g, SOURCE).digest);
    rig_assert_replay(g, SINK, keys, n_keys);
}

static const char *const keys[] = { "a", "b", "c", "d", "e" };

static void set(struct rig *g, const char *key, const char *value)
{
    rig_kv(g, SOURCE, OP_SET, key, value);
}

/* Servers 1 and 2 share a history; then 2 is away, and 1 goes on alone. */
static struct rig *rig_parted(void)
{
    struct rig *g = rig_new(1);

    rig_form(g, 1, "12");
    set(g, "a", "1");
    set(g, "b", "1");
    set(g, "c", "1");
    rig_run(g, "12");
    rig_tick(g, SOURCE, 2 * SHARD_COMMIT_USEC);
    rig_run(g, "12");
    rig_restart(g, SINK);
    rig_view(g, SOURCE, 2, "1");
    rig_run(g, "1");
    return g;
}

static void test_new_copy(void **state)
{
    struct rig *g = rig_new(1);

    (void) state;
    rig_form(g, 1, "1");
    set(g, "a", "1");
    set(g, "b", "2");
    rig_kv(g, SOURCE, OP_DELETE, "a", NULL);
    rig_run(g, "1");
    catch_up(g);
    rig_assert_name(rig_info(g, SINK).commit, 1, 4);
    assert_same(g, keys, ARRAY_LEN(keys));
    rig_restart(g, SINK);
    assert_true(rig_info(g, SINK).complete);
    rig_free(g);
}

static void test_only_what_changed(void **state)
{
    struct rig *g = rig_parted();
    size_t all;
    size_t some;

    (void) state;
    set(g, "b", "2");
    rig_kv(g, SOURCE, OP_DELETE, "c", NULL);
    rig_run(g, "1");
    some = catch_up(g);
    assert_same(g, keys, ARRAY_LEN(keys));
    assert_true(catch_up(g) == 0); /* nothing is new */
    rig_free(g);

    g = rig_new(1);
    rig_form(g, 1, "1");
    for (unsigned i = 0; i < 3; i++) {
        set(g, keys[i], "1");
    }
    rig_run(g, "1");
    all = catch_up(g);
    assert_true(all > some);
    rig_free(g);
}

/* The sink returns with a dead tail; no later commit may apply it. */
static void test_dead_tail(void **state)
{
    struct rig *g = rig_new(1);

    (void) state;
    rig_form(g, 1, "21");
    rig_kv(g, SINK, OP_SET, "a", "dead"); /* logged by 2 alone, which is cut off */
    rig_sync(g, SINK);
    rig_drop_all(g, 0, SINK, SOURCE);
    rig_view(g, SOURCE, 2, "1");
    rig_run(g, "1");
    set(g, "b", "1");
    rig_run(g, "1");
    rig_restart(g, SINK);
    assert_int_equal(rig_info(g, SINK).last.seq, 2);
    catch_up(g);
    assert_int_equal(rig_info(g, SINK).last.seq, rig_info(g, SINK).commit.seq);
    assert_same(g, keys, ARRAY_LEN(keys));
    rig_free(g);
}

/* The source has dropped a tombstone above n: the sink may not keep the record. */
static void test_forgotten_delete(void **state)
{
    struct rig *g = rig_parted();
    struct op op = op_of(OP_SET, "d", "short");

    (void) state;
    op.exptime = 60;
    (void) rig_op(g, SOURCE, &op);
    rig_run(g, "1");
    catch_up(g); /* the sink has d */
    rig_restart(g, SINK);
    op = op_of(OP_SET, "a", "short");
    op.exptime = 60;
    (void) rig_op(g, SOURCE, &op); /* a changes; and both are forgotten */
    set(g, "e", "1");
    rig_run(g, "1");
    for (unsigned i = 0; i < 4; i++) {
        rig_tick(g, SOURCE, 2 * SWEEP_USEC_DEFAULT);
        rig_run(g, "1");
    }
    catch_up(g);
    assert_same(g, keys, ARRAY_LEN(keys));
    for (unsigned i = 0; i < 2; i++) {
        struct index_record rec;
        const uint8_t *key = (const uint8_t *) (i ? "a" : "d");
        assert_int_equal(shard_record(g->nodes[SOURCE].shard, key, 1, &rec), -ENOENT);
        assert_int_equal(shard_record(g->nodes[SINK].shard, key, 1, &rec), -ENOENT);
    }
    rig_free(g);
}

/* While a source is read nothing dead is dropped there. */
static void test_horizon_stands_still(void **state)
{
    struct rig *g = rig_parted();
    struct op op = op_of(OP_SET, "a", "short");
    struct index_record rec;
    struct run c;

    (void) state;
    op.exptime = 60;
    (void) rig_op(g, SOURCE, &op);
    rig_run(g, "1");
    run_begin(&c, g);
    rig_tick(g, SOURCE, 3 * SWEEP_USEC_DEFAULT);
    rig_tick(g, SOURCE, 3 * SWEEP_USEC_DEFAULT);
    assert_int_equal(shard_record(g->nodes[SOURCE].shard, (const uint8_t *) "a", 1, &rec), 0);
    run_end(&c);
    rig_tick(g, SOURCE, 3 * SWEEP_USEC_DEFAULT);
    assert_int_equal(shard_record(g->nodes[SOURCE].shard, (const uint8_t *) "a", 1, &rec), -ENOENT);
    rig_free(g);
}

/* A history that disagrees is dropped whole. */
static void test_disagreeing_history(void **state)
{
    struct rig *g = rig_new(1);

    (void) state;
    rig_form(g, 1, "2");
    for (unsigned i = 0; i < 5; i++) {
        rig_kv(g, SINK, OP_SET, "a", "other");
        rig_kv(g, SINK, OP_SET, "d", "other");
    }
    rig_run(g, "2");
    rig_tick(g, SINK, 2 * SHARD_COMMIT_USEC);
    rig_sync(g, SINK);
    rig_restart(g, SINK);
    rig_form(g, 2, "1");
    set(g, "b", "1");
    for (unsigned i = 0; i < 20; i++) {
        set(g, "c", "2");
    }
    rig_run(g, "1");
    catch_up(g);
    assert_same(g, keys, ARRAY_LEN(keys));
    rig_free(g);
}

/* A catch-up that breaks off leaves the base where it was; it begins anew, and an incomplete
 * copy answers no view change. */
static void test_broken_off(void **state)
{
    struct rig *g = rig_parted();
    struct catchup_ask before;
    struct catchup_ask after;
    struct run c;
    unsigned seals;

    (void) state;
    set(g, "b", "2");
    set(g, "d", "2");
    set(g, "e", "2");
    rig_run(g, "1");
    assert_int_equal(catchup_ask(g->nodes[SINK].shard, 0, &before), 0);
    run_begin(&c, g);
    run_on(&c, 1);
    rig_sync(g, SINK);
    run_free(&c);
    rig_restart(g, SINK);
    assert_false(rig_info(g, SINK).complete);
    assert_int_equal(catchup_ask(g->nodes[SINK].shard, 0, &after), 0);
    assert_true(name_equal(after.base, before.base));
    assert_true(after.applied.seq > before.applied.seq);
    seals = g->nodes[SINK].seals;
    rig_seal(g, SINK, 1);
    rig_sync(g, SINK);
    assert_int_equal(g->nodes[SINK].seals, seals);
    rig_kv(g, SOURCE, OP_DELETE, "d", NULL);
    rig_run(g, "1");
    catch_up(g);
    assert_same(g, keys, ARRAY_LEN(keys));
    rig_free(g);
}

/* What a source makes is not believed blindly. */
/* Another one begins while the end of the one before is in the log and not synced: what is behind
 * the end there may not count on what was before it. */
static void test_begins_before_synced_end(void **state)
{
    struct rig *g = rig_parted();
    struct run c;

    (void) state;
    catch_up(g); /* from now on it is not empty */
    set(g, "b", "2");
    rig_run(g, "1");
    run_begin(&c, g);
    while (c.more) {
        run_on(&c, 1);
    }
    assert_int_equal(catchup_sink_end(g->nodes[SINK].shard, 0, &c.out), 0);
    carry_out(g, SINK, &c.out);
    run_free(&c);
    set(g, "d", "2");
    rig_run(g, "1");
    catch_up(g);
    assert_same(g, keys, ARRAY_LEN(keys));
    rig_restart(g, SINK);
    assert_same(g, keys, ARRAY_LEN(keys));
    rig_free(g);
}

static void test_bad_bytes(void **state)
{
    struct rig *g = rig_parted();
    struct catchup_source *source;
    struct catchup_ask ask;
    struct actions out = { 0 };
    struct buf start = { 0 };
    struct shard *sink = g->nodes[SINK].shard;

    (void) state;
    set(g, "b", "2");
    rig_run(g, "1");
    assert_int_equal(catchup_sink_records(sink, 0, (const uint8_t *) "x", 1, &out), -ESTALE);
    assert_int_equal(catchup_sink_end(sink, 0, &out), -ESTALE);
    assert_int_equal(catchup_ask(sink, 0, &ask), 0);
    assert_int_equal(catchup_source_begin(g->nodes[SOURCE].shard, 0, &ask, &start, &source), 0);
    for (size_t i = 0; i < buf_len(&start); i++) {
        assert_true(catchup_sink_begin(sink, 0, buf_head(&start), i, &out) < 0);
        assert_true(rig_info(g, SINK).complete);
    }
    assert_int_equal(catchup_sink_begin(sink, 0, buf_head(&start), buf_len(&start), &out), 0);
    assert_int_equal(catchup_sink_records(sink, 0, (const uint8_t *) "\x00\xc4\x05hello", 8, &out),
                     -EBADMSG);
    catchup_source_free(source);
    actions_free(&out);
    buf_free(&start);
    rig_free(g);
}

/* Writes, checkpoints of the sink, restarts of it, cold reads, in any order: in the end both have
 * the same, and the stream goes on where the catch-up began. */
static void one_random(uint64_t seed)
{
    struct rng rng = { seed };
    struct rig *g = rig_parted();
    struct run c;
    bool running = false;
    uint32_t view = 2;
    char value[16];

    g->nodes[SOURCE].cold = rng_chance(&rng, 1, 2);
    for (unsigned i = 0; i < 60; i++) {
        unsigned what = (unsigned) rng_below(&rng, 10);
        const char *key = keys[rng_below(&rng, ARRAY_LEN(keys))];
        if (what < 4) {
            snprintf(value, sizeof(value), "%u", i);
            set(g, key, value);
            rig_run(g, "1");
        } else if (what < 6) {
            g->nodes[SOURCE].cold = false;
            rig_kv(g, SOURCE, OP_DELETE, key, NULL);
            rig_run(g, "1");
        } else if (what < 9 && running && c.more) {
            run_on(&c, rng_chance(&rng, 1, 2) ? 1 : 200);
            if (rng_chance(&rng, 1, 3)) {
                rig_sync(g, SINK);
            }
        } else {
            if (running) {
                run_free(&c);
            }
            if (rng_chance(&rng, 1, 2)) {
                rig_sync(g, SINK);
                rig_restart(g, SINK);
            }
            run_begin(&c, g);
            running = true;
        }
    }
    if (running) {
        run_free(&c);
    }
    g->nodes[SOURCE].cold = false;
    catch_up(g);
    assert_same(g, keys, ARRAY_LEN(keys));
    /* and it can be a member again */
    view++;
    rig_form(g, view, "12");
    set(g, "a", "last");
    rig_run(g, "12");
    rig_tick(g, SOURCE, 2 * SHARD_COMMIT_USEC);
    rig_run(g, "12");
    assert_same(g, keys, ARRAY_LEN(keys));
    rig_free(g);
}

static void test_random(void **state)
{
    (void) state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        one_random(seed);
    }
}

/* A checkpoint in the middle, and one behind an end that is not synced yet. */
static void test_checkpoint_meanwhile(void **state)
{
    struct rig *g = rig_parted();
    struct buf b = { 0 };
    struct shard *again;
    struct replica_info info;
    struct position x;
    uint64_t group;
    struct run c;

    (void) state;
    set(g, "b", "2");
    rig_run(g, "1");
    run_begin(&c, g);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(checkpoint_take(g->nodes[SINK].shard, 0, &b, NULL, &x, &group), 0);
        assert_int_equal(rig_shard_new(&g->nodes[SINK], &again), 0);
        assert_int_equal(checkpoint_load(again, buf_head(&b), buf_len(&b)), 0);
        assert_int_equal(shard_replica_info(again, 0, &info), 0);
        assert_int_equal(info.complete, i == 1);
        assert_true(info.digest == rig_info(g, SINK).digest);
        shard_free(again);
        buf_clear(&b);
        if (i == 0) {
            while (c.more) {
                run_on(&c, 1);
            }
            assert_int_equal(catchup_sink_end(g->nodes[SINK].shard, 0, &c.out), 0);
        }
    }
    run_free(&c);
    buf_free(&b);
    rig_free(g);
}

/* The view table's limit: old rows are forgotten, and a name of then agrees with nothing. */
static void test_view_table_limit(void **state)
{
    struct replica r = { 0 };
    struct name old = { .view = 1, .seq = 10 };
    struct name young;

    (void) state;
    for (uint32_t view = 1; view <= 3 * VIEW_RUNS_MAX; view++) {
        view_runs_add(&r, (struct name){ .view = view, .seq = view * UINT64_C(10) });
        assert_true(r.n_runs <= VIEW_RUNS_MAX);
        r.commit = (struct name){ .view = view, .seq = view * UINT64_C(10) + 5 };
        assert_int_equal(view_runs_agree(&r, old), view < VIEW_RUNS_MAX + 1);
    }
    young = r.commit;
    assert_true(view_runs_agree(&r, young));
    assert_false(view_runs_agree(&r, (struct name){ .view = young.view - 1, .seq = young.seq }));
    assert_false(view_runs_agree(&r, (struct name){ .view = young.view, .seq = young.seq + 1 }));
    free(r.runs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_copy),
        cmocka_unit_test(test_only_what_changed),
        cmocka_unit_test(test_dead_tail),
        cmocka_unit_test(test_forgotten_delete),
        cmocka_unit_test(test_horizon_stands_still),
        cmocka_unit_test(test_disagreeing_history),
        cmocka_unit_test(test_broken_off),
        cmocka_unit_test(test_begins_before_synced_end),
        cmocka_unit_test(test_bad_bytes),
        cmocka_unit_test(test_checkpoint_meanwhile),
        cmocka_unit_test(test_view_table_limit),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests_name("catchup", tests, NULL, NULL);
}
