/* Our own messages: each comes back as it went, items that a later version appends are skipped, and
 * a part of one is none. */
#include "base/cleanup.h"
#include "wire/msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

union any {
    struct msg_hello hello;
    struct msg_at at;
    struct view_row row;
    struct msg_sealed sealed;
    struct msg_register registration;
    struct msg_registered registered;
    struct op op;
    struct result result;
    struct msg_prepare prepare;
    struct msg_commit commit;
    struct msg_peek peek;
    struct msg_reconfig reconfig;
    struct msg_catchup_ask ask;
    struct msg_catchup catchup;
    struct msg_learned learned;
    struct msg_lease lease;
    struct msg_sessions sessions;
};

/* One writer and reader, as functions of any message. */
struct kind {
    void (*put)(struct buf *b, const union any *m);
    void (*get)(struct mp_reader *r, union any *ret);
};

#define KIND(member, putter, getter)                                                               \
    static void put_##member(struct buf *b, const union any *m)                                    \
    {                                                                                              \
        putter(b, &m->member);                                                                     \
    }                                                                                              \
    static void get_##member(struct mp_reader *r, union any *ret)                                  \
    {                                                                                              \
        getter(r, &ret->member);                                                                   \
    }                                                                                              \
    static const struct kind member##_kind = { put_##member, get_##member };

static void get_op_1000(struct mp_reader *r, struct op *ret)
{
    msg_get_op(r, 1000, ret);
}

static void get_some_sessions(struct mp_reader *r, struct msg_sessions *ret)
{
    static uint64_t ids[1000];

    assert_true(r->end - r->p <= (long) ARRAY_LEN(ids));
    msg_get_sessions(r, ids, ret);
}

KIND(hello, msg_put_hello, msg_get_hello)
KIND(at, msg_put_at, msg_get_at)
KIND(row, msg_put_view_row, msg_get_view_row)
KIND(sealed, msg_put_sealed, msg_get_sealed)
KIND(registration, msg_put_register, msg_get_register)
KIND(registered, msg_put_registered, msg_get_registered)
KIND(op, msg_put_op, get_op_1000)
KIND(result, msg_put_result, msg_get_result)
KIND(prepare, msg_put_prepare, msg_get_prepare)
KIND(commit, msg_put_commit, msg_get_commit)
KIND(peek, msg_put_peek, msg_get_peek)
KIND(reconfig, msg_put_reconfig, msg_get_reconfig)
KIND(ask, msg_put_catchup_ask, msg_get_catchup_ask)
KIND(catchup, msg_put_catchup, msg_get_catchup)
KIND(learned, msg_put_learned, msg_get_learned)
KIND(lease, msg_put_lease, msg_get_lease)
KIND(sessions, msg_put_sessions, get_some_sessions)

#define KEY   ((const uint8_t *) "key")
#define VALUE ((const uint8_t *) "value")
#define REGISTRATION(shards_, name_, address_)                                                     \
    {                                                                                              \
        .registration = {                                                                          \
            .server_id = { 9 },                                                                    \
            .counter = UINT64_MAX,                                                                 \
            .random = UINT64_MAX - 1,                                                              \
            .priors = { UINT64_MAX - 2, 1 },                                                       \
            .n_priors = 2,                                                                         \
            .shards = shards_,                                                                     \
            .name = name_,                                                                         \
            .address = address_,                                                                   \
        }                                                                                          \
    }

static const struct {
    const struct kind *kind;
    union any m;
} samples[] = {
    { &hello_kind,
      { .hello = { 1,
                   2,
                   ROLE_GATEWAY,
                   { 1, 2, 3 },
                   UINT32_MAX,
                   UINT64_MAX,
                   SHARD_NONE,
                   SHARDS_MAX,
                   UINT64_MAX,
                   LANE_LEASES,
                   3 } } },
    { &hello_kind, { .hello = { .role = 0 } } },
    { &sessions_kind, { .sessions = { .index = 0, .whole = true } } },
    { &sessions_kind,
      { .sessions = { UINT64_MAX, false, 2, 1, (uint64_t[]){ 9, 8, UINT64_MAX } } } },
    { &at_kind, { .at = { PARTITIONS_MAX - 1, UINT32_MAX, UINT64_MAX } } },
    { &at_kind, { .at = { 0 } } },
    { &row_kind, { .row = { 7, 0, 0, 1, { 0 }, { 0 }, 5 } } },
    { &row_kind, { .row = { 7, 3, 2, 9, { 3, 1, 2 }, { 8, 4 }, UINT64_MAX } } },
    { &row_kind,
      { .row = { 7,
                 7,
                 7,
                 UINT32_MAX,
                 { 1, 2, 3, 4, 5, 6, UINT32_MAX },
                 { 7, 8, 9, 10, 11, 12, UINT32_MAX },
                 0 } } },
    { &sealed_kind,
      { .sealed = { 7, 3, { UINT64_MAX, UINT32_MAX }, UINT64_MAX, { 5, 4 }, true } } },
    { &reconfig_kind, { .reconfig = { 7, 3, RECONFIG_PROMOTE, UINT32_MAX, UINT64_MAX } } },
    { &ask_kind, { .ask = { 7, UINT32_MAX, { 5, 4 }, { UINT64_MAX, UINT32_MAX } } } },
    { &catchup_kind, { .catchup = { 7, 3, UINT64_MAX, CATCHUP_RECORDS, VALUE, 5 } } },
    { &catchup_kind, { .catchup = { 7, 3, 9, CATCHUP_END, VALUE, 0 } } },
    { &learned_kind, { .learned = { 7, UINT32_MAX, UINT64_MAX, UINT64_MAX } } },
    { &lease_kind, { .lease = { 7, UINT32_MAX, UINT64_MAX } } },
    { &registration_kind, REGISTRATION(SHARDS_MAX, "name", "host:19800") },
    { &registered_kind, { .registered = { { 9 }, UINT32_MAX, PARTITIONS_MAX } } },
    { &op_kind, { .op = { .id = UINT64_MAX, .code = OP_GET, .key_len = 3, .key = KEY } } },
    { &op_kind, { .op = { .id = 5, .code = OP_FLUSH, .operand = 8, .exptime = INT64_MIN } } },
    { &op_kind,
      { .op = { .id = 5,
                .code = OP_CAS,
                .key_len = 3,
                .key = KEY,
                .value_len = 5,
                .value = VALUE,
                .flags = UINT32_MAX,
                .exptime = -1,
                .operand = UINT64_MAX,
                .op = { 0, UINT64_MAX, UINT64_MAX - 65535 } } } },
    { &result_kind,
      { .result = { .id = 5,
                    .code = RESULT_VALUE,
                    .flags = 7,
                    .cas = UINT64_MAX,
                    .value_len = 5,
                    .value = VALUE } } },
    { &result_kind, { .result = { .id = 5, .code = RESULT_NUMBER, .number = UINT64_MAX } } },
    { &result_kind, { .result = { .id = 5, .code = RESULT_NOT_PRIMARY, .number = 9 } } },
    { &result_kind, { .result = { .id = 5, .code = RESULT_NO_SPACE, .cas = 3 } } },
    { &prepare_kind, { .prepare = { 7, UINT32_MAX, UINT64_MAX, VALUE, 5 } } },
    { &commit_kind, { .commit = { 7, UINT32_MAX, UINT64_MAX, UINT64_MAX } } },
    { &peek_kind,
      { .peek = { .partition = 7, .view = 3, .part = 255, .commit = { 5, 3 }, .trouble = 8 } } },
    { &peek_kind,
      { .peek = { .partition = 7,
                  .found = true,
                  .last = { 1, 2 },
                  .record = { 3, 4 },
                  .flags = 5,
                  .expiry_sec = UINT32_MAX,
                  .cas = 6,
                  .value = VALUE,
                  .value_len = 5 } } },
};

/* Two messages are the same when they are written so: pointers differ, what they point at must
 * not. */
static void assert_same(const struct kind *k, const union any *a, const union any *b)
{
    _cleanup_(buf_free) struct buf x = { 0 };
    _cleanup_(buf_free) struct buf y = { 0 };

    k->put(&x, a);
    k->put(&y, b);
    assert_int_equal(buf_len(&x), buf_len(&y));
    assert_memory_equal(x.data, y.data, buf_len(&x));
}

/* As `b`, whose first item is an array, with one item more at the array's end. */
static void append_item(const struct buf *b, struct buf *out)
{
    assert_in_range(b->data[0], 0x90, 0x9e);
    buf_append(out, b->data, buf_len(b));
    out->data[0]++;
    mp_put_array(out, 2); /* what a later version may say */
    mp_put_str(out, "later");
    mp_put_map(out, 0);
}

static void test_round_trips(void **state)
{
    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(samples); i++) {
        _cleanup_(buf_free) struct buf b = { 0 };
        _cleanup_(buf_free) struct buf later = { 0 };
        const struct kind *k = samples[i].kind;
        struct mp_reader r;
        union any back;
        k->put(&b, &samples[i].m);
        memset(&back, 0, sizeof(back));
        r = mp_reader_of(b.data, buf_len(&b));
        k->get(&r, &back);
        assert_false(r.failed);
        assert_ptr_equal(r.p, r.end);
        assert_same(k, &samples[i].m, &back);
        if ((b.data[0] & 15) < 15) {
            append_item(&b, &later);
            mp_put_nil(&later); /* the next message */
            memset(&back, 0, sizeof(back));
            r = mp_reader_of(later.data, buf_len(&later));
            k->get(&r, &back);
            assert_false(r.failed);
            assert_ptr_equal(r.p, r.end - 1);
            assert_same(k, &samples[i].m, &back);
        }
    }
}

/* No part of a message is one, and nothing behind the part is read. */
static void test_truncated(void **state)
{
    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(samples); i++) {
        _cleanup_(buf_free) struct buf b = { 0 };
        union any back;
        samples[i].kind->put(&b, &samples[i].m);
        for (size_t cut = 0; cut < buf_len(&b); cut++) {
            _cleanup_free_ uint8_t *exact = malloc(cut + 1);
            struct mp_reader r;
            memcpy(exact, b.data, cut);
            r = mp_reader_of(exact, cut);
            memset(&back, 0, sizeof(back));
            samples[i].kind->get(&r, &back);
            assert_true(r.failed);
        }
    }
}

/* Each item in turn replaced by one of another type, or by a number that is too large. */
static void test_wrong_items(void **state)
{
    static const char *const wrong[] = { "\xc0", "\xc3", "\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
                                         "\xff", "\x80", "\xdd\xff\xff\xff\xff",
                                         "\xc1" };
    static const size_t wrong_bytes[] = { 1, 1, 9, 1, 1, 5, 1 };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(samples); i++) {
        _cleanup_(buf_free) struct buf b = { 0 };
        struct mp_reader r;
        uint32_t items;
        samples[i].kind->put(&b, &samples[i].m);
        r = mp_reader_of(b.data, buf_len(&b));
        items = mp_get_array(&r);
        for (uint32_t j = 0; j < items * ARRAY_LEN(wrong); j++) {
            _cleanup_(buf_free) struct buf bad = { 0 };
            size_t w = j % ARRAY_LEN(wrong);
            const uint8_t *at;
            union any back;
            r = mp_reader_of(b.data + 1, buf_len(&b) - 1);
            mp_skip_n(&r, j / (uint32_t) ARRAY_LEN(wrong));
            at = r.p;
            mp_skip(&r);
            buf_append(&bad, b.data, (size_t) (at - b.data));
            buf_append(&bad, wrong[w], wrong_bytes[w]);
            buf_append(&bad, r.p, (size_t) (r.end - r.p));
            memset(&back, 0, sizeof(back));
            r = mp_reader_of(bad.data, buf_len(&bad));
            samples[i].kind->get(&r, &back);
            if (w == 0 || w > 3) { /* the others may be right in some places */
                assert_true(r.failed);
            }
            if (!r.failed) { /* then it is a message like any other */
                _cleanup_(buf_free) struct buf again = { 0 };
                samples[i].kind->put(&again, &back);
            }
        }
    }
}

static void test_too_many_sessions(void **state)
{
    _cleanup_(buf_free) struct buf b = { 0 };
    _cleanup_free_ uint64_t *ids = calloc(SESSIONS_MAX + 1, sizeof(*ids));
    struct mp_reader r;

    (void) state;
    msg_put_session_ids(&b, ids, SESSIONS_MAX);
    r = mp_reader_of(b.data, buf_len(&b));
    assert_int_equal(msg_get_session_ids(&r, ids), SESSIONS_MAX);
    assert_false(r.failed);
    buf_clear(&b);
    msg_put_session_ids(&b, ids, SESSIONS_MAX + 1);
    r = mp_reader_of(buf_head(&b), buf_len(&b));
    assert_int_equal(msg_get_session_ids(&r, ids), 0);
    assert_true(r.failed);
}

/* What can't be meant. */
static void test_refused(void **state)
{
    static const struct {
        const struct kind *kind;
        union any m;
    } bad[] = {
        { &at_kind, { .at = { .partition = PARTITIONS_MAX } } },
        { &hello_kind, { .hello = { .role = _ROLE_MAX } } },
        { &hello_kind, { .hello = { .shards = SHARDS_MAX + 1 } } },
        { &hello_kind, { .hello = { .lane = _LANE_MAX } } },
        { &registration_kind, REGISTRATION(0, "name", "a:1") },
        { &registration_kind, REGISTRATION(SHARDS_MAX + 1, "name", "a:1") },
        { &registration_kind, REGISTRATION(4, "", "a:1") },
        { &registration_kind, REGISTRATION(4, "name", "") },
        { &registered_kind, { .registered = { { 9 }, 0, 64 } } },
        { &registered_kind, { .registered = { { 9 }, 1, 0 } } },
        { &registered_kind, { .registered = { { 9 }, 1, PARTITIONS_MAX + 1 } } },
        { &op_kind, { .op = { .code = OP_GET } } }, /* no key */
        { &op_kind, { .op = { .code = OP_SET, .value = VALUE } } },
        { &op_kind, { .op = { .code = 0, .key = KEY, .key_len = 3 } } },
        { &op_kind, { .op = { .code = _OP_CODE_MAX, .key = KEY, .key_len = 3 } } },
        { &op_kind, { .op = { .code = OP_FLUSH, .key = KEY, .key_len = 3 } } },
        { &op_kind,
          { .op = { .code = OP_SET,
                    .key = KEY,
                    .key_len = 3,
                    .op = { .number = 1, .first = 2 } } } },
        { &result_kind, { .result = { .code = 0 } } },
        { &result_kind, { .result = { .code = _RESULT_CODE_MAX } } },
    };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        _cleanup_(buf_free) struct buf b = { 0 };
        struct mp_reader r;
        union any back;
        bad[i].kind->put(&b, &bad[i].m);
        memset(&back, 0, sizeof(back));
        r = mp_reader_of(b.data, buf_len(&b));
        bad[i].kind->get(&r, &back);
        if (!r.failed) {
            fail_msg("case %zu was accepted", i);
        }
    }
}

/* A hello of a release that knew no lanes is one for data. */
static void test_hello_without_lane(void **state)
{
    _cleanup_(buf_free) struct buf b = { 0 };
    struct msg_hello h = { .role = ROLE_SERVER, .lane = LANE_LEASES };
    struct msg_hello back;
    struct mp_reader r;

    (void) state;
    msg_put_hello(&b, &h);
    b.data[0] -= 2; /* nor which shard it comes from */
    b.end -= 2;
    r = mp_reader_of(b.data, buf_len(&b));
    msg_get_hello(&r, &back);
    assert_false(r.failed);
    assert_ptr_equal(r.p, r.end);
    assert_int_equal(back.lane, LANE_DATA);
    assert_true(back.from_shard == SHARD_NONE);
}

/* Who connected takes an answer of the role that it wants, in a version that it speaks. */
static void test_hello_answer(void **state)
{
    (void) state;
    for (uint32_t version = 0; version < MSG_PROTOCOL_MAX + 2; version++) {
        for (uint32_t role = ROLE_MANAGER; role < _ROLE_MAX; role++) {
            _cleanup_(buf_free) struct buf b = { 0 };
            struct msg_hello back,
                h = { .protocol_min = version, .protocol_max = version, .role = role };
            bool good =
                role == ROLE_SERVER && version >= MSG_PROTOCOL_MIN && version <= MSG_PROTOCOL_MAX;
            struct mp_reader r;
            msg_put_hello(&b, &h);
            r = mp_reader_of(b.data, buf_len(&b));
            msg_get_hello_answer(&r, ROLE_SERVER, &back);
            assert_int_equal(r.failed, !good);
        }
    }
}

/* Keys and values up to their limits, and one byte more. */
static void test_op_limits(void **state)
{
    uint8_t key[256] = { 'k' }, value[1001] = { 'v' };

    (void) state;
    for (int more = 0; more < 4; more++) {
        _cleanup_(buf_free) struct buf b = { 0 };
        struct op back, op = { .code = OP_SET, .key = key, .value = value };
        struct mp_reader r;
        op.key_len = (uint8_t) (ENTRY_KEY_BYTES_MAX + (more & 1));
        op.value_len = 1000 + (uint32_t) (more >> 1);
        msg_put_op(&b, &op);
        r = mp_reader_of(b.data, buf_len(&b));
        msg_get_op(&r, 1000, &back);
        assert_int_equal(r.failed, more != 0);
    }
}

/* More members than there may be, and a membership that says more than it has. */
static void test_row_members(void **state)
{
    (void) state;
    for (uint32_t n = 0; n < 12; n++) {
        _cleanup_(buf_free) struct buf b = { 0 };
        struct mp_reader r;
        struct view_row row;
        mp_put_array(&b, 4);
        mp_put_uint(&b, 1);
        mp_put_uint(&b, 2);
        mp_put_array(&b, n);
        for (uint32_t i = 0; i < n; i++) {
            mp_put_uint(&b, i + 1);
        }
        mp_put_uint(&b, 3);
        r = mp_reader_of(b.data, buf_len(&b));
        msg_get_view_row(&r, &row);
        assert_int_equal(r.failed, n > REPLICAS_MAX);
        assert_true(row.n_members <= REPLICAS_MAX);
        assert_int_equal(row.n_learners, 0); /* rows of the first version have none */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips),  cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_wrong_items),  cmocka_unit_test(test_too_many_sessions),
        cmocka_unit_test(test_refused),      cmocka_unit_test(test_op_limits),
        cmocka_unit_test(test_row_members),  cmocka_unit_test(test_hello_without_lane),
        cmocka_unit_test(test_hello_answer),
    };

    return cmocka_run_group_tests_name("wire_msg", tests, NULL, NULL);
}
