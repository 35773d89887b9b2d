/* The managers' replicated state: what each command changes, and that nothing else does. */
#include "core/cluster.h"

#include "base/cleanup.h"
#include "base/mem.h"
#include "base/rng.h"
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

#define N_PARTITIONS 16

struct rig {
    struct cluster c;
    struct cluster_effect effect;
    struct buf command;
    uint64_t index; /* of the last entry */
};

static int set_up(void **state)
{
    struct rig *g = mem_zalloc(1, sizeof(*g));

    g->effect.rows = mem_zalloc(PARTITIONS_MAX, sizeof(*g->effect.rows));
    g->effect.before = mem_zalloc(PARTITIONS_MAX, sizeof(*g->effect.before));
    *state = g;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *g = *state;

    cluster_free(&g->c);
    free(g->effect.rows);
    free(g->effect.before);
    buf_free(&g->command);
    free(g);
    return 0;
}

static void apply(struct rig *g)
{
    cluster_apply(&g->c, ++g->index, buf_head(&g->command), buf_len(&g->command), &g->effect);
    buf_clear(&g->command);
}

static void form(struct rig *g, uint32_t partitions, uint32_t replicas)
{
    static const uint8_t id[UUID_BYTES] = "a cluster's id..";

    cluster_put_form(&g->command, id, partitions, replicas);
    apply(g);
}

static struct msg_register registration(unsigned number, uint64_t counter, uint64_t random)
{
    struct msg_register m = { .counter = counter, .random = random, .shards = 4 };

    memset(m.server_id, (int) number, UUID_BYTES);
    snprintf(m.name, sizeof(m.name), "db%u", number);
    snprintf(m.address, sizeof(m.address), "127.0.0.1:%u", 19800 + number);
    return m;
}

static void enrol(struct rig *g, unsigned number, uint64_t counter, uint64_t random)
{
    struct msg_register m = registration(number, counter, random);

    cluster_put_register(&g->command, &m);
    apply(g);
}

static void attach_all(struct rig *g, uint32_t replicas)
{
    uint32_t servers[SERVERS_MAX];

    for (uint32_t i = 0; i < g->c.space.n_servers; i++) {
        servers[i] = i + 1;
    }
    cluster_put_attach(&g->command, replicas, servers, g->c.space.n_servers);
    apply(g);
}

static struct rig *three(void **state)
{
    struct rig *g = *state;

    form(g, N_PARTITIONS, 3);
    for (unsigned i = 1; i <= 3; i++) {
        enrol(g, i, 1, 100 + i);
    }
    attach_all(g, 3);
    return g;
}

static void snapshot(const struct cluster *c, struct buf *out)
{
    buf_clear(out);
    cluster_put(out, c);
}

static void assert_same(const struct cluster *a, const struct cluster *b)
{
    _cleanup_(buf_free) struct buf x = { 0 };
    _cleanup_(buf_free) struct buf y = { 0 };

    snapshot(a, &x);
    snapshot(b, &y);
    assert_int_equal(buf_len(&x), buf_len(&y));
    assert_memory_equal(buf_head(&x), buf_head(&y), buf_len(&x));
}

/* ---- forming and registering ---- */

static void test_form(void **state)
{
    struct rig *g = *state;

    form(g, 12, 3);
    assert_int_equal(g->c.space.n_partitions, 0);
    form(g, 0, 3);
    form(g, 16, 0);
    form(g, 16, REPLICAS_MAX + 1);
    form(g, 2 * PARTITIONS_MAX, 3);
    assert_int_equal(g->c.space.n_partitions, 0);
    assert_int_equal(g->c.space.epoch, 0);
    form(g, 16, 2);
    assert_int_equal(g->c.space.n_partitions, 16);
    assert_int_equal(g->c.replicas, 2);
    assert_int_equal(g->c.space.epoch, 1);
    form(g, 32, 3); /* once only */
    assert_int_equal(g->c.space.n_partitions, 16);
    assert_int_equal(g->c.replicas, 2);
    assert_int_equal(g->c.space.epoch, 1);
}

static void test_register(void **state)
{
    struct rig *g = *state;
    struct msg_register m;

    enrol(g, 1, 1, 7);
    assert_int_equal(g->c.space.n_servers, 0); /* not formed */
    form(g, 16, 3);
    enrol(g, 1, 1, 7);
    assert_true(g->effect.servers);
    enrol(g, 2, 5, 8);
    assert_int_equal(g->c.space.n_servers, 2);
    assert_int_equal(g->c.space.servers[1].incarnation, 5);
    assert_string_equal(g->c.space.servers[1].name, "db2");

    enrol(g, 2, 4, 8); /* lower */
    assert_false(g->effect.servers);
    enrol(g, 2, 5, 9); /* equal, another process */
    assert_false(g->effect.servers);
    assert_int_equal(g->c.space.servers[1].incarnation, 5);
    assert_true(g->c.servers[1].random == 8);
    m = registration(2, 5, 9);
    assert_non_null(cluster_refuses(&g->c, &m));
    m = registration(2, 5, 8);
    assert_null(cluster_refuses(&g->c, &m));

    enrol(g, 2, 6, 9); /* newer */
    assert_true(g->effect.servers);
    assert_int_equal(g->c.space.servers[1].incarnation, 6);
    assert_true(g->c.servers[1].random == 9);
    assert_int_equal(g->c.space.n_servers, 2);
    m = registration(1, 1, 7);
    assert_int_equal(cluster_find(&g->c, m.server_id), 1);
    m = registration(3, 1, 7);
    assert_int_equal(cluster_find(&g->c, m.server_id), 0);
}

/* A server that moves keeps its number, its state and its partitions. */
/* The acceptance of a first try may be lost with the process: its next start proves itself by the
 * random number before. A copy that was made then can do so only as long as nobody else has. */
static void test_register_lost_acceptance(void **state)
{
    struct rig *g = *state;
    struct msg_register original = registration(1, 6, 700);
    struct msg_register copy = registration(1, 6, 800);

    form(g, N_PARTITIONS, 3);
    enrol(g, 1, 5, 500);
    enrol(g, 1, 6, 600);
    assert_non_null(cluster_refuses(&g->c, &original));
    original.priors[1] = copy.priors[0] = 600;
    original.n_priors = 2;
    copy.n_priors = 1;
    assert_null(cluster_refuses(&g->c, &original));
    cluster_put_register(&g->command, &original);
    apply(g);
    assert_int_equal(g->c.servers[0].random, 700);
    assert_null(cluster_refuses(&g->c, &original)); /* the same process comes again */
    assert_non_null(cluster_refuses(&g->c, &copy));
    copy.n_priors = 0;
    assert_non_null(cluster_refuses(&g->c, &copy));
}

static void test_register_moved(void **state)
{
    struct rig *g = three(state);
    struct msg_register m = registration(2, 2, 1);

    snprintf(m.address, sizeof(m.address), "192.0.2.1:19800");
    m.shards = 8;
    cluster_put_register(&g->command, &m);
    apply(g);
    assert_int_equal(g->c.space.n_servers, 3);
    assert_int_equal(g->c.space.servers[1].state, SERVER_ATTACHED);
    assert_int_equal(g->c.space.servers[1].shards, 8);
    assert_string_equal(g->c.space.servers[1].address, "192.0.2.1:19800");
    assert_int_equal(g->effect.n_rows, 0);
    assert_int_equal(g->c.space.rows[0].view, 1);
}

/* ---- attach ---- */

static void test_attach(void **state)
{
    struct rig *g = *state;
    uint32_t servers[3] = { 1, 2, 3 };
    uint32_t wrong[3] = { 1, 3, 2 };
    uint64_t epoch;

    form(g, N_PARTITIONS, 3);
    enrol(g, 1, 1, 1);
    enrol(g, 2, 1, 1);
    epoch = g->c.space.epoch;
    cluster_put_attach(&g->command, 3, servers, 3); /* the third is unknown */
    apply(g);
    cluster_put_attach(&g->command, 3, servers, 2); /* too few */
    apply(g);
    cluster_put_attach(&g->command, 0, servers, 2);
    apply(g);
    cluster_put_attach(&g->command, 1, servers, 0);
    apply(g);
    enrol(g, 3, 1, 1);
    cluster_put_attach(&g->command, 2, wrong, 3); /* not ascending */
    apply(g);
    assert_int_equal(g->c.space.epoch, epoch + 1);
    assert_int_equal(g->c.space.rows[0].view, 0);

    cluster_put_attach(&g->command, 2, servers, 3);
    apply(g);
    assert_true(g->effect.servers);
    assert_int_equal(g->effect.n_rows, N_PARTITIONS);
    assert_int_equal(g->c.replicas, 2);
    for (uint16_t p = 0; p < N_PARTITIONS; p++) {
        struct view_row row = g->c.space.rows[p];
        assert_int_equal(row.view, 1);
        assert_int_equal(row.n_members, 2);
        assert_int_equal(g->effect.rows[p], p);
    }
    epoch = g->c.space.epoch;
    cluster_put_attach(&g->command, 3, servers, 3); /* once only in this version */
    apply(g);
    assert_int_equal(g->c.space.epoch, epoch);
    assert_int_equal(g->c.space.rows[5].n_members, 2);
}

/* ---- views (R9) ---- */

static struct view_row next_of(const struct rig *g, uint16_t partition)
{
    struct view_row row = g->c.space.rows[partition];
    uint32_t first = row.members[0];

    row.view++;
    row.time_usec = 77;
    row.members[0] = row.members[1];
    row.members[1] = first;
    return row;
}

static void test_views(void **state)
{
    struct rig *g = three(state);
    struct view_row rows[3] = { next_of(g, 2), next_of(g, 5), next_of(g, 9) };
    struct view_row later;
    uint64_t epoch = g->c.space.epoch;

    rows[1].view++; /* not the next one */
    cluster_put_views(&g->command, &g->c, rows, 3);
    apply(g);
    assert_int_equal(g->effect.n_rows, 2);
    assert_int_equal(g->effect.rows[0], 2);
    assert_int_equal(g->effect.rows[1], 9);
    assert_false(g->effect.servers);
    assert_int_equal(g->c.space.epoch, epoch + 1);
    assert_int_equal(g->c.space.rows[2].view, 2);
    assert_int_equal(g->c.space.rows[2].members[0], rows[0].members[0]);
    assert_true(g->c.space.rows[2].time_usec == 77);
    assert_int_equal(g->c.space.rows[5].view, 1);

    cluster_put_views(&g->command, &g->c, rows, 3); /* again: all outdated */
    apply(g);
    assert_int_equal(g->effect.n_rows, 0);
    assert_int_equal(g->c.space.epoch, epoch + 1);

    later = next_of(g, 2); /* R11: a stranger, nobody, an unknown partition */
    later.members[1] = 4;
    cluster_put_views(&g->command, &g->c, &later, 1);
    apply(g);
    later = next_of(g, 2);
    later.n_members = 0;
    cluster_put_views(&g->command, &g->c, &later, 1);
    apply(g);
    later = next_of(g, 2);
    later.partition = N_PARTITIONS;
    cluster_put_views(&g->command, &g->c, &later, 1);
    apply(g);
    assert_int_equal(g->c.space.rows[2].view, 2);
    assert_int_equal(g->c.space.epoch, epoch + 1);
}

/* The row of partition 2, with these members and learners (0: no more), one view later. */
static bool views_try(struct rig *g, const uint32_t members[3], const uint32_t learners[3])
{
    struct view_row row = g->c.space.rows[2];

    row.view++;
    row.n_members = row.n_learners = 0;
    for (unsigned i = 0; i < 3; i++) {
        row.members[i] = members[i];
        row.learners[i] = learners[i];
        row.n_members += members[i] > 0;
        row.n_learners += learners[i] > 0;
    }
    cluster_put_views(&g->command, &g->c, &row, 1);
    apply(g);
    assert_true(g->effect.n_rows == 0 || g->c.space.rows[2].view == row.view);
    return g->effect.n_rows > 0;
}
#define MEMBERS(...)  ((const uint32_t[3]){ __VA_ARGS__ })
#define LEARNERS(...) ((const uint32_t[3]){ __VA_ARGS__ })

/* Who leaves is a learner; who learnt comes in; nobody is there twice (R9, R11). */
static void test_views_learners(void **state)
{
    struct rig *g = three(state);

    enrol(g, 4, 1, 104);
    assert_false(views_try(g, MEMBERS(1, 2, 2), LEARNERS(0)));
    assert_false(views_try(g, MEMBERS(1, 2), LEARNERS(2)));
    assert_false(views_try(g, MEMBERS(1), LEARNERS(2, 3, 2)));
    assert_false(views_try(g, MEMBERS(1, 2), LEARNERS(3, 5))); /* unknown */
    assert_false(views_try(g, MEMBERS(1, 4), LEARNERS(2)));    /* never learnt */
    assert_true(views_try(g, MEMBERS(1, 2), LEARNERS(3)));
    assert_int_equal(g->effect.before[0].view, 1);
    assert_int_equal(g->effect.before[0].n_members, 3);
    assert_false(views_try(g, MEMBERS(3), LEARNERS(1, 2))); /* R11: no member of the last one */
    assert_true(views_try(g, MEMBERS(2), LEARNERS(1, 3)));
    assert_false(views_try(g, MEMBERS(1, 3), LEARNERS(2)));
    assert_true(views_try(g, MEMBERS(2), LEARNERS(1, 3, 4)));
    assert_true(views_try(g, MEMBERS(2, 4, 1), LEARNERS(3)));
    assert_true(views_try(g, MEMBERS(2, 4, 1), LEARNERS(0)));
    assert_false(views_try(g, MEMBERS(2, 4, 3), LEARNERS(1))); /* forgotten */
}

/* R6: which members have another process than when the view was formed. */
static void test_restarted(void **state)
{
    struct rig *g = three(state);
    struct msg_register moved = registration(3, 1, 103);
    struct view_row row;

    assert_false(cluster_is_restarted(&g->c, 2, 5));
    enrol(g, 2, 2, 200);
    snprintf(moved.address, sizeof(moved.address), "192.0.2.1:19800");
    cluster_put_register(&g->command, &moved); /* the same process */
    apply(g);
    assert_true(g->effect.servers);
    assert_true(cluster_is_restarted(&g->c, 2, 5));
    assert_false(cluster_is_restarted(&g->c, 1, 5));
    assert_false(cluster_is_restarted(&g->c, 3, 5));
    row = next_of(g, 5);
    cluster_put_views(&g->command, &g->c, &row, 1);
    apply(g);
    assert_false(cluster_is_restarted(&g->c, 2, 5));
    assert_true(cluster_is_restarted(&g->c, 2, 6));
}

/* A member that restarted between its report and the commit has not sealed: the view falls. */
static void test_views_new_incarnation(void **state)
{
    struct rig *g = three(state);
    struct view_row row = next_of(g, 2);
    _cleanup_(buf_free) struct buf views = { 0 };

    cluster_put_views(&views, &g->c, &row, 1);
    enrol(g, 2, 2, 55);
    cluster_apply(&g->c, ++g->index, buf_head(&views), buf_len(&views), &g->effect);
    assert_int_equal(g->effect.n_rows, 0);
    assert_int_equal(g->c.space.rows[2].view, 1);
    cluster_put_views(&g->command, &g->c, &row, 1);
    apply(g);
    assert_int_equal(g->effect.n_rows, 1);
    assert_int_equal(g->c.space.rows[2].view, 2);
}

/* More rows than there can be partitions: the whole command is void. */
static void test_views_too_many(void **state)
{
    struct rig *g = three(state);
    struct view_row row = g->c.space.rows[2];
    _cleanup_free_ struct view_row *rows = mem_zalloc(PARTITIONS_MAX + 1, sizeof(*rows));

    for (uint32_t i = 0; i <= PARTITIONS_MAX; i++) {
        row.view++;
        rows[i] = row;
    }
    cluster_put_views(&g->command, &g->c, rows, PARTITIONS_MAX + 1);
    apply(g);
    assert_int_equal(g->effect.n_rows, 0);
    assert_int_equal(g->c.space.rows[2].view, 1);
    cluster_put_views(&g->command, &g->c, rows, PARTITIONS_MAX);
    apply(g);
    assert_int_equal(g->effect.n_rows, PARTITIONS_MAX);
}

/* ---- snapshots and garbage ---- */

static void test_snapshot(void **state)
{
    struct rig *g = three(state);
    struct view_row row = next_of(g, 3);
    struct cluster copy = { 0 };
    _cleanup_(buf_free) struct buf bytes = { 0 };
    struct mp_reader r;

    cluster_put_views(&g->command, &g->c, &row, 1);
    apply(g);
    cluster_put_session(&g->command);
    apply(g);
    assert_int_equal(g->c.sessions.n, 1);
    snapshot(&g->c, &bytes);
    r = mp_reader_of(buf_head(&bytes), buf_len(&bytes));
    assert_int_equal(cluster_get(&r, &copy), 0);
    assert_ptr_equal(r.p, r.end);
    assert_same(&g->c, &copy);
    assert_int_equal(copy.sessions.n, 1);
    assert_int_equal(copy.sessions.ids[0], g->index);
    assert_int_equal(copy.sessions.index, g->index);
    assert_int_equal(copy.replicas, 3);
    assert_true(copy.servers[2].random == 103);
    cluster_free(&copy);
    for (size_t n = 0; n < buf_len(&bytes); n++) { /* cut short anywhere */
        r = mp_reader_of(buf_head(&bytes), n);
        assert_int_equal(cluster_get(&r, &copy), -EBADMSG);
        cluster_free(&copy);
    }
}

/* What the first version wrote: no epochs of servers and rows. */
static void test_old_snapshot(void **state)
{
    struct rig *g = three(state);
    struct cluster old = { 0 };
    _cleanup_(buf_free) struct buf b = { 0 };
    struct mp_reader r;

    mp_put_array(&b, 4);
    hashspace_put(&b, &g->c.space, NULL, 0);
    mp_put_array(&b, 3);
    for (unsigned i = 0; i < 3; i++) {
        mp_put_array(&b, 2);
        mp_put_bin(&b, g->c.servers[i].id, UUID_BYTES);
        mp_put_uint(&b, g->c.servers[i].random);
    }
    mp_put_uint(&b, 3);
    mp_put_uint(&b, 9);
    r = mp_reader_of(buf_head(&b), buf_len(&b));
    assert_int_equal(cluster_get(&r, &old), 0);
    assert_ptr_equal(r.p, r.end);
    assert_int_equal(old.sessions.n, 0); /* their number, which is all that it said */
    assert_false(cluster_is_restarted(&old, 1, 0));
    cluster_free(&g->c);
    g->c = old;
    enrol(g, 1, 2, 200);
    assert_true(cluster_is_restarted(&g->c, 1, 0));
    assert_false(cluster_is_restarted(&g->c, 2, 0));
}

/* ---- sessions (R12) ---- */

static void test_sessions(void **state)
{
    struct rig *g = three(state);
    uint64_t opened[3];

    for (int i = 0; i < 3; i++) {
        cluster_put_session(&g->command);
        apply(g);
        opened[i] = g->index;
        assert_int_equal(g->effect.opened, g->index);
        assert_int_equal(g->effect.n_ended, 0);
    }
    cluster_put_expire(&g->command, (uint64_t[]){ opened[1], 5555, opened[1] }, 3);
    apply(g);
    assert_int_equal(g->effect.opened, 0);
    assert_int_equal(g->effect.n_ended, 1); /* the others were not open */
    assert_int_equal(g->effect.ended[0], opened[1]);
    assert_int_equal(g->c.sessions.n, 2);
    assert_int_equal(g->c.sessions.index, g->index);
    assert_true(live_sessions_has(&g->c.sessions, opened[0]));
    assert_false(live_sessions_has(&g->c.sessions, opened[1]));
    assert_true(live_sessions_has(&g->c.sessions, opened[2]));
}

static void test_sessions_limit(void **state)
{
    struct rig *g = three(state);

    while (g->c.sessions.n < SESSIONS_MAX) {
        cluster_put_session(&g->command);
        apply(g);
    }
    cluster_put_session(&g->command);
    apply(g);
    assert_int_equal(g->effect.opened, 0);
    assert_int_equal(g->c.sessions.n, SESSIONS_MAX);
    cluster_put_expire(&g->command, g->c.sessions.ids, CLUSTER_EXPIRE_MAX);
    apply(g);
    assert_int_equal(g->effect.n_ended, CLUSTER_EXPIRE_MAX);
    cluster_put_session(&g->command);
    apply(g);
    assert_int_equal(g->effect.opened, g->index);
}

static void command_random(struct rig *g, struct rng *rng, struct buf *out)
{
    struct msg_register m =
        registration((unsigned) rng_between(rng, 1, 5), rng_below(rng, 4), rng_below(rng, 3));
    uint32_t servers[3] = { 1, 2, 3 };
    struct view_row rows[2] = { next_of(g, (uint16_t) rng_below(rng, N_PARTITIONS)),
                                next_of(g, (uint16_t) rng_below(rng, N_PARTITIONS)) };

    buf_clear(out);
    switch (rng_below(rng, 5)) {
    case 0:
        cluster_put_register(out, &m);
        break;
    case 1:
        cluster_put_attach(out, (uint32_t) rng_below(rng, 4), servers,
                           (uint32_t) rng_below(rng, 4));
        break;
    case 2:
        if (g->c.sessions.n > 0 && rng_chance(rng, 1, 2)) {
            cluster_put_expire(out, g->c.sessions.ids, 1);
        } else {
            cluster_put_session(out);
        }
        break;
    default:
        cluster_put_views(out, &g->c, rows, 2);
    }
    if (rng_chance(rng, 1, 2)) {
        buf_head(out)[rng_below(rng, buf_len(out))] = (uint8_t) rng_u64(rng);
    }
    if (rng_chance(rng, 1, 8)) {
        out->end = out->start + rng_below(rng, buf_len(out) + 1);
    }
}

/* Two managers that apply the same bytes, malformed ones too, stay the same. */
static void test_malformed(void **state)
{
    struct rig *g = three(state);
    struct rng rng = { 1 };
    struct cluster other = { 0 };
    _cleanup_(buf_free) struct buf bytes = { 0 };
    struct mp_reader r;

    snapshot(&g->c, &bytes);
    r = mp_reader_of(buf_head(&bytes), buf_len(&bytes));
    assert_int_equal(cluster_get(&r, &other), 0);
    for (int i = 0; i < 20000; i++) {
        _cleanup_free_ uint8_t *exact = NULL;
        size_t n;
        command_random(g, &rng, &bytes);
        n = buf_len(&bytes);
        exact = mem_alloc(n + 1); /* so that a sanitizer sees reads beyond the end */
        memcpy(exact, buf_head(&bytes), n);
        cluster_apply(&g->c, (uint64_t) i + 10, exact, n, &g->effect);
        cluster_apply(&other, (uint64_t) i + 10, buf_head(&bytes), n, &g->effect);
        assert_true(g->effect.n_rows <= N_PARTITIONS);
        if (i % 64 == 0) {
            assert_same(&g->c, &other);
        }
    }
    assert_same(&g->c, &other);
    assert_true(g->c.space.rows[0].view > 1);
    cluster_free(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_form, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_register, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_register_lost_acceptance, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_register_moved, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_attach, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_views, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_views_learners, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_restarted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_views_new_incarnation, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_views_too_many, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_sessions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_sessions_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_snapshot, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_old_snapshot, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_malformed, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
