#include "base/mem.h"

#include "base/assert.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static void *mem_check(void *p, size_t bytes)
{
    if (!p) {
        fprintf(stderr, "kumofs: out of memory (%zu bytes)\n", bytes);
        abort();
    }
    return p;
}

void *mem_alloc(size_t bytes)
{
    return mem_check(malloc(bytes > 0 ? bytes : 1), bytes);
}

void *mem_zalloc(size_t count, size_t bytes)
{
    return mem_check(calloc(count > 0 ? count : 1, bytes > 0 ? bytes : 1), bytes);
}

void *mem_realloc(void *p, size_t bytes)
{
    return mem_check(realloc(p, bytes > 0 ? bytes : 1), bytes);
}

void mem_grow(void *v_ptr, size_t *cap, size_t need, size_t size)
{
    void **v = v_ptr;
    size_t n = *cap > 0 ? *cap : 8;

    if (need <= *cap) {
        return;
    }
    while (n < need) {
        n *= 2;
    }
    kumo_assert(n <= SIZE_MAX / size);
    *v = mem_realloc(*v, n * size);
    *cap = n;
}
