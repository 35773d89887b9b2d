/* The clients of one server, in a thread of its process: read every key, and say whether it may be
 * so; then set, append to, delete and read keys at random. A key has one operation under way. Notes
 * in the journal what was submitted, answered and observed. */
#pragma once

#include "journal.h"
#include "model.h"

#include <stdatomic.h>

#define LOADER_WHY_BYTES 256

/* What was found wrong; shared with the test's process. */
struct loader_report {
    _Atomic bool verified;     /* every key was read */
    _Atomic bool done;         /* every operation was submitted and, unless killed, answered */
    _Atomic uint64_t answered; /* operations that changed something */
    _Atomic uint64_t refused;  /* for lack of room */
    uint64_t damaged;          /* keys that the server says it can't read */
    uint64_t lost;
    uint64_t corrupt;           /* wrong answers, too */
    char why[LOADER_WHY_BYTES]; /* the first that was found */
};

struct loader_options {
    const struct model *model; /* after a crash: how the keys may be found */
    struct journal *journal;
    struct loader_report *report;
    uint32_t partitions;
    uint32_t shards;
    uint64_t n_ops; /* at least, and until there is room again */
    uint64_t seed;
    uint64_t session;        /* that the server knows as open; of no life before */
    uint32_t pause_usec_max; /* between bursts of operations */
    bool wrong_values;       /* planted: now and then the model is told another value */
    bool waits;              /* at the end for all answers; else some are still under way */
};

/* Until all is done, or the server went. */
void loader_run(const struct loader_options *o, uint16_t port);
