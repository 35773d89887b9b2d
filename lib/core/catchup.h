/* Catch-up (R17): a copy that was away, or is new, gets what changed. The source is a complete copy
 * with the newest commit; it walks its index once and sends, in the order of its log, the records
 * above what the sink holds (n). The sink takes the stream of prepares from the source's commit (m)
 * on at once, and is incomplete, durably, until all is there. Traffic is in proportion to the keys
 * that changed; when the source has forgotten deletes above n (its horizon), it names every live
 * key as well. Whoever runs both sides carries the bytes between them. Pure. */
#pragma once

#include "core/shard.h"

struct buf;

/* What a sink holds: sent to the source. */
struct catchup_ask {
    struct name base; /* n: everything up to it is here */
    struct name
        applied; /* highest that was applied: n, or above it after a catch-up that broke off */
};
/* -ENOENT: not a partition of this shard. */
int catchup_ask(const struct shard *s, uint16_t partition, struct catchup_ask *ret);

/* ---- source ---- */

struct catchup_source;

/* Begins: *start (appended) goes to the sink first. Until catchup_source_free the partition's
 * horizon stands still: nothing dead is dropped. -ENOENT; -EAGAIN: this copy is not complete. */
int catchup_source_begin(struct shard *s, uint16_t partition, const struct catchup_ask *ask,
                         struct buf *start, struct catchup_source **ret);
/* Appends records to `out` until it holds bytes_max or more: 1; or 0: these were the last.
 * -EAGAIN: the record at *ret_at, of *ret_bytes, is not in memory: call again with it as `read`,
 * else NULL. -EBADMSG: it can't be read. */
int catchup_source_next(struct catchup_source *c, const struct shard_read *read, size_t bytes_max,
                        struct buf *out, struct position *ret_at, size_t *ret_bytes);
/* NULL is fine; returns NULL. */
struct catchup_source *catchup_source_free(struct catchup_source *c);

/* ---- sink: between steps, with actions as theirs; the turn's end writes what was logged ---- */

/* Begins anew from `start`: the copy is incomplete from now on, durably before it acks anything.
 * -EBADMSG: not what a source makes; -ESTALE: for another n than is held here, or halted. */
int catchup_sink_begin(struct shard *s, uint16_t partition, const uint8_t *start, size_t bytes,
                       struct actions *out);
/* What catchup_source_next gave. -EBADMSG. */
int catchup_sink_records(struct shard *s, uint16_t partition, const uint8_t *records, size_t bytes,
                         struct actions *out);
/* That was all: the copy is complete once this is synced. */
int catchup_sink_end(struct shard *s, uint16_t partition, struct actions *out);
