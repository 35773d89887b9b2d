/* kumo-server's verbs for a data directory on which no server runs: --check, --rebuild-index,
 * --salvage. */
#pragma once

#include <stdbool.h>

/* What --help says of them and of the options. */
extern const char offline_usage[];

/* Does the command line ask for one of the verbs? */
bool offline_wanted(int argc, char **argv);
/* Returns main's exit status: 0 all is well or done; 1 there are problems; 2 it could not look. */
int offline_run(int argc, char **argv);
