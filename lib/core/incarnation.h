/* Which process of a server this is. The managers keep the highest (counter, random) that they
 * accepted and refuse all below it and an equal counter with another random number: a copy of a
 * data directory, or a restored one, is told apart from its original for good. Kept in the
 * superblock; nothing else is sent before an acceptance is durable there. Pure: random numbers are
 * a parameter. */
#pragma once

#include "wire/msg.h"

#include <stdbool.h>

/* Zeroed: of a server that never started. */
struct incarnation {
    uint64_t accepted; /* counter of the last one that is known to be accepted */
    uint64_t counter;  /* this process: accepted + 1 until it is accepted… */
    uint64_t random;   /* …and the other half */
    bool sent;         /* a manager may have seen that pair */
    uint32_t n_priors;
    /* pairs of earlier starts with this counter that a manager may have seen: if one of them was
     * accepted and a crash kept that from this disk, they prove that this start follows it */
    uint64_t priors[PRIORS_MAX];
};

/* A new process begins; durable before the manager is told. When there is no room for one more
 * prior, the last pair is kept. */
void incarnation_begin(struct incarnation *i, uint64_t random);
/* About to tell a manager. Returns whether that changed it: then durable first. */
bool incarnation_sending(struct incarnation *i);
/* A manager accepted it: durable before anything else is sent. */
void incarnation_accepted(struct incarnation *i);
/* Fills in what a registration says of it. */
void incarnation_fill(const struct incarnation *i, struct msg_register *m);
