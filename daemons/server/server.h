/* kumo-server: the main thread. Owns the data directory, the manager's connection and the listener,
 * and starts a thread per shard. */
#pragma once

#include "settings.h"

/* Runs until it is told to stop, or fails. Returns main's exit status. */
int server_run(struct settings *settings);
