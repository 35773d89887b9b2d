#include "shim.h"

#include "base/assert.h"
#include "base/rng.h"
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FDS_MAX 1024

const char *const shim_call_names[_SHIM_CALL_MAX] = {
    [SHIM_WRITE] = "write",   [SHIM_SPACE] = "room",        [SHIM_FDATASYNC] = "fdatasync",
    [SHIM_FSYNC] = "fsync",   [SHIM_TRUNCATE] = "truncate", [SHIM_RENAME] = "rename",
    [SHIM_OPEN] = "open",     [SHIM_UNLINK] = "unlink",     [SHIM_MMAP] = "mmap",
    [SHIM_MALLOC] = "malloc",
};

static struct {
    struct shim_options o;
    size_t dir_bytes;
    bool on;
    uint64_t changes; /* made so far; within the journal's lock */
    bool tracked[FDS_MAX];
    char *folders[FDS_MAX]; /* of the open folders: their paths, for openat and unlinkat */
} shim;
static _Thread_local bool exempt;
static _Thread_local struct rng delays;

int __real_open(const char *path, int flags, ...);
int __real_openat(int fd, const char *path, int flags, ...);
int __real_close(int fd);
ssize_t __real_write(int fd, const void *p, size_t n);
ssize_t __real_pwrite(int fd, const void *p, size_t n, off_t at);
int __real_ftruncate(int fd, off_t size);
int __real_truncate(const char *path, off_t size);
int __real_fsync(int fd);
int __real_fdatasync(int fd);
int __real_renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags);
int __real_unlink(const char *path);
int __real_unlinkat(int fd, const char *path, int flags);
int __real_mkdir(const char *path, mode_t mode);
void *__real_mmap(void *p, size_t n, int prot, int flags, int fd, off_t at);
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *p, size_t n);

int __wrap_open(const char *path, int flags, ...);
int __wrap_openat(int fd, const char *path, int flags, ...);
int __wrap_close(int fd);
ssize_t __wrap_write(int fd, const void *p, size_t n);
ssize_t __wrap_pwrite(int fd, const void *p, size_t n, off_t at);
int __wrap_ftruncate(int fd, off_t size);
int __wrap_truncate(const char *path, off_t size);
int __wrap_fsync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_rename(const char *from, const char *to);
int __wrap_renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags);
int __wrap_unlink(const char *path);
int __wrap_unlinkat(int fd, const char *path, int flags);
int __wrap_mkdir(const char *path, mode_t mode);
void *__wrap_mmap(void *p, size_t n, int prot, int flags, int fd, off_t at);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_realloc(void *p, size_t n);

void shim_begin(const struct shim_options *o)
{
    shim.o = *o;
    shim.dir_bytes = strlen(o->dir);
    shim.on = true;
    journal_note(o->journal, &(struct record){ .kind = RECORD_LIFE }, NULL, 0);
}

/* Between change_begin and change_end a call and its record are one. */
static void change_begin(void)
{
    journal_lock(shim.o.journal);
}

static void change_end(void)
{
    if (++shim.changes == shim.o.kill_after) {
        _exit(0);
    }
    journal_unlock(shim.o.journal);
}

void shim_exempt(void)
{
    exempt = true;
}

void shim_kill(void)
{
    journal_lock(shim.o.journal);
    _exit(0);
}

/* Counts the call. True: it must fail, with errno set. */
static bool fails(enum shim_call call)
{
    const struct shim_fault *f = &shim.o.fault;
    uint64_t n;

    if (!shim.on || exempt) {
        return false;
    }
    n = atomic_fetch_add(&shim.o.counts->calls[call], 1) + 1;
    if (call != f->call || f->nth == 0 || n < f->nth || n > f->last) {
        return false;
    }
    atomic_store(&shim.o.counts->fired, true);
    errno = f->error;
    return true;
}

static bool is_tracked(int fd)
{
    return shim.on && fd >= 0 && fd < FDS_MAX && shim.tracked[fd];
}

/* The path within the folder, or NULL: none of ours, or no data. */
static const char *inside(const char *path)
{
    if (!shim.on || strncmp(path, shim.o.dir, shim.dir_bytes) != 0) {
        return NULL;
    }
    path += shim.dir_bytes;
    path += *path == '/';
    return files_is_data(path) ? path : NULL;
}

/* The whole path of a name in an open folder of ours; else the name itself. */
static const char *resolve(int fd, const char *name, char out[PATH_MAX])
{
    if (name[0] == '/' || !is_tracked(fd) || !shim.folders[fd]) {
        return name;
    }
    snprintf(out, PATH_MAX, "%s/%s", shim.folders[fd], name);
    return out;
}

static void note_path(enum record_kind kind, int fd, bool flag, const char *path)
{
    struct record head = { .kind = kind, .fd = fd, .flag = flag };

    journal_add(shim.o.journal, &head, path, strlen(path) + 1);
}

static void note_fd(enum record_kind kind, int fd, uint64_t at, bool flag)
{
    struct record head = { .kind = kind, .fd = fd, .at = at, .flag = flag };

    journal_add(shim.o.journal, &head, NULL, 0);
}

/* ---- names ---- */

static int open_noted(const char *path, int flags, mode_t mode)
{
    const char *name = inside(path);
    struct stat st;
    int fd;

    if (!name) {
        return __real_open(path, flags, mode);
    }
    if (fails(SHIM_OPEN) || (flags & O_CREAT && stat(path, &st) < 0 && fails(SHIM_SPACE))) {
        return -1;
    }
    change_begin();
    fd = __real_open(path, flags, mode);
    if (fd >= 0) {
        kumo_assert(fd < FDS_MAX);
        shim.tracked[fd] = true;
        if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
            shim.folders[fd] = strdup(path);
        }
        note_path(RECORD_OPEN, fd, flags & O_TRUNC, name);
    }
    change_end();
    return fd;
}

int __wrap_open(const char *path, int flags, ...)
{
    va_list ap;
    mode_t mode;

    va_start(ap, flags);
    mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    return open_noted(path, flags, mode);
}

int __wrap_openat(int fd, const char *path, int flags, ...)
{
    char whole[PATH_MAX];
    va_list ap;
    mode_t mode;

    va_start(ap, flags);
    mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    kumo_assert(is_tracked(fd));
    return open_noted(resolve(fd, path, whole), flags, mode);
}

int __wrap_close(int fd)
{
    int r;

    if (!is_tracked(fd)) {
        return __real_close(fd);
    }
    change_begin();
    note_fd(RECORD_CLOSE, fd, 0, false);
    shim.tracked[fd] = false;
    free(shim.folders[fd]);
    shim.folders[fd] = NULL;
    r = __real_close(fd);
    change_end();
    return r;
}

int __wrap_mkdir(const char *path, mode_t mode)
{
    const char *name = inside(path);
    int r;

    if (!name) {
        return __real_mkdir(path, mode);
    }
    change_begin();
    r = __real_mkdir(path, mode);
    if (r == 0) {
        note_path(RECORD_MKDIR, -1, false, name);
    }
    change_end();
    return r;
}

/* With RENAME_EXCHANGE the two names are swapped. */
static int rename_noted(const char *from, const char *to, unsigned flags)
{
    const char *a = inside(from);
    const char *b = inside(to);
    struct record head = { .kind = RECORD_RENAME, .flag = flags != 0 };
    char both[2 * PATH_MAX];
    int n;
    int r;

    if (!a || !b) {
        return __real_renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
    }
    if (fails(SHIM_RENAME)) {
        return -1;
    }
    n = snprintf(both, sizeof(both), "%s%c%s", a, '\0', b);
    change_begin();
    r = __real_renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
    if (r == 0) {
        journal_add(shim.o.journal, &head, both, (size_t) n + 1);
    }
    change_end();
    return r;
}

int __wrap_rename(const char *from, const char *to)
{
    return rename_noted(from, to, 0);
}

int __wrap_renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    kumo_assert(from_fd == AT_FDCWD && to_fd == AT_FDCWD);
    kumo_assert(flags == RENAME_EXCHANGE);
    return rename_noted(from, to, flags);
}

int __wrap_unlink(const char *path)
{
    const char *name = inside(path);
    int r;

    if (!name) {
        return __real_unlink(path);
    }
    if (fails(SHIM_UNLINK)) {
        return -1;
    }
    change_begin();
    r = __real_unlink(path);
    if (r == 0) {
        note_path(RECORD_UNLINK, -1, false, name);
    }
    change_end();
    return r;
}

/* The folder is one that opendir opened, which is not tracked: its name comes from the kernel. */
int __wrap_unlinkat(int fd, const char *path, int flags)
{
    char link[64];
    char folder[PATH_MAX];
    char whole[PATH_MAX + NAME_MAX];
    ssize_t n;

    kumo_assert(flags == 0);
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, folder, sizeof(folder) - 1);
    kumo_assert(n > 0);
    folder[n] = '\0';
    snprintf(whole, sizeof(whole), "%s/%s", folder, path);
    return __wrap_unlink(whole);
}

/* ---- contents ---- */

/* How many of n bytes there is room for; what is written over has its room. */
static size_t room(int fd, size_t n, off_t at)
{
    bool before = atomic_load(&shim.o.counts->fired);
    struct stat st;

    kumo_assert(fstat(fd, &st) == 0);
    if (at + (off_t) n <= st.st_size || !fails(SHIM_SPACE)) {
        return n;
    }
    return before ? 0 : n / 2;
}

static ssize_t write_noted(int fd, const void *p, size_t n, off_t at)
{
    struct record head = { .kind = RECORD_WRITE, .fd = fd, .at = (uint64_t) at };
    ssize_t done;

    n = fails(SHIM_WRITE) ? 0 : room(fd, n, at);
    if (n == 0) {
        errno = shim.o.fault.error;
        return -1;
    }
    change_begin();
    done = __real_pwrite(fd, p, n, at);
    if (done > 0) {
        journal_add(shim.o.journal, &head, p, (size_t) done);
    }
    change_end();
    return done;
}

ssize_t __wrap_pwrite(int fd, const void *p, size_t n, off_t at)
{
    return is_tracked(fd) ? write_noted(fd, p, n, at) : __real_pwrite(fd, p, n, at);
}

ssize_t __wrap_write(int fd, const void *p, size_t n)
{
    off_t at;
    ssize_t done;

    if (!is_tracked(fd)) {
        return __real_write(fd, p, n);
    }
    at = lseek(fd, 0, SEEK_CUR);
    done = write_noted(fd, p, n, at);
    if (done > 0) {
        (void) lseek(fd, at + done, SEEK_SET);
    }
    return done;
}

int __wrap_ftruncate(int fd, off_t size)
{
    int r;

    if (!is_tracked(fd)) {
        return __real_ftruncate(fd, size);
    }
    if (fails(SHIM_TRUNCATE)) {
        return -1;
    }
    change_begin();
    r = __real_ftruncate(fd, size);
    if (r == 0) {
        note_fd(RECORD_TRUNCATE, fd, (uint64_t) size, false);
    }
    change_end();
    return r;
}

int __wrap_truncate(const char *path, off_t size)
{
    const char *name = inside(path);
    struct record head = { .kind = RECORD_TRUNCATE, .fd = -1, .at = (uint64_t) size };
    int r;

    if (!name) {
        return __real_truncate(path, size);
    }
    if (fails(SHIM_TRUNCATE)) {
        return -1;
    }
    change_begin();
    r = __real_truncate(path, size);
    if (r == 0) {
        journal_add(shim.o.journal, &head, name, strlen(name) + 1);
    }
    change_end();
    return r;
}

static int sync_noted(int fd, enum shim_call call)
{
    bool failed;

    if (delays.state == 0) {
        delays.state = shim.o.seed + (uint64_t) (uintptr_t) &delays;
    }
    change_begin();
    note_fd(RECORD_SYNC_BEGIN, fd, 0, false);
    change_end();
    usleep((useconds_t) rng_below(&delays, shim.o.sync_usec_max + 1));
    failed = fails(call);
    change_begin();
    note_fd(RECORD_SYNC_END, fd, 0, failed);
    change_end();
    if (failed) {
        errno = shim.o.fault.error;
    }
    return failed ? -1 : 0;
}

int __wrap_fsync(int fd)
{
    return is_tracked(fd) ? sync_noted(fd, SHIM_FSYNC) : __real_fsync(fd);
}

int __wrap_fdatasync(int fd)
{
    return is_tracked(fd) ? sync_noted(fd, SHIM_FDATASYNC) : __real_fdatasync(fd);
}

/* ---- memory ---- */

void *__wrap_mmap(void *p, size_t n, int prot, int flags, int fd, off_t at)
{
    return is_tracked(fd) && fails(SHIM_MMAP) ? MAP_FAILED : __real_mmap(p, n, prot, flags, fd, at);
}

void *__wrap_malloc(size_t n)
{
    return fails(SHIM_MALLOC) ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t bytes)
{
    return fails(SHIM_MALLOC) ? NULL : __real_calloc(n, bytes);
}

void *__wrap_realloc(void *p, size_t n)
{
    return fails(SHIM_MALLOC) ? NULL : __real_realloc(p, n);
}
