/* The routing of one gateway thread: all operations that have no answer yet, where each of them is
 * to be sent, and when it is sent again. Pure: time is a parameter, what is to be done comes back
 * as actions.
 *
 * An operation goes key -> hash -> partition -> the primary of the partition's view -> that
 * server's shard. Rules that it keeps:
 *  - Of one client connection and key, one operation is on the wire; the others wait in order.
 *  - Each operation but get has a number from 1 per (session, partition), given when it is first
 * sent, and the same one when it is sent again (R12). At most SESSION_WINDOW numbers are without an
 * answer in a partition; what is beyond waits.
 *  - Without an answer for ROUTE_SILENT_USEC the table is asked for, and a connection over which
 * nothing came is made anew.
 *  - "Not primary" and "busy" are tried again after a delay that grows; a lost connection as soon
 * as it or another primary is there; until the request's timeout.
 *
 * Actions are carried out by the caller in order before it makes the next call; what they point to
 * is valid until then. Every queue has a limit: see struct route_limits. */
#pragma once

#include "base/list.h"
#include "core/hashspace.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Who gives no answer for so long may not be primary any more. */
#define ROUTE_SILENT_USEC 1000000

#define ROUTE_RETRY_MIN_USEC 2000       /* delay after "not primary" or "busy", doubled… */
#define ROUTE_RETRY_MAX_USEC 100000     /* …up to this */
#define ROUTE_TABLE_USEC     100000     /* the hash space is asked for at most this often */
#define ROUTE_SESSION_USEC   1000000    /* a session is asked for at most this often */
#define ROUTE_OPS_MAX        (1u << 20) /* largest value of route_limits.ops_max */
#define ROUTE_TEXT_BYTES     256        /* of route_failure_text */

struct route_limits {
    uint64_t timeout_usec;   /* from route_submit to the error; > 0 */
    size_t server_bytes_max; /* of operations that wait for or are on the wire to one server */
    uint32_t ops_max;        /* operations without an answer */
};

/* A client connection as the routing knows it. The caller owns it; it must stay where it is from
 * route_client_init to route_forget. */
struct route_client {
    uint64_t id;     /* never given to another one */
    struct list ops; /* its operations without an answer */
};

void route_client_init(struct route_client *c, uint64_t id);

/* Why an operation failed in the gateway. */
enum route_error {
    ROUTE_NO_TABLE,    /* no manager has told the hash space */
    ROUTE_NO_SERVERS,  /* the hash space is not formed: no server was attached */
    ROUTE_NO_PRIMARY,  /* the key's partition has no server */
    ROUTE_NO_SESSION,  /* no manager has given a session */
    ROUTE_UNREACHABLE, /* there is no connection to the server */
    ROUTE_NOT_READY,   /* the server refused for now until the time was over */
    ROUTE_SILENT,      /* the server doesn't answer */
    ROUTE_WINDOW,      /* SESSION_WINDOW writes of the partition have no answer */
    ROUTE_QUEUE_FULL,  /* server_bytes_max (from route_submit only) */
    ROUTE_TOO_MANY,    /* ops_max (from route_submit only) */
    _ROUTE_ERROR_MAX,
    _ROUTE_ERROR_INVALID = -22,
};

struct route_failure {
    enum route_error error;
    uint32_t server; /* its number, 0: none */
    bool
        may_happen; /* it may have been done or may still be; false: it was not done and won't be */
};

enum route_action_kind {
    ROUTE_SEND = 1,   /* send.op to the shard, in send.session */
    ROUTE_DONE,       /* the end of an operation */
    ROUTE_CONNECT,    /* connect to the shard, keep it, tell by route_link_up and route_link_down */
    ROUTE_RECONNECT,  /* the shard has said nothing for too long: break the connection and make it
                         anew */
    ROUTE_NEED_TABLE, /* ask a manager for the hash space */
    ROUTE_NEED_SESSION, /* ask a manager for a session */
    _ROUTE_ACTION_KIND_MAX,
    _ROUTE_ACTION_KIND_INVALID = -22,
};

struct route_action {
    enum route_action_kind kind;
    uint32_t server; /* of ROUTE_SEND, ROUTE_CONNECT and ROUTE_RECONNECT */
    uint32_t shard;
    union {
        struct {
            uint64_t session;
            const struct op *op;
        } send;
        struct {
            struct route_client *client;
            void *token;
            const struct op *op;
            bool failed;          /* which of the next two counts */
            struct result result; /* the server's; its value is where route_result had it */
            struct route_failure failure;
        } done;
    };
};

struct route_actions {
    struct route_action *v;
    size_t n;
    size_t cap;
};

/* The caller clears it by n = 0 and keeps the memory. */
void route_actions_free(struct route_actions *a);

struct route;

/* Never fails. */
struct route *route_new(const struct route_limits *limits);
/* Drops all operations without a word. The clients' lists must not be used afterwards. NULL is
 * fine; returns NULL. */
struct route *route_free(struct route *r);

/* The hash space has changed (or is there for the first time: the number of partitions never
 * changes afterwards). `h` is read by every later call and stays the caller's. Operations on the
 * way to what is no longer the primary are sent to the one that is. */
void route_table_changed(struct route *r, uint64_t now_usec, const struct hashspace *h,
                         struct route_actions *out);

/* New operations are numbered in this session (> 0); those that have a number keep theirs. */
void route_set_session(struct route *r, uint64_t now_usec, uint64_t session,
                       struct route_actions *out);

/* Takes an operation of a client: id and op id are set here; key and value are copied. ROUTE_DONE
 * with the token comes later, once, unless the client is forgotten. Returns 0, or -ENOBUFS when a
 * limit is reached: *ret_failure says which, and nothing happens later. */
int route_submit(struct route *r, uint64_t now_usec, struct route_client *client, void *token,
                 const struct op *op, struct route_actions *out, struct route_failure *ret_failure);

/* A shard's answer. Answers to what is not on the wire there are ignored. */
void route_result(struct route *r, uint64_t now_usec, uint32_t server, uint32_t shard,
                  const struct result *result, struct route_actions *out);

/* The connection asked for by ROUTE_CONNECT is there, or was lost: what is on the wire there is
 * sent again, because it may or may not have arrived. */
void route_link_up(struct route *r, uint64_t now_usec, uint32_t server, uint32_t shard,
                   struct route_actions *out);
void route_link_down(struct route *r, uint64_t now_usec, uint32_t server, uint32_t shard,
                     struct route_actions *out);

/* Ends what is over its time and sends what has waited long enough. Due at route_wake_usec. */
void route_tick(struct route *r, uint64_t now_usec, struct route_actions *out);

/* When route_tick has something to do, UINT64_MAX: never as things are. */
uint64_t route_wake_usec(const struct route *r);

/* The client is gone: no ROUTE_DONE will name it. Its writes are carried on, so that a client may
 * send and close; its reads are not sent any more. */
void route_forget(struct route *r, uint64_t now_usec, struct route_client *client,
                  struct route_actions *out);

/* Operations without an answer; bytes that wait for or are on the wire to a server (0: to none
 * yet). */
size_t route_unanswered(const struct route *r);
size_t route_server_bytes(const struct route *r, uint32_t server);

/* The failure as a sentence for the client, which names the server; at most ROUTE_TEXT_BYTES with
 * NUL. Returns out. */
const char *route_failure_text(const struct route *r, const struct route_failure *f,
                               char out[static ROUTE_TEXT_BYTES]);
