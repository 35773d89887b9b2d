/* Numbers and times as memcached writes them, for all three of its protocols. Pure; decimal only;
 * no locale, no errno. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Characters of the longest unsigned 64-bit number. */
#define MC_U64_CHARS_MAX 20

/* An exptime up to this is relative, a larger one an absolute Unix time. */
#define MC_EXPTIME_RELATIVE_SEC_MAX 2592000

/* What mc_exptime_to_unix answers for "never" and for "expired at once". */
#define MC_UNIX_NEVER   0U
#define MC_UNIX_EXPIRED 1U

/* The whole of s must be a number: digits, one '+' before them allowed as in memcached (and '-' for
 * the signed one). Return 0; -EINVAL when it isn't a number; -ERANGE when it doesn't fit. */
int mc_parse_u64(const uint8_t *s, size_t len, uint64_t *ret);
int mc_parse_u32(const uint8_t *s, size_t len, uint32_t *ret);
int mc_parse_i32(const uint8_t *s, size_t len, int32_t *ret);

/* Reads a stored value as a counter, for incr and decr: 1 to 20 digits that fit in 64 bits, white
 * space behind them tolerated (memcached's decr leaves blanks). Returns 0; -EINVAL when it isn't
 * numeric. */
int mc_parse_counter(const uint8_t *value, size_t len, uint64_t *ret);

/* Writes the number in decimal, without a NUL. `out` has room for MC_U64_CHARS_MAX. Returns its
 * length. */
size_t mc_format_u64(uint8_t *out, uint64_t v);

/* The Unix second at which an item with this exptime ends, seen at second `now_sec`: MC_UNIX_NEVER
 * for 0, MC_UNIX_EXPIRED for a negative one; a time beyond 32 bits becomes the last one there is.
 * An absolute time in the past stays what it is: who compares it with the clock finds it expired.
 */
uint32_t mc_exptime_to_unix(int64_t exptime, uint32_t now_sec);
