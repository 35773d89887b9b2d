/* Between the replicas of a partition: prepares one way, acks the other (R1, R2). */
#include "core/replica.h"

#include "base/assert.h"
#include "base/cleanup.h"

#include <string.h>

/* ---- the primary's end ---- */

bool stream_goes_to(const struct replica *r, const struct member *m)
{
    return m && m != r->members && (!replica_is_learner(r, m) || m->streams);
}

void stream_send(struct shard *s, struct replica *r, uint32_t server, const struct tail_entry *te)
{
    struct action *a = actions_add(s->out, ACTION_PREPARE);

    a->server = server;
    a->prepare = (struct msg_prepare){
        .partition = r->partition,
        .view = r->view,
        .commit_seq = r->commit.seq,
        .entry = te->bytes,
        .entry_bytes = te->n_bytes,
    };
}

void stream_resend(struct shard *s, struct replica *r, uint32_t server, uint64_t seq)
{
    if (seq >= r->last.seq) {
        return;
    }
    for (uint64_t i = MAX_OF(seq, r->commit.seq) + 1; i <= r->last.seq; i++) {
        stream_send(s, r, server, replica_tail(r, i));
    }
}

void stream_ack(struct shard *s, struct replica *r, uint32_t from, const struct msg_at *m)
{
    struct member *member = replica_member(r, from);

    if (!replica_is_primary(r) || m->view != r->view || !member || m->seq > r->last.seq ||
        (replica_is_learner(r, member) && !member->begun)) {
        return;
    }
    member->heard_usec = s->now.boot_usec;
    if (m->seq > member->acked_seq) {
        member->acked_seq = m->seq;
        shard_peer(s, from)->progress_usec = s->now.boot_usec;
        replica_try_commit(s, r);
        learner_watch(s, r);
    }
}

void stream_resend_asked(struct shard *s, struct replica *r, uint32_t from, const struct msg_at *m)
{
    if (replica_is_primary(r) && m->view == r->view && stream_goes_to(r, replica_member(r, from))) {
        stream_resend(s, r, from, m->seq);
    }
}

void stream_tell(struct shard *s, struct replica *r)
{
    if (list_empty(&r->in_told)) {
        list_push_back(&s->told, &r->in_told);
    }
}

void stream_tell_commits(struct shard *s)
{
    LIST_FOR_EACH_SAFE(i, &s->told)
    {
        struct replica *r = LIST_ENTRY(i, struct replica, in_told);
        list_remove(i);
        for (unsigned j = 1; j < r->n_members + r->n_learners && replica_is_primary(r); j++) {
            struct member *m = &r->members[j];
            struct action *a;
            if (!stream_goes_to(r, m) ||
                (m->told_seq == r->commit.seq && m->told_time_usec == r->time_usec)) {
                continue;
            }
            a = actions_add(s->out, ACTION_COMMIT);
            a->server = m->server;
            a->commit = (struct msg_commit){ r->partition, r->view, r->commit.seq, r->time_usec };
            m->told_seq = r->commit.seq;
            m->told_time_usec = r->time_usec;
            m->told_digest = r->digest;
        }
    }
}

/* ---- the secondary's end, and the learner's ---- */

/* A learner takes part from the start of its catch-up in this view on. */
static bool stream_is_taken(const struct replica *r, uint32_t from, uint32_t view)
{
    return view == r->view && r->members[0].server == from &&
           (r->state == REPLICA_SECONDARY ||
            (r->state == REPLICA_LEARNER && r->taken != UINT64_MAX));
}

static void ack_owe(struct shard *s, struct replica *r)
{
    if (list_empty(&r->in_acks)) {
        list_push_back(&s->acks, &r->in_acks);
    }
}

/* What is known to be committed, and durable here, is applied. */
static void learn_commit(struct shard *s, struct replica *r, uint64_t seq)
{
    r->heard_commit_seq = MAX_OF(r->heard_commit_seq, seq);
    seq = MIN_OF(seq, MIN_OF(r->matched_seq, r->durable_seq));
    if (seq > r->commit.seq) {
        replica_commit_to(s, r, seq);
    }
}

/* A learner hears of commits that did not wait for it: they are applied when they are durable. */
static void learn_late(struct shard *s, struct replica *r)
{
    uint64_t before = r->commit.seq;

    learn_commit(s, r, r->heard_commit_seq);
    if (r->commit.seq > before) {
        learner_tell(s, r);
    }
}

void stream_flush_acks(struct shard *s)
{
    LIST_FOR_EACH_SAFE(i, &s->acks)
    {
        struct replica *r = LIST_ENTRY(i, struct replica, in_acks);
        uint64_t seq = MIN_OF(r->matched_seq, r->durable_seq);
        if (!wal_is_synced(&s->log, r->base_group)) {
            continue; /* R17: incomplete, durably, before anything is acked */
        }
        /* R2: a sealed partition is never listed */
        kumo_assert(r->state == REPLICA_SECONDARY || r->state == REPLICA_LEARNER);
        if (seq > r->acked_seq || r->ack_owed) {
            struct action *a = actions_add(s->out, ACTION_ACK);
            a->server = r->members[0].server;
            a->note = (struct msg_at){ r->partition, r->view, seq };
            r->acked_seq = seq;
            r->ack_owed = false;
        }
        if (r->state == REPLICA_LEARNER) {
            learn_late(s, r);
        }
        if (r->durable_seq >= r->matched_seq) {
            list_remove(i);
        }
    }
}

/* R1: its own last name is not the one before the entry: refuse, and ask from the commit. */
static void refuse(struct shard *s, struct replica *r, const struct msg_prepare *m,
                   const struct entry *e)
{
    /* The first entry above the primary's commit doesn't fit: what is missing can't be resent. */
    bool lacking = m->commit_seq > r->last.seq || e->name.seq <= m->commit_seq + 1;
    struct action *a;

    if (lacking && r->state == REPLICA_LEARNER) { /* nobody kept it for a learner */
        learner_begin(s, r);
        return;
    }
    if (lacking) { /* R17: it returns as a learner */
        replica_reconfig(s, r, RECONFIG_REMOVE, s->o.server, 0);
    }
    if (r->asked) {
        return;
    }
    r->asked = true;
    a = actions_add(s->out, lacking ? ACTION_LACKING : ACTION_RESEND);
    a->server = r->members[0].server;
    a->note = (struct msg_at){ r->partition, r->view, r->commit.seq };
}

/* Is the entry here already, under this name? A differing one is cut, with all behind it. */
static bool is_held(struct shard *s, struct replica *r, const struct msg_prepare *m,
                    const struct entry *e)
{
    const struct tail_entry *held = replica_tail(r, e->name.seq);

    if (e->name.seq <= r->commit.seq) {
        return true;
    }
    if (!held) {
        return false;
    }
    if (!name_equal(held->e.name, e->name)) {
        replica_cut(s, r, e->name.seq);
        return false;
    }
    if (held->n_bytes != m->entry_bytes || memcmp(held->bytes, m->entry, held->n_bytes) != 0) {
        shard_halt(s, "two entries with one name"); /* I5 */
    }
    return true;
}

/* I12: what is committed here was committed under another name there. That can't be, unless copies
 * lost what they had answered for: nothing is acked, and this one leaves the view. */
static bool contradicts(const struct replica *r, struct name name)
{
    return name.seq <= r->commit.seq && r->n_runs > 0 && name.seq >= r->runs[0].first &&
           !view_runs_agree(r, name);
}

void stream_prepare(struct shard *s, struct replica *r, uint32_t from, const struct msg_prepare *m)
{
    struct entry e;
    bool held;

    if (s->space == SPACE_FULL) {
        return; /* as if it were lost: it is sent again while it waits */
    }
    if (!stream_is_taken(r, from, m->view) || entry_decode(m->entry, m->entry_bytes, &e) < 0 ||
        e.partition != r->partition || e.name.view < e.prev_view) {
        return;
    }
    r->heard_usec = r->state == REPLICA_SECONDARY ? s->now.boot_usec : r->heard_usec;
    if (contradicts(r, e.name)) {
        replica_reconfig(s, r, RECONFIG_REMOVE, s->o.server, 0);
        return;
    }
    held = is_held(s, r, m, &e);
    if (s->halted) {
        return;
    }
    if (held) {
        r->ack_owed = true;
    } else if (e.name.seq == r->last.seq + 1 && e.prev_view == r->last.view) {
        replica_push(s, r, m->entry, m->entry_bytes, NULL);
    } else {
        refuse(s, r, m, &e);
        return;
    }
    r->asked = false;
    r->matched_seq = MAX_OF(r->matched_seq, e.name.seq);
    ack_owe(s, r);
    learn_commit(s, r, m->commit_seq);
}

void stream_commit(struct shard *s, struct replica *r, uint32_t from, const struct msg_commit *m)
{
    if (!stream_is_taken(r, from, m->view)) {
        return;
    }
    r->heard_usec = r->state == REPLICA_SECONDARY ? s->now.boot_usec : r->heard_usec;
    r->time_usec = MAX_OF(r->time_usec, m->time_usec); /* R13: replicas run it on */
    if (r->state == REPLICA_LEARNER && m->seq > r->matched_seq) {
        learner_begin(s, r); /* what was sent before this is lost, and committed without it */
        return;
    }
    learn_commit(s, r, m->seq);
    learner_tell(s, r);
}
