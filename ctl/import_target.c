#include "import_target.h"

#include "base/mem.h"
#include "io/datadir_writer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct dir_sink {
    struct record_sink sink;
    struct datadir_writer *writer;
};

static int dir_check(struct record_sink *sink, const struct entry *e, struct io_error *error)
{
    return datadir_writer_check(((struct dir_sink *) sink)->writer, e, error);
}

static int dir_put(struct record_sink *sink, const struct entry *e, struct io_error *error)
{
    struct dir_sink *s = (struct dir_sink *) sink;
    int r = datadir_writer_put(s->writer, e, error);

    sink->done = datadir_writer_done(s->writer);
    return r;
}

static int dir_finish(struct record_sink *sink, struct io_error *error)
{
    struct dir_sink *s = (struct dir_sink *) sink;
    int r = datadir_writer_flush(s->writer, error);

    sink->done = datadir_writer_done(s->writer);
    return r;
}

static void dir_free(struct record_sink *sink)
{
    datadir_writer_free(((struct dir_sink *) sink)->writer);
    free(sink);
}

static const struct record_sink_ops dir_ops = {
    .check = dir_check, .put = dir_put, .finish = dir_finish, .free = dir_free
};

int import_dir_open(const char *dir, struct record_sink **ret, struct io_error *error)
{
    struct dir_sink *s = mem_zalloc(1, sizeof(*s));
    char path[PATH_MAX];
    int r = realpath(dir, path)
                ? 0
                : io_error_set(error, -errno, "%s can't be opened: %s", dir, strerror(errno));

    s->sink.ops = &dir_ops;
    if (r == 0) {
        r = datadir_writer_open(path, &s->writer, error);
    }
    if (r < 0) {
        free(s);
        return r;
    }
    *ret = &s->sink;
    return 0;
}

static bool is_dir(const char *target)
{
    struct stat st;

    return strchr(target, '/') || !strchr(target, ':') || stat(target, &st) == 0;
}

struct record_sink *import_target_open(const struct ctl *ctl, const char *target)
{
    struct record_sink *s = NULL;
    struct io_error error = { "" };
    int r = is_dir(target) ? import_dir_open(target, &s, &error)
                           : import_gateway_open(target, ctl->settings->timeout, &s, &error);

    if (r < 0) {
        verb_error(ctl, "%s", error.text);
    }
    return s;
}
