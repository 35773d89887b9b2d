/* Adds records to a stopped server's data directory: the log gets what the server would have
 * written just before its stop, in segments of a start of its own. Possible where this server alone
 * decides: it is the only member of the partition's view, so that nobody has another copy.
 *
 * A process that dies in the middle leaves a directory that a server starts on, with a part of the
 * records. */
#pragma once

#include "io/datadir.h"

struct datadir_writer;

/* Takes the directory's lock and replays it. -EBUSY: a server runs on it; -EPERM: it belongs to
 * another user, whose server could not read the new files; -EUCLEAN: the server was killed, and
 * what it left must be settled by a start first; and the errors of datadir_open, each with a
 * sentence. */
int datadir_writer_open(const char *dir, struct datadir_writer **ret, struct io_error *error);
/* What isn't flushed is lost. NULL is fine; returns NULL. */
struct datadir_writer *datadir_writer_free(struct datadir_writer *w);

/* Could this record be put? -EPERM with a sentence: this server doesn't hold its partition alone.
 * Changes nothing. */
int datadir_writer_check(const struct datadir_writer *w, const struct entry *e,
                         struct io_error *error);
/* Adds a record: key, value, flags and expiry_sec of *e. It replaces the key's record. Flushes now
 * and then. */
int datadir_writer_put(struct datadir_writer *w, const struct entry *e, struct io_error *error);
/* All that was put is durable when this returns 0. After an error nothing more can be put. */
int datadir_writer_flush(struct datadir_writer *w, struct io_error *error);
/* So many records, the first ones, are durable. */
uint64_t datadir_writer_done(const struct datadir_writer *w);
