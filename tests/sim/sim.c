/* One run: from a seed to the end of its virtual time. */
#include "sim/sim.h"

#include "base/cleanup.h"
#include "base/mem.h"

#include <stdarg.h>
#include <stdlib.h>

#define EVENTS_MAX 20000000 /* of one run: more is a loop that never ends */

uint64_t sim_between(struct sim *s, uint64_t lo, uint64_t hi)
{
    return rng_between(&s->rng, lo, hi);
}

bool sim_chance(struct sim *s, uint64_t n, uint64_t of)
{
    return rng_chance(&s->rng, n, of);
}

/* ---- what it says ---- */

void sim_line(struct sim *s, const char *format, ...)
{
    char *line = s->lines[s->n_lines++ % SIM_LINES_MAX];
    int n = snprintf(line, sizeof(*s->lines), "%8llu.%03llu ms  ",
                     (unsigned long long) (s->now_usec / USEC_PER_MSEC),
                     (unsigned long long) (s->now_usec % USEC_PER_MSEC));
    va_list args;

    va_start(args, format);
    vsnprintf(line + n, sizeof(*s->lines) - (size_t) n, format, args);
    va_end(args);
    if (s->o->trace) {
        puts(line);
    }
}

void sim_print_lines(const struct sim *s, FILE *f, uint64_t n)
{
    uint64_t have = MIN_OF(s->n_lines, (uint64_t) SIM_LINES_MAX);

    for (uint64_t i = s->n_lines - MIN_OF(n, have); i < s->n_lines; i++) {
        fprintf(f, "%s\n", s->lines[i % SIM_LINES_MAX]);
    }
}

void sim_fail(struct sim *s, const char *format, ...)
{
    va_list args;

    if (s->failed) {
        return;
    }
    s->failed = true;
    va_start(args, format);
    vsnprintf(s->why, sizeof(s->why), format, args);
    va_end(args);
    sim_trace(s, "FAILED: %s", s->why);
}

/* ---- the queue ---- */

void sim_after(struct sim *s, uint64_t delay_usec, struct process *p,
               void (*fn)(struct sim *s, struct event *e), void *who, uint64_t number, void *data)
{
    struct event e = {
        .at_usec = s->now_usec + delay_usec,
        .fn = fn,
        .process = p,
        .life = p ? p->life : 0,
        .who = who,
        .number = number,
        .data = data,
    };

    queue_push(&s->queue, &e);
}

static void dispatch(struct sim *s, struct event *e)
{
    struct process *p = e->process;

    if (p && (p->life != e->life || !p->alive)) {
        free(e->data);
        return;
    }
    if (p && p->paused_until_usec > s->now_usec) {
        e->at_usec = p->paused_until_usec; /* in the same order as they came */
        queue_push_again(&s->queue, e);
        return;
    }
    s->counts.events++;
    e->fn(s, e);
    free(e->data);
}

static void run_until(struct sim *s, uint64_t end_usec)
{
    struct event e;

    while (!s->failed && s->queue.n > 0 && s->queue.heap[0].at_usec <= end_usec) {
        queue_pop(&s->queue, &e);
        s->now_usec = e.at_usec;
        dispatch(s, &e);
        if (s->counts.events > EVENTS_MAX) {
            sim_fail(s, "more than %d events: something goes round in circles", EVENTS_MAX);
        }
    }
    s->now_usec = MAX_OF(s->now_usec, end_usec);
}

/* ---- what the seed draws ---- */

static uint64_t fault_draw(struct sim *s, uint64_t often_msec, uint64_t seldom_msec)
{
    return sim_chance(s, 1, 2) ? 0 : sim_between(s, often_msec, seldom_msec) * USEC_PER_MSEC;
}

static void faults_draw(struct sim *s)
{
    uint64_t *f = s->setup.fault_usec;

    f[FAULT_KILL] = fault_draw(s, 500, 8000);
    f[FAULT_POWER] = fault_draw(s, 500, 8000);
    f[FAULT_POWER_ALL] = fault_draw(s, 3000, 15000);
    f[FAULT_BREAK] = fault_draw(s, 50, 3000);
    f[FAULT_STALL] = fault_draw(s, 50, 3000);
    f[FAULT_PAUSE] = fault_draw(s, 1000, 8000);
    f[FAULT_CLOCK] = fault_draw(s, 500, 5000);
    f[FAULT_MANAGER_KILL] = fault_draw(s, 2000, 10000);
    f[FAULT_MANAGER_FLIP] = fault_draw(s, 1000, 10000);
    f[FAULT_CLIENT_KILL] = fault_draw(s, 2000, 10000);
    f[FAULT_STOP] = fault_draw(s, 1000, 10000);
    f[FAULT_FULL] = fault_draw(s, 300, 4000);
    f[FAULT_CUT] = fault_draw(s, 300, 5000);
    f[FAULT_AWAY] = fault_draw(s, 1500, 12000);
}

static void bugs_draw(struct sim *s)
{
    static const uint64_t highest[_BUG_MAX] = {
        [BUG_TICK_GAP] = 10,      [BUG_SLOW_ASK] = 100,      [BUG_CRASH_IN_CATCHUP] = 100,
        [BUG_CRASH_IN_VIEW] = 50, [BUG_BREAK_IN_VIEW] = 200, [BUG_EARLY_GENERATION] = 200,
        [BUG_CUT_IN_VIEW] = 150,
    };

    for (unsigned b = 0; b < _BUG_MAX; b++) {
        s->setup.bug_chance[b] = sim_chance(s, 1, 2) ? 0 : sim_between(s, 1, highest[b]);
    }
    s->setup.small_pieces = sim_chance(s, 1, 2);
    s->setup.slow_links = sim_chance(s, 2, 3) ? 0 : sim_between(s, 1, 30);
}

/* Mostly the default, or so short that a view changes while leases of the one before hold. */
static uint64_t timeout_draw(struct sim *s)
{
    uint64_t n = sim_between(s, 0, 9);

    return n < 4   ? 0
           : n < 8 ? sim_between(s, 100, 500) * USEC_PER_MSEC
                   : sim_between(s, 500, 3000) * USEC_PER_MSEC;
}

static void setup_draw(struct sim *s)
{
    static const uint32_t servers[] = { 3, 3, 3, 3, 3, 3, 1, 2, 2, 5 };
    static const uint32_t segments[] = { 4096, 4096, 16384, 65536, 1u << 20 };
    static const uint64_t syncs[] = { 200, 2000, 10000, 30000 };
    struct setup *u = &s->setup;

    u->servers = servers[sim_between(s, 0, ARRAY_LEN(servers) - 1)];
    u->partitions = 4u << sim_between(s, 0, 1);
    u->replicas = (uint32_t) sim_between(s, sim_chance(s, 3, 4) ? 2 : 1, 3);
    u->replicas = MIN_OF(u->replicas, u->servers);
    u->clients = (uint32_t) sim_between(s, 3, SIM_CLIENTS_MAX);
    u->keys_per_partition = (uint32_t) sim_between(s, 2, 6);
    u->segment_bytes = segments[sim_between(s, 0, ARRAY_LEN(segments) - 1)];
    u->faults_end_usec = sim_between(s, 8, 16) * USEC_PER_SEC;
    u->probe_usec = u->faults_end_usec + (MEMBERS_BACK_SEC + 1) * USEC_PER_SEC;
    u->end_usec = u->probe_usec + 6 * USEC_PER_SEC;
    u->delay_min_usec = sim_between(s, 20, 200);
    u->delay_max_usec = u->delay_min_usec + (sim_chance(s, 1, 2) ? 500 : sim_between(s, 0, 20000));
    u->sync_max_usec = syncs[sim_between(s, 0, ARRAY_LEN(syncs) - 1)];
    u->think_max_usec = sim_between(s, 5, 60) * USEC_PER_MSEC;
    u->shards_change = sim_chance(s, 1, 2);
    u->slow_syncs = sim_chance(s, 1, 2);
    u->flushes = sim_chance(s, 1, 3);
    u->expiry = sim_chance(s, 1, 3);
    u->large_values = sim_chance(s, 1, 2);
    u->checkpoint_usec = sim_chance(s, 1, 6) ? 0 : sim_between(s, 100, 4000) * USEC_PER_MSEC;
    u->checkpoint_pause_usec = sim_chance(s, 1, 2) ? USEC_PER_MSEC : 300 * USEC_PER_MSEC;
    u->damage = sim_chance(s, 1, 2);
    u->sweep_usec = sim_between(s, 1, 20) * USEC_PER_SEC / 2;
    u->session_usec = sim_chance(s, 1, 2) ? 0 : sim_between(s, 2, 6) * USEC_PER_SEC;
    u->renew_usec = sim_between(s, 2, 10) * USEC_PER_SEC / 2;
    u->cold_chance = sim_chance(s, 1, 2) ? 0 : sim_between(s, 1, 3);
    u->read_errors = sim_chance(s, 1, 3);
    u->compaction_chance = sim_chance(s, 1, 4) ? 0 : sim_between(s, 1, 4);
    u->compaction_crashes = sim_chance(s, 1, 2);
    u->confirm = sim_chance(s, 1, 4);
    u->weak_sync = sim_chance(s, 1, 6);
    u->distrust = sim_chance(s, 1, 4);
    u->failure_usec = timeout_draw(s);
    u->silence_usec = timeout_draw(s);
    u->silence_usec = u->silence_usec > 0 ? MAX_OF(u->silence_usec, 350 * USEC_PER_MSEC) : 0;
    u->min_replicas_auto = sim_chance(s, 7, 8) ? 1 : 2;
    faults_draw(s);
    bugs_draw(s);
}

/* ---- the run ---- */

static void begin(struct sim *s)
{
    check_init(s);
    net_init(s);
    managers_init(s);
    work_keys_init(s);
    for (uint32_t i = 0; i < s->setup.servers; i++) {
        server_init(s, i);
    }
    managers_start(s);
    for (uint32_t i = 0; i < s->setup.servers; i++) {
        server_boot(s, &s->servers[i]);
    }
    for (uint32_t i = 0; i < s->setup.clients; i++) {
        client_init(s, &s->clients[i], i, (uint32_t) sim_between(s, 1, SIM_SLOTS_MAX));
        client_start(s, &s->clients[i]);
    }
    faults_begin(s);
}

/* Heals, waits, and looks at what is left. */
static void finish(struct sim *s)
{
    static void (*const steps[])(struct sim * s) = { work_probe_end, check_redundancy, check_equal,
                                                     check_histories };

    sim_trace(s, "everything is healed");
    faults_heal(s);
    run_until(s, s->setup.faults_end_usec + 8 * USEC_PER_SEC);
    s->quiet = true;
    run_until(s, s->setup.probe_usec);
    if (!s->failed) {
        work_probe(s);
        run_until(s, s->setup.end_usec);
    }
    for (size_t i = 0; i < ARRAY_LEN(steps) && !s->failed; i++) {
        steps[i](s);
    }
}

/* R11: where two copies are wanted and a disk is lost early, one waits for ever. */
static bool is_stuck(const struct sim *s)
{
    return s->setup.min_replicas_auto > 1 && s->counts.distrusts > 0;
}

void sim_run(struct sim *s, uint64_t seed, const struct options *o)
{
    *s = (struct sim){ .o = o, .seed = seed, .rng = { seed } };
    if (o->record) {
        s->lines = mem_zalloc(SIM_LINES_MAX, sizeof(*s->lines));
    }
    wraps_begin(s);
    setup_draw(s);
    begin(s);
    run_until(s, s->setup.faults_end_usec);
    if (!s->failed) {
        finish(s);
    }
    if (!s->failed && s->counts.writes_ok == 0 && !is_stuck(s)) {
        sim_fail(s, "no write was acknowledged: the run tested nothing");
    }
}

void sim_free(struct sim *s)
{
    queue_free(&s->queue);
    for (uint32_t i = 0; i < SIM_SERVERS_MAX; i++) {
        server_free(&s->servers[i]);
    }
    for (uint32_t i = 0; i < SIM_CLIENTS_MAX; i++) {
        client_free(&s->clients[i]);
    }
    client_free(&s->prober);
    managers_free(s);
    work_keys_free(s);
    net_free(s);
    check_free(s);
    actions_free(&s->actions);
    free(s->lines);
    *s = (struct sim){ 0 };
}
