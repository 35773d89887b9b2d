/* Writers for the answers of memcached's text protocol; see mc_text_reply.h. */
#include "wire/mc_text_reply.h"

#include "wire/mc_number.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

/* Room that is left; `at` is NULL once something did not fit. */
struct writer {
    uint8_t *begin;
    uint8_t *at;
    const uint8_t *end;
};

static struct writer writer_begin(uint8_t *out, size_t cap)
{
    return (struct writer){ .begin = out, .at = out, .end = out + (cap < INT_MAX ? cap : INT_MAX) };
}

static void put_bytes(struct writer *w, const void *p, size_t len)
{
    if (!w->at || (size_t) (w->end - w->at) < len) {
        w->at = NULL;
        return;
    }
    memcpy(w->at, p, len);
    w->at += len;
}

static void put_string(struct writer *w, const char *s)
{
    put_bytes(w, s, strlen(s));
}

static void put_number(struct writer *w, uint64_t v)
{
    uint8_t text[MC_U64_CHARS_MAX];

    put_bytes(w, text, mc_format_u64(text, v));
}

static int writer_finish(struct writer *w)
{
    put_string(w, "\r\n");
    return w->at ? (int) (w->at - w->begin) : -ENOBUFS;
}

static void put_value(struct writer *w, const uint8_t *key, size_t key_len, uint32_t flags,
                      size_t value_len)
{
    put_string(w, "VALUE ");
    put_bytes(w, key, key_len);
    put_string(w, " ");
    put_number(w, flags);
    put_string(w, " ");
    put_number(w, value_len);
}

int mc_text_write_value(uint8_t *out, size_t cap, const uint8_t *key, size_t key_len,
                        uint32_t flags, size_t value_len)
{
    struct writer w = writer_begin(out, cap);

    put_value(&w, key, key_len, flags, value_len);
    return writer_finish(&w);
}

int mc_text_write_value_cas(uint8_t *out, size_t cap, const uint8_t *key, size_t key_len,
                            uint32_t flags, size_t value_len, uint64_t cas)
{
    struct writer w = writer_begin(out, cap);

    put_value(&w, key, key_len, flags, value_len);
    put_string(&w, " ");
    put_number(&w, cas);
    return writer_finish(&w);
}

int mc_text_write_number(uint8_t *out, size_t cap, uint64_t v)
{
    struct writer w = writer_begin(out, cap);

    put_number(&w, v);
    return writer_finish(&w);
}

int mc_text_write_stat(uint8_t *out, size_t cap, const char *name, const char *value)
{
    struct writer w = writer_begin(out, cap);

    put_string(&w, "STAT ");
    put_string(&w, name);
    put_string(&w, " ");
    put_string(&w, value);
    return writer_finish(&w);
}

int mc_text_write_stat_u64(uint8_t *out, size_t cap, const char *name, uint64_t v)
{
    struct writer w = writer_begin(out, cap);

    put_string(&w, "STAT ");
    put_string(&w, name);
    put_string(&w, " ");
    put_number(&w, v);
    return writer_finish(&w);
}

int mc_text_write_server_error(uint8_t *out, size_t cap, const char *text)
{
    struct writer w = writer_begin(out, cap);

    put_string(&w, "SERVER_ERROR ");
    for (; *text; text++) {
        put_bytes(&w, (uint8_t) *text < ' ' || *text == 0x7f ? " " : text, 1);
    }
    return writer_finish(&w);
}
