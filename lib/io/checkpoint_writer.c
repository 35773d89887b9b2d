#include "base/cleanup.h"
#include "base/list.h"
#include "base/mem.h"
#include "io/checkpoint_names.h"
#include "io/checkpoints.h"
#include "io/files.h"
#include "io/log.h"
#include "io/loop.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum job_kind { JOB_APPEND, JOB_SYNC, JOB_PUBLISH, JOB_DISCARD, JOB_CALL };

struct job {
    struct list link;
    enum job_kind kind;
    uint64_t generation;
    uint64_t keep; /* JOB_PUBLISH: the other generation that stays */
    uint32_t shard;
    uint8_t *bytes;
    size_t n;
    int (*call)(void *arg); /* JOB_CALL */
    void *arg;
    struct loop *loop;
    checkpoint_done_fn done;
    void *ctx;
    int status;
};

/* The file that a shard is writing. */
struct open_file {
    uint64_t generation; /* 0: none is open */
    int fd;
};

struct checkpoint_writer {
    char dir[4096];
    struct open_file files[SHARDS_MAX]; /* of the thread only */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct list jobs; /* one a shard, and one of the main thread: bounded by who asks */
    bool stopping;
};

/* ---- on the thread ---- */

static void file_close(struct open_file *f)
{
    if (f->generation != 0) {
        close(f->fd);
        f->generation = 0;
    }
}

static int file_open(struct checkpoint_writer *w, const struct job *j)
{
    struct open_file *f = &w->files[j->shard];
    char path[PATH_MAX];

    if (f->generation == j->generation) {
        return 0;
    }
    file_close(f);
    checkpoint_path(w->dir, j->generation, j->shard, path);
    f->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (f->fd < 0) {
        return -errno;
    }
    f->generation = j->generation;
    return 0;
}

/* Removes what belongs to no kept generation: older ones, damaged ones, and what a crash left half
 * written. */
static void generations_clean(const struct checkpoint_writer *w, uint64_t newest, uint64_t keep)
{
    DIR *d = opendir(w->dir);
    struct dirent *e;
    bool manifest;

    while (d && (e = readdir(d))) {
        uint64_t generation = checkpoint_name_generation(e->d_name, &manifest);
        if (generation > 0 && generation != newest && generation != keep) {
            (void) unlinkat(dirfd(d), e->d_name, 0);
        }
    }
    if (d) {
        closedir(d);
    }
}

/* Removes what was written of a generation that failed, so that a full disk doesn't fill further.
 */
static int discard(struct checkpoint_writer *w, const struct job *j)
{
    DIR *d = opendir(w->dir);
    struct dirent *e;
    bool manifest;

    for (size_t i = 0; i < SHARDS_MAX; i++) {
        if (w->files[i].generation == j->generation) {
            file_close(&w->files[i]);
        }
    }
    while (d && (e = readdir(d))) {
        if (checkpoint_name_generation(e->d_name, &manifest) == j->generation) {
            (void) unlinkat(dirfd(d), e->d_name, 0);
        }
    }
    if (d) {
        closedir(d);
    }
    return 0;
}

/* The rename makes it count: everything that it names is durable. */
static int publish(struct checkpoint_writer *w, const struct job *j)
{
    char path[PATH_MAX];
    char temporary[PATH_MAX];
    int fd;
    int r;

    manifest_path(w->dir, j->generation, path);
    (void) snprintf(temporary, sizeof(temporary), "%.4080s.new", path);
    fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (fd < 0) {
        return -errno;
    }
    r = files_write_all(fd, j->bytes, j->n);
    if (r == 0 && fsync(fd) < 0) {
        r = -errno;
    }
    close(fd);
    if (r == 0) {
        r = files_sync(w->dir); /* the checkpoint files' names */
    }
    if (r == 0 && rename(temporary, path) < 0) {
        r = -errno;
    }
    if (r == 0) {
        r = files_sync(w->dir);
    }
    if (r == 0) {
        generations_clean(w, j->generation, j->keep);
    }
    return r;
}

static int job_do(struct checkpoint_writer *w, const struct job *j)
{
    struct open_file *f = &w->files[j->shard];
    int r;

    if (j->kind == JOB_PUBLISH) {
        return publish(w, j);
    }
    if (j->kind == JOB_DISCARD) {
        return discard(w, j);
    }
    if (j->kind == JOB_CALL) {
        return j->call(j->arg);
    }
    r = file_open(w, j);
    if (r < 0) {
        return r;
    }
    if (j->kind == JOB_APPEND) {
        return files_write_all(f->fd, j->bytes, j->n);
    }
    r = fsync(f->fd) < 0 ? -errno : 0;
    file_close(f);
    return r;
}

/* On the asker's loop. */
static void job_end(void *arg)
{
    struct job *j = arg;

    j->done(j->ctx, j->status);
    free(j);
}

static void *writer_thread(void *arg)
{
    struct checkpoint_writer *w = arg;

    pthread_mutex_lock(&w->lock);
    while (!w->stopping || !list_empty(&w->jobs)) {
        struct job *j;
        if (list_empty(&w->jobs)) {
            pthread_cond_wait(&w->wake, &w->lock);
            continue;
        }
        j = LIST_ENTRY(w->jobs.next, struct job, link);
        list_remove(&j->link);
        pthread_mutex_unlock(&w->lock);
        j->status = job_do(w, j);
        free(j->bytes);
        if (loop_post(j->loop, job_end, j) < 0) {
            log_error("a loop's mailbox is full: a checkpoint stops");
            free(j);
        }
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* ---- for the others ---- */

static void job_add(struct checkpoint_writer *w, struct job job)
{
    struct job *j = mem_alloc(sizeof(*j));

    *j = job;
    pthread_mutex_lock(&w->lock);
    list_push_back(&w->jobs, &j->link);
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

void checkpoint_writer_append(struct checkpoint_writer *w, uint64_t generation, uint32_t shard,
                              uint8_t *bytes, size_t n, struct loop *loop, checkpoint_done_fn done,
                              void *ctx)
{
    job_add(w, (struct job){ .kind = JOB_APPEND,
                             .generation = generation,
                             .shard = shard,
                             .bytes = bytes,
                             .n = n,
                             .loop = loop,
                             .done = done,
                             .ctx = ctx });
}

void checkpoint_writer_sync(struct checkpoint_writer *w, uint64_t generation, uint32_t shard,
                            struct loop *loop, checkpoint_done_fn done, void *ctx)
{
    job_add(w, (struct job){ .kind = JOB_SYNC,
                             .generation = generation,
                             .shard = shard,
                             .loop = loop,
                             .done = done,
                             .ctx = ctx });
}

void checkpoint_writer_publish(struct checkpoint_writer *w, uint64_t generation, uint64_t keep,
                               uint8_t *bytes, size_t n, struct loop *loop, checkpoint_done_fn done,
                               void *ctx)
{
    job_add(w, (struct job){ .kind = JOB_PUBLISH,
                             .generation = generation,
                             .keep = keep,
                             .bytes = bytes,
                             .n = n,
                             .loop = loop,
                             .done = done,
                             .ctx = ctx });
}

void checkpoint_writer_discard(struct checkpoint_writer *w, uint64_t generation, struct loop *loop,
                               checkpoint_done_fn done, void *ctx)
{
    job_add(w, (struct job){ .kind = JOB_DISCARD,
                             .generation = generation,
                             .loop = loop,
                             .done = done,
                             .ctx = ctx });
}

void checkpoint_writer_call(struct checkpoint_writer *w, int (*fn)(void *arg), void *arg,
                            struct loop *loop, checkpoint_done_fn done, void *ctx)
{
    job_add(w,
            (struct job){
                .kind = JOB_CALL, .call = fn, .arg = arg, .loop = loop, .done = done, .ctx = ctx });
}

int checkpoint_writer_new(const char *data_dir, struct checkpoint_writer **ret)
{
    struct checkpoint_writer *w = mem_zalloc(1, sizeof(*w));
    int r;

    (void) snprintf(w->dir, sizeof(w->dir), "%.4000s/checkpoint", data_dir);
    list_init(&w->jobs);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    r = -pthread_create(&w->thread, NULL, writer_thread, w);
    if (r == 0) {
        (void) pthread_setname_np(w->thread, "checkpoint");
    }
    if (r < 0) {
        free(w);
        return r;
    }
    *ret = w;
    return 0;
}

struct checkpoint_writer *checkpoint_writer_free(struct checkpoint_writer *w)
{
    if (!w) {
        return NULL;
    }
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    for (size_t i = 0; i < SHARDS_MAX; i++) {
        file_close(&w->files[i]);
    }
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->wake);
    free(w);
    return NULL;
}
