#include "base/map.h"

#include "base/assert.h"
#include "base/mem.h"

#include <stdlib.h>

#define MAP_BUCKETS_MIN 16

static struct map_node **map_bucket(const struct map *m, uint64_t hash)
{
    return &m->buckets[map_hash_u64(hash) & (m->n_buckets - 1)];
}

/* Doubles the table; appends in chain order, so that newest-first holds afterwards too. */
static void map_grow(struct map *m)
{
    struct map bigger = { .n_buckets = m->n_buckets ? m->n_buckets * 2 : MAP_BUCKETS_MIN,
                          .count = m->count };

    bigger.buckets = mem_zalloc(bigger.n_buckets, sizeof(*bigger.buckets));
    for (size_t i = 0; i < m->n_buckets; i++) {
        struct map_node *node = m->buckets[i];
        while (node) {
            struct map_node *next = node->next;
            struct map_node **tail = map_bucket(&bigger, node->hash);
            while (*tail) {
                tail = &(*tail)->next;
            }
            node->next = NULL;
            *tail = node;
            node = next;
        }
    }
    free(m->buckets);
    *m = bigger;
}

void map_insert(struct map *m, struct map_node *node, uint64_t hash)
{
    struct map_node **bucket;

    if (m->count >= m->n_buckets) {
        map_grow(m);
    }
    bucket = map_bucket(m, hash);
    node->hash = hash;
    node->next = *bucket;
    *bucket = node;
    m->count++;
}

struct map_node *map_first(const struct map *m, uint64_t hash)
{
    struct map_node *node = m->n_buckets ? *map_bucket(m, hash) : NULL;

    while (node && node->hash != hash) {
        node = node->next;
    }
    return node;
}

struct map_node *map_next(const struct map_node *node)
{
    uint64_t hash = node->hash;

    do {
        node = node->next;
    } while (node && node->hash != hash);
    return (struct map_node *) node;
}

void map_remove(struct map *m, struct map_node *node)
{
    struct map_node **at = map_bucket(m, node->hash);

    while (*at && *at != node) {
        at = &(*at)->next;
    }
    kumo_assert(*at == node);
    *at = node->next;
    node->next = NULL;
    m->count--;
}

struct map_node *map_any(const struct map *m)
{
    for (size_t i = 0; m->count > 0 && i < m->n_buckets; i++) {
        if (m->buckets[i]) {
            return m->buckets[i];
        }
    }
    return NULL;
}

void map_free(struct map *m)
{
    free(m->buckets);
    *m = (struct map){ 0 };
}
