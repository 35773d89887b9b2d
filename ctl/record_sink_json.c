/* Records as lines of JSON. */
#include "base/mem.h"
#include "record_json.h"
#include "record_sink.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct json_sink {
    struct record_sink sink;
    FILE *out;
    const char *path; /* NULL: the standard output */
    char temporary[PATH_MAX];
};

static int write_failed(const struct json_sink *s, struct io_error *error)
{
    return io_error_set(error, -EIO, "%s can't be written: %s",
                        s->path ? s->temporary : "the standard output", strerror(errno));
}

static int json_put(struct record_sink *sink, const struct entry *e, struct io_error *error)
{
    struct json_sink *s = (struct json_sink *) sink;

    if (!record_line_put(s->out, e)) {
        return write_failed(s, error);
    }
    sink->done++;
    return 0;
}

static int json_finish(struct record_sink *sink, struct io_error *error)
{
    struct json_sink *s = (struct json_sink *) sink;

    if (!record_trailer_put(s->out, sink->done) || fflush(s->out) == EOF) {
        return write_failed(s, error);
    }
    return s->path ? record_publish(s->temporary, s->path, error) : 0;
}

static void json_free(struct record_sink *sink)
{
    struct json_sink *s = (struct json_sink *) sink;

    if (s->path) {
        (void) fclose(s->out);
        (void) unlink(s->temporary); /* gone already, unless it failed */
    }
    free(s);
}

static const struct record_sink_ops json_ops = { .put = json_put,
                                                 .finish = json_finish,
                                                 .free = json_free };

int record_sink_json(const struct datadir *d, const char *path, struct record_sink **ret,
                     struct io_error *error)
{
    const struct superblock *b = datadir_superblock(d);
    char server_id[2 * UUID_BYTES + 1];
    char cluster_id[2 * UUID_BYTES + 1];
    struct record_origin origin = { .server = b->server,
                                    .partitions = b->partitions,
                                    .server_id = server_id,
                                    .cluster_id = cluster_id,
                                    .exported_sec = (uint64_t) time(NULL) };
    struct json_sink *s = mem_zalloc(1, sizeof(*s));

    s->sink.ops = &json_ops;
    s->out = stdout;
    if (path && (record_temporary(path, s->temporary, error) < 0 ||
                 !(s->out = fopen(s->temporary, "we")))) {
        int r = s->temporary[0] ? write_failed(s, error) : -ENAMETOOLONG;
        free(s);
        return r;
    }
    s->path = path;
    record_uuid_format(b->server_id, server_id);
    record_uuid_format(b->cluster_id, cluster_id);
    if (!record_header_put(s->out, &origin)) {
        int r = write_failed(s, error);
        json_free(&s->sink);
        return r;
    }
    *ret = &s->sink;
    return 0;
}
