/* Who a manager of a group is: a random id, kept beside its raft log, and whether the log was ever
 * begun. The group's log names its members by these ids: a manager whose disk was lost or exchanged
 * has another one, and is not taken for the one that voted and promised. */
#pragma once

#include "io/io_error.h"
#include "wire/msg.h"

#include <stdbool.h>

struct raft_identity {
    uint8_t id[UUID_BYTES];
    bool begun; /* there must be a log */
};

/* Reads DIR/identity, or makes one, durable. -EBADMSG when it can't be read, other -errno. */
int raft_identity_open(const char *dir, struct raft_identity *ret, struct io_error *error);

/* The log was begun: durable. */
int raft_identity_begin(const char *dir, struct raft_identity *i, struct io_error *error);

/* 32 hexadecimal digits and NUL; and back: false when it is none. */
#define RAFT_IDENTITY_TEXT (2 * UUID_BYTES + 1)
void raft_identity_format(const uint8_t id[UUID_BYTES], char out[static RAFT_IDENTITY_TEXT]);
bool raft_identity_parse(const char *text, uint8_t ret_id[UUID_BYTES]);
