/* What a key holds, as the checker sees it, and what an operation does to it. */
#pragma once

#include "base/map.h"
#include "lin/lin.h"

#include <stdbool.h>

/* Compared and hashed as bytes: no padding. */
struct lin_state {
    uint32_t value; /* of the values below; 0: the key is absent */
    uint32_t flags;
    uint64_t token; /* of the record; 0: nobody was told yet (unbound) */
    uint64_t floor; /* highest token known to be used: a new one is higher */
};

struct lin_value {
    struct map_node node;
    uint32_t id;
    bool is_number;
    uint64_t number;
    size_t bytes;
    uint8_t *data;
};

/* All values of a history, each once. Valid when zeroed. */
struct lin_values {
    struct map map;
    struct lin_value **v; /* v[id - 1] */
    size_t n;
    size_t cap;
};

/* The value's id. Spaces at its end don't count: a decremented number may keep its length by them.
 */
uint32_t lin_values_add(struct lin_values *vs, const uint8_t *p, size_t bytes);
void lin_values_free(struct lin_values *vs);

/* Can the operation, with its result, happen in this state? Then sets *ret_next. `value` is the id
 * of o->value. One of unknown outcome can happen whenever it would do something. */
bool lin_step(struct lin_values *vs, const struct lin_state *s, const struct lin_op *o,
              uint32_t value, struct lin_state *ret_next);
