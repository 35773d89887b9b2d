/* A disk under a page cache, told what happened by the journal: what the files of one folder are,
 * what of it is durable, and what may be found after the power went. Only what an fsync or
 * fdatasync that returned 0 promises is durable: contents by the file's, names by the folder's.
 *
 * A sync that failed leaves its pages clean in the cache and lost on the disk, as Linux does: no
 * later sync writes them. */
#pragma once

#include "base/rng.h"
#include "journal.h"

/* Disks that lie, to prove that it would be noticed. */
enum disk_lie {
    DISK_HONEST,
    DISK_LIES_ABOUT_LOGS,    /* a segment's sync is forgotten now and then */
    DISK_LIES_ABOUT_FOLDERS, /* so is a folder's */
};

/* What became of what was not synced. */
enum disk_loss {
    DISK_LOSS_ALL,
    DISK_LOSS_NONE,
    DISK_LOSS_RANDOM, /* of pages, sectors, sizes and names any subset */
    _DISK_LOSS_MAX,
};

struct disk;

/* Holds what lies in the folder now, all durable. */
struct disk *disk_new(const char *dir, enum disk_lie lie);
/* NULL is fine; returns NULL. */
struct disk *disk_free(struct disk *d);

/* Records of clients are passed over. */
void disk_apply(struct disk *d, const struct record *r, uint64_t position);

/* Makes the folder `dir` (which must not exist) as the disk may be found after the power went. */
void disk_image(const struct disk *d, struct rng *rng, enum disk_loss loss, const char *dir);

/* All that was written to the log before this position is durable. UINT64_MAX: everything. */
uint64_t disk_log_durable(const struct disk *d);

/* Is the folder what the journal says? False: the shim misses a call; `differs` is an example. */
#define DISK_PATH_BYTES 64
bool disk_equals(const struct disk *d, const char *dir, char differs[static DISK_PATH_BYTES]);
