/* Intrusive hash table with chains, keyed by a 64-bit hash that the caller computes. The newest of
 * equal hashes is found first. The caller compares keys and owns the nodes. Iteration order depends
 * only on the sequence of calls, never on addresses. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct map_node {
    struct map_node *next;
    uint64_t hash;
};

/* Valid when zeroed. */
struct map {
    struct map_node **buckets;
    size_t n_buckets; /* a power of two, or 0 */
    size_t count;
};

#define MAP_ENTRY(node, type, member) ((type *) (void *) ((char *) (node) -offsetof(type, member)))

/* Inserts the node under `hash`; nodes with the same hash stay, behind it. */
void map_insert(struct map *m, struct map_node *node, uint64_t hash);

/* The first node with this hash, or NULL; map_next gives the following ones. */
struct map_node *map_first(const struct map *m, uint64_t hash);
struct map_node *map_next(const struct map_node *node);

/* Takes out a node that is in the map. */
void map_remove(struct map *m, struct map_node *node);

/* Any node, or NULL when empty: for tearing down. */
struct map_node *map_any(const struct map *m);

/* Frees the table, not the nodes. */
void map_free(struct map *m);

/* A good 64-bit mix of a number, for keys that are numbers. */
static inline uint64_t map_hash_u64(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ULL;
    return x ^ x >> 33;
}
