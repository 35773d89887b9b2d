/* The plain index: a hash table in ordinary memory, for the simulator and tests. */
#pragma once

#include "core/index.h"

/* An index_open_fn; ctx is not used. */
int index_map_open(void *ctx, uint16_t partition, struct index **ret);
