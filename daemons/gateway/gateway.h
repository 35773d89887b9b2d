/* The gateway's main thread: listening sockets, the link to the managers, the threads that serve
 * clients, start and stop. */
#pragma once

#include "io/io_error.h"
#include "settings.h"
#include "stats.h"
#include "wire/msg.h"

#include <stdbool.h>
#include <stdint.h>

/* READY is told when the whole hash space is known; or after this time, so that the start of a
 * machine doesn't wait for a cluster that has yet to be formed. */
#define READY_WAIT_USEC 10000000
/* A stop waits this much longer than request-timeout for answers that are due. */
#define STOP_GRACE_USEC 1000000

struct daemon;
struct listener;
struct loop;
struct loop_timer;
struct manager_link;
struct store;
struct thread;

struct gateway {
    struct settings settings;
    uint64_t started_usec; /* CLOCK_BOOTTIME */
    struct loop *loop;
    struct daemon *daemon;
    struct listener *listener;
    struct manager_link *manager;
    struct store *store; /* NULL: nothing is kept */
    struct thread **threads;
    unsigned n_threads;
    unsigned next_thread;     /* gets the next connection */
    unsigned stopped_threads; /* have no client any more */
    struct loop_timer *ready_timer;
    struct loop_timer *stop_timer;
    bool ready;
    bool stopping;
    /* by number: the log was told that a connection to it is gone; once for all threads and shards
     */
    atomic_bool server_down[SERVERS_MAX + 1];
    struct counters reset; /* what the counters were at "stats reset" */
};

/* Runs until it is told to stop. Takes the settings over (conf_free is the callee's). -errno with a
 * sentence when it could not start. */
int gateway_run(struct settings *settings, struct io_error *error);

/* The manager's link: the hash space or the state of the link has changed. Tells systemd. */
void gateway_update_status(struct gateway *g);

/* Posted by a thread: its last client is gone, after thread_stop. */
void gateway_thread_stopped(void *gateway);
