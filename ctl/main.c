/* kumoctl: the operator's shell, and the same verbs one-shot. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/log.h"
#include "shell.h"

#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void print_help(void)
{
    conf_print_help(&settings_program, stdout);
    printf("\nVerbs (without one: an interactive shell with history and completion):\n");
    verb_list(stdout);
    printf("\nExamples:\n"
           "  kumoctl status                       how the cluster does\n"
           "  kumoctl -m db1:19700 status --json   the same, of another cluster, for programs\n"
           "  kumoctl attach                       take all servers that are up into use\n"
           "  kumoctl help set                     more about one verb\n"
           "\nExit codes: 0 done, 1 failed or not found, 2 wrong usage.\n");
}

/* ---- the command line ---- */

static char *copy(const char *text)
{
    char *p = strdup(text);

    if (!p) {
        abort();
    }
    return p;
}

/* Takes the option at argv[i], in front of the verb, in the form that conf knows. Returns how many
 * words it was. */
static int option_expand(int argc, char **argv, int i, char **out, int *n)
{
    bool bare = strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "--version") == 0;

    if (strncmp(argv[i], "-m", 2) == 0 && (argv[i][2] != '\0' || i + 1 < argc)) {
        const char *value = argv[i][2] != '\0' ? argv[i] + 2 : argv[i + 1];
        if (asprintf(&out[(*n)++], "--manager=%s", value) < 0) {
            abort();
        }
        return argv[i][2] != '\0' ? 1 : 2;
    }
    if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "-V") == 0) {
        out[(*n)++] = copy(argv[i][1] == 'h' ? "--help" : "--version");
        return 1;
    }
    out[(*n)++] = copy(argv[i]);
    if (strncmp(argv[i], "--", 2) == 0 && !strchr(argv[i], '=') && !bare && i + 1 < argc) {
        out[(*n)++] = copy(argv[i + 1]);
        return 2;
    }
    return 1;
}

/* The command line without short options; all of it belongs to the caller. */
static char **args_expand(int argc, char **argv, int *ret_argc)
{
    char **out = mem_zalloc((size_t) argc + 2, sizeof(*out));
    int n = 0;
    int i = 1;

    out[n++] = copy(argv[0]);
    while (i < argc && argv[i][0] == '-' && strcmp(argv[i], "--") != 0) {
        i += option_expand(argc, argv, i, out, &n);
    }
    while (i < argc) {
        out[n++] = copy(argv[i++]);
    }
    *ret_argc = n;
    return out;
}

static bool wants_help(int argc, char **argv)
{
    for (int i = 1; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            return true;
        }
    }
    return false;
}

/* ---- running ---- */

static int run(const struct settings *settings, int argc, char **argv)
{
    struct client_options o = { .managers = &settings->manager,
                                .cluster_key = settings->cluster_key,
                                .timeout_usec = settings->timeout,
                                .interrupted = argc == 0 ? &shell_interrupted : NULL };
    struct ctl ctl = { .settings = settings, .interactive = argc == 0 && isatty(STDIN_FILENO) };
    struct io_error error = { "" };
    int code;

    if (client_new(&o, &ctl.client, &error) < 0) {
        return verb_error(&ctl, "%s", error.text);
    }
    code = argc == 0 ? shell_run(&ctl) : verb_run(&ctl, argc, argv);
    client_free(ctl.client);
    return code == VERB_EXIT ? VERB_OK : code;
}

static int parse_and_run(int argc, char **argv)
{
    struct settings settings = { 0 };
    struct ctl ctl = { 0 };
    struct io_error error = { "" };
    int first = argc;
    int code;
    int r;

    if (wants_help(argc, argv)) {
        print_help();
        return VERB_OK;
    }
    r = conf_parse_args(&settings_program, argc, argv, &settings, &first, &error);
    if (r < 0) {
        verb_error(&ctl, "%s", error.text);
        code = VERB_USAGE;
    } else {
        code = r == CONF_EXIT ? VERB_OK : run(&settings, argc - first, argv + first);
    }
    conf_free(&settings_program, &settings);
    return code;
}

int main(int argc, char **argv)
{
    char **words;
    int code;

    setlocale(LC_CTYPE, "");
    signal(SIGPIPE, SIG_IGN);
    log_set_level(LOG_LEVEL_ERROR); /* what libraries warn of is said in answers here */
    words = args_expand(argc, argv, &argc);
    code = parse_and_run(argc, words);
    for (int i = 0; i < argc; i++) {
        free(words[i]);
    }
    free(words);
    return code;
}
