/* The index on Tokyo Cabinet: one hash database per partition, in memory (a memfd). It can be lost
 * at any time: the log is the truth. Two file descriptors per partition stay open. */
#pragma once

#include "core/index.h"

/* An index_open_fn; ctx is not used. -EMFILE when file descriptors run out, -ENOMEM. */
int index_tc_open(void *ctx, uint16_t partition, struct index **ret);
