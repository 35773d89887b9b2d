/* The small things that everything stands on: buffers, lists, maps, checksums, random numbers,
 * state machines. */
#include "base/buf.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/sm.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- buf ---- */

static void test_buf_empty(void **state)
{
    struct buf b = { 0 };

    (void) state;
    assert_int_equal(buf_len(&b), 0);
    buf_append(&b, NULL, 0);
    buf_consume(&b, 0);
    buf_trim(&b, 0);
    assert_null(b.data);
    assert_non_null(buf_reserve(&b, 0));
    buf_trim(&b, 0);
    assert_null(b.data);
    buf_free(&b);
    buf_free(&b);
}

/* Random appends and consumptions against a plain array. */
static void test_buf_model(void **state)
{
    struct rng rng = { 1 };
    struct buf b = { 0 };
    uint8_t bytes[300];
    uint64_t in = 0, out = 0;

    (void) state;
    for (int round = 0; round < 20000; round++) {
        size_t n = rng_below(&rng, sizeof(bytes));
        if (rng_chance(&rng, 1, 2)) {
            for (size_t i = 0; i < n; i++) {
                bytes[i] = (uint8_t) map_hash_u64(in + i);
            }
            buf_append(&b, bytes, n);
            in += n;
        } else {
            n = MIN_OF(n, buf_len(&b));
            for (size_t i = 0; i < n; i++) {
                assert_int_equal(buf_head(&b)[i], (uint8_t) map_hash_u64(out + i));
            }
            buf_consume(&b, n);
            out += n;
        }
        assert_int_equal(buf_len(&b), in - out);
        assert_true(b.start <= b.end && b.end <= b.cap);
    }
    assert_true(b.cap < 1u << 20); /* what was consumed is used again */
    buf_clear(&b);
    assert_int_equal(buf_len(&b), 0);
    buf_trim(&b, SIZE_MAX);
    assert_non_null(b.data);
    buf_trim(&b, 16);
    assert_null(b.data);
}

/* A queue that never runs empty must not grow for ever. */
static void test_buf_steady(void **state)
{
    struct buf b = { 0 };
    uint8_t bytes[1000] = { 0 };

    (void) state;
    buf_append(&b, bytes, 500);
    for (int i = 0; i < 100000; i++) {
        buf_append(&b, bytes, sizeof(bytes));
        buf_consume(&b, sizeof(bytes));
    }
    assert_int_equal(buf_len(&b), 500);
    assert_true(b.cap <= 16384);
    buf_free(&b);
}

/* ---- list ---- */

struct item {
    struct list link;
    int v;
};

static int list_sum(struct list *l)
{
    int sum = 0;

    LIST_FOR_EACH(i, l)
    {
        assert_ptr_equal(i->next->prev, i);
        sum = sum * 10 + LIST_ENTRY(i, struct item, link)->v;
    }
    return sum;
}

static void test_list(void **state)
{
    struct list a, b;
    struct item items[5];

    (void) state;
    list_init(&a);
    list_init(&b);
    for (int i = 0; i < 5; i++) {
        items[i].v = i + 1;
        list_init(&items[i].link);
    }
    assert_true(list_empty(&a));
    list_splice(&a, &b); /* nothing to nothing */
    assert_true(list_empty(&a));
    list_push_back(&a, &items[0].link);
    list_push_back(&a, &items[1].link);
    list_push_front(&a, &items[2].link);
    assert_int_equal(list_sum(&a), 312);
    list_splice(&b, &a);
    assert_true(list_empty(&a));
    assert_int_equal(list_sum(&b), 312);
    list_push_back(&a, &items[3].link);
    list_push_back(&a, &items[4].link);
    list_splice(&b, &a);
    assert_int_equal(list_sum(&b), 31245);
    list_splice(&b, &a);
    assert_int_equal(list_sum(&b), 31245);
    list_remove(&items[0].link);
    list_remove(&items[0].link); /* harmless */
    assert_int_equal(list_sum(&b), 3245);
    LIST_FOR_EACH_SAFE(i, &b)
    {
        if (LIST_ENTRY(i, struct item, link)->v % 2 == 0) {
            list_remove(i);
            list_push_front(&a, i);
        }
    }
    assert_int_equal(list_sum(&b), 35);
    assert_int_equal(list_sum(&a), 42);
}

/* ---- map ---- */

#define NODES 5000

struct thing {
    struct map_node node;
    uint64_t key;
    uint64_t age;
    bool in;
};

static void test_map_model(void **state)
{
    _cleanup_free_ struct thing *t = mem_zalloc(NODES, sizeof(*t));
    struct rng rng = { 2 };
    struct map m = { 0 };
    size_t count = 0;

    (void) state;
    assert_null(map_first(&m, 0));
    assert_null(map_any(&m));
    for (uint64_t round = 1; round < 60000; round++) {
        struct thing *x = &t[rng_below(&rng, NODES)];
        if (x->in) {
            map_remove(&m, &x->node);
            count--;
        } else {
            x->key = rng_below(&rng, NODES / 4); /* several of one hash */
            x->age = round;
            map_insert(&m, &x->node, x->key);
            count++;
        }
        x->in = !x->in;
        assert_int_equal(m.count, count);
        x = &t[rng_below(&rng, NODES)];
        if (x->in) {
            uint64_t age = UINT64_MAX;
            bool found = false;
            for (struct map_node *i = map_first(&m, x->key); i; i = map_next(i)) {
                struct thing *y = MAP_ENTRY(i, struct thing, node);
                assert_int_equal(y->key, x->key);
                assert_true(y->age < age); /* the newest first */
                age = y->age;
                found |= y == x;
            }
            assert_true(found);
        }
    }
    for (struct map_node *i; (i = map_any(&m)); count--) {
        map_remove(&m, i);
    }
    assert_int_equal(count, 0);
    map_free(&m);
}

/* ---- numbers ---- */

static void test_bytes(void **state)
{
    uint8_t b[8];

    (void) state;
    bytes_put_u64(b, 0x0123456789abcdefULL);
    assert_memory_equal(b, "\xef\xcd\xab\x89\x67\x45\x23\x01", 8);
    assert_true(bytes_get_u64(b) == 0x0123456789abcdefULL);
    bytes_put_u32(b + 1, 0xfffefdfcu);
    assert_true(bytes_get_u32(b + 1) == 0xfffefdfcu);
    bytes_put_u16(b + 3, 0xa55a);
    assert_int_equal(bytes_get_u16(b + 3), 0xa55a);
}

/* RFC 3720, B.4, and the check value of the catalogues. */
static void test_crc32c(void **state)
{
    uint8_t many[300];
    uint8_t b[48];
    static const uint8_t scsi[48] = {
        0x01, 0xc0, 0, 0,    0, 0, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 4, 0,
        0,    0,    0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0,
    };

    (void) state;
    for (size_t i = 0; i < sizeof(many); i++) {
        many[i] = (uint8_t) (i * 7 + i / 3);
    }
    assert_true(crc32c(0, "", 0) == 0);
    assert_true(crc32c(0, "123456789", 9) == 0xe3069283u);
    assert_true(crc32c(0, "a", 1) == 0xc1d04330u);
    memset(b, 0, 32);
    assert_true(crc32c(0, b, 32) == 0x8a9136aau);
    memset(b, 0xff, 32);
    assert_true(crc32c(0, b, 32) == 0x62a8ab43u);
    for (int i = 0; i < 32; i++) {
        b[i] = (uint8_t) i;
    }
    assert_true(crc32c(0, b, 32) == 0x46dd794eu);
    for (int i = 0; i < 32; i++) {
        b[i] = (uint8_t) (31 - i);
    }
    assert_true(crc32c(0, b, 32) == 0x113fdb5cu);
    assert_true(crc32c(0, scsi, 48) == 0xd9963a56u);
    for (size_t begin = 0; begin < 16; begin++) { /* with and without the processor's help */
        for (size_t bytes = 0; begin + bytes <= sizeof(many); bytes++) {
            assert_true(crc32c(7, many + begin, bytes) == crc32c_portable(7, many + begin, bytes));
        }
    }
}

/* In pieces, and at any alignment, it is the same. */
static void test_crc32c_pieces(void **state)
{
    uint8_t data[200];
    struct rng rng = { 3 };

    (void) state;
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t) rng_u64(&rng);
    }
    for (size_t begin = 0; begin < 9; begin++) {
        for (size_t cut = begin; cut <= sizeof(data); cut++) {
            uint32_t slow = ~0u;
            for (size_t i = begin; i < sizeof(data); i++) {
                slow ^= data[i];
                for (int k = 0; k < 8; k++) {
                    slow = slow >> 1 ^ (slow & 1 ? 0x82f63b78u : 0);
                }
            }
            assert_true(crc32c(crc32c(0, data + begin, cut - begin), data + cut,
                               sizeof(data) - cut) == ~slow);
        }
    }
}

/* splitmix64 as published: the numbers of a seed never change. */
static void test_rng(void **state)
{
    struct rng r = { 1234567 };
    bool seen[7] = { false };

    (void) state;
    assert_true(rng_u64(&r) == 6457827717110365317ULL);
    assert_true(rng_u64(&r) == 3203168211198807973ULL);
    assert_true(rng_u64(&r) == 9817491932198370423ULL);
    for (int i = 0; i < 1000; i++) {
        uint64_t v = rng_between(&r, 10, 16);
        assert_in_range(v, 10, 16);
        seen[v - 10] = true;
        assert_int_equal(rng_below(&r, 1), 0);
        assert_true(rng_chance(&r, 1, 1));
        assert_false(rng_chance(&r, 0, 5));
        assert_int_equal(rng_between(&r, UINT64_MAX, UINT64_MAX), UINT64_MAX);
        (void) rng_between(&r, 1, UINT64_MAX);
    }
    for (int i = 0; i < 7; i++) {
        assert_true(seen[i]);
    }
}

static void test_mem_grow(void **state)
{
    uint32_t *v = NULL;
    size_t cap = 0;

    (void) state;
    for (uint32_t n = 0; n < 1000; n++) {
        mem_grow(&v, &cap, n + 1, sizeof(*v));
        assert_true(cap > n);
        v[n] = n;
    }
    for (uint32_t n = 0; n < 1000; n++) {
        assert_int_equal(v[n], n);
    }
    free(v);
}

/* ---- state machines ---- */

static const struct sm_table lamp = {
    .name = "lamp",
    .n_states = 3,
    .state_names = { "off", "on", "broken" },
    .next = { [0] = SM_TO(1) | SM_TO(2), [1] = SM_TO(0) | SM_TO(2) },
};

/* Does the move end the process? */
static bool move_dies(uint8_t from, uint8_t to)
{
    pid_t pid = fork();
    int status = 0;

    if (pid == 0) {
        fclose(stderr);
        signal(SIGABRT, SIG_DFL);
        sm_move(&lamp, &from, to);
        _exit(from == to ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

static void test_sm(void **state)
{
    (void) state;
    for (uint8_t from = 0; from < 4; from++) {
        for (uint8_t to = 0; to < 4; to++) {
            bool allowed = from < 2 && to < 3 && from != to;
            assert_int_equal(move_dies(from, to), !allowed);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buf_empty),  cmocka_unit_test(test_buf_model),
        cmocka_unit_test(test_buf_steady), cmocka_unit_test(test_list),
        cmocka_unit_test(test_map_model),  cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_crc32c),     cmocka_unit_test(test_crc32c_pieces),
        cmocka_unit_test(test_rng),        cmocka_unit_test(test_mem_grow),
        cmocka_unit_test(test_sm),
    };

    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
