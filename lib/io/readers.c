#include "io/readers.h"

#include "base/assert.h"
#include "base/list.h"
#include "base/mem.h"
#include "io/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct readers {
    pthread_t threads[READERS_THREADS_MAX];
    unsigned n_threads;
    pthread_mutex_t lock;
    pthread_cond_t wake; /* a read waits, or it is time to stop */
    pthread_cond_t idle; /* a thread has done with a read */
    struct list queue;   /* struct read, oldest first */
    unsigned asked;      /* not handed over yet */
    uint64_t asked_bytes;
    bool stopping;
};

struct reader {
    struct reader_options o;
    bool freed; /* by its owner: what is posted frees the rest */

    /* under the pool's lock */
    struct list done; /* struct read, waiting to be handed over */
    bool posted;      /* hand_over is in the loop's mailbox, or about to be */
    bool closing;
    unsigned reading; /* in the threads' hands */
};

struct read {
    struct list link;
    struct reader *reader;
    uint64_t number;
    struct position at;
    size_t bytes;
    uint8_t *data;
    int error;
};

/* ---- in the threads ---- */

static int read_all(int fd, uint8_t *data, size_t bytes, off_t offset)
{
    size_t done = 0;

    while (done < bytes) {
        ssize_t n = pread(fd, data + done, bytes - done, offset + (off_t) done);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        if (n == 0) {
            return -EIO;
        }
        done += n > 0 ? (size_t) n : 0;
    }
    return 0;
}

static int read_file(struct read *x)
{
    char name[32];
    int fd;
    int r;

    x->data = malloc(x->bytes);
    if (!x->data) {
        return -ENOMEM;
    }
    snprintf(name, sizeof(name), "%010" PRIu32 ".seg", x->at.segment);
    fd = openat(x->reader->o.dir_fd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    r = read_all(fd, x->data, x->bytes, x->at.offset);
    close(fd);
    return r;
}

static void hand_over(void *arg);

/* False: it can't be, and the reader is being closed. */
static bool post(struct readers *pool, struct reader *r)
{
    bool closing = false;

    while (!closing && loop_post(r->o.loop, hand_over, r) < 0) {
        usleep(1000); /* the loop has LOOP_MAILBOX_MAX other things to do first */
        pthread_mutex_lock(&pool->lock);
        closing = r->closing;
        pthread_mutex_unlock(&pool->lock);
    }
    return !closing;
}

/* Called and returns with the lock. */
static void read_next(struct readers *pool)
{
    struct read *x = LIST_ENTRY(pool->queue.next, struct read, link);
    struct reader *r = x->reader;
    bool ok;

    list_remove(&x->link);
    r->reading++;
    pthread_mutex_unlock(&pool->lock);
    x->error = read_file(x);
    pthread_mutex_lock(&pool->lock);
    list_push_back(&r->done, &x->link);
    if (!r->posted) {
        r->posted = true;
        pthread_mutex_unlock(&pool->lock);
        ok = post(pool, r);
        pthread_mutex_lock(&pool->lock);
        r->posted &= ok;
    }
    r->reading--;
    pthread_cond_broadcast(&pool->idle);
}

static void *reads(void *arg)
{
    struct readers *pool = arg;

    pthread_mutex_lock(&pool->lock);
    while (!pool->stopping) {
        if (list_empty(&pool->queue)) {
            pthread_cond_wait(&pool->wake, &pool->lock);
        } else {
            read_next(pool);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* ---- on the loops ---- */

static void read_free(struct read *x)
{
    list_remove(&x->link);
    free(x->data);
    free(x);
}

/* Takes the reader's out of a list, with the lock: they count as asked no more. */
static void take(struct readers *pool, const struct reader *r, struct list *from, struct list *to)
{
    LIST_FOR_EACH_SAFE(link, from)
    {
        struct read *x = LIST_ENTRY(link, struct read, link);
        if (x->reader == r) {
            list_remove(link);
            list_push_back(to, link);
            pool->asked--;
            pool->asked_bytes -= x->bytes;
        }
    }
}

static void hand_over(void *arg)
{
    struct reader *r = arg;
    struct list done;

    if (r->freed) {
        free(r);
        return;
    }
    list_init(&done);
    pthread_mutex_lock(&r->o.pool->lock);
    take(r->o.pool, r, &r->done, &done);
    r->posted = false;
    pthread_mutex_unlock(&r->o.pool->lock);
    LIST_FOR_EACH_SAFE(link, &done)
    {
        struct read *x = LIST_ENTRY(link, struct read, link);
        r->o.on_read(r->o.ctx, x->number, x->error, x->data, x->error < 0 ? 0 : x->bytes);
        read_free(x);
    }
}

int reader_ask(struct reader *r, uint64_t number, struct position at, size_t bytes)
{
    struct readers *pool = r->o.pool;
    struct read *x;
    bool full;

    kumo_assert(bytes > 0);
    pthread_mutex_lock(&pool->lock);
    full = pool->asked >= READERS_ASKED_MAX ||
           (pool->asked > 0 && pool->asked_bytes + bytes > READERS_BYTES_MAX);
    if (!full) {
        x = mem_zalloc(1, sizeof(*x));
        x->reader = r;
        x->number = number;
        x->at = at;
        x->bytes = bytes;
        list_push_back(&pool->queue, &x->link);
        pool->asked++;
        pool->asked_bytes += bytes;
        pthread_cond_signal(&pool->wake);
    }
    pthread_mutex_unlock(&pool->lock);
    return full ? -ENOBUFS : 0;
}

/* ---- making and unmaking ---- */

struct reader *reader_new(const struct reader_options *o)
{
    struct reader *r = mem_zalloc(1, sizeof(*r));

    r->o = *o;
    list_init(&r->done);
    return r;
}

struct reader *reader_free(struct reader *r)
{
    struct readers *pool;
    struct list unwanted;

    if (!r) {
        return NULL;
    }
    pool = r->o.pool;
    list_init(&unwanted);
    pthread_mutex_lock(&pool->lock);
    r->closing = true;
    take(pool, r, &pool->queue, &unwanted);
    while (r->reading > 0) {
        pthread_cond_wait(&pool->idle, &pool->lock);
    }
    take(pool, r, &r->done, &unwanted);
    r->freed = r->posted;
    pthread_mutex_unlock(&pool->lock);
    LIST_FOR_EACH_SAFE(link, &unwanted)
    {
        read_free(LIST_ENTRY(link, struct read, link));
    }
    if (!r->freed) {
        free(r);
    }
    return NULL;
}

int readers_new(unsigned threads, struct readers **ret)
{
    struct readers *pool = mem_zalloc(1, sizeof(*pool));
    int r = 0;

    kumo_assert(threads > 0 && threads <= READERS_THREADS_MAX);
    list_init(&pool->queue);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->idle, NULL);
    while (pool->n_threads < threads && r == 0) {
        r = -pthread_create(&pool->threads[pool->n_threads], NULL, reads, pool);
        if (r == 0) {
            (void) pthread_setname_np(pool->threads[pool->n_threads], "reader");
        }
        pool->n_threads += r == 0;
    }
    if (r < 0) {
        readers_free(pool);
        return r;
    }
    *ret = pool;
    return 0;
}

struct readers *readers_free(struct readers *pool)
{
    if (!pool) {
        return NULL;
    }
    pthread_mutex_lock(&pool->lock);
    kumo_assert(list_empty(&pool->queue));
    pool->stopping = true;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->n_threads; i++) {
        pthread_join(pool->threads[i], NULL);
    }
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->wake);
    pthread_cond_destroy(&pool->idle);
    free(pool);
    return NULL;
}
