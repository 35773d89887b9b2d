/* The cluster key's file on this machine: made, exchanged, looked at. Talks to nobody. */
#include "verb.h"

#include "base/cleanup.h"
#include "io/files.h"
#include "io/keyring.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MODE   0640
#define GROUP       "kumofs" /* the daemons' */
#define FILE_BYTES  1024     /* room for all that is ever written */
#define RELOAD_HINT "systemctl reload kumo-manager kumo-server kumo-gateway"

/* ---- text ---- */

static size_t text_of(const struct key_file *keys, char text[static FILE_BYTES])
{
    size_t n =
        (size_t) snprintf(text, FILE_BYTES,
                          "# The cluster key of kumofs: the same file on every machine of the "
                          "cluster, and a secret.\n");

    for (unsigned i = 0; i < keys->n; i++) {
        if (i > 0) {
            n += (size_t) snprintf(text + n, FILE_BYTES - n,
                                   "# The one before, until every machine has the new one:\n");
        }
        n += key_file_format(keys->keys[i], text + n);
    }
    return n;
}

static bool key_make(const struct ctl *ctl, uint8_t key[static KEY_BYTES])
{
    if (getrandom(key, KEY_BYTES, 0) == KEY_BYTES) {
        return true;
    }
    verb_error(ctl, "the kernel gave no random bytes: %s", strerrordesc_np(errno));
    return false;
}

/* ---- files ---- */

static int file_sync_folder(const char *path)
{
    _cleanup_free_ char *copy = strdup(path);

    return copy ? files_sync(dirname(copy)) : -ENOMEM;
}

/* Made anew, with the rights of `like`, or those that suit the daemons. */
static int file_create(const char *path, const struct stat *like, const struct key_file *keys)
{
    const struct group *group = geteuid() == 0 ? getgrnam(GROUP) : NULL;
    _cleanup_(files_close) int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int r = fd < 0 ? -errno : 0;
    uid_t uid = like ? like->st_uid : (uid_t) -1;
    gid_t gid = like ? like->st_gid : group ? group->gr_gid : (gid_t) -1;
    char text[FILE_BYTES];
    size_t n = text_of(keys, text);

    if (r == 0 && fchown(fd, uid, gid) < 0) {
        r = -errno;
    }
    if (r == 0 && fchmod(fd, like ? like->st_mode & 0770 : FILE_MODE) < 0) {
        r = -errno;
    }
    if (r == 0) {
        r = files_write_all(fd, (const uint8_t *) text, n);
    }
    if (r == 0 && fsync(fd) < 0) {
        r = -errno;
    }
    explicit_bzero(text, sizeof(text));
    if (r < 0 && fd >= 0) {
        (void) unlink(path);
    }
    return r;
}

/* In one step: whoever reads it sees the old file or the new one. */
static int file_replace(const char *path, const struct key_file *keys)
{
    _cleanup_free_ char *next = NULL;
    struct stat st;
    int r;

    if (stat(path, &st) < 0) {
        return -errno;
    }
    if (asprintf(&next, "%s.new", path) < 0) {
        next = NULL;
        return -ENOMEM;
    }
    (void) unlink(next); /* of one that was interrupted */
    r = file_create(next, &st, keys);
    if (r == 0 && rename(next, path) < 0) {
        r = -errno;
        (void) unlink(next);
    }
    return r == 0 ? file_sync_folder(path) : r;
}

static int say_file_error(const struct ctl *ctl, const char *path, int r)
{
    if (r == -EEXIST) {
        return verb_error(ctl, "%s is there already; to exchange the key run: kumoctl key rotate",
                          path);
    }
    return verb_error(ctl, "%s can't be written: %s", path, strerrordesc_np(-r));
}

/* ---- the verb ---- */

static int key_generate(const struct ctl *ctl, const char *path)
{
    struct key_file keys = { .n = 1 };
    char text[FILE_BYTES];
    char name[KEYRING_NAME_BYTES];
    int r = 0;

    if (!key_make(ctl, keys.keys[0])) {
        return VERB_FAILED;
    }
    keyring_name(keys.keys[0], name);
    if (strcmp(path, "-") == 0) {
        fwrite(text, 1, text_of(&keys, text), stdout);
        explicit_bzero(text, sizeof(text));
    } else {
        r = file_create(path, NULL, &keys);
        r = r < 0 ? r : file_sync_folder(path);
    }
    explicit_bzero(&keys, sizeof(keys));
    if (r < 0) {
        return say_file_error(ctl, path, r);
    }
    if (strcmp(path, "-") != 0) {
        printf("%s: made key %s. Copy the file to every machine of the cluster, then restart\n"
               "kumofs there.\n",
               path, name);
    }
    return VERB_OK;
}

static int key_rotate(const struct ctl *ctl, const char *path, struct key_file *keys)
{
    char name[KEYRING_NAME_BYTES];
    int r;

    if (keys->n > 1) {
        return verb_error(
            ctl, "%s has two keys already. When every machine has them: kumoctl key finish", path);
    }
    memcpy(keys->keys[1], keys->keys[0], KEY_BYTES);
    keys->n = 2;
    if (!key_make(ctl, keys->keys[0])) {
        return VERB_FAILED;
    }
    keyring_name(keys->keys[0], name);
    r = file_replace(path, keys);
    if (r < 0) {
        return say_file_error(ctl, path, r);
    }
    printf("%s: new key %s, the old one is accepted too. Copy the file to every machine\n"
           "and there run: " RELOAD_HINT "\nAfter the last one: kumoctl key finish\n",
           path, name);
    return VERB_OK;
}

static int key_finish(const struct ctl *ctl, const char *path, struct key_file *keys)
{
    int r;

    if (keys->n == 1) {
        return verb_error(ctl, "%s has one key only: there is nothing to finish", path);
    }
    keys->n = 1;
    r = file_replace(path, keys);
    if (r < 0) {
        return say_file_error(ctl, path, r);
    }
    printf("%s: the old key is gone. Copy the file to every machine and there run:\n" RELOAD_HINT
           "\n",
           path);
    return VERB_OK;
}

static int key_check(const char *path, const struct key_file *keys)
{
    char name[KEYRING_NAME_BYTES];

    for (unsigned i = 0; i < keys->n; i++) {
        keyring_name(keys->keys[i], name);
        printf("%s: %s %s\n", path, name,
               i == 0 ? "connects, and is accepted" : "is accepted (kumoctl key finish drops it)");
    }
    return VERB_OK;
}

static const char *default_path(const struct ctl *ctl)
{
    const char *setting = ctl->settings->cluster_key;

    return setting && setting[0] == '/' ? setting : KEYRING_DEFAULT_PATH;
}

int verb_cluster_key(struct ctl *ctl, int argc, char **argv)
{
    static const struct verb_option none[] = { { 0 } };
    struct key_file keys = { 0 };
    struct io_error error = { "" };
    struct verb_words words;
    const char *path;
    int code;

    if (!verb_args(ctl, verb_find("key"), argc, argv, none, 1, 2, &words)) {
        return VERB_USAGE;
    }
    path = words.n > 1 ? words.v[1] : default_path(ctl);
    if (strcmp(words.v[0], "generate") == 0) {
        return key_generate(ctl, path);
    }
    if (strcmp(words.v[0], "rotate") != 0 && strcmp(words.v[0], "finish") != 0 &&
        strcmp(words.v[0], "check") != 0) {
        verb_error(ctl, "key %s: there is generate, rotate, finish and check", words.v[0]);
        return VERB_USAGE;
    }
    if (keyring_read_file(path, &keys, &error) < 0) {
        return verb_error(ctl, "%s", error.text);
    }
    code = words.v[0][0] == 'r'   ? key_rotate(ctl, path, &keys)
           : words.v[0][0] == 'f' ? key_finish(ctl, path, &keys)
                                  : key_check(path, &keys);
    explicit_bzero(&keys, sizeof(keys));
    return code;
}
