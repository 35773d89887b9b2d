/* One partition's replica: its views, its tail, and what a commit does. Never sends or proposes by
 * itself outside of the rules named at each function. */
#include "core/replica.h"

#include "base/cleanup.h"
#include "base/mem.h"
#include "base/sm.h"
#include "core/hashspace.h"
#include "wire/mc_number.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RING_ENTRIES_MIN 4

const struct sm_table replica_sm = {
    .name = "replica",
    .n_states = _REPLICA_STATE_MAX,
    .state_names = { "none", "waiting", "entering", "reconciling", "primary", "secondary",
                     "learner" },
    .next = {
        [REPLICA_NONE] = SM_TO(REPLICA_WAITING) | SM_TO(REPLICA_ENTERING) | SM_TO(REPLICA_LEARNER),
        [REPLICA_WAITING] = SM_TO(REPLICA_WAITING) | SM_TO(REPLICA_ENTERING) | SM_TO(REPLICA_NONE),
        [REPLICA_ENTERING] = SM_TO(REPLICA_RECONCILING) | SM_TO(REPLICA_SECONDARY) |
                             SM_TO(REPLICA_LEARNER) | SM_TO(REPLICA_WAITING) | SM_TO(REPLICA_ENTERING) | SM_TO(REPLICA_NONE),
        [REPLICA_RECONCILING] = SM_TO(REPLICA_PRIMARY) | SM_TO(REPLICA_WAITING) |
                                SM_TO(REPLICA_ENTERING) | SM_TO(REPLICA_NONE),
        [REPLICA_PRIMARY] = SM_TO(REPLICA_WAITING) | SM_TO(REPLICA_ENTERING) | SM_TO(REPLICA_NONE),
        [REPLICA_SECONDARY] = SM_TO(REPLICA_WAITING) | SM_TO(REPLICA_ENTERING) |
                              SM_TO(REPLICA_NONE),
        [REPLICA_LEARNER] = SM_TO(REPLICA_WAITING) | SM_TO(REPLICA_ENTERING) | SM_TO(REPLICA_NONE),
    },
};

const char *replica_state_name(uint8_t state)
{
    return state < _REPLICA_STATE_MAX ? replica_sm.state_names[state] : "unknown";
}

void replica_init(struct shard *s, struct replica *r, uint16_t partition)
{
    (void) s;
    *r = (struct replica){ .partition = partition };
    list_init(&r->in_unsynced);
    list_init(&r->in_acks);
    list_init(&r->in_commits);
    list_init(&r->in_told);
    list_init(&r->in_entering);
    list_init(&r->in_sealing);
    list_init(&r->in_completing);
    list_init(&r->in_leasing);
    list_init(&r->in_taking);
    list_init(&r->leased_ops);
    r->taken = UINT64_MAX;
}

/* Puts a replica on one of its shard's lists, once. */
static void enlist(struct list *list, struct list *node)
{
    if (list_empty(node)) {
        list_push_back(list, node);
    }
}

/* ---- the tail ---- */

static uint64_t key_hash(const struct entry *e)
{
    return hashspace_hash(e->key, e->key_len);
}

struct tail_entry *replica_pending(const struct shard *s, const struct replica *r,
                                   const uint8_t *key, size_t key_len)
{
    struct map_node *i = map_first(&s->pending_keys, hashspace_hash(key, key_len));

    for (; i; i = map_next(i)) {
        struct tail_entry *te = MAP_ENTRY(i, struct tail_entry, by_key);
        if (te->e.partition == r->partition && te->e.key_len == key_len &&
            memcmp(te->e.key, key, key_len) == 0) {
            return te;
        }
    }
    return NULL;
}

/* The map holds the newest entry of each key; the others hang behind it, so that a key with
 * thousands of pending writes costs no more than any other. */
static void pending_add(struct shard *s, struct replica *r, struct tail_entry *te)
{
    te->newer = NULL;
    te->older = replica_pending(s, r, te->e.key, te->e.key_len);
    if (te->older) {
        map_remove(&s->pending_keys, &te->older->by_key);
        te->older->newer = te;
    }
    map_insert(&s->pending_keys, &te->by_key, key_hash(&te->e));
}

static void pending_remove(struct shard *s, struct tail_entry *te)
{
    if (te->older) {
        te->older->newer = te->newer;
    }
    if (te->newer) {
        te->newer->older = te->older;
        return;
    }
    map_remove(&s->pending_keys, &te->by_key);
    if (te->older) {
        map_insert(&s->pending_keys, &te->older->by_key, key_hash(&te->older->e));
    }
}

static void tail_entry_bury(struct shard *s, struct replica *r, struct tail_entry *te)
{
    if (te->e.key_len > 0) {
        pending_remove(s, te);
    }
    if (te->e.op.session != 0) {
        map_remove(&s->pending_ops, &te->by_op);
    }
    if (r->pending_flush == te) {
        r->pending_flush = NULL;
    }
    s->tail_bytes -= te->n_bytes;
    list_push_back(&s->graveyard, &te->dead);
}

static void ring_push(struct replica *r, struct tail_entry *te)
{
    if (r->n_tail == r->ring_cap) {
        size_t cap = r->ring_cap ? r->ring_cap * 2 : RING_ENTRIES_MIN;
        struct tail_entry **ring = mem_alloc(cap * sizeof(struct tail_entry *));
        for (size_t i = 0; i < r->n_tail; i++) {
            ring[i] = r->ring[(r->ring_head + i) & (r->ring_cap - 1)];
        }
        free(r->ring);
        r->ring = ring;
        r->ring_cap = cap;
        r->ring_head = 0;
    }
    r->ring[(r->ring_head + r->n_tail) & (r->ring_cap - 1)] = te;
    r->n_tail++;
}

struct tail_entry *replica_push(struct shard *s, struct replica *r, const uint8_t *bytes,
                                size_t n_bytes, const struct position *at)
{
    struct tail_entry *te = mem_alloc(sizeof(*te) + n_bytes);
    int err;

    memcpy(te->bytes, bytes, n_bytes);
    te->n_bytes = n_bytes;
    err = entry_decode_trusted(te->bytes, n_bytes, &te->e);
    kumo_assert(err == 0);
    kumo_assert(te->e.name.seq == r->last.seq + 1);
    kumo_assert(te->e.prev_view == r->last.view);
    list_init(&te->waiters);
    if (at) {
        te->at = *at;
        te->group = 0;
    } else {
        te->at = wal_append(&s->log, FRAME_PREPARE, r->partition, r->view, te->bytes, n_bytes);
        te->group = s->log.group;
        enlist(&s->unsynced, &r->in_unsynced);
    }
    if (r->n_tail == 0) {
        r->progress_usec = r->commit_usec = s->now.boot_usec; /* the wait begins now */
    }
    ring_push(r, te);
    r->last = te->e.name;
    view_runs_add(r, r->last);
    s->tail_bytes += n_bytes;
    s->prepared_bytes += n_bytes;
    if (te->e.key_len > 0) {
        pending_add(s, r, te);
    }
    if (te->e.op.session != 0) {
        map_insert(&s->pending_ops, &te->by_op, propose_op_hash(r->partition, &te->e.op));
    }
    if (te->e.kind == ENTRY_FLUSH) {
        r->pending_flush = te;
        flush_apply(&r->flush_pending, &te->e);
    }
    r->time_usec =
        MAX_OF(r->time_usec, te->e.time_usec); /* R13: no stamp below it, whoever leads */
    return te;
}

static void waiter_refuse(struct shard *s, const struct replica *r, struct waiter *w)
{
    struct action *a = actions_add(s->out, ACTION_RESULT);

    a->answer.asker = w->asker;
    a->answer.result =
        (struct result){ .id = w->asker.id, .code = RESULT_NOT_PRIMARY, .number = r->view };
    list_remove(&w->link);
    list_push_back(&s->free_waiters, &w->link);
}

static void entry_release_waiters(struct shard *s, const struct replica *r, struct tail_entry *te)
{
    LIST_FOR_EACH_SAFE(i, &te->waiters)
    {
        waiter_refuse(s, r, LIST_ENTRY(i, struct waiter, link));
    }
}

void replica_release_waiters(struct shard *s, struct replica *r)
{
    for (uint64_t seq = r->commit.seq + 1; seq <= r->last.seq; seq++) {
        entry_release_waiters(s, r, replica_tail(r, seq));
    }
}

void replica_waiter_add(struct shard *s, struct tail_entry *te, const struct waiter *waiter)
{
    struct waiter *w;

    if (list_empty(&s->free_waiters)) {
        w = mem_alloc(sizeof(*w));
    } else {
        w = LIST_ENTRY(s->free_waiters.next, struct waiter, link);
        list_remove(&w->link);
    }
    *w = *waiter;
    w->asked_usec = s->asked_usec;
    list_init(&w->link);
    list_push_back(&te->waiters, &w->link);
}

/* The tail's flushes, after a cut. */
static void pending_flush_find(struct replica *r)
{
    r->pending_flush = NULL;
    r->flush_pending = r->flush;
    for (uint64_t seq = r->commit.seq + 1; seq <= r->last.seq; seq++) {
        struct tail_entry *te = replica_tail(r, seq);
        if (te->e.kind == ENTRY_FLUSH) {
            r->pending_flush = te;
            flush_apply(&r->flush_pending, &te->e);
        }
    }
}

void replica_cut(struct shard *s, struct replica *r, uint64_t seq)
{
    kumo_assert(seq > r->commit.seq); /* R1: above the commit only */
    while (r->last.seq >= seq) {
        struct tail_entry *te = replica_tail(r, r->last.seq);
        struct tail_entry *before = replica_tail(r, r->last.seq - 1);
        entry_release_waiters(s, r, te);
        tail_entry_bury(s, r, te);
        r->n_tail--;
        r->last = before ? before->e.name : r->commit;
    }
    view_runs_cut(r, r->last.seq);
    r->durable_seq = MIN_OF(r->durable_seq, r->last.seq);
    r->matched_seq = MIN_OF(r->matched_seq, r->last.seq);
    pending_flush_find(r);
}

void replica_free(struct shard *s, struct replica *r)
{
    for (uint64_t seq = r->commit.seq + 1; seq <= r->last.seq; seq++) {
        struct tail_entry *te = replica_tail(r, seq);
        list_splice(&s->free_waiters, &te->waiters);
        tail_entry_bury(s, r, te);
    }
    free(r->ring);
    free(r->runs);
    if (r->named) {
        r->named->ops->free(r->named);
    }
    session_table_free(&r->sessions);
    if (r->index) {
        r->index->ops->free(r->index);
    }
}

/* ---- time ---- */

uint64_t replica_now(struct shard *s, struct replica *r)
{
    int64_t clocks[REPLICAS_MAX + 1] = { (int64_t) s->now.real_usec };
    unsigned n = 1;

    for (unsigned i = 0; i < r->n_members; i++) {
        uint32_t server = r->members[i].server;
        int64_t v;
        unsigned j;
        if (server == s->o.server || server >= s->n_peers || !s->peers[server].clock_known) {
            continue;
        }
        v = s->peers[server].clock_offset_usec + (int64_t) s->now.boot_usec;
        for (j = n++; j > 0 && clocks[j - 1] > v; j--) {
            clocks[j] = clocks[j - 1];
        }
        clocks[j] = v;
    }
    /* R13: the median of the replicas' clocks, never below what was given out. While most of them
     * are not known, after a restart, a single wrong one would move the time of all. */
    if (n * 2 <= r->n_members && r->time_usec != 0) {
        return r->time_usec;
    }
    r->time_usec = MAX_OF(r->time_usec, (uint64_t) MAX_OF(clocks[(n - 1) / 2], 0));
    return r->time_usec;
}

uint64_t replica_told_time(struct shard *s, struct replica *r)
{
    return r->state == REPLICA_PRIMARY ? replica_now(s, r) : r->time_usec;
}

bool flush_covers(const struct flush_mark *f, uint64_t seq, uint64_t stamp_usec, uint64_t now_usec)
{
    return seq < f->seq || stamp_usec < f->past_usec ||
           (f->at_usec != 0 && now_usec >= f->at_usec && stamp_usec < f->at_usec);
}

void flush_apply(struct flush_mark *f, const struct entry *e)
{
    uint64_t at_usec = e->expiry_sec * UINT64_C(1000000);

    if (f->at_usec != 0 && e->time_usec >= f->at_usec) {
        f->past_usec = MAX_OF(f->past_usec, f->at_usec);
    }
    f->at_usec = 0;
    if (at_usec <= e->time_usec) {
        f->seq = e->name.seq;
    } else {
        f->at_usec = at_usec;
    }
}

/* ---- index ---- */

uint64_t replica_digest_of(const struct replica *r, const uint8_t *key, size_t key_len,
                           const struct index_record *rec)
{
    if (rec->kind != ENTRY_SET || rec->expiry_sec != 0 || rec->seq < r->flush.seq) {
        return 0;
    }
    return map_hash_u64(hashspace_hash(key, key_len) ^ map_hash_u64(rec->seq));
}

void replica_index_put(struct shard *s, struct replica *r, const uint8_t *key, size_t key_len,
                       const struct index_record *rec)
{
    struct index_record old;
    int replaced = r->index->ops->put(r->index, key, key_len, rec, &old);

    if (replaced < 0) {
        shard_halt(s, "no memory for the index");
        return;
    }
    if (replaced > 0) {
        r->digest -= replica_digest_of(r, key, key_len, &old);
        r->n_expiring -= old.expiry_sec != 0;
    }
    r->digest += replica_digest_of(r, key, key_len, rec);
    r->n_expiring += rec->expiry_sec != 0;
}

void replica_index_drop(struct replica *r, const uint8_t *key, size_t key_len)
{
    struct index_record old;

    if (r->index->ops->drop(r->index, key, key_len, &old) > 0) {
        r->digest -= replica_digest_of(r, key, key_len, &old);
        r->n_expiring -= old.expiry_sec != 0;
    }
}

/* ---- commit ---- */

static void session_apply(struct replica *r, const struct entry *e)
{
    struct session_answer answer = {
        .number = e->op.number, .at = e->name, .code = e->answer, .cas = e->cas
    };

    if (e->op.session == 0) {
        return;
    }
    if (e->kind == ENTRY_SESSION) {
        session_table_end(&r->sessions, e->op.session, e->cas);
        return;
    }
    if (e->answer == RESULT_NUMBER) {
        (void) mc_parse_counter(e->value, e->value_len, &answer.value);
    }
    session_record(&r->sessions, &e->op, &answer);
}

static void apply(struct shard *s, struct replica *r, const struct tail_entry *te)
{
    const struct entry *e = &te->e;
    struct index_record rec = {
        .seq = e->name.seq,
        .at = te->at,
        .bytes = (uint32_t) te->n_bytes,
        .expiry_sec = e->expiry_sec,
        .kind = e->kind,
    };

    if (e->kind == ENTRY_FLUSH) {
        flush_apply(&r->flush, e);
        if (r->flush.seq == e->name.seq) {
            r->digest = 0; /* nothing that is in the index now counts any more */
        }
    } else if (e->key_len > 0) {
        replica_index_put(s, r, e->key, e->key_len, &rec);
    }
    session_apply(r, e);
    r->time_usec = MAX_OF(r->time_usec, e->time_usec);
}

void replica_commit_to(struct shard *s, struct replica *r, uint64_t seq)
{
    kumo_assert(seq <= r->durable_seq); /* R2: durable here too */
    while (r->commit.seq < seq && !s->halted) {
        struct tail_entry *te = replica_tail(r, r->commit.seq + 1);
        apply(s, r, te);
        if (s->halted) {
            return;
        }
        r->commit = te->e.name;
        r->ring_head = (r->ring_head + 1) & (r->ring_cap - 1);
        r->n_tail--;
        LIST_FOR_EACH_SAFE(i, &te->waiters)
        {
            struct waiter *w = LIST_ENTRY(i, struct waiter, link);
            propose_answer(s, r, w, te);
            list_remove(i);
            list_push_back(&s->free_waiters, i);
        }
        tail_entry_bury(s, r, te);
        enlist(&s->commits, &r->in_commits);
        if (r->n_members + r->n_learners > 1) {
            enlist(&s->told, &r->in_told);
        }
    }
    r->progress_usec = r->commit_usec = s->now.boot_usec;
    r->doubted = r->doubted && r->commit.view != r->view; /* the view's no-op is here */
    replica_serve(s, r);
    if (r->resigned) {
        replica_resign(s, r);
    }
}

/* R5: the view's own entry. Of a view of this server alone it commits at once, and a restarted
 * process takes it for the proof that nobody holds a lease from here (R10): there it waits until
 * that is true. */
static void begin_view(struct shard *s, struct replica *r)
{
    if (r->state == REPLICA_RECONCILING && r->last.view < r->view &&
        (r->n_members > 1 || s->now.boot_usec >= r->act_usec)) {
        propose_noop(s, r);
    }
}

void replica_serve(struct shard *s, struct replica *r)
{
    begin_view(s, r);
    if (r->state == REPLICA_RECONCILING && r->commit.view == r->view &&
        s->now.boot_usec >= r->act_usec) {
        sm_move(&replica_sm, &r->state, REPLICA_PRIMARY); /* R5, R10 */
    }
}

void replica_try_commit(struct shard *s, struct replica *r)
{
    uint64_t seq = r->durable_seq; /* R2: the primary's own log counts like any other */

    for (unsigned i = 1; i < r->n_members + r->n_learners; i++) {
        const struct member *m = &r->members[i];
        if (!replica_is_learner(r, m) || m->joint) { /* R8 */
            seq = MIN_OF(seq, m->acked_seq);
        }
    }
    if (seq > r->commit.seq) {
        replica_commit_to(s, r, seq);
    }
}

void replica_sync(struct shard *s, struct replica *r)
{
    struct tail_entry *te;

    while ((te = replica_tail(r, r->durable_seq + 1)) && wal_is_synced(&s->log, te->group)) {
        r->durable_seq++;
    }
    if (r->durable_seq == r->last.seq) {
        list_remove(&r->in_unsynced);
    }
    if (replica_is_primary(r)) {
        replica_try_commit(s, r);
    }
}

/* ---- views ---- */

static bool members_equal(const struct replica *r, const struct view_row *row)
{
    bool equal = r->n_members == row->n_members;

    for (unsigned i = 0; equal && i < row->n_members; i++) {
        equal = r->members[i].server == row->members[i];
    }
    return equal;
}

static enum view_part part_of(const struct shard *s, const struct view_row *row, bool floor)
{
    for (unsigned i = 0; i < row->n_members; i++) {
        if (row->members[i] == s->o.server) {
            return floor ? VIEW_WAITING : i == 0 ? VIEW_PRIMARY : VIEW_SECONDARY;
        }
    }
    for (unsigned i = 0; i < row->n_learners; i++) {
        if (row->learners[i] == s->o.server) {
            return VIEW_LEARNER; /* it counts for nothing: an earlier process's is as good (R6) */
        }
    }
    return VIEW_NONE;
}

struct member *replica_member(struct replica *r, uint32_t server)
{
    for (unsigned i = 0; i < r->n_members + r->n_learners; i++) {
        if (r->members[i].server == server) {
            return &r->members[i];
        }
    }
    return NULL;
}

void replica_reconfig(struct shard *s, struct replica *r, enum reconfig_kind kind, uint32_t server,
                      uint64_t incarnation)
{
    struct action *a;

    if (s->now.boot_usec < r->reconfig_usec || !wal_is_synced(&s->log, r->view_group) ||
        !wal_is_synced(&s->log, r->base_group)) {
        return; /* R4: nothing is said in a view that is not durable */
    }
    r->reconfig_usec = s->now.boot_usec + SHARD_ACCUSE_USEC;
    a = actions_add(s->out, ACTION_RECONFIG);
    a->reconfig =
        (struct msg_reconfig){ r->partition, r->view, (uint8_t) kind, server, incarnation };
}

/* R4: the view, and what this server is in it, goes to the log before anything is done in it. */
static void view_log(struct shard *s, struct replica *r, enum view_part part)
{
    struct frame_view v = { .part = (uint8_t) part, .n_members = r->n_members };
    uint8_t bytes[FRAME_VIEW_BYTES_MAX];

    for (unsigned i = 0; i < r->n_members; i++) {
        v.members[i] = r->members[i].server;
    }
    wal_append(&s->log, FRAME_VIEW, r->partition, r->view, bytes, frame_view_encode(&v, bytes));
    r->view_group = s->log.group;
}

/* Leaves whatever was going on in the view, for the given one: who waits hears of that. */
static void view_leave(struct shard *s, struct replica *r, uint32_t next)
{
    if (replica_is_primary(r)) {
        lease_give_back(s, r);
    }
    r->view = next;
    learner_dismiss(s, r);
    replica_release_waiters(s, r);
    parked_refuse(s, r);
    list_remove(&r->in_leasing);
    list_remove(&r->in_taking);
    list_remove(&r->in_acks);
    list_remove(&r->in_told);
    list_remove(&r->in_entering);
    list_remove(&r->in_sealing);
    r->ack_owed = false;
    r->asked = false;
    r->heard_commit_seq = 0;
    r->resigned = false;
    r->taken = UINT64_MAX;
}

static void members_set(struct replica *r, const struct view_row *row)
{
    r->n_members = row->n_members;
    r->n_learners = row->n_learners;
    for (unsigned i = 0; i < row->n_members; i++) {
        r->members[i] = (struct member){ .server = row->members[i] };
    }
    for (unsigned i = 0; i < row->n_learners; i++) {
        r->members[row->n_members + i] = (struct member){ .server = row->learners[i] };
    }
}

/* A row of the view that is known: after a restart it tells the learners. */
static void view_again(struct shard *s, struct replica *r, const struct view_row *row,
                       enum view_part part)
{
    if (!members_equal(r, row)) {
        shard_halt(s, "two memberships with one view number"); /* R9 */
    } else if (part == VIEW_LEARNER && r->state == REPLICA_NONE) {
        members_set(r, row);
        sm_move(&replica_sm, &r->state, REPLICA_LEARNER);
        learner_begin(s, r);
    }
}

void replica_view(struct shard *s, struct replica *r, const struct view_row *row, bool floor)
{
    enum view_part part = part_of(s, row, floor);

    if (row->view < r->view) {
        if (floor) {
            shard_halt(
                s, "the manager knows older views than this server: its data was lost or restored");
        }
        return; /* R4: lower views are refused for ever */
    }
    if (row->view == r->view) {
        view_again(s, r, row, part);
        return;
    }
    view_leave(s, r, row->view);
    r->time_usec = MAX_OF(r->time_usec, row->time_usec);
    r->progress_usec = s->now.boot_usec;
    r->reconfig_usec = 0;
    members_set(r, row);
    view_log(s, r, part);
    replica_born(r, row->view, part);
    if (part == VIEW_NONE) {
        if (r->state != REPLICA_NONE) {
            sm_move(&replica_sm, &r->state, REPLICA_NONE);
        }
    } else if (part == VIEW_WAITING) {
        sm_move(&replica_sm, &r->state, REPLICA_WAITING);
    } else {
        sm_move(&replica_sm, &r->state, REPLICA_ENTERING);
        enlist(&s->entering, &r->in_entering);
    }
}

static void enter_primary(struct shard *s, struct replica *r)
{
    bool begin_counts = s->o.log.start > 1 && !r->alone;

    /* R10: every promise to another process, those of an earlier process of this server included */
    r->act_usec = MAX_OF(lease_promised_until(r, s->o.server),
                         begin_counts ? s->begin_usec + PROMISE_USEC : 0);
    r->rotten = false; /* nobody else had more: what can be read is served */
    sm_move(&replica_sm, &r->state, REPLICA_RECONCILING);
    for (unsigned i = 1; i < r->n_members; i++) {
        r->members[i].heard_usec = s->now.boot_usec;
        stream_resend(s, r, r->members[i].server, r->commit.seq); /* R5: the whole tail… */
    }
    begin_view(s, r); /* …then a no-op */
    if (r->n_members > 1) {
        lease_want(s, r);
    }
}

static void enter_secondary(struct shard *s, struct replica *r)
{
    struct action *a;

    sm_move(&replica_sm, &r->state, REPLICA_SECONDARY);
    r->matched_seq = r->commit.seq;
    r->acked_seq = 0;
    r->heard_usec = s->now.boot_usec;
    a = actions_add(s->out, ACTION_RESEND);
    a->server = r->members[0].server;
    a->note = (struct msg_at){ r->partition, r->view, r->commit.seq };
}

void replica_enter(struct shard *s, struct replica *r)
{
    const struct member *self = replica_member(r, s->o.server);

    list_remove(&r->in_entering);
    r->progress_usec = s->now.boot_usec;
    if (replica_is_learner(r, self)) {
        sm_move(&replica_sm, &r->state, REPLICA_LEARNER);
        if (r->rotten) { /* R15: others lead, with all that was committed */
            replica_begin_dropped(s, r);
        }
        r->acked_seq = 0;
        learner_begin(s, r);
    } else if (r->incomplete) {
        sm_move(&replica_sm, &r->state, REPLICA_WAITING); /* R17: it asks to be a learner */
    } else if (self == r->members) {
        enter_primary(s, r);
    } else {
        enter_secondary(s, r);
    }
}

/* ---- leaving by itself ---- */

/* The member that was heard last. */
static uint32_t successor(const struct replica *r)
{
    const struct member *best = &r->members[1];

    for (unsigned i = 2; i < r->n_members; i++) {
        best = r->members[i].granted_usec > best->granted_usec ? &r->members[i] : best;
    }
    return best->server;
}

void replica_resign(struct shard *s, struct replica *r)
{
    r->resigned = true; /* it takes no more writes… */
    if (r->state == REPLICA_PRIMARY && r->n_tail == 0) {
        view_leave(s, r, r->view);
        sm_move(&replica_sm, &r->state, REPLICA_WAITING);
        r->resigned = true;
        r->progress_usec = s->now.boot_usec;
    }
    if (r->state == REPLICA_WAITING) { /* …and has given its leases back when it asks */
        replica_reconfig(s, r, RECONFIG_RESIGN, successor(r), 0);
    }
}

void replica_drop(struct shard *s, struct replica *r)
{
    replica_cut(s, r, r->commit.seq + 1);
    r->index->ops->free(r->index);
    r->index = NULL;
    if (s->o.index_open(s->o.index_ctx, r->partition, &r->index) < 0) {
        shard_halt(s, "no memory for the index");
        return;
    }
    session_table_free(&r->sessions);
    view_runs_set(r, NULL, 0);
    list_remove(&r->in_commits);
    list_remove(&r->in_completing);
    r->commit = r->last = r->base = r->base_end = (struct name){ 0 };
    r->durable_seq = r->matched_seq = r->acked_seq = 0;
    r->flush = r->flush_pending = (struct flush_mark){ 0 };
    r->horizon_seq = r->swept_flush_seq = r->digest = r->n_expiring = 0;
    r->incomplete = r->dropped = true;
    r->rotten = false;
    r->alone = false;
}

void replica_begin_dropped(struct shard *s, struct replica *r)
{
    replica_drop(s, r);
    wal_append(&s->log, FRAME_DROP, r->partition, r->view, NULL, 0);
    r->base_group = s->log.group;
}

void replica_distrust(struct shard *s, struct replica *r)
{
    view_leave(s, r, r->view);
    sm_move(&replica_sm, &r->state, REPLICA_WAITING);
    r->rotten = true; /* R15: not dropped yet: the others may be dead when the manager looks */
}

void replica_seal(struct shard *s, struct replica *r, uint32_t view)
{
    if (view != r->view || r->state == REPLICA_NONE || r->state == REPLICA_LEARNER) {
        return;
    }
    if (r->state != REPLICA_WAITING) {
        view_leave(s, r, r->view);
        sm_move(&replica_sm, &r->state, REPLICA_WAITING);
        r->reconfig_usec = s->now.boot_usec + 2 * SHARD_ACCUSE_USEC;
    }
    if (!replica_report_sealed(s, r)) {
        enlist(&s->sealing, &r->in_sealing);
    }
}

bool replica_report_sealed(struct shard *s, struct replica *r)
{
    struct action *a;

    /* R7: the group in flight is finished first; what is reported is durable. */
    if (r->durable_seq < r->last.seq || !wal_is_synced(&s->log, r->view_group) || r->incomplete) {
        return false; /* R17: an incomplete copy answers no query for a view */
    }
    list_remove(&r->in_sealing);
    a = actions_add(s->out, ACTION_SEALED);
    a->sealed = (struct msg_sealed){ .partition = r->partition,
                                     .view = r->view,
                                     .last = r->last,
                                     .time_usec = r->time_usec,
                                     .commit = r->commit,
                                     .trusted = !r->doubted };
    return true;
}
