/* A running server: its shards, their turns and syncs, and what their actions do. */
#include "sim/sim.h"

#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>

#define TURN_MAX_USEC 300 /* what arrives within it becomes one write */

struct server *server_of_number(struct sim *s, uint32_t number)
{
    for (uint32_t i = 0; i < s->setup.servers; i++) {
        if (s->servers[i].super.number == number && number != 0) {
            return &s->servers[i];
        }
    }
    return NULL;
}

struct shard_clock server_clock(const struct sim *s, const struct server *sv)
{
    int64_t drift = (int64_t) s->now_usec * sv->clock_drift_ppm / 1000000;

    return (struct shard_clock){
        .boot_usec = s->now_usec + sv->boot_offset_usec,
        .real_usec = (uint64_t) ((int64_t) (UINT64_C(1700000000) * USEC_PER_SEC + s->now_usec) +
                                 sv->clock_skew_usec + drift),
    };
}

/* ---- syncs: one in flight per shard, the next covers all that came meanwhile ---- */

static void synced(struct sim *s, struct event *e);

static void sync_begin(struct sim *s, struct shard_process *sp, uint64_t group)
{
    uint64_t delay = sim_between(s, 50, s->setup.sync_max_usec);

    if (s->setup.slow_syncs && sim_chance(s, 1, 200)) {
        delay += sim_between(s, 0, 1500) * USEC_PER_MSEC;
    }
    sp->syncing = true;
    sp->sync_group = group;
    memcpy(sp->syncing_view, sp->written_view, sizeof(sp->syncing_view));
    disk_sync_begin(&sp->server->disk, sp->index);
    sim_after(s, delay, &sp->server->process, synced, sp, group, NULL);
}

static void held_release(struct sim *s, struct shard_process *sp)
{
    for (size_t i = 0; i < sp->n_held; i++) {
        net_send(s, sp->held_links[i], net_side(sp->held_links[i], END_SHARD, sp->server->index),
                 sp->held[i]);
    }
    sp->n_held = 0;
}

static void synced(struct sim *s, struct event *e)
{
    struct shard_process *sp = e->who;
    uint64_t next = sp->queued_group;

    s->counts.syncs++;
    disk_sync_end(&sp->server->disk, sp->index, s->o->plant != PLANT_NO_FOLDER_SYNC);
    sp->syncing = false;
    sp->synced_group = e->number;
    check_synced(s, sp);
    checkpoints_synced(s, sp);
    if (next != 0) {
        sp->queued_group = 0;
        sync_begin(s, sp, next);
    }
    held_release(s, sp);
    if (e->number > sp->early_group) {
        shard_run(s, sp, &(struct shard_event){ .kind = SHARD_SYNCED, .group = e->number });
    }
    compactor_synced(s, sp);
}

static void synced_early(struct sim *s, struct event *e)
{
    struct shard_process *sp = e->who;

    sp->early_group = e->number;
    shard_run(s, sp, &(struct shard_event){ .kind = SHARD_SYNCED, .group = e->number });
}

/* A planted bug: entries count as durable here when they are written. Views wait for the sync
 * still. */
static bool syncs_early(const struct sim *s, const struct shard_process *sp)
{
    return s->o->plant == PLANT_ANSWER_BEFORE_OWN_SYNC && !check_view_pending(s, sp);
}

static void written(struct sim *s, struct event *e)
{
    struct shard_process *sp = e->who;

    check_written(s, sp);
    shard_run(s, sp, &(struct shard_event){ .kind = SHARD_WRITTEN, .group = e->number });
}

static void sync_ask(struct sim *s, struct shard_process *sp, uint64_t group)
{
    sp->asked_group = group;
    compactor_written(s, sp);
    if (s->setup.weak_sync) {
        sim_after(s, 0, &sp->server->process, written, sp, group, NULL);
    }
    if (syncs_early(s, sp)) {
        sim_after(s, 0, &sp->server->process, synced_early, sp, group, NULL);
    }
    if (sp->syncing) {
        sp->queued_group = group;
    } else {
        sync_begin(s, sp, group);
    }
}

/* ---- messages to other shards ---- */

static bool is_of_leases(const struct message *m)
{
    return m->event.kind == SHARD_LEASES || m->event.kind == SHARD_GRANTS ||
           m->event.kind == SHARD_LEASE_BACK;
}

void shard_send(struct sim *s, struct shard_process *sp, uint32_t number, uint16_t partition,
                struct message *m)
{
    struct server *to = server_of_number(s, number);
    struct link *l;
    unsigned side;

    if (!to || to->n_shards == 0) {
        free(m);
        return;
    }
    m->event.from = sp->server->super.number;
    m->event.incarnation = sp->server->super.incarnation.counter;
    l = net_shard_link(s, is_of_leases(m) ? LANE_LEASES : LANE_DATA, sp->server->index, sp->index,
                       to->index, partition % to->n_shards);
    side = net_side(l, END_SHARD, sp->server->index);
    if (m->event.kind == SHARD_ACK && s->o->plant == PLANT_ANSWER_BEFORE_OWN_SYNC) {
        mem_grow(&sp->held, &sp->cap_held, sp->n_held + 1, sizeof(struct message *));
        mem_grow(&sp->held_links, &sp->cap_held_links, sp->n_held + 1, sizeof(struct link *));
        sp->held[sp->n_held] = m;
        sp->held_links[sp->n_held++] = l;
        return;
    }
    net_send(s, l, side, m);
}

struct message *shard_message(enum shard_event_kind kind, size_t bytes)
{
    struct message *m = message_new(MESSAGE_SHARD, bytes);

    m->event.kind = kind;
    return m;
}

static void send_prepare(struct sim *s, struct shard_process *sp, const struct action *a)
{
    struct message *m = shard_message(SHARD_PREPARE, a->prepare.entry_bytes);

    m->event.prepare = a->prepare;
    memcpy(m->bytes, a->prepare.entry, m->n);
    m->event.prepare.entry = m->bytes;
    plant_sending(s, sp, m, a->server);
    shard_send(s, sp, a->server, a->prepare.partition, m);
}

static void send_note(struct sim *s, struct shard_process *sp, const struct action *a,
                      enum shard_event_kind kind)
{
    struct message *m = shard_message(kind, 0);

    m->event.note = a->note;
    shard_send(s, sp, a->server, a->note.partition, m);
}

static void send_commit(struct sim *s, struct shard_process *sp, const struct action *a)
{
    struct message *m = shard_message(SHARD_COMMIT, 0);

    m->event.commit = a->commit;
    shard_send(s, sp, a->server, a->commit.partition, m);
}

/* One message for each of the other side's shards. */
static void send_leases(struct sim *s, struct shard_process *sp, const struct action *a)
{
    const struct server *to = server_of_number(s, a->server);
    size_t bytes = a->leases.n * sizeof(*a->leases.v);

    for (uint32_t j = 0; to && j < to->n_shards; j++) {
        struct message *m = shard_message(SHARD_LEASES, bytes);
        struct msg_lease *v = (struct msg_lease *) m->bytes;
        m->event.leases.sent_usec = a->leases.sent_usec;
        m->event.leases.v = v;
        for (size_t i = 0; i < a->leases.n; i++) {
            if (a->leases.v[i].partition % to->n_shards == j) {
                v[m->event.leases.n++] = a->leases.v[i];
            }
        }
        if (m->event.leases.n > 0) {
            shard_send(s, sp, a->server, (uint16_t) j, m);
        } else {
            free(m);
        }
    }
}

/* Over the connection that asked: between the same two processes. */
static void send_grants(struct sim *s, struct shard_process *sp, const struct action *a)
{
    size_t bytes = a->leases.n * sizeof(*a->leases.v);
    struct link *l = net_link_of_conn(s, s->asked_conn);
    struct message *m;

    if (s->asked_conn == 0) {
        sim_fail(s, "server %u grants leases that nobody asks for", sp->server->index + 1);
    }
    if (!l) {
        return; /* whoever asked is gone */
    }
    m = shard_message(SHARD_GRANTS, bytes);
    m->event.from = sp->server->super.number;
    m->event.incarnation = sp->server->super.incarnation.counter;
    m->event.leases.sent_usec = a->leases.sent_usec;
    m->event.leases.v = (struct msg_lease *) m->bytes;
    m->event.leases.n = a->leases.n;
    memcpy(m->bytes, a->leases.v, bytes);
    net_send(s, l, net_side(l, END_SHARD, sp->server->index), m);
}

static void send_catchup(struct sim *s, struct shard_process *sp, const struct action *a)
{
    static const char *const parts[_CATCHUP_PART_MAX] = { "?", "start", "records", "end" };
    struct message *m = shard_message(SHARD_CATCHUP, a->catchup.bytes);

    sim_trace(s,
              "server %u, partition %u, view %u: catch-up to server %u, piece %llu, %s, %zu bytes",
              sp->server->index + 1, a->catchup.partition, a->catchup.view, a->server,
              (unsigned long long) a->catchup.number, parts[a->catchup.part], a->catchup.bytes);

    m->event.catchup = a->catchup;
    if (m->n > 0) { /* the end has none */
        memcpy(m->bytes, a->catchup.data, m->n);
    }
    m->event.catchup.data = m->bytes;
    faults_in_catchup(s, sp->server, server_of_number(s, a->server));
    shard_send(s, sp, a->server, a->catchup.partition, m);
}

static void send_learner(struct sim *s, struct shard_process *sp, const struct action *a)
{
    struct message *m;

    if (a->kind == ACTION_CATCHUP_ASK) {
        check_sent_view(s, sp, a->ask.partition, a->ask.view);
        sim_trace(s,
                  "server %u, partition %u, view %u: asks server %u for what is above (%u, %llu)",
                  sp->server->index + 1, a->ask.partition, a->ask.view, a->server, a->ask.base.view,
                  (unsigned long long) a->ask.base.seq);
        m = shard_message(SHARD_CATCHUP_ASK, 0);
        m->event.ask = a->ask;
        shard_send(s, sp, a->server, a->ask.partition, m);
    } else {
        check_sent_view(s, sp, a->learned.partition, a->learned.view);
        sim_detail(s, "server %u, partition %u, view %u: complete at %llu", sp->server->index + 1,
                   a->learned.partition, a->learned.view,
                   (unsigned long long) a->learned.commit_seq);
        m = shard_message(SHARD_LEARNED, 0);
        m->event.learned = a->learned;
        shard_send(s, sp, a->server, a->learned.partition, m);
    }
}

static void send_result(struct sim *s, const struct action *a)
{
    struct link *l = net_link_of_conn(s, a->answer.asker.conn);
    const struct result *r = &a->answer.result;
    struct message *m;

    if (!l) {
        return; /* whoever asked is gone */
    }
    m = message_new(MESSAGE_RESULT, r->value_len);
    m->result = *r;
    if (m->n > 0) {
        memcpy(m->bytes, r->value, m->n);
    }
    m->result.value = m->bytes;
    net_send(s, l, 1, m);
}

static void to_manager(struct sim *s, struct server *sv, struct message *m)
{
    struct link *l = net_manager_link(s, (struct endpoint){ END_SERVER, (uint8_t) sv->index, 0 });

    net_send(s, l, 0, m);
}

/* ---- actions ---- */

static void act_file(struct sim *s, struct shard_process *sp, const struct action *a)
{
    struct segment_head h;
    size_t head = 0;

    if (a->kind == ACTION_WRITE) {
        disk_write(&sp->server->disk, a->file.at, a->file.data, a->file.bytes);
    } else if (segment_head_decode(a->file.data, a->file.bytes, &h) < 0) {
        sim_fail(s, "a shard creates a segment without a head");
        return;
    } else {
        disk_create(&sp->server->disk, a->file.at.segment, sp->index, a->file.data, a->file.bytes);
        sp->segment_crc = h.crc;
        head = SEGMENT_HEAD_BYTES;
    }
    check_write(s, sp, a->file.data + head, a->file.bytes - head);
}

static void trace_reconfig(struct sim *s, const struct shard_process *sp,
                           const struct msg_reconfig *r)
{
    static const char *const kinds[_RECONFIG_MAX] = { "?", "a new view", "the removal of",
                                                      "to resign for", "the promotion of" };

    sim_trace(s, "server %u, partition %u, view %u: asks for %s %u", sp->server->index + 1,
              r->partition, r->view, kinds[r->kind], r->server);
}

static void act_manager(struct sim *s, struct shard_process *sp, const struct action *a)
{
    struct message *m;

    if (a->kind == ACTION_SEALED) {
        check_sent_view(s, sp, a->sealed.partition, a->sealed.view);
        check_sealed(s, sp->server, a->sealed.partition, a->sealed.view);
        sim_trace(s,
                  "server %u, partition %u, view %u: sealed, commit (%u, %llu), last (%u, %llu)%s",
                  sp->server->index + 1, a->sealed.partition, a->sealed.view, a->sealed.commit.view,
                  (unsigned long long) a->sealed.commit.seq, a->sealed.last.view,
                  (unsigned long long) a->sealed.last.seq, a->sealed.trusted ? "" : ", untrusted");
        m = message_new(MESSAGE_SEALED, 0);
        m->sealed = a->sealed;
    } else if (s->o->plant == PLANT_NEVER_ACCUSE) {
        return;
    } else {
        m = message_new(MESSAGE_RECONFIG, 0);
        m->reconfig = a->reconfig;
        s->counts.reconfigs[a->reconfig.kind]++;
        trace_reconfig(s, sp, &a->reconfig);
        if (bug_strikes(s, BUG_SLOW_ASK)) {
            faults_stall(s, net_manager_link(s, (struct endpoint){
                                                    END_SERVER, (uint8_t) sp->server->index, 0 }));
        }
    }
    to_manager(s, sp->server, m);
}

static void act_peer(struct sim *s, struct shard_process *sp, const struct action *a)
{
    switch (a->kind) {
    case ACTION_PREPARE:
        check_sent_view(s, sp, a->prepare.partition, a->prepare.view);
        send_prepare(s, sp, a);
        return;
    case ACTION_COMMIT:
        check_sent_view(s, sp, a->commit.partition, a->commit.view);
        send_commit(s, sp, a);
        return;
    case ACTION_LEASES:
        send_leases(s, sp, a);
        return;
    case ACTION_GRANTS:
        send_grants(s, sp, a);
        return;
    case ACTION_CATCHUP:
        check_sent_view(s, sp, a->catchup.partition, a->catchup.view);
        send_catchup(s, sp, a);
        return;
    case ACTION_CATCHUP_ASK:
    case ACTION_LEARNED:
        send_learner(s, sp, a);
        return;
    default:
        check_sent_view(s, sp, a->note.partition, a->note.view);
        s->counts.resends += a->kind == ACTION_RESEND;
        if (a->kind == ACTION_ACK) {
            check_acked(s, sp->server, a->note.partition, a->note.view);
        }
        send_note(s, sp, a,
                  a->kind == ACTION_ACK          ? SHARD_ACK
                  : a->kind == ACTION_RESEND     ? SHARD_RESEND
                  : a->kind == ACTION_LEASE_BACK ? SHARD_LEASE_BACK
                                                 : SHARD_CATCHUP_ACK);
    }
}

/* ---- cold reads ---- */

static void cold_read(struct sim *s, struct event *e)
{
    struct shard_process *sp = e->who;
    const struct action *a = e->data;
    struct shard_event read = { .kind = SHARD_READ };

    read.read.number = a->read.number;
    read.read.bytes = a->read.bytes;
    read.read.data = server_read(sp->server, a->read.at, a->read.bytes);
    read.read.error = read.read.data ? 0 : -ENOENT; /* compacted meanwhile */
    if (sim_chance(s, 1, 50)) {
        read.read.error = -EBUSY;
    } else if (s->setup.read_errors && !s->healed && sim_chance(s, 1, 100)) {
        read.read.error = -EIO;
    }
    s->counts.cold++;
    shard_run(s, sp, &read);
}

static void act_read(struct sim *s, struct shard_process *sp, const struct action *a)
{
    struct action *kept = mem_alloc(sizeof(*kept));

    *kept = *a;
    sim_after(s, sim_between(s, 50, sim_chance(s, 1, 8) ? 500 * USEC_PER_MSEC : 20000),
              &sp->server->process, cold_read, sp, 0, kept);
}

/* ---- a full disk ---- */

static void block(struct sim *s, struct shard_process *sp, const struct action *a)
{
    struct action *b;

    mem_grow(&sp->blocked, &sp->cap_blocked, sp->n_blocked + 1, sizeof(*sp->blocked));
    b = &sp->blocked[sp->n_blocked++];
    *b = *a;
    if (a->kind != ACTION_SYNC) {
        b->file.data = mem_alloc(a->file.bytes);
        memcpy((uint8_t *) b->file.data, a->file.data, a->file.bytes);
    }
    s->counts.blocked++;
}

static void act_log(struct sim *s, struct shard_process *sp, const struct action *a)
{
    if (a->kind == ACTION_SYNC) {
        sync_ask(s, sp, a->group);
    } else {
        act_file(s, sp, a);
    }
}

void shard_unblock(struct sim *s, struct shard_process *sp, bool write)
{
    for (size_t i = 0; i < sp->n_blocked; i++) {
        struct action *a = &sp->blocked[i];
        if (write && !s->failed) {
            act_log(s, sp, a);
        }
        if (a->kind != ACTION_SYNC) {
            free((uint8_t *) a->file.data);
        }
    }
    sp->n_blocked = 0;
}

void shard_space(struct sim *s, struct shard_process *sp)
{
    if (sp->shard) {
        shard_run(s, sp, &(struct shard_event){ .kind = SHARD_SPACE, .space = sp->server->space });
    }
}

static void act(struct sim *s, struct shard_process *sp, const struct action *a)
{
    switch (a->kind) {
    case ACTION_CREATE:
    case ACTION_WRITE:
    case ACTION_SYNC:
        if (sp->n_blocked > 0 || sp->server->space == SPACE_FULL) {
            block(s, sp, a);
        } else {
            act_log(s, sp, a);
        }
        return;
    case ACTION_PREPARE:
    case ACTION_ACK:
    case ACTION_RESEND:
    case ACTION_COMMIT:
    case ACTION_LEASES:
    case ACTION_GRANTS:
    case ACTION_LEASE_BACK:
    case ACTION_CATCHUP_ASK:
    case ACTION_CATCHUP:
    case ACTION_CATCHUP_ACK:
    case ACTION_LEARNED:
        act_peer(s, sp, a);
        return;
    case ACTION_RESULT:
        send_result(s, a);
        return;
    case ACTION_SEALED:
    case ACTION_RECONFIG:
        act_manager(s, sp, a);
        return;
    case ACTION_COMPACTED:
        compactor_shard_done(s, sp, a);
        return;
    case ACTION_READ:
        act_read(s, sp, a);
        return;
    case ACTION_DAMAGED:
        s->counts.damages++;
        if (s->setup.read_errors) {
            return;
        }
        sim_fail(s, "server %u: the record at %u:%u of partition %u can't be read",
                 sp->server->super.number, a->damaged.at.segment, a->damaged.at.offset,
                 a->damaged.partition);
        return;
    case ACTION_LACKING:
        check_lacking(s, sp->server, &a->note);
        return;
    case ACTION_HALT:
        sim_fail(s, "server %u halts: %s", sp->server->super.number, a->why);
        return;
    default:
        return;
    }
}

/* ---- steps ---- */

static void turn_ends(struct sim *s, struct event *e)
{
    struct shard_process *sp = e->who;

    sp->turn_due = false;
    shard_run(s, sp, &(struct shard_event){ .kind = SHARD_TURN_END });
}

static void doomed(struct sim *s, struct event *e)
{
    faults_crash(s, e->who, sim_chance(s, 3, 4));
}

/* Some crashes come right after a write to the log, when most is at stake. */
static void doom(struct sim *s, struct server *sv)
{
    bool wrote = false;

    for (size_t i = 0; i < s->actions.n; i++) {
        wrote = wrote || s->actions.v[i].kind == ACTION_SYNC;
    }
    if (wrote && sv->doom > 0 && --sv->doom == 0) {
        sim_after(s, 0, &sv->process, doomed, sv, 0, NULL);
    }
}

void shard_run(struct sim *s, struct shard_process *sp, const struct shard_event *e)
{
    struct shard_clock now = server_clock(s, sp->server);

    s->actions.n = 0;
    shard_step(sp->shard, &now, e, &s->actions);
    for (size_t i = 0; i < s->actions.n && !s->failed; i++) {
        act(s, sp, &s->actions.v[i]);
    }
    check_step(s, sp, e);
    doom(s, sp->server);
    if (e->kind != SHARD_TURN_END && !sp->turn_due) {
        sp->turn_due = true;
        sim_after(s, sim_between(s, 0, TURN_MAX_USEC), &sp->server->process, turn_ends, sp, 0,
                  NULL);
    }
}

/* What the log says by itself, and what newer views have mended, needs no mark any more. */
static void believe(struct server *sv)
{
    uint32_t distrusted = 0;
    uint32_t untrusted = 0;

    for (uint32_t i = 0; i < sv->n_shards; i++) {
        struct shard_counts c;
        shard_count(sv->shards[i].shard, &c);
        distrusted += c.distrusted;
        untrusted += c.untrusted;
    }
    sv->super.distrust = sv->super_durable.distrust = sv->super.distrust && distrusted > 0;
    sv->super.doubt = sv->super_durable.doubt = sv->super.doubt && untrusted > 0;
}

static void ticks(struct sim *s, struct event *e)
{
    struct shard_process *sp = e->who;

    shard_run(s, sp, &(struct shard_event){ .kind = SHARD_TICK });
    believe(sp->server);
    sim_after(s, faults_tick(s, SHARD_TICK_USEC), &sp->server->process, ticks, sp, 0, NULL);
}

static void heartbeats(struct sim *s, struct event *e)
{
    struct shard_process *sp = e->who;
    uint64_t real_usec = server_clock(s, sp->server).real_usec;

    for (uint32_t i = 0; i < s->setup.servers; i++) {
        for (uint32_t j = 0; i != sp->server->index && j < s->servers[i].n_shards; j++) {
            struct link *l = net_shard_link(s, LANE_DATA, sp->server->index, sp->index, i, j);
            unsigned side = net_side(l, END_SHARD, sp->server->index);
            struct message *m;
            if (!l->ready[side]) {
                continue;
            }
            m = shard_message(SHARD_CLOCK, 0);
            m->event.from = sp->server->super.number;
            m->event.clock.usec = real_usec;
            m->event.clock.space = (uint8_t) sp->server->space;
            net_send(s, l, side, m);
        }
    }
    sim_after(s, 100 * USEC_PER_MSEC, &sp->server->process, heartbeats, sp, 0, NULL);
}

void shard_receive(struct sim *s, struct link *l, unsigned side, struct message *m)
{
    struct server *sv = &s->servers[l->end[side].node];
    struct shard_process *sp = &sv->shards[l->end[side].shard];

    if (m->event.kind == SHARD_OP) {
        m->event.op.asker.conn = m->conn;
    }
    if (plant_receive(s, l, sp, m)) {
        return;
    }
    s->asked_conn = m->event.kind == SHARD_LEASES ? m->conn : 0;
    shard_run(s, sp, &m->event);
    s->asked_conn = 0;
    if (m->event.kind == SHARD_PREPARE) {
        plant_taken(s, sp, &m->event);
    }
}

void shard_link_up(struct sim *s, struct link *l, unsigned side)
{
    const struct endpoint *other = &l->end[1 - side];
    struct server *sv = &s->servers[l->end[side].node];

    if (other->kind == END_SHARD && l->lane == LANE_DATA) {
        shard_run(s, &sv->shards[l->end[side].shard],
                  &(struct shard_event){ .kind = SHARD_PEER_UP,
                                         .from = s->servers[other->node].super.number });
    }
}

/* ---- from the manager ---- */

static void to_partition(struct sim *s, struct server *sv, const struct shard_event *e,
                         uint16_t partition)
{
    shard_run(s, &sv->shards[partition % sv->n_shards], e);
}

static void rows_step(struct sim *s, struct server *sv, const struct message *m,
                      enum shard_event_kind kind)
{
    struct shard_event e = { .kind = kind };

    for (size_t at = 0; at + sizeof(e.row) <= m->n && !s->failed; at += sizeof(e.row)) {
        memcpy(&e.row, m->bytes + at, sizeof(e.row));
        to_partition(s, sv, &e, e.row.partition);
    }
}

static void manager_says(struct sim *s, struct server *sv, const struct message *m)
{
    struct shard_event e = { .kind = SHARD_VIEW };

    if (m->kind == MESSAGE_VIEW) {
        e.row = m->row;
        to_partition(s, sv, &e, m->row.partition);
    } else if (m->kind == MESSAGE_SEAL && !plant_sealing(s, sv, &m->note)) {
        e.kind = SHARD_SEAL;
        e.note = m->note;
        to_partition(s, sv, &e, m->note.partition);
    } else if (m->kind == MESSAGE_BEAT || m->kind == MESSAGE_SESSIONS) {
        e.kind = m->kind == MESSAGE_BEAT ? SHARD_MANAGER : SHARD_SESSIONS;
        if (m->kind == MESSAGE_SESSIONS) {
            e.sessions = m->sessions;
            e.sessions.ids = (const uint64_t *) m->bytes;
        }
        for (uint32_t i = 0; i < sv->n_shards && !s->failed; i++) {
            shard_run(s, &sv->shards[i], &e);
        }
    } else if (m->kind == MESSAGE_REGISTERED) {
        rows_step(s, sv, m, SHARD_VIEW); /* formed with this process: it was accepted before */
    }
}

/* The acceptance is durable: from now on it takes part. */
void server_go(struct sim *s, struct server *sv, const struct message *registered)
{
    sv->state = LIFE_RUNNING;
    rows_step(s, sv, registered, SHARD_FLOOR);
    for (size_t i = 0; i < sv->n_early; i++) {
        if (!s->failed) {
            manager_says(s, sv, sv->early[i]);
        }
        free(sv->early[i]);
    }
    sv->n_early = 0;
    for (uint32_t i = 0; i < sv->n_shards; i++) {
        struct shard_process *sp = &sv->shards[i];
        sim_after(s, sim_between(s, 0, SHARD_TICK_USEC), &sv->process, ticks, sp, 0, NULL);
        sim_after(s, sim_between(s, 0, 100) * USEC_PER_MSEC, &sv->process, heartbeats, sp, 0, NULL);
        shard_space(s, sp);
    }
    net_up(s, END_SHARD, sv->index);
    checkpoints_run(s, sv);
}

static void early_keep(struct server *sv, const struct message *m)
{
    struct message *copy = message_new(m->kind, m->n);

    memcpy(copy, m, sizeof(*m) + m->n);
    mem_grow(&sv->early, &sv->cap_early, sv->n_early + 1, sizeof(struct message *));
    sv->early[sv->n_early++] = copy;
}

void server_receive(struct sim *s, struct link *l, unsigned side, struct message *m)
{
    struct server *sv = &s->servers[l->end[side].node];

    if (m->kind == MESSAGE_BEAT) {
        net_send(s, l, side, message_new(MESSAGE_BEAT, 0)); /* so that a hung process is told */
    }
    switch (m->kind) {
    case MESSAGE_REFUSED:
        server_refused(s, sv);
        return;
    case MESSAGE_REGISTERED:
        if (sv->state == LIFE_REGISTERING) {
            server_accepted(s, sv, m);
            return;
        }
        break;
    default:
        break;
    }
    if (sv->state == LIFE_ACCEPTING) {
        early_keep(sv, m);
    } else if (sv->state == LIFE_RUNNING) {
        manager_says(s, sv, m);
    }
}
