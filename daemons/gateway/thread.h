/* A thread that serves clients: its own loop, routing, copy of the hash space, session and
 * connections to shards. Nothing of it is touched by another thread, except by posts to its loop
 * and its counters. */
#pragma once

#include "core/route.h"
#include "io/loop.h"
#include "stats.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* Values expected by reads on the wire, of all its clients; each client may have one read in any
 * case. */
#define THREAD_GET_BYTES_MAX  ((size_t) 64 << 20)
#define THREAD_VALUE_BYTES    (1u << 20) /* what a value is expected to have before any was seen */
#define THREAD_FREE_SLOTS_MAX 4096
#define THREAD_OPS_MAX        (1u << 18) /* operations without an answer, of all its clients */

struct gateway;
struct shard_link;
struct slot;

struct thread {
    struct gateway *gateway;
    unsigned index;
    pthread_t id;
    bool running; /* `id` is a thread */
    struct loop *loop;
    struct route *route;
    struct route_actions actions;
    bool acting; /* in thread_act */
    struct hashspace table;
    uint64_t session;
    struct list links;       /* struct shard_link */
    struct list dirty_links; /* of them, those with operations to send at the turn's end */
    struct shard_link *(*link_table)[SHARDS_MAX]; /* by server and shard */
    uint32_t n_link_servers;
    struct list clients;
    struct list ready_clients; /* of them, those with something to do at the turn's end */
    size_t get_bytes;          /* values expected by reads on the wire */
    size_t value_bytes;        /* what a new client's values are expected to have */
    struct list free_slots;    /* of clients; kept up to THREAD_FREE_SLOTS_MAX */
    uint32_t n_free_slots;
    uint64_t now_usec; /* CLOCK_BOOTTIME when what is being handled began */
    uint64_t next_client_id;
    struct loop_task wake;    /* thread_wake */
    struct loop_timer *timer; /* route_tick */
    uint64_t timer_usec;      /* when it will end */
    bool stopping;
    bool stop_told; /* gateway_thread_stopped was posted */
    struct counters counters;
};

/* -errno when the loop can't be made. */
int thread_new(struct gateway *g, unsigned index, struct thread **ret_thread);
/* Starts it; -errno. */
int thread_start(struct thread *t);
/* Ends the loop, waits for the thread, closes everything. NULL is fine; returns NULL. */
struct thread *thread_free(struct thread *t);

/* ---- from the main thread; done on the thread's own later ---- */

/* Gives it an accepted socket. -ENOBUFS: it isn't taken, and stays the caller's. */
int thread_give_client(struct thread *t, int fd);
/* The hash space, or its changes, as a message brought it. */
void thread_give_table(struct thread *t, const uint8_t *bytes, size_t n);
void thread_give_session(struct thread *t, uint64_t session);
/* Takes no more requests; clients are closed when what they asked was answered.
 * gateway_thread_stopped is posted to the main thread when none is left. */
void thread_stop(struct thread *t);

/* ---- on the thread itself ---- */

/* At the beginning of each callback that calls the routing: reads the clock. */
void thread_note_time(struct thread *t);
/* Sends an operation of a client; the answer comes by client_done with the slot. -ENOBUFS with the
 * reason. */
int thread_submit(struct thread *t, struct route_client *client, struct slot *slot,
                  const struct op *op, struct route_failure *ret_failure);
/* Carries out what the routing has decided. After each call of route_*. */
void thread_act(struct thread *t);
/* Has the turn's end come without waiting. What happens while connections write is after the
 * present one's. */
void thread_wake(struct thread *t);
/* A client has gone; it looks whether it was the last one of a stop. */
void thread_client_gone(struct thread *t);
