#include "core/placement.h"

#include "base/assert.h"

void placement_first(uint16_t partition, const uint32_t *servers, uint32_t n, uint32_t replicas,
                     struct view_row *ret_row)
{
    kumo_assert(replicas >= 1);
    kumo_assert(replicas <= n && replicas <= REPLICAS_MAX);
    /* Consecutive servers on a ring, the window moving on by one: each server leads and holds
     * equally many. */
    for (uint32_t i = 0; i < replicas; i++) {
        ret_row->members[i] = servers[(partition + i) % n];
    }
    ret_row->partition = partition;
    ret_row->n_members = (uint8_t) replicas;
    ret_row->view = 1;
    ret_row->time_usec = 0;
}

uint32_t placement_primary(uint16_t partition, const uint32_t *members, uint32_t n)
{
    uint32_t sorted[REPLICAS_MAX];

    kumo_assert(n >= 1 && n <= REPLICAS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t j = i;
        for (; j > 0 && sorted[j - 1] > members[i]; j--) {
            sorted[j] = sorted[j - 1];
        }
        sorted[j] = members[i];
    }
    return sorted[partition % n];
}
