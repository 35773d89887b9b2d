/* The connections to a manager: servers, gateways and kumoctl. Translates between messages and the
 * machine's events and actions. What goes to one connection keeps its order; consecutive seals or
 * views of one turn become one message. */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "core/manager.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PEERS_OUT_BYTES_MARK                                                                       \
    ((size_t) 4 << 20)                          /* a subscriber gets no changes above it, but the  \
                                                   whole table when it has read */
#define PEERS_OUT_BYTES_MAX ((size_t) 64 << 20) /* a peer that reads nothing is cut off */

struct host;
struct rpc;
struct rpc_lobby;
struct peer;

struct peers {
    struct host *host;
    struct map by_id;
    struct list all;
    struct list dirty;       /* peers with a batch to be sent */
    struct rpc_lobby *lobby; /* those whose hello is not done */
    uint64_t last_id;

    /* of the turn in progress: what subscribers are to be told */
    bool changed;
    bool *is_changed; /* by partition */
    uint16_t *changed_rows;
    size_t n_changed;
};

void peers_init(struct peers *ps, struct host *host);
/* Closes all connections; the machine hears of it. */
void peers_close(struct peers *ps);
void peers_free(struct peers *ps);
/* Tells gateways that the leader lives, every MANAGER_BEAT_USEC; servers hear it from the machine.
 */
void peers_beat(struct peers *ps);
/* Closes those of servers and gateways: this manager leads no more. */
void peers_dismiss(struct peers *ps);

/* Takes over an accepted socket. */
void peers_accept(struct peers *ps, int fd);

/* Carries out an action that concerns connections. One whose connection has gone is dropped. */
void peers_do(struct peers *ps, const struct manager_action *a);

/* Sends what was gathered in the turn. */
void peers_flush(struct peers *ps);
