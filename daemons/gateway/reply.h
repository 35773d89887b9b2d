/* Results and failures as the text protocol says them. */
#pragma once

#include "base/buf.h"
#include "core/route.h"
#include "wire/mc_text.h"

#include <stdbool.h>

struct counters;

/* Appends the answer of an operation that a command made; nothing for a miss of the get kinds.
 * Returns whether it is an error. */
bool reply_result(struct buf *out, enum mc_cmd cmd, const struct op *op, const struct result *res);
/* SERVER_ERROR and the text. */
void reply_error(struct buf *out, const char *text);
/* Counts what memcached counts. */
void reply_count(struct counters *c, enum mc_cmd cmd, const struct result *res);
