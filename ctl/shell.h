/* The interactive prompt: readline, history, completion. */
#pragma once

#include "verb.h"

/* Set by Ctrl-C; the command under way ends, the shell does not. */
extern volatile sig_atomic_t shell_interrupted;

/* Reads commands until exit or end of file. Returns the exit code. */
int shell_run(struct ctl *ctl);

/* Cuts a line into words like a shell: quotes ' and ", backslashes. Returns how many (*ret is a
 * NULL-terminated array; free it and what it points at with shell_words_free), or -EINVAL for an
 * open quote. */
int shell_words(const char *line, char ***ret);
void shell_words_free(char **words);
