/* Settings: values into their targets, the command line, --help. */
#include "io/conf.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/conf_private.h"
#include "io/conf_value.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- options ---- */

const struct conf_option *conf_find(const struct conf_program *program, const char *key)
{
    for (const struct conf_option *o = program->options; o->key; o++) {
        if (strcmp(o->key, key) == 0) {
            return o;
        }
    }
    return NULL;
}

size_t conf_index(const struct conf_program *program, const struct conf_option *option)
{
    return (size_t) (option - program->options);
}

static void *conf_target(const struct conf_option *option, void *settings)
{
    return (char *) settings + option->offset;
}

/* Number of letters to change, add or take away between two words (Levenshtein); words longer than
 * the table count as far apart. */
static size_t conf_distance(const char *a, const char *b)
{
    size_t row[64];
    size_t n = strlen(b);

    if (n >= ARRAY_LEN(row)) {
        return SIZE_MAX;
    }
    for (size_t j = 0; j <= n; j++) {
        row[j] = j;
    }
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1]);

            diagonal = row[j];
            row[j] = MIN_OF(change, MIN_OF(row[j], row[j - 1]) + 1);
        }
    }
    return row[n];
}

static const char *conf_nearest(const struct conf_program *program, const char *key)
{
    const char *best = NULL;
    size_t best_distance = 3;

    for (const struct conf_option *o = program->options; o->key; o++) {
        size_t distance = conf_distance(key, o->key);

        if (distance < best_distance && distance < strlen(o->key)) {
            best = o->key;
            best_distance = distance;
        }
    }
    return best;
}

void conf_unknown_key(const struct conf_program *program, const char *key, struct io_error *error)
{
    const char *nearest = conf_nearest(program, key);
    char keys[384] = "";
    size_t used = 0;

    for (const struct conf_option *o = program->options; o->key && used < sizeof(keys); o++) {
        used +=
            (size_t) snprintf(keys + used, sizeof(keys) - used, "%s%s", used ? ", " : "", o->key);
    }
    if (nearest) {
        io_error_set(error, 0, "unknown key '%.64s'; did you mean '%s'? known keys: %s", key,
                     nearest, keys);
    } else {
        io_error_set(error, 0, "unknown key '%.64s'; known keys: %s", key, keys);
    }
}

/* ---- values ---- */

static int conf_bad(const struct conf_option *option, const char *value, const char *what,
                    struct io_error *error)
{
    char allowed[256];

    conf_format_allowed(option, allowed, sizeof(allowed));
    return io_error_set(error, -EINVAL, "%s = %.64s: %s; allowed: %s", option->key, value, what,
                        allowed);
}

static int conf_set_number(const struct conf_option *option, uint64_t *target, const char *value,
                           struct io_error *error)
{
    uint64_t v = 0;
    int r;

    if (option->word && strcasecmp(value, option->word) == 0) {
        *target = option->word_value;
        return 0;
    }
    r = option->type == CONF_UINT   ? conf_parse_uint(value, &v)
        : option->type == CONF_SIZE ? conf_parse_size(value, &v)
                                    : conf_parse_duration(value, &v);
    if (r == -EINVAL && option->type == CONF_DURATION && conf_parse_uint(value, &v) == 0) {
        return conf_bad(option, value, "the unit is missing", error);
    }
    if (r == -EINVAL) {
        return conf_bad(option, value, "this is not what is expected", error);
    }
    if (r == -ERANGE || (option->max > 0 && v > option->max)) {
        return conf_bad(option, value, "this is too much", error);
    }
    if (v < option->min) {
        return conf_bad(option, value, "this is too little", error);
    }
    *target = v;
    return 0;
}

static int conf_word_index(const char *const *words, const char *value)
{
    for (int i = 0; words[i]; i++) {
        if (strcasecmp(words[i], value) == 0) {
            return i;
        }
    }
    return -1;
}

/* 1, 0, or -1 when it is neither. */
static int conf_parse_bool(const char *value)
{
    static const char *const words[] = {
        "no", "yes", "false", "true", "off", "on", "0", "1", NULL
    };
    int i = conf_word_index(words, value);

    return i < 0 ? -1 : i % 2;
}

static int conf_set_string(const struct conf_option *option, char **target, const char *value,
                           struct io_error *error)
{
    size_t bytes = strlen(value);

    if (bytes < option->min || (option->max > 0 && bytes > option->max)) {
        return conf_bad(option, value, bytes < option->min ? "too short" : "too long", error);
    }
    free(*target);
    *target = strdup(value);
    return *target ? 0 : -ENOMEM;
}

static void conf_list_clear(struct conf_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        free(list->items[i]);
    }
    free(list->items);
    *list = (struct conf_list){ 0 };
}

static int conf_set_list(const struct conf_option *option, struct conf_list *target,
                         const char *value, struct io_error *error)
{
    _cleanup_free_ char *copy = strdup(value);
    char *save = NULL;
    size_t before = target->n;

    for (char *word = strtok_r(copy, ", \t", &save); word; word = strtok_r(NULL, ", \t", &save)) {
        if (target->n >= CONF_LIST_MAX) {
            return conf_bad(option, value, "too many items", error);
        }
        target->items = mem_realloc(target->items, (target->n + 1) * sizeof(*target->items));
        target->items[target->n] = strdup(word);
        target->n++;
    }
    if (target->n == before) {
        return conf_bad(option, value, "the list is empty", error);
    }
    return 0;
}

static int conf_set_enum(const struct conf_option *option, int *target, const char *value,
                         struct io_error *error)
{
    int i = conf_word_index(option->names, value);

    if (i < 0) {
        return conf_bad(option, value, "unknown word", error);
    }
    *target = i;
    return 0;
}

static int conf_set_bool(const struct conf_option *option, bool *target, const char *value,
                         struct io_error *error)
{
    int b = conf_parse_bool(value);

    if (b < 0) {
        return conf_bad(option, value, "neither yes nor no", error);
    }
    *target = b == 1;
    return 0;
}

static int conf_assign_type(const struct conf_option *option, void *target, const char *value,
                            bool append, struct io_error *error)
{
    switch (option->type) {
    case CONF_STRING:
        return conf_set_string(option, target, value, error);
    case CONF_UINT:
    case CONF_SIZE:
    case CONF_DURATION:
        return conf_set_number(option, target, value, error);
    case CONF_BOOL:
        return conf_set_bool(option, target, value, error);
    case CONF_ENUM:
        return conf_set_enum(option, target, value, error);
    case CONF_LIST:
        if (!append) {
            conf_list_clear(target);
        }
        return conf_set_list(option, target, value, error);
    default:
        kumo_unreachable();
    }
}

int conf_assign(const struct conf_option *option, void *settings, const char *value, bool append,
                struct io_error *error)
{
    void *target = conf_target(option, settings);
    struct io_error why = { "" };
    int r = conf_assign_type(option, target, value, append, error);

    if (r == 0 && option->check && !option->check(target, &why)) {
        return io_error_set(error, -EINVAL, "%s = %.64s: %.256s", option->key, value, why.text);
    }
    return r;
}

int conf_set(const struct conf_option *option, void *settings, const char *value,
             struct io_error *error)
{
    return conf_assign(option, settings, value, false, error);
}

void conf_free(const struct conf_program *program, void *settings)
{
    static const size_t bytes[_CONF_TYPE_MAX] = {
        [CONF_STRING] = sizeof(char *),
        [CONF_UINT] = sizeof(uint64_t),
        [CONF_SIZE] = sizeof(uint64_t),
        [CONF_DURATION] = sizeof(uint64_t),
        [CONF_BOOL] = sizeof(bool),
        [CONF_ENUM] = sizeof(int),
        [CONF_LIST] = sizeof(struct conf_list),
    };

    for (const struct conf_option *o = program->options; o->key; o++) {
        void *target = conf_target(o, settings);

        if (o->type == CONF_STRING) {
            free(*(char **) target);
        } else if (o->type == CONF_LIST) {
            conf_list_clear(target);
        }
        memset(target, 0, bytes[o->type]);
    }
}

static int conf_set_defaults(const struct conf_program *program, void *settings,
                             struct io_error *error)
{
    int r = 0;

    kumo_assert(program->options);
    for (const struct conf_option *o = program->options; o->key && r == 0; o++) {
        kumo_assert(conf_index(program, o) < CONF_OPTIONS_MAX);
        if (o->default_value) {
            r = conf_set(o, settings, o->default_value, error);
        }
    }
    return r;
}

/* ---- the command line ---- */

/* One option of the command line. */
struct conf_arg {
    char key[64];
    const char *value; /* NULL: none */
    int words;         /* of argv that it takes */
};

static bool conf_is_bool(const struct conf_program *program, const char *key)
{
    const struct conf_option *o = conf_find(program, key);

    return o && o->type == CONF_BOOL;
}

static bool conf_takes_no_value(const char *key)
{
    return strcmp(key, "help") == 0 || strcmp(key, "version") == 0;
}

/* Cuts argv[i], which begins with "--", into key and value. */
static void conf_arg_cut(const struct conf_program *program, int argc, char **argv, int i,
                         struct conf_arg *ret)
{
    const char *word = argv[i] + 2;
    const char *equals = strchr(word, '=');
    size_t bytes = equals ? (size_t) (equals - word) : strlen(word);

    *ret = (struct conf_arg){ .words = 1 };
    snprintf(ret->key, sizeof(ret->key), "%.*s", (int) MIN_OF(bytes, sizeof(ret->key) - 1), word);
    if (equals) {
        ret->value = equals + 1;
    } else if (i + 1 < argc && !conf_takes_no_value(ret->key) &&
               (!conf_is_bool(program, ret->key) || conf_parse_bool(argv[i + 1]) >= 0)) {
        ret->value = argv[i + 1];
        ret->words = 2;
    } else if (conf_is_bool(program, ret->key)) {
        ret->value = "yes";
    }
}

static int conf_apply_arg(struct conf_source *source, const struct conf_arg *arg,
                          struct io_error *error)
{
    const struct conf_option *o = conf_find(source->program, arg->key);
    struct io_error why = { "" };
    uint64_t bit;
    int r;

    if (!o) {
        conf_unknown_key(source->program, arg->key, &why);
        return io_error_set(error, -EINVAL, "--%s: %s", arg->key, why.text);
    }
    if (!arg->value) {
        return io_error_set(error, -EINVAL, "--%s: the value is missing (--%s=VALUE)", arg->key,
                            arg->key);
    }
    bit = 1ULL << conf_index(source->program, o);
    r = conf_assign(o, source->settings, arg->value, source->seen & bit, &why);
    source->seen |= bit;
    return r < 0 ? io_error_set(error, r, "--%s: %s", arg->key, why.text) : 0;
}

/* What the command line says before anything is set. */
struct conf_args {
    const char *path; /* of --config */
    bool help;
    bool version;
    int end; /* first word that is no option */
};

static int conf_check_word(const struct conf_program *program, const char *word,
                           struct io_error *error)
{
    if (word[0] == '-' && word[1] != '\0') {
        return io_error_set(error, -EINVAL, "%s: options begin with two dashes; see %s --help",
                            word, program->name);
    }
    if (!program->takes_arguments) {
        return io_error_set(error, -EINVAL, "'%s': only options are allowed; see %s --help", word,
                            program->name);
    }
    return 0;
}

/* One walk over the options; with `source` they are set, without it only looked at. */
static int conf_walk_args(const struct conf_program *program, int argc, char **argv,
                          struct conf_source *source, struct conf_args *ret, struct io_error *error)
{
    int i = 1;

    *ret = (struct conf_args){ 0 };
    while (i < argc && strncmp(argv[i], "--", 2) == 0 && argv[i][2] != '\0') {
        struct conf_arg arg;
        int r = 0;

        conf_arg_cut(program, argc, argv, i, &arg);
        if (strcmp(arg.key, "help") == 0) {
            ret->help = true;
        } else if (strcmp(arg.key, "version") == 0) {
            ret->version = true;
        } else if (strcmp(arg.key, "config") == 0) {
            ret->path = arg.value;
            r = arg.value ? 0 : io_error_set(error, -EINVAL, "--config: the file is missing");
        } else if (source) {
            r = conf_apply_arg(source, &arg, error);
        }
        if (r < 0) {
            return r;
        }
        i += arg.words;
    }
    if (i < argc && strcmp(argv[i], "--") == 0) {
        ret->end = i + 1;
        return i + 1 < argc && !program->takes_arguments
                   ? conf_check_word(program, argv[i + 1], error)
                   : 0;
    }
    ret->end = i;
    return i < argc ? conf_check_word(program, argv[i], error) : 0;
}

int conf_parse_args(const struct conf_program *program, int argc, char **argv, void *settings,
                    int *ret_first_argument, struct io_error *error)
{
    struct conf_source source = { .program = program, .settings = settings };
    struct conf_args args;
    int r = conf_walk_args(program, argc, argv, NULL, &args, error);

    if (args.help) {
        conf_print_help(program, stdout);
        return CONF_EXIT;
    }
    if (args.version) {
        printf("%s %s\n", program->name, program->version);
        return CONF_EXIT;
    }
    if (r == 0) {
        r = conf_set_defaults(program, settings, error);
    }
    if (r == 0 && (args.path || program->default_path)) {
        r = conf_read_files(program, args.path ? args.path : program->default_path,
                            args.path != NULL, settings, error);
    }
    if (r == 0) {
        r = conf_walk_args(program, argc, argv, &source, &args, error);
    }
    if (r == 0 && ret_first_argument) {
        *ret_first_argument = args.end;
    }
    return r < 0 ? r : CONF_RUN;
}

/* ---- help ---- */

static const char *conf_value_word(enum conf_type type)
{
    static const char *const words[_CONF_TYPE_MAX] = {
        [CONF_STRING] = "TEXT",   [CONF_UINT] = "NUMBER", [CONF_SIZE] = "SIZE",
        [CONF_DURATION] = "TIME", [CONF_BOOL] = "yes|no", [CONF_ENUM] = "WORD",
        [CONF_LIST] = "LIST",
    };

    return words[type];
}

static void conf_print_option(const struct conf_option *o, FILE *out)
{
    char left[64];
    char allowed[256];

    snprintf(left, sizeof(left), "--%s=%s", o->key, conf_value_word(o->type));
    conf_format_allowed(o, allowed, sizeof(allowed));
    fprintf(out, "  %-30s %s", left, o->help);
    if (o->type == CONF_ENUM) {
        fprintf(out, ": %s", allowed);
    }
    if (o->default_value) {
        fprintf(out, " (%s)", o->default_value);
    }
    fputc('\n', out);
}

void conf_print_help(const struct conf_program *program, FILE *out)
{
    fprintf(out, "Usage: %s %s\n%s\n\n", program->name,
            program->usage ? program->usage : "[OPTION...]", program->summary);
    for (const struct conf_option *o = program->options; o->key; o++) {
        conf_print_option(o, out);
    }
    fprintf(out, "  %-30s %s", "--config=FILE", "Read this file");
    if (program->default_path) {
        fprintf(out, " instead of %s", program->default_path);
    }
    fprintf(out, "\n  %-30s %s\n  %-30s %s\n", "--help", "Show this and exit", "--version",
            "Show the version and exit");
    fprintf(out,
            "\nDefaults in parentheses. The same keys stand in the file as 'key = value'; options "
            "here override it.\n");
}
