/* What a gateway keeps on disk so that it can start while no manager answers: the hash space as it
 * was told last, and a few sessions that were opened and never used (R12). One process at a time;
 * main thread only. A damaged or missing file is as good as none. */
#pragma once

#include "core/hashspace.h"
#include "io/io_error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STORE_SESSIONS_MAX 256
/* Files beyond it are damaged. */
#define STORE_BYTES_MAX MSG_BYTES_MAX

struct store;

/* Makes the folder if need be, locks and reads it. -errno with a sentence: it can't be used, or
 * another gateway does. */
int store_open(const char *dir, struct store **ret_store, struct io_error *error);
/* NULL is fine; returns NULL. */
struct store *store_free(struct store *s);

/* Sessions that wait to be used; until the next call. */
size_t store_sessions(const struct store *s, const uint64_t **ret_ids);
/* A session was opened for later. */
void store_add_session(struct store *s, uint64_t session);
/* It is over. */
void store_drop_session(struct store *s, uint64_t session);
/* Takes one out, durably, before anything is done in it: no later process must use it. 0: there is
 * none, or the disk doesn't let it. */
uint64_t store_take_session(struct store *s);

/* The hash space was told by a manager: kept. Sessions of another cluster go. */
void store_put_table(struct store *s, const struct hashspace *h);
/* Puts the kept one into an empty hash space. False: there is none. */
bool store_get_table(const struct store *s, struct hashspace *h);
