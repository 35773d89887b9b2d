/* What managers say to each other: each message comes back as it went, items that a later version
 * appends are skipped, a part of one is none, and what can't be is refused. */
#include "base/cleanup.h"
#include "wire/raft_msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define BYTES ((const uint8_t *) "sixteen bytes ab")

static const struct raft_msg heads[] = {
    { .kind = RAFT_MSG_APPEND,
      .version = 255,
      .term = RAFT_NUMBER_MAX,
      .append = { 1, 2, RAFT_NUMBER_MAX },
      .n_entries = 2 },
    { .kind = RAFT_MSG_APPEND, .term = 1 },
    { .kind = RAFT_MSG_APPEND_RESULT, .append_result = { 1, 2, UINT16_MAX, UINT16_MAX } },
    { .kind = RAFT_MSG_VOTE, .vote = { 5, 2, 3, true, false } },
    { .kind = RAFT_MSG_VOTE, .vote = { 5, 2, 3, false, true } },
    { .kind = RAFT_MSG_VOTE_RESULT, .vote_result = { true, false, 7, 8 } },
    { .kind = RAFT_MSG_VOTE_RESULT, .vote_result = { false, true, 0, 0 } },
    { .kind = RAFT_MSG_SNAPSHOT,
      .snapshot = { .last_index = 9,
                    .last_term = 8,
                    .conf_index = 1,
                    .n_servers = 2,
                    .servers = { { 1, 1, "a:19700" }, { 2, 1, "b:19700" } },
                    .data = BYTES,
                    .bytes = 16 } },
    { .kind = RAFT_MSG_TIMEOUT_NOW, .timeout_now = { 3, RAFT_NUMBER_MAX } },
};

static const struct raft_msg_entry entries[] = {
    { 1, RAFT_ENTRY_COMMAND, BYTES, 8 },
    { RAFT_NUMBER_MAX, RAFT_ENTRY_CHANGE, BYTES, 16 },
};

static void put_whole(struct buf *b, const struct raft_msg *m)
{
    raft_msg_put(b, m);
    for (uint32_t i = 0; i < m->n_entries; i++) {
        raft_msg_put_entry(b, &entries[i]);
    }
}

static void get_whole(struct mp_reader *r, struct raft_msg *ret, struct raft_msg_entry *ret_entries)
{
    raft_msg_get(r, ret);
    for (uint32_t i = 0; i < ret->n_entries && !r->failed; i++) {
        assert_in_range(i, 0, ARRAY_LEN(entries) - 1);
        raft_msg_get_entry(r, &ret_entries[i]);
    }
}

static void test_raft_round_trips(void **state)
{
    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
        _cleanup_(buf_free) struct buf b = { 0 };
        _cleanup_(buf_free) struct buf again = { 0 };
        struct raft_msg_entry back[ARRAY_LEN(entries)];
        struct raft_msg m;
        struct mp_reader r;

        put_whole(&b, &heads[i]);
        r = mp_reader_of(b.data, buf_len(&b));
        get_whole(&r, &m, back);
        assert_false(r.failed);
        assert_ptr_equal(r.p, r.end);
        raft_msg_put(&again, &m);
        for (uint32_t j = 0; j < m.n_entries; j++) {
            raft_msg_put_entry(&again, &back[j]);
        }
        assert_int_equal(buf_len(&b), buf_len(&again));
        assert_memory_equal(b.data, again.data, buf_len(&b));
        for (size_t cut = 0; cut < buf_len(&b); cut++) {
            r = mp_reader_of(b.data, cut);
            get_whole(&r, &m, back);
            assert_true(r.failed);
        }
    }
}

/* A later version appends items to the head. */
static void test_raft_later(void **state)
{
    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
        _cleanup_(buf_free) struct buf b = { 0 };
        _cleanup_(buf_free) struct buf later = { 0 };
        struct raft_msg_entry back[ARRAY_LEN(entries)];
        struct raft_msg m;
        struct mp_reader r;
        size_t head;

        put_whole(&b, &heads[i]);
        r = mp_reader_of(b.data + 1, buf_len(&b) - 1); /* behind the outer array's head */
        mp_skip(&r);
        head = (size_t) (r.p - b.data);
        buf_append(&later, b.data, head);
        later.data[1]++;
        mp_put_array(&later, 1);
        mp_put_str(&later, "later");
        buf_append(&later, b.data + head, buf_len(&b) - head);
        r = mp_reader_of(later.data, buf_len(&later));
        get_whole(&r, &m, back);
        assert_false(r.failed);
        assert_ptr_equal(r.p, r.end);
        assert_int_equal(m.n_entries, heads[i].n_entries);
    }
}

static bool raft_is_refused(const struct raft_msg *m)
{
    _cleanup_(buf_free) struct buf b = { 0 };
    struct raft_msg_entry back[ARRAY_LEN(entries)];
    struct raft_msg got;
    struct mp_reader r;

    put_whole(&b, m);
    r = mp_reader_of(b.data, buf_len(&b));
    get_whole(&r, &got, back);
    return r.failed;
}

static void test_raft_refusals(void **state)
{
    struct raft_msg m = { .kind = RAFT_MSG_APPEND, .term = RAFT_NUMBER_MAX + 1 };

    (void) state;
    assert_true(raft_is_refused(&m));
    m = (struct raft_msg){ .kind = RAFT_MSG_VOTE, .vote = { .last_index = UINT64_MAX } };
    assert_true(raft_is_refused(&m));
    m = heads[7];
    assert_false(raft_is_refused(&m));
    m.snapshot.n_servers = 0;
    assert_true(raft_is_refused(&m));
    m = heads[7];
    m.snapshot.servers[1].id = 0;
    assert_true(raft_is_refused(&m));
    m = heads[7];
    m.snapshot.servers[1].address[0] = '\0';
    assert_true(raft_is_refused(&m));
    m = heads[7];
    m.snapshot.bytes = 0;
    assert_true(raft_is_refused(&m));
    m = heads[7];
    m.snapshot.last_index = 0;
    assert_true(raft_is_refused(&m));
}

/* Entries that are announced where there may be none, kinds that there are not, and more servers
 * than a group has. */
static void test_raft_hostile(void **state)
{
    static const uint8_t unknown[] = { 0x92, 0x93, 7, 1, 1, 0x90 };
    static const uint8_t none[] = { 0x92, 0x93, 0, 1, 1, 0x90 };
    static const uint8_t vote_with_entry[] = { 0x92, 0x98, 3,    1,    1, 1, 1,    1,
                                               0xc2, 0xc2, 0x91, 0x93, 1, 1, 0xc4, 0 };
    _cleanup_(buf_free) struct buf many = { 0 };
    struct raft_msg m;
    struct mp_reader r = mp_reader_of(unknown, sizeof(unknown));

    (void) state;
    raft_msg_get(&r, &m);
    assert_true(r.failed);
    r = mp_reader_of(none, sizeof(none));
    raft_msg_get(&r, &m);
    assert_true(r.failed);
    r = mp_reader_of(vote_with_entry, sizeof(vote_with_entry));
    raft_msg_get(&r, &m);
    assert_true(r.failed);
    assert_int_equal(m.n_entries, 0);

    mp_put_array(&many, 2);
    mp_put_array(&many, 8);
    for (unsigned i = 0; i < 6; i++) {
        mp_put_uint(&many, i == 0 ? RAFT_MSG_SNAPSHOT : 1);
    }
    mp_put_array(&many, MANAGERS_MAX + 1);
    for (unsigned i = 0; i < MANAGERS_MAX + 1; i++) {
        mp_put_array(&many, 3);
        mp_put_uint(&many, 1);
        mp_put_uint(&many, 1);
        mp_put_str(&many, "a:1");
    }
    mp_put_bin(&many, BYTES, 8);
    mp_put_array(&many, 0);
    r = mp_reader_of(many.data, buf_len(&many));
    raft_msg_get(&r, &m);
    assert_true(r.failed);
}

static bool entry_is_refused(const struct raft_msg_entry *e)
{
    _cleanup_(buf_free) struct buf b = { 0 };
    struct raft_msg_entry got;
    struct mp_reader r;

    raft_msg_put_entry(&b, e);
    r = mp_reader_of(b.data, buf_len(&b));
    raft_msg_get_entry(&r, &got);
    return r.failed;
}

static void test_entry_refusals(void **state)
{
    static const struct raft_msg_entry bad[] = {
        { 0, RAFT_ENTRY_COMMAND, BYTES, 8 }, /* no term */
        { 1, 0, BYTES, 8 },                  /* no kind */
        { 1, _RAFT_ENTRY_KIND_MAX, BYTES, 8 },
        { 1, RAFT_ENTRY_COMMAND, BYTES, 0 }, /* nothing in it */
        { 1, RAFT_ENTRY_COMMAND, BYTES, 9 }, /* not padded */
        { RAFT_NUMBER_MAX + 1, RAFT_ENTRY_COMMAND, BYTES, 8 },
    };

    (void) state;
    assert_false(entry_is_refused(&entries[0]));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_true(entry_is_refused(&bad[i]));
    }
}

/* ---- who a manager is, and what it says of the group ---- */

static const struct msg_manager manager = {
    .number = 2,
    .id = { 1, 2 },
    .begun = true,
    .n = 3,
    .members = { { "a:19700", { 3 } }, { "b:19700", { 1, 2 } }, { "c:19700", { 0 } } },
};

static const struct msg_managers managers = {
    .version = "0.1.0",
    .number = 1,
    .role = MANAGER_LEADS,
    .term = RAFT_NUMBER_MAX,
    .leader = 1,
    .applied = 77,
    .uptime_usec = UINT64_MAX,
    .n = 2,
    .members = { { "a:19700", true }, { "b:19700", false } },
};

static void test_manager(void **state)
{
    _cleanup_(buf_free) struct buf b = { 0 };
    struct msg_manager got, bad = manager;
    struct mp_reader r;

    (void) state;
    msg_put_manager(&b, &manager);
    r = mp_reader_of(b.data, buf_len(&b));
    msg_get_manager(&r, &got);
    assert_false(r.failed);
    assert_ptr_equal(r.p, r.end);
    assert_int_equal(got.number, 2);
    assert_true(got.begun);
    assert_memory_equal(got.id, manager.id, UUID_BYTES);
    assert_int_equal(got.n, 3);
    for (uint32_t i = 0; i < got.n; i++) {
        assert_string_equal(got.members[i].address, manager.members[i].address);
        assert_memory_equal(got.members[i].id, manager.members[i].id, UUID_BYTES);
    }
    for (size_t cut = 0; cut < buf_len(&b); cut++) {
        r = mp_reader_of(b.data, cut);
        msg_get_manager(&r, &got);
        assert_true(r.failed);
    }
    for (uint32_t number = 0; number <= 4; number += 4) { /* not one of the group */
        buf_clear(&b);
        bad.number = number;
        msg_put_manager(&b, &bad);
        r = mp_reader_of(b.data, buf_len(&b));
        msg_get_manager(&r, &got);
        assert_true(r.failed);
    }
}

static void test_managers(void **state)
{
    _cleanup_(buf_free) struct buf b = { 0 };
    struct msg_managers got;
    struct mp_reader r;

    (void) state;
    msg_put_managers(&b, &managers);
    r = mp_reader_of(b.data, buf_len(&b));
    msg_get_managers(&r, &got);
    assert_false(r.failed);
    assert_ptr_equal(r.p, r.end);
    assert_string_equal(got.version, "0.1.0");
    assert_int_equal(got.number, 1);
    assert_int_equal(got.role, MANAGER_LEADS);
    assert_int_equal(got.term, RAFT_NUMBER_MAX);
    assert_int_equal(got.leader, 1);
    assert_int_equal(got.applied, 77);
    assert_true(got.uptime_usec == UINT64_MAX);
    assert_int_equal(got.n, 2);
    assert_string_equal(got.members[1].address, "b:19700");
    assert_true(got.members[0].reachable);
    assert_false(got.members[1].reachable);
    for (size_t cut = 0; cut < buf_len(&b); cut++) {
        r = mp_reader_of(b.data, cut);
        msg_get_managers(&r, &got);
        assert_true(r.failed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_raft_round_trips), cmocka_unit_test(test_raft_later),
        cmocka_unit_test(test_raft_refusals),    cmocka_unit_test(test_raft_hostile),
        cmocka_unit_test(test_entry_refusals),   cmocka_unit_test(test_manager),
        cmocka_unit_test(test_managers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
