/* Mail between a shard's thread and the main thread: what the shard reports, and what it is ordered
 * to do. Both are posted to the other's loop; nothing else is shared. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "shard_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- telling the main thread ---- */

struct report {
    struct list link; /* in thread->late_reports */
    struct shard_thread_owner owner;
    enum {
        REPORT_SEALED,
        REPORT_RECONFIG,
        REPORT_FAILED,
        REPORT_REPLAYED,
        REPORT_CHECKPOINT,
        REPORT_COMPACTED,
    } kind;
    size_t n;
    struct msg_sealed *sealed;
    struct msg_reconfig *reconfigs;
    struct shard_generation generation;
    struct action compacted;
    bool damaged;
    char why[256];
};

static void report_free(struct report *r)
{
    free(r->sealed);
    free(r->reconfigs);
    free(r->generation.items);
    compaction_live_free(&r->generation.live);
    free(r);
}

static void report_deliver(void *arg)
{
    struct report *r = arg;

    switch (r->kind) {
    case REPORT_SEALED:
        r->owner.on_sealed(r->owner.ctx, r->sealed, r->n);
        break;
    case REPORT_RECONFIG:
        r->owner.on_reconfig(r->owner.ctx, r->reconfigs, r->n);
        break;
    case REPORT_FAILED:
        r->owner.on_failed(r->owner.ctx, r->why, r->damaged);
        break;
    case REPORT_REPLAYED:
        r->owner.on_replayed(r->owner.ctx);
        break;
    case REPORT_COMPACTED:
        r->owner.on_compacted(r->owner.ctx, r->compacted.compacted.segment,
                              r->compacted.compacted.error, r->compacted.compacted.copied,
                              r->compacted.compacted.dropped);
        break;
    case REPORT_CHECKPOINT:
        r->owner.on_checkpointed(r->owner.ctx, &r->generation);
        break;
    }
    report_free(r);
}

/* A full mailbox drops seals and what is asked of the manager, which are asked for and made again;
 * what is told once waits. */
static void report_post(struct shard_thread *t, struct report *r)
{
    r->owner = t->o.owner;
    list_init(&r->link);
    if (list_empty(&t->late_reports) && loop_post(r->owner.loop, report_deliver, r) == 0) {
        return;
    }
    if (r->kind == REPORT_SEALED || r->kind == REPORT_RECONFIG) {
        report_free(r);
    } else {
        list_push_back(&t->late_reports, &r->link);
    }
}

static void late_post(struct shard_thread *t)
{
    while (!list_empty(&t->late_reports)) {
        struct report *r = LIST_ENTRY(t->late_reports.next, struct report, link);
        list_remove(&r->link);
        if (loop_post(r->owner.loop, report_deliver, r) < 0) {
            list_push_front(&t->late_reports, &r->link);
            return;
        }
    }
}

void shard_mail_free(struct shard_thread *t)
{
    while (!list_empty(&t->late_reports)) {
        struct report *r = LIST_ENTRY(t->late_reports.next, struct report, link);
        list_remove(&r->link);
        report_free(r);
    }
}

void shard_mail_flush(struct shard_thread *t)
{
    struct report *r;

    late_post(t);
    if (t->n_sealed > 0) {
        r = mem_zalloc(1, sizeof(*r));
        r->kind = REPORT_SEALED;
        r->n = t->n_sealed;
        r->sealed = TAKE_PTR(t->sealed);
        t->n_sealed = t->cap_sealed = 0;
        report_post(t, r);
    }
    if (t->n_reconfigs > 0) {
        r = mem_zalloc(1, sizeof(*r));
        r->kind = REPORT_RECONFIG;
        r->n = t->n_reconfigs;
        r->reconfigs = TAKE_PTR(t->reconfigs);
        t->n_reconfigs = t->cap_reconfigs = 0;
        report_post(t, r);
    }
}

void shard_thread_report_checkpoint(struct shard_thread *t, const struct shard_generation *g)
{
    struct report *r = mem_zalloc(1, sizeof(*r));

    r->kind = REPORT_CHECKPOINT;
    r->generation = *g;
    report_post(t, r);
}

void shard_thread_report_compacted(struct shard_thread *t, const struct action *a)
{
    struct report *r = mem_zalloc(1, sizeof(*r));

    r->kind = REPORT_COMPACTED;
    r->compacted = *a;
    report_post(t, r);
}

static void fail(struct shard_thread *t, const char *why, bool damaged)
{
    struct report *r;

    if (t->failed) {
        return;
    }
    t->failed = true;
    r = mem_zalloc(1, sizeof(*r));
    r->kind = REPORT_FAILED;
    r->damaged = damaged;
    snprintf(r->why, sizeof(r->why), "%s", why);
    report_post(t, r);
}

void shard_thread_fail(struct shard_thread *t, const char *why)
{
    fail(t, why, false);
}

void shard_thread_damaged(struct shard_thread *t, const char *why)
{
    fail(t, why, true);
}

void shard_thread_report_replayed(struct shard_thread *t)
{
    struct report *r = mem_zalloc(1, sizeof(*r));

    r->kind = REPORT_REPLAYED;
    report_post(t, r);
}

/* ---- posts from the main thread ---- */

struct order {
    struct shard_thread *thread;
    enum {
        ORDER_ROWS,
        ORDER_FLOOR,
        ORDER_SEALS,
        ORDER_PEERS,
        ORDER_ADOPT,
        ORDER_CHECKPOINT,
        ORDER_COMPACT,
        ORDER_FORGET,
        ORDER_SPACE,
        ORDER_BEAT,
        ORDER_LEAVE,
        ORDER_SESSIONS,
    } kind;
    uint32_t segment;
    enum shard_space space;
    bool hurry;
    uint64_t low_bytes;
    uint64_t generation;
    size_t n;
    struct view_row *rows;
    struct msg_at *at;
    struct peer_table *peers;
    struct rpc_parcel *parcel;
    struct msg_sessions sessions;
    uint64_t *ids; /* of `sessions` */
};

static void order_free(struct order *o)
{
    free(o->rows);
    free(o->at);
    free(o->peers);
    free(o->ids);
    rpc_parcel_free(o->parcel);
    free(o);
}

static void order_run(void *arg)
{
    struct order *o = arg;
    struct shard_thread *t = o->thread;
    struct shard_event e = { .kind = o->kind == ORDER_FLOOR  ? SHARD_FLOOR
                                     : o->kind == ORDER_ROWS ? SHARD_VIEW
                                                             : SHARD_SEAL };

    for (size_t i = 0; i < o->n && !t->stopping; i++) {
        if (o->kind == ORDER_SEALS) {
            e.note = o->at[i];
        } else {
            e.row = o->rows[i];
        }
        shard_thread_step(t, &e);
    }
    if (o->kind == ORDER_PEERS && !t->stopping) {
        peers_set(t, TAKE_PTR(o->peers));
    } else if (o->kind == ORDER_ADOPT && !t->stopping) {
        clients_adopt(t, TAKE_PTR(o->parcel));
    } else if (o->kind == ORDER_CHECKPOINT && !t->stopping) {
        shard_checkpoint_begin(t, o->generation, o->hurry);
    } else if (o->kind == ORDER_COMPACT && !t->stopping) {
        shard_compact_begin(t, o->segment);
    } else if (o->kind == ORDER_FORGET && !t->stopping) {
        segment_writer_forget(t->writer, o->segment);
    } else if (o->kind == ORDER_SESSIONS && !t->stopping) {
        e.kind = SHARD_SESSIONS;
        e.sessions = o->sessions;
        shard_thread_step(t, &e);
    } else if (o->kind == ORDER_SPACE) {
        t->space_told = o->space; /* the turn's end tells the machine */
        t->low_bytes = o->low_bytes;
        t->look_bytes = 0;
    } else if (o->kind == ORDER_BEAT) {
        shard_thread_step(t, &(struct shard_event){ .kind = SHARD_MANAGER });
    } else if (o->kind == ORDER_LEAVE) {
        shard_thread_step(t, &(struct shard_event){ .kind = SHARD_LEAVE });
    }
    order_free(o);
}

static int order_post(struct order *o)
{
    int r = loop_post(o->thread->loop, order_run, o);

    if (r < 0) {
        order_free(o);
    }
    return r;
}

static struct order *order_new(struct shard_thread *t)
{
    struct order *o = mem_zalloc(1, sizeof(*o));

    o->thread = t;
    return o;
}

int shard_thread_rows(struct shard_thread *t, const struct view_row *rows, size_t n, bool floor)
{
    struct order *o = order_new(t);

    o->kind = floor ? ORDER_FLOOR : ORDER_ROWS;
    o->n = n;
    o->rows = mem_alloc(n * sizeof(*rows));
    memcpy(o->rows, rows, n * sizeof(*rows));
    return order_post(o);
}

int shard_thread_seals(struct shard_thread *t, const struct msg_at *at, size_t n)
{
    struct order *o = order_new(t);

    o->kind = ORDER_SEALS;
    o->n = n;
    o->at = mem_alloc(n * sizeof(*at));
    memcpy(o->at, at, n * sizeof(*at));
    return order_post(o);
}

int shard_thread_beat(struct shard_thread *t)
{
    struct order *o = order_new(t);

    o->kind = ORDER_BEAT;
    return order_post(o);
}

int shard_thread_leave(struct shard_thread *t)
{
    struct order *o = order_new(t);

    o->kind = ORDER_LEAVE;
    return order_post(o);
}

int shard_thread_peers(struct shard_thread *t, struct peer_table *table)
{
    struct order *o = order_new(t);

    o->kind = ORDER_PEERS;
    o->peers = table;
    return order_post(o);
}

int shard_thread_adopt(struct shard_thread *t, struct rpc_parcel *parcel)
{
    struct order *o = order_new(t);

    o->kind = ORDER_ADOPT;
    o->parcel = parcel;
    return order_post(o);
}

int shard_thread_checkpoint(struct shard_thread *t, uint64_t generation, bool hurry)
{
    struct order *o = order_new(t);

    o->kind = ORDER_CHECKPOINT;
    o->generation = generation;
    o->hurry = hurry;
    return order_post(o);
}

int shard_thread_compact(struct shard_thread *t, uint32_t segment)
{
    struct order *o = order_new(t);

    o->kind = ORDER_COMPACT;
    o->segment = segment;
    return order_post(o);
}

int shard_thread_forget(struct shard_thread *t, uint32_t segment)
{
    struct order *o = order_new(t);

    o->kind = ORDER_FORGET;
    o->segment = segment;
    return order_post(o);
}

int shard_thread_space(struct shard_thread *t, enum shard_space space, uint64_t low_bytes)
{
    struct order *o = order_new(t);

    o->kind = ORDER_SPACE;
    o->space = space;
    o->low_bytes = low_bytes;
    return order_post(o);
}

int shard_thread_sessions(struct shard_thread *t, const struct msg_sessions *m)
{
    size_t bytes = ((size_t) m->n_opened + m->n_ended) * sizeof(*m->ids);
    struct order *o = order_new(t);

    o->kind = ORDER_SESSIONS;
    o->sessions = *m;
    o->ids = mem_alloc(bytes + 1);
    if (bytes > 0) {
        memcpy(o->ids, m->ids, bytes);
    }
    o->sessions.ids = o->ids;
    return order_post(o);
}
