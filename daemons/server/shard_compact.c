/* A shard's part of a compaction: the machine copies, a slice with every tick; the end is told when
 * it is on the disk. */
#include "shard_private.h"

#include <errno.h>

static void on_durable(void *ctx)
{
    struct shard_thread *t = ctx;

    if (!t->stopping) {
        shard_thread_report_compacted(t, &t->compacted);
    }
}

/* ACTION_COMPACTED: in every sync mode the copies must be on the disk before the victim goes. */
void shard_compact_done(struct shard_thread *t, const struct action *a)
{
    t->compacted = *a;
    if (a->compacted.error < 0) {
        shard_thread_report_compacted(t, a);
    } else {
        segment_writer_flush(t->writer, on_durable, t);
    }
}

void shard_compact_begin(struct shard_thread *t, uint32_t segment)
{
    struct shard_event e = { .kind = SHARD_COMPACT };
    struct action none = { .kind = ACTION_COMPACTED, .compacted = { .segment = segment } };
    int r = segment_writer_get(t->writer, segment, &e.victim);

    if (r == 0) {
        shard_thread_step(t, &e);
        return;
    }
    none.compacted.error =
        r == -ENOENT ? 0 : r; /* another shard's, of this start: nothing of it is here */
    shard_thread_report_compacted(t, &none);
}
