/* Assertions state what must be true of our own state, never what the world may do wrong; they stay
 * on in production, because a store that went wrong must stop rather than answer. */
#pragma once

#include <stdnoreturn.h>

/* Prints where and what to stderr and aborts. */
noreturn void assert_failed(const char *expr, const char *file, int line, const char *func);

#define kumo_assert(expr)                                                                          \
    do {                                                                                           \
        if (__builtin_expect(!(expr), 0)) {                                                        \
            assert_failed(#expr, __FILE__, __LINE__, __func__);                                    \
        }                                                                                          \
    } while (0)

/* Marks what cannot be reached. */
#define kumo_unreachable() assert_failed("unreachable", __FILE__, __LINE__, __func__)
