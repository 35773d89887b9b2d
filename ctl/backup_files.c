#include "backup_files.h"

#include "base/cleanup.h"
#include "base/mem.h"
#include "io/files.h"
#include "io/segments.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPY_BYTES    (1u << 20)
#define COMPARE_BYTES 4096

/* ---- one file ---- */

/* Copies `left` bytes, fewer when the file is shorter. The kernel does it where it can: on some
 * file systems nothing is copied then either. */
static int copy_bytes(int from, int to, uint64_t left)
{
    _cleanup_free_ char *buffer = NULL;

    while (left > 0) {
        size_t want = (size_t) MIN_OF(left, COPY_BYTES);
        ssize_t n = buffer ? -1 : copy_file_range(from, NULL, to, NULL, want, 0);
        if (n < 0) {
            buffer = buffer ? buffer : mem_alloc(COPY_BYTES);
            n = read(from, buffer, want);
            if (n > 0 && write(to, buffer, (size_t) n) != n) {
                return errno ? -errno : -EIO;
            }
        }
        if (n <= 0) {
            return n < 0 ? -errno : 0;
        }
        left -= (uint64_t) n;
    }
    return 0;
}

static int copy(const char *from, const char *to)
{
    _cleanup_(files_close) int in = open(from, O_RDONLY | O_CLOEXEC);
    _cleanup_(files_close) int out =
        in < 0 ? -1 : open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    struct stat st;
    int r;

    if (in < 0 || out < 0 || fstat(in, &st) < 0) {
        return -errno;
    }
    errno = 0;
    r = copy_bytes(in, out, (uint64_t) st.st_size);
    return r == 0 && fsync(out) < 0 ? -errno : r;
}

/* Durable too: a torn tail of what is linked would be cut by the next start, here as well. */
static int link_to(const char *from, const char *to)
{
    return link(from, to) < 0 ? -errno : files_sync(to);
}

int backup_file(const char *from, const char *previous, const char *to, bool settled)
{
    int r = settled ? link_to(from, to) : -EXDEV;

    if (r < 0 && r != -ENOENT && settled && previous) { /* another file system, or not ours */
        r = link_to(previous, to);
    }
    return r < 0 ? copy(from, to) : r;
}

int backup_measure(const char *folder, struct backup_sum *ret)
{
    struct backup_sum sum = { 0 };
    DIR *d = opendir(folder);
    struct dirent *e;
    int r = d ? 0 : -errno;

    while (r == 0 && (e = readdir(d))) {
        struct stat st;
        r = fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
        if (r == 0 && S_ISREG(st.st_mode)) {
            sum.files++;
            sum.bytes += (uint64_t) st.st_size;
            sum.bytes_linked += st.st_nlink > 1 ? (uint64_t) st.st_size : 0;
        }
    }
    if (d) {
        closedir(d);
    }
    *ret = sum;
    return r;
}

bool backup_files_equal(const char *a, const char *b, size_t bytes)
{
    _cleanup_(files_close) int fd_a = open(a, O_RDONLY | O_CLOEXEC);
    _cleanup_(files_close) int fd_b = open(b, O_RDONLY | O_CLOEXEC);
    struct stat st_a;
    struct stat st_b;
    char bytes_a[COMPARE_BYTES];
    char bytes_b[COMPARE_BYTES];

    if (fd_a < 0 || fd_b < 0 || fstat(fd_a, &st_a) < 0 || fstat(fd_b, &st_b) < 0 ||
        st_a.st_size != st_b.st_size) {
        return false;
    }
    for (size_t at = 0; at < bytes;) {
        size_t want = MIN_OF(bytes - at, sizeof(bytes_a));
        ssize_t n = pread(fd_a, bytes_a, want, (off_t) at);
        if (n < 0 || pread(fd_b, bytes_b, want, (off_t) at) != n ||
            memcmp(bytes_a, bytes_b, (size_t) n) != 0) {
            return false;
        }
        if (n == 0) {
            break;
        }
        at += (size_t) n;
    }
    return true;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void) st;
    (void) type;
    (void) ftw;
    return remove(path);
}

void backup_remove(const char *dir)
{
    (void) nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- segments ---- */

static bool head_read(const struct segment_set *set, uint32_t number, struct segment_head *ret)
{
    uint8_t bytes[SEGMENT_HEAD_BYTES];
    char path[PATH_MAX];
    _cleanup_(files_close) int fd = -1;

    (void) snprintf(path, sizeof(path), "%.4000s/%010" PRIu32 ".seg", set->dir, number);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && read(fd, bytes, sizeof(bytes)) == (ssize_t) sizeof(bytes) &&
           segment_head_decode(bytes, sizeof(bytes), ret) == 0;
}

/* From the highest number down: the first segment of each shard in this start (or in a later one)
 * is open, and so is one that has no head yet. A start has cut the torn tails of those before it.
 */
static void open_find(const struct segment_set *set, uint64_t start, struct backup_segment *v,
                      size_t n)
{
    bool seen[SHARDS_MAX] = { false };
    uint64_t newest = start;

    for (size_t i = n; i-- > 0;) {
        struct segment_head h;
        if (!head_read(set, v[i].number, &h)) {
            v[i].open = true;
        } else if (h.start >= newest && h.shard < SHARDS_MAX) {
            newest = h.start;
            v[i].open = !seen[h.shard];
            seen[h.shard] = true;
        }
    }
}

int backup_segments(const char *data_dir, uint64_t start, struct backup_segment **ret,
                    size_t *ret_n)
{
    _cleanup_free_ struct segment_size *sizes = NULL;
    struct segment_set set = { 0 };
    struct backup_segment *v;
    size_t n;
    int r;

    (void) snprintf(set.dir, sizeof(set.dir), "%.4000s/log", data_dir);
    r = segment_set_sizes(&set, &sizes, &n);
    if (r < 0) {
        return r;
    }
    v = mem_zalloc(n + 1, sizeof(*v));
    for (size_t i = 0; i < n; i++) {
        v[i].number = sizes[i].number;
    }
    open_find(&set, start, v, n);
    *ret = v;
    *ret_n = n;
    return 0;
}
