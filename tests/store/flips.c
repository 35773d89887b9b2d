/* Damage. In a copy of a server's folder one bit flips, or a file is gone; a server starts on it,
 * and every key is read. It may serve all of it right, say of single keys that they are damaged,
 * or refuse to start with a sentence; never anything else. */
#include "rig.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "disk.h"
#include "files.h"
#include "instant.h"

#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define JOURNAL_BYTES     ((size_t) 1 << 28)
#define OPS               900
#define PAUSE_USEC_MAX    20000
#define FAILURES_TOLD_MAX 5
#define FILES_MAX         256
#define NAME_BYTES        64

struct file {
    char path[NAME_BYTES];
    size_t bytes;
};

enum target {
    TARGET_SUPERBLOCK,
    TARGET_SEGMENT_HEAD,   /* its first bytes, and those of its first group */
    TARGET_SEGMENT_CLOSED, /* anywhere in it */
    TARGET_SEGMENT_OPEN,   /* the newest of each shard */
    TARGET_CHECKPOINT_NEWEST,
    TARGET_CHECKPOINT_OLDER,
    TARGET_MANIFEST_NEWEST,
    TARGET_MANIFEST_OLDER,
};

struct damage_case {
    const char *name;
    enum target target;
    enum { FLIP, GONE, ALL_GONE } how;
    enum { EITHER, MUST_SERVE, MUST_REFUSE } expected;
};

static const struct damage_case cases[] = {
    { "a bit flips in the superblock", TARGET_SUPERBLOCK, FLIP, EITHER },
    { "a bit flips in a segment's beginning", TARGET_SEGMENT_HEAD, FLIP, EITHER },
    { "a bit flips in a closed segment", TARGET_SEGMENT_CLOSED, FLIP, EITHER },
    { "a bit flips in an open segment", TARGET_SEGMENT_OPEN, FLIP, EITHER },
    { "a bit flips in the newest checkpoints", TARGET_CHECKPOINT_NEWEST, FLIP, MUST_SERVE },
    { "a bit flips in the older checkpoints", TARGET_CHECKPOINT_OLDER, FLIP, MUST_SERVE },
    { "a bit flips in the newest manifest", TARGET_MANIFEST_NEWEST, FLIP, MUST_SERVE },
    { "a bit flips in the older manifest", TARGET_MANIFEST_OLDER, FLIP, MUST_SERVE },
    { "the superblock is gone", TARGET_SUPERBLOCK, GONE, MUST_REFUSE },
    { "a closed segment is gone", TARGET_SEGMENT_CLOSED, GONE, EITHER },
    { "a file of the newest checkpoints is gone", TARGET_CHECKPOINT_NEWEST, GONE, MUST_SERVE },
    { "the newest manifest is gone", TARGET_MANIFEST_NEWEST, GONE, MUST_SERVE },
    { "the older manifest is gone", TARGET_MANIFEST_OLDER, GONE, MUST_SERVE },
    { "both generations are gone", TARGET_MANIFEST_NEWEST, ALL_GONE, MUST_REFUSE },
};

struct flips {
    uint64_t seed;
    uint64_t n; /* of each kind */
    char dir[FILES_DIR_BYTES];
    struct model *model;
    struct journal *journal;
    struct rng rng;
    struct file files[FILES_MAX]; /* of the folder, sorted by path */
    size_t n_files;
    uint64_t served; /* of the case under way */
    uint64_t partly; /* but for keys that it said were damaged */
    uint64_t refused;
    uint64_t wrong;
};

/* ---- the folder ---- */

static void on_base_file(void *ctx, const char *path, bool is_folder, const uint8_t *p,
                         size_t bytes)
{
    struct flips *f = ctx;

    (void) p;
    if (!is_folder && files_is_data(path)) {
        kumo_assert(f->n_files < FILES_MAX && strlen(path) < NAME_BYTES);
        memcpy(f->files[f->n_files].path, path, strlen(path) + 1);
        f->files[f->n_files++].bytes = bytes;
    }
}

/* Two lives: a clean stop, then work and rest, so that the log behind the newest checkpoints holds
 * what was answered, and its last group nothing that would be missed. */
static void base_make(struct flips *f, const char *dir)
{
    struct instant i;

    files_make_folder(dir, "");
    i = (struct instant){ .disk = disk_new(dir, DISK_HONEST), .model = model_new(RIG_KEYS) };
    for (int life = 0; life < 2; life++) {
        struct rig_result r;
        struct rig_options o = {
            .dir = dir,
            .model = i.model,
            .journal = f->journal,
            .sync = SYNC_ALWAYS,
            .threads = 2,
            .n_ops = OPS,
            .seed = rng_u64(&f->rng),
            .end = life == 0 ? RIG_CLEAN : RIG_REST,
            .pause_usec_max = PAUSE_USEC_MAX,
        };
        model_crash(i.model, UINT64_MAX);
        rig_live(&o, &r);
        kumo_assert(r.outcome == RIG_OK);
        instant_advance(&i, f->journal, journal_end(f->journal));
    }
    model_crash(i.model, UINT64_MAX);
    f->model = TAKE_PTR(i.model);
    instant_end(&i);
    files_walk(dir, on_base_file, f);
}

/* ---- damage ---- */

static bool ends_with(const char *path, const char *end)
{
    return strlen(path) >= strlen(end) && strcmp(path + strlen(path) - strlen(end), end) == 0;
}

/* Two files are of one generation, or are one segment's, when their paths begin alike. */
static bool is_of(const struct file *f, const struct file *newest)
{
    return strncmp(f->path, newest->path, strlen("checkpoint/0000000001")) == 0;
}

static bool fits(const struct flips *f, const struct file *file, enum target target)
{
    const struct file *newest = NULL;
    const struct file *open[2] = { NULL, NULL };

    for (size_t i = 0; i < f->n_files; i++) {
        newest = ends_with(f->files[i].path, ".manifest") ? &f->files[i] : newest;
        if (ends_with(f->files[i].path, ".seg")) { /* two shards take numbers in turn */
            open[strtoul(f->files[i].path + strlen("log/"), NULL, 10) % 2] = &f->files[i];
        }
    }
    switch (target) {
    case TARGET_SUPERBLOCK:
        return strcmp(file->path, "superblock") == 0;
    case TARGET_SEGMENT_HEAD:
        return ends_with(file->path, ".seg");
    case TARGET_SEGMENT_CLOSED:
        return ends_with(file->path, ".seg") && file != open[0] && file != open[1];
    case TARGET_SEGMENT_OPEN:
        return file == open[0] || file == open[1];
    case TARGET_CHECKPOINT_NEWEST:
        return ends_with(file->path, ".ckp") && is_of(file, newest);
    case TARGET_CHECKPOINT_OLDER:
        return ends_with(file->path, ".ckp") && !is_of(file, newest);
    case TARGET_MANIFEST_NEWEST:
        return file == newest;
    case TARGET_MANIFEST_OLDER:
        return ends_with(file->path, ".manifest") && file != newest;
    }
    return false;
}

static const struct file *file_draw(struct flips *f, enum target target)
{
    const struct file *v[FILES_MAX];
    size_t n = 0;

    for (size_t i = 0; i < f->n_files; i++) {
        if (fits(f, &f->files[i], target) && f->files[i].bytes > 0) {
            v[n++] = &f->files[i];
        }
    }
    kumo_assert(n > 0);
    return v[rng_below(&f->rng, n)];
}

static void file_flip(const char *path, size_t at, unsigned bit)
{
    FILE *file = fopen(path, "r+e");
    int c;

    kumo_assert(file && fseek(file, (long) at, SEEK_SET) == 0);
    c = fgetc(file);
    kumo_assert(c != EOF && fseek(file, (long) at, SEEK_SET) == 0);
    kumo_assert(fputc(c ^ (1 << bit), file) != EOF);
    fclose(file);
}

/* Tells in words what was done. */
static void damage(struct flips *f, const char *dir, const struct damage_case *c, char what[128])
{
    const struct file *file = file_draw(f, c->target);
    size_t bytes =
        c->target == TARGET_SEGMENT_HEAD ? MIN_OF(file->bytes, (size_t) 256) : file->bytes;
    size_t at = rng_below(&f->rng, bytes);
    unsigned bit = (unsigned) rng_below(&f->rng, 8);
    char path[PATH_MAX + NAME_BYTES];

    snprintf(path, sizeof(path), "%s/%s", dir, file->path);
    if (c->how == FLIP) {
        file_flip(path, at, bit);
        snprintf(what, 128, "%s, byte %zu, bit %u", file->path, at, bit);
    } else if (c->how == GONE) {
        unlink(path);
        snprintf(what, 128, "%s is gone", file->path);
    } else {
        snprintf(path, sizeof(path), "%s/checkpoint", dir);
        files_remove(path);
        snprintf(what, 128, "the folder checkpoint is gone");
    }
}

/* ---- cases ---- */

static void try(struct flips *f, const struct damage_case *c)
{
    char base[PATH_MAX];
    char dir[PATH_MAX];
    char what[128];
    struct rig_result r;
    struct rig_options o = { .dir = dir,
                             .model = f->model,
                             .journal = f->journal,
                             .sync = SYNC_ALWAYS,
                             .threads = 2,
                             .seed = rng_u64(&f->rng),
                             .end = RIG_KILL };
    bool ok;

    snprintf(base, sizeof(base), "%s/base", f->dir);
    snprintf(dir, sizeof(dir), "%s/damaged", f->dir);
    files_remove(dir);
    files_copy(base, dir);
    damage(f, dir, c, what);
    journal_clear(f->journal);
    rig_live(&o, &r);
    f->served += r.outcome == RIG_OK;
    f->partly += r.outcome == RIG_DAMAGED;
    f->refused += r.outcome == RIG_REFUSED;
    ok = (r.outcome == RIG_OK && c->expected != MUST_REFUSE) ||
         (r.outcome == RIG_DAMAGED && c->expected == EITHER) ||
         (r.outcome == RIG_REFUSED && c->expected != MUST_SERVE);
    f->wrong += !ok;
    if (!ok && f->wrong <= FAILURES_TOLD_MAX) {
        printf("# %s: %s\n#   %s\n", what, rig_outcome_names[r.outcome],
               r.report.why[0] ? r.report.why : r.last);
    }
}

static bool case_run(struct flips *f, const struct damage_case *c, size_t number)
{
    f->served = f->partly = f->refused = f->wrong = 0;
    for (uint64_t i = 0; i < f->n; i++) {
        try(f, c);
    }
    printf("# %llu times: all served right %llu times, all but keys said to be damaged %llu "
           "times, none (refused to start) %llu times; wrong %llu times\n",
           (unsigned long long) f->n, (unsigned long long) f->served,
           (unsigned long long) f->partly, (unsigned long long) f->refused,
           (unsigned long long) f->wrong);
    printf("%sok %zu - %s\n", f->wrong ? "not " : "", number, c->name);
    return f->wrong == 0;
}

static int run(struct flips *f)
{
    char base[PATH_MAX];
    bool ok = true;

    f->rng = (struct rng){ f->seed };
    snprintf(base, sizeof(base), "%s/base", f->dir);
    base_make(f, base);
    printf("1..%zu\n", ARRAY_LEN(cases));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        ok = case_run(f, &cases[i], i + 1) && ok;
    }
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "times", required_argument, NULL, 'n' },
        { "seed", required_argument, NULL, 's' },
        { NULL, 0, NULL, 0 },
    };
    struct flips f = { .seed = 1, .n = 8 };
    int code;
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'n') {
            f.n = strtoull(optarg, NULL, 10);
        } else if (c == 's') {
            f.seed = strtoull(optarg, NULL, 10);
        } else {
            fputs("flips [--times N] [--seed S]\nDamages each kind of file N times. Speaks TAP. "
                  "Folders are made in $TMPDIR.\n",
                  stderr);
            return EXIT_FAILURE;
        }
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    files_make_temporary("flips", f.dir);
    f.journal = journal_new(JOURNAL_BYTES);
    code = run(&f);
    files_remove(f.dir);
    model_free(f.model);
    journal_free(f.journal);
    return code;
}
