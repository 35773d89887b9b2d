/* The index of one partition: where the newest committed record of each key lies. Deletes leave
 * tombstones in it. It can be lost at any time: the log is the truth. In the daemon it is Tokyo
 * Cabinet (io/index_tc.h), in the simulator a plain map (core/index_map.h). One thread uses it. */
#pragma once

#include "wire/frame.h"

#include <stddef.h>
#include <stdint.h>

struct index_record {
    uint64_t seq;
    struct position at;  /* of the entry's first byte in this server's log */
    uint32_t bytes;      /* of the entry */
    uint32_t expiry_sec; /* 0: never */
    uint8_t kind;        /* ENTRY_SET or ENTRY_DELETE (a tombstone) */
};

/* As bytes, little-endian: seq 8, segment 4, offset 4, length 4, expiry 4, kind 1. */
#define INDEX_RECORD_BYTES 25
void index_record_encode(const struct index_record *r, uint8_t out[INDEX_RECORD_BYTES]);
struct index_record index_record_decode(const uint8_t *p);

struct index;

typedef void (*index_walk_fn)(void *ctx, const uint8_t *key, size_t key_len,
                              const struct index_record *rec);

struct index_ops {
    /* 0 and the record, or -ENOENT. */
    int (*get)(struct index *x, const uint8_t *key, size_t key_len, struct index_record *ret);
    /* Inserts: 0, or replaces: 1 and the record that was there. -ENOSPC: no room. */
    int (*put)(struct index *x, const uint8_t *key, size_t key_len, const struct index_record *rec,
               struct index_record *ret_old);
    /* Removes: 1 and the record that was there; 0: there was none. */
    int (*drop)(struct index *x, const uint8_t *key, size_t key_len, struct index_record *ret_old);
    /* About so many records will be put: room is made for them at once. The index is empty. */
    void (*reserve)(struct index *x, uint64_t records);
    /* Calls fn for each record, in any order; fn must not change the index. */
    void (*walk)(struct index *x, index_walk_fn fn, void *ctx);
    uint64_t (*count)(const struct index *x);
    void (*free)(struct index *x);
};

/* First member of whatever implements it. */
struct index {
    const struct index_ops *ops;
};

/* Makes the empty index of a partition: given to the shard by who runs it. 0 or -errno. */
typedef int (*index_open_fn)(void *ctx, uint16_t partition, struct index **ret);
