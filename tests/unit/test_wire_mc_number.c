/* memcached's numbers, counters and times. */
#include "base/cleanup.h"
#include "wire/mc_number.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static int u64_of(const char *s, uint64_t *ret)
{
    return mc_parse_u64((const uint8_t *) s, strlen(s), ret);
}

static void test_numbers(void **state)
{
    uint64_t u64 = 7;
    uint32_t u32 = 7;
    int32_t i32 = 7;

    (void) state;
    assert_int_equal(u64_of("", &u64), -EINVAL);
    assert_int_equal(u64_of("+", &u64), -EINVAL);
    assert_int_equal(u64_of("++1", &u64), -EINVAL);
    assert_int_equal(u64_of("-0", &u64), -EINVAL);
    assert_int_equal(u64_of("1 ", &u64), -EINVAL);
    assert_int_equal(u64_of("18446744073709551616", &u64), -ERANGE);
    assert_int_equal(u64_of("99999999999999999999", &u64), -ERANGE);
    assert_int_equal(u64_of("184467440737095516150", &u64), -ERANGE);
    assert_int_equal(u64, 7);
    assert_int_equal(u64_of("00000000000000000000000018446744073709551615", &u64), 0);
    assert_true(u64 == UINT64_MAX);
    assert_int_equal(mc_parse_u32((const uint8_t *) "4294967296", 10, &u32), -ERANGE);
    assert_int_equal(u32, 7);
    assert_int_equal(mc_parse_u32((const uint8_t *) "4294967295", 10, &u32), 0);
    assert_true(u32 == UINT32_MAX);
    assert_int_equal(mc_parse_i32((const uint8_t *) "-", 1, &i32), -EINVAL);
    assert_int_equal(mc_parse_i32((const uint8_t *) "-+1", 3, &i32), -EINVAL);
    assert_int_equal(mc_parse_i32((const uint8_t *) "2147483648", 10, &i32), -ERANGE);
    assert_int_equal(mc_parse_i32((const uint8_t *) "-2147483649", 11, &i32), -ERANGE);
    assert_int_equal(i32, 7);
    assert_int_equal(mc_parse_i32((const uint8_t *) "-2147483648", 11, &i32), 0);
    assert_int_equal(i32, INT32_MIN);
    assert_int_equal(mc_parse_i32((const uint8_t *) "2147483647", 10, &i32), 0);
    assert_int_equal(i32, INT32_MAX);
}

static void test_format(void **state)
{
    uint8_t out[MC_U64_CHARS_MAX + 1];
    uint64_t v = 1;

    (void) state;
    for (int i = 0; i < 21; i++, v *= 10) {
        for (uint64_t n = v - 2; n != v + 3; n++) {
            char want[32];
            size_t len = mc_format_u64(out, n);

            snprintf(want, sizeof(want), "%llu", (unsigned long long) n);
            out[len] = '\0';
            assert_string_equal((const char *) out, want);
        }
    }
    assert_int_equal(mc_format_u64(out, UINT64_MAX), MC_U64_CHARS_MAX);
    assert_memory_equal(out, "18446744073709551615", MC_U64_CHARS_MAX);
}

static void test_counter_values(void **state)
{
    static const char *const bad[] = { "",
                                       " ",
                                       "-1",
                                       "+5",
                                       "5x",
                                       "5 x",
                                       " 5",
                                       "0x5",
                                       "1e3",
                                       "18446744073709551616",
                                       "000000000000000000001" };
    static const char *const good[] = {
        "5", "5 ", "5\r\n", "05", "00000000000000000005", "5                        "
    };
    uint64_t v = 0;

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(mc_parse_counter((const uint8_t *) bad[i], strlen(bad[i]), &v), -EINVAL);
    }
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_int_equal(mc_parse_counter((const uint8_t *) good[i], strlen(good[i]), &v), 0);
        assert_int_equal(v, 5);
    }
    assert_int_equal(mc_parse_counter((const uint8_t *) "18446744073709551615", 20, &v), 0);
    assert_true(v == UINT64_MAX);
}

static void test_exptime(void **state)
{
    const uint32_t now = 1700000000;

    (void) state;
    assert_int_equal(mc_exptime_to_unix(0, now), MC_UNIX_NEVER);
    assert_int_equal(mc_exptime_to_unix(-1, now), MC_UNIX_EXPIRED);
    assert_int_equal(mc_exptime_to_unix(INT64_MIN, now), MC_UNIX_EXPIRED);
    assert_int_equal(mc_exptime_to_unix(1, now), now + 1);
    assert_int_equal(mc_exptime_to_unix(2592000, now), now + 2592000);
    assert_int_equal(mc_exptime_to_unix(2592001, now), 2592001);
    assert_int_equal(mc_exptime_to_unix(now + 5, now), now + 5);
    assert_true(mc_exptime_to_unix(2592000, UINT32_MAX - 1) == UINT32_MAX);
    assert_true(mc_exptime_to_unix(UINT32_MAX, now) == UINT32_MAX);
    assert_true(mc_exptime_to_unix(INT64_MAX, now) == UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_counter_values),
        cmocka_unit_test(test_exptime),
    };

    return cmocka_run_group_tests_name("wire_mc_number", tests, NULL, NULL);
}
