/* The answer to MSG_STATUS: there and back, longer than known, cut short. */
#include "wire/status.h"

#include "base/cleanup.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct msg_status example = {
    .version = "1.2.3",
    .cluster_id = "sixteen bytes...",
    .leads = true,
    .uptime_usec = 1234567890123,
    .applied = 42,
    .epoch = UINT64_MAX,
    .sessions = 3,
    .replicas = 7,
    .partitions = PARTITIONS_MAX,
    .unplaced = 1,
    .waiting = 2,
    .blocker = 2,
    .blocked = 5,
    .n_blockers = 1,
    .degraded = 9,
    .n_servers = 2,
};

static const struct msg_status_server servers[2] = {
    { .server = 1, .name = "db1", .address = "127.0.0.1:19800", .shards = 4, .up = true },
    { .server = 2,
      .name = "db2",
      .address = "[::1]:19800",
      .shards = SHARDS_MAX,
      .state = 1,
      .incarnation = UINT64_MAX,
      .primaries = 100,
      .secondaries = PARTITIONS_MAX,
      .learning = 17 },
};

static void put_example(struct buf *b)
{
    msg_put_status(b, &example);
    msg_put_status_server(b, &servers[0]);
    msg_put_status_server(b, &servers[1]);
}

static void test_round_trip(void **state)
{
    _cleanup_(buf_free) struct buf b = { 0 };
    struct msg_status_server s;
    struct msg_status head;
    struct mp_reader r;

    (void) state;
    put_example(&b);
    r = mp_reader_of(buf_head(&b), buf_len(&b));
    msg_get_status(&r, &head);
    assert_false(r.failed);
    assert_string_equal(head.version, "1.2.3");
    assert_memory_equal(head.cluster_id, example.cluster_id, UUID_BYTES);
    assert_true(head.leads && head.uptime_usec == example.uptime_usec && head.applied == 42);
    assert_true(head.epoch == UINT64_MAX && head.sessions == 3 && head.replicas == 7);
    assert_true(head.partitions == PARTITIONS_MAX && head.unplaced == 1 && head.waiting == 2);
    assert_true(head.blocker == 2 && head.blocked == 5 && head.n_blockers == 1);
    assert_int_equal(head.degraded, 9);
    assert_int_equal(head.n_servers, 2);
    for (unsigned i = 0; i < 2; i++) {
        msg_get_status_server(&r, &s);
        assert_string_equal(s.name, servers[i].name);
        assert_string_equal(s.address, servers[i].address);
        assert_true(s.server == i + 1 && s.up == servers[i].up && s.state == servers[i].state);
        assert_true(s.shards == servers[i].shards && s.incarnation == servers[i].incarnation);
        assert_int_equal(s.primaries, servers[i].primaries);
        assert_int_equal(s.secondaries, servers[i].secondaries);
        assert_int_equal(s.learning, servers[i].learning);
    }
    assert_false(r.failed);
    assert_ptr_equal(r.p, r.end);
}

static void test_cut(void **state)
{
    _cleanup_(buf_free) struct buf b = { 0 };

    (void) state;
    put_example(&b);
    for (size_t n = 0; n < buf_len(&b); n++) {
        _cleanup_free_ uint8_t *exact = mem_alloc(n + 1);
        struct mp_reader r = mp_reader_of(exact, n);
        struct msg_status_server s;
        struct msg_status head;
        memcpy(exact, buf_head(&b), n);
        msg_get_status(&r, &head);
        for (uint32_t i = 0; i < head.n_servers; i++) {
            msg_get_status_server(&r, &s);
        }
        assert_true(r.failed);
    }
}

/* Of a newer version: items appended to a server are passed over. */
static void test_longer(void **state)
{
    _cleanup_(buf_free) struct buf b = { 0 };
    struct msg_status_server s;
    struct mp_reader r;

    (void) state;
    msg_put_status_server(&b, &servers[0]);
    assert_int_equal(buf_head(&b)[0], 0x9a); /* an array of ten */
    buf_head(&b)[0] = 0x9c;
    mp_put_str(&b, "something new");
    mp_put_array(&b, 0);
    r = mp_reader_of(buf_head(&b), buf_len(&b));
    msg_get_status_server(&r, &s);
    assert_false(r.failed);
    assert_ptr_equal(r.p, r.end);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_longer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
