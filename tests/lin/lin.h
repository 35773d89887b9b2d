/* Is what clients saw of one key possible? Checks a key's history for linearizability by Wing and
 * Gong's search with Lowe's memo (Lowe, "Testing for linearizability", 2017), and offers two linear
 * checks that find most bugs by themselves. Pure; knows operations and results (wire/msg.h),
 * nothing of replication. */
#pragma once

#include "wire/msg.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* `ret` of an operation whose outcome nobody knows: it may have happened at any time after its
 * call, may still happen, or never. */
#define LIN_NEVER   UINT64_MAX
#define LIN_UNKNOWN 0

/* A code beside enum op_code: the value may expire from now on. Its outcome is always unknown. */
#define LIN_EXPIRE 200

/* Configurations that a check may visit before it gives up. */
#define LIN_CACHE_MAX 10000000
/* Operations of unknown outcome that one key may have. */
#define LIN_UNKNOWN_MAX 64

/* One operation of one client on the key. Times are of one logical clock. */
struct lin_op {
    uint64_t call;
    uint64_t ret; /* LIN_NEVER: unknown */
    uint32_t client;
    uint8_t code;         /* enum op_code; OP_GET is memcached's gets when it has a token */
    uint8_t result;       /* enum result_code, or LIN_UNKNOWN */
    uint32_t flags;       /* told by a write, or read */
    uint64_t operand;     /* delta of incr and decr, token of cas */
    uint64_t token;       /* of the record after a write, or read; 0: not told */
    uint64_t number;      /* of RESULT_NUMBER */
    const uint8_t *value; /* told by a write, or read */
    uint32_t value_len;
};

enum lin_verdict {
    LIN_OK,
    LIN_BAD,     /* no order of the operations explains the results */
    LIN_GAVE_UP, /* too many configurations or unknown outcomes: counts as a failure */
};

struct lin_report {
    size_t stuck;      /* index of an operation that nothing explains, of those reached */
    size_t begin, end; /* its piece: indexes in the order of the calls */
    size_t visited;    /* configurations */
    char why[160];
};

/* Checks one key's history; it is absent at first. The array is sorted by call. Operations that
 * certainly did nothing (refused ones) are passed over. */
enum lin_verdict lin_check(struct lin_op *ops, size_t n, struct lin_report *ret);

/* A key that only incr (by any delta) changed since it was `initial`: `final` lies within what was
 * acknowledged and that plus what is unknown. 0 or -ERANGE. */
int lin_check_counter(const struct lin_op *ops, size_t n, uint64_t initial, uint64_t final);

/* A key to which elements of `bytes` bytes, each unlike all others, were appended or prepended:
 * `final` has each acknowledged one exactly once, each unknown one at most once, and nothing else.
 * 0, or -ENOENT: an acknowledged element is lost, -EEXIST: one stands in it twice, -EBADMSG: nobody
 * wrote this. */
int lin_check_elements(const struct lin_op *ops, size_t n, size_t bytes, const uint8_t *final,
                       size_t final_len);

/* A token stands for one write: no token was seen with two values. 0 or -EEXIST and *ret_second. */
int lin_check_tokens(const struct lin_op *ops, size_t n, size_t *ret_second);

/* Does an operation with this code never change what the key holds? */
bool lin_is_read(uint8_t code);

/* Prints an operation as a line of text. */
void lin_print(FILE *f, const struct lin_op *o);
