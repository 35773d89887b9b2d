/* Long work that threads do beside a loop: how far it is, for the status; and its end before time.
 * One per process start; phases follow each other. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROGRESS_TEXT_BYTES 128
/* Work of more bytes is done in pieces of about so many, each followed by progress_add. */
#define PROGRESS_STEP_BYTES (UINT64_C(4) << 20)

/* Valid when zeroed: no phase. What is shown of it may be a moment old, or of two phases. */
struct progress {
    unsigned threads; /* that progress_spread uses; 0: one */
    _Atomic(const char *) what;
    _Atomic(const char *) unit; /* NULL: a percentage is told */
    _Atomic uint64_t items;
    _Atomic uint64_t items_done;
    _Atomic uint64_t bytes;
    _Atomic uint64_t bytes_done;
    _Atomic uint64_t moves; /* grows whenever anything was done, over all phases */
    _Atomic bool stopped;
};

/* All take NULL for work that nobody watches. */

/* A phase begins: "checking the log", of `items` "segments" with `bytes` in all. The strings stay.
 */
void progress_begin(struct progress *p, const char *what, const char *unit, uint64_t items,
                    uint64_t bytes);
/* So many bytes are done. -ECANCELED: the work shall end. From any thread. */
int progress_add(struct progress *p, uint64_t bytes);
/* No phase is under way any more. */
void progress_end(struct progress *p);
/* The work shall end as soon as it can. From any thread. */
void progress_stop(struct progress *p);
/* "checking the log: 3 of 10 segments, 1.2 GB of 4.0 GB"; false: no phase is under way. */
bool progress_text(const struct progress *p, char out[PROGRESS_TEXT_BYTES]);

/* Calls fn(ctx, i) once for each item of the phase, in any order, in several threads, and returns
 * when they have ended: 0, or what an fn returned that failed, after which no others begin. */
typedef int (*progress_fn)(void *ctx, size_t item);
int progress_spread(struct progress *p, size_t items, progress_fn fn, void *ctx);
