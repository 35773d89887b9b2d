/* A sentence for the operator that goes with a -errno: what happened, to what, what to do. */
#pragma once

struct io_error {
    char text[512];
};

/* Writes the sentence (error may be NULL) and returns `code`. */
int io_error_set(struct io_error *error, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
