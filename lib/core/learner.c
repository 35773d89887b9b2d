/* Learners: the catch-up of a copy that is not a member, over the network (R17), and its promotion
 * by the joint rule (R8). A learner asks, the primary teaches it in pieces, between its prepares;
 * when it is complete, close behind and equal, the primary needs it like a member, and asks the
 * manager to make it one. Never counts a learner that is not joint. */
#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "core/catchup.h"
#include "core/replica.h"

#include <errno.h>
#include <stdlib.h>

#define LESSONS_MAX       8  /* catch-ups that a shard sends at a time */
#define LESSON_SHIFT      32 /* of the number of a lesson in those of its pieces */
#define LESSON_WINDOW     4 /* pieces that are sent and not acked, and their bytes, as of full ones */
#define LESSON_USEC       5000000 /* a learner that takes nothing for so long is given up */
#define LEARNER_ASK_USEC  2000000 /* nothing came: ask again */
#define LEARNER_TELL_USEC 500000  /* a complete one says so again */
#define JOINT_LAG_MAX     1024    /* entries that it may be behind when it becomes joint */

/* A catch-up that is sent to one learner of one partition, in one view. */
struct lesson {
    struct list link; /* in shard->lessons */
    struct replica *r;
    uint32_t server;
    struct catchup_source *source;
    uint64_t number; /* of the next piece; those of one lesson are above those of the ones before */
    uint64_t acked;  /* pieces below it were taken */
    size_t sizes[LESSON_WINDOW]; /* of those between, by number */
    size_t unacked_bytes;
    bool ended;   /* the last one was sent */
    bool reading; /* waits for the disk: */
    uint64_t read_number;
    struct position read_at;
    size_t read_bytes;
    uint64_t moved_usec; /* boot time of the last ack */
};

/* ---- the learner's end ---- */

void learner_begin(struct shard *s, struct replica *r)
{
    struct catchup_ask ask;
    struct action *a;
    int err = catchup_ask(s, r->partition, &ask);

    kumo_assert(err == 0);
    r->taken = UINT64_MAX;
    list_remove(&r->in_taking);
    list_remove(&r->in_acks);
    r->ack_owed = false;
    r->heard_commit_seq = 0;
    r->heard_usec = s->now.boot_usec;
    if (s->leaving) {
        return;
    }
    a = actions_add(s->out, ACTION_CATCHUP_ASK);
    a->server = r->members[0].server;
    a->ask = (struct msg_catchup_ask){ r->partition, r->view, ask.base, ask.applied };
}

void learner_tell(struct shard *s, struct replica *r)
{
    struct action *a;

    if (r->state != REPLICA_LEARNER || r->incomplete || r->taken == UINT64_MAX) {
        return;
    }
    r->reconfig_usec = s->now.boot_usec + LEARNER_TELL_USEC;
    a = actions_add(s->out, ACTION_LEARNED);
    a->server = r->members[0].server;
    a->learned = (struct msg_learned){ r->partition, r->view, r->commit.seq, r->digest };
}

void learner_tick(struct shard *s, struct replica *r)
{
    bool syncs = !list_empty(&r->in_taking); /* the primary waits for this disk */

    if (!syncs && s->now.boot_usec - r->heard_usec >= LEARNER_ASK_USEC) {
        learner_begin(s, r);
    } else if (s->now.boot_usec >= r->reconfig_usec) {
        learner_tell(s, r);
    }
}

/* One piece into the copy. */
static int take(struct shard *s, struct replica *r, const struct msg_catchup *m)
{
    switch (m->part) {
    case CATCHUP_START:
        return catchup_sink_begin(s, r->partition, m->data, m->bytes, s->out);
    case CATCHUP_RECORDS:
        return catchup_sink_records(s, r->partition, m->data, m->bytes, s->out);
    default:
        return catchup_sink_end(s, r->partition, s->out);
    }
}

void learner_catchup(struct shard *s, struct replica *r, uint32_t from, const struct msg_catchup *m)
{
    if (r->state != REPLICA_LEARNER || m->view != r->view || r->members[0].server != from ||
        s->space == SPACE_FULL || m->part == 0 || m->number == 0) {
        return;
    }
    if (m->part == CATCHUP_START ? r->taken != UINT64_MAX && m->number <= r->taken
                                 : m->number != r->taken + 1) {
        return; /* of an earlier attempt, or one is lost: then it is asked for again */
    }
    if (take(s, r, m) < 0) {
        return;
    }
    s->learnt_bytes += m->bytes;
    r->taken = m->number;
    r->taken_group = s->log.group;
    r->heard_usec = s->now.boot_usec;
    if (list_empty(&r->in_taking)) {
        list_push_back(&s->taking, &r->in_taking);
    }
}

/* What is on the disk is acked, so that a slow one is not given more than it can take. */
void learner_synced(struct shard *s)
{
    LIST_FOR_EACH_SAFE(i, &s->taking)
    {
        struct replica *r = LIST_ENTRY(i, struct replica, in_taking);
        struct action *a;
        if (!wal_is_synced(&s->log, r->taken_group)) {
            continue;
        }
        list_remove(i);
        r->heard_usec = s->now.boot_usec; /* now it is the primary's turn */
        a = actions_add(s->out, ACTION_CATCHUP_ACK);
        a->server = r->members[0].server;
        a->note = (struct msg_at){ r->partition, r->view, r->taken };
        learner_tell(s, r);
    }
}

/* ---- the primary's end: teaching ---- */

void lesson_free(struct shard *s, struct lesson *l)
{
    if (l) {
        replica_member(l->r, l->server)->lesson = NULL;
        list_remove(&l->link);
        s->n_lessons--;
        catchup_source_free(l->source);
        free(l);
    }
}

static void piece_send(struct shard *s, struct lesson *l, enum catchup_part part, struct buf *b)
{
    struct action *a = actions_add(s->out, ACTION_CATCHUP);

    a->server = l->server;
    a->catchup = (struct msg_catchup){
        .partition = l->r->partition,
        .view = l->r->view,
        .number = l->number++,
        .part = (uint8_t) part,
        .data = b ? buf_head(b) : NULL,
        .bytes = b ? buf_len(b) : 0,
    };
    s->taught_bytes += a->catchup.bytes;
    l->sizes[a->catchup.number % LESSON_WINDOW] = a->catchup.bytes;
    l->unacked_bytes += a->catchup.bytes;
}

/* A piece's bytes; they live until the next step. */
static struct buf *piece_new(struct shard *s)
{
    mem_grow(&s->pieces, &s->cap_pieces, s->n_pieces + 1, sizeof(*s->pieces));
    s->pieces[s->n_pieces] = (struct buf){ 0 };
    return &s->pieces[s->n_pieces++];
}

static void lesson_read(struct shard *s, struct lesson *l)
{
    struct action *a = actions_add(s->out, ACTION_READ);

    l->reading = true;
    l->read_number = ++s->parked_number;
    a->read.number = l->read_number;
    a->read.at = l->read_at;
    a->read.bytes = l->read_bytes;
}

/* The copy here can't be read: who learns from it never gets it all, but others have theirs
 * (R15). */
static void lesson_fails(struct shard *s, struct lesson *l)
{
    struct action *a = actions_add(s->out, ACTION_DAMAGED);
    struct replica *r = l->r;

    a->damaged.at = l->read_at;
    a->damaged.partition = r->partition;
    lesson_free(s, l);
    if (replica_is_primary(r) && r->n_members > 1 && lease_holds(s, r)) {
        replica_distrust(s, r);
    }
}

/* Sends the next piece. Returns false when the lesson is over: the copy here can't be read. */
static bool lesson_piece(struct shard *s, struct lesson *l, const struct shard_read *read)
{
    struct buf *b = piece_new(s);
    int more =
        catchup_source_next(l->source, read, s->o.lesson_bytes, b, &l->read_at, &l->read_bytes);

    if (more == -EBADMSG) {
        lesson_fails(s, l);
        return false;
    }
    if (buf_len(b) > 0) {
        piece_send(s, l, CATCHUP_RECORDS, b);
    }
    if (more == -EAGAIN) {
        lesson_read(s, l);
    } else if (more == 0) {
        piece_send(s, l, CATCHUP_END, NULL);
        l->ended = true;
    }
    return true;
}

static void lesson_go_on(struct shard *s, struct lesson *l, const struct shard_read *read)
{
    while (!l->ended && !l->reading && l->number - l->acked < LESSON_WINDOW &&
           l->unacked_bytes < LESSON_WINDOW * s->o.lesson_bytes) {
        if (!lesson_piece(s, l, read)) {
            return;
        }
        read = NULL;
    }
}

/* It begins at the turn's end, when there is room. */
static void lesson_want(struct shard *s, struct member *m, const struct catchup_ask *ask)
{
    lesson_free(s, m->lesson);
    s->lessons_wait += !m->waits;
    *m = (struct member){
        .server = m->server, .heard_usec = s->now.boot_usec, .waits = true, .ask = *ask
    };
}

static void lesson_begin(struct shard *s, struct replica *r, struct member *m)
{
    struct buf *b = piece_new(s);
    struct catchup_source *source;
    struct lesson *l;

    m->waits = false;
    s->lessons_wait--;
    if (catchup_source_begin(s, r->partition, &m->ask, b, &source) < 0) {
        return; /* it asks again */
    }
    l = mem_zalloc(1, sizeof(*l));
    list_init(&l->link);
    list_push_back(&s->lessons, &l->link);
    s->n_lessons++;
    l->r = r;
    l->server = m->server;
    l->source = source;
    l->number = l->acked = ++s->lesson_ids << LESSON_SHIFT;
    l->moved_usec = m->heard_usec = s->now.boot_usec; /* it may have waited long for its turn */
    m->lesson = l;
    piece_send(s, l, CATCHUP_START, b);
    m->streams = true; /* what is behind m follows at once */
    stream_resend(s, r, m->server, r->commit.seq);
    stream_tell(s, r);
    lesson_go_on(s, l, NULL);
}

void learner_asked(struct shard *s, struct replica *r, const struct shard_event *e)
{
    struct catchup_ask ask = { e->ask.base, e->ask.applied };
    struct member *m = replica_member(r, e->from);

    if (r->state != REPLICA_PRIMARY || r->resigned || e->ask.view != r->view || !m ||
        !replica_is_learner(r, m)) {
        return;
    }
    if (m->joint) { /* it has begun anew: only a new view ends the need for it (R8) */
        replica_reconfig(s, r, RECONFIG_REMOVE, m->server, 0);
        return;
    }
    lesson_want(s, m, &ask);
}

void learner_turn_end(struct shard *s)
{
    for (size_t n = 0; s->lessons_wait > 0 && s->n_lessons < LESSONS_MAX && n < s->n_replicas;
         n++) {
        struct replica *r = &s->replicas[s->lesson_next++ % s->n_replicas];
        for (unsigned i = r->n_members; i < r->n_members + r->n_learners; i++) {
            if (r->members[i].waits && s->n_lessons < LESSONS_MAX) {
                lesson_begin(s, r, &r->members[i]);
            }
        }
    }
}

void learner_acked(struct shard *s, struct replica *r, uint32_t from, const struct msg_at *at)
{
    struct member *m = replica_member(r, from);
    struct lesson *l = m ? m->lesson : NULL;

    if (!l || at->view != r->view || at->seq >= l->number || at->seq < l->acked) {
        return;
    }
    m->begun = true;
    while (l->acked <= at->seq) {
        l->unacked_bytes -= l->sizes[l->acked++ % LESSON_WINDOW];
    }
    l->moved_usec = m->heard_usec = s->now.boot_usec;
    if (l->ended && l->acked == l->number) {
        m->taught = true;
        lesson_free(s, l);
    } else {
        lesson_go_on(s, l, NULL);
    }
}

bool learner_read(struct shard *s, const struct shard_read *read)
{
    LIST_FOR_EACH(i, &s->lessons)
    {
        struct lesson *l = LIST_ENTRY(i, struct lesson, link);
        if (l->reading && l->read_number == read->number) {
            l->reading = false;
            lesson_go_on(s, l, read);
            return true;
        }
    }
    return false;
}

void learner_dismiss(struct shard *s, struct replica *r)
{
    for (unsigned i = r->n_members; i < r->n_members + r->n_learners; i++) {
        lesson_free(s, r->members[i].lesson);
        s->lessons_wait -= r->members[i].waits;
        r->members[i].waits = false;
    }
}

/* ---- the primary's end: promotion (R8) ---- */

/* Copies with equal commits have equal digests (I6); one that has not is taught from the beginning.
 */
static void digest_compare(struct shard *s, struct replica *r, struct member *m,
                           const struct msg_learned *l)
{
    bool now = l->commit_seq == r->commit.seq;
    struct action *a;

    if (!now && (l->commit_seq != m->told_seq || m->told_seq == 0)) {
        return;
    }
    m->agrees = l->digest == (now ? r->digest : m->told_digest);
    if (m->agrees) {
        return;
    }
    a = actions_add(s->out, ACTION_DIFFERS);
    a->server = m->server;
    a->note = (struct msg_at){ r->partition, r->view, l->commit_seq };
    if (m->joint) { /* only a new view ends the need for it */
        replica_reconfig(s, r, RECONFIG_REMOVE, m->server, 0);
    } else {
        lesson_want(s, m, &(struct catchup_ask){ 0 });
    }
}

void learner_learned(struct shard *s, struct replica *r, const struct shard_event *e)
{
    struct member *m = replica_member(r, e->from);

    if (!m || !replica_is_learner(r, m) || !replica_is_primary(r) || e->learned.view != r->view ||
        !m->taught || !m->streams || e->learned.commit_seq > r->commit.seq) {
        return; /* or of an earlier attempt */
    }
    m->heard_usec = s->now.boot_usec;
    if (!m->learned) {
        m->learned = true;
        m->incarnation = e->incarnation;
        lease_want(s, r);
    }
    m->acked_seq = MAX_OF(m->acked_seq, e->learned.commit_seq); /* applied, so durable there */
    digest_compare(s, r, m, &e->learned);
    learner_watch(s, r);
}

static bool joint_allowed(const struct shard *s, const struct replica *r, const struct member *m)
{
    for (unsigned i = r->n_members; i < r->n_members + r->n_learners; i++) {
        if (r->members[i].joint) {
            return false; /* one at a time */
        }
    }
    return r->state == REPLICA_PRIMARY && !r->resigned && !s->leaving && m->learned && m->agrees &&
           r->last.seq - MIN_OF(m->acked_seq, r->last.seq) <= JOINT_LAG_MAX &&
           r->n_members < REPLICAS_MAX && m->granted_usec != 0 &&
           s->now.boot_usec < m->granted_usec + LEASE_USEC &&
           s->now.boot_usec < s->manager_usec + MANAGER_FRESH_USEC;
}

static void learner_care(struct shard *s, struct replica *r, struct member *m)
{
    if (m->lesson && s->now.boot_usec - m->lesson->moved_usec >= LESSON_USEC) {
        lesson_free(s, m->lesson);
        m->streams = m->begun = false; /* it asks again */
    }
    if (!m->joint && !m->lesson && m->streams && s->now.boot_usec - m->heard_usec >= LESSON_USEC) {
        m->streams = m->begun = m->taught = m->learned = m->agrees = false;
    }
    if (!m->joint && joint_allowed(s, r, m)) {
        m->joint = true; /* from now on nothing is committed or read without it */
        m->joint_seq = r->last.seq;
    }
    if (m->joint && m->agrees && m->acked_seq >= m->joint_seq) {
        replica_reconfig(s, r, RECONFIG_PROMOTE, m->server, m->incarnation);
    }
}

void learner_watch(struct shard *s, struct replica *r)
{
    for (unsigned i = r->n_members; replica_is_primary(r) && i < r->n_members + r->n_learners;
         i++) {
        learner_care(s, r, &r->members[i]);
    }
}
