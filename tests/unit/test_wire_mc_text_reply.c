/* The answers of memcached's text protocol. */
#include "wire/mc_text_reply.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define K50  "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"
#define K250 K50 K50 K50 K50 K50

static void check_line(int len, const uint8_t *line, const char *want)
{
    assert_int_equal(len, (int) strlen(want));
    assert_memory_equal(line, want, strlen(want));
}

static void test_replies(void **state)
{
    const uint8_t *key = (const uint8_t *) K250;
    uint8_t out[MC_VALUE_LINE_BYTES_MAX];

    (void) state;
    check_line(mc_text_write_value(out, sizeof(out), key, 3, 7, 0), out, "VALUE kkk 7 0\r\n");
    check_line(
        mc_text_write_value_cas(out, sizeof(out), key, 250, UINT32_MAX, SIZE_MAX, UINT64_MAX), out,
        "VALUE " K250 " 4294967295 18446744073709551615 18446744073709551615\r\n");
    check_line(mc_text_write_number(out, sizeof(out), 42), out, "42\r\n");
    check_line(mc_text_write_stat(out, sizeof(out), "pid", "1"), out, "STAT pid 1\r\n");
    check_line(mc_text_write_stat_u64(out, sizeof(out), "pid", 12), out, "STAT pid 12\r\n");
    check_line(mc_text_write_server_error(out, sizeof(out), "a\r\nb"), out,
               "SERVER_ERROR a  b\r\n");
    assert_string_equal(MC_LINE_VERSION("1.2.3"), "VERSION 1.2.3\r\n");
}

/* A line that does not fit is refused, whatever part of it is too long, and nothing behind is
 * touched. */
static void test_replies_too_small(void **state)
{
    uint8_t out[32];

    (void) state;
    for (size_t cap = 0; cap < 19; cap++) {
        memset(out, '#', sizeof(out));
        assert_int_equal(mc_text_write_value_cas(out, cap, (const uint8_t *) "kk", 2, 10, 11, 12),
                         -ENOBUFS);
        assert_int_equal(out[cap], '#');
    }
    assert_int_equal(mc_text_write_value_cas(out, 19, (const uint8_t *) "kk", 2, 10, 11, 12), 19);
    assert_int_equal(mc_text_write_number(out, 3, 10), -ENOBUFS);
    assert_int_equal(mc_text_write_number(out, 4, 10), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_replies_too_small),
    };

    return cmocka_run_group_tests_name("wire_mc_text_reply", tests, NULL, NULL);
}
