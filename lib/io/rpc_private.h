/* Between rpc.c, rpc_guard.c and rpc_link.c. */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "io/loop.h"
#include "io/rpc.h"

struct keyring;

enum rpc_state {
    RPC_HELLO,   /* connecting, or waiting for the hello or its answer */
    RPC_UP,      /* open for everything */
    RPC_CLOSING, /* sends what waits, takes nothing more */
    RPC_DEAD,    /* memory lives until the turn's end */
};

/* A request without an answer. */
struct rpc_call {
    struct map_node node; /* in rpc.calls, by id */
    struct list by_deadline;
    uint64_t id;
    uint64_t deadline_usec;
    rpc_answer_fn fn;
    void *ctx;
};

struct rpc {
    struct loop *loop;
    struct conn *conn;
    const struct rpc_ops *ops;
    void *ctx;
    struct rpc_link *link;
    size_t message_bytes_max;
    size_t out_bytes_max;
    enum rpc_state state;
    bool accepted; /* the peer connected, and says hello */
    bool paused;
    bool owner_closed; /* rpc_close was called: on_closed is not due */
    int closing_error; /* what on_closed gets after a flush */
    char *why;         /* with it, owned; may be NULL */

    struct list in_lobby; /* of an accepted one until its hello is done */
    struct rpc_lobby *lobby;
    struct addr *addr;    /* of a connecting one, while there is another key to try */
    struct keyring *ring; /* with it */
    unsigned key;         /* of ring, tried now */

    struct mp_scan scan;
    struct loop_timer *message_timer; /* runs while a message may be standing still */
    uint64_t messages;                /* taken so far */
    uint64_t looked_messages;         /* at the last look */
    uint64_t looked_bytes;
    unsigned looks;      /* in a row at which nothing had moved */
    uint64_t heard_usec; /* of the last message that came */
    uint64_t hello_deadline_usec;
    uint64_t next_id;
    struct map calls;
    struct list by_deadline; /* struct rpc_call, soonest first */
    struct loop_timer *timer;
    uint64_t timer_usec; /* when it will fire; 0: not set */

    bool building;
    size_t begun_bytes; /* length of the out buffer when the message was begun */
    struct rpc_call *begun_call;

    struct loop_task free_task;
};

/* Makes the rpc tell this link (or none) of its ups and its end. */
void rpc_set_link(struct rpc *rpc, struct rpc_link *link);

/* Ends the rpc as if the connection had ended: pending requests and on_closed are told, within. */
void rpc_end_with(struct rpc *rpc, int error, const char *why);

/* From the rpc: the hello was accepted. */
void rpc_link_on_up(struct rpc_link *link);
/* From the rpc, which is dead: before its owner hears of it, who may free the link. */
void rpc_link_on_closed(struct rpc_link *link);

/* Ends it as malformed or misbehaving, with a rate-limited log line. */
void rpc_malformed(struct rpc *rpc, int error, const char *why);

/* Lets the newest in; the oldest goes if there is no room. */
void rpc_enter_lobby(struct rpc *rpc, struct rpc_lobby *lobby);
/* Harmless for one that is not in it. */
void rpc_leave_lobby(struct rpc *rpc);

/* A part of a message is there: it must go on. */
void rpc_watch_message(struct rpc *rpc);
