/* Inside of an opened data directory: datadir.c (opening, replaying), datadir_records.c (reading
 * records). */
#pragma once

#include "io/datadir.h"

struct datadir {
    char dir[4096];
    int lock_fd; /* -1: none */
    struct superblock superblock;
    struct segment_set segments;
    struct checkpoint_set checkpoints; /* the generation that was loaded */
    struct shard *shard;
    struct index **indexes; /* by partition; the shard's */
};

/* NULL: there is none with that number. */
const struct wal_segment *datadir_segment(const struct datadir *d, uint32_t number);
