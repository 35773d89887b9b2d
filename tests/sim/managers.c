/* The managers, as one process that leads over an ideal log: proposals commit in order after a
 * while, or come to nothing, or to an unknown outcome when the lead is lost; the process may die
 * and begin again from what committed, or from a snapshot and the rest. */
#include "sim/sim.h"

#include "base/cleanup.h"
#include "base/mem.h"
#include "core/consensus.h"

#include <errno.h>
#include <stdlib.h>

#define ATTACH_CONN UINT64_MAX /* of the operator */
#define ATTACH_USEC (300 * USEC_PER_MSEC)

struct proposal {
    struct buf bytes;
    uint64_t tag;
};

static void step(struct sim *s, const struct manager_event *e);

/* ---- the log ---- */

static void log_append(struct manager_process *mp, const uint8_t *p, size_t bytes)
{
    mem_grow(&mp->log, &mp->cap_log, mp->n_log + 1, sizeof(*mp->log));
    mp->log[mp->n_log] = (struct buf){ 0 };
    buf_append(&mp->log[mp->n_log++], p, bytes);
}

static void rows_check(struct sim *s)
{
    const struct hashspace *h = &manager_cluster(s->manager.manager)->space;

    for (uint32_t p = 0; p < h->n_partitions; p++) {
        if (h->rows[p].view > 0) {
            check_row(s, &h->rows[p]);
        }
    }
}

static void log_apply(struct sim *s)
{
    struct manager_process *mp = &s->manager;

    while (mp->applied < mp->n_log && !s->failed) {
        const struct buf *b = &mp->log[mp->applied++];
        struct manager_event e = { .kind = MANAGER_COMMITTED };
        e.data.p = b->data + b->start;
        e.data.bytes = buf_len(b);
        e.data.index = mp->applied;
        step(s, &e);
        rows_check(s);
    }
}

static void proposal_drop(struct manager_process *mp)
{
    buf_free(&mp->proposals[0].bytes);
    memmove(mp->proposals, mp->proposals + 1, --mp->n_proposals * sizeof(*mp->proposals));
}

static void proposal_done(struct sim *s, uint64_t tag, int status, uint64_t index)
{
    struct manager_event e = { .kind = MANAGER_DONE };

    e.done.tag = tag;
    e.done.status = status;
    e.done.index = index;
    step(s, &e);
}

static void proposal_commit(struct sim *s)
{
    struct manager_process *mp = &s->manager;
    struct proposal *p = &mp->proposals[0];

    log_append(mp, buf_head(&p->bytes), buf_len(&p->bytes));
    proposal_drop(mp);
    log_apply(s);
}

/* The oldest proposal is decided; e->number: when the lead was taken. */
static void proposal_decided(struct sim *s, struct event *e)
{
    struct manager_process *mp = &s->manager;
    uint64_t tag;

    if (mp->term != e->number) {
        return; /* the lead was lost meanwhile */
    }
    kumo_assert(mp->n_proposals > 0);
    tag = mp->proposals[0].tag;
    proposal_commit(s);
    proposal_done(s, tag, 0, mp->n_log);
}

static void proposal_refused(struct sim *s, struct event *e)
{
    proposal_done(s, e->number, -EAGAIN, 0);
}

static void propose(struct sim *s, const struct manager_action *a)
{
    struct manager_process *mp = &s->manager;
    struct proposal *p;

    if (!mp->leader || sim_chance(s, 1, 50)) {
        sim_after(s, 0, &mp->process, proposal_refused, mp, a->propose.tag, NULL);
        return;
    }
    mem_grow(&mp->proposals, &mp->cap_proposals, mp->n_proposals + 1, sizeof(*mp->proposals));
    p = &mp->proposals[mp->n_proposals++];
    *p = (struct proposal){ .tag = a->propose.tag };
    buf_append(&p->bytes, a->propose.p, a->propose.bytes);
    sim_after(s, sim_between(s, 200, 4 * s->setup.sync_max_usec), &mp->process, proposal_decided,
              mp, mp->term, NULL);
}

/* ---- actions ---- */

static void send(struct sim *s, uint64_t conn, struct message *m)
{
    struct link *l = net_link_of_conn(s, conn);

    if (l) {
        net_send(s, l, 1, m);
    } else {
        free(m);
    }
}

static void do_accept(struct sim *s, const struct manager_action *a)
{
    const struct hashspace *h = &manager_cluster(s->manager.manager)->space;
    struct message *m = message_new(MESSAGE_REGISTERED, h->n_partitions * sizeof(h->rows[0]));

    m->registered = a->accept;
    m->n = 0;
    for (uint32_t p = 0; p < h->n_partitions; p++) {
        if (hashspace_row_has(&h->rows[p], a->accept.server)) {
            memcpy(m->bytes + m->n, &h->rows[p], sizeof(h->rows[p]));
            m->n += sizeof(h->rows[p]);
        }
    }
    send(s, a->conn, m);
}

static struct message *table_message(struct sim *s, const uint16_t *rows, size_t n)
{
    struct buf b = { 0 };
    struct message *m;

    hashspace_put(&b, &manager_cluster(s->manager.manager)->space, rows, n);
    m = message_new(MESSAGE_TABLE, buf_len(&b));
    memcpy(m->bytes, buf_head(&b), m->n);
    buf_free(&b);
    return m;
}

static void do_changed(struct sim *s, const struct manager_action *a)
{
    for (uint32_t c = 0; c <= SIM_CLIENTS_MAX; c++) {
        struct link *l = net_manager_link(s, (struct endpoint){ END_CLIENT, (uint8_t) c, 0 });
        if ((s->manager.subscribers >> c & 1) && l->ready[1]) {
            static const uint16_t none;
            net_send(s, l, 1,
                     table_message(s, a->changed.n > 0 ? a->changed.rows : &none, a->changed.n));
        }
    }
}

static void do_refuse(struct sim *s, const struct manager_action *a)
{
    struct message *m;

    if (a->conn == ATTACH_CONN) {
        return; /* tried again */
    }
    m = message_new(MESSAGE_REFUSED, strlen(a->text) + 1);
    memcpy(m->bytes, a->text, m->n);
    send(s, a->conn, m);
}

static void do_sessions(struct sim *s, const struct manager_action *a)
{
    size_t bytes = (a->sessions.n_opened + a->sessions.n_ended) * sizeof(uint64_t);
    struct message *m = message_new(MESSAGE_SESSIONS, bytes);

    m->sessions = a->sessions;
    if (bytes > 0) {
        memcpy(m->bytes, a->sessions.ids, bytes);
    }
    s->counts.sessions_ended += a->sessions.n_ended;
    send(s, a->conn, m);
}

static void act(struct sim *s, const struct manager_action *a)
{
    struct message *m;

    switch (a->kind) {
    case MANAGER_DO_PROPOSE:
        propose(s, a);
        return;
    case MANAGER_DO_ACCEPT:
        do_accept(s, a);
        return;
    case MANAGER_DO_SESSION:
        m = message_new(MESSAGE_SESSION, 0);
        m->session = a->session;
        send(s, a->conn, m);
        return;
    case MANAGER_DO_OVER:
        if (a->over.n > 0) {
            m = message_new(MESSAGE_OVER, 0);
            m->session = a->over.ids[0];
            send(s, a->conn, m);
        }
        return;
    case MANAGER_DO_SESSIONS:
        do_sessions(s, a);
        return;
    case MANAGER_DO_TEXT:
        s->manager.attached = true;
        return;
    case MANAGER_DO_REFUSE:
        do_refuse(s, a);
        return;
    case MANAGER_DO_DENY:
        sim_fail(s, "the managers refuse a server for good: %s", a->text);
        return;
    case MANAGER_DO_SEAL:
        m = message_new(MESSAGE_SEAL, 0);
        m->note = a->note;
        send(s, a->conn, m);
        return;
    case MANAGER_DO_VIEW:
        m = message_new(MESSAGE_VIEW, 0);
        m->row = a->row;
        send(s, a->conn, m);
        return;
    case MANAGER_DO_CHANGED:
        do_changed(s, a);
        return;
    case MANAGER_DO_BEAT:
        send(s, a->conn, message_new(MESSAGE_BEAT, 0));
        return;
    case MANAGER_DO_CLOSE:
        net_break(s, net_past_link(s, a->conn), USEC_PER_MSEC);
        return;
    default:
        return;
    }
}

/* Actions only schedule: what they point to is valid until the next step. */
static void step(struct sim *s, const struct manager_event *e)
{
    struct manager_process *mp = &s->manager;

    kumo_assert(!mp->stepping);
    mp->stepping = true;
    mp->actions.n = 0;
    manager_step(mp->manager, s->now_usec, e, &mp->actions);
    for (size_t i = 0; i < mp->actions.n; i++) {
        act(s, &mp->actions.v[i]);
    }
    mp->stepping = false;
}

void managers_step(struct sim *s, const struct manager_event *e)
{
    step(s, e);
}

/* ---- what arrives ---- */

static void session_ask(struct sim *s, uint64_t conn)
{
    step(s, &(struct manager_event){ .kind = MANAGER_SESSION, .conn = conn, .request = 1 });
}

void managers_receive(struct sim *s, struct link *l, unsigned side, struct message *m)
{
    struct manager_event e = { .conn = l->told[side], .request = 1 };

    switch (m->kind) {
    case MESSAGE_TABLE_ASK:
        s->manager.subscribers |= UINT64_C(1) << l->end[1 - side].node;
        net_send(s, l, side, table_message(s, NULL, 0));
        return;
    case MESSAGE_SESSION_ASK:
        session_ask(s, l->told[side]);
        return;
    case MESSAGE_ALIVE:
        e.kind = MANAGER_SESSIONS_ALIVE;
        e.alive.ids = &m->session;
        e.alive.n = 1;
        break;
    case MESSAGE_REGISTER:
        e.kind = MANAGER_REGISTER;
        e.registration = m->registration;
        break;
    case MESSAGE_RECONFIG:
        e.kind = MANAGER_RECONFIG;
        e.reconfig = m->reconfig;
        plant_promotion(s, e.conn, &e.reconfig);
        break;
    case MESSAGE_BEAT:
        e.kind = MANAGER_HEARD;
        break;
    case MESSAGE_SEALED:
        e.kind = MANAGER_SEALED;
        e.sealed = m->sealed;
        break;
    default:
        return;
    }
    step(s, &e);
}

void managers_link_down(struct sim *s, uint64_t conn)
{
    struct link *l = net_past_link(s, conn);

    if (l->end[0].kind == END_CLIENT) {
        s->manager.subscribers &= ~(UINT64_C(1) << l->end[0].node);
    }
    step(s, &(struct manager_event){ .kind = MANAGER_GONE, .conn = conn });
}

/* ---- life ---- */

static void ticks(struct sim *s, struct event *e)
{
    struct manager_process *mp = &s->manager;

    step(s, &(struct manager_event){ .kind = MANAGER_TICK });
    if (sim_chance(s, 1, 100)) {
        buf_clear(&mp->snapshot);
        manager_snapshot(mp->manager, &mp->snapshot);
        mp->snapshot_index = mp->applied;
    }
    sim_after(s, faults_tick(s, MANAGER_TICK_USEC), e->process, ticks, mp, 0, NULL);
}

static void attach(struct sim *s, struct event *e)
{
    struct manager_process *mp = &s->manager;
    struct manager_event ask = { .kind = MANAGER_ATTACH, .conn = ATTACH_CONN };
    const struct hashspace *h = &manager_cluster(mp->manager)->space;

    mp->attached = mp->attached || (h->n_partitions > 0 && h->rows[0].view > 0);
    if (mp->attached) {
        return;
    }
    ask.attach.replicas = s->setup.replicas;
    if (h->n_servers == s->setup.servers) {
        step(s, &ask);
    }
    sim_after(s, ATTACH_USEC, e->process, attach, mp, 0, NULL);
}

static void lead_take(struct sim *s)
{
    struct manager_process *mp = &s->manager;

    mp->leader = true;
    mp->term++;
    step(s, &(struct manager_event){ .kind = MANAGER_LEADER, .flag = true });
    net_up(s, END_MANAGER, 0);
}

static void lead_begins(struct sim *s, struct event *e)
{
    (void) e;
    sim_trace(s, "the manager leads");
    log_apply(s);
    lead_take(s);
}

static void life_begin(struct sim *s)
{
    struct manager_process *mp = &s->manager;
    struct manager_options o = { .partitions = s->setup.partitions,
                                 .replicas = s->setup.replicas,
                                 .failure_usec = s->setup.failure_usec,
                                 .min_replicas_auto = s->setup.min_replicas_auto,
                                 .session_usec = s->setup.session_usec };

    memset(o.cluster_id, 7, UUID_BYTES);
    mp->process.alive = true;
    mp->manager = manager_new(&o);
    mp->applied = 0;
    if (mp->snapshot_index > 0 && sim_chance(s, 1, 2)) {
        if (manager_restore(mp->manager, buf_head(&mp->snapshot), buf_len(&mp->snapshot)) < 0) {
            sim_fail(s, "the manager can't read its snapshot");
            return;
        }
        mp->applied = mp->snapshot_index;
    }
    sim_after(s, sim_between(s, 10, 500) * USEC_PER_MSEC, &mp->process, lead_begins, mp, 0, NULL);
    sim_after(s, MANAGER_TICK_USEC, &mp->process, ticks, mp, 0, NULL);
    sim_after(s, ATTACH_USEC, &mp->process, attach, mp, 0, NULL);
}

/* Of what was under way, the oldest ones may have come through. */
static void proposals_settle(struct sim *s)
{
    struct manager_process *mp = &s->manager;
    size_t come = sim_between(s, 0, mp->n_proposals);

    mp->term++;
    for (size_t i = 0; mp->n_proposals > 0; i++) {
        if (i < come) {
            log_append(mp, buf_head(&mp->proposals[0].bytes), buf_len(&mp->proposals[0].bytes));
        }
        proposal_drop(mp);
    }
}

static void life_begins(struct sim *s, struct event *e)
{
    (void) e;
    life_begin(s);
}

void managers_crash(struct sim *s)
{
    struct manager_process *mp = &s->manager;

    if (!mp->process.alive) {
        return;
    }
    sim_trace(s, "the manager is killed");
    proposals_settle(s);
    mp->process.alive = false;
    mp->process.life++;
    mp->leader = false;
    mp->subscribers = 0;
    mp->manager = manager_free(mp->manager);
    net_down(s, END_MANAGER, 0, USEC_PER_SEC);
    sim_after(s, sim_between(s, 50, 1500) * USEC_PER_MSEC, NULL, life_begins, mp, 0, NULL);
}

/* The lead is lost and taken again: what was under way has an unknown outcome. */
void managers_flip(struct sim *s)
{
    struct manager_process *mp = &s->manager;
    uint64_t tags[64];
    size_t n = 0;

    if (!mp->process.alive || !mp->leader) {
        return;
    }
    sim_trace(s, "the manager loses its lead");
    for (; n < mp->n_proposals && n < ARRAY_LEN(tags); n++) {
        tags[n] = mp->proposals[n].tag;
    }
    proposals_settle(s);
    mp->leader = false;
    step(s, &(struct manager_event){ .kind = MANAGER_LEADER, .flag = false });
    for (size_t i = 0; i < n; i++) {
        proposal_done(s, tags[i], -EREMOTEIO, 0);
    }
    net_break_all(s, END_MANAGER, 0, 100 * USEC_PER_MSEC);
    if (sim_chance(s, 1, 2)) {
        cuts_manager_moved(s);
    }
    sim_after(s, sim_between(s, 50, 1000) * USEC_PER_MSEC, &mp->process, lead_begins, mp, 0, NULL);
}

void managers_start(struct sim *s)
{
    life_begin(s);
}

void managers_init(struct sim *s)
{
    s->manager.process.name = "manager";
}

void managers_free(struct sim *s)
{
    struct manager_process *mp = &s->manager;

    manager_free(mp->manager);
    for (size_t i = 0; i < mp->n_log; i++) {
        buf_free(&mp->log[i]);
    }
    for (size_t i = 0; i < mp->n_proposals; i++) {
        buf_free(&mp->proposals[i].bytes);
    }
    free(mp->log);
    free(mp->proposals);
    buf_free(&mp->snapshot);
    manager_actions_free(&mp->actions);
}
