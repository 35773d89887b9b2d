/* backup: a server's data directory as it is at this moment, while the server runs.
 *
 * A generation of checkpoints first, then all segments that lie there at one moment behind that. A
 * segment goes only when its records were copied into later ones, durably: what is missing at that
 * moment stands in another segment of the listing. Segments that the generation needs stay as long
 * as it does; the server keeps two. So a round in which nothing vanished, and after which the
 * generation is still there, has everything. What was taken in an earlier round stays good. */
#include "backup_files.h"
#include "backup_info.h"
#include "backup_validate.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/checkpoint_names.h"
#include "io/files.h"
#include "json.h"
#include "record_progress.h"
#include "record_sink.h"
#include "shell.h"
#include "verb.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS_MAX 50
/* A server notes in its log that an entry is committed a little after it was answered, a secondary
 * after the primary: what was answered before the backup began is to be in it. */
#define SETTLE_USEC (3 * SHARD_COMMIT_USEC)

struct backup {
    char from[PATH_MAX];
    char to[PATH_MAX]; /* TARGET.partial until it is whole */
    const char *target;
    char previous[PATH_MAX]; /* a backup of the same server, "": none */
    uint64_t generation;
    struct backup_info info;
    struct io_error error;
};

static void segment_path(const char *dir, uint32_t number, char out[PATH_MAX])
{
    (void) snprintf(out, PATH_MAX, "%.4000s/log/%010" PRIu32 ".seg", dir, number);
}

static void folder_path(const char *dir, const char *folder, char out[PATH_MAX])
{
    (void) snprintf(out, PATH_MAX, "%.4000s/%s", dir, folder);
}

/* ---- the generation ---- */

/* A file of the generation; `same`: the previous backup is of this generation too. */
static int generation_file(struct backup *b, const char *name, bool same)
{
    char from[PATH_MAX];
    char to[PATH_MAX];
    char previous[PATH_MAX];

    (void) snprintf(from, sizeof(from), "%.2000s/checkpoint/%.100s", b->from, name);
    (void) snprintf(to, sizeof(to), "%.2000s/checkpoint/%.100s", b->to, name);
    (void) snprintf(previous, sizeof(previous), "%.2000s/checkpoint/%.100s", b->previous, name);
    return backup_file(from, same ? previous : NULL, to, true);
}

static bool generation_is_same(const struct backup *b, const char *manifest)
{
    char ours[PATH_MAX];
    char previous[PATH_MAX];

    (void) snprintf(ours, sizeof(ours), "%.2000s/checkpoint/%.100s", b->from, manifest);
    (void) snprintf(previous, sizeof(previous), "%.2000s/checkpoint/%.100s", b->previous, manifest);
    return b->previous[0] && backup_files_equal(ours, previous, SIZE_MAX);
}

/* The files that the manifest names, then the manifest. */
static int generation_files(struct backup *b, const struct manifest *m)
{
    bool taken[SHARDS_MAX] = { false };
    char name[PATH_MAX];
    char manifest[64];
    bool same;
    int r = 0;

    (void) snprintf(manifest, sizeof(manifest), "%010" PRIu64 ".manifest", m->generation);
    same = generation_is_same(b, manifest);
    for (uint32_t i = 0; i < m->partitions && r == 0; i++) {
        uint16_t file = m->items[i].file;
        if (file < SHARDS_MAX && !taken[file]) {
            taken[file] = true;
            checkpoint_path(".", m->generation, file, name);
            r = generation_file(b, name + 2, same);
        }
    }
    return r == 0 ? generation_file(b, manifest, same) : r;
}

/* Is this generation whole and good in every byte? Looked at where it is kept from now on. */
static int generation_check(struct backup *b, uint64_t generation, uint32_t partitions)
{
    struct checkpoint_set set = { 0 };
    int r = datadir_generation_open(b->to, generation, partitions, &set, &b->error);

    for (uint32_t p = 0; r == 0 && p < partitions; p++) {
        r = datadir_generation_check(&set, (uint16_t) p, &b->error);
    }
    checkpoint_set_close(&set);
    return r;
}

static int folder_empty(const char *dir, const char *folder)
{
    char path[PATH_MAX];

    folder_path(dir, folder, path);
    backup_remove(path);
    return mkdir(path, 0750) < 0 ? -errno : 0;
}

static int generation_take(struct backup *b, uint64_t generation, uint32_t partitions)
{
    struct checkpoint_set set = { 0 };
    int r = datadir_generation_open(b->from, generation, partitions, &set, &b->error);

    if (r == 0) {
        r = folder_empty(b->to, "checkpoint");
    }
    if (r == 0) {
        r = generation_files(b, &set.manifest);
    }
    checkpoint_set_close(&set);
    return r == 0 ? generation_check(b, generation, partitions) : r;
}

/* Takes the newest good one, if there is any: b->generation. */
static int generation_newest(struct backup *b, uint32_t partitions)
{
    _cleanup_free_ uint64_t *found = NULL;
    uint64_t highest;
    size_t n;
    int r = datadir_generations(b->from, &found, &n, &highest, &b->error);

    b->generation = 0;
    for (size_t i = 0; r == 0 && i < n && b->generation == 0; i++) {
        if (generation_take(b, found[i], partitions) == 0) {
            b->generation = found[i];
        } else {
            r = folder_empty(b->to, "checkpoint");
        }
    }
    return r;
}

static bool generation_is_there(const struct backup *b)
{
    char dir[PATH_MAX];
    char path[PATH_MAX];

    folder_path(b->from, "checkpoint", dir);
    manifest_path(dir, b->generation, path);
    return b->generation == 0 || access(path, F_OK) == 0;
}

/* ---- segments ---- */

/* Has the previous backup this segment? Its head bears the server's id and the start, and nobody
 * ever changes what stands in it: of one length, they are the same. */
static bool previous_has(const struct backup *b, const char *from, const char *previous)
{
    return b->previous[0] && backup_files_equal(from, previous, SEGMENT_HEAD_BYTES);
}

static int segment_take(struct backup *b, const struct backup_segment *s)
{
    char from[PATH_MAX];
    char to[PATH_MAX];
    char previous[PATH_MAX];

    segment_path(b->from, s->number, from);
    segment_path(b->to, s->number, to);
    segment_path(b->previous, s->number, previous);
    if (!s->open && access(to, F_OK) == 0) {
        return 0; /* by an earlier round */
    }
    return backup_file(from, previous_has(b, from, previous) ? previous : NULL, to, !s->open);
}

/* Two listings, one after the other: a folder is not read at one instant. What was removed before
 * the end of the first one has its copies in segments that the second one surely meets. */
struct listings {
    struct backup_segment *v[2];
    size_t n[2];
};

static void listings_free(struct listings *l)
{
    free(l->v[0]);
    free(l->v[1]);
}

/* Open ones are copied again by the next round. */
static void segments_forget_open(const struct backup *b, const struct listings *l)
{
    for (size_t i = 0; i < l->n[1]; i++) {
        char to[PATH_MAX];
        segment_path(b->to, l->v[1][i].number, to);
        if (l->v[1][i].open) {
            (void) unlink(to);
        }
    }
}

static bool is_listed(const struct listings *l, uint32_t number)
{
    for (size_t k = 0; k < 2; k++) {
        for (size_t i = 0; i < l->n[k]; i++) {
            if (l->v[k][i].number == number) {
                return true;
            }
        }
    }
    return false;
}

/* What an earlier round took and was compacted away since. */
static int segments_forget_gone(const struct backup *b, const struct listings *l)
{
    _cleanup_free_ struct backup_segment *taken = NULL;
    size_t n = 0;
    int r = backup_segments(b->to, 0, &taken, &n);

    for (size_t i = 0; i < n && r == 0; i++) {
        char to[PATH_MAX];
        segment_path(b->to, taken[i].number, to);
        r = !is_listed(l, taken[i].number) && unlink(to) < 0 ? -errno : 0;
    }
    return r;
}

/* All that lie there now, those that may still grow at last; -ENOENT: one has vanished since. */
static int segments_take(struct backup *b, uint64_t start, struct listings *l)
{
    struct record_progress progress = { .what = "segments" };
    int r = 0;

    for (size_t k = 0; k < 2 && r == 0; k++) {
        r = backup_segments(b->from, start, &l->v[k], &l->n[k]);
        for (size_t i = 0; i < l->n[k] && r == 0; i++) {
            bool later = k == 0 && l->v[k][i].open;
            r = shell_interrupted ? -EINTR : later ? 0 : segment_take(b, &l->v[k][i]);
            record_progress_show(&progress, i);
        }
    }
    record_progress_end(&progress);
    return r;
}

/* ---- the whole ---- */

static int superblock_take(struct backup *b, struct superblock *ret)
{
    int r = superblock_read(b->from, ret, &b->error);

    return r < 0 ? r : superblock_write(b->to, ret, &b->error);
}

/* -EAGAIN: something went away meanwhile. */
static int round_run(struct backup *b)
{
    _cleanup_(listings_free) struct listings segments = { 0 };
    struct superblock superblock;
    int r = superblock_read(b->from, &superblock, &b->error);

    if (r == 0) {
        r = generation_newest(b, superblock.partitions);
    }
    if (r == 0) {
        r = segments_take(b, superblock.start, &segments);
        if (r < 0) {
            io_error_set(&b->error, r, "the segments of %s can't be copied: %s", b->from,
                         strerror(-r));
        }
    }
    if (r == 0) { /* last: it says whether segments were compacted away */
        r = superblock_take(b, &superblock);
    }
    if (r == -ENOENT ||
        (r == 0 && (!generation_is_there(b) || (superblock.compacted && b->generation == 0)))) {
        segments_forget_open(b, &segments);
        return -EAGAIN;
    }
    return r == 0 ? segments_forget_gone(b, &segments) : r;
}

static int folders_sync(const struct backup *b)
{
    static const char *const folders[] = { "log", "checkpoint", "." };
    int r = 0;

    for (size_t i = 0; i < ARRAY_LEN(folders) && r == 0; i++) {
        char path[PATH_MAX];
        folder_path(b->to, folders[i], path);
        r = files_sync(path);
    }
    return r;
}

static int measure(struct backup *b)
{
    struct backup_sum log = { 0 };
    struct backup_sum checkpoint = { 0 };
    char path[PATH_MAX];
    int r;

    folder_path(b->to, "log", path);
    r = backup_measure(path, &log);
    folder_path(b->to, "checkpoint", path);
    r = r == 0 ? backup_measure(path, &checkpoint) : r;
    b->info.segments = log.files;
    b->info.bytes = log.bytes + checkpoint.bytes;
    b->info.bytes_linked = log.bytes_linked + checkpoint.bytes_linked;
    return r;
}

static int publish(struct backup *b)
{
    _cleanup_free_ char *copy = strdup(b->target);
    int r = measure(b);

    if (r == 0) {
        r = backup_info_write(b->to, &b->info, &b->error);
        if (r < 0) {
            return r;
        }
        r = folders_sync(b);
    }
    if (r == 0 && rename(b->to, b->target) < 0) {
        r = -errno;
    }
    if (r == 0) {
        r = files_sync(dirname(copy));
    }
    return r < 0 ? io_error_set(&b->error, r, "%s can't be written: %s", b->target, strerror(-r))
                 : 0;
}

static int backup_take(struct backup *b)
{
    int r = mkdir(b->to, 0750) < 0 || folder_empty(b->to, "log") < 0 ||
                    folder_empty(b->to, "checkpoint") < 0
                ? -errno
                : 0;

    if (r == -EEXIST) {
        return io_error_set(&b->error, r,
                            "%s is in the way: another backup is under way, or was interrupted; "
                            "then remove it",
                            b->to);
    }
    if (r < 0) {
        return io_error_set(&b->error, r, "%s can't be made: %s", b->to, strerror(-r));
    }
    (void) usleep(SETTLE_USEC);
    for (int i = 0; i < ROUNDS_MAX; i++) {
        r = round_run(b);
        if (r != -EAGAIN) {
            break;
        }
    }
    if (r == -EAGAIN) {
        io_error_set(&b->error, r,
                     "%s changes faster than it can be copied; back up to its own file system, or "
                     "at a quieter time",
                     b->from);
    }
    r = r == 0 ? backup_validate(b->to, &b->info.records, &b->info.generation, &b->error) : r;
    r = r == 0 ? publish(b) : r;
    if (r < 0) {
        backup_remove(b->to);
    }
    return r;
}

/* ---- what to do ---- */

/* The previous backup: the one that is named, or the newest of this server beside the target. */
static int previous_find(struct backup *b, const char *named)
{
    _cleanup_free_ char *copy = strdup(b->target);
    struct backup_info info;
    int r = 0;

    if (named) {
        r = backup_info_read(named, &info, &b->error);
        if (r == 0 && strcmp(info.server_id, b->info.server_id) != 0) {
            r = io_error_set(&b->error, -EINVAL, "%s is a backup of another server", named);
        }
        if (r == 0 && !realpath(named, b->previous)) {
            r = io_error_set(&b->error, -errno, "%s: %s", named, strerror(errno));
        }
    } else if (!backup_info_newest(dirname(copy), b->info.server_id, b->previous)) {
        b->previous[0] = '\0';
    }
    return r;
}

static int backup_prepare(struct backup *b, const char *dir, const char *named)
{
    struct superblock s;
    int r;

    if (!realpath(dir, b->from)) {
        return io_error_set(&b->error, -errno, "%s can't be opened: %s", dir, strerror(errno));
    }
    r = superblock_read(b->from, &s, &b->error);
    if (r < 0) {
        return r;
    }
    if (access(b->target, F_OK) == 0) {
        return io_error_set(&b->error, -EEXIST,
                            "%s is there already: every backup gets a name of its own", b->target);
    }
    if (strlen(b->from) > 1900 || snprintf(b->to, sizeof(b->to), "%s.partial", b->target) > 1900) {
        return io_error_set(&b->error, -ENAMETOOLONG, "%s: the path is too long", b->target);
    }
    b->info.time_sec = (uint64_t) time(NULL);
    b->info.server = s.server;
    b->info.partitions = s.partitions;
    record_uuid_format(s.server_id, b->info.server_id);
    record_uuid_format(s.cluster_id, b->info.cluster_id);
    return previous_find(b, named);
}

static void backup_print(const struct backup *b, bool as_json)
{
    const struct backup_info *i = &b->info;
    struct json j;

    if (!as_json) {
        printf("%s holds %" PRIu64 " records in %" PRIu64 " segments: %" PRIu64 " bytes, %" PRIu64
               " of them linked\n",
               b->target, i->records, i->segments, i->bytes, i->bytes_linked);
        return;
    }
    json_begin(&j, stdout);
    json_str(&j, "backup", b->target);
    json_str(&j, "previous", b->previous);
    json_str(&j, "server_id", i->server_id);
    json_str(&j, "cluster_id", i->cluster_id);
    json_uint(&j, "server", i->server);
    json_uint(&j, "partitions", i->partitions);
    json_uint(&j, "generation", i->generation);
    json_uint(&j, "segments", i->segments);
    json_uint(&j, "bytes", i->bytes);
    json_uint(&j, "bytes_linked", i->bytes_linked);
    json_uint(&j, "records", i->records);
    json_end(&j);
}

int verb_backup(struct ctl *ctl, int argc, char **argv)
{
    const char *previous = NULL;
    const char *as_json = NULL;
    const struct verb_option options[] = {
        { .name = "--previous", .metavar = "OLD", .ret = &previous },
        { .name = "--json", .ret = &as_json },
        { 0 }
    };
    _cleanup_free_ struct backup *b = NULL;
    struct verb_words w;
    int r;

    if (!verb_args(ctl, verb_find("backup"), argc, argv, options, 2, 2, &w)) {
        return VERB_USAGE;
    }
    b = mem_zalloc(1, sizeof(*b));
    b->target = w.v[1];
    r = backup_prepare(b, w.v[0], previous);
    if (r == 0) {
        r = backup_take(b);
    }
    if (r < 0) {
        return verb_error(ctl, "%s", b->error.text);
    }
    backup_print(b, as_json != NULL);
    return VERB_OK;
}
