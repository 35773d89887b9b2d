/* The invariants that hold after every event. What was ever logged, committed or promised is kept
 * here, outside of the servers, so that nothing that they forget is forgotten. */
#include "sim/check.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "core/hashspace.h"

#include <stdlib.h>

void check_init(struct sim *s)
{
    s->check = mem_zalloc(1, sizeof(*s->check));
}

static void nodes_free(struct map *m)
{
    for (size_t i = 0; i < m->n_buckets; i++) {
        struct map_node *next;
        for (struct map_node *n = m->buckets[i]; n; n = next) {
            next = n->next;
            free(n); /* the node is the first member of both */
        }
    }
    map_free(m);
}

void check_free(struct sim *s)
{
    struct check *c = s->check;

    if (!c) {
        return;
    }
    nodes_free(&c->entries);
    nodes_free(&c->effects);
    for (unsigned p = 0; p < SIM_PARTITIONS_MAX; p++) {
        free(c->p[p].views);
        free(c->p[p].primary);
    }
    free(c);
}

/* ---- what is written ---- */

static uint64_t name_hash(uint16_t partition, struct name n)
{
    return map_hash_u64(map_hash_u64(n.seq) ^ ((uint64_t) n.view << 16 | partition));
}

static struct seen *seen_find(const struct check *c, uint16_t partition, struct name n)
{
    struct map_node *i = map_first(&c->entries, name_hash(partition, n));

    for (; i; i = map_next(i)) {
        struct seen *e = MAP_ENTRY(i, struct seen, node);
        if (e->partition == partition && name_equal(e->name, n)) {
            return e;
        }
    }
    return NULL;
}

static void entry_written(struct sim *s, const struct frame *f)
{
    struct check *c = s->check;
    uint32_t crc = bytes_get_u32(f->payload);
    struct seen *seen;
    struct entry e;

    if (entry_decode(f->payload, f->payload_bytes, &e) < 0 || e.partition != f->partition) {
        sim_fail(s, "a server logs a malformed entry of partition %u", f->partition);
        return;
    }
    seen = seen_find(c, e.partition, e.name);
    if (!seen) {
        seen = mem_zalloc(1, sizeof(*seen));
        seen->partition = e.partition;
        seen->name = e.name;
        seen->prev_view = e.prev_view;
        seen->crc = crc;
        seen->bytes = f->payload_bytes;
        seen->op = e.op;
        map_insert(&c->entries, &seen->node, name_hash(e.partition, e.name));
        s->counts.entries++;
    } else if (seen->crc != crc || seen->bytes != f->payload_bytes) {
        sim_fail(s, "I5: two entries (%u, %llu) of partition %u", e.name.view, (llu) e.name.seq,
                 e.partition);
    }
}

/* A copy has the bytes of the entry that it is a copy of. */
static void copy_written(struct sim *s, const struct frame *f)
{
    const struct seen *seen;
    struct entry e;

    if (entry_decode(f->payload, f->payload_bytes, &e) < 0 || e.partition != f->partition) {
        sim_fail(s, "a server logs a malformed copy of partition %u", f->partition);
        return;
    }
    seen = seen_find(s->check, e.partition, e.name);
    if (!seen || seen->crc != bytes_get_u32(f->payload) || seen->bytes != f->payload_bytes) {
        sim_fail(s, "I5: a copy of (%u, %llu) of partition %u has other bytes", e.name.view,
                 (llu) e.name.seq, e.partition);
    }
}

static void frame_written(struct sim *s, struct shard_process *sp, const struct frame *f)
{
    if (f->kind == FRAME_COPY) {
        sp->compact_copied = true;
        copy_written(s, f);
    }
    if (f->partition % sp->server->n_shards != sp->index) {
        sim_fail(s, "a shard logs a frame of partition %u, which is another's", f->partition);
    } else if (f->kind == FRAME_PREPARE) {
        entry_written(s, f);
    } else if (f->kind == FRAME_VIEW) {
        if (f->view <= sp->written_view[f->partition]) {
            sim_fail(s, "I7: server %u logs view %u of partition %u after view %u",
                     sp->server->index + 1, f->view, f->partition, sp->written_view[f->partition]);
        }
        sp->written_view[f->partition] = f->view;
    }
}

void check_write(struct sim *s, struct shard_process *sp, const uint8_t *p, size_t bytes)
{
    struct group_head h;
    struct frame f;
    size_t at = 0;

    while (at < bytes && !s->failed) {
        if (group_head_decode(p + at, bytes - at, sp->segment_crc, &h) < 0) {
            sim_fail(s, "a shard writes what is no group");
            return;
        }
        at += GROUP_HEAD_BYTES;
        for (uint32_t i = 0; i < h.frames && !s->failed; i++) {
            int64_t n = frame_decode(p + at, bytes - at, &f);
            if (n < 0) {
                sim_fail(s, "a shard writes a malformed frame");
                return;
            }
            frame_written(s, sp, &f);
            at += (size_t) n;
        }
    }
}

/* ---- views ---- */

void check_synced(struct sim *s, struct shard_process *sp)
{
    for (unsigned p = 0; p < s->setup.partitions; p++) {
        uint32_t *durable = &s->check->r[sp->server->index][p].durable_view;
        *durable = MAX_OF(*durable, sp->syncing_view[p]);
    }
}

void check_written(struct sim *s, struct shard_process *sp)
{
    for (unsigned p = 0; p < s->setup.partitions; p++) {
        uint32_t *durable = &s->check->r[sp->server->index][p].durable_view;
        *durable = MAX_OF(*durable, sp->written_view[p]);
    }
}

bool check_view_pending(const struct sim *s, const struct shard_process *sp)
{
    for (unsigned p = 0; p < s->setup.partitions; p++) {
        if (sp->written_view[p] > s->check->r[sp->server->index][p].durable_view) {
            return true;
        }
    }
    return false;
}

void check_sent_view(struct sim *s, const struct shard_process *sp, uint16_t partition,
                     uint32_t view)
{
    const struct replica_check *r = &s->check->r[sp->server->index][partition];

    if (view > r->durable_view) {
        sim_fail(s, "R4: server %u speaks in view %u of partition %u, durable is view %u",
                 sp->server->index + 1, view, partition, r->durable_view);
    } else if (view < r->durable_view && view < r->info.view) {
        sim_fail(s, "I7: server %u speaks in view %u of partition %u, it is in view %u",
                 sp->server->index + 1, view, partition, r->info.view);
    }
}

/* ---- commits ---- */

static uint64_t op_hash(uint16_t partition, const struct op_id *op)
{
    return map_hash_u64(map_hash_u64(op->session) ^ map_hash_u64(op->number * 64 + partition));
}

/* I8: an operation is in the history at most once. */
static void effect_check(struct sim *s, const struct seen *e)
{
    struct map *m = &s->check->effects;
    uint64_t hash = op_hash(e->partition, &e->op);
    struct effect *effect;

    if (e->op.number == 0) {
        return; /* no operation, or one that can't be told from others */
    }
    for (struct map_node *i = map_first(m, hash); i; i = map_next(i)) {
        effect = MAP_ENTRY(i, struct effect, node);
        if (effect->partition == e->partition && effect->op.session == e->op.session &&
            effect->op.number == e->op.number) {
            sim_fail(s,
                     "I8: operation %llu of session %llu is committed twice in partition %u: "
                     "as seq %llu and %llu",
                     (llu) e->op.number, (llu) e->op.session, e->partition, (llu) effect->name.seq,
                     (llu) e->name.seq);
        }
    }
    effect = mem_zalloc(1, sizeof(*effect));
    effect->partition = e->partition;
    effect->op = e->op;
    effect->name = e->name;
    map_insert(m, &effect->node, hash);
}

/* I12: goes back from a new highest commit along the chain of names; it must meet the old one. */
static void commit_extend(struct sim *s, uint16_t partition, struct name to)
{
    struct partition_check *pc = &s->check->p[partition];
    struct name n = to;

    mem_grow(&pc->views, &pc->cap_views, to.seq, sizeof(*pc->views));
    for (; n.seq > pc->top.seq; n.seq--) {
        const struct seen *e = seen_find(s->check, partition, n);
        if (!e) {
            sim_fail(s, "(%u, %llu) of partition %u is committed and was never logged", n.view,
                     (llu) n.seq, partition);
            return;
        }
        pc->views[n.seq - 1] = n.view;
        effect_check(s, e);
        n.view = e->prev_view;
    }
    if (!name_equal(n, pc->top)) {
        sim_fail(s, "I12: seq %llu of partition %u was committed as of view %u, now as of view %u",
                 (llu) n.seq, partition, pc->top.view, n.view);
    }
    pc->top = to;
}

static void tail_find(void *ctx, const struct entry *e, bool durable)
{
    struct name *wanted = ctx;

    (void) durable;
    if (name_equal(e->name, *wanted)) {
        wanted->seq = 0; /* found */
    }
}

bool check_holds(const struct sim *s, const struct server *sv, uint16_t partition, struct name name)
{
    const struct shard *shard = sv->shards[partition % sv->n_shards].shard;
    struct replica_info info;

    (void) s;
    if (name.seq == 0) {
        return true;
    }
    if (shard_replica_info(shard, partition, &info) < 0 || !info.complete) {
        return false;
    }
    if (info.commit.seq < name.seq) {
        shard_tail_walk(shard, partition, tail_find, &name);
    }
    return name.seq == 0 || info.commit.seq >= name.seq;
}

/* I4: everything committed is in the log of this member. */
static void member_check(struct sim *s, const struct server *sv, uint16_t partition)
{
    const struct partition_check *pc = &s->check->p[partition];
    struct replica_info info = { 0 };

    if (s->check->r[sv->index][partition].distrusts || s->check->r[sv->index][partition].lost ||
        pc->lossy || check_holds(s, sv, partition, pc->top)) {
        return;
    }
    (void) shard_replica_info(sv->shards[partition % sv->n_shards].shard, partition, &info);
    sim_fail(s,
             "I4: server %u lacks the committed entry (%u, %llu) of partition %u, of whose view %u "
             "it is a member: commit %llu, last (%u, %llu)%s",
             sv->index + 1, pc->top.view, (llu) pc->top.seq, partition, pc->row.view,
             (llu) info.commit.seq, info.last.view, (llu) info.last.seq,
             info.complete ? "" : ", incomplete");
}

static void members_check(struct sim *s, uint16_t partition)
{
    const struct view_row *row = &s->check->p[partition].row;

    for (unsigned i = 0; i < row->n_members && !s->failed; i++) {
        const struct server *sv = server_of_number(s, row->members[i]);
        if (sv && sv->process.alive && sv->shards[0].shard) {
            member_check(s, sv, partition);
        }
    }
}

/* ---- syncs below always ---- */

static void lossy_note(struct sim *s, uint16_t partition)
{
    struct partition_check *pc = &s->check->p[partition];
    bool all = pc->row.n_members > 0;

    for (unsigned i = 0; i < pc->row.n_members; i++) {
        const struct server *sv = server_of_number(s, pc->row.members[i]);
        all = all && sv && s->check->r[sv->index][partition].lost;
    }
    if (all && !pc->lossy) {
        sim_trace(s, "partition %u: all members of view %u have lost power", partition,
                  pc->row.view);
        s->counts.lossy++;
        pc->lossy = true;
    }
}

void check_lost(struct sim *s, const struct server *sv)
{
    for (uint32_t p = 0; p < s->setup.partitions; p++) {
        s->check->r[sv->index][p].lost = true;
        s->check->r[sv->index][p].durable_view = 0;
        lossy_note(s, (uint16_t) p);
    }
}

void check_lacking(struct sim *s, const struct server *sv, const struct msg_at *above)
{
    if (!s->check->r[sv->index][above->partition].lost && !s->check->p[above->partition].lossy) {
        sim_fail(s, "server %u lacks committed entries of partition %u above %llu", sv->index + 1,
                 above->partition, (llu) above->seq);
    }
}

bool check_is_lossy(const struct sim *s, uint16_t partition)
{
    return s->check->p[partition].lossy;
}

/* It takes part again, with everything. */
static void lost_ends(struct sim *s, const struct server *sv, const struct replica_info *info)
{
    const struct partition_check *pc = &s->check->p[info->partition];
    bool acts = info->state == REPLICA_PRIMARY || info->state == REPLICA_SECONDARY ||
                info->state == REPLICA_LEARNER;

    if (acts && info->view == pc->row.view && check_holds(s, sv, info->partition, pc->top)) {
        s->check->r[sv->index][info->partition].lost = false;
    }
}

/* Who is no member any more has nothing that counts. */
static void distrust_ends(struct sim *s, const struct view_row *row)
{
    for (uint32_t i = 0; i < s->setup.servers; i++) {
        s->check->r[i][row->partition].distrusts =
            s->check->r[i][row->partition].distrusts &&
            check_is_member(s, &s->servers[i], row->partition);
    }
}

void check_sealed(struct sim *s, const struct server *sv, uint16_t partition, uint32_t view)
{
    s->check->r[sv->index][partition].sealed_view = view;
}

void check_acked(struct sim *s, const struct server *sv, uint16_t partition, uint32_t view)
{
    if (s->check->r[sv->index][partition].sealed_view == view) {
        sim_fail(s, "R7: server %u has sealed view %u of partition %u, and acks in it",
                 sv->index + 1, view, partition);
    }
}

void check_row(struct sim *s, const struct view_row *row)
{
    struct partition_check *pc = &s->check->p[row->partition];
    bool grows = pc->row.view > 0 && row->n_members > pc->row.n_members;

    if (row->view == pc->row.view && memcmp(row, &pc->row, sizeof(*row)) != 0) {
        sim_fail(s, "I9: view %u of partition %u has two memberships", row->view, row->partition);
    } else if (row->view > pc->row.view) {
        sim_trace(s, "view %u of partition %u is committed, members %u %u %u, learners %u %u",
                  row->view, row->partition, row->members[0], row->members[1], row->members[2],
                  row->learners[0], row->learners[1]);
        pc->row = *row;
        s->counts.views++;
        distrust_ends(s, row);
        lossy_note(s, row->partition);
        members_check(s, row->partition);
        faults_in_view(s, row, grows);
    }
}

static void commit_check(struct sim *s, uint16_t partition, struct name n)
{
    struct partition_check *pc = &s->check->p[partition];

    if (pc->lossy) {
        return;
    }
    if (n.seq > pc->top.seq) {
        commit_extend(s, partition, n);
        if (!s->failed) {
            members_check(s, partition);
        }
    } else if (n.seq > 0 && pc->views[n.seq - 1] != n.view) {
        sim_fail(s, "I12: seq %llu of partition %u was committed as of view %u, now as of view %u",
                 (llu) n.seq, partition, pc->views[n.seq - 1], n.view);
    }
}

/* R15: only of a copy that can't be read. */
static void copy_dropped(struct sim *s, const struct server *sv, const struct replica_info *info)
{
    sim_trace(s, "server %u, partition %u: drops its copy", sv->index + 1, info->partition);
    s->counts.copies_dropped++;
    if (!s->setup.read_errors) {
        sim_fail(s, "server %u drops its copy of partition %u, which can be read", sv->index + 1,
                 info->partition);
    }
    s->check->r[sv->index][info->partition].distrusts = check_is_member(s, sv, info->partition);
}

static void replica_check(struct sim *s, const struct server *sv, const struct replica_info *info)
{
    struct replica_check *r = &s->check->r[sv->index][info->partition];
    struct replica_info old = r->live ? r->info : (struct replica_info){ 0 };

    r->info = *info;
    r->live = true;
    r->distrusts = r->distrusts && !info->complete;
    if (info->view < old.view || (info->commit.seq < old.commit.seq && info->complete)) {
        sim_fail(s, "I7: server %u, partition %u: view %u after %u, commit %llu after %llu",
                 sv->index + 1, info->partition, info->view, old.view, (llu) info->commit.seq,
                 (llu) old.commit.seq);
        return;
    }
    if (r->lost) {
        lost_ends(s, sv, info);
    }
    if (old.complete && !info->complete && info->state != REPLICA_LEARNER) {
        copy_dropped(s, sv, info);
    }
    if (info->state != old.state || info->view != old.view) {
        sim_trace(s, "server %u, partition %u: %s in view %u, commit (%u, %llu), last (%u, %llu)",
                  sv->index + 1, info->partition, replica_state_name(info->state), info->view,
                  info->commit.view, (llu) info->commit.seq, info->last.view, (llu) info->last.seq);
    }
    if (info->last.seq < old.last.seq) {
        s->counts.tails_cut += old.last.seq - info->last.seq;
    }
    if (info->state == REPLICA_RECONCILING && old.state != REPLICA_RECONCILING) {
        s->counts.reconciled += info->last.seq > info->commit.seq + 1;
    }
    if (info->commit.seq != old.commit.seq) {
        commit_check(s, info->partition, info->commit);
    }
    if (!s->failed) {
        check_acts(s, sv, info, &old);
    }
}

void check_step(struct sim *s, struct shard_process *sp, const struct shard_event *e)
{
    struct replica_info info;

    (void) e;
    for (uint32_t p = sp->index; p < s->setup.partitions && !s->failed; p += sp->server->n_shards) {
        if (shard_replica_info(sp->shard, (uint16_t) p, &info) == 0) {
            replica_check(s, sp->server, &info);
        }
    }
}

void check_replayed(struct sim *s, struct shard_process *sp)
{
    for (uint32_t p = sp->index; p < s->setup.partitions && !s->failed; p += sp->server->n_shards) {
        struct replica_check *r = &s->check->r[sp->server->index][p];
        struct replica_info info = { 0 };
        (void) shard_replica_info(sp->shard, (uint16_t) p, &info);
        if (info.view < r->durable_view) {
            sim_fail(s, "I7: server %u had view %u of partition %u durable, and comes back with %u",
                     sp->server->index + 1, r->durable_view, p, info.view);
            return;
        }
        r->durable_view = info.view;
        sp->written_view[p] = info.view;
        if (check_is_member(s, sp->server, (uint16_t) p)) {
            member_check(s, sp->server, (uint16_t) p);
        }
    }
    check_step(s, sp, NULL);
}

void check_distrusts(struct sim *s, const struct server *sv)
{
    for (unsigned p = 0; p < s->setup.partitions; p++) {
        struct replica_check *r = &s->check->r[sv->index][p];
        r->durable_view = 0;
        r->distrusts = true; /* of a learner too: its promotion may be under way */
    }
}

bool check_may_distrust(const struct sim *s, const struct server *sv)
{
    for (unsigned p = 0; p < s->setup.partitions; p++) {
        const struct view_row *row = &s->check->p[p].row;
        bool others = row->view > 0 && !check_is_member(s, sv, (uint16_t) p);
        for (unsigned i = 0; i < row->n_members; i++) {
            const struct server *o = server_of_number((struct sim *) s, row->members[i]);
            others = others || (o && o != sv && o->state == LIFE_RUNNING &&
                                !s->check->r[o->index][p].distrusts);
        }
        if (!others) {
            return false;
        }
    }
    return true;
}

void check_server_gone(struct sim *s, const struct server *sv)
{
    for (unsigned p = 0; p < SIM_PARTITIONS_MAX; p++) {
        s->check->r[sv->index][p].live = false;
        s->check->r[sv->index][p].sealed_view = 0;
    }
}

bool check_has_copy(const struct sim *s, uint16_t partition)
{
    const struct view_row *row = &s->check->p[partition].row;

    unsigned copies = 0;
    unsigned doubted = 0; /* they may lack what was answered: all members have to be asked (R7) */

    for (unsigned i = 0; i < row->n_members; i++) {
        const struct server *sv = server_of_number((struct sim *) s, row->members[i]);
        const struct replica_check *r = sv ? &s->check->r[sv->index][partition] : NULL;
        bool has = r && r->live && r->info.complete && !r->distrusts;
        copies += has;
        doubted += has && r->lost;
    }
    return copies >= MIN_OF(s->setup.min_replicas_auto, (uint32_t) row->n_members) &&
           (doubted < copies || copies == row->n_members);
}

unsigned check_members(const struct sim *s, uint16_t partition)
{
    return s->check->p[partition].row.n_members;
}

bool check_is_member(const struct sim *s, const struct server *sv, uint16_t partition)
{
    const struct view_row *row = &s->check->p[partition].row;

    for (unsigned i = 0; i < row->n_members; i++) {
        if (row->members[i] == sv->super.number && sv->super.number != 0) {
            return true;
        }
    }
    return false;
}
