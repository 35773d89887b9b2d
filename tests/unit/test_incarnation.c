/* Which process of a server is the newest: the pure steps against the managers' state. */
#include "base/mem.h"
#include "core/cluster.h"
#include "core/incarnation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct rig {
    struct cluster cluster;
    struct cluster_effect effect;
    uint64_t random;
};

static int set_up(void **state)
{
    struct rig *g = mem_zalloc(1, sizeof(*g));
    struct buf b = { 0 };
    uint8_t id[UUID_BYTES] = { 1 };

    g->effect.rows = mem_zalloc(PARTITIONS_MAX, sizeof(*g->effect.rows));
    g->effect.before = mem_zalloc(PARTITIONS_MAX, sizeof(*g->effect.before));
    cluster_put_form(&b, id, 4, 1);
    cluster_apply(&g->cluster, 1, buf_head(&b), buf_len(&b), &g->effect);
    buf_free(&b);
    *state = g;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *g = *state;

    cluster_free(&g->cluster);
    free(g->effect.rows);
    free(g->effect.before);
    free(g);
    return 0;
}

/* A start of the process on this disk. */
static void start(struct rig *g, struct incarnation *disk)
{
    incarnation_begin(disk, ++g->random);
}

/* It tells the managers. Returns whether they accept; the answer may be lost (the caller's part).
 */
static bool tell(struct rig *g, struct incarnation *disk)
{
    struct msg_register m = { .server_id = { 7 }, .shards = 1, .name = "db1", .address = "a:1" };
    struct buf b = { 0 };
    bool accepted;

    incarnation_sending(disk);
    incarnation_fill(disk, &m);
    accepted = cluster_refuses(&g->cluster, &m) == NULL;
    cluster_put_register(&b, &m);
    cluster_apply(&g->cluster, 1, buf_head(&b), buf_len(&b), &g->effect);
    buf_free(&b);
    return accepted;
}

static void test_starts_follow_each_other(void **state)
{
    struct incarnation disk = { 0 };

    for (unsigned i = 1; i <= 5; i++) {
        start(*state, &disk);
        assert_true(tell(*state, &disk));
        assert_true(tell(*state, &disk)); /* a connection came back: the same process */
        incarnation_accepted(&disk);
        assert_int_equal(disk.accepted, i);
    }
}

/* Whatever is lost at whichever start, the one disk that there is gets in again. */
static void test_lost_acceptances(void **state)
{
    struct incarnation disk = { 0 };

    for (unsigned i = 0; i < 3 * PRIORS_MAX; i++) {
        start(*state, &disk);
        if (i % 3 != 1) {
            assert_true(tell(*state, &disk)); /* the answer never reaches the disk */
        } else {
            incarnation_sending(&disk); /* durable, then the process dies: nothing was sent */
        }
    }
    start(*state, &disk);
    assert_true(tell(*state, &disk));
}

/* A copy of the disk, made at any moment, and its original: one of them is refused for good. */
static void test_clones(void **state)
{
    for (unsigned moment = 0; moment < 4; moment++) {
        struct incarnation original = { 0 };
        struct incarnation copy;
        tear_down(state);
        set_up(state);
        start(*state, &original);
        if (moment >= 1) {
            incarnation_sending(&original);
        }
        if (moment >= 2) {
            assert_true(tell(*state, &original));
        }
        if (moment >= 3) {
            incarnation_accepted(&original);
        }
        copy = original;
        start(*state, &original);
        start(*state, &copy);
        assert_true(tell(*state, &original));
        assert_false(tell(*state, &copy));
        incarnation_accepted(&original);
        for (unsigned i = 0; i < 3;
             i++) { /* its supervisor restarts it: it doesn't count itself up */
            start(*state, &copy);
            assert_false(tell(*state, &copy));
        }
        start(*state, &original);
        assert_true(tell(*state, &original));
    }
}

/* An older state of the disk is put back. */
static void test_restored(void **state)
{
    struct incarnation disk = { 0 };
    struct incarnation backup;

    start(*state, &disk);
    assert_true(tell(*state, &disk));
    incarnation_accepted(&disk);
    backup = disk;
    for (unsigned i = 0; i < 3; i++) {
        start(*state, &disk);
        assert_true(tell(*state, &disk));
        incarnation_accepted(&disk);
    }
    for (unsigned i = 0; i < 10; i++) {
        start(*state, &backup);
        assert_false(tell(*state, &backup));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_starts_follow_each_other, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_lost_acceptances, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_clones, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_restored, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("incarnation", tests, NULL, NULL);
}
