/* What the clients of one server know of its keys: per key the states that it went through, the
 * last of them perhaps unanswered. After a crash a key may be in any state from the last one that
 * must have survived. */
#pragma once

#include "journal.h"

#define MODEL_KEYS_MAX 1024

/* Equal states are the same record, up to a collision of 64 bits. */
struct state {
    bool exists;
    uint32_t flags;
    uint32_t bytes;
    uint64_t hash; /* of the value */
};
bool state_equal(const struct state *a, const struct state *b);
uint64_t state_hash(const uint8_t *value, size_t bytes);

struct model;

/* `n` keys, none of them there. */
struct model *model_new(size_t n);
struct model *model_copy(const struct model *m);
/* NULL is fine; returns NULL. */
struct model *model_free(struct model *m);
size_t model_keys(const struct model *m);

/* Records of files are passed over. */
void model_apply(struct model *m, const struct record *r, uint64_t position);

/* A crash: what was answered before position `durable` must be there, what was submitted or
 * answered later may be. */
void model_crash(struct model *m, uint64_t durable);

enum verdict {
    VERDICT_RIGHT,
    VERDICT_LOST,    /* an older state: a write is lost, or a deleted record is back */
    VERDICT_CORRUPT, /* never was so */
};
/* The oldest state that a key may be in after model_crash. */
struct state model_certain(const struct model *m, size_t key);
/* Of a state that a key was found in after model_crash. */
enum verdict model_judge(const struct model *m, size_t key, const struct state *found);
