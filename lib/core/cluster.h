/* The managers' state: a pure function of the commands in the Raft log. cluster_apply(state,
 * command) is the only way to change it, and gives the same on every manager. */
#pragma once

#include "core/hashspace.h"
#include "core/live_sessions.h"

#define REPLICAS_DEFAULT   3
#define PARTITIONS_DEFAULT 1024

/* What only the managers know of a server. */
struct cluster_server {
    uint8_t id[UUID_BYTES];
    uint64_t random; /* the second half of its incarnation; the counter is in hashspace_server */
    uint64_t epoch;  /* when this process of it was accepted */
};

struct cluster {
    struct hashspace space;
    struct cluster_server *servers; /* beside space.servers */
    uint64_t *formed;               /* beside space.rows: the epoch of each row */
    uint32_t replicas;              /* wanted for each partition */
    struct live_sessions sessions;  /* R12 */
};

enum cluster_command {
    CLUSTER_FORM = 1, /* [cluster id, partitions, replicas]: the first; ignored afterwards */
    CLUSTER_REGISTER, /* [register]: a server's new process (incarnation) */
    CLUSTER_ATTACH,   /* [replicas, [server…]]: places the partitions on them */
    CLUSTER_VIEWS, /* [[incarnation of each server…], [row…]]: R9, each row by compare-and-set */
    CLUSTER_SESSION, /* []: opens the session whose id is this entry's index; too many: none */
    CLUSTER_EXPIRE,  /* [[session…]]: these are over */
    _CLUSTER_COMMAND_MAX,
    _CLUSTER_COMMAND_INVALID = -22,
};

/* Commands, appended to `b` as the bytes of a log entry. */
void cluster_put_form(struct buf *b, const uint8_t cluster_id[UUID_BYTES], uint32_t partitions,
                      uint32_t replicas);
void cluster_put_register(struct buf *b, const struct msg_register *m);
void cluster_put_attach(struct buf *b, uint32_t replicas, const uint32_t *servers, uint32_t n);
/* The incarnations are those of all members of all rows, as `c` has them now. */
void cluster_put_views(struct buf *b, const struct cluster *c, const struct view_row *rows,
                       size_t n);
void cluster_put_session(struct buf *b);
/* n <= CLUSTER_EXPIRE_MAX */
#define CLUSTER_EXPIRE_MAX 1024
void cluster_put_expire(struct buf *b, const uint64_t *sessions, uint32_t n);

/* What a command changed: for who has to be told. */
struct cluster_effect {
    bool servers;  /* servers were added or changed */
    size_t n_rows; /* partitions whose row changed */
    /* owned by the caller, PARTITIONS_MAX of room each */
    uint16_t *rows;
    struct view_row *before; /* what rows[i] was until then */
    uint64_t opened;         /* a session; 0: none */
    uint32_t n_ended;
    uint64_t ended[CLUSTER_EXPIRE_MAX]; /* sessions that were open */
};

/* Applies one committed command, the entry at `index` of the log. A malformed or outdated one
 * changes nothing, in the same way everywhere. */
void cluster_apply(struct cluster *c, uint64_t index, const uint8_t *data, size_t bytes,
                   struct cluster_effect *effect);

/* Would this registration be accepted, given what is known? NULL, or a sentence for the operator.
 */
const char *cluster_refuses(const struct cluster *c, const struct msg_register *m);
/* The number of the server with this id, 0 when unknown. */
uint32_t cluster_find(const struct cluster *c, const uint8_t id[UUID_BYTES]);

/* R6: has this server another process by now than when the partition's view was formed? */
bool cluster_is_restarted(const struct cluster *c, uint32_t server, uint16_t partition);

/* Fills in the numbers of the attached servers, ascending; returns how many. */
uint32_t cluster_attached(const struct cluster *c, uint32_t servers[SERVERS_MAX]);

/* Snapshot: one MessagePack item; those of the first version lack the epochs of servers and rows.
 * cluster_get: -EBADMSG; `c` must be zeroed. */
void cluster_put(struct buf *b, const struct cluster *c);
int cluster_get(struct mp_reader *r, struct cluster *c);
void cluster_free(struct cluster *c);
