/* Records that are not in memory: the threads that read them. A FIFO in a segment's place holds a
 * thread up for as long as a test wants. */
#include "base/cleanup.h"
#include "base/rng.h"
#include "io/loop.h"
#include "io/readers.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define SEGMENTS      3
#define SEGMENT_BYTES 100000
#define FIFO_SEGMENT  9
#define READS_MAX     20000
#define TURNS_MAX     200000

static char dir[64];
static int dir_fd;

static uint8_t byte_at(uint32_t segment, uint32_t offset)
{
    return (uint8_t) (segment * 31 + offset * 7 + offset / 256);
}

static const char *name_of(uint32_t segment)
{
    static char name[32];

    snprintf(name, sizeof(name), "%010u.seg", segment);
    return name;
}

static int setup(void **state)
{
    (void) state;
    strcpy(dir, "/tmp/kumo-readers-XXXXXX");
    if (!mkdtemp(dir)) {
        return -1;
    }
    dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (uint32_t s = 1; s <= SEGMENTS; s++) {
        static uint8_t bytes[SEGMENT_BYTES];
        int fd = openat(dir_fd, name_of(s), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        for (uint32_t i = 0; i < SEGMENT_BYTES; i++) {
            bytes[i] = byte_at(s, i);
        }
        if (write(fd, bytes, sizeof(bytes)) != (ssize_t) sizeof(bytes)) {
            return -1;
        }
        close(fd);
    }
    return mkfifoat(dir_fd, name_of(FIFO_SEGMENT), 0600);
}

static int teardown(void **state)
{
    (void) state;
    for (uint32_t s = 1; s <= SEGMENTS; s++) {
        unlinkat(dir_fd, name_of(s), 0);
    }
    unlinkat(dir_fd, name_of(FIFO_SEGMENT), 0);
    close(dir_fd);
    return rmdir(dir);
}

/* ---- one who asks ---- */

struct rig {
    struct loop *loop;
    struct reader *reader;
    struct position at[READS_MAX];
    size_t bytes[READS_MAX];
    uint8_t done[READS_MAX]; /* times */
    int error[READS_MAX];
    unsigned asked;
    unsigned answered;
};

static void on_read(void *ctx, uint64_t number, int error, const uint8_t *data, size_t bytes)
{
    struct rig *r = ctx;

    assert_true(number < r->asked);
    r->done[number]++;
    r->error[number] = error;
    r->answered++;
    assert_int_equal(bytes, error < 0 ? 0 : r->bytes[number]);
    for (size_t i = 0; i < bytes; i++) {
        assert_int_equal(data[i],
                         byte_at(r->at[number].segment, r->at[number].offset + (uint32_t) i));
    }
}

static struct rig *rig_new(struct readers *pool)
{
    struct rig *r = calloc(1, sizeof(*r));
    struct reader_options o = { .pool = pool, .dir_fd = dir_fd, .on_read = on_read, .ctx = r };

    assert_int_equal(loop_new(&r->loop), 0);
    o.loop = r->loop;
    r->reader = reader_new(&o);
    return r;
}

static void rig_free(struct rig *r)
{
    reader_free(r->reader);
    loop_free(r->loop);
    free(r);
}

static int ask(struct rig *r, uint32_t segment, uint32_t offset, size_t bytes)
{
    int err;

    assert_true(r->asked < READS_MAX);
    r->at[r->asked] = (struct position){ segment, offset };
    r->bytes[r->asked] = bytes;
    err = reader_ask(r->reader, r->asked, r->at[r->asked], bytes);
    r->asked += err == 0;
    return err;
}

static void answers_wait(struct rig *r)
{
    for (unsigned i = 0; i < TURNS_MAX && r->answered < r->asked; i++) {
        loop_turn(r->loop, true);
    }
    assert_int_equal(r->answered, r->asked);
    for (unsigned i = 0; i < r->asked; i++) {
        assert_int_equal(r->done[i], 1);
    }
}

/* Lets the thread go that reads the FIFO, or soon will. */
static void fifo_open(void)
{
    int fd = openat(dir_fd, name_of(FIFO_SEGMENT), O_WRONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    close(fd);
}

/* ---- tests ---- */

static void test_reads(void **state)
{
    struct rng rng = { 4 };
    struct readers *pool;
    struct rig *r;

    (void) state;
    assert_int_equal(readers_new(READERS_THREADS_DEFAULT, &pool), 0);
    r = rig_new(pool);
    for (unsigned i = 0; i < 1000; i++) {
        size_t bytes = rng_between(&rng, 1, 3000);
        assert_int_equal(ask(r, (uint32_t) rng_between(&rng, 1, SEGMENTS),
                             (uint32_t) rng_below(&rng, SEGMENT_BYTES - bytes), bytes),
                         0);
    }
    answers_wait(r);
    for (unsigned i = 0; i < r->asked; i++) {
        assert_int_equal(r->error[i], 0);
    }
    rig_free(r);
    readers_free(pool);
}

static void test_what_can_not_be_read(void **state)
{
    struct readers *pool;
    struct rig *r;

    (void) state;
    assert_int_equal(readers_new(1, &pool), 0);
    r = rig_new(pool);
    assert_int_equal(unlinkat(dir_fd, name_of(2), 0), 0); /* compaction was quicker */
    assert_int_equal(ask(r, 2, 0, 10), 0);
    assert_int_equal(ask(r, 1, SEGMENT_BYTES - 10, 11), 0);
    assert_int_equal(ask(r, 1, SEGMENT_BYTES + 1, 1), 0);
    assert_int_equal(ask(r, 1, SEGMENT_BYTES - 10, 10), 0);
    answers_wait(r);
    assert_int_equal(r->error[0], -ENOENT);
    assert_int_equal(r->error[1], -EIO);
    assert_int_equal(r->error[2], -EIO);
    assert_int_equal(r->error[3], 0);
    rig_free(r);
    readers_free(pool);
}

/* The limit is all loops': beyond it nothing is asked, and what was asked is answered. */
static void test_too_many(void **state)
{
    struct readers *pool;
    struct rig *r;
    struct rig *other;

    (void) state;
    assert_int_equal(readers_new(1, &pool), 0);
    r = rig_new(pool);
    other = rig_new(pool);
    assert_int_equal(ask(r, FIFO_SEGMENT, 0, 1), 0);
    for (unsigned i = 1; i < READERS_ASKED_MAX; i++) {
        assert_int_equal(ask(i % 2 ? r : other, 1, i, 10), 0);
    }
    assert_int_equal(ask(r, 1, 0, 10), -ENOBUFS);
    assert_int_equal(ask(other, 1, 0, 10), -ENOBUFS);
    fifo_open();
    answers_wait(r);
    answers_wait(other);
    assert_int_equal(r->error[0], -ESPIPE);
    assert_int_equal(ask(r, 1, 0, 10), 0);
    answers_wait(r);
    assert_int_equal(r->answered + other->answered, READERS_ASKED_MAX + 1);
    rig_free(r);
    rig_free(other);
    readers_free(pool);
}

static void test_too_many_bytes(void **state)
{
    struct readers *pool;
    struct rig *r;

    (void) state;
    assert_int_equal(readers_new(1, &pool), 0);
    r = rig_new(pool);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(ask(r, FIFO_SEGMENT, 0, 1), 0);
        assert_int_equal(ask(r, 1, 0, READERS_BYTES_MAX), -ENOBUFS);
        assert_int_equal(ask(r, 1, 0, READERS_BYTES_MAX - 1), 0);
        assert_int_equal(ask(r, 1, 0, 1), -ENOBUFS);
        fifo_open();
        answers_wait(r);
        assert_int_equal(r->error[2 * i + 1], -EIO); /* the file is not as long */
    }
    assert_int_equal(ask(r, 1, 0, READERS_BYTES_MAX + 1), 0); /* alone it may be larger */
    answers_wait(r);
    rig_free(r);
    readers_free(pool);
}

/* After a while, and only if a thread reads it. */
static void *fifo_open_later(void *arg)
{
    int fd = -1;

    for (unsigned i = 0; i < 100 && fd < 0; i++) {
        usleep(10000);
        fd = openat(dir_fd, name_of(FIFO_SEGMENT), O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    }
    if (fd >= 0) {
        close(fd);
    }
    *(bool *) arg = fd >= 0;
    return NULL;
}

/* A reader goes while one of its reads is in a thread's hands and others wait: none is answered,
 * another one's are. */
static void test_free_with_reads_under_way(void **state)
{
    struct readers *pool;
    struct rig *r;
    struct rig *other;
    pthread_t opener;
    bool opened;

    (void) state;
    assert_int_equal(readers_new(1, &pool), 0);
    r = rig_new(pool);
    other = rig_new(pool);
    assert_int_equal(ask(r, FIFO_SEGMENT, 0, 1), 0);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(ask(i % 2 ? r : other, 1, i, 10), 0);
    }
    usleep(100000); /* the thread reads the FIFO now */
    assert_int_equal(pthread_create(&opener, NULL, fifo_open_later, &opened), 0);
    r->reader = reader_free(r->reader);
    pthread_join(opener, NULL);
    assert_true(opened);
    answers_wait(other);
    loop_turn(r->loop, false);
    assert_int_equal(r->answered, 0);
    rig_free(r);
    rig_free(other);
    readers_free(pool);
}

/* What is posted when the reader goes finds it gone, even behind the pool. */
static void test_free_with_answers_posted(void **state)
{
    struct readers *pool;
    struct rig *r;

    (void) state;
    assert_int_equal(readers_new(2, &pool), 0);
    r = rig_new(pool);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(ask(r, 1, i, 10), 0);
    }
    usleep(20000);
    r->reader = reader_free(r->reader);
    readers_free(pool);
    for (unsigned i = 0; i < 3; i++) {
        loop_turn(r->loop, false);
    }
    assert_int_equal(r->answered, 0);
    rig_free(r);
}

/* Several loops ask at once, beyond the limit now and then: nothing is lost, nothing comes twice.
 */
static void *ask_much(void *arg)
{
    struct rig *r = arg;
    struct rng rng = { (uintptr_t) r };

    while (r->asked < READS_MAX) {
        if (ask(r, (uint32_t) rng_between(&rng, 1, SEGMENTS),
                (uint32_t) rng_below(&rng, SEGMENT_BYTES - 100), 100) == -ENOBUFS) {
            usleep(100); /* the others may hold all there are */
            loop_turn(r->loop, false);
        }
    }
    answers_wait(r);
    return NULL;
}

static void test_many_loops(void **state)
{
    struct readers *pool;
    struct rig *rigs[3];
    pthread_t threads[3];

    (void) state;
    assert_int_equal(readers_new(READERS_THREADS_DEFAULT, &pool), 0);
    for (unsigned i = 0; i < 3; i++) {
        rigs[i] = rig_new(pool);
    }
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, ask_much, rigs[i]), 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        rig_free(rigs[i]);
    }
    readers_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_can_not_be_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_many, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_many_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_free_with_reads_under_way, setup, teardown),
        cmocka_unit_test_setup_teardown(test_free_with_answers_posted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_loops, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
