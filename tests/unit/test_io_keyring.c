/* The cluster key's file, and which file counts. */
#include "base/cleanup.h"
#include "io/files.h"
#include "io/keyring.h"
#include "io/log.h"

#include "temp_dir.h"

#include <errno.h>
#include <fcntl.h>
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

#define LINE_A "kumofs-key-1 AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
#define LINE_B "kumofs-key-1 //79/Pv6+fj39vX08/Lx8O/u7ezr6uno5+bl5OPi4eA=\n"

static const char *put(const char *name, const char *text, mode_t mode)
{
    static char path[sizeof(dir) + 32];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(files_write_all(fd, (const uint8_t *) text, strlen(text)), 0);
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
    return path;
}

static void check_bad(const char *path, int error, const char *want)
{
    struct io_error why = { "" };

    assert_int_equal(keyring_open(path, &why), error);
    if (!strstr(why.text, want) || !strstr(why.text, path)) {
        fail_msg("%s", why.text);
    }
    assert_null(strstr(why.text, "AAECAwQ")); /* nothing of a key */
    assert_false(keyring_in_use());
}

static void test_files(void **state)
{
    struct keyring *ring;
    char many[5000];

    (void) state;
    log_set_level(LOG_LEVEL_ERROR);
    assert_int_equal(keyring_open(put("good", LINE_A LINE_B, 0640), NULL), 0);
    ring = keyring_current();
    assert_non_null(ring);
    assert_int_equal(keyring_count(ring), 2);
    keyring_unref(ring);
    keyring_use(NULL);
    assert_int_equal(keyring_open("none", NULL), 0);
    assert_false(keyring_in_use());
    check_bad("/nowhere/cluster.key", -ENOENT, "No such file");
    check_bad(dir, -EINVAL, "no file");
    check_bad(put("open", LINE_A, 0644), -EPERM, "chmod 640");
    check_bad(put("open2", LINE_A, 0642), -EPERM, "no secret");
    check_bad(put("empty", "# nothing\n", 0600), -EINVAL, "no key");
    check_bad(put("bad", "# a\n" LINE_A "\nkumofs-key-1 xyz\n", 0600), -EINVAL, "bad:4: behind");
    check_bad(put("none", "none\n", 0600), -EINVAL, "none:1: a key is a line");
    memset(many, '#', sizeof(many) - 1);
    many[sizeof(many) - 1] = '\0';
    check_bad(put("long", many, 0600), -EFBIG, "too long");
    assert_int_equal(keyring_open(put("just", many + sizeof(many) - 1 - KEY_FILE_MAX, 0600), NULL),
                     -EINVAL);
}

/* systemd's credential counts first; the word "none" in it stands for none. */
static void test_credential(void **state)
{
    (void) state;
    if (access(KEYRING_DEFAULT_PATH, F_OK) == 0) {
        skip(); /* this machine has a cluster key of its own */
    }
    unsetenv("CREDENTIALS_DIRECTORY");
    assert_int_equal(keyring_open("auto", NULL), 0);
    assert_false(keyring_in_use());
    setenv("CREDENTIALS_DIRECTORY", dir, 1);
    assert_int_equal(keyring_open("auto", NULL), 0); /* a unit without this credential */
    assert_false(keyring_in_use());
    put("cluster.key", "none", 0400);
    assert_int_equal(keyring_open("auto", NULL), 0);
    assert_false(keyring_in_use());
    put("cluster.key", LINE_A, 0400);
    assert_int_equal(keyring_open("auto", NULL), 0);
    assert_true(keyring_in_use());
    keyring_use(NULL);
    put("cluster.key", "kumofs-key-1\n", 0400);
    assert_int_equal(keyring_open("auto", NULL), -EINVAL);
    assert_false(keyring_in_use());
    unsetenv("CREDENTIALS_DIRECTORY");
}

static unsigned keys_in_use(void)
{
    struct keyring *ring = keyring_current();
    unsigned n = ring ? keyring_count(ring) : 0;

    keyring_unref(ring);
    return n;
}

/* A reload never loses a key. */
static void test_reload(void **state)
{
    (void) state;
    log_set_level(LOG_LEVEL_ERROR);
    assert_int_equal(keyring_open(put("key", LINE_A, 0600), NULL), 0);
    assert_int_equal(keys_in_use(), 1);
    assert_int_equal(keyring_reload(put("key", LINE_B LINE_A, 0600)), true);
    assert_int_equal(keys_in_use(), 2);
    assert_int_equal(keyring_reload(put("key", "nonsense", 0600)), false);
    assert_int_equal(keys_in_use(), 2);
    assert_int_equal(keyring_reload("none"), false);
    assert_int_equal(keys_in_use(), 2);
    assert_int_equal(keyring_reload(put("key", LINE_B, 0600)), true);
    assert_int_equal(keys_in_use(), 1);
    keyring_use(NULL);
    assert_int_equal(keyring_reload("none"), true);
    assert_int_equal(keys_in_use(), 0);
    assert_int_equal(keyring_reload(put("key", LINE_B, 0600)), true); /* from now on with one */
    assert_int_equal(keys_in_use(), 1);
    keyring_use(NULL);
}

/* Names tell keys apart, are always the same, and do not change with versions of the program. */
static void test_names(void **state)
{
    uint8_t key[KEY_BYTES] = { 0 };
    char zero[KEYRING_NAME_BYTES];
    char one[KEYRING_NAME_BYTES];

    (void) state;
    keyring_name(key, zero);
    key[31] = 1;
    keyring_name(key, one);
    assert_int_equal(strlen(zero), 16);
    assert_int_equal(strspn(zero, "0123456789abcdef"), 16);
    assert_string_not_equal(zero, one);
    assert_string_equal(zero, "fd5c26c2df69356a");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_credential, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reload, setup, teardown),
        cmocka_unit_test_setup_teardown(test_names, setup, teardown),
    };

    return cmocka_run_group_tests_name("io_keyring", tests, NULL, NULL);
}
