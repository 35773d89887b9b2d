/* The inside of route.c, route_op.c and route_partition.c; nobody else includes this. */
#pragma once

#include "base/map.h"
#include "core/route.h"
#include "core/session.h"

#define ROUTE_SMALL_BYTES 512  /* operations up to this come from a list of free blocks */
#define ROUTE_SMALL_KEPT  4096 /* free blocks kept */
#define ROUTE_SLOT_BITS   24   /* of an operation's id: its place in route.slots */

enum route_op_state {
    ROUTE_OP_BEHIND,   /* another operation of its connection and key is before it */
    ROUTE_OP_UNROUTED, /* the number of partitions isn't known */
    ROUTE_OP_WAITING,  /* in its partition's queue */
    ROUTE_OP_SENT,     /* on the wire to `link` */
    ROUTE_OP_DEAD,     /* answered; freed with the next call */
    _ROUTE_OP_STATE_MAX,
    _ROUTE_OP_STATE_INVALID = -22,
};

struct route_op {
    struct map_node by_key; /* in route.by_key, while it is the first of its connection and key */
    struct list followers;  /* those behind it, by `queue` */
    struct list queue;      /* where it is: followers, unrouted, ready, unnumbered, sent, dead */
    struct list by_client;  /* unless forgotten */
    struct list by_deadline;
    struct route_client *client; /* NULL: forgotten */
    uint64_t client_id;
    void *token;
    uint64_t deadline_usec;
    uint64_t sent_usec; /* of ROUTE_OP_SENT */
    uint64_t hash;      /* of the key */
    struct route_partition *partition;
    struct route_link *link; /* of ROUTE_OP_SENT */
    uint32_t charged;        /* server whose bytes it counts in; 0: none */
    uint32_t bytes;
    uint8_t state;
    bool lost; /* an earlier try may have been done, or may still be */
    struct op op;
    uint8_t data[]; /* key and value */
};

/* A connection to one shard. */
struct route_link {
    struct list in_links; /* in route.links */
    uint64_t heard_usec;  /* when it answered last, or came up */
    uint32_t server;
    uint32_t shard;
    bool up;
    struct list sent;
};

struct route_server {
    size_t bytes;
    struct route_link *links[SHARDS_MAX];
};

/* One partition: numbers of the present session, and what waits. */
struct route_partition {
    uint16_t number;
    bool moved;    /* during route_table_changed: it has another primary */
    uint32_t view; /* that was last seen */
    uint64_t session;
    uint64_t next;          /* number that comes next */
    uint64_t first;         /* lowest one without an answer */
    uint64_t *answered;     /* bit number % SESSION_WINDOW, for first <= number < next */
    struct list stalled;    /* in route.stalled while something waits */
    struct list ready;      /* operations that need no number, or have one */
    struct list unnumbered; /* operations that need one */
    uint64_t delay_usec;    /* last delay; 0 after an answer */
    uint64_t not_before_usec;
};

struct route_slot {
    struct route_op *op; /* NULL: free */
    uint64_t generation;
};

struct route {
    struct route_limits limits;
    const struct hashspace *table; /* NULL: none yet */
    uint64_t session;              /* 0: none yet */
    uint64_t now_usec;             /* of the call under way */
    uint32_t n_partitions;
    struct route_partition *partitions;
    uint32_t n_servers;            /* entries of `servers`, the first for "none" */
    struct route_server **servers; /* by number */
    struct map by_key;
    struct list links;
    struct list stalled;  /* partitions */
    struct list unrouted; /* operations */
    struct list deadlines;
    struct list dead;
    struct route_slot *slots;
    uint32_t *free_slots;
    uint32_t n_slots;
    uint32_t n_free;
    uint32_t n_ops;
    void *small; /* free blocks, each begins with a pointer to the next */
    uint32_t n_small;
    uint64_t retry_usec; /* earliest end of a delay; UINT64_MAX: none */
    uint64_t
        stalled_usec; /* since when something has waited to be sent, at each tick; 0: nothing */
    uint64_t table_asked_usec;   /* 0: never */
    uint64_t session_asked_usec; /* 0: never */
};

struct route_action *route_add(struct route_actions *out, enum route_action_kind kind);

/* ---- route_op.c ---- */

static inline bool route_needs_number(const struct route_op *o)
{
    return o->op.code != OP_GET;
}

struct route_op *route_op_new(struct route *r, struct route_client *client, void *token,
                              const struct op *op, uint64_t hash);
struct route_op *route_op_find(const struct route *r, uint64_t id);
/* The first operation of this connection and key, or NULL. */
struct route_op *route_op_first(const struct route *r, uint64_t client_id, uint64_t hash);
/* Lets it be the first of its connection and key; it waits for its partition then. */
void route_op_begin(struct route *r, struct route_op *o);
/* It has ended: its number counts as answered, the next of its connection and key begins. The
 * caller pumps its partition afterwards. */
void route_op_end(struct route *r, struct route_op *o);
/* Counts its bytes to another server. */
void route_op_charge(struct route *r, struct route_op *o, uint32_t server);
/* Frees what ended since the last call. */
void route_reap(struct route *r);
void route_op_free_all(struct route *r);

/* ---- route_partition.c ---- */

void route_partition_init(struct route_partition *p, uint16_t number);
/* What the table says is the partition's primary; NULL: none. */
const struct hashspace_server *route_primary(const struct route *r,
                                             const struct route_partition *p);
/* Puts it into the queue that suits it. */
void route_enqueue(struct route *r, struct route_op *o);
/* Takes it out of whatever queue it is in. */
void route_dequeue(struct route *r, struct route_op *o);
/* Its number, if it has one of the present session, is answered. */
void route_answered(struct route_partition *p, const struct op_id *id);
bool route_window_open(const struct route *r, const struct route_partition *p);
/* Sends what can be sent. */
void route_pump(struct route *r, uint64_t now_usec, struct route_partition *p,
                struct route_actions *out);
void route_pump_all(struct route *r, uint64_t now_usec, struct route_actions *out);
/* Begins a delay, unless one is under way. */
void route_delay(struct route *r, uint64_t now_usec, struct route_partition *p);
/* The link, or NULL when it was never asked for. */
struct route_link *route_link_find(const struct route *r, uint32_t server, uint32_t shard);
/* Asks for the hash space, or for a session, not too often. */
void route_need_table(struct route *r, uint64_t now_usec, struct route_actions *out);
void route_need_session(struct route *r, uint64_t now_usec, struct route_actions *out);

/* ---- route_failure.c ---- */

/* What is known of an operation whose time is over. */
struct route_failure route_timeout(const struct route *r, uint64_t now_usec,
                                   const struct route_op *o);
