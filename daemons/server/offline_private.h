/* Inside of the offline verbs: offline.c (command line), offline_scan.c (reading segments past
 * damage), offline_check.c, offline_rebuild.c, offline_salvage*.c. */
#pragma once

#include "io/datadir.h"
#include "offline.h"

enum offline_status {
    OFFLINE_OK = 0,
    OFFLINE_PROBLEMS = 1,
    OFFLINE_FAILED = 2, /* nothing is known: busy, not there, no rights, no descriptors */
};

/* ---- offline.c ---- */

/* "WHAT done of total" on a terminal's stderr, a few times a second; total 0 takes the line away.
 */
void offline_progress(const char *what, uint64_t done, uint64_t total);
/* Prints an error of opening or replaying a directory. Damage is a problem; all else is failure. */
enum offline_status offline_refuse(int r, const struct io_error *error);
/* What is written must be readable by the user whom the directory belongs to: as root becomes that
 * user. -EPERM with a sentence. */
int offline_become_owner(const char *dir, struct io_error *error);

/* ---- offline_scan.c ---- */

struct scan {
    void *ctx;
    /* Each readable frame, in order, also behind damage. */
    void (*frame)(void *ctx, const struct wal_segment *s, const struct frame *f,
                  struct position at);
    /* Bytes [from, to) hold no readable frame; `what` they were, as far as that can be told. */
    void (*lost)(void *ctx, const struct wal_segment *s, uint64_t from, uint64_t to,
                 const char *what);
};
/* Reads a segment past all damage, groups by the checksum that continues from the segment's head.
 * s->head need not be readable. */
void offline_scan(const struct wal_segment *s, const struct scan *scan);

/* ---- the verbs ---- */

/* *ret_torn: there is something readable in the torn tail, which a start cuts off. */
enum offline_status offline_check(const char *dir, bool *ret_torn);
enum offline_status offline_rebuild(const char *dir);
/* `confirmed`: doesn't ask. */
enum offline_status offline_salvage(const char *dir, bool confirmed);
