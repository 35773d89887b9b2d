/* The search through one piece of a history: a run of operations between two moments at which none
 * (but those of unknown outcome) was under way. */
#pragma once

#include "lin/state.h"

/* A state that the piece before can have left, and which operations of unknown outcome it took for
 * that (bit i: carried[i]). */
struct lin_config {
    struct lin_state state;
    uint64_t used;
};

struct lin_configs {
    struct lin_config *v;
    size_t n;
    size_t cap;
};

struct lin_search {
    const struct lin_op *ops;
    const uint32_t *value_ids; /* of ops */
    struct lin_values *values;
    size_t visited; /* configurations so far, of all pieces */

    /* operations of unknown outcome from earlier pieces, and those of this one after them */
    size_t carried[LIN_UNKNOWN_MAX];
    size_t n_carried;

    size_t stuck; /* the operation at which the search that came furthest ended */
    size_t furthest;
};

/* Puts into *out every configuration that the operations [begin, end) can lead to from those in
 * `in`; none when nothing explains them. False: gave up. */
bool lin_search_piece(struct lin_search *s, size_t begin, size_t end, const struct lin_configs *in,
                      struct lin_configs *out);

/* Adds a configuration unless one that allows more is there. */
void lin_configs_add(struct lin_configs *c, const struct lin_config *config);
