/* State machines as tables: which state may follow which. State changes go through sm_move only,
 * which stops the process at a move that the table does not allow. */
#pragma once

#include "base/assert.h"

#include <stdint.h>

#define SM_STATES_MAX 16

struct sm_table {
    const char *name;
    unsigned n_states;
    const char *state_names[SM_STATES_MAX];
    uint16_t next[SM_STATES_MAX]; /* next[a] has bit b: a may be followed by b */
};

#define SM_TO(state) ((uint16_t) (1u << (state)))

static inline void sm_move(const struct sm_table *t, uint8_t *state, uint8_t to)
{
    kumo_assert(*state < t->n_states);
    kumo_assert(to < t->n_states);
    kumo_assert(t->next[*state] & SM_TO(to));
    *state = to;
}
