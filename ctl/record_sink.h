/* Where records go: a file, a data directory, or a gateway. */
#pragma once

#include "io/datadir.h"

#include <limits.h>

struct record_sink;

struct record_sink_ops {
    /* Could this record go there? Changes nothing; a sentence why not. NULL: a file, any can. */
    int (*check)(struct record_sink *s, const struct entry *e, struct io_error *error);
    /* Takes a record; it counts as done later, at the latest when finish returns 0. */
    int (*put)(struct record_sink *s, const struct entry *e, struct io_error *error);
    int (*finish)(struct record_sink *s, struct io_error *error);
    void (*free)(struct record_sink *s);
};

struct record_sink {
    const struct record_sink_ops *ops;
    uint64_t done; /* so many records, the first ones, are there for certain */
};

/* NULL is fine; returns NULL. */
static inline struct record_sink *record_sink_free(struct record_sink *s)
{
    if (s) {
        s->ops->free(s);
    }
    return NULL;
}

/* A file of lines of JSON, or of Tokyo Cabinet (keys and values only). It has its name only when
 * finish has returned 0, durable; `path` NULL: the standard output (JSON only). `d`: where the
 * records come from, for the header. */
int record_sink_json(const struct datadir *d, const char *path, struct record_sink **ret,
                     struct io_error *error);
int record_sink_tch(const char *path, uint64_t records, struct record_sink **ret,
                    struct io_error *error);

/* ---- for the two above: a file is written beside its place, under another name ---- */

int record_temporary(const char *path, char out[PATH_MAX], struct io_error *error);
/* Makes it durable and gives it its name. */
int record_publish(const char *temporary, const char *path, struct io_error *error);

/* In hexadecimal. */
void record_uuid_format(const uint8_t uuid[UUID_BYTES], char out[2 * UUID_BYTES + 1]);
