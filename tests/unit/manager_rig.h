/* A manager under test: its actions, its proposals, and what is said to it. For one test program
 * each. */
#pragma once

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
    struct manager_action seen[SEEN_MAX]; /* of the last step or commit, without proposals, beats */
    size_t n_seen;
    size_t n_beats;
    struct proposal proposals[PROPOSALS_MAX]; /* not yet committed */
    size_t n_proposals;
    uint64_t now_usec;
    uint64_t index;
    uint64_t last_request;
    uint64_t conns[10]; /* of enrolled servers, by number */
};

/* With the options given; a test that needs others makes its manager anew. */
static inline void rig_manager(struct rig *g, uint64_t failure_usec, uint32_t min_replicas_auto)
{
    const struct manager_options o = { .cluster_id = "random, they say",
                                       .partitions = N_PARTITIONS,
                                       .replicas = 3,
                                       .failure_usec = failure_usec,
                                       .min_replicas_auto = min_replicas_auto };

    manager_free(g->m);
    g->m = manager_new(&o);
}

static inline int set_up(void **state)
{
    struct rig *g = mem_zalloc(1, sizeof(*g));

    rig_manager(g, 0, 0);
    g->now_usec = 1000000000;
    *state = g;
    return 0;
}

static inline int tear_down(void **state)
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

static inline void step_on(struct rig *g, const struct manager_event *e)
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
        } else if (a->kind == MANAGER_DO_BEAT) {
            g->n_beats++;
        } else if (a->kind == MANAGER_DO_SESSIONS) {
            continue; /* test_manager_sessions looks at those */
        } else {
            assert_true(g->n_seen < SEEN_MAX);
            g->seen[g->n_seen++] = *a;
        }
    }
}

static inline void step(struct rig *g, const struct manager_event *e)
{
    g->n_seen = g->n_beats = 0;
    step_on(g, e);
}

/* The oldest proposal ends so; with status 0 it is committed first. */
static inline void conclude(struct rig *g, int status)
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

static inline void tick(struct rig *g, uint64_t usec)
{
    g->now_usec += usec;
    step(g, &(struct manager_event){ .kind = MANAGER_TICK });
}

static inline void lead(struct rig *g, bool flag)
{
    step(g, &(struct manager_event){ .kind = MANAGER_LEADER, .flag = flag });
}

static inline const struct manager_action *only(const struct rig *g, enum manager_action_kind kind)
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

static inline size_t count(const struct rig *g, enum manager_action_kind kind)
{
    size_t n = 0;

    for (size_t i = 0; i < g->n_seen; i++) {
        n += g->seen[i].kind == kind;
    }
    return n;
}

static inline void assert_refused(const struct rig *g, const char *part)
{
    assert_non_null(strstr(only(g, MANAGER_DO_REFUSE)->text, part));
}

static inline void assert_denied(const struct rig *g, uint64_t conn)
{
    assert_int_equal(only(g, MANAGER_DO_DENY)->conn, conn);
    assert_non_null(strstr(only(g, MANAGER_DO_DENY)->text, "newer process"));
}

static inline const struct cluster *cluster(const struct rig *g)
{
    return manager_cluster(g->m);
}

static inline void say_register(struct rig *g, uint64_t conn, unsigned number, uint64_t counter,
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

/* Registers and commits: server `number` over connection `conn`. A process of it before is over. */
static inline void enrol(struct rig *g, uint64_t conn, unsigned number, uint64_t counter)
{
    step(g, &(struct manager_event){ .kind = MANAGER_GONE, .conn = g->conns[number] });
    g->conns[number] = conn;
    say_register(g, conn, number, counter, counter + 50);
    if (g->n_proposals > 0) {
        conclude(g, 0);
    }
    assert_int_equal(only(g, MANAGER_DO_ACCEPT)->accept.server, number);
    assert_int_equal(only(g, MANAGER_DO_ACCEPT)->conn, conn);
}

static inline void formed(struct rig *g)
{
    lead(g, true);
    tick(g, MANAGER_TICK_USEC);
    conclude(g, 0);
    assert_int_equal(cluster(g)->space.n_partitions, N_PARTITIONS);
}

static inline void say_attach(struct rig *g, uint32_t replicas, uint32_t n,
                              char (*names)[NAME_BYTES_MAX])
{
    step(g, &(struct manager_event){ .kind = MANAGER_ATTACH,
                                     .conn = 99,
                                     .request = ++g->last_request,
                                     .attach = { .replicas = replicas, .n = n, .names = names } });
}

/* So many servers, over connections 1 to n, attached, with all of them in each row. */
static inline struct rig *servers(struct rig *g, unsigned n)
{
    formed(g);
    for (unsigned i = 1; i <= n; i++) {
        enrol(g, i, i, 1);
    }
    say_attach(g, n, 0, NULL);
    conclude(g, 0);
    return g;
}

static inline struct rig *three(void **state)
{
    return servers(*state, 3);
}

static inline const struct view_row *row_of(const struct rig *g, uint16_t partition)
{
    return &cluster(g)->space.rows[partition];
}

/* The partition's row as text: "view: primary members… | learners…". */
static inline const char *row_text(const struct rig *g, uint16_t partition)
{
    static char text[200];
    const struct view_row *row = row_of(g, partition);
    int n = snprintf(text, sizeof(text), "%u:", row->view);

    for (unsigned i = 0; i < row->n_members; i++) {
        n += snprintf(text + n, sizeof(text) - (size_t) n, " %u", row->members[i]);
    }
    for (unsigned i = 0; i < row->n_learners; i++) {
        n += snprintf(text + n, sizeof(text) - (size_t) n, "%s %u", i == 0 ? " |" : "",
                      row->learners[i]);
    }
    return text;
}

static inline void gone(struct rig *g, uint64_t conn)
{
    step(g, &(struct manager_event){ .kind = MANAGER_GONE, .conn = conn });
}

static inline void heard(struct rig *g, uint64_t conn)
{
    step(g, &(struct manager_event){ .kind = MANAGER_HEARD, .conn = conn });
}

/* Over `conn`, about the partition's newest view. */
static inline void ask(struct rig *g, uint64_t conn, uint16_t partition, enum reconfig_kind kind,
                       uint32_t server)
{
    step(g, &(struct manager_event){ .kind = MANAGER_RECONFIG,
                                     .conn = conn,
                                     .reconfig = { .partition = partition,
                                                   .view = row_of(g, partition)->view,
                                                   .kind = (uint8_t) kind,
                                                   .server = server,
                                                   .incarnation = 1 } });
}

static inline void accuse(struct rig *g, uint64_t conn, uint16_t partition, uint32_t view)
{
    step(g, &(struct manager_event){
                .kind = MANAGER_RECONFIG,
                .conn = conn,
                .reconfig = { .partition = partition, .view = view, .kind = RECONFIG_RENEW } });
}

static inline void report(struct rig *g, uint64_t conn, const struct msg_sealed *sealed)
{
    step(g, &(struct manager_event){ .kind = MANAGER_SEALED, .conn = conn, .sealed = *sealed });
}

static inline void sealed(struct rig *g, uint64_t conn, uint16_t partition, uint32_t view,
                          uint32_t last_view, uint64_t last_seq)
{
    report(g, conn,
           &(struct msg_sealed){ .partition = partition,
                                 .view = view,
                                 .last = { .view = last_view, .seq = last_seq },
                                 .time_usec = 1000 + conn,
                                 .trusted = true });
}
