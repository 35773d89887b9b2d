/* Records that are added to a stopped server's data directory. */
#include "io/datadir_writer.h"

#include "base/cleanup.h"
#include "base/rng.h"
#include "core/hashspace.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "temp_dir.h"

#define PARTITIONS 8

static const struct superblock a_superblock = {
    .server_id = { 1, 2, 3 }, .cluster_id = { 9 }, .server = 7, .partitions = PARTITIONS, .start = 3
};

static void actions_write(const struct actions *out)
{
    char path[128];

    for (size_t i = 0; i < out->n; i++) {
        const struct action *a = &out->v[i];
        int fd;
        if (a->kind == ACTION_SYNC) {
            continue;
        }
        snprintf(path, sizeof(path), "%s/log/%010u.seg", dir, a->file.at.segment);
        fd = open(path, O_WRONLY | O_CREAT, 0600);
        assert_int_equal(pwrite(fd, a->file.data, a->file.bytes, a->file.at.offset), a->file.bytes);
        close(fd);
    }
}

/* A directory as a server leaves it that is member of views and never wrote. In partition 5 it has
 * a companion. */
static void datadir_make(void)
{
    struct wal_options o = {
        .start = 3, .shards = 1, .partitions = PARTITIONS, .first_segment = 1
    };
    struct io_error error;
    struct actions out = { 0 };
    char path[128];
    struct wal log;

    memcpy(o.server_id, a_superblock.server_id, UUID_BYTES);
    wal_init(&log, &o);
    for (uint16_t p = 0; p < PARTITIONS; p++) {
        struct frame_view v = { VIEW_PRIMARY, p == 5 ? 2 : 1, { 7, 8 } };
        uint8_t bytes[FRAME_VIEW_BYTES_MAX];
        wal_append(&log, FRAME_VIEW, p, 4, bytes, frame_view_encode(&v, bytes));
    }
    path_of("log", path);
    assert_int_equal(mkdir(path, 0700), 0);
    path_of("checkpoint", path);
    assert_int_equal(mkdir(path, 0700), 0);
    wal_flush(&log, &out);
    actions_write(&out);
    actions_free(&out);
    wal_free(&log);
    assert_int_equal(superblock_write(dir, &a_superblock, &error), 0);
}

static uint32_t partition_of(const struct entry *e)
{
    return hashspace_partition_of_hash(hashspace_hash(e->key, e->key_len), PARTITIONS);
}

/* Record i; its value depends on `pass`. False: it belongs to partition 5. */
static bool numbered(unsigned i, unsigned pass, char key[16], char value[64], struct entry *ret)
{
    int key_len = snprintf(key, 16, "key-%u", i);
    int value_len = snprintf(value, 64, "value %u of pass %u", i, pass);

    *ret = (struct entry){ .key = (const uint8_t *) key,
                           .key_len = (uint8_t) key_len,
                           .value = (const uint8_t *) value,
                           .value_len = (uint32_t) value_len,
                           .flags = i,
                           .expiry_sec = i % 3 ? 0 : UINT32_MAX - i };
    return partition_of(ret) != 5;
}

static unsigned records_put(struct datadir_writer *w, unsigned from, unsigned to, unsigned pass)
{
    struct io_error error = { "" };
    unsigned n = 0;

    for (unsigned i = from; i < to; i++) {
        char key[16];
        char value[64];
        struct entry e;
        bool alone = numbered(i, pass, key, value, &e);
        assert_int_equal(datadir_writer_check(w, &e, &error), alone ? 0 : -EPERM);
        assert_int_equal(datadir_writer_put(w, &e, &error), alone ? 0 : -EPERM);
        n += alone;
    }
    assert_non_null(strstr(error.text, "partition 5"));
    return n;
}

struct count {
    unsigned n;
    unsigned passes[8]; /* records of each */
};

static int on_record(void *ctx, const struct entry *e)
{
    struct count *c = ctx;
    struct entry want;
    unsigned pass = (unsigned) (e->value[e->value_len - 1] - '0');
    char key[16];
    char value[64];

    assert_true(numbered(e->flags, pass, key, value, &want));
    assert_int_equal(e->key_len, want.key_len);
    assert_memory_equal(e->key, want.key, want.key_len);
    assert_int_equal(e->value_len, want.value_len);
    assert_memory_equal(e->value, want.value, want.value_len);
    assert_int_equal(e->expiry_sec, want.expiry_sec);
    assert_int_equal(e->cas, e->name.seq);
    c->n++;
    c->passes[pass]++;
    return 0;
}

static struct count datadir_count(void)
{
    struct io_error error = { "" };
    struct count c = { 0 };
    struct datadir *d;

    if (datadir_open(dir, 0, &d, &error) < 0) {
        fail_msg("%s", error.text);
    }
    assert_int_equal(datadir_walk(d, on_record, &c, &error), 0);
    datadir_free(d);
    return c;
}

/* Records come back as they were put; a second import replaces them, in a start of its own. */
static void test_import_into_a_directory(void **state)
{
    struct io_error error = { "" };
    struct datadir_writer *w;
    struct superblock s;
    struct count c;
    unsigned n;

    (void) state;
    datadir_make();
    assert_int_equal(datadir_writer_open(dir, &w, &error), 0);
    n = records_put(w, 0, 10000, 1);
    assert_int_equal(datadir_writer_flush(w, &error), 0);
    assert_int_equal(datadir_writer_done(w), n);
    datadir_writer_free(w);
    c = datadir_count();
    assert_int_equal(c.passes[1], n);

    assert_int_equal(datadir_writer_open(dir, &w, &error), 0);
    n = records_put(w, 0, 3000, 2);
    assert_int_equal(datadir_writer_flush(w, &error), 0);
    datadir_writer_free(w);
    assert_int_equal(superblock_read(dir, &s, &error), 0);
    assert_int_equal(s.start, a_superblock.start + 2);
    assert_int_equal(s.first_segment, 3);
    assert_int_equal(datadir_count().passes[2], n);
    assert_int_equal(datadir_count().n, c.n);
}

static void test_nothing_put_changes_nothing(void **state)
{
    struct io_error error = { "" };
    struct datadir_writer *w;
    struct superblock s;

    (void) state;
    datadir_make();
    assert_int_equal(datadir_writer_open(dir, &w, &error), 0);
    (void) records_put(w, 0, 100, 1);
    datadir_writer_free(w); /* without a flush */
    assert_int_equal(superblock_read(dir, &s, &error), 0);
    assert_int_equal(s.start, a_superblock.start);
    assert_int_equal(datadir_count().n, 0);
}

static void test_a_directory_in_use_is_refused(void **state)
{
    struct io_error error = { "" };
    struct datadir_writer *w;
    struct datadir_writer *other;
    struct datadir *d;

    (void) state;
    datadir_make();
    assert_int_equal(datadir_writer_open(dir, &w, &error), 0);
    assert_int_equal(datadir_writer_open(dir, &other, &error), -EBUSY);
    assert_int_equal(datadir_open(dir, 0, &d, &error), -EBUSY);
    datadir_writer_free(w);
    assert_int_equal(datadir_open(dir, 0, &d, &error), 0);
    datadir_free(d);
}

/* Killed at any byte of what an import writes: a server starts on the directory, and finds whole
 * records only. The next import waits until a start has settled what is torn. */
static void test_an_import_that_is_cut(void **state)
{
    struct rng rng = { 5 };
    struct io_error error = { "" };
    struct datadir_writer *w;
    char path[128];
    struct stat st;
    unsigned whole;
    unsigned torn = 0;

    (void) state;
    datadir_make();
    assert_int_equal(datadir_writer_open(dir, &w, &error), 0);
    whole = records_put(w, 0, 300, 1);
    assert_int_equal(datadir_writer_flush(w, &error), 0);
    (void) records_put(w, 300, 400, 1);
    assert_int_equal(datadir_writer_flush(w, &error), 0);
    datadir_writer_free(w);
    path_of("log/0000000002.seg", path);
    assert_int_equal(stat(path, &st), 0);
    for (off_t n = st.st_size - 1; n >= 0; n -= 1 + (off_t) rng_below(&rng, 200)) {
        unsigned found;
        int r;
        assert_int_equal(truncate(path, n), 0);
        found = datadir_count().n;
        assert_true(found == 0 || found == whole);
        r = datadir_writer_open(dir, &w, &error);
        assert_true(r == 0 || r == -EUCLEAN);
        torn += r < 0;
        if (r == 0) {
            datadir_writer_free(w);
        }
    }
    assert_int_equal(datadir_count().n, 0);
    assert_true(torn > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_import_into_a_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_put_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_directory_in_use_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_import_that_is_cut, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
