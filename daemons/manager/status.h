/* How the cluster does, as numbers for kumoctl and a sentence for systemd. */
#pragma once

#include "base/buf.h"
#include "core/cluster.h"

#include <stdbool.h>

struct host;

/* Remembers which partitions have a member whose process is newer than their view: they don't serve
 * until they get a new one (R6), which the servers ask for a little later. For status only. */
struct status_book {
    uint64_t incarnations[SERVERS_MAX]; /* by server number - 1: as last seen */
    bool is_old[PARTITIONS_MAX];
};

/* The cluster as the log had it at the start. */
void status_begin(struct status_book *book, const struct hashspace *space);
/* This server's registration was accepted. */
void status_registered(struct status_book *book, const struct hashspace *space, uint32_t server);
/* These partitions got a new view. */
void status_changed(struct status_book *book, const uint16_t *rows, size_t n);

/* The answer to MSG_STATUS (wire/status.h). */
void status_put(struct buf *b, const struct host *h);

/* "leading; 3 servers, 1024 partitions, 0 waiting". */
void status_sentence(const struct host *h, char *out, size_t cap);
