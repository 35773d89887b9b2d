/* kumo-server --rebuild-index: a new generation of checkpoints from the log. The indexes of a
 * server are in memory; what lies on the disk of them are the checkpoints. */
#include "offline_private.h"

#include "base/cleanup.h"
#include "io/checkpoint_names.h"
#include "io/daemon.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct rebuild {
    struct datadir *d;
    uint64_t *found; /* generations, newest first */
    size_t n_found;
    uint64_t highest; /* generation of any file there */
};

static int generation_check(const struct rebuild *b, uint64_t generation,
                            struct checkpoint_set *ret)
{
    uint32_t partitions = datadir_superblock(b->d)->partitions;
    int r = datadir_generation_open(datadir_path(b->d), generation, partitions, ret, NULL);

    for (uint32_t p = 0; r == 0 && p < partitions; p++) {
        r = datadir_generation_check(ret, (uint16_t) p, NULL);
    }
    return r;
}

static bool generation_is_good(const struct rebuild *b, uint64_t generation)
{
    struct checkpoint_set set;
    int r = generation_check(b, generation, &set);

    checkpoint_set_close(&set);
    return r == 0;
}

/* No good generation may know of more than is left of the log: what was taken for a torn tail, and
 * would be cut, is damage then. */
static int generations_reached(const struct rebuild *b, struct io_error *error)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < b->n_found; i++) {
        struct checkpoint_set set;
        if (generation_check(b, b->found[i], &set) == 0) {
            r = datadir_reached(b->d, &set.manifest, error);
        }
        checkpoint_set_close(&set);
    }
    return r;
}

/* The log alone where it is everything, else the newest good generation with the log behind it. */
static int replay(struct rebuild *b, struct io_error *error)
{
    int r = datadir_replay(b->d, 0, error);

    if (r == 0) {
        puts("replayed the whole log");
    } else if (r == -EBADMSG && !datadir_superblock(b->d)->compacted) {
        printf("the log alone can't be replayed: %s\n", error->text);
    }
    for (size_t i = 0; r == -EBADMSG && i < b->n_found; i++) {
        if (generation_is_good(b, b->found[i])) {
            r = datadir_replay(b->d, b->found[i], error);
            if (r == 0) {
                printf("replayed the log behind generation %" PRIu64 "\n", b->found[i]);
            }
        }
    }
    return r == 0 ? generations_reached(b, error) : r;
}

struct reading {
    struct datadir *d;
    uint16_t partition;
    struct io_error *error;
};

static int record_read(void *ctx, const uint8_t *key, size_t key_len,
                       const struct index_record *rec)
{
    const struct reading *c = ctx;
    struct entry e;

    return datadir_read(c->d, c->partition, key, key_len, rec, &e, c->error);
}

/* Checkpoints that point at what can't be read would only hide the damage. */
static int records_read(struct rebuild *b, struct io_error *error)
{
    uint32_t partitions = datadir_superblock(b->d)->partitions;
    int r = 0;

    for (uint32_t p = 0; r == 0 && p < partitions; p++) {
        struct reading c = { b->d, (uint16_t) p, error };
        offline_progress("reading the records of partitions", p, partitions);
        r = datadir_index_walk(b->d, (uint16_t) p, record_read, &c);
    }
    offline_progress("", 0, 0);
    return r;
}

/* The next start must number its segments above the place at which the new checkpoints end. */
static int superblock_settle(struct rebuild *b, struct io_error *error)
{
    struct superblock s = *datadir_superblock(b->d);
    uint32_t highest = segment_set_highest(datadir_segments(b->d));

    s.first_segment = MAX_OF(s.first_segment, highest);
    return superblock_write(datadir_path(b->d), &s, error);
}

/* What a start does before it replays: cuts off what is not surely there, and makes the rest
 * durable. */
static int log_settle(struct rebuild *b, struct io_error *error)
{
    _cleanup_(wal_floor_free) struct wal_floor floor = { 0 };
    struct segment_set set;
    int r = superblock_settle(b, error);

    if (r < 0) {
        return r;
    }
    if (datadir_manifest(b->d)) {
        manifest_floor(datadir_manifest(b->d), &floor);
    }
    r = segment_set_open(&set, datadir_path(b->d), error);
    if (r < 0) {
        return r;
    }
    r = segment_set_check(&set, &floor, error);
    segment_set_close(&set);
    return r;
}

static int files_move(uint64_t generation, DIR *from, int to_fd)
{
    struct dirent *e;
    bool manifest;

    while ((e = readdir(from))) {
        if (checkpoint_name_generation(e->d_name, &manifest) == generation &&
            renameat(dirfd(from), e->d_name, to_fd, e->d_name) < 0) {
            return -errno;
        }
    }
    return 0;
}

/* Moves the files of a damaged generation to DIR/checkpoint-damaged. */
static int move_aside(const struct rebuild *b, uint64_t generation, struct io_error *error)
{
    char from[4096];
    char to[4096];
    DIR *d;
    int fd;
    int r;

    (void) snprintf(from, sizeof(from), "%.4000s/checkpoint", datadir_path(b->d));
    (void) snprintf(to, sizeof(to), "%.4000s/checkpoint-damaged", datadir_path(b->d));
    if (mkdir(to, 0750) < 0 && errno != EEXIST) {
        return io_error_set(error, -errno, "%s can't be made: %s", to, strerror(errno));
    }
    d = opendir(from);
    fd = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    r = !d || fd < 0 ? -errno : files_move(generation, d, fd);
    if (d) {
        closedir(d);
    }
    if (fd >= 0) {
        close(fd);
    }
    if (r < 0) {
        return io_error_set(error, r, "%s: generation %" PRIu64 " can't be moved to %s: %s", from,
                            generation, to, strerror(-r));
    }
    printf("moved the damaged generation %" PRIu64 " to %s\n", generation, to);
    return 0;
}

static int rebuild(struct rebuild *b, struct io_error *error)
{
    const char *dir = datadir_path(b->d);
    struct shard_counts counts;
    int r = log_settle(b, error);

    if (r == 0) {
        r = datadir_generation_write(dir, datadir_shard(b->d), b->highest + 1, error);
    }
    if (r < 0) {
        return r;
    }
    shard_count(datadir_shard(b->d), &counts);
    printf("wrote generation %" PRIu64 ": %" PRIu64 " records, tombstones included, in %" PRIu32
           " partitions\n",
           b->highest + 1, counts.records, datadir_superblock(b->d)->partitions);
    for (size_t i = 0; r == 0 && i < b->n_found; i++) {
        if (!generation_is_good(b, b->found[i])) {
            r = move_aside(b, b->found[i], error);
        }
    }
    return r;
}

static enum offline_status refuse(const char *dir, int r, const struct io_error *error)
{
    enum offline_status status = offline_refuse(r, error);

    if (status == OFFLINE_PROBLEMS) {
        printf("The index can't be rebuilt; nothing was changed. If other servers have copies of "
               "this data, give this server an empty data-dir. If this is the last copy: "
               "kumo-server --salvage %s\n",
               dir);
    }
    return status;
}

enum offline_status offline_rebuild(const char *dir)
{
    enum offline_status status = OFFLINE_OK;
    struct rebuild b = { 0 };
    struct io_error error;
    int lock_fd = -1;
    int r = datadir_look(dir, 0, &b.d, &error); /* before the lock's file is made anywhere */

    b.d = datadir_free(b.d);
    if (r == 0) {
        r = offline_become_owner(dir, &error);
    }
    if (r == 0) {
        lock_fd = daemon_lock_dir(dir, &error);
        r = MIN_OF(lock_fd, 0);
    }
    if (r == 0) {
        r = datadir_look(dir, DATADIR_NO_LOCK, &b.d, &error);
    }
    if (r == 0) {
        r = datadir_generations(dir, &b.found, &b.n_found, &b.highest, &error);
    }
    if (r == 0) {
        r = replay(&b, &error);
    }
    if (r == 0) {
        r = records_read(&b, &error);
    }
    if (r < 0) {
        status = refuse(dir, r, &error);
    } else if (rebuild(&b, &error) < 0) {
        fprintf(stderr, "kumo-server: %s\n", error.text);
        status = OFFLINE_FAILED;
    }
    datadir_free(b.d);
    free(b.found);
    if (lock_fd >= 0) {
        close(lock_fd);
    }
    return status;
}
