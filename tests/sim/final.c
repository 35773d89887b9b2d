/* What is checked once, at the end, when everything was healed and is quiet. */
#include "sim/sim.h"

#include <errno.h>

typedef unsigned long long llu;

static bool is_entry_of(const struct key *k, const struct entry *e)
{
    return e->key_len == k->name_len && memcmp(e->key, k->name, k->name_len) == 0;
}

/* The record's bytes are where the index points. */
static bool record_read(const struct server *sv, const struct key *k,
                        const struct index_record *rec, bool power, struct entry *ret)
{
    const uint8_t *p = power ? disk_read_durable(&sv->disk, rec->at, rec->bytes)
                             : server_read(sv, rec->at, rec->bytes);

    return p && entry_decode(p, rec->bytes, ret) == 0 && ret->name.seq == rec->seq &&
           ret->kind == rec->kind && is_entry_of(k, ret);
}

struct tail_search {
    const struct key *key;
    bool found;
};

static void tail_look(void *ctx, const struct entry *e, bool durable)
{
    struct tail_search *t = ctx;

    (void) durable;
    t->found = t->found || is_entry_of(t->key, e);
}

/* R5: nobody reads here before all of the tail is committed. */
static bool is_in_tail(const struct shard *shard, const struct key *k)
{
    struct tail_search t = { k, false };

    shard_tail_walk(shard, k->partition, tail_look, &t);
    return t.found;
}

/* What a catch-up brought counts from its end on: the index may be ahead of what is written. */
static uint32_t complete_ones(const struct sim *s, const struct shard *shard)
{
    struct replica_info info;
    uint32_t complete = 0;

    for (uint32_t p = 0; p < s->setup.partitions; p++) {
        if (shard_replica_info(shard, (uint16_t) p, &info) == 0 && info.complete) {
            complete |= UINT32_C(1) << p;
        }
    }
    return complete;
}

void readable_check(struct sim *s, const struct server *sv, const struct shard *shard,
                    uint32_t index, uint32_t shards, bool power, const char *when)
{
    uint32_t complete = complete_ones(s, shard);
    struct index_record rec;
    struct entry e;

    for (size_t i = 0; i < s->n_keys && !s->failed; i++) {
        const struct key *k = s->keys[i];
        if (k->partition % shards == index && (complete >> k->partition & 1) &&
            shard_record(shard, (const uint8_t *) k->name, k->name_len, &rec) == 0 &&
            !record_read(sv, k, &rec, power, &e) && !is_in_tail(shard, k)) {
            sim_fail(
                s,
                "server %u, %s: the record of key %s (partition %u, seq %llu, %s) is not where "
                "the index points, at %u:%u",
                sv->index + 1, when, k->name, k->partition, (llu) rec.seq,
                rec.kind == ENTRY_SET ? "a value" : "a tombstone", rec.at.segment, rec.at.offset);
        }
    }
}

/* One has a record that the other lacks: compaction may have dropped it there. */
static bool may_lack(struct sim *s, const struct server *has, const struct server *lacks,
                     const struct key *k, const struct index_record *rec)
{
    struct entry e;

    return record_read(has, k, rec, false, &e) && oracle_is_dead(s, lacks, k->partition, rec, true);
}

static bool is_compared(struct sim *s, const struct server *a, const struct server *b,
                        uint16_t partition)
{
    return check_is_member(s, a, partition) && check_is_member(s, b, partition) &&
           check_has_copy(s, partition);
}

static void keys_equal(struct sim *s, const struct server *a, const struct server *b)
{
    for (size_t i = 0; i < s->n_keys && !s->failed; i++) {
        const struct key *k = s->keys[i];
        const uint8_t *name = (const uint8_t *) k->name;
        struct index_record x = { 0 };
        struct index_record y = { 0 };
        int in_a;
        int in_b;
        if (!is_compared(s, a, b, k->partition)) {
            continue;
        }
        in_a = shard_record(a->shards[k->partition % a->n_shards].shard, name, k->name_len, &x);
        in_b = shard_record(b->shards[k->partition % b->n_shards].shard, name, k->name_len, &y);
        if ((in_a < 0) != (in_b < 0) &&
            may_lack(s, in_a == 0 ? a : b, in_a == 0 ? b : a, k, in_a == 0 ? &x : &y)) {
            continue;
        }
        if (in_a == 0 && in_b == 0 && oracle_is_dead(s, a, k->partition, &x, false) &&
            oracle_is_dead(s, b, k->partition, &y, false)) {
            continue; /* flushed here and there: a catch-up does not bring the newest one */
        }
        if (in_a != in_b || x.seq != y.seq || x.kind != y.kind || x.bytes != y.bytes) {
            sim_fail(s,
                     "I6: key %s of partition %u is seq %llu at server %u and seq %llu at "
                     "server %u",
                     k->name, k->partition, (llu) x.seq, a->index + 1, (llu) y.seq, b->index + 1);
        }
    }
}

static void commits_equal(struct sim *s, const struct server *a, const struct server *b)
{
    for (uint32_t p = 0; p < s->setup.partitions && !s->failed; p++) {
        struct replica_info x;
        struct replica_info y;
        if (!is_compared(s, a, b, (uint16_t) p) ||
            shard_replica_info(a->shards[p % a->n_shards].shard, (uint16_t) p, &x) < 0 ||
            shard_replica_info(b->shards[p % b->n_shards].shard, (uint16_t) p, &y) < 0) {
            continue;
        }
        if (!name_equal(x.commit, y.commit) || !name_equal(x.last, y.last)) {
            sim_fail(s,
                     "partition %u is quiet, but server %u has committed %llu of %llu, and "
                     "server %u %llu of %llu",
                     p, a->index + 1, (llu) x.commit.seq, (llu) x.last.seq, b->index + 1,
                     (llu) y.commit.seq, (llu) y.last.seq);
        } else if (x.digest != y.digest) {
            sim_fail(s, "I6: partition %u has digest %016llx at server %u and %016llx at server %u",
                     p, (llu) x.digest, a->index + 1, (llu) y.digest, b->index + 1);
        }
    }
}

void check_redundancy(struct sim *s)
{
    for (uint32_t p = 0; p < s->setup.partitions && !s->failed; p++) {
        if (check_has_copy(s, (uint16_t) p) && check_members(s, (uint16_t) p) < s->setup.replicas) {
            sim_fail(s, "I11: partition %u has %u members of %u, long after everything was healed",
                     p, check_members(s, (uint16_t) p), s->setup.replicas);
        }
    }
}

void check_equal(struct sim *s)
{
    for (uint32_t i = 0; i < s->setup.servers; i++) {
        const struct server *sv = &s->servers[i];
        for (uint32_t j = 0; j < sv->n_shards && !s->failed; j++) {
            readable_check(s, sv, sv->shards[j].shard, j, sv->n_shards, false, "at the end");
        }
        for (uint32_t j = 0; j < s->setup.servers && !s->failed; j++) {
            commits_equal(s, &s->servers[i], &s->servers[j]);
            keys_equal(s, &s->servers[i], &s->servers[j]);
        }
    }
}

void check_histories(struct sim *s)
{
    for (size_t i = 0; i < s->n_keys && !s->failed; i++) {
        struct key *k = s->keys[i];
        struct lin_report r = { 0 };
        enum lin_verdict v = check_is_lossy(s, k->partition) ? LIN_OK : lin_check(k->ops, k->n, &r);
        s->counts.configurations += r.visited;
        if (v == LIN_GAVE_UP) {
            s->counts.gave_up++; /* too many were cut off together: that is nobody's fault */
        } else if (v != LIN_OK) {
            sim_fail(s, "what clients saw of key %s (partition %u) is impossible: %s", k->name,
                     k->partition, r.why);
            s->bad_key = k;
            s->bad_begin = r.begin;
            s->bad_end = r.end;
        }
    }
}
