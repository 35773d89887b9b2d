/* The two clocks. Correctness uses only CLOCK_BOOTTIME, read afresh (rule R10). */
#pragma once

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_usec_of(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (uint64_t) ts.tv_sec * 1000000 + (uint64_t) ts.tv_nsec / 1000;
}

/* Microseconds since boot, suspended time included; never falls. */
static inline uint64_t clock_boot_usec(void)
{
    return clock_usec_of(CLOCK_BOOTTIME);
}

/* Microseconds since 1970; may jump. */
static inline uint64_t clock_real_usec(void)
{
    return clock_usec_of(CLOCK_REALTIME);
}
