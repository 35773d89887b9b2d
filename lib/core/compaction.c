#include "core/compaction.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "core/replica.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- live bytes ---- */

void compaction_live_add(struct compaction_live *l, uint32_t segment, uint64_t bytes)
{
    if (l->n == 0) {
        l->first = segment;
    }
    if (segment < l->first) { /* rare: make room in front */
        size_t more = l->first - segment;
        mem_grow(&l->bytes, &l->cap, l->n + more, sizeof(*l->bytes));
        memmove(l->bytes + more, l->bytes, l->n * sizeof(*l->bytes));
        memset(l->bytes, 0, more * sizeof(*l->bytes));
        l->n += more;
        l->first = segment;
    }
    if (segment - l->first >= l->n) {
        size_t n = segment - l->first + 1;
        mem_grow(&l->bytes, &l->cap, n, sizeof(*l->bytes));
        memset(l->bytes + l->n, 0, (n - l->n) * sizeof(*l->bytes));
        l->n = n;
    }
    l->bytes[segment - l->first] += bytes;
}

uint64_t compaction_live_bytes(const struct compaction_live *l, uint32_t segment)
{
    return segment >= l->first && segment - l->first < l->n ? l->bytes[segment - l->first] : 0;
}

void compaction_live_free(struct compaction_live *l)
{
    free(l->bytes);
    *l = (struct compaction_live){ 0 };
}

/* ---- choosing ---- */

struct candidate {
    uint32_t number;
    uint64_t bytes;
    uint64_t live;
};

static int compare_live(const void *a, const void *b)
{
    const struct candidate *x = a;
    const struct candidate *y = b;

    return x->live != y->live ? (x->live < y->live ? -1 : 1) : (x->number < y->number ? -1 : 1);
}

bool compaction_may(const struct compaction_file *f, const struct wal_floor *floor)
{
    return f->number < wal_floor_of(floor, f->shard, f->shards);
}

size_t compaction_choose(const struct compaction_file *files, size_t n,
                         const struct wal_floor *floor, const struct compaction_live *live,
                         uint64_t slack_bytes, uint32_t *ret_victims)
{
    _cleanup_free_ struct candidate *v = mem_alloc((n + 1) * sizeof(*v));
    size_t n_candidates = 0;
    size_t n_victims = 0;
    uint64_t total = 0;
    uint64_t needed = 0;

    for (size_t i = 0; i < n; i++) {
        uint64_t lives = compaction_live_bytes(live, files[i].number);
        total += files[i].bytes;
        needed += lives;
        if (compaction_may(&files[i], floor) &&
            lives * 100 <= files[i].bytes * COMPACTION_VICTIM_PERCENT_MAX) {
            v[n_candidates++] = (struct candidate){ files[i].number, files[i].bytes, lives };
        }
    }
    if (n_candidates > 0) {
        qsort(v, n_candidates, sizeof(*v), compare_live);
    }
    while (n_victims < n_candidates &&
           total > needed / 100 * COMPACTION_LOG_PERCENT + slack_bytes) {
        ret_victims[n_victims] = v[n_victims].number;
        total -= MIN_OF(total, v[n_victims].bytes - v[n_victims].live);
        n_victims++;
    }
    return n_victims;
}

/* ---- one victim ---- */

void compaction_free(struct shard *s)
{
    free(s->compaction.relocations);
    s->compaction = (struct compaction){ 0 };
}

static void finish(struct shard *s, int error)
{
    struct action *a = actions_add(s->out, ACTION_COMPACTED);

    a->compacted.segment = s->compaction.victim.number;
    a->compacted.error = error;
    a->compacted.copied = s->compaction.copied;
    a->compacted.dropped = s->compaction.dropped;
    compaction_free(s);
}

/* All is copied. A record that was not, because another one took its place, stays in the log as a
 * mere prepare until its commit is noted: that goes first. */
static void all_copied(struct shard *s)
{
    struct compaction *c = &s->compaction;

    if (!c->ending) {
        LIST_FOR_EACH_SAFE(i, &s->commits)
        {
            shard_note_commit(s, LIST_ENTRY(i, struct replica, in_commits));
        }
        c->ending = true;
        c->end_group = wal_dirty(&s->log) ? s->log.group : s->log.group - 1;
    }
    if (wal_is_synced(&s->log, c->end_group)) {
        finish(s, 0);
    }
}

static bool holds_pending(const struct shard *s, uint32_t segment)
{
    for (size_t i = 0; i < s->n_replicas; i++) {
        const struct replica *r = &s->replicas[i];
        for (uint64_t seq = r->commit.seq + 1; seq <= r->last.seq; seq++) {
            if (replica_tail(r, seq)->at.segment == segment) {
                return true;
            }
        }
    }
    return false;
}

/* The next slice should be in memory when its time comes. */
static void prefetch(struct shard *s)
{
    struct compaction *c = &s->compaction;
    struct action *a;

    if (c->cursor.offset < c->victim.bytes) {
        a = actions_add(s->out, ACTION_PREFETCH);
        a->read.at = (struct position){ c->victim.number, (uint32_t) c->cursor.offset };
        a->read.bytes = MIN_OF(2 * COMPACTION_SLICE_BYTES, c->victim.bytes - c->cursor.offset);
    }
}

/* How much may be read now. */
static size_t slice_bytes(struct shard *s)
{
    struct compaction *c = &s->compaction;
    uint64_t usec = MIN_OF(s->now.boot_usec - c->budget_usec, 1000000);

    c->budget_bytes += usec * COMPACTION_BYTES_PER_SEC / 1000000 +
                       (s->prepared_bytes - c->budget_prepared) * COMPACTION_PER_PREPARED;
    c->budget_bytes = MIN_OF(c->budget_bytes, COMPACTION_BUDGET_MAX);
    c->budget_usec = s->now.boot_usec;
    c->budget_prepared = s->prepared_bytes;
    return c->budget_bytes < COMPACTION_SLICE_MIN ? 0
                                                  : MIN_OF(c->budget_bytes, COMPACTION_SLICE_BYTES);
}

void compaction_begin(struct shard *s, const struct wal_segment *victim)
{
    kumo_assert(!s->compaction.running);
    kumo_assert(victim->number < wal_end(&s->log).segment);
    s->compaction.running = true;
    s->compaction.victim = *victim;
    s->compaction.budget_usec = s->now.boot_usec;
    s->compaction.budget_prepared = s->prepared_bytes;
    /* A pending entry is in no index yet and would look dead. New ones go to later segments. */
    if (holds_pending(s, victim->number)) {
        finish(s, -EBUSY);
        return;
    }
    prefetch(s);
}

/* Does the index point at this entry? */
static bool is_needed(const struct replica *r, const struct entry *e, struct position at)
{
    struct index_record rec;

    return r->index->ops->get(r->index, e->key, e->key_len, &rec) == 0 &&
           position_compare(rec.at, at) == 0;
}

/* A tombstone, or a record that nobody will ever read again. */
static bool is_dead(struct shard *s, struct replica *r, const struct entry *e)
{
    uint64_t now_usec = replica_told_time(s, r);

    if (r->n_sources > 0 || r->incomplete) {
        return false; /* R17: the horizon stands still */
    }
    return e->kind == ENTRY_DELETE || e->name.seq < r->flush.seq ||
           (now_usec > COMPACTION_EXPIRED_USEC &&
            expiry_is_over(e->expiry_sec, now_usec - COMPACTION_EXPIRED_USEC));
}

static struct relocation *relocation_add(struct shard *s, const struct frame *f,
                                         struct position from)
{
    struct compaction *c = &s->compaction;
    struct relocation *l;

    mem_grow(&c->relocations, &c->cap, c->n + 1, sizeof(*c->relocations));
    l = &c->relocations[c->n++];
    *l = (struct relocation){ .entry = f->payload, .bytes = f->payload_bytes, .from = from };
    return l;
}

void compaction_gone(struct shard *s, struct replica *r, uint64_t seq, const uint8_t *key,
                     size_t key_len)
{
    struct frame_gone gone = { seq, r->time_usec, key, key_len };
    uint8_t bytes[FRAME_GONE_BYTES_MAX];

    wal_append(&s->log, FRAME_GONE, r->partition, r->view, bytes, frame_gone_encode(&gone, bytes));
    r->horizon_seq = MAX_OF(r->horizon_seq, seq);
}

static void drop(struct shard *s, struct replica *r, const struct frame *f, const struct entry *e,
                 struct position at)
{
    compaction_gone(s, r, e->name.seq, e->key, e->key_len);
    relocation_add(s, f, at)->group = s->log.group;
    s->compaction.dropped++;
}

static void copy(struct shard *s, struct replica *r, const struct frame *f, struct position at)
{
    struct relocation *l = relocation_add(s, f, at);

    l->to = wal_append(&s->log, FRAME_COPY, r->partition, r->view, f->payload, f->payload_bytes);
    l->group = s->log.group;
    s->compaction.copied += f->payload_bytes;
}

static void keep_or_drop(struct shard *s, const struct frame *f, struct position at)
{
    struct replica *r = shard_replica(s, f->partition);
    struct entry e;

    if (!r || !frame_kind_has_entry(f->kind) ||
        entry_decode_trusted(f->payload, f->payload_bytes, &e) < 0 || e.key_len == 0 ||
        !is_needed(r, &e, at)) {
        return;
    }
    /* The commit of what is moved is in the log before it: a replay does all in this order. */
    shard_note_commit(s, r);
    if (is_dead(s, r, &e)) {
        drop(s, r, f, &e, at);
    } else {
        copy(s, r, f, at);
    }
}

void compaction_go_on(struct shard *s)
{
    struct compaction *c = &s->compaction;
    size_t begin = c->cursor.offset;
    struct position at;
    struct frame f;
    size_t bytes;
    int r = 1;

    if (!c->running || c->read || c->n > 0 || s->space == SPACE_FULL) {
        return; /* one slice, then its sync */
    }
    bytes = slice_bytes(s);
    while (c->cursor.offset < begin + bytes &&
           (r = wal_next(&c->victim, &c->cursor, &f, &at)) > 0) {
        keep_or_drop(s, &f, at);
    }
    c->budget_bytes -= MIN_OF(c->budget_bytes, c->cursor.offset - begin);
    if (r < 0) {
        finish(s, r);
        return;
    }
    c->read = r == 0;
    if (c->cursor.offset > begin) {
        prefetch(s);
    }
    if (c->read && c->n == 0) {
        all_copied(s);
    }
}

static void relocate(struct shard *s, const struct relocation *l)
{
    struct index_record rec;
    struct replica *r;
    struct entry e;
    int err = entry_decode_trusted(l->entry, l->bytes, &e);

    kumo_assert(err == 0);
    r = shard_replica(s, e.partition);
    if (r->index->ops->get(r->index, e.key, e.key_len, &rec) < 0 ||
        position_compare(rec.at, l->from) != 0) {
        return; /* written again meanwhile */
    }
    if (l->to.segment == 0) {
        replica_index_drop(r, e.key, e.key_len);
        return;
    }
    rec.at = l->to;
    replica_index_put(s, r, e.key, e.key_len, &rec);
}

void compaction_synced(struct shard *s)
{
    struct compaction *c = &s->compaction;
    size_t done = 0;

    while (done < c->n && wal_is_synced(&s->log, c->relocations[done].group)) {
        relocate(s, &c->relocations[done]);
        done++;
    }
    c->n -= done;
    if (done > 0) {
        memmove(c->relocations, c->relocations + done, c->n * sizeof(*c->relocations));
    }
    if (c->running && c->read && c->n == 0) {
        all_copied(s);
    }
}

/* ---- replay ---- */

/* R17: a record that a source sent. */
static int replay_received(struct shard *s, struct replica *r, const struct frame *f,
                           const struct entry *e, struct position at)
{
    struct index_record rec;

    if (e->name.seq < r->flush.seq || e->name.seq > r->base_end.seq ||
        (r->index->ops->get(r->index, e->key, e->key_len, &rec) == 0 && rec.seq > e->name.seq)) {
        return 0;
    }
    rec = (struct index_record){ e->name.seq, at, f->payload_bytes, e->expiry_sec, e->kind };
    replica_index_put(s, r, e->key, e->key_len, &rec);
    return 0;
}

int compaction_replay_copy(struct shard *s, struct replica *r, const struct frame *f,
                           struct position at)
{
    struct index_record rec;
    struct entry e;

    if (entry_decode_trusted(f->payload, f->payload_bytes, &e) < 0 || e.key_len == 0 ||
        e.name.seq > r->commit.seq) {
        return -EBADMSG; /* its commit was noted before it */
    }
    if (r->index->ops->get(r->index, e.key, e.key_len, &rec) < 0 || rec.seq != e.name.seq) {
        return r->incomplete ? replay_received(s, r, f, &e, at) : 0;
    }
    if (rec.bytes != f->payload_bytes) {
        return -EBADMSG; /* one name, one string of bytes */
    }
    rec.at = at;
    replica_index_put(s, r, e.key, e.key_len, &rec);
    return 0;
}

int compaction_replay_gone(struct replica *r, const struct frame *f)
{
    struct index_record rec;
    struct frame_gone g;

    if (frame_gone_decode(f, &g) < 0) {
        return -EBADMSG;
    }
    r->horizon_seq = MAX_OF(r->horizon_seq, g.seq);
    r->time_usec = MAX_OF(r->time_usec, g.time_usec);
    if (r->index->ops->get(r->index, g.key, g.key_len, &rec) == 0 && rec.seq == g.seq) {
        replica_index_drop(r, g.key, g.key_len);
    }
    return 0;
}
