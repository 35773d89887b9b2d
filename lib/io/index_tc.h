/* The index on Tokyo Cabinet: a hash database per partition, in memory (a memfd). It can be lost at
 * any time: the log is the truth. A database that got too small for its records, or whose file is
 * mostly holes, is moved into a new one a few records at a time, so that no put takes long. Two
 * file descriptors per partition stay open, four while its records are being moved. */
#pragma once

#include "core/index.h"

/* An index_open_fn; ctx is not used. -EMFILE when file descriptors run out, -ENOMEM. */
int index_tc_open(void *ctx, uint16_t partition, struct index **ret);

/* Bytes that the files of all indexes of this process may take in memory; from any thread. The file
 * system that holds them gives out memory page by page, and kills with SIGBUS when there is none
 * left: who asks can refuse writes before. */
uint64_t index_tc_bytes(void);
