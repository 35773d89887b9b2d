/* What members ask for (R6, R8, R14, R16), and the views that follow at once, without sealing:
 * those that the primary asks for, or a secondary that leaves. They are safe because the primary
 * goes on as the same process, which holds all that was committed, or has handed everything over.
 */
#include "base/assert.h"
#include "core/manager_private.h"

/* ---- who may ask ---- */

/* The sender's place in the row that the request names, -1: this is nobody's business. R9, R14: a
 * member of the newest view, by its newest process. */
static int sender_slot(const struct manager *m, const struct view_row *row,
                       const struct manager_event *e)
{
    uint32_t sender = manager_server_of(m, e->conn);

    if (row->view == 0 || e->reconfig.view != row->view || !manager_server_is_up(m, sender)) {
        return -1;
    }
    return hashspace_member_slot(row, sender);
}

static bool is_restarted(const struct manager *m, const struct view_row *row, uint32_t server)
{
    return cluster_is_restarted(&m->cluster, server, row->partition);
}

/* May the members in `out` leave, all of them? Never the last, never below min-replicas-auto. */
static bool may_leave(const struct manager *m, const struct view_row *row, uint32_t out)
{
    return out == 0 ||
           row->n_members - (unsigned) __builtin_popcount(out) >= manager_members_min(m);
}

/* ---- the next view, at once ---- */

static void row_drop_learner(struct view_row *row, uint32_t server)
{
    unsigned n = 0;

    for (unsigned i = 0; i < row->n_learners; i++) {
        if (row->learners[i] != server) {
            row->learners[n++] = row->learners[i];
        }
    }
    row->n_learners = (uint8_t) n;
}

/* R14, R8: members in `out` become learners; none: a learner is withdrawn, and only counts for
 * nothing again. */
static bool next_remove(const struct manager *m, const struct view_row *row,
                        const struct need *need, struct view_row *ret)
{
    if (!may_leave(m, row, need->out)) {
        return false;
    }
    ret->n_members = 0;
    for (unsigned i = 0; i < row->n_members; i++) {
        manager_row_put(ret, row->members[i], !(need->out >> i & 1));
    }
    return true;
}

/* R16: the successor first, the one that resigned last. */
static bool next_resign(const struct manager *m, const struct view_row *row,
                        const struct need *need, struct view_row *ret)
{
    int slot = hashspace_member_slot(row, need->server);

    if (slot <= 0 || !manager_server_is_up(m, need->server) || is_restarted(m, row, need->server)) {
        return false;
    }
    ret->n_members = 0;
    manager_row_put(ret, need->server, true);
    for (unsigned i = 1; i < row->n_members; i++) {
        if ((int) i != slot) {
            manager_row_put(ret, row->members[i], true);
        }
    }
    manager_row_put(ret, row->members[0], true);
    return true;
}

/* R8: the learner, this process of it, becomes the last member. */
static bool next_promote(const struct manager *m, const struct view_row *row,
                         const struct need *need, struct view_row *ret)
{
    if (hashspace_learner_slot(row, need->server) < 0 || row->n_members >= REPLICAS_MAX ||
        !manager_server_is_up(m, need->server) ||
        m->links[need->server - 1].incarnation != need->incarnation) {
        return false;
    }
    row_drop_learner(ret, need->server);
    manager_row_put(ret, need->server, true);
    return true;
}

bool manager_next_at_once(const struct manager *m, const struct view_row *row,
                          const struct need *need, struct view_row *ret)
{
    *ret = *row;
    ret->view = row->view + 1;
    if (is_restarted(m, row, row->members[0])) {
        return false; /* it does not act, and may have lost what only it held */
    }
    switch (need->change) {
    case RECONFIG_REMOVE:
        return next_remove(m, row, need, ret);
    case RECONFIG_RESIGN:
        return next_resign(m, row, need, ret);
    case RECONFIG_PROMOTE:
        return next_promote(m, row, need, ret);
    default:
        kumo_unreachable();
    }
}

/* ---- requests ---- */

/* The change takes the place of what was wanted before, unless it is impossible. */
static void change_want(struct manager *m, const struct view_row *row, const struct need *wanted)
{
    struct need *need = &m->needs[row->partition];
    struct view_row next;

    if (!manager_next_at_once(m, row, wanted, &next)) {
        return;
    }
    manager_need_begin(m, row->partition, NEED_CHANGE);
    need->change = wanted->change;
    need->server = wanted->server;
    need->incarnation = wanted->incarnation;
    need->out = wanted->out;
}

/* Removals of one view go together; they come before a promotion or a resignation, which are asked
 * for again in the next view. A pending seal is stronger: the primary may have sealed already. */
static void remove_at_once(struct manager *m, const struct view_row *row, uint32_t out)
{
    const struct need *need = &m->needs[row->partition];
    struct need wanted = { .change = RECONFIG_REMOVE, .out = out };

    if (need->kind == NEED_CHANGE && need->change == RECONFIG_REMOVE) {
        wanted.out |= need->out;
    }
    change_want(m, row, &wanted);
}

/* A member says that it is no good any more: it lacks entries, distrusts its disk, or stops. */
static void on_leave(struct manager *m, const struct view_row *row, unsigned slot)
{
    struct need *need = &m->needs[row->partition];
    uint32_t out = UINT32_C(1) << slot;

    if (need->kind != NEED_SEAL && slot > 0 && !is_restarted(m, row, row->members[0])) {
        remove_at_once(m, row, out);
        return;
    }
    if (may_leave(m, row, (need->kind == NEED_SEAL ? need->out : 0) | out)) {
        manager_need_seal(m, row->partition);
        need->out |= out;
    }
}

static void on_remove(struct manager *m, const struct view_row *row, unsigned slot,
                      uint32_t accused)
{
    struct need *need = &m->needs[row->partition];
    int target = hashspace_member_slot(row, accused);
    bool is_learner = hashspace_learner_slot(row, accused) >= 0;

    if (target == (int) slot) {
        on_leave(m, row, slot);
    } else if (is_restarted(m, row, row->members[slot])) {
        return; /* R6: it has seen nothing of this view */
    } else if (slot == 0 && (target > 0 || is_learner) && need->kind != NEED_SEAL) {
        remove_at_once(m, row, target > 0 ? UINT32_C(1) << target : 0);
    } else if (slot > 0 && target == 0 && need->kind != NEED_CHANGE) {
        manager_need_seal(m, row->partition);
        need->is_accused = true;
    } /* secondaries do not hear each other */
}

/* Of the primary only: what it asks for besides removals. */
static void on_wish(struct manager *m, const struct view_row *row, unsigned slot,
                    const struct msg_reconfig *wish)
{
    const struct need wanted = { .change = wish->kind,
                                 .server = wish->server,
                                 .incarnation = wish->incarnation };

    if (slot == 0 && m->needs[row->partition].kind == NEED_NONE) {
        change_want(m, row, &wanted);
    }
}

void manager_on_reconfig(struct manager *m, const struct manager_event *e)
{
    const struct hashspace *h = &m->cluster.space;
    uint16_t p = e->reconfig.partition;
    const struct view_row *row;
    int slot;

    if (!m->leader || p >= h->n_partitions) {
        return;
    }
    row = &h->rows[p];
    slot = sender_slot(m, row, e);
    if (slot < 0) {
        return;
    }
    switch (e->reconfig.kind) {
    case RECONFIG_RENEW:
        if (m->needs[p].kind == NEED_NONE) {
            manager_need_seal(m, p);
        }
        return;
    case RECONFIG_REMOVE:
        on_remove(m, row, (unsigned) slot, e->reconfig.server);
        return;
    case RECONFIG_RESIGN:
    case RECONFIG_PROMOTE:
        on_wish(m, row, (unsigned) slot, &e->reconfig);
        return;
    default: /* of a newer version */
        return;
    }
}
