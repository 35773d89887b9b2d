/* A small JSON writer: no checks but balanced nesting, two spaces a level. Text that is no UTF-8
 * has its wrong bytes replaced by U+FFFD. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define JSON_DEPTH_MAX 8

struct json {
    FILE *out;
    unsigned depth;
    bool filled[JSON_DEPTH_MAX + 1]; /* a member was written at this depth */
};

/* `key` is NULL for members of arrays and for the whole. */
void json_open(struct json *j, const char *key, char bracket); /* '{' or '[' */
void json_close(struct json *j, char bracket);                 /* '}' or ']' */
void json_uint(struct json *j, const char *key, uint64_t v);
void json_bool(struct json *j, const char *key, bool v);
void json_str(struct json *j, const char *key, const char *s);
void json_strn(struct json *j, const char *key, const char *s, size_t bytes);
void json_null(struct json *j, const char *key);

/* The whole: an object with "schema": 1; json_end closes it and ends the line. */
void json_begin(struct json *j, FILE *out);
void json_end(struct json *j);
