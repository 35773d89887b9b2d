/* While the whole log is there, a start from checkpoints has a second way to the same state: the
 * log alone. Both are compared as the bytes of their checkpoints say them. */
#include "sim/sim.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "core/index_map.h"

#include <stdlib.h>

typedef unsigned long long llu;

enum { STATE_ITEMS = 14, NUMBERS_MAX = 64, ANSWER_NUMBERS = 8, ANSWER_ITEMS = 6 };

struct piece {
    const uint8_t *p;
    size_t bytes;
};

struct answer {
    uint64_t v[ANSWER_NUMBERS]; /* session, its first number; then the answer */
};

/* A checkpoint taken to pieces, in an order of its own. */
struct picture {
    struct buf bytes;
    uint64_t state[NUMBERS_MAX]; /* view, members, commit, flush mark (3), horizon */
    size_t n_state;
    uint64_t time_usec;
    uint64_t digest;
    struct piece history;
    struct answer *answers;
    size_t n_answers;
    size_t cap_answers;
    struct piece tail;
    struct piece *records;
    size_t n_records;
};

static void picture_free(struct picture *p)
{
    buf_free(&p->bytes);
    free(p->answers);
    free(p->records);
}

static int answer_compare(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct answer)); /* any order will do */
}

static int piece_compare(const void *a, const void *b)
{
    const struct piece *x = a;
    const struct piece *y = b;
    int r = memcmp(x->p, y->p, MIN_OF(x->bytes, y->bytes));

    return r != 0 ? r : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static struct answer *answer_add(struct picture *p, uint64_t session, uint64_t first)
{
    mem_grow(&p->answers, &p->cap_answers, p->n_answers + 1, sizeof(*p->answers));
    p->answers[p->n_answers] = (struct answer){ .v = { session, first } };
    return &p->answers[p->n_answers++];
}

/* Each session stands for itself too, by an answer of zeros. */
static void sessions_read(struct picture *p, struct mp_reader *r)
{
    uint32_t n;

    mp_get_array_exact(r, 2);
    answer_add(p, 0, mp_get_uint(r)); /* what is known stands for itself as well */
    n = mp_get_array(r);
    for (uint32_t i = 0; i < n && !r->failed; i++) {
        uint64_t session;
        uint64_t first;
        uint32_t answers;
        mp_get_array_exact(r, 3);
        session = mp_get_uint(r);
        first = mp_get_uint(r);
        answers = mp_get_array(r);
        answer_add(p, session, first);
        for (uint32_t j = 0; j < answers && !r->failed; j++) {
            struct answer *a = answer_add(p, session, first);
            mp_get_array_exact(r, ANSWER_ITEMS);
            for (unsigned k = 0; k < ANSWER_ITEMS; k++) {
                a->v[2 + k] = mp_get_uint(r);
            }
        }
    }
    if (p->n_answers > 0) {
        qsort(p->answers, p->n_answers, sizeof(*p->answers), answer_compare);
    }
}

static void state_read(struct picture *p, struct mp_reader *r)
{
    uint32_t members;

    mp_get_array_exact(r, STATE_ITEMS);
    p->state[p->n_state++] = mp_get_uint(r);
    members = mp_get_array(r);
    for (uint32_t i = 0; i < members && p->n_state < NUMBERS_MAX / 2; i++) {
        p->state[p->n_state++] = mp_get_uint(r);
    }
    for (unsigned i = 0; i < 6; i++) { /* commit, flush mark, horizon */
        p->state[p->n_state++] = mp_get_uint(r);
    }
    p->time_usec = mp_get_uint(r);
    p->digest = mp_get_uint(r);
    p->history = (struct piece){ .p = r->p };
    mp_skip_n(r, 2); /* view table, catch-up */
    p->history.bytes = (size_t) (r->p - p->history.p);
    sessions_read(p, r);
    p->tail = (struct piece){ r->p, (size_t) (r->end - r->p) };
}

/* Where it lies doesn't count. */
static void record_unplace(struct picture *p, const uint8_t *at)
{
    size_t offset = (size_t) (at - buf_head(&p->bytes));

    memset(buf_head(&p->bytes) + offset + 1 + at[0] + 8, 0, 8);
}

static void records_read(struct picture *p, const uint8_t *at, uint64_t n)
{
    p->n_records = n;
    p->records = mem_zalloc(n + 1, sizeof(*p->records));
    for (uint64_t i = 0; i < n; i++) {
        p->records[i] = (struct piece){ at, 1 + (size_t) at[0] + INDEX_RECORD_BYTES };
        record_unplace(p, at);
        at += p->records[i].bytes;
    }
    qsort(p->records, n, sizeof(*p->records), piece_compare);
}

static bool picture_take(struct picture *p, const struct shard *shard, uint16_t partition)
{
    struct position x;
    uint64_t group;
    struct mp_reader r;
    const uint8_t *head;

    *p = (struct picture){ 0 };
    if (checkpoint_take(shard, partition, &p->bytes, NULL, &x, &group) < 0) {
        return false;
    }
    head = buf_head(&p->bytes);
    r = mp_reader_of(head + CHECKPOINT_HEAD_BYTES, bytes_get_u32(head + 20));
    state_read(p, &r);
    records_read(p, r.end, bytes_get_u64(head + 24));
    return !r.failed;
}

static bool is_flushed(const struct picture *p, const struct index_record *rec)
{
    return rec->seq < p->state[p->n_state - 4];
}

/* Does nobody see the record any more? */
static bool is_over(const struct sim *s, const struct picture *p, const struct index_record *rec)
{
    uint64_t now_sec = UINT64_C(1700000000) + s->now_usec / USEC_PER_SEC + 100;

    return rec->kind == ENTRY_DELETE || is_flushed(p, rec) ||
           (rec->expiry_sec != 0 && rec->expiry_sec + 600 <= now_sec);
}

/* May compaction have dropped the record? */
static bool is_dead(const struct sim *s, const struct picture *p, const struct index_record *rec)
{
    return rec->seq <= p->state[p->n_state - 1] && is_over(s, p, rec);
}

/* A generation that was taken in the middle of a compaction, at a stop, may have dead records that
 * the log, before its X, says are gone. */
static const char *records_differ(const struct sim *s, const struct picture *a,
                                  const struct picture *log)
{
    size_t j = 0;

    for (size_t i = 0; i < a->n_records; i++) {
        struct index_record rec =
            index_record_decode(a->records[i].p + a->records[i].bytes - INDEX_RECORD_BYTES);
        if (j < log->n_records && piece_compare(&a->records[i], &log->records[j]) == 0) {
            j++;
        } else if (!is_dead(s, log, &rec)) {
            return "a record";
        }
    }
    return j < log->n_records ? "a record that is missing" : NULL;
}

/* What differs between a start from checkpoints and the log alone, NULL: nothing. */
static const char *pictures_differ(const struct sim *s, const struct picture *a,
                                   const struct picture *log)
{
    if (a->n_state != log->n_state ||
        memcmp(a->state, log->state, a->n_state * sizeof(*a->state)) != 0) {
        return "view, members, commit, flush mark or horizon";
    }
    if (a->digest != log->digest) {
        return "the digest";
    }
    if (piece_compare(&a->history, &log->history) != 0) {
        return "the view table";
    }
    if (piece_compare(&a->tail, &log->tail) != 0) {
        return "the tail";
    }
    if (a->time_usec < log->time_usec) {
        return "time, which has fallen";
    }
    if (a->n_answers != log->n_answers ||
        (a->n_answers > 0 &&
         memcmp(a->answers, log->answers, a->n_answers * sizeof(*a->answers)) != 0)) {
        return "the sessions";
    }
    return records_differ(s, a, log);
}

/* A checkpoint may know of a commit that the log has not noted yet: the log alone hears of it now.
 */
static bool commit_equal(struct shard *scratch, const struct shard *shard, uint16_t partition)
{
    struct replica_info a = { 0 };
    struct replica_info log = { 0 };
    uint8_t bytes[FRAME_COMMIT_BYTES];
    struct frame f = { .kind = FRAME_COMMIT, .partition = partition };

    (void) shard_replica_info(shard, partition, &a);
    (void) shard_replica_info(scratch, partition, &log);
    if (a.commit.seq <= log.commit.seq) {
        return true;
    }
    frame_commit_encode(a.commit, 0, bytes);
    f.payload = bytes;
    f.payload_bytes = sizeof(bytes);
    return shard_replay_frame(scratch, &f, (struct position){ UINT32_MAX, 0 }) == 0;
}

static void partition_check(struct sim *s, const struct server *sv, struct shard *scratch,
                            uint16_t partition)
{
    const struct shard *shard = sv->shards[partition % sv->n_shards].shard;
    struct replica_info a = { 0 };
    struct replica_info b = { 0 };
    struct picture pictures[2];
    const char *what = "what is committed";

    pictures[0] = pictures[1] = (struct picture){ 0 };
    if (commit_equal(scratch, shard, partition)) {
        what = picture_take(&pictures[0], shard, partition) &&
                       picture_take(&pictures[1], scratch, partition)
                   ? pictures_differ(s, &pictures[0], &pictures[1])
                   : "one can't be read";
    }
    if (what) {
        (void) shard_replica_info(shard, partition, &a);
        (void) shard_replica_info(scratch, partition, &b);
        sim_fail(s,
                 "server %u, partition %u: generation %llu and the log behind it lead to another "
                 "state than the whole log: %s (view %u, commit %llu, last %llu; by the log %u, "
                 "%llu, %llu)",
                 sv->index + 1, partition, (llu) sv->good_generation, what, a.view,
                 (llu) a.commit.seq, (llu) a.last.seq, b.view, (llu) b.commit.seq,
                 (llu) b.last.seq);
    }
    picture_free(&pictures[0]);
    picture_free(&pictures[1]);
}

/* A replay into a scratch shard, and the frame that it could not take. */
struct scratch {
    struct shard *shard;
    struct frame bad;
    struct position at;
};

static int scratch_frame(void *ctx, const struct frame *f, struct position at)
{
    struct scratch *x = ctx;
    int r = shard_replay_frame(x->shard, f, at);

    if (r < 0) {
        x->bad = *f;
        x->at = at;
    }
    return r;
}

static int segment_compare(const void *a, const void *b)
{
    const struct wal_segment *x = a;
    const struct wal_segment *y = b;

    return (x->number > y->number) - (x->number < y->number);
}

/* The log as if nothing had ever been compacted away. */
static int segments_all(const struct server *sv, struct wal_segment **ret)
{
    size_t n = (size_t) server_segments(sv, false, ret);
    struct wal_segment *v = mem_zalloc(n + sv->attic.n + 1, sizeof(*v));
    size_t bytes;

    memcpy(v, *ret, n * sizeof(*v));
    free(*ret);
    *ret = v;
    for (size_t i = 0; i < sv->attic.n; i++) {
        struct file *f = sv->attic.files[i];
        if (!disk_file(&sv->disk, f->number, &bytes)) {
            v[n].number = f->number;
            v[n].data = buf_head(&f->cache);
            v[n++].bytes = buf_len(&f->cache);
        }
    }
    qsort(v, n, sizeof(*v), segment_compare);
    return (int) n;
}

static struct shard *scratch_new(struct sim *s, struct server *sv)
{
    struct shard *scratch = NULL;
    struct shard_options o;

    server_shard_options(s, sv, 0, 1, &o);
    o.index_open = index_map_open;
    o.distrusted = false;
    if (shard_new(&o, &scratch) < 0) {
        sim_fail(s, "server %u: no scratch shard", sv->index + 1);
    }
    return scratch;
}

/* Replays all of the log into one shard that has every partition. */
static struct shard *scratch_make(struct sim *s, struct server *sv)
{
    _cleanup_free_ struct wal_segment *v = NULL;
    int n = segments_all(sv, &v);
    struct shard *scratch = scratch_new(s, sv);
    struct wal_damage d;
    int r;

    if (!scratch || wal_check(v, (size_t) n, NULL, &d) < 0) {
        sim_fail(s, "server %u: the whole log can't be read beside generation %llu", sv->index + 1,
                 (llu) sv->good_generation);
        return scratch;
    }
    for (int i = 0; i < n && !s->failed; i++) {
        r = v[i].good_bytes > 0
                ? wal_walk(&v[i], scratch_frame, &(struct scratch){ .shard = scratch })
                : 0;
        if (r < 0 || v[i].good_bytes < v[i].bytes) {
            sim_fail(s, "server %u: segment %u, below generation %llu, is bad from byte %zu on",
                     sv->index + 1, v[i].number, (llu) sv->good_generation, v[i].good_bytes);
        }
    }
    shard_replay_end(scratch);
    return scratch;
}

void oracle_check(struct sim *s, struct server *sv)
{
    struct shard *scratch = scratch_make(s, sv);

    for (uint32_t p = 0; p < sv->super.partitions && !s->failed; p++) {
        partition_check(s, sv, scratch, (uint16_t) p);
    }
    shard_free(scratch);
}

/* ---- what is kept must be enough ---- */

/* A pending entry is where the tail says. */
static void tail_check(struct sim *s, const struct server *sv, struct shard *scratch,
                       uint16_t partition, bool power, const char *when)
{
    struct picture p;
    struct mp_reader r;
    uint32_t n;

    if (picture_take(&p, scratch, partition)) {
        r = mp_reader_of(p.tail.p, p.tail.bytes);
        n = mp_get_array(&r);
        for (uint32_t i = 0; i < n && !r.failed && !s->failed; i++) {
            struct position at;
            struct entry e = { 0 };
            size_t bytes;
            const uint8_t *entry;
            mp_get_array_exact(&r, 3);
            entry = mp_get_bin(&r, ENTRY_BYTES_MAX, &bytes);
            at.segment = (uint32_t) mp_get_uint_max(&r, UINT32_MAX);
            at.offset = (uint32_t) mp_get_uint_max(&r, UINT32_MAX);
            if (!r.failed && entry_decode(entry, bytes, &e) == 0 && e.key_len > 0 &&
                !(power ? disk_read_durable(&sv->disk, at, bytes)
                        : disk_read(&sv->disk, at, bytes))) {
                sim_fail(s,
                         "server %u, partition %u, %s: the pending entry (%u, %llu) is in segment "
                         "%u, which is gone",
                         sv->index + 1, partition, when, e.name.view, (llu) e.name.seq, at.segment);
            }
        }
    }
    picture_free(&p);
}

static void generation_try(struct sim *s, struct server *sv, uint64_t generation, bool power)
{
    _cleanup_free_ struct wal_segment *v = NULL;
    int n = server_segments(sv, power, &v);
    struct shard *scratch = scratch_new(s, sv);
    struct wal_damage d = { .what = "the generation is bad" };
    struct scratch x = { .shard = scratch };
    char what[80];
    char when[80];
    _cleanup_(wal_floor_free) struct wal_floor floor = { 0 };
    int r = checkpoints_try(sv, generation, scratch, &floor);

    snprintf(when, sizeof(when), "in a start from generation %llu%s", (llu) generation,
             power ? " after a power loss" : "");
    if (r == 0) {
        r = wal_check(v, (size_t) n, &floor, &d);
    }
    for (int i = 0; i < n && r == 0; i++) {
        if (!v[i].trusted && v[i].good_bytes > 0) {
            r = wal_walk(&v[i], scratch_frame, &x);
            snprintf(what, sizeof(what), "frame of kind %u of partition %u contradicts the log",
                     x.bad.kind, x.bad.partition);
            d = (struct wal_damage){ v[i].number, x.at.offset, what };
        }
    }
    if (r < 0) {
        sim_fail(s, "server %u, %s: segment %u, offset %llu: %s", sv->index + 1, when, d.segment,
                 (llu) d.offset, d.what);
    } else {
        shard_replay_end(scratch);
        readable_check(s, sv, scratch, 0, 1, power, when);
    }
    for (uint32_t p = 0; p < sv->super.partitions && !s->failed; p++) {
        tail_check(s, sv, scratch, (uint16_t) p, power, when);
    }
    shard_free(scratch);
}

void oracle_generations(struct sim *s, struct server *sv)
{
    for (unsigned i = 0; i < 2 && !s->failed; i++) {
        if (sv->published[i] != 0) {
            generation_try(s, sv, sv->published[i], sim_chance(s, 1, 2));
        }
    }
}

bool oracle_is_dead(struct sim *s, const struct server *sv, uint16_t partition,
                    const struct index_record *rec, bool forgotten)
{
    struct picture p;
    bool dead = picture_take(&p, sv->shards[partition % sv->n_shards].shard, partition) &&
                (forgotten ? is_dead(s, &p, rec) || is_flushed(&p, rec) : is_over(s, &p, rec));

    picture_free(&p);
    return dead;
}
