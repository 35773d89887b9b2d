/* What a move of a partition to another server costs its source: all records, in the order of the
 * log, checked and copied into messages (core/catchup.h). */
#include "bench/store_node.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "core/catchup.h"

#include <errno.h>

#define MESSAGE_BYTES (256u << 10)

static void partition_read(struct client_load *l, uint16_t partition)
{
    const struct catchup_ask nothing = { 0 };
    _cleanup_(buf_free) struct buf message = { 0 };
    struct catchup_source *source;
    struct position at;
    size_t bytes;
    int r;

    if (catchup_source_begin(l->thread->shard, partition, &nothing, &message, &source) < 0) {
        bench_fail("a partition can't be a source");
    }
    do {
        buf_clear(&message);
        r = catchup_source_next(source, NULL, MESSAGE_BYTES, &message, &at, &bytes);
        l->user_bytes += buf_len(&message);
    } while (r > 0);
    if (r < 0) {
        bench_fail("a record can't be read, or is not in memory");
    }
    catchup_source_free(source);
}

void readout_turn(struct client_load *l)
{
    const struct wal_options *log = &l->thread->o.shard.log;
    struct shard_counts c;

    shard_count(l->thread->shard, &c);
    for (uint32_t p = log->shard; p < log->partitions; p += log->shards) {
        partition_read(l, (uint16_t) p);
    }
    l->ops += c.records;
    l->turn = NULL;
    node_load_done();
}
