/* The bench of the store. Contestants are child processes that do one round of work when they are
 * told, so that the rounds of those that are compared take turns; between its rounds a contestant
 * is stopped (SIGSTOP), so that nothing that it owes is done at another's expense or unmeasured. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define GROUP_OPS       256 /* operations per sync */
#define KEY_BYTES_MIN   8
#define KEY_BYTES_MAX   16
#define VALUE_BYTES_MAX 65536
#define ROUNDS_MAX      15
#define MIB             (UINT64_C(1) << 20)

/* What a contestant is to do in a round. */
enum work {
    WORK_FILL = 1, /* each key of the key space once */
    WORK_SET,      /* overwrites, uniformly; a sync after each group */
    WORK_SET_ONLY, /* the same without syncs (Tokyo Cabinet) */
    WORK_GET,      /* reads, uniformly */
    WORK_MIX,      /* gets and sets half and half, arriving at a rate */
    WORK_GROW,     /* sets of new keys, arriving at a rate */
    WORK_READOUT,  /* all records of a partition in the order of the log, for each partition */
    WORK_REST,     /* nothing, until no checkpoint or compaction is at work */
};

struct order {
    uint32_t work; /* enum work */
    uint32_t value_bytes;
    uint64_t ops;
    uint64_t keys;        /* in the key space; WORK_GROW begins behind them */
    uint32_t rate;        /* operations a second that arrive */
    bool short_keys;      /* all of KEY_BYTES_MIN, not up to KEY_BYTES_MAX */
    bool expires;         /* what is set ends in a day: the sweep looks at its partition */
    bool sets_upkeep;     /* the following are put in force: */
    uint64_t checkpoints; /* a generation when so many bytes of log were written */
    uint64_t slack;       /* bytes beside 1.4 times the live ones before compaction */
};

/* What was at work in the server when an operation was answered. */
enum upkeep { UPKEEP_NONE, UPKEEP_CHECKPOINT, UPKEEP_COMPACTION, UPKEEP_BOTH, _UPKEEP_MAX };

struct latency {
    uint64_t n;
    uint32_t p50_usec;
    uint32_t p99_usec;
    uint32_t p999_usec;
    uint32_t max_usec;
};

/* What a round took. Counts are of this round, sizes as they are at its end. */
struct sample {
    uint64_t ops;
    double wall_sec;
    double cpu_sec; /* of all threads */
    uint64_t user_bytes;
    uint64_t log_bytes;
    uint64_t device_bytes; /* that the process made the kernel write */
    uint64_t folder_bytes; /* of the log's files */
    uint64_t memory_bytes; /* anonymous and memfd */
    uint64_t records;
    struct latency get[_UPKEEP_MAX];
    struct latency set[_UPKEEP_MAX];
};

/* ---- store_contest.c ---- */

struct contestant_options {
    char dir[512];
    uint32_t partitions;
    uint32_t shards;
    uint64_t segment_bytes;
    uint64_t checkpoints; /* as in struct order */
    uint64_t slack;
    uint64_t keys;  /* that are expected (Tokyo Cabinet's buckets) */
    bool sync;      /* every group is synced before it is answered; else the kernel's choice */
    bool in_memory; /* Tokyo Cabinet: in a memfd */
};

struct contestant {
    pid_t pid;
    int in;  /* orders to it */
    int out; /* samples from it */
};

/* In the child; reads orders from `in`, writes a first sample when it is ready and one for each
 * order to `out`. Returns the exit status. */
typedef int (*contestant_fn)(const struct contestant_options *o, int in, int out);

/* Forks it and waits until it is ready; *ret_ready is what getting ready took. Ends the bench when
 * that fails, as all of these do. */
void contestant_start(struct contestant *c, contestant_fn fn, const struct contestant_options *o,
                      struct sample *ret_ready);
void contestant_round(struct contestant *c, const struct order *o, struct sample *ret);
/* SIGTERM: it ends in its own good order; SIGKILL. Waits for its end. */
void contestant_end(struct contestant *c, int signal);

/* For contestants without threads: one order after the other until there is none. */
bool order_read(int in, struct order *ret);
void sample_write(int out, const struct sample *s);

/* Begins to measure, and completes a sample with what passed since. `log` and `user`: bytes now. */
struct meter {
    double wall_sec;
    double cpu_sec;
    uint64_t device_bytes;
};
void meter_begin(struct meter *m);
void meter_end(const struct meter *m, struct sample *s);

/* Memory of this process that is not a file's page cache: anonymous, and memfds. */
uint64_t memory_used(void);
uint64_t folder_bytes(const char *dir);
/* Ends the process, saying why. */
void bench_fail(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* ---- keys and values ---- */

/* The key with that number: KEY_BYTES_MIN bytes, or up to KEY_BYTES_MAX. Returns its length. */
size_t key_make(uint64_t number, bool short_key, uint8_t out[KEY_BYTES_MAX]);
/* Bytes that no compression would gain from; VALUE_BYTES_MAX of them. */
const uint8_t *value_bytes(void);

/* ---- contestants ---- */

/* kumo-server, without manager and connections (store_node.c). */
int store_contestant(const struct contestant_options *o, int in, int out);
/* store_bare.c */
int bare_log_contestant(const struct contestant_options *o, int in, int out);
int bare_tc_contestant(const struct contestant_options *o, int in, int out);

/* ---- store_plans.c: what is measured ---- */

struct plan_options {
    const char *dir;
    unsigned rounds;
    bool quick;
    uint64_t live_bytes; /* of the records that are overwritten */
};
void plan_set(const struct plan_options *o, uint32_t value_bytes);
void plan_get(const struct plan_options *o);
void plan_start(const struct plan_options *o);
void plan_move(const struct plan_options *o);
void plan_latency(const struct plan_options *o);

/* ---- store_print.c ---- */

void print_setup(const struct plan_options *o);
double median(const double *v, size_t n);
/* One row of a table of rounds: rates, CPU and bytes, each the median of its own. */
void print_rounds_head(const char *title);
void print_rounds(const char *name, const struct sample *v, size_t n);
/* "reached", or "not reached: …"; `at_most`: less is better. */
void print_goal(const char *what, double have, double goal, bool at_most, const char *unit);
void print_latencies(const char *name, const struct sample *s);
/* What `k` adds to the 99th percentile, beside the same load with nothing at work. */
void print_added(const char *name, const struct sample *alone, const struct sample *s,
                 enum upkeep k);
