/* What an operation does to a record: evaluated once, by the primary, when it proposes (R3). Pure:
 * the record, the operation and the time go in, the outcome comes out. */
#pragma once

#include "wire/msg.h"

#include <stdbool.h>

/* A key's record as the operation finds it. */
struct record {
    bool exists; /* and is alive: not deleted, expired or flushed */
    uint32_t flags;
    uint32_t expiry_sec;
    uint32_t value_len;
    uint64_t cas;
    const uint8_t *value;
};

struct slice {
    const uint8_t *p;
    uint32_t bytes;
};

#define OUTCOME_NUMBER_BYTES 24

struct outcome {
    bool proposes;  /* an entry of `kind` is to be made; else `answer` is all */
    uint8_t kind;   /* enum entry_kind */
    uint8_t answer; /* enum result_code */
    bool keeps_cas; /* the record's token stays (touch) */
    uint32_t flags;
    uint32_t expiry_sec;
    struct slice value[2]; /* of the new record, in this order */
    char number[OUTCOME_NUMBER_BYTES];
};

/* Fills *ret; slices point into the operation, the record, or ret->number. OP_GET isn't evaluated:
 * it is a read. */
void operation_evaluate(const struct op *o, const struct record *rec, uint64_t now_usec,
                        size_t value_bytes_max, struct outcome *ret);

/* Is a record with this expiry over at this partition time? */
static inline bool expiry_is_over(uint32_t expiry_sec, uint64_t now_usec)
{
    return expiry_sec != 0 && now_usec >= expiry_sec * UINT64_C(1000000);
}
