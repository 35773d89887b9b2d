#include "core/index_map.h"

#include "base/map.h"
#include "base/mem.h"
#include "core/hashspace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct index_map {
    struct index base;
    struct map map;
};

struct index_map_node {
    struct map_node node;
    struct index_record rec;
    uint8_t key_len;
    uint8_t key[];
};

static struct index_map_node *node_find(struct index *x, const uint8_t *key, size_t key_len)
{
    struct index_map *m = (struct index_map *) x;
    struct map_node *i = map_first(&m->map, hashspace_hash(key, key_len));

    for (; i; i = map_next(i)) {
        struct index_map_node *n = MAP_ENTRY(i, struct index_map_node, node);
        if (n->key_len == key_len && memcmp(n->key, key, key_len) == 0) {
            return n;
        }
    }
    return NULL;
}

static int index_map_get(struct index *x, const uint8_t *key, size_t key_len,
                         struct index_record *ret)
{
    struct index_map_node *n = node_find(x, key, key_len);

    if (!n) {
        return -ENOENT;
    }
    *ret = n->rec;
    return 0;
}

static int index_map_put(struct index *x, const uint8_t *key, size_t key_len,
                         const struct index_record *rec, struct index_record *ret_old)
{
    struct index_map *m = (struct index_map *) x;
    struct index_map_node *n = node_find(x, key, key_len);

    if (n) {
        *ret_old = n->rec;
        n->rec = *rec;
        return 1;
    }
    n = mem_alloc(sizeof(*n) + key_len);
    n->key_len = (uint8_t) key_len;
    memcpy(n->key, key, key_len);
    n->rec = *rec;
    map_insert(&m->map, &n->node, hashspace_hash(key, key_len));
    return 0;
}

static int index_map_drop(struct index *x, const uint8_t *key, size_t key_len,
                          struct index_record *ret_old)
{
    struct index_map *m = (struct index_map *) x;
    struct index_map_node *n = node_find(x, key, key_len);

    if (!n) {
        return 0;
    }
    *ret_old = n->rec;
    map_remove(&m->map, &n->node);
    free(n);
    return 1;
}

static void index_map_reserve(struct index *x, uint64_t records)
{
    (void) x;
    (void) records;
}

static void index_map_walk(struct index *x, index_walk_fn fn, void *ctx)
{
    struct index_map *m = (struct index_map *) x;

    for (size_t i = 0; i < m->map.n_buckets; i++) {
        for (struct map_node *j = m->map.buckets[i]; j; j = j->next) {
            struct index_map_node *n = MAP_ENTRY(j, struct index_map_node, node);
            fn(ctx, n->key, n->key_len, &n->rec);
        }
    }
}

static uint64_t index_map_count(const struct index *x)
{
    return ((const struct index_map *) x)->map.count;
}

static void index_map_free(struct index *x)
{
    struct index_map *m = (struct index_map *) x;
    struct map_node *i;

    while ((i = map_any(&m->map))) {
        map_remove(&m->map, i);
        free(MAP_ENTRY(i, struct index_map_node, node));
    }
    map_free(&m->map);
    free(m);
}

static const struct index_ops index_map_ops = {
    .get = index_map_get,
    .put = index_map_put,
    .drop = index_map_drop,
    .reserve = index_map_reserve,
    .walk = index_map_walk,
    .count = index_map_count,
    .free = index_map_free,
};

int index_map_open(void *ctx, uint16_t partition, struct index **ret)
{
    struct index_map *m = mem_zalloc(1, sizeof(*m));

    (void) ctx;
    (void) partition;
    m->base.ops = &index_map_ops;
    *ret = &m->base;
    return 0;
}
