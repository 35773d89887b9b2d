#include "record_progress.h"

#include "io/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#define PROGRESS_USEC  250000
#define PROGRESS_EVERY 256 /* looks at the clock every so many */

void record_progress_show(struct record_progress *p, uint64_t n)
{
    uint64_t now_usec;

    if (n % PROGRESS_EVERY != 0 || !isatty(STDERR_FILENO)) {
        return;
    }
    now_usec = clock_boot_usec();
    if (p->next_usec == 0) {
        p->next_usec = now_usec + PROGRESS_USEC; /* a short work shows none */
    } else if (now_usec >= p->next_usec) {
        fprintf(stderr, "\r%" PRIu64 " %s", n, p->what);
        p->next_usec = now_usec + PROGRESS_USEC;
        p->shown = true;
    }
}

void record_progress_end(struct record_progress *p)
{
    if (p->shown) {
        fputs("\r\x1b[K", stderr);
        p->shown = false;
    }
}
