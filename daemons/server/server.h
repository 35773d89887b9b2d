/* kumo-server: the main thread. Owns the data directory, the manager's connection and the listener,
 * and starts a thread per shard. */
#pragma once

#include "settings.h"

struct loop;
struct server;

/* Opens the data directory, reads the log's state and begins to look for a manager. -errno with a
 * sentence. */
int server_start(struct loop *loop, const struct settings *settings, struct server **ret,
                 struct io_error *error);
/* Accepts nothing more, writes a last generation of checkpoints, then ends the loop. */
void server_begin_stop(struct server *s);
/* Syncs and closes everything. NULL is fine; returns NULL. */
struct server *server_stop(struct server *s);

/* Did it end because something failed? */
bool server_failed(const struct server *s);
/* Has every shard's loop turned since the last question? For the watchdog. */
bool server_is_alive(struct server *s);
