/* Planted bugs inside of the core, and limits that some seeds make small: the linker puts these
 * functions before those of lib/core, which know nothing of it (SIM_WRAPS in the Makefile). Each
 * behaves as the real one unless its bug is planted. */
#include "sim/sim.h"

#include "base/cleanup.h"
#include "core/catchup.h"
#include "core/replica.h"

static struct sim *world;

void wraps_begin(struct sim *s)
{
    world = s;
}

static bool planted(enum plant p)
{
    return world && world->o->plant == p;
}

/* ---- R10 ---- */

uint64_t __real_lease_promised_until(const struct replica *r, uint32_t self);
uint64_t __wrap_lease_promised_until(const struct replica *r, uint32_t self);
uint64_t __wrap_lease_promised_until(const struct replica *r, uint32_t self)
{
    return planted(PLANT_PROMISE_NOT_KEPT) ? 0 : __real_lease_promised_until(r, self);
}

void __real_lease_granted(struct shard *s, const struct shard_event *e);
void __wrap_lease_granted(struct shard *s, const struct shard_event *e);
void __wrap_lease_granted(struct shard *s, const struct shard_event *e)
{
    __real_lease_granted(s, e);
    for (size_t i = 0; planted(PLANT_LEASE_FROM_GRANT) && i < e->leases.n; i++) {
        struct replica *r = shard_replica(s, e->leases.v[i].partition);
        struct member *m = r ? replica_member(r, e->from) : NULL;
        if (m && e->leases.v[i].view == r->view && replica_is_primary(r)) {
            m->granted_usec = s->now.boot_usec;
        }
    }
}

/* By everybody, at some time in this view. */
static bool was_granted(const struct replica *r)
{
    for (unsigned i = 1; i < r->n_members; i++) {
        if (r->members[i].granted_usec == 0) {
            return false;
        }
    }
    return true;
}

bool __real_lease_holds(const struct shard *s, const struct replica *r);
bool __wrap_lease_holds(const struct shard *s, const struct replica *r);
bool __wrap_lease_holds(const struct shard *s, const struct replica *r)
{
    uint8_t n_learners = r->n_learners;
    bool holds;

    if (planted(PLANT_JOINT_READS)) {
        ((struct replica *) r)->n_learners = 0;
    }
    holds = __real_lease_holds(s, r);
    ((struct replica *) r)->n_learners = n_learners;
    /* where records can't be read, leases say whether the copy here may be given up */
    return holds || (planted(PLANT_READ_WITHOUT_LEASE) && !world->setup.read_errors) ||
           (planted(PLANT_CONFIRM_BEFORE) && s->o.confirm && was_granted(r));
}

/* ---- R5 ---- */

void __real_replica_serve(struct shard *s, struct replica *r);
void __wrap_replica_serve(struct shard *s, struct replica *r);
void __wrap_replica_serve(struct shard *s, struct replica *r)
{
    struct name commit = r->commit;

    if (planted(PLANT_SERVE_EARLY)) {
        r->commit.view = r->view; /* as if the view's no-op had committed */
    }
    __real_replica_serve(s, r);
    r->commit = commit;
}

/* ---- R1 ---- */

void __real_stream_prepare(struct shard *s, struct replica *r, uint32_t from,
                           const struct msg_prepare *m);
void __wrap_stream_prepare(struct shard *s, struct replica *r, uint32_t from,
                           const struct msg_prepare *m);

void __wrap_stream_prepare(struct shard *s, struct replica *r, uint32_t from,
                           const struct msg_prepare *m)
{
    struct entry e;

    if (planted(PLANT_CUT_HELD) && r->state == REPLICA_SECONDARY && m->view == r->view &&
        r->members[0].server == from && s->space != SPACE_FULL &&
        entry_decode(m->entry, m->entry_bytes, &e) == 0) {
        const struct tail_entry *held = replica_tail(r, e.name.seq);
        if (held && name_equal(held->e.name, e.name)) {
            replica_cut(s, r, e.name.seq);
        }
    }
    __real_stream_prepare(s, r, from, m);
}

/* ---- R3: who waits when the server stops being primary hears "not me" ---- */

static void waiters_answer(struct shard *s, struct replica *r)
{
    for (uint64_t i = r->commit.seq + 1; replica_is_primary(r) && i <= r->last.seq; i++) {
        struct tail_entry *te = replica_tail(r, i);
        LIST_FOR_EACH_SAFE(l, &te->waiters)
        {
            propose_answer(s, r, LIST_ENTRY(l, struct waiter, link), te);
            list_remove(l);
            list_push_back(&s->free_waiters, l);
        }
    }
}

void __real_replica_view(struct shard *s, struct replica *r, const struct view_row *row,
                         bool floor);
void __wrap_replica_view(struct shard *s, struct replica *r, const struct view_row *row,
                         bool floor);
void __wrap_replica_view(struct shard *s, struct replica *r, const struct view_row *row, bool floor)
{
    if (planted(PLANT_ANSWER_CUT) && row->view > r->view) {
        waiters_answer(s, r);
    }
    __real_replica_view(s, r, row, floor);
}

void __real_replica_seal(struct shard *s, struct replica *r, uint32_t view);
void __wrap_replica_seal(struct shard *s, struct replica *r, uint32_t view);
void __wrap_replica_seal(struct shard *s, struct replica *r, uint32_t view)
{
    if (planted(PLANT_ANSWER_CUT) && view == r->view) {
        waiters_answer(s, r);
    }
    __real_replica_seal(s, r, view);
}

/* ---- R10: a start waits for promises of the process before ---- */

void __real_replica_enter(struct shard *s, struct replica *r);
void __wrap_replica_enter(struct shard *s, struct replica *r);
void __wrap_replica_enter(struct shard *s, struct replica *r)
{
    if (planted(PLANT_PROMISE_FORGOTTEN)) {
        s->begin_usec = 1;
    }
    __real_replica_enter(s, r);
}

/* ---- R12 ---- */

void __real_session_record(struct session_table *t, const struct op_id *op,
                           const struct session_answer *answer);
void __wrap_session_record(struct session_table *t, const struct op_id *op,
                           const struct session_answer *answer);
void __wrap_session_record(struct session_table *t, const struct op_id *op,
                           const struct session_answer *answer)
{
    if (!planted(PLANT_TRIM_EARLY) || op->number % 8 != 0) {
        __real_session_record(t, op, answer);
    }
}

/* ---- R17 ---- */

int __real_catchup_source_next(struct catchup_source *c, const struct shard_read *read,
                               size_t bytes_max, struct buf *out, struct position *ret_at,
                               size_t *ret_bytes);
int __wrap_catchup_source_next(struct catchup_source *c, const struct shard_read *read,
                               size_t bytes_max, struct buf *out, struct position *ret_at,
                               size_t *ret_bytes);
int __wrap_catchup_source_next(struct catchup_source *c, const struct shard_read *read,
                               size_t bytes_max, struct buf *out, struct position *ret_at,
                               size_t *ret_bytes)
{
    return __real_catchup_source_next(c, read, world->setup.small_pieces ? 1 : bytes_max, out,
                                      ret_at, ret_bytes);
}

void __real_learner_acked(struct shard *s, struct replica *r, uint32_t from,
                          const struct msg_at *at);
void __wrap_learner_acked(struct shard *s, struct replica *r, uint32_t from,
                          const struct msg_at *at);
void __wrap_learner_acked(struct shard *s, struct replica *r, uint32_t from,
                          const struct msg_at *at)
{
    struct member *m;

    __real_learner_acked(s, r, from, at);
    m = replica_member(r, from);
    if (planted(PLANT_ADMIT_INCOMPLETE) && m && replica_is_learner(r, m) && m->begun) {
        m->taught = m->learned = m->agrees = true;
        m->granted_usec = s->now.boot_usec;
        m->incarnation = server_of_number(world, from)->super.incarnation.counter;
    }
}

void __real_compaction_gone(struct shard *s, struct replica *r, uint64_t seq, const uint8_t *key,
                            size_t key_len);
void __wrap_compaction_gone(struct shard *s, struct replica *r, uint64_t seq, const uint8_t *key,
                            size_t key_len);
void __wrap_compaction_gone(struct shard *s, struct replica *r, uint64_t seq, const uint8_t *key,
                            size_t key_len)
{
    uint64_t horizon = r->horizon_seq;

    __real_compaction_gone(s, r, seq, key, key_len);
    if (planted(PLANT_BELOW_HORIZON)) {
        r->horizon_seq = horizon;
    }
}
