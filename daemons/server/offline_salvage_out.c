/* The directory that a salvage makes: written under another name, and named when all of it is
 * durable. */
#include "offline_salvage.h"

#include "base/assert.h"
#include "io/files.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The folder above needs root's rights, if these were given up. */
static int parent_sync(const char *path)
{
    char parent[4096];
    char *slash;

    (void) snprintf(parent, sizeof(parent), "%s", path);
    slash = strrchr(parent, '/');
    if (!slash) {
        return -EINVAL;
    }
    slash[slash == parent] = '\0';
    return files_sync(parent);
}

int salvage_out_begin(struct salvage_out *o, const char *dir, const char *like, struct wal *log,
                      struct io_error *error)
{
    char path[4096];
    struct stat st;

    *o = (struct salvage_out){ .log = log, .log_fd = -1, .segment_fd = -1 };
    (void) snprintf(o->dir, sizeof(o->dir), "%s", dir);
    (void) snprintf(path, sizeof(path), "%.4000s/log", dir);
    if (stat(like, &st) < 0 || mkdir(dir, 0750) < 0 ||
        (st.st_uid != geteuid() && chown(dir, st.st_uid, st.st_gid) < 0)) {
        return io_error_set(error, -errno, "%s can't be made: %s", dir, strerror(errno));
    }
    if (offline_become_owner(dir, error) < 0) {
        return -EPERM;
    }
    if (mkdir(path, 0750) < 0 || (o->log_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        return io_error_set(error, -errno, "%s can't be made: %s", path, strerror(errno));
    }
    return 0;
}

static int segment_end(struct salvage_out *o)
{
    int r = o->segment_fd >= 0 && fdatasync(o->segment_fd) < 0 ? -errno : 0;

    if (o->segment_fd >= 0) {
        close(o->segment_fd);
        o->segment_fd = -1;
    }
    return r;
}

static int segment_create(struct salvage_out *o, uint32_t number)
{
    char name[32];
    int r = segment_end(o);

    if (r < 0) {
        return r;
    }
    (void) snprintf(name, sizeof(name), "%010" PRIu32 ".seg", number);
    o->segment_fd = openat(o->log_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    return o->segment_fd < 0 ? -errno : 0;
}

static int write_at(int fd, const uint8_t *p, size_t bytes, uint64_t offset)
{
    while (bytes > 0) {
        ssize_t n = pwrite(fd, p, bytes, (off_t) offset);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        p += n > 0 ? n : 0;
        bytes -= n > 0 ? (size_t) n : 0;
        offset += n > 0 ? (uint64_t) n : 0;
    }
    return 0;
}

static int act(struct salvage_out *o, const struct action *a)
{
    int r = 0;

    if (a->kind == ACTION_SYNC) {
        r = fdatasync(o->segment_fd) < 0 || fsync(o->log_fd) < 0 ? -errno : 0;
        if (r == 0) {
            wal_synced(o->log, a->group);
        }
        return r;
    }
    kumo_assert(a->kind == ACTION_CREATE || a->kind == ACTION_WRITE);
    if (a->kind == ACTION_CREATE) {
        r = segment_create(o, a->file.at.segment);
    }
    return r < 0 ? r : write_at(o->segment_fd, a->file.data, a->file.bytes, a->file.at.offset);
}

int salvage_out_flush(struct salvage_out *o, struct io_error *error)
{
    struct actions out = { 0 };
    int r = 0;

    wal_flush(o->log, &out);
    for (size_t i = 0; r == 0 && i < out.n; i++) {
        r = act(o, &out.v[i]);
    }
    wal_flushed(o->log);
    actions_free(&out);
    return r < 0 ? io_error_set(error, r, "%s/log can't be written: %s", o->dir, strerror(-r)) : 0;
}

int salvage_out_publish(const struct salvage_out *o, const char *name, struct io_error *error)
{
    int r = files_sync(o->dir);

    if (r == 0 && getuid() == 0 && (seteuid(0) < 0 || setegid(0) < 0)) {
        r = -errno;
    }
    if (r == 0 && rename(o->dir, name) < 0) {
        r = -errno;
    }
    if (r == 0) {
        r = parent_sync(name);
    }
    return r < 0 ? io_error_set(error, r, "%s can't be named %s: %s", o->dir, name, strerror(-r))
                 : 0;
}

void salvage_out_end(struct salvage_out *o)
{
    (void) segment_end(o);
    if (o->log_fd >= 0) {
        close(o->log_fd);
    }
}
