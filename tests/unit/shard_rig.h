/* A hand-driven cluster of three servers with one shard each: real shards, plain indexes, a log
 * image per server, and messages that a test delivers, holds back or drops one by one. Included by
 * the test_shard_* programs only. A test fails by itself when an action makes no sense. */
#pragma once

#include "base/buf.h"
#include "base/cleanup.h"
#include "core/hashspace.h"
#include "core/index_map.h"
#include "core/shard.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RIG_SERVERS       3
#define RIG_FILES_MAX     64
#define RIG_FILE_BYTES    (1u << 20)
#define RIG_SEGMENT_BYTES (1u << 16)
#define RIG_MSGS_MAX      65536
#define RIG_ANSWERS_MAX   32768
#define RIG_READS_MAX     (PARKED_OPS_MAX + 1)
#define RIG_VALUE_MAX     1024
#define RIG_LEASES_MAX    8
#define RIG_HELD_MAX      64
#define RIG_T0_USEC       UINT64_C(1700000000000000)

struct rig_file {
    uint32_t number;
    size_t bytes;
    uint8_t *data; /* RIG_FILE_BYTES: never moves */
};

struct rig_msg {
    enum action_kind kind; /* ACTION_PREPARE, _ACK, _RESEND, _COMMIT, and those of catch-up */
    uint32_t from;
    uint32_t to;
    struct msg_prepare prepare;
    struct msg_at at;
    struct msg_commit commit;
    struct msg_catchup_ask ask;
    struct msg_catchup catchup;
    struct msg_learned learned;
    uint8_t *entry; /* what prepare and catchup point at */
};

/* Leases pass at once, beside the messages, unless a test holds them. */
struct rig_leases {
    enum action_kind kind;
    uint32_t from;
    uint32_t to;
    struct msg_at back;
    uint64_t sent_usec;
    size_t n;
    struct msg_lease v[RIG_LEASES_MAX];
};

struct rig_answer {
    uint64_t id;
    struct result result;
    char value[RIG_VALUE_MAX + 1];
};

struct rig_node {
    struct rig *rig;
    uint32_t server;
    struct shard *shard;
    struct rig_file files[RIG_FILES_MAX];
    size_t n_files;
    uint64_t written_group; /* named by the last ACTION_SYNC */
    uint64_t synced_group;
    uint32_t next_segment;
    uint64_t start;
    int64_t clock_skew_usec;
    const char *halted;
    bool distrusted; /* the next start believes nothing that was here before its first log */
    bool cold;       /* no record is in memory: all are read by ACTION_READ */
    struct action reads[RIG_READS_MAX];
    size_t n_reads;
    unsigned damaged;
    unsigned accuses;
    struct msg_reconfig accused;
    unsigned lacking;
    unsigned differs;
    unsigned seals;
    struct msg_sealed sealed;
    struct msg_peek peek;
    unsigned peeks;
};

struct rig {
    struct rig_node nodes[RIG_SERVERS + 1]; /* by server number, from 1 */
    uint32_t partitions;
    struct rig_msg *msgs; /* in flight, oldest first */
    size_t n_msgs;
    struct rig_answer *answers;
    size_t n_answers;
    uint64_t boot_usec;
    uint64_t next_id;
    struct rig_leases leases[RIG_HELD_MAX]; /* oldest first */
    size_t n_leases;
    bool holds_leases; /* what is asked and granted stays there… */
    bool loses_leases; /* …or is lost */
    bool keeps_promises;
};

static inline int rig_read(void *ctx, struct position at, size_t bytes, const uint8_t **ret)
{
    struct rig_node *n = ctx;

    for (size_t i = 0; i < n->n_files; i++) {
        if (n->files[i].number == at.segment && at.offset + bytes <= n->files[i].bytes) {
            *ret = n->files[i].data + at.offset;
            return n->cold ? -EAGAIN : 0;
        }
    }
    return -ENOENT;
}

/* ---- actions ---- */

static inline struct rig_file *rig_file(struct rig_node *n, uint32_t number)
{
    for (size_t i = 0; i < n->n_files; i++) {
        if (n->files[i].number == number) {
            return &n->files[i];
        }
    }
    return NULL;
}

static inline void rig_act_file(struct rig_node *n, const struct action *a)
{
    struct rig_file *f = rig_file(n, a->file.at.segment);

    if (a->kind == ACTION_CREATE) {
        assert_null(f);
        assert_true(n->n_files < RIG_FILES_MAX);
        assert_int_equal(a->file.at.offset, 0);
        f = &n->files[n->n_files++];
        *f = (struct rig_file){ a->file.at.segment, 0, malloc(RIG_FILE_BYTES) };
        n->next_segment = MAX_OF(n->next_segment, f->number + 1);
    }
    assert_non_null(f);
    assert_int_equal(f->bytes, a->file.at.offset); /* a log only grows at its end */
    assert_true(f->bytes + a->file.bytes <= RIG_FILE_BYTES);
    memcpy(f->data + f->bytes, a->file.data, a->file.bytes);
    f->bytes += a->file.bytes;
}

static inline void rig_act_send(struct rig_node *n, const struct action *a)
{
    struct rig *g = n->rig;
    struct rig_msg *m = &g->msgs[g->n_msgs++];

    assert_true(g->n_msgs < RIG_MSGS_MAX);
    assert_int_not_equal(a->server, n->server);
    assert_in_range(a->server, 1, RIG_SERVERS);
    *m = (struct rig_msg){ .kind = a->kind, .from = n->server, .to = a->server };
    if (a->kind == ACTION_PREPARE) {
        m->prepare = a->prepare;
        m->entry = malloc(a->prepare.entry_bytes);
        memcpy(m->entry, a->prepare.entry, a->prepare.entry_bytes);
        m->prepare.entry = m->entry;
    } else if (a->kind == ACTION_COMMIT) {
        m->commit = a->commit;
    } else if (a->kind == ACTION_CATCHUP_ASK) {
        m->ask = a->ask;
    } else if (a->kind == ACTION_LEARNED) {
        m->learned = a->learned;
    } else if (a->kind == ACTION_CATCHUP) {
        m->catchup = a->catchup;
        m->entry = malloc(a->catchup.bytes + 1);
        if (a->catchup.bytes > 0) {
            memcpy(m->entry, a->catchup.data, a->catchup.bytes);
        }
        m->catchup.data = m->entry;
    } else {
        m->at = a->note;
    }
}

static inline void rig_act_lease(struct rig_node *n, const struct action *a)
{
    struct rig *g = n->rig;
    struct rig_leases *l = &g->leases[g->n_leases];

    if (g->loses_leases) {
        return;
    }
    assert_true(g->n_leases < RIG_HELD_MAX);
    g->n_leases++;
    *l = (struct rig_leases){ .kind = a->kind, .from = n->server, .to = a->server };
    if (a->kind == ACTION_LEASE_BACK) {
        l->back = a->note;
        return;
    }
    assert_true(a->leases.n <= RIG_LEASES_MAX);
    l->sent_usec = a->leases.sent_usec;
    l->n = a->leases.n;
    memcpy(l->v, a->leases.v, l->n * sizeof(l->v[0]));
}

static inline void rig_act_answer(struct rig_node *n, const struct action *a)
{
    struct rig_answer *to = &n->rig->answers[n->rig->n_answers++];

    assert_true(n->rig->n_answers < RIG_ANSWERS_MAX);
    to->id = a->answer.asker.id;
    to->result = a->answer.result;
    assert_true(to->result.value_len <= RIG_VALUE_MAX);
    if (to->result.value_len > 0) {
        memcpy(to->value, to->result.value, to->result.value_len);
    }
    to->value[to->result.value_len] = 0;
    to->result.value = NULL;
}

static inline void rig_act(struct rig_node *n, const struct action *a)
{
    switch (a->kind) {
    case ACTION_CREATE:
    case ACTION_WRITE:
        rig_act_file(n, a);
        return;
    case ACTION_SYNC:
        assert_true(a->group > n->written_group);
        n->written_group = a->group;
        return;
    case ACTION_PREPARE:
    case ACTION_ACK:
    case ACTION_RESEND:
    case ACTION_COMMIT:
    case ACTION_CATCHUP_ASK:
    case ACTION_CATCHUP:
    case ACTION_CATCHUP_ACK:
    case ACTION_LEARNED:
        rig_act_send(n, a);
        return;
    case ACTION_LEASES:
    case ACTION_GRANTS:
    case ACTION_LEASE_BACK:
        rig_act_lease(n, a);
        return;
    case ACTION_DIFFERS:
        n->differs++;
        return;
    case ACTION_RESULT:
        rig_act_answer(n, a);
        return;
    case ACTION_PEEK:
        n->peek = a->peek.peek;
        n->peeks++;
        return;
    case ACTION_SEALED:
        n->sealed = a->sealed;
        n->seals++;
        return;
    case ACTION_RECONFIG:
        n->accused = a->reconfig;
        n->accuses++;
        return;
    case ACTION_READ:
        assert_true(n->n_reads < RIG_READS_MAX);
        n->reads[n->n_reads++] = *a;
        return;
    case ACTION_PREFETCH:
        return;
    case ACTION_DAMAGED:
        n->damaged++;
        return;
    case ACTION_LACKING:
        n->lacking++;
        return;
    case ACTION_HALT:
        n->halted = a->why;
        return;
    default:
        fail_msg("unknown action %d", a->kind);
    }
}

/* ---- steps ---- */

static inline void rig_step_one(struct rig *g, uint32_t server, const struct shard_event *e)
{
    struct rig_node *n = &g->nodes[server];
    struct shard_clock now = { g->boot_usec, RIG_T0_USEC + g->boot_usec };
    struct actions out = { 0 };

    now.real_usec = (uint64_t) ((int64_t) now.real_usec + n->clock_skew_usec);
    shard_step(n->shard, &now, e, &out);
    for (size_t i = 0; i < out.n; i++) {
        rig_act(n, &out.v[i]);
    }
    actions_free(&out);
}

/* The oldest request, grant or return of leases arrives. */
static inline void rig_lease_pass(struct rig *g)
{
    struct rig_leases l = g->leases[0];
    struct shard_event e = { .from = l.from, .incarnation = 1 };

    g->n_leases--;
    memmove(&g->leases[0], &g->leases[1], g->n_leases * sizeof(g->leases[0]));
    e.kind = l.kind == ACTION_LEASES   ? SHARD_LEASES
             : l.kind == ACTION_GRANTS ? SHARD_GRANTS
                                       : SHARD_LEASE_BACK;
    if (l.kind == ACTION_LEASE_BACK) {
        e.note = l.back;
    } else {
        e.leases.sent_usec = l.sent_usec;
        e.leases.v = l.v;
        e.leases.n = l.n;
    }
    if (g->nodes[l.to].shard) {
        rig_step_one(g, l.to, &e);
    }
}

static inline void rig_step(struct rig *g, uint32_t server, const struct shard_event *e)
{
    rig_step_one(g, server, e);
    for (int n = 0; g->n_leases > 0 && !g->holds_leases; n++) {
        assert_true(n < 1000);
        rig_lease_pass(g);
    }
}

static inline void rig_event(struct rig *g, uint32_t server, enum shard_event_kind kind,
                             uint32_t from)
{
    struct shard_event e = { .kind = kind, .from = from };

    rig_step(g, server, &e);
}

static inline void rig_turn(struct rig *g, uint32_t server)
{
    rig_event(g, server, SHARD_TURN_END, 0);
}

/* The disk finishes what was written so far. */
static inline bool rig_synced(struct rig *g, uint32_t server)
{
    struct rig_node *n = &g->nodes[server];
    struct shard_event e = { .kind = SHARD_SYNCED, .group = n->written_group };

    if (n->synced_group == n->written_group) {
        return false;
    }
    n->synced_group = n->written_group;
    rig_step(g, server, &e);
    return true;
}

/* Ends the turn and syncs. Returns whether there was anything to sync. */
static inline bool rig_sync(struct rig *g, uint32_t server)
{
    rig_turn(g, server);
    return rig_synced(g, server);
}

static inline void rig_tick(struct rig *g, uint32_t server, uint64_t usec)
{
    g->boot_usec += usec;
    rig_event(g, server, SHARD_TICK, 0);
}

/* Nobody holds a lease from this server any more, unless a test is about that. */
static inline void rig_promises_back(struct rig *g, uint32_t server, uint16_t partition)
{
    for (uint32_t from = 1; from <= RIG_SERVERS && !g->keeps_promises; from++) {
        struct shard_event e = { .kind = SHARD_LEASE_BACK,
                                 .from = from,
                                 .note = { .partition = partition, .view = UINT32_MAX } };
        rig_step(g, server, &e);
    }
}

/* A view of a partition; members as digits: "123", the primary first; behind a plus its learners:
 * "12+3". */
static inline void rig_row(struct rig *g, uint32_t server, enum shard_event_kind kind,
                           uint16_t partition, uint32_t view, const char *members)
{
    struct shard_event e = { .kind = kind };

    rig_promises_back(g, server, partition);
    e.row.partition = partition;
    e.row.view = view;
    for (; *members && *members != '+'; members++) {
        e.row.members[e.row.n_members++] = (uint32_t) (*members - '0');
    }
    for (members += *members == '+'; *members; members++) {
        e.row.learners[e.row.n_learners++] = (uint32_t) (*members - '0');
    }
    rig_step(g, server, &e);
}

static inline void rig_view(struct rig *g, uint32_t server, uint32_t view, const char *members)
{
    rig_row(g, server, SHARD_VIEW, 0, view, members);
}

static inline void rig_seal(struct rig *g, uint32_t server, uint32_t view)
{
    struct shard_event e = { .kind = SHARD_SEAL, .note = { .partition = 0, .view = view } };

    rig_step(g, server, &e);
}

/* ---- messages ---- */

static inline void rig_msg_free(struct rig *g, size_t i)
{
    free(g->msgs[i].entry);
    g->n_msgs--;
    memmove(&g->msgs[i], &g->msgs[i + 1], (g->n_msgs - i) * sizeof(g->msgs[0]));
}

/* Index of the oldest message of a kind between two servers; 0 stands for any. -1: none. */
static inline long rig_msg_find(const struct rig *g, int kind, uint32_t from, uint32_t to)
{
    for (size_t i = 0; i < g->n_msgs; i++) {
        const struct rig_msg *m = &g->msgs[i];
        if ((kind == 0 || (int) m->kind == kind) && (from == 0 || m->from == from) &&
            (to == 0 || m->to == to)) {
            return (long) i;
        }
    }
    return -1;
}

static inline size_t rig_msg_count(const struct rig *g, int kind, uint32_t from, uint32_t to)
{
    size_t count = 0;

    for (size_t i = 0; i < g->n_msgs; i++) {
        const struct rig_msg *m = &g->msgs[i];
        count += (kind == 0 || (int) m->kind == kind) && (from == 0 || m->from == from) &&
                 (to == 0 || m->to == to);
    }
    return count;
}

/* Acks and commits bear their sender's clock. */
static inline void rig_clock_show(struct rig *g, const struct rig_msg *m)
{
    struct shard_event e = { .kind = SHARD_CLOCK, .from = m->from };

    if (m->kind == ACTION_ACK || m->kind == ACTION_COMMIT) {
        e.clock.usec =
            (uint64_t) ((int64_t) (RIG_T0_USEC + g->boot_usec) + g->nodes[m->from].clock_skew_usec);
        rig_step(g, m->to, &e);
    }
}

/* Hands a copy over; the message stays in flight. */
static inline void rig_msg_show(struct rig *g, const struct rig_msg *m)
{
    struct shard_event e = { .from = m->from };

    rig_clock_show(g, m);

    switch (m->kind) {
    case ACTION_PREPARE:
        e.kind = SHARD_PREPARE;
        e.prepare = m->prepare;
        break;
    case ACTION_COMMIT:
        e.kind = SHARD_COMMIT;
        e.commit = m->commit;
        break;
    case ACTION_CATCHUP_ASK:
        e.kind = SHARD_CATCHUP_ASK;
        e.ask = m->ask;
        break;
    case ACTION_CATCHUP:
        e.kind = SHARD_CATCHUP;
        e.catchup = m->catchup;
        break;
    case ACTION_CATCHUP_ACK:
        e.kind = SHARD_CATCHUP_ACK;
        e.note = m->at;
        break;
    case ACTION_LEARNED:
        e.kind = SHARD_LEARNED;
        e.learned = m->learned;
        e.incarnation = 1;
        break;
    default:
        e.kind = m->kind == ACTION_ACK ? SHARD_ACK : SHARD_RESEND;
        e.note = m->at;
    }
    rig_step(g, m->to, &e);
}

/* Delivers the oldest such message. Returns whether there was one. */
static inline bool rig_deliver(struct rig *g, int kind, uint32_t from, uint32_t to)
{
    long i = rig_msg_find(g, kind, from, to);
    struct rig_msg m;

    if (i < 0) {
        return false;
    }
    m = g->msgs[i];
    g->msgs[i].entry = NULL;
    rig_msg_free(g, (size_t) i);
    rig_msg_show(g, &m);
    free(m.entry);
    return true;
}

static inline size_t rig_deliver_all(struct rig *g, int kind, uint32_t from, uint32_t to)
{
    size_t n = 0;

    while (rig_deliver(g, kind, from, to)) {
        n++;
    }
    return n;
}

static inline size_t rig_drop_all(struct rig *g, int kind, uint32_t from, uint32_t to)
{
    size_t n = 0;

    for (long i; (i = rig_msg_find(g, kind, from, to)) >= 0; n++) {
        rig_msg_free(g, (size_t) i);
    }
    return n;
}

/* Turns, syncs and deliveries until nothing more happens; `servers` as digits take part, what is
 * sent to others stays in flight. */
static inline void rig_run(struct rig *g, const char *servers)
{
    int idle = 0;

    for (int round = 0; idle < 2; round++) {
        assert_true(round < 1000); /* it must come to rest */
        idle++;
        for (const char *s = servers; *s; s++) {
            uint32_t to = (uint32_t) (*s - '0');
            idle = rig_sync(g, to) ? 0 : idle;
            for (const char *t = servers; *t; t++) {
                idle = rig_deliver_all(g, 0, (uint32_t) (*t - '0'), to) > 0 ? 0 : idle;
            }
        }
    }
}
