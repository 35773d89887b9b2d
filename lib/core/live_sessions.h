/* The sessions that are open (R12), as of an entry of the managers' log: what the managers keep and
 * what they tell the servers, by struct msg_sessions. Pure. */
#pragma once

#include "wire/msg.h"

#include <stdbool.h>

/* Valid when zeroed: nothing is known. */
struct live_sessions {
    uint64_t *ids; /* ascending */
    size_t n;
    size_t cap;
    uint64_t index; /* of the log: every session up to it that isn't here is over, or never was */
};

bool live_sessions_has(const struct live_sessions *l, uint64_t id);
/* The entry at `id` opened it: higher than all before. -ENOSPC: SESSIONS_MAX are open. */
int live_sessions_open(struct live_sessions *l, uint64_t id);
/* Returns whether it was open. */
bool live_sessions_end(struct live_sessions *l, uint64_t id, uint64_t index);

/* All of them, as a message; `ids` stays the set's. */
struct msg_sessions live_sessions_whole(const struct live_sessions *l);
/* Takes over what was told; what is older than what is known changes nothing. Returns whether it
 * was taken. */
bool live_sessions_told(struct live_sessions *l, const struct msg_sessions *m);

void live_sessions_free(struct live_sessions *l);
