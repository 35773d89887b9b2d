/* What memcached's text protocol answers: the fixed lines, and writers for those with something in
 * them. Pure; every line includes its "\r\n". */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define MC_LINE_STORED     "STORED\r\n"
#define MC_LINE_NOT_STORED "NOT_STORED\r\n"
#define MC_LINE_EXISTS     "EXISTS\r\n"
#define MC_LINE_NOT_FOUND  "NOT_FOUND\r\n"
#define MC_LINE_DELETED    "DELETED\r\n"
#define MC_LINE_TOUCHED    "TOUCHED\r\n"
#define MC_LINE_OK         "OK\r\n"
#define MC_LINE_END        "END\r\n"
#define MC_LINE_RESET      "RESET\r\n"

/* The version is a string literal; digits and dots only, clients parse it. */
#define MC_LINE_VERSION(version) "VERSION " version "\r\n"

#define MC_LINE_ERROR      "ERROR\r\n"
#define MC_LINE_BAD_FORMAT "CLIENT_ERROR bad command line format\r\n"
#define MC_LINE_BAD_DELETE                                                                         \
    "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n"
#define MC_LINE_BAD_CHUNK   "CLIENT_ERROR bad data chunk\r\n"
#define MC_LINE_BAD_EXPTIME "CLIENT_ERROR invalid exptime argument\r\n"
#define MC_LINE_BAD_DELTA   "CLIENT_ERROR invalid numeric delta argument\r\n"
#define MC_LINE_NON_NUMERIC "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
#define MC_LINE_TOO_LARGE   "SERVER_ERROR object too large for cache\r\n"
#define MC_LINE_NO_MEMORY   "SERVER_ERROR out of memory storing object\r\n"

/* The longest VALUE line: two numbers of 64 bits, one of 32, a key of 250 bytes. */
#define MC_VALUE_LINE_BYTES_MAX (6 + 250 + 1 + 10 + 1 + 20 + 1 + 20 + 2)

/* The longest line with a number alone. */
#define MC_NUMBER_LINE_BYTES_MAX (20 + 2)

/* All writers put one line at `out` and return its length, or -ENOBUFS when `cap` bytes are too few
 * (what is at `out` then means nothing). The data of a value and the "\r\n" behind it are the
 * caller's, so that large values need not be copied. */

/* VALUE <key> <flags> <bytes>: the answer of get and gat. */
int mc_text_write_value(uint8_t *out, size_t cap, const uint8_t *key, size_t key_len,
                        uint32_t flags, size_t value_len);

/* VALUE <key> <flags> <bytes> <cas>: the answer of gets and gats. */
int mc_text_write_value_cas(uint8_t *out, size_t cap, const uint8_t *key, size_t key_len,
                            uint32_t flags, size_t value_len, uint64_t cas);

/* <number>: the answer of incr and decr. */
int mc_text_write_number(uint8_t *out, size_t cap, uint64_t v);

/* STAT <name> <value>. */
int mc_text_write_stat(uint8_t *out, size_t cap, const char *name, const char *value);
int mc_text_write_stat_u64(uint8_t *out, size_t cap, const char *name, uint64_t v);

/* SERVER_ERROR <text>; control characters in the text become blanks, since it may quote others. */
int mc_text_write_server_error(uint8_t *out, size_t cap, const char *text);
