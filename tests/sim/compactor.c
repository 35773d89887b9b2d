/* Compaction of a simulated server's log, as its main thread and its shard threads do it: after a
 * published generation victims below X of both generations, one at a time; every shard copies, all
 * that is written is made durable, the superblock says that the log alone is not everything, the
 * file goes. What goes is kept in an attic, which no server ever looks into. */
#include "sim/sim.h"

#include "base/cleanup.h"
#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>

enum { VICTIMS_MAX = 8 };

static void victim_begin(struct sim *s, struct server *sv);

/* ---- the attic ---- */

static void attic_put(struct server *sv, uint32_t number)
{
    size_t old_bytes;
    size_t bytes;
    const uint8_t *p = disk_file(&sv->disk, number, &bytes);
    const uint8_t *old = disk_file(&sv->attic, number, &old_bytes);

    kumo_assert(p);
    if (old && old_bytes == bytes) {
        return; /* closed segments never change */
    }
    if (old) {
        disk_lose(&sv->attic, number);
        disk_sync_all(&sv->attic);
    }
    disk_create(&sv->attic, number, 0, p, bytes);
}

/* ---- choosing ---- */

/* Those that are allowed, in any order. */
static size_t choose_any(struct sim *s, const struct compaction_file *files, size_t n,
                         const struct wal_floor *floor, uint32_t *ret)
{
    size_t n_victims = 0;

    for (size_t i = 0; i < n; i++) {
        size_t j = rng_below(&s->rng, n_victims + 1);
        if (compaction_may(&files[i], floor)) {
            ret[n_victims] = ret[j];
            ret[j] = files[i].number;
            n_victims++;
        }
    }
    return n_victims;
}

/* As the real server does, or any of those that are allowed. */
static void choose(struct sim *s, struct server *sv)
{
    struct compactor *c = &sv->compactor;
    _cleanup_free_ struct compaction_file *files = mem_alloc((sv->disk.n + 1) * sizeof(*files));
    _cleanup_(wal_floor_free) struct wal_floor floor = { 0 };
    size_t most = sim_chance(s, 1, 2) ? VICTIMS_MAX : sim_between(s, 1, VICTIMS_MAX);
    struct segment_head h;
    size_t n = 0;

    wal_floor_copy(&c->floor, &floor);
    wal_floor_lower(&floor, &c->floor_before);
    plant_floor(s, sv, &floor);
    for (size_t i = 0; i < sv->disk.n; i++) {
        struct file *f = sv->disk.files[i];
        if (f->exists && segment_head_decode(buf_head(&f->cache), buf_len(&f->cache), &h) == 0) {
            files[n++] =
                (struct compaction_file){ f->number, h.shard, h.shards, buf_len(&f->cache) };
        }
    }
    c->victims = mem_alloc((n + 1) * sizeof(*c->victims));
    c->n = sim_chance(s, 1, 2) ? compaction_choose(files, n, &floor, &c->live, 0, c->victims)
                               : choose_any(s, files, n, &floor, c->victims);
    c->n = MIN_OF(c->n, most);
}

/* ---- a victim's end ---- */

/* A crash may come at every step. */
static void dies(struct sim *s, struct event *e)
{
    faults_crash(s, e->who, sim_chance(s, 2, 3));
}

static void step_done(struct sim *s, struct server *sv)
{
    if (sim_chance(s, 1, 8)) {
        oracle_generations(s, sv);
    }
    if (s->setup.compaction_crashes && !s->healed && sim_chance(s, 1, 60)) {
        sim_after(s, sim_between(s, 0, sim_chance(s, 1, 2) ? 10 : 5000), &sv->process, dies, sv, 0,
                  NULL);
    }
}

static void folder_synced(struct sim *s, struct event *e)
{
    struct server *sv = e->who;

    disk_sync_folder(&sv->disk);
    step_done(s, sv);
    victim_begin(s, sv);
}

static void removes(struct sim *s, struct event *e)
{
    struct server *sv = e->who;
    uint32_t victim = (uint32_t) e->number;

    sv->super_durable.compacted = true;
    disk_remove(&sv->disk, victim);
    sv->compactor.early = s->o->plant == PLANT_UNLINK_BEFORE_COPIES ? victim : 0;
    sim_trace(s, "server %u: segment %u is removed", sv->index + 1, victim);
    s->counts.victims++;
    for (uint32_t i = 0; i < sv->n_shards && !s->failed; i++) {
        readable_check(s, sv, sv->shards[i].shard, i, sv->n_shards, false, "after a segment went");
    }
    step_done(s, sv);
    sim_after(s, sim_between(s, 50, s->setup.sync_max_usec), &sv->process, folder_synced, sv, 0,
              NULL);
}

static void victim_end(struct sim *s, struct server *sv)
{
    struct compactor *c = &sv->compactor;
    uint32_t victim = c->victims[c->next++];
    int r = plant_victim_status(s, sv, victim, c->status);
    uint64_t delay = 0;

    /* A generation that is taken meanwhile may point into the victim, with X behind the copies. */
    if (r == 0 && (sv->generation.running || sv->stopping) &&
        s->o->plant != PLANT_COMPACTION_DURING_GENERATION) {
        r = -EBUSY;
    }
    if (r < 0) {
        s->counts.refused++;
        sim_detail(s, "server %u: segment %u stays (%s)", sv->index + 1, victim, strerror(-r));
        if (r != -EBUSY) {
            sim_fail(s, "server %u: segment %u can't be compacted: %s", sv->index + 1, victim,
                     strerror(-r));
        }
        victim_begin(s, sv);
        return;
    }
    if (!sv->super.compacted) {
        sv->super.compacted = true;
        delay = sim_between(s, 100, s->setup.sync_max_usec);
    }
    step_done(s, sv);
    sim_after(s, delay, &sv->process, removes, sv, victim, NULL);
}

/* ---- a shard's part ---- */

static void shard_reports(struct sim *s, struct event *e)
{
    struct shard_process *sp = e->who;
    struct server *sv = sp->server;
    struct compactor *c = &sv->compactor;

    readable_check(s, sv, sp->shard, sp->index, sv->n_shards, false, "after a compaction");
    if (sp->compact_error < 0) {
        c->status = sp->compact_error;
    }
    step_done(s, sv);
    if (++c->shards_done == sv->n_shards) {
        victim_end(s, sv);
    }
}

static void report(struct sim *s, struct shard_process *sp, int error)
{
    sp->compact_error = error;
    sp->compact_waits = false;
    sim_after(s, sim_between(s, 0, 300), &sp->server->process, shard_reports, sp, 0, NULL);
}

void compactor_shard_done(struct sim *s, struct shard_process *sp, const struct action *a)
{
    sp->compact_runs = false;
    s->counts.copied += a->compacted.copied;
    s->counts.dropped += a->compacted.dropped;
    sim_detail(s, "server %u, shard %u: segment %u: %llu bytes copied, %llu dropped, %s",
               sp->server->index + 1, sp->index, a->compacted.segment,
               (unsigned long long) a->compacted.copied, (unsigned long long) a->compacted.dropped,
               a->compacted.error < 0 ? strerror(-a->compacted.error) : "done");
    if (sp->compact_early) {
        sp->compact_early = false; /* a planted bug has told of it already */
    } else if (a->compacted.error < 0) {
        report(s, sp, a->compacted.error);
    } else {
        sp->compact_waits = true;
        compactor_synced(s, sp);
    }
}

void compactor_synced(struct sim *s, struct shard_process *sp)
{
    if (sp->compact_runs) { /* and what was copied is where the index points now */
        readable_check(s, sp->server, sp->shard, sp->index, sp->server->n_shards, false,
                       "in a compaction");
    }
    if (sp->compact_waits && sp->synced_group >= sp->asked_group) {
        report(s, sp, 0);
    }
}

void compactor_written(struct sim *s, struct shard_process *sp)
{
    if (s->o->plant == PLANT_UNLINK_BEFORE_COPIES && sp->compact_runs && sp->compact_copied &&
        !sp->compact_waits && !sp->compact_early) {
        sp->compact_early = true;
        sp->compact_copied = false;
        report(s, sp, 0);
    }
}

static void compacts(struct sim *s, struct event *e)
{
    struct shard_process *sp = e->who;
    struct server *sv = sp->server;
    uint32_t number = (uint32_t) e->number;
    struct shard_event c = { .kind = SHARD_COMPACT };

    if (sp->compact_early) {
        sim_after(s, USEC_PER_MSEC, &sv->process, compacts, sp, number, NULL);
        return;
    }
    sp->compact_copied = false;
    step_done(s, sv);
    if (number >= sv->super.first_segment &&
        (number - sv->super.first_segment) % sv->n_shards != sp->index) {
        report(s, sp, 0); /* another shard's, of this start: nothing of it is here */
        return;
    }
    c.victim.number = number;
    c.victim.data = disk_file(&sv->attic, number, &c.victim.bytes);
    c.victim.good_bytes = c.victim.bytes;
    if (segment_head_decode(c.victim.data, c.victim.bytes, &c.victim.head) < 0) {
        sim_fail(s, "server %u: segment %u has no head", sv->index + 1, number);
        return;
    }
    sp->compact_runs = true;
    shard_run(s, sp, &c);
}

static void victim_begin(struct sim *s, struct server *sv)
{
    struct compactor *c = &sv->compactor;
    uint64_t apart = sim_chance(s, 1, 2) ? USEC_PER_MSEC : 300 * USEC_PER_MSEC;

    if (c->next >= c->n || sv->stopping) {
        free(c->victims);
        c->victims = NULL;
        c->n = c->next = 0;
        c->running = false;
        return;
    }
    c->shards_done = 0;
    c->status = 0;
    attic_put(sv, c->victims[c->next]);
    for (uint32_t i = 0; i < sv->n_shards; i++) {
        sim_after(s, sim_between(s, 0, apart), &sv->process, compacts, &sv->shards[i],
                  c->victims[c->next], NULL);
    }
    if (s->o->plant == PLANT_COMPACTION_DURING_GENERATION && sim_chance(s, 1, 2)) {
        checkpoints_begin(s, sv);
    }
}

void compactor_begin(struct sim *s, struct server *sv, const struct manifest *manifest)
{
    struct compactor *c = &sv->compactor;

    wal_floor_free(&c->floor_before);
    if (c->floor.partitions == 0 && sv->manifest.items) {
        manifest_floor(&sv->manifest, &c->floor);
    }
    c->floor_before = c->floor;
    manifest_floor(manifest, &c->floor);
    if (c->running || s->setup.compaction_chance == 0 ||
        !sim_chance(s, s->setup.compaction_chance, 4)) {
        return;
    }
    choose(s, sv);
    c->running = true;
    victim_begin(s, sv);
}

void compactor_count(struct server *sv)
{
    compaction_live_free(&sv->compactor.live);
}

void compactor_gone(struct server *sv)
{
    free(sv->compactor.victims);
    compaction_live_free(&sv->compactor.live);
    wal_floor_free(&sv->compactor.floor);
    wal_floor_free(&sv->compactor.floor_before);
    sv->compactor = (struct compactor){ 0 };
}
