#include "shard_thread.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/clock.h"
#include "io/index_tc.h"
#include "io/log.h"
#include "shard_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define COUNTS_USEC    100000
#define LOOKS_PER_ROOM 4 /* how often the disk is looked at while what it has is used up */

/* ---- carrying out ---- */

struct refused_read {
    struct shard_thread *thread;
    uint64_t number;
};

static void refused_deliver(void *arg)
{
    struct refused_read *f = arg;
    struct shard_event e = { .kind = SHARD_READ };

    e.read.number = f->number;
    e.read.error = -EBUSY;
    shard_thread_step(f->thread, &e);
    free(f);
}

/* Too many reads are under way: told by the next step, not within this one. */
static void read_refused(struct shard_thread *t, uint64_t number)
{
    struct refused_read *f = mem_alloc(sizeof(*f));

    *f = (struct refused_read){ t, number };
    if (loop_post(t->loop, refused_deliver, f) < 0) {
        free(f);
        shard_thread_fail(t, "the loop's mailbox is full");
    }
}

/* What the operator should know. */
static void act_log(const struct action *a)
{
    switch (a->kind) {
    case ACTION_DAMAGED:
        log_ratelimit(
            LOG_LEVEL_ERROR,
            "partition %u: the record at byte %u of log segment %u can't be read: the disk "
            "is damaged; stop the server and see: kumo-server --check",
            a->damaged.partition, a->damaged.at.offset, a->damaged.at.segment);
        return;
    case ACTION_LACKING:
        log_ratelimit(LOG_LEVEL_WARNING,
                      "partition %u: this copy lacks committed records after seq %llu; they are "
                      "fetched from server %u",
                      a->note.partition, (unsigned long long) a->note.seq, a->server);
        return;
    case ACTION_DIFFERS:
        log_ratelimit(LOG_LEVEL_ERROR,
                      "partition %u: the copy of server %u differs at seq %llu; it is fetched anew",
                      a->note.partition, a->server, (unsigned long long) a->note.seq);
        return;
    default:
        kumo_unreachable();
    }
}

static void act(struct shard_thread *t, const struct action *a)
{
    switch (a->kind) {
    case ACTION_CREATE:
    case ACTION_WRITE:
    case ACTION_SYNC:
        segment_writer_act(t->writer, a);
        return;
    case ACTION_PREPARE:
    case ACTION_ACK:
    case ACTION_RESEND:
    case ACTION_COMMIT:
    case ACTION_LEASES:
    case ACTION_LEASE_BACK:
    case ACTION_CATCHUP_ASK:
    case ACTION_CATCHUP:
    case ACTION_CATCHUP_ACK:
    case ACTION_LEARNED:
        peers_act(t, a);
        return;
    case ACTION_GRANTS:
        clients_grants(t, a);
        return;
    case ACTION_RESULT:
        clients_result(t, a);
        return;
    case ACTION_PEEK:
        clients_peek(t, a);
        return;
    case ACTION_SEALED:
        mem_grow(&t->sealed, &t->cap_sealed, t->n_sealed + 1, sizeof(*t->sealed));
        t->sealed[t->n_sealed++] = a->sealed;
        return;
    case ACTION_RECONFIG:
        mem_grow(&t->reconfigs, &t->cap_reconfigs, t->n_reconfigs + 1, sizeof(*t->reconfigs));
        t->reconfigs[t->n_reconfigs++] = a->reconfig;
        return;
    case ACTION_COMPACTED:
        shard_compact_done(t, a);
        return;
    case ACTION_READ:
        if (reader_ask(t->reader, a->read.number, a->read.at, a->read.bytes) < 0) {
            read_refused(t, a->read.number);
        }
        return;
    case ACTION_PREFETCH:
        segment_writer_prefetch(t->writer, a->read.at, a->read.bytes);
        return;
    case ACTION_DAMAGED:
    case ACTION_LACKING:
    case ACTION_DIFFERS:
        act_log(a);
        return;
    case ACTION_HALT:
        shard_thread_fail(t, a->why);
        return;
    default:
        kumo_unreachable();
    }
}

void shard_thread_step(struct shard_thread *t, const struct shard_event *e)
{
    struct shard_clock now = { clock_boot_usec(), clock_real_usec() };

    if (t->failed || t->stopping) {
        return;
    }
    t->actions.n = 0;
    shard_step(t->shard, &now, e, &t->actions);
    for (size_t i = 0; i < t->actions.n; i++) {
        act(t, &t->actions.v[i]);
    }
}

void gather_send(const struct shard_thread *t, struct gather *g, struct rpc *rpc, uint32_t method,
                 enum gather_head head)
{
    static const uint32_t items[] = { [HEAD_NONE] = 1, [HEAD_CLOCK] = 3, [HEAD_LEASES] = 4 };
    struct buf *b = rpc_begin_notify(rpc, method);

    mp_put_array(b, items[head]);
    if (head != HEAD_NONE) {
        mp_put_uint(b, clock_real_usec());
        mp_put_uint(b, t->space);
    }
    if (head == HEAD_LEASES) {
        mp_put_uint(b, g->sent_usec);
    }
    mp_put_array(b, g->n);
    buf_append(b, buf_head(&g->items), buf_len(&g->items));
    if (rpc_end(rpc) < 0) {
        log_ratelimit(LOG_LEVEL_ERROR, "a message to %s is too large and was dropped",
                      rpc_peer_name(rpc));
    }
    buf_clear(&g->items);
    buf_trim(&g->items, GATHER_BYTES_MAX);
    g->n = 0;
}

void shard_thread_clock(struct shard_thread *t, uint32_t from, uint64_t clock_usec, uint8_t space)
{
    shard_thread_step(t, &(struct shard_event){
                             .kind = SHARD_CLOCK, .from = from, .clock = { clock_usec, space } });
}

bool shard_thread_leases(struct shard_thread *t, enum shard_event_kind kind, uint32_t from,
                         uint64_t incarnation, struct mp_reader *r)
{
    struct shard_event e = { .kind = kind, .from = from, .incarnation = incarnation };
    uint32_t items = mp_get_array(r);
    uint64_t clock_usec = mp_get_uint(r);
    uint8_t space = (uint8_t) mp_get_uint_max(r, _SPACE_MAX - 1);

    e.leases.sent_usec = mp_get_uint(r);
    e.leases.n = mp_get_array(r);
    if (items < 4 || r->failed || e.leases.n > PARTITIONS_MAX) {
        return false;
    }
    mem_grow(&t->leases, &t->cap_leases, e.leases.n, sizeof(*t->leases));
    for (size_t i = 0; i < e.leases.n; i++) {
        msg_get_lease(r, &t->leases[i]);
    }
    e.leases.v = t->leases;
    if (!r->failed) {
        shard_thread_clock(t, from, clock_usec, space);
        shard_thread_step(t, &e);
    }
    return !r->failed;
}

void shard_thread_hello(const struct shard_thread *t, uint32_t shard, enum msg_lane lane,
                        struct buf *out)
{
    struct msg_hello h = {
        .protocol_min = MSG_PROTOCOL_MIN,
        .protocol_max = MSG_PROTOCOL_MAX,
        .role = ROLE_SERVER,
        .server = t->o.shard.server,
        .incarnation = t->o.incarnation,
        .shard = shard,
        .shards = t->o.shard.log.shards,
        .clock_usec = clock_real_usec(),
        .lane = (uint8_t) lane,
        .from_shard = t->o.shard.log.shard,
    };

    memcpy(h.cluster_id, t->o.cluster_id, UUID_BYTES);
    msg_put_hello(out, &h);
}

/* ---- what happens on the loop ---- */

/* Looks itself, and says when to look again. */
static bool has_room(struct shard_thread *t)
{
    struct statvfs fs;
    uint64_t room;

    if (statvfs(t->o.data_dir, &fs) < 0) {
        return true;
    }
    room = (uint64_t) fs.f_bavail * fs.f_frsize;
    if (room < t->low_bytes) {
        return false;
    }
    t->look_bytes = segment_writer_bytes(t->writer) +
                    (room - t->low_bytes) / t->o.shard.log.shards / LOOKS_PER_ROOM;
    return true;
}

/* Tells the machine how much room there is, when that has changed. */
static void space_step(struct shard_thread *t)
{
    enum shard_space space = t->disk_full ? SPACE_FULL : t->space_told;

    if (space == SPACE_ROOM && segment_writer_bytes(t->writer) >= t->look_bytes && !has_room(t)) {
        space = SPACE_LOW;
    }
    if (space != t->space) {
        t->space = space;
        shard_thread_step(t, &(struct shard_event){ .kind = SHARD_SPACE, .space = space });
    }
}

static void on_full(void *ctx, bool full)
{
    struct shard_thread *t = ctx;

    t->disk_full = full;
    atomic_store_explicit(&t->counts.disk_full, full, memory_order_relaxed);
}

static void on_turn_end(void *ctx)
{
    struct shard_thread *t = ctx;

    if (t->stopping) {
        return;
    }
    space_step(t);
    shard_thread_step(t, &(struct shard_event){ .kind = SHARD_TURN_END });
    peers_flush(t);
    clients_flush(t);
    shard_mail_flush(t);
}

/* For the main thread. */
static void counts_tell(struct shard_thread *t)
{
    struct shard_thread_counts *to = &t->counts;
    struct shard_counts c;

    shard_count(t->shard, &c);
#define TELL(field, value) atomic_store_explicit(&to->field, value, memory_order_relaxed)
    TELL(members, c.members);
    TELL(primary, c.primary);
    TELL(waiting, c.waiting);
    TELL(distrusted, c.distrusted);
    TELL(untrusted, c.untrusted);
    TELL(learning, c.learning);
    TELL(learnt_bytes, c.learnt_bytes);
    TELL(taught_bytes, c.taught_bytes);
    TELL(records, c.records);
    TELL(log_bytes, segment_writer_bytes(t->writer));
#undef TELL
}

static void on_tick(void *ctx)
{
    struct shard_thread *t = ctx;
    uint64_t now = clock_boot_usec();

    shard_thread_step(t, &(struct shard_event){ .kind = SHARD_TICK });
    if (now - t->counts_usec >= COUNTS_USEC) {
        t->counts_usec = now;
        counts_tell(t);
    }
}

static void on_synced(void *ctx, uint64_t group)
{
    shard_thread_step(ctx, &(struct shard_event){ .kind = SHARD_SYNCED, .group = group });
}

static void on_written(void *ctx, uint64_t group)
{
    shard_thread_step(ctx, &(struct shard_event){ .kind = SHARD_WRITTEN, .group = group });
}

static void on_read(void *ctx, uint64_t number, int error, const uint8_t *data, size_t bytes)
{
    struct shard_event e = { .kind = SHARD_READ };

    if (error == -EMFILE || error == -ENFILE || error == -ENOMEM) {
        error = -EBUSY; /* that is not the disk's fault */
    }
    e.read = (struct shard_read){ number, error, data, bytes };
    shard_thread_step(ctx, &e);
}

static void on_write_failed(void *ctx, int error, const char *what)
{
    char why[200];

    /* R15: never retried; the process ends, and the next start does not believe what it reads
     * behind the synced end before it has written it again. */
    snprintf(why, sizeof(why), "%s failed: %s", what, strerror(-error));
    if (error == -EIO) {
        shard_thread_damaged(ctx, why);
    } else {
        shard_thread_fail(ctx, why);
    }
}

/* ---- the thread ---- */

struct replay {
    struct shard_thread *thread;
    uint64_t bytes; /* not told to the progress yet */
};

static int replay_frame(void *ctx, const struct frame *f, struct position at)
{
    struct replay *p = ctx;
    int r = shard_replay_frame(p->thread->shard, f, at);

    p->bytes += FRAME_HEAD_BYTES + f->payload_bytes;
    if (r == 0 && p->bytes >= PROGRESS_STEP_BYTES) {
        r = progress_add(p->thread->o.progress, p->bytes);
        p->bytes = 0;
    }
    return r;
}

/* -ECANCELED: the server stops. */
static int replay(struct shard_thread *t)
{
    const struct wal_options *l = &t->o.shard.log;
    struct replay p = { .thread = t };
    int r = shard_checkpoint_load(t);
    char why[200];

    if (r < 0 && r != -ECANCELED) {
        shard_thread_damaged(t, "a checkpoint that was found good can't be loaded: see kumo-server "
                                "--check, and --rebuild-index");
    }
    for (size_t i = 0; i < t->o.set->n && r == 0; i++) {
        const struct wal_segment *s = &t->o.set->v[i];
        if (!s->trusted && (s->head.shards != l->shards || s->head.shard == l->shard)) {
            r = wal_walk(s, replay_frame, &p);
        }
        if (r < 0 && r != -ECANCELED) {
            snprintf(why, sizeof(why), "log segment %u contradicts itself (%s)", s->number,
                     strerror(-r));
            shard_thread_damaged(t, why);
        }
    }
    if (r == 0) {
        shard_replay_end(t->shard);
    }
    return r;
}

static void *thread_main(void *arg)
{
    struct shard_thread *t = arg;

    if (replay(t) == 0) {
        shard_thread_report_replayed(t);
        loop_timer_every(t->timer, SHARD_TICK_USEC);
    } else {
        t->failed = true; /* half of a log is no state to act in */
    }
    (void) loop_run(t->loop);
    t->stopping = true;
    clients_close(t);
    peers_close(t);
    t->reader = reader_free(t->reader);
    t->writer = segment_writer_free(t->writer);
    return NULL;
}

static void thread_free(struct shard_thread *t)
{
    shard_checkpoint_end(t);
    shard_free(t->shard);
    reader_free(t->reader);
    segment_writer_free(t->writer);
    residency_free(t->residency);
    if (t->log_fd >= 0) {
        close(t->log_fd);
    }
    loop_timer_free(t->timer);
    loop_free(t->loop);
    actions_free(&t->actions);
    map_free(&t->clients);
    free(t->peers);
    free(t->links);
    free(t->leases);
    shard_mail_free(t);
    free(t->sealed);
    free(t->reconfigs);
    free(t);
}

int shard_thread_start(const struct shard_thread_options *o, struct shard_thread **ret)
{
    struct shard_thread *t = mem_zalloc(1, sizeof(*t));
    struct segment_writer_options w = {
        .set = o->set,
        .wal = o->shard.log,
        .sync = o->sync,
        .sync_interval_usec = o->sync_interval_usec,
        .on_synced = on_synced,
        .on_written = on_written,
        .on_failed = on_write_failed,
        .on_full = on_full,
        .ctx = t,
    };
    char name[16];
    int r;

    t->o = *o;
    t->log_fd = -1;
    t->counts.distrusted = o->shard.distrusted; /* until they are counted */
    t->counts.untrusted = o->shard.untrusted;
    list_init(&t->dirty_clients);
    list_init(&t->late_reports);
    r = loop_new(&t->loop);
    if (r == 0) {
        t->timer = loop_timer_new(t->loop, on_tick, t);
        loop_add_turn_end(t->loop, on_turn_end, t);
        t->residency = residency_new();
        w.loop = t->loop;
        w.residency = t->residency;
        r = segment_writer_new(&w, &t->writer);
    }
    if (r == 0) {
        t->log_fd = open(o->set->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        r = t->log_fd < 0 ? -errno : 0;
    }
    if (r == 0) {
        t->reader = reader_new(&(struct reader_options){
            .pool = o->readers,
            .loop = t->loop,
            .dir_fd = t->log_fd,
            .on_read = on_read,
            .ctx = t,
        });
    }
    if (r == 0) {
        t->o.shard.index_open = index_tc_open;
        t->o.shard.read = segment_writer_read;
        t->o.shard.read_ctx = t->writer;
        r = shard_new(&t->o.shard, &t->shard);
    }
    if (r == 0) {
        r = -pthread_create(&t->thread, NULL, thread_main, t);
        snprintf(name, sizeof(name), "shard-%u", o->shard.log.shard);
        if (r == 0) {
            (void) pthread_setname_np(t->thread, name);
        }
    }
    if (r < 0) {
        t->stopping = true;
        thread_free(t);
        return r;
    }
    *ret = t;
    return 0;
}

void shard_thread_join(struct shard_thread *t)
{
    loop_stop(t->loop);
    pthread_join(t->thread, NULL);
}

struct shard_thread *shard_thread_free(struct shard_thread *t)
{
    if (t) {
        thread_free(t);
    }
    return NULL;
}

const struct shard_thread_counts *shard_thread_counts(const struct shard_thread *t)
{
    return &t->counts;
}

uint64_t shard_thread_turns(const struct shard_thread *t)
{
    return loop_turns(t->loop);
}
