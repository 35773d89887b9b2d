/* The hash space: where keys belong, for ever, and how copies of the table follow the manager's. */
#include "base/cleanup.h"
#include "base/rng.h"
#include "core/hashspace.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* XXH3, 64 bits, no seed. A key that moved to another partition would be lost: these never change.
 */
static void test_golden(void **state)
{
    static const struct {
        const char *key;
        uint64_t hash;
    } keys[] = {
        { "", 0x2d06800538d394c2 },          { "a", 0xe6c632b61e964e1f },
        { "abc", 0x78af5f94892f3950 },       { "key", 0xbbea0d63a05165e3 },
        { "user:1000", 0xfb6841b2068c0c9f },
    };
    uint8_t longest[250];

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const uint8_t *key = (const uint8_t *) keys[i].key;
        assert_true(hashspace_hash(key, strlen(keys[i].key)) == keys[i].hash);
    }
    memset(longest, 'k', sizeof(longest));
    assert_true(hashspace_hash(longest, sizeof(longest)) == 0xcbe178154c5428f3);
    assert_int_equal(hashspace_partition_of_hash(0xe6c632b61e964e1f, 1024),
                     0x39b); /* top 10 bits */
    assert_int_equal(hashspace_partition_of_hash(0xe6c632b61e964e1f, 16384), 0x39b1);
}

/* The highest bits, for every number of partitions that there may be. */
static void test_partition(void **state)
{
    struct rng rng = { 10 };

    (void) state;
    for (unsigned bits = 0; bits <= 14; bits++) {
        uint32_t n = 1u << bits;
        assert_int_equal(hashspace_partition_of_hash(0, n), 0);
        assert_int_equal(hashspace_partition_of_hash(UINT64_MAX, n), n - 1);
        for (int i = 0; i < 1000; i++) {
            uint64_t hash = rng_u64(&rng);
            uint64_t want = bits == 0 ? 0 : hash >> (64 - bits);
            assert_int_equal(hashspace_partition_of_hash(hash, n), want);
        }
    }
}

static void server_set(struct hashspace *h, uint32_t server, const char *name)
{
    struct hashspace_server s = { .server = server, .shards = 2, .state = SERVER_ATTACHED };

    s.incarnation = server * 10;
    snprintf(s.name, sizeof(s.name), "%s", name);
    snprintf(s.address, sizeof(s.address), "%s:19800", name);
    hashspace_set_server(h, &s);
}

/* A table of 8 partitions and 3 servers at epoch 5, partition 7 without a view. */
static struct hashspace table_new(void)
{
    struct hashspace h = { .epoch = 5, .cluster_id = { 1, 2, 3 } };

    hashspace_set_partitions(&h, 8);
    server_set(&h, 1, "one");
    server_set(&h, 2, "two");
    server_set(&h, 3, "three");
    for (uint16_t p = 0; p < 7; p++) {
        h.rows[p] = (struct view_row){ .partition = p, .view = 3, .n_members = 2, .time_usec = p };
        h.rows[p].members[0] = 1 + p % 3;
        h.rows[p].members[1] = 1 + (p + 1) % 3;
    }
    return h;
}

static int merge(struct hashspace *to, const struct hashspace *from, const uint16_t *changed,
                 size_t n)
{
    _cleanup_(buf_free) struct buf b = { 0 };
    struct mp_reader r;
    int ret;

    hashspace_put(&b, from, changed, n);
    mp_put_nil(&b); /* it takes its own item and no more */
    r = mp_reader_of(b.data, buf_len(&b));
    ret = hashspace_merge(to, &r);
    if (ret == 0) {
        assert_true(mp_peek_nil(&r));
    }
    return ret;
}

static void assert_equal(const struct hashspace *a, const struct hashspace *b)
{
    _cleanup_(buf_free) struct buf x = { 0 };
    _cleanup_(buf_free) struct buf y = { 0 };

    hashspace_put(&x, a, NULL, 0);
    hashspace_put(&y, b, NULL, 0);
    assert_int_equal(buf_len(&x), buf_len(&y));
    assert_memory_equal(x.data, y.data, buf_len(&x));
}

static void test_full(void **state)
{
    struct hashspace h = table_new(), copy = { 0 }, empty = { 0 };

    (void) state;
    assert_int_equal(merge(&copy, &empty, NULL, 0), 0); /* not formed yet */
    assert_int_equal(copy.n_partitions, 0);
    assert_int_equal(merge(&copy, &h, NULL, 0), 0);
    assert_equal(&copy, &h);
    assert_int_equal(merge(&copy, &h, NULL, 0), 0);
    assert_equal(&copy, &h);
    assert_string_equal(hashspace_server(&copy, 3)->name, "three");
    assert_string_equal(hashspace_server(&copy, 3)->address, "three:19800");
    assert_int_equal(hashspace_server(&copy, 3)->incarnation, 30);
    assert_null(hashspace_server(&copy, 0));
    assert_null(hashspace_server(&copy, 4));
    assert_null(hashspace_server(&copy, UINT32_MAX));
    assert_int_equal(copy.rows[7].view, 0);
    assert_int_equal(copy.rows[7].partition, 7);
    hashspace_free(&h);
    hashspace_free(&copy);
    hashspace_free(&copy);
}

static void test_delta(void **state)
{
    struct hashspace h = table_new(), copy = { 0 };
    static const uint16_t changed[] = { 2, 7 };

    (void) state;
    assert_int_equal(merge(&copy, &h, NULL, 0), 0);
    h.epoch = 6;
    h.rows[2].view = 4;
    h.rows[2].n_members = 1;
    h.rows[3].view = 9; /* is not told */
    server_set(&h, 4, "four");
    assert_int_equal(merge(&copy, &h, changed, ARRAY_LEN(changed)), 0);
    assert_int_equal(copy.epoch, 6);
    assert_int_equal(copy.rows[2].view, 4);
    assert_int_equal(copy.rows[2].n_members, 1);
    assert_int_equal(copy.rows[3].view, 3);
    assert_int_equal(copy.rows[7].view, 0);
    assert_string_equal(hashspace_server(&copy, 4)->name, "four");
    hashspace_free(&h);
    hashspace_free(&copy);
}

/* Older epochs and lower views change nothing, whatever order messages come in. */
static void test_older(void **state)
{
    struct hashspace h = table_new(), copy = { 0 }, before = table_new();

    (void) state;
    assert_int_equal(merge(&copy, &h, NULL, 0), 0);
    h.epoch = 4;
    h.rows[1].view = 8;
    server_set(&h, 1, "uno");
    assert_int_equal(merge(&copy, &h, NULL, 0), 0);
    assert_equal(&copy, &before);
    h.epoch = 6;
    h.rows[1].view = 2;
    assert_int_equal(merge(&copy, &h, NULL, 0), 0);
    assert_int_equal(copy.rows[1].view, 3);
    assert_int_equal(copy.epoch, 6);
    hashspace_free(&h);
    hashspace_free(&copy);
    hashspace_free(&before);
}

/* The number of partitions is for ever, and a power of two. */
static void test_partitions_fixed(void **state)
{
    struct hashspace h = table_new(), copy = { 0 };

    (void) state;
    assert_int_equal(merge(&copy, &h, NULL, 0), 0);
    for (uint32_t n = 0; n < 20; n++) {
        struct hashspace other = { .epoch = 9 }, fresh = { 0 };
        bool power = (n & (n - 1)) == 0;
        if (n > 0) {
            hashspace_set_partitions(&other, n);
        }
        assert_int_equal(merge(&copy, &other, NULL, 0), n == 8 ? 0 : -EBADMSG);
        assert_int_equal(merge(&fresh, &other, NULL, 0), power || n == 0 ? 0 : -EBADMSG);
        assert_int_equal(copy.n_partitions, 8);
        hashspace_free(&other);
        hashspace_free(&fresh);
    }
    hashspace_free(&h);
    hashspace_free(&copy);
}

/* Parts of a table, and tables with holes, are refused; what is known stays well-formed. */
static void test_hostile(void **state)
{
    _cleanup_(buf_free) struct buf b = { 0 };
    struct hashspace h = table_new();

    (void) state;
    hashspace_put(&b, &h, NULL, 0);
    for (size_t cut = 0; cut < buf_len(&b); cut++) {
        _cleanup_free_ uint8_t *exact = malloc(cut + 1);
        struct hashspace copy = { 0 };
        struct mp_reader r;
        memcpy(exact, b.data, cut);
        r = mp_reader_of(exact, cut);
        assert_int_equal(hashspace_merge(&copy, &r), -EBADMSG);
        hashspace_free(&copy);
    }
    h.servers[1].server = 3; /* 1, 3, 3 */
    {
        struct hashspace copy = { 0 };
        assert_int_equal(merge(&copy, &h, NULL, 0), -EBADMSG);
        h.servers[1].server = 2;
        h.servers[1].shards = 0;
        assert_int_equal(merge(&copy, &h, NULL, 0), -EBADMSG);
        h.servers[1].shards = 2;
        h.rows[3].partition = 8; /* beyond the table */
        assert_int_equal(merge(&copy, &h, NULL, 0), -EBADMSG);
        h.rows[3].partition = 3;
        assert_int_equal(merge(&copy, &h, NULL, 0), 0);
        assert_equal(&copy, &h);
        hashspace_free(&copy);
    }
    hashspace_free(&h);
}

/* A table that broke off in the middle, and then comes whole: all of it must be taken in, although
 * its epoch was seen before. */
static void test_broken_then_whole(void **state)
{
    _cleanup_(buf_free) struct buf b = { 0 };
    struct hashspace h = table_new();

    (void) state;
    hashspace_put(&b, &h, NULL, 0);
    for (size_t cut = 0; cut < buf_len(&b); cut++) {
        struct hashspace copy = { 0 };
        struct mp_reader r = mp_reader_of(b.data, cut);
        assert_int_equal(hashspace_merge(&copy, &r), -EBADMSG);
        assert_int_equal(merge(&copy, &h, NULL, 0), 0);
        assert_equal(&copy, &h);
        hashspace_free(&copy);
    }
    hashspace_free(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),  cmocka_unit_test(test_partition),
        cmocka_unit_test(test_full),    cmocka_unit_test(test_delta),
        cmocka_unit_test(test_older),   cmocka_unit_test(test_partitions_fixed),
        cmocka_unit_test(test_hostile), cmocka_unit_test(test_broken_then_whole),
    };

    return cmocka_run_group_tests_name("hashspace", tests, NULL, NULL);
}
