/* What a move of a partition to another server costs its reader: all records, in the order of the
 * log, copied into messages. */
#include "bench/store_node.h"

#include "base/cleanup.h"
#include "base/mem.h"
#include "core/replica.h"

#include <stdlib.h>

#define MESSAGE_BYTES (256u << 10)

struct readout {
    struct index_record *v;
    size_t n;
    size_t cap;
};

static void collect(void *ctx, const uint8_t *key, size_t key_len, const struct index_record *rec)
{
    struct readout *r = ctx;

    (void) key;
    (void) key_len;
    mem_grow(&r->v, &r->cap, r->n + 1, sizeof(*r->v));
    r->v[r->n++] = *rec;
}

static int compare_positions(const void *a, const void *b)
{
    const struct index_record *x = a;
    const struct index_record *y = b;

    return position_compare(x->at, y->at);
}

static void partition_read(struct client_load *l, const struct replica *r, struct buf *message)
{
    struct readout all = { 0 };

    r->index->ops->walk(r->index, collect, &all);
    if (all.n > 0) {
        qsort(all.v, all.n, sizeof(*all.v), compare_positions);
    }
    for (size_t i = 0; i < all.n; i++) {
        const uint8_t *p;
        struct entry e;
        if (segment_writer_read(l->thread->writer, all.v[i].at, all.v[i].bytes, &p) < 0 ||
            entry_decode(p, all.v[i].bytes, &e) < 0) {
            bench_fail("a record can't be read");
        }
        buf_append(message, p, all.v[i].bytes);
        if (buf_len(message) >= MESSAGE_BYTES) {
            buf_clear(message);
        }
        l->user_bytes += e.key_len + e.value_len;
        l->ops++;
    }
    free(all.v);
}

void readout_turn(struct client_load *l)
{
    const struct wal_options *log = &l->thread->o.shard.log;
    _cleanup_(buf_free) struct buf message = { 0 };

    for (uint32_t p = log->shard; p < log->partitions; p += log->shards) {
        partition_read(l, shard_replica(l->thread->shard, p), &message);
    }
    l->turn = NULL;
    node_load_done();
}
