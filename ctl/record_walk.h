/* Records out of a data directory or a backup, into a sink. */
#pragma once

#include "record_progress.h"
#include "record_sink.h"

#include <signal.h>

#define BACKUP_INFO_NAME "BACKUP.json" /* written last: marks a backup that is whole */

/* Opens a stopped server's data directory, or a backup. */
int record_source_open(const char *dir, struct datadir **ret, struct io_error *error);
/* Is this a backup that is whole? */
bool record_source_is_backup(const char *dir);

struct record_walk {
    struct record_sink *sink;
    const bool *partitions; /* wanted ones; NULL: all */
    bool check_only;        /* asks the sink whether it could take them, and no more */
    const volatile sig_atomic_t *interrupted;

    uint64_t records; /* given to the sink */
    uint64_t expired; /* left out, their time is over */

    uint64_t now_usec; /* the walk's own */
    struct record_progress progress;
    struct io_error *error;
};

/* Gives all live records to the sink, and finishes it. May be run again. */
int record_walk_run(struct record_walk *w, struct datadir *d, struct io_error *error);
