/* Sessions of gateways at the manager (R12): opening, who is told, and when they end. */
#include "core/manager.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TIMEOUT_USEC UINT64_C(10000000)
#define GATEWAY      50 /* its connection */

/* A manager over a log that takes everything at once. */
struct rig {
    struct manager *m;
    struct manager_actions actions; /* of all steps since the last `say` */
    uint64_t now_usec;
    uint64_t index;
};

static void step(struct rig *g, const struct manager_event *e);

static void commit(struct rig *g, const uint8_t *p, size_t bytes, uint64_t tag)
{
    step(g, &(struct manager_event){ .kind = MANAGER_COMMITTED,
                                     .data = { .p = p, .bytes = bytes, .index = ++g->index } });
    step(g, &(struct manager_event){ .kind = MANAGER_DONE,
                                     .done = { .tag = tag, .index = g->index } });
}

static void keep(struct rig *g, const struct manager_action *a)
{
    mem_grow(&g->actions.v, &g->actions.cap, g->actions.n + 1, sizeof(*g->actions.v));
    g->actions.v[g->actions.n++] = *a;
}

/* Ids of messages are looked at before the next step only: those of the newest are. */
static void step(struct rig *g, const struct manager_event *e)
{
    struct manager_actions out = { 0 };

    manager_step(g->m, g->now_usec, e, &out);
    for (size_t i = 0; i < out.n; i++) {
        if (out.v[i].kind == MANAGER_DO_PROPOSE) {
            struct buf b = { 0 };
            buf_append(&b, out.v[i].propose.p, out.v[i].propose.bytes);
            commit(g, buf_head(&b), buf_len(&b), out.v[i].propose.tag);
            buf_free(&b);
        } else {
            keep(g, &out.v[i]);
        }
    }
    manager_actions_free(&out);
}

static void say(struct rig *g, const struct manager_event *e)
{
    g->actions.n = 0;
    step(g, e);
}

/* The last action of this kind; NULL: none. */
static const struct manager_action *last(const struct rig *g, enum manager_action_kind kind)
{
    for (size_t i = g->actions.n; i > 0; i--) {
        if (g->actions.v[i - 1].kind == kind) {
            return &g->actions.v[i - 1];
        }
    }
    return NULL;
}

static const struct live_sessions *live(const struct rig *g)
{
    return &manager_cluster(g->m)->sessions;
}

static void lead(struct rig *g, bool flag)
{
    say(g, &(struct manager_event){ .kind = MANAGER_LEADER, .flag = flag });
}

/* So long, with all the ticks. */
static void pass(struct rig *g, uint64_t usec)
{
    g->actions.n = 0;
    for (uint64_t at = 0; at < usec; at += MANAGER_EXPIRE_USEC / 2) {
        g->now_usec += MANAGER_EXPIRE_USEC / 2;
        step(g, &(struct manager_event){ .kind = MANAGER_TICK });
    }
}

static uint64_t open_session(struct rig *g)
{
    const struct manager_action *a;

    say(g, &(struct manager_event){ .kind = MANAGER_SESSION, .conn = GATEWAY, .request = 9 });
    a = last(g, MANAGER_DO_SESSION);
    assert_non_null(a);
    assert_int_equal(a->conn, GATEWAY);
    assert_int_equal(a->request, 9);
    return a->session;
}

/* Names these; returns how many are over, the first of them in *ret_over. */
static uint32_t alive(struct rig *g, const uint64_t *ids, uint32_t n, uint64_t *ret_over)
{
    const struct manager_action *a;

    say(g,
        &(struct manager_event){
            .kind = MANAGER_SESSIONS_ALIVE, .conn = GATEWAY, .request = 4, .alive = { ids, n } });
    a = last(g, MANAGER_DO_OVER);
    assert_non_null(a);
    assert_int_equal(a->request, 4);
    if (a->over.n > 0) {
        *ret_over = a->over.ids[0];
    }
    return a->over.n;
}

static void enrol(struct rig *g, unsigned number)
{
    struct manager_event e = { .kind = MANAGER_REGISTER,
                               .conn = number,
                               .registration = { .counter = 1, .random = 7, .shards = 1 } };

    memset(e.registration.server_id, (int) number, UUID_BYTES);
    snprintf(e.registration.name, NAME_BYTES_MAX, "db%u", number);
    snprintf(e.registration.address, ADDRESS_BYTES_MAX, "127.0.0.1:%u", 19800 + number);
    say(g, &e);
    assert_non_null(last(g, MANAGER_DO_ACCEPT));
}

static int set_up(void **state)
{
    const struct manager_options o = { .partitions = 4,
                                       .replicas = 1,
                                       .session_usec = TIMEOUT_USEC };
    struct rig *g = mem_zalloc(1, sizeof(*g));

    g->m = manager_new(&o);
    g->now_usec = 1000000000;
    lead(g, true);
    pass(g, MANAGER_EXPIRE_USEC);
    *state = g;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *g = *state;

    manager_free(g->m);
    manager_actions_free(&g->actions);
    free(g);
    return 0;
}

/* ---- what servers are told ---- */

static void test_servers_are_told(void **state)
{
    struct rig *g = *state;
    const struct manager_action *a;
    uint64_t session;

    session = open_session(g);
    enrol(g, 1);
    a = last(g, MANAGER_DO_SESSIONS); /* all, behind the acceptance */
    assert_ptr_equal(a, &g->actions.v[g->actions.n - 1]);
    assert_int_equal(a->conn, 1);
    assert_true(a->sessions.whole);
    assert_int_equal(a->sessions.index, session);
    assert_int_equal(a->sessions.n_opened, 1);
    assert_int_equal(a->sessions.ids[0], session);
    enrol(g, 2);
    session = open_session(g);
    a = last(g, MANAGER_DO_SESSIONS); /* what changed, to each */
    assert_int_equal(a->conn, 2);
    assert_false(a->sessions.whole);
    assert_int_equal(a->sessions.index, session);
    assert_int_equal(a->sessions.n_opened, 1);
    assert_int_equal(a->sessions.n_ended, 0);
    say(g, &(struct manager_event){ .kind = MANAGER_GONE, .conn = 2 });
    (void) open_session(g);
    a = last(g, MANAGER_DO_SESSIONS);
    assert_int_equal(a->conn, 1);
    assert_true(last(g, MANAGER_DO_SESSION) > a); /* the servers first */
    pass(g, TIMEOUT_USEC + 2 * MANAGER_EXPIRE_USEC);
    a = last(g, MANAGER_DO_SESSIONS);
    assert_false(a->sessions.whole);
    assert_int_equal(a->sessions.n_ended, 3);
    assert_int_equal(a->sessions.index, g->index);
    assert_int_equal(live(g)->n, 0);
}

/* A manager that doesn't lead hears of changes all the same, and so do its servers. */
static void test_told_without_lead(void **state)
{
    struct rig *g = *state;
    struct buf b = { 0 };

    enrol(g, 1);
    lead(g, false);
    cluster_put_session(&b);
    g->actions.n = 0;
    commit(g, buf_head(&b), buf_len(&b), 12345);
    assert_int_equal(last(g, MANAGER_DO_SESSIONS)->sessions.index, g->index);
    buf_free(&b);
}

/* A snapshot takes the place of what was known: servers get it whole, and no change before. */
static void test_restore(void **state)
{
    struct rig *g = *state;
    struct buf b = { 0 };
    struct buf command = { 0 };
    const struct manager_action *a;

    enrol(g, 1);
    (void) open_session(g);
    (void) open_session(g);
    manager_snapshot(g->m, &b);
    assert_int_equal(manager_restore(g->m, buf_head(&b), buf_len(&b)), 0);
    cluster_put_session(&command);
    g->actions.n = 0;
    commit(g, buf_head(&command), buf_len(&command), 12345);
    assert_null(last(g, MANAGER_DO_SESSIONS));
    say(g, &(struct manager_event){ .kind = MANAGER_TICK });
    a = last(g, MANAGER_DO_SESSIONS);
    assert_true(a->sessions.whole);
    assert_int_equal(a->sessions.n_opened, 3);
    assert_int_equal(a->sessions.index, g->index);
    buf_free(&b);
    buf_free(&command);
}

/* ---- when they end ---- */

static void test_named_ones_live(void **state)
{
    struct rig *g = *state;
    uint64_t ids[3] = { open_session(g), open_session(g), 4711 };
    uint64_t over = 0;

    assert_int_equal(alive(g, ids, 3, &over), 1);
    assert_int_equal(over, 4711); /* there never was one */
    for (int i = 0; i < 10; i++) {
        pass(g, TIMEOUT_USEC / 2);
        assert_int_equal(alive(g, &ids[1], 1, &over), 0);
        assert_int_equal(live(g)->n, i == 0 ? 2 : 1);
    }
    assert_int_equal(alive(g, ids, 2, &over), 1);
    assert_int_equal(over, ids[0]);
    pass(g, TIMEOUT_USEC + 2 * MANAGER_EXPIRE_USEC);
    assert_int_equal(live(g)->n, 0);
}

/* Nobody was heard while it didn't lead, or stood still: the wait begins anew. */
static void test_waits_begin_anew(void **state)
{
    struct rig *g = *state;

    (void) open_session(g);
    pass(g, TIMEOUT_USEC - MANAGER_EXPIRE_USEC);
    lead(g, false);
    pass(g, 3 * TIMEOUT_USEC);
    lead(g, true);
    pass(g, TIMEOUT_USEC - MANAGER_EXPIRE_USEC);
    assert_int_equal(live(g)->n, 1);
    g->now_usec += 5 * TIMEOUT_USEC; /* it was stopped */
    pass(g, TIMEOUT_USEC - MANAGER_EXPIRE_USEC);
    assert_int_equal(live(g)->n, 1);
    pass(g, 4 * MANAGER_EXPIRE_USEC);
    assert_int_equal(live(g)->n, 0);
}

static void test_refusals(void **state)
{
    struct rig *g = *state;
    uint64_t id = 1;

    lead(g, false);
    say(g, &(struct manager_event){ .kind = MANAGER_SESSION, .conn = GATEWAY });
    assert_non_null(strstr(last(g, MANAGER_DO_REFUSE)->text, "does not lead"));
    say(g, &(struct manager_event){
               .kind = MANAGER_SESSIONS_ALIVE, .conn = GATEWAY, .alive = { &id, 1 } });
    assert_non_null(strstr(last(g, MANAGER_DO_REFUSE)->text, "does not lead"));
}

static void test_limit(void **state)
{
    struct rig *g = *state;

    while (live(g)->n < SESSIONS_MAX) {
        (void) open_session(g);
    }
    say(g, &(struct manager_event){ .kind = MANAGER_SESSION, .conn = GATEWAY });
    assert_null(last(g, MANAGER_DO_SESSION));
    assert_non_null(strstr(last(g, MANAGER_DO_REFUSE)->text, "too many sessions"));
    pass(g, TIMEOUT_USEC + 2 * MANAGER_EXPIRE_USEC); /* in batches */
    pass(g, (SESSIONS_MAX / CLUSTER_EXPIRE_MAX + 1) * MANAGER_EXPIRE_USEC);
    assert_int_equal(live(g)->n, 0);
    (void) open_session(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_servers_are_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_told_without_lead, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_restore, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_named_ones_live, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_waits_begin_anew, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refusals, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_limit, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("manager, sessions", tests, NULL, NULL);
}
