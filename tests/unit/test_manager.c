/* The manager's mind: registration, attach, and the round that makes a new view (R6, R7, R9). */
#include "core/manager.h"

#include "base/cleanup.h"
#include "base/mem.h"
#include "core/placement.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_PARTITIONS  16
#define SEEN_MAX      256
#define PROPOSALS_MAX 32

struct proposal {
    struct buf bytes;
    uint64_t tag;
};

struct rig {
    struct manager *m;
    struct manager_actions actions;
    struct manager_action seen[SEEN_MAX]; /* of the last step or commit, without proposals */
    size_t n_seen;
    struct proposal proposals[PROPOSALS_MAX]; /* not yet committed */
    size_t n_proposals;
    uint64_t now_usec;
    uint64_t index;
    uint64_t last_request;
};

static int set_up(void **state)
{
    const struct manager_options o = { .cluster_id = "random, they say",
                                       .partitions = N_PARTITIONS,
                                       .replicas = 3 };
    struct rig *g = mem_zalloc(1, sizeof(*g));

    g->m = manager_new(&o);
    g->now_usec = 1000000000;
    *state = g;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *g = *state;

    manager_free(g->m);
    manager_actions_free(&g->actions);
    for (size_t i = 0; i < g->n_proposals; i++) {
        buf_free(&g->proposals[i].bytes);
    }
    free(g);
    return 0;
}

static void step_on(struct rig *g, const struct manager_event *e)
{
    g->actions.n = 0;
    manager_step(g->m, g->now_usec, e, &g->actions);
    for (size_t i = 0; i < g->actions.n; i++) {
        const struct manager_action *a = &g->actions.v[i];
        if (a->kind == MANAGER_DO_PROPOSE) {
            struct proposal *p = &g->proposals[g->n_proposals++];
            assert_true(g->n_proposals <= PROPOSALS_MAX);
            *p = (struct proposal){ .tag = a->propose.tag };
            buf_append(&p->bytes, a->propose.p, a->propose.bytes);
        } else {
            assert_true(g->n_seen < SEEN_MAX);
            g->seen[g->n_seen++] = *a;
        }
    }
}

static void step(struct rig *g, const struct manager_event *e)
{
    g->n_seen = 0;
    step_on(g, e);
}

/* The oldest proposal ends so; with status 0 it is committed first. */
static void conclude(struct rig *g, int status)
{
    struct proposal p = g->proposals[0];
    struct manager_event done = { .kind = MANAGER_DONE,
                                  .done = { .tag = p.tag, .status = status } };

    assert_true(g->n_proposals > 0);
    memmove(&g->proposals[0], &g->proposals[1], --g->n_proposals * sizeof(p));
    g->n_seen = 0;
    if (status == 0) {
        step_on(g, &(struct manager_event){
                       .kind = MANAGER_COMMITTED,
                       .data = { buf_head(&p.bytes), buf_len(&p.bytes), ++g->index } });
        done.done.index = g->index;
    }
    step_on(g, &done);
    buf_free(&p.bytes);
}

static void tick(struct rig *g, uint64_t usec)
{
    g->now_usec += usec;
    step(g, &(struct manager_event){ .kind = MANAGER_TICK });
}

static void lead(struct rig *g, bool flag)
{
    step(g, &(struct manager_event){ .kind = MANAGER_LEADER, .flag = flag });
}

static const struct manager_action *only(const struct rig *g, enum manager_action_kind kind)
{
    const struct manager_action *found = NULL;

    for (size_t i = 0; i < g->n_seen; i++) {
        if (g->seen[i].kind == kind) {
            assert_null(found);
            found = &g->seen[i];
        }
    }
    assert_non_null(found);
    return found;
}

static size_t count(const struct rig *g, enum manager_action_kind kind)
{
    size_t n = 0;

    for (size_t i = 0; i < g->n_seen; i++) {
        n += g->seen[i].kind == kind;
    }
    return n;
}

static void assert_refused(const struct rig *g, const char *part)
{
    assert_non_null(strstr(only(g, MANAGER_DO_REFUSE)->text, part));
}

static void assert_denied(const struct rig *g, uint64_t conn)
{
    assert_int_equal(only(g, MANAGER_DO_DENY)->conn, conn);
    assert_non_null(strstr(only(g, MANAGER_DO_DENY)->text, "newer process"));
}

static const struct cluster *cluster(const struct rig *g)
{
    return manager_cluster(g->m);
}

static void say_register(struct rig *g, uint64_t conn, unsigned number, uint64_t counter,
                         uint64_t random)
{
    struct manager_event e = { .kind = MANAGER_REGISTER,
                               .conn = conn,
                               .request = ++g->last_request,
                               .registration = {
                                   .counter = counter, .random = random, .shards = 2 } };

    memset(e.registration.server_id, (int) number, UUID_BYTES);
    snprintf(e.registration.name, NAME_BYTES_MAX, "db%u", number);
    snprintf(e.registration.address, ADDRESS_BYTES_MAX, "127.0.0.1:%u", 19800 + number);
    step(g, &e);
}

/* Registers and commits: server `number` over connection `conn`. */
static void enrol(struct rig *g, uint64_t conn, unsigned number, uint64_t counter)
{
    say_register(g, conn, number, counter, counter + 50);
    if (g->n_proposals > 0) {
        conclude(g, 0);
    }
    assert_int_equal(only(g, MANAGER_DO_ACCEPT)->accept.server, number);
    assert_int_equal(only(g, MANAGER_DO_ACCEPT)->conn, conn);
}

static void formed(struct rig *g)
{
    lead(g, true);
    tick(g, MANAGER_TICK_USEC);
    conclude(g, 0);
    assert_int_equal(cluster(g)->space.n_partitions, N_PARTITIONS);
}

static void say_attach(struct rig *g, uint32_t replicas, uint32_t n, char (*names)[NAME_BYTES_MAX])
{
    step(g, &(struct manager_event){ .kind = MANAGER_ATTACH,
                                     .conn = 99,
                                     .request = ++g->last_request,
                                     .attach = { .replicas = replicas, .n = n, .names = names } });
}

/* Three servers, over connections 1 to 3, attached. */
static struct rig *three(void **state)
{
    struct rig *g = *state;

    formed(g);
    for (unsigned i = 1; i <= 3; i++) {
        enrol(g, i, i, 1);
    }
    say_attach(g, 0, 0, NULL);
    conclude(g, 0);
    return g;
}

static void gone(struct rig *g, uint64_t conn)
{
    step(g, &(struct manager_event){ .kind = MANAGER_GONE, .conn = conn });
}

static void accuse(struct rig *g, uint64_t conn, uint16_t partition, uint32_t view)
{
    step(g, &(struct manager_event){
                .kind = MANAGER_RECONFIG,
                .conn = conn,
                .reconfig = { .partition = partition, .view = view, .kind = RECONFIG_RENEW } });
}

static void sealed(struct rig *g, uint64_t conn, uint16_t partition, uint32_t view,
                   uint32_t last_view, uint64_t last_seq)
{
    step(g, &(struct manager_event){ .kind = MANAGER_SEALED,
                                     .conn = conn,
                                     .sealed = { .partition = partition,
                                                 .view = view,
                                                 .last = { .view = last_view, .seq = last_seq },
                                                 .time_usec = 1000 + conn } });
}

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
    assert_int_equal(cluster(g)->sessions, 1);
}

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

static void test_accuse_ignored(void **state)
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

/* Nobody is removed: a partition waits for a member that is away. */
static void test_member_away(void **state)
{
    struct rig *g = three(state);
    uint32_t server;

    gone(g, 2);
    accuse(g, 1, 5, 1);
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(g->n_seen, 0);
    assert_int_equal(manager_waiting(g->m, &server), 1);
    assert_int_equal(server, 2);
    enrol(g, 12, 2, 2);
    tick(g, MANAGER_TICK_USEC);
    assert_int_equal(count(g, MANAGER_DO_SEAL), 3);
    manager_waiting(g->m, &server);
    assert_int_equal(server, 0);
}

static void test_seal_again(void **state)
{
    struct rig *g = three(state);

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
    tick(g, MANAGER_SEAL_USEC);
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
    say_register(g, 12, 2, 2, 52);
    assert_int_equal(g->n_proposals, 2);
    views = g->proposals[0]; /* the log has them in the other order */
    g->proposals[0] = g->proposals[1];
    g->proposals[1] = views;
    conclude(g, 0);
    conclude(g, 0);
    assert_int_equal(g->n_seen, 0);
    assert_int_equal(cluster(g)->space.rows[5].view, 1);
    tick(g, MANAGER_SEAL_USEC);
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
        TEST(test_form),
        TEST(test_register),
        TEST(test_register_race),
        TEST(test_lost_lead),
        TEST(test_asker_gone),
        TEST(test_attach),
        TEST(test_session),
        TEST(test_view_round),
        TEST(test_view_order),
        TEST(test_view_preferred),
        TEST(test_accuse_ignored),
        TEST(test_sealed_ignored),
        TEST(test_member_away),
        TEST(test_seal_again),
        TEST(test_restart_after_report),
        TEST(test_restart_before_commit),
        TEST(test_views_lost),
        TEST(test_new_leader),
        TEST(test_snapshot),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
