/* The manager's mind: registration, attach, sessions, snapshots. */
#include "manager_rig.h"

/* ---- forming and registering ---- */

static void test_form(void **state)
{
    struct rig *g = *state;

    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(g->n_proposals, 0); /* does not lead */
    say_register(g, 1, 1, 1, 1);
    assert_refused(g, "does not lead");
    lead(g, true);
    say_register(g, 1, 1, 1, 1);
    assert_refused(g, "not formed");
    tick(g, MANAGER_TICK_USEC);
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(g->n_proposals, 1);
    conclude(g, -EAGAIN); /* did not happen: tried again */
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(g->n_proposals, 1);
    conclude(g, 0);
    assert_int_equal(cluster(g)->space.n_partitions, N_PARTITIONS);
    assert_memory_equal(cluster(g)->space.cluster_id, "random, they say", UUID_BYTES);
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(g->n_proposals, 0);
}

static void test_register(void **state)
{
    struct rig *g = *state;
    const struct manager_action *a;

    formed(g);
    say_register(g, 1, 1, 5, 7);
    assert_int_equal(g->n_seen, 0); /* not before it has committed */
    assert_false(manager_server_is_up(g->m, 1));
    conclude(g, 0);
    a = only(g, MANAGER_DO_ACCEPT);
    assert_int_equal(a->conn, 1);
    assert_int_equal(a->request, g->last_request);
    assert_int_equal(a->accept.server, 1);
    assert_int_equal(a->accept.partitions, N_PARTITIONS);
    assert_int_equal(only(g, MANAGER_DO_CHANGED)->changed.n, 0);
    assert_true(manager_server_is_up(g->m, 1));

    say_register(g, 2, 1, 5, 7); /* the same process, a new connection: nothing to write */
    assert_int_equal(g->n_proposals, 0);
    assert_int_equal(only(g, MANAGER_DO_ACCEPT)->conn, 2);
    assert_int_equal(only(g, MANAGER_DO_CLOSE)->conn, 1);
    gone(g, 1); /* the old one ends later */
    assert_true(manager_server_is_up(g->m, 1));

    say_register(g, 3, 1, 4, 7);
    assert_denied(g, 3);
    say_register(g, 3, 1, 5, 8);
    assert_denied(g, 3);
    assert_true(manager_server_is_up(g->m, 1));

    tick(g, MANAGER_FAILURE_USEC_DEFAULT);
    say_register(g, 3, 1, 6, 8);
    conclude(g, 0);
    assert_int_equal(only(g, MANAGER_DO_ACCEPT)->accept.server, 1);
    assert_int_equal(only(g, MANAGER_DO_CLOSE)->conn, 2);
    say_register(g, 4, 1, 5, 7); /* the older process hears that it is over */
    assert_denied(g, 4);
    assert_true(manager_server_is_up(g->m, 1));
    gone(g, 3);
    assert_false(manager_server_is_up(g->m, 1));
}

/* Two processes of one server at once: the log decides. */
static void test_register_race(void **state)
{
    struct rig *g = *state;

    formed(g);
    say_register(g, 1, 1, 5, 7);
    say_register(g, 2, 1, 5, 8);
    conclude(g, 0);
    assert_int_equal(only(g, MANAGER_DO_ACCEPT)->conn, 1);
    conclude(g, 0);
    assert_denied(g, 2);
    assert_true(manager_server_is_up(g->m, 1));
}

static void test_lost_lead(void **state)
{
    struct rig *g = *state;

    formed(g);
    say_register(g, 1, 1, 1, 1);
    say_register(g, 2, 2, 1, 1);
    lead(g, false);
    conclude(g, -EREMOTEIO);
    assert_refused(g, "unknown");
    conclude(g, -EAGAIN);
    assert_refused(g, "does not lead");
}

/* R6: a copy of a running server's data does not take its place. */
static void test_copy(void **state)
{
    struct rig *g = *state;

    formed(g);
    enrol(g, 1, 1, 5);
    tick(g, MANAGER_FAILURE_USEC_DEFAULT - 1);
    say_register(g, 2, 1, 6, 60);
    assert_refused(g, "runs already, at 127.0.0.1:19801");
    assert_int_equal(g->n_proposals, 0);
    heard(g, 1);
    tick(g, MANAGER_FAILURE_USEC_DEFAULT - 1);
    heard(g, 77); /* nobody */
    say_register(g, 2, 1, 6, 61);
    assert_refused(g, "runs already");
    tick(g, MANAGER_TICK_USEC);
    heard(g, 1);
    say_register(g, 2, 1, 6, 61); /* it has begun, and the other one still lives */
    assert_non_null(strstr(only(g, MANAGER_DO_DENY)->text, "clone"));
    say_register(g, 3, 1, 5, 55); /* the same process over another connection */
    assert_int_equal(only(g, MANAGER_DO_ACCEPT)->conn, 3);

    tick(g, MANAGER_FAILURE_USEC_DEFAULT - 1);
    say_register(g, 2, 1, 6, 60);
    assert_refused(g, "runs already");
    tick(g, 1); /* silent: its machine may be gone */
    say_register(g, 4, 1, 6, 60);
    conclude(g, 0);
    assert_int_equal(only(g, MANAGER_DO_ACCEPT)->conn, 4);
    gone(g, 4); /* killed: it is back at once */
    enrol(g, 5, 1, 7);
}

/* Who could not be heard because this manager stood still is not silent. */
static void test_copy_after_gap(void **state)
{
    struct rig *g = *state;

    formed(g);
    enrol(g, 1, 1, 5);
    tick(g, MANAGER_TICK_USEC);
    tick(g, 3 * MANAGER_GAP_USEC);
    say_register(g, 2, 1, 6, 60);
    assert_refused(g, "runs already");
    tick(g, MANAGER_FAILURE_USEC_DEFAULT);
    say_register(g, 2, 1, 6, 60);
    conclude(g, 0);
    assert_int_equal(only(g, MANAGER_DO_ACCEPT)->conn, 2);
}

/* The asker has gone: nobody is answered, the server is known all the same. */
static void test_asker_gone(void **state)
{
    struct rig *g = *state;

    formed(g);
    say_register(g, 1, 1, 1, 1);
    gone(g, 1);
    conclude(g, 0);
    assert_int_equal(count(g, MANAGER_DO_ACCEPT), 0);
    assert_int_equal(cluster(g)->space.n_servers, 1);
    assert_false(manager_server_is_up(g->m, 1));
}

/* ---- attach and sessions ---- */

static void test_attach(void **state)
{
    struct rig *g = *state;
    char names[2][NAME_BYTES_MAX] = { "db1", "dbx" };

    formed(g);
    enrol(g, 1, 1, 1);
    enrol(g, 2, 2, 1);
    enrol(g, 3, 3, 1);
    gone(g, 3);
    say_attach(g, 0, 2, names);
    assert_refused(g, "dbx");
    say_attach(g, 0, 0, NULL);
    assert_refused(g, "3 replicas need 3 servers, and 2 can be attached");
    assert_int_equal(g->n_proposals, 0);

    say_attach(g, 2, 0, NULL); /* those that are up */
    conclude(g, 0);
    assert_int_equal(only(g, MANAGER_DO_TEXT)->conn, 99);
    assert_int_equal(count(g, MANAGER_DO_VIEW), 2 * N_PARTITIONS);
    assert_int_equal(only(g, MANAGER_DO_CHANGED)->changed.n, N_PARTITIONS);
    assert_int_equal(cluster(g)->space.servers[0].state, SERVER_ATTACHED);
    assert_int_equal(cluster(g)->space.servers[2].state, SERVER_NEW);
    for (size_t i = 0; i < g->n_seen; i++) {
        const struct manager_action *a = &g->seen[i];
        if (a->kind == MANAGER_DO_VIEW) {
            assert_int_equal(a->row.view, 1);
            assert_true(a->conn == a->row.members[0] || a->conn == a->row.members[1]);
        }
    }
    say_attach(g, 1, 0, NULL);
    assert_refused(g, "placed already");
}

static void test_session(void **state)
{
    struct rig *g = *state;

    formed(g);
    step(g, &(struct manager_event){ .kind = MANAGER_SESSION, .conn = 4, .request = 9 });
    conclude(g, 0);
    assert_int_equal(only(g, MANAGER_DO_SESSION)->session, g->index);
    assert_int_equal(only(g, MANAGER_DO_SESSION)->request, 9);
    assert_int_equal(cluster(g)->sessions.n, 1);
}

/* ---- snapshots ---- */

static void test_snapshot(void **state)
{
    struct rig *g = three(state);
    const struct manager_options o = { .partitions = 4, .replicas = 1 };
    struct manager *other = manager_new(&o);
    _cleanup_(buf_free) struct buf a = { 0 };
    _cleanup_(buf_free) struct buf b = { 0 };

    manager_snapshot(g->m, &a);
    assert_int_equal(manager_restore(other, buf_head(&a), buf_len(&a)), 0);
    manager_snapshot(other, &b);
    assert_int_equal(buf_len(&a), buf_len(&b));
    assert_memory_equal(buf_head(&a), buf_head(&b), buf_len(&a));
    assert_false(manager_server_is_up(other, 1));

    assert_int_equal(manager_restore(other, buf_head(&a), buf_len(&a) / 2), -EBADMSG);
    assert_int_equal(manager_restore(other, (const uint8_t *) "", 0), -EBADMSG);
    buf_clear(&b);
    manager_snapshot(other, &b); /* as it was */
    assert_memory_equal(buf_head(&a), buf_head(&b), buf_len(&a));
    manager_free(other);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_form),       TEST(test_register), TEST(test_register_race),
        TEST(test_lost_lead),  TEST(test_copy),     TEST(test_copy_after_gap),
        TEST(test_asker_gone), TEST(test_attach),   TEST(test_session),
        TEST(test_snapshot),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
