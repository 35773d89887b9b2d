/* Calls that fail. A server works on a folder that has generations of checkpoints, victims of
 * compaction and a torn tail, and its N-th write, sync, rename… fails, for N = 1, 2, 3… until none
 * is left that could. It may go on or stop with a sentence. Then it starts without a fault, on the
 * folder as it is, and must have everything that was ever answered; and again after the power went,
 * now or later. */
#include "rig.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "disk.h"
#include "files.h"
#include "instant.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JOURNAL_BYTES     ((size_t) 1 << 28)
#define OPS_BEFORE        700
#define OPS_WITH_FAULT    250
#define OPS_AFTER         30
#define PAUSE_USEC_MAX    20000
#define SYNC_USEC_MAX     300
#define CHECKED_PER_FAULT 3 /* in the short form */
#define FAILURES_TOLD_MAX 5

struct tally {
    uint64_t failed;   /* calls that were made to fail */
    uint64_t survived; /* the server went on */
    uint64_t stopped;  /* with a sentence, after it had begun to serve… */
    uint64_t not_up;   /* …and before */
    uint64_t no_room;  /* operations that were refused for that */
    uint64_t starts;   /* afterwards */
    uint64_t lost;
    uint64_t corrupt;
    uint64_t refused;
    uint64_t hung; /* or died without a sentence */
};

struct faults {
    uint64_t seed;
    enum sync_mode sync;
    uint64_t stride;  /* 0: so that few are tried of each */
    const char *call; /* NULL: all; else only calls of this name */
    char dir[FILES_DIR_BYTES];
    struct model *model; /* of the folder that each begins with */
    struct journal *journal;
    struct journal *after;
    uint64_t calls[_SHIM_CALL_MAX]; /* of a life without a fault */
    struct rng rng;
    struct tally tally;
};

static void path_of(const struct faults *f, const char *name, char out[PATH_MAX])
{
    snprintf(out, PATH_MAX, "%s/%s", f->dir, name);
}

static struct rig_options options_of(struct faults *f, const char *dir, const struct model *m)
{
    return (struct rig_options){
        .dir = dir,
        .model = m,
        .journal = f->after,
        .sync = f->sync,
        .threads = 2,
        .n_ops = OPS_AFTER,
        .seed = rng_u64(&f->rng),
        .end = RIG_KILL,
        .sync_usec_max = SYNC_USEC_MAX,
    };
}

/* ---- what follows a fault ---- */

static void tell(const struct faults *f, const char *when, const struct shim_fault *fault,
                 const struct rig_result *r)
{
    const struct tally *t = &f->tally;

    if (t->lost + t->corrupt + t->refused + t->hung <= FAILURES_TOLD_MAX) {
        printf("# %s %llu to %llu (%s), %s: %s (status %#x)\n#   %s\n",
               shim_call_names[fault->call], (unsigned long long) fault->nth,
               (unsigned long long) fault->last, strerrorname_np(fault->error), when,
               rig_outcome_names[r->outcome], r->status,
               r->report.why[0] ? r->report.why : r->last);
    }
}

static void tally_wrong(struct faults *f, const struct rig_result *r)
{
    f->tally.lost += r->report.lost > 0;
    f->tally.corrupt += r->report.corrupt > 0;
    f->tally.hung += r->outcome == RIG_HUNG || r->outcome == RIG_DIED;
}

/* A start without a fault, which must serve everything, adds to this journal. */
static void start_again(struct faults *f, const char *dir, const struct model *m,
                        struct journal *journal, const char *when, const struct shim_fault *fault)
{
    struct rig_options o = options_of(f, dir, m);
    struct rig_result r;

    o.journal = journal;
    rig_live(&o, &r);
    f->tally.starts++;
    f->tally.refused += r.outcome == RIG_REFUSED || r.outcome == RIG_STOPPED;
    tally_wrong(f, &r);
    if (r.outcome != RIG_OK) {
        tell(f, when, fault, &r);
    }
}

/* The power goes at a random record in this part of the journal; a start on what is left. */
static void power_goes(struct faults *f, uint64_t from, uint64_t to, const char *when,
                       const struct shim_fault *fault)
{
    enum disk_loss loss = (enum disk_loss) rng_below(&f->rng, _DISK_LOSS_MAX);
    struct instant i;
    char dir[PATH_MAX];

    path_of(f, "base", dir);
    i = (struct instant){ .disk = disk_new(dir, DISK_HONEST), .model = model_copy(f->model) };
    instant_advance(&i, f->journal, journal_any(f->journal, &f->rng, from, to));
    path_of(f, "image", dir);
    files_remove(dir);
    disk_image(i.disk, &f->rng, loss, dir);
    model_crash(i.model, f->sync == SYNC_ALWAYS ? UINT64_MAX : disk_log_durable(i.disk));
    journal_clear(f->after);
    start_again(f, dir, i.model, f->after, when, fault);
    instant_end(&i);
}

static void afterwards(struct faults *f, const char *dir, const struct shim_fault *fault)
{
    struct model *m = model_copy(f->model);
    uint64_t end = journal_end(f->journal);

    for (uint64_t at = 0; at < end; at = journal_next(f->journal, at)) {
        model_apply(m, journal_at(f->journal, at), at);
    }
    model_crash(m, UINT64_MAX);
    start_again(f, dir, m, f->journal, "then a start", fault);
    if (fault->call != SHIM_MALLOC) { /* an abort may come between a call and its record */
        power_goes(f, end, journal_end(f->journal), "then a start, then power loss", fault);
        power_goes(f, 0, end, "then power loss", fault);
    }
    model_free(m);
}

/* ---- a life with a fault ---- */

/* False: there was no such call. */
static bool try(struct faults *f, const struct shim_fault *fault, bool goes_on)
{
    char base[PATH_MAX];
    char dir[PATH_MAX];
    struct rig_options o = options_of(f, dir, f->model);
    struct rig_result r;

    path_of(f, "base", base);
    path_of(f, "fault", dir);
    files_remove(dir);
    files_copy(base, dir);
    journal_clear(f->journal);
    o.journal = f->journal;
    o.n_ops = OPS_WITH_FAULT;
    o.pause_usec_max = PAUSE_USEC_MAX;
    o.end = RIG_CLEAN;
    o.fault = *fault;
    rig_live(&o, &r);
    if (!r.fired) {
        kumo_assert(r.outcome == RIG_OK);
        memcpy(f->calls, r.calls, sizeof(f->calls));
        return false;
    }
    f->tally.failed++;
    f->tally.survived += r.outcome == RIG_OK;
    f->tally.stopped += r.outcome == RIG_STOPPED;
    f->tally.not_up += r.outcome == RIG_REFUSED;
    f->tally.no_room += r.report.refused;
    tally_wrong(f, &r);
    if (r.outcome != RIG_OK && r.outcome != RIG_REFUSED && (goes_on || r.outcome != RIG_STOPPED)) {
        tell(f, "at once", fault, &r);
    }
    afterwards(f, dir, fault);
    return true;
}

struct fault_case {
    const char *name;
    enum shim_call call;
    int error;
    uint64_t more; /* calls that fail after that one */
    bool goes_on;  /* a server that has begun to serve must not stop */
};

static const struct fault_case cases[] = {
    { "a write fails (EIO)", SHIM_WRITE, EIO, 0, false },
    { "all writes fail (EIO)", SHIM_WRITE, EIO, UINT32_MAX, false },
    { "an fdatasync fails (EIO)", SHIM_FDATASYNC, EIO, 0, false },
    { "an fsync fails (EIO)", SHIM_FSYNC, EIO, 0, false },
    { "a truncate fails (EIO)", SHIM_TRUNCATE, EIO, 0, false },
    { "a rename fails (EIO)", SHIM_RENAME, EIO, 0, false },
    { "an unlink fails (EIO)", SHIM_UNLINK, EIO, 0, false },
    { "an open fails (EIO)", SHIM_OPEN, EIO, 0, false },
    { "an open fails (ENOSPC)", SHIM_OPEN, ENOSPC, 0, false },
    { "an mmap fails (ENOMEM)", SHIM_MMAP, ENOMEM, 0, false },
    { "the disk is full for a while", SHIM_SPACE, ENOSPC, 12, true },
    { "a malloc fails", SHIM_MALLOC, ENOMEM, 0, false },
};

static void try_all(struct faults *f, const struct fault_case *c)
{
    uint64_t stride = f->stride;
    struct shim_fault fault = { .call = c->call, .error = c->error };

    if (stride == 0) {
        stride = MAX_OF((uint64_t) 1, f->calls[c->call] / CHECKED_PER_FAULT);
    } else if (c->call == SHIM_MALLOC) {
        stride *= MAX_OF((uint64_t) 1, f->calls[c->call] / 200);
    }
    f->tally = (struct tally){ 0 };
    fault.nth = 1 + rng_below(&f->rng, MIN_OF(stride, f->calls[c->call] / 2 + 1));
    do {
        fault.last = fault.nth + c->more;
        if (!try(f, &fault, c->goes_on)) {
            break;
        }
        fault.nth += stride;
    } while (fault.nth < 100000);
}

/* ---- the folder that each life begins with ---- */

static void on_base_file(void *ctx, const char *path, bool is_folder, const uint8_t *p,
                         size_t bytes)
{
    char *newest = ctx;

    (void) p;
    (void) bytes;
    if (!is_folder && strstr(path, ".seg") && strcmp(path, newest) > 0) {
        snprintf(newest, NAME_MAX, "%s", path);
    }
}

/* Half a group at the end of the newest segment, as a power loss leaves it. */
static void tail_tear(const char *dir)
{
    char newest[NAME_MAX] = "";
    char path[PATH_MAX];
    FILE *file;

    files_walk(dir, on_base_file, newest);
    snprintf(path, sizeof(path), "%.2048s/%s", dir, newest);
    file = fopen(path, "ae");
    kumo_assert(file);
    for (int i = 0; i < 100; i++) {
        fputs("torn", file);
    }
    fclose(file);
}

static void base_make(struct faults *f)
{
    char dir[PATH_MAX];
    struct instant i;

    path_of(f, "base", dir);
    files_make_folder(dir, "");
    i = (struct instant){ .disk = disk_new(dir, DISK_HONEST), .model = model_new(RIG_KEYS) };
    for (int life = 0; life < 2; life++) {
        struct rig_options o = options_of(f, dir, i.model);
        struct rig_result r;
        o.journal = f->journal;
        o.n_ops = OPS_BEFORE;
        o.pause_usec_max = PAUSE_USEC_MAX;
        journal_clear(f->journal);
        model_crash(i.model, UINT64_MAX);
        rig_live(&o, &r);
        kumo_assert(r.outcome == RIG_OK);
        i.position = 0;
        instant_advance(&i, f->journal, journal_end(f->journal));
    }
    tail_tear(dir);
    model_crash(i.model, UINT64_MAX);
    f->model = TAKE_PTR(i.model);
    instant_end(&i);
    kumo_assert(!try(f, &(struct shim_fault){ 0 }, true)); /* counts the calls */
}

/* ---- the command ---- */

static bool case_run(struct faults *f, const struct fault_case *c, size_t number)
{
    const struct tally *t = &f->tally;
    bool ok;

    try_all(f, c);
    ok = t->failed > 0 && t->lost + t->corrupt + t->refused + t->hung == 0 &&
         (!c->goes_on || (t->stopped == 0 && t->no_room > 0));
    printf("# %llu times: the server went on %llu times, ended with a sentence %llu times, %llu of "
           "them in its start; %llu writes refused for lack of room\n",
           (unsigned long long) t->failed, (unsigned long long) t->survived,
           (unsigned long long) (t->stopped + t->not_up), (unsigned long long) t->not_up,
           (unsigned long long) t->no_room);
    printf("# %llu starts afterwards: %llu lost, %llu corrupt, %llu refused to start; %llu hung or "
           "died\n",
           (unsigned long long) t->starts, (unsigned long long) t->lost,
           (unsigned long long) t->corrupt, (unsigned long long) t->refused,
           (unsigned long long) t->hung);
    printf("%sok %zu - %s\n", ok ? "" : "not ", number, c->name);
    return ok;
}

static int run(struct faults *f)
{
    bool ok = true;

    f->rng = (struct rng){ f->seed };
    base_make(f);
    printf("1..%zu\n", ARRAY_LEN(cases));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        if (f->call && strcmp(f->call, shim_call_names[cases[i].call]) != 0) {
            printf("ok %zu - %s # SKIP not asked for\n", i + 1, cases[i].name);
        } else {
            ok = case_run(f, &cases[i], i + 1) && ok;
        }
    }
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "stride", required_argument, NULL, 'n' },
        { "seed", required_argument, NULL, 's' },
        { "call", required_argument, NULL, 'c' },
        { "sync", required_argument, NULL, 'm' },
        { NULL, 0, NULL, 0 },
    };
    struct faults f = { .seed = 1 };
    int code;
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'n') {
            f.stride = strtoull(optarg, NULL, 10);
        } else if (c == 's') {
            f.seed = strtoull(optarg, NULL, 10);
        } else if (c == 'm' && rig_sync_parse(optarg, &f.sync)) {
            continue;
        } else if (c == 'c') {
            f.call = optarg;
        } else {
            fputs("faults [--stride N] [--seed S] [--call write|fsync|...] [--sync "
                  "always|interval|os]\nEvery N-th call of each kind fails; without --stride few "
                  "of them.\nSpeaks TAP. Folders are made in $TMPDIR.\n",
                  stderr);
            return EXIT_FAILURE;
        }
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    files_make_temporary("faults", f.dir);
    f.journal = journal_new(JOURNAL_BYTES);
    f.after = journal_new(JOURNAL_BYTES);
    code = run(&f);
    files_remove(f.dir);
    model_free(f.model);
    journal_free(f.journal);
    journal_free(f.after);
    return code;
}
