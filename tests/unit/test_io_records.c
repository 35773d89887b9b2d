/* Records in files: lines of JSON, whole and wrong ones. */
#include "../ctl/record_file.h"
#include "../ctl/record_keys.h"
#include "base/cleanup.h"
#include "base/rng.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "temp_dir.h"

/* ---- one line ---- */

static struct entry record(const void *key, size_t key_len, const void *value, size_t value_len)
{
    return (struct entry){ .kind = ENTRY_SET,
                           .key = key,
                           .key_len = (uint8_t) key_len,
                           .value = value,
                           .value_len = (uint32_t) value_len };
}

static void records_equal(const struct entry *a, const struct entry *b)
{
    assert_int_equal(a->key_len, b->key_len);
    assert_memory_equal(a->key, b->key, a->key_len);
    assert_int_equal(a->value_len, b->value_len);
    if (a->value_len > 0) {
        assert_memory_equal(a->value, b->value, a->value_len);
    }
    assert_int_equal(a->flags, b->flags);
    assert_int_equal(a->expiry_sec, b->expiry_sec);
}

static char *line_of(const struct entry *e, size_t *ret_bytes)
{
    char *line = NULL;
    FILE *f = open_memstream(&line, ret_bytes);

    assert_true(record_line_put(f, e));
    fclose(f);
    assert_int_equal(line[*ret_bytes - 1], '\n');
    assert_null(memchr(line, '\n', *ret_bytes - 1));
    (*ret_bytes)--;
    return line;
}

static void round_trip(const struct entry *e)
{
    struct io_error error = { "" };
    struct record_line l;
    size_t bytes;
    char *line = line_of(e, &bytes);

    assert_int_equal(record_line_decode(line, bytes, &l, &error), 0);
    assert_int_equal(l.kind, RECORD_LINE_RECORD);
    records_equal(&l.e, e);
    assert_int_equal(l.e.cas, e->cas);
    record_line_free(&l);
    free(line);
}

/* Bytes of all kinds: plain text, bytes that JSON must escape, UTF-8 and its fragments, anything.
 */
static void bytes_fill(struct rng *rng, uint8_t *p, size_t bytes)
{
    static const char *const pieces[] = {
        "a", "\"", "\\", "\n", "\x01", "\x7f", "\xc3\xa4", "\xe2\x82\xac", "\xf0", "\xed\xa0\x80"
    };
    unsigned kind = (unsigned) rng_below(rng, 3);

    for (size_t i = 0; i < bytes;) {
        const char *piece = pieces[rng_below(rng, kind == 0 ? 8 : ARRAY_LEN(pieces))];
        size_t n = MIN_OF(strlen(piece), bytes - i);
        memcpy(p + i, piece, n);
        p[i] = kind == 2 ? (uint8_t) rng_below(rng, 256) : p[i];
        i += n;
    }
}

static void test_lines_keep_any_bytes(void **state)
{
    struct rng rng = { 11 };
    uint8_t key[ENTRY_KEY_BYTES_MAX];
    uint8_t value[600];

    (void) state;
    for (unsigned i = 0; i < 20000; i++) {
        size_t key_len = 1 + rng_below(&rng, sizeof(key));
        size_t value_len = rng_below(&rng, sizeof(value));
        struct entry e = record(key, key_len, value, value_len);
        bytes_fill(&rng, key, key_len);
        bytes_fill(&rng, value, value_len);
        e.flags = (uint32_t) rng_below(&rng, UINT64_C(1) << 32);
        e.expiry_sec = rng_below(&rng, 2) ? (uint32_t) rng_below(&rng, UINT64_C(1) << 32) : 0;
        e.cas = rng_below(&rng, UINT64_C(1) << 62);
        round_trip(&e);
    }
}

static void test_lines_say_what_is_text(void **state)
{
    struct entry text = record("k\xc3\xa4", 3, "a\0b", 3);
    struct entry bytes = record("k\xff", 2, "\xff\x00\x01", 3);
    size_t n;
    char *line = line_of(&text, &n);

    (void) state;
    assert_string_equal(line, "{\"key\":\"k\xc3\xa4\",\"value\":\"a\\u0000b\",\"flags\":0,"
                              "\"cas\":0}\n");
    free(line);
    bytes.expiry_sec = 1900000000;
    line = line_of(&bytes, &n);
    assert_string_equal(line, "{\"key64\":\"a/8=\",\"value64\":\"/wAB\",\"flags\":0,"
                              "\"expires\":1900000000,\"cas\":0}\n");
    free(line);
}

static void test_wrong_lines_are_told(void **state)
{
    static const struct {
        const char *line;
        const char *why;
    } wrong[] = {
        { "", "ends too soon" },
        { "{", "ends too soon" },
        { "garbage", "not JSON" },
        { "[]", "not a JSON object" },
        { "{\"key\":\"a\",\"value\":\"b\"} x", "not JSON" },
        { "{\"key\":\"a\",\"key\":\"a\",\"value\":\"b\"}", "twice" },
        { "{\"key\":\"\xff\",\"value\":\"b\"}", "not UTF-8" },
        { "{\"key\":\"\\ud800\",\"value\":\"b\"}", "not JSON" },
        { "{\"key\":\"a\"}", "either \"value\" or \"value64\"" },
        { "{\"value\":\"a\"}", "either \"key\" or \"key64\"" },
        { "{\"key\":\"a\",\"key64\":\"YQ==\",\"value\":\"b\"}", "either \"key\" or \"key64\"" },
        { "{\"key\":1,\"value\":\"b\"}", "\"key\" is no string" },
        { "{\"key\":\"\",\"value\":\"b\"}", "0 bytes; 1 to 250" },
        { "{\"key64\":\"YQ\",\"value\":\"b\"}", "\"key64\" is no base64" },
        { "{\"key64\":\"YQ= \",\"value\":\"b\"}", "no base64" },
        { "{\"key64\":\" YQ=\",\"value\":\"b\"}", "no base64" },
        { "{\"key64\":\"Y===\",\"value\":\"b\"}", "no base64" },
        { "{\"key64\":\"====\",\"value\":\"b\"}", "no base64" },
        { "{\"key64\":\"YQ==YQ==\",\"value\":\"b\"}", "no base64" },
        { "{\"key64\":\"YQ\\u0000=\",\"value\":\"b\"}", "no base64" },
        { "{\"key64\":\"Y-_=\",\"value\":\"b\"}", "no base64" },
        { "{\"key\":\"a\",\"value\":\"b\",\"flags\":-1}", "\"flags\" is no number" },
        { "{\"key\":\"a\",\"value\":\"b\",\"flags\":4294967296}", "\"flags\" is no number" },
        { "{\"key\":\"a\",\"value\":\"b\",\"flags\":1.5}", "\"flags\" is no number" },
        { "{\"key\":\"a\",\"value\":\"b\",\"flags\":\"1\"}", "\"flags\" is no number" },
        { "{\"key\":\"a\",\"value\":\"b\",\"flags\":99999999999999999999}", "too large" },
        { "{\"key\":\"a\",\"value\":\"b\",\"expires\":4294967296}", "\"expires\" is no number" },
        { "{\"key\":\"a\",\"value\":\"b\",\"cas\":true}", "\"cas\" is no number" },
        { "{\"key\":\"a\",\"value\":\"b\",\"expiry\":1}", "does not know" },
        { "{\"kumofs\":2}", "format 2" },
        { "{\"kumofs\":\"1\"}", "\"kumofs\" is no number" },
        { "{\"kumofs\":1,\"records\":-1}", "\"records\" is no number" },
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        struct io_error error = { "" };
        struct record_line l;
        assert_int_equal(record_line_decode(wrong[i].line, strlen(wrong[i].line), &l, &error),
                         -EBADMSG);
        if (!strstr(error.text, wrong[i].why)) {
            fail_msg("%s: \"%s\" does not say \"%s\"", wrong[i].line, error.text, wrong[i].why);
        }
    }
}

static void test_long_keys_are_refused(void **state)
{
    struct io_error error = { "" };
    struct record_line l;
    char line[400];

    (void) state;
    for (size_t n = 249; n <= 252; n++) {
        int bytes = snprintf(line, sizeof(line), "{\"key\":\"%0*d\",\"value\":\"\"}", (int) n, 7);
        int r = record_line_decode(line, (size_t) bytes, &l, &error);
        assert_int_equal(r, n <= 250 ? 0 : -EBADMSG);
        if (r == 0) {
            assert_int_equal(l.e.key_len, n);
            record_line_free(&l);
        }
    }
    assert_non_null(strstr(error.text, "252 bytes; 1 to 250"));
}

/* ---- a file ---- */

static void file_write(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    fclose(f);
}

/* Reads the file to its end: number of records, or -errno. */
static int file_read(const char *path, struct io_error *error)
{
    struct record_file *f;
    struct entry e;
    int n = 0;
    int r;

    assert_int_equal(record_file_open(path, &f, error), 0);
    while ((r = record_file_next(f, &e, error)) > 0) {
        n++;
    }
    record_file_free(f);
    return r < 0 ? r : n;
}

#define A "{\"key\":\"a\",\"value\":\"1\"}\n"
#define B "{\"key\":\"b\",\"value\":\"2\"}\n"

static void test_files_that_are_whole(void **state)
{
    struct io_error error = { "" };
    struct record_file *f;
    struct entry e;
    char path[128];

    (void) state;
    path_of("file", path);
    file_write(path, "{\"kumofs\":1}\n{\"kumofs\":1,\"records\":0}\n");
    assert_int_equal(file_read(path, &error), 0);
    file_write(path, "{\"kumofs\":1}\n" A B "{\"kumofs\":1,\"records\":2}\n");
    assert_int_equal(file_read(path, &error), 2);
    assert_int_equal(record_file_open(path, &f, &error), 0);
    for (unsigned pass = 0; pass < 3; pass++) {
        assert_int_equal(record_file_next(f, &e, &error), 1);
        assert_memory_equal(e.key, "a", 1);
        assert_int_equal(record_file_rewind(f), 0);
    }
    record_file_free(f);
}

static void test_wrong_files_are_told_with_the_line(void **state)
{
    static const struct {
        const char *text;
        const char *why;
    } wrong[] = {
        { "", "/file:1: the header" },
        { A, "/file:1: the header" },
        { "{\"kumofs\":1}\n", "/file:2: the file was cut" },
        { "{\"kumofs\":1}\n" A, "/file:3: the file was cut" },
        { "{\"kumofs\":1}\n" A "{\"key\":\"b\"", "/file:3: the file was cut" },
        { "{\"kumofs\":1}\n" A "{\"kumofs\":1,\"records\":1}", "/file:3: the file was cut" },
        { "{\"kumofs\":1}\n" A "{\"kumofs\":1,\"records\":2}\n",
          "/file:3: the file has 1 records" },
        { "{\"kumofs\":1}\n" A "{\"kumofs\":1,\"records\":1}\n" B, "/file:4: something stands" },
        { "{\"kumofs\":1}\n" A B A "{\"kumofs\":1,\"records\":3}\n", "/file:4: this key stood" },
        { "{\"kumofs\":1}\n" A "\n" B "{\"kumofs\":1,\"records\":2}\n", "/file:3: the line ends" },
        { "{\"kumofs\":1}\n" A "{\"kumofs\":1}\n" B, "/file:3: a second header" },
        { "{\"kumofs\":1}\n" A "garbage\n" B, "/file:3: not JSON" },
    };
    char path[128];

    (void) state;
    path_of("file", path);
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        struct io_error error = { "" };
        file_write(path, wrong[i].text);
        assert_int_equal(file_read(path, &error), -EBADMSG);
        if (!strstr(error.text, wrong[i].why)) {
            fail_msg("\"%s\" does not say \"%s\"", error.text, wrong[i].why);
        }
    }
}

/* Wherever the file is cut, it is noticed. */
static void test_any_cut_is_noticed(void **state)
{
    static const char text[] = "{\"kumofs\":1}\n" A B "{\"kumofs\":1,\"records\":2}\n";
    struct io_error error;
    char path[128];

    (void) state;
    path_of("file", path);
    file_write(path, text);
    for (off_t n = (off_t) strlen(text) - 1; n >= 0; n--) {
        assert_int_equal(truncate(path, n), 0);
        assert_int_equal(file_read(path, &error), -EBADMSG);
    }
}

static void test_keys_are_seen_once(void **state)
{
    struct record_keys keys = { 0 };

    (void) state;
    for (unsigned pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < 100000; i++) {
            assert_int_equal(record_keys_add(&keys, (const uint8_t *) &i, sizeof(i)), pass == 0);
        }
    }
    assert_int_equal(keys.n, 100000);
    record_keys_free(&keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_keep_any_bytes),
        cmocka_unit_test(test_lines_say_what_is_text),
        cmocka_unit_test(test_wrong_lines_are_told),
        cmocka_unit_test(test_long_keys_are_refused),
        cmocka_unit_test_setup_teardown(test_files_that_are_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_files_are_told_with_the_line, setup, teardown),
        cmocka_unit_test_setup_teardown(test_any_cut_is_noticed, setup, teardown),
        cmocka_unit_test(test_keys_are_seen_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
