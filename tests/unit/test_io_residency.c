/* Mapped pages: which are in memory, which can't be had at all, and reading segments so. Pages of a
 * file's holes are not in memory before they are touched, on every file system. */
#include "io/bus.h"
#include "io/loop.h"
#include "io/residency.h"
#include "io/segments.h"

#include <fcntl.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define PAGE_BYTES ((size_t) 4096)
#define REGION     ((size_t) RESIDENCY_REGION_BYTES)
#define FILE_BYTES (3 * REGION + 5000) /* ends within a page */
#define MAP_BYTES  (4 * REGION)

struct mapped {
    int fd;
    uint8_t *p;
    struct residency *r;
};

static struct mapped mapped_new(void)
{
    char path[] = "/tmp/kumo-residency-XXXXXX";
    struct mapped m = { .fd = mkstemp(path), .r = residency_new() };

    assert_true(m.fd >= 0);
    unlink(path);
    assert_int_equal(ftruncate(m.fd, FILE_BYTES), 0);
    m.p = mmap(NULL, MAP_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, m.fd, 0);
    assert_ptr_not_equal(m.p, MAP_FAILED);
    assert_int_equal(madvise(m.p, MAP_BYTES, MADV_RANDOM), 0); /* only what is touched */
    return m;
}

static void mapped_free(struct mapped *m)
{
    munmap(m->p, MAP_BYTES);
    close(m->fd);
    residency_free(m->r);
}

static void fill(struct mapped *m, size_t from, size_t to)
{
    for (size_t i = from; i < to; i += PAGE_BYTES) {
        m->p[i] = 1;
    }
}

static void evict(struct mapped *m, size_t from, size_t to)
{
    assert_int_equal(fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t) from,
                               (off_t) (to - from)),
                     0);
}

static bool is(struct mapped *m, size_t offset, size_t bytes, uint64_t now_usec)
{
    return residency_is(m->r, m->p, FILE_BYTES, offset, bytes, now_usec);
}

static void test_pages(void **state)
{
    struct mapped m = mapped_new();

    (void) state;
    assert_false(is(&m, 0, 1, 0));
    assert_false(is(&m, 0, FILE_BYTES, 0));
    fill(&m, 5 * PAGE_BYTES, 7 * PAGE_BYTES);
    assert_true(is(&m, 5 * PAGE_BYTES, 1, 0)); /* a region that isn't hot is not remembered so */
    assert_true(is(&m, 5 * PAGE_BYTES, 2 * PAGE_BYTES, 0));
    assert_true(is(&m, 6 * PAGE_BYTES - 10, 20, 0));
    assert_false(is(&m, 5 * PAGE_BYTES - 1, 2, 0));
    assert_false(is(&m, 7 * PAGE_BYTES - 1, 2, 0));
    mapped_free(&m);
}

static void test_across_regions(void **state)
{
    struct mapped m = mapped_new();

    (void) state;
    fill(&m, REGION - PAGE_BYTES, REGION);
    assert_false(is(&m, REGION - 10, 20, 0));
    fill(&m, REGION, 2 * REGION + PAGE_BYTES);
    assert_true(is(&m, REGION - 10, 20, 0));
    assert_true(is(&m, REGION - 10, REGION + 20, 0));
    assert_false(is(&m, REGION - 10, REGION + PAGE_BYTES + 20, 0));
    mapped_free(&m);
}

/* The last region ends with the file, and can be hot although the mapping is longer. */
static void test_end_of_file(void **state)
{
    struct mapped m = mapped_new();

    (void) state;
    fill(&m, 3 * REGION, FILE_BYTES);
    assert_true(is(&m, FILE_BYTES - 1, 1, 0));
    evict(&m, 3 * REGION, 3 * REGION + PAGE_BYTES);
    assert_true(is(&m, 3 * REGION, 1, RESIDENCY_TRUST_USEC - 1)); /* remembered: it was hot */
    mapped_free(&m);
}

static void test_remembers_for_a_while(void **state)
{
    struct mapped m = mapped_new();
    uint64_t t = 77;

    (void) state;
    fill(&m, 0, 2 * REGION);
    assert_true(is(&m, 0, 2 * REGION, t));
    evict(&m, 0, REGION);
    assert_true(is(&m, PAGE_BYTES, 1, t + RESIDENCY_TRUST_USEC - 1));
    assert_false(is(&m, PAGE_BYTES, 1, t + RESIDENCY_TRUST_USEC));
    assert_true(is(&m, REGION, REGION, t + RESIDENCY_TRUST_USEC));
    fill(&m, 0, REGION); /* read by somebody: noticed at once */
    assert_true(is(&m, PAGE_BYTES, 1, t + RESIDENCY_TRUST_USEC));
    mapped_free(&m);
}

/* ---- pages that can't be had ---- */

static void test_touch(void **state)
{
    struct mapped m = mapped_new();
    size_t last = FILE_BYTES / PAGE_BYTES * PAGE_BYTES;

    (void) state;
    assert_int_equal(bus_prepare(), 0);
    for (unsigned i = 0; i < 3; i++) { /* again and again: the handler stays */
        assert_int_equal(bus_touch(m.p, FILE_BYTES), 0);
        assert_int_equal(bus_touch(m.p + last, 2 * PAGE_BYTES), -EIO);
        assert_int_equal(bus_touch(m.p + last + PAGE_BYTES - 1, 2), -EIO);
        assert_int_equal(bus_touch(m.p + last + PAGE_BYTES - 1, 1), 0);
    }
    assert_int_equal(ftruncate(m.fd, PAGE_BYTES), 0);
    assert_int_equal(bus_touch(m.p, PAGE_BYTES), 0);
    assert_int_equal(bus_touch(m.p + REGION, 100), -EIO);
    mapped_free(&m);
}

/* Runs fn in a child; its stderr, and how it ended. */
static int child(void (*fn)(struct mapped *m), struct mapped *m, char *text, size_t text_bytes)
{
    int fds[2];
    int status;
    ssize_t n = 1;
    size_t got = 0;
    pid_t pid;

    assert_int_equal(pipe(fds), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit no_core = { 0, 0 };
        setrlimit(RLIMIT_CORE, &no_core);
        dup2(fds[1], STDERR_FILENO);
        fn(m);
        _exit(0);
    }
    close(fds[1]);
    while (n > 0) {
        n = read(fds[0], text + got, text_bytes - 1 - got);
        got += n > 0 ? (size_t) n : 0;
    }
    text[got] = '\0';
    close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void read_unguarded(struct mapped *m)
{
    (void) *(const volatile uint8_t *) (m->p + REGION);
}

static void read_unguarded_after_it_failed(struct mapped *m)
{
    (void) bus_touch(m->p + REGION, 1);
    read_unguarded(m);
}

static void read_unguarded_after_it_worked(struct mapped *m)
{
    if (ftruncate(m->fd, FILE_BYTES) == 0 && bus_touch(m->p + REGION, 1) == 0 &&
        ftruncate(m->fd, PAGE_BYTES) == 0) {
        read_unguarded(m);
    }
}

static void send_it(struct mapped *m)
{
    (void) m;
    raise(SIGBUS);
}

static void test_unguarded(void **state)
{
    static void (*const fns[])(struct mapped *) = {
        read_unguarded,
        read_unguarded_after_it_failed,
        read_unguarded_after_it_worked,
        send_it,
    };
    struct mapped m = mapped_new();

    (void) state;
    assert_int_equal(bus_prepare(), 0);
    assert_int_equal(ftruncate(m.fd, PAGE_BYTES), 0);
    for (size_t i = 0; i < sizeof(fns) / sizeof(fns[0]); i++) {
        char text[512];
        int status = child(fns[i], &m, text, sizeof(text));
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGBUS);
        assert_non_null(strstr(text, "a mapped file can't be read"));
    }
    mapped_free(&m);
}

/* ---- a segment's reader ---- */

static void never(void *ctx, uint64_t group)
{
    (void) ctx;
    (void) group;
    fail();
}

static void never_fails(void *ctx, int error, const char *what)
{
    (void) ctx;
    (void) error;
    fail_msg("%s", what);
}

static int segment_read(struct segment_writer *w, uint32_t segment, size_t offset, size_t bytes)
{
    const uint8_t *p = NULL;
    int r = segment_writer_read(w, (struct position){ segment, (uint32_t) offset }, bytes, &p);

    assert_int_equal(p != NULL, r == 0);
    return r;
}

static void test_segment_read(void **state)
{
    struct mapped m = mapped_new();
    struct wal_segment found = {
        .number = 1, .data = m.p, .bytes = FILE_BYTES, .good_bytes = FILE_BYTES - 100
    };
    struct segment_set set = { .v = &found, .n = 1, .dir = "/tmp" };
    struct segment_writer_options o = { .set = &set,
                                        .wal = { .first_segment = 2, .shards = 1 },
                                        .residency = m.r,
                                        .on_synced = never,
                                        .on_written = never,
                                        .on_failed = never_fails };
    struct segment_writer *w;

    (void) state;
    assert_int_equal(bus_prepare(), 0);
    assert_int_equal(loop_new(&o.loop), 0);
    assert_int_equal(segment_writer_new(&o, &w), 0);
    assert_int_equal(segment_read(w, 1, 100, 100), -EAGAIN);
    fill(&m, 0, PAGE_BYTES);
    assert_int_equal(segment_read(w, 1, 100, 100), 0);
    assert_int_equal(segment_read(w, 1, PAGE_BYTES - 10, 100), -EAGAIN);
    assert_int_equal(segment_read(w, 1, FILE_BYTES - 200, 101), -ENOENT);
    assert_int_equal(segment_read(w, 0, 0, 1), -ENOENT);
    assert_int_equal(segment_read(w, 2, 0, 1), -ENOENT);
    segment_writer_free(w);

    o.residency = NULL; /* reads wait for the disk */
    assert_int_equal(segment_writer_new(&o, &w), 0);
    assert_int_equal(segment_read(w, 1, REGION, 10), 0);
    assert_int_equal(ftruncate(m.fd, PAGE_BYTES), 0);
    assert_int_equal(segment_read(w, 1, REGION, 10), -EIO);
    assert_int_equal(segment_read(w, 1, 100, 100), 0);
    segment_writer_free(w);
    loop_free(o.loop);
    mapped_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages),        cmocka_unit_test(test_across_regions),
        cmocka_unit_test(test_end_of_file),  cmocka_unit_test(test_remembers_for_a_while),
        cmocka_unit_test(test_touch),        cmocka_unit_test(test_unguarded),
        cmocka_unit_test(test_segment_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
