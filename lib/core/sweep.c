/* The sweep: records that are long expired, or were flushed, leave the index, one partition after
 * the other, so that memory does not wait for a compaction to come across them. A replay leaves
 * them out as well (FRAME_GONE), and the horizon says that they were here. Reads find no
 * difference. */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "core/compaction.h"
#include "core/replica.h"

#include <string.h>

struct sweeping {
    const struct replica *r;
    uint64_t long_ago_usec;
    struct buf keys; /* length, key, seq */
    uint32_t n;
};

static void look(void *ctx, const uint8_t *key, size_t key_len, const struct index_record *rec)
{
    struct sweeping *w = ctx;
    uint8_t *p;

    if (w->n == SWEEP_RECORDS_MAX || rec->kind != ENTRY_SET ||
        (rec->seq >= w->r->flush.seq && !expiry_is_over(rec->expiry_sec, w->long_ago_usec))) {
        return;
    }
    p = buf_reserve(&w->keys, 1 + key_len + 8);
    p[0] = (uint8_t) key_len;
    memcpy(p + 1, key, key_len);
    bytes_put_u64(p + 1 + key_len, rec->seq);
    w->keys.end += 1 + key_len + 8;
    w->n++;
}

static void leave(struct shard *s, struct replica *r, const struct sweeping *w)
{
    const uint8_t *p = buf_head(&((struct sweeping *) w)->keys);

    for (uint32_t i = 0; i < w->n; i++, p += 1 + p[0] + 8) {
        compaction_gone(s, r, bytes_get_u64(p + 1 + p[0]), p + 1, p[0]);
        replica_index_drop(r, p + 1, p[0]);
    }
}

/* Returns whether there may be more. */
static bool sweep(struct shard *s, struct replica *r)
{
    uint64_t now_usec = replica_told_time(s, r);
    struct sweeping w = { .r = r };

    w.long_ago_usec = now_usec > COMPACTION_EXPIRED_USEC ? now_usec - COMPACTION_EXPIRED_USEC : 0;
    r->index->ops->walk(r->index, look, &w);
    if (w.n > 0) {
        shard_note_commit(s, r); /* of what is dropped, before it */
        leave(s, r, &w);
    }
    buf_free(&w.keys);
    return w.n == SWEEP_RECORDS_MAX;
}

void sweep_tick(struct shard *s)
{
    uint64_t pass_usec = s->o.sweep_usec ? s->o.sweep_usec : SWEEP_USEC_DEFAULT;
    struct replica *r = &s->replicas[s->sweep_next % MAX_OF(s->n_replicas, 1)];

    if (s->n_replicas == 0 || s->space == SPACE_FULL || s->now.boot_usec < s->sweep_usec) {
        return;
    }
    s->sweep_usec = s->now.boot_usec + pass_usec / s->n_replicas;
    if (r->n_sources > 0 || r->incomplete) { /* R17: its turn comes again */
        s->sweep_next++;
        return;
    }
    if ((r->n_expiring > 0 || r->flush.seq > r->swept_flush_seq) && sweep(s, r)) {
        s->sweep_usec = s->now.boot_usec;
        return; /* the same again */
    }
    r->swept_flush_seq = r->flush.seq;
    s->sweep_next++;
}
