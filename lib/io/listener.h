/* The listening sockets of a daemon: its own, or inherited from systemd. Accepts on the main loop;
 * the accepted connection may go to any thread. Stops accepting at the limit of connections, and
 * for 100 ms when file descriptors run out. */
#pragma once

#include "io/addr.h"
#include "io/io_error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LISTENER_SOCKETS_MAX      64
#define LISTENER_BACKLOG          4096
#define LISTENER_ACCEPTS_PER_TURN 64
#define LISTENER_PAUSE_USEC       100000

struct loop;
struct listener;

/* A connection was accepted: a non-blocking, close-on-exec socket that now belongs to the callee.
 */
typedef void (*listener_accept_fn)(void *ctx, int fd);

/* connections_max 0: no limit. `name` of the setting to be changed ("listen") is used in errors. */
struct listener *listener_new(struct loop *loop, uint64_t connections_max, const char *setting,
                              listener_accept_fn on_accept, void *ctx);
/* Closes its sockets (Unix paths that it bound are unlinked). Every accepted connection must have
 * been released, and the loop's mailbox run since. NULL is fine; returns NULL. */
struct listener *listener_free(struct listener *listener);

/* Opens what the text says (addr_parse). loopback_only: anything but loopback is -EACCES with a
 * sentence (no cluster key). -EADDRINUSE names who holds the port when it can be found out. */
int listener_open(struct listener *listener, const char *text, uint16_t default_port,
                  bool loopback_only, struct io_error *error);

/* Takes the sockets that systemd passed under this name (FileDescriptorName=, 1 to 6 letters).
 * Returns how many, 0 when there are none; -errno with a sentence. */
int listener_inherit(struct listener *listener, const char *name, bool loopback_only,
                     struct io_error *error);

/* Begins to accept (nothing is accepted before): when the daemon can serve. */
void listener_start(struct listener *listener);
/* Stops accepting for good and closes its sockets: the beginning of a stop. */
void listener_stop(struct listener *listener);

/* A connection given to on_accept has ended; from any thread. Once for each. */
void listener_release(struct listener *listener);

/* Connections accepted and not released; how often the limit or a lack of fds paused accepting.
 * From any thread. */
uint64_t listener_connections(const struct listener *listener);
uint64_t listener_pauses(const struct listener *listener);

size_t listener_sockets(const struct listener *listener);
/* Address of the i-th socket: for ":0" and messages. */
int listener_addr(const struct listener *listener, size_t i, struct addr *ret_addr);

/* 0 when the socket is bound to loopback or a Unix path, else -EACCES with a sentence. */
int listener_check_loopback(int fd, struct io_error *error);
