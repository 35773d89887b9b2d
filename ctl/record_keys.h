/* Which keys were seen: a set of 128-bit hashes, so that a file with millions of records can be
 * looked through for keys that stand there twice. 16 to 32 bytes a key. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct record_hash {
    uint64_t low;
    uint64_t high;
};

/* Valid when zeroed. */
struct record_keys {
    struct record_hash *slots; /* zeros: free */
    size_t n_slots;            /* a power of two */
    size_t n;
};

/* Adds a key. False: it was in the set. */
bool record_keys_add(struct record_keys *k, const uint8_t *key, size_t key_len);
void record_keys_free(struct record_keys *k);
