/* The invariants of who acts: one primary per view, one server that answers reads, and what the
 * members of a view hold of each other's. */
#include "sim/check.h"

#include "base/cleanup.h"
#include "base/mem.h"

/* I1, and R6: one process is primary of a view. */
static void primary_check(struct sim *s, const struct server *sv, const struct replica_info *info)
{
    struct partition_check *pc = &s->check->p[info->partition];
    struct actor *a;

    if (info->view >= pc->n_primary) {
        mem_grow(&pc->primary, &pc->cap_primary, info->view + 1, sizeof(*pc->primary));
        memset(&pc->primary[pc->n_primary], 0,
               (info->view + 1 - pc->n_primary) * sizeof(*pc->primary));
        pc->n_primary = info->view + 1;
    }
    a = &pc->primary[info->view];
    if (a->server == 0) {
        *a = (struct actor){ sv->index + 1, sv->process.life };
    } else if (a->server != sv->index + 1 || a->life != sv->process.life) {
        sim_fail(s,
                 "I1: view %u of partition %u has two primaries: server %u (start %llu) and "
                 "server %u (start %llu)",
                 info->view, info->partition, a->server, (llu) a->life, sv->index + 1,
                 (llu) sv->process.life);
    }
}

static bool reads_now(const struct sim *s, uint32_t server, const struct replica_info *info)
{
    return info->state == REPLICA_PRIMARY &&
           info->lease_until_usec > server_clock(s, &s->servers[server]).boot_usec;
}

/* I2: at most one server answers reads of a partition. A round of confirmation is another matter:
 * histories tell. */
static void reads_check(struct sim *s, const struct server *sv, const struct replica_info *info)
{
    for (uint32_t i = 0; i < s->setup.servers && reads_now(s, sv->index, info); i++) {
        const struct replica_check *r = &s->check->r[i][info->partition];
        if (i != sv->index && r->live && reads_now(s, i, &r->info)) {
            sim_fail(s,
                     "I2: reads of partition %u are answered by server %u in view %u and by "
                     "server %u in view %u",
                     info->partition, i + 1, r->info.view, sv->index + 1, info->view);
        }
    }
}

/* ---- I3: after R5, what members committed is in the primary's history, and that in theirs ---- */

static const struct replica_info *info_of(const struct sim *s, uint32_t number, uint16_t partition,
                                          uint32_t view)
{
    const struct server *sv = server_of_number((struct sim *) s, number);
    const struct replica_check *r = sv ? &s->check->r[sv->index][partition] : NULL;

    return r && r->live && !r->distrusts && !r->lost && r->info.view == view &&
                   !s->check->p[partition].lossy
               ? &r->info
               : NULL;
}

static void secondary_check(struct sim *s, const struct server *sv, const struct replica_info *info)
{
    const struct replica_info *primary = info_of(s, info->members[0], info->partition, info->view);

    if (primary && primary->state == REPLICA_PRIMARY && info->commit.seq > primary->commit.seq) {
        sim_fail(s,
                 "I3: in view %u of partition %u server %u has committed up to %llu, its primary "
                 "only up to %llu",
                 info->view, info->partition, sv->index + 1, (llu) info->commit.seq,
                 (llu) primary->commit.seq);
    }
}

static void prepared_check(struct sim *s, const struct server *sv, const struct replica_info *info)
{
    for (unsigned i = 1; i < info->n_members && !s->failed; i++) {
        const struct replica_info *member =
            info_of(s, info->members[i], info->partition, info->view);
        const struct server *other = server_of_number(s, info->members[i]);
        if (member && !check_holds(s, other, info->partition, info->commit)) {
            sim_fail(s,
                     "I3: in view %u of partition %u server %u has committed (%u, %llu), which "
                     "server %u has not prepared",
                     info->view, info->partition, sv->index + 1, info->commit.view,
                     (llu) info->commit.seq, other->index + 1);
        }
    }
}

/* ---- I10 ---- */

static void limits_check(struct sim *s, const struct server *sv, const struct replica_info *info)
{
    const struct shard *shard = sv->shards[info->partition % sv->n_shards].shard;
    struct shard_counts c = { 0 };

    shard_count(shard, &c);
    if (c.tail_bytes > TAIL_BYTES_MAX + ENTRY_BYTES_MAX ||
        (info->last.seq - info->commit.seq > TAIL_ENTRIES_MAX + 1 &&
         info->last.view == info->commit.view)) {
        sim_fail(s, "I10: server %u, partition %u: %llu entries wait, %llu bytes in all",
                 sv->index + 1, info->partition, (llu) (info->last.seq - info->commit.seq),
                 (llu) c.tail_bytes);
    }
}

void check_acts(struct sim *s, const struct server *sv, const struct replica_info *info,
                const struct replica_info *old)
{
    bool primary = info->state == REPLICA_PRIMARY;

    if (primary || info->state == REPLICA_RECONCILING) {
        primary_check(s, sv, info);
    }
    if (primary && !s->setup.confirm) {
        reads_check(s, sv, info);
    }
    if (primary && (old->state != REPLICA_PRIMARY || info->commit.seq != old->commit.seq)) {
        prepared_check(s, sv, info);
    }
    if (info->state == REPLICA_SECONDARY && info->commit.seq != old->commit.seq) {
        secondary_check(s, sv, info);
    }
    if (info->last.seq != old->last.seq) {
        limits_check(s, sv, info);
    }
}
