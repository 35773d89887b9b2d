/* A simulated disk: what a server's segments are, and what is left of them after a crash. */
#pragma once

#include "base/buf.h"
#include "base/rng.h"
#include "wire/frame.h"

#include <stdbool.h>
#include <stdint.h>

#define SECTOR_BYTES 512

struct file {
    uint32_t number;
    uint32_t shard;     /* that wrote it */
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
void disk_cut(struct disk *d, uint32_t number, size_t bytes);
void disk_remove(struct disk *d, uint32_t number);
/* What was written before sync_begin is durable after sync_end. */
void disk_sync_begin(struct disk *d, uint32_t shard);
void disk_sync_end(struct disk *d, uint32_t shard, bool folder);
void disk_sync_all(struct disk *d);
/* Keeps any subset of what was not synced. Returns whether there was any. */
bool disk_power_loss(struct disk *d, struct rng *rng);
void disk_free(struct disk *d);
