/* Memory that must be there: small bookkeeping whose failure leaves nothing sensible to do. The
 * data path checks its named limits before it asks; a failed malloc below them ends the process,
 * which every rule of the store is built to survive. */
#pragma once

#include <stddef.h>

/* Like malloc, calloc, realloc; never return NULL (print and abort instead). */
void *mem_alloc(size_t bytes) __attribute__((malloc, returns_nonnull));
void *mem_zalloc(size_t count, size_t bytes) __attribute__((malloc, returns_nonnull));
void *mem_realloc(void *p, size_t bytes) __attribute__((returns_nonnull));

/* Grows the array `*v` of `*cap` elements of `size` bytes so that `need` elements fit. */
void mem_grow(void *v_ptr, size_t *cap, size_t need, size_t size);
