#include "base/buf.h"

#include "base/mem.h"

#include <stdlib.h>

uint8_t *buf_reserve(struct buf *b, size_t bytes)
{
    size_t cap = b->cap;

    if (b->cap - b->end >= bytes && b->data) {
        return b->data + b->end;
    }
    if (b->start > 0 && b->start >= buf_len(b)) {
        memmove(b->data, b->data + b->start, buf_len(b));
        b->end -= b->start;
        b->start = 0;
    }
    if (b->cap - b->end < bytes || !b->data) {
        mem_grow(&b->data, &cap, b->end + (bytes > 0 ? bytes : 1), 1);
        b->cap = cap;
    }
    return b->data + b->end;
}

void buf_free(struct buf *b)
{
    free(b->data);
    *b = (struct buf){ 0 };
}

void buf_trim(struct buf *b, size_t keep_bytes)
{
    if (buf_len(b) == 0 && b->cap > keep_bytes) {
        buf_free(b);
    }
}
