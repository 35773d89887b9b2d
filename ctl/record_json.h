/* Records as lines of JSON: what `export` writes and `import` reads.
 *
 *   {"kumofs":1,"partitions":64,...}                              the first line
 *   {"key":"user:7","value":"Frodo","flags":0,"cas":12}           one for each record
 *   {"key64":"/w==","value64":"AAE=","flags":0,"expires":1900000000,"cas":13}
 *   {"kumofs":1,"records":2}                                      the last line: the file is whole
 *
 * Keys and values that are no UTF-8 stand in base64, under another name. "expires" is in seconds
 * since 1970, absent: never. "cas" tells a reader of the file what the token was; a record that is
 * imported gets a new one. */
#pragma once

#include "io/io_error.h"
#include "wire/entry.h"

#include <stdio.h>

#define RECORD_JSON_VERSION 1
/* A value of one control character after the other takes six bytes for each. */
#define RECORD_LINE_BYTES_MAX (6 * (size_t) ENTRY_BYTES_MAX)

enum record_line_kind {
    RECORD_LINE_HEADER = 1,
    RECORD_LINE_RECORD,
    RECORD_LINE_TRAILER,
};

struct record_line {
    enum record_line_kind kind;
    struct entry e;   /* of a record: key, value, flags, expiry_sec and cas; points into `owned` */
    uint64_t records; /* of a trailer */
    struct {
        void *json; /* json_t */
        uint8_t *key;
        uint8_t *value;
    } owned;
};

/* Takes a line apart, without its newline. -EBADMSG with what is wrong with it. *ret belongs to the
 * caller: record_line_free. */
int record_line_decode(const char *text, size_t bytes, struct record_line *ret,
                       struct io_error *error);
void record_line_free(struct record_line *l);

/* Writes a record's line, newline included. False: the file can't be written (errno). */
bool record_line_put(FILE *out, const struct entry *e);

/* What the header tells beside the version; for readers, `import` needs none of it. */
struct record_origin {
    uint32_t server;
    uint32_t partitions;
    const char *server_id; /* UUIDs in hexadecimal */
    const char *cluster_id;
    uint64_t exported_sec;
};
bool record_header_put(FILE *out, const struct record_origin *o);
bool record_trailer_put(FILE *out, uint64_t records);
