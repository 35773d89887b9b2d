#include "core/checkpoint.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/mem.h"
#include "core/replica.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHECKPOINT_MAGIC    "KUMOCKPT"
#define MANIFEST_MAGIC      "KUMOMANI"
#define MANIFEST_HEAD_BYTES 12 /* magic 8, crc 4; then one MessagePack array */

/* ---- taking ---- */

static void put_name(struct buf *b, struct name n)
{
    mp_put_uint(b, n.view);
    mp_put_uint(b, n.seq);
}

static struct name get_name(struct mp_reader *r)
{
    struct name n = { .view = (uint32_t) mp_get_uint_max(r, UINT32_MAX) };

    n.seq = mp_get_uint(r);
    return n;
}

static void put_tail(struct buf *b, const struct replica *r)
{
    mp_put_array(b, (uint32_t) r->n_tail);
    for (uint64_t seq = r->commit.seq + 1; seq <= r->last.seq; seq++) {
        const struct tail_entry *te = replica_tail(r, seq);
        mp_put_array(b, 3);
        mp_put_bin(b, te->bytes, te->n_bytes);
        mp_put_uint(b, te->at.segment);
        mp_put_uint(b, te->at.offset);
    }
}

static void put_state(struct buf *b, const struct replica *r)
{
    bool incomplete;

    mp_put_array(b, 14);
    mp_put_uint(b, r->view);
    mp_put_array(b, r->n_members);
    for (unsigned i = 0; i < r->n_members; i++) {
        mp_put_uint(b, r->members[i].server);
    }
    put_name(b, r->commit);
    mp_put_uint(b, r->flush.seq);
    mp_put_uint(b, r->flush.past_usec);
    mp_put_uint(b, r->flush.at_usec);
    mp_put_uint(b, r->horizon_seq);
    mp_put_uint(b, r->time_usec);
    mp_put_uint(b, r->digest);
    view_runs_put(b, r);
    /* An end that is in the log counts: the log is durable through X when this is used. */
    incomplete = r->incomplete && list_empty(&r->in_completing);
    mp_put_array(b, incomplete ? 4 : 0);
    if (incomplete) {
        put_name(b, r->base);
        put_name(b, r->base_end);
    }
    session_table_put(b, &r->sessions);
    put_tail(b, r);
}

struct taking {
    struct buf *out;
    struct compaction_live *live;
    uint64_t records;
};

static void take_record(void *ctx, const uint8_t *key, size_t key_len,
                        const struct index_record *rec)
{
    struct taking *t = ctx;
    uint8_t *p = buf_reserve(t->out, 1 + key_len + INDEX_RECORD_BYTES);

    p[0] = (uint8_t) key_len;
    memcpy(p + 1, key, key_len);
    index_record_encode(rec, p + 1 + key_len);
    t->out->end += 1 + key_len + INDEX_RECORD_BYTES;
    t->records++;
    if (t->live) {
        compaction_live_add(t->live, rec->at.segment, rec->bytes + FRAME_HEAD_BYTES);
    }
}

int checkpoint_take(const struct shard *s, uint16_t partition, struct buf *out,
                    struct compaction_live *live, struct position *ret_x, uint64_t *ret_group)
{
    const struct replica *r = shard_replica(s, partition);
    struct taking t = { .out = out, .live = live };
    size_t begin = buf_len(out);
    size_t state_bytes;
    uint8_t *head;

    if (!r) {
        return -ENOENT;
    }
    *ret_x = wal_end(&s->log);
    /* what was flushed lies in memory until the next step, and belongs to the group before */
    *ret_group = wal_dirty(&s->log) && !s->flushed ? s->log.group : s->log.group - 1;
    memset(buf_reserve(out, CHECKPOINT_HEAD_BYTES), 0, CHECKPOINT_HEAD_BYTES);
    out->end += CHECKPOINT_HEAD_BYTES;
    put_state(out, r);
    state_bytes = buf_len(out) - begin - CHECKPOINT_HEAD_BYTES;
    r->index->ops->walk(r->index, take_record, &t);
    if (t.records != r->index->ops->count(r->index)) {
        return -EIO; /* the walk did not meet them all */
    }
    buf_reserve(out, 4);
    head = buf_head(out) + begin;
    memcpy(head, CHECKPOINT_MAGIC, 8);
    bytes_put_u32(head + 12, CHECKPOINT_VERSION);
    bytes_put_u16(head + 16, partition);
    bytes_put_u32(head + 20, (uint32_t) state_bytes);
    bytes_put_u64(head + 24, t.records);
    bytes_put_u32(head + 32, ret_x->segment);
    bytes_put_u32(head + 36, ret_x->offset);
    bytes_put_u32(head + 8, crc32c(0, head + 12, CHECKPOINT_HEAD_BYTES - 12));
    bytes_put_u32(out->data + out->end, crc32c(0, head, buf_len(out) - begin));
    out->end += 4;
    return 0;
}

uint32_t checkpoint_crc(const uint8_t *p, size_t bytes)
{
    kumo_assert(bytes >= 4);
    return bytes_get_u32(p + bytes - 4);
}

/* ---- loading ---- */

static int load_tail(struct shard *s, struct replica *r, struct mp_reader *in)
{
    uint32_t n = mp_get_array(in);

    for (uint32_t i = 0; i < n && !in->failed; i++) {
        struct position at;
        struct entry e;
        size_t bytes;
        const uint8_t *p;
        mp_get_array_exact(in, 3);
        p = mp_get_bin(in, ENTRY_BYTES_MAX, &bytes);
        at.segment = (uint32_t) mp_get_uint_max(in, UINT32_MAX);
        at.offset = (uint32_t) mp_get_uint_max(in, UINT32_MAX);
        if (in->failed || entry_decode(p, bytes, &e) < 0 || e.partition != r->partition ||
            e.name.seq != r->last.seq + 1 || e.prev_view != r->last.view ||
            e.name.view < e.prev_view) {
            return -EBADMSG;
        }
        replica_push(s, r, p, bytes, &at);
    }
    return in->failed ? -EBADMSG : 0;
}

/* The view table, and what a catch-up that is under way began with. */
static void load_history(struct replica *r, struct mp_reader *in)
{
    struct view_run *runs = mem_alloc(VIEW_RUNS_MAX * sizeof(*runs));
    uint32_t n = view_runs_get(in, runs);

    if (!in->failed) {
        view_runs_set(r, runs, n);
        view_runs_cut(r, r->commit.seq); /* the tail brings its own */
        in->failed = r->n_runs > 0 && !view_runs_agree(r, r->commit);
    }
    free(runs);
    n = mp_get_array(in);
    in->failed = in->failed || (n != 0 && n != 4);
    if (n == 4 && !in->failed) {
        r->incomplete = true;
        r->base = get_name(in);
        r->base_end = get_name(in);
    }
}

static int load_state(struct shard *s, struct replica *r, struct mp_reader *in)
{
    struct name commit;
    uint32_t n;

    mp_get_array_exact(in, 14);
    r->view = (uint32_t) mp_get_uint_max(in, UINT32_MAX);
    n = mp_get_array(in);
    if (n > REPLICAS_MAX) {
        return -EBADMSG;
    }
    for (uint32_t i = 0; i < n; i++) {
        r->members[i] = (struct member){ .server = (uint32_t) mp_get_uint_max(in, UINT32_MAX) };
    }
    r->n_members = (uint8_t) n;
    commit = get_name(in);
    if (in->failed || commit.seq > SEQ_MAX) {
        return -EBADMSG;
    }
    r->commit = commit;
    r->last = r->commit;
    r->durable_seq = r->commit.seq;
    r->flush.seq = mp_get_uint(in);
    r->flush.past_usec = mp_get_uint(in);
    r->flush.at_usec = mp_get_uint(in);
    r->flush_pending = r->flush;
    r->horizon_seq = mp_get_uint(in);
    r->time_usec = mp_get_uint(in);
    r->digest = mp_get_uint(in);
    load_history(r, in);
    session_table_get(in, &r->sessions);
    return load_tail(s, r, in);
}

static int load_records(struct replica *r, const uint8_t *p, const uint8_t *end, uint64_t records)
{
    uint64_t digest = 0;

    r->index->ops->reserve(r->index, MIN_OF(records, (uint64_t) (end - p) / INDEX_RECORD_BYTES));
    for (; records > 0; records--) {
        struct index_record rec;
        struct index_record old;
        int replaced;
        size_t key_len = p < end ? *p : 0;
        if (key_len == 0 || key_len > ENTRY_KEY_BYTES_MAX ||
            (size_t) (end - p) < 1 + key_len + INDEX_RECORD_BYTES) {
            return -EBADMSG;
        }
        rec = index_record_decode(p + 1 + key_len);
        replaced = r->index->ops->put(r->index, p + 1, key_len, &rec, &old);
        if (replaced != 0) {
            return replaced < 0 ? -ENOMEM : -EBADMSG; /* a key twice */
        }
        digest += replica_digest_of(r, p + 1, key_len, &rec);
        r->n_expiring += rec.expiry_sec != 0;
        p += 1 + key_len + INDEX_RECORD_BYTES;
    }
    return p == end && digest == r->digest ? 0 : -EBADMSG;
}

int checkpoint_load(struct shard *s, const uint8_t *p, size_t bytes)
{
    struct mp_reader in;
    struct replica *r;
    uint32_t state_bytes;
    int err;

    if (bytes < CHECKPOINT_HEAD_BYTES + 4 || memcmp(p, CHECKPOINT_MAGIC, 8) != 0 ||
        crc32c(0, p + 12, CHECKPOINT_HEAD_BYTES - 12) != bytes_get_u32(p + 8) ||
        crc32c(0, p, bytes - 4) != bytes_get_u32(p + bytes - 4)) {
        return -EBADMSG;
    }
    if (bytes_get_u32(p + 12) != CHECKPOINT_VERSION) {
        return -EPROTONOSUPPORT;
    }
    state_bytes = bytes_get_u32(p + 20);
    r = shard_replica(s, bytes_get_u16(p + 16));
    if (!r) {
        return -ENOENT;
    }
    if (state_bytes > bytes - CHECKPOINT_HEAD_BYTES - 4) {
        return -EBADMSG;
    }
    kumo_assert(r->view == 0 && r->last.seq == 0); /* new */
    in = mp_reader_of(p + CHECKPOINT_HEAD_BYTES, state_bytes);
    err = load_state(s, r, &in);
    if (err == 0) {
        err = load_records(r, in.end, p + bytes - 4, bytes_get_u64(p + 24));
    }
    r->replay_from = (struct position){ bytes_get_u32(p + 32), bytes_get_u32(p + 36) };
    return err;
}

/* ---- manifests ---- */

void manifest_encode(struct buf *b, const struct manifest *m)
{
    size_t begin = buf_len(b);

    buf_append(b, MANIFEST_MAGIC "\0\0\0\0", MANIFEST_HEAD_BYTES);
    mp_put_array(b, 2 + m->partitions);
    mp_put_uint(b, m->generation);
    mp_put_uint(b, m->partitions);
    for (uint32_t i = 0; i < m->partitions; i++) {
        const struct manifest_item *it = &m->items[i];
        kumo_assert(it->partition == i);
        mp_put_array(b, 6);
        mp_put_uint(b, it->file);
        mp_put_uint(b, it->crc);
        mp_put_uint(b, it->offset);
        mp_put_uint(b, it->bytes);
        mp_put_uint(b, it->x.segment);
        mp_put_uint(b, it->x.offset);
    }
    bytes_put_u32(buf_head(b) + begin + 8, crc32c(0, buf_head(b) + begin + MANIFEST_HEAD_BYTES,
                                                  buf_len(b) - begin - MANIFEST_HEAD_BYTES));
}

static void item_get(struct mp_reader *r, uint32_t partition, struct manifest_item *ret)
{
    mp_get_array_exact(r, 6);
    ret->partition = (uint16_t) partition;
    ret->file = (uint16_t) mp_get_uint_max(r, SHARDS_MAX);
    ret->crc = (uint32_t) mp_get_uint_max(r, UINT32_MAX);
    ret->offset = mp_get_uint_max(r, INT64_MAX);
    ret->bytes = mp_get_uint_max(r, INT64_MAX);
    ret->x.segment = (uint32_t) mp_get_uint_max(r, UINT32_MAX);
    ret->x.offset = (uint32_t) mp_get_uint_max(r, UINT32_MAX);
}

int manifest_decode(const uint8_t *p, size_t bytes, struct manifest *ret)
{
    struct manifest m = { 0 };
    struct mp_reader r;
    uint32_t n;

    if (bytes < MANIFEST_HEAD_BYTES || memcmp(p, MANIFEST_MAGIC, 8) != 0 ||
        crc32c(0, p + MANIFEST_HEAD_BYTES, bytes - MANIFEST_HEAD_BYTES) != bytes_get_u32(p + 8)) {
        return -EBADMSG;
    }
    r = mp_reader_of(p + MANIFEST_HEAD_BYTES, bytes - MANIFEST_HEAD_BYTES);
    n = mp_get_array(&r);
    m.generation = mp_get_uint(&r);
    m.partitions = (uint32_t) mp_get_uint_max(&r, PARTITIONS_MAX);
    if (r.failed || m.partitions == 0 || n != 2 + m.partitions) {
        return -EBADMSG;
    }
    m.items = mem_zalloc(m.partitions, sizeof(*m.items));
    for (uint32_t i = 0; i < m.partitions; i++) {
        item_get(&r, i, &m.items[i]);
    }
    if (r.failed) {
        manifest_free(&m);
        return -EBADMSG;
    }
    *ret = m;
    return 0;
}

void manifest_free(struct manifest *m)
{
    free(m->items);
    *m = (struct manifest){ 0 };
}

void manifest_floor(const struct manifest *m, struct wal_floor *ret)
{
    *ret = (struct wal_floor){ .partitions = m->partitions };
    ret->x = mem_alloc((m->partitions + 1) * sizeof(*ret->x));
    for (uint32_t i = 0; i < m->partitions; i++) {
        ret->x[i] = m->items[i].x;
    }
}
