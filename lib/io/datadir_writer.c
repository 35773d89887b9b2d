#include "io/datadir_writer.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "core/hashspace.h"
#include "core/shard.h"
#include "io/clock.h"
#include "io/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A flush: far below the limits of a tail, for that is what a replay sees until its commit. */
#define FLUSH_RECORDS (TAIL_ENTRIES_MAX / 2)
#define FLUSH_BYTES   (4u << 20)

/* Where a partition's log ends. */
struct end {
    struct name last;
    uint32_t view;
    bool alone; /* this server is the only member of the view */
    bool dirty; /* something was prepared and not yet committed */
    uint64_t time_usec;
};

struct datadir_writer {
    char dir[PATH_MAX];
    int lock_fd;
    int log_fd;     /* the folder */
    int segment_fd; /* the segment that grows, -1: none yet */
    struct superblock superblock;
    struct end *ends; /* by partition */
    uint16_t *dirty;  /* partitions */
    size_t n_dirty;
    struct wal log;
    struct buf entry;
    bool begun;        /* the superblock names this start */
    bool failed;       /* nobody knows how far the log goes on the disk */
    uint64_t gathered; /* records since the last flush, and… */
    size_t bytes;      /* …their bytes */
    uint64_t done;
};

static void close_fd(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

/* ---- opening ---- */

/* Files that root makes could not be read by the user that the server runs as. */
static int owner_check(const char *dir, struct io_error *error)
{
    const struct passwd *user;
    struct stat st;

    if (stat(dir, &st) < 0) {
        return io_error_set(error, -errno, "%s can't be opened: %s", dir, strerror(errno));
    }
    if (st.st_uid == geteuid()) {
        return 0;
    }
    user = getpwuid(st.st_uid);
    return io_error_set(error, -EPERM,
                        "%s belongs to %s, whose server must be able to read what is written: run "
                        "this with sudo -u %s",
                        dir, user ? user->pw_name : "another user", user ? user->pw_name : "USER");
}

static int unsettled(const struct datadir_writer *w, struct io_error *error)
{
    return io_error_set(error, -EUCLEAN,
                        "%s is of a server that was killed, and what it had under way is not "
                        "settled: start the server and stop it cleanly first",
                        w->dir);
}

/* A torn tail: the next start cuts it. */
static int segments_check(const struct datadir_writer *w, const struct datadir *d,
                          struct io_error *error)
{
    const struct segment_set *set = datadir_segments(d);

    for (size_t i = 0; i < set->n; i++) {
        if (set->v[i].good_bytes != set->v[i].bytes) {
            return unsettled(w, error);
        }
    }
    return 0;
}

/* -EUCLEAN: an entry waits for its commit, and only this server's next view can give that. */
static int ends_read(struct datadir_writer *w, const struct shard *s, struct io_error *error)
{
    uint32_t n = w->superblock.partitions;

    w->ends = mem_zalloc(n, sizeof(*w->ends));
    w->dirty = mem_zalloc(n, sizeof(*w->dirty));
    for (uint32_t i = 0; i < n; i++) {
        struct replica_info r;
        int err = shard_replica_info(s, (uint16_t) i, &r);
        kumo_assert(err == 0); /* the shard holds all partitions */
        w->ends[i] = (struct end){
            .last = r.last,
            .view = r.view,
            .alone = r.n_members == 1 && r.members[0] == w->superblock.server,
            .time_usec = r.time_usec,
        };
        if (w->ends[i].alone && !name_equal(r.last, r.commit)) {
            return unsettled(w, error);
        }
    }
    return 0;
}

/* A start of its own: numbers of segments above all there ever were (as the server does it). */
static void log_begin(struct datadir_writer *w, uint32_t highest)
{
    struct superblock *b = &w->superblock;
    struct wal_options o = { .shards = 1, .partitions = b->partitions };

    b->start++;
    b->first_segment = MAX_OF(highest, b->first_segment) + 1;
    o.start = b->start;
    o.first_segment = b->first_segment;
    memcpy(o.server_id, b->server_id, UUID_BYTES);
    wal_init(&w->log, &o);
}

static int replay(struct datadir_writer *w, struct io_error *error)
{
    struct datadir *d;
    int r = datadir_open(w->dir, DATADIR_NO_LOCK, &d, error);

    if (r < 0) {
        return r;
    }
    w->superblock = *datadir_superblock(d);
    r = segments_check(w, d, error);
    if (r == 0) {
        r = ends_read(w, datadir_shard(d), error);
    }
    if (r == 0) {
        log_begin(w, segment_set_highest(datadir_segments(d)));
    }
    datadir_free(d);
    return r;
}

static int log_open(struct datadir_writer *w, struct io_error *error)
{
    char path[PATH_MAX];

    (void) snprintf(path, sizeof(path), "%.4000s/log", w->dir);
    w->log_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return w->log_fd < 0
               ? io_error_set(error, -errno, "%s can't be opened: %s", path, strerror(errno))
               : 0;
}

int datadir_writer_open(const char *dir, struct datadir_writer **ret, struct io_error *error)
{
    struct datadir_writer *w = mem_zalloc(1, sizeof(*w));
    int r = owner_check(dir, error);

    w->lock_fd = w->log_fd = w->segment_fd = -1;
    if (r == 0 && snprintf(w->dir, sizeof(w->dir), "%s", dir) >= 4000) {
        r = io_error_set(error, -ENAMETOOLONG, "%.64s…: the path is too long", dir);
    }
    if (r == 0) {
        r = log_open(w, error);
    }
    if (r == 0) {
        w->lock_fd = daemon_lock_dir(w->dir, error);
        r = MIN_OF(w->lock_fd, 0);
    }
    if (r == 0) {
        r = replay(w, error);
    }
    if (r < 0) {
        datadir_writer_free(w);
        return r;
    }
    *ret = w;
    return 0;
}

struct datadir_writer *datadir_writer_free(struct datadir_writer *w)
{
    if (w) {
        close_fd(w->segment_fd);
        close_fd(w->log_fd);
        close_fd(w->lock_fd);
        wal_free(&w->log);
        buf_free(&w->entry);
        free(w->ends);
        free(w->dirty);
        free(w);
    }
    return NULL;
}

/* ---- flushing ---- */

static int write_whole(int fd, const uint8_t *p, size_t bytes, uint32_t offset)
{
    while (bytes > 0) {
        ssize_t n = pwrite(fd, p, bytes, offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : -EIO;
        }
        p += n;
        bytes -= (size_t) n;
        offset += (uint32_t) n;
    }
    return 0;
}

/* The segment before it is complete; its bytes must not come after the new one's. */
static int segment_create(struct datadir_writer *w, uint32_t number)
{
    char name[32];

    if (w->segment_fd >= 0 && fdatasync(w->segment_fd) < 0) {
        return -errno;
    }
    close_fd(w->segment_fd);
    (void) snprintf(name, sizeof(name), "%010" PRIu32 ".seg", number);
    w->segment_fd = openat(w->log_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    return w->segment_fd < 0 ? -errno : 0;
}

static int act(struct datadir_writer *w, const struct action *a)
{
    int r = 0;

    switch (a->kind) {
    case ACTION_CREATE:
        r = segment_create(w, a->file.at.segment);
        return r < 0 ? r : write_whole(w->segment_fd, a->file.data, a->file.bytes, 0);
    case ACTION_WRITE:
        return write_whole(w->segment_fd, a->file.data, a->file.bytes, a->file.at.offset);
    case ACTION_SYNC:
        if (fdatasync(w->segment_fd) < 0 || fsync(w->log_fd) < 0) {
            return -errno;
        }
        wal_synced(&w->log, a->group);
        return 0;
    default:
        kumo_unreachable();
    }
}

/* The server is the only member: what is in its log is committed (R2). The commits stand behind the
 * entries in one write, and in one group unless they are many. */
static void commits_append(struct datadir_writer *w)
{
    uint8_t bytes[FRAME_COMMIT_BYTES];

    for (size_t i = 0; i < w->n_dirty; i++) {
        struct end *end = &w->ends[w->dirty[i]];
        frame_commit_encode(end->last, end->time_usec, bytes);
        wal_append(&w->log, FRAME_COMMIT, w->dirty[i], end->view, bytes, sizeof(bytes));
        end->dirty = false;
    }
    w->n_dirty = 0;
}

static int begin(struct datadir_writer *w, struct io_error *error)
{
    int r = w->begun ? 0 : superblock_write(w->dir, &w->superblock, error);

    w->begun = r == 0;
    return r;
}

int datadir_writer_flush(struct datadir_writer *w, struct io_error *error)
{
    struct actions out = { 0 };
    int r = 0;

    if (w->failed) {
        return io_error_set(error, -EIO, "%s: writing failed before", w->dir);
    }
    if (w->gathered == 0) {
        return 0;
    }
    if (begin(w, error) < 0) {
        w->failed = true;
        return -EIO;
    }
    commits_append(w);
    wal_flush(&w->log, &out);
    for (size_t i = 0; i < out.n && r == 0; i++) {
        r = act(w, &out.v[i]);
    }
    actions_free(&out);
    wal_flushed(&w->log);
    if (r < 0) {
        w->failed = true;
        return io_error_set(error, r, "%s/log can't be written: %s", w->dir, strerror(-r));
    }
    w->done += w->gathered;
    w->gathered = 0;
    w->bytes = 0;
    return 0;
}

/* ---- records ---- */

static uint16_t partition_of(const struct datadir_writer *w, const struct entry *e)
{
    return (uint16_t) hashspace_partition_of_hash(hashspace_hash(e->key, e->key_len),
                                                  w->superblock.partitions);
}

int datadir_writer_check(const struct datadir_writer *w, const struct entry *e,
                         struct io_error *error)
{
    uint16_t partition = partition_of(w, e);

    return w->ends[partition].alone
               ? 0
               : io_error_set(error, -EPERM,
                              "the record belongs to partition %u, which the server of %s does not "
                              "hold alone: copies would differ. Start the cluster, and give the "
                              "address of a gateway instead of the directory",
                              partition, w->dir);
}

int datadir_writer_put(struct datadir_writer *w, const struct entry *e, struct io_error *error)
{
    uint16_t partition = partition_of(w, e);
    struct end *end = &w->ends[partition];
    int r = datadir_writer_check(w, e, error);
    struct entry made;

    if (r == 0 && (w->gathered >= FLUSH_RECORDS || w->bytes >= FLUSH_BYTES)) {
        r = datadir_writer_flush(w, error);
    }
    if (r < 0) {
        return r;
    }
    end->time_usec = MAX_OF(end->time_usec, clock_real_usec()); /* R13 */
    made = (struct entry){ .partition = partition,
                           .kind = ENTRY_SET,
                           .answer = RESULT_STORED,
                           .key = e->key,
                           .key_len = e->key_len,
                           .value = e->value,
                           .value_len = e->value_len,
                           .flags = e->flags,
                           .expiry_sec = e->expiry_sec,
                           .name = { .view = end->view, .seq = end->last.seq + 1 },
                           .prev_view = end->last.view,
                           .time_usec = end->time_usec,
                           .cas = end->last.seq + 1 };
    buf_clear(&w->entry);
    entry_encode(&made, buf_reserve(&w->entry, entry_bytes(&made)));
    wal_append(&w->log, FRAME_PREPARE, partition, end->view, w->entry.data, entry_bytes(&made));
    end->last = made.name;
    if (!end->dirty) {
        end->dirty = true;
        w->dirty[w->n_dirty++] = partition;
    }
    w->gathered++;
    w->bytes += entry_bytes(&made);
    return 0;
}

uint64_t datadir_writer_done(const struct datadir_writer *w)
{
    return w->done;
}
