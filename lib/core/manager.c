#include "core/manager.h"

#include "base/assert.h"
#include "base/mem.h"
#include "core/manager_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- small things ---- */

struct manager_action *manager_act(struct manager *m, enum manager_action_kind kind, uint64_t conn,
                                   uint64_t request)
{
    struct manager_actions *a = m->out;

    mem_grow(&a->v, &a->cap, a->n + 1, sizeof(*a->v));
    a->v[a->n] = (struct manager_action){ .kind = kind, .conn = conn, .request = request };
    return &a->v[a->n++];
}

void manager_actions_free(struct manager_actions *a)
{
    free(a->v);
    *a = (struct manager_actions){ 0 };
}

void manager_refuse(struct manager *m, uint64_t conn, uint64_t request, const char *text)
{
    struct manager_action *a = manager_act(m, MANAGER_DO_REFUSE, conn, request);

    snprintf(a->text, sizeof(a->text), "%s", text);
}

/* Proposes what was appended to m->bytes since `begin`. Returns the tag. */
uint64_t manager_propose(struct manager *m, size_t begin)
{
    struct manager_action *a = manager_act(m, MANAGER_DO_PROPOSE, 0, 0);

    /* `p` is set in propose_fix: the buffer may still move */
    a->propose.bytes = buf_len(&m->bytes) - begin;
    a->propose.tag = ++m->next_tag;
    return a->propose.tag;
}

/* At the end of a step the proposals lie behind each other in m->bytes. */
static void propose_fix(struct manager *m)
{
    const uint8_t *p = buf_head(&m->bytes);

    for (size_t i = 0; i < m->out->n; i++) {
        struct manager_action *a = &m->out->v[i];
        if (a->kind == MANAGER_DO_PROPOSE) {
            a->propose.p = p;
            p += a->propose.bytes;
        }
    }
}

/* ---- links ---- */

struct link *manager_link(struct manager *m, uint32_t server)
{
    if (server > m->n_links) {
        mem_grow(&m->links, &m->cap_links, server, sizeof(*m->links));
        memset(&m->links[m->n_links], 0, (server - m->n_links) * sizeof(*m->links));
        m->n_links = server;
    }
    return &m->links[server - 1];
}

bool manager_server_is_up(const struct manager *m, uint32_t server)
{
    const struct hashspace_server *s = hashspace_server(&m->cluster.space, server);

    return s && server <= m->n_links && m->links[server - 1].conn != 0 &&
           m->links[server - 1].incarnation == s->incarnation;
}

/* The server that registered over this connection, 0 for none. */
uint32_t manager_server_of(const struct manager *m, uint64_t conn)
{
    for (size_t i = 0; i < m->n_links; i++) {
        if (m->links[i].conn == conn) {
            return (uint32_t) (i + 1);
        }
    }
    return 0;
}

/* ---- the log ---- */

static void push_to(struct manager *m, uint32_t server, const struct view_row *row)
{
    if (manager_server_is_up(m, server)) {
        manager_act(m, MANAGER_DO_VIEW, m->links[server - 1].conn, 0)->row = *row;
    }
}

/* To all who are in `whose`, but not to those who are in `told`. */
static void push_row(struct manager *m, const struct view_row *row, const struct view_row *whose,
                     const struct view_row *told)
{
    for (unsigned i = 0; i < whose->n_members; i++) {
        if (!told || !hashspace_row_has(told, whose->members[i])) {
            push_to(m, whose->members[i], row);
        }
    }
    for (unsigned i = 0; i < whose->n_learners; i++) {
        if (!told || !hashspace_row_has(told, whose->learners[i])) {
            push_to(m, whose->learners[i], row);
        }
    }
}

static void push_rows(struct manager *m)
{
    for (size_t i = 0; i < m->effect.n_rows && m->leader; i++) {
        const struct view_row *row = &m->cluster.space.rows[m->effect.rows[i]];
        push_row(m, row, row, NULL);
        push_row(m, row, &m->effect.before[i], row); /* they learn that they are out */
    }
}

static void on_committed(struct manager *m, const struct manager_event *e)
{
    struct manager_action *a;

    cluster_apply(&m->cluster, e->data.index, e->data.p, e->data.bytes, &m->effect);
    if (m->cluster.space.n_partitions > m->n_needs) {
        kumo_assert(m->n_needs == 0);
        manager_needs_make(m);
    }
    for (size_t i = 0; i < m->effect.n_rows; i++) {
        manager_need_clear(m, m->effect.rows[i]);
    }
    manager_sessions_changed(m);
    push_rows(m);
    if (m->effect.servers || m->effect.n_rows > 0) {
        a = manager_act(m, MANAGER_DO_CHANGED, 0, 0);
        a->changed.rows = m->effect.rows;
        a->changed.before = m->effect.before;
        a->changed.n = m->effect.n_rows;
    }
}

static void on_heard(struct manager *m, uint64_t conn)
{
    uint32_t server = manager_server_of(m, conn);

    if (server > 0) {
        m->links[server - 1].heard_usec = m->now_usec;
    }
}

static void on_gone(struct manager *m, uint64_t conn)
{
    uint32_t server = manager_server_of(m, conn);

    if (server > 0) {
        m->links[server - 1] = (struct link){ 0 };
    }
    LIST_FOR_EACH_SAFE(i, &m->requests)
    {
        struct request *q = LIST_ENTRY(i, struct request, link);
        if (q->conn == conn) {
            manager_request_free(m, q);
        }
    }
}

/* R14: after a gap in its own turns a manager knows nothing of who is silent. */
static void gap_note(struct manager *m)
{
    if (m->ticked_usec != 0 && m->now_usec - m->ticked_usec > MANAGER_GAP_USEC) {
        m->waits_usec = m->now_usec;
    }
    m->ticked_usec = m->now_usec;
}

static void beat(struct manager *m)
{
    if (m->now_usec - m->beaten_usec < MANAGER_BEAT_USEC) {
        return;
    }
    m->beaten_usec = m->now_usec;
    for (uint32_t i = 0; i < m->n_links; i++) {
        if (manager_server_is_up(m, i + 1)) {
            manager_act(m, MANAGER_DO_BEAT, m->links[i].conn, 0);
        }
    }
}

static void tick(struct manager *m)
{
    size_t begin = buf_len(&m->bytes);

    manager_sessions_tell_untold(m);
    if (!m->leader) {
        return;
    }
    gap_note(m);
    beat(m);
    if (m->cluster.space.n_partitions == 0 && !m->forming) {
        cluster_put_form(&m->bytes, m->o.cluster_id, m->o.partitions, m->o.replicas);
        manager_propose(m, begin);
        m->forming = true;
        return;
    }
    manager_views_propose(m);
    manager_sessions_tick(m);
}

/* What was known by hearsay belongs to the time as leader; rows that committed before it were
 * pushed to nobody. */
static void on_leader(struct manager *m, bool leader)
{
    m->leader = leader;
    m->forming = false;
    m->views_tag = 0;
    m->waits_usec = m->now_usec;
    m->ticked_usec = 0;
    manager_sessions_begin(m);
    for (uint32_t p = 0; p < m->n_needs; p++) {
        const struct view_row *row = &m->cluster.space.rows[p];
        manager_need_clear(m, p);
        if (leader) {
            push_row(m, row, row, NULL);
        }
    }
}

/* ---- the door ---- */

struct manager *manager_new(const struct manager_options *o)
{
    struct manager *m = mem_zalloc(1, sizeof(*m));

    m->o = *o;
    m->o.failure_usec = o->failure_usec ? o->failure_usec : MANAGER_FAILURE_USEC_DEFAULT;
    m->effect.rows = mem_alloc(PARTITIONS_MAX * sizeof(*m->effect.rows));
    m->effect.before = mem_alloc(PARTITIONS_MAX * sizeof(*m->effect.before));
    list_init(&m->needed);
    list_init(&m->requests);
    return m;
}

struct manager *manager_free(struct manager *m)
{
    if (!m) {
        return NULL;
    }
    LIST_FOR_EACH_SAFE(i, &m->requests)
    {
        manager_request_free(m, LIST_ENTRY(i, struct request, link));
    }
    cluster_free(&m->cluster);
    free(m->effect.rows);
    free(m->effect.before);
    free(m->links);
    free(m->needs);
    free(m->heard);
    free(m->over);
    buf_free(&m->bytes);
    free(m);
    return NULL;
}

const struct cluster *manager_cluster(const struct manager *m)
{
    return &m->cluster;
}

void manager_step(struct manager *m, uint64_t now_usec, const struct manager_event *e,
                  struct manager_actions *out)
{
    m->out = out;
    m->now_usec = now_usec;
    buf_clear(&m->bytes);
    switch (e->kind) {
    case MANAGER_LEADER:
        on_leader(m, e->flag);
        break;
    case MANAGER_COMMITTED:
        on_committed(m, e);
        break;
    case MANAGER_DONE:
        manager_on_done(m, e);
        break;
    case MANAGER_REGISTER:
        manager_on_register(m, e);
        break;
    case MANAGER_GONE:
        on_gone(m, e->conn);
        break;
    case MANAGER_HEARD:
        on_heard(m, e->conn);
        break;
    case MANAGER_RECONFIG:
        manager_on_reconfig(m, e);
        break;
    case MANAGER_SEALED:
        manager_on_sealed(m, e);
        break;
    case MANAGER_ATTACH:
        manager_on_attach(m, e);
        break;
    case MANAGER_SESSION:
        manager_on_session(m, e);
        break;
    case MANAGER_SESSIONS_ALIVE:
        manager_on_sessions_alive(m, e);
        break;
    case MANAGER_TICK:
        tick(m);
        break;
    default:
        kumo_unreachable();
    }
    propose_fix(m);
    m->out = NULL;
}

void manager_snapshot(const struct manager *m, struct buf *out)
{
    cluster_put(out, &m->cluster);
}

int manager_restore(struct manager *m, const uint8_t *data, size_t bytes)
{
    struct mp_reader r = mp_reader_of(data, bytes);
    struct cluster c = { 0 };
    int err = cluster_get(&r, &c);

    if (err < 0) {
        cluster_free(&c);
        return err;
    }
    cluster_free(&m->cluster);
    m->cluster = c;
    manager_needs_make(m);
    manager_sessions_restored(m);
    return 0;
}
