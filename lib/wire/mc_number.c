/* Numbers and times as memcached writes them; see mc_number.h. */
#include "wire/mc_number.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_white(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Digits only, at least one. */
static int parse_digits(const uint8_t *s, size_t len, uint64_t *ret)
{
    uint64_t v = 0;

    if (len == 0) {
        return -EINVAL;
    }
    for (size_t i = 0; i < len; i++) {
        if (!is_digit(s[i])) {
            return -EINVAL;
        }
        if (__builtin_mul_overflow(v, 10U, &v) || __builtin_add_overflow(v, s[i] - '0', &v)) {
            return -ERANGE;
        }
    }
    *ret = v;
    return 0;
}

int mc_parse_u64(const uint8_t *s, size_t len, uint64_t *ret)
{
    size_t sign = len > 0 && s[0] == '+';

    return parse_digits(s + sign, len - sign, ret);
}

int mc_parse_u32(const uint8_t *s, size_t len, uint32_t *ret)
{
    uint64_t v;
    int r = mc_parse_u64(s, len, &v);

    if (r < 0) {
        return r;
    }
    if (v > UINT32_MAX) {
        return -ERANGE;
    }
    *ret = (uint32_t) v;
    return 0;
}

int mc_parse_i32(const uint8_t *s, size_t len, int32_t *ret)
{
    bool negative = len > 0 && s[0] == '-';
    uint64_t limit = negative ? (uint64_t) INT32_MAX + 1 : INT32_MAX;
    uint64_t v;
    int r = negative ? parse_digits(s + 1, len - 1, &v) : mc_parse_u64(s, len, &v);

    if (r < 0) {
        return r;
    }
    if (v > limit) {
        return -ERANGE;
    }
    *ret = (int32_t) (negative ? -(int64_t) v : (int64_t) v);
    return 0;
}

int mc_parse_counter(const uint8_t *value, size_t len, uint64_t *ret)
{
    size_t digits = 0;

    while (digits < len && is_digit(value[digits])) {
        digits++;
    }
    for (size_t i = digits; i < len; i++) {
        if (!is_white(value[i])) {
            return -EINVAL;
        }
    }
    if (digits > MC_U64_CHARS_MAX || parse_digits(value, digits, ret) < 0) {
        return -EINVAL;
    }
    return 0;
}

size_t mc_format_u64(uint8_t *out, uint64_t v)
{
    static const char pairs[] = "00010203040506070809101112131415161718192021222324"
                                "25262728293031323334353637383940414243444546474849"
                                "50515253545556575859606162636465666768697071727374"
                                "75767778798081828384858687888990919293949596979899";
    uint8_t text[MC_U64_CHARS_MAX];
    size_t at = sizeof(text);

    while (v >= 10) {
        at -= 2;
        memcpy(text + at, pairs + v % 100 * 2, 2);
        v /= 100;
    }
    if (v > 0 || at == sizeof(text)) {
        text[--at] = (uint8_t) ('0' + v);
    }
    memcpy(out, text + at, sizeof(text) - at);
    return sizeof(text) - at;
}

uint32_t mc_exptime_to_unix(int64_t exptime, uint32_t now_sec)
{
    uint64_t at;

    if (exptime == 0) {
        return MC_UNIX_NEVER;
    }
    if (exptime < 0) {
        return MC_UNIX_EXPIRED;
    }
    at = (uint64_t) exptime;
    if (at <= MC_EXPTIME_RELATIVE_SEC_MAX) {
        at += now_sec;
    }
    return at < UINT32_MAX ? (uint32_t) at : UINT32_MAX;
}
