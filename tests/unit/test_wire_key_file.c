/* The file of the cluster key. */
#include "base/cleanup.h"
#include "wire/key_file.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define LINE_A "kumofs-key-1 AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=" /* 0, 1, ... 31 */
#define LINE_B "kumofs-key-1 //79/Pv6+fj39vX08/Lx8O/u7ezr6uno5+bl5OPi4eA=" /* 255, 254, ... */
#define LINE_C "kumofs-key-1 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" /* zeroes */

static void check_good(const char *text, unsigned n, uint8_t first, uint8_t second)
{
    struct key_file keys;
    const char *why = "";
    unsigned line;

    assert_int_equal(key_file_parse(text, strlen(text), &keys, &line, &why), 0);
    assert_null(why);
    assert_int_equal(keys.n, n);
    assert_int_equal(keys.keys[0][0], first);
    if (n > 1) {
        assert_int_equal(keys.keys[1][0], second);
    }
}

static void check_bad(const char *text, unsigned want_line, const char *want)
{
    struct key_file keys = { .n = 77 };
    const char *why = NULL;
    unsigned line = 99;

    assert_int_equal(key_file_parse(text, strlen(text), &keys, &line, &why), -EINVAL);
    assert_non_null(why);
    if (!strstr(why, want) || line != want_line) {
        fail_msg("\"%s\": line %u: %s", text, line, why);
    }
    assert_int_equal(keys.n, 77); /* untouched */
}

static void test_good(void **state)
{
    (void) state;
    check_good(LINE_A, 1, 0, 0);
    check_good(LINE_A "\n", 1, 0, 0);
    check_good("\n# comment\n\t " LINE_B " \r\n\n#" LINE_A "\n  # more", 1, 255, 0);
    check_good(LINE_A "\n" LINE_B "\n", 2, 0, 255);
    check_good(LINE_B "\n\n# the old one\n" LINE_A, 2, 255, 0);
    check_good("kumofs-key-1\t  AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n", 1, 0, 0);
}

static void test_bad(void **state)
{
    char text[sizeof(LINE_A)];

    (void) state;
    check_bad("", 0, "no key");
    check_bad("\n\n# nothing\n", 0, "no key");
    check_bad("none", 1, "a key is a line");
    check_bad("# a\n\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", 3, "a key is a line");
    check_bad("kumofs-key-2 AAAA", 1, "version");
    check_bad("kumofs-key-10 AAAA", 1, "version");
    check_bad("kumofs-key-1", 1, "44 characters");
    check_bad("kumofs-key-1 ", 1, "44 characters");
    check_bad(LINE_A "=", 1, "44 characters");
    check_bad(LINE_A " x", 1, "44 characters");
    check_bad(LINE_A "\n" LINE_A "\n", 2, "twice");
    check_bad(LINE_A "\n" LINE_B "\n" LINE_C "\n", 3, "more than two");
    for (size_t i = strlen("kumofs-key-1 "); i < strlen(LINE_A); i++) {
        static const char wrong[] = "-_ \t=*\x80\x01";
        for (size_t k = 0; k < strlen(wrong); k++) {
            memcpy(text, LINE_A, sizeof(text));
            if (text[i] != wrong[k]) {
                text[i] = wrong[k];
                check_bad(text, 1, "44 characters");
            }
        }
    }
    memcpy(text, LINE_A, sizeof(text));
    text[strlen(LINE_A) - 2] = '9'; /* bits that stand for no byte */
    check_bad(text, 1, "44 characters");
}

/* Every byte value at every place survives writing and reading. */
static void test_round_trip(void **state)
{
    uint8_t key[KEY_BYTES];
    char text[KEY_LINE_BYTES];

    (void) state;
    for (unsigned v = 0; v < 256; v++) {
        struct key_file keys;
        const char *why;
        unsigned line;
        for (unsigned i = 0; i < KEY_BYTES; i++) {
            key[i] = (uint8_t) (v + i * 7);
        }
        assert_int_equal(key_file_format(key, text), strlen(LINE_A) + 1);
        assert_int_equal(strlen(text), strlen(LINE_A) + 1);
        assert_int_equal(key_file_parse(text, strlen(text), &keys, &line, &why), 0);
        assert_memory_equal(keys.keys[0], key, KEY_BYTES);
    }
    for (unsigned i = 0; i < KEY_BYTES; i++) {
        key[i] = (uint8_t) i;
    }
    key_file_format(key, text);
    assert_string_equal(text, LINE_A "\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_round_trip),
    };

    return cmocka_run_group_tests_name("wire_key_file", tests, NULL, NULL);
}
