#include "io/raft_store.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crc32c.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#define ENTRY_HEAD_BYTES 4
#define ENTRY_ALIGN      8

#define SNAPSHOT_HEAD_BYTES 8
#define SNAPSHOT_MAGIC      0x31534d4bU /* "KMS1" */

/* So long a killed process may need to let go of the directory: its disk writes end first. */
#define LOCK_TRIES    40
#define LOCK_TRY_USEC 25000

/* raft_uv's metadata file: format, version, term, voted for; u64 each. */
#define METADATA_BYTES 32

static void dir_closep(DIR **d)
{
    if (*d) {
        closedir(*d);
    }
}

static void fd_closep(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
}

/* What the names in the directory tell. */
struct contents {
    bool metadata1;
    bool metadata2;
    bool log; /* segments or snapshots */
};

static void contents_add(struct contents *c, const char *name)
{
    if (strcmp(name, "metadata1") == 0) {
        c->metadata1 = true;
    } else if (strcmp(name, "metadata2") == 0) {
        c->metadata2 = true;
    } else if (strncmp(name, "open-", 5) == 0 || strncmp(name, "snapshot-", 9) == 0 ||
               (name[0] >= '0' && name[0] <= '9')) {
        c->log = true;
    }
}

static int contents_read(int dir_fd, struct contents *ret_contents)
{
    _cleanup_(dir_closep) DIR *d = NULL;
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0) {
        return -errno;
    }
    d = fdopendir(fd);
    if (!d) {
        int r = -errno;
        close(fd);
        return r;
    }
    for (;;) {
        errno = 0;
        const struct dirent *e = readdir(d);
        if (!e) {
            return -errno;
        }
        contents_add(ret_contents, e->d_name);
    }
}

/* Whether metadata1 is what the first step of a bootstrap writes: version 1, term 1, no vote; or
 * less, when the crash came in the middle. Without a log beside it such a node has promised nothing
 * to anybody. */
static bool metadata_is_first(int dir_fd)
{
    uint8_t m[METADATA_BYTES];
    _cleanup_(fd_closep) int fd = openat(dir_fd, "metadata1", O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return false;
    }
    ssize_t n = read(fd, m, sizeof(m));
    if (n < (ssize_t) sizeof(m)) {
        return n >= 0;
    }
    return bytes_get_u64(m + 8) == 1 && bytes_get_u64(m + 16) == 1 && bytes_get_u64(m + 24) == 0;
}

static int lock_wait(int fd)
{
    for (int i = 0; i < LOCK_TRIES; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            return 0;
        }
        if (errno != EWOULDBLOCK) {
            return -errno;
        }
        usleep(LOCK_TRY_USEC);
    }
    return -EBUSY;
}

static int store_lock(const char *dir, int *ret_fd, char *why, size_t why_bytes)
{
    _cleanup_(fd_closep) int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r;

    if (fd < 0 || faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) < 0) {
        r = -errno;
        snprintf(why, why_bytes, "%s", strerror(-r));
        return r;
    }
    r = lock_wait(fd);
    if (r < 0) {
        snprintf(why, why_bytes, "%s", r == -EBUSY ? "another process has it open" : strerror(-r));
        return r;
    }
    *ret_fd = fd;
    fd = -1;
    return 0;
}

/* Decides whether something was begun in the directory; mends a bootstrap that a crash cut short.
 */
static int store_examine(int dir_fd, bool *ret_empty, char *why, size_t why_bytes)
{
    struct contents c = { 0 };
    int r = contents_read(dir_fd, &c);

    if (r < 0) {
        snprintf(why, why_bytes, "%s", strerror(-r));
        return r;
    }
    if (c.log && !c.metadata1 && !c.metadata2) {
        snprintf(why, why_bytes,
                 "its metadata files are missing; restore the directory as a whole");
        return -EBADMSG;
    }
    if (!c.log && c.metadata1 && !c.metadata2 && metadata_is_first(dir_fd)) {
        if (unlinkat(dir_fd, "metadata1", 0) < 0 || fsync(dir_fd) < 0) {
            r = -errno;
            snprintf(why, why_bytes, "%s", strerror(-r));
            return r;
        }
        c.metadata1 = false;
    }
    *ret_empty = !c.log && !c.metadata1 && !c.metadata2;
    return 0;
}

int raft_store_open(const char *dir, struct raft_store *ret_store, char *why, size_t why_bytes)
{
    struct raft_store s = { .lock_fd = -1 };
    int r = store_lock(dir, &s.lock_fd, why, why_bytes);

    if (r < 0) {
        return r;
    }
    r = store_examine(s.lock_fd, &s.empty, why, why_bytes);
    if (r < 0) {
        raft_store_close(&s);
        return r;
    }
    *ret_store = s;
    return 0;
}

void raft_store_close(struct raft_store *s)
{
    fd_closep(&s->lock_fd);
    s->lock_fd = -1;
}

int raft_store_entry_encode(const uint8_t *data, size_t bytes, struct raft_buffer *ret_entry)
{
    size_t used = ENTRY_HEAD_BYTES + bytes;
    size_t len = (used + ENTRY_ALIGN - 1) / ENTRY_ALIGN * ENTRY_ALIGN;
    uint8_t *p = raft_malloc(len);

    if (!p) {
        return -ENOMEM;
    }
    bytes_put_u32(p, (uint32_t) bytes);
    if (bytes > 0) {
        memcpy(p + ENTRY_HEAD_BYTES, data, bytes);
    }
    memset(p + used, 0, len - used);
    *ret_entry = (struct raft_buffer){ .base = p, .len = len };
    return 0;
}

int raft_store_entry_decode(const struct raft_buffer *entry, const uint8_t **ret_data,
                            size_t *ret_bytes)
{
    const uint8_t *p = entry->base;

    if (entry->len < ENTRY_HEAD_BYTES) {
        return -EBADMSG;
    }
    size_t bytes = bytes_get_u32(p);
    size_t room = entry->len - ENTRY_HEAD_BYTES;
    if (bytes > room || room - bytes >= ENTRY_ALIGN) {
        return -EBADMSG;
    }
    *ret_data = p + ENTRY_HEAD_BYTES;
    *ret_bytes = bytes;
    return 0;
}

void raft_store_snapshot_begin(struct buf *b)
{
    buf_reserve(b, SNAPSHOT_HEAD_BYTES);
    b->end += SNAPSHOT_HEAD_BYTES;
}

void raft_store_snapshot_end(struct buf *b)
{
    uint8_t *p = buf_head(b);

    bytes_put_u32(p, SNAPSHOT_MAGIC);
    bytes_put_u32(p + 4, crc32c(0, p + SNAPSHOT_HEAD_BYTES, buf_len(b) - SNAPSHOT_HEAD_BYTES));
}

int raft_store_snapshot_decode(const struct raft_buffer *snapshot, const uint8_t **ret_data,
                               size_t *ret_bytes)
{
    const uint8_t *p = snapshot->base;

    if (snapshot->len < SNAPSHOT_HEAD_BYTES || bytes_get_u32(p) != SNAPSHOT_MAGIC) {
        return -EBADMSG;
    }
    size_t bytes = snapshot->len - SNAPSHOT_HEAD_BYTES;
    if (bytes_get_u32(p + 4) != crc32c(0, p + SNAPSHOT_HEAD_BYTES, bytes)) {
        return -EBADMSG;
    }
    *ret_data = p + SNAPSHOT_HEAD_BYTES;
    *ret_bytes = bytes;
    return 0;
}
