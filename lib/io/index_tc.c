#include "io/index_tc.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/mem.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <tchdb.h>
#include <unistd.h>

#define BUCKETS_FIRST       1021 /* the library's default takes 1 GiB for 1,024 empty partitions */
#define BUCKETS_GROWTH      8
#define RECORDS_PER_BUCKET  5 /* at most: moved to more buckets beyond that (records_for) */
#define MOVES_PER_CHANGE    16
#define RETRY_CHANGES       4096  /* after so many changes a move that failed is tried again */
#define HOLES_BYTES_MIN     65536 /* always tolerated in a file, and half of what the records take */
#define PUNCH_BYTES         262144
#define ALIGN_POWER         0 /* records are small: no padding between them */
#define FREE_POWER          6 /* few free blocks are remembered: they seldom fit */
#define FREE_POOL_BYTES     (64 + (4 << FREE_POWER))
#define HEAD_BYTES          256
#define RECORD_HEAD_BYTES   22    /* with 64-bit offsets */
#define FILE_STEP_BYTES     32768 /* by which the library makes its files longer */
#define PAGE_BYTES          4096
#define MAPPED_BYTES_MIN    (INT64_C(64) << 20)
#define MAPPED_BYTES_RECORD 512

static _Atomic uint64_t bytes_of_all;

/* One database in one memfd. */
struct table {
    TCHDB *db;
    int fd; /* of the memfd; must stay open as long as the database */
    uint64_t buckets;
    uint64_t counted; /* in bytes_of_all */
    uint64_t punched; /* bytes given back already */
};

struct index_tc {
    struct index base;
    struct table now;    /* what is put goes here */
    struct table old;    /* while its records are moved to `now`; else db is NULL. Only shrinks. */
    TCXSTR *key;         /* scratch of the move */
    TCXSTR *value;       /* likewise */
    uint64_t live_bytes; /* what the records would take without holes */
    unsigned wait;       /* changes until a move may be tried again */
    uint16_t partition;
};

uint64_t index_tc_bytes(void)
{
    return atomic_load_explicit(&bytes_of_all, memory_order_relaxed);
}

/* ---- one database ---- */

static void table_count(struct table *t, uint64_t bytes)
{
    if (bytes != t->counted) {
        atomic_fetch_add_explicit(&bytes_of_all, bytes - t->counted, memory_order_relaxed);
        t->counted = bytes;
    }
}

static uint64_t table_bytes(const struct table *t)
{
    return (tchdbfsiz(t->db) + FILE_STEP_BYTES - 1) / FILE_STEP_BYTES * FILE_STEP_BYTES -
           t->punched;
}

/* Where the first record lies. */
static uint64_t table_first(uint64_t buckets)
{
    return HEAD_BYTES + buckets * sizeof(uint64_t) + FREE_POOL_BYTES;
}

/* Makes the file of an empty database, in the library's documented format but sparse: the library
 * itself would write every bucket now, milliseconds for a large one. Debian builds the library so
 * that numbers are big-endian; table_open checks that ours were understood. */
static int table_format(int fd, const TCHDB *db)
{
    uint64_t first = table_first(db->bnum);
    uint8_t head[HEAD_BYTES] = "ToKyO CaBiNeT\n1.0:911\n";

    head[34] = db->apow;
    head[35] = db->fpow;
    head[36] = db->opts;
    bytes_put_u64(head + 40, htobe64(db->bnum));
    bytes_put_u64(head + 56, htobe64(first)); /* the file's end */
    bytes_put_u64(head + 64, htobe64(first));
    if (pwrite(fd, head, sizeof(head), 0) < 0 || ftruncate(fd, (off_t) first) < 0) {
        return -errno;
    }
    return 0;
}

static int table_open(struct table *t, uint16_t partition, uint64_t buckets)
{
    char path[64];
    char name[32];
    int r;

    snprintf(name, sizeof(name), "index-%u", partition);
    t->fd = memfd_create(name, MFD_CLOEXEC);
    if (t->fd < 0) {
        return -errno;
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", t->fd);
    t->db = tchdbnew();
    /* Without HDBTLARGE records vanish silently beyond 2 GiB. */
    tchdbtune(t->db, (int64_t) buckets, ALIGN_POWER, FREE_POWER, HDBTLARGE);
    tchdbsetxmsiz(t->db,
                  MAPPED_BYTES_MIN + (int64_t) buckets * RECORDS_PER_BUCKET * MAPPED_BYTES_RECORD);
    t->buckets = t->db->bnum; /* rounded to a prime */
    r = table_format(t->fd, t->db);
    if (r == 0 && !tchdbopen(t->db, path, HDBOWRITER | HDBONOLCK)) {
        r = tchdbecode(t->db) == TCEMMAP ? -ENOMEM : -EMFILE;
    }
    if (r < 0) {
        tchdbdel(t->db);
        close(t->fd);
        *t = (struct table){ 0 };
        return r;
    }
    kumo_assert(tchdbbnum(t->db) == t->buckets);
    (void) madvise(t->db->map, tchdbxmsiz(t->db), MADV_DONTDUMP);
    table_count(t, table_bytes(t));
    return 0;
}

static void table_close(struct table *t)
{
    table_count(t, 0);
    tchdbdel(t->db);
    close(t->fd);
    *t = (struct table){ 0 };
}

static bool table_get(const struct table *t, const uint8_t *key, size_t key_len,
                      struct index_record *ret)
{
    uint8_t bytes[INDEX_RECORD_BYTES];

    if (!t->db ||
        tchdbget3(t->db, key, (int) key_len, bytes, INDEX_RECORD_BYTES) != INDEX_RECORD_BYTES) {
        return false;
    }
    *ret = index_record_decode(bytes);
    return true;
}

static bool table_drop(struct table *t, const uint8_t *key, size_t key_len,
                       struct index_record *ret)
{
    return table_get(t, key, key_len, ret) && tchdbout(t->db, key, (int) key_len);
}

struct swap {
    const uint8_t *bytes;
    struct index_record *ret_old;
    bool replaced;
};

/* The library frees what this returns. */
static void *swap_value(const void *value, int value_len, int *ret_len, void *ctx)
{
    struct swap *s = ctx;
    uint8_t *copy = mem_alloc(INDEX_RECORD_BYTES);

    kumo_assert(value_len == INDEX_RECORD_BYTES);
    *s->ret_old = index_record_decode(value);
    s->replaced = true;
    memcpy(copy, s->bytes, INDEX_RECORD_BYTES);
    *ret_len = INDEX_RECORD_BYTES;
    return copy;
}

/* ---- moving into a new database ---- */

/* As many as so many buckets are for: three to five records in each, another number in each
 * partition. They fill up evenly, and would all move at once: a thousand times half a millisecond.
 */
static uint64_t records_for(const struct index_tc *t, uint64_t buckets)
{
    uint32_t spread = (uint32_t) t->partition * 2654435761u >> 25; /* below 128 */

    return buckets * (3 * 64 + spread) / 64;
}

static uint64_t buckets_for(const struct index_tc *t, uint64_t records)
{
    uint64_t buckets = BUCKETS_FIRST;

    while (records > records_for(t, buckets)) {
        buckets *= BUCKETS_GROWTH;
    }
    return buckets;
}

/* Too many records for its buckets, or too many holes. */
static bool move_needed(const struct index_tc *t)
{
    uint64_t holes = tchdbfsiz(t->now.db) - table_first(t->now.buckets) - t->live_bytes;

    return tchdbrnum(t->now.db) > records_for(t, t->now.buckets) ||
           holes > HOLES_BYTES_MIN + t->live_bytes / 2;
}

/* A failure leaves the database in use that there is. */
static void move_begin(struct index_tc *t)
{
    struct table fresh = { 0 };

    if (table_open(&fresh, t->partition, buckets_for(t, tchdbrnum(t->now.db))) < 0) {
        t->wait = RETRY_CHANGES;
        return;
    }
    t->old = t->now;
    t->now = fresh;
    t->key = tcxstrnew();
    t->value = tcxstrnew();
    tchdbiterinit(t->old.db);
}

static void move_end(struct index_tc *t)
{
    kumo_assert(tchdbrnum(t->old.db) == 0);
    table_close(&t->old);
    tcxstrdel(t->key);
    tcxstrdel(t->value);
}

/* Gives back the memory behind the iterator, where no record is left. */
static void move_punch(struct index_tc *t)
{
    uint64_t from = (table_first(t->old.buckets) + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    uint64_t to = t->old.db->iter / PAGE_BYTES * PAGE_BYTES;

    from += t->old.punched;
    if (to >= from + PUNCH_BYTES && fallocate(t->old.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                              (off_t) from, (off_t) (to - from)) == 0) {
        t->old.punched += to - from;
        table_count(&t->old, table_bytes(&t->old));
    }
}

/* Moves a few records. Nothing is put into the old database any more, so that what the iterator has
 * passed stays empty. */
static void move_some(struct index_tc *t)
{
    for (int i = 0; i < MOVES_PER_CHANGE; i++) {
        const void *key;
        int key_len;
        bool moved;

        if (!tchdbiternext3(t->old.db, t->key, t->value)) {
            move_end(t);
            return;
        }
        key = tcxstrptr(t->key);
        key_len = tcxstrsize(t->key);
        if (!tchdbput(t->now.db, key, key_len, tcxstrptr(t->value), tcxstrsize(t->value))) {
            tchdbiterinit2(t->old.db, key, key_len); /* comes again */
            return;
        }
        moved = tchdbout(t->old.db, key, key_len);
        kumo_assert(moved);
    }
    move_punch(t);
}

/* After every change of the records. */
static void changed(struct index_tc *t)
{
    if (t->old.db) {
        move_some(t);
    } else if (t->wait > 0) {
        t->wait--;
    } else if (move_needed(t)) {
        move_begin(t);
    }
    table_count(&t->now, table_bytes(&t->now));
}

/* ---- the index ---- */

static int index_tc_get(struct index *x, const uint8_t *key, size_t key_len,
                        struct index_record *ret)
{
    const struct index_tc *t = (const struct index_tc *) x;

    return table_get(&t->now, key, key_len, ret) || table_get(&t->old, key, key_len, ret) ? 0
                                                                                          : -ENOENT;
}

static size_t record_bytes(size_t key_len)
{
    return RECORD_HEAD_BYTES + key_len + INDEX_RECORD_BYTES;
}

static int index_tc_put(struct index *x, const uint8_t *key, size_t key_len,
                        const struct index_record *rec, struct index_record *ret_old)
{
    struct index_tc *t = (struct index_tc *) x;
    uint8_t bytes[INDEX_RECORD_BYTES];
    struct swap s = { .bytes = bytes, .ret_old = ret_old };

    index_record_encode(rec, bytes);
    /* One lookup; getting the old record first would take a second one. */
    if (!tchdbputproc(t->now.db, key, (int) key_len, bytes, INDEX_RECORD_BYTES, swap_value, &s)) {
        return -ENOSPC;
    }
    if (!s.replaced) {
        s.replaced = table_drop(&t->old, key, key_len, ret_old);
    }
    t->live_bytes += s.replaced ? 0 : record_bytes(key_len);
    changed(t);
    return s.replaced;
}

static int index_tc_drop(struct index *x, const uint8_t *key, size_t key_len,
                         struct index_record *ret_old)
{
    struct index_tc *t = (struct index_tc *) x;

    if (!table_drop(&t->now, key, key_len, ret_old) &&
        !table_drop(&t->old, key, key_len, ret_old)) {
        return 0;
    }
    t->live_bytes -= record_bytes(key_len);
    changed(t);
    return 1;
}

static uint64_t index_tc_count(const struct index *x)
{
    const struct index_tc *t = (const struct index_tc *) x;

    return tchdbrnum(t->now.db) + (t->old.db ? tchdbrnum(t->old.db) : 0);
}

static void index_tc_reserve(struct index *x, uint64_t records)
{
    struct index_tc *t = (struct index_tc *) x;
    struct table fresh = { 0 };

    kumo_assert(index_tc_count(x) == 0);
    if (!t->old.db && records > records_for(t, t->now.buckets) &&
        table_open(&fresh, t->partition, buckets_for(t, records)) == 0) {
        table_close(&t->now);
        t->now = fresh;
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

    kumo_assert(value_len == INDEX_RECORD_BYTES);
    rec = index_record_decode(value);
    w->fn(w->ctx, key, (size_t) key_len, &rec);
    return true;
}

/* What the iterator has before it; it stays where it is. */
static void walk_old(struct index_tc *t, struct walk *w)
{
    uint64_t at = t->old.db->iter;

    while (tchdbiternext3(t->old.db, t->key, t->value)) {
        walk_record(tcxstrptr(t->key), tcxstrsize(t->key), tcxstrptr(t->value),
                    tcxstrsize(t->value), w);
    }
    t->old.db->iter = at;
}

static void index_tc_walk(struct index *x, index_walk_fn fn, void *ctx)
{
    struct index_tc *t = (struct index_tc *) x;
    struct walk w = { fn, ctx };

    tchdbforeach(t->now.db, walk_record, &w);
    if (t->old.db) {
        walk_old(t, &w);
    }
}

static void index_tc_free(struct index *x)
{
    struct index_tc *t = (struct index_tc *) x;

    if (t->old.db) {
        table_close(&t->old);
        tcxstrdel(t->key);
        tcxstrdel(t->value);
    }
    table_close(&t->now);
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
    r = table_open(&t->now, partition, BUCKETS_FIRST);
    if (r < 0) {
        free(t);
        return r;
    }
    *ret = &t->base;
    return 0;
}
