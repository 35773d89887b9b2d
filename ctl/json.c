#include "json.h"

#include "base/assert.h"

#include <string.h>

/* Bytes of the UTF-8 character at s, 0 when it is none. RFC 3629: no overlong forms, no surrogates.
 */
static size_t utf8_bytes(const unsigned char *s, size_t left)
{
    size_t n = s[0] < 0x80   ? 1
               : s[0] < 0xc2 ? 0
               : s[0] < 0xe0 ? 2
               : s[0] < 0xf0 ? 3
               : s[0] < 0xf5 ? 4
                             : 0;

    if (n == 0 || n > left) {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    if (n > 2 && ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
                  (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))) {
        return 0;
    }
    return n;
}

static void put_text(struct json *j, const char *text, size_t bytes)
{
    const unsigned char *s = (const unsigned char *) text;

    putc('"', j->out);
    for (size_t i = 0; i < bytes;) {
        size_t n = utf8_bytes(s + i, bytes - i);
        if (n == 0) {
            fputs("\\ufffd", j->out);
            n = 1;
        } else if (s[i] == '"' || s[i] == '\\') {
            fprintf(j->out, "\\%c", s[i]);
        } else if (s[i] < 0x20 || s[i] == 0x7f) {
            fprintf(j->out, "\\u%04x", s[i]);
        } else {
            fwrite(s + i, 1, n, j->out);
        }
        i += n;
    }
    putc('"', j->out);
}

static void begin(struct json *j, const char *key)
{
    if (j->depth > 0) {
        fprintf(j->out, "%s\n%*s", j->filled[j->depth] ? "," : "", (int) (2 * j->depth), "");
    }
    j->filled[j->depth] = true;
    if (key) {
        put_text(j, key, strlen(key));
        fputs(": ", j->out);
    }
}

void json_open(struct json *j, const char *key, char bracket)
{
    begin(j, key);
    putc(bracket, j->out);
    kumo_assert(j->depth < JSON_DEPTH_MAX);
    j->filled[++j->depth] = false;
}

void json_close(struct json *j, char bracket)
{
    kumo_assert(j->depth > 0);
    if (j->filled[j->depth--]) {
        fprintf(j->out, "\n%*s", (int) (2 * j->depth), "");
    }
    putc(bracket, j->out);
}

void json_uint(struct json *j, const char *key, uint64_t v)
{
    begin(j, key);
    fprintf(j->out, "%llu", (unsigned long long) v);
}

void json_bool(struct json *j, const char *key, bool v)
{
    begin(j, key);
    fputs(v ? "true" : "false", j->out);
}

void json_null(struct json *j, const char *key)
{
    begin(j, key);
    fputs("null", j->out);
}

void json_strn(struct json *j, const char *key, const char *s, size_t bytes)
{
    begin(j, key);
    put_text(j, s, bytes);
}

void json_str(struct json *j, const char *key, const char *s)
{
    json_strn(j, key, s, strlen(s));
}

void json_begin(struct json *j, FILE *out)
{
    *j = (struct json){ .out = out };
    json_open(j, NULL, '{');
    json_uint(j, "schema", 1);
}

void json_end(struct json *j)
{
    json_close(j, '}');
    putc('\n', j->out);
}
