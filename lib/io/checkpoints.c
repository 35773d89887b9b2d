/* Finding checkpoints at a start; the writing is in checkpoint_writer.c. */
#include "io/checkpoints.h"

#include "base/cleanup.h"
#include "io/checkpoint_names.h"
#include "io/datadir.h"
#include "io/log.h"
#include "io/progress.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

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
static void leftovers_remove(const char *dir, const uint64_t *found, size_t n)
{
    DIR *d = opendir(dir);
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

/* The partitions of a generation are checked by several threads; one tells what it found. */
struct checking {
    const struct checkpoint_set *set;
    struct progress *progress;
    struct io_error *error;
    _Atomic bool told;
};

static int partition_check(void *ctx, size_t partition)
{
    struct checking *c = ctx;
    struct io_error error;
    int r = datadir_generation_check(c->set, (uint16_t) partition, &error);

    if (r < 0) {
        if (!atomic_exchange(&c->told, true)) {
            *c->error = error;
        }
        return r;
    }
    return progress_add(c->progress, c->set->manifest.items[partition].bytes);
}

uint64_t checkpoint_set_bytes(const struct checkpoint_set *set)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; set->found && i < set->manifest.partitions; i++) {
        bytes += set->manifest.items[i].bytes;
    }
    return bytes;
}

/* Opens one generation and checks every byte of it. */
static int generation_check(struct checkpoint_set *set, const char *data_dir, uint64_t generation,
                            uint32_t partitions, struct progress *progress, struct io_error *error)
{
    struct checking c = { .set = set, .progress = progress, .error = error };
    int r = datadir_generation_open(data_dir, generation, partitions, set, error);

    if (r == 0) {
        progress_begin(progress, "checking checkpoints", NULL, partitions,
                       checkpoint_set_bytes(set));
        r = progress_spread(progress, partitions, partition_check, &c);
        progress_end(progress);
    }
    if (r < 0) {
        checkpoint_set_close(set);
    }
    return r;
}

int checkpoint_set_open(struct checkpoint_set *set, const char *data_dir, uint32_t partitions,
                        struct progress *progress, struct io_error *error)
{
    _cleanup_free_ uint64_t *found = NULL;
    char dir[sizeof(set->dir)];
    uint64_t highest;
    size_t n;
    int r;

    *set = (struct checkpoint_set){ 0 };
    if (snprintf(dir, sizeof(dir), "%s/checkpoint", data_dir) >= (int) sizeof(dir)) {
        return io_error_set(error, -ENAMETOOLONG, "%s: the path is too long", data_dir);
    }
    if (mkdir(dir, 0750) < 0 && errno != EEXIST) {
        return io_error_set(error, -errno, "%s can't be made: %s", dir, strerror(errno));
    }
    r = datadir_generations(data_dir, &found, &n, &highest, error);
    if (r < 0) {
        return r;
    }
    leftovers_remove(dir, found, n);
    for (size_t i = 0; i < n && !set->found && r != -ECANCELED; i++) {
        struct io_error why;
        r = generation_check(set, data_dir, found[i], partitions, progress, &why);
        if (r < 0 && r != -ECANCELED) {
            log_warning("%s; looking for an older generation of checkpoints", why.text);
        }
    }
    set->highest = highest;
    return r == -ECANCELED ? r : 0;
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
    for (size_t i = 0; i < SHARDS_MAX; i++) {
        if (set->files[i].data) {
            munmap((void *) set->files[i].data, set->files[i].bytes);
        }
    }
    manifest_free(&set->manifest);
    *set = (struct checkpoint_set){ 0 };
}
