/* Which servers should hold a partition, and which of them leads it. Deterministic; replicas and
 * primaries are off balance by at most one partition. Pure. */
#pragma once

#include "wire/msg.h"

#include <stdint.h>

/* The first placement: fills *ret_row's members for view 1 of one of n_partitions partitions among
 * n servers given in ascending order of number; 1 <= replicas <= min(n, REPLICAS_MAX). */
void placement_first(uint16_t partition, uint32_t n_partitions, const uint32_t *servers, uint32_t n,
                     uint32_t replicas, struct view_row *ret_row);

/* Which of the members should lead the partition when all hold the same: the one that
 * placement_first puts first among these servers, or a fixed other one when it is no member.
 * `members` in any order. */
uint32_t placement_primary(uint16_t partition, uint32_t n_partitions, const uint32_t *servers,
                           uint32_t n, const uint32_t *members, uint32_t n_members);
