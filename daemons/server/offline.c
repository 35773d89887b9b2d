#include "offline.h"

#include "base/cleanup.h"
#include "io/bus.h"
#include "io/clock.h"
#include "offline_private.h"

#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROGRESS_USEC 200000

const char offline_usage[] =
    "[OPTION...]\n"
    "       kumo-server --check DIR             verify a stopped server's data, change nothing\n"
    "       kumo-server --rebuild-index DIR     make its checkpoints anew from its log\n"
    "       kumo-server --salvage DIR [--yes]   save what can be read into DIR.salvaged";

enum verb { VERB_NONE, VERB_CHECK, VERB_REBUILD, VERB_SALVAGE };

static enum verb verb_of(const char *word, const char **ret_value)
{
    static const char *const words[] = {
        [VERB_CHECK] = "--check", [VERB_REBUILD] = "--rebuild-index", [VERB_SALVAGE] = "--salvage"
    };

    for (enum verb v = VERB_CHECK; v <= VERB_SALVAGE; v++) {
        size_t n = strlen(words[v]);
        if (strncmp(word, words[v], n) == 0 && (word[n] == '\0' || word[n] == '=')) {
            *ret_value = word[n] == '=' ? word + n + 1 : NULL;
            return v;
        }
    }
    return VERB_NONE;
}

bool offline_wanted(int argc, char **argv)
{
    const char *value;

    for (int i = 1; i < argc; i++) {
        if (verb_of(argv[i], &value) != VERB_NONE) {
            return true;
        }
    }
    return false;
}

/* VERB DIR, VERB=DIR, and --yes behind or before it. -EINVAL: anything else. */
static int parse(int argc, char **argv, enum verb *ret_verb, const char **ret_dir, bool *ret_yes)
{
    *ret_verb = VERB_NONE;
    *ret_dir = NULL;
    *ret_yes = false;
    for (int i = 1; i < argc; i++) {
        const char *value = NULL;
        enum verb v = verb_of(argv[i], &value);
        if (v != VERB_NONE && *ret_verb == VERB_NONE) {
            *ret_verb = v;
            *ret_dir = value ? value : i + 1 < argc ? argv[++i] : NULL;
        } else if (strcmp(argv[i], "--yes") == 0) {
            *ret_yes = true;
        } else {
            return -EINVAL;
        }
    }
    return !*ret_dir || **ret_dir == '\0' || (*ret_yes && *ret_verb != VERB_SALVAGE) ? -EINVAL : 0;
}

int offline_run(int argc, char **argv)
{
    _cleanup_free_ char *path = NULL;
    const char *dir;
    enum verb verb;
    bool torn;
    bool yes;

    if (parse(argc, argv, &verb, &dir, &yes) < 0) {
        fprintf(stderr,
                "kumo-server: --check, --rebuild-index and --salvage take a directory, and nothing "
                "else but --salvage's --yes\nUsage: kumo-server %s\n",
                offline_usage);
        return OFFLINE_FAILED;
    }
    path = realpath(dir, NULL);
    if (!path) {
        fprintf(stderr, "kumo-server: %s: %s\n", dir, strerror(errno));
        return OFFLINE_FAILED;
    }
    (void) bus_prepare(); /* without it a failing disk ends the process without a word */
    return verb == VERB_CHECK     ? offline_check(path, &torn)
           : verb == VERB_REBUILD ? offline_rebuild(path)
                                  : offline_salvage(path, yes);
}

/* ---- for the verbs ---- */

void offline_progress(const char *what, uint64_t done, uint64_t total)
{
    static uint64_t shown_usec;
    uint64_t now_usec = clock_boot_usec();

    if (!isatty(STDERR_FILENO)) {
        return;
    }
    if (total == 0) {
        fputs("\r\033[K", stderr);
    } else if (now_usec - shown_usec >= PROGRESS_USEC) {
        shown_usec = now_usec;
        fprintf(stderr, "\r\033[K%s: %llu of %llu", what, (unsigned long long) done,
                (unsigned long long) total);
    }
}

enum offline_status offline_refuse(int r, const struct io_error *error)
{
    offline_progress("", 0, 0);
    if (r == -EBADMSG || r == -EPROTONOSUPPORT) {
        printf("problem: %s\n", error->text);
        return OFFLINE_PROBLEMS;
    }
    fprintf(stderr, "kumo-server: %s\n", error->text);
    return OFFLINE_FAILED;
}

int offline_become_owner(const char *dir, struct io_error *error)
{
    const struct passwd *user;
    struct stat st;

    if (stat(dir, &st) < 0) {
        return io_error_set(error, -errno, "%s can't be opened: %s", dir, strerror(errno));
    }
    if (st.st_uid == geteuid()) {
        return 0;
    }
    if (geteuid() == 0 && setegid(st.st_gid) == 0 && seteuid(st.st_uid) == 0) {
        return 0;
    }
    user = getpwuid(st.st_uid);
    return io_error_set(error, -EPERM,
                        "%s belongs to %s, whose server must be able to read what is written: run "
                        "this as that user or as root",
                        dir, user ? user->pw_name : "another user");
}
