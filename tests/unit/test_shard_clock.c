/* R13: partition time is the median of the replicas' clocks. What a server drops for good, and what
 * it reports when it seals, must not follow its own clock alone. */
#include "shard_rig_ops.h"

#define HOUR_USEC (INT64_C(3600) * 1000000)

/* Server 3's clock is two hours ahead. It restarts, and has heard of nobody's clock yet. */
static struct rig *rig_ahead(void)
{
    struct rig *g = rig_new(1);
    struct op op = op_of(OP_SET, "k", "v");

    g->nodes[3].clock_skew_usec = 2 * HOUR_USEC;
    rig_form(g, 1, "123");
    op.exptime = 3600;
    (void) rig_op(g, 1, &op);
    rig_run(g, "123");
    rig_tick(g, 1, 2 * SHARD_COMMIT_USEC);
    rig_run(g, "123");
    for (uint32_t i = 1; i <= 2; i++) {
        struct shard_event e = { .kind = SHARD_CLOCK, .from = i };
        e.clock.usec = RIG_T0_USEC + g->boot_usec;
        rig_step(g, 3, &e);
    }
    rig_tick(g, 3, 2 * SHARD_COMMIT_USEC);
    rig_run(g, "123");
    rig_restart(g, 3);
    return g;
}

static void test_sweep_by_partition_time(void **state)
{
    struct rig *g = rig_ahead();
    struct index_record rec;

    (void) state;
    assert_int_equal(shard_record(g->nodes[3].shard, (const uint8_t *) "k", 1, &rec), 0);
    rig_tick(g, 3, SHARD_TICK_USEC);
    rig_sync(g, 3);
    assert_int_equal(shard_record(g->nodes[3].shard, (const uint8_t *) "k", 1, &rec), 0);
    rig_free(g);
}

/* The manager gives the highest time that is reported to the next view, for all members. */
static void test_sealed_time(void **state)
{
    struct rig *g = rig_ahead();

    (void) state;
    rig_tick(g, 3, SHARD_TICK_USEC);
    rig_sync(g, 3);
    rig_seal(g, 3, 1);
    rig_sync(g, 3);
    assert_int_equal(g->nodes[3].seals, 1);
    assert_true(g->nodes[3].sealed.time_usec <= RIG_T0_USEC + g->boot_usec);
    rig_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sweep_by_partition_time),
        cmocka_unit_test(test_sealed_time),
    };
    return cmocka_run_group_tests_name("shard_clock", tests, NULL, NULL);
}
