/* Configuration: values, files with their traps, drop-ins, the command line, and the words of
 * errors. */
#include "base/cleanup.h"
#include "io/conf.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum sync_mode { SYNC_ALWAYS, SYNC_OS, SYNC_INTERVAL };

struct settings {
    struct conf_list listen;
    char *name;
    uint64_t threads;
    uint64_t value_bytes_max;
    uint64_t timeout_usec;
    bool allow_flush_all;
    int sync;
    uint64_t partitions;
};

static bool check_power_of_two(const void *target, struct io_error *error)
{
    uint64_t v = *(const uint64_t *) target;

    if ((v & (v - 1)) != 0) {
        io_error_set(error, 0, "must be a power of two");
        return false;
    }
    return true;
}

static const char *const sync_names[] = { "always", "os", "interval", NULL };

#define AT(member) .offset = offsetof(struct settings, member)

static const struct conf_option options[] = {
    { .key = "listen",
      .type = CONF_LIST,
      AT(listen),
      .default_value = "127.0.0.1:1, [::1]:1",
      .help = "Addresses" },
    { .key = "name", .type = CONF_STRING, AT(name), .min = 1, .max = 20, .help = "A name" },
    { .key = "threads",
      .type = CONF_UINT,
      AT(threads),
      .min = 1,
      .max = 64,
      .default_value = "4",
      .word = "auto",
      .word_value = 0,
      .help = "Threads" },
    { .key = "max-value-size",
      .type = CONF_SIZE,
      AT(value_bytes_max),
      .min = 1024,
      .max = 64 << 20,
      .default_value = "1 MiB",
      .help = "Largest value" },
    { .key = "request-timeout",
      .type = CONF_DURATION,
      AT(timeout_usec),
      .min = 100000,
      .max = 3600000000,
      .default_value = "5s",
      .word = "off",
      .word_value = UINT64_MAX,
      .help = "How long" },
    { .key = "allow-flush-all",
      .type = CONF_BOOL,
      AT(allow_flush_all),
      .default_value = "no",
      .help = "Whether" },
    { .key = "sync",
      .type = CONF_ENUM,
      AT(sync),
      .names = sync_names,
      .default_value = "always",
      .help = "When" },
    { .key = "partitions",
      .type = CONF_UINT,
      AT(partitions),
      .min = 1,
      .max = 16384,
      .default_value = "1024",
      .check = check_power_of_two,
      .help = "Pieces" },
    { .key = NULL },
};

struct place {
    char dir[64];
    char path[128];
    struct conf_program program;
    struct settings settings;
    struct io_error error;
};

static void place_make(struct place *p)
{
    memset(p, 0, sizeof(*p));
    snprintf(p->dir, sizeof(p->dir), "/tmp/kumo-conf-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    snprintf(p->path, sizeof(p->path), "%s/server.conf", p->dir);
    p->program = (struct conf_program){
        .name = "kumo-test",
        .summary = "Tests.",
        .version = "1.2.3",
        .default_path = p->path,
        .options = options,
    };
}

static void place_remove(struct place *p)
{
    char command[128];

    conf_free(&p->program, &p->settings);
    snprintf(command, sizeof(command), "rm -rf %s", p->dir);
    assert_int_equal(system(command), 0);
}

static void write_bytes(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static void place_write(struct place *p, const char *text)
{
    write_bytes(p->path, text, strlen(text));
}

static void place_dropin(struct place *p, const char *name, const char *text)
{
    char path[256];

    snprintf(path, sizeof(path), "%s.d", p->path);
    mkdir(path, 0755);
    snprintf(path, sizeof(path), "%s.d/%s", p->path, name);
    write_bytes(path, text, strlen(text));
}

static int place_run(struct place *p, const char *const *argv)
{
    int argc = 0;

    while (argv[argc]) {
        argc++;
    }
    conf_free(&p->program, &p->settings);
    p->error.text[0] = '\0';
    return conf_parse_args(&p->program, argc, (char **) (uintptr_t) argv, &p->settings, NULL,
                           &p->error);
}

#define RUN(p, ...) place_run(p, (const char *const[]){ "kumo-test", ##__VA_ARGS__, NULL })

/* A file of this text is refused with an error that ends so, after its path. */
static void check_refused(const char *text, const char *want)
{
    struct place p;

    place_make(&p);
    place_write(&p, text);
    assert_true(RUN(&p) < 0);
    assert_memory_equal(p.error.text, p.path, strlen(p.path));
    if (!strstr(p.error.text, want)) {
        print_error("got:  %s\nwant: %s\n", p.error.text, want);
    }
    assert_non_null(strstr(p.error.text, want));
    place_remove(&p);
}

/* ---- numbers ---- */

static void test_numbers(void **state)
{
    uint64_t v = 0;

    (void) state;
    assert_int_equal(conf_parse_uint("18446744073709551615", &v), 0);
    assert_true(v == UINT64_MAX);
    assert_int_equal(conf_parse_uint("18446744073709551616", &v), -ERANGE);
    assert_int_equal(conf_parse_uint("-1", &v), -EINVAL);
    assert_int_equal(conf_parse_uint("+1", &v), -EINVAL);
    assert_int_equal(conf_parse_uint("", &v), -EINVAL);
    assert_int_equal(conf_parse_uint("1 ", &v), -EINVAL);
    assert_int_equal(conf_parse_uint("0x10", &v), -EINVAL);
    assert_int_equal(conf_parse_size("4096", &v), 0);
    assert_int_equal(v, 4096);
    assert_int_equal(conf_parse_size("64k", &v), 0);
    assert_int_equal(v, 65536);
    assert_int_equal(conf_parse_size("1 MiB", &v), 0);
    assert_int_equal(v, 1 << 20);
    assert_int_equal(conf_parse_size("2gib", &v), 0);
    assert_int_equal(v, 2ULL << 30);
    assert_int_equal(conf_parse_size("16777216T", &v), -ERANGE);
    assert_int_equal(conf_parse_size("1 MB", &v), -EINVAL);
    assert_int_equal(conf_parse_size("1.5M", &v), -EINVAL);
    assert_int_equal(conf_parse_duration("200ms", &v), 0);
    assert_int_equal(v, 200000);
    assert_int_equal(conf_parse_duration("10 min", &v), 0);
    assert_int_equal(v, 600000000);
    assert_int_equal(conf_parse_duration("2d", &v), 0);
    assert_true(v == 2 * 86400000000ULL);
    assert_int_equal(conf_parse_duration("0", &v), 0);
    assert_int_equal(v, 0);
    assert_int_equal(conf_parse_duration("5", &v), -EINVAL);
    assert_int_equal(conf_parse_duration("5m", &v), -EINVAL);
}

/* ---- good files ---- */

static void check_defaults(const struct settings *s)
{
    assert_int_equal(s->listen.n, 2);
    assert_string_equal(s->listen.items[0], "127.0.0.1:1");
    assert_string_equal(s->listen.items[1], "[::1]:1");
    assert_null(s->name);
    assert_int_equal(s->threads, 4);
    assert_int_equal(s->value_bytes_max, 1 << 20);
    assert_int_equal(s->timeout_usec, 5000000);
    assert_false(s->allow_flush_all);
    assert_int_equal(s->sync, SYNC_ALWAYS);
    assert_int_equal(s->partitions, 1024);
}

static void test_defaults_without_a_file(void **state)
{
    struct place p;

    (void) state;
    place_make(&p);
    assert_int_equal(RUN(&p), CONF_RUN);
    check_defaults(&p.settings);
    place_write(&p, "");
    assert_int_equal(RUN(&p), CONF_RUN);
    check_defaults(&p.settings);
    place_write(&p, "# only\n   # comments\n\n\t\n#listen = 1.1.1.1:1");
    assert_int_equal(RUN(&p), CONF_RUN);
    check_defaults(&p.settings);
    place_remove(&p);
}

static void test_a_file(void **state)
{
    struct place p;

    (void) state;
    place_make(&p);
    place_write(&p, "listen = 10.0.0.1:2,10.0.0.2:2  10.0.0.3:2\n"
                    "listen=10.0.0.4:2   # appended\r\n"
                    "  name =  db#1: a = [b];c \n" /* indented: no continuation; ; and # within */
                    "threads=8\n"
                    "max-value-size = 64 MiB\n"
                    "request-timeout\t=\t1h\n"
                    "allow-flush-all = yes\n"
                    "sync = INTERVAL\n"
                    "partitions = 16384");
    assert_int_equal(RUN(&p), CONF_RUN);
    assert_int_equal(p.settings.listen.n, 4);
    assert_string_equal(p.settings.listen.items[3], "10.0.0.4:2");
    assert_string_equal(p.settings.name, "db#1: a = [b];c");
    assert_int_equal(p.settings.threads, 8);
    assert_int_equal(p.settings.value_bytes_max, 64 << 20);
    assert_int_equal(p.settings.timeout_usec, 3600000000);
    assert_true(p.settings.allow_flush_all);
    assert_int_equal(p.settings.sync, SYNC_INTERVAL);
    assert_int_equal(p.settings.partitions, 16384);
    place_remove(&p);
}

static void test_words_for_numbers(void **state)
{
    struct place p;

    (void) state;
    place_make(&p);
    place_write(&p, "threads = auto\nrequest-timeout = Off\n");
    assert_int_equal(RUN(&p), CONF_RUN);
    assert_int_equal(p.settings.threads, 0);
    assert_true(p.settings.timeout_usec == UINT64_MAX);
    place_remove(&p);
}

static void test_dropins(void **state)
{
    struct place p;

    (void) state;
    place_make(&p);
    place_write(&p, "name = file\nthreads = 2\nlisten = 1.1.1.1:1\n");
    place_dropin(&p, "20-b.conf", "threads = 20\nlisten = 3.3.3.3:3\n");
    place_dropin(&p, "10-a.conf", "threads = 10\nname = dropin\nlisten = 2.2.2.2:2\n");
    place_dropin(&p, ".hidden.conf", "what = ever\n");
    place_dropin(&p, "backup.conf~", "what = ever\n");
    place_dropin(&p, "README", "what = ever\n");
    assert_int_equal(RUN(&p), CONF_RUN);
    assert_int_equal(p.settings.threads, 20);
    assert_string_equal(p.settings.name, "dropin");
    assert_int_equal(p.settings.listen.n, 1); /* another file replaces the list */
    assert_string_equal(p.settings.listen.items[0], "3.3.3.3:3");
    assert_int_equal(RUN(&p, "--threads=3"), CONF_RUN);
    assert_int_equal(p.settings.threads, 3);
    place_dropin(&p, "30-bad.conf", "\nthreads = many\n");
    assert_true(RUN(&p) < 0);
    assert_non_null(strstr(p.error.text, "server.conf.d/30-bad.conf:2: threads = many: "));
    place_remove(&p);
}

static void test_dropins_without_the_file(void **state)
{
    struct place p;

    (void) state;
    place_make(&p);
    place_dropin(&p, "a.conf", "threads = 9\n");
    assert_int_equal(RUN(&p), CONF_RUN);
    assert_int_equal(p.settings.threads, 9);
    place_remove(&p);
}

/* ---- bad files ---- */

static void test_unknown_key(void **state)
{
    (void) state;
    check_refused(
        "threads = 1\n\n# x\nlissten = 1.1.1.1:1\n",
        ".conf:4: unknown key 'lissten'; did you mean 'listen'? known keys: listen, name, "
        "threads, max-value-size");
    check_refused("frobnicate = 1\n", ".conf:1: unknown key 'frobnicate'; known keys: listen");
    check_refused("Threads = 1\n", "unknown key 'Threads'; did you mean 'threads'?");
}

static void test_bad_values(void **state)
{
    (void) state;
    check_refused("threads = 0\n", ":1: threads = 0: this is too little; allowed: a number from 1 "
                                   "to 64, or auto");
    check_refused("threads = 65\n", "this is too much; allowed: a number from 1 to 64");
    check_refused("threads = 4x\n", "this is not what is expected");
    check_refused("threads =\n", "threads = : this is not what is expected");
    check_refused("max-value-size = 65 MiB\n",
                  "this is too much; allowed: a size from 1 KiB to 64 MiB, such as 65536, 64k or "
                  "1 MiB");
    check_refused("max-value-size = 99999999999999999999\n", "this is too much");
    check_refused("request-timeout = 5\n",
                  "the unit is missing; allowed: a time from 100 ms to 1 h");
    check_refused("request-timeout = 5 parsecs\n", "this is not what is expected");
    check_refused("allow-flush-all = maybe\n", "neither yes nor no; allowed: yes and no");
    check_refused("sync = sometimes\n", "unknown word; allowed: always, os, interval");
    check_refused("name =\n", "too short; allowed: a text of 1 to 20 bytes");
    check_refused("name = abcdefghijklmnopqrstu\n", "too long");
    check_refused("listen = , ,\n", "the list is empty");
    check_refused("partitions = 1000\n", "partitions = 1000: must be a power of two");
}

static void test_bad_lines(void **state)
{
    char line[400] = "name = ";

    (void) state;
    check_refused("\n[server]\n", ":2: there are no sections");
    check_refused("; old style\n", ":1: comments begin with '#'");
    check_refused("name = a ; b\n", "';' begins no comment here");
    check_refused("threads\n", "'threads' is not 'key = value'");
    check_refused("threads 4\n", "is not 'key = value'");
    check_refused("threads: 4\n", "is not 'key = value'");
    check_refused("listen [::1]:1\n", "is not 'key = value'");
    check_refused("= 4\n", "is not 'key = value'");
    check_refused("name = a\nthreads = 1\nname = b\n", ":3: 'name' was set above already");
    check_refused("name = a\x01z\n", "control character (0x01) at byte 9");
    memset(line + 7, 'x', 300);
    check_refused(line, ":1: the line has 307 bytes; allowed are 198");
}

static void test_bad_bytes(void **state)
{
    struct place p;
    char *big = malloc(CONF_FILE_MAX + 1);

    (void) state;
    place_make(&p);
    write_bytes(p.path, "threads = 4\n\0\n", 14);
    assert_true(RUN(&p) < 0);
    assert_non_null(strstr(p.error.text, ":2: a control character (0x00)"));
    memset(big, '\n', CONF_FILE_MAX + 1);
    write_bytes(p.path, big, CONF_FILE_MAX + 1);
    assert_int_equal(RUN(&p), -EFBIG);
    write_bytes(p.path, big, CONF_FILE_MAX - 1);
    assert_int_equal(RUN(&p), CONF_RUN);
    free(big);
    assert_int_equal(unlink(p.path), 0);
    assert_int_equal(mkdir(p.path, 0755), 0);
    assert_int_equal(RUN(&p), -EISDIR);
    place_remove(&p);
}

/* A line of every length around what inih can take is read whole or refused. */
static void test_line_lengths(void **state)
{
    struct place p;
    char line[300];

    (void) state;
    place_make(&p);
    for (size_t n = 150; n < 250; n++) {
        memset(line, 'x', sizeof(line));
        memcpy(line, "listen = ", 9);
        snprintf(line + n, sizeof(line) - n, "\nthreads = 7\n");
        place_write(&p, line);
        if (n <= CONF_LINE_MAX) {
            assert_int_equal(RUN(&p), CONF_RUN);
            assert_int_equal(p.settings.listen.n, 1);
            assert_int_equal(strlen(p.settings.listen.items[0]), n - 9);
            assert_int_equal(p.settings.threads, 7);
        } else {
            assert_int_equal(RUN(&p), -EINVAL);
        }
    }
    place_remove(&p);
}

/* ---- the command line ---- */

static void test_arguments(void **state)
{
    struct place p;

    (void) state;
    place_make(&p);
    place_write(&p, "threads = 2\nname = file\n");
    assert_int_equal(RUN(&p, "--threads", "5", "--name=x=y", "--allow-flush-all", "--listen=a:1",
                         "--listen", "b:1,c:1"),
                     CONF_RUN);
    assert_int_equal(p.settings.threads, 5);
    assert_string_equal(p.settings.name, "x=y");
    assert_true(p.settings.allow_flush_all);
    assert_int_equal(p.settings.listen.n, 3);
    assert_int_equal(RUN(&p, "--allow-flush-all", "no", "--threads=1", "--threads=3"), CONF_RUN);
    assert_false(p.settings.allow_flush_all);
    assert_int_equal(p.settings.threads, 3); /* the last one counts */
    place_remove(&p);
}

static void test_bad_arguments(void **state)
{
    struct place p;

    (void) state;
    place_make(&p);
    assert_int_equal(RUN(&p, "--thread=5"), -EINVAL);
    assert_non_null(
        strstr(p.error.text, "--thread: unknown key 'thread'; did you mean 'threads'?"));
    assert_int_equal(RUN(&p, "--threads"), -EINVAL);
    assert_non_null(strstr(p.error.text, "the value is missing"));
    assert_int_equal(RUN(&p, "--threads=x"), -EINVAL);
    assert_non_null(strstr(p.error.text, "--threads: threads = x: "));
    assert_int_equal(RUN(&p, "-t"), -EINVAL);
    assert_non_null(strstr(p.error.text, "two dashes"));
    assert_int_equal(RUN(&p, "start"), -EINVAL);
    assert_non_null(strstr(p.error.text, "only options are allowed"));
    assert_int_equal(RUN(&p, "--", "start"), -EINVAL);
    assert_int_equal(RUN(&p, "--config"), -EINVAL);
    assert_int_equal(RUN(&p, "--config=/nowhere/at/all.conf"), -ENOENT);
    assert_non_null(strstr(p.error.text, "/nowhere/at/all.conf: No such file"));
    place_remove(&p);
}

static void test_other_file(void **state)
{
    struct place p;
    char path[160];

    (void) state;
    place_make(&p);
    place_write(&p, "name = default\nthreads = 9\n");
    snprintf(path, sizeof(path), "%s/other.conf", p.dir);
    write_bytes(path, "name = other\n", 13);
    assert_int_equal(RUN(&p, "--config", path), CONF_RUN);
    assert_string_equal(p.settings.name, "other");
    assert_int_equal(p.settings.threads, 4);
    place_remove(&p);
}

static void test_verbs(void **state)
{
    struct place p;
    char *argv[] = { (char *) "kumo-test", (char *) "--threads=2", (char *) "get",
                     (char *) "--threads=3", NULL };
    int first = 0;

    (void) state;
    place_make(&p);
    p.program.takes_arguments = true;
    assert_int_equal(conf_parse_args(&p.program, 4, argv, &p.settings, &first, &p.error), CONF_RUN);
    assert_int_equal(first, 2);
    assert_int_equal(p.settings.threads, 2);
    conf_free(&p.program, &p.settings);
    argv[2] = (char *) "--";
    assert_int_equal(conf_parse_args(&p.program, 4, argv, &p.settings, &first, &p.error), CONF_RUN);
    assert_int_equal(first, 3);
    place_remove(&p);
}

static void test_help(void **state)
{
    struct place p;
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);

    (void) state;
    place_make(&p);
    conf_print_help(&p.program, out);
    fclose(out);
    for (const struct conf_option *o = options; o->key; o++) {
        char want[64];

        snprintf(want, sizeof(want), "  --%s=", o->key);
        assert_non_null(strstr(text, want));
        assert_non_null(strstr(text, o->help));
    }
    assert_non_null(strstr(text, "(1 MiB)"));
    assert_non_null(strstr(text, "always, os, interval (always)"));
    assert_non_null(strstr(text, p.path));
    free(text);
    place_remove(&p);
}

/* ---- documented examples ---- */

static void test_example(void **state)
{
    static const char good[] = "# Text.\n#\n#listen = 127.0.0.1:1, [::1]:1\n#name = db1\n"
                               "#threads = 4\n#max-value-size = 1 MiB\n#request-timeout = 5s\n\n"
                               "#allow-flush-all = no\n#sync = always\n";
    struct place p;
    char text[1024];

    (void) state;
    place_make(&p);
    snprintf(text, sizeof(text), "%s#partitions = 1024\n", good);
    place_write(&p, text);
    assert_int_equal(conf_check_example(&p.program, p.path, &p.error), 0);
    place_write(&p, good);
    assert_int_equal(conf_check_example(&p.program, p.path, &p.error), -ENOENT);
    assert_non_null(strstr(p.error.text, "'partitions' is not documented"));
    snprintf(text, sizeof(text), "%s#partitions = 512\n", good);
    place_write(&p, text);
    assert_int_equal(conf_check_example(&p.program, p.path, &p.error), -EINVAL);
    assert_non_null(strstr(p.error.text, ":11: the default of partitions is '1024'"));
    snprintf(text, sizeof(text), "%spartitions = 1024\n", good);
    place_write(&p, text);
    assert_int_equal(conf_check_example(&p.program, p.path, &p.error), -EINVAL);
    snprintf(text, sizeof(text), "%s#partitons = 1024\n", good);
    place_write(&p, text);
    assert_int_equal(conf_check_example(&p.program, p.path, &p.error), -EINVAL);
    place_remove(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),       cmocka_unit_test(test_defaults_without_a_file),
        cmocka_unit_test(test_a_file),        cmocka_unit_test(test_words_for_numbers),
        cmocka_unit_test(test_dropins),       cmocka_unit_test(test_dropins_without_the_file),
        cmocka_unit_test(test_unknown_key),   cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_bad_lines),     cmocka_unit_test(test_bad_bytes),
        cmocka_unit_test(test_line_lengths),  cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_bad_arguments), cmocka_unit_test(test_other_file),
        cmocka_unit_test(test_verbs),         cmocka_unit_test(test_help),
        cmocka_unit_test(test_example),
    };

    return cmocka_run_group_tests_name("io_conf", tests, NULL, NULL);
}
