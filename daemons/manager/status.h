/* How the cluster does, as numbers for kumoctl and a sentence for systemd. */
#pragma once

#include "base/buf.h"

#include <stddef.h>

struct host;

/* The answer to MSG_STATUS (wire/status.h). */
void status_put(struct buf *b, const struct host *h);

/* "leading; 3 servers, 1024 partitions, 0 waiting, 0 short of copies". */
void status_sentence(const struct host *h, char *out, size_t cap);
