/* A server's data directory read offline: the same as a start would read, and nothing is changed.
 */
#include "base/cleanup.h"
#include "core/checkpoint.h"
#include "core/hashspace.h"
#include "core/replica.h"
#include "io/bus.h"
#include "io/datadir.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { PARTITIONS = 4, SERVER = 7, VIEW = 3, KEYS_MAX = 64 };

#include "temp_dir.h"

static void flip_bit(const char *name, off_t offset)
{
    char path[128];
    uint8_t b;
    int fd;

    path_of(name, path);
    fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &b, 1, offset), 1);
    b ^= 4;
    assert_int_equal(pwrite(fd, &b, 1, offset), 1);
    close(fd);
}

/* ---- a directory as a server leaves it ---- */

struct rig {
    struct wal wal;
    uint64_t seq[PARTITIONS];
    uint32_t prev_view[PARTITIONS];
};

static const struct superblock a_superblock = {
    .server_id = { 1, 2, 3 },
    .cluster_id = { 9 },
    .server = SERVER,
    .partitions = PARTITIONS,
    .start = 1,
    .first_segment = 1,
};

static uint16_t partition_of(const char *key)
{
    return hashspace_partition_of_hash(hashspace_hash((const uint8_t *) key, strlen(key)),
                                       PARTITIONS);
}

/* Carries a flush out on the files at once. */
static void rig_flush(struct rig *r)
{
    struct actions out = { 0 };

    wal_flush(&r->wal, &out);
    for (size_t i = 0; i < out.n; i++) {
        const struct action *a = &out.v[i];
        char name[64];
        char path[128];
        int fd;
        if (a->kind == ACTION_SYNC) {
            wal_synced(&r->wal, a->group);
            continue;
        }
        snprintf(name, sizeof(name), "log/%010" PRIu32 ".seg", a->file.at.segment);
        path_of(name, path);
        fd = open(path, O_WRONLY | O_CREAT, 0600);
        assert_true(fd >= 0);
        assert_int_equal(pwrite(fd, a->file.data, a->file.bytes, a->file.at.offset),
                         (ssize_t) a->file.bytes);
        close(fd);
    }
    wal_flushed(&r->wal);
    actions_free(&out);
}

static void rig_open(struct rig *r)
{
    struct wal_options o = { .start = a_superblock.start,
                             .shards = 1,
                             .partitions = PARTITIONS,
                             .first_segment = 1,
                             .segment_bytes = 4096 };
    struct frame_view v = { .part = VIEW_PRIMARY, .n_members = 1, .members = { SERVER } };
    uint8_t bytes[FRAME_VIEW_BYTES_MAX];
    struct io_error error;
    char path[128];

    *r = (struct rig){ 0 };
    path_of("log", path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(superblock_write(dir, &a_superblock, &error), 0);
    memcpy(o.server_id, a_superblock.server_id, UUID_BYTES);
    wal_init(&r->wal, &o);
    for (uint16_t p = 0; p < PARTITIONS; p++) {
        wal_append(&r->wal, FRAME_VIEW, p, VIEW, bytes, frame_view_encode(&v, bytes));
    }
    rig_flush(r);
}

static struct position prepare(struct rig *r, uint16_t partition, struct entry e)
{
    uint8_t bytes[1024];

    e.partition = partition;
    e.name = (struct name){ .seq = ++r->seq[partition], .view = VIEW };
    e.prev_view = r->prev_view[partition];
    e.time_usec = r->seq[partition] * 1000;
    e.cas = e.name.seq;
    r->prev_view[partition] = VIEW;
    assert_true(entry_bytes(&e) <= sizeof(bytes));
    entry_encode(&e, bytes);
    return wal_append(&r->wal, FRAME_PREPARE, partition, VIEW, bytes, entry_bytes(&e));
}

static struct position set(struct rig *r, const char *key, const char *value)
{
    struct entry e = { .kind = ENTRY_SET,
                       .flags = 5,
                       .key_len = (uint8_t) strlen(key),
                       .key = (const uint8_t *) key,
                       .value_len = (uint32_t) strlen(value),
                       .value = (const uint8_t *) value };

    return prepare(r, partition_of(key), e);
}

static void delete (struct rig *r, const char *key)
{
    struct entry e = { .kind = ENTRY_DELETE,
                       .key_len = (uint8_t) strlen(key),
                       .key = (const uint8_t *) key };

    prepare(r, partition_of(key), e);
}

static void commit(struct rig *r)
{
    uint8_t bytes[FRAME_COMMIT_BYTES];

    for (uint16_t p = 0; p < PARTITIONS; p++) {
        if (r->seq[p] > 0) {
            frame_commit_encode((struct name){ .seq = r->seq[p], .view = VIEW }, 0, bytes);
            wal_append(&r->wal, FRAME_COMMIT, p, VIEW, bytes, sizeof(bytes));
        }
    }
    rig_flush(r);
}

/* Keys k0 … k39, each twice; k7 is deleted. Returns where k3's last value stands. */
static struct position fill(struct rig *r)
{
    struct position at = { 0, 0 };

    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 40; i++) {
            char key[16];
            char value[128];
            struct position p;
            snprintf(key, sizeof(key), "k%u", i);
            snprintf(value, sizeof(value), "%0100u", round * 1000 + i);
            p = set(r, key, value);
            at = i == 3 ? p : at;
        }
        delete (r, "k7");
        commit(r);
    }
    return at;
}

static void rig_close(struct rig *r)
{
    wal_free(&r->wal);
}

struct seen {
    unsigned n;
    bool key[KEYS_MAX];
};

static int record_seen(void *ctx, const struct entry *e)
{
    struct seen *s = ctx;
    char text[128];
    unsigned i;

    assert_int_equal(e->key[0], 'k');
    snprintf(text, sizeof(text), "%.*s", (int) e->key_len, (const char *) e->key);
    i = (unsigned) atoi(text + 1);
    assert_true(i < KEYS_MAX);
    assert_false(s->key[i]);
    s->key[i] = true;
    s->n++;
    snprintf(text, sizeof(text), "%0100u", 1000 + i);
    assert_int_equal(e->value_len, 100);
    assert_memory_equal(e->value, text, 100);
    assert_int_equal(e->flags, 5);
    return 0;
}

static void assert_filled(struct datadir *d)
{
    struct io_error error = { "" };
    struct seen s = { 0 };

    assert_int_equal(datadir_walk(d, record_seen, &s, &error), 0);
    assert_int_equal(s.n, 39);
    assert_false(s.key[7]);
}

/* Names, sizes and times of all files: a reader must leave them as they are. */
static uint64_t tree_sum;

static int tree_add(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void) type;
    (void) ftw;
    for (const char *p = path; *p; p++) {
        tree_sum = tree_sum * 31 + (uint64_t) *p;
    }
    tree_sum +=
        (uint64_t) st->st_size * 7 + (uint64_t) st->st_mtim.tv_nsec + (uint64_t) st->st_mtim.tv_sec;
    return 0;
}

static uint64_t tree(void)
{
    tree_sum = 0;
    assert_int_equal(nftw(dir, tree_add, 16, FTW_PHYS), 0);
    return tree_sum;
}

/* ---- the tests ---- */

static void test_log_is_replayed(void **state)
{
    struct io_error error = { "" };
    struct datadir *d;
    struct rig r;
    uint64_t before;

    (void) state;
    rig_open(&r);
    fill(&r);
    rig_close(&r);
    before = tree();
    assert_int_equal(datadir_open(dir, 0, &d, &error), 0);
    assert_null(datadir_manifest(d));
    assert_true(datadir_segments(d)->n > 1);
    assert_filled(d);
    datadir_free(d);
    assert_int_equal(tree(), before);
}

static int stop_at_third(void *ctx, const struct entry *e)
{
    (void) e;
    return ++*(unsigned *) ctx == 3 ? -ECANCELED : 0;
}

static void test_walk_ends_when_told(void **state)
{
    struct io_error error = { "" };
    struct datadir *d;
    struct rig r;
    unsigned n = 0;

    (void) state;
    rig_open(&r);
    fill(&r);
    rig_close(&r);
    assert_int_equal(datadir_open(dir, 0, &d, &error), 0);
    assert_int_equal(datadir_walk(d, stop_at_third, &n, &error), -ECANCELED);
    assert_int_equal(n, 3);
    datadir_free(d);
}

static void test_uncommitted_and_flushed_are_not_given(void **state)
{
    struct io_error error = { "" };
    struct datadir *d;
    struct seen s = { 0 };
    struct rig r;

    (void) state;
    rig_open(&r);
    fill(&r);
    for (uint16_t p = 0; p < PARTITIONS; p++) {
        prepare(&r, p, (struct entry){ .kind = ENTRY_FLUSH });
    }
    commit(&r);
    set(&r, "k1", "pending");
    rig_flush(&r);
    rig_close(&r);
    assert_int_equal(datadir_open(dir, 0, &d, &error), 0);
    assert_int_equal(datadir_walk(d, record_seen, &s, &error), 0);
    assert_int_equal(s.n, 0);
    datadir_free(d);
}

/* Makes a generation as a server's clean stop would. */
static void make_generation(uint64_t generation)
{
    struct io_error error = { "" };
    struct datadir *d;

    assert_int_equal(datadir_open(dir, DATADIR_NO_LOCK, &d, &error), 0);
    assert_int_equal(datadir_generation_write(dir, datadir_shard(d), generation, &error), 0);
    datadir_free(d);
}

static void test_newest_good_generation_is_loaded(void **state)
{
    struct io_error error = { "" };
    struct datadir *d;
    struct rig r;

    (void) state;
    rig_open(&r);
    fill(&r);
    rig_close(&r);
    make_generation(1);
    make_generation(2);
    assert_int_equal(datadir_open(dir, 0, &d, &error), 0);
    assert_int_equal(datadir_manifest(d)->generation, 2);
    assert_filled(d);
    datadir_free(d);

    flip_bit("checkpoint/0000000002-00.ckp", 50);
    assert_int_equal(datadir_open(dir, 0, &d, &error), 0);
    assert_int_equal(datadir_manifest(d)->generation, 1);
    assert_filled(d);
    datadir_free(d);

    flip_bit("checkpoint/0000000001.manifest", 20);
    assert_int_equal(datadir_open(dir, 0, &d, &error), 0);
    assert_null(datadir_manifest(d));
    assert_filled(d);
    datadir_free(d);
}

static void test_compacted_log_needs_a_generation(void **state)
{
    struct superblock b = a_superblock;
    struct io_error error = { "" };
    struct datadir *d;
    struct rig r;

    (void) state;
    rig_open(&r);
    fill(&r);
    rig_close(&r);
    make_generation(1);
    b.compacted = true;
    assert_int_equal(superblock_write(dir, &b, &error), 0);
    assert_int_equal(datadir_open(dir, DATADIR_LOG_ONLY, &d, &error), -EBADMSG);
    assert_int_equal(datadir_open(dir, 0, &d, &error), 0);
    assert_filled(d);
    datadir_free(d);
    flip_bit("checkpoint/0000000001.manifest", 20);
    assert_int_equal(datadir_open(dir, 0, &d, &error), -EBADMSG);
    assert_non_null(strstr(error.text, "compacted"));
}

static void test_torn_tail_is_passed_over_and_kept(void **state)
{
    const struct segment_set *set_found;
    struct io_error error = { "" };
    struct datadir *d;
    char path[128];
    struct stat st;
    struct rig r;
    uint64_t before;

    (void) state;
    rig_open(&r);
    fill(&r);
    set(&r, "k1", "torn");
    rig_flush(&r);
    snprintf(path, sizeof(path), "%s/log/%010" PRIu32 ".seg", dir, r.wal.end.segment);
    rig_close(&r);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size - 1), 0);
    before = tree();
    assert_int_equal(datadir_open(dir, 0, &d, &error), 0);
    set_found = datadir_segments(d);
    assert_true(set_found->v[set_found->n - 1].good_bytes < (size_t) st.st_size - 1);
    assert_filled(d);
    datadir_free(d);
    assert_int_equal(tree(), before);
}

static void test_damage_is_told_with_its_place(void **state)
{
    struct io_error error = { "" };
    struct position at;
    struct datadir *d;
    char name[64];
    struct rig r;

    (void) state;
    rig_open(&r);
    at = fill(&r);
    fill(&r);
    rig_close(&r);
    snprintf(name, sizeof(name), "log/%010" PRIu32 ".seg", at.segment);
    flip_bit(name, at.offset + ENTRY_HEAD_BYTES + 20);
    assert_int_equal(datadir_open(dir, 0, &d, &error), -EBADMSG);
    assert_non_null(strstr(error.text, name));
}

/* Segments that the checkpoints cover are not looked through at a start; the records in them are,
 * when they are read. */
static void test_rot_below_a_generation_is_found_by_the_walk(void **state)
{
    struct io_error error = { "" };
    struct seen s = { 0 };
    struct position at;
    struct datadir *d;
    char name[64];
    struct rig r;

    (void) state;
    rig_open(&r);
    at = fill(&r);
    rig_close(&r);
    make_generation(1);
    snprintf(name, sizeof(name), "log/%010" PRIu32 ".seg", at.segment);
    flip_bit(name, at.offset + ENTRY_HEAD_BYTES + 20);
    assert_int_equal(datadir_open(dir, 0, &d, &error), 0);
    assert_int_equal(datadir_walk(d, record_seen, &s, &error), -EBADMSG);
    assert_non_null(strstr(error.text, name));
    assert_non_null(strstr(error.text, "'k3'"));
    datadir_free(d);
}

/* What a generation covers was durable: it can't be a torn tail. */
static void test_log_that_ends_before_a_generation_is_damaged(void **state)
{
    struct checkpoint_set set_found;
    struct io_error error = { "" };
    struct datadir *d;
    struct wal *log;
    struct rig r;
    char path[128];

    (void) state;
    rig_open(&r);
    fill(&r);
    assert_int_equal(datadir_open(dir, 0, &d, &error), 0);
    log = &datadir_shard(d)->log; /* its checkpoints shall end where the rig's log does */
    log->end = r.wal.end;
    assert_int_equal(datadir_generation_write(dir, datadir_shard(d), 1, &error), 0);
    datadir_free(d);
    snprintf(path, sizeof(path), "%s/log/%010" PRIu32 ".seg", dir, r.wal.end.segment);
    assert_int_equal(datadir_open(dir, 0, &d, &error), 0);
    datadir_free(d);
    assert_int_equal(truncate(path, r.wal.end.offset - 1), 0);
    assert_int_equal(datadir_open(dir, 0, &d, &error), -EBADMSG);
    assert_non_null(strstr(error.text, path));
    assert_int_equal(datadir_open(dir, DATADIR_LOG_ONLY, &d, &error), 0); /* as if torn… */
    assert_int_equal(datadir_generation_open(dir, 1, PARTITIONS, &set_found, &error), 0);
    assert_int_equal(datadir_reached(d, &set_found.manifest, &error), -EBADMSG); /* …but it isn't */
    assert_non_null(strstr(error.text, path));
    checkpoint_set_close(&set_found);
    datadir_free(d);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(datadir_open(dir, 0, &d, &error), -EBADMSG);
    rig_close(&r);
}

struct unreadable {
    unsigned n;
    uint64_t offset;
    uint64_t bytes;
};

static void unreadable_seen(void *ctx, uint32_t segment, uint64_t offset, uint64_t bytes)
{
    struct unreadable *u = ctx;

    assert_int_equal(segment, 1);
    *u = (struct unreadable){ u->n + 1, offset, bytes };
}

/* A mapped file that became shorter is read like one on a disk that fails. */
static void test_pages_that_the_disk_cannot_give_are_masked(void **state)
{
    struct io_error error = { "" };
    struct unreadable u = { 0 };
    struct datadir *d;
    char path[128];
    struct rig r;
    size_t bytes;

    (void) state;
    assert_int_equal(bus_prepare(), 0);
    rig_open(&r);
    r.wal.o.segment_bytes = 1 << 20;
    fill(&r);
    rig_close(&r);
    assert_int_equal(datadir_look(dir, 0, &d, &error), 0);
    bytes = datadir_segments(d)->v[0].bytes;
    assert_true(bytes > 8192);
    assert_int_equal(datadir_mask(d, unreadable_seen, &u, &error), 0);
    assert_int_equal(u.n, 0);
    path_of("log/0000000001.seg", path);
    assert_int_equal(truncate(path, 4096), 0);
    assert_int_equal(datadir_mask(d, unreadable_seen, &u, &error), 0);
    assert_int_equal(u.n, 1);
    assert_int_equal(u.offset, 4096);
    assert_int_equal(u.bytes, bytes - 4096);
    assert_int_equal(datadir_segments(d)->v[0].data[bytes - 1], 0);
    datadir_free(d);
}

static void test_lock_of_a_server_is_respected(void **state)
{
    struct io_error error = { "" };
    struct datadir *other;
    struct datadir *d;
    char path[128];
    struct rig r;
    int fd;

    (void) state;
    rig_open(&r);
    rig_close(&r);
    path_of("lock", path);
    fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(datadir_open(dir, 0, &d, &error), -EBUSY);
    assert_non_null(strstr(error.text, dir));
    assert_int_equal(datadir_open(dir, DATADIR_NO_LOCK, &d, &error), 0);
    datadir_free(d);
    close(fd);
    assert_int_equal(datadir_open(dir, 0, &d, &error), 0);
    assert_int_equal(datadir_open(dir, 0, &other, &error), 0); /* readers go together… */
    fd = open(path, O_RDWR);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), -1); /* …and no server starts meanwhile */
    close(fd);
    datadir_free(other);
    datadir_free(d);
}

static void test_what_is_no_data_directory_is_told(void **state)
{
    struct superblock b = a_superblock;
    struct io_error error = { "" };
    struct datadir *d;
    char path[128];

    (void) state;
    assert_int_equal(datadir_open("/nonexistent", 0, &d, &error), -ENOENT);
    assert_int_equal(datadir_open(dir, 0, &d, &error), -ENOENT);
    path_of("log", path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(datadir_open(dir, 0, &d, &error), -EBADMSG); /* a log that is nobody's */
    b.server = 0;
    b.partitions = 0;
    assert_int_equal(superblock_write(dir, &b, &error), 0);
    assert_int_equal(datadir_open(dir, 0, &d, &error), -ENODATA);
    assert_int_equal(superblock_write(dir, &a_superblock, &error), 0);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(datadir_open(dir, 0, &d, &error), -EBADMSG); /* its log is gone */
    assert_int_equal(access(path, F_OK), -1);                     /* and was not made */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_log_is_replayed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_walk_ends_when_told, setup, teardown),
        cmocka_unit_test_setup_teardown(test_uncommitted_and_flushed_are_not_given, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_newest_good_generation_is_loaded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_compacted_log_needs_a_generation, setup, teardown),
        cmocka_unit_test_setup_teardown(test_torn_tail_is_passed_over_and_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_is_told_with_its_place, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rot_below_a_generation_is_found_by_the_walk, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_log_that_ends_before_a_generation_is_damaged, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_pages_that_the_disk_cannot_give_are_masked, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_lock_of_a_server_is_respected, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_no_data_directory_is_told, setup, teardown),
    };

    return cmocka_run_group_tests_name("io_datadir", tests, NULL, NULL);
}
