/* Random requests, reports, restarts, broken connections, lost proposals and new leaders against
 * what must hold of every row that commits (R6 to R9, R11). */
#include "manager_rig.h"

#include "base/rng.h"

#define SERVERS  5
#define MEMBERS  4
#define PARTS    3 /* of the partitions, so that requests meet */
#define STEPS    300000
#define CONN_MIN 1000

/* What the test knows of one server's process. */
struct process {
    uint64_t conn; /* 0: it has none */
    uint64_t counter;
    uint64_t accepted; /* the connection over which it registered */
    uint64_t known;    /* the counter that the replicated state has */
};

/* What was said of one partition in its newest view. */
struct story {
    struct view_row row;
    uint64_t formed_with[SERVERS]; /* the processes then */
    bool removed[SERVERS];         /* by the primary, or by itself, at once */
    bool withdrawn;                /* of a learner */
    bool resigned[SERVERS];        /* to this one */
    bool promoted[SERVERS];        /* of this learner, as it is now */
    bool reported[SERVERS];        /* by this process */
    bool trusted[SERVERS];
};

struct world {
    struct rig *g;
    struct rng rng;
    bool leads;
    uint64_t last_conn;
    struct process processes[SERVERS];
    struct story stories[PARTS];
    unsigned min_replicas;
    unsigned seen_renewed, seen_removed, seen_resigned, seen_promoted, seen_same;
};

/* ---- what must hold ---- */

static bool is_member(const struct view_row *row, uint32_t server)
{
    return hashspace_member_slot(row, server) >= 0;
}

static bool is_same_process(const struct world *w, const struct story *s, uint32_t server)
{
    return s->formed_with[server - 1] == cluster(w->g)->space.servers[server - 1].incarnation;
}

/* The primary stays, or handed over itself: then nobody had to seal. */
static bool is_by_primary(const struct world *w, const struct story *s, const struct view_row *row)
{
    if (!is_same_process(w, s, s->row.members[0])) {
        return false;
    }
    return row->members[0] == s->row.members[0] || s->resigned[row->members[0] - 1];
}

/* Who went and who came, at once, was asked for. */
static bool is_explained(const struct story *s, const struct view_row *row)
{
    bool explained = row->members[0] != s->row.members[0] || s->withdrawn;

    for (uint32_t server = 1; server <= SERVERS; server++) {
        bool was = is_member(&s->row, server);
        bool is = is_member(row, server);
        if (was && !is && !s->removed[server - 1]) {
            return false;
        }
        if (!was && is && !s->promoted[server - 1]) {
            return false;
        }
        explained = explained || was != is;
    }
    return explained;
}

/* Every member reported, the primary with them; and enough of them, or some that can be trusted. */
static bool is_sealed(const struct story *s, const struct view_row *row)
{
    bool trusted = false;
    bool all = true;

    for (unsigned i = 0; i < s->row.n_members; i++) {
        uint32_t server = s->row.members[i];
        trusted = trusted || (s->reported[server - 1] && s->trusted[server - 1]);
        all = all && (s->reported[server - 1] || s->removed[server - 1]);
    }
    for (unsigned i = 0; i < row->n_members; i++) {
        if (!is_member(&s->row, row->members[i]) || !s->reported[row->members[i] - 1]) {
            return false;
        }
    }
    return trusted || all;
}

static void row_check(struct world *w, struct story *s, const struct view_row *row)
{
    unsigned stay = 0;
    bool at_once = is_by_primary(w, s, row) && is_explained(s, row);

    assert_int_equal(row->view, s->row.view + 1);
    for (uint32_t server = 1; server <= SERVERS; server++) {
        stay += is_member(&s->row, server) && is_member(row, server);
        /* nobody is lost, nobody is there twice */
        assert_int_equal(hashspace_row_has(&s->row, server), hashspace_row_has(row, server));
        assert_false(is_member(row, server) && hashspace_learner_slot(row, server) >= 0);
    }
    assert_true(stay > 0); /* R11 */
    assert_true(row->n_members >= MIN_OF(w->min_replicas, s->row.n_members));
    if (!at_once) {
        assert_true(is_sealed(s, row));
    }
    w->seen_renewed += !at_once;
    w->seen_removed += at_once && row->n_members < s->row.n_members;
    w->seen_promoted += at_once && row->n_members > s->row.n_members;
    w->seen_resigned += at_once && row->members[0] != s->row.members[0];
    w->seen_same += at_once && row->n_members == s->row.n_members;
}

static void story_begin(const struct world *w, struct story *s, const struct view_row *row)
{
    *s = (struct story){ .row = *row };
    for (unsigned i = 0; i < SERVERS; i++) {
        s->formed_with[i] = cluster(w->g)->space.servers[i].incarnation;
    }
}

/* Another process of the server is the one that counts: what the one before said is void. */
static void process_note(struct world *w, uint32_t server)
{
    struct process *p = &w->processes[server - 1];
    uint64_t known = cluster(w->g)->space.servers[server - 1].incarnation;

    for (unsigned i = 0; i < PARTS && p->known != known; i++) {
        w->stories[i].reported[server - 1] = false;
        w->stories[i].trusted[server - 1] = false;
        w->stories[i].promoted[server - 1] = false;
    }
    p->known = known;
}

static void accepted_note(struct world *w)
{
    for (size_t i = 0; i < w->g->n_seen; i++) {
        const struct manager_action *a = &w->g->seen[i];
        if (a->kind == MANAGER_DO_ACCEPT) {
            w->processes[a->accept.server - 1].accepted = a->conn;
        }
    }
}

static void rows_check(struct world *w)
{
    for (uint16_t p = 0; p < PARTS; p++) {
        const struct view_row *row = row_of(w->g, p);
        if (row->view != w->stories[p].row.view) {
            row_check(w, &w->stories[p], row);
            story_begin(w, &w->stories[p], row);
        } else {
            assert_memory_equal(row, &w->stories[p].row, sizeof(*row)); /* I9 */
        }
    }
    for (uint32_t server = 1; server <= SERVERS; server++) {
        process_note(w, server);
    }
    accepted_note(w);
}

/* ---- what happens ---- */

static void do_disconnect(struct world *w, uint32_t server)
{
    struct process *p = &w->processes[server - 1];

    if (p->conn != 0) {
        gone(w->g, p->conn);
        p->conn = 0;
    }
}

static void do_connect(struct world *w, uint32_t server, bool restart)
{
    struct process *p = &w->processes[server - 1];

    if (restart) {
        do_disconnect(w, server);
        p->counter++;
    }
    p->conn = ++w->last_conn;
    say_register(w->g, p->conn, server, p->counter, p->counter + 50);
}

static bool is_heard(const struct world *w, uint32_t server)
{
    const struct process *p = &w->processes[server - 1];

    return w->leads && p->conn != 0 && p->accepted == p->conn &&
           manager_server_is_up(w->g->m, server);
}

/* What a request of this view explains later; requests of older processes and views explain
 * nothing. */
static void story_note(struct world *w, struct story *s, uint32_t sender,
                       const struct msg_reconfig *r)
{
    bool primary = s->row.members[0] == sender && is_same_process(w, s, sender);

    if (!is_heard(w, sender) || r->view != s->row.view || !is_member(&s->row, sender)) {
        return;
    }
    if (r->kind == RECONFIG_REMOVE && (primary || r->server == sender) && r->server != 0) {
        s->removed[r->server - 1] = s->removed[r->server - 1] || is_member(&s->row, r->server);
        s->withdrawn = s->withdrawn || hashspace_learner_slot(&s->row, r->server) >= 0;
    } else if (r->kind == RECONFIG_RESIGN && primary) {
        s->resigned[r->server - 1] = true;
    } else if (r->kind == RECONFIG_PROMOTE && primary &&
               r->incarnation == w->processes[r->server - 1].known) {
        s->promoted[r->server - 1] = true;
    }
}

static void do_ask(struct world *w)
{
    uint16_t p = (uint16_t) rng_below(&w->rng, PARTS);
    struct story *s = &w->stories[p];
    uint32_t sender =
        rng_chance(&w->rng, 1, 2) ? s->row.members[0] : (uint32_t) rng_between(&w->rng, 1, SERVERS);
    uint32_t about = (uint32_t) rng_between(&w->rng, 1, SERVERS);
    struct manager_event e = {
        .kind = MANAGER_RECONFIG,
        .conn = w->processes[sender - 1].conn,
        .reconfig = { .partition = p,
                      .view = s->row.view - rng_chance(&w->rng, 1, 16),
                      .kind = (uint8_t) rng_between(&w->rng, 1, _RECONFIG_MAX - 1),
                      .server = about,
                      .incarnation = w->processes[about - 1].counter - rng_chance(&w->rng, 1, 8) }
    };

    story_note(w, s, sender, &e.reconfig);
    step(w->g, &e);
}

static void do_report(struct world *w)
{
    uint16_t p = (uint16_t) rng_below(&w->rng, PARTS);
    struct story *s = &w->stories[p];
    uint32_t server = (uint32_t) rng_between(&w->rng, 1, SERVERS);
    struct msg_sealed m = { .partition = p,
                            .view = s->row.view,
                            .last = { .view = s->row.view, .seq = rng_between(&w->rng, 5, 9) },
                            .commit = { .view = s->row.view, .seq = 5 },
                            .trusted = rng_chance(&w->rng, 3, 4) };

    if (is_heard(w, server) && is_member(&s->row, server)) {
        s->reported[server - 1] = true; /* if it is not asked for it does not count; no harm */
        s->trusted[server - 1] = s->trusted[server - 1] || m.trusted;
    }
    report(w->g, w->processes[server - 1].conn, &m);
}

static void do_lead(struct world *w)
{
    w->leads = !w->leads;
    lead(w->g, w->leads);
}

static void do_conclude(struct world *w)
{
    static const int statuses[] = { 0, 0, 0, 0, -EAGAIN, -EREMOTEIO };

    if (w->g->n_proposals > 0) {
        conclude(w->g, statuses[rng_below(&w->rng, ARRAY_LEN(statuses))]);
    }
}

static void do_tick(struct world *w)
{
    tick(w->g, rng_chance(&w->rng, 1, 16) ? MANAGER_FAILURE_USEC_DEFAULT : MANAGER_TICK_USEC);
}

/* Learners come back, or there would be rows of one member only. */
static void do_promote(struct world *w)
{
    uint16_t p = (uint16_t) rng_below(&w->rng, PARTS);
    struct story *s = &w->stories[p];
    uint32_t primary = s->row.members[0];
    struct manager_event e = { .kind = MANAGER_RECONFIG,
                               .conn = w->processes[primary - 1].conn,
                               .reconfig = { .partition = p,
                                             .view = s->row.view,
                                             .kind = RECONFIG_PROMOTE,
                                             .server = s->row.learners[0] } };

    if (s->row.n_learners > 0) {
        e.reconfig.incarnation = w->processes[s->row.learners[0] - 1].known;
        story_note(w, s, primary, &e.reconfig);
        step(w->g, &e);
    }
}

static void do_something(struct world *w)
{
    uint32_t server = (uint32_t) rng_between(&w->rng, 1, SERVERS);
    uint64_t n = rng_below(&w->rng, 400);

    if (w->leads ? n < 1 : n > 300) {
        do_lead(w);
    } else if (n < 8) {
        do_disconnect(w, server);
    } else if (n < 12) {
        do_connect(w, server, true);
    } else if (n < 80) {
        if (!manager_server_is_up(w->g->m, server)) {
            do_connect(w, server, false);
        }
    } else if (n < 110) {
        do_promote(w);
    } else if (n < 160) {
        do_ask(w);
    } else if (n < 240) {
        do_report(w);
    } else if (n < 320) {
        do_conclude(w);
    } else {
        do_tick(w);
    }
    rows_check(w);
}

static void world_begin(struct world *w, struct rig *g, uint64_t seed, unsigned min_replicas)
{
    *w = (struct world){ .g = g, .rng = { seed }, .leads = true, .min_replicas = min_replicas };
    w->last_conn = CONN_MIN;
    rig_manager(g, 0, min_replicas);
    formed(g);
    for (unsigned i = 1; i <= SERVERS; i++) {
        enrol(g, i, i, 1);
        w->processes[i - 1] =
            (struct process){ .conn = i, .counter = 1, .accepted = i, .known = 1 };
    }
    say_attach(g, MEMBERS, 0, NULL);
    conclude(g, 0);
    for (uint16_t p = 0; p < PARTS; p++) {
        story_begin(w, &w->stories[p], row_of(g, p));
    }
}

static void run(void **state, unsigned min_replicas)
{
    static struct world w;

    for (uint64_t seed = 1; seed <= 4; seed++) {
        world_begin(&w, *state, seed, min_replicas);
        for (unsigned i = 0; i < STEPS; i++) {
            do_something(&w);
        }
        while (w.g->n_proposals > 0) {
            conclude(w.g, -EAGAIN);
        }
        assert_true(w.seen_renewed > 100);
        assert_true(w.seen_removed > 50);
        assert_true(w.seen_promoted > 50);
        assert_true(w.seen_resigned > 50);
        assert_true(w.seen_same > 50);
    }
}

static void test_random(void **state)
{
    run(state, 1);
}

static void test_random_min_replicas(void **state)
{
    run(state, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_random, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_random_min_replicas, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
