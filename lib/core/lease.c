/* Leases (R10): a primary answers what proposes nothing only while every other member has promised
 * not to act as primary. Also who is not heard any more (R14): a request for leases is the
 * primary's heartbeat, a grant the secondary's. Never decides who leads. */
#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "core/replica.h"

#include <string.h>

/* A member whose acks don't move on is given more time than one that is silent, and so is a log: a
 * disk may be busy. */
#define STALL_FACTOR 3

/* ---- the primary's end ---- */

void lease_want(struct shard *s, struct replica *r)
{
    if (list_empty(&r->in_leasing)) {
        list_push_back(&s->leasing, &r->in_leasing);
    }
}

/* Those whose leases count, and learners that may soon be among them. */
static bool is_asked(const struct replica *r, const struct member *m)
{
    return !replica_is_learner(r, m) || m->learned;
}

static bool counts(const struct replica *r, const struct member *m)
{
    return !replica_is_learner(r, m) || m->joint;
}

static void ask_add(struct shard *s, struct replica *r)
{
    uint64_t time_usec = replica_told_time(s, r);

    for (unsigned i = 1; i < r->n_members + r->n_learners; i++) {
        const struct member *m = &r->members[i];
        struct peer *p;
        if (!is_asked(r, m)) {
            continue;
        }
        p = shard_peer(s, m->server);
        mem_grow(&p->asks, &p->cap_asks, p->n_asks + 1, sizeof(*p->asks));
        p->asks[p->n_asks++] = (struct msg_lease){ r->partition, r->view, time_usec };
    }
}

static void asks_send(struct shard *s)
{
    for (uint32_t server = 1; server < s->n_peers; server++) {
        struct peer *p = &s->peers[server];
        struct action *a;
        if (p->n_asks == 0) {
            continue;
        }
        a = actions_add(s->out, ACTION_LEASES);
        a->server = server;
        a->leases.sent_usec = s->now.boot_usec;
        a->leases.v = p->asks;
        a->leases.n = p->n_asks;
        p->n_asks = 0; /* the memory stays as it is until the next step */
    }
}

void lease_turn_end(struct shard *s)
{
    if (list_empty(&s->leasing)) {
        return;
    }
    LIST_FOR_EACH_SAFE(i, &s->leasing)
    {
        struct replica *r = LIST_ENTRY(i, struct replica, in_leasing);
        list_remove(i);
        if (replica_is_primary(r)) {
            ask_add(s, r);
        }
    }
    asks_send(s);
}

void lease_tick(struct shard *s)
{
    if (s->now.boot_usec - s->lease_usec < SHARD_LEASE_USEC) {
        return;
    }
    s->lease_usec = s->now.boot_usec;
    for (size_t i = 0; i < s->n_replicas; i++) {
        if (replica_is_primary(&s->replicas[i]) &&
            s->replicas[i].n_members + s->replicas[i].n_learners > 1) {
            lease_want(s, &s->replicas[i]);
        }
    }
}

void lease_granted(struct shard *s, const struct shard_event *e)
{
    if (e->leases.sent_usec > s->now.boot_usec) {
        return; /* nothing was asked then: it would be a lease without end */
    }
    for (size_t i = 0; i < e->leases.n; i++) {
        const struct msg_lease *l = &e->leases.v[i];
        struct replica *r = shard_replica(s, l->partition);
        struct member *m = r ? replica_member(r, e->from) : NULL;
        if (!m || l->view != r->view || !replica_is_primary(r)) {
            continue;
        }
        m->granted_usec = MAX_OF(m->granted_usec, e->leases.sent_usec); /* R10: when it was sent */
        m->heard_usec = s->now.boot_usec;
        parked_leased(s, r);
    }
}

bool lease_holds(const struct shard *s, const struct replica *r)
{
    for (unsigned i = 1; i < r->n_members + r->n_learners; i++) {
        const struct member *m = &r->members[i];
        if (counts(r, m) && (m->granted_usec == 0 ||
                             (s->o.confirm ? m->granted_usec < s->asked_usec
                                           : s->now.boot_usec >= m->granted_usec + LEASE_USEC))) {
            return false;
        }
    }
    return true;
}

void lease_give_back(struct shard *s, const struct replica *r)
{
    for (unsigned i = 1; i < r->n_members + r->n_learners; i++) {
        struct action *a;
        if (!is_asked(r, &r->members[i])) {
            continue;
        }
        a = actions_add(s->out, ACTION_LEASE_BACK);
        a->server = r->members[i].server;
        a->note = (struct msg_at){ .partition = r->partition, .view = r->view };
    }
}

/* ---- the granter's end ---- */

static void promise(struct shard *s, struct replica *r, uint32_t server)
{
    struct promise new = { server, r->view, s->now.boot_usec + PROMISE_USEC };
    struct promise *oldest = &r->promises[0];

    for (unsigned i = 0; i < ARRAY_LEN(r->promises); i++) {
        struct promise *p = &r->promises[i];
        if (p->server == server) {
            *p = new;
            return;
        }
        if (p->until_usec < oldest->until_usec) {
            oldest = p;
        }
    }
    if (oldest->until_usec > s->now.boot_usec) {
        new.server = 0; /* it stands for both, and nobody can give it back */
    }
    *oldest = new;
}

uint64_t lease_promised_until(const struct replica *r, uint32_t self)
{
    uint64_t until_usec = 0;

    for (unsigned i = 0; i < ARRAY_LEN(r->promises); i++) {
        const struct promise *p = &r->promises[i];
        if (p->server != self) {
            until_usec = MAX_OF(until_usec, p->until_usec);
        }
    }
    return until_usec;
}

/* A learner grants as well: it may become joint, and later a primary. Not one that has just
 * restarted: the primary must notice that it takes nothing, and it must ask again. */
static bool grants(const struct replica *r, uint32_t from, const struct msg_lease *l)
{
    return l->view == r->view && r->members[0].server == from &&
           (r->state == REPLICA_SECONDARY ||
            (r->state == REPLICA_LEARNER && !r->incomplete && r->taken != UINT64_MAX));
}

void lease_asked(struct shard *s, const struct shard_event *e)
{
    struct action *a;
    size_t n = 0;

    mem_grow(&s->grants, &s->cap_grants, e->leases.n, sizeof(*s->grants));
    for (size_t i = 0; i < e->leases.n; i++) {
        const struct msg_lease *l = &e->leases.v[i];
        struct replica *r = shard_replica(s, l->partition);
        if (!r || !grants(r, e->from, l)) {
            continue;
        }
        promise(s, r, e->from);
        r->heard_usec = s->now.boot_usec;
        r->time_usec = MAX_OF(r->time_usec, l->time_usec); /* R13 */
        s->grants[n++] = (struct msg_lease){ l->partition, l->view, 0 };
    }
    if (n > 0) {
        a = actions_add(s->out, ACTION_GRANTS);
        a->server = e->from;
        a->leases.sent_usec = e->leases.sent_usec;
        a->leases.v = s->grants;
        a->leases.n = n;
    }
}

void lease_returned(struct replica *r, uint32_t from, uint32_t view)
{
    for (unsigned i = 0; i < ARRAY_LEN(r->promises); i++) {
        struct promise *p = &r->promises[i];
        if (p->server == from && p->view <= view) { /* not what was granted in a later one */
            p->until_usec = 0;
        }
    }
}

/* ---- who is not heard ---- */

static uint64_t since(const struct shard *s, uint64_t usec)
{
    usec = MAX_OF(usec, s->quiet_usec);
    return s->now.boot_usec > usec ? s->now.boot_usec - usec : 0;
}

static bool is_silent(const struct shard *s, const struct replica *r, const struct member *m)
{
    uint64_t limit = s->o.replica_usec;
    const struct peer *p = m->server < s->n_peers ? &s->peers[m->server] : NULL;

    if (since(s, m->heard_usec) >= limit) {
        return true;
    }
    if (p && p->space >= SPACE_FULL) { /* it waits for room, and so will the others (R15) */
        return false;
    }
    return m->acked_seq < r->last.seq &&
           since(s, MAX_OF(r->commit_usec, p ? p->progress_usec : 0)) >= STALL_FACTOR * limit;
}

/* The primary's own log stands still, and all others have what it lacks: one of them leads better.
 * A full disk is no such case: theirs will be full as well. */
static bool is_hung(const struct shard *s, const struct replica *r)
{
    bool lags = r->n_members > 1 && r->durable_seq < r->last.seq && s->space < SPACE_FULL;

    for (unsigned i = 1; lags && i < r->n_members; i++) {
        lags = r->members[i].acked_seq > r->durable_seq;
    }
    return lags && since(s, r->commit_usec) >= STALL_FACTOR * s->o.replica_usec;
}

void lease_watch(struct shard *s, struct replica *r)
{
    uint64_t again_usec;

    if (replica_is_primary(r) && is_hung(s, r)) {
        replica_reconfig(s, r, RECONFIG_REMOVE, s->o.server, 0);
    }
    if (r->state == REPLICA_SECONDARY && since(s, r->heard_usec) >= s->o.failure_usec) {
        replica_reconfig(s, r, RECONFIG_REMOVE, r->members[0].server, 0);
    }
    again_usec = r->reconfig_usec;
    for (unsigned i = 1; replica_is_primary(r) && i < r->n_members + r->n_learners; i++) {
        if (counts(r, &r->members[i]) && is_silent(s, r, &r->members[i])) {
            r->reconfig_usec = again_usec; /* all that are silent leave in one view */
            replica_reconfig(s, r, RECONFIG_REMOVE, r->members[i].server, 0);
        }
    }
}
