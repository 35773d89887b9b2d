/* The main thread's link to the managers: it brings the hash space, as a whole after each connect
 * and its changes from then on, and the threads' sessions (R12). */
#pragma once

#include "core/hashspace.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MANAGER_LINK_REQUEST_USEC                                                                  \
    2000000 /* a request without an answer for so long goes to the next manager */
#define MANAGER_LINK_RETRY_USEC    250000   /* how often what is still missing is asked for */
#define MANAGER_LINK_ALONE_USEC    500000   /* without a manager: then what is kept is used */
#define MANAGER_LINK_ALIVE_USEC    10000000 /* how often sessions are named (R12) */
#define MANAGER_LINK_STORE_USEC    1000000  /* changes of the hash space are kept this late */
#define MANAGER_LINK_SPARES        2        /* sessions that are kept, for each thread */
#define MANAGER_LINK_OUT_BYTES_MAX 65536
#define MANAGER_LINK_ADDRESSES_MAX 16

struct gateway;
struct io_error;
struct manager_link;
struct thread;

/* -errno with a sentence when an address can't be read. */
int manager_link_new(struct gateway *g, struct manager_link **ret_manager, struct io_error *error);
/* NULL is fine; returns NULL. */
struct manager_link *manager_link_free(struct manager_link *m);

/* Has a thread get a new session; again for a thread that is waiting: nothing. */
void manager_link_want_session(struct manager_link *m, struct thread *t);
/* Asks for the whole hash space, unless that is under way. */
void manager_link_want_table(struct manager_link *m);

bool manager_link_is_up(const struct manager_link *m);
/* Epoch 0: nothing known. */
const struct hashspace *manager_link_table(const struct manager_link *m);
/* Whether every partition has a primary. */
bool manager_link_table_is_whole(const struct manager_link *m);
