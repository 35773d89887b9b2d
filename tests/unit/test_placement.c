/* Placement: every server leads and holds equally many partitions. */
#include "core/placement.h"

#include "base/cleanup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_SERVERS 20

static void servers_fill(uint32_t *servers, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        servers[i] = 3 * i + 2; /* ascending, with gaps */
    }
}

static uint32_t index_of(uint32_t server)
{
    return (server - 2) / 3;
}

static uint32_t spread(const uint32_t *counts, uint32_t n)
{
    uint32_t lo = UINT32_MAX;
    uint32_t hi = 0;

    for (uint32_t i = 0; i < n; i++) {
        lo = MIN_OF(lo, counts[i]);
        hi = MAX_OF(hi, counts[i]);
    }
    return hi - lo;
}

static void check_row(const struct view_row *row, uint16_t partition, uint32_t n, uint32_t replicas)
{
    assert_int_equal(row->partition, partition);
    assert_int_equal(row->view, 1);
    assert_int_equal(row->time_usec, 0);
    assert_int_equal(row->n_members, replicas);
    for (unsigned i = 0; i < replicas; i++) {
        assert_true(index_of(row->members[i]) < n && row->members[i] % 3 == 2);
        for (unsigned j = 0; j < i; j++) {
            assert_int_not_equal(row->members[i], row->members[j]);
        }
    }
}

static void check_balance(uint32_t n_partitions, uint32_t n, uint32_t replicas)
{
    uint32_t servers[N_SERVERS];
    uint32_t primaries[N_SERVERS] = { 0 };
    uint32_t preferred[N_SERVERS] = { 0 };
    uint32_t copies[N_SERVERS] = { 0 };

    servers_fill(servers, n);
    for (uint32_t p = 0; p < n_partitions; p++) {
        struct view_row row = { 0 };
        placement_first((uint16_t) p, n_partitions, servers, n, replicas, &row);
        check_row(&row, (uint16_t) p, n, replicas);
        primaries[index_of(row.members[0])]++;
        for (unsigned i = 0; i < replicas; i++) {
            copies[index_of(row.members[i])]++;
        }
        preferred[index_of(placement_primary((uint16_t) p, n_partitions, servers, n, row.members,
                                             row.n_members))]++;
    }
    assert_true(spread(primaries, n) <= 1);
    assert_true(spread(copies, n) <= 1);
    assert_memory_equal(primaries, preferred, n * sizeof(*primaries));
}

static void test_balance(void **state)
{
    (void) state;
    for (uint32_t partitions = 1; partitions <= 4096; partitions *= 4) {
        for (uint32_t n = 1; n <= N_SERVERS; n++) {
            for (uint32_t replicas = 1; replicas <= MIN_OF(n, (uint32_t) REPLICAS_MAX);
                 replicas++) {
                check_balance(partitions, n, replicas);
            }
        }
    }
}

/* Whatever the order of the members, the same one is preferred: the first of the placement. */
static void test_primary(void **state)
{
    uint32_t servers[N_SERVERS];
    struct view_row row = { 0 };

    (void) state;
    servers_fill(servers, 8);
    for (uint16_t p = 0; p < 1024; p++) {
        uint32_t turned[3];
        placement_first(p, 1024, servers, 8, 3, &row);
        for (uint32_t i = 0; i < 3; i++) {
            turned[i] = row.members[(i + p) % 3];
        }
        assert_int_equal(placement_primary(p, 1024, servers, 8, turned, 3), row.members[0]);
    }
}

/* Members that placement would not choose today: one of them all the same, always the same one. */
static void test_primary_elsewhere(void **state)
{
    uint32_t servers[N_SERVERS];
    uint32_t members[2] = { 99, 77 };
    uint32_t turned[2] = { 77, 99 };

    (void) state;
    servers_fill(servers, 8);
    assert_int_equal(placement_primary(5, 16, servers, 8, members, 2), 77);
    assert_int_equal(placement_primary(5, 16, servers, 8, turned, 2), 77);
    assert_int_equal(placement_primary(5, 16, servers, 1, members, 2), 77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_balance),
        cmocka_unit_test(test_primary),
        cmocka_unit_test(test_primary_elsewhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
