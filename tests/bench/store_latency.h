/* How long operations take that arrive at a rate of their own, whether or not those before them
 * are answered: what a stall of the loop costs is counted for each operation that it holds up. */
#pragma once

#include "bench/store_bench.h"

/* Counts of times in steps of a sixteenth of a power of two. Valid when zeroed. */
#define HISTOGRAM_STEPS 512
struct histogram {
    uint64_t counts[HISTOGRAM_STEPS];
    uint64_t n;
    uint64_t max_usec;
};
void histogram_add(struct histogram *h, uint64_t usec);
void histogram_merge(struct histogram *h, const struct histogram *other);
/* What the sample says of it. */
struct latency histogram_latency(const struct histogram *h);
