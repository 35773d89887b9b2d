/* Fuzzes the reader of MessagePack. Scanning, in whatever pieces, and skipping must agree on where
 * an item ends; typed reads must stay inside of it; what is announced never counts as there. The
 * first two bytes of the input set the limit and the pieces, the rest is the stream. */
#include "base/assert.h"
#include "base/cleanup.h"
#include "wire/mp.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int64_t scan_pieces(const uint8_t *p, size_t len, size_t step, size_t max)
{
    struct mp_scan s = { 0 };
    size_t need = 0;

    for (size_t have = MIN_OF(step, len);; have = MIN_OF(have + step, len)) {
        int64_t n = mp_scan(&s, p, have, max, &need);
        if (n != 0) {
            kumo_assert(n < 0 || (size_t) n <= have);
            kumo_assert(n < 0 || (size_t) n <= max);
            kumo_assert(n > 0 || n == -EBADMSG || n == -EMSGSIZE);
            return n;
        }
        kumo_assert(need > have);
        kumo_assert(need <= max);
        if (have == len) {
            return 0;
        }
    }
}

/* Reads the whole item as what it says to be. */
static void read_typed(struct mp_reader *r, const uint8_t *end)
{
    uint64_t left = 1;
    size_t n;

    for (; left > 0 && !r->failed; left--) {
        const uint8_t *p = r->p;
        switch (mp_peek_type(r)) {
        case MP_NIL:
            kumo_assert(mp_peek_nil(r));
            mp_skip(r);
            break;
        case MP_BOOL:
            (void) mp_get_bool(r);
            break;
        case MP_UINT:
            (void) mp_get_uint(r);
            break;
        case MP_INT:
            (void) mp_get_int(r);
            break;
        case MP_STR:
        case MP_BIN:
            p = mp_get_bin(r, SIZE_MAX, &n);
            kumo_assert(!p || (p + n == r->p));
            break;
        case MP_ARRAY:
            left += mp_get_array(r);
            break;
        case MP_MAP:
            left += 2 * (uint64_t) mp_get_map(r);
            break;
        default:
            mp_skip(r);
        }
        kumo_assert(r->p <= end);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    size_t max, step, pos;
    struct mp_reader r;
    int64_t whole, pieces;

    if (len < 2) {
        return 0;
    }
    max = data[0] < 128 ? SIZE_MAX : (size_t) (data[0] - 127) * (data[1] + 1u);
    step = 1 + data[1] % 16;
    data += 2;
    len -= 2;
    whole = scan_pieces(data, len, len > 0 ? len : 1, max);
    pieces = scan_pieces(data, len, step, max);
    kumo_assert(whole == pieces);
    r = mp_reader_of(data, len);
    mp_skip(&r);
    pos = (size_t) (r.p - data);
    kumo_assert(pos <= len);
    if (max == SIZE_MAX) {
        kumo_assert(r.failed == (whole <= 0));
    }
    if (whole > 0) {
        kumo_assert(!r.failed);
        kumo_assert((int64_t) pos == whole);
        r = mp_reader_of(data, (size_t) whole);
        read_typed(&r, data + whole);
        kumo_assert(!r.failed);
        kumo_assert(r.p == data + whole);
    } else {
        r = mp_reader_of(data, len);
        read_typed(&r, data + len);
    }
    return 0;
}
