/* Raft's messages between C-Raft's structs and our bytes (wire/raft_msg.h). Used by the raft node
 * only. */
#pragma once

#include "base/buf.h"
#include "wire/mp.h"

#include <raft.h>

/* Appends the message. Of the entries of an append, those beyond `bytes_max` are left out, but
 * never the first: who gets it asks for the rest. */
void raft_wire_put(struct buf *b, const struct raft_message *m, size_t bytes_max);

/* Reads one into `ret`, but for who sent it. 0: its memory is as C-Raft's receive callback wants
 * it, which takes it over. -EBADMSG, -ENOMEM: nothing to free. */
int raft_wire_get(struct mp_reader *r, struct raft_message *ret);

/* Frees what raft_wire_get made and nobody took. */
void raft_wire_free(struct raft_message *m);
