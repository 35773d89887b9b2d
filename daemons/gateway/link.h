/* A thread's connection to one shard of one server: what is sent to it in one turn of the loop
 * becomes one message and one write. */
#pragma once

#include "base/list.h"
#include "core/route.h"

#include <stdint.h>

#define LINK_MESSAGE_BYTES (4u << 20) /* operations are gathered up to this */
/* The longest message either way: what is gathered and the largest operation or result. */
#define LINK_MESSAGE_BYTES_MAX ((size_t) ENTRY_BYTES_MAX + 2 * (size_t) LINK_MESSAGE_BYTES)
/* Only a mark: server-queue-bytes is the limit. */
#define LINK_OUT_BYTES_MAX (16u << 20)
#define LINK_ADDRESSES_MAX 8

struct shard_link;
struct thread;

/* ROUTE_CONNECT: connects, again and again, until link_free. */
void link_connect(struct thread *t, uint32_t server, uint32_t shard);
/* ROUTE_RECONNECT: breaks the connection at the turn's end and makes it anew. */
void link_reconnect(struct thread *t, uint32_t server, uint32_t shard);
/* ROUTE_SEND: gathers the operation. */
void link_send(struct thread *t, uint32_t server, uint32_t shard, uint64_t session,
               const struct op *op);
/* At the turn's end: sends what was gathered. */
void link_flush_all(struct thread *t);
/* The hash space has changed: servers may have other addresses. */
void link_check_addresses(struct thread *t);
void link_free_all(struct thread *t);
