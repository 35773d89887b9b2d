/* A line on the terminal that tells how far a long work is. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct record_progress {
    const char *what; /* "records" */
    uint64_t next_usec;
    bool shown;
};

/* Says it now and then, when the standard error is a terminal. */
void record_progress_show(struct record_progress *p, uint64_t n);
/* Takes the line away. */
void record_progress_end(struct record_progress *p);
