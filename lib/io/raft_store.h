/* What lies on the disk of a raft node and is not the library's own business: the lock on the
 * directory, whether a log was begun there, and the bytes inside an entry and a snapshot. Used by
 * raft_node.c only.
 *
 * Entry:    length u32 | data | zeros up to a multiple of 8 (raft_uv takes nothing else).
 * Snapshot: magic u32 | CRC-32C of what follows u32 | data. raft_uv has no checksum of its own for
 * it, takes an empty file for an unfinished one, and would decompress what begins like an LZ4
 * frame. */
#pragma once

#include "base/buf.h"

#include <raft.h>
#include <stdbool.h>

struct raft_store {
    int lock_fd; /* holds the lock; -1: none */
    bool empty;  /* nothing was begun here: may be bootstrapped */
};

/* Locks the directory and looks what it holds. A bootstrap that was interrupted counts as none: its
 * traces are removed. Errors: see raft_node_start; `why` then gets the reason in words. */
int raft_store_open(const char *dir, struct raft_store *ret_store, char *why, size_t why_bytes);

/* Releases the lock. */
void raft_store_close(struct raft_store *s);

/* Makes an entry in memory of raft_malloc, which the caller owns. -ENOMEM. */
int raft_store_entry_encode(const uint8_t *data, size_t bytes, struct raft_buffer *ret_entry);

/* The data in an entry, pointing into it. -EBADMSG when the length can't be. */
int raft_store_entry_decode(const struct raft_buffer *entry, const uint8_t **ret_data,
                            size_t *ret_bytes);

/* Around the appending of a snapshot's data to an empty buffer: leaves room for its head, fills it
 * in. */
void raft_store_snapshot_begin(struct buf *b);
void raft_store_snapshot_end(struct buf *b);

/* The data in a snapshot, pointing into it. -EBADMSG when damaged. */
int raft_store_snapshot_decode(const struct raft_buffer *snapshot, const uint8_t **ret_data,
                               size_t *ret_bytes);
