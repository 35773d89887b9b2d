/* The managers of the cluster: which the settings name and which of them this one is; what is told
 * of them, whether this one leads or not. */
#pragma once

#include "base/buf.h"
#include "io/io_error.h"
#include "settings.h"
#include "wire/raft_msg.h"

#include <stddef.h>

struct host;
struct listener;

struct managers {
    char addresses[MANAGERS_MAX][ADDRESS_BYTES_MAX]; /* with ports, as all managers have them */
    size_t n;                                        /* 1: alone */
    size_t self;                                     /* place of this one's */
};

/* Finds this manager in the list: the one that is `advertise`, or what the listener is bound to.
 * -EINVAL, or as addr_parse. */
int managers_find(const struct settings *settings, const struct listener *listener,
                  struct managers *ret, struct io_error *error);

/* The answer to MSG_MANAGERS. */
void managers_put(struct buf *b, const struct host *h);

/* Why this manager, which does not lead, refuses a request; and how it does, for systemd. */
void managers_refusal(const struct host *h, char *out, size_t cap);
void managers_sentence(const struct host *h, char *out, size_t cap);
