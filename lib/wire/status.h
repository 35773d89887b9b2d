/* What a manager says of its cluster to an operator's tool: the answer to MSG_STATUS. An array of
 * two: the items of struct msg_status, and an array of struct msg_status_server. Pure; follows the
 * rules of wire/msg.h. */
#pragma once

#include "wire/msg.h"

#define STATUS_VERSION_BYTES_MAX 32 /* with NUL */

struct msg_status {
    char version[STATUS_VERSION_BYTES_MAX]; /* of the manager's program */
    uint8_t cluster_id[UUID_BYTES];
    bool leads;
    uint64_t uptime_usec;
    uint64_t applied; /* index of the last log entry */
    uint64_t epoch;
    uint64_t sessions; /* that are open */
    uint32_t replicas;
    uint32_t partitions;
    uint32_t unplaced;   /* partitions without a view */
    uint32_t waiting;    /* placed ones that lack a connected member or wait for a view */
    uint32_t blocker;    /* a server that is not connected and holds partitions, or did; 0: none */
    uint32_t blocked;    /* partitions that wait for it */
    uint32_t n_blockers; /* how many such servers there are */
    uint32_t degraded;   /* placed partitions with fewer members than replicas are wanted */
    uint32_t n_servers;  /* so many struct msg_status_server follow */
};

struct msg_status_server {
    uint32_t server;
    char name[NAME_BYTES_MAX];
    char address[ADDRESS_BYTES_MAX];
    uint32_t shards;
    uint8_t state; /* enum server_state of the core */
    bool up;       /* its newest process is connected */
    uint64_t incarnation;
    uint32_t primaries;   /* partitions that it leads */
    uint32_t secondaries; /* and holds besides */
    uint32_t learning;    /* and catches up with, without being a member */
};

/* The message up to and including the head of the servers' array; s->n_servers calls of
 * msg_put_status_server complete it. */
void msg_put_status(struct buf *b, const struct msg_status *s);
void msg_put_status_server(struct buf *b, const struct msg_status_server *s);

/* As above: after it, ret->n_servers (at most SERVERS_MAX) calls of msg_get_status_server. */
void msg_get_status(struct mp_reader *r, struct msg_status *ret);
void msg_get_status_server(struct mp_reader *r, struct msg_status_server *ret);
