/* Bugs that can be switched on, to see that the simulator finds them. */
#include "sim/sim.h"

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/mem.h"
#include "core/index_map.h"

#include <errno.h>
#include <stdlib.h>

const char *const plant_names[_PLANT_MAX] = {
    [PLANT_ANSWER_BEFORE_OWN_SYNC] = "answer-before-own-sync",
    [PLANT_ACK_BEFORE_SYNC] = "ack-before-sync",
    [PLANT_ACK_BEFORE_RECEIPT] = "ack-before-receipt",
    [PLANT_FORGET_VIEW] = "forget-view",
    [PLANT_NO_SYNC_AT_START] = "no-sync-at-start",
    [PLANT_KEEP_TORN_TAIL] = "keep-torn-tail",
    [PLANT_NO_FOLDER_SYNC] = "no-folder-sync",
    [PLANT_RETRY_AS_NEW] = "retry-as-new",
    [PLANT_COMMIT_BEFORE_ACKS] = "commit-before-acks",
    [PLANT_READ_FROM_SECONDARY] = "read-from-secondary",
    [PLANT_INDEX_FORGETS] = "index-forgets",
    [PLANT_NEVER_ACCUSE] = "never-accuse",
    [PLANT_CHECKPOINT_WITHOUT_TAIL] = "checkpoint-without-tail",
    [PLANT_PUBLISH_BEFORE_LOG] = "publish-before-log",
    [PLANT_PUBLISH_BEFORE_FILES] = "publish-before-files",
    [PLANT_WRONG_X] = "replay-from-wrong-x",
    [PLANT_KEEP_ONE_GENERATION] = "keep-only-one-generation",
    [PLANT_KEEP_BY_NUMBER] = "keep-generations-by-number",
    [PLANT_NO_FOLDER_SYNC_AFTER_RENAME] = "no-folder-sync-after-rename",
    [PLANT_TRUST_TOO_MUCH] = "trust-too-much",
    [PLANT_COMPACTION_DROPS_PENDING] = "compaction-drops-pending",
    [PLANT_VICTIM_ABOVE_X] = "victim-above-x",
    [PLANT_UNLINK_BEFORE_COPIES] = "unlink-before-copies-durable",
    [PLANT_GONE_FORGOTTEN] = "tombstone-dropped-and-forgotten",
    [PLANT_REPLAY_BY_SEQ] = "replay-by-seq",
    [PLANT_COMPACTION_DURING_GENERATION] = "compaction-during-generation",
    [PLANT_ANSWER_CUT] = "answer-a-cut-entry",
    [PLANT_CUT_HELD] = "cut-by-a-repeated-name",
    [PLANT_ACK_AFTER_SEAL] = "ack-after-sealing",
    [PLANT_ACK_SEALED] = "ack-covers-sealed",
    [PLANT_SERVE_EARLY] = "serve-before-noop",
    [PLANT_JOINT_COMMITS] = "joint-not-in-commits",
    [PLANT_JOINT_READS] = "joint-not-in-reads",
    [PLANT_PROMOTE_ANY_VIEW] = "promotion-names-no-view",
    [PLANT_ADMIT_INCOMPLETE] = "admit-incomplete-copy",
    [PLANT_BELOW_HORIZON] = "tombstone-dropped-below-horizon",
    [PLANT_TRIM_EARLY] = "trim-sessions-early",
    [PLANT_READ_WITHOUT_LEASE] = "read-without-lease",
    [PLANT_LEASE_FROM_GRANT] = "lease-counts-from-grant",
    [PLANT_PROMISE_NOT_KEPT] = "promise-not-kept",
    [PLANT_PROMISE_FORGOTTEN] = "promise-forgotten-at-restart",
    [PLANT_CONFIRM_BEFORE] = "confirm-from-before",
};

const char *const plant_stories[_PLANT_MAX] = {
    [PLANT_ANSWER_BEFORE_OWN_SYNC] = "the primary counts its own log before it is durable (R2)",
    [PLANT_ACK_BEFORE_SYNC] = "a secondary acks what it has not synced (R2)",
    [PLANT_ACK_BEFORE_RECEIPT] = "the primary counts a secondary as soon as it has sent (R2)",
    [PLANT_FORGET_VIEW] = "views are not read back at a start (R4)",
    [PLANT_NO_SYNC_AT_START] = "what a killed process left in the page cache counts as durable",
    [PLANT_KEEP_TORN_TAIL] = "a start does not cut the torn tail",
    [PLANT_NO_FOLDER_SYNC] = "the folder is not synced when a segment is created",
    [PLANT_RETRY_AS_NEW] = "a retry has a number of its own (R12)",
    [PLANT_COMMIT_BEFORE_ACKS] = "secondaries are told of commits when entries are prepared (R2)",
    [PLANT_READ_FROM_SECONDARY] = "a read is answered from what a secondary has committed (R10)",
    [PLANT_INDEX_FORGETS] = "the index loses a record now and then",
    [PLANT_NEVER_ACCUSE] = "a restarted server asks for no view (R6)",
    [PLANT_CHECKPOINT_WITHOUT_TAIL] = "checkpoints hold what is committed, and no tail",
    [PLANT_PUBLISH_BEFORE_LOG] = "a manifest is published before the log is durable through its X",
    [PLANT_PUBLISH_BEFORE_FILES] = "a manifest is published before the files that it names",
    [PLANT_WRONG_X] = "a replay passes over one group behind the checkpoint's X",
    [PLANT_KEEP_ONE_GENERATION] = "the generation before the newest is removed",
    [PLANT_KEEP_BY_NUMBER] = "the generation that is kept beside the newest may be a damaged one",
    [PLANT_NO_FOLDER_SYNC_AFTER_RENAME] = "older generations go before the manifest's rename is "
                                          "durable",
    [PLANT_TRUST_TOO_MUCH] = "segments below the highest X are passed over, instead of the lowest",
    [PLANT_COMPACTION_DROPS_PENDING] = "a segment goes although it holds pending entries",
    [PLANT_VICTIM_ABOVE_X] = "victims lie below X of the newest generation, not of both",
    [PLANT_UNLINK_BEFORE_COPIES] = "a segment goes when its copies are written, not durable",
    [PLANT_GONE_FORGOTTEN] = "that a tombstone was dropped is not read back at a start",
    [PLANT_REPLAY_BY_SEQ] = "a replay ignores a copy, for the index has its seq already",
    [PLANT_COMPACTION_DURING_GENERATION] = "a segment goes while a generation is being made",
    [PLANT_ANSWER_CUT] =
        "who waits for an entry that is cut is answered as if it had committed (R3)",
    [PLANT_CUT_HELD] = "a name that is held already cuts the tail (R1)",
    [PLANT_ACK_AFTER_SEAL] = "a sealed member reports, and goes on to take and ack prepares (R7)",
    [PLANT_ACK_SEALED] = "acks cover prepares that a sealed partition refused (R2)",
    [PLANT_SERVE_EARLY] = "a new primary serves before its view's no-op has committed (R5)",
    [PLANT_JOINT_COMMITS] = "the primary commits without a joint learner (R8)",
    [PLANT_JOINT_READS] = "the primary reads without leases from a joint learner (R8)",
    [PLANT_PROMOTE_ANY_VIEW] =
        "a promotion that comes late is taken for one of the view that is (R8)",
    [PLANT_ADMIT_INCOMPLETE] = "a learner counts as complete when its catch-up begins (R17)",
    [PLANT_BELOW_HORIZON] = "a tombstone goes, and the horizon stays where it is (R17)",
    [PLANT_TRIM_EARLY] = "some answers leave the table of sessions before they are unwanted (R12)",
    [PLANT_READ_WITHOUT_LEASE] = "the primary reads without leases (R10)",
    [PLANT_LEASE_FROM_GRANT] = "a lease counts from when the grant arrives (R10)",
    [PLANT_PROMISE_NOT_KEPT] = "a new primary does not wait for promises to end (R10)",
    [PLANT_PROMISE_FORGOTTEN] = "a start does not wait for promises of the process before (R10)",
    [PLANT_CONFIRM_BEFORE] =
        "in read-mode confirm a round that began before the operation counts (R10)",
};

/* ---- acks ---- */

static void forged_ack(struct sim *s, struct event *e)
{
    struct message *m = e->data;

    shard_run(s, e->who, &m->event);
}

/* The primary counts a secondary as soon as it sends. */
static void ack_forge(struct sim *s, struct shard_process *sp, const struct msg_prepare *p,
                      uint32_t to)
{
    struct message *m = shard_message(SHARD_ACK, 0);
    struct entry e = { 0 };

    (void) entry_decode_trusted(p->entry, p->entry_bytes, &e);
    m->event.from = to;
    m->event.note = (struct msg_at){ e.partition, p->view, e.name.seq };
    sim_after(s, 1, &sp->server->process, forged_ack, sp, 0, m);
}

static bool is_learner(const struct replica_info *info, uint32_t server)
{
    for (unsigned i = 0; i < info->n_learners; i++) {
        if (info->learners[i] == server) {
            return true;
        }
    }
    return false;
}

static bool is_joint(const struct shard_process *sp, uint16_t partition, uint32_t server)
{
    struct replica_info info;

    return shard_replica_info(sp->shard, partition, &info) == 0 && info.joint &&
           is_learner(&info, server);
}

void plant_sending(struct sim *s, struct shard_process *sp, struct message *m, uint32_t to)
{
    struct entry e = { 0 };

    if (s->o->plant == PLANT_ACK_BEFORE_RECEIPT ||
        (s->o->plant == PLANT_JOINT_COMMITS && is_joint(sp, m->event.prepare.partition, to))) {
        ack_forge(s, sp, &m->event.prepare, to);
    } else if (s->o->plant == PLANT_COMMIT_BEFORE_ACKS) {
        (void) entry_decode_trusted(m->bytes, m->n, &e);
        m->event.prepare.commit_seq = e.name.seq - (e.name.seq > 0);
    }
}

/* The secondary acks what it has taken and not yet synced. */
void plant_taken(struct sim *s, struct shard_process *sp, const struct shard_event *prepare)
{
    const struct msg_prepare *p = &prepare->prepare;
    struct replica_info info;
    struct message *m;
    struct entry e;

    if (s->o->plant != PLANT_ACK_BEFORE_SYNC ||
        shard_replica_info(sp->shard, p->partition, &info) < 0 ||
        entry_decode_trusted(p->entry, p->entry_bytes, &e) < 0 || info.state != REPLICA_SECONDARY ||
        info.view != p->view || info.last.seq < e.name.seq) {
        return;
    }
    m = shard_message(SHARD_ACK, 0);
    m->event.note = (struct msg_at){ e.partition, info.view, e.name.seq };
    shard_send(s, sp, prepare->from, e.partition, m);
}

/* A sealed partition acks what it refuses. */
static void ack_sealed(struct sim *s, struct shard_process *sp, const struct shard_event *prepare)
{
    const struct msg_prepare *p = &prepare->prepare;
    struct replica_info info;
    struct message *m;
    struct entry e;

    if (shard_replica_info(sp->shard, p->partition, &info) < 0 || info.state != REPLICA_WAITING ||
        info.view != p->view || entry_decode_trusted(p->entry, p->entry_bytes, &e) < 0) {
        return;
    }
    m = shard_message(SHARD_ACK, 0);
    m->event.note = (struct msg_at){ e.partition, p->view, e.name.seq };
    shard_send(s, sp, prepare->from, e.partition, m);
}

/* ---- sealing ---- */

/* Reports what is durable, and goes on in the view. */
bool plant_sealing(struct sim *s, struct server *sv, const struct msg_at *seal)
{
    struct shard_process *sp = &sv->shards[seal->partition % sv->n_shards];
    struct replica_info info;
    struct message *m;

    if (s->o->plant != PLANT_ACK_AFTER_SEAL ||
        shard_replica_info(sp->shard, seal->partition, &info) < 0 || info.view != seal->view ||
        info.state != REPLICA_SECONDARY) {
        return false;
    }
    m = message_new(MESSAGE_SEALED, 0);
    m->sealed = (struct msg_sealed){ .partition = seal->partition,
                                     .view = seal->view,
                                     .last = info.durable,
                                     .time_usec = info.time_usec,
                                     .commit = info.commit,
                                     .trusted = true };
    check_sealed(s, sv, seal->partition, seal->view);
    net_send(s, net_manager_link(s, (struct endpoint){ END_SERVER, (uint8_t) sv->index, 0 }), 0, m);
    return true;
}

/* ---- learners ---- */

struct late_promotion {
    uint64_t conn;
    struct msg_reconfig reconfig;
};

static void promoted_late(struct sim *s, struct event *e)
{
    const struct late_promotion *p = e->data;
    struct manager_event m = { .kind = MANAGER_RECONFIG, .conn = p->conn, .request = 1 };

    m.reconfig = p->reconfig;
    m.reconfig.view = manager_cluster(s->manager.manager)->space.rows[p->reconfig.partition].view;
    managers_step(s, &m);
}

/* What was asked for comes once more, much later, and is taken for a wish of the view that is. */
void plant_promotion(struct sim *s, uint64_t conn, const struct msg_reconfig *r)
{
    struct late_promotion *p;

    if (s->o->plant != PLANT_PROMOTE_ANY_VIEW || r->kind != RECONFIG_PROMOTE) {
        return;
    }
    p = mem_zalloc(1, sizeof(*p));
    *p = (struct late_promotion){ conn, *r };
    sim_after(s, sim_between(s, 0, 4 * USEC_PER_SEC), &s->manager.process, promoted_late, NULL, 0,
              p);
}

/* ---- reads ---- */

static const struct server *secondary_draw(struct sim *s, const struct server *not_this,
                                           uint16_t partition)
{
    const struct server *sv = &s->servers[sim_between(s, 0, s->setup.servers - 1)];

    return sv != not_this && sv->process.alive && sv->shards[0].shard &&
                   check_is_member(s, sv, partition)
               ? sv
               : NULL;
}

static bool read_elsewhere(struct sim *s, struct link *l, struct shard_process *sp,
                           const struct message *m)
{
    const struct op *op = &m->event.op.op;
    uint16_t partition =
        hashspace_partition_of_hash(hashspace_hash(op->key, op->key_len), s->setup.partitions);
    const struct server *sv = secondary_draw(s, sp->server, partition);
    struct index_record rec;
    struct message *answer;
    struct replica_info info;
    struct entry e;

    if (!sv || op->code != OP_GET || shard_replica_info(sp->shard, partition, &info) < 0 ||
        info.state != REPLICA_PRIMARY ||
        shard_record(sv->shards[partition % sv->n_shards].shard, op->key, op->key_len, &rec) < 0 ||
        rec.kind != ENTRY_SET ||
        entry_decode(disk_read(&sv->disk, rec.at, rec.bytes), rec.bytes, &e) < 0) {
        return false;
    }
    answer = message_new(MESSAGE_RESULT, e.value_len);
    answer->result = (struct result){
        .id = op->id, .code = RESULT_VALUE, .flags = e.flags, .cas = e.cas, .value_len = e.value_len
    };
    memcpy(answer->bytes, e.value, e.value_len);
    answer->result.value = answer->bytes;
    net_send(s, l, 1, answer);
    return true;
}

bool plant_receive(struct sim *s, struct link *l, struct shard_process *sp, struct message *m)
{
    if (s->o->plant == PLANT_READ_FROM_SECONDARY && m->event.kind == SHARD_OP) {
        return read_elsewhere(s, l, sp, m);
    }
    if (s->o->plant == PLANT_ACK_SEALED && m->event.kind == SHARD_PREPARE) {
        ack_sealed(s, sp, &m->event);
    }
    return false;
}

/* ---- checkpoints ---- */

static void checkpoint_seal(struct buf *b, size_t begin)
{
    uint8_t *p = buf_head(b) + begin;
    size_t bytes = buf_len(b) - begin;

    bytes_put_u32(p + 8, crc32c(0, p + 12, CHECKPOINT_HEAD_BYTES - 12));
    bytes_put_u32(p + bytes - 4, crc32c(0, p, bytes - 4));
}

/* Exchanges the tail, the last item of the state, for an empty one. */
void plant_checkpoint_taken(struct sim *s, struct buf *b, size_t begin)
{
    uint8_t *p = buf_head(b) + begin;
    uint32_t state_bytes = bytes_get_u32(p + 20);
    struct mp_reader r = mp_reader_of(p + CHECKPOINT_HEAD_BYTES, state_bytes);
    uint32_t items = mp_get_array(&r);
    uint8_t *tail;

    if (s->o->plant != PLANT_CHECKPOINT_WITHOUT_TAIL) {
        return;
    }
    mp_skip_n(&r, items - 1);
    kumo_assert(!r.failed && r.p < r.end);
    tail = p + (r.p - p);
    *tail = 0x90; /* an empty array */
    memmove(tail + 1, r.end, (size_t) (buf_head(b) + buf_len(b) - r.end));
    b->end -= (size_t) (r.end - r.p) - 1;
    bytes_put_u32(p + 20, state_bytes - (uint32_t) (r.end - r.p) + 1);
    checkpoint_seal(b, begin);
}

/* The end of the first group that ends behind x. */
static struct position group_behind(const struct server *sv, struct position x)
{
    struct segment_head segment;
    struct group_head h;
    size_t at = SEGMENT_HEAD_BYTES;
    size_t bytes;
    const uint8_t *p = disk_file(&sv->disk, x.segment, &bytes);

    if (!p || segment_head_decode(p, bytes, &segment) < 0) {
        return x;
    }
    while (at < bytes && group_head_decode(p + at, bytes - at, segment.crc, &h) == 0) {
        at += GROUP_HEAD_BYTES + h.bytes;
        if (at > x.offset) {
            return (struct position){ x.segment, (uint32_t) at };
        }
    }
    return x;
}

void plant_checkpoint_loading(struct sim *s, struct server *sv, const uint8_t **p, size_t bytes,
                              struct buf *b)
{
    struct position x = { bytes_get_u32(*p + 32), bytes_get_u32(*p + 36) };

    if (s->o->plant != PLANT_WRONG_X) {
        return;
    }
    buf_append(b, *p, bytes);
    x = group_behind(sv, x);
    bytes_put_u32(buf_head(b) + 32, x.segment);
    bytes_put_u32(buf_head(b) + 36, x.offset);
    checkpoint_seal(b, 0);
    *p = buf_head(b);
}

/* ---- compaction ---- */

void plant_floor(struct sim *s, const struct server *sv, struct wal_floor *floor)
{
    if (s->o->plant == PLANT_VICTIM_ABOVE_X) {
        wal_floor_free(floor);
        wal_floor_copy(&sv->compactor.floor, floor);
    }
}

/* Does no index point into the segment? Then it looks dead. */
static bool looks_dead(const struct sim *s, const struct server *sv, uint32_t segment)
{
    struct index_record rec;

    for (size_t i = 0; i < s->n_keys; i++) {
        const struct key *k = s->keys[i];
        if (shard_record(sv->shards[k->partition % sv->n_shards].shard, (const uint8_t *) k->name,
                         k->name_len, &rec) == 0 &&
            rec.at.segment == segment) {
            return false;
        }
    }
    return true;
}

int plant_victim_status(const struct sim *s, const struct server *sv, uint32_t victim, int status)
{
    return s->o->plant == PLANT_COMPACTION_DROPS_PENDING && status == -EBUSY &&
                   looks_dead(s, sv, victim)
               ? 0
               : status;
}

bool plant_replaying(const struct sim *s, const struct frame *f)
{
    switch (f->kind) {
    case FRAME_VIEW:
        return s->o->plant == PLANT_FORGET_VIEW;
    case FRAME_COPY:
        return s->o->plant == PLANT_REPLAY_BY_SEQ;
    case FRAME_GONE:
        return s->o->plant == PLANT_GONE_FORGOTTEN;
    default:
        return false;
    }
}

/* ---- an index that forgets ---- */

struct plant_index {
    struct index base;
    struct index *real;
    struct sim *s;
};

static int forgetful_get(struct index *x, const uint8_t *key, size_t key_len,
                         struct index_record *ret)
{
    struct index *real = ((struct plant_index *) x)->real;

    return real->ops->get(real, key, key_len, ret);
}

static int forgetful_put(struct index *x, const uint8_t *key, size_t key_len,
                         const struct index_record *rec, struct index_record *ret_old)
{
    struct plant_index *p = (struct plant_index *) x;

    return sim_chance(p->s, 1, 1000) ? 0 : p->real->ops->put(p->real, key, key_len, rec, ret_old);
}

static int forgetful_drop(struct index *x, const uint8_t *key, size_t key_len,
                          struct index_record *ret_old)
{
    struct index *real = ((struct plant_index *) x)->real;

    return real->ops->drop(real, key, key_len, ret_old);
}

static void forgetful_reserve(struct index *x, uint64_t records)
{
    struct index *real = ((struct plant_index *) x)->real;

    real->ops->reserve(real, records);
}

static void forgetful_walk(struct index *x, index_walk_fn fn, void *ctx)
{
    struct index *real = ((struct plant_index *) x)->real;

    real->ops->walk(real, fn, ctx);
}

static uint64_t forgetful_count(const struct index *x)
{
    const struct index *real = ((const struct plant_index *) x)->real;

    return real->ops->count(real);
}

static void forgetful_free(struct index *x)
{
    struct index *real = ((struct plant_index *) x)->real;

    real->ops->free(real);
    free(x);
}

static const struct index_ops forgetful_ops = {
    .get = forgetful_get,
    .put = forgetful_put,
    .drop = forgetful_drop,
    .reserve = forgetful_reserve,
    .walk = forgetful_walk,
    .count = forgetful_count,
    .free = forgetful_free,
};

int plant_index_open(void *ctx, uint16_t partition, struct index **ret)
{
    struct sim *s = ctx;
    struct plant_index *p;

    if (s->o->plant != PLANT_INDEX_FORGETS) {
        return index_map_open(NULL, partition, ret);
    }
    p = mem_zalloc(1, sizeof(*p));
    p->base.ops = &forgetful_ops;
    p->s = s;
    *ret = &p->base;
    return index_map_open(NULL, partition, &p->real);
}
