/* Names of checkpoint files; for checkpoints.c and checkpoint_writer.c. */
#pragma once

#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static inline void checkpoint_path(const char *dir, uint64_t generation, uint32_t shard,
                                   char out[PATH_MAX])
{
    (void) snprintf(out, PATH_MAX, "%.4000s/%010" PRIu64 "-%02" PRIu32 ".ckp", dir, generation,
                    shard);
}

static inline void manifest_path(const char *dir, uint64_t generation, char out[PATH_MAX])
{
    (void) snprintf(out, PATH_MAX, "%.4000s/%010" PRIu64 ".manifest", dir, generation);
}

/* The generation that a file belongs to, 0 when it is none of ours. */
static inline uint64_t checkpoint_name_generation(const char *name, bool *ret_manifest)
{
    uint64_t generation = 0;
    size_t i = 0;

    for (; i < 10 && name[i] >= '0' && name[i] <= '9'; i++) {
        generation = generation * 10 + (uint64_t) (name[i] - '0');
    }
    *ret_manifest = i == 10 && strcmp(name + i, ".manifest") == 0;
    if (i != 10 || (!*ret_manifest && name[i] != '-' && strcmp(name + i, ".manifest.new") != 0)) {
        return 0;
    }
    return generation;
}
