/* What the verbs share: the table of them, their arguments, and how they speak to the operator. */
#pragma once

#include "client.h"
#include "settings.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define VERB_OK     0
#define VERB_FAILED 1 /* failed, or not found */
#define VERB_USAGE  2
#define VERB_EXIT   (-1) /* the shell ends */

struct ctl {
    const struct settings *settings;
    struct client *client;
    bool interactive;
};

struct verb {
    const char *name;
    const char *args;     /* "KEY VALUE [--flags N]" */
    const char *help;     /* one line */
    const char *details;  /* more lines for `help VERB`; may be NULL */
    const char *examples; /* each ends with a newline */
    /* argv[0] is the first word behind the verb. Returns VERB_X. */
    int (*run)(struct ctl *ctl, int argc, char **argv);
    const char *const *options; /* for completion, NULL-terminated; may be NULL */
    bool names_servers;         /* its words are names of servers */
};

/* Ends with name NULL. */
extern const struct verb verbs[];

const struct verb *verb_find(const char *name);
/* Runs argv[0] with what follows. */
int verb_run(struct ctl *ctl, int argc, char **argv);
/* All verbs, one line each. */
void verb_list(FILE *out);

/* ---- arguments ---- */

struct verb_option {
    const char *name;    /* "--flags" */
    const char *metavar; /* NULL: takes no value */
    const char **ret;    /* the value; the name itself when it takes none */
};

#define VERB_WORDS_MAX 64

struct verb_words {
    const char *v[VERB_WORDS_MAX];
    int n;
};

/* Cuts argv into options (ending with name NULL) and words; "--" ends the options. False: said what
 * is wrong, return VERB_USAGE. */
bool verb_args(struct ctl *ctl, const struct verb *verb, int argc, char **argv,
               const struct verb_option *options, int words_min, int words_max,
               struct verb_words *ret);
/* A number from an option's value, NULL leaves *ret. False: said what is wrong. */
bool verb_number(struct ctl *ctl, const char *option, const char *value, uint64_t max,
                 uint64_t *ret);
/* memcached's rules for keys. False: said what is wrong. */
bool verb_key(struct ctl *ctl, const char *key);

/* ---- speaking ---- */

/* One line on stderr, with the program's name in front unless in the shell. Returns VERB_FAILED. */
int verb_error(const struct ctl *ctl, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prints bytes so that they do no harm to a terminal: \n, \x1b, \\; UTF-8 letters stay. */
void verb_print_escaped(FILE *out, const uint8_t *p, size_t bytes);

/* ---- the verbs, a file for each group ---- */
int verb_status(struct ctl *ctl, int argc, char **argv);
int verb_attach(struct ctl *ctl, int argc, char **argv);
int verb_get(struct ctl *ctl, int argc, char **argv);
int verb_set(struct ctl *ctl, int argc, char **argv);
int verb_delete(struct ctl *ctl, int argc, char **argv);
int verb_locate(struct ctl *ctl, int argc, char **argv);
int verb_partitions(struct ctl *ctl, int argc, char **argv);
int verb_export(struct ctl *ctl, int argc, char **argv);
int verb_import(struct ctl *ctl, int argc, char **argv);
int verb_backup(struct ctl *ctl, int argc, char **argv);
int verb_restore(struct ctl *ctl, int argc, char **argv);
int verb_cluster_key(struct ctl *ctl, int argc, char **argv);
