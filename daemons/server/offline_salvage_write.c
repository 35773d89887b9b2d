/* The records of a salvage in a log of their own, and the checkpoints that point at them. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/clock.h"
#include "offline_salvage.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FLUSH_BYTES         (4u << 20)
#define LOST_KEYS_SHOWN_MAX 20
/* R11: names go on at the next multiple, so that none is given out twice. */
#define SEQ_STEP (UINT64_C(1) << 40)

struct found {
    struct index_record rec;
    uint8_t key_len;
    uint8_t key[ENTRY_KEY_BYTES_MAX];
};

struct gathering {
    struct found *v;
    size_t n;
    size_t cap;
};

static int record_gather(void *ctx, const uint8_t *key, size_t key_len,
                         const struct index_record *rec)
{
    struct gathering *g = ctx;
    struct found *f;

    mem_grow(&g->v, &g->cap, g->n + 1, sizeof(*g->v));
    f = &g->v[g->n++];
    f->rec = *rec;
    f->key_len = (uint8_t) key_len;
    memcpy(f->key, key, key_len);
    return 0;
}

static int compare_positions(const void *a, const void *b)
{
    return position_compare(((const struct found *) a)->rec.at, ((const struct found *) b)->rec.at);
}

/* Copies a record to the new log, or leaves it out. */
static int record_write(struct salvage *s, struct replica *r, const struct found *f,
                        struct io_error *error)
{
    struct shard *shard = datadir_shard(s->d);
    struct index_record rec = f->rec;
    struct io_error why;
    struct entry e;

    if (rec.kind != ENTRY_SET) {
        return 0;
    }
    if (datadir_read(s->d, r->partition, f->key, f->key_len, &rec, &e, &why) < 0) {
        if (s->lost++ < LOST_KEYS_SHOWN_MAX) {
            printf("lost: %s\n", why.text);
        }
        return 0;
    }
    if (flush_covers(&r->flush, rec.seq, e.time_usec, clock_real_usec())) {
        return 0;
    }
    rec.at = wal_append(&shard->log, FRAME_COPY, r->partition, r->view, e.key - ENTRY_HEAD_BYTES,
                        rec.bytes);
    replica_index_put(shard, r, f->key, f->key_len, &rec);
    s->records++;
    s->bytes += rec.bytes;
    s->in_doubt += rec.seq > s->parts[r->partition].commit_seq;
    return buf_len(&shard->log.bytes) >= FLUSH_BYTES ? salvage_out_flush(&s->out, error) : 0;
}

/* Nothing of it is pending, and no name, and so no cas token, is given out again. */
static void replica_name(struct salvage *s, struct replica *r)
{
    struct part *p = &s->parts[r->partition];

    r->commit =
        (struct name){ .view = p->highest.view, .seq = (p->highest.seq / SEQ_STEP + 1) * SEQ_STEP };
    r->last = r->commit;
    r->durable_seq = r->commit.seq;
    r->n_runs = 0; /* nobody shares this history */
    r->incomplete = false;
    r->flush_pending = r->flush;
    r->horizon_seq = r->commit.seq; /* all tombstones were left out */
    session_table_free(&r->sessions);
}

static int partition_write(struct salvage *s, struct replica *r, struct io_error *error)
{
    struct gathering g = { 0 };
    int err = 0;

    (void) datadir_index_walk(s->d, r->partition, record_gather, &g);
    if (g.n > 0) {
        qsort(g.v, g.n, sizeof(*g.v), compare_positions);
    }
    r->digest = 0;
    r->n_expiring = 0;
    for (size_t i = 0; i < g.n; i++) {
        r->index->ops->drop(r->index, g.v[i].key, g.v[i].key_len, &(struct index_record){ 0 });
    }
    for (size_t i = 0; err == 0 && i < g.n; i++) {
        err = record_write(s, r, &g.v[i], error);
    }
    replica_name(s, r);
    free(g.v);
    return err;
}

static int records_write(struct salvage *s, struct io_error *error)
{
    struct shard *shard = datadir_shard(s->d);
    uint32_t partitions = datadir_superblock(s->d)->partitions;
    struct actions none = { 0 };
    int r = 0;

    shard->out = &none;
    for (uint32_t p = 0; r == 0 && p < partitions; p++) {
        offline_progress("writing partitions", p, partitions);
        r = partition_write(s, salvage_replica(s, p), error);
    }
    shard->out = NULL;
    actions_free(&none);
    if (r == 0 && shard->halted) {
        r = io_error_set(error, -ENOMEM, "no memory for the index");
    }
    return r == 0 ? salvage_out_flush(&s->out, error) : r;
}

/* The same server with one more start, whose log alone is not everything. */
static int identity_write(struct salvage *s, struct io_error *error)
{
    const struct wal_options *l = &datadir_shard(s->d)->o.log;
    struct superblock b = *datadir_superblock(s->d);

    b.start = l->start;
    b.first_segment = l->first_segment;
    b.compacted = true;
    return superblock_write(s->out.dir, &b, error);
}

int salvage_write(struct salvage *s, const char *name, struct io_error *error)
{
    char partial[4096];
    int r;

    (void) snprintf(partial, sizeof(partial), "%.4000s.partial", name);
    r = salvage_out_begin(&s->out, partial, datadir_path(s->d), &datadir_shard(s->d)->log, error);
    if (r == 0) {
        r = records_write(s, error);
    }
    if (r == 0) {
        r = datadir_generation_write(partial, datadir_shard(s->d), 1, error);
    }
    if (r == 0) {
        r = identity_write(s, error);
    }
    if (r == 0) {
        r = salvage_out_publish(&s->out, name, error);
    }
    salvage_out_end(&s->out);
    return r;
}
