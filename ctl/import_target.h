/* Where `import` and `restore` bring records: a stopped server's data directory, or a live cluster
 * through one of its gateways. */
#pragma once

#include "record_sink.h"
#include "verb.h"

/* Records that were put and may not be done: at most so many. */
#define IMPORT_WINDOW 8192

/* `target`: a directory, or HOST:PORT. Said what is wrong: NULL. */
struct record_sink *import_target_open(const struct ctl *ctl, const char *target);

/* The two kinds. */
int import_dir_open(const char *dir, struct record_sink **ret, struct io_error *error);
int import_gateway_open(const char *address, uint64_t timeout_usec, struct record_sink **ret,
                        struct io_error *error);
