/* MessagePack: our writer and reader against each other, against msgpack-c, and against bytes that
 * nobody should send. */
#include "base/cleanup.h"
#include "base/rng.h"
#include "wire/mp.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <msgpack.h>

static const uint64_t uints[] = { 0,         1,          0x7f,      0x80,       0xff,
                                  0x100,     0xffff,     0x10000,   UINT32_MAX, 1ULL << 32,
                                  INT64_MAX, 1ULL << 63, UINT64_MAX };
static const uint8_t uint_bytes[] = { 1, 1, 1, 2, 2, 3, 3, 5, 5, 9, 9, 9, 9 };

static void test_uint(void **state)
{
    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(uints); i++) {
        _cleanup_(buf_free) struct buf b = { 0 };
        struct mp_reader r;
        mp_put_uint(&b, uints[i]);
        assert_int_equal(buf_len(&b), uint_bytes[i]);
        r = mp_reader_of(b.data, buf_len(&b));
        assert_int_equal(mp_peek_type(&r), MP_UINT);
        assert_true(mp_get_uint(&r) == uints[i]);
        assert_true(!r.failed && r.p == r.end);
        r = mp_reader_of(b.data, buf_len(&b));
        assert_true(mp_get_uint_max(&r, uints[i]) == uints[i] && !r.failed);
        if (uints[i] > 0) {
            r = mp_reader_of(b.data, buf_len(&b));
            assert_true(mp_get_uint_max(&r, uints[i] - 1) == 0 && r.failed);
        }
        r = mp_reader_of(b.data, buf_len(&b));
        (void) mp_get_int(&r);
        assert_int_equal(r.failed, uints[i] > INT64_MAX);
    }
}

static void test_int(void **state)
{
    static const int64_t ints[] = { 0,         -1,        -32,    -33,       INT8_MIN,
                                    -129,      INT16_MIN, -32769, INT32_MIN, -2147483649LL,
                                    INT64_MIN, INT64_MAX, 127,    128 };
    static const uint8_t bytes[] = { 1, 1, 1, 2, 2, 3, 3, 5, 5, 9, 9, 9, 1, 2 };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(ints); i++) {
        _cleanup_(buf_free) struct buf b = { 0 };
        struct mp_reader r;
        mp_put_int(&b, ints[i]);
        assert_int_equal(buf_len(&b), bytes[i]);
        r = mp_reader_of(b.data, buf_len(&b));
        assert_true(mp_get_int(&r) == ints[i]);
        assert_true(!r.failed && r.p == r.end);
        r = mp_reader_of(b.data, buf_len(&b));
        (void) mp_get_uint(&r);
        assert_int_equal(r.failed, ints[i] < 0);
    }
}

/* bin and str at each boundary of their heads. */
static void test_bytes(void **state)
{
    static const size_t lens[] = { 0, 1, 31, 32, 255, 256, 65535, 65536, 70000 };
    _cleanup_free_ char *data = malloc(70000);

    (void) state;
    memset(data, 'x', 70000);
    for (size_t i = 0; i < 2 * ARRAY_LEN(lens); i++) {
        _cleanup_(buf_free) struct buf b = { 0 };
        size_t len = lens[i / 2], n;
        struct mp_reader r;
        if (i % 2) {
            mp_put_bin(&b, data, len);
        } else {
            mp_put_strn(&b, data, len);
        }
        r = mp_reader_of(b.data, buf_len(&b));
        assert_int_equal(mp_peek_type(&r), i % 2 ? MP_BIN : MP_STR);
        assert_ptr_equal(mp_get_bin(&r, len, &n), b.data + buf_len(&b) - len);
        assert_int_equal(n, len);
        assert_true(!r.failed && r.p == r.end);
        if (len > 0) {
            r = mp_reader_of(b.data, buf_len(&b));
            assert_null(mp_get_bin(&r, len - 1, &n));
            assert_true(r.failed && n == 0);
        }
        for (size_t cut = 0; cut < buf_len(&b); cut += cut < 8 ? 1 : 4999) {
            r = mp_reader_of(b.data, cut);
            assert_null(mp_get_bin(&r, SIZE_MAX, &n));
            assert_true(r.failed);
        }
    }
}

static void test_strings(void **state)
{
    _cleanup_(buf_free) struct buf b = { 0 };
    struct mp_reader r;
    char out[6];

    (void) state;
    mp_put_str(&b, "hello");
    r = mp_reader_of(b.data, buf_len(&b));
    mp_get_str(&r, out, 6);
    assert_true(!r.failed);
    assert_string_equal(out, "hello");
    r = mp_reader_of(b.data, buf_len(&b));
    mp_get_str(&r, out, 5);
    assert_true(r.failed);
    assert_string_equal(out, "");
    buf_clear(&b);
    mp_put_strn(&b, "a\0b", 3);
    r = mp_reader_of(b.data, buf_len(&b));
    mp_get_str(&r, out, sizeof(out));
    assert_true(r.failed);
    buf_clear(&b);
    mp_put_str(&b, "");
    r = mp_reader_of(b.data, buf_len(&b));
    mp_get_str(&r, out, 1);
    assert_true(!r.failed && out[0] == 0);
    buf_clear(&b);
    mp_put_bin(&b, "abc", 3);
    r = mp_reader_of(b.data, buf_len(&b));
    mp_get_bin_exact(&r, out, 2); /* the wrong length */
    assert_true(r.failed && out[0] == 0 && out[1] == 0);
}

static void test_arrays(void **state)
{
    static const uint32_t counts[] = { 0, 1, 15, 16, 65535, 65536 };

    (void) state;
    for (size_t i = 0; i < 3 * ARRAY_LEN(counts); i++) {
        _cleanup_(buf_free) struct buf b = { 0 };
        uint32_t n = counts[i / 3], items = i % 3 == 1 ? 2 * n : n;
        struct mp_reader r;
        size_t place = 0;
        if (i % 3 == 0) {
            mp_put_array(&b, n);
        } else if (i % 3 == 1) {
            mp_put_map(&b, n);
        } else {
            mp_put_nil(&b); /* the place is relative to the buffer's start */
            buf_consume(&b, 1);
            place = mp_open_array(&b);
        }
        for (uint32_t j = 0; j < items; j++) {
            mp_put_bool(&b, j % 2);
        }
        if (i % 3 == 2) {
            mp_close_array(&b, place, n);
        }
        r = mp_reader_of(buf_head(&b), buf_len(&b));
        assert_int_equal(i % 3 == 1 ? mp_get_map(&r) : mp_get_array(&r), n);
        for (uint32_t j = 0; j < items; j++) {
            assert_int_equal(mp_get_bool(&r), j % 2);
        }
        assert_true(!r.failed && r.p == r.end);
        r = mp_reader_of(buf_head(&b), buf_len(&b));
        mp_skip(&r);
        assert_true(!r.failed && r.p == r.end);
        if (n > 0) { /* it says more than there can be */
            r = mp_reader_of(buf_head(&b), buf_len(&b) - 1);
            assert_int_equal(i % 3 == 1 ? mp_get_map(&r) : mp_get_array(&r), 0);
            assert_true(r.failed);
        }
    }
}

/* After the first error everything fails, and nothing is read. */
static void test_failure_sticks(void **state)
{
    static const uint8_t bytes[] = { 0xc0, 1, 0xa1, 'x', 0x91, 1, 0xc3 };
    struct mp_reader r = mp_reader_of(bytes, sizeof(bytes));
    uint8_t out[4];
    char str[4];
    size_t n;

    (void) state;
    assert_true(mp_peek_nil(&r));
    assert_int_equal(mp_get_uint(&r), 0);
    assert_true(r.failed);
    assert_int_equal(mp_peek_type(&r), MP_NONE);
    assert_int_equal(mp_get_int(&r), 0);
    assert_null(mp_get_bin(&r, 10, &n));
    assert_int_equal(mp_get_array(&r), 0);
    assert_int_equal(mp_get_map(&r), 0);
    assert_false(mp_get_bool(&r));
    mp_get_bin_exact(&r, out, 0);
    mp_get_array_exact(&r, 0);
    mp_get_str(&r, str, sizeof(str));
    mp_skip_n(&r, 1);
    assert_true(r.failed);
    assert_ptr_equal(r.p, bytes);
}

/* ---- msgpack-c as the oracle ---- */

static void random_item(struct rng *rng, struct buf *b, msgpack_packer *pk, int depth)
{
    static char text[70000];
    uint64_t v = rng_u64(rng) >> rng_below(rng, 64);
    uint32_t n = (uint32_t) rng_below(rng, depth > 3 ? 3 : 20);

    switch (rng_below(rng, depth > 5 ? 6 : 8)) {
    case 0:
        mp_put_nil(b);
        msgpack_pack_nil(pk);
        return;
    case 1:
        mp_put_bool(b, v & 1);
        (void) (v & 1 ? msgpack_pack_true(pk) : msgpack_pack_false(pk));
        return;
    case 2:
        mp_put_uint(b, v);
        msgpack_pack_uint64(pk, v);
        return;
    case 3:
        mp_put_int(b, (int64_t) (0 - v));
        msgpack_pack_int64(pk, (int64_t) (0 - v));
        return;
    case 4:
        v = rng_below(rng, rng_chance(rng, 1, 50) ? sizeof(text) : 300);
        mp_put_bin(b, text, v);
        msgpack_pack_bin(pk, v);
        msgpack_pack_bin_body(pk, text, v);
        return;
    case 5:
        v = rng_below(rng, rng_chance(rng, 1, 50) ? sizeof(text) : 300);
        mp_put_strn(b, text, v);
        msgpack_pack_str(pk, v);
        msgpack_pack_str_body(pk, text, v);
        return;
    case 6:
        mp_put_array(b, n);
        msgpack_pack_array(pk, n);
        break;
    default:
        mp_put_map(b, n);
        msgpack_pack_map(pk, n);
        n *= 2;
    }
    for (uint32_t i = 0; i < n; i++) {
        random_item(rng, b, pk, depth + 1);
    }
}

/* What we write is byte for byte what msgpack-c writes, and it is scanned and skipped as one. */
static void test_oracle_writes(void **state)
{
    struct rng rng = { 4 };

    (void) state;
    for (int round = 0; round < 3000; round++) {
        _cleanup_(buf_free) struct buf b = { 0 };
        msgpack_sbuffer sbuf;
        msgpack_packer pk;
        struct mp_scan scan = { 0 };
        struct mp_reader r;
        msgpack_sbuffer_init(&sbuf);
        msgpack_packer_init(&pk, &sbuf, msgpack_sbuffer_write);
        random_item(&rng, &b, &pk, 0);
        assert_int_equal(buf_len(&b), sbuf.size);
        assert_memory_equal(b.data, sbuf.data, sbuf.size);
        assert_int_equal(mp_scan(&scan, b.data, buf_len(&b), SIZE_MAX, NULL), buf_len(&b));
        r = mp_reader_of(b.data, buf_len(&b));
        mp_skip(&r);
        assert_true(!r.failed && r.p == r.end);
        msgpack_sbuffer_destroy(&sbuf);
    }
}

static void compare(struct mp_reader *r, const msgpack_object *o)
{
    const uint8_t *p;
    size_t n;

    switch (o->type) {
    case MSGPACK_OBJECT_NIL:
        assert_true(mp_peek_nil(r));
        mp_skip(r);
        return;
    case MSGPACK_OBJECT_BOOLEAN:
        assert_int_equal(mp_get_bool(r), o->via.boolean);
        return;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        assert_true((mp_peek_type(r) == MP_UINT ? mp_get_uint(r) : (uint64_t) mp_get_int(r)) ==
                    o->via.u64);
        return;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        assert_true(mp_get_int(r) == o->via.i64);
        return;
    case MSGPACK_OBJECT_STR:
    case MSGPACK_OBJECT_BIN:
        p = mp_get_bin(r, SIZE_MAX, &n);
        assert_int_equal(n, o->via.bin.size);
        assert_memory_equal(p, o->via.bin.ptr, n);
        return;
    case MSGPACK_OBJECT_ARRAY:
        assert_int_equal(mp_get_array(r), o->via.array.size);
        for (uint32_t i = 0; i < o->via.array.size; i++) {
            compare(r, &o->via.array.ptr[i]);
        }
        return;
    case MSGPACK_OBJECT_MAP:
        assert_int_equal(mp_get_map(r), o->via.map.size);
        for (uint32_t i = 0; i < o->via.map.size; i++) {
            compare(r, &o->via.map.ptr[i].key);
            compare(r, &o->via.map.ptr[i].val);
        }
        return;
    default: /* float and ext are skipped only */
        assert_in_range(mp_peek_type(r), MP_FLOAT, MP_EXT);
        mp_skip(r);
    }
}

/* Random bytes: where msgpack-c finds an item, we find the same one, and the other way round. */
static void test_oracle_reads(void **state)
{
    struct rng rng = { 5 };
    int good = 0;

    (void) state;
    for (int round = 0; round < 300000; round++) {
        uint8_t bytes[24];
        size_t len = rng_between(&rng, 1, sizeof(bytes)), offset = 0;
        struct mp_scan scan = { 0 };
        struct mp_reader r;
        msgpack_unpacked result;
        msgpack_unpack_return ret;
        int64_t n;
        for (size_t i = 0; i < len; i++) {
            bytes[i] = (uint8_t) (rng_chance(&rng, 1, 2) ? rng_u64(&rng) >> 7
                                                         : 0x80 + rng_below(&rng, 0x60));
        }
        n = mp_scan(&scan, bytes, len, SIZE_MAX, NULL);
        if (memchr(bytes, 0xdd, len) || memchr(bytes, 0xdf, len)) {
            continue; /* msgpack-c would reserve what they say */
        }
        msgpack_unpacked_init(&result);
        ret = msgpack_unpack_next(&result, (char *) bytes, len, &offset);
        r = mp_reader_of(bytes, len);
        mp_skip(&r);
        if (ret == MSGPACK_UNPACK_SUCCESS) {
            good++;
            assert_int_equal(n, offset);
            assert_int_equal(r.p - bytes, offset);
            r = mp_reader_of(bytes, len);
            compare(&r, &result.data);
            assert_false(r.failed);
            assert_int_equal(r.p - bytes, offset);
        } else {
            assert_true(n <= 0 || ret == MSGPACK_UNPACK_NOMEM_ERROR);
            assert_true(r.failed || ret == MSGPACK_UNPACK_NOMEM_ERROR);
        }
        msgpack_unpacked_destroy(&result);
    }
    assert_true(good > 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uint),          cmocka_unit_test(test_int),
        cmocka_unit_test(test_bytes),         cmocka_unit_test(test_strings),
        cmocka_unit_test(test_arrays),        cmocka_unit_test(test_failure_sticks),
        cmocka_unit_test(test_oracle_writes), cmocka_unit_test(test_oracle_reads),
    };

    return cmocka_run_group_tests_name("wire_mp", tests, NULL, NULL);
}
