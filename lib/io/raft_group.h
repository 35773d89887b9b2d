/* The managers of one cluster: this one's raft node, the connections to the others, and who they
 * are. `struct consensus` for a group of 1, 3 or 5; alone it is a raft node and nothing else.
 *
 * Every manager has the same list of addresses in the same order; its place in it is its number. At
 * the first start of a group each manager makes an id, waits until all others have told theirs, and
 * begins its log with the list and all ids: the same bytes on each. From then on one speaks about
 * Raft only with a manager whose log names the same addresses and ids. A manager that lost its disk
 * has another id: it can't vote a second time, and is told so. (A log of one has no id.)
 *
 * Each manager connects to each other one, and sends over the connections that it made.
 *
 * One thread: every call and every callback happens on the loop. */
#pragma once

#include "core/consensus.h"
#include "wire/raft_msg.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RAFT_GROUP_PORT        19700
#define RAFT_GROUP_ASK_USEC    1000000  /* so often each is asked who it is, and whether it lives */
#define RAFT_GROUP_ANSWER_USEC 3000000  /* no answer for so long: connected anew */
#define RAFT_GROUP_SAY_USEC    15000000 /* so often the log is told what a start waits for */
#define RAFT_GROUP_OUT_BYTES_MAX                                                                   \
    ((size_t) 4 << 20) /* of one connection; beyond: messages are lost */

struct loop;
struct raft_group;
struct rpc;

struct raft_group_options {
    struct loop *loop;
    /* Directory of the log alone; must exist. Copied. */
    const char *dir;
    /* 1 to MANAGERS_MAX addresses with ports, the same on every manager, copied; and the place of
     * this manager's own among them, from 0. */
    const char *const *addresses;
    size_t n;
    size_t self;
    /* `failed` comes as well when the group must not be joined; all of them with fsm.ctx. */
    struct consensus_fsm fsm;
    /* The id of the cluster as far as it is known; zeros otherwise. */
    void (*cluster_id)(void *ctx, uint8_t ret_id[UUID_BYTES]);
    /* A connection that raft_group_adopt took over has ended. */
    void (*released)(void *ctx);
    void (*log)(void *ctx, int level, const char *text); /* as of raft_node_options; ctx as above */
};

/* Opens the log, or begins to wait for the others; as raft_node_start, errors too. -EINVAL as well
 * when the list is not the log's. -ENOENT: a name in the list can't be found. */
int raft_group_start(const struct raft_group_options *o, struct raft_group **ret_group);

/* Valid until raft_group_close; -EAGAIN to every proposal while there is no log yet. */
struct consensus *raft_group_consensus(struct raft_group *g);

/* The connection of a manager that has connected to this one, within on_hello and before it is
 * accepted there: from now on the group owns it. */
void raft_group_adopt(struct raft_group *g, struct rpc *rpc);

/* What is known of the group: number, role, term, leader, applied and members are filled in. */
void raft_group_tell(struct raft_group *g, struct msg_managers *ret);

/* Stops and frees the group: as raft_node_close. */
void raft_group_close(struct raft_group *g, void (*closed)(void *ctx), void *ctx);
