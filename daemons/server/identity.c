/* The data directory: whose it is, what its log holds, and which incarnation this process is (R6).
 */
#include "io/daemon.h"
#include "io/log.h"
#include "server_private.h"

#include "base/cleanup.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static int random_fill(void *p, size_t bytes)
{
    return getrandom(p, bytes, 0) == (ssize_t) bytes ? 0 : -EIO;
}

/* A directory without superblock is a new server, unless a log lies there. */
static int superblock_new(struct server *s, struct io_error *error)
{
    const char *dir = s->settings->data_dir;

    if (s->segments.n > 0) {
        return io_error_set(
            error, -ENOENT,
            "%s holds a log but no superblock: nobody knows whose data this is; restore "
            "the file superblock, or choose an empty data-dir",
            dir);
    }
    s->superblock = (struct superblock){ 0 };
    if (random_fill(s->superblock.server_id, UUID_BYTES) < 0) {
        return io_error_set(error, -EIO, "no random numbers from the kernel");
    }
    log_notice("%s is empty: this is a new server", dir);
    return 0;
}

static int superblock_begin(struct server *s, struct io_error *error)
{
    struct superblock *b = &s->superblock;
    uint64_t random;
    int r;

    if (random_fill(&random, sizeof(random)) < 0) {
        return io_error_set(error, -EIO, "no random numbers from the kernel");
    }
    incarnation_begin(&b->incarnation, random);
    b->doubt = b->doubt || (b->weak && !b->clean); /* R7 */
    b->weak = s->settings->sync != SYNC_ALWAYS;
    b->clean = false;
    b->start++;
    b->first_segment = MAX_OF(segment_set_highest(&s->segments), b->first_segment) + 1;
    r = superblock_write(s->settings->data_dir, b, error);
    if (r == -ENOSPC && room_give_up_ballast(s)) { /* reads are served from a full disk too */
        r = superblock_write(s->settings->data_dir, b, error);
    }
    return r;
}

int identity_sending(struct server *s, struct io_error *error)
{
    return incarnation_sending(&s->superblock.incarnation)
               ? superblock_write(s->settings->data_dir, &s->superblock, error)
               : 0;
}

int identity_open(struct server *s, struct io_error *error)
{
    const char *dir = s->settings->data_dir;
    bool is_new;
    int r;

    s->lock_fd = daemon_lock_dir(dir, error);
    if (s->lock_fd < 0) {
        return s->lock_fd;
    }
    r = superblock_read(dir, &s->superblock, error);
    is_new = r == -ENOENT;
    if (r == 0 || is_new) {
        r = segment_set_open(&s->segments, dir, error);
    }
    if (r == 0 && is_new) {
        r = superblock_new(s, error);
    }
    return r;
}

/* ---- what takes long: in a thread, while the loop turns ---- */

struct check {
    struct server *s;
    struct io_error *error;
    int result;
    _Atomic bool done;
};

static int data_check(struct server *s, struct io_error *error)
{
    const char *dir = s->settings->data_dir;
    _cleanup_(wal_floor_free) struct wal_floor floor = { 0 };
    int r;

    if (s->superblock.distrust == DISTRUST_ASIDE) {
        return io_error_set(error, -EBADMSG, "the last start found that %s can't be trusted", dir);
    }
    r = checkpoint_set_open(&s->checkpoints, dir, s->superblock.partitions, &s->progress, error);
    if (r < 0) {
        return r;
    }
    if (s->superblock.compacted && !s->checkpoints.found) {
        return io_error_set(
            error, -EBADMSG,
            "%s/checkpoint has no good generation, and the log alone is not everything: "
            "this copy can't be read; nothing was changed",
            dir);
    }
    if (s->checkpoints.found) {
        manifest_floor(&s->checkpoints.manifest, &floor);
    }
    s->segments.progress = &s->progress;
    return segment_set_check(&s->segments, &floor, error);
}

static void wake(void *arg)
{
    (void) arg;
}

static void *check_main(void *arg)
{
    struct check *c = arg;
    struct loop *loop = c->s->loop;

    c->result = data_check(c->s, c->error);
    atomic_store(&c->done, true);
    (void) loop_post(loop, wake, NULL);
    return NULL;
}

int identity_check(struct server *s, struct io_error *error)
{
    uint32_t highest = segment_set_highest(&s->segments); /* also of files that are removed now */
    struct check c = { .s = s, .error = error };
    pthread_t thread;
    int r = -pthread_create(&thread, NULL, check_main, &c);

    if (r < 0) {
        return io_error_set(error, r, "no thread for checking %s: %s", s->settings->data_dir,
                            strerror(-r));
    }
    while (!atomic_load(&c.done) && !loop_stopping(s->loop)) {
        (void) loop_turn(s->loop, true);
    }
    pthread_join(thread, NULL);
    if (c.result < 0) {
        c.result = distrust_start(s, c.result, error);
    }
    if (c.result < 0 || loop_stopping(s->loop)) {
        return c.result < 0 ? c.result : -ECANCELED;
    }
    s->superblock.first_segment = MAX_OF(s->superblock.first_segment, highest);
    if (s->segments.cut_bytes > 0) {
        log_notice("%llu bytes at the log's end had not been written whole and were cut: as is to "
                   "be expected after a crash",
                   (unsigned long long) s->segments.cut_bytes);
    }
    return superblock_begin(s, error);
}

void identity_close(struct server *s)
{
    segment_set_close(&s->segments);
    checkpoint_set_close(&s->checkpoints);
    if (s->lock_fd >= 0) {
        close(s->lock_fd);
        s->lock_fd = -1;
    }
}

/* Changes the superblock in memory only when it was written. */
int identity_write(struct server *s, const struct superblock *b)
{
    struct io_error error;
    int r = superblock_write(s->settings->data_dir, b, &error);

    if (r < 0) {
        log_ratelimit(LOG_LEVEL_ERROR, "%s", error.text);
        return r;
    }
    s->superblock = *b;
    return 0;
}

void identity_ended(struct server *s)
{
    struct superblock b = s->superblock;

    b.clean = true;
    (void) identity_write(s, &b);
}

int identity_compacted(struct server *s)
{
    struct superblock b = s->superblock;

    b.compacted = true;
    return s->superblock.compacted ? 0 : identity_write(s, &b);
}

int identity_accepted(struct server *s, const struct msg_registered *m, struct io_error *error)
{
    static const uint8_t none[UUID_BYTES];
    struct superblock *b = &s->superblock;

    if (memcmp(b->cluster_id, none, UUID_BYTES) != 0 &&
        memcmp(b->cluster_id, m->cluster_id, UUID_BYTES) != 0) {
        return io_error_set(
            error, -EPERM,
            "%s holds data of another cluster than the manager's: point `manager` to "
            "its own cluster, or choose an empty data-dir",
            s->settings->data_dir);
    }
    if ((b->server != 0 && b->server != m->server) ||
        (b->partitions != 0 && b->partitions != m->partitions)) {
        return io_error_set(
            error, -EPERM,
            "the manager remembers server %u of %u partitions, this data is of server "
            "%u of %u: the manager's data was lost or exchanged",
            m->server, m->partitions, b->server, b->partitions);
    }
    memcpy(b->cluster_id, m->cluster_id, UUID_BYTES);
    b->server = m->server;
    b->partitions = m->partitions;
    incarnation_accepted(&b->incarnation);
    return superblock_write(s->settings->data_dir, b, error);
}
