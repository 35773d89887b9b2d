/* Finding checkpoints at a start; the writing is in checkpoint_writer.c. */
#include "io/checkpoints.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/mem.h"
#include "io/checkpoint_names.h"
#include "io/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define GENERATIONS_MAX 64 /* manifests that are looked at; there should be two */

/* Maps a file whole. An empty one can't be mapped: -ENODATA. */
static int file_map(const char *path, struct checkpoint_file *ret)
{
    struct stat st;
    void *p;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int r;

    if (fd < 0) {
        return -errno;
    }
    r = fstat(fd, &st) < 0 ? -errno : st.st_size == 0 ? -ENODATA : 0;
    if (r == 0) {
        p = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        r = p == MAP_FAILED ? -errno : 0;
        if (r == 0) {
            *ret = (struct checkpoint_file){ p, (size_t) st.st_size };
        }
    }
    close(fd);
    return r;
}

static void files_unmap(struct checkpoint_set *set)
{
    for (size_t i = 0; i < SHARDS_MAX; i++) {
        if (set->files[i].data) {
            munmap((void *) set->files[i].data, set->files[i].bytes);
            set->files[i] = (struct checkpoint_file){ 0 };
        }
    }
}

/* Is this partition's checkpoint there, with every byte? */
static int item_check(struct checkpoint_set *set, const struct manifest_item *it)
{
    struct checkpoint_file *f;
    char path[PATH_MAX];
    int r;

    if (it->file >= SHARDS_MAX) {
        return -EBADMSG;
    }
    f = &set->files[it->file];
    if (!f->data) {
        checkpoint_path(set->dir, set->manifest.generation, it->file, path);
        r = file_map(path, f);
        if (r < 0) {
            return r;
        }
    }
    if (it->bytes < 4 || it->offset > f->bytes || it->bytes > f->bytes - it->offset) {
        return -EBADMSG;
    }
    if (crc32c(0, f->data + it->offset, it->bytes - 4) != it->crc ||
        bytes_get_u32(f->data + it->offset + it->bytes - 4) != it->crc) {
        return -EBADMSG;
    }
    return 0;
}

/* Loads and checks one generation. */
static int generation_check(struct checkpoint_set *set, uint64_t generation)
{
    struct checkpoint_file file;
    char path[PATH_MAX];
    int r;

    manifest_path(set->dir, generation, path);
    r = file_map(path, &file);
    if (r < 0) {
        return r;
    }
    r = manifest_decode(file.data, file.bytes, &set->manifest);
    munmap((void *) file.data, file.bytes);
    if (r == 0 && set->manifest.generation != generation) {
        r = -EBADMSG;
    }
    for (uint32_t i = 0; r == 0 && i < set->manifest.partitions; i++) {
        r = item_check(set, &set->manifest.items[i]);
    }
    if (r < 0) {
        manifest_free(&set->manifest);
        files_unmap(set);
    }
    return r;
}

static int compare_newest_first(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *) a;
    uint64_t y = *(const uint64_t *) b;

    return x > y ? -1 : x < y;
}

/* Generations that have a manifest, newest first. */
static int generations_list(struct checkpoint_set *set, uint64_t found[GENERATIONS_MAX], size_t *n)
{
    DIR *d = opendir(set->dir);
    struct dirent *e;

    if (!d) {
        return -errno;
    }
    while ((e = readdir(d))) {
        bool manifest;
        uint64_t generation = checkpoint_name_generation(e->d_name, &manifest);
        set->highest = MAX_OF(set->highest, generation);
        if (generation > 0 && manifest && *n < GENERATIONS_MAX) {
            found[(*n)++] = generation;
        }
    }
    closedir(d);
    qsort(found, *n, sizeof(*found), compare_newest_first);
    return 0;
}

static bool is_listed(const uint64_t *found, size_t n, uint64_t generation)
{
    for (size_t i = 0; i < n; i++) {
        if (found[i] == generation) {
            return true;
        }
    }
    return false;
}

/* Files of generations that were never published. */
static void leftovers_remove(const struct checkpoint_set *set, const uint64_t *found, size_t n)
{
    DIR *d = opendir(set->dir);
    struct dirent *e;
    bool manifest;

    while (d && (e = readdir(d))) {
        uint64_t generation = checkpoint_name_generation(e->d_name, &manifest);
        if (generation > 0 && !is_listed(found, n, generation)) {
            (void) unlinkat(dirfd(d), e->d_name, 0);
        }
    }
    if (d) {
        closedir(d);
    }
}

int checkpoint_set_open(struct checkpoint_set *set, const char *data_dir, struct io_error *error)
{
    uint64_t found[GENERATIONS_MAX];
    size_t n = 0;
    int r;

    *set = (struct checkpoint_set){ 0 };
    if (snprintf(set->dir, sizeof(set->dir), "%s/checkpoint", data_dir) >= (int) sizeof(set->dir)) {
        return io_error_set(error, -ENAMETOOLONG, "%s: the path is too long", data_dir);
    }
    if (mkdir(set->dir, 0750) < 0 && errno != EEXIST) {
        return io_error_set(error, -errno, "%s can't be made: %s", set->dir, strerror(errno));
    }
    r = generations_list(set, found, &n);
    if (r < 0) {
        return io_error_set(error, r, "%s can't be read: %s", set->dir, strerror(-r));
    }
    if (n < GENERATIONS_MAX) {
        leftovers_remove(set, found, n);
    }
    for (size_t i = 0; i < n && !set->found; i++) {
        r = generation_check(set, found[i]);
        set->found = r == 0;
        if (r < 0) {
            log_warning("checkpoint generation %" PRIu64
                        " in %s is damaged (%s): looking for an older "
                        "one",
                        found[i], set->dir, strerror(-r));
        }
    }
    return 0;
}

const uint8_t *checkpoint_set_get(const struct checkpoint_set *set, uint16_t partition,
                                  size_t *ret_bytes)
{
    const struct manifest_item *it;

    if (!set->found || partition >= set->manifest.partitions) {
        return NULL;
    }
    it = &set->manifest.items[partition];
    *ret_bytes = (size_t) it->bytes;
    return set->files[it->file].data + it->offset;
}

void checkpoint_set_close(struct checkpoint_set *set)
{
    files_unmap(set);
    manifest_free(&set->manifest);
    *set = (struct checkpoint_set){ 0 };
}
