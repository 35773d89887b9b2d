#include "wire/mp.h"

#include <errno.h>
#include <string.h>

/* ---- big-endian numbers ---- */

static uint64_t be_get(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < bytes; i++) {
        v = v << 8 | p[i];
    }
    return v;
}

static void be_put(uint8_t *p, uint64_t v, unsigned bytes)
{
    for (unsigned i = bytes; i-- > 0; v >>= 8) {
        p[i] = (uint8_t) v;
    }
}

/* ---- writing ---- */

static void put_head(struct buf *b, uint8_t tag, uint64_t v, unsigned bytes)
{
    uint8_t *p = buf_reserve(b, 1 + bytes);

    p[0] = tag;
    be_put(p + 1, v, bytes);
    b->end += 1 + bytes;
}

void mp_put_nil(struct buf *b)
{
    put_head(b, 0xc0, 0, 0);
}

void mp_put_bool(struct buf *b, bool v)
{
    put_head(b, v ? 0xc3 : 0xc2, 0, 0);
}

void mp_put_uint(struct buf *b, uint64_t v)
{
    if (v < 0x80) {
        put_head(b, (uint8_t) v, 0, 0);
    } else if (v <= UINT8_MAX) {
        put_head(b, 0xcc, v, 1);
    } else if (v <= UINT16_MAX) {
        put_head(b, 0xcd, v, 2);
    } else if (v <= UINT32_MAX) {
        put_head(b, 0xce, v, 4);
    } else {
        put_head(b, 0xcf, v, 8);
    }
}

void mp_put_int(struct buf *b, int64_t v)
{
    if (v >= 0) {
        mp_put_uint(b, (uint64_t) v);
    } else if (v >= -32) {
        put_head(b, (uint8_t) v, 0, 0);
    } else if (v >= INT8_MIN) {
        put_head(b, 0xd0, (uint64_t) v, 1);
    } else if (v >= INT16_MIN) {
        put_head(b, 0xd1, (uint64_t) v, 2);
    } else if (v >= INT32_MIN) {
        put_head(b, 0xd2, (uint64_t) v, 4);
    } else {
        put_head(b, 0xd3, (uint64_t) v, 8);
    }
}

void mp_put_bin(struct buf *b, const void *p, size_t bytes)
{
    if (bytes <= UINT8_MAX) {
        put_head(b, 0xc4, bytes, 1);
    } else if (bytes <= UINT16_MAX) {
        put_head(b, 0xc5, bytes, 2);
    } else {
        put_head(b, 0xc6, bytes, 4);
    }
    buf_append(b, p, bytes);
}

void mp_put_strn(struct buf *b, const char *s, size_t bytes)
{
    if (bytes < 32) {
        put_head(b, (uint8_t) (0xa0 | bytes), 0, 0);
    } else if (bytes <= UINT8_MAX) {
        put_head(b, 0xd9, bytes, 1);
    } else if (bytes <= UINT16_MAX) {
        put_head(b, 0xda, bytes, 2);
    } else {
        put_head(b, 0xdb, bytes, 4);
    }
    buf_append(b, s, bytes);
}

void mp_put_str(struct buf *b, const char *s)
{
    mp_put_strn(b, s, strlen(s));
}

void mp_put_array(struct buf *b, uint32_t items)
{
    if (items < 16) {
        put_head(b, (uint8_t) (0x90 | items), 0, 0);
    } else if (items <= UINT16_MAX) {
        put_head(b, 0xdc, items, 2);
    } else {
        put_head(b, 0xdd, items, 4);
    }
}

void mp_put_map(struct buf *b, uint32_t pairs)
{
    if (pairs < 16) {
        put_head(b, (uint8_t) (0x80 | pairs), 0, 0);
    } else if (pairs <= UINT16_MAX) {
        put_head(b, 0xde, pairs, 2);
    } else {
        put_head(b, 0xdf, pairs, 4);
    }
}

size_t mp_open_array(struct buf *b)
{
    put_head(b, 0xdd, 0, 4);
    return buf_len(b) - 4;
}

void mp_close_array(struct buf *b, size_t place, uint32_t items)
{
    be_put(buf_head(b) + place, items, 4);
}

/* ---- heads ---- */

/* One item's head: what it is, its number or length, and how many bytes the head takes. */
struct mp_head {
    enum mp_type type;
    uint64_t v; /* number, or bytes of the body, or items */
    unsigned bytes;
};

/* Tags from 0xc0 to 0xdf: type and bytes of the number behind the tag. For ext, one more byte of
 * body. */
static const struct {
    uint8_t type;
    uint8_t number_bytes;
} tag_table[32] = {
    [0x00] = { MP_NIL, 0 },  [0x01] = { MP_NONE, 0 },  [0x02] = { MP_BOOL, 0 },
    [0x03] = { MP_BOOL, 0 }, [0x04] = { MP_BIN, 1 },   [0x05] = { MP_BIN, 2 },
    [0x06] = { MP_BIN, 4 },  [0x07] = { MP_EXT, 1 },   [0x08] = { MP_EXT, 2 },
    [0x09] = { MP_EXT, 4 },  [0x0a] = { MP_FLOAT, 4 }, [0x0b] = { MP_FLOAT, 8 },
    [0x0c] = { MP_UINT, 1 }, [0x0d] = { MP_UINT, 2 },  [0x0e] = { MP_UINT, 4 },
    [0x0f] = { MP_UINT, 8 }, [0x10] = { MP_INT, 1 },   [0x11] = { MP_INT, 2 },
    [0x12] = { MP_INT, 4 },  [0x13] = { MP_INT, 8 },   [0x14] = { MP_EXT, 0 },
    [0x15] = { MP_EXT, 0 },  [0x16] = { MP_EXT, 0 },   [0x17] = { MP_EXT, 0 },
    [0x18] = { MP_EXT, 0 },  [0x19] = { MP_STR, 1 },   [0x1a] = { MP_STR, 2 },
    [0x1b] = { MP_STR, 4 },  [0x1c] = { MP_ARRAY, 2 }, [0x1d] = { MP_ARRAY, 4 },
    [0x1e] = { MP_MAP, 2 },  [0x1f] = { MP_MAP, 4 },
};

/* Reads a head from `bytes` > 0 bytes. Returns 0, -EAGAIN when bytes are missing, -EBADMSG. */
static int head_read(const uint8_t *p, size_t bytes, struct mp_head *ret)
{
    uint8_t tag = p[0];
    unsigned n;

    if (tag < 0x80) {
        *ret = (struct mp_head){ MP_UINT, tag, 1 };
    } else if (tag < 0x90) {
        *ret = (struct mp_head){ MP_MAP, tag & 15, 1 };
    } else if (tag < 0xa0) {
        *ret = (struct mp_head){ MP_ARRAY, tag & 15, 1 };
    } else if (tag < 0xc0) {
        *ret = (struct mp_head){ MP_STR, tag & 31, 1 };
    } else if (tag >= 0xe0) {
        *ret = (struct mp_head){ MP_INT, (uint64_t) (int64_t) (int8_t) tag, 1 };
    } else {
        n = tag_table[tag & 31].number_bytes;
        if (tag_table[tag & 31].type == MP_NONE) {
            return -EBADMSG;
        }
        if (bytes < 1 + n) {
            return -EAGAIN;
        }
        *ret = (struct mp_head){ tag_table[tag & 31].type, be_get(p + 1, n), 1 + n };
        if (tag >= 0xd0 && tag <= 0xd3) { /* sign-extend */
            unsigned shift = 64 - 8 * n;
            ret->v = (uint64_t) ((int64_t) (ret->v << shift) >> shift);
        } else if (tag >= 0xd4 && tag <= 0xd8) { /* fixext: a type byte and 1, 2, 4, 8, 16 */
            ret->v = 1 + (1u << (tag - 0xd4));
        } else if (ret->type == MP_EXT) {
            ret->v += 1;
        } else if (ret->type == MP_BOOL) {
            ret->v = tag & 1;
        }
    }
    return 0;
}

/* Bytes that follow the head as its body, not counting nested items. */
static uint64_t head_body(const struct mp_head *h)
{
    return h->type == MP_STR || h->type == MP_BIN || h->type == MP_EXT ? h->v : 0;
}

/* Items nested in it. */
static uint64_t head_items(const struct mp_head *h)
{
    return h->type == MP_ARRAY ? h->v : h->type == MP_MAP ? h->v * 2 : 0;
}

/* ---- reading ---- */

/* Takes the next head when it is of `type`; fails the reader otherwise. */
static uint64_t take_head(struct mp_reader *r, enum mp_type type)
{
    struct mp_head h;

    if (r->failed || r->p == r->end || head_read(r->p, (size_t) (r->end - r->p), &h) < 0 ||
        h.type != type) {
        r->failed = true;
        return 0;
    }
    r->p += h.bytes;
    return h.v;
}

enum mp_type mp_peek_type(const struct mp_reader *r)
{
    struct mp_head h;

    if (r->failed || r->p == r->end || head_read(r->p, (size_t) (r->end - r->p), &h) < 0) {
        return MP_NONE;
    }
    return h.type;
}

bool mp_peek_nil(const struct mp_reader *r)
{
    return mp_peek_type(r) == MP_NIL;
}

uint64_t mp_get_uint(struct mp_reader *r)
{
    return take_head(r, MP_UINT);
}

uint64_t mp_get_uint_max(struct mp_reader *r, uint64_t max)
{
    uint64_t v = take_head(r, MP_UINT);

    if (v > max) {
        r->failed = true;
        return 0;
    }
    return v;
}

int64_t mp_get_int(struct mp_reader *r)
{
    uint64_t v;

    if (mp_peek_type(r) == MP_INT) {
        return (int64_t) take_head(r, MP_INT);
    }
    v = mp_get_uint_max(r, INT64_MAX);
    return (int64_t) v;
}

bool mp_get_bool(struct mp_reader *r)
{
    return take_head(r, MP_BOOL) != 0;
}

const uint8_t *mp_get_bin(struct mp_reader *r, size_t max, size_t *ret_bytes)
{
    enum mp_type type = mp_peek_type(r);
    uint64_t bytes = take_head(r, type == MP_STR ? MP_STR : MP_BIN);
    const uint8_t *p = r->p;

    if (!r->failed && (bytes > max || bytes > (uint64_t) (r->end - r->p))) {
        r->failed = true;
    }
    if (r->failed) {
        *ret_bytes = 0;
        return NULL;
    }
    r->p += bytes;
    *ret_bytes = (size_t) bytes;
    return p;
}

void mp_get_bin_exact(struct mp_reader *r, void *out, size_t bytes)
{
    size_t n;
    const uint8_t *p = mp_get_bin(r, bytes, &n);

    if (p && n == bytes) {
        memcpy(out, p, bytes);
    } else {
        memset(out, 0, bytes);
        r->failed = true;
    }
}

void mp_get_str(struct mp_reader *r, char *out, size_t cap)
{
    size_t n;
    const uint8_t *p = mp_get_bin(r, cap - 1, &n);

    if (!p || memchr(p, 0, n)) {
        r->failed = true;
        out[0] = 0;
        return;
    }
    memcpy(out, p, n);
    out[n] = 0;
}

uint32_t mp_get_array(struct mp_reader *r)
{
    uint64_t items = take_head(r, MP_ARRAY);

    if (items > (uint64_t) (r->end - r->p)) { /* each item takes a byte at least */
        r->failed = true;
        return 0;
    }
    return (uint32_t) items;
}

uint32_t mp_get_map(struct mp_reader *r)
{
    uint64_t pairs = take_head(r, MP_MAP);

    if (pairs > (uint64_t) (r->end - r->p) / 2) {
        r->failed = true;
        return 0;
    }
    return (uint32_t) pairs;
}

void mp_get_array_exact(struct mp_reader *r, uint32_t items)
{
    if (mp_get_array(r) != items) {
        r->failed = true;
    }
}

void mp_skip_n(struct mp_reader *r, uint32_t items)
{
    struct mp_head h;

    for (uint64_t left = items; left > 0 && !r->failed; left--) {
        if (r->p == r->end || head_read(r->p, (size_t) (r->end - r->p), &h) < 0 ||
            head_body(&h) > (uint64_t) (r->end - r->p) - h.bytes) {
            r->failed = true;
            return;
        }
        r->p += h.bytes + head_body(&h);
        left += head_items(&h);
    }
}

/* ---- finding the end of a message ---- */

int64_t mp_scan(struct mp_scan *s, const uint8_t *p, size_t bytes, size_t bytes_max,
                size_t *ret_need)
{
    struct mp_head h;
    int r;

    if (!s->begun) {
        *s = (struct mp_scan){ .items = 1, .begun = true };
    }
    while (s->items > 0) {
        uint64_t body;
        if (s->offset >= bytes) {
            break;
        }
        r = head_read(p + s->offset, bytes - s->offset, &h);
        if (r == -EBADMSG) {
            return r;
        }
        if (r == -EAGAIN) {
            break;
        }
        body = head_body(&h);
        /* What is announced must fit, whether or not it is there: one byte an item at least. */
        if (s->offset + h.bytes + body + s->items - 1 + head_items(&h) > bytes_max) {
            return -EMSGSIZE;
        }
        if (s->offset + h.bytes + body > bytes) {
            if (ret_need) {
                *ret_need = s->offset + h.bytes + (size_t) body;
            }
            return 0;
        }
        s->offset += h.bytes + (size_t) body;
        s->items += head_items(&h) - 1;
    }
    if (s->items == 0) {
        return (int64_t) s->offset;
    }
    if (bytes >= bytes_max) { /* a head is cut by the limit */
        return -EMSGSIZE;
    }
    if (ret_need) {
        *ret_need = bytes + 1;
    }
    return 0;
}
