/* Generations of checkpoints for the offline tools: each looked at for itself, with the place of
 * the damage, and written without a server. */
#include "io/datadir.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/mem.h"
#include "core/replica.h"
#include "io/checkpoint_names.h"
#include "io/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- reading ---- */

static int compare_newest_first(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *) a;
    uint64_t y = *(const uint64_t *) b;

    return x > y ? -1 : x < y;
}

int datadir_generations(const char *dir, uint64_t **ret, size_t *ret_n, uint64_t *ret_highest,
                        struct io_error *error)
{
    char path[PATH_MAX];
    struct dirent *e;
    size_t cap = 0;
    DIR *d;

    *ret = NULL;
    *ret_n = 0;
    *ret_highest = 0;
    (void) snprintf(path, sizeof(path), "%.4000s/checkpoint", dir);
    d = opendir(path);
    if (!d) {
        return errno == ENOENT
                   ? 0
                   : io_error_set(error, -errno, "%s can't be read: %s", path, strerror(errno));
    }
    while ((e = readdir(d))) {
        bool manifest;
        uint64_t generation = checkpoint_name_generation(e->d_name, &manifest);
        *ret_highest = MAX_OF(*ret_highest, generation);
        if (generation > 0 && manifest) {
            mem_grow(ret, &cap, *ret_n + 1, sizeof(**ret));
            (*ret)[(*ret_n)++] = generation;
        }
    }
    closedir(d);
    if (*ret_n > 0) {
        qsort(*ret, *ret_n, sizeof(**ret), compare_newest_first);
    }
    return 0;
}

/* Maps a file whole. An empty one can't be mapped: -ENODATA. */
static int file_map(const char *path, struct checkpoint_file *ret)
{
    _cleanup_(files_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    void *p;

    if (fd < 0 || fstat(fd, &st) < 0) {
        return -errno;
    }
    if (st.st_size == 0) {
        return -ENODATA;
    }
    p = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) {
        return -errno;
    }
    *ret = (struct checkpoint_file){ p, (size_t) st.st_size };
    return 0;
}

static int manifest_read(const char *path, uint64_t generation, uint32_t partitions,
                         struct manifest *ret, struct io_error *error)
{
    struct checkpoint_file file;
    int r = file_map(path, &file);

    if (r < 0) {
        return io_error_set(error, r, "%s can't be read: %s", path, strerror(-r));
    }
    r = manifest_decode(file.data, file.bytes, ret);
    munmap((void *) file.data, file.bytes);
    if (r < 0) {
        return io_error_set(error, r, "%s is damaged: its checksum or form is wrong", path);
    }
    if (ret->generation != generation || ret->partitions != partitions) {
        io_error_set(error, -EBADMSG,
                     "%s is of generation %" PRIu64 " and %" PRIu32 " partitions, and not of "
                     "%" PRIu64 " and %" PRIu32,
                     path, ret->generation, ret->partitions, generation, partitions);
        manifest_free(ret);
        return -EBADMSG;
    }
    return 0;
}

int datadir_generation_open(const char *dir, uint64_t generation, uint32_t partitions,
                            struct checkpoint_set *ret, struct io_error *error)
{
    char path[PATH_MAX];
    int r;

    *ret = (struct checkpoint_set){ 0 };
    (void) snprintf(ret->dir, sizeof(ret->dir), "%.4000s/checkpoint", dir);
    manifest_path(ret->dir, generation, path);
    r = manifest_read(path, generation, partitions, &ret->manifest, error);
    if (r < 0) {
        return r;
    }
    for (uint32_t p = 0; p < partitions; p++) {
        uint16_t file = ret->manifest.items[p].file;
        if (file < SHARDS_MAX && !ret->files[file].data) {
            checkpoint_path(ret->dir, generation, file, path);
            (void) file_map(path, &ret->files[file]); /* told when its partitions are checked */
        }
    }
    ret->found = true;
    return 0;
}

int datadir_generation_check(const struct checkpoint_set *set, uint16_t partition,
                             struct io_error *error)
{
    const struct manifest_item *it = &set->manifest.items[partition];
    const struct checkpoint_file *f = it->file < SHARDS_MAX ? &set->files[it->file] : NULL;
    const char *what = NULL;
    char path[PATH_MAX];

    if (!f || !f->data) {
        what = "the file can't be read";
    } else if (it->bytes < 4 || it->offset > f->bytes || it->bytes > f->bytes - it->offset) {
        what = "the file is too short";
    } else if (crc32c(0, f->data + it->offset, it->bytes - 4) != it->crc ||
               bytes_get_u32(f->data + it->offset + it->bytes - 4) != it->crc) {
        what = "its checksum is wrong";
    }
    if (what) {
        checkpoint_path(set->dir, set->manifest.generation, it->file, path);
        return io_error_set(error, -EBADMSG,
                            "%s is damaged: the checkpoint of partition %u, %" PRIu64
                            " bytes from byte %" PRIu64 " on: %s",
                            path, partition, it->bytes, it->offset, what);
    }
    return 0;
}

/* ---- writing ---- */

/* Durable in itself; its name is not. */
static int file_write(const char *path, const struct buf *b)
{
    _cleanup_(files_close) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    int r = fd < 0 ? -errno : files_write_all(fd, b->data + b->start, buf_len(b));

    return r == 0 && fsync(fd) < 0 ? -errno : r;
}

/* All partitions, one after the other, in one file. */
static int partitions_write(int fd, const struct shard *s, struct manifest *m)
{
    _cleanup_(buf_free) struct buf b = { 0 };
    uint64_t offset = 0;

    for (uint32_t p = 0; p < m->partitions; p++) {
        struct manifest_item *it = &m->items[p];
        uint64_t group;
        int r;
        buf_clear(&b);
        it->partition = (uint16_t) p;
        it->offset = offset;
        r = checkpoint_take(s, (uint16_t) p, &b, NULL, &it->x, &group);
        if (r == 0) {
            r = files_write_all(fd, b.data, buf_len(&b));
        }
        if (r < 0) {
            return r;
        }
        it->bytes = buf_len(&b);
        it->crc = checkpoint_crc(b.data, buf_len(&b));
        offset += it->bytes;
    }
    return fsync(fd) < 0 ? -errno : 0;
}

/* As a server publishes it: files and their names, then the manifest under another name, which is
 * renamed when it is durable. */
static int publish(const char *dir, const struct manifest *m)
{
    _cleanup_(buf_free) struct buf b = { 0 };
    char path[PATH_MAX];
    char temporary[PATH_MAX];
    int r;

    manifest_encode(&b, m);
    manifest_path(dir, m->generation, path);
    (void) snprintf(temporary, sizeof(temporary), "%.4080s.new", path);
    r = file_write(temporary, &b);
    if (r == 0) {
        r = files_sync(dir);
    }
    if (r == 0 && rename(temporary, path) < 0) {
        r = -errno;
    }
    return r == 0 ? files_sync(dir) : r;
}

int datadir_generation_write(const char *dir, const struct shard *s, uint64_t generation,
                             struct io_error *error)
{
    struct manifest m = { .generation = generation, .partitions = s->o.log.partitions };
    _cleanup_(files_close) int fd = -1;
    char folder[4096];
    char path[PATH_MAX];
    int r = 0;

    (void) snprintf(folder, sizeof(folder), "%.4000s/checkpoint", dir);
    checkpoint_path(folder, generation, 0, path);
    if (mkdir(folder, 0750) < 0 && errno != EEXIST) {
        r = -errno;
    } else {
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
        r = fd < 0 ? -errno : 0;
    }
    if (r == 0) {
        m.items = mem_zalloc(m.partitions, sizeof(*m.items));
        r = partitions_write(fd, s, &m);
    }
    if (r == 0) {
        r = publish(folder, &m);
    }
    manifest_free(&m);
    return r < 0 ? io_error_set(error, r, "%s can't be written: %s", path, strerror(-r)) : 0;
}
