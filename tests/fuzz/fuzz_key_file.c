/* Fuzzes the parser of the cluster key's file: what it takes can be written and is read again as
 * the same keys, and what it refuses has a place and a reason. */
#include "base/assert.h"
#include "base/cleanup.h"
#include "wire/key_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static unsigned lines_of(const uint8_t *p, size_t len)
{
    unsigned n = 1;

    for (size_t i = 0; i < len; i++) {
        n += p[i] == '\n';
    }
    return n;
}

static void check_again(const struct key_file *keys)
{
    char text[KEYS_MAX * KEY_LINE_BYTES];
    struct key_file again;
    const char *why;
    unsigned line;
    size_t n = 0;

    kumo_assert(keys->n > 0 && keys->n <= KEYS_MAX);
    for (unsigned i = 0; i < keys->n; i++) {
        n += key_file_format(keys->keys[i], text + n);
    }
    kumo_assert(key_file_parse(text, n, &again, &line, &why) == 0);
    kumo_assert(again.n == keys->n);
    kumo_assert(memcmp(again.keys, keys->keys, keys->n * KEY_BYTES) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    _cleanup_free_ char *held = malloc(len ? len : 1); /* of that size, for the sanitizer */
    struct key_file keys;
    const char *why;
    unsigned line;
    int r;

    kumo_assert(held);
    memcpy(held, data, len);
    r = key_file_parse(held, len, &keys, &line, &why);
    if (r == 0) {
        kumo_assert(!why);
        check_again(&keys);
    } else {
        kumo_assert(r == -EINVAL && why);
        kumo_assert(line <= lines_of(data, len));
    }
    return 0;
}
