/* Where the network is cut: per direction of each pair of machines, and per lane between servers.
 * Nothing arrives there until the cut ends; connections that stand still for long break. */
#include "sim/sim.h"

#include "base/cleanup.h"

/* Machines: the servers, the manager's, the clients'. */
enum {
    NODE_MANAGER = SIM_SERVERS_MAX,
    NODE_CLIENTS,
    NODES = SIM_NODES_MAX,
};
_Static_assert(SIM_NODES_MAX == SIM_SERVERS_MAX + 1 + SIM_CLIENTS_MAX + 1, "all of them");

#define CUT_BREAK_USEC (4 * USEC_PER_SEC) /* so long a connection may stand still, at most */

static unsigned node_of(const struct endpoint *e)
{
    switch (e->kind) {
    case END_MANAGER:
        return NODE_MANAGER;
    case END_CLIENT:
        return NODE_CLIENTS + e->node;
    default:
        return e->node;
    }
}

uint64_t cut_until(const struct sim *s, enum msg_lane lane, const struct endpoint *from,
                   const struct endpoint *to)
{
    return s->cuts[lane][node_of(from)][node_of(to)];
}

/* ---- one cut ---- */

/* e->number: the connection that may have stood still since the cut. */
static void gives_up(struct sim *s, struct event *e)
{
    struct link *l = e->who;

    if (l->conn == e->number && (cut_until(s, l->lane, &l->end[0], &l->end[1]) > s->now_usec ||
                                 cut_until(s, l->lane, &l->end[1], &l->end[0]) > s->now_usec)) {
        net_break(s, l, USEC_PER_SEC);
    }
}

static void way_cut(struct sim *s, enum msg_lane lane, unsigned from, unsigned to,
                    uint64_t until_usec)
{
    uint64_t *until = &s->cuts[lane][from][to];

    /* not beyond the healing: what waits for a cut's end would be overtaken */
    *until = MAX_OF(*until, MIN_OF(until_usec, s->setup.faults_end_usec));
    for (uint32_t i = 0; i < s->n_links; i++) {
        struct link *l = &s->links[i];
        unsigned a = node_of(&l->end[0]);
        unsigned b = node_of(&l->end[1]);
        if (l->conn != 0 && l->lane == lane && ((a == from && b == to) || (a == to && b == from)) &&
            sim_chance(s, 1, 2)) {
            sim_after(s, sim_between(s, 0, CUT_BREAK_USEC), NULL, gives_up, l, l->conn, NULL);
        }
    }
}

static void ways_cut(struct sim *s, unsigned from, unsigned to, uint64_t until_usec)
{
    for (unsigned lane = 0; lane < _LANE_MAX; lane++) {
        way_cut(s, (enum msg_lane) lane, from, to, until_usec);
    }
}

static void pair_cut(struct sim *s, unsigned a, unsigned b, uint64_t until_usec)
{
    ways_cut(s, a, b, until_usec);
    ways_cut(s, b, a, until_usec);
}

/* ---- shapes ---- */

static unsigned server_draw(struct sim *s)
{
    return (unsigned) sim_between(s, 0, s->setup.servers - 1);
}

/* Mostly a server or the manager. */
static unsigned node_draw(struct sim *s)
{
    uint64_t n = sim_between(s, 0, 9);

    return n < 7   ? server_draw(s)
           : n < 9 ? NODE_MANAGER
                   : NODE_CLIENTS + (unsigned) sim_between(s, 0, s->setup.clients - 1);
}

static void pair_shape(struct sim *s, uint64_t until)
{
    pair_cut(s, server_draw(s), node_draw(s), until);
}

static void one_way_shape(struct sim *s, uint64_t until)
{
    unsigned a = server_draw(s);
    unsigned b = node_draw(s);

    ways_cut(s, sim_chance(s, 1, 2) ? a : b, a == b ? NODE_MANAGER : b, until);
    if (sim_chance(s, 1, 2)) {
        ways_cut(s, b, a, until);
    }
}

static void lane_shape(struct sim *s, uint64_t until)
{
    unsigned a = server_draw(s);
    unsigned b = server_draw(s);
    enum msg_lane lane = sim_chance(s, 1, 2) ? LANE_LEASES : LANE_DATA;

    way_cut(s, lane, a, b, until);
    if (sim_chance(s, 1, 2)) {
        way_cut(s, lane, b, a, until);
    }
}

/* One machine alone: unreachable, mute, or deaf. */
static void alone_shape(struct sim *s, uint64_t until)
{
    unsigned node = sim_chance(s, 1, 4) ? NODE_MANAGER : server_draw(s);
    uint64_t how = sim_between(s, 0, 2);
    bool clients_too = sim_chance(s, 1, 2);

    for (unsigned i = 0; i < (clients_too ? NODES : NODE_CLIENTS); i++) {
        if (how != 1) {
            ways_cut(s, node, i, until);
        }
        if (how != 2) {
            ways_cut(s, i, node, until);
        }
    }
}

/* A server with some clients: who is deposed there, and does not hear of it, is still asked. Each
 * pair is whole again at a time of its own, so that old words may come before the newest. */
static void left_behind(struct sim *s, unsigned node, uint64_t min_usec, uint64_t max_usec)
{
    uint64_t with = rng_u64(&s->rng);

    for (unsigned i = 0; i < NODES; i++) {
        uint64_t until = s->now_usec + sim_between(s, min_usec, max_usec);
        if (i != node && (i < NODE_CLIENTS || (with >> i & 1) == 0)) {
            pair_cut(s, node, i, until);
        }
        for (unsigned c = NODE_CLIENTS; c < NODES && i < NODE_CLIENTS && i != node; c++) {
            if (with >> c & 1) {
                pair_cut(s, c, i, until);
            }
        }
    }
}

void cuts_around(struct sim *s, const struct server *sv)
{
    left_behind(s, sv->index, USEC_PER_SEC / 2, 7 * USEC_PER_SEC);
}

/* Two groups; `bridge`: one server is in both. */
static void groups_shape(struct sim *s, uint64_t until, bool bridge)
{
    uint64_t side = rng_u64(&s->rng);
    unsigned both = bridge ? server_draw(s) : NODES;

    for (unsigned a = 0; a < NODES; a++) {
        for (unsigned b = 0; b < a; b++) {
            if (((side >> a ^ side >> b) & 1) && a != both && b != both) {
                pair_cut(s, a, b, until);
            }
        }
    }
}

/* e->number: how often still. */
static void flaps(struct sim *s, struct event *e)
{
    unsigned a = server_draw(s);

    if (s->healed || e->number == 0) {
        return;
    }
    pair_cut(s, a, (a + 1) % s->setup.servers, s->now_usec + sim_between(s, 10, 400) * 1000);
    sim_after(s, sim_between(s, 50, 800) * USEC_PER_MSEC, NULL, flaps, NULL, e->number - 1, NULL);
}

void cuts_strike(struct sim *s)
{
    static const char *const names[] = { "between two", "one way",        "of one lane",
                                         "around one",  "between groups", "with a bridge",
                                         "that flaps",  "around some" };
    unsigned shape = (unsigned) sim_between(s, 0, ARRAY_LEN(names) - 1);
    uint64_t msec = sim_chance(s, 1, 3) ? sim_between(s, 10, 900) : sim_between(s, 900, 8000);
    uint64_t until = s->now_usec + msec * USEC_PER_MSEC;

    sim_trace(s, "the network is cut %s for %llu ms", names[shape], (unsigned long long) msec);
    switch (shape) {
    case 0:
        pair_shape(s, until);
        return;
    case 1:
        one_way_shape(s, until);
        return;
    case 2:
        lane_shape(s, until);
        return;
    case 3:
        alone_shape(s, until);
        return;
    case 4:
    case 5:
        groups_shape(s, until, shape == 5);
        return;
    case 6:
        sim_after(s, 0, NULL, flaps, NULL, sim_between(s, 3, 20), NULL);
        return;
    default:
        left_behind(s, server_draw(s), USEC_PER_SEC / 2, msec * USEC_PER_MSEC + USEC_PER_SEC);
    }
}

/* The lead of the managers went to another machine, which is reached in other ways. */
void cuts_manager_moved(struct sim *s)
{
    for (unsigned lane = 0; lane < _LANE_MAX; lane++) {
        for (unsigned i = 0; i < NODES; i++) {
            s->cuts[lane][NODE_MANAGER][i] = s->cuts[lane][i][NODE_MANAGER] = 0;
        }
    }
}

void cuts_heal(struct sim *s)
{
    memset(s->cuts, 0, sizeof(s->cuts));
}
