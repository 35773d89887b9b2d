#include "lin/lin.h"

#include "base/cleanup.h"
#include "base/mem.h"
#include "lin/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int lin_check_counter(const struct lin_op *ops, size_t n, uint64_t initial, uint64_t final)
{
    uint64_t acked = initial;
    uint64_t unknown = 0;

    for (size_t i = 0; i < n; i++) {
        if (ops[i].code != OP_INCR) {
            continue;
        }
        if (ops[i].result == RESULT_NUMBER) {
            acked += ops[i].operand;
        } else if (ops[i].result == LIN_UNKNOWN || ops[i].result == RESULT_UNKNOWN) {
            unknown += ops[i].operand;
        }
    }
    return final >= acked && final - acked <= unknown ? 0 : -ERANGE;
}

static size_t times_in(const uint8_t *element, size_t bytes, const uint8_t *p, size_t len)
{
    size_t times = 0;

    for (size_t at = 0; at + bytes <= len; at += bytes) {
        times += memcmp(p + at, element, bytes) == 0;
    }
    return times;
}

int lin_check_elements(const struct lin_op *ops, size_t n, size_t bytes, const uint8_t *final,
                       size_t final_len)
{
    size_t found = 0;

    for (size_t i = 0; i < n; i++) {
        bool acked = ops[i].result == RESULT_STORED;
        bool unknown = ops[i].result == LIN_UNKNOWN || ops[i].result == RESULT_UNKNOWN;
        size_t times;
        if (lin_is_read(ops[i].code) || ops[i].value_len != bytes) {
            continue;
        }
        times = times_in(ops[i].value, bytes, final, final_len);
        if (acked && times == 0) {
            return -ENOENT;
        }
        if (times > 1) {
            return -EEXIST;
        }
        if (times == 1 && !acked && !unknown) {
            return -EBADMSG;
        }
        found += times;
    }
    return found * bytes == final_len ? 0 : -EBADMSG;
}

/* A token and the value that a client saw with it. */
struct sighting {
    uint64_t token;
    size_t op;
};

static int sighting_compare(const void *a, const void *b)
{
    const struct sighting *x = a;
    const struct sighting *y = b;

    if (x->token != y->token) {
        return x->token < y->token ? -1 : 1;
    }
    return x->op < y->op ? -1 : x->op > y->op;
}

static bool value_is_told(const struct lin_op *o)
{
    switch (o->code) {
    case OP_GET:
    case OP_GAT:
        return o->result == RESULT_VALUE;
    case OP_SET:
    case OP_ADD:
    case OP_REPLACE:
    case OP_CAS:
        return o->result == RESULT_STORED;
    default: /* what it made of the value is not in the operation */
        return false;
    }
}

int lin_check_tokens(const struct lin_op *ops, size_t n, size_t *ret_second)
{
    _cleanup_free_ struct sighting *seen = mem_zalloc(n + 1, sizeof(*seen));
    size_t n_seen = 0;

    for (size_t i = 0; i < n; i++) {
        if (ops[i].token != 0 && value_is_told(&ops[i])) {
            seen[n_seen++] = (struct sighting){ ops[i].token, i };
        }
    }
    qsort(seen, n_seen, sizeof(*seen), sighting_compare);
    for (size_t i = 1; i < n_seen; i++) {
        const struct lin_op *a = &ops[seen[i - 1].op];
        const struct lin_op *b = &ops[seen[i].op];
        if (seen[i - 1].token == seen[i].token &&
            (a->value_len != b->value_len ||
             (a->value_len > 0 && memcmp(a->value, b->value, a->value_len) != 0))) {
            *ret_second = seen[i].op;
            return -EEXIST;
        }
    }
    return 0;
}
