/* Under the file calls of the server's code (the linker's --wrap puts it there): writes into the
 * journal what is done to the files of one folder, and makes a chosen call fail. Syncs are not
 * passed on: what a disk would hold is derived from the journal. */
#pragma once

#include "journal.h"

#include <stdatomic.h>

enum shim_call {
    SHIM_WRITE, /* write, pwrite */
    SHIM_SPACE, /* what needs room: these, and making a file; the first that fails writes half */
    SHIM_FDATASYNC,
    SHIM_FSYNC,
    SHIM_TRUNCATE, /* ftruncate, truncate */
    SHIM_RENAME,
    SHIM_UNLINK,
    SHIM_OPEN,
    SHIM_MMAP,
    SHIM_MALLOC,
    _SHIM_CALL_MAX,
};
extern const char *const shim_call_names[_SHIM_CALL_MAX];

/* Which call fails, counted over the life of one process; calls outside of the folder don't count,
 * except for memory. */
struct shim_fault {
    enum shim_call call;
    uint64_t nth;  /* 0: none */
    uint64_t last; /* all from nth to this one fail */
    int error;
};

/* Shared with the process: what came to pass. */
struct shim_counts {
    _Atomic uint64_t calls[_SHIM_CALL_MAX];
    _Atomic bool fired;
};

struct shim_options {
    struct journal *journal;
    const char *dir; /* absolute; stays valid */
    struct shim_fault fault;
    struct shim_counts *counts;
    uint64_t kill_after;    /* so many changes of files the process ends as by kill -9; 0: never */
    uint32_t sync_usec_max; /* a sync takes a random time up to this */
    uint64_t seed;
};

/* Once, before the process has other threads. */
void shim_begin(const struct shim_options *o);
/* The calling thread is the test's: its memory doesn't count. */
void shim_exempt(void);
/* The process ends at once, as by kill -9, between two records. */
void shim_kill(void) __attribute__((noreturn));
