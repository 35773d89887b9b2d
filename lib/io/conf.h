/* Configuration: `key = value` files with `#` comments, their drop-ins *.conf in FILE.d in order of
 * name, then the command line (--key=value or --key value; --key alone is yes for CONF_BOOL), later
 * ones overriding earlier ones. A list's key may be repeated in one file, which appends; any other
 * key may not. One table of options per program gives the parser, --help and the errors. */
#pragma once

#include "io/io_error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define CONF_LINE_MAX    198    /* bytes of one line: inih splits longer ones */
#define CONF_FILE_MAX    262144 /* bytes of one file */
#define CONF_LIST_MAX    64     /* items of a list */
#define CONF_OPTIONS_MAX 64     /* keys of one program */

enum conf_type {
    CONF_STRING,   /* char *; min and max bound its length */
    CONF_UINT,     /* uint64_t */
    CONF_SIZE,     /* uint64_t bytes: "64k", "1 MiB", "4096" (k, M, G, T = powers of 1024) */
    CONF_DURATION, /* uint64_t microseconds: "200ms", "5s", "10 min", "1h"; only 0 needs no unit */
    CONF_BOOL,     /* bool: yes, no (true, false, on, off, 1, 0 too) */
    CONF_ENUM,     /* int: the index in `names` */
    CONF_LIST,     /* struct conf_list: "a, b c" */
    _CONF_TYPE_MAX,
};

struct conf_list {
    char **items;
    size_t n;
};

struct conf_option {
    const char *key;
    enum conf_type type;
    /* Of the target in the program's settings struct. */
    size_t offset;
    /* Smallest and largest value in the target's unit, length of a text; max 0: no limit. */
    uint64_t min;
    uint64_t max;
    /* As in a file. NULL: the target stays zero (NULL string, empty list). */
    const char *default_value;
    /* One line. */
    const char *help;
    /* Of CONF_ENUM, NULL-terminated. */
    const char *const *names;
    /* May be NULL; false: error->text says what is wrong and what is allowed. */
    bool (*check)(const void *target, struct io_error *error);
    /* Of the three numbers: a word allowed instead ("off", "auto") or NULL, and what it sets, which
     * min and max don't bound. */
    const char *word;
    uint64_t word_value;
};

struct conf_program {
    const char *name;                  /* "kumo-server" */
    const char *summary;               /* one line for --help */
    const char *usage;                 /* after the name in --help; NULL: "[OPTION...]" */
    const char *version;               /* "0.1.0"; --version prints "NAME VERSION" */
    const char *default_path;          /* "/etc/kumofs/server.conf"; NULL: none */
    const struct conf_option *options; /* ends with key NULL */
    bool takes_arguments;              /* words that are not options are allowed (kumoctl) */
};

/* What conf_parse_args found. */
enum conf_outcome {
    CONF_RUN = 0,  /* go on */
    CONF_EXIT = 1, /* --help or --version was printed: exit with 0 */
};

/* Reads files and command line into `settings` (zeroed by the caller). Defaults, then the file
 * (--config FILE, or default_path, which may be missing), its drop-ins, then the command line.
 * `ret_first_argument` (may be NULL) is the index in argv of the first word that isn't an option;
 * options after it are not looked at; "--" ends the options. Returns enum conf_outcome or -errno
 * with the sentence to print; settings may then be freed by conf_free and nothing else. */
int conf_parse_args(const struct conf_program *program, int argc, char **argv, void *settings,
                    int *ret_first_argument, struct io_error *error);

/* Frees strings and lists and zeroes every target. */
void conf_free(const struct conf_program *program, void *settings);

/* One value into its target, as a file or the command line would; `error` gets "what is wrong, what
 * is allowed" without a place. Lists are replaced. For tests and for settings changed at run time.
 */
int conf_set(const struct conf_option *option, void *settings, const char *value,
             struct io_error *error);

/* The option of a key, or NULL. */
const struct conf_option *conf_find(const struct conf_program *program, const char *key);

/* One file, without drop-ins. */
int conf_read_file(const struct conf_program *program, const char *path, void *settings,
                   struct io_error *error);

/* Checks a documented example file: each option must stand there once as "#key = value" (no space
 * after the
 * #), with the default if the option has one, else with any valid value; nothing else may be set.
 */
int conf_check_example(const struct conf_program *program, const char *path,
                       struct io_error *error);

/* What --help prints. */
void conf_print_help(const struct conf_program *program, FILE *out);

/* Numbers with units, also for verbs of kumoctl: 0 or -EINVAL, -ERANGE. */
int conf_parse_uint(const char *text, uint64_t *ret_value);
int conf_parse_size(const char *text, uint64_t *ret_bytes);
int conf_parse_duration(const char *text, uint64_t *ret_usec);
