/* Records of an opened data directory: what its indexes point at. */
#include "base/cleanup.h"
#include "core/replica.h"
#include "io/clock.h"
#include "io/datadir_private.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

const struct wal_segment *datadir_segment(const struct datadir *d, uint32_t number)
{
    return segment_set_find(&d->segments, number);
}

static const uint8_t *log_read(const struct datadir *d, struct position at, size_t bytes)
{
    const struct wal_segment *s = datadir_segment(d, at.segment);

    return s && s->data && at.offset + (uint64_t) bytes <= s->good_bytes ? s->data + at.offset
                                                                         : NULL;
}

int datadir_read(const struct datadir *d, uint16_t partition, const uint8_t *key, size_t key_len,
                 const struct index_record *rec, struct entry *ret, struct io_error *error)
{
    const uint8_t *p = log_read(d, rec->at, rec->bytes);
    const char *what = NULL;

    if (!p) {
        what = "lies in no segment that is there";
    } else if (entry_decode(p, rec->bytes, ret) < 0) {
        what = "is damaged";
    } else if (ret->partition != partition || ret->key_len != key_len ||
               memcmp(ret->key, key, key_len) != 0 || ret->name.seq != rec->seq ||
               ret->kind != rec->kind) {
        what = "is another one";
    }
    if (what) {
        return io_error_set(error, -EBADMSG,
                            "%s/%010" PRIu32 ".seg: the record at byte %" PRIu32
                            " of partition %u, key '%.*s', seq %" PRIu64 ", %s",
                            d->segments.dir, rec->at.segment, rec->at.offset, partition,
                            (int) key_len, (const char *) key, rec->seq, what);
    }
    return 0;
}

struct index_walk {
    datadir_index_fn fn;
    void *ctx;
    int r;
};

static void index_record_given(void *ctx, const uint8_t *key, size_t key_len,
                               const struct index_record *rec)
{
    struct index_walk *w = ctx;

    if (w->r >= 0) {
        w->r = w->fn(w->ctx, key, key_len, rec);
    }
}

int datadir_index_walk(struct datadir *d, uint16_t partition, datadir_index_fn fn, void *ctx)
{
    struct index_walk w = { .fn = fn, .ctx = ctx };
    struct index *x = d->indexes[partition];

    x->ops->walk(x, index_record_given, &w);
    return w.r;
}

struct record_walk {
    struct datadir *d;
    const struct replica *replica;
    uint64_t now_usec;
    datadir_record_fn fn;
    void *ctx;
    struct io_error *error;
};

static int record_given(void *ctx, const uint8_t *key, size_t key_len,
                        const struct index_record *rec)
{
    const struct record_walk *w = ctx;
    struct entry e;
    int r;

    if (rec->kind != ENTRY_SET) {
        return 0;
    }
    r = datadir_read(w->d, w->replica->partition, key, key_len, rec, &e, w->error);
    if (r < 0 || flush_covers(&w->replica->flush, e.name.seq, e.time_usec, w->now_usec)) {
        return r;
    }
    return w->fn(w->ctx, &e);
}

int datadir_walk(struct datadir *d, datadir_record_fn fn, void *ctx, struct io_error *error)
{
    int r = 0;

    for (uint32_t p = 0; r >= 0 && p < d->superblock.partitions; p++) {
        const struct replica *replica = shard_replica(d->shard, p);
        struct record_walk w = { .d = d,
                                 .replica = replica,
                                 .now_usec = MAX_OF(replica->time_usec, clock_real_usec()),
                                 .fn = fn,
                                 .ctx = ctx,
                                 .error = error };
        r = datadir_index_walk(d, (uint16_t) p, record_given, &w);
    }
    return r < 0 ? r : 0;
}
