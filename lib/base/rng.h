/* Random numbers from a seed (splitmix64): the same seed gives the same numbers for ever, which is
 * what the simulator's replay needs. Not for secrets. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct rng {
    uint64_t state;
};

static inline uint64_t rng_u64(struct rng *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15ULL);

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return z ^ z >> 31;
}

/* Uniform in [0, n); n > 0. */
static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
    return rng_u64(r) % n;
}

/* Uniform in [lo, hi]. */
static inline uint64_t rng_between(struct rng *r, uint64_t lo, uint64_t hi)
{
    return lo + rng_below(r, hi - lo + 1);
}

/* True `n` times in `of`. */
static inline bool rng_chance(struct rng *r, uint64_t n, uint64_t of)
{
    return rng_below(r, of) < n;
}
