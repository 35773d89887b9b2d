/* A growing string of bytes with a read position: what arrives from or waits for a socket, a group
 * of the log, a message being built. Never shrinks by itself; `buf_free` gives the memory back. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Valid when zeroed. Bytes [start, end) are held, [end, cap) is room. */
struct buf {
    uint8_t *data;
    size_t start;
    size_t end;
    size_t cap;
};

static inline size_t buf_len(const struct buf *b)
{
    return b->end - b->start;
}

static inline uint8_t *buf_head(struct buf *b)
{
    return b->data + b->start;
}

/* Makes room for `bytes` more; afterwards b->data + b->end may be written and b->end advanced.
 * Pointers into the buffer taken before become invalid. Returns where to write. */
uint8_t *buf_reserve(struct buf *b, size_t bytes);

/* Appends a copy of the bytes. */
static inline void buf_append(struct buf *b, const void *p, size_t bytes)
{
    if (bytes > 0) {
        memcpy(buf_reserve(b, bytes), p, bytes);
        b->end += bytes;
    }
}

/* Drops bytes from the front; at most buf_len. */
static inline void buf_consume(struct buf *b, size_t bytes)
{
    b->start += bytes;
    if (b->start == b->end) {
        b->start = b->end = 0;
    }
}

static inline void buf_clear(struct buf *b)
{
    b->start = b->end = 0;
}

/* Gives the memory back; the buffer is empty and usable again. */
void buf_free(struct buf *b);

/* Gives memory beyond `keep_bytes` back when the buffer is empty. */
void buf_trim(struct buf *b, size_t keep_bytes);
