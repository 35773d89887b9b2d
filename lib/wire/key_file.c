#include "wire/key_file.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define WORD         "kumofs-key-1"
#define WORD_ANY     "kumofs-key-" /* of whatever version */
#define BASE64_CHARS 44            /* of KEY_BYTES bytes, the last of them '=' */

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* -1: no digit. */
static int digit_value(char c)
{
    const char *at = c ? strchr(digits, c) : NULL;

    return at ? (int) (at - digits) : -1;
}

/* Of exactly BASE64_CHARS characters; bits that stand for no byte must be zero. */
static bool decode_key(const char *text, uint8_t key[static KEY_BYTES])
{
    uint32_t bits = 0;
    unsigned n_bits = 0;
    size_t n = 0;

    for (size_t i = 0; i < BASE64_CHARS - 1; i++) {
        int value = digit_value(text[i]);
        if (value < 0) {
            return false;
        }
        bits = (bits << 6 | (uint32_t) value) & 0xffff;
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            key[n++] = (uint8_t) (bits >> n_bits);
        }
    }
    return (bits & ((1u << n_bits) - 1)) == 0 && text[BASE64_CHARS - 1] == '=';
}

size_t key_file_format(const uint8_t key[static KEY_BYTES], char out[static KEY_LINE_BYTES])
{
    size_t n = sizeof(WORD);
    uint32_t bits = 0;
    unsigned n_bits = 0;

    memcpy(out, WORD " ", sizeof(WORD " "));
    for (size_t i = 0; i < KEY_BYTES; i++) {
        bits = (bits << 8 | key[i]) & 0xffff;
        for (n_bits += 8; n_bits >= 6; n_bits -= 6) {
            out[n++] = digits[bits >> (n_bits - 6) & 63];
        }
    }
    out[n++] = digits[bits << (6 - n_bits) & 63];
    memcpy(out + n, "=\n", 3);
    return n + 2;
}

/* A line without blanks around it, and neither empty nor a comment. NULL, or what is wrong. */
static const char *take_line(const char *line, size_t bytes, struct key_file *keys)
{
    size_t word = strlen(WORD);

    if (bytes < word || memcmp(line, WORD_ANY, strlen(WORD_ANY)) != 0) {
        return "a key is a line \"" WORD " BASE64\"";
    }
    if (memcmp(line, WORD, word) != 0 || (bytes > word && !is_blank(line[word]))) {
        return "a key of a version that this program does not know (it knows " WORD ")";
    }
    while (word < bytes && is_blank(line[word])) {
        word++;
    }
    if (keys->n == KEYS_MAX) {
        return "more than two keys: the one in use and one that it replaces are enough";
    }
    if (bytes - word != BASE64_CHARS || !decode_key(line + word, keys->keys[keys->n])) {
        return "behind " WORD " there must be 32 bytes in base64 (44 characters)";
    }
    for (unsigned i = 0; i < keys->n; i++) {
        if (memcmp(keys->keys[i], keys->keys[keys->n], KEY_BYTES) == 0) {
            return "the same key twice";
        }
    }
    keys->n++;
    return NULL;
}

int key_file_parse(const char *text, size_t bytes, struct key_file *ret, unsigned *ret_line,
                   const char **ret_why)
{
    struct key_file keys = { 0 };
    unsigned number = 0;

    *ret_why = NULL;
    while (bytes > 0 && !*ret_why) {
        const char *end = memchr(text, '\n', bytes);
        size_t line = end ? (size_t) (end - text) : bytes;
        size_t from = 0;
        size_t to = line;
        while (from < to && is_blank(text[from])) {
            from++;
        }
        while (to > from && is_blank(text[to - 1])) {
            to--;
        }
        number++;
        if (to > from && text[from] != '#') {
            *ret_why = take_line(text + from, to - from, &keys);
        }
        text += end ? line + 1 : line;
        bytes -= end ? line + 1 : line;
    }
    if (!*ret_why && keys.n == 0) {
        number = 0;
        *ret_why = "there is no key in it";
    }
    *ret_line = number;
    if (*ret_why) {
        return -EINVAL;
    }
    *ret = keys;
    return 0;
}
