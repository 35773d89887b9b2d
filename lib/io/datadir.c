/* A data directory read as a start reads it, without changing it: torn tails are passed over in
 * memory only. Must not create, cut or remove anything. */

#include "base/cleanup.h"
#include "base/mem.h"
#include "core/replica.h"
#include "io/bus.h"
#include "io/datadir_private.h"
#include "io/index_tc.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define DESCRIPTORS_BESIDE 64 /* what there must be beside the indexes */

/* ---- opening ---- */

/* The server's lock, shared with others that only read, without writing to the file. */
static int lock_take(struct datadir *d, struct io_error *error)
{
    char path[PATH_MAX];

    (void) snprintf(path, sizeof(path), "%.4000s/lock", d->dir);
    d->lock_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (d->lock_fd < 0 && errno == ENOENT) {
        return 0; /* no server ever ran on it, as on a backup */
    }
    if (d->lock_fd < 0) {
        return io_error_set(error, -errno, "%s can't be opened: %s", path, strerror(errno));
    }
    if (flock(d->lock_fd, LOCK_SH | LOCK_NB) < 0) {
        return io_error_set(error, -EBUSY, "%s is in use: stop the server that runs on it first",
                            d->dir);
    }
    return 0;
}

static bool has_folder(const struct datadir *d, const char *name)
{
    char path[PATH_MAX];
    struct stat st;

    (void) snprintf(path, sizeof(path), "%.4000s/%s", d->dir, name);
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int superblock_look(struct datadir *d, struct io_error *error)
{
    int r = superblock_read(d->dir, &d->superblock, error);
    bool log = has_folder(d, "log");

    if (r == -ENOENT && log) {
        return io_error_set(error, -EBADMSG,
                            "%s holds a log but no superblock: nobody knows whose data this is; "
                            "restore the file superblock",
                            d->dir);
    }
    if (r == -ENOENT) {
        return io_error_set(error, r, "%s is no data directory of kumo-server", d->dir);
    }
    if (r == 0 && !log) {
        return io_error_set(error, -EBADMSG, "%s has no folder log: its records are gone", d->dir);
    }
    if (r == 0 && (d->superblock.partitions == 0 || d->superblock.server == 0)) {
        return io_error_set(error, -ENODATA,
                            "%s is of a server that never joined a cluster: there is nothing in it",
                            d->dir);
    }
    return r;
}

static size_t page_up(size_t n)
{
    size_t page = (size_t) sysconf(_SC_PAGESIZE);

    return (n + page - 1) / page * page;
}

int datadir_look(const char *dir, unsigned flags, struct datadir **ret, struct io_error *error)
{
    struct datadir *d = mem_zalloc(1, sizeof(*d));
    int r = 0;

    d->lock_fd = -1;
    if (snprintf(d->dir, sizeof(d->dir), "%s", dir) >= 4000) {
        r = io_error_set(error, -ENAMETOOLONG, "%.64s…: the path is too long", dir);
    }
    if (r == 0 && !(flags & DATADIR_NO_LOCK)) {
        r = lock_take(d, error);
    }
    if (r == 0) {
        r = superblock_look(d, error);
    }
    if (r == 0) {
        r = segment_set_open(&d->segments, dir, error);
    }
    if (r < 0) {
        datadir_free(d);
        return r;
    }
    *ret = d;
    return 0;
}

static int segment_mask(const struct wal_segment *s, datadir_unreadable_fn fn, void *ctx)
{
    size_t page = page_up(1);

    for (size_t at = 0; at < s->bytes;) {
        size_t end = at;
        while (end < s->bytes && bus_touch(s->data + end, MIN_OF(page, s->bytes - end)) < 0) {
            end += page;
        }
        if (end > at) {
            void *p = mmap((void *) (s->data + at), end - at, PROT_READ,
                           MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (p == MAP_FAILED) {
                return -errno;
            }
            fn(ctx, s->number, at, MIN_OF(end, s->bytes) - at);
        }
        at = end + page;
    }
    return 0;
}

int datadir_mask(struct datadir *d, datadir_unreadable_fn fn, void *ctx, struct io_error *error)
{
    int r = 0;

    for (size_t i = 0; i < d->segments.n && r == 0; i++) {
        const struct wal_segment *s = &d->segments.v[i];
        if (s->bytes > 0 && bus_touch(s->data, s->bytes) < 0) {
            r = segment_mask(s, fn, ctx);
        }
    }
    return r < 0 ? io_error_set(error, r, "%s: its unreadable pages can't be masked: %s",
                                d->segments.dir, strerror(-r))
                 : 0;
}

/* ---- replaying ---- */

static int index_open(void *ctx, uint16_t partition, struct index **ret)
{
    struct datadir *d = ctx;
    int r = index_tc_open(NULL, partition, ret);

    if (r == 0) {
        d->indexes[partition] = *ret;
    }
    return r;
}

/* The indexes keep two file descriptors a partition open. */
static int descriptors_raise(uint32_t partitions, struct io_error *error)
{
    rlim_t need = (rlim_t) partitions * 2 + DESCRIPTORS_BESIDE;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= need) {
        return 0;
    }
    limit.rlim_cur = limit.rlim_max;
    if (limit.rlim_max < need || setrlimit(RLIMIT_NOFILE, &limit) < 0) {
        return io_error_set(
            error, -EMFILE,
            "%" PRIu32 " partitions need %llu file descriptors, %llu are allowed: raise the hard "
            "limit (ulimit -Hn as root)",
            partitions, (unsigned long long) need, (unsigned long long) limit.rlim_max);
    }
    return 0;
}

static void replay_forget(struct datadir *d)
{
    d->shard = shard_free(d->shard);
    free(d->indexes);
    d->indexes = NULL;
    checkpoint_set_close(&d->checkpoints);
}

static int shard_make(struct datadir *d, struct io_error *error)
{
    const struct superblock *b = &d->superblock;
    uint32_t highest = segment_set_highest(&d->segments);
    struct shard_options o = {
        .log = { .start = b->start + 1,
                 .shards = 1,
                 .partitions = b->partitions,
                 .first_segment = MAX_OF(highest, b->first_segment) + 1 },
        .server = b->server,
        .value_bytes_max = ENTRY_VALUE_BYTES_MAX,
        .index_open = index_open,
        .index_ctx = d,
    };
    int r = descriptors_raise(b->partitions, error);

    if (r < 0) {
        return r;
    }
    memcpy(o.log.server_id, b->server_id, UUID_BYTES);
    d->indexes = mem_zalloc(b->partitions, sizeof(*d->indexes));
    r = shard_new(&o, &d->shard);
    return r < 0 ? io_error_set(error, r, "the indexes can't be made: %s", strerror(-r)) : 0;
}

static int generation_load(struct datadir *d, uint64_t generation, struct io_error *error)
{
    int r = datadir_generation_open(d->dir, generation, d->superblock.partitions, &d->checkpoints,
                                    error);

    for (uint32_t p = 0; r == 0 && p < d->superblock.partitions; p++) {
        size_t bytes;
        const uint8_t *data;
        r = datadir_generation_check(&d->checkpoints, (uint16_t) p, error);
        if (r == 0) {
            data = checkpoint_set_get(&d->checkpoints, (uint16_t) p, &bytes);
            r = checkpoint_load(d->shard, data, bytes);
            if (r < 0) {
                io_error_set(error, r,
                             "%s: the checkpoint of partition %" PRIu32 " in generation %" PRIu64
                             " can't be loaded: %s",
                             d->checkpoints.dir, p, generation, strerror(-r));
            }
        }
    }
    return r;
}

static int log_check(struct datadir *d, struct io_error *error)
{
    _cleanup_(wal_floor_free) struct wal_floor floor = { 0 };
    struct segment_set *set = &d->segments;
    struct wal_damage damage;
    int r;

    if (d->checkpoints.found) {
        manifest_floor(&d->checkpoints.manifest, &floor);
    }
    r = wal_check(set->v, set->n, &floor, &damage);
    if (r < 0) {
        return io_error_set(error, r,
                            "%s/%010" PRIu32 ".seg is damaged at byte %" PRIu64
                            ": %s; nothing was changed",
                            set->dir, damage.segment, damage.offset, damage.what);
    }
    return 0;
}

struct replay {
    struct shard *shard;
    struct position at; /* of the frame's payload */
};

static int replay_frame(void *ctx, const struct frame *f, struct position at)
{
    struct replay *p = ctx;

    p->at = at;
    return shard_replay_frame(p->shard, f, at);
}

static int log_replay(struct datadir *d, struct io_error *error)
{
    struct replay p = { .shard = d->shard };

    for (size_t i = 0; i < d->segments.n; i++) {
        const struct wal_segment *s = &d->segments.v[i];
        int r = s->trusted ? 0 : wal_walk(s, replay_frame, &p);
        if (r < 0) {
            return io_error_set(error, r,
                                "%s/%010" PRIu32 ".seg contradicts what stands before it, at byte "
                                "%" PRIu32 " (%s); nothing was changed",
                                d->segments.dir, s->number, p.at.offset - FRAME_HEAD_BYTES,
                                strerror(-r));
        }
    }
    shard_replay_end(d->shard);
    return 0;
}

int datadir_begin(struct datadir *d, struct io_error *error)
{
    int r;

    replay_forget(d);
    r = shard_make(d, error);
    if (r < 0) {
        replay_forget(d);
        return r;
    }
    for (size_t i = 0; i < d->segments.n; i++) {
        d->segments.v[i].good_bytes = d->segments.v[i].bytes;
    }
    return 0;
}

int datadir_reached(const struct datadir *d, const struct manifest *m, struct io_error *error)
{
    for (uint32_t p = 0; p < m->partitions; p++) {
        struct position x = m->items[p].x;
        const struct wal_segment *s = datadir_segment(d, x.segment);
        size_t good = s ? s->good_bytes : 0;
        if (x.offset > good) {
            return io_error_set(error, -EBADMSG,
                                "%s/%010" PRIu32 ".seg is damaged at byte %zu: generation %" PRIu64
                                " of checkpoints proves that it was whole up to byte %" PRIu32,
                                d->segments.dir, x.segment, good, m->generation, x.offset);
        }
    }
    return 0;
}

int datadir_replay(struct datadir *d, uint64_t generation, struct io_error *error)
{
    int r;

    if (generation == 0 && d->superblock.compacted) {
        return io_error_set(error, -EBADMSG,
                            "%s: segments were compacted away, the log alone is not everything",
                            d->dir);
    }
    replay_forget(d);
    r = shard_make(d, error);
    if (r == 0 && generation != 0) {
        r = generation_load(d, generation, error);
    }
    if (r == 0) {
        r = log_check(d, error);
    }
    if (r == 0) {
        r = log_replay(d, error);
    }
    if (r < 0) {
        replay_forget(d);
    }
    return r;
}

/* The newest generation that is good in every byte. */
static int newest_find(struct datadir *d, uint64_t *ret, struct io_error *error)
{
    _cleanup_free_ uint64_t *found = NULL;
    uint64_t highest;
    size_t n;
    int r = datadir_generations(d->dir, &found, &n, &highest, error);

    *ret = 0;
    for (size_t i = 0; r == 0 && i < n && *ret == 0; i++) {
        struct checkpoint_set set;
        struct io_error why;
        int bad = datadir_generation_open(d->dir, found[i], d->superblock.partitions, &set, &why);
        for (uint32_t p = 0; bad == 0 && p < d->superblock.partitions; p++) {
            bad = datadir_generation_check(&set, (uint16_t) p, &why);
        }
        *ret = bad == 0 ? found[i] : 0;
        checkpoint_set_close(&set);
    }
    return r;
}

int datadir_open(const char *dir, unsigned flags, struct datadir **ret, struct io_error *error)
{
    struct datadir *d;
    uint64_t generation = 0;
    int r = datadir_look(dir, flags, &d, error);

    if (r < 0) {
        return r;
    }
    if (!(flags & DATADIR_LOG_ONLY)) {
        r = newest_find(d, &generation, error);
    }
    if (r == 0) {
        r = datadir_replay(d, generation, error);
    }
    if (r < 0) {
        datadir_free(d);
        return r;
    }
    *ret = d;
    return 0;
}

struct datadir *datadir_free(struct datadir *d)
{
    if (!d) {
        return NULL;
    }
    replay_forget(d);
    segment_set_close(&d->segments);
    if (d->lock_fd >= 0) {
        close(d->lock_fd);
    }
    free(d);
    return NULL;
}

/* ---- looking in ---- */

const char *datadir_path(const struct datadir *d)
{
    return d->dir;
}

const struct superblock *datadir_superblock(const struct datadir *d)
{
    return &d->superblock;
}

const struct segment_set *datadir_segments(const struct datadir *d)
{
    return &d->segments;
}

const struct manifest *datadir_manifest(const struct datadir *d)
{
    return d->checkpoints.found ? &d->checkpoints.manifest : NULL;
}

struct shard *datadir_shard(struct datadir *d)
{
    return d->shard;
}
