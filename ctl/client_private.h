/* The client's insides, shared by client.c, client_manager.c and client_server.c. Nobody else may
 * look. */
#pragma once

#include "client.h"

#include "base/list.h"
#include "io/rpc.h"

/* A connection to a manager (server 0) or to one shard of a server. */
struct link {
    struct list node;
    struct client *client;
    struct rpc *rpc; /* NULL: it has ended */
    uint32_t server;
    uint32_t shard;
    bool up;
    int error; /* why it has ended */
    char why[RPC_ERROR_TEXT_MAX + 1];
};

struct client {
    struct client_options o;
    struct loop *loop;
    struct loop_timer *look;
    bool has_key;           /* the cluster key was read, or that there is none */
    uint64_t deadline_usec; /* of the call under way */
    struct list links;
    struct link *manager;
    size_t next_manager; /* of the list, to be tried first */
    char manager_name[ADDRESS_BYTES_MAX];
    struct hashspace space;
    uint64_t last_op;

    /* the answer that is waited for */
    bool answered;
    int status;
    uint32_t code; /* enum msg_error, with status -EREMOTEIO */
    char text[RPC_ERROR_TEXT_MAX + 1];
    struct buf answer;
    struct client_result *result;
};

/* Runs the loop until *flag, the link's end (NULL: none), `until_usec`, or an interruption. */
int client_wait(struct client *c, const bool *flag, const struct link *l, uint64_t until_usec);
/* "connection refused", for the middle of a sentence. */
void client_say_errno(int error, char *out, size_t cap);
bool client_is_interrupted(const struct client *c);
/* A call begins: its time runs from now on. */
void client_begin(struct client *c);

/* Connects to a manager (server 0) or a server's shard, says hello, and keeps the link. On errors
 * `why` gets the reason in a few words. */
int client_link_open(struct client *c, const char *address, uint32_t server, uint32_t shard,
                     uint64_t until_usec, struct link **ret, struct io_error *why);
struct link *client_link_free(struct link *l);

/* Asks over a link and waits: 0, c->answer has the result; else c->text says why not. */
int client_ask(struct client *c, struct link *l, uint32_t method, const struct buf *params);

/* Asks the managers for the hash space: c->space. */
int client_table_fetch(struct client *c, struct io_error *error);
