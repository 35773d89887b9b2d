#include "notes.h"

#include "base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define LINE_BYTES (1 << 20)

void notes_add(struct notes *notes, const char *key, const struct lin_op *o)
{
    struct note *note;

    mem_grow(&notes->v, &notes->cap, notes->n + 1, sizeof(*notes->v));
    note = &notes->v[notes->n++];
    *note = (struct note){ .op = *o, .value_at = notes->bytes.end };
    snprintf(note->key, sizeof(note->key), "%s", key);
    buf_append(&notes->bytes, o->value, o->value_len);
}

void notes_free(struct notes *notes)
{
    free(notes->v);
    buf_free(&notes->bytes);
    *notes = (struct notes){ 0 };
}

static void write_value(FILE *f, const uint8_t *p, size_t bytes)
{
    fputs(" =", f);
    for (size_t i = 0; i < bytes; i++) {
        if (p[i] > ' ' && p[i] < 0x7f && p[i] != '%') {
            fputc(p[i], f);
        } else {
            fprintf(f, "%%%02x", p[i]);
        }
    }
    fputc('\n', f);
}

int notes_write(const struct notes *notes, FILE *f)
{
    for (size_t i = 0; i < notes->n; i++) {
        const struct note *note = &notes->v[i];
        const struct lin_op *o = &note->op;
        fprintf(f, "%s %" PRIu32 " %" PRIu64 " ", note->key, o->client, o->call);
        if (o->ret == LIN_NEVER) {
            fputc('-', f);
        } else {
            fprintf(f, "%" PRIu64, o->ret);
        }
        fprintf(f, " %u %u %" PRIu32 " %" PRIu64 " %" PRIu64 " %" PRIu64, o->code, o->result,
                o->flags, o->operand, o->token, o->number);
        write_value(f, notes->bytes.data + note->value_at, o->value_len);
    }
    return ferror(f) ? -EIO : 0;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Puts the value's bytes where its text stands; returns how many, or -EBADMSG. */
static ssize_t read_value(char *text)
{
    char *out = text;

    for (char *p = text; *p != '\0' && *p != '\n'; p++) {
        if (*p != '%') {
            *out++ = *p;
        } else if (hex_digit(p[1]) >= 0 && hex_digit(p[2]) >= 0) {
            *out++ = (char) (hex_digit(p[1]) << 4 | hex_digit(p[2]));
            p += 2;
        } else {
            return -EBADMSG;
        }
    }
    return out - text;
}

static int read_line(struct notes *notes, char *line)
{
    struct lin_op o = { 0 };
    char key[MC_KEY_BYTES];
    char ret[24];
    int at = 0;
    ssize_t bytes;

    if (sscanf(line,
               "%63s %" SCNu32 " %" SCNu64 " %23s %" SCNu8 " %" SCNu8 " %" SCNu32 " %" SCNu64
               " %" SCNu64 " %" SCNu64 " =%n",
               key, &o.client, &o.call, ret, &o.code, &o.result, &o.flags, &o.operand, &o.token,
               &o.number, &at) != 10 ||
        at == 0) {
        return -EBADMSG;
    }
    bytes = read_value(line + at);
    if (bytes < 0) {
        return (int) bytes;
    }
    o.ret = strcmp(ret, "-") == 0 ? LIN_NEVER : strtoull(ret, NULL, 10);
    o.value = (uint8_t *) line + at;
    o.value_len = (uint32_t) bytes;
    notes_add(notes, key, &o);
    return 0;
}

int notes_read(struct notes *notes, FILE *f, size_t *ret_line)
{
    char *line = mem_alloc(LINE_BYTES);
    int r = 0;

    *ret_line = 0;
    while (r == 0 && fgets(line, LINE_BYTES, f)) {
        (*ret_line)++;
        r = strchr(line, '\n') ? read_line(notes, line) : -EBADMSG;
    }
    free(line);
    return r;
}

static int note_compare(const void *a, const void *b)
{
    const struct note *x = a;
    const struct note *y = b;
    int r = strcmp(x->key, y->key);

    if (r != 0) {
        return r;
    }
    return x->op.call < y->op.call ? -1 : x->op.call > y->op.call;
}

void notes_sort(struct notes *notes)
{
    qsort(notes->v, notes->n, sizeof(*notes->v), note_compare);
    for (size_t i = 0; i < notes->n; i++) {
        notes->v[i].op.value = notes->bytes.data + notes->v[i].value_at;
    }
}
