/* The contestant "store": kumo-server itself (daemons/server), but for its connections. What its
 * clients.c and manager_link.c define is defined here: store_client.c makes the operations on each
 * shard's own thread, as if they had just been read from a gateway's connection, and store_node.c
 * gives the views that a manager would. Start, log, checkpoints, compaction and stop are the
 * server's own. */
#pragma once

#include "bench/store_bench.h"
#include "bench/store_latency.h"

#include "shard_private.h"

#include "base/rng.h"

#define PAYLOAD_OF(id) ((id) &0xffff)

/* The operations of one session in one partition (R12). */
struct numbers {
    uint64_t next;
    uint64_t answered;
};

/* What makes a shard's operations. Belongs to its thread. */
struct client_load {
    struct shard_thread *thread;
    const struct order *order;
    void (*turn)(struct client_load *l); /* at the end of each of the loop's turns; NULL: idle */
    struct rng rng;
    uint64_t session;
    struct numbers *numbers; /* by partition */
    uint64_t next;           /* of WORK_FILL and WORK_GROW: the next key */
    uint64_t left;           /* operations still to be made */
    uint64_t pending;        /* that are not answered yet */
    uint64_t misses;
    uint64_t ops;
    uint64_t user_bytes;
    uint64_t begin_nsec; /* of WORK_MIX and WORK_GROW: when operations began to arrive */
    uint64_t arrived;
    struct histogram get[_UPKEEP_MAX];
    struct histogram set[_UPKEEP_MAX];
};

/* The shard's load; made when first asked for. */
struct client_load *client_load(struct shard_thread *t);
/* On the shard's thread: begins what the order says; node_load_done follows. */
void client_begin(struct client_load *l, const struct order *o);
/* On the shard's thread: gives the partitions a view of this server alone, and waits until it
 * leads them all. */
void client_lead(struct client_load *l);
void client_load_free(struct client_load *l);
/* One operation; `id` comes back with its answer. */
void client_set(struct client_load *l, uint64_t key, uint64_t id);
void client_get(struct client_load *l, uint64_t key, uint64_t id);
/* Which shard's is a key? */
bool client_owns(const struct client_load *l, uint64_t key);

/* From a shard's thread: its part of the order is done. */
void node_load_done(void);
/* What is at work now. */
enum upkeep node_upkeep(void);

/* store_latency.c */
void latency_begin(struct client_load *l);
void latency_answered(struct client_load *l, uint64_t id);

/* store_readout.c */
void readout_turn(struct client_load *l);
