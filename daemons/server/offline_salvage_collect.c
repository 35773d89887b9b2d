/* What a salvage can read: checkpoints, then twice the whole log, past its damage. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "offline_salvage.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- what is there ---- */

static int generation_use(struct salvage *s, uint64_t generation, struct io_error *error)
{
    uint32_t partitions = datadir_superblock(s->d)->partitions;
    struct checkpoint_set set;
    int r = 0;

    if (datadir_generation_open(datadir_path(s->d), generation, partitions, &set, NULL) < 0) {
        return 0; /* told by the check */
    }
    for (uint32_t p = 0; r == 0 && p < partitions; p++) {
        struct part *part = &s->parts[p];
        const uint8_t *data;
        size_t bytes;
        if (part->based || datadir_generation_check(&set, (uint16_t) p, NULL) < 0) {
            continue;
        }
        data = checkpoint_set_get(&set, (uint16_t) p, &bytes);
        r = checkpoint_load(datadir_shard(s->d), data, bytes);
        if (r < 0) {
            io_error_set(error, r,
                         "%s: the checkpoint of partition %" PRIu32 " in generation %" PRIu64
                         " can't be loaded: %s; move the generation away and try again",
                         set.dir, p, generation, strerror(-r));
        }
        part->based = true;
    }
    checkpoint_set_close(&set);
    return r;
}

static int checkpoints_use(struct salvage *s, struct io_error *error)
{
    _cleanup_free_ uint64_t *found = NULL;
    uint64_t highest;
    size_t n;
    int r = datadir_generations(datadir_path(s->d), &found, &n, &highest, error);

    for (size_t i = 0; r == 0 && i < n; i++) {
        r = generation_use(s, found[i], error);
    }
    return r;
}

/* ---- first reading: where views begin, and what is committed ---- */

static void name_seen(struct part *p, struct name name)
{
    p->highest.view = MAX_OF(p->highest.view, name.view);
    p->highest.seq = MAX_OF(p->highest.seq, name.seq);
}

static void entry_seen(struct part *p, const struct entry *e)
{
    size_t i = 0;

    name_seen(p, e->name);
    while (i < p->n && p->v[i].view != e->name.view) {
        i++;
    }
    if (i == p->n) {
        mem_grow(&p->v, &p->cap, p->n + 1, sizeof(*p->v));
        p->v[p->n++] = (struct view_begin){ e->name.view, e->name.seq };
    }
    p->v[i].seq = MIN_OF(p->v[i].seq, e->name.seq);
}

static void commit_seen(struct salvage *s, struct part *p, const struct frame *f)
{
    struct replica *r = salvage_replica(s, f->partition);
    uint64_t time_usec;
    struct name name;

    if (frame_commit_decode(f, &name, &time_usec) == 0) {
        name_seen(p, name);
        p->commit_seq = MAX_OF(p->commit_seq, name.seq);
        r->time_usec = MAX_OF(r->time_usec, time_usec);
    }
}

static void view_seen(struct replica *r, const struct frame *f)
{
    struct frame_view v;

    if (frame_view_decode(f, &v) < 0 || f->view <= r->view) {
        return;
    }
    r->view = f->view;
    r->n_members = v.n_members;
    for (unsigned i = 0; i < v.n_members; i++) {
        r->members[i] = (struct member){ .server = v.members[i] };
    }
}

static void frame_look(struct salvage *s, const struct frame *f)
{
    struct part *p = &s->parts[f->partition];
    struct frame_gone g;
    struct entry e;

    name_seen(p, (struct name){ .view = f->view });
    if (f->kind == FRAME_COMMIT) {
        commit_seen(s, p, f);
    } else if (f->kind == FRAME_VIEW) {
        view_seen(salvage_replica(s, f->partition), f);
    } else if (f->kind == FRAME_GONE && frame_gone_decode(f, &g) == 0) {
        name_seen(p, (struct name){ .seq = g.seq });
    } else if (frame_kind_has_entry(f->kind) &&
               entry_decode_trusted(f->payload, f->payload_bytes, &e) == 0) {
        entry_seen(p, &e);
        if (f->kind == FRAME_COPY) {
            p->commit_seq = MAX_OF(p->commit_seq, e.name.seq);
        }
    }
}

/* What the checkpoint of a partition knows. */
static void base_look(struct salvage *s, struct replica *r)
{
    struct part *p = &s->parts[r->partition];

    name_seen(p, r->commit);
    name_seen(p, (struct name){ .view = r->view, .seq = r->horizon_seq });
    p->commit_seq = r->commit.seq;
    for (uint64_t seq = r->commit.seq + 1; seq <= r->last.seq; seq++) {
        entry_seen(p, &replica_tail(r, seq)->e);
    }
}

/* ---- second reading: each key's newest entry ---- */

static bool was_cut(const struct part *p, struct name name)
{
    for (size_t i = 0; i < p->n; i++) {
        if (p->v[i].view > name.view && p->v[i].seq <= name.seq) {
            return true;
        }
    }
    return false;
}

static void index_raise(struct salvage *s, struct replica *r, const uint8_t *key, size_t key_len,
                        const struct index_record *rec)
{
    struct index_record old;

    if (r->index->ops->get(r->index, key, key_len, &old) == 0 && old.seq > rec->seq) {
        return;
    }
    if (r->index->ops->put(r->index, key, key_len, rec, &old) < 0) {
        s->no_memory = true;
    }
}

static void entry_apply(struct salvage *s, const struct entry *e, struct position at)
{
    struct replica *r = salvage_replica(s, e->partition);
    struct index_record rec = { .seq = e->name.seq,
                                .at = at,
                                .bytes = (uint32_t) entry_bytes(e),
                                .expiry_sec = e->expiry_sec,
                                .kind = e->kind };

    if (was_cut(&s->parts[e->partition], e->name)) {
        return;
    }
    r->time_usec = MAX_OF(r->time_usec, e->time_usec);
    if (e->kind == ENTRY_FLUSH) {
        flush_apply(&r->flush, e);
    } else if (e->key_len > 0) {
        index_raise(s, r, e->key, e->key_len, &rec);
    }
}

static void frame_apply(struct salvage *s, const struct frame *f, struct position at)
{
    struct replica *r = salvage_replica(s, f->partition);
    struct frame_gone g;
    struct entry e;

    if (f->kind == FRAME_GONE && frame_gone_decode(f, &g) == 0) {
        struct index_record rec = { .seq = g.seq, .kind = ENTRY_DELETE };
        index_raise(s, r, g.key, g.key_len, &rec);
    } else if (frame_kind_has_entry(f->kind) &&
               entry_decode_trusted(f->payload, f->payload_bytes, &e) == 0) {
        entry_apply(s, &e, at);
    }
}

/* The checkpoint's tail; then it is empty. */
static void base_apply(struct salvage *s, struct replica *r)
{
    struct shard *shard = datadir_shard(s->d);
    struct actions none = { 0 };

    for (uint64_t seq = r->commit.seq + 1; seq <= r->last.seq; seq++) {
        const struct tail_entry *te = replica_tail(r, seq);
        entry_apply(s, &te->e, te->at);
    }
    shard->out = &none;
    if (r->n_tail > 0) {
        replica_cut(shard, r, r->commit.seq + 1);
    }
    shard->out = NULL;
    actions_free(&none);
}

/* ---- reading ---- */

static void frame_given(void *ctx, const struct wal_segment *segment, const struct frame *f,
                        struct position at)
{
    struct salvage *s = ctx;
    const struct replica *r = salvage_replica(s, f->partition);
    struct position begin = { at.segment, at.offset - FRAME_HEAD_BYTES };

    (void) segment;
    if (!r || position_compare(begin, r->replay_from) < 0) {
        return; /* of no partition, or in the checkpoint */
    }
    if (s->applying) {
        frame_apply(s, f, at);
    } else {
        frame_look(s, f);
    }
}

static void lost_given(void *ctx, const struct wal_segment *segment, uint64_t from, uint64_t to,
                       const char *what)
{
    struct salvage *s = ctx;

    (void) segment;
    (void) what; /* told by the check */
    if (!s->applying) {
        s->ranges++;
        s->ranges_bytes += to - from;
    }
}

static void log_read(struct salvage *s)
{
    const struct segment_set *set = datadir_segments(s->d);
    const struct scan scan = { .ctx = s, .frame = frame_given, .lost = lost_given };

    for (size_t i = 0; i < set->n; i++) {
        offline_progress(s->applying ? "collecting records from segments" : "reading segments", i,
                         set->n);
        offline_scan(&set->v[i], &scan);
    }
}

int salvage_collect(struct salvage *s, struct io_error *error)
{
    uint32_t partitions = datadir_superblock(s->d)->partitions;
    int r = checkpoints_use(s, error);

    if (r < 0) {
        return r;
    }
    for (uint32_t p = 0; p < partitions; p++) {
        base_look(s, salvage_replica(s, p));
    }
    log_read(s);
    s->applying = true;
    for (uint32_t p = 0; p < partitions; p++) {
        base_apply(s, salvage_replica(s, p));
    }
    log_read(s);
    return s->no_memory ? io_error_set(error, -ENOMEM, "no memory for the index") : 0;
}
