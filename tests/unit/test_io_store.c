/* The server's files: superblock, segments, and the Tokyo Cabinet index. */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/rng.h"
#include "core/index_map.h"
#include "core/shard.h"
#include "io/bus.h"
#include "io/index_tc.h"
#include "io/loop.h"
#include "io/segments.h"
#include "io/superblock.h"

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

static void flip_bit(const char *path, off_t offset)
{
    int fd = open(path, O_RDWR);
    uint8_t b;

    assert_int_equal(pread(fd, &b, 1, offset), 1);
    b ^= 4;
    assert_int_equal(pwrite(fd, &b, 1, offset), 1);
    close(fd);
}

/* ---- superblock ---- */

static const struct superblock a_superblock = {
    .server_id = { 1, 2, 3 },
    .cluster_id = { 9 },
    .server = 7,
    .partitions = 1024,
    .incarnation = { .accepted = 41,
                     .counter = 42,
                     .random = UINT64_MAX,
                     .sent = true,
                     .n_priors = 2,
                     .priors = { 5, 6 } },
    .start = 12,
    .first_segment = 99,
    .clean = true,
    .weak = true,
    .doubt = true,
    .distrust = DISTRUST_EMPTY,
    .copies = COPIES_ELSEWHERE,
};

static void test_superblock_round_trip(void **state)
{
    struct superblock s;
    struct io_error error;

    (void) state;
    assert_int_equal(superblock_read(dir, &s, &error), -ENOENT);
    assert_int_equal(superblock_write(dir, &a_superblock, &error), 0);
    assert_int_equal(superblock_read(dir, &s, &error), 0);
    assert_memory_equal(s.server_id, a_superblock.server_id, UUID_BYTES);
    assert_int_equal(s.server, 7);
    assert_memory_equal(&s.incarnation, &a_superblock.incarnation, sizeof(s.incarnation));
    assert_int_equal(s.start, 12);
    assert_int_equal(s.first_segment, 99);
    assert_true(s.clean && s.weak && s.doubt);
    assert_int_equal(s.distrust, DISTRUST_EMPTY);
    assert_int_equal(s.copies, COPIES_ELSEWHERE);
}

/* One that the first release wrote: nothing of what came later is claimed. */
static void test_superblock_of_first_release(void **state)
{
    struct superblock s;
    struct io_error error;
    uint8_t bytes[4096];
    char path[128];
    int fd;

    (void) state;
    path_of("superblock", path);
    assert_int_equal(superblock_write(dir, &a_superblock, &error), 0);
    fd = open(path, O_RDWR);
    assert_int_equal(read(fd, bytes, sizeof(bytes)), sizeof(bytes));
    assert_int_equal(bytes[12], 0xdc); /* array 16 */
    bytes[12] = 0x9c;                  /* of twelve */
    memmove(bytes + 13, bytes + 15, sizeof(bytes) - 15);
    bytes_put_u32(bytes + 8, crc32c(0, bytes + 12, sizeof(bytes) - 12));
    assert_int_equal(pwrite(fd, bytes, sizeof(bytes), 0), sizeof(bytes));
    close(fd);
    assert_int_equal(superblock_read(dir, &s, &error), 0);
    assert_int_equal(s.first_segment, 99);
    assert_memory_equal(&s.incarnation, &a_superblock.incarnation, sizeof(s.incarnation));
    assert_false(s.clean || s.weak || s.doubt);
    assert_int_equal(s.distrust, DISTRUST_NONE);
    assert_int_equal(s.copies, COPIES_UNKNOWN);
}

static void test_superblock_damage_is_told(void **state)
{
    struct superblock s;
    struct io_error error;
    char path[128];
    struct stat st;

    (void) state;
    path_of("superblock", path);
    assert_int_equal(superblock_write(dir, &a_superblock, &error), 0);
    assert_int_equal(stat(path, &st), 0);
    for (off_t i = 0; i < st.st_size; i++) {
        flip_bit(path, i);
        assert_int_equal(superblock_read(dir, &s, &error), -EBADMSG);
        assert_non_null(strstr(error.text, path));
        flip_bit(path, i);
    }
    for (off_t n = st.st_size - 1; n >= 0; n--) {
        assert_int_equal(truncate(path, n), 0);
        assert_int_equal(superblock_read(dir, &s, &error), -EBADMSG);
    }
}

/* ---- index ---- */

static void test_index_keeps_file_descriptors(void **state)
{
    struct index *first;
    struct index *x[64];
    struct index_record rec = { .seq = 1, .kind = ENTRY_SET };

    (void) state;
    assert_int_equal(index_tc_open(NULL, 0, &first), 0);
    assert_int_equal(first->ops->put(first, (uint8_t *) "a", 1, &rec, &rec), 0);
    for (unsigned i = 0; i < 64; i++) { /* numbers of closed descriptors must not be mixed up */
        assert_int_equal(index_tc_open(NULL, (uint16_t) i, &x[i]), 0);
        assert_int_equal(x[i]->ops->count(x[i]), 0);
    }
    for (unsigned i = 0; i < 64; i++) {
        x[i]->ops->free(x[i]);
    }
    assert_int_equal(first->ops->get(first, (uint8_t *) "a", 1, &rec), 0);
    first->ops->free(first);
}

/* ---- segments ---- */

struct rig {
    struct loop *loop;
    struct segment_set set;
    struct segment_writer *writer;
    struct wal wal;
    struct actions actions;
    uint64_t synced;
    int error;
    bool full; /* says the writer */
    unsigned n_full;
};

static void on_synced(void *ctx, uint64_t group)
{
    struct rig *r = ctx;

    r->synced = group > r->synced ? group : r->synced;
    wal_synced(&r->wal, group);
}

static void on_written(void *ctx, uint64_t group)
{
    struct rig *r = ctx;

    r->synced = group > r->synced ? group : r->synced;
    wal_written(&r->wal, group);
}

static void on_failed(void *ctx, int error, const char *what)
{
    ((struct rig *) ctx)->error = error;
    (void) what;
}

static void on_full(void *ctx, bool full)
{
    struct rig *r = ctx;

    r->full = full;
    r->n_full += full;
}

static void rig_open(struct rig *r, enum sync_mode sync, uint64_t start)
{
    struct io_error error;
    struct segment_writer_options o = {
        .set = &r->set,
        .sync = sync,
        .sync_interval_usec = 1000,
        .on_synced = on_synced,
        .on_written = on_written,
        .on_failed = on_failed,
        .on_full = on_full,
        .ctx = r,
    };

    *r = (struct rig){ 0 };
    assert_int_equal(loop_new(&r->loop), 0);
    assert_int_equal(segment_set_open(&r->set, dir, &error), 0);
    o.loop = r->loop;
    o.wal = (struct wal_options){ .start = start,
                                  .shards = 1,
                                  .partitions = 1,
                                  .first_segment = segment_set_highest(&r->set) + 1,
                                  .segment_bytes = 4096 };
    assert_int_equal(segment_set_check(&r->set, NULL, &error), 0);
    wal_init(&r->wal, &o.wal);
    assert_int_equal(segment_writer_new(&o, &r->writer), 0);
}

static void rig_flush(struct rig *r)
{
    r->actions.n = 0;
    wal_flush(&r->wal, &r->actions);
    for (size_t i = 0; i < r->actions.n; i++) {
        segment_writer_act(r->writer, &r->actions.v[i]);
    }
    wal_flushed(&r->wal);
}

static void rig_close(struct rig *r)
{
    segment_writer_free(r->writer);
    segment_set_close(&r->set);
    wal_free(&r->wal);
    actions_free(&r->actions);
    loop_free(r->loop);
}

static void wait_synced(struct rig *r, uint64_t group)
{
    for (unsigned i = 0; i < 1000 && r->synced < group; i++) {
        loop_turn(r->loop, true);
    }
    assert_true(r->synced >= group);
}

/* A commit frame is the smallest thing that can be appended. */
static struct position append(struct rig *r, uint64_t seq)
{
    uint8_t bytes[FRAME_COMMIT_BYTES];

    frame_commit_encode((struct name){ .seq = seq, .view = 1 }, 0, bytes);
    return wal_append(&r->wal, FRAME_COMMIT, 0, 1, bytes, sizeof(bytes));
}

static int count_frame(void *ctx, const struct frame *f, struct position at)
{
    uint64_t time_usec;
    struct name name;

    (void) at;
    assert_int_equal(frame_commit_decode(f, &name, &time_usec), 0);
    assert_int_equal(name.seq, ++*(uint64_t *) ctx);
    return 0;
}

static uint64_t replay_count(struct rig *r)
{
    uint64_t n = 0;

    for (size_t i = 0; i < r->set.n; i++) {
        assert_int_equal(wal_walk(&r->set.v[i], count_frame, &n), 0);
    }
    return n;
}

static void test_segments_write_sync_read(void **state)
{
    struct position at[500];
    struct rig r;
    uint64_t group = 0;
    const uint8_t *p = NULL;

    (void) state;
    rig_open(&r, SYNC_ALWAYS, 1);
    for (unsigned i = 0; i < 500; i++) {
        group = r.wal.group;
        at[i] = append(&r, i + 1);
        if (i % 7 == 0) {
            rig_flush(&r);
        }
    }
    rig_flush(&r);
    wait_synced(&r, group);
    assert_true(at[499].segment > at[0].segment); /* it rolled */
    for (unsigned i = 0; i < 500; i++) {
        assert_int_equal(segment_writer_read(r.writer, at[i], FRAME_COMMIT_BYTES, &p), 0);
        assert_int_equal(p[0] | p[1] << 8, i + 1);
    }
    assert_int_equal(segment_writer_read(r.writer, (struct position){ 9999, 0 }, 1, &p), -ENOENT);
    assert_int_equal(
        segment_writer_read(r.writer, (struct position){ at[499].segment, 4000 }, 4000, &p),
        -ENOENT);
    rig_close(&r);

    rig_open(&r, SYNC_ALWAYS, 2); /* a second start finds it all, and reads it at its places */
    assert_int_equal(replay_count(&r), 500);
    for (unsigned i = 0; i < 500; i++) {
        assert_int_equal(segment_writer_read(r.writer, at[i], FRAME_COMMIT_BYTES, &p), 0);
    }
    rig_close(&r);
}

static void test_segments_weaker_modes_answer(void **state)
{
    const enum sync_mode modes[] = { SYNC_INTERVAL, SYNC_OS };

    (void) state;
    for (unsigned i = 0; i < ARRAY_LEN(modes); i++) {
        struct rig r;
        rig_open(&r, modes[i], 1 + i);
        append(&r, i + 1);
        rig_flush(&r);
        wait_synced(&r, 1);
        rig_close(&r);
    }
}

static void test_segments_torn_tail_is_cut(void **state)
{
    char path[128];
    struct stat st;
    struct rig r;

    (void) state;
    rig_open(&r, SYNC_ALWAYS, 1);
    append(&r, 1);
    rig_flush(&r);
    wait_synced(&r, 1);
    append(&r, 2);
    rig_flush(&r);
    wait_synced(&r, 2);
    rig_close(&r);
    path_of("log/0000000001.seg", path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size - 1), 0);
    rig_open(&r, SYNC_ALWAYS, 2);
    assert_int_equal(replay_count(&r), 1);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, r.set.v[0].good_bytes); /* cut on the disk too */
    rig_close(&r);
}

static void test_segments_rot_is_told_and_kept(void **state)
{
    struct segment_set set;
    struct io_error error;
    char path[128];
    struct stat before;
    struct stat after;
    struct rig r;

    (void) state;
    rig_open(&r, SYNC_ALWAYS, 1);
    for (unsigned i = 0; i < 3; i++) {
        append(&r, i + 1);
        rig_flush(&r);
        wait_synced(&r, i + 1);
    }
    rig_close(&r);
    path_of("log/0000000001.seg", path);
    flip_bit(path, SEGMENT_HEAD_BYTES + GROUP_HEAD_BYTES + FRAME_HEAD_BYTES + 3);
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(segment_set_open(&set, dir, &error), 0);
    assert_int_equal(segment_set_check(&set, NULL, &error), -EBADMSG);
    assert_non_null(strstr(error.text, "0000000001.seg"));
    segment_set_close(&set);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_size, after.st_size);
}

/* A page that can't be had is damage, not the process's end. */
static void test_segments_unreadable_is_told(void **state)
{
    static const off_t left[] = { 4096, 0 };
    struct segment_set set;
    struct io_error error;
    char path[128];
    struct rig r;

    (void) state;
    assert_int_equal(bus_prepare(), 0);
    rig_open(&r, SYNC_ALWAYS, 1);
    append(&r, 1);
    rig_flush(&r);
    wait_synced(&r, 1);
    rig_close(&r);
    path_of("log/0000000001.seg", path);
    for (size_t i = 0; i < ARRAY_LEN(left); i++) {
        assert_int_equal(truncate(path, 8192), 0);
        assert_int_equal(segment_set_open(&set, dir, &error), 0);
        assert_int_equal(truncate(path, left[i]), 0);
        assert_int_equal(segment_set_check(&set, NULL, &error), -EIO);
        assert_non_null(strstr(error.text, "0000000001.seg"));
        assert_non_null(strstr(error.text, "can't read"));
        segment_set_close(&set);
    }
}

static void test_segments_write_error_is_told_once(void **state)
{
    struct rig r;

    (void) state;
    rig_open(&r, SYNC_ALWAYS, 1);
    append(&r, 1);
    rig_flush(&r);
    wait_synced(&r, 1);
    /* the name of the next segment is taken: making it fails */
    for (unsigned i = 2; i < 4; i++) {
        char name[64];
        char path[128];
        snprintf(name, sizeof(name), "log/%010u.seg", i);
        path_of(name, path);
        close(open(path, O_CREAT | O_WRONLY, 0600));
    }
    for (unsigned i = 0; i < 300 && r.error == 0; i++) {
        append(&r, i + 2);
        rig_flush(&r);
    }
    assert_int_equal(r.error, -EEXIST);
    r.error = 0;
    append(&r, 1000);
    rig_flush(&r);
    assert_int_equal(r.error, 0);
    rig_close(&r);
}

static unsigned descriptors(void)
{
    unsigned n = 0;

    for (int fd = 0; fd < 1024; fd++) {
        n += fcntl(fd, F_GETFD) >= 0;
    }
    return n;
}

/* Complete segments are only mapped: a long life must not use descriptors up. */
static void test_segments_give_descriptors_back(void **state)
{
    unsigned before;
    struct rig r;

    (void) state;
    rig_open(&r, SYNC_ALWAYS, 1);
    append(&r, 1);
    rig_flush(&r);
    wait_synced(&r, 1);
    before = descriptors();
    for (unsigned i = 0; i < 2000; i++) {
        append(&r, i + 2);
        rig_flush(&r);
    }
    wait_synced(&r, r.wal.group - 1);
    assert_true(r.wal.end.segment > 20);
    assert_true(descriptors() <= before + 1); /* the open one, and the one before it */
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_superblock_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_superblock_of_first_release, setup, teardown),
        cmocka_unit_test_setup_teardown(test_superblock_damage_is_told, setup, teardown),
        cmocka_unit_test(test_index_keeps_file_descriptors),
        cmocka_unit_test_setup_teardown(test_segments_write_sync_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_segments_weaker_modes_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_segments_torn_tail_is_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_segments_rot_is_told_and_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_segments_unreadable_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(test_segments_write_error_is_told_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_segments_give_descriptors_back, setup, teardown),
    };

    return cmocka_run_group_tests_name("io_store", tests, NULL, NULL);
}
