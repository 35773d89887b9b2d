/* Inside of a group of managers: raft_group.c (its life, the log, who is who) and
 * raft_group_links.c (connections). Nobody else includes this. */
#pragma once

#include "base/list.h"
#include "io/raft_group.h"
#include "io/raft_identity.h"
#include "io/raft_node.h"
#include "io/rpc.h"

#include <syslog.h>

/* One of the group, at its place in the list. */
struct member {
    struct raft_group *group;
    uint32_t number;
    char *address;
    struct rpc_link *link; /* NULL: this manager itself */
    struct rpc *in;        /* the connection that it made; NULL: none */
    bool known;            /* `info` came over the connection that is up */
    bool asking;
    bool here; /* the log of this program was told so */
    uint64_t answered_usec;
    struct msg_manager info;
    char trouble[320]; /* why it is not talked with, as the log was told */
};

/* A connection of another manager, from its hello on. */
struct incoming {
    struct raft_group *group;
    struct rpc *rpc;
    struct list link;      /* in group.incoming */
    struct member *member; /* NULL until it has said who it is */
};

struct raft_group {
    struct consensus consensus; /* first */
    struct raft_group_options options;
    char *dir;
    struct raft_identity identity; /* of a group of more than one */
    struct raft_node *node;        /* NULL: waits for the others, or failed */
    bool failed;                   /* `failed` was called */
    bool closing;
    void (*closed)(void *ctx);
    void *closed_ctx;
    struct msg_manager self; /* what others are told */
    struct member members[MANAGERS_MAX];
    struct list incoming;
    struct loop_timer *timer;
    uint64_t said_usec;
};

/* ---- raft_group.c ---- */

void raft_group_log(const struct raft_group *g, int level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Ends the process: for good. */
void raft_group_fail(struct raft_group *g, const char *why);
/* Is this manager of the same group, by its own words? */
bool raft_group_agrees(const struct raft_group *g, const struct msg_manager *info);
/* A member has told who it is: m->info. */
void raft_group_heard(struct raft_group *g, struct member *m);

/* ---- raft_group_links.c ---- */

int raft_group_connect(struct raft_group *g);
void raft_group_disconnect(struct raft_group *g);
/* Asks all who they are, and tells them who this is. */
void raft_group_ask(struct raft_group *g);
/* For raft_node_options.send. */
void raft_group_send(void *ctx, uint64_t to, const struct buf *message);
