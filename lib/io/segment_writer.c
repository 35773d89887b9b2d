#include "base/assert.h"
#include "base/cleanup.h"
#include "base/list.h"
#include "base/mem.h"
#include "io/bus.h"
#include "io/clock.h"
#include "io/log.h"
#include "io/loop.h"
#include "io/residency.h"
#include "io/segments.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A segment that this writer made; mapped beyond its end, so that it can be read as it grows. */
struct own_segment {
    uint8_t *map;
    size_t map_bytes;
    size_t bytes;
    int fd;
    bool unsynced;
};

#define FULL_RETRY_USEC 100000
#define FLUSHES_MAX     4 /* a checkpoint and a compaction may wait at once */

struct flush {
    void (*fn)(void *ctx);
    void *ctx;
};

/* What the sync thread is to do, and did. */
struct sync_job {
    struct segment_writer *writer;
    int *fds;
    size_t n_fds;
    bool dir; /* a file was made since the last job */
    uint64_t group;
    size_t n_flushes; /* as many of the writer's wait for this one */
    int error;
};

struct segment_writer {
    struct segment_writer_options o;
    struct own_segment *own; /* by order of making */
    size_t n_own;
    size_t cap_own;
    size_t first_unsynced; /* in own */
    size_t first_open;     /* in own: those before it need no descriptor any more */
    int dir_fd;
    bool dir_unsynced;
    uint64_t bytes;                    /* written so far */
    struct flush flushes[FLUSHES_MAX]; /* who waits for the disk, oldest first */
    size_t n_flushes;
    uint64_t written_group; /* last whose sync was asked for */
    bool failed;
    bool closed;         /* being freed: what is still posted does nothing */
    struct list backlog; /* struct waiting: the disk is full */
    uint64_t backlog_bytes;
    struct loop_timer *full_timer;

    /* shared with the thread */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct sync_job *job; /* one in flight */
    bool stopping;
    bool busy;                /* loop side: a job is in flight or its end is being posted */
    struct loop_timer *timer; /* of SYNC_INTERVAL */
};

static void fail(struct segment_writer *w, int error, const char *what)
{
    if (!w->failed) {
        w->failed = true;
        w->o.on_failed(w->o.ctx, error, what);
    }
}

/* ---- the sync thread ---- */

static void job_begin(struct segment_writer *w);

static void flushes_done(struct segment_writer *w, size_t n)
{
    struct flush done[FLUSHES_MAX];

    memcpy(done, w->flushes, n * sizeof(*done));
    w->n_flushes -= n;
    memmove(w->flushes, w->flushes + n, w->n_flushes * sizeof(*w->flushes));
    for (size_t i = 0; i < n; i++) {
        done[i].fn(done[i].ctx);
    }
}

/* Segments that are complete and synced are only read, by their mapping. No job is in flight. */
static void complete_close(struct segment_writer *w)
{
    for (; w->first_open + 1 < w->n_own && !w->own[w->first_open].unsynced; w->first_open++) {
        struct own_segment *s = &w->own[w->first_open];
        if (s->fd >= 0) {
            close(s->fd);
            s->fd = -1;
        }
    }
}

/* On the loop. */
static void job_end(void *arg)
{
    struct sync_job *j = arg;
    struct segment_writer *w = j->writer;
    uint64_t group = j->group;
    size_t n_flushes = j->n_flushes;
    int error = j->error;

    free(j->fds);
    free(j);
    w->busy = false;
    if (w->closed) {
        return;
    }
    if (error < 0) {
        fail(w, error, "fdatasync");
        return;
    }
    complete_close(w);
    w->o.on_synced(w->o.ctx, group);
    flushes_done(w, n_flushes);
    if (!w->busy && ((w->o.sync == SYNC_ALWAYS && w->written_group > group) ||
                     (w->n_flushes > 0 && list_empty(&w->backlog)))) {
        job_begin(w);
    }
}

static void job_run(struct segment_writer *w, struct sync_job *j)
{
    for (size_t i = 0; i < j->n_fds && j->error == 0; i++) {
        j->error = fdatasync(j->fds[i]) < 0 ? -errno : 0;
    }
    if (j->dir && j->error == 0) {
        j->error = fsync(w->dir_fd) < 0 ? -errno : 0;
    }
}

static void *sync_thread(void *arg)
{
    struct segment_writer *w = arg;

    pthread_mutex_lock(&w->lock);
    for (;;) {
        struct sync_job *j = w->job;
        if (j) {
            pthread_mutex_unlock(&w->lock);
            job_run(w, j);
            pthread_mutex_lock(&w->lock);
            w->job = NULL;
            /* the mailbox can't be full: one job is in flight */
            while (loop_post(w->o.loop, job_end, j) < 0) {
                usleep(1000);
            }
        } else if (w->stopping) {
            break;
        } else {
            pthread_cond_wait(&w->wake, &w->lock);
        }
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* Hands all that was written so far to the thread. */
static void job_begin(struct segment_writer *w)
{
    struct sync_job *j = mem_zalloc(1, sizeof(*j));

    kumo_assert(!w->busy);
    j->writer = w;
    j->group = w->written_group;
    j->n_flushes = list_empty(&w->backlog) ? w->n_flushes : 0; /* they wait for it, too */
    j->dir = w->dir_unsynced;
    j->fds = mem_alloc((w->n_own - w->first_unsynced + 1) * sizeof(*j->fds));
    for (size_t i = w->first_unsynced; i < w->n_own; i++) {
        if (w->own[i].unsynced) {
            w->own[i].unsynced = false;
            j->fds[j->n_fds++] = w->own[i].fd;
        }
    }
    w->first_unsynced = w->n_own > 0 ? w->n_own - 1 : 0;
    w->dir_unsynced = false;
    w->busy = true;
    pthread_mutex_lock(&w->lock);
    w->job = j;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

static void interval_over(void *ctx)
{
    struct segment_writer *w = ctx;

    if (w->busy) {
        loop_timer_start(w->timer, w->o.sync_interval_usec); /* what is in flight began before */
    } else if (!w->failed) {
        job_begin(w);
    }
}

/* ---- writing ---- */

static uint32_t own_number(const struct segment_writer *w, size_t i)
{
    return w->o.wal.first_segment + w->o.wal.shard + (uint32_t) i * w->o.wal.shards;
}

/* Makes the file, unless a try before did. */
static int segment_create(struct segment_writer *w, const struct action *a)
{
    size_t segment_bytes =
        w->o.wal.segment_bytes ? w->o.wal.segment_bytes : WAL_SEGMENT_BYTES_DEFAULT;
    struct own_segment s = { .map_bytes = MAX_OF(segment_bytes, a->file.bytes), .unsynced = true };
    char name[32];

    if (w->n_own > 0 && a->file.at.segment == own_number(w, w->n_own - 1)) {
        return 0;
    }
    kumo_assert(a->file.at.segment == own_number(w, w->n_own));
    snprintf(name, sizeof(name), "%010" PRIu32 ".seg", a->file.at.segment);
    s.fd = openat(w->dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    if (s.fd < 0) {
        return -errno;
    }
    mem_grow(&w->own, &w->cap_own, w->n_own + 1, sizeof(*w->own));
    w->own[w->n_own++] = s;
    w->dir_unsynced = true;
    return 0;
}

/* Maps the newest segment, beyond its present end, once it holds something. */
static int segment_map(struct segment_writer *w)
{
    struct own_segment *s = &w->own[w->n_own - 1];
    void *p = mmap(NULL, s->map_bytes, PROT_READ, MAP_SHARED, s->fd, 0);

    if (p == MAP_FAILED) {
        return -errno;
    }
    s->map = p;
    (void) madvise(p, s->map_bytes, MADV_DONTDUMP);
    (void) madvise(p, s->map_bytes, MADV_RANDOM); /* see segment_set_replayed */
    return 0;
}

/* Writes from *done on, which a try before may have reached, and counts it on. */
static int segment_write(struct segment_writer *w, const struct action *a, size_t *done)
{
    struct own_segment *s = &w->own[w->n_own - 1];

    for (size_t i = w->n_own; a->file.at.segment != own_number(w, (size_t) (s - w->own)); i--) {
        kumo_assert(i > 0);
        s = &w->own[i - 1];
    }
    kumo_assert(a->file.at.offset + *done == s->bytes);
    s->unsynced = true;
    while (*done < a->file.bytes) {
        ssize_t n = pwrite(s->fd, a->file.data + *done, a->file.bytes - *done, (off_t) s->bytes);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        *done += n > 0 ? (size_t) n : 0;
        s->bytes += n > 0 ? (size_t) n : 0;
        w->bytes += n > 0 ? (size_t) n : 0;
    }
    kumo_assert(s->bytes <= s->map_bytes);
    return 0;
}

static void written(void *arg)
{
    struct segment_writer *w = arg;

    if (!w->closed) {
        w->o.on_written(w->o.ctx, w->written_group);
    }
}

static void sync_asked(struct segment_writer *w, uint64_t group)
{
    w->written_group = group;
    if (w->o.sync == SYNC_ALWAYS) {
        if (!w->busy) {
            job_begin(w);
        }
        return;
    }
    if (w->o.sync == SYNC_INTERVAL && !loop_timer_active(w->timer)) {
        loop_timer_start(w->timer, w->o.sync_interval_usec);
    }
    if (loop_post(w->o.loop, written, w) < 0) {
        fail(w, -ENOBUFS, "posting to the loop");
    }
}

/* As far as it comes; *what says what failed. */
static int carry_out(struct segment_writer *w, const struct action *a, size_t *done,
                     const char **what)
{
    int r = 0;

    if (a->kind == ACTION_SYNC) {
        sync_asked(w, a->group);
        return 0;
    }
    *what = "making a segment";
    if (a->kind == ACTION_CREATE) {
        r = segment_create(w, a);
    }
    if (r == 0) {
        *what = "writing the log";
        r = segment_write(w, a, done);
    }
    if (r == 0 && a->kind == ACTION_CREATE) {
        *what = "mapping a segment";
        r = segment_map(w);
    }
    return r;
}

/* ---- a full disk: what could not be written waits, in order ---- */

struct waiting {
    struct list link;
    struct action action;
    size_t done; /* written already */
    uint8_t data[];
};

static bool is_full(int error)
{
    return error == -ENOSPC || error == -EDQUOT;
}

static void backlog_add(struct segment_writer *w, const struct action *a, size_t done)
{
    size_t bytes = a->kind == ACTION_SYNC ? 0 : a->file.bytes;
    struct waiting *x = mem_alloc(sizeof(*x) + bytes);

    if (w->backlog_bytes + bytes > SEGMENT_BACKLOG_BYTES_MAX) {
        free(x);
        fail(w, -ENOSPC, "writing the log to a full disk");
        return;
    }
    x->action = *a;
    x->done = done;
    list_init(&x->link);
    if (bytes > 0) {
        memcpy(x->data, a->file.data, bytes);
        x->action.file.data = x->data;
    }
    w->backlog_bytes += bytes;
    list_push_back(&w->backlog, &x->link);
}

static void waiting_free(struct segment_writer *w, struct waiting *x)
{
    w->backlog_bytes -= x->action.kind == ACTION_SYNC ? 0 : x->action.file.bytes;
    list_remove(&x->link);
    free(x);
}

static void backlog_try(void *ctx)
{
    struct segment_writer *w = ctx;
    const char *what;

    while (!list_empty(&w->backlog) && !w->failed) {
        struct waiting *x = LIST_ENTRY(w->backlog.next, struct waiting, link);
        int r = carry_out(w, &x->action, &x->done, &what);
        if (is_full(r)) {
            loop_timer_start(w->full_timer, FULL_RETRY_USEC);
            return;
        }
        if (r < 0) {
            fail(w, r, what);
            return;
        }
        waiting_free(w, x);
    }
    if (!w->failed) {
        w->o.on_full(w->o.ctx, false);
        if (!w->busy && w->n_flushes > 0) {
            job_begin(w);
        }
    }
}

void segment_writer_act(struct segment_writer *w, const struct action *a)
{
    const char *what;
    size_t done = 0;
    int r;

    if (w->failed) {
        return;
    }
    if (!list_empty(&w->backlog)) {
        backlog_add(w, a, 0);
        return;
    }
    r = carry_out(w, a, &done, &what);
    if (is_full(r)) {
        backlog_add(w, a, done);
        loop_timer_start(w->full_timer, FULL_RETRY_USEC);
        w->o.on_full(w->o.ctx, true);
    } else if (r < 0) {
        fail(w, r, what);
    }
}

void segment_writer_flush(struct segment_writer *w, void (*fn)(void *ctx), void *ctx)
{
    kumo_assert(w->n_flushes < FLUSHES_MAX);
    w->flushes[w->n_flushes++] = (struct flush){ fn, ctx };
    if (!w->busy && !w->failed && list_empty(&w->backlog)) {
        job_begin(w);
    }
}

uint64_t segment_writer_bytes(const struct segment_writer *w)
{
    return w->bytes;
}

/* ---- reading ---- */

int segment_writer_get(const struct segment_writer *w, uint32_t number, struct wal_segment *ret)
{
    const struct wal_segment *s;

    *ret = (struct wal_segment){ .number = number };
    if (number < w->o.wal.first_segment) {
        s = segment_set_find(w->o.set, number);
        if (!s || !s->data) {
            return -ENOENT;
        }
        *ret = *s;
        return 0;
    }
    for (size_t i = 0; i + 1 < w->n_own; i++) { /* not the open one */
        if (own_number(w, i) == number && w->own[i].map) {
            ret->data = w->own[i].map;
            ret->bytes = ret->good_bytes = w->own[i].bytes;
            return segment_head_decode(ret->data, ret->bytes, &ret->head);
        }
    }
    return -ENOENT;
}

void segment_writer_prefetch(const struct segment_writer *w, struct position at, size_t bytes)
{
    size_t page = (size_t) sysconf(_SC_PAGESIZE);
    struct wal_segment s;
    size_t begin = at.offset / page * page;

    if (segment_writer_get(w, at.segment, &s) == 0 && begin < s.bytes) {
        (void) madvise((void *) (s.data + begin), MIN_OF(at.offset + bytes, s.bytes) - begin,
                       MADV_WILLNEED);
    }
}

void segment_writer_forget(struct segment_writer *w, uint32_t number)
{
    for (size_t i = 0; i + 1 < w->n_own; i++) {
        struct own_segment *s = &w->own[i];
        if (own_number(w, i) == number && s->map) {
            munmap(s->map, s->map_bytes);
            if (s->fd >= 0) {
                close(s->fd);
            }
            *s = (struct own_segment){ .fd = -1 };
        }
    }
}

/* Where a segment is mapped, and how many bytes of it are good. */
static int segment_find(const struct segment_writer *w, uint32_t number, const uint8_t **ret_data,
                        size_t *ret_bytes)
{
    if (number < w->o.wal.first_segment) {
        const struct wal_segment *s = segment_set_find(w->o.set, number);
        *ret_data = s ? s->data : NULL;
        *ret_bytes = s ? s->good_bytes : 0;
    } else {
        size_t i = (number - w->o.wal.first_segment) / w->o.wal.shards;
        bool is_own = i < w->n_own && own_number(w, i) == number;
        *ret_data = is_own ? w->own[i].map : NULL;
        *ret_bytes = is_own ? w->own[i].bytes : 0;
    }
    return *ret_data ? 0 : -ENOENT;
}

int segment_writer_read(void *ctx, struct position at, size_t bytes, const uint8_t **ret)
{
    const struct segment_writer *w = ctx;
    const uint8_t *data;
    size_t good;
    int r = segment_find(w, at.segment, &data, &good);

    if (r < 0 || at.offset + bytes > good) {
        return -ENOENT;
    }
    if (w->o.residency && !residency_is(w->o.residency, data, good, at.offset, bytes,
                                        clock_usec_of(CLOCK_MONOTONIC_COARSE))) {
        return -EAGAIN;
    }
    r = bus_touch(data + at.offset, bytes);
    *ret = r < 0 ? NULL : data + at.offset;
    return r;
}

/* ---- making and unmaking ---- */

int segment_writer_new(const struct segment_writer_options *o, struct segment_writer **ret)
{
    struct segment_writer *w = mem_zalloc(1, sizeof(*w));
    int r;

    w->o = *o;
    w->dir_fd = open(o->set->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (w->dir_fd < 0) {
        r = -errno;
        free(w);
        return r;
    }
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    list_init(&w->backlog);
    w->timer = loop_timer_new(o->loop, interval_over, w);
    w->full_timer = loop_timer_new(o->loop, backlog_try, w);
    r = -pthread_create(&w->thread, NULL, sync_thread, w);
    if (r == 0) {
        (void) pthread_setname_np(w->thread, "sync");
    }
    if (r < 0) {
        loop_timer_free(w->timer);
        loop_timer_free(w->full_timer);
        close(w->dir_fd);
        free(w);
        return r;
    }
    *ret = w;
    return 0;
}

struct segment_writer *segment_writer_free(struct segment_writer *w)
{
    if (!w) {
        return NULL;
    }
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    w->closed = true;
    loop_timer_free(w->timer);
    loop_timer_free(w->full_timer);
    while (!list_empty(&w->backlog)) { /* nobody was answered for it */
        waiting_free(w, LIST_ENTRY(w->backlog.next, struct waiting, link));
    }
    (void) loop_turn(w->o.loop, false); /* what was posted to it ends here */
    for (size_t i = 0; i < w->n_own; i++) {
        if (!w->own[i].map) {
            continue;
        }
        munmap(w->own[i].map, w->own[i].map_bytes);
        if (w->own[i].fd < 0) {
            continue;
        }
        if (!w->failed && fdatasync(w->own[i].fd) < 0) {
            log_error("the log could not be synced at the stop: %s", strerror(errno));
        }
        close(w->own[i].fd);
    }
    (void) fsync(w->dir_fd);
    close(w->dir_fd);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->wake);
    free(w->own);
    free(w);
    return NULL;
}
