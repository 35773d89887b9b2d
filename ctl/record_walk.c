#include "record_walk.h"

#include "core/operation.h"
#include "io/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool record_source_is_backup(const char *dir)
{
    char path[PATH_MAX];

    return snprintf(path, sizeof(path), "%s/" BACKUP_INFO_NAME, dir) < (int) sizeof(path) &&
           access(path, F_OK) == 0;
}

int record_source_open(const char *dir, struct datadir **ret, struct io_error *error)
{
    char path[PATH_MAX];

    if (!realpath(dir, path)) {
        return io_error_set(error, -errno, "%s can't be opened: %s", dir, strerror(errno));
    }
    return datadir_open(path, record_source_is_backup(path) ? DATADIR_NO_LOCK : 0, ret, error);
}

static int on_record(void *ctx, const struct entry *e)
{
    struct record_walk *w = ctx;
    int r;

    if (w->partitions && !w->partitions[e->partition]) {
        return 0;
    }
    if (expiry_is_over(e->expiry_sec, w->now_usec)) {
        w->expired++;
        return 0;
    }
    if (*w->interrupted) {
        return io_error_set(w->error, -EINTR, "interrupted");
    }
    r = (w->check_only ? w->sink->ops->check : w->sink->ops->put)(w->sink, e, w->error);
    if (r == 0) {
        record_progress_show(&w->progress, ++w->records);
    }
    return r;
}

int record_walk_run(struct record_walk *w, struct datadir *d, struct io_error *error)
{
    int r;

    w->records = w->expired = 0;
    w->now_usec = clock_real_usec();
    w->progress = (struct record_progress){ .what = "records" };
    w->error = error;
    r = datadir_walk(d, on_record, w, error);
    if (r == 0 && !w->check_only) {
        r = w->sink->ops->finish(w->sink, error);
    }
    record_progress_end(&w->progress);
    return r;
}
