/* Finding the end of a message in a stream: whatever the pieces, the limits and the lies. */
#include "base/cleanup.h"
#include "base/rng.h"
#include "wire/mp.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Scans as the bytes arrive: `step` more at a time. The final answer, or 0 when the bytes end. */
static int64_t scan_in_steps(const uint8_t *p, size_t bytes, size_t step, size_t bytes_max)
{
    struct mp_scan s = { 0 };
    size_t have = 0;

    while (have < bytes) {
        size_t need = 0;
        int64_t n;
        have = MIN_OF(have + step, bytes);
        n = mp_scan(&s, p, have, bytes_max, &need);
        if (n != 0) {
            return n;
        }
        assert_true(need > have);
        assert_true(need <= bytes_max); /* else it had to say -EMSGSIZE */
    }
    return 0;
}

static void make(struct rng *rng, struct buf *b, int depth)
{
    static const uint8_t text[700] = { 0 };
    uint32_t n = (uint32_t) rng_below(rng, 5);

    switch (rng_below(rng, depth > 6 ? 4 : 6)) {
    case 0:
        mp_put_uint(b, rng_u64(rng) >> rng_below(rng, 64));
        return;
    case 1:
        mp_put_int(b, (int64_t) (0 - (rng_u64(rng) >> rng_below(rng, 64))));
        return;
    case 2:
        mp_put_bin(b, text, rng_below(rng, sizeof(text)));
        return;
    case 3:
        mp_put_strn(b, (const char *) text, rng_below(rng, 40));
        return;
    case 4:
        mp_put_array(b, n);
        break;
    default:
        mp_put_map(b, n);
        n *= 2;
    }
    for (uint32_t i = 0; i < n; i++) {
        make(rng, b, depth + 1);
    }
}

/* Every split of a message gives the same, with bytes of the next one behind it or not. */
static void test_splits(void **state)
{
    struct rng rng = { 6 };

    (void) state;
    for (int round = 0; round < 400; round++) {
        _cleanup_(buf_free) struct buf b = { 0 };
        size_t len;
        make(&rng, &b, 0);
        len = buf_len(&b);
        buf_append(&b, "\xc1\xc1", 2); /* what follows doesn't matter */
        for (size_t step = 1; step <= len + 2; step += 1 + step / 3) {
            assert_int_equal(scan_in_steps(b.data, len + 2, step, SIZE_MAX), len);
            assert_int_equal(scan_in_steps(b.data, len + 2, step, len), len);
        }
        for (size_t cut = 0; cut < len; cut++) {
            struct mp_scan s = { 0 };
            size_t need = 0;
            assert_int_equal(mp_scan(&s, b.data, cut, SIZE_MAX, &need), 0);
            assert_in_range(need, cut + 1, len);
            assert_int_equal(mp_scan(&s, b.data, len, SIZE_MAX, &need), len);
        }
    }
}

/* Whatever the pieces: a message above the limit is refused, at the latest when the limit is
 * reached. */
static void test_limit(void **state)
{
    struct rng rng = { 7 };

    (void) state;
    for (int round = 0; round < 400; round++) {
        _cleanup_(buf_free) struct buf b = { 0 };
        size_t len;
        make(&rng, &b, 0);
        len = buf_len(&b);
        for (size_t max = 1; max < len; max += 1 + max / 5) {
            for (size_t step = 1; step <= len; step += 1 + step / 2) {
                assert_int_equal(scan_in_steps(b.data, len, step, max), -EMSGSIZE);
                assert_int_equal(scan_in_steps(b.data, max, step, max), -EMSGSIZE);
            }
        }
    }
}

/* What a few bytes announce is refused before anything is reserved for it. */
static void test_announced(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        size_t max;
        int64_t want;
        size_t need;
    } cases[] = {
        { "\xdd\xff\xff\xff\xff", 5, 1 << 20, -EMSGSIZE, 0 },
        { "\xdf\xff\xff\xff\xff", 5, 1 << 20, -EMSGSIZE, 0 },
        { "\xdf\x80\x00\x00\x00", 5, UINT32_MAX, -EMSGSIZE, 0 },
        { "\xc6\xff\xff\xff\xff", 5, 1 << 20, -EMSGSIZE, 0 },
        { "\xdb\xff\xff\xff\xff", 5, 1 << 20, -EMSGSIZE, 0 },
        { "\xc9\xff\xff\xff\xff", 5, 1 << 20, -EMSGSIZE, 0 },
        { "\xc9\xff\xff\xff\xff", 5, SIZE_MAX, 0, 5 + 1 + (size_t) UINT32_MAX },
        { "\xc6\xff\xff\xff\xff", 5, SIZE_MAX, 0, 5 + (size_t) UINT32_MAX },
        { "\x92\xc6\x00\x00\x00\x03", 6, 10, 0, 9 },
        { "\x92\xc6\x00\x00\x00\x03", 6, 9, -EMSGSIZE, 0 },
        { "\xc7\x00", 2, 100, 0, 3 },
        { "\xd8", 1, 18, 0, 18 },
        { "\xd8", 1, 17, -EMSGSIZE, 0 },
        { "\xc1", 1, 100, -EBADMSG, 0 },
        { "\x91\xc1", 2, 100, -EBADMSG, 0 },
        { "\xca\0\0\0\0", 5, 100, 5, 0 },
        { "\xcb\0\0\0\0\0\0\0\0", 9, 100, 9, 0 },
        { "\xca\0\0\0", 4, 100, 0, 5 },
        { "", 0, 100, 0, 1 },
        { "\x90", 1, 1, 1, 0 },
        { "\x90", 1, 0, -EMSGSIZE, 0 },
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct mp_scan s = { 0 };
        size_t need = 0;
        int64_t n =
            mp_scan(&s, (const uint8_t *) cases[i].bytes, cases[i].len, cases[i].max, &need);
        if (n != cases[i].want || need != cases[i].need) {
            fail_msg("case %zu: %lld, need %zu", i, (long long) n, need);
        }
    }
}

/* A million arrays in one another: no recursion, and they end where they end. */
static void test_depth(void **state)
{
    _cleanup_(buf_free) struct buf b = { 0 };
    const size_t depth = 1000000;
    struct mp_scan s = { 0 };
    struct mp_reader r;

    (void) state;
    for (size_t i = 0; i < depth; i++) {
        mp_put_array(&b, 1);
    }
    assert_int_equal(mp_scan(&s, b.data, buf_len(&b), SIZE_MAX, NULL), 0);
    r = mp_reader_of(b.data, buf_len(&b));
    mp_skip(&r);
    assert_true(r.failed);
    mp_put_nil(&b);
    assert_int_equal(mp_scan(&s, b.data, buf_len(&b), SIZE_MAX, NULL), depth + 1);
    r = mp_reader_of(b.data, buf_len(&b));
    mp_skip(&r);
    assert_true(!r.failed && r.p == r.end);
}

/* Arrays that announce as much as fits, in one another: the counts add up, and stay bounded. */
static void test_wide(void **state)
{
    _cleanup_(buf_free) struct buf b = { 0 };
    struct mp_scan s = { 0 };
    struct mp_reader r;

    (void) state;
    for (int i = 0; i < 100; i++) {
        buf_append(&b, "\xdd\xff\xff\xff\xff", 5);
        buf_append(&b, "\xdf\xff\xff\xff\xff", 5);
    }
    assert_int_equal(mp_scan(&s, b.data, buf_len(&b), SIZE_MAX, NULL), 0);
    s = (struct mp_scan){ 0 };
    assert_int_equal(mp_scan(&s, b.data, buf_len(&b), UINT32_MAX, NULL), -EMSGSIZE);
    r = mp_reader_of(b.data, buf_len(&b));
    mp_skip_n(&r, UINT32_MAX);
    assert_true(r.failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_splits),    cmocka_unit_test(test_limit),
        cmocka_unit_test(test_announced), cmocka_unit_test(test_depth),
        cmocka_unit_test(test_wide),
    };

    return cmocka_run_group_tests_name("wire_mp_scan", tests, NULL, NULL);
}
