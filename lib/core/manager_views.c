/* View changes: accused partitions, sealed members, and the views that follow (R6, R7, R9, R14). */
#include "base/cleanup.h"
#include "base/mem.h"
#include "core/manager_private.h"
#include "core/placement.h"

static int member_slot(const struct view_row *row, uint32_t server)
{
    for (unsigned i = 0; i < row->n_members; i++) {
        if (row->members[i] == server) {
            return (int) i;
        }
    }
    return -1;
}

void manager_need_clear(struct manager *m, uint32_t partition)
{
    m->n_needed -= m->needs[partition].needed;
    m->needs[partition] = (struct need){ 0 };
}

void manager_on_reconfig(struct manager *m, const struct manager_event *e)
{
    const struct hashspace *h = &m->cluster.space;
    uint32_t p = e->reconfig.partition;

    /* R14: by a member of the named view, which is the newest. */
    if (!m->leader || p >= h->n_partitions || e->reconfig.view != h->rows[p].view ||
        member_slot(&h->rows[p], manager_server_of(m, e->conn)) < 0 || m->needs[p].needed) {
        return;
    }
    m->needs[p].needed = true;
    m->n_needed++;
}

void manager_on_sealed(struct manager *m, const struct manager_event *e)
{
    const struct hashspace *h = &m->cluster.space;
    uint32_t server = manager_server_of(m, e->conn);
    uint32_t p = e->sealed.partition;
    int slot;

    if (p >= h->n_partitions || e->sealed.view != h->rows[p].view || !m->needs[p].needed ||
        !manager_server_is_up(m, server)) {
        return;
    }
    slot = member_slot(&h->rows[p], server);
    if (slot >= 0) {
        m->needs[p].reports[slot] = (struct report){ m->links[server - 1].incarnation,
                                                     e->sealed.last, e->sealed.time_usec };
    }
}

static bool is_reported(const struct manager *m, const struct view_row *row, unsigned slot)
{
    uint32_t server = row->members[slot];
    const struct report *r = &m->needs[row->partition].reports[slot];

    return manager_server_is_up(m, server) && r->incarnation == m->links[server - 1].incarnation;
}

/* Asks every member that has not reported to seal; needs all of them connected. */
static void seal_ask(struct manager *m, const struct view_row *row)
{
    struct need *n = &m->needs[row->partition];

    if (n->asked_usec != 0 && m->now_usec - n->asked_usec < MANAGER_SEAL_USEC) {
        return;
    }
    for (unsigned i = 0; i < row->n_members; i++) {
        if (!manager_server_is_up(m, row->members[i])) {
            return;
        }
    }
    n->asked_usec = m->now_usec;
    for (unsigned i = 0; i < row->n_members; i++) {
        if (!is_reported(m, row, i)) {
            manager_act(m, MANAGER_DO_SEAL, m->links[row->members[i] - 1].conn, 0)->note =
                (struct msg_at){ .partition = row->partition, .view = row->view };
        }
    }
}

/* The next view, when every member has reported: the highest (view, seq) leads (R7). */
static bool view_next(const struct manager *m, const struct view_row *row, uint32_t preferred,
                      struct view_row *ret)
{
    const struct need *n = &m->needs[row->partition];
    unsigned best = 0;

    *ret = *row;
    ret->view = row->view + 1;
    for (unsigned i = 0; i < row->n_members; i++) {
        int c;
        if (!is_reported(m, row, i)) {
            return false;
        }
        ret->time_usec = MAX_OF(ret->time_usec, n->reports[i].time_usec);
        c = name_compare(n->reports[i].last, n->reports[best].last);
        if (c > 0 || (c == 0 && row->members[i] == preferred)) {
            best = i;
        }
    }
    ret->members[0] = row->members[best];
    ret->members[best] = row->members[0];
    return true;
}

void manager_views_propose(struct manager *m)
{
    const struct hashspace *h = &m->cluster.space;
    _cleanup_free_ struct view_row *rows = NULL;
    uint32_t servers[SERVERS_MAX];
    uint32_t n_servers;
    size_t n = 0;
    size_t begin = buf_len(&m->bytes);

    if (m->n_needed == 0) {
        return;
    }
    n_servers = cluster_attached(&m->cluster, servers);
    rows = mem_alloc(MANAGER_VIEWS_MAX * sizeof(*rows));
    for (uint32_t p = 0; p < h->n_partitions && n < MANAGER_VIEWS_MAX; p++) {
        if (m->needs[p].needed) {
            const struct view_row *row = &h->rows[p];
            seal_ask(m, row);
            n += view_next(m, row,
                           placement_primary((uint16_t) p, h->n_partitions, servers, n_servers,
                                             row->members, row->n_members),
                           &rows[n]);
        }
    }
    if (n > 0 && m->views_tag == 0) {
        cluster_put_views(&m->bytes, &m->cluster, rows, n);
        m->views_tag = manager_propose(m, begin);
    }
}

uint32_t manager_waiting(const struct manager *m, uint32_t *ret_server)
{
    const struct hashspace *h = &m->cluster.space;

    *ret_server = 0;
    for (uint32_t p = 0; p < m->n_needs && *ret_server == 0; p++) {
        for (unsigned i = 0; m->needs[p].needed && i < h->rows[p].n_members; i++) {
            if (!manager_server_is_up(m, h->rows[p].members[i])) {
                *ret_server = h->rows[p].members[i];
            }
        }
    }
    return m->n_needed;
}
