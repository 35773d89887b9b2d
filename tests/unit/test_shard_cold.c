/* Records that are not in memory: operations on them wait, others don't, and what they answer is
 * what was true when they were answered. */
#include "shard_rig_ops.h"

/* Answers the oldest read that was asked for: with the bytes where it points, or an error. */
static void read_done(struct rig *g, uint32_t server, int error)
{
    struct rig_node *n = &g->nodes[server];
    struct action a = n->reads[0];
    struct shard_event e = { .kind = SHARD_READ };
    bool cold = n->cold;

    assert_true(n->n_reads > 0);
    n->n_reads--;
    memmove(n->reads, n->reads + 1, n->n_reads * sizeof(*n->reads));
    e.read.number = a.read.number;
    e.read.error = error;
    if (error == 0) {
        (void) rig_read(n, a.read.at, a.read.bytes, &e.read.data);
        e.read.bytes = a.read.bytes;
    }
    n->cold = cold;
    rig_step(g, server, &e);
}

static struct rig *rig_cold(void)
{
    struct rig *g = rig_new(1);

    rig_form(g, 1, "1");
    rig_kv(g, 1, OP_SET, "a", "one");
    rig_kv(g, 1, OP_SET, "n", "7");
    rig_run(g, "1");
    g->nodes[1].cold = true;
    return g;
}

static void test_get_waits_for_the_disk(void **state)
{
    struct rig *g = rig_cold();
    uint64_t get = rig_kv(g, 1, OP_GET, "a", NULL);
    uint64_t miss = rig_kv(g, 1, OP_GET, "nothing", NULL);

    (void) state;
    assert_int_equal(rig_answer(g, get), 0);
    assert_int_equal(rig_answer(g, miss), RESULT_NOT_FOUND); /* needs no disk */
    read_done(g, 1, 0);
    assert_int_equal(rig_answer(g, get), RESULT_VALUE);
    assert_string_equal(rig_find_answer(g, get)->value, "one");
    rig_free(g);
}

/* The record changes while it is read: what was read is not what is answered. */
static void test_overwritten_meanwhile(void **state)
{
    struct rig *g = rig_cold();
    uint64_t get = rig_kv(g, 1, OP_GET, "a", NULL);
    uint64_t set = rig_kv(g, 1, OP_SET, "a", "two"); /* blind: waits for nothing but its sync */

    (void) state;
    rig_run(g, "1");
    assert_int_equal(rig_answer(g, set), RESULT_STORED);
    read_done(g, 1, 0);
    assert_int_equal(rig_answer(g, get), 0); /* it lies elsewhere now: read again */
    read_done(g, 1, 0);
    assert_string_equal(rig_find_answer(g, get)->value, "two");
    rig_free(g);
}

static void test_deleted_meanwhile(void **state)
{
    struct rig *g = rig_cold();
    uint64_t get = rig_kv(g, 1, OP_GET, "a", NULL);
    uint64_t del = rig_kv(g, 1, OP_DELETE, "a", NULL);

    (void) state;
    assert_int_equal(g->nodes[1].n_reads, 2); /* was it flushed by its stamp? only it knows */
    g->nodes[1].cold = false;
    rig_kv(g, 1, OP_DELETE, "a", NULL);
    rig_run(g, "1");
    read_done(g, 1, 0);
    assert_int_equal(rig_answer(g, get), RESULT_NOT_FOUND);
    read_done(g, 1, 0);
    assert_int_equal(rig_answer(g, del), RESULT_NOT_FOUND);
    rig_free(g);
}

/* Two additions wait for the same record: both count, each once, however often they are asked. */
static void test_incr_twice(void **state)
{
    struct rig *g = rig_cold();
    uint64_t first = rig_num(g, 1, OP_INCR, "n", 3, 0);
    uint64_t second = rig_num(g, 1, OP_INCR, "n", 5, 0);

    (void) state;
    read_done(g, 1, 0);
    read_done(g, 1, 0);
    rig_run(g, "1");
    assert_int_equal(rig_find_answer(g, first)->result.number, 10);
    assert_int_equal(rig_find_answer(g, second)->result.number, 15);
    rig_free(g);
}

static void test_retry_while_parked(void **state)
{
    struct rig *g = rig_cold();
    uint64_t first = rig_id(g, 1, OP_APPEND, "a", "+", 1, 1);
    uint64_t again = rig_id(g, 1, OP_APPEND, "a", "+", 1, 1);

    (void) state;
    read_done(g, 1, 0);
    read_done(g, 1, 0);
    g->nodes[1].cold = false;
    rig_run(g, "1");
    assert_int_equal(rig_answer(g, first), 0); /* forgotten: nobody waits for it */
    assert_int_equal(rig_answer(g, again), RESULT_STORED);
    assert_string_equal(rig_get(g, 1, "a"), "one+");
    rig_free(g);
}

/* A primary that was deposed while it read answers nothing from what it read. */
static void test_sealed_meanwhile(void **state)
{
    struct rig *g = rig_cold();
    uint64_t get = rig_kv(g, 1, OP_GET, "a", NULL);

    (void) state;
    rig_seal(g, 1, 1);
    read_done(g, 1, 0);
    assert_int_equal(rig_answer(g, get), RESULT_NOT_PRIMARY);
    rig_free(g);
}

static void test_unreadable(void **state)
{
    struct rig *g = rig_cold();
    uint64_t get = rig_kv(g, 1, OP_GET, "a", NULL);
    uint64_t busy = rig_kv(g, 1, OP_GET, "a", NULL);

    (void) state;
    read_done(g, 1, -EIO);
    assert_int_equal(rig_answer(g, get), RESULT_DAMAGED);
    assert_int_equal(g->nodes[1].damaged, 1);
    read_done(g, 1, -EBUSY);
    assert_int_equal(rig_answer(g, busy), RESULT_BUSY);
    assert_null(g->nodes[1].halted); /* the others are served */
    g->nodes[1].cold = false;
    assert_string_equal(rig_get(g, 1, "n"), "7");
    rig_free(g);
}

/* R15: what was read must be the entry itself, whole. */
static void test_rot_is_not_served(void **state)
{
    struct rig *g = rig_cold();
    struct rig_node *n = &g->nodes[1];
    uint64_t get = rig_kv(g, 1, OP_GET, "a", NULL);
    struct action a = n->reads[0];
    const uint8_t *p = NULL;

    (void) state;
    (void) rig_read(n, a.read.at, a.read.bytes, &p);
    ((uint8_t *) p)[a.read.bytes - 1] ^= 4; /* a bit of the value */
    read_done(g, 1, 0);
    assert_int_equal(rig_answer(g, get), RESULT_DAMAGED);
    rig_free(g);
}

static void test_limit(void **state)
{
    struct rig *g = rig_cold();
    uint64_t last = 0;

    (void) state;
    for (unsigned i = 0; i < PARKED_OPS_MAX; i++) {
        last = rig_kv(g, 1, OP_GET, "a", NULL);
    }
    assert_int_equal(rig_answer(g, last), 0);
    last = rig_kv(g, 1, OP_GET, "a", NULL);
    assert_int_equal(rig_answer(g, last), RESULT_BUSY);
    read_done(g, 1, 0);
    last = rig_kv(g, 1, OP_GET, "a", NULL);
    assert_int_equal(rig_answer(g, last), 0); /* there is room again */
    rig_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get_waits_for_the_disk),
        cmocka_unit_test(test_overwritten_meanwhile),
        cmocka_unit_test(test_deleted_meanwhile),
        cmocka_unit_test(test_incr_twice),
        cmocka_unit_test(test_retry_while_parked),
        cmocka_unit_test(test_sealed_meanwhile),
        cmocka_unit_test(test_unreadable),
        cmocka_unit_test(test_rot_is_not_served),
        cmocka_unit_test(test_limit),
    };
    return cmocka_run_group_tests_name("shard_cold", tests, NULL, NULL);
}
