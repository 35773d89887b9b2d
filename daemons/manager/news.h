/* What happened to the partitions in a while, as one line of the log however many they are. */
#pragma once

#include "core/hashspace.h"

#include <stddef.h>

struct news {
    size_t views;
    uint32_t
        out[SERVERS_MAX]; /* by server number - 1: partitions that it is no member of any more */
    uint32_t in[SERVERS_MAX]; /* and those that it is again */
};

/* These rows were changed; `before` is what they were. */
void news_add(struct news *news, const struct hashspace *space, const uint16_t *rows,
              const struct view_row *before, size_t n);
/* "341 partitions got a new view: server db2 is out of 341", if any did. */
void news_tell(const struct news *news, const struct hashspace *space);
