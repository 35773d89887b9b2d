/* One connection, shared by peers.c (sending, life) and requests.c (receiving). */
#pragma once

#include "base/buf.h"
#include "peers.h"
#include "wire/msg.h"

struct peer {
    struct map_node node; /* in peers.by_id, under its id */
    struct list link;     /* in peers.all */
    struct list dirty;
    struct peers *peers;
    struct rpc *rpc;
    uint64_t id;   /* the machine's name of this connection */
    uint32_t role; /* enum msg_role; 0 before the hello */
    bool subscribed;
    bool stale; /* a subscriber that missed changes: gets the whole table */

    /* consecutive seals or views that wait for the turn's end */
    uint32_t batch_method;
    uint32_t batch_n;
    struct buf batch;

    char server[NAME_BYTES_MAX]; /* name in its last registration; "" otherwise */
    bool registered;
};

extern const struct rpc_ops peer_rpc_ops;

/* It turned out to be another manager: gives the connection to the group and forgets it. */
void peer_is_manager(struct peer *p);

/* Begins the answer to a request, behind everything sent before; end with peer_end. */
struct buf *peer_begin_response(struct peer *p, uint64_t request);
void peer_end(struct peer *p);
void peer_error(struct peer *p, uint64_t request, uint32_t code, const char *text);

/* Closes the connection because of what it sent. */
void peer_malformed(struct peer *p, const char *what);
/* The connection is gone: forgets the peer and tells the machine. */
void peer_gone(struct peer *p, const char *why);
