/* The cluster key: its file, and the one that the process uses. */
#include "io/keyring.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/files.h"
#include "io/keyring_private.h"
#include "io/log.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NONE "none" /* as a setting, and as the content of a credential that stands for no key */

struct keyring {
    _Atomic unsigned refs;
    struct key_file keys;
    char names[KEYS_MAX][KEYRING_NAME_BYTES];
    SSL_CTX *ssl;
};

static pthread_mutex_t current_lock = PTHREAD_MUTEX_INITIALIZER;
static struct keyring *current; /* under current_lock */

/* ---- one keyring ---- */

void keyring_name(const uint8_t key[static KEY_BYTES], char out[static KEYRING_NAME_BYTES])
{
    static const char label[] = "kumofs cluster key 1";
    uint8_t text[sizeof(label) + KEY_BYTES];
    uint8_t hash[EVP_MAX_MD_SIZE] = { 0 };

    memcpy(text, label, sizeof(label));
    memcpy(text + sizeof(label), key, KEY_BYTES);
    kumo_assert(EVP_Digest(text, sizeof(text), hash, NULL, EVP_sha256(), NULL) == 1);
    OPENSSL_cleanse(text, sizeof(text));
    for (size_t i = 0; i < (KEYRING_NAME_BYTES - 1) / 2; i++) {
        snprintf(out + 2 * i, 3, "%02x", hash[i]);
    }
}

int keyring_new(const struct key_file *keys, struct keyring **ret, struct io_error *error)
{
    struct keyring *ring = mem_zalloc(1, sizeof(*ring));
    int r = tls_make_context(&ring->ssl);

    kumo_assert(keys->n > 0 && keys->n <= KEYS_MAX);
    if (r < 0) {
        free(ring);
        return io_error_set(error, r, "OpenSSL does not offer TLS 1.3 with AES-128-GCM here");
    }
    ring->refs = 1;
    ring->keys = *keys;
    for (unsigned i = 0; i < keys->n; i++) {
        keyring_name(keys->keys[i], ring->names[i]);
    }
    *ret = ring;
    return 0;
}

struct keyring *keyring_ref(struct keyring *ring)
{
    atomic_fetch_add(&ring->refs, 1);
    return ring;
}

struct keyring *keyring_unref(struct keyring *ring)
{
    if (ring && atomic_fetch_sub(&ring->refs, 1) == 1) {
        SSL_CTX_free(ring->ssl);
        OPENSSL_cleanse(&ring->keys, sizeof(ring->keys));
        free(ring);
    }
    return NULL;
}

unsigned keyring_count(const struct keyring *ring)
{
    return ring->keys.n;
}

SSL_CTX *keyring_ssl(const struct keyring *ring)
{
    return ring->ssl;
}

const char *keyring_id(const struct keyring *ring, unsigned key)
{
    return ring->names[key];
}

const uint8_t *keyring_key(const struct keyring *ring, unsigned key)
{
    return ring->keys.keys[key];
}

/* ---- files ---- */

static int file_check(const char *path, int fd, struct io_error *error)
{
    struct stat st;

    if (fstat(fd, &st) < 0) {
        return io_error_set(error, -errno, "%s: %s", path, strerrordesc_np(errno));
    }
    if (!S_ISREG(st.st_mode)) {
        return io_error_set(error, -EINVAL, "%s: this is no file", path);
    }
    if (st.st_mode & S_IRWXO) {
        return io_error_set(error, -EPERM,
                            "%s: everybody on this machine may use this file (mode %03o), so the "
                            "key in it is no secret: chmod 640 it, or make a new key",
                            path, st.st_mode & 0777);
    }
    return 0;
}

/* The content of a file, at most KEY_FILE_MAX bytes; its length, or -errno. */
static ssize_t file_read(const char *path, char text[static KEY_FILE_MAX + 1],
                         struct io_error *error)
{
    _cleanup_(files_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    size_t n = 0;
    ssize_t more = 1;
    int r;

    if (fd < 0) {
        return io_error_set(error, -errno, "%s: %s%s", path, strerrordesc_np(errno),
                            errno == EACCES ? "; only root and the group kumofs may read it" : "");
    }
    r = file_check(path, fd, error);
    if (r < 0) {
        return r;
    }
    while (n <= KEY_FILE_MAX && more > 0) {
        more = read(fd, text + n, KEY_FILE_MAX + 1 - n);
        n += more > 0 ? (size_t) more : 0;
    }
    if (more < 0) {
        return io_error_set(error, -errno, "%s: %s", path, strerrordesc_np(errno));
    }
    if (n > KEY_FILE_MAX) {
        return io_error_set(error, -EFBIG, "%s: too long for a key file", path);
    }
    return (ssize_t) n;
}

static bool text_is_none(const char *text, size_t bytes)
{
    while (bytes > 0 && (text[bytes - 1] == '\n' || text[bytes - 1] == ' ')) {
        bytes--;
    }
    return bytes == strlen(NONE) && memcmp(text, NONE, bytes) == 0;
}

static int text_parse(const char *path, const char *text, size_t bytes, struct key_file *ret,
                      struct io_error *error)
{
    const char *why;
    unsigned line;
    int r = key_file_parse(text, bytes, ret, &line, &why);

    if (r < 0 && line == 0) {
        return io_error_set(error, r, "%s: %s (make a key with \"kumoctl key generate\")", path,
                            why);
    }
    return r < 0 ? io_error_set(error, r, "%s:%u: %s", path, line, why) : 0;
}

/* With `may_be_none` the file may hold the word "none": ret->n is 0 then. */
static int file_load(const char *path, bool may_be_none, struct key_file *ret,
                     struct io_error *error)
{
    char text[KEY_FILE_MAX + 1];
    ssize_t n = file_read(path, text, error);
    int r = (int) n;

    if (n >= 0 && may_be_none && text_is_none(text, (size_t) n)) {
        ret->n = 0;
        r = 0;
    } else if (n >= 0) {
        r = text_parse(path, text, (size_t) n, ret, error);
    }
    OPENSSL_cleanse(text, sizeof(text));
    return r;
}

int keyring_read_file(const char *path, struct key_file *ret, struct io_error *error)
{
    return file_load(path, false, ret, error);
}

/* ---- settings ---- */

/* 0: the key is there (ret->n > 0), or the credential says that there is none. -ENOENT: no
 * credential. */
static int load_credential(struct key_file *ret, char **ret_path, struct io_error *error)
{
    const char *dir = getenv("CREDENTIALS_DIRECTORY");

    if (!dir || asprintf(ret_path, "%s/" KEYRING_CREDENTIAL, dir) < 0) {
        *ret_path = NULL;
        return -ENOENT;
    }
    return file_load(*ret_path, true, ret, error);
}

static int load_default(struct key_file *ret, char **ret_path, struct io_error *error)
{
    *ret_path = strdup(KEYRING_DEFAULT_PATH);
    return *ret_path ? file_load(*ret_path, false, ret, error) : -ENOMEM;
}

typedef int (*load_fn)(struct key_file *ret, char **ret_path, struct io_error *error);

/* Tries one place after the other; ret->n is 0 when there is no key in any. */
static int load_auto(bool again, struct key_file *ret, char **ret_path, struct io_error *error)
{
    const load_fn places[] = { again ? load_default : load_credential,
                               again ? load_credential : load_default };

    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        int r = places[i](ret, ret_path, error);
        if (r == 0 && ret->n > 0) {
            return 0;
        }
        /* At a reload the credential stands in for a file that only root may read. */
        if (r < 0 && r != -ENOENT && !(again && i == 0 && r == -EACCES)) {
            return r;
        }
        free(TAKE_PTR(*ret_path));
    }
    ret->n = 0;
    return 0;
}

/* *ret_ring NULL: there is no key. *ret_path, owned: where it was found. */
static int load(const char *setting, bool again, struct keyring **ret_ring, char **ret_path,
                struct io_error *error)
{
    struct key_file keys = { 0 };
    int r = 0;

    *ret_ring = NULL;
    *ret_path = NULL;
    if (strcmp(setting, KEYRING_AUTO) == 0) {
        r = load_auto(again, &keys, ret_path, error);
    } else if (strcmp(setting, NONE) != 0) {
        *ret_path = strdup(setting);
        r = file_load(setting, false, &keys, error);
    }
    if (r == 0 && keys.n > 0) {
        r = keyring_new(&keys, ret_ring, error);
    }
    OPENSSL_cleanse(&keys, sizeof(keys));
    return r;
}

static void keyring_begin(struct keyring *ring, const char *path)
{
    if (ring) {
        log_info("cluster key of %s: connections are made with %s%s%s", path, ring->names[0],
                 ring->keys.n > 1 ? ", accepted too is " : "",
                 ring->keys.n > 1 ? ring->names[1] : "");
    }
    keyring_use(ring);
}

int keyring_open(const char *setting, struct io_error *error)
{
    _cleanup_free_ char *path = NULL;
    struct keyring *ring;
    int r = load(setting, false, &ring, &path, error);

    if (r == 0) {
        keyring_begin(ring, path);
    }
    return r;
}

bool keyring_reload(const char *setting)
{
    _cleanup_free_ char *path = NULL;
    struct keyring *ring;
    struct io_error error = { "" };

    if (load(setting, true, &ring, &path, &error) < 0) {
        log_error("%s; %s", error.text,
                  keyring_in_use() ? "the old cluster key stays" : "there is still no cluster key");
        return false;
    }
    if (!ring && keyring_in_use()) {
        log_error("there is no cluster key any more; the old one stays until a restart");
        return false;
    }
    keyring_begin(ring, path);
    return true;
}

/* ---- the one in use ---- */

void keyring_use(struct keyring *ring)
{
    struct keyring *old;

    pthread_mutex_lock(&current_lock);
    old = current;
    current = ring;
    pthread_mutex_unlock(&current_lock);
    keyring_unref(old);
}

struct keyring *keyring_current(void)
{
    struct keyring *ring;

    pthread_mutex_lock(&current_lock);
    ring = current ? keyring_ref(current) : NULL;
    pthread_mutex_unlock(&current_lock);
    return ring;
}

bool keyring_in_use(void)
{
    struct keyring *ring = keyring_current();

    keyring_unref(ring);
    return ring != NULL;
}
