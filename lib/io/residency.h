/* Which mapped bytes are in memory, so that reading them waits for no disk. What was found out is
 * remembered for a while, for whole regions: hot data costs no system call. One thread uses it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RESIDENCY_REGION_BYTES (UINT64_C(256) << 10)
#define RESIDENCY_REGIONS_MAX  65536   /* remembered: 16 GiB of hot data, in at most 1 MiB */
#define RESIDENCY_TRUST_USEC   1000000 /* after which a region is looked at again */

struct residency;

struct residency *residency_new(void);
/* NULL is fine; returns NULL. */
struct residency *residency_free(struct residency *r);

/* Are `bytes` at `offset` of the file that is mapped at `file` in memory? All of them lie in it.
 * Where that can't be asked (mincore is refused) all counts as in memory.
 * For RESIDENCY_TRUST_USEC the answer is believed even if the kernel takes the pages away
 * meanwhile; then whoever reads them waits. */
bool residency_is(struct residency *r, const uint8_t *file, size_t file_bytes, size_t offset,
                  size_t bytes, uint64_t now_usec);
