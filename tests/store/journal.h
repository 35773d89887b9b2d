/* What one server after the other did to its files, and what its clients were answered, in one
 * sequence: the tests of the store derive from it what a disk may hold, and what it must, at any
 * instant. It lies in memory that the servers' processes share with the test. A record's offset is
 * its position, and rises with time. */
#pragma once

#include "base/rng.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum record_kind {
    RECORD_LIFE = 1,   /* a process began: no file is open */
    RECORD_MKDIR,      /* payload: path */
    RECORD_OPEN,       /* payload: path; flag: truncated to nothing */
    RECORD_CLOSE,      /* fd */
    RECORD_WRITE,      /* fd, at; payload: the bytes */
    RECORD_TRUNCATE,   /* fd, or -1 and payload: path; at: new size */
    RECORD_SYNC_BEGIN, /* fd */
    RECORD_SYNC_END,   /* fd; flag: it failed */
    RECORD_RENAME,     /* payload: old path, NUL, new path; flag: the two are swapped */
    RECORD_UNLINK,     /* payload: path */
    RECORD_SUBMIT,     /* at: key; payload: struct state, the key's if the operation is done */
    RECORD_ANSWER,     /* at: key; flag: the operation was not done */
    RECORD_OBSERVED,   /* at: key; payload: struct state, as it was read after a start */
    _RECORD_KIND_MAX,
};

struct record {
    uint32_t kind;
    int32_t fd;
    uint64_t at;
    uint64_t usec;  /* when, by any clock that doesn't jump; set by journal_add */
    uint32_t bytes; /* of the payload */
    bool flag;
    uint8_t payload[];
};

struct journal;

/* Room for `bytes` bytes; the memory is taken as it is used. Never NULL. */
struct journal *journal_new(size_t bytes);
void journal_free(struct journal *j);
/* Empty again. */
void journal_clear(struct journal *j);
/* A process that died may have held the lock. */
void journal_adopt(struct journal *j);

/* Between lock and unlock a change and its record are one. */
void journal_lock(struct journal *j);
void journal_unlock(struct journal *j);
/* Within the lock. A full journal ends the process. */
void journal_add(struct journal *j, const struct record *head, const void *payload, size_t bytes);
/* The same for a record of its own. */
void journal_note(struct journal *j, const struct record *head, const void *payload, size_t bytes);

/* Records in order: position 0 is the first; NULL at the end. */
const struct record *journal_at(const struct journal *j, uint64_t position);
uint64_t journal_next(const struct journal *j, uint64_t position);
uint64_t journal_end(const struct journal *j);
/* Of a record at random between two positions, the first included; there must be one. */
uint64_t journal_any(const struct journal *j, struct rng *rng, uint64_t from, uint64_t to);
