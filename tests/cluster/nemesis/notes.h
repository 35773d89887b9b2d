/* What clients did and were told: the history that tests/lin judges, in memory and as a file.
 *
 * A line of the file: KEY CLIENT CALL RET CODE RESULT FLAGS OPERAND TOKEN NUMBER =VALUE, times in
 * nanoseconds, RET "-" when nobody knows the outcome, what is not printable in VALUE as %XX. The
 * first letter of the key says what is done with it (enum key_kind). */
#pragma once

#include "base/buf.h"
#include "lin/lin.h"
#include "mc.h"

#include <stddef.h>
#include <stdio.h>

enum key_kind {
    KEY_REGISTER = 'r', /* all sorts of writes */
    KEY_CAS = 'x',      /* read, then cas */
    KEY_COUNTER = 'n',  /* incr by one */
    KEY_SET = 's',      /* elements of ELEMENT_BYTES appended, each once */
    KEY_UNIQUE = 'u',   /* written once */
};

#define ELEMENT_BYTES 9

struct note {
    char key[MC_KEY_BYTES];
    struct lin_op op;
    size_t value_at; /* in the bytes of the notes */
};

struct notes {
    struct note *v;
    size_t n, cap;
    struct buf bytes;
};

/* Appends a note; the value is copied. */
void notes_add(struct notes *notes, const char *key, const struct lin_op *o);
void notes_free(struct notes *notes);

/* As lines. 0 or -errno. */
int notes_write(const struct notes *notes, FILE *f);

/* Reads lines until the end of the file. Returns 0, or -EBADMSG and the number of the bad line. */
int notes_read(struct notes *notes, FILE *f, size_t *ret_line);

/* Sorts by key, and sets the operations' values, which are valid until the next change. */
void notes_sort(struct notes *notes);
