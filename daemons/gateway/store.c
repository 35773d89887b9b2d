#include "store.h"

#include "base/buf.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/mem.h"
#include "io/daemon.h"
#include "io/files.h"
#include "io/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Each file: CRC-32C of what follows, then one MessagePack item. */
#define CRC_BYTES     4
#define SESSIONS_NAME "sessions" /* [cluster id, [session…]] */
#define TABLE_NAME    "table"    /* as MSG_TABLE's answer */

struct store {
    char *dir;
    int lock_fd;
    uint8_t cluster_id[UUID_BYTES]; /* of the sessions */
    uint64_t sessions[STORE_SESSIONS_MAX];
    size_t n_sessions;
};

/* ---- files ---- */

static int path_of(const struct store *s, const char *name, const char *suffix, char out[PATH_MAX])
{
    int n = snprintf(out, PATH_MAX, "%s/%s%s", s->dir, name, suffix);

    return n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

static int write_new(const char *path, struct buf *b)
{
    _cleanup_(files_close) int fd =
        open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
    int r = fd < 0 ? -errno : files_write_all(fd, buf_head(b), buf_len(b));

    return r < 0 ? r : fsync(fd) < 0 ? -errno : 0;
}

/* Replaces the file, durably. `b` begins with CRC_BYTES of room. */
static int file_put(const struct store *s, const char *name, struct buf *b)
{
    char path[PATH_MAX];
    char temporary[PATH_MAX];
    int r = path_of(s, name, "", path);

    bytes_put_u32(buf_head(b), crc32c(0, buf_head(b) + CRC_BYTES, buf_len(b) - CRC_BYTES));
    if (r == 0) {
        r = path_of(s, name, ".new", temporary);
    }
    if (r == 0) {
        r = write_new(temporary, b);
    }
    if (r == 0) {
        r = rename(temporary, path) < 0 ? -errno : files_sync(s->dir);
    }
    if (r < 0) {
        log_ratelimit(LOG_LEVEL_WARNING, "%s/%s can't be written: %s", s->dir, name, strerror(-r));
    }
    return r;
}

static int read_all(const char *path, struct buf *b)
{
    _cleanup_(files_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = 1;

    if (fd < 0) {
        return -errno;
    }
    while (n > 0 && buf_len(b) <= STORE_BYTES_MAX) {
        n = read(fd, buf_reserve(b, 65536), 65536);
        if (n < 0) {
            return -errno;
        }
        b->end += (size_t) n;
    }
    return buf_len(b) > STORE_BYTES_MAX ? -EFBIG : 0;
}

/* The item; -errno when there is none that is good. */
static int file_get(const struct store *s, const char *name, struct buf *b, struct mp_reader *ret)
{
    char path[PATH_MAX];
    int r = path_of(s, name, "", path);

    if (r == 0) {
        r = read_all(path, b);
    }
    if (r == 0 &&
        (buf_len(b) < CRC_BYTES || bytes_get_u32(buf_head(b)) != crc32c(0, buf_head(b) + CRC_BYTES,
                                                                        buf_len(b) - CRC_BYTES))) {
        r = -EBADMSG;
    }
    if (r == 0) {
        *ret = mp_reader_of(buf_head(b) + CRC_BYTES, buf_len(b) - CRC_BYTES);
    }
    return r;
}

static void tell_damage(const struct store *s, const char *name)
{
    log_warning("%s/%s is damaged: this start does without it", s->dir, name);
}

static void begin_file(struct buf *b)
{
    buf_append(b, "\0\0\0\0", CRC_BYTES);
}

/* ---- sessions ---- */

static int sessions_write(const struct store *s)
{
    _cleanup_(buf_free) struct buf b = { 0 };

    begin_file(&b);
    mp_put_array(&b, 2);
    mp_put_bin(&b, s->cluster_id, UUID_BYTES);
    msg_put_session_ids(&b, s->sessions, (uint32_t) s->n_sessions);
    return file_put(s, SESSIONS_NAME, &b);
}

static void sessions_read(struct store *s)
{
    _cleanup_(buf_free) struct buf b = { 0 };
    struct mp_reader in;
    uint32_t n;
    int r = file_get(s, SESSIONS_NAME, &b, &in);

    if (r == -ENOENT) {
        return;
    }
    if (r == 0) {
        mp_get_array_exact(&in, 2);
        mp_get_bin_exact(&in, s->cluster_id, UUID_BYTES);
        n = mp_get_array(&in);
        for (uint32_t i = 0; i < n && i < STORE_SESSIONS_MAX && !in.failed; i++) {
            s->sessions[s->n_sessions++] = mp_get_uint(&in);
        }
    }
    if (r < 0 || in.failed) {
        s->n_sessions = 0;
        tell_damage(s, SESSIONS_NAME);
    }
}

size_t store_sessions(const struct store *s, const uint64_t **ret_ids)
{
    *ret_ids = s->sessions;
    return s->n_sessions;
}

void store_add_session(struct store *s, uint64_t session)
{
    if (s->n_sessions < STORE_SESSIONS_MAX) {
        s->sessions[s->n_sessions++] = session;
        (void) sessions_write(s); /* what is not there is not used by a later start, no more */
    }
}

void store_drop_session(struct store *s, uint64_t session)
{
    for (size_t i = 0; i < s->n_sessions; i++) {
        if (s->sessions[i] == session) {
            s->sessions[i] = s->sessions[--s->n_sessions];
            (void) sessions_write(s); /* using it then gets a refusal, and the next one is taken */
            return;
        }
    }
}

uint64_t store_take_session(struct store *s)
{
    uint64_t session;

    if (s->n_sessions == 0) {
        return 0;
    }
    session = s->sessions[--s->n_sessions];
    return sessions_write(s) == 0 ? session : 0;
}

/* ---- the hash space ---- */

void store_put_table(struct store *s, const struct hashspace *h)
{
    _cleanup_(buf_free) struct buf b = { 0 };

    if (memcmp(s->cluster_id, h->cluster_id, UUID_BYTES) != 0) {
        memcpy(s->cluster_id, h->cluster_id, UUID_BYTES);
        s->n_sessions = 0;
        (void) sessions_write(s);
    }
    begin_file(&b);
    hashspace_put(&b, h, NULL, 0);
    (void) file_put(s, TABLE_NAME, &b);
}

bool store_get_table(const struct store *s, struct hashspace *h)
{
    _cleanup_(buf_free) struct buf b = { 0 };
    struct mp_reader in;
    int r = file_get(s, TABLE_NAME, &b, &in);

    if (r == 0) {
        r = hashspace_merge(h, &in);
    }
    if (r == 0) {
        return true;
    }
    if (r != -ENOENT) {
        hashspace_free(h);
        *h = (struct hashspace){ 0 };
        tell_damage(s, TABLE_NAME);
    }
    return false;
}

/* ---- life ---- */

int store_open(const char *dir, struct store **ret_store, struct io_error *error)
{
    struct store *s;
    int fd = daemon_lock_dir(dir, error);

    if (fd < 0) {
        return fd;
    }
    s = mem_zalloc(1, sizeof(*s));
    s->lock_fd = fd;
    s->dir = mem_alloc(strlen(dir) + 1);
    memcpy(s->dir, dir, strlen(dir) + 1);
    sessions_read(s);
    *ret_store = s;
    return 0;
}

struct store *store_free(struct store *s)
{
    if (s) {
        close(s->lock_fd);
        free(s->dir);
        free(s);
    }
    return NULL;
}
