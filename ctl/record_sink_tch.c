/* Records as a hash database of Tokyo Cabinet: key and value, and nothing else. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "record_sink.h"

#include <errno.h>
#include <stdlib.h>
#include <tchdb.h>
#include <unistd.h>

#define BUCKETS_MIN 131071 /* Tokyo Cabinet's own default */

struct tch_sink {
    struct record_sink sink;
    TCHDB *db;
    const char *path;
    char temporary[PATH_MAX];
};

static int tch_failed(const struct tch_sink *s, struct io_error *error)
{
    return io_error_set(error, -EIO, "%s can't be written: Tokyo Cabinet says: %s", s->temporary,
                        tchdberrmsg(tchdbecode(s->db)));
}

static int tch_put(struct record_sink *sink, const struct entry *e, struct io_error *error)
{
    struct tch_sink *s = (struct tch_sink *) sink;

    if (!tchdbput(s->db, e->key, e->key_len, e->value ? e->value : (const uint8_t *) "",
                  (int) e->value_len)) {
        return tch_failed(s, error);
    }
    sink->done++;
    return 0;
}

static int tch_finish(struct record_sink *sink, struct io_error *error)
{
    struct tch_sink *s = (struct tch_sink *) sink;

    if (!tchdbclose(s->db)) {
        return tch_failed(s, error);
    }
    return record_publish(s->temporary, s->path, error);
}

static void tch_free(struct record_sink *sink)
{
    struct tch_sink *s = (struct tch_sink *) sink;

    tchdbdel(s->db);
    (void) unlink(s->temporary); /* gone already, unless it failed */
    free(s);
}

static const struct record_sink_ops tch_ops = { .put = tch_put,
                                                .finish = tch_finish,
                                                .free = tch_free };

int record_sink_tch(const char *path, uint64_t records, struct record_sink **ret,
                    struct io_error *error)
{
    struct tch_sink *s = mem_zalloc(1, sizeof(*s));
    int r = record_temporary(path, s->temporary, error);

    if (r < 0) {
        free(s);
        return r;
    }
    s->sink.ops = &tch_ops;
    s->path = path;
    s->db = tchdbnew();
    /* HDBTLARGE: else records beyond 2 GiB vanish without an error. */
    if (!tchdbtune(s->db, (int64_t) MAX_OF(2 * records, BUCKETS_MIN), -1, -1, HDBTLARGE) ||
        !tchdbopen(s->db, s->temporary, HDBOWRITER | HDBOCREAT | HDBOTRUNC)) {
        r = tch_failed(s, error);
        tch_free(&s->sink);
        return r;
    }
    *ret = &s->sink;
    return 0;
}
