/* Everything that kumoctl sends and receives: a synchronous client of managers and servers. Each
 * call runs an event loop until it is answered, the time is over, or the operator interrupts it.
 * One thread.
 *
 * All calls return 0 or -errno with a sentence for the operator, which says what to do next. */
#pragma once

#include "base/buf.h"
#include "core/hashspace.h"
#include "io/conf.h"
#include "io/io_error.h"
#include "wire/raft_msg.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#define CLIENT_RETRY_USEC 50000 /* between two tries of an operation, or of a manager */
#define CLIENT_MANAGER_USEC                                                                        \
    1000000                     /* so long each manager is waited for that is asked how it does */
#define CLIENT_TIMEOUT_MARGIN 2 /* a server that hangs may take 1/n of the time to connect to */
#define MANAGER_PORT          19700
#define SERVER_PORT           19800

struct client;

struct client_options {
    const struct conf_list *managers; /* must outlive the client, as cluster_key */
    const char *cluster_key;          /* the setting; read when first needed */
    uint64_t timeout_usec;            /* of one call */
    /* Set from a signal handler: the call under way ends with -EINTR. May be NULL. */
    const volatile sig_atomic_t *interrupted;
};

int client_new(const struct client_options *o, struct client **ret, struct io_error *error);
/* NULL is fine; returns NULL. */
struct client *client_free(struct client *c);
/* Ends all connections: between two commands nobody listens to them. */
void client_hang_up(struct client *c);
void client_set_timeout(struct client *c, uint64_t timeout_usec);
/* Sleeps; -EINTR when interrupted. */
int client_sleep(struct client *c, uint64_t usec);
/* Address of the manager that is or was connected. */
const char *client_manager_name(const struct client *c);

/* A request to the manager that leads, whichever of them is asked first. The result item is copied
 * to `ret_result`, which the caller frees. */
int client_call(struct client *c, uint32_t method, const struct buf *params, struct buf *ret_result,
                struct io_error *error);

/* What each manager says, in the order of their numbers: `said[i].number` is 0 for one that gives
 * no answer, and why[i] has the reason. Needs no leader. */
struct client_managers {
    uint32_t n;
    char addresses[MANAGERS_MAX][ADDRESS_BYTES_MAX];
    struct msg_managers said[MANAGERS_MAX];
    char why[MANAGERS_MAX][100];
};
int client_managers(struct client *c, struct client_managers *ret, struct io_error *error);

/* Asks for the hash space. *ret_space belongs to the client and stays until the next call. */
int client_table(struct client *c, const struct hashspace **ret_space, struct io_error *error);

/* What became of an operation. `code` is enum result_code; value is in `bytes`. */
struct client_result {
    uint8_t code;
    uint32_t flags;
    uint64_t cas;
    struct buf bytes;
};

/* One operation at the primary of its key, tried again while servers say that they did nothing.
 * -EREMOTEIO: a write was sent and its outcome is unknown. */
int client_op(struct client *c, const struct op *op, struct client_result *ret,
              struct io_error *error);

/* What one replica holds of a key (MSG_PEEK_KEY). The value is copied to `ret_value`. */
int client_peek(struct client *c, const struct hashspace_server *server, const char *key,
                size_t key_len, struct msg_peek *ret, struct buf *ret_value,
                struct io_error *error);
