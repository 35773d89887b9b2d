#include "io/files.h"
#include "io/segments.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/bus.h"
#include "io/progress.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define REWRITE_BYTES (UINT64_C(1) << 20)

/* At most 256 MiB/s: others read from the disk as well. */
#define LOOK_BYTES      (UINT64_C(1) << 20)
#define LOOK_PAUSE_USEC 4000

static int segment_path(const char *dir, uint32_t number, char out[PATH_MAX])
{
    return snprintf(out, PATH_MAX, "%s/%010" PRIu32 ".seg", dir, number) < PATH_MAX ? 0
                                                                                    : -ENAMETOOLONG;
}

/* Number of a segment's file name, 0 when it is none. */
static uint32_t name_number(const char *name)
{
    uint64_t n = 0;
    size_t i = 0;

    for (; name[i] >= '0' && name[i] <= '9'; i++) {
        n = n * 10 + (uint64_t) (name[i] - '0');
    }
    return i == 10 && strcmp(name + i, ".seg") == 0 && n <= UINT32_MAX ? (uint32_t) n : 0;
}

static int compare_numbers(const void *a, const void *b)
{
    const struct wal_segment *x = a;
    const struct wal_segment *y = b;

    return x->number < y->number ? -1 : x->number > y->number;
}

/* Maps the file, read-only. An empty one has no data. */
static int segment_map(const char *dir, struct wal_segment *s)
{
    char path[PATH_MAX];
    struct stat st;
    int r = segment_path(dir, s->number, path);
    int fd = r < 0 ? -1 : open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return r < 0 ? r : -errno;
    }
    r = fstat(fd, &st) < 0 ? -errno : 0;
    if (r == 0 && st.st_size > 0) {
        void *p = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        r = p == MAP_FAILED ? -errno : 0;
        s->data = r == 0 ? p : NULL;
        s->bytes = r == 0 ? (size_t) st.st_size : 0;
    }
    close(fd);
    return r;
}

static int set_list(struct segment_set *set)
{
    DIR *d = opendir(set->dir);
    struct dirent *e;
    size_t cap = 0;

    if (!d) {
        return -errno;
    }
    while ((e = readdir(d))) {
        uint32_t number = name_number(e->d_name);
        if (number > 0) {
            mem_grow(&set->v, &cap, set->n + 1, sizeof(*set->v));
            set->v[set->n++] = (struct wal_segment){ .number = number };
        }
    }
    closedir(d);
    if (set->n > 0) {
        qsort(set->v, set->n, sizeof(*set->v), compare_numbers);
    }
    return 0;
}

int segment_set_open(struct segment_set *set, const char *data_dir, struct io_error *error)
{
    int r;

    *set = (struct segment_set){ 0 };
    if (snprintf(set->dir, sizeof(set->dir), "%s/log", data_dir) >= (int) sizeof(set->dir)) {
        return io_error_set(error, -ENAMETOOLONG, "%s: the path is too long", data_dir);
    }
    if (mkdir(set->dir, 0750) < 0 && errno != EEXIST) {
        return io_error_set(error, -errno, "%s can't be made: %s", set->dir, strerror(errno));
    }
    r = set_list(set);
    for (size_t i = 0; i < set->n && r == 0; i++) {
        r = segment_map(set->dir, &set->v[i]);
    }
    if (r < 0) {
        segment_set_close(set);
        return io_error_set(error, r, "the log in %s/log can't be read: %s", data_dir,
                            strerror(-r));
    }
    return 0;
}

const struct wal_segment *segment_set_find(const struct segment_set *set, uint32_t number)
{
    size_t lo = 0;
    size_t hi = set->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (set->v[mid].number == number) {
            return &set->v[mid];
        }
        if (set->v[mid].number < number) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return NULL;
}

uint32_t segment_set_highest(const struct segment_set *set)
{
    return set->n > 0 ? set->v[set->n - 1].number : 0;
}

static void segment_unmap(struct wal_segment *s)
{
    if (s->data) {
        munmap((void *) s->data, s->bytes);
        s->data = NULL;
    }
}

/* What may be in memory only is written once more: after a sync that failed in the last process its
 * pages count as clean, and another sync would do nothing. */
static int rewrite(int fd, const struct wal_segment *s, struct progress *progress)
{
    _cleanup_free_ uint8_t *bytes = NULL;
    size_t at = s->synced_bytes;

    bytes = at < s->good_bytes ? mem_alloc(REWRITE_BYTES) : NULL;
    while (at < s->good_bytes) {
        size_t n = MIN_OF(s->good_bytes - at, REWRITE_BYTES);
        memcpy(bytes, s->data + at, n);
        if (pwrite(fd, bytes, n, (off_t) at) != (ssize_t) n) {
            return errno ? -errno : -EIO;
        }
        at += n;
        if (progress_add(progress, n) < 0) {
            return -ECANCELED;
        }
    }
    return 0;
}

/* Cuts the file to what is good and makes that durable. */
static int segment_settle(const struct segment_set *set, struct wal_segment *s)
{
    char path[PATH_MAX];
    int r = segment_path(set->dir, s->number, path);
    int fd;

    if (r < 0) {
        return r;
    }
    if (s->good_bytes == 0) {
        segment_unmap(s);
        return unlink(path) < 0 ? -errno : 0;
    }
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || (s->good_bytes < s->bytes && ftruncate(fd, (off_t) s->good_bytes) < 0)) {
        r = -errno;
    }
    if (r == 0) {
        r = rewrite(fd, s, set->progress);
    }
    if (r == 0 && fsync(fd) < 0) {
        r = -errno;
    }
    if (fd >= 0) {
        close(fd);
    }
    return r < 0 ? r : progress_add(set->progress, s->synced_bytes);
}

/* ---- checking ---- */

struct looking {
    const struct segment_set *set;
    _Atomic uint32_t unreadable; /* a segment that the disk can't give */
};

/* -EIO instead of the process's end: from here on the bytes are in memory. */
static int segment_touch(struct looking *l, const struct wal_segment *s, size_t bytes)
{
    int r = bus_touch(s->data, MIN_OF(bytes, s->bytes));

    if (r < 0) {
        l->unreadable = s->number;
    }
    return r;
}

static int segment_look(void *ctx, size_t i)
{
    struct looking *l = ctx;
    struct wal_segment *s = &l->set->v[i];
    int r = s->looked_bytes < s->bytes ? segment_touch(l, s, s->bytes) : 0;
    bool more = true;

    while (more && r == 0) {
        size_t before = s->looked_bytes;
        more = wal_check_step(s, PROGRESS_STEP_BYTES);
        r = progress_add(l->set->progress, s->looked_bytes - before);
    }
    return r;
}

static int heads_touch(struct looking *l)
{
    int r = 0;

    for (size_t i = 0; i < l->set->n && r == 0; i++) {
        r = segment_touch(l, &l->set->v[i], SEGMENT_HEAD_BYTES);
    }
    return r;
}

/* Looks through all segments, several at a time. */
static int set_look(struct segment_set *set, const struct wal_floor *floor,
                    struct wal_damage *ret_damage)
{
    struct looking l = { .set = set };
    uint64_t bytes = 0;
    int r = heads_touch(&l);

    if (r == 0) {
        r = wal_check_begin(set->v, set->n, floor, ret_damage);
    }
    for (size_t i = 0; i < set->n; i++) {
        bytes += set->v[i].bytes - set->v[i].looked_bytes;
    }
    if (r == 0) {
        progress_begin(set->progress, "checking the log", "segments", set->n, bytes);
        r = progress_spread(set->progress, set->n, segment_look, &l);
    }
    if (r == -EIO) {
        *ret_damage = (struct wal_damage){ l.unreadable, 0, "the disk can't read it" };
    }
    return r < 0 ? r : wal_check_end(set->v, set->n, floor, ret_damage);
}

static int set_settle(struct segment_set *set, struct io_error *error)
{
    uint64_t bytes = 0;
    size_t kept = 0;
    int r;

    for (size_t i = 0; i < set->n; i++) {
        bytes += set->v[i].trusted ? 0 : set->v[i].good_bytes;
    }
    progress_begin(set->progress, "syncing the log", NULL, set->n, bytes);
    for (size_t i = 0; i < set->n; i++) {
        r = set->v[i].trusted ? 0 : segment_settle(set, &set->v[i]);
        if (r < 0) {
            return io_error_set(error, r, "%s/%010" PRIu32 ".seg can't be settled: %s", set->dir,
                                set->v[i].number, strerror(-r));
        }
    }
    for (size_t i = 0; i < set->n; i++) {
        set->cut_bytes += set->v[i].bytes - set->v[i].good_bytes;
        if (set->v[i].good_bytes > 0) {
            set->v[kept++] = set->v[i];
        }
    }
    set->n = kept;
    r = files_sync(set->dir);
    return r < 0 ? io_error_set(error, r, "%s can't be synced: %s", set->dir, strerror(-r)) : 0;
}

int segment_set_check(struct segment_set *set, const struct wal_floor *floor,
                      struct io_error *error)
{
    struct wal_damage damage;
    int r = set_look(set, floor, &damage);

    if (r == 0) {
        r = set_settle(set, error);
    } else if (r != -ECANCELED) {
        io_error_set(error, r,
                     "%s/%010" PRIu32 ".seg is damaged at byte %" PRIu64
                     ": %s. Nothing was changed and nothing is served from this log",
                     set->dir, damage.segment, damage.offset, damage.what);
    }
    progress_end(set->progress);
    return r;
}

uint64_t segment_set_replay_bytes(const struct segment_set *set, uint32_t shards)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < set->n; i++) {
        const struct wal_segment *s = &set->v[i];
        if (!s->trusted) {
            bytes += s->head.shards == shards ? s->good_bytes : s->good_bytes * shards;
        }
    }
    return bytes;
}

int segment_set_look(const struct segment_set *set, uint32_t number)
{
    _cleanup_free_ uint8_t *bytes = mem_alloc(LOOK_BYTES);
    char path[PATH_MAX];
    int r = segment_path(set->dir, number, path);
    int fd = r < 0 ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = 1;

    if (fd < 0) {
        return r < 0 ? r : -errno;
    }
    while (n > 0) {
        n = read(fd, bytes, LOOK_BYTES);
        r = n < 0 ? -errno : 0;
        usleep(LOOK_PAUSE_USEC);
    }
    close(fd);
    return r;
}

int segment_set_unlink(const struct segment_set *set, uint32_t number)
{
    char path[PATH_MAX];
    int r = segment_path(set->dir, number, path);

    if (r == 0 && unlink(path) < 0) {
        r = -errno;
    }
    return r < 0 ? r : files_sync(set->dir);
}

void segment_set_forget(struct segment_set *set, uint32_t number)
{
    struct wal_segment *s = (struct wal_segment *) segment_set_find(set, number);

    if (s) {
        segment_unmap(s);
    }
}

static int compare_sizes(const void *a, const void *b)
{
    const struct segment_size *x = a;
    const struct segment_size *y = b;

    return x->number < y->number ? -1 : x->number > y->number;
}

int segment_set_sizes(const struct segment_set *set, struct segment_size **ret, size_t *ret_n)
{
    DIR *d = opendir(set->dir);
    struct segment_size *v = NULL;
    struct dirent *e;
    struct stat st;
    size_t cap = 0;
    size_t n = 0;

    if (!d) {
        return -errno;
    }
    while ((e = readdir(d))) {
        uint32_t number = name_number(e->d_name);
        if (number > 0 && fstatat(dirfd(d), e->d_name, &st, 0) == 0) {
            mem_grow(&v, &cap, n + 1, sizeof(*v));
            v[n++] = (struct segment_size){ number, (uint64_t) st.st_size };
        }
    }
    closedir(d);
    if (n > 0) {
        qsort(v, n, sizeof(*v), compare_sizes);
    }
    *ret = v;
    *ret_n = n;
    return 0;
}

void segment_set_replayed(const struct segment_set *set)
{
    for (size_t i = 0; i < set->n; i++) {
        if (set->v[i].data) {
            (void) madvise((void *) set->v[i].data, set->v[i].bytes, MADV_RANDOM);
        }
    }
}

void segment_set_close(struct segment_set *set)
{
    for (size_t i = 0; i < set->n; i++) {
        segment_unmap(&set->v[i]);
    }
    free(set->v);
    *set = (struct segment_set){ 0 };
}
