/* One life of a kumo-server on a folder: a process of its own runs the daemon's code, with a stub
 * instead of the manager's connection (manager_stub.c) and a shim under its file calls, and clients
 * in a thread beside it. */
#pragma once

#include "io/segments.h"
#include "loader.h"
#include "shim.h"

#define RIG_KEYS          256
#define RIG_PARTITIONS    16
#define RIG_INTERVAL_USEC 10000 /* of sync = interval */

enum rig_end {
    RIG_CLEAN, /* a stop as by SIGTERM, all answered */
    RIG_KILL,  /* as by kill -9, with operations under way */
    RIG_REST,  /* all answered, then half a second of rest, then as by kill -9 */
};

/* "always", "interval", "os". False: none of them. */
bool rig_sync_parse(const char *name, enum sync_mode *ret);
extern const char *const rig_sync_names[];

struct rig_options {
    const char *dir;           /* absolute */
    const struct model *model; /* after a crash: how the keys may be found */
    struct journal *journal;
    enum sync_mode sync;
    uint32_t threads;
    uint64_t n_ops;
    uint64_t seed;
    enum rig_end end;
    struct shim_fault fault;
    uint64_t kill_after; /* see shim.h: then nothing else is expected of its end */
    uint32_t sync_usec_max;
    uint32_t pause_usec_max; /* see loader.h */
    bool wrong_values;       /* see loader.h */
};

enum rig_outcome {
    RIG_OK,      /* it ended as it was told, and nothing was wrong */
    RIG_WRONG,   /* lost or corrupt, or answers that are wrong */
    RIG_DAMAGED, /* as RIG_OK, but some keys can't be read, it says */
    RIG_REFUSED, /* it stopped with a sentence before every key was read */
    RIG_STOPPED, /* it stopped with a sentence, later */
    RIG_HUNG,    /* it did nothing for too long */
    RIG_DIED,    /* it ended without a sentence */
};
extern const char *const rig_outcome_names[];

struct rig_result {
    enum rig_outcome outcome;
    struct loader_report report;
    uint64_t calls[_SHIM_CALL_MAX];
    int status;      /* as waitpid gave it */
    bool complained; /* a sanitizer did */
    bool fired;      /* the fault */
    char last[512];  /* line that the server logged */
};

void rig_live(const struct rig_options *o, struct rig_result *ret);

/* ---- between rig.c and manager_stub.c, in the server's process ---- */

/* The server has partitions and listens; a session is open. */
void rig_on_listening(uint16_t port, uint64_t session);
