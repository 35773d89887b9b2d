/* Sessions of gateways (R12): opened on request, told to the servers, and ended by an entry of the
 * log when no gateway has named them for the session timeout. When each was heard is the leader's
 * own knowledge: nothing of it is in the replicated state, and it begins anew with each lead. */
#include "base/mem.h"
#include "core/manager_private.h"

#include <stdlib.h>

/* ---- opening ---- */

void manager_on_session(struct manager *m, const struct manager_event *e)
{
    size_t begin = buf_len(&m->bytes);

    if (!manager_request_allowed(m, e)) {
        return;
    }
    if (m->cluster.sessions.n >= SESSIONS_MAX) {
        manager_refuse(m, e->conn, e->request, "too many sessions are open");
        return;
    }
    cluster_put_session(&m->bytes);
    manager_request_add(m, e, manager_propose(m, begin));
}

void manager_session_done(struct manager *m, const struct request *q, uint64_t index)
{
    if (live_sessions_has(&m->cluster.sessions, index)) {
        manager_act(m, MANAGER_DO_SESSION, q->conn, q->request)->session = index;
    } else { /* others were opened at the same time */
        manager_refuse(m, q->conn, q->request, "too many sessions are open");
    }
}

/* ---- telling the servers ---- */

/* Whoever registered here hears of every change in its order, whether this manager leads or not. */
static void tell_all(struct manager *m, const struct msg_sessions *news)
{
    for (size_t i = 0; i < m->n_links; i++) {
        if (m->links[i].conn != 0) {
            manager_act(m, MANAGER_DO_SESSIONS, m->links[i].conn, 0)->sessions = *news;
        }
    }
}

void manager_sessions_tell(struct manager *m, uint64_t conn)
{
    manager_act(m, MANAGER_DO_SESSIONS, conn, 0)->sessions =
        live_sessions_whole(&m->cluster.sessions);
}

void manager_sessions_tell_untold(struct manager *m)
{
    struct msg_sessions whole = live_sessions_whole(&m->cluster.sessions);

    if (m->sessions_untold) {
        m->sessions_untold = false;
        tell_all(m, &whole);
    }
}

/* ---- who was heard ---- */

static struct heard *heard_find(struct manager *m, uint64_t id)
{
    size_t low = 0;
    size_t high = m->n_heard;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (m->heard[middle].id == id) {
            return &m->heard[middle];
        }
        if (m->heard[middle].id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

static void heard_add(struct manager *m, uint64_t id)
{
    mem_grow(&m->heard, &m->cap_heard, m->n_heard + 1, sizeof(*m->heard));
    m->heard[m->n_heard++] = (struct heard){ id, m->now_usec };
}

static void heard_drop_ended(struct manager *m)
{
    size_t kept = 0;

    for (size_t i = 0; i < m->n_heard; i++) {
        if (live_sessions_has(&m->cluster.sessions, m->heard[i].id)) {
            m->heard[kept++] = m->heard[i];
        }
    }
    m->n_heard = kept;
}

void manager_sessions_begin(struct manager *m)
{
    m->n_heard = 0;
    m->expire_tag = 0;
    for (size_t i = 0; i < m->cluster.sessions.n; i++) {
        heard_add(m, m->cluster.sessions.ids[i]);
    }
}

void manager_sessions_restored(struct manager *m)
{
    manager_sessions_begin(m);
    m->sessions_untold = true;
}

void manager_sessions_changed(struct manager *m)
{
    struct msg_sessions news = { .index = m->cluster.sessions.index };

    if (m->effect.opened > 0) {
        heard_add(m, m->effect.opened);
        news.n_opened = 1;
        news.ids = &m->effect.opened;
    } else if (m->effect.n_ended > 0) {
        heard_drop_ended(m);
        news.n_ended = m->effect.n_ended;
        news.ids = m->effect.ended;
    } else {
        return;
    }
    if (!m->sessions_untold) {
        tell_all(m, &news);
    }
}

void manager_on_sessions_alive(struct manager *m, const struct manager_event *e)
{
    struct manager_action *a;

    if (!manager_request_allowed(m, e)) {
        return;
    }
    m->n_over = 0;
    for (uint32_t i = 0; i < e->alive.n; i++) {
        struct heard *h = heard_find(m, e->alive.ids[i]);
        if (h) {
            h->usec = m->now_usec;
        } else {
            mem_grow(&m->over, &m->cap_over, m->n_over + 1, sizeof(*m->over));
            m->over[m->n_over++] = e->alive.ids[i];
        }
    }
    a = manager_act(m, MANAGER_DO_OVER, e->conn, e->request);
    a->over.ids = m->over;
    a->over.n = (uint32_t) m->n_over;
}

/* ---- the end ---- */

static void expire(struct manager *m)
{
    uint64_t timeout_usec = m->o.session_usec ? m->o.session_usec : MANAGER_SESSION_USEC_DEFAULT;
    uint64_t ids[CLUSTER_EXPIRE_MAX];
    size_t begin = buf_len(&m->bytes);
    uint32_t n = 0;

    for (size_t i = 0; i < m->n_heard && n < CLUSTER_EXPIRE_MAX; i++) {
        if (m->now_usec - m->heard[i].usec >= timeout_usec) {
            ids[n++] = m->heard[i].id;
        }
    }
    if (n > 0) {
        cluster_put_expire(&m->bytes, ids, n);
        m->expire_tag = manager_propose(m, begin);
    }
}

void manager_sessions_tick(struct manager *m)
{
    uint64_t gap_usec = m->now_usec - m->sessions_usec;

    if (gap_usec < MANAGER_EXPIRE_USEC) {
        return;
    }
    m->sessions_usec = m->now_usec;
    if (gap_usec >= 2 * MANAGER_EXPIRE_USEC) {
        manager_sessions_begin(m); /* it stood still, and heard nobody */
    } else if (m->expire_tag == 0) {
        expire(m);
    }
}
