/* MessagePack, written and read in place: no allocation, no recursion, no trust in the input.
 * Source: the MessagePack specification. A decoder that reads what it expects, item by item, is
 * both the fastest and the safest: nothing is reserved because a message says so. */
#pragma once

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- writing: append one item to the buffer ---- */
void mp_put_nil(struct buf *b);
void mp_put_bool(struct buf *b, bool v);
void mp_put_uint(struct buf *b, uint64_t v);
void mp_put_int(struct buf *b, int64_t v);
void mp_put_bin(struct buf *b, const void *p, size_t bytes);
void mp_put_str(struct buf *b, const char *s);
void mp_put_strn(struct buf *b, const char *s, size_t bytes);
/* Head of an array or map; the items (for maps: key, value, key, value…) follow. */
void mp_put_array(struct buf *b, uint32_t items);
void mp_put_map(struct buf *b, uint32_t pairs);

/* An array whose length is known only at its end: open reserves a 5-byte head and returns its place
 * (relative to the buffer's start, so that the buffer may move), close fills the number in. */
size_t mp_open_array(struct buf *b);
void mp_close_array(struct buf *b, size_t place, uint32_t items);

/* ---- reading ---- */

/* A reader over bytes that the caller keeps. The first error sticks: every later call fails too and
 * returns 0 or NULL, so that a decoder may check once, at its end. */
struct mp_reader {
    const uint8_t *p;
    const uint8_t *end;
    bool failed;
};

static inline struct mp_reader mp_reader_of(const void *p, size_t bytes)
{
    return (struct mp_reader){ .p = p, .end = (const uint8_t *) p + bytes };
}

uint64_t mp_get_uint(struct mp_reader *r);
/* As mp_get_uint, failing when the number is above `max`. */
uint64_t mp_get_uint_max(struct mp_reader *r, uint64_t max);
int64_t mp_get_int(struct mp_reader *r);
bool mp_get_bool(struct mp_reader *r);
/* bin or str; the bytes lie in the reader's memory. Fails when longer than `max`. */
const uint8_t *mp_get_bin(struct mp_reader *r, size_t max, size_t *ret_bytes);
/* bin or str of exactly `bytes` bytes, copied to `out`. */
void mp_get_bin_exact(struct mp_reader *r, void *out, size_t bytes);
/* str copied into a buffer of `cap` bytes with a closing NUL; fails when it does not fit or has a
 * NUL. */
void mp_get_str(struct mp_reader *r, char *out, size_t cap);
/* Number of items of the array (pairs of the map) that begins here. Fails when it says more than
 * the bytes left can hold, so a loop over it is bounded by the message's size. */
uint32_t mp_get_array(struct mp_reader *r);
uint32_t mp_get_map(struct mp_reader *r);
/* An array that must have exactly / at least `items` items (the rest is skipped by mp_skip_n). */
void mp_get_array_exact(struct mp_reader *r, uint32_t items);
bool mp_peek_nil(const struct mp_reader *r);
/* Type of the next item without consuming it. */
enum mp_type {
    MP_NIL,
    MP_BOOL,
    MP_UINT,
    MP_INT,
    MP_FLOAT,
    MP_STR,
    MP_BIN,
    MP_ARRAY,
    MP_MAP,
    MP_EXT,
    MP_NONE
};
enum mp_type mp_peek_type(const struct mp_reader *r);
/* Skips `items` whole items, nested ones included. Bounded by the bytes left. */
void mp_skip_n(struct mp_reader *r, uint32_t items);
static inline void mp_skip(struct mp_reader *r)
{
    mp_skip_n(r, 1);
}

/* ---- finding the end of a message in a stream ---- */

/* Remembers how far the message at the front of a stream was looked through, so that one which
 * arrives in many pieces is scanned once. Zero it for each new message. */
struct mp_scan {
    uint64_t items; /* still to pass */
    size_t offset;  /* bytes passed */
    bool begun;
};

/* Looks at the stream's first `bytes` bytes from the message's start. Returns the length of the
 * whole message when it is there, 0 when more is needed, -EBADMSG when it isn't MessagePack,
 * -EMSGSIZE when it must become longer than `bytes_max`. *ret_need (may be NULL) is how many bytes
 * are needed at least. */
int64_t mp_scan(struct mp_scan *s, const uint8_t *p, size_t bytes, size_t bytes_max,
                size_t *ret_need);
