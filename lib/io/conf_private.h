/* Shared by conf.c (values, command line, help) and conf_file.c (files). */
#pragma once

#include "io/conf.h"

/* Where settings come from at the moment. */
struct conf_source {
    const struct conf_program *program;
    void *settings;
    uint64_t seen; /* options that this source has set, by index: a list's next value is appended */
};

size_t conf_index(const struct conf_program *program, const struct conf_option *option);

/* As conf_set, but a list's value is appended when `append`. */
int conf_assign(const struct conf_option *option, void *settings, const char *value, bool append,
                struct io_error *error);

/* "unknown key 'lissten'; did you mean 'listen'? known keys: …" */
void conf_unknown_key(const struct conf_program *program, const char *key, struct io_error *error);

/* The file, which may be missing unless `must_exist`, and its drop-ins. */
int conf_read_files(const struct conf_program *program, const char *path, bool must_exist,
                    void *settings, struct io_error *error);
