/* The hash space: which partition a key belongs to, and which servers hold it in which view. The
 * manager owns it, everybody else has a copy with an epoch. Pure. */
#pragma once

#include "wire/msg.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the others need to know of a server. */
struct hashspace_server {
    uint32_t server; /* its number; 0: no such server */
    uint32_t shards;
    uint8_t state; /* enum server_state */
    uint64_t incarnation;
    char name[NAME_BYTES_MAX];
    char address[ADDRESS_BYTES_MAX];
};

enum server_state {
    SERVER_NEW,      /* known, holds nothing */
    SERVER_ATTACHED, /* holds partitions */
    _SERVER_STATE_MAX,
};

/* Valid when zeroed (epoch 0: nothing known). */
struct hashspace {
    uint64_t epoch; /* rises with every change */
    uint8_t cluster_id[UUID_BYTES];
    uint32_t n_partitions; /* 0: not formed yet */
    uint32_t n_servers;
    struct hashspace_server *servers; /* servers[i].server == i + 1 */
    struct view_row *rows;            /* by partition; view 0: none yet */
};

/* The key's hash; the partition is its highest bits. */
uint64_t hashspace_hash(const uint8_t *key, size_t key_len);
static inline uint16_t hashspace_partition_of_hash(uint64_t hash, uint32_t n_partitions)
{
    /* n is a power of two: the same as hash >> (64 - log2 n), and right for n = 1 */
    return (uint16_t) (((unsigned __int128) hash * n_partitions) >> 64);
}

static inline const struct hashspace_server *hashspace_server(const struct hashspace *h,
                                                              uint32_t server)
{
    return server > 0 && server <= h->n_servers ? &h->servers[server - 1] : NULL;
}

/* The server's position among the row's members, -1: it is none. */
int hashspace_member_slot(const struct view_row *row, uint32_t server);
int hashspace_learner_slot(const struct view_row *row, uint32_t server);
static inline bool hashspace_row_has(const struct view_row *row, uint32_t server)
{
    return hashspace_member_slot(row, server) >= 0 || hashspace_learner_slot(row, server) >= 0;
}

/* Makes room for rows of n partitions, all without a view. */
void hashspace_set_partitions(struct hashspace *h, uint32_t n_partitions);
/* Adds or changes a server; its number may be at most one above those known. */
void hashspace_set_server(struct hashspace *h, const struct hashspace_server *s);

/* One item: [epoch, cluster id, partitions, [servers], [rows]]: all rows that have a view, or only
 * those of the given partitions (changed != NULL). */
void hashspace_put(struct buf *b, const struct hashspace *h, const uint16_t *changed,
                   size_t n_changed);
/* Reads either form into `h`: older epochs and lower views are ignored. -EBADMSG (h may have taken
 * a part). */
int hashspace_merge(struct hashspace *h, struct mp_reader *r);

void hashspace_free(struct hashspace *h);
