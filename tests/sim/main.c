/* kumo-sim: runs seeds.
 *
 *   kumo-sim --seed N [--trace]                one seed, with what happened in it
 *   kumo-sim --seed-from N --seeds K           K seeds; ends at the first failure, exit status 1
 *   kumo-sim --seed-from N --minutes M         as many as there is time for; tells all that fail
 *   --plant NAME                               with a bug planted; --list-plants
 *   --expect-failure                           exit status 0 if and only if a seed fails */
#include "sim/sim.h"

#include "base/cleanup.h"

#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct run {
    uint64_t from;
    uint64_t seeds;
    uint64_t minutes; /* 0: no limit */
    bool verbose;
    bool expect_failure;
    struct options o;
};

/* For the handler of an assertion. */
static const struct run *running;
static struct sim world;

static void command_print(FILE *f, const struct run *r, uint64_t seed)
{
    fprintf(f, "replay: kumo-sim --seed %llu%s%s\n", (unsigned long long) seed,
            r->o.plant ? " --plant " : "", r->o.plant ? plant_names[r->o.plant] : "");
}

/* An assertion of the code under test: says which seed it was, then ends as a failed seed does. */
static void aborted(int signal)
{
    printf("seed %llu failed: signal %d (an assertion, or worse)\n",
           (unsigned long long) world.seed, signal);
    if (world.lines) {
        sim_print_lines(&world, stdout, 60);
    }
    command_print(stdout, running, world.seed);
    fflush(stdout);
    _exit(running->expect_failure ? 0 : 1);
}

static void setup_print(const struct sim *s)
{
    static const char *const faults[_FAULT_MAX] = {
        "kill",         "power",        "power-all",   "break", "stall", "pause", "clock",
        "manager-kill", "manager-flip", "client-kill", "stop",  "full",  "cut",   "away",
    };
    const struct setup *u = &s->setup;

    printf("seed %llu: %u servers, %u partitions, %u replicas, %u clients, segments of %u bytes\n",
           (unsigned long long) s->seed, u->servers, u->partitions, u->replicas, u->clients,
           u->segment_bytes);
    printf("faults:");
    for (unsigned f = 0; f < _FAULT_MAX; f++) {
        if (u->fault_usec[f] > 0) {
            printf(" %s %llu", faults[f], (unsigned long long) s->counts.faults[f]);
        }
    }
    printf("\n");
}

static void counts_print(const char *what, const struct counts *c)
{
    printf("%s: %llu operations answered (%llu writes), %llu unknown, %llu failed, %llu refusals\n",
           what, (unsigned long long) c->ops_ok, (unsigned long long) c->writes_ok,
           (unsigned long long) c->ops_unknown, (unsigned long long) c->ops_failed,
           (unsigned long long) c->retries);
    printf("%s: %llu starts, %llu views, %llu entries, %llu syncs, %llu resends, %llu bytes cut\n",
           what, (unsigned long long) c->starts, (unsigned long long) c->views,
           (unsigned long long) c->entries, (unsigned long long) c->syncs,
           (unsigned long long) c->resends, (unsigned long long) c->cut_bytes);
    printf("%s: %llu power losses with unsynced bytes, %llu entries taken back, %llu new primaries "
           "with a tail\n",
           what, (unsigned long long) c->torn, (unsigned long long) c->tails_cut,
           (unsigned long long) c->reconciled);
    printf(
        "%s: %llu generations of checkpoints, %llu starts from one (%llu from an older one, %llu "
        "entries in tails), %llu damaged, %llu clean stops\n",
        what, (unsigned long long) c->generations, (unsigned long long) c->checkpointed,
        (unsigned long long) c->older, (unsigned long long) c->tails,
        (unsigned long long) c->damaged, (unsigned long long) c->stops);
    printf("%s: %llu stops after all was handed over, %llu disks lost what they had, %llu copies "
           "were dropped, %llu partitions were too unlucky for weak syncs\n",
           what, (unsigned long long) c->left, (unsigned long long) c->distrusts,
           (unsigned long long) c->copies_dropped, (unsigned long long) c->lossy);
    printf("%s: asked for views: %llu anew, %llu removals, %llu resignations, %llu promotions\n",
           what, (unsigned long long) c->reconfigs[RECONFIG_RENEW],
           (unsigned long long) c->reconfigs[RECONFIG_REMOVE],
           (unsigned long long) c->reconfigs[RECONFIG_RESIGN],
           (unsigned long long) c->reconfigs[RECONFIG_PROMOTE]);
    printf("%s: %llu segments compacted and removed (%llu came back by a crash), %llu stayed, %llu "
           "bytes copied, %llu records dropped\n",
           what, (unsigned long long) c->victims, (unsigned long long) c->resurrected,
           (unsigned long long) c->refused, (unsigned long long) c->copied,
           (unsigned long long) c->dropped);
    printf("%s: %llu records read off the loop (%llu in vain), %llu writes waited for a full disk, "
           "%llu operations "
           "refused by one\n",
           what, (unsigned long long) c->cold, (unsigned long long) c->damages,
           (unsigned long long) c->blocked, (unsigned long long) c->no_space);
    printf("%s: %llu events, %llu messages (%llu lost), %llu configurations of histories, %llu "
           "histories not judged\n",
           what, (unsigned long long) c->events, (unsigned long long) c->messages,
           (unsigned long long) c->messages_lost, (unsigned long long) c->configurations,
           (unsigned long long) c->gave_up);
}

static void counts_add(struct counts *sum, const struct counts *c)
{
    const uint64_t *from = (const uint64_t *) c;
    uint64_t *to = (uint64_t *) sum;

    for (size_t i = 0; i < sizeof(*sum) / sizeof(*to); i++) {
        to[i] += from[i];
    }
}

static void failure_print(const struct run *r, const struct sim *s)
{
    printf("seed %llu failed: %s\n", (unsigned long long) s->seed, s->why);
    if (s->lines && !r->o.trace) {
        sim_print_lines(s, stdout, 60);
    }
    for (size_t i = s->bad_begin - MIN_OF(s->bad_begin, (size_t) 20);
         s->bad_key && i < s->bad_end && i < s->bad_begin + 60; i++) {
        printf("%s", i < s->bad_begin ? "  before: " : "  ");
        lin_print(stdout, &s->bad_key->ops[i]);
    }
    command_print(stdout, r, s->seed);
}

/* Runs a seed; a failed one once more, to show its last events. */
static bool seed_run(const struct run *r, uint64_t seed, struct counts *sum)
{
    struct options again = r->o;
    bool failed;

    sim_run(&world, seed, &r->o);
    failed = world.failed;
    if (failed && !r->o.record) {
        sim_free(&world);
        again.record = true;
        sim_run(&world, seed, &again);
        if (!world.failed) {
            printf("seed %llu does not replay: it fails only once\n", (unsigned long long) seed);
        }
    }
    counts_add(sum, &world.counts);
    if (r->verbose) {
        setup_print(&world);
        counts_print("seed", &world.counts);
    }
    if (failed) {
        failure_print(r, &world);
    }
    sim_free(&world);
    return !failed;
}

static void sum_print(const struct run *r, uint64_t seeds, const struct counts *sum)
{
    if (seeds > 1) {
        counts_print("all", sum);
        printf("%llu seeds, %s%llu operations, %llu starts, %llu views: no failure\n",
               (unsigned long long) seeds, r->expect_failure ? "a failure was expected: " : "",
               (unsigned long long) sum->ops_ok, (unsigned long long) sum->starts,
               (unsigned long long) sum->views);
    } else {
        printf("no failure\n");
    }
}

static int run(const struct run *r)
{
    struct counts sum = { 0 };

    for (uint64_t i = 0; i < r->seeds; i++) {
        if (!seed_run(r, r->from + i, &sum)) {
            printf("found at seed number %llu of %llu\n", (unsigned long long) i + 1,
                   (unsigned long long) r->seeds);
            return r->expect_failure ? 0 : 1;
        }
        if (r->seeds > 1 && (i + 1) % 100 == 0) {
            printf("%llu seeds, no failure\n", (unsigned long long) i + 1);
            fflush(stdout);
        }
    }
    sum_print(r, r->seeds, &sum);
    return r->expect_failure ? 1 : 0;
}

static double seconds_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

/* Until the time is over; a failed seed doesn't end it. */
static int run_minutes(const struct run *r)
{
    struct counts sum = { 0 };
    double begin = seconds_now();
    double end = begin + (double) r->minutes * 60;
    uint64_t failed = 0;
    uint64_t n = 0;

    for (; seconds_now() < end; n++) {
        failed += !seed_run(r, r->from + n, &sum);
        fflush(stdout);
    }
    counts_print("all", &sum);
    printf("seeds %llu to %llu: %llu failed, %.1f seeds per second\n", (unsigned long long) r->from,
           (unsigned long long) (r->from + n - 1), (unsigned long long) failed,
           (double) n / (seconds_now() - begin));
    return failed > 0 ? 1 : 0;
}

static enum plant plant_find(const char *name)
{
    for (unsigned i = 1; i < _PLANT_MAX; i++) {
        if (strcmp(plant_names[i], name) == 0) {
            return (enum plant) i;
        }
    }
    fprintf(stderr, "kumo-sim: no plant is called '%s'; --list-plants\n", name);
    exit(2);
}

static void plants_list(void)
{
    for (unsigned i = 1; i < _PLANT_MAX; i++) {
        printf("%-32s %s\n", plant_names[i], plant_stories[i]);
    }
    exit(0);
}

static uint64_t number_of(const char *text)
{
    char *end;
    uint64_t n = strtoull(text, &end, 10);

    if (*end != '\0' || end == text) {
        fprintf(stderr, "kumo-sim: '%s' is no number\n", text);
        exit(2);
    }
    return n;
}

static void args_read(struct run *r, int argc, char **argv)
{
    static const struct option options[] = {
        { "seed", required_argument, NULL, 's' },
        { "seed-from", required_argument, NULL, 'f' },
        { "seeds", required_argument, NULL, 'n' },
        { "plant", required_argument, NULL, 'p' },
        { "list-plants", no_argument, NULL, 'l' },
        { "expect-failure", no_argument, NULL, 'e' },
        { "trace", no_argument, NULL, 't' },
        { "minutes", required_argument, NULL, 'm' },
        { 0 },
    };
    int o;

    while ((o = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        if (o == 's') {
            r->from = number_of(optarg);
            r->seeds = 1;
            r->verbose = r->o.record = true;
        } else if (o == 'f') {
            r->from = number_of(optarg);
        } else if (o == 'n') {
            r->seeds = number_of(optarg);
        } else if (o == 'm') {
            r->minutes = number_of(optarg);
        } else if (o == 'p') {
            r->o.plant = plant_find(optarg);
        } else if (o == 'l') {
            plants_list();
        } else if (o == 'e') {
            r->expect_failure = true;
        } else if (o == 't') {
            r->o.trace = r->o.record = true;
        } else {
            exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    struct run r = { .from = 1, .seeds = 1 };

    args_read(&r, argc, argv);
    running = &r;
    signal(SIGABRT, aborted);
    signal(SIGSEGV, aborted);
    return r.minutes > 0 ? run_minutes(&r) : run(&r);
}
