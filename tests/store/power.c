/* Power loss. Servers live one after the other on a folder; the journal of what they did to it
 * gives, for any instant, what a disk may hold after the power went then. The start code is let
 * loose on such images, and what it serves is compared with what clients had been answered. Some of
 * these starts lose power again. */
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

#define JOURNAL_BYTES       ((size_t) 1 << 30)
#define POINTS_PER_STORY    150
#define KILLED_STARTS       8 /* of a story, between the lives */
#define START_CHANGES_MAX   64
#define OPS_PER_LIFE        900
#define OPS_AFTER_POWER_MAX 40
#define SYNC_USEC_MAX       1500
#define PAUSE_USEC_MAX      20000
#define FAILURES_TOLD_MAX   5
/* With sync = interval a write may stay unsynced so long: the interval, and what a busy machine
 * adds. */
#define UNSYNCED_USEC_MAX (RIG_INTERVAL_USEC + 5000000)

struct tally {
    uint64_t points;
    uint64_t lost;
    uint64_t corrupt;
    uint64_t refused; /* also: hung, or died without a sentence */
    uint64_t generations;
    uint64_t victims;
    uint64_t twice;         /* points in the start after another one */
    uint64_t writes;        /* that were answered in the stories */
    uint64_t unsynced_usec; /* oldest write that a crash in a story could take */
};

struct power {
    uint64_t n_points;
    uint64_t seed;
    enum sync_mode sync;
    enum disk_lie lie;
    bool wrong_values;
    bool until_found; /* something is planted: ends when it was noticed, and tells nothing */
    char dir[FILES_DIR_BYTES]; /* of everything */
    struct journal *journal;   /* of the story */
    struct journal *after;     /* of a start after a power loss */
    struct rng rng;
    struct tally tally;
};

static bool is_over(const struct power *p)
{
    const struct tally *t = &p->tally;

    return t->points >= p->n_points || (p->until_found && t->lost + t->corrupt + t->refused > 0);
}

/* ---- one crash point ---- */

static void tally_add(struct power *p, const struct rig_result *r, const char *dir)
{
    struct tally *t = &p->tally;
    bool bad = r->outcome != RIG_OK;

    t->points++;
    t->lost += r->report.lost > 0;
    t->corrupt += r->report.corrupt > 0;
    t->refused += bad && r->outcome != RIG_WRONG;
    if (bad && !p->until_found && t->lost + t->corrupt + t->refused <= FAILURES_TOLD_MAX) {
        printf("# point %llu, kept in %s: %s\n#   %s\n", (unsigned long long) t->points, dir,
               rig_outcome_names[r->outcome], r->report.why[0] ? r->report.why : r->last);
    }
}

/* Is a copy of what the start will find to be kept? */
static void keep_failed(struct power *p, const struct disk *d, struct rng rng, enum disk_loss loss,
                        const struct rig_result *r)
{
    char dir[PATH_MAX];

    snprintf(dir, sizeof(dir), "%s/failed-%llu", p->dir, (unsigned long long) p->tally.points + 1);
    if (r->outcome != RIG_OK && !p->until_found) {
        disk_image(d, &rng, loss, dir);
    }
    tally_add(p, r, dir);
}

/* The power goes at this instant; a server starts on what is left, and works on for a while. */
static void point(struct power *p, const struct instant *i, const char *name, struct instant *ret)
{
    enum disk_loss loss = (enum disk_loss) MIN_OF(rng_below(&p->rng, 6), DISK_LOSS_RANDOM);
    struct rig_result result;
    struct rng before;
    char dir[PATH_MAX];
    struct rig_options o = {
        .dir = dir,
        .journal = p->after,
        .sync = p->sync,
        .threads = (uint32_t) rng_between(&p->rng, 1, 2),
        .n_ops = rng_below(&p->rng, OPS_AFTER_POWER_MAX),
        .seed = rng_u64(&p->rng),
        .end = rng_chance(&p->rng, 1, 16) ? RIG_CLEAN : RIG_KILL,
        .sync_usec_max = 100,
    };

    snprintf(dir, sizeof(dir), "%s/%s", p->dir, name);
    files_remove(dir);
    before = p->rng;
    disk_image(i->disk, &p->rng, loss, dir);
    *ret = (struct instant){ .model = model_copy(i->model), .disk = disk_new(dir, p->lie) };
    model_crash(ret->model, p->sync == SYNC_ALWAYS ? UINT64_MAX : disk_log_durable(i->disk));
    o.model = ret->model;
    journal_clear(p->after);
    rig_live(&o, &result);
    keep_failed(p, i->disk, before, loss, &result);
}

static void point_and_again(struct power *p, const struct instant *i)
{
    struct instant second;
    struct instant third;

    point(p, i, "image", &second);
    if (rng_chance(&p->rng, 1, 3) && !is_over(p)) {
        instant_advance(&second, p->after,
                        journal_any(p->after, &p->rng, 0, journal_end(p->after)));
        point(p, &second, "image-2", &third);
        p->tally.twice++;
        instant_end(&third);
    }
    instant_end(&second);
}

/* ---- a story: servers one after the other, no power loss ---- */

static void story_count(struct power *p, const struct record *r)
{
    const char *path = (const char *) r->payload;

    if (r->kind == RECORD_RENAME) {
        const char *to = path + strlen(path) + 1;
        p->tally.generations += strstr(to, ".manifest") != NULL;
    } else if (r->kind == RECORD_UNLINK) {
        p->tally.victims += strstr(path, ".seg") != NULL;
    } else if (r->kind == RECORD_ANSWER) {
        p->tally.writes += !r->flag;
    }
}

/* One server's life; killed after some changes of files unless that is 0. */
static void story_life(struct power *p, const char *dir, struct instant *now, enum rig_end end,
                       uint64_t kill_after)
{
    struct model *model = model_copy(now->model);
    char differs[DISK_PATH_BYTES];
    struct rig_result result;
    struct rig_options o = {
        .dir = dir,
        .model = model,
        .journal = p->journal,
        .sync = p->sync,
        .threads = (uint32_t) rng_between(&p->rng, 1, 2),
        .n_ops = OPS_PER_LIFE,
        .seed = rng_u64(&p->rng),
        .end = end,
        .kill_after = kill_after,
        .sync_usec_max = SYNC_USEC_MAX,
        .pause_usec_max = PAUSE_USEC_MAX,
        .wrong_values = p->wrong_values,
    };

    model_crash(model, UINT64_MAX);
    rig_live(&o, &result);
    if (result.outcome != RIG_OK && !p->wrong_values) {
        printf("# a server without any fault: %s: %s\n# %s\n", rig_outcome_names[result.outcome],
               result.report.why, result.last);
        abort();
    }
    instant_advance(now, p->journal, journal_end(p->journal));
    model_free(model);
    if (!disk_equals(now->disk, dir, differs)) {
        printf("# %s is not what the journal says: the shim misses a file call\n", differs);
        abort();
    }
}

static void story_tell(struct power *p, const char *dir)
{
    struct instant now = { .disk = disk_new(dir, p->lie), .model = model_new(RIG_KEYS) };

    journal_clear(p->journal);
    story_life(p, dir, &now, RIG_KILL, 0);
    for (int i = 0; i < KILLED_STARTS; i++) {
        story_life(p, dir, &now, RIG_KILL, rng_between(&p->rng, 1, START_CHANGES_MAX));
    }
    story_life(p, dir, &now, RIG_CLEAN, 0);
    story_life(p, dir, &now, RIG_KILL, 0);
    for (uint64_t at = 0; at < journal_end(p->journal); at = journal_next(p->journal, at)) {
        story_count(p, journal_at(p->journal, at));
    }
    instant_end(&now);
}

/* ---- the points of a story ---- */

static int compare_positions(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *) a;
    uint64_t y = *(const uint64_t *) b;

    return x < y ? -1 : x > y;
}

/* Right behind these a crash is most telling. */
static bool is_telling(const struct record *r)
{
    return r->kind != RECORD_WRITE && r->kind != RECORD_SUBMIT && r->kind != RECORD_ANSWER &&
           r->kind != RECORD_OBSERVED && r->kind != RECORD_CLOSE;
}

enum draw { DRAW_ANY, DRAW_TELLING, DRAW_START, _DRAW_MAX };

/* n positions, sorted: a third of them behind telling records, a third in starts. *ret is the
 * caller's. */
static void positions_draw(struct power *p, size_t n, uint64_t **ret)
{
    const struct journal *j = p->journal;
    uint64_t *from[_DRAW_MAX] = { NULL };
    size_t n_from[_DRAW_MAX] = { 0 };
    size_t cap[_DRAW_MAX] = { 0 };
    uint64_t *v = mem_alloc(n * sizeof(*v));
    unsigned life = 0; /* records since it began */

    for (uint64_t at = 0; at < journal_end(j); at = journal_next(j, at)) {
        const struct record *r = journal_at(j, at);
        life = r->kind == RECORD_LIFE ? 0 : life + 1;
        for (int d = 0; d < _DRAW_MAX; d++) {
            if (d == DRAW_ANY || (d == DRAW_TELLING && is_telling(r)) ||
                (d == DRAW_START && life < START_CHANGES_MAX)) {
                mem_grow(&from[d], &cap[d], n_from[d] + 1, sizeof(uint64_t));
                from[d][n_from[d]++] = journal_next(j, at);
            }
        }
    }
    for (size_t i = 0; i < n; i++) {
        v[i] = from[i % _DRAW_MAX][rng_below(&p->rng, n_from[i % _DRAW_MAX])];
    }
    qsort(v, n, sizeof(*v), compare_positions);
    for (int d = 0; d < _DRAW_MAX; d++) {
        free(from[d]);
    }
    *ret = v;
}

/* How long ago was the oldest write made that isn't durable? */
static void unsynced_note(struct power *p, const struct instant *i, uint64_t now)
{
    uint64_t oldest = disk_log_durable(i->disk);

    if (oldest != UINT64_MAX && now < journal_end(p->journal)) {
        p->tally.unsynced_usec =
            MAX_OF(p->tally.unsynced_usec,
                   journal_at(p->journal, now)->usec - journal_at(p->journal, oldest)->usec);
    }
}

static void story(struct power *p)
{
    size_t n = (size_t) MIN_OF(p->n_points - p->tally.points, (uint64_t) POINTS_PER_STORY);
    _cleanup_free_ uint64_t *positions = NULL;
    struct instant i;
    char dir[PATH_MAX];

    snprintf(dir, sizeof(dir), "%s/story", p->dir);
    files_remove(dir);
    files_make_folder(dir, "");
    i = (struct instant){ .disk = disk_new(dir, p->lie), .model = model_new(RIG_KEYS) };
    story_tell(p, dir);
    positions_draw(p, n, &positions);
    for (size_t k = 0; k < n && !is_over(p); k++) {
        instant_advance(&i, p->journal, positions[k]);
        unsynced_note(p, &i, positions[k]);
        point_and_again(p, &i);
    }
    instant_end(&i);
}

static void power_run(struct power *p)
{
    p->rng = (struct rng){ p->seed };
    p->tally = (struct tally){ 0 };
    while (!is_over(p)) {
        story(p);
    }
}

/* ---- the command ---- */

static void tally_print(const struct power *p, const char *before)
{
    const struct tally *t = &p->tally;

    printf("%ssync = %s: %llu writes answered, %llu generations published, %llu segments compacted "
           "away; %llu crashes in a start after a crash; oldest write at risk %llu ms\n",
           before, rig_sync_names[p->sync], (unsigned long long) t->writes,
           (unsigned long long) t->generations, (unsigned long long) t->victims,
           (unsigned long long) t->twice, (unsigned long long) t->unsynced_usec / 1000);
    printf("%s%llu crash points: %llu lost, %llu corrupt, %llu refused to start\n", before,
           (unsigned long long) t->points, (unsigned long long) t->lost,
           (unsigned long long) t->corrupt, (unsigned long long) t->refused);
}

static bool is_well(const struct power *p)
{
    const struct tally *t = &p->tally;

    return t->lost + t->corrupt + t->refused == 0 && t->generations > 0 && t->victims > 0 &&
           (p->sync == SYNC_OS || t->unsynced_usec <= UNSYNCED_USEC_MAX);
}

struct power_case {
    const char *name;
    uint64_t points;
    enum sync_mode sync;
    enum disk_lie lie;
    bool wrong_values;
};

/* Few points in each mode, and the proof that a lie is noticed. */
static const struct power_case cases[] = {
    { "power loss, sync = always", 90, SYNC_ALWAYS, DISK_HONEST, false },
    { "power loss, sync = interval", 30, SYNC_INTERVAL, DISK_HONEST, false },
    { "power loss, sync = os", 30, SYNC_OS, DISK_HONEST, false },
    { "a disk that forgets syncs of the log is noticed", 300, SYNC_ALWAYS, DISK_LIES_ABOUT_LOGS,
      false },
    { "a disk that forgets syncs of folders is noticed", 300, SYNC_ALWAYS, DISK_LIES_ABOUT_FOLDERS,
      false },
    { "a value that was never written is noticed", 300, SYNC_ALWAYS, DISK_HONEST, true },
};

static bool case_run(struct power *p, const struct power_case *c)
{
    const struct tally *t = &p->tally;

    p->n_points = c->points;
    p->sync = c->sync;
    p->lie = c->lie;
    p->wrong_values = c->wrong_values;
    p->until_found = c->lie != DISK_HONEST || c->wrong_values;
    power_run(p);
    tally_print(p, "# ");
    return !p->until_found   ? is_well(p)
           : c->wrong_values ? t->corrupt > 0
                             : t->lost + t->refused > 0;
}

/* As TAP. */
static int check(struct power *p)
{
    bool all = true;

    printf("1..%zu\n", ARRAY_LEN(cases));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        bool ok = case_run(p, &cases[i]);
        printf("%sok %zu - %s\n", ok ? "" : "not ", i + 1, cases[i].name);
        all = all && ok;
    }
    return all ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int usage(void)
{
    fputs("power [--points N] [--seed S] [--sync always|interval|os] [--lie log|folder|value]\n"
          "Without options: a short form of all, as TAP. Folders are made in $TMPDIR.\n",
          stderr);
    return EXIT_FAILURE;
}

static bool option(struct power *p, int c)
{
    switch (c) {
    case 'p':
        p->n_points = strtoull(optarg, NULL, 10);
        return true;
    case 's':
        p->seed = strtoull(optarg, NULL, 10);
        return true;
    case 'm':
        return rig_sync_parse(optarg, &p->sync);
    case 'l':
        p->lie = strcmp(optarg, "log") == 0      ? DISK_LIES_ABOUT_LOGS
                 : strcmp(optarg, "folder") == 0 ? DISK_LIES_ABOUT_FOLDERS
                                                 : DISK_HONEST;
        p->wrong_values = strcmp(optarg, "value") == 0;
        return p->lie != DISK_HONEST || p->wrong_values;
    default:
        return false;
    }
}

static int run(struct power *p, int argc, char **argv)
{
    static const struct option options[] = {
        { "points", required_argument, NULL, 'p' },
        { "seed", required_argument, NULL, 's' },
        { "sync", required_argument, NULL, 'm' },
        { "lie", required_argument, NULL, 'l' },
        { NULL, 0, NULL, 0 },
    };
    int c;

    if (argc == 1) {
        return check(p);
    }
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (!option(p, c)) {
            return usage();
        }
    }
    power_run(p);
    tally_print(p, "");
    return is_well(p) ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    struct power p = { .n_points = 2000, .seed = 1 };
    int code;

    setvbuf(stdout, NULL, _IOLBF, 0);
    files_make_temporary("power", p.dir);
    p.journal = journal_new(JOURNAL_BYTES);
    p.after = journal_new(JOURNAL_BYTES);
    code = run(&p, argc, argv);
    if (code == EXIT_SUCCESS) {
        files_remove(p.dir);
    }
    journal_free(p.journal);
    journal_free(p.after);
    return code;
}
