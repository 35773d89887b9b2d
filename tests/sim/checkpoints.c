/* Checkpoints of a simulated server, as its shard threads, the checkpoint writer and the main
 * thread make them: partition after partition between steps, files synced, the log synced through
 * every X, the manifest renamed into place, old generations removed; and the choice at a start. */
#include "sim/sim.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>

typedef unsigned long long llu;

/* Numbers of files in the folder: the generation, and which file of it. */
enum { FILES_MAX = 16, FILE_MANIFEST_NEW = 8, FILE_MANIFEST = 9 };

static uint32_t file_number(uint64_t generation, uint32_t file)
{
    return (uint32_t) generation * FILES_MAX + file;
}

static uint64_t sync_delay(struct sim *s)
{
    uint64_t slow = s->setup.slow_syncs && sim_chance(s, 1, 20) ? 1500 * USEC_PER_MSEC : 0;

    return sim_between(s, 50, s->setup.sync_max_usec + slow);
}

/* ---- publishing: each step may be the last before a crash ---- */

static void stops(struct sim *s, struct event *e)
{
    struct server *sv = e->who;

    sv->super.clean = sv->super_durable.clean = true;
    faults_stopped(s, sv);
}

static void generation_end(struct sim *s, struct server *sv)
{
    sv->generation.running = false;
    manifest_free(&sv->generation.manifest);
    if (sv->stopping) {
        sim_after(s, 0, &sv->process, stops, sv, 0, NULL);
    }
}

static bool is_kept(const struct sim *s, const struct server *sv, uint64_t generation)
{
    uint64_t newest = sv->generation.number;

    switch (s->o->plant) {
    case PLANT_KEEP_ONE_GENERATION:
    case PLANT_NO_FOLDER_SYNC_AFTER_RENAME:
        return generation == newest;
    case PLANT_KEEP_BY_NUMBER:
        return generation + 1 >= newest;
    default:
        return generation == newest || generation == sv->good_generation;
    }
}

/* Older generations, and what crashes left half written. */
static void generations_clean(const struct sim *s, struct server *sv)
{
    for (size_t i = 0; i < sv->folder.n; i++) {
        const struct file *f = sv->folder.files[i];
        if (f->exists && !is_kept(s, sv, f->number / FILES_MAX)) {
            disk_remove(&sv->folder, f->number);
        }
    }
}

static void published(struct sim *s, struct event *e)
{
    struct server *sv = e->who;
    struct generation *g = &sv->generation;

    if (s->o->plant != PLANT_NO_FOLDER_SYNC_AFTER_RENAME) {
        disk_sync_folder(&sv->folder);
    }
    generations_clean(s, sv);
    sim_trace(s, "server %u: generation %llu is published", sv->index + 1, (llu) g->number);
    s->counts.generations++;
    sv->published[0] = sv->good_generation;
    sv->published[1] = sv->good_generation = g->number;
    if (sv->super.compacted && sim_chance(s, 1, 4)) {
        oracle_generations(s, sv);
    }
    if (!sv->stopping) {
        compactor_begin(s, sv, &g->manifest);
    }
    generation_end(s, sv);
}

static void renames(struct sim *s, struct event *e)
{
    struct server *sv = e->who;
    uint64_t number = sv->generation.number;

    disk_sync_folder(&sv->folder); /* the checkpoint files' names */
    disk_rename(&sv->folder, file_number(number, FILE_MANIFEST_NEW),
                file_number(number, FILE_MANIFEST));
    sim_after(s, sync_delay(s), &sv->process, published, sv, 0, NULL);
}

static void manifest_synced(struct sim *s, struct event *e)
{
    struct server *sv = e->who;

    disk_sync_end(&sv->folder, file_number(sv->generation.number, FILE_MANIFEST_NEW), false);
    sim_after(s, sync_delay(s), &sv->process, renames, sv, 0, NULL);
}

static void publish(struct sim *s, struct server *sv)
{
    struct generation *g = &sv->generation;
    uint32_t number = file_number(g->number, FILE_MANIFEST_NEW);
    struct buf b = { 0 };

    manifest_encode(&b, &g->manifest);
    disk_create(&sv->folder, number, number, buf_head(&b), buf_len(&b));
    buf_free(&b);
    disk_sync_begin(&sv->folder, number);
    sim_after(s, sync_delay(s), &sv->process, manifest_synced, sv, 0, NULL);
}

/* ---- a shard's part ---- */

static void shard_done(struct sim *s, struct shard_process *sp)
{
    struct server *sv = sp->server;

    sp->waits_for_log = false;
    if (++sv->generation.shards_done == sv->n_shards) {
        publish(s, sv);
    }
}

void checkpoints_synced(struct sim *s, struct shard_process *sp)
{
    if (sp->waits_for_log &&
        (sp->synced_group >= sp->x_group || s->o->plant == PLANT_PUBLISH_BEFORE_LOG)) {
        shard_done(s, sp);
    }
}

static void file_durable(struct sim *s, struct shard_process *sp)
{
    sp->waits_for_log = true;
    checkpoints_synced(s, sp);
}

static void file_synced(struct sim *s, struct event *e)
{
    struct shard_process *sp = e->who;

    disk_sync_end(&sp->server->folder, (uint32_t) e->number, false);
    if (s->o->plant != PLANT_PUBLISH_BEFORE_FILES) {
        file_durable(s, sp);
    }
}

static void file_sync(struct sim *s, struct shard_process *sp)
{
    uint32_t number = file_number(sp->server->generation.number, sp->index);

    disk_sync_begin(&sp->server->folder, number);
    sim_after(s, sync_delay(s), &sp->server->process, file_synced, sp, number, NULL);
    if (s->o->plant == PLANT_PUBLISH_BEFORE_FILES) {
        file_durable(s, sp);
    }
}

static void file_append(struct shard_process *sp, const struct buf *b)
{
    struct disk *d = &sp->server->folder;
    uint32_t number = file_number(sp->server->generation.number, sp->index);
    const uint8_t *p = b->data + b->start;

    if (sp->file_bytes == 0) {
        disk_create(d, number, number, p, buf_len(b));
    } else {
        disk_write(d, (struct position){ number, (uint32_t) sp->file_bytes }, p, buf_len(b));
    }
    sp->file_bytes += buf_len(b);
}

static void take(struct sim *s, struct shard_process *sp, uint16_t partition)
{
    struct manifest_item *it = &sp->server->generation.manifest.items[partition];
    struct buf b = { 0 };
    uint64_t group;

    *it = (struct manifest_item){ .partition = partition, .file = (uint16_t) sp->index };
    if (checkpoint_take(sp->shard, partition, &b, &sp->server->compactor.live, &it->x, &group) <
        0) {
        sim_fail(s, "server %u: no checkpoint of partition %u can be taken", sp->server->index + 1,
                 partition);
        return;
    }
    plant_checkpoint_taken(s, &b, 0);
    sp->x_group = MAX_OF(sp->x_group, group);
    it->offset = sp->file_bytes;
    it->bytes = buf_len(&b);
    it->crc = checkpoint_crc(buf_head(&b), buf_len(&b));
    file_append(sp, &b);
    buf_free(&b);
}

static void takes(struct sim *s, struct event *e)
{
    struct shard_process *sp = e->who;
    uint32_t partition = sp->index + sp->taken * sp->server->n_shards;

    if (partition >= s->setup.partitions) {
        file_sync(s, sp);
        return;
    }
    take(s, sp, (uint16_t) partition);
    sp->taken++;
    sim_after(s, sim_between(s, 1, s->setup.checkpoint_pause_usec), &sp->server->process, takes, sp,
              0, NULL);
}

static void generation_begin(struct sim *s, struct server *sv)
{
    struct generation *g = &sv->generation;

    *g = (struct generation){ .running = true, .number = ++sv->highest_generation };
    g->manifest = (struct manifest){ .generation = g->number, .partitions = s->setup.partitions };
    g->manifest.items = mem_zalloc(g->manifest.partitions, sizeof(*g->manifest.items));
    compactor_count(sv);
    sim_detail(s, "server %u: generation %llu begins", sv->index + 1, (llu) g->number);
    for (uint32_t i = 0; i < sv->n_shards; i++) {
        struct shard_process *sp = &sv->shards[i];
        sp->x_group = 0;
        sp->taken = 0;
        sp->file_bytes = 0;
        sim_after(s, sim_between(s, 0, USEC_PER_MSEC), &sv->process, takes, sp, 0, NULL);
    }
}

/* ---- when ---- */

void checkpoints_begin(struct sim *s, struct server *sv)
{
    if (!sv->generation.running && !sv->stopping &&
        (!sv->compactor.running || s->o->plant == PLANT_COMPACTION_DURING_GENERATION)) {
        generation_begin(s, sv);
    }
}

static void begins(struct sim *s, struct event *e)
{
    struct server *sv = e->who;

    checkpoints_begin(s, sv);
    sim_after(s, sim_between(s, 1, 2 * s->setup.checkpoint_usec), &sv->process, begins, sv, 0,
              NULL);
}

void checkpoints_run(struct sim *s, struct server *sv)
{
    if (s->setup.checkpoint_usec > 0) {
        sim_after(s, sim_between(s, 1, 2 * s->setup.checkpoint_usec), &sv->process, begins, sv, 0,
                  NULL);
    }
}

void checkpoints_stop(struct sim *s, struct server *sv)
{
    if (!sv->process.alive || sv->stopping) {
        return;
    }
    if (sv->state != LIFE_RUNNING) {
        faults_stopped(s, sv);
        return;
    }
    sv->stopping = true;
    if (!sv->generation.running) {
        generation_begin(s, sv);
    }
}

void checkpoints_gone(struct server *sv)
{
    manifest_free(&sv->generation.manifest);
    manifest_free(&sv->manifest);
    sv->generation = (struct generation){ 0 };
    sv->leaving = sv->stopping = false;
}

void checkpoints_free(struct server *sv)
{
    checkpoints_gone(sv);
    disk_free(&sv->folder);
    free(sv->damaged);
}

/* ---- damage: what two generations are there for ---- */

static uint32_t file_draw(struct sim *s, const struct server *sv, uint64_t generation)
{
    uint32_t found[FILES_MAX];
    uint32_t n = 0;

    for (size_t i = 0; i < sv->folder.n; i++) {
        const struct file *f = sv->folder.files[i];
        if (f->exists && f->number / FILES_MAX == generation && n < FILES_MAX) {
            found[n++] = f->number;
        }
    }
    return n > 0 ? found[sim_between(s, 0, n - 1)] : 0;
}

/* One of the two generations loses a bit or a file. */
static void damage(struct sim *s, struct server *sv)
{
    unsigned which = sim_chance(s, 3, 4);
    uint64_t generation = sv->published[which];
    uint32_t file = file_draw(s, sv, generation);

    if (file != 0 && sim_chance(s, 1, 2)) {
        disk_flip(&sv->folder, file, &s->rng);
    } else if (file != 0) {
        disk_lose(&sv->folder, file);
    }
    sim_trace(s, "server %u: generation %llu is damaged, file %u", sv->index + 1, (llu) generation,
              file % FILES_MAX);
    s->counts.damaged++;
    mem_grow(&sv->damaged, &sv->cap_damaged, sv->n_damaged + 1, sizeof(*sv->damaged));
    sv->damaged[sv->n_damaged++] = generation;
    sv->published[1] = sv->published[1 - which];
    sv->published[0] = 0;
}

static bool is_damaged(const struct server *sv, uint64_t generation)
{
    for (size_t i = 0; i < sv->n_damaged; i++) {
        if (sv->damaged[i] == generation) {
            return true;
        }
    }
    return false;
}

/* ---- a start ---- */

static const uint8_t *item_bytes(const struct server *sv, const struct manifest *m,
                                 const struct manifest_item *it)
{
    size_t bytes;
    const uint8_t *p = disk_file(&sv->folder, file_number(m->generation, it->file), &bytes);

    if (!p || it->file >= FILE_MANIFEST_NEW || it->bytes < 4 || it->offset > bytes ||
        it->bytes > bytes - it->offset || checkpoint_crc(p + it->offset, it->bytes) != it->crc ||
        crc32c(0, p + it->offset, it->bytes - 4) != it->crc) {
        return NULL;
    }
    return p + it->offset;
}

/* Is it good in every byte? */
static int generation_check(const struct server *sv, uint64_t generation, struct manifest *m)
{
    size_t bytes;
    const uint8_t *p = disk_file(&sv->folder, file_number(generation, FILE_MANIFEST), &bytes);
    int r = p ? manifest_decode(p, bytes, m) : -ENOENT;

    if (r == 0 && m->generation != generation) {
        r = -EBADMSG;
    }
    for (uint32_t i = 0; r == 0 && i < m->partitions; i++) {
        r = item_bytes(sv, m, &m->items[i]) ? 0 : -EBADMSG;
    }
    if (r < 0) {
        manifest_free(m);
    }
    return r;
}

/* The newest generation below `below` that has a manifest, 0: none. */
static uint64_t manifest_below(const struct server *sv, uint64_t below)
{
    uint64_t newest = 0;

    for (size_t i = 0; i < sv->folder.n; i++) {
        const struct file *f = sv->folder.files[i];
        uint64_t generation = f->number / FILES_MAX;
        if (f->exists && f->number % FILES_MAX == FILE_MANIFEST && generation < below) {
            newest = MAX_OF(newest, generation);
        }
    }
    return newest;
}

static void highest_find(struct server *sv)
{
    sv->highest_generation = 0;
    for (size_t i = 0; i < sv->folder.n; i++) {
        if (sv->folder.files[i]->exists) {
            sv->highest_generation =
                MAX_OF(sv->highest_generation, (uint64_t) sv->folder.files[i]->number / FILES_MAX);
        }
    }
}

void checkpoints_open(struct sim *s, struct server *sv)
{
    uint64_t at = UINT64_MAX;
    bool passed = false;

    if (s->setup.damage && sv->published[0] != 0 && sim_chance(s, 1, 3)) {
        damage(s, sv);
    }
    highest_find(sv);
    sv->good_generation = 0;
    while (!s->failed && sv->good_generation == 0 && (at = manifest_below(sv, at)) > 0) {
        if (generation_check(sv, at, &sv->manifest) == 0) {
            sv->good_generation = at;
        } else if (!is_damaged(sv, at)) {
            sim_fail(s,
                     "server %u: generation %llu of its checkpoints is bad, and nobody damaged it",
                     sv->index + 1, (llu) at);
        }
        passed = passed || sv->good_generation == 0;
    }
    if (sv->good_generation < sv->published[1]) {
        sim_fail(s, "server %u: generation %llu was published and is gone, found is %llu",
                 sv->index + 1, (llu) sv->published[1], (llu) sv->good_generation);
    }
    if (sv->good_generation == 0 && sv->super.compacted) {
        sim_fail(s, "server %u: no good generation, and the log alone is not everything",
                 sv->index + 1);
    }
    if (sv->good_generation > 0) {
        sim_trace(s, "server %u starts from generation %llu", sv->index + 1,
                  (llu) sv->good_generation);
        s->counts.checkpointed++;
        s->counts.older += passed;
    }
}

void checkpoints_floor(const struct sim *s, const struct server *sv, struct wal_floor *ret)
{
    const struct manifest *m = &sv->manifest;
    struct position highest = { 0 };

    manifest_floor(m, ret);
    for (uint32_t i = 0; i < m->partitions; i++) {
        if (position_compare(ret->x[i], highest) > 0) {
            highest = ret->x[i];
        }
    }
    for (uint32_t i = 0; s->o->plant == PLANT_TRUST_TOO_MUCH && i < m->partitions; i++) {
        ret->x[i] = highest;
    }
}

void checkpoints_load(struct sim *s, struct shard_process *sp)
{
    struct server *sv = sp->server;
    struct buf b = { 0 };

    for (uint32_t p = sp->index; sv->manifest.items && p < sv->manifest.partitions;
         p += sv->n_shards) {
        const struct manifest_item *it = &sv->manifest.items[p];
        const uint8_t *bytes = item_bytes(sv, &sv->manifest, it);
        struct replica_info info = { 0 };
        int r;
        buf_clear(&b);
        plant_checkpoint_loading(s, sv, &bytes, it->bytes, &b);
        r = checkpoint_load(sp->shard, bytes, it->bytes);
        if (r < 0) {
            sim_fail(s, "server %u: a good checkpoint of partition %u can't be loaded (%s)",
                     sv->index + 1, p, strerror(-r));
            break;
        }
        (void) shard_replica_info(sp->shard, (uint16_t) p, &info);
        s->counts.tails += info.last.seq - info.commit.seq;
    }
    buf_free(&b);
}

int checkpoints_try(const struct server *sv, uint64_t generation, struct shard *shard,
                    struct wal_floor *ret_floor)
{
    struct manifest m = { 0 };
    int r = generation_check(sv, generation, &m);

    for (uint32_t p = 0; r == 0 && p < m.partitions; p++) {
        r = checkpoint_load(shard, item_bytes(sv, &m, &m.items[p]), m.items[p].bytes);
    }
    if (r == 0) {
        manifest_floor(&m, ret_floor);
    }
    manifest_free(&m);
    return r;
}
