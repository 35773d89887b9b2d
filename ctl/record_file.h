/* A file of records (record_json.h), read line by line. All errors are sentences that begin with
 * FILE:LINE. */
#pragma once

#include "record_json.h"

struct record_file;

/* "-" is the standard input. */
int record_file_open(const char *path, struct record_file **ret, struct io_error *error);
/* NULL is fine; returns NULL. */
struct record_file *record_file_free(struct record_file *f);

/* The next record: 1, and *ret stays until the next call; 0 at the end, when the trailer was there
 * and agreed; -EBADMSG: the file is cut or wrong, or a key stands there twice. */
int record_file_next(struct record_file *f, struct entry *ret, struct io_error *error);
/* Back to the first record. -ESPIPE: not possible, a pipe is read once. */
int record_file_rewind(struct record_file *f);

/* Line `record` stands in, counted from 0: records have a line each, behind the header. */
static inline uint64_t record_file_line(uint64_t record)
{
    return record + 2;
}
const char *record_file_name(const struct record_file *f);
