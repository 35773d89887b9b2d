/* For tests: keyrings of keys that are named by letters. */
#pragma once

#include "io/keyring.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* "a": one key; "ab": a second one is accepted too. */
static inline struct keyring *keys_of(const char *names)
{
    struct key_file file = { .n = (unsigned) strlen(names) };
    struct keyring *ring;

    for (unsigned i = 0; i < file.n; i++) {
        memset(file.keys[i], names[i], KEY_BYTES);
    }
    assert_int_equal(keyring_new(&file, &ring, NULL), 0);
    return ring;
}
