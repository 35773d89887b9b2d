/* The sink's end of a catch-up (R17), and what its notes in the log do at a replay. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "core/catchup.h"
#include "core/replica.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- the start ---- */

struct base_start {
    struct name n;
    struct name m;
    bool names_all;
    struct view_run runs[VIEW_RUNS_MAX];
    uint32_t n_runs;
    struct flush_mark flush;
    uint64_t horizon_seq;
    uint64_t time_usec;
};

static struct name get_name(struct mp_reader *in)
{
    struct name n = { .view = (uint32_t) mp_get_uint_max(in, UINT32_MAX) };

    n.seq = mp_get_uint(in);
    return n;
}

/* The view table ends with m, or goes on behind it. */
static bool runs_fit(const struct base_start *b)
{
    uint32_t i = b->n_runs;

    while (i > 0 && b->runs[i - 1].first > b->m.seq) {
        i--;
    }
    return i == 0 || b->runs[i - 1].view == b->m.view;
}

/* All but the sessions, which *in stands before then. */
static int start_decode(struct mp_reader *in, struct base_start *ret)
{
    mp_get_array_exact(in, BASE_START_ITEMS);
    if (mp_get_uint(in) != BASE_START) {
        return -EBADMSG;
    }
    ret->n = get_name(in);
    ret->m = get_name(in);
    ret->names_all = mp_get_bool(in);
    ret->n_runs = view_runs_get(in, ret->runs);
    ret->flush.seq = mp_get_uint(in);
    ret->flush.past_usec = mp_get_uint(in);
    ret->flush.at_usec = mp_get_uint(in);
    ret->horizon_seq = mp_get_uint(in);
    ret->time_usec = mp_get_uint(in);
    return in->failed || ret->m.seq < ret->n.seq || ret->m.seq > SEQ_MAX || !runs_fit(ret)
               ? -EBADMSG
               : 0;
}

static void count_record(void *ctx, const uint8_t *key, size_t key_len,
                         const struct index_record *rec)
{
    struct replica *r = ctx;

    r->digest += replica_digest_of(r, key, key_len, rec);
    r->n_expiring += rec->expiry_sec != 0;
}

/* Nothing of what is here counts. */
static int index_empty(struct shard *s, struct replica *r)
{
    r->index->ops->free(r->index);
    r->index = NULL;
    return s->o.index_open(s->o.index_ctx, r->partition, &r->index);
}

/* Up to where everything is here. The end of a catch-up counts as soon as it is in the log: what
 * follows stands behind it there. */
static struct name held_up_to(const struct replica *r)
{
    return r->incomplete && list_empty(&r->in_completing) ? r->base : r->commit;
}

/* The copy becomes what the start says: its tail goes, m is its last name, and records up to m
 * follow. */
static int base_begin(struct shard *s, struct replica *r, const uint8_t *p, size_t bytes)
{
    struct mp_reader in = mp_reader_of(p, bytes);
    _cleanup_free_ struct base_start *b = mem_alloc(sizeof(*b));
    struct session_table sessions = { 0 };
    int err = start_decode(&in, b);

    if (err < 0) {
        return err;
    }
    if (b->n.seq != 0 && !name_equal(b->n, held_up_to(r))) {
        return -ESTALE;
    }
    session_table_get(&in, &sessions);
    if (in.failed || b->m.seq < (b->n.seq != 0 ? r->commit.seq : 0)) {
        session_table_free(&sessions);
        return -EBADMSG;
    }
    replica_cut(s, r, r->commit.seq + 1);
    err = b->n.seq == 0 ? index_empty(s, r) : 0;
    if (err < 0) {
        session_table_free(&sessions);
        shard_halt(s, "no memory for the index");
        return err;
    }
    session_table_free(&r->sessions);
    r->sessions = sessions;
    r->incomplete = true;
    r->doubted = false;
    r->names_all = b->names_all;
    r->base = b->n;
    r->base_end = b->m;
    r->commit = r->last = b->m;
    r->durable_seq = b->m.seq;
    r->flush = r->flush_pending = b->flush;
    r->horizon_seq = b->n.seq == 0 ? b->horizon_seq : MAX_OF(r->horizon_seq, b->horizon_seq);
    r->time_usec = MAX_OF(r->time_usec, b->time_usec);
    view_runs_set(r, b->runs, b->n_runs);
    view_runs_cut(r, b->m.seq); /* the source's tail is not history */
    r->digest = 0;
    r->n_expiring = 0;
    r->index->ops->walk(r->index, count_record, r);
    return 0;
}

int catchup_sink_begin(struct shard *s, uint16_t partition, const uint8_t *start, size_t bytes,
                       struct actions *out)
{
    struct replica *r = shard_replica(s, partition);
    int err;

    if (!r || !shard_enter(s, out)) {
        return -ESTALE;
    }
    shard_note_commit(s, r); /* a replay must find the same n */
    err = base_begin(s, r, start, bytes);
    if (err < 0) {
        return err;
    }
    if (r->named) {
        r->named->ops->free(r->named);
        r->named = NULL;
    }
    if (r->names_all && s->o.index_open(s->o.index_ctx, r->partition, &r->named) < 0) {
        shard_halt(s, "no memory for the index");
        return -ENOMEM;
    }
    wal_append(&s->log, FRAME_BASE, r->partition, r->view, start, bytes);
    r->base_group = s->log.group;
    list_remove(&r->in_completing);
    r->matched_seq = r->base_end.seq; /* m is its last name */
    r->acked_seq = 0;
    return 0;
}

/* ---- records ---- */

static void name_key(struct shard *s, struct replica *r, const uint8_t *key, size_t key_len)
{
    struct index_record rec = { .kind = ENTRY_SET };
    struct index_record old;

    if (r->named && r->named->ops->put(r->named, key, key_len, &rec, &old) < 0) {
        shard_halt(s, "no memory for the index");
    }
}

static int record_take(struct shard *s, struct replica *r, const uint8_t *p, size_t bytes)
{
    struct index_record rec;
    struct entry e;

    if (entry_decode(p, bytes, &e) < 0 || e.partition != r->partition || e.key_len == 0 ||
        e.name.seq > r->base_end.seq) {
        return -EBADMSG;
    }
    name_key(s, r, e.key, e.key_len);
    if (e.name.seq < r->flush.seq ||
        (r->index->ops->get(r->index, e.key, e.key_len, &rec) == 0 && rec.seq >= e.name.seq)) {
        return 0; /* the stream was faster, or it is here */
    }
    rec = (struct index_record){
        .seq = e.name.seq,
        .at = wal_append(&s->log, FRAME_COPY, r->partition, r->view, p, bytes),
        .bytes = (uint32_t) bytes,
        .expiry_sec = e.expiry_sec,
        .kind = e.kind,
    };
    replica_index_put(s, r, e.key, e.key_len, &rec);
    return 0;
}

int catchup_sink_records(struct shard *s, uint16_t partition, const uint8_t *records, size_t bytes,
                         struct actions *out)
{
    struct replica *r = shard_replica(s, partition);
    struct mp_reader in = mp_reader_of(records, bytes);
    int err = 0;

    if (!r || !r->incomplete || !list_empty(&r->in_completing) || !shard_enter(s, out)) {
        return -ESTALE;
    }
    while (err == 0 && !in.failed && in.p < in.end) {
        uint64_t kind = mp_get_uint(&in);
        size_t n;
        const uint8_t *p = mp_get_bin(&in, ENTRY_BYTES_MAX, &n);
        if (in.failed || (kind == CATCHUP_KEY && (n == 0 || n > ENTRY_KEY_BYTES_MAX))) {
            return -EBADMSG;
        }
        if (kind == CATCHUP_KEY) {
            name_key(s, r, p, n);
        } else {
            err = record_take(s, r, p, n);
        }
    }
    return in.failed ? -EBADMSG : err;
}

/* ---- the end ---- */

struct unnamed {
    const struct replica *r;
    struct buf keys; /* length, key, seq 8 */
};

static void find_unnamed(void *ctx, const uint8_t *key, size_t key_len,
                         const struct index_record *rec)
{
    struct unnamed *u = ctx;
    struct index_record named;
    uint8_t len = (uint8_t) key_len;

    if (rec->seq <= u->r->base_end.seq &&
        u->r->named->ops->get(u->r->named, key, key_len, &named) < 0) {
        buf_append(&u->keys, &len, 1);
        buf_append(&u->keys, key, key_len);
        buf_append(&u->keys, &rec->seq, sizeof(rec->seq));
    }
}

/* What the source did not name was deleted there, and forgotten. */
static void drop_unnamed(struct shard *s, struct replica *r)
{
    struct unnamed u = { .r = r };
    const uint8_t *p;
    uint64_t seq;

    r->index->ops->walk(r->index, find_unnamed, &u);
    for (p = buf_head(&u.keys); p < buf_head(&u.keys) + buf_len(&u.keys); p += 1 + p[0] + 8) {
        memcpy(&seq, p + 1 + p[0], sizeof(seq));
        compaction_gone(s, r, seq, p + 1, p[0]);
        replica_index_drop(r, p + 1, p[0]);
    }
    buf_free(&u.keys);
    r->named->ops->free(r->named);
    r->named = NULL;
}

int catchup_sink_end(struct shard *s, uint16_t partition, struct actions *out)
{
    struct replica *r = shard_replica(s, partition);
    _cleanup_(buf_free) struct buf b = { 0 };

    if (!r || !r->incomplete || !list_empty(&r->in_completing) || !shard_enter(s, out)) {
        return -ESTALE;
    }
    if (r->named) {
        drop_unnamed(s, r);
    }
    mp_put_array(&b, 3);
    mp_put_uint(&b, BASE_END);
    mp_put_uint(&b, r->base_end.view);
    mp_put_uint(&b, r->base_end.seq);
    wal_append(&s->log, FRAME_BASE, r->partition, r->view, buf_head(&b), buf_len(&b));
    r->base_group = s->log.group;
    list_push_back(&s->completing, &r->in_completing);
    return 0;
}

void catchup_synced(struct shard *s)
{
    LIST_FOR_EACH_SAFE(i, &s->completing)
    {
        struct replica *r = LIST_ENTRY(i, struct replica, in_completing);
        if (wal_is_synced(&s->log, r->base_group)) {
            list_remove(i);
            r->incomplete = false; /* only the fsynced end sets it */
        }
    }
}

/* ---- replay ---- */

int catchup_replay_base(struct shard *s, struct replica *r, const struct frame *f)
{
    struct mp_reader in = mp_reader_of(f->payload, f->payload_bytes);
    uint32_t items = mp_get_array(&in);

    if (items != 3 || mp_get_uint(&in) != BASE_END) {
        return base_begin(s, r, f->payload, f->payload_bytes);
    }
    if (!name_equal(get_name(&in), r->base_end) || in.failed || !r->incomplete) {
        return -EBADMSG;
    }
    r->incomplete = false;
    return 0;
}

int catchup_ask(const struct shard *s, uint16_t partition, struct catchup_ask *ret)
{
    const struct replica *r = shard_replica(s, partition);

    if (!r) {
        return -ENOENT;
    }
    *ret = (struct catchup_ask){ held_up_to(r), r->commit };
    return 0;
}
