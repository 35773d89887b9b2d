#include "shell.h"

#include "base/cleanup.h"
#include "base/mem.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <readline/history.h>
#include <readline/readline.h>

#define HISTORY_LINES_MAX   1000
#define COMPLETE_LIMIT_USEC 300000 /* nobody waits longer for Tab */

volatile sig_atomic_t shell_interrupted;

static volatile sig_atomic_t shell_resized;

/* readline's callbacks have no context. */
static struct {
    struct ctl *ctl;
    bool done;
    int code;              /* of the last command */
    const struct verb *at; /* whose words are completed; NULL: the verb itself */
    char history[PATH_MAX];
    char **servers; /* names for completion */
    size_t n_servers;
} shell;

/* ---- words ---- */

void shell_words_free(char **words)
{
    for (size_t i = 0; words && words[i]; i++) {
        free(words[i]);
    }
    free(words);
}

/* Cuts one word at *line into `out`, which is large enough. False: a quote stays open. */
static bool word_cut(const char **line, char *out)
{
    const char *p = *line;
    char quote = 0;

    for (; *p && (quote || !isspace((unsigned char) *p)); p++) {
        if (quote ? *p == quote : *p == '"' || *p == '\'') {
            quote = quote ? 0 : *p;
        } else if (*p == '\\' && quote != '\'' && p[1]) {
            *out++ = *++p;
        } else {
            *out++ = *p;
        }
    }
    *out = '\0';
    *line = p;
    return quote == 0;
}

int shell_words(const char *line, char ***ret)
{
    char **words = mem_zalloc(1, sizeof(*words));
    int n = 0;

    for (;;) {
        bool whole;
        line += strspn(line, " \t\n");
        if (!*line) {
            break;
        }
        words = mem_realloc(words, ((size_t) n + 2) * sizeof(*words));
        words[n] = mem_alloc(strlen(line) + 1);
        words[n + 1] = NULL;
        whole = word_cut(&line, words[n++]);
        if (!whole) {
            shell_words_free(words);
            return -EINVAL;
        }
    }
    *ret = words;
    return n;
}

/* ---- history ---- */

static void history_find(void)
{
    const char *state = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    char *slash;

    if (state && state[0] == '/') {
        snprintf(shell.history, sizeof(shell.history), "%s/kumofs/history", state);
    } else if (home && home[0] == '/') {
        snprintf(shell.history, sizeof(shell.history), "%s/.local/state/kumofs/history", home);
    } else {
        return;
    }
    for (slash = strchr(shell.history + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void) mkdir(shell.history, 0700); /* an old one stays; a failure shows when writing */
        *slash = '/';
    }
    stifle_history(HISTORY_LINES_MAX);
    (void) read_history(shell.history);
}

/* Values never go to the history: of a set, verb and key alone; of what is no verb, nothing. */
static void history_keep(const char *line, int n, char *const *words)
{
    _cleanup_free_ char *kept = NULL;
    const HIST_ENTRY *last;

    if (!verb_find(words[0])) {
        return;
    }
    if (strcmp(words[0], "set") != 0) {
        kept = strdup(line);
    } else if (asprintf(&kept, "set %s", n > 1 ? words[1] : "") < 0) {
        kept = NULL;
    }
    last = history_length > 0 ? history_get(history_base + history_length - 1) : NULL;
    if (kept && !(last && strcmp(last->line, kept) == 0)) {
        add_history(kept);
    }
}

static void history_save(void)
{
    mode_t before = umask(0077);

    if (shell.history[0] != '\0') {
        (void) write_history(shell.history);
    }
    umask(before);
}

/* ---- completion ---- */

static void servers_forget(void)
{
    for (size_t i = 0; i < shell.n_servers; i++) {
        free(shell.servers[i]);
    }
    free(shell.servers);
    shell.servers = NULL;
    shell.n_servers = 0;
}

static void servers_ask(void)
{
    const struct hashspace *h;
    struct io_error error;

    servers_forget();
    client_set_timeout(shell.ctl->client, COMPLETE_LIMIT_USEC);
    if (client_table(shell.ctl->client, &h, &error) == 0) {
        shell.servers = mem_zalloc(h->n_servers + 1, sizeof(*shell.servers));
        for (uint32_t i = 0; i < h->n_servers; i++) {
            shell.servers[shell.n_servers++] = strdup(h->servers[i].name);
        }
    }
    client_hang_up(shell.ctl->client);
    client_set_timeout(shell.ctl->client, shell.ctl->settings->timeout);
}

static bool begins(const char *word, const char *text)
{
    return strncmp(word, text, strlen(text)) == 0;
}

static char *complete_verb(const char *text, int state)
{
    static const struct verb *at;

    for (at = state == 0 ? verbs : at + 1; at->name; at++) {
        if (begins(at->name, text)) {
            return strdup(at->name);
        }
    }
    at--; /* called again, it ends again */
    return NULL;
}

static char *complete_word(const char *text, int state)
{
    static size_t option;
    static size_t server;

    if (state == 0) {
        option = server = 0;
        if (shell.at->names_servers && text[0] != '-') {
            servers_ask();
        }
    }
    while (shell.at->options && shell.at->options[option]) {
        const char *word = shell.at->options[option++];
        if (begins(word, text)) {
            return strdup(word);
        }
    }
    while (shell.at->names_servers && server < shell.n_servers) {
        const char *word = shell.servers[server++];
        if (begins(word, text)) {
            return strdup(word);
        }
    }
    return NULL;
}

static char **on_complete(const char *text, int start, int end)
{
    char verb[32];
    int begin = 0;
    int bytes;

    (void) end;
    rl_attempted_completion_over = 1; /* never file names */
    while (isspace((unsigned char) rl_line_buffer[begin])) {
        begin++;
    }
    if (start <= begin) {
        return rl_completion_matches(text, complete_verb);
    }
    bytes = (int) strcspn(rl_line_buffer + begin, " \t");
    snprintf(verb, sizeof(verb), "%.*s", bytes, rl_line_buffer + begin);
    if (strcmp(verb, "help") == 0 || strcmp(verb, "?") == 0) {
        return rl_completion_matches(text, complete_verb);
    }
    shell.at = verb_find(verb);
    return shell.at ? rl_completion_matches(text, complete_word) : NULL;
}

/* ---- lines ---- */

/* Signals are let in only while the shell waits for a key and while a command runs. */
static void signals_block(bool block)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGWINCH);
    sigprocmask(block ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
}

static void shell_command(const char *line)
{
    char **words = NULL;
    int n = shell_words(line, &words);
    int code;

    if (n < 0) {
        verb_error(shell.ctl, "a quote is not closed");
        return;
    }
    if (n > 0) {
        history_keep(line, n, words);
        shell_interrupted = 0;
        code = verb_run(shell.ctl, n, words);
        shell.done = shell.done || code == VERB_EXIT;
        shell.code = code == VERB_EXIT ? VERB_OK : code;
        shell_interrupted = 0;
    }
    shell_words_free(words);
}

static void on_line(char *line)
{
    rl_callback_handler_remove(); /* the terminal as it was, so that Ctrl-C is a signal */
    if (!line) {
        putchar('\n');
        shell.done = true;
    } else {
        signals_block(false);
        shell_command(line);
        signals_block(true);
        free(line);
    }
    if (!shell.done) {
        rl_callback_handler_install("kumofs> ", on_line);
    }
}

static void on_signal(int number)
{
    if (number == SIGINT) {
        shell_interrupted = 1;
    } else {
        shell_resized = 1;
    }
}

/* Ctrl-C at the prompt: a new, empty line. */
static void line_drop(void)
{
    shell_interrupted = 0;
    rl_callback_sigcleanup();
    rl_crlf();
    rl_free_undo_list();
    rl_replace_line("", 0);
    using_history(); /* the next Up begins at the newest line again */
    rl_on_new_line();
    rl_redisplay();
}

static void shell_wait(void)
{
    struct pollfd fd = { .fd = STDIN_FILENO, .events = POLLIN };
    sigset_t none;
    int r;

    sigemptyset(&none); /* the signals are blocked but for this call: none gets lost */
    r = ppoll(&fd, 1, NULL, &none);
    if (shell_resized) {
        shell_resized = 0;
        rl_resize_terminal();
    }
    if (shell_interrupted) {
        line_drop();
    }
    if (r > 0) {
        rl_callback_read_char();
    }
}

static void signals_prepare(void)
{
    struct sigaction action = { .sa_handler = on_signal };

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGWINCH, &action, NULL);
}

/* Commands from a file or pipe: no prompt, no history. */
static void shell_read_file(void)
{
    _cleanup_free_ char *line = NULL;
    size_t cap = 0;

    shell.history[0] = '\0';
    while (!shell.done && getline(&line, &cap, stdin) >= 0) {
        line[strcspn(line, "\n")] = '\0';
        if (line[strspn(line, " \t")] != '#') {
            shell_command(line);
        }
    }
}

static void shell_read_terminal(void)
{
    history_find();
    signals_prepare();
    signals_block(true);
    rl_readline_name = "kumoctl";
    rl_catch_signals = 0;
    rl_catch_sigwinch = 0;
    rl_attempted_completion_function = on_complete;
    rl_callback_handler_install("kumofs> ", on_line);
    while (!shell.done) {
        shell_wait();
    }
    rl_callback_handler_remove();
    signals_block(false);
    history_save();
    clear_history();
    servers_forget();
}

int shell_run(struct ctl *ctl)
{
    shell.ctl = ctl;
    if (isatty(STDIN_FILENO)) {
        printf("kumoctl %s. \"help\" lists the verbs, Ctrl-D leaves.\n", KUMO_VERSION);
        fflush(stdout);
        shell_read_terminal();
        return VERB_OK;
    }
    shell_read_file();
    return shell.code;
}
