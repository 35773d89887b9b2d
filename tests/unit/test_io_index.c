/* The index on Tokyo Cabinet against the plain map, above all while its records are being moved
 * into a new database, which shows in the file descriptors that it has open. */
#include "base/rng.h"
#include "core/index_map.h"
#include "io/index_tc.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#define FDS_STILL  2 /* of one index */
#define FDS_MOVING 4

static int fds_before;

/* Open in this process since the test began. */
static int fds_open(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = -fds_before - 3; /* ".", ".." and the folder itself */

    assert_non_null(d);
    while (readdir(d)) {
        n++;
    }
    closedir(d);
    return n;
}

static int setup(void **state)
{
    (void) state;
    fds_before = 0;
    fds_before = fds_open();
    return 0;
}

/* ---- against a model ---- */

struct pair {
    struct index *tc;
    struct index *map;
    unsigned changes;
    size_t walked;
};

/* Keys of 1 to 250 bytes; the same number is the same key. */
static size_t key_make(uint64_t number, char key[256])
{
    struct rng rng = { number };
    size_t n = rng_chance(&rng, 1, 20) ? 250 : rng_between(&rng, 8, 40);

    memset(key, 'a' + (int) (number % 26), n);
    memcpy(key, &number, sizeof(number));
    return n;
}

static size_t plain_key(unsigned i, char key[64])
{
    return (size_t) snprintf(key, 64, "key-%016llx", i * 0x9e3779b97f4a7c15ULL);
}

static void assert_records_equal(const struct index_record *a, const struct index_record *b)
{
    assert_int_equal(a->seq, b->seq);
    assert_int_equal(position_compare(a->at, b->at), 0);
    assert_int_equal(a->bytes, b->bytes);
    assert_int_equal(a->expiry_sec, b->expiry_sec);
    assert_int_equal(a->kind, b->kind);
}

static void pair_open(struct pair *p)
{
    *p = (struct pair){ 0 };
    assert_int_equal(index_tc_open(NULL, 3, &p->tc), 0);
    assert_int_equal(index_map_open(NULL, 3, &p->map), 0);
}

static void pair_close(struct pair *p)
{
    p->tc->ops->free(p->tc);
    p->map->ops->free(p->map);
    assert_int_equal(index_tc_bytes(), 0);
    assert_int_equal(fds_open(), 0);
}

static void pair_change(struct pair *p, uint64_t number, bool drop)
{
    char key[256];
    size_t n = key_make(number, key);
    uint32_t i = p->changes++;
    struct index_record rec = { .seq = i,
                                .at = { i + 1, i * 2 },
                                .bytes = i % 1000,
                                .expiry_sec = i % 3 ? 0 : i,
                                .kind = i % 5 ? ENTRY_SET : ENTRY_DELETE };
    struct index_record a;
    struct index_record b;
    int ra;

    if (drop) {
        ra = p->tc->ops->drop(p->tc, (uint8_t *) key, n, &a);
        assert_int_equal(ra, p->map->ops->drop(p->map, (uint8_t *) key, n, &b));
    } else {
        ra = p->tc->ops->put(p->tc, (uint8_t *) key, n, &rec, &a);
        assert_int_equal(ra, p->map->ops->put(p->map, (uint8_t *) key, n, &rec, &b));
    }
    if (ra > 0) {
        assert_records_equal(&a, &b);
    }
    assert_int_equal(p->tc->ops->count(p->tc), p->map->ops->count(p->map));
}

static void pair_get(struct pair *p, uint64_t number)
{
    char key[256];
    size_t n = key_make(number, key);
    struct index_record a;
    struct index_record b;
    int ra = p->tc->ops->get(p->tc, (uint8_t *) key, n, &a);

    assert_int_equal(ra, p->map->ops->get(p->map, (uint8_t *) key, n, &b));
    if (ra == 0) {
        assert_records_equal(&a, &b);
    }
}

static void walked_one(void *ctx, const uint8_t *key, size_t key_len,
                       const struct index_record *rec)
{
    struct pair *p = ctx;
    struct index_record r;

    p->walked++;
    assert_int_equal(p->map->ops->get(p->map, key, key_len, &r), 0);
    assert_records_equal(&r, rec);
}

/* Every record is walked, with its key: as many as there are, and each is one of the model's. */
static void pair_walk(struct pair *p)
{
    p->walked = 0;
    p->tc->ops->walk(p->tc, walked_one, p);
    assert_int_equal(p->walked, p->map->ops->count(p->map));
}

/* Phases of growing, shrinking and standing; what is asked while a move is under way counts. */
static void test_equals_map(void **state)
{
    static const unsigned drops_percent[] = { 10, 85, 30, 95, 5, 50 };
    struct rng rng = { 7 };
    struct pair p;
    unsigned moving = 0;
    unsigned walks_moving = 0;

    (void) state;
    pair_open(&p);
    for (unsigned i = 0; i < 150000; i++) {
        unsigned phase = i / 25000;
        pair_change(&p, rng_below(&rng, 40000), rng_chance(&rng, drops_percent[phase], 100));
        pair_get(&p, rng_below(&rng, 40000));
        if (i % 97 == 0 && fds_open() == FDS_MOVING) {
            moving++;
            if (moving % 4 == 0) {
                pair_walk(&p);
                walks_moving++;
            }
        }
    }
    pair_walk(&p);
    for (uint64_t number = 0; number < 40000; number++) {
        pair_get(&p, number);
    }
    assert_true(moving > 20);
    assert_true(walks_moving > 5);
    pair_close(&p);
}

/* Each step of one move: overwrites, drops of what was moved and of what was not, and walks. */
static void test_every_step_of_a_move(void **state)
{
    struct rng rng = { 1 };
    struct pair p;
    uint64_t n = 0;
    unsigned steps = 0;

    (void) state;
    pair_open(&p);
    while (fds_open() == FDS_STILL) {
        pair_change(&p, n++, false);
    }
    while (fds_open() == FDS_MOVING) {
        pair_change(&p, rng_below(&rng, n), rng_chance(&rng, 1, 3));
        pair_walk(&p);
        for (uint64_t number = 0; number < n; number++) {
            pair_get(&p, number);
        }
        steps++;
    }
    assert_true(steps > 30);
    pair_close(&p);
}

/* ---- limits ---- */

static void put_plain(struct index *x, unsigned i)
{
    char key[64];
    size_t n = plain_key(i, key);
    struct index_record rec = { .seq = i, .kind = ENTRY_SET };
    struct index_record old;

    assert_int_equal(x->ops->put(x, (uint8_t *) key, n, &rec, &old), 0);
}

static void drop_plain(struct index *x, unsigned i)
{
    char key[64];
    size_t n = plain_key(i, key);
    struct index_record old;

    assert_int_equal(x->ops->drop(x, (uint8_t *) key, n, &old), 1);
    assert_int_equal(old.seq, i);
}

/* No put does more than a small share of a move: it takes at least one for each 64 records. */
static void test_growth_is_spread(void **state)
{
    struct index *x;
    unsigned n = 0;
    unsigned began;

    (void) state;
    assert_int_equal(index_tc_open(NULL, 0, &x), 0);
    while (n < 20000 || fds_open() == FDS_STILL) {
        put_plain(x, n++);
    }
    began = n;
    while (fds_open() == FDS_MOVING) {
        put_plain(x, n++);
    }
    assert_true(n - began >= began / 64);
    assert_true(n - began < began); /* and it ends before the next one is needed */
    x->ops->free(x);
}

/* What one record takes, all in all. */
static void test_bytes_per_record(void **state)
{
    struct index *x;

    (void) state;
    assert_int_equal(index_tc_open(NULL, 0, &x), 0);
    assert_true(index_tc_bytes() <= 32768);
    for (unsigned i = 0; i < 100000; i++) {
        put_plain(x, i);
        if (i == 9999) {
            assert_in_range(index_tc_bytes(), 10000 * 65, 10000 * 90);
        }
    }
    assert_in_range(index_tc_bytes(), 100000 * 65, 100000 * 90);
    x->ops->free(x);
    assert_int_equal(index_tc_bytes(), 0);
}

/* Keys that come and go leave holes; the file doesn't grow with them. */
static void test_holes_are_closed(void **state)
{
    struct index *x;
    uint64_t highest = 0;

    (void) state;
    assert_int_equal(index_tc_open(NULL, 0, &x), 0);
    for (unsigned i = 0; i < 300000; i++) {
        put_plain(x, i);
        if (i >= 10000) {
            drop_plain(x, i - 10000);
        }
        highest = index_tc_bytes() > highest ? index_tc_bytes() : highest;
    }
    assert_int_equal(x->ops->count(x), 10000);
    assert_true(highest < 10000 * 250);
    x->ops->free(x);
}

static void test_reserve(void **state)
{
    struct index *x;

    (void) state;
    assert_int_equal(index_tc_open(NULL, 0, &x), 0);
    x->ops->reserve(x, 100000);
    for (unsigned i = 0; i < 100000; i++) {
        put_plain(x, i);
        if (i % 64 == 0) {
            assert_int_equal(fds_open(), FDS_STILL);
        }
    }
    assert_int_equal(x->ops->count(x), 100000);
    x->ops->free(x);
}

/* No new database can be made: the old one goes on. The next try comes later, not with each put. */
static void test_growth_fails_for_a_while(void **state)
{
    struct index *x;
    struct rlimit limit;
    struct rlimit none;
    unsigned n = 0;
    unsigned freed;

    (void) state;
    assert_int_equal(index_tc_open(NULL, 0, &x), 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = (struct rlimit){ .rlim_cur = 0, .rlim_max = limit.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    while (n < 10000) {
        put_plain(x, n++);
    }
    assert_int_equal(x->ops->count(x), n);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    freed = n;
    while (fds_open() == FDS_STILL) {
        put_plain(x, n++);
        assert_true(n < freed + 10000);
    }
    assert_true(n > freed + 1);
    while (fds_open() == FDS_MOVING) {
        put_plain(x, n++);
    }
    for (unsigned i = 0; i < n; i++) {
        drop_plain(x, i);
    }
    x->ops->free(x);
}

static void test_open_without_descriptors(void **state)
{
    struct index *x = NULL;
    struct rlimit limit;
    struct rlimit few;
    int free_fd = dup(STDERR_FILENO);

    (void) state;
    close(free_fd);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    for (rlim_t n = 0; n < 2; n++) { /* not even the memfd; the memfd but not the library's */
        few = (struct rlimit){ .rlim_cur = (rlim_t) free_fd + n, .rlim_max = limit.rlim_max };
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
        assert_int_equal(index_tc_open(NULL, 0, &x), -EMFILE);
        assert_null(x);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
        assert_int_equal(fds_open(), 0);
        assert_int_equal(index_tc_bytes(), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_equals_map, setup),
        cmocka_unit_test_setup(test_every_step_of_a_move, setup),
        cmocka_unit_test_setup(test_growth_is_spread, setup),
        cmocka_unit_test_setup(test_bytes_per_record, setup),
        cmocka_unit_test_setup(test_holes_are_closed, setup),
        cmocka_unit_test_setup(test_reserve, setup),
        cmocka_unit_test_setup(test_growth_fails_for_a_while, setup),
        cmocka_unit_test_setup(test_open_without_descriptors, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
