/* A simulated disk: the files of one folder, and what is left of them after a crash. */
#pragma once

#include "base/buf.h"
#include "base/rng.h"
#include "wire/frame.h"

#include <stdbool.h>
#include <stdint.h>

#define SECTOR_BYTES 512

struct file {
    uint32_t number;
    uint32_t
        old_number;     /* renamed: the number that the folder has on the disk still; 0: this one */
    uint32_t shard;     /* that wrote it: files of one shard are synced together */
    bool exists;        /* in the page cache's view of the folder */
    bool entry_durable; /* the folder's entry */
    bool syncing;       /* the sync under way covers it */
    size_t sync_bytes;  /* …up to here */
    struct buf cache;   /* what a reader sees */
    struct buf durable; /* what a power loss leaves for sure */
};

struct disk {
    struct file **files; /* by number, ascending */
    size_t n;
    size_t cap;
};

void disk_create(struct disk *d, uint32_t number, uint32_t shard, const uint8_t *p, size_t bytes);
void disk_write(struct disk *d, struct position at, const uint8_t *p, size_t bytes);
const uint8_t *disk_read(const struct disk *d, struct position at, size_t bytes);
/* …if the power went now. */
const uint8_t *disk_read_durable(const struct disk *d, struct position at, size_t bytes);
void disk_cut(struct disk *d, uint32_t number, size_t bytes);
void disk_remove(struct disk *d, uint32_t number);
/* What was written before sync_begin is durable after sync_end. */
void disk_sync_begin(struct disk *d, uint32_t shard);
void disk_sync_end(struct disk *d, uint32_t shard, bool folder);
void disk_sync_all(struct disk *d);
/* Entries only, not what is in the files. */
void disk_sync_folder(struct disk *d);
/* Atomic, and durable with the next sync of the folder. `to` is not there yet. */
void disk_rename(struct disk *d, uint32_t number, uint32_t to);
/* The whole file, or NULL. */
const uint8_t *disk_file(const struct disk *d, uint32_t number, size_t *ret_bytes);
/* Damages a file for good: a bit of it, or it is gone. */
void disk_flip(struct disk *d, uint32_t number, struct rng *rng);
void disk_lose(struct disk *d, uint32_t number);
/* Keeps any subset of what was not synced. Returns whether there was any. */
bool disk_power_loss(struct disk *d, struct rng *rng);
void disk_free(struct disk *d);
