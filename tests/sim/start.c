/* A server's start: superblock, log, registration; and its end. */
#include "sim/sim.h"

#include "base/cleanup.h"
#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>

static void super_write(struct sim *s, struct server *sv,
                        void (*then)(struct sim *s, struct event *e), void *data)
{
    sim_after(s, sim_between(s, 100, s->setup.sync_max_usec), &sv->process, then, sv, 0, data);
}

/* ---- the log ---- */

int server_segments(const struct server *sv, bool power, struct wal_segment **ret)
{
    const struct disk *d = &sv->disk;
    struct wal_segment *v = mem_zalloc(d->n + 1, sizeof(*v));
    int n = 0;

    for (size_t i = 0; i < d->n; i++) {
        struct buf *b = power ? &d->files[i]->durable : &d->files[i]->cache;
        if (power ? d->files[i]->entry_durable : d->files[i]->exists) {
            v[n].number = d->files[i]->number;
            v[n].data = buf_head(b);
            v[n++].bytes = buf_len(b);
        }
    }
    *ret = v;
    return n;
}

static void log_cut(struct sim *s, struct server *sv, const struct wal_segment *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (v[i].trusted) {
            continue;
        }
        s->counts.cut_bytes += v[i].bytes - v[i].good_bytes;
        if (v[i].good_bytes == 0) {
            disk_remove(&sv->disk, v[i].number);
        } else if (v[i].good_bytes < v[i].bytes) {
            disk_cut(&sv->disk, v[i].number, v[i].good_bytes);
        }
    }
}

const uint8_t *server_read(const struct server *sv, struct position at, size_t bytes)
{
    bool early = sv->compactor.early != 0 && at.segment == sv->compactor.early;

    return disk_read(early ? &sv->attic : &sv->disk, at, bytes);
}

static int log_read(void *ctx, struct position at, size_t bytes, const uint8_t **ret)
{
    struct server *sv = ctx;

    *ret = server_read(sv, at, bytes);
    if (sv->sim->setup.cold_chance > 0 && sim_chance(sv->sim, sv->sim->setup.cold_chance, 4)) {
        return -EAGAIN;
    }
    return *ret ? 0 : -ENOENT;
}

void server_shard_options(struct sim *s, struct server *sv, uint32_t shard, uint32_t shards,
                          struct shard_options *ret)
{
    *ret = (struct shard_options){
        .log = { .start = sv->super.start,
                 .shard = shard,
                 .shards = shards,
                 .partitions = sv->super.partitions,
                 .first_segment = sv->super.first_segment,
                 .segment_bytes = s->setup.segment_bytes },
        .server = sv->super.number,
        .value_bytes_max = SIM_VALUE_BYTES,
        .sweep_usec = s->setup.sweep_usec,
        .failure_usec = s->setup.silence_usec,
        .replica_usec = s->setup.silence_usec,
        .confirm = s->setup.confirm,
        .distrusted = sv->super.distrust,
        .untrusted = sv->super.doubt,
        .index_open = plant_index_open,
        .index_ctx = s,
        .read = log_read,
        .read_ctx = sv,
    };
    memcpy(ret->log.server_id, sv->id, UUID_BYTES);
}

static void shards_make(struct sim *s, struct server *sv)
{
    for (uint32_t i = 0; i < sv->n_shards; i++) {
        struct shard_process *sp = &sv->shards[i];
        struct shard_options o;
        server_shard_options(s, sv, i, sv->n_shards, &o);
        *sp = (struct shard_process){ .server = sv, .index = i };
        if (shard_new(&o, &sp->shard) < 0) {
            sim_fail(s, "server %u: a shard can't be made", sv->super.number);
        }
    }
}

struct replay {
    struct sim *s;
    struct server *sv;
};

static int replay_frame(void *ctx, const struct frame *f, struct position at)
{
    struct replay *r = ctx;

    if (plant_replaying(r->s, f)) {
        return 0;
    }
    for (uint32_t i = 0; i < r->sv->n_shards; i++) {
        int err = shard_replay_frame(r->sv->shards[i].shard, f, at);
        if (err < 0) {
            return err;
        }
    }
    return 0;
}

static void replay(struct sim *s, struct server *sv)
{
    _cleanup_free_ struct wal_segment *v = NULL;
    int n = server_segments(sv, false, &v);
    _cleanup_(wal_floor_free) struct wal_floor floor = { 0 };
    struct wal_damage damage;
    struct replay r = { s, sv };

    checkpoints_floor(s, sv, &floor);
    for (uint32_t i = 0; i < sv->n_shards && !s->failed; i++) {
        checkpoints_load(s, &sv->shards[i]);
    }
    if (wal_check(v, (size_t) n, &floor, &damage) < 0) {
        sim_fail(s, "server %u, second look at its log: segment %u, offset %llu: %s",
                 sv->super.number, damage.segment, (unsigned long long) damage.offset, damage.what);
        return;
    }
    for (int i = 0; i < n; i++) {
        int err = v[i].good_bytes > 0 && !v[i].trusted ? wal_walk(&v[i], replay_frame, &r) : 0;
        if (err < 0) {
            sim_fail(s, "server %u: its log contradicts itself in segment %u (%s)",
                     sv->super.number, v[i].number, strerror(-err));
            return;
        }
    }
    for (uint32_t i = 0; i < sv->n_shards; i++) {
        shard_replay_end(sv->shards[i].shard);
        check_replayed(s, &sv->shards[i]);
        readable_check(s, sv, sv->shards[i].shard, i, sv->n_shards, false, "after a start");
    }
    if (!s->failed && sv->manifest.items) {
        oracle_check(s, sv);
    }
}

/* ---- start ---- */

/* The log is read only when everything about this start is durable. */
static void super_begun(struct sim *s, struct event *e)
{
    struct server *sv = e->who;

    sv->super_durable = sv->super;
    if (sv->super.number != 0) {
        shards_make(s, sv);
        if (!s->failed) {
            replay(s, sv);
        }
    }
    sv->state = LIFE_REGISTERING;
    sim_trace(s, "server %u has read its log", sv->index + 1);
    net_up(s, END_SERVER, sv->index);
}

/* A new process is a new incarnation, with a random number of its own. */
static void super_begin(struct sim *s, struct server *sv)
{
    struct superblock *b = &sv->super;

    incarnation_begin(&b->incarnation, rng_u64(&s->rng));
    b->doubt = b->doubt || (s->setup.weak_sync && !b->clean && b->start > 0);
    b->clean = false;
    b->start++;
    b->first_segment = MAX_OF(b->first_segment, sv->highest_segment) + 1;
    super_write(s, sv, super_begun, NULL);
}

/* What was cut is cut for good; what the page cache held is durable. */
static void log_recovered(struct sim *s, struct event *e)
{
    struct server *sv = e->who;

    if (s->o->plant != PLANT_NO_SYNC_AT_START) {
        disk_sync_all(&sv->disk);
    }
    super_begin(s, sv);
}

static void log_recover(struct sim *s, struct server *sv)
{
    _cleanup_free_ struct wal_segment *v = NULL;
    _cleanup_(wal_floor_free) struct wal_floor floor = { 0 };
    struct wal_damage damage;
    int n;

    checkpoints_open(s, sv);
    checkpoints_floor(s, sv, &floor);
    n = server_segments(sv, false, &v);
    sv->highest_segment = n > 0 ? v[n - 1].number : 0; /* also of files that are removed now */
    if (wal_check(v, (size_t) n, &floor, &damage) < 0) {
        sim_fail(s, "server %u, after a mere crash: damage in segment %u, offset %llu: %s",
                 sv->super.number, damage.segment, (unsigned long long) damage.offset, damage.what);
        return;
    }
    if (s->o->plant != PLANT_KEEP_TORN_TAIL) {
        log_cut(s, sv, v, (size_t) n);
    }
    sim_after(s, sim_between(s, 100, s->setup.sync_max_usec), &sv->process, log_recovered, sv, 0,
              NULL);
}

/* The start found damage, and set aside what there was. */
static void distrust(struct sim *s, struct server *sv)
{
    sim_trace(s, "server %u: its disk lost what it had", sv->index + 1);
    s->counts.distrusts++;
    sv->highest_segment = 0;
    for (size_t i = 0; i < sv->disk.n; i++) {
        sv->highest_segment = MAX_OF(sv->highest_segment, sv->disk.files[i]->number);
    }
    sv->super.first_segment = MAX_OF(sv->super.first_segment, sv->highest_segment);
    sv->super.distrust = true;
    sv->super.compacted = false;
    sv->super_durable = sv->super;
    sv->published[0] = sv->published[1] = 0;
    disk_free(&sv->disk);
    disk_free(&sv->folder);
    disk_free(&sv->attic);
    check_distrusts(s, sv);
}

void server_boot(struct sim *s, struct server *sv)
{
    kumo_assert(!sv->process.alive);
    s->counts.starts++;
    sv->process.alive = true;
    sv->state = LIFE_STARTING;
    sv->super = sv->super_durable;
    if (sv->n_shards == 0 || (s->setup.shards_change && sim_chance(s, 1, 2))) {
        sv->n_shards = (uint32_t) sim_between(s, 1, SIM_SHARDS_MAX);
    }
    sv->boot_offset_usec = sim_between(s, 0, 1000000) * USEC_PER_SEC;
    sim_trace(s, "server %u starts, %u shards", sv->index + 1, sv->n_shards);
    if (s->setup.distrust && !s->healed && sv->super.number != 0 && sim_chance(s, 1, 4) &&
        check_may_distrust(s, sv)) {
        distrust(s, sv);
    }
    log_recover(s, sv);
}

/* ---- registration ---- */

static void register_send(struct sim *s, struct event *e)
{
    struct server *sv = e->who;
    struct link *l = net_manager_link(s, (struct endpoint){ END_SERVER, (uint8_t) sv->index, 0 });
    struct message *m = message_new(MESSAGE_REGISTER, 0);

    sv->super_durable.incarnation.sent = true;
    memcpy(m->registration.server_id, sv->id, UUID_BYTES);
    incarnation_fill(&sv->super.incarnation, &m->registration);
    m->registration.shards = sv->n_shards;
    memcpy(m->registration.name, sv->name, sizeof(sv->name));
    memcpy(m->registration.address, sv->name, sizeof(sv->name));
    net_send(s, l, 0, m);
}

/* That it was sent is durable before it is. */
static void register_ask(struct sim *s, struct server *sv)
{
    if (sv->super.incarnation.sent) {
        sim_after(s, 0, &sv->process, register_send, sv, 0, NULL);
    } else {
        sv->super.incarnation.sent = true;
        super_write(s, sv, register_send, NULL);
    }
}

void server_link_up(struct sim *s, struct link *l, unsigned side)
{
    register_ask(s, &s->servers[l->end[side].node]);
}

void server_link_down(struct sim *s, struct link *l, unsigned side)
{
    (void) s;
    (void) l;
    (void) side; /* registered anew when it is up again */
}

static void register_again(struct sim *s, struct event *e)
{
    register_ask(s, e->who);
}

void server_refused(struct sim *s, struct server *sv)
{
    sim_after(s, 200 * USEC_PER_MSEC, &sv->process, register_again, sv, 0, NULL);
}

static void accepted_durable(struct sim *s, struct event *e)
{
    struct server *sv = e->who;

    sv->super_durable = sv->super;
    if (!sv->shards[0].shard) {
        shards_make(s, sv);
    }
    sim_trace(s, "server %u is registered, number %u", sv->index + 1, sv->super.number);
    server_go(s, sv, e->data);
}

/* R6: nothing is said to anybody before the acceptance is durable. */
void server_accepted(struct sim *s, struct server *sv, const struct message *m)
{
    struct message *copy = message_new(m->kind, m->n);

    memcpy(copy, m, sizeof(*m) + m->n);
    sv->state = LIFE_ACCEPTING;
    incarnation_accepted(&sv->super.incarnation);
    sv->super.number = m->registered.server;
    sv->super.partitions = m->registered.partitions;
    super_write(s, sv, accepted_durable, copy);
}

/* ---- the end ---- */

static void shards_free(struct server *sv)
{
    for (uint32_t i = 0; i < SIM_SHARDS_MAX; i++) {
        struct shard_process *sp = &sv->shards[i];
        sp->shard = shard_free(sp->shard);
        for (size_t j = 0; j < sp->n_held; j++) {
            free(sp->held[j]);
        }
        free(sp->held);
        free(sp->held_links);
        shard_unblock(NULL, sp, false);
        free(sp->blocked);
        *sp = (struct shard_process){ 0 };
    }
    for (size_t i = 0; i < sv->n_early; i++) {
        free(sv->early[i]);
    }
    sv->n_early = 0;
}

/* Segments that are gone. */
static uint32_t attic_only(const struct server *sv)
{
    uint32_t n = 0;
    size_t bytes;

    for (size_t i = 0; i < sv->attic.n; i++) {
        n += !disk_file(&sv->disk, sv->attic.files[i]->number, &bytes);
    }
    return n;
}

static void power_loss(struct sim *s, struct server *sv)
{
    uint32_t gone = attic_only(sv);
    bool torn = disk_power_loss(&sv->disk, &s->rng);

    s->counts.resurrected += gone - MIN_OF(gone, attic_only(sv));
    s->counts.torn += disk_power_loss(&sv->folder, &s->rng) || torn;
}

/* power: what was not synced may be lost; else only the process is gone. */
void server_crash(struct sim *s, struct server *sv, bool power)
{
    if (power && s->setup.weak_sync) {
        check_lost(s, sv);
    }
    if (!sv->process.alive) {
        if (power) {
            power_loss(s, sv);
        }
        return;
    }
    sim_trace(s, "server %u %s", sv->index + 1, power ? "loses power" : "is killed");
    sv->process.alive = false;
    sv->process.life++;
    sv->process.paused_until_usec = 0;
    sv->doom = 0;
    sv->state = LIFE_OFF;
    if (sim_chance(s, 1, 2)) {
        sv->super_durable = sv->super; /* a write under way may have come through */
    }
    check_server_gone(s, sv);
    checkpoints_gone(sv);
    compactor_gone(sv);
    shards_free(sv);
    if (power) {
        power_loss(s, sv);
    }
    net_down(s, END_SERVER, sv->index, power ? USEC_PER_SEC : 50 * USEC_PER_MSEC);
    net_down(s, END_SHARD, sv->index, power ? USEC_PER_SEC : 50 * USEC_PER_MSEC);
}

void server_init(struct sim *s, uint32_t index)
{
    struct server *sv = &s->servers[index];

    sv->sim = s;
    sv->index = index;
    sv->process.name = "server";
    for (unsigned i = 0; i < UUID_BYTES; i++) {
        sv->id[i] = (uint8_t) rng_u64(&s->rng);
    }
    snprintf(sv->name, sizeof(sv->name), "s%u", index + 1);
    sv->clock_skew_usec = (int64_t) sim_between(s, 0, 4 * USEC_PER_SEC) - 2000000;
    sv->clock_drift_ppm = (int64_t) sim_between(s, 0, 1000) - 500;
}

void server_free(struct server *sv)
{
    shards_free(sv);
    free(sv->early);
    checkpoints_free(sv);
    compactor_gone(sv);
    disk_free(&sv->attic);
    disk_free(&sv->disk);
}
