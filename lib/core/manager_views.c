/* View changes: which partitions need one, sealing, and the views that follow (R7, R9, R11). What
 * is asked for and decided at once is in manager_reconfig.c. */
#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "core/manager_private.h"
#include "core/placement.h"

/* ---- needs ---- */

void manager_needs_make(struct manager *m)
{
    list_init(&m->needed);
    m->n_needed = 0;
    free(m->needs);
    m->n_needs = m->cluster.space.n_partitions;
    m->needs = mem_zalloc(m->n_needs, sizeof(*m->needs));
    for (uint32_t p = 0; p < m->n_needs; p++) {
        list_init(&m->needs[p].link);
    }
}

void manager_need_clear(struct manager *m, uint32_t partition)
{
    struct need *need = &m->needs[partition];

    m->n_needed -= need->kind != NEED_NONE;
    list_remove(&need->link);
    *need = (struct need){ 0 };
    list_init(&need->link);
}

void manager_need_begin(struct manager *m, uint32_t partition, enum need_kind kind)
{
    struct need *need = &m->needs[partition];

    manager_need_clear(m, partition);
    need->kind = (uint8_t) kind;
    need->since_usec = m->now_usec;
    list_push_back(&m->needed, &need->link);
    m->n_needed++;
}

void manager_need_seal(struct manager *m, uint32_t partition)
{
    if (m->needs[partition].kind != NEED_SEAL) {
        manager_need_begin(m, partition, NEED_SEAL);
    }
}

static const struct view_row *row_of(const struct manager *m, const struct need *need)
{
    return &m->cluster.space.rows[need - m->needs];
}

/* ---- reports ---- */

void manager_on_sealed(struct manager *m, const struct manager_event *e)
{
    const struct hashspace *h = &m->cluster.space;
    uint32_t server = manager_server_of(m, e->conn);
    uint32_t p = e->sealed.partition;
    int slot;

    if (p >= h->n_partitions || e->sealed.view != h->rows[p].view ||
        m->needs[p].kind != NEED_SEAL || !manager_server_is_up(m, server)) {
        return;
    }
    slot = hashspace_member_slot(&h->rows[p], server);
    if (slot >= 0) {
        m->needs[p].reports[slot] =
            (struct report){ .incarnation = m->links[server - 1].incarnation,
                             .last = e->sealed.last,
                             .commit = e->sealed.commit,
                             .time_usec = e->sealed.time_usec,
                             .trusted = e->sealed.trusted };
    }
}

/* A report counts as long as the process that made it is here. */
static bool is_reported(const struct manager *m, const struct need *need, unsigned slot)
{
    uint32_t server = row_of(m, need)->members[slot];
    const struct report *r = &need->reports[slot];

    return manager_server_is_up(m, server) && r->incarnation == m->links[server - 1].incarnation;
}

/* Asks the members that are here and have not reported: each when it comes, and again later. */
static void seal_ask(struct manager *m, struct need *need)
{
    const struct view_row *row = row_of(m, need);
    bool again = m->now_usec - need->asked_usec >= MANAGER_SEAL_USEC;

    for (unsigned i = 0; i < row->n_members; i++) {
        uint32_t server = row->members[i];
        uint64_t conn = manager_server_is_up(m, server) ? m->links[server - 1].conn : 0;
        if (conn != 0 && !is_reported(m, need, i) && (again || need->asked[i] != conn)) {
            manager_act(m, MANAGER_DO_SEAL, conn, 0)->note =
                (struct msg_at){ .partition = row->partition, .view = row->view };
            need->asked[i] = conn;
        }
    }
    need->asked_usec = again ? m->now_usec : need->asked_usec;
}

/* ---- the next view, from reports ---- */

/* What the reports say when they are looked at together. */
struct tally {
    unsigned reports;
    unsigned stay; /* of them, neither accused nor leaving for another reason */
    bool missing;  /* somebody who is waited for has not reported */
    bool silent;   /* somebody who may hold more than all others has not */
    bool trusted;  /* one at least did not lose what it had answered for */
};

/* Not to lead, and not waited for. */
static bool is_shunned(const struct need *need, unsigned slot)
{
    return (need->out >> slot & 1) || (slot == 0 && need->is_accused);
}

static struct tally tally_make(const struct manager *m, const struct need *need)
{
    const struct view_row *row = row_of(m, need);
    struct tally t = { 0 };

    for (unsigned i = 0; i < row->n_members; i++) {
        bool is_out = need->out >> i & 1;
        if (is_reported(m, need, i)) {
            t.reports++;
            t.stay += !is_out;
            t.trusted = t.trusted || need->reports[i].trusted;
        } else {
            t.missing = t.missing || !is_shunned(need, i);
            t.silent = t.silent || !is_out;
        }
    }
    return t;
}

/* R7, R11: is what was reported enough for a view? A member that did not report is removed, but not
 * before the failure timeout, not below min-replicas-auto, and not as long as only copies that may
 * have lost answered writes have reported. */
static bool is_enough(const struct manager *m, const struct need *need, const struct tally *t)
{
    uint64_t from_usec = MAX_OF(need->since_usec, m->waits_usec);

    if (t->reports == 0 || (t->silent && !t->trusted)) {
        return false;
    }
    if (t->missing && m->now_usec - from_usec < m->o.failure_usec) {
        return false;
    }
    return MAX_OF(t->stay, 1u) >= MIN_OF(manager_members_min(m), row_of(m, need)->n_members);
}

/* The reporter with the highest (view, seq), `preferred` among equals; shunned ones only if wanted.
 * -1: none. */
static int best_reporter(const struct manager *m, const struct need *need, uint32_t preferred,
                         bool shunned)
{
    const struct view_row *row = row_of(m, need);
    int best = -1;

    for (unsigned i = 0; i < row->n_members; i++) {
        int c;
        if (!is_reported(m, need, i) || (is_shunned(need, i) && !shunned)) {
            continue;
        }
        c = best < 0 ? 1 : name_compare(need->reports[i].last, need->reports[best].last);
        if (c > 0 || (c == 0 && row->members[i] == preferred)) {
            best = (int) i;
        }
    }
    return best;
}

/* R7: who leads. An accused or leaving one only if nobody else can: nobody else reported, or those
 * who did may have lost what it holds. */
static unsigned leader_choose(const struct manager *m, const struct need *need, uint32_t preferred)
{
    int any = best_reporter(m, need, preferred, true);
    int best = best_reporter(m, need, preferred, false);

    kumo_assert(any >= 0);
    if (best < 0 || (!need->reports[best].trusted &&
                     name_compare(need->reports[any].last, need->reports[best].last) > 0)) {
        best = any;
    }
    return (unsigned) best;
}

/* One that lacks what the leader knows as committed, or has committed what the leader lacks, has to
 * learn anew. */
static bool is_fitting(const struct report *r, const struct report *leader)
{
    return r->last.seq >= leader->commit.seq && r->commit.seq <= leader->last.seq;
}

/* The next view, if there is enough to form it (R7). */
static bool next_sealed(const struct manager *m, const struct need *need,
                        const struct attached *attached, struct view_row *ret)
{
    const struct view_row *row = row_of(m, need);
    const struct tally t = tally_make(m, need);
    unsigned leader;

    if (!is_enough(m, need, &t)) {
        return false;
    }
    leader = leader_choose(m, need,
                           placement_primary(row->partition, m->cluster.space.n_partitions,
                                             attached->servers, attached->n, row->members,
                                             row->n_members));
    *ret = *row;
    ret->view = row->view + 1;
    ret->n_members = 0;
    manager_row_put(ret, row->members[leader], true);
    for (unsigned i = 0; i < row->n_members; i++) {
        const struct report *r = &need->reports[i];
        bool here = is_reported(m, need, i);
        ret->time_usec = here ? MAX_OF(ret->time_usec, r->time_usec) : ret->time_usec;
        if (i != leader) {
            manager_row_put(ret, row->members[i],
                            here && !(need->out >> i & 1) && is_fitting(r, &need->reports[leader]));
        }
    }
    return true;
}

void manager_row_put(struct view_row *row, uint32_t server, bool member)
{
    if (member) {
        kumo_assert(row->n_members < REPLICAS_MAX);
        row->members[row->n_members++] = server;
    } else if (row->n_learners < LEARNERS_MAX) {
        row->learners[row->n_learners++] = server;
    }
}

/* ---- all that are needed ---- */

unsigned manager_members_min(const struct manager *m)
{
    return MAX_OF(m->o.min_replicas_auto, 1u);
}

/* The next view of a needed partition; one that has become impossible is needed no more. */
static bool next_of(struct manager *m, struct need *need, const struct attached *attached,
                    struct view_row *ret)
{
    if (need->kind == NEED_SEAL) {
        return next_sealed(m, need, attached, ret);
    }
    if (manager_next_at_once(m, row_of(m, need), need, ret)) {
        return true;
    }
    manager_need_clear(m, (uint32_t) (need - m->needs));
    return false;
}

void manager_views_propose(struct manager *m)
{
    _cleanup_free_ struct view_row *rows = NULL;
    struct attached attached;
    size_t begin = buf_len(&m->bytes);
    size_t n = 0;

    if (m->n_needed == 0) {
        return;
    }
    attached.n = cluster_attached(&m->cluster, attached.servers);
    rows = mem_alloc(MANAGER_VIEWS_MAX * sizeof(*rows));
    LIST_FOR_EACH_SAFE(i, &m->needed)
    {
        struct need *need = LIST_ENTRY(i, struct need, link);
        if (need->kind == NEED_SEAL) {
            seal_ask(m, need);
        }
        if (m->views_tag == 0 && n < MANAGER_VIEWS_MAX) {
            n += next_of(m, need, &attached, &rows[n]);
        }
    }
    if (n > 0) {
        cluster_put_views(&m->bytes, &m->cluster, rows, n);
        m->views_tag = manager_propose(m, begin);
    }
}

/* A member that the partition waits for, 0: none. */
static uint32_t waited_for(const struct manager *m, const struct need *need)
{
    const struct view_row *row = row_of(m, need);

    for (unsigned i = 0; i < row->n_members; i++) {
        if (!manager_server_is_up(m, row->members[i])) {
            return row->members[i];
        }
    }
    return 0;
}

uint32_t manager_waiting(const struct manager *m, uint32_t *ret_server)
{
    *ret_server = 0;
    LIST_FOR_EACH(i, &m->needed)
    {
        *ret_server = waited_for(m, LIST_ENTRY(i, struct need, link));
        if (*ret_server != 0) {
            break;
        }
    }
    return m->n_needed;
}
