#include "backup_validate.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

struct validation {
    struct datadir *d;
    uint16_t partition;
    uint64_t records;
    struct io_error *error;
};

static bool is_there(const struct segment_set *set, const struct index_record *rec)
{
    size_t lo = 0;
    size_t hi = set->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (set->v[mid].number < rec->at.segment) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < set->n && set->v[lo].number == rec->at.segment &&
           rec->at.offset + (uint64_t) rec->bytes <= set->v[lo].good_bytes;
}

struct search {
    const uint8_t *key;
    size_t key_len;
    bool found;
};

static void on_tail_entry(void *ctx, const struct entry *e, bool durable)
{
    struct search *s = ctx;

    (void) durable;
    s->found |= e->key_len == s->key_len && memcmp(e->key, s->key, s->key_len) == 0;
}

/* A record that was written again may be compacted away before the log says that the newer one,
 * which stands in the tail, is committed. */
static bool is_replaced(struct validation *v, const uint8_t *key, size_t key_len)
{
    struct search s = { .key = key, .key_len = key_len };

    shard_tail_walk(datadir_shard(v->d), v->partition, on_tail_entry, &s);
    return s.found;
}

static int on_record(void *ctx, const uint8_t *key, size_t key_len, const struct index_record *rec)
{
    struct validation *v = ctx;

    if (rec->kind != ENTRY_SET) {
        return 0;
    }
    v->records++;
    if (!is_there(datadir_segments(v->d), rec) && !is_replaced(v, key, key_len)) {
        return io_error_set(v->error, -EBADMSG,
                            "%s lacks a record of partition %u, in segment %" PRIu32
                            ": the data directory is damaged (see kumo-server --check), or this "
                            "is an error of kumoctl",
                            datadir_path(v->d), v->partition, rec->at.segment);
    }
    return 0;
}

int backup_validate(const char *dir, uint64_t *ret_records, uint64_t *ret_generation,
                    struct io_error *error)
{
    struct validation v = { .error = error };
    int r = datadir_open(dir, DATADIR_NO_LOCK, &v.d, error);

    if (r < 0) {
        return r;
    }
    for (uint32_t p = 0; r == 0 && p < datadir_superblock(v.d)->partitions; p++) {
        v.partition = (uint16_t) p;
        r = datadir_index_walk(v.d, v.partition, on_record, &v);
    }
    *ret_records = v.records;
    *ret_generation = datadir_manifest(v.d) ? datadir_manifest(v.d)->generation : 0;
    datadir_free(v.d);
    return r;
}
