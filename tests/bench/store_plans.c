/* What is measured, step by step. */
#include "bench/store_bench.h"

#include "base/cleanup.h"
#include "wire/frame.h"

#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define PARTITIONS 1024             /* the manager's default */
#define NEVER      (UINT64_MAX / 4) /* so many bytes of log are never written */

static struct contestant_options contestant_options(const struct plan_options *o, const char *name)
{
    struct contestant_options c = {
        .partitions = PARTITIONS,
        .shards = 1,
        .segment_bytes = (o->quick ? 16 : 128) * MIB,
        .checkpoints = (o->quick ? 32 : 256) * MIB,
        .sync = true,
    };

    snprintf(c.dir, sizeof(c.dir), "%s/%s", o->dir, name);
    mkdir(c.dir, 0700);
    return c;
}

static void folder_remove(const char *dir)
{
    char command[1100];

    snprintf(command, sizeof(command), "rm -rf '%s' '%s.tch'", dir, dir);
    if (system(command) != 0) {
        bench_fail("%s can't be removed", dir);
    }
}

/* ---- sets ---- */

/* Who takes part, and what in. */
struct set_plan {
    struct order order;
    struct contestant contestants[4];
    struct contestant_options options[4];
    struct sample samples[4][ROUNDS_MAX];
};
enum { STORE, LOG, TC, TC_SYNCED, _CONTESTANTS };

static void set_start(struct set_plan *p, const struct plan_options *o)
{
    struct order fill = p->order;
    struct sample s;

    p->options[STORE] = contestant_options(o, "store");
    p->options[LOG] = contestant_options(o, "log");
    p->options[TC] = contestant_options(o, "tc");
    p->options[TC_SYNCED] = p->options[TC];
    p->options[TC].keys = p->order.keys;
    contestant_start(&p->contestants[STORE], store_contestant, &p->options[STORE], &s);
    contestant_start(&p->contestants[LOG], bare_log_contestant, &p->options[LOG], &s);
    contestant_start(&p->contestants[TC], bare_tc_contestant, &p->options[TC], &s);
    p->contestants[TC_SYNCED] = p->contestants[TC];
    fill.work = WORK_FILL;
    contestant_round(&p->contestants[TC], &fill, &s);
    contestant_round(&p->contestants[STORE], &fill, &s);
    /* until compaction goes at its pace */
    fill.work = WORK_SET;
    fill.ops = p->order.keys * 2;
    contestant_round(&p->contestants[STORE], &fill, &s);
}

static void set_round(struct set_plan *p, unsigned round)
{
    struct order puts = p->order;

    contestant_round(&p->contestants[STORE], &p->order, &p->samples[STORE][round]);
    contestant_round(&p->contestants[LOG], &p->order, &p->samples[LOG][round]);
    puts.work = WORK_SET_ONLY;
    contestant_round(&p->contestants[TC], &puts, &p->samples[TC][round]);
    puts.work = WORK_SET;
    puts.ops = GROUP_OPS * 10; /* it writes every page that was touched */
    contestant_round(&p->contestants[TC], &puts, &p->samples[TC_SYNCED][round]);
}

static void set_print(const struct set_plan *p, unsigned rounds, uint64_t live_bytes)
{
    double ratio[ROUNDS_MAX];
    double device[ROUNDS_MAX];

    for (unsigned i = 0; i < rounds; i++) {
        const struct sample *s = &p->samples[STORE][i];
        const struct sample *l = &p->samples[LOG][i];
        ratio[i] = ((double) s->ops / s->wall_sec) / ((double) l->ops / l->wall_sec);
        device[i] = (double) s->device_bytes / (double) s->user_bytes;
    }
    print_rounds("store, compaction at work", p->samples[STORE], rounds);
    print_rounds("bare log", p->samples[LOG], rounds);
    print_rounds("bare Tokyo Cabinet, never synced", p->samples[TC], rounds);
    print_rounds("bare Tokyo Cabinet, synced", p->samples[TC_SYNCED], rounds);
    print_goal("speed beside the bare log", median(ratio, rounds), 0.5, false, "");
    if (median(device, rounds) > 0) { /* else the file system is in memory */
        print_goal("device bytes per user byte", median(device, rounds), 3, true, "");
    }
    print_goal("live records, of the log's bytes at the end",
               (double) live_bytes * 100 / (double) p->samples[STORE][rounds - 1].folder_bytes, 65,
               false, "%");
}

void plan_set(const struct plan_options *o, uint32_t value_bytes)
{
    static struct set_plan p;
    uint64_t entry_bytes =
        FRAME_HEAD_BYTES + ENTRY_HEAD_BYTES + (KEY_BYTES_MIN + KEY_BYTES_MAX) / 2 + value_bytes;
    char title[64];

    p = (struct set_plan){ .order = { .work = WORK_SET, .value_bytes = value_bytes } };
    p.order.keys = o->live_bytes / entry_bytes;
    p.order.ops = o->quick ? 60000 : 1000000;
    set_start(&p, o);
    for (unsigned i = 0; i < o->rounds; i++) {
        set_round(&p, i);
    }
    snprintf(title, sizeof(title), "SET %u B, %.1f M records", value_bytes,
             (double) p.order.keys / 1e6);
    print_rounds_head(title);
    set_print(&p, o->rounds, o->live_bytes);
    for (int i = STORE; i <= TC; i++) {
        contestant_end(&p.contestants[i], SIGKILL);
        folder_remove(p.options[i].dir);
    }
}

/* ---- gets and memory ---- */

void plan_get(const struct plan_options *o)
{
    struct contestant_options store = contestant_options(o, "store");
    struct contestant_options tc = contestant_options(o, "tc");
    struct order fill = { .work = WORK_FILL, .value_bytes = 32, .short_keys = true };
    struct contestant c[2];
    struct sample samples[2][ROUNDS_MAX];
    struct sample empty[2];
    struct sample full[2];
    struct order get;
    double cpu[ROUNDS_MAX];

    fill.keys = o->quick ? 500000 : 10000000;
    store.sync = false;
    store.checkpoints = store.slack = NEVER;
    tc.keys = fill.keys;
    tc.in_memory = true;
    contestant_start(&c[0], store_contestant, &store, &empty[0]);
    contestant_start(&c[1], bare_tc_contestant, &tc, &empty[1]);
    contestant_round(&c[0], &fill, &full[0]);
    contestant_round(&c[1], &fill, &full[1]);
    get = fill;
    get.work = WORK_GET;
    get.ops = o->quick ? 500000 : 2000000;
    for (unsigned i = 0; i < o->rounds; i++) {
        contestant_round(&c[0], &get, &samples[0][i]);
        contestant_round(&c[1], &get, &samples[1][i]);
        cpu[i] = samples[0][i].cpu_sec / (double) samples[0][i].ops * 1e6;
    }
    print_rounds_head("GET, all resident");
    print_rounds("store", samples[0], o->rounds);
    print_rounds("bare Tokyo Cabinet in memory", samples[1], o->rounds);
    print_goal("CPU of a GET", median(cpu, o->rounds), 1.5, true, "usec");
    printf("\nMemory, %.1f M records of 8 + 32 bytes; 1,024 partitions\n",
           (double) fill.keys / 1e6);
    print_goal("per record",
               (double) (samples[0][0].memory_bytes - empty[0].memory_bytes) / (double) fill.keys,
               90, true, "bytes");
    print_goal("when empty", (double) empty[0].memory_bytes / (double) MIB, 32, true, "MiB");
    printf("  %-44s %9.2f bytes, with the values\n", "bare Tokyo Cabinet, per record",
           (double) full[1].memory_bytes / (double) fill.keys);
    contestant_end(&c[0], SIGKILL);
    contestant_end(&c[1], SIGKILL);
    folder_remove(store.dir);
    folder_remove(tc.dir);
}

/* ---- starts ---- */

/* Starts on what lies there, `rounds` times, without writing; the log is in the page cache. */
static void starts_measure(const struct contestant_options *store, unsigned rounds,
                           double *ret_wall, double *ret_cpu, uint64_t *ret_records)
{
    for (unsigned i = 0; i < rounds; i++) {
        struct contestant c;
        struct sample s;
        contestant_start(&c, store_contestant, store, &s);
        ret_wall[i] = s.wall_sec;
        ret_cpu[i] = s.cpu_sec;
        *ret_records = s.records;
        contestant_end(&c, SIGKILL);
    }
}

static void starts_print(const char *what, const struct contestant_options *store, unsigned rounds,
                         double goal)
{
    double wall[ROUNDS_MAX];
    double cpu[ROUNDS_MAX];
    uint64_t records = 0;
    char path[600];

    starts_measure(store, rounds, wall, cpu, &records);
    print_goal(what, median(wall, rounds), goal, true, "s");
    snprintf(path, sizeof(path), "%s/log", store->dir);
    printf("  %-44s %9.2f s CPU; %.1f M records, log of %.2f GiB\n", "", median(cpu, rounds),
           (double) records / 1e6, (double) folder_bytes(path) / (1 << 30));
}

void plan_start(const struct plan_options *o)
{
    struct contestant_options store = contestant_options(o, "store");
    struct order work = { .work = WORK_FILL, .value_bytes = 32, .short_keys = true };
    uint64_t entry_bytes = FRAME_HEAD_BYTES + ENTRY_HEAD_BYTES + KEY_BYTES_MIN + 32;
    struct contestant c;
    struct sample s;

    work.keys = o->quick ? 500000 : 10000000;
    store.sync = false;
    store.checkpoints = store.slack = NEVER;
    store.shards = (uint32_t) MAX_OF(1, MIN_OF(4, sysconf(_SC_NPROCESSORS_ONLN)));
    contestant_start(&c, store_contestant, &store, &s);
    contestant_round(&c, &work, &s);
    contestant_end(&c, SIGTERM);
    sync();
    printf("\nStart until READY, warm page cache, %u shards\n", store.shards);
    starts_print("after a clean stop", &store, o->rounds, 5);
    work.work = WORK_SET;
    work.ops = (o->quick ? 64 : 1024) * MIB / entry_bytes;
    contestant_start(&c, store_contestant, &store, &s);
    contestant_round(&c, &work, &s);
    contestant_end(&c, SIGKILL);
    sync();
    starts_print(o->quick ? "after kill -9, 64 MiB of log to read"
                          : "after kill -9, 1 GiB of log to read",
                 &store, o->rounds, 20);
    folder_remove(store.dir);
}

/* ---- moves ---- */

void plan_move(const struct plan_options *o)
{
    struct contestant_options store = contestant_options(o, "store");
    struct order work = { .work = WORK_FILL, .value_bytes = 1024 };
    struct sample samples[ROUNDS_MAX];
    double speed[ROUNDS_MAX];
    struct contestant c;
    struct sample s;

    store.partitions = o->quick ? 8 : 64;
    store.sync = false;
    store.checkpoints = store.slack = NEVER;
    work.keys = (uint64_t) store.partitions * 10000;
    contestant_start(&c, store_contestant, &store, &s);
    contestant_round(&c, &work, &s);
    work.work = WORK_READOUT;
    for (unsigned i = 0; i < o->rounds; i++) {
        contestant_round(&c, &work, &samples[i]);
        speed[i] = (double) samples[i].user_bytes / samples[i].wall_sec / 1e6;
    }
    print_rounds_head("Read out for a move");
    print_rounds("store", samples, o->rounds);
    print_goal("a partition of 10,000 x 1 KiB", median(speed, o->rounds), 200, false, "MB/s");
    contestant_end(&c, SIGKILL);
    folder_remove(store.dir);
}

/* ---- latencies ---- */

#define LATENCY_RATE 20000

/* With checkpoints and compaction one after the other, as soon as they are over. */
static void latency_upkeep(struct contestant *c, struct order work, const struct sample *alone)
{
    uint64_t ops = work.ops;
    struct sample s;

    work.work = WORK_SET; /* what compaction finds */
    work.ops = work.keys;
    contestant_round(c, &work, &s);
    work.work = WORK_MIX;
    work.ops = ops;
    work.checkpoints = MIB;
    work.slack = 0;
    contestant_round(c, &work, &s); /* the generations that compaction needs */
    contestant_round(c, &work, &s);
    print_latencies("upkeep all the time", &s);
    print_added("checkpoint", alone, &s, UPKEEP_CHECKPOINT);
    print_added("compaction", alone, &s, UPKEEP_COMPACTION);
}

/* Enough new keys for each partition's index to grow. */
static void latency_growth(struct contestant *c, struct order work, const struct sample *alone,
                           uint32_t partitions)
{
    struct sample s;

    work.work = WORK_REST;
    contestant_round(c, &work, &s);
    work.work = WORK_GROW;
    work.ops = partitions * 400;
    contestant_round(c, &work, &s);
    print_latencies("new keys, indexes grow", &s);
    print_added("growth", alone, &s, UPKEEP_NONE);
}

static void latency_sweep(struct contestant *c, struct order work, const struct sample *alone)
{
    struct sample s;

    work.expires = true;
    contestant_round(c, &work, &s);
    print_latencies("records that expire, sweep", &s);
    print_added("sweep", alone, &s, UPKEEP_NONE);
}

void plan_latency(const struct plan_options *o)
{
    struct contestant_options store = contestant_options(o, "store");
    struct order work = { .work = WORK_FILL, .value_bytes = 100, .sets_upkeep = true };
    struct contestant c;
    struct sample alone;

    store.partitions = o->quick ? 64 : PARTITIONS;
    work.keys = store.partitions * (uint64_t) 4000; /* the indexes grow soon after */
    work.rate = LATENCY_RATE;
    work.ops = LATENCY_RATE * (o->quick ? 2 : 15);
    work.checkpoints = work.slack = NEVER;
    printf("\n%-34s %-4s %10s %9s %9s %9s %9s\n", "Latency in the loop's own time, usec", "",
           "count", "p50", "p99", "p99.9", "max");
    contestant_start(&c, store_contestant, &store, &alone);
    contestant_round(&c, &work, &alone);
    work.work = WORK_MIX;
    contestant_round(&c, &work, &alone);
    print_latencies("20,000 operations/s", &alone);
    latency_upkeep(&c, work, &alone);
    latency_growth(&c, work, &alone, store.partitions);
    latency_sweep(&c, work, &alone);
    contestant_end(&c, SIGKILL);
    folder_remove(store.dir);
}
