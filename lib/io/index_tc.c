#include "io/index_tc.h"

#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <tchdb.h>
#include <unistd.h>

#define BUCKETS_FIRST                                                                              \
    1021 /* 16 MiB for 1,024 empty partitions; the default bucket array takes 1 GiB */
#define BUCKETS_GROWTH     16
#define RECORDS_PER_BUCKET 4 /* rebuilt beyond that */
#define ALIGN_POWER        0 /* records are small: no padding between them */
#define FREE_POWER         10
#define MAPPED_BYTES_FIRST (INT64_C(64) << 20)

struct index_tc {
    struct index base;
    TCHDB *db;
    int fd; /* of the memfd; must stay open as long as the database */
    int64_t buckets;
    uint16_t partition;
};

/* Opens an empty database with that many buckets in a new memfd. */
static int database_new(uint16_t partition, int64_t buckets, TCHDB **ret_db, int *ret_fd)
{
    char path[64];
    char name[32];
    TCHDB *db;
    int fd;

    snprintf(name, sizeof(name), "index-%u", partition);
    fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    db = tchdbnew();
    /* Without HDBTLARGE records vanish silently beyond 2 GiB. */
    if (!tchdbtune(db, buckets, ALIGN_POWER, FREE_POWER, HDBTLARGE) ||
        !tchdbsetxmsiz(db,
                       MAPPED_BYTES_FIRST + buckets * RECORDS_PER_BUCKET * BUCKETS_GROWTH * 80) ||
        !tchdbopen(db, path, HDBOWRITER | HDBOCREAT | HDBOTRUNC | HDBONOLCK)) {
        int r = tchdbecode(db) == TCEMMAP ? -ENOMEM : -EMFILE;
        tchdbdel(db);
        close(fd);
        return r;
    }
    *ret_db = db;
    *ret_fd = fd;
    return 0;
}

static int index_tc_get(struct index *x, const uint8_t *key, size_t key_len,
                        struct index_record *ret)
{
    struct index_tc *t = (struct index_tc *) x;
    uint8_t bytes[INDEX_RECORD_BYTES];

    if (tchdbget3(t->db, key, (int) key_len, bytes, INDEX_RECORD_BYTES) != INDEX_RECORD_BYTES) {
        return -ENOENT;
    }
    *ret = index_record_decode(bytes);
    return 0;
}

static bool copy_record(const void *key, int key_len, const void *value, int value_len, void *ctx)
{
    return tchdbput(ctx, key, key_len, value, value_len);
}

/* More buckets: a new database in a new memfd. A failure leaves the old one in use. */
static void grow(struct index_tc *t)
{
    int64_t buckets = t->buckets * BUCKETS_GROWTH;
    TCHDB *db;
    int fd;

    if (database_new(t->partition, buckets, &db, &fd) < 0) {
        return;
    }
    if (!tchdbforeach(t->db, copy_record, db) || tchdbrnum(db) != tchdbrnum(t->db)) {
        tchdbdel(db);
        close(fd);
        return;
    }
    tchdbdel(t->db);
    close(t->fd);
    t->db = db;
    t->fd = fd;
    t->buckets = buckets;
}

static int index_tc_put(struct index *x, const uint8_t *key, size_t key_len,
                        const struct index_record *rec, struct index_record *ret_old)
{
    struct index_tc *t = (struct index_tc *) x;
    int replaced = index_tc_get(x, key, key_len, ret_old) == 0;
    uint8_t bytes[INDEX_RECORD_BYTES];

    index_record_encode(rec, bytes);
    if (!tchdbput(t->db, key, (int) key_len, bytes, INDEX_RECORD_BYTES)) {
        return -ENOSPC;
    }
    if (tchdbrnum(t->db) > (uint64_t) t->buckets * RECORDS_PER_BUCKET) {
        grow(t);
    }
    return replaced;
}

static int index_tc_drop(struct index *x, const uint8_t *key, size_t key_len,
                         struct index_record *ret_old)
{
    if (index_tc_get(x, key, key_len, ret_old) < 0) {
        return 0;
    }
    return tchdbout(((struct index_tc *) x)->db, key, (int) key_len);
}

static void index_tc_reserve(struct index *x, uint64_t records)
{
    struct index_tc *t = (struct index_tc *) x;

    while (records > (uint64_t) t->buckets * RECORDS_PER_BUCKET) {
        int64_t before = t->buckets;
        grow(t);
        if (t->buckets == before) {
            return;
        }
    }
}

struct walk {
    index_walk_fn fn;
    void *ctx;
};

static bool walk_record(const void *key, int key_len, const void *value, int value_len, void *ctx)
{
    const struct walk *w = ctx;
    struct index_record rec;

    if (value_len == INDEX_RECORD_BYTES) {
        rec = index_record_decode(value);
        w->fn(w->ctx, key, (size_t) key_len, &rec);
    }
    return true;
}

static void index_tc_walk(struct index *x, index_walk_fn fn, void *ctx)
{
    struct walk w = { fn, ctx };

    tchdbforeach(((struct index_tc *) x)->db, walk_record, &w);
}

static uint64_t index_tc_count(const struct index *x)
{
    return tchdbrnum(((const struct index_tc *) x)->db);
}

static void index_tc_free(struct index *x)
{
    struct index_tc *t = (struct index_tc *) x;

    tchdbdel(t->db);
    close(t->fd);
    free(t);
}

static const struct index_ops index_tc_ops = {
    .get = index_tc_get,
    .put = index_tc_put,
    .drop = index_tc_drop,
    .reserve = index_tc_reserve,
    .walk = index_tc_walk,
    .count = index_tc_count,
    .free = index_tc_free,
};

int index_tc_open(void *ctx, uint16_t partition, struct index **ret)
{
    struct index_tc *t = mem_zalloc(1, sizeof(*t));
    int r;

    (void) ctx;
    t->base.ops = &index_tc_ops;
    t->partition = partition;
    t->buckets = BUCKETS_FIRST;
    r = database_new(partition, t->buckets, &t->db, &t->fd);
    if (r < 0) {
        free(t);
        return r;
    }
    *ret = &t->base;
    return 0;
}
