#include "record_json.h"

#include "base/cleanup.h"
#include "base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <string.h>

static void json_unref(json_t **j)
{
    json_decref(*j);
}

/* ---- base64 ---- */

static char *base64_of(const uint8_t *p, size_t bytes)
{
    char *text = mem_alloc((bytes + 2) / 3 * 4 + 1);

    (void) EVP_EncodeBlock((unsigned char *) text, p, (int) bytes);
    return text;
}

/* Four letters a group, padded, and nothing else: EVP_DecodeBlock would forgive blanks. */
static bool base64_is_strict(const char *text, size_t bytes, size_t *ret_padding)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = strspn(text, letters);

    *ret_padding = bytes - n;
    return bytes % 4 == 0 && n <= bytes && *ret_padding <= 2 && strspn(text + n, "=") == bytes - n;
}

/* The bytes, malloc'ed; NULL: no base64. */
static uint8_t *base64_decode(const char *text, size_t bytes, size_t *ret_bytes)
{
    uint8_t *p;
    size_t padding;
    int n;

    if (!base64_is_strict(text, bytes, &padding)) {
        return NULL;
    }
    p = mem_alloc(bytes / 4 * 3 + 1);
    n = EVP_DecodeBlock(p, (const unsigned char *) text, (int) bytes);
    if (n < 0) {
        free(p);
        return NULL;
    }
    *ret_bytes = (size_t) n - padding;
    return p;
}

/* ---- reading ---- */

static const char *syntax_error(const json_error_t *e)
{
    switch (json_error_code(e)) {
    case json_error_premature_end_of_input:
        return "the line ends too soon";
    case json_error_duplicate_key:
        return "a member stands there twice";
    case json_error_invalid_utf8:
        return "not UTF-8 (other bytes are given as key64 and value64)";
    case json_error_numeric_overflow:
        return "a number is too large";
    default:
        return "not JSON";
    }
}

/* A whole number from 0 to max; absent: `otherwise`. */
static int get_number(const json_t *object, const char *name, uint64_t max, uint64_t otherwise,
                      uint64_t *ret, struct io_error *error)
{
    const json_t *j = json_object_get(object, name);

    *ret = otherwise;
    if (!j) {
        return 0;
    }
    if (!json_is_integer(j) || json_integer_value(j) < 0 ||
        (uint64_t) json_integer_value(j) > max) {
        return io_error_set(error, -EBADMSG, "\"%s\" is no number from 0 to %" PRIu64, name, max);
    }
    *ret = (uint64_t) json_integer_value(j);
    return 0;
}

/* A string of bytes: NAME, or NAME64 in base64. `*owned` holds it when it was decoded. */
static int get_bytes(const json_t *object, const char *name, uint8_t **owned, const uint8_t **ret,
                     size_t *ret_bytes, struct io_error *error)
{
    const json_t *text = json_object_get(object, name);
    const json_t *base64;
    char name64[16];

    (void) snprintf(name64, sizeof(name64), "%s64", name);
    base64 = json_object_get(object, name64);
    if (!text == !base64) {
        return io_error_set(error, -EBADMSG, "a record has either \"%s\" or \"%s\"", name, name64);
    }
    if (!json_is_string(text ? text : base64)) {
        return io_error_set(error, -EBADMSG, "\"%s\" is no string", text ? name : name64);
    }
    if (text) {
        *ret = (const uint8_t *) json_string_value(text);
        *ret_bytes = json_string_length(text);
        return 0;
    }
    *owned = base64_decode(json_string_value(base64), json_string_length(base64), ret_bytes);
    *ret = *owned;
    return *owned ? 0 : io_error_set(error, -EBADMSG, "\"%s\" is no base64", name64);
}

static int check_members(json_t *object, struct io_error *error)
{
    static const char *const known[] = { "key",   "key64",   "value", "value64",
                                         "flags", "expires", "cas" };
    const char *name;
    json_t *value;

    json_object_foreach(object, name, value)
    {
        bool found = false;
        for (size_t i = 0; i < ARRAY_LEN(known); i++) {
            found |= strcmp(name, known[i]) == 0;
        }
        if (!found) {
            return io_error_set(error, -EBADMSG,
                                "a record has a member that this version does not know (known are "
                                "key, key64, value, value64, flags, expires, cas)");
        }
    }
    return 0;
}

static int record_get(json_t *object, struct record_line *l, struct io_error *error)
{
    uint64_t flags;
    uint64_t expires;
    size_t key_bytes;
    size_t value_bytes;
    struct entry *e = &l->e;

    if (check_members(object, error) < 0 ||
        get_bytes(object, "key", &l->owned.key, &e->key, &key_bytes, error) < 0 ||
        get_bytes(object, "value", &l->owned.value, &e->value, &value_bytes, error) < 0 ||
        get_number(object, "flags", UINT32_MAX, 0, &flags, error) < 0 ||
        get_number(object, "expires", UINT32_MAX, 0, &expires, error) < 0 ||
        get_number(object, "cas", INT64_MAX, 0, &e->cas, error) < 0) {
        return -EBADMSG;
    }
    if (key_bytes < 1 || key_bytes > ENTRY_KEY_BYTES_MAX) {
        return io_error_set(error, -EBADMSG, "the key has %zu bytes; 1 to %d are possible",
                            key_bytes, ENTRY_KEY_BYTES_MAX);
    }
    if (value_bytes > ENTRY_VALUE_BYTES_MAX) {
        return io_error_set(error, -EBADMSG, "the value has %zu bytes; at most %u are possible",
                            value_bytes, ENTRY_VALUE_BYTES_MAX);
    }
    e->kind = ENTRY_SET;
    e->key_len = (uint8_t) key_bytes;
    e->value_len = (uint32_t) value_bytes;
    e->flags = (uint32_t) flags;
    e->expiry_sec = (uint32_t) expires;
    return 0;
}

static int frame_line_get(const json_t *object, struct record_line *l, struct io_error *error)
{
    uint64_t version;

    if (get_number(object, "kumofs", INT64_MAX, 0, &version, error) < 0 ||
        get_number(object, "records", INT64_MAX, 0, &l->records, error) < 0) {
        return -EBADMSG;
    }
    if (version != RECORD_JSON_VERSION) {
        return io_error_set(error, -EBADMSG,
                            "the file is of format %" PRIu64 ", this kumoctl knows %d", version,
                            RECORD_JSON_VERSION);
    }
    l->kind = json_object_get(object, "records") ? RECORD_LINE_TRAILER : RECORD_LINE_HEADER;
    return 0;
}

int record_line_decode(const char *text, size_t bytes, struct record_line *ret,
                       struct io_error *error)
{
    struct record_line l = { .kind = RECORD_LINE_RECORD };
    json_error_t why;
    json_t *object = json_loadb(text, bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    int r;

    if (!object) {
        return io_error_set(error, -EBADMSG, "%s, at byte %d of the line", syntax_error(&why),
                            why.position);
    }
    l.owned.json = object;
    if (!json_is_object(object)) {
        r = io_error_set(error, -EBADMSG, "not a JSON object");
    } else if (json_object_get(object, "kumofs")) {
        r = frame_line_get(object, &l, error);
    } else {
        r = record_get(object, &l, error);
    }
    if (r < 0) {
        record_line_free(&l);
        return r;
    }
    *ret = l;
    return 0;
}

void record_line_free(struct record_line *l)
{
    json_decref(l->owned.json);
    free(l->owned.key);
    free(l->owned.value);
    *l = (struct record_line){ 0 };
}

/* ---- writing ---- */

/* Adds the bytes as NAME, or as NAME64 when they are no UTF-8. */
static void put_bytes(json_t *object, const char *name, const uint8_t *p, size_t bytes)
{
    json_t *text = json_stringn((const char *) p, bytes);
    char name64[16];

    if (text) {
        (void) json_object_set_new(object, name, text);
        return;
    }
    _cleanup_free_ char *base64 = base64_of(p, bytes);
    (void) snprintf(name64, sizeof(name64), "%s64", name);
    (void) json_object_set_new(object, name64, json_string_nocheck(base64));
}

static bool put_line(FILE *out, const json_t *object)
{
    return json_dumpf(object, out, JSON_COMPACT) == 0 && putc('\n', out) != EOF;
}

bool record_line_put(FILE *out, const struct entry *e)
{
    _cleanup_(json_unref) json_t *object = json_object();

    put_bytes(object, "key", e->key, e->key_len);
    put_bytes(object, "value", e->value ? e->value : (const uint8_t *) "", e->value_len);
    (void) json_object_set_new(object, "flags", json_integer(e->flags));
    if (e->expiry_sec != 0) {
        (void) json_object_set_new(object, "expires", json_integer(e->expiry_sec));
    }
    (void) json_object_set_new(object, "cas", json_integer((json_int_t) e->cas));
    return put_line(out, object);
}

bool record_header_put(FILE *out, const struct record_origin *o)
{
    _cleanup_(json_unref) json_t *object =
        json_pack("{si si si ss ss sI}", "kumofs", RECORD_JSON_VERSION, "partitions",
                  (int) o->partitions, "server", (int) o->server, "server_id", o->server_id,
                  "cluster_id", o->cluster_id, "exported", (json_int_t) o->exported_sec);

    return put_line(out, object);
}

bool record_trailer_put(FILE *out, uint64_t records)
{
    _cleanup_(json_unref) json_t *object =
        json_pack("{si sI}", "kumofs", RECORD_JSON_VERSION, "records", (json_int_t) records);

    return put_line(out, object);
}
