#include "core/shard.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/sm.h"
#include "core/hashspace.h"
#include "core/replica.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- making and unmaking ---- */

static void lists_init(struct shard *s)
{
    list_init(&s->unsynced);
    list_init(&s->acks);
    list_init(&s->commits);
    list_init(&s->told);
    list_init(&s->entering);
    list_init(&s->sealing);
    list_init(&s->completing);
    list_init(&s->leasing);
    list_init(&s->taking);
    list_init(&s->lessons);
    list_init(&s->graveyard);
    list_init(&s->free_waiters);
}

int shard_new(const struct shard_options *o, struct shard **ret)
{
    const struct wal_options *l = &o->log;
    struct shard *s = mem_zalloc(1, sizeof(*s));

    kumo_assert(l->partitions > 0);
    kumo_assert(o->server > 0);
    s->o = *o;
    s->o.failure_usec = o->failure_usec ? o->failure_usec : FAILURE_USEC_DEFAULT;
    s->o.lesson_bytes = o->lesson_bytes ? o->lesson_bytes : LESSON_BYTES_DEFAULT;
    s->o.replica_usec = o->replica_usec ? o->replica_usec : REPLICA_USEC_DEFAULT;
    wal_init(&s->log, l);
    lists_init(s);
    s->n_replicas = l->partitions / l->shards + (l->shard < l->partitions % l->shards);
    s->replicas = mem_zalloc(s->n_replicas, sizeof(*s->replicas));
    for (size_t i = 0; i < s->n_replicas; i++) {
        replica_init(s, &s->replicas[i], (uint16_t) (l->shard + i * l->shards));
    }
    for (size_t i = 0; i < s->n_replicas; i++) {
        int r = o->index_open(o->index_ctx, s->replicas[i].partition, &s->replicas[i].index);
        if (r < 0) {
            shard_free(s);
            return r;
        }
    }
    *ret = s;
    return 0;
}

static void graveyard_empty(struct shard *s)
{
    while (!list_empty(&s->graveyard)) {
        struct tail_entry *te = LIST_ENTRY(s->graveyard.next, struct tail_entry, dead);
        list_remove(&te->dead);
        free(te);
    }
}

static void pieces_free(struct shard *s)
{
    while (s->n_pieces > 0) {
        buf_free(&s->pieces[--s->n_pieces]);
    }
}

struct shard *shard_free(struct shard *s)
{
    if (!s) {
        return NULL;
    }
    for (size_t i = 0; i < s->n_replicas; i++) {
        learner_dismiss(s, &s->replicas[i]);
        replica_free(s, &s->replicas[i]);
    }
    graveyard_empty(s);
    compaction_free(s);
    parked_free(s);
    while (!list_empty(&s->free_waiters)) {
        struct waiter *w = LIST_ENTRY(s->free_waiters.next, struct waiter, link);
        list_remove(&w->link);
        free(w);
    }
    for (size_t i = 0; i < s->n_peers; i++) {
        free(s->peers[i].asks);
    }
    pieces_free(s);
    free(s->pieces);
    free(s->grants);
    free(s->replicas);
    free(s->peers);
    map_free(&s->pending_keys);
    map_free(&s->pending_ops);
    live_sessions_free(&s->live);
    buf_free(&s->scratch);
    wal_free(&s->log);
    free(s);
    return NULL;
}

void shard_halt(struct shard *s, const char *why)
{
    if (!s->halted) {
        s->halted = true;
        actions_add(s->out, ACTION_HALT)->why = why;
    }
}

struct replica *shard_replica(const struct shard *s, uint32_t partition)
{
    const struct wal_options *l = &s->o.log;

    return partition < l->partitions && partition % l->shards == l->shard
               ? &s->replicas[partition / l->shards]
               : NULL;
}

/* ---- replay: by position, per partition; only commits feed the index ---- */

static int replay_prepare(struct shard *s, struct replica *r, const struct frame *f,
                          struct position at)
{
    const struct tail_entry *held;
    struct entry e;

    if (entry_decode_trusted(f->payload, f->payload_bytes, &e) < 0 || e.name.seq <= r->commit.seq) {
        return -EBADMSG;
    }
    held = replica_tail(r, e.name.seq);
    if (held && name_equal(held->e.name, e.name)) {
        return 0;
    }
    if (held) {
        replica_cut(s, r, e.name.seq); /* R1, as it happened */
    }
    if (e.name.seq != r->last.seq + 1 || e.prev_view != r->last.view || e.name.view < e.prev_view) {
        return -EBADMSG;
    }
    replica_push(s, r, f->payload, f->payload_bytes, &at);
    return 0;
}

static int replay_commit(struct shard *s, struct replica *r, const struct frame *f)
{
    const struct tail_entry *te;
    uint64_t time_usec;
    struct name name;

    if (frame_commit_decode(f, &name, &time_usec) < 0) {
        return -EBADMSG;
    }
    r->time_usec = MAX_OF(r->time_usec, time_usec);
    if (name.seq <= r->commit.seq) { /* noted behind a checkpoint that had it */
        return 0;
    }
    te = replica_tail(r, name.seq);
    if (!te || !name_equal(te->e.name, name)) {
        return -EBADMSG;
    }
    r->durable_seq = MAX_OF(r->durable_seq, name.seq);
    replica_commit_to(s, r, name.seq);
    return 0;
}

static int replay_view(struct replica *r, const struct frame *f)
{
    struct frame_view v;

    if (frame_view_decode(f, &v) < 0 || f->view <= r->view) {
        return -EBADMSG;
    }
    r->view = f->view;
    replica_born(r, f->view, (enum view_part) v.part);
    r->n_learners = 0; /* the manager tells them again */
    r->n_members = v.n_members;
    for (unsigned i = 0; i < v.n_members; i++) {
        r->members[i] = (struct member){ .server = v.members[i] };
    }
    return 0;
}

int shard_replay_frame(struct shard *s, const struct frame *f, struct position at)
{
    struct replica *r = shard_replica(s, f->partition);
    struct actions none = { 0 };
    struct position begin = at;
    int err;

    if (!r) {
        return f->partition < s->o.log.partitions ? 0 : -EBADMSG;
    }
    begin.offset -= FRAME_HEAD_BYTES;
    if (position_compare(begin, r->replay_from) < 0) {
        return 0;
    }
    s->out = &none;
    switch (f->kind) {
    case FRAME_PREPARE:
        err = replay_prepare(s, r, f, at);
        break;
    case FRAME_COMMIT:
        err = replay_commit(s, r, f);
        break;
    case FRAME_VIEW:
        err = replay_view(r, f);
        break;
    case FRAME_BASE:
        err = catchup_replay_base(s, r, f);
        break;
    case FRAME_COPY:
        err = compaction_replay_copy(s, r, f, at);
        break;
    case FRAME_GONE:
        err = compaction_replay_gone(r, f);
        break;
    case FRAME_DROP:
        replica_drop(s, r);
        err = 0;
        break;
    default:
        err = -EPROTONOSUPPORT;
    }
    graveyard_empty(s);
    actions_free(&none);
    s->out = NULL;
    return s->halted ? -ENOMEM : err;
}

void shard_replay_end(struct shard *s)
{
    struct actions none = { 0 };

    s->out = &none;
    for (size_t i = 0; i < s->n_replicas; i++) {
        struct replica *r = &s->replicas[i];
        r->durable_seq = r->last.seq;
        list_remove(&r->in_told);
        list_remove(&r->in_commits); /* noted already, unless a checkpoint was ahead of the log */
        if (r->replay_from.segment != 0 && r->commit.seq > 0) {
            list_push_back(&s->commits, &r->in_commits);
        }
        r->alone = r->n_members == 1 && r->members[0].server == s->o.server && r->commit.seq > 0 &&
                   r->commit.view == r->view;
        if (replica_member(r, s->o.server)) { /* R6: it resumes nothing */
            sm_move(&replica_sm, &r->state, REPLICA_WAITING);
        }
        r->doubted = s->o.untrusted;
        /* A start before this one may have got as far as to log it, and what came since counts. */
        if (s->o.distrusted && !r->dropped && r->replay_from.segment == 0) {
            replica_begin_dropped(s, r);
        }
    }
    kumo_assert(!s->halted); /* no memory for an empty index */
    actions_free(&none);
    s->out = NULL;
}

/* ---- events ---- */

struct peer *shard_peer(struct shard *s, uint32_t server)
{
    if (server >= s->n_peers) {
        mem_grow(&s->peers, &s->cap_peers, server + 1, sizeof(*s->peers));
        memset(&s->peers[s->n_peers], 0, (server + 1 - s->n_peers) * sizeof(*s->peers));
        s->n_peers = server + 1;
    }
    return &s->peers[server];
}

static void peer_clock(struct shard *s, const struct shard_event *e)
{
    struct peer *p;

    if (e->from > SERVERS_MAX || e->clock.space >= _SPACE_MAX) {
        return;
    }
    p = shard_peer(s, e->from);
    p->clock_known = true;
    p->clock_offset_usec = (int64_t) e->clock.usec - (int64_t) s->now.boot_usec;
    p->space = e->clock.space;
}

/* The connection to a server is new: what was sent over the old one may be lost. */
static void peer_up(struct shard *s, uint32_t server)
{
    for (size_t i = 0; i < s->n_replicas; i++) {
        struct replica *r = &s->replicas[i];
        struct member *m;
        if (r->state == REPLICA_SECONDARY && r->members[0].server == server) {
            r->ack_owed = true;
            if (list_empty(&r->in_acks)) {
                list_push_back(&s->acks, &r->in_acks);
            }
        }
        if (r->state == REPLICA_LEARNER && r->members[0].server == server &&
            r->taken == UINT64_MAX) {
            learner_begin(s, r); /* what it asked may be lost */
        }
        m = replica_is_primary(r) ? replica_member(r, server) : NULL;
        if (stream_goes_to(r, m)) {
            m->told_seq = 0;
            stream_resend(s, r, server, m->acked_seq);
            stream_tell(s, r);
        }
    }
}

static void synced(struct shard *s)
{
    LIST_FOR_EACH_SAFE(i, &s->entering)
    {
        struct replica *r = LIST_ENTRY(i, struct replica, in_entering);
        if (wal_is_synced(&s->log, r->view_group)) {
            replica_enter(s, r);
        }
    }
    LIST_FOR_EACH_SAFE(j, &s->unsynced)
    {
        replica_sync(s, LIST_ENTRY(j, struct replica, in_unsynced));
    }
    LIST_FOR_EACH_SAFE(k, &s->sealing)
    {
        replica_report_sealed(s, LIST_ENTRY(k, struct replica, in_sealing));
    }
    catchup_synced(s);
    learner_synced(s);
    compaction_synced(s);
    stream_flush_acks(s);
}

/* A member that may not act asks for what it needs (R6). */
static void tick_waiting(struct shard *s, struct replica *r)
{
    if (r->incomplete || r->rotten) {
        replica_reconfig(s, r, RECONFIG_REMOVE, s->o.server, 0); /* R17: to be a learner */
    } else if (r->resigned && s->now.boot_usec - r->progress_usec < SHARD_RESIGN_USEC) {
        replica_resign(s, r);
    } else {
        replica_reconfig(s, r, RECONFIG_RENEW, 0, 0);
    }
}

static void tick_primary(struct shard *s, struct replica *r)
{
    replica_serve(s, r);
    parked_leased(s, r);
    learner_watch(s, r);
    if (s->leaving && r->n_members > 1 && s->now.boot_usec < s->manager_usec + MANAGER_FRESH_USEC) {
        replica_resign(s, r);
    }
    if (!replica_is_primary(r) || r->n_tail == 0 ||
        s->now.boot_usec - r->progress_usec < SHARD_RESEND_USEC) {
        return;
    }
    r->progress_usec = s->now.boot_usec;
    for (unsigned i = 1; i < r->n_members + r->n_learners; i++) {
        if (stream_goes_to(r, &r->members[i])) {
            stream_resend(s, r, r->members[i].server, r->members[i].acked_seq);
        }
    }
}

static void tick_replica(struct shard *s, struct replica *r)
{
    r->asked = false;
    switch (r->state) {
    case REPLICA_WAITING:
        tick_waiting(s, r);
        return;
    case REPLICA_LEARNER:
        learner_tick(s, r);
        return;
    case REPLICA_SECONDARY:
        lease_watch(s,
                    r); /* first: the manager may not let it go, and is asked for one at a time */
        if (s->leaving || r->rotten) {
            replica_reconfig(s, r, RECONFIG_REMOVE, s->o.server, 0); /* R16, R15 */
        }
        return;
    case REPLICA_RECONCILING:
    case REPLICA_PRIMARY:
        lease_watch(s, r);
        tick_primary(s, r);
        return;
    default:
        return;
    }
}

/* R14: whoever did not run itself has not heard the others for that reason. */
static void tick_gap(struct shard *s)
{
    if (s->now.boot_usec - s->tick_usec > SHARD_GAP_USEC) {
        s->quiet_usec = s->now.boot_usec;
    }
    s->tick_usec = s->now.boot_usec;
}

static void tick(struct shard *s)
{
    tick_gap(s);
    for (size_t i = 0; i < s->n_replicas; i++) {
        tick_replica(s, &s->replicas[i]);
    }
    lease_tick(s);
    sweep_tick(s);
    sessions_tick(s);
    if (s->now.boot_usec - s->commits_usec >= SHARD_COMMIT_USEC) {
        s->commits_usec = s->now.boot_usec;
        s->commits_due = true;
        stream_tell_commits(s);
    }
}

void shard_note_commit(struct shard *s, struct replica *r)
{
    uint8_t bytes[FRAME_COMMIT_BYTES];

    if (list_empty(&r->in_commits)) {
        return;
    }
    list_remove(&r->in_commits);
    frame_commit_encode(r->commit, r->time_usec, bytes);
    wal_append(&s->log, FRAME_COMMIT, r->partition, r->view, bytes, sizeof(bytes));
}

/* Notes commits in the log, now and then: nothing waits for it, and one note does for all commits
 * of a partition since the one before. */
static void note_commits(struct shard *s)
{
    if (!s->commits_due) {
        return;
    }
    s->commits_due = false;
    LIST_FOR_EACH_SAFE(i, &s->commits)
    {
        shard_note_commit(s, LIST_ENTRY(i, struct replica, in_commits));
    }
}

static void turn_end(struct shard *s)
{
    lease_turn_end(s);
    learner_turn_end(s);
    compaction_go_on(s);
    note_commits(s);
    if (wal_dirty(&s->log)) {
        wal_flush(&s->log, s->out);
        s->flushed = true;
    }
    stream_flush_acks(s);
}

static void key_op(struct shard *s, const struct shard_event *e)
{
    const struct op *op = &e->op.op;
    uint32_t n = s->o.log.partitions;
    uint32_t partition = op->code == OP_FLUSH
                             ? (uint32_t) MIN_OF(op->operand, PARTITIONS_MAX)
                             : hashspace_partition_of_hash(hashspace_hash(op->key, op->key_len), n);
    struct replica *r = shard_replica(s, partition);

    s->asked_usec = s->now.boot_usec;
    if (r) {
        propose_op(s, r, e->op.asker, op);
    } else {
        struct action *a = actions_add(s->out, ACTION_RESULT);
        a->answer.asker = e->op.asker;
        /* The asker's table may be of a start with another number of shards. */
        a->answer.result =
            (struct result){ .id = e->op.asker.id,
                             .code = partition < n ? RESULT_NOT_PRIMARY : RESULT_REFUSED };
    }
}

static void key_peek(struct shard *s, const struct shard_event *e)
{
    uint64_t hash = hashspace_hash(e->peek.key, e->peek.key_len);
    struct replica *r = shard_replica(s, hashspace_partition_of_hash(hash, s->o.log.partitions));

    if (r) {
        propose_peek(s, r, e->peek.asker, e->peek.key, e->peek.key_len);
    } else {
        actions_add(s->out, ACTION_PEEK)->peek.asker = e->peek.asker;
    }
}

static void replica_event(struct shard *s, struct replica *r, const struct shard_event *e)
{
    switch (e->kind) {
    case SHARD_FLOOR:
    case SHARD_VIEW:
        replica_view(s, r, &e->row, e->kind == SHARD_FLOOR);
        return;
    case SHARD_SEAL:
        replica_seal(s, r, e->note.view);
        return;
    case SHARD_PREPARE:
        stream_prepare(s, r, e->from, &e->prepare);
        return;
    case SHARD_COMMIT:
        stream_commit(s, r, e->from, &e->commit);
        return;
    case SHARD_ACK:
        stream_ack(s, r, e->from, &e->note);
        return;
    case SHARD_RESEND:
        stream_resend_asked(s, r, e->from, &e->note);
        return;
    case SHARD_LEASE_BACK:
        lease_returned(r, e->from, e->note.view);
        return;
    case SHARD_CATCHUP_ASK:
        learner_asked(s, r, e);
        return;
    case SHARD_CATCHUP:
        learner_catchup(s, r, e->from, &e->catchup);
        return;
    case SHARD_CATCHUP_ACK:
        learner_acked(s, r, e->from, &e->note);
        return;
    case SHARD_LEARNED:
        learner_learned(s, r, e);
        return;
    default:
        kumo_unreachable();
    }
}

static struct replica *event_replica(const struct shard *s, const struct shard_event *e)
{
    switch (e->kind) {
    case SHARD_FLOOR:
    case SHARD_VIEW:
        return shard_replica(s, e->row.partition);
    case SHARD_PREPARE:
        return shard_replica(s, e->prepare.partition);
    case SHARD_COMMIT:
        return shard_replica(s, e->commit.partition);
    case SHARD_CATCHUP_ASK:
        return shard_replica(s, e->ask.partition);
    case SHARD_CATCHUP:
        return shard_replica(s, e->catchup.partition);
    case SHARD_LEARNED:
        return shard_replica(s, e->learned.partition);
    default:
        return shard_replica(s, e->note.partition);
    }
}

bool shard_enter(struct shard *s, struct actions *out)
{
    if (s->flushed) { /* the actions of the last step were carried out */
        s->flushed = false;
        wal_flushed(&s->log);
    }
    graveyard_empty(s);
    pieces_free(s);
    s->out = out;
    return !s->halted;
}

void shard_step(struct shard *s, const struct shard_clock *now, const struct shard_event *e,
                struct actions *out)
{
    struct replica *r;

    if (!shard_enter(s, out)) {
        return;
    }
    s->now = *now;
    s->begin_usec = s->begin_usec ? s->begin_usec : now->boot_usec;
    switch (e->kind) {
    case SHARD_OP:
        key_op(s, e);
        break;
    case SHARD_PEEK:
        key_peek(s, e);
        break;
    case SHARD_CLOCK:
        peer_clock(s, e);
        break;
    case SHARD_SPACE:
        s->space = e->space;
        break;
    case SHARD_PEER_UP:
        peer_up(s, e->from);
        break;
    case SHARD_SYNCED:
        wal_synced(&s->log, e->group);
        synced(s);
        break;
    case SHARD_WRITTEN:
        wal_written(&s->log, e->group);
        synced(s);
        break;
    case SHARD_SESSIONS:
        sessions_told(s, &e->sessions);
        break;
    case SHARD_READ:
        if (!learner_read(s, &e->read)) {
            parked_read(s, &e->read);
        }
        break;
    case SHARD_LEASES:
        lease_asked(s, e);
        break;
    case SHARD_GRANTS:
        lease_granted(s, e);
        break;
    case SHARD_MANAGER:
        s->manager_usec = now->boot_usec;
        break;
    case SHARD_LEAVE:
        s->leaving = true;
        break;
    case SHARD_COMPACT:
        compaction_begin(s, &e->victim);
        break;
    case SHARD_TICK:
        tick(s);
        break;
    case SHARD_TURN_END:
        turn_end(s);
        break;
    default:
        r = event_replica(s, e);
        if (r) {
            replica_event(s, r, e);
        }
    }
    s->out = NULL;
}

/* ---- looking in ---- */

void shard_count(const struct shard *s, struct shard_counts *ret)
{
    *ret = (struct shard_counts){ .tail_bytes = s->tail_bytes,
                                  .learnt_bytes = s->learnt_bytes,
                                  .taught_bytes = s->taught_bytes };
    for (size_t i = 0; i < s->n_replicas; i++) {
        const struct replica *r = &s->replicas[i];
        ret->members += r->state != REPLICA_NONE && r->state != REPLICA_LEARNER;
        ret->distrusted += s->o.distrusted && !wal_is_synced(&s->log, r->base_group);
        ret->untrusted += r->doubted && r->state != REPLICA_NONE;
        ret->learning += r->state == REPLICA_LEARNER;
        ret->primary += r->state == REPLICA_PRIMARY;
        ret->waiting += r->state == REPLICA_WAITING;
        ret->working += r->state == REPLICA_PRIMARY || r->state == REPLICA_SECONDARY;
        ret->records += r->index->ops->count(r->index);
    }
}

static uint64_t lease_until(const struct replica *r)
{
    uint64_t until_usec = UINT64_MAX;

    for (unsigned i = 1; i < r->n_members + r->n_learners; i++) {
        const struct member *m = &r->members[i];
        if (!replica_is_learner(r, m) || m->joint) {
            until_usec = MIN_OF(until_usec, m->granted_usec ? m->granted_usec + LEASE_USEC : 0);
        }
    }
    return until_usec;
}

int shard_replica_info(const struct shard *s, uint16_t partition, struct replica_info *ret)
{
    const struct replica *r = shard_replica(s, partition);
    const struct tail_entry *te;

    if (!r) {
        return -ENOENT;
    }
    te = replica_tail(r, r->durable_seq);
    *ret = (struct replica_info){
        .partition = partition,
        .state = r->state,
        .view = r->view,
        .commit = r->commit,
        .durable = te ? te->e.name : r->commit,
        .last = r->last,
        .time_usec = r->time_usec,
        .n_members = r->n_members,
        .digest = r->digest,
        .complete = !r->incomplete,
        .lease_until_usec = lease_until(r),
    };
    for (unsigned i = 0; i < r->n_members; i++) {
        ret->members[i] = r->members[i].server;
    }
    ret->n_learners = r->n_learners;
    for (unsigned i = 0; i < r->n_learners; i++) {
        const struct member *m = &r->members[r->n_members + i];
        ret->learners[i] = m->server;
        ret->joint = ret->joint || m->joint;
    }
    return 0;
}

void shard_tail_walk(const struct shard *s, uint16_t partition,
                     void (*fn)(void *ctx, const struct entry *e, bool durable), void *ctx)
{
    const struct replica *r = shard_replica(s, partition);

    for (uint64_t seq = r ? r->commit.seq + 1 : 1; r && seq <= r->last.seq; seq++) {
        fn(ctx, &replica_tail(r, seq)->e, seq <= r->durable_seq);
    }
}

int shard_record(const struct shard *s, const uint8_t *key, size_t key_len,
                 struct index_record *ret)
{
    uint64_t hash = hashspace_hash(key, key_len);
    const struct replica *r =
        shard_replica(s, hashspace_partition_of_hash(hash, s->o.log.partitions));

    return r ? r->index->ops->get(r->index, key, key_len, ret) : -ENOENT;
}
