#include "core/placement.h"

#include "base/assert.h"
#include "base/cleanup.h"

static uint32_t gcd(uint32_t a, uint32_t b)
{
    while (b > 0) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Where on the ring of n servers the partition's replicas begin, and which of them leads. */
static uint32_t window(uint32_t partition, uint32_t n_partitions, uint32_t n, uint32_t replicas,
                       uint32_t *ret_primary)
{
    uint32_t g = gcd(n, replicas);

    if (partition < n_partitions / n * n) {
        /* Whole turns of the ring, the window moving on by one: each server leads and holds equally
         * many, and shares with as many others as can be. */
        *ret_primary = 0;
        return partition % n;
    }
    /* The rest is less than a turn: windows behind each other, so that no server holds more than
     * one above any other. They begin at every g-th server only: each time around another of their
     * members leads. */
    partition %= n;
    *ret_primary = partition / (n / g) % g;
    return partition * replicas % n;
}

void placement_first(uint16_t partition, uint32_t n_partitions, const uint32_t *servers, uint32_t n,
                     uint32_t replicas, struct view_row *ret_row)
{
    uint32_t primary;
    uint32_t begin;

    kumo_assert(replicas >= 1);
    kumo_assert(replicas <= n && replicas <= REPLICAS_MAX);
    kumo_assert(partition < n_partitions);
    begin = window(partition, n_partitions, n, replicas, &primary);
    for (uint32_t i = 0; i < replicas; i++) {
        ret_row->members[i] = servers[(begin + (primary + i) % replicas) % n];
    }
    ret_row->partition = partition;
    ret_row->n_members = (uint8_t) replicas;
    ret_row->view = 1;
    ret_row->time_usec = 0;
}

uint32_t placement_primary(uint16_t partition, uint32_t n_partitions, const uint32_t *servers,
                           uint32_t n, const uint32_t *members, uint32_t n_members)
{
    uint32_t lowest = members[0];
    struct view_row row;

    kumo_assert(n_members >= 1 && n_members <= REPLICAS_MAX);
    placement_first(partition, n_partitions, servers, n, MIN_OF(n, n_members), &row);
    for (uint32_t i = 0; i < n_members; i++) {
        if (members[i] == row.members[0]) {
            return row.members[0];
        }
        lowest = MIN_OF(lowest, members[i]);
    }
    return lowest;
}
