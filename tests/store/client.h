/* A gateway's end of a connection to one shard of a server, blocking: operations go out, results
 * come in. */
#pragma once

#include "base/buf.h"
#include "wire/msg.h"

struct client {
    int fd;
    struct buf in;
    struct buf ops; /* gathered for the next message */
    uint32_t n_ops;
};

/* Connects to a port of 127.0.0.1 and says hello. -errno. */
int client_open(struct client *c, uint16_t port, uint32_t shard);
void client_close(struct client *c);

void client_add(struct client *c, const struct op *op);
/* Sends what was added. -errno. */
int client_flush(struct client *c, uint64_t session);
/* Reads once, and calls fn for each result that is there. -ECONNRESET when the server went. */
typedef void (*client_result_fn)(void *ctx, const struct result *r);
int client_read(struct client *c, client_result_fn fn, void *ctx);
