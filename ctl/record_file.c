#include "record_file.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "record_keys.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define READ_BYTES (256u << 10)

struct record_file {
    FILE *in;
    char *name;
    uint64_t line; /* of what was read last, from 1 */
    uint64_t records;
    struct buf bytes;    /* read and not yet given up */
    size_t line_bytes;   /* of them the line that was given out, newline included */
    size_t looked_bytes; /* of them without a newline */
    struct record_line current;
    struct record_keys keys;
};

int record_file_open(const char *path, struct record_file **ret, struct io_error *error)
{
    bool standard_input = strcmp(path, "-") == 0;
    FILE *in = standard_input ? stdin : fopen(path, "re");
    struct record_file *f;

    if (!in) {
        return io_error_set(error, -errno, "%s can't be opened: %s", path, strerror(errno));
    }
    f = mem_zalloc(1, sizeof(*f));
    f->in = in;
    f->name = strdup(standard_input ? "(standard input)" : path);
    *ret = f;
    return 0;
}

struct record_file *record_file_free(struct record_file *f)
{
    if (f) {
        if (f->in != stdin) {
            (void) fclose(f->in);
        }
        record_line_free(&f->current);
        record_keys_free(&f->keys);
        buf_free(&f->bytes);
        free(f->name);
        free(f);
    }
    return NULL;
}

const char *record_file_name(const struct record_file *f)
{
    return f->name;
}

int record_file_rewind(struct record_file *f)
{
    if (fseeko(f->in, 0, SEEK_SET) < 0) {
        return -errno;
    }
    record_keys_free(&f->keys);
    buf_clear(&f->bytes);
    f->line = f->records = 0;
    f->line_bytes = f->looked_bytes = 0;
    return 0;
}

static int wrong(const struct record_file *f, struct io_error *error, const char *what)
{
    struct io_error said = *error;

    return io_error_set(error, -EBADMSG, "%s:%" PRIu64 ": %s", f->name, f->line,
                        what ? what : said.text);
}

/* Where the newline stands behind what was looked at already; reads on until there is one. NULL:
 * the file ends first. */
static const uint8_t *newline_find(struct record_file *f)
{
    size_t left;
    uint8_t *found;
    size_t n;

    for (;;) {
        left = buf_len(&f->bytes) - f->looked_bytes;
        found = left > 0 ? memchr(buf_head(&f->bytes) + f->looked_bytes, '\n', left) : NULL;
        f->looked_bytes += left;
        if (found || f->looked_bytes > RECORD_LINE_BYTES_MAX) {
            return found;
        }
        n = fread(buf_reserve(&f->bytes, READ_BYTES), 1, READ_BYTES, f->in);
        f->bytes.end += n;
        if (n == 0) {
            return NULL;
        }
    }
}

/* The next line, taken apart: 1, or 0 at the end of the file. */
static int line_next(struct record_file *f, struct io_error *error)
{
    const uint8_t *newline;

    record_line_free(&f->current);
    buf_consume(&f->bytes, f->line_bytes);
    f->line_bytes = f->looked_bytes = 0;
    f->line++;
    newline = newline_find(f);
    if (!newline && ferror(f->in)) {
        return wrong(f, error, "can't be read");
    }
    if (!newline && buf_len(&f->bytes) == 0) {
        return 0;
    }
    if (!newline) {
        return wrong(f, error,
                     f->looked_bytes > RECORD_LINE_BYTES_MAX
                         ? "the line is longer than that of any record"
                         : "the file was cut: the line has no end");
    }
    f->line_bytes = (size_t) (newline - buf_head(&f->bytes)) + 1;
    if (record_line_decode((const char *) buf_head(&f->bytes), f->line_bytes - 1, &f->current,
                           error) < 0) {
        return wrong(f, error, NULL);
    }
    return 1;
}

static int end_check(struct record_file *f, struct io_error *error)
{
    uint64_t expected = f->current.records;
    int r;

    if (f->records != expected) {
        char what[120];
        (void) snprintf(what, sizeof(what),
                        "the file has %" PRIu64 " records, its last line speaks of %" PRIu64,
                        f->records, expected);
        return wrong(f, error, what);
    }
    r = line_next(f, error);
    return r > 0 ? wrong(f, error, "something stands behind the last line") : r;
}

static int header_check(struct record_file *f, struct io_error *error)
{
    int r = line_next(f, error);

    if (r < 0) {
        return r;
    }
    return r > 0 && f->current.kind == RECORD_LINE_HEADER
               ? 0
               : wrong(f, error, "the header {\"kumofs\":1} is missing: is it a file of records?");
}

int record_file_next(struct record_file *f, struct entry *ret, struct io_error *error)
{
    int r = f->line == 0 ? header_check(f, error) : 0;

    if (r == 0) {
        r = line_next(f, error);
    }
    if (r < 0) {
        return r;
    }
    if (r == 0) {
        return wrong(f, error,
                     "the file was cut: its last line {\"kumofs\":1,\"records\":N} is "
                     "missing");
    }
    if (f->current.kind == RECORD_LINE_TRAILER) {
        return end_check(f, error);
    }
    if (f->current.kind == RECORD_LINE_HEADER) {
        return wrong(f, error, "a second header");
    }
    if (!record_keys_add(&f->keys, f->current.e.key, f->current.e.key_len)) {
        return wrong(f, error, "this key stood in the file before");
    }
    f->records++;
    *ret = f->current.e;
    return 1;
}
