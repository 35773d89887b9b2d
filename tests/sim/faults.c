/* What goes wrong, drawn from the seed: each seed draws which faults there are and how often. */
#include "sim/sim.h"

#include "base/cleanup.h"

#define RESTART_MAX_USEC (3 * USEC_PER_SEC)

static struct server *server_draw(struct sim *s)
{
    return &s->servers[sim_between(s, 0, s->setup.servers - 1)];
}

static void boots(struct sim *s, struct event *e)
{
    struct server *sv = e->who;

    sv->restart_due = false;
    if (!sv->process.alive) {
        server_boot(s, sv);
    }
}

static void restart_after(struct sim *s, struct server *sv, uint64_t delay_usec)
{
    if (!sv->restart_due) {
        sv->restart_due = true;
        sim_after(s, delay_usec, NULL, boots, sv, 0, NULL);
    }
}

static void restart_plan(struct sim *s, struct server *sv)
{
    restart_after(s, sv,
                  sim_chance(s, 1, 2) ? sim_between(s, 0, 200) * USEC_PER_MSEC
                                      : sim_between(s, 0, RESTART_MAX_USEC));
}

void faults_crash(struct sim *s, struct server *sv, bool power)
{
    server_crash(s, sv, power);
    restart_plan(s, sv);
}

void faults_stopped(struct sim *s, struct server *sv)
{
    sim_trace(s, "server %u stops", sv->index + 1);
    s->counts.stops++;
    faults_crash(s, sv, false);
}

static void crash(struct sim *s, struct server *sv, bool power)
{
    if (sim_chance(s, 1, 2)) {
        sv->doom = (uint32_t) sim_between(s, 1, 20);
    } else {
        faults_crash(s, sv, power);
    }
}

static void away(struct sim *s, struct server *sv)
{
    if (sv->process.alive) {
        server_crash(s, sv, sim_chance(s, 1, 2));
        restart_after(s, sv, sim_between(s, 2, 12) * USEC_PER_SEC);
    }
}

/* With weak syncs a power loss of all proves nothing. */
static void crash_all(struct sim *s)
{
    for (uint32_t i = 0; i < s->setup.servers; i++) {
        faults_crash(s, &s->servers[i], !s->setup.weak_sync);
    }
    if (sim_chance(s, 1, 2)) {
        managers_crash(s);
    }
}

static struct link *link_draw(struct sim *s)
{
    struct link *l = NULL;

    for (unsigned i = 0; i < 200 && (!l || l->conn == 0); i++) {
        l = &s->links[sim_between(s, 0, s->n_links - 1)];
    }
    return l;
}

void faults_stall(struct sim *s, struct link *l)
{
    uint64_t until = s->now_usec + sim_between(s, 10, 2500) * USEC_PER_MSEC;
    unsigned side = sim_chance(s, 1, 2);

    if (l->last_usec[side] < until) {
        l->last_usec[side] = until;
    }
}

static void pause_one(struct sim *s)
{
    struct process *p = sim_chance(s, 1, 5) ? &s->manager.process : &server_draw(s)->process;

    if (p->alive) {
        p->paused_until_usec = MIN_OF(s->now_usec + sim_between(s, 10, 3000) * USEC_PER_MSEC,
                                      s->setup.faults_end_usec);
        sim_trace(s, "a %s is paused until %llu ms", p->name,
                  (unsigned long long) (p->paused_until_usec / USEC_PER_MSEC));
    }
}

static void space_told(struct sim *s, struct event *e)
{
    shard_space(s, e->who);
}

/* The shards hear of it a little later; of room only when what waited is written. */
static void space_set(struct sim *s, struct server *sv, enum shard_space space)
{
    sim_trace(s, "server %u: its disk has %s", sv->index + 1,
              space == SPACE_ROOM  ? "room"
              : space == SPACE_LOW ? "little room"
                                   : "no room");
    sv->space = space;
    for (uint32_t i = 0; i < sv->n_shards && sv->process.alive; i++) {
        if (space != SPACE_FULL) {
            shard_unblock(s, &sv->shards[i], true);
        }
        sim_after(s, sim_between(s, 0, 200 * USEC_PER_MSEC), &sv->process, space_told,
                  &sv->shards[i], 0, NULL);
    }
}

static void room_again(struct sim *s, struct event *e)
{
    space_set(s, e->who, SPACE_ROOM);
}

static void fill(struct sim *s)
{
    struct server *sv = server_draw(s);

    if (sv->space == SPACE_ROOM) {
        space_set(s, sv, sim_chance(s, 1, 3) ? SPACE_LOW : SPACE_FULL);
        sim_after(s, sim_between(s, 10, 2500) * USEC_PER_MSEC, NULL, room_again, sv, 0, NULL);
    }
}

/* ---- at places that the code names ---- */

bool bug_strikes(struct sim *s, enum bug b)
{
    if (s->healed || s->setup.bug_chance[b] == 0 || !sim_chance(s, s->setup.bug_chance[b], 1000)) {
        return false;
    }
    s->counts.bugs[b]++;
    return true;
}

uint64_t faults_tick(struct sim *s, uint64_t tick_usec)
{
    return tick_usec +
           (bug_strikes(s, BUG_TICK_GAP) ? sim_between(s, 100, 2500) * USEC_PER_MSEC : 0);
}

static void dies(struct sim *s, struct event *e)
{
    faults_crash(s, e->who, sim_chance(s, 1, 2));
}

static void crash_soon(struct sim *s, struct server *sv, uint64_t usec)
{
    if (sv) {
        sim_after(s, sim_between(s, 0, usec), &sv->process, dies, sv, 0, NULL);
    }
}

/* Its followers may restart then: what they promised it must hold (R10). */
static void is_cut_off(struct sim *s, struct event *e)
{
    struct server *other = server_draw(s);

    if (s->healed) {
        return;
    }
    cuts_around(s, e->who);
    if (other != e->who && sim_chance(s, 1, 2)) {
        crash_soon(s, other, 300 * USEC_PER_MSEC);
    }
}

void faults_in_catchup(struct sim *s, struct server *from, struct server *to)
{
    if (bug_strikes(s, BUG_CRASH_IN_CATCHUP)) {
        crash_soon(s, sim_chance(s, 1, 2) ? from : to, 20 * USEC_PER_MSEC);
    }
    if (to && to->state == LIFE_RUNNING && bug_strikes(s, BUG_EARLY_GENERATION)) {
        checkpoints_begin(s, to);
    }
}

void faults_in_view(struct sim *s, const struct view_row *row, bool grows)
{
    struct server *sv =
        server_of_number(s, row->members[sim_between(s, 0, (uint64_t) row->n_members - 1)]);

    if (bug_strikes(s, BUG_CRASH_IN_VIEW)) {
        crash_soon(s, sv, sim_chance(s, 1, 2) ? 5 * USEC_PER_MSEC : 300 * USEC_PER_MSEC);
    }
    sv = server_of_number(s, row->members[0]);
    /* after a promotion above all: the primary may have relied on what it does not know yet (R8) */
    if (sv && (bug_strikes(s, BUG_CUT_IN_VIEW) ||
               (grows && (bug_strikes(s, BUG_CUT_IN_VIEW) || bug_strikes(s, BUG_CUT_IN_VIEW))))) {
        sim_after(s, sim_chance(s, 1, 2) ? 0 : sim_between(s, 0, 500) * USEC_PER_MSEC, NULL,
                  is_cut_off, sv, 0, NULL);
    }
    if (bug_strikes(s, BUG_BREAK_IN_VIEW)) {
        net_break(s, link_draw(s), 200 * USEC_PER_MSEC);
    }
}

/* ---- when ---- */

static void strike(struct sim *s, enum fault f)
{
    switch (f) {
    case FAULT_KILL:
        crash(s, server_draw(s), false);
        return;
    case FAULT_POWER:
        crash(s, server_draw(s), true);
        return;
    case FAULT_POWER_ALL:
        crash_all(s);
        return;
    case FAULT_BREAK:
        net_break(s, link_draw(s), sim_between(s, 0, 1000) * USEC_PER_MSEC);
        return;
    case FAULT_STALL:
        faults_stall(s, link_draw(s));
        return;
    case FAULT_PAUSE:
        pause_one(s);
        return;
    case FAULT_CLOCK:
        server_draw(s)->clock_skew_usec += (int64_t) sim_between(s, 0, 4 * USEC_PER_SEC) - 2000000;
        return;
    case FAULT_MANAGER_KILL:
        managers_crash(s);
        return;
    case FAULT_MANAGER_FLIP:
        managers_flip(s);
        return;
    case FAULT_CLIENT_KILL:
        client_crash(s, &s->clients[sim_between(s, 0, s->setup.clients - 1)]);
        return;
    case FAULT_FULL:
        fill(s);
        return;
    case FAULT_STOP:
        server_stop(s, server_draw(s));
        return;
    case FAULT_CUT:
        cuts_strike(s);
        return;
    case FAULT_AWAY:
        away(s, server_draw(s));
        return;
    default:
        return;
    }
}

static void strikes(struct sim *s, struct event *e)
{
    enum fault f = (enum fault) e->number;

    if (s->healed) {
        return;
    }
    s->counts.faults[f]++;
    strike(s, f);
    sim_after(s, sim_between(s, 0, 2 * s->setup.fault_usec[f]), NULL, strikes, NULL, f, NULL);
}

void faults_begin(struct sim *s)
{
    for (unsigned f = 0; f < _FAULT_MAX; f++) {
        if (s->setup.fault_usec[f] > 0) {
            sim_after(s, sim_between(s, 0, 2 * s->setup.fault_usec[f]), NULL, strikes, NULL, f,
                      NULL);
        }
    }
}

void faults_heal(struct sim *s)
{
    s->healed = true;
    s->setup.slow_syncs = false;
    cuts_heal(s);
    net_heal(s);
    for (uint32_t i = 0; i < s->setup.servers; i++) {
        s->servers[i].doom = 0;
        space_set(s, &s->servers[i], SPACE_ROOM);
        sim_after(s, sim_between(s, 0, USEC_PER_SEC), NULL, boots, &s->servers[i], 0, NULL);
    }
}
