#include "lin/state.h"

#include "base/buf.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_DIGITS_MAX 20

/* Reads an unsigned decimal number that fits 64 bits. */
static bool number_parse(const uint8_t *p, size_t bytes, uint64_t *ret)
{
    unsigned __int128 n = 0;

    if (bytes == 0 || bytes > NUMBER_DIGITS_MAX) {
        return false;
    }
    for (size_t i = 0; i < bytes; i++) {
        if (p[i] < '0' || p[i] > '9') {
            return false;
        }
        n = n * 10 + (p[i] - '0');
    }
    *ret = (uint64_t) n;
    return n <= UINT64_MAX;
}

static uint64_t bytes_hash(const uint8_t *p, size_t bytes)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < bytes; i++) {
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    }
    return map_hash_u64(h);
}

uint32_t lin_values_add(struct lin_values *vs, const uint8_t *p, size_t bytes)
{
    struct lin_value *v;
    uint64_t h;

    while (bytes > 0 && p[bytes - 1] == ' ') {
        bytes--;
    }
    h = bytes_hash(p, bytes);
    for (struct map_node *i = map_first(&vs->map, h); i; i = map_next(i)) {
        v = MAP_ENTRY(i, struct lin_value, node);
        if (v->bytes == bytes && (bytes == 0 || memcmp(v->data, p, bytes) == 0)) {
            return v->id;
        }
    }
    v = mem_zalloc(1, sizeof(*v));
    v->bytes = bytes;
    v->data = mem_alloc(bytes + 1);
    if (bytes > 0) {
        memcpy(v->data, p, bytes);
    }
    v->is_number = number_parse(v->data, bytes, &v->number);
    mem_grow(&vs->v, &vs->cap, vs->n + 1, sizeof(struct lin_value *));
    vs->v[vs->n++] = v;
    v->id = (uint32_t) vs->n;
    map_insert(&vs->map, &v->node, h);
    return v->id;
}

void lin_values_free(struct lin_values *vs)
{
    for (size_t i = 0; i < vs->n; i++) {
        free(vs->v[i]->data);
        free(vs->v[i]);
    }
    free(vs->v);
    map_free(&vs->map);
    *vs = (struct lin_values){ 0 };
}

static const struct lin_value *value_of(const struct lin_values *vs, uint32_t id)
{
    return vs->v[id - 1];
}

static uint32_t value_join(struct lin_values *vs, uint32_t a, uint32_t b)
{
    struct buf joined = { 0 };
    uint32_t id;

    buf_append(&joined, value_of(vs, a)->data, value_of(vs, a)->bytes);
    buf_append(&joined, value_of(vs, b)->data, value_of(vs, b)->bytes);
    id = lin_values_add(vs, buf_head(&joined), buf_len(&joined));
    buf_free(&joined);
    return id;
}

static uint32_t value_of_number(struct lin_values *vs, uint64_t n)
{
    char text[NUMBER_DIGITS_MAX + 1];
    int bytes = snprintf(text, sizeof(text), "%llu", (unsigned long long) n);

    return lin_values_add(vs, (const uint8_t *) text, (size_t) bytes);
}

bool lin_is_read(uint8_t code)
{
    return code == OP_GET || code == OP_GAT;
}

/* A write made a record: it has a token of its own, told now or seen later. */
static bool record_set(struct lin_state *s, const struct lin_op *o, uint32_t value, uint32_t flags)
{
    if (o->token != 0 && o->token <= s->floor) {
        return false;
    }
    s->value = value;
    s->flags = flags;
    s->token = o->token;
    s->floor = o->token != 0 ? o->token : s->floor;
    return true;
}

static void record_remove(struct lin_state *s)
{
    s->value = 0;
    s->flags = 0;
    s->token = 0;
}

/* Is `token` that of the record? An unbound record takes any token that was not used before. */
static bool token_bind(struct lin_state *s, uint64_t token)
{
    if (s->token != 0) {
        return s->token == token;
    }
    if (token <= s->floor) {
        return false;
    }
    s->token = s->floor = token;
    return true;
}

static bool step_read(struct lin_state *s, const struct lin_op *o, uint32_t value)
{
    if (o->result == RESULT_NOT_FOUND) {
        return s->value == 0;
    }
    return o->result == RESULT_VALUE && s->value == value && s->flags == o->flags &&
           (o->token == 0 || token_bind(s, o->token));
}

/* The new record of a write that stores under a condition; `holds` says whether it does. */
static bool step_store(struct lin_state *s, const struct lin_op *o, bool holds, uint8_t otherwise,
                       uint32_t value, uint32_t flags)
{
    if (o->result == LIN_UNKNOWN || o->result == RESULT_STORED) {
        return holds && record_set(s, o, value, flags);
    }
    return !holds && o->result == otherwise;
}

static bool step_append(struct lin_values *vs, struct lin_state *s, const struct lin_op *o,
                        uint32_t value)
{
    uint32_t joined = 0;

    if (o->result == RESULT_TOO_LARGE) {
        return s->value != 0;
    }
    if (s->value != 0) {
        joined = o->code == OP_APPEND ? value_join(vs, s->value, value)
                                      : value_join(vs, value, s->value);
    }
    return step_store(s, o, s->value != 0, RESULT_NOT_STORED, joined, s->flags);
}

static bool step_cas(struct lin_state *s, const struct lin_op *o, uint32_t value)
{
    switch (o->result) {
    case LIN_UNKNOWN:
    case RESULT_STORED:
        return s->value != 0 && token_bind(s, o->operand) && record_set(s, o, value, o->flags);
    case RESULT_EXISTS:
        return s->value != 0 && (s->token == 0 || s->token != o->operand);
    default:
        return o->result == RESULT_NOT_FOUND && s->value == 0;
    }
}

static bool step_number(struct lin_values *vs, struct lin_state *s, const struct lin_op *o)
{
    const struct lin_value *v = s->value != 0 ? value_of(vs, s->value) : NULL;
    uint64_t n;

    if (o->result == RESULT_NOT_FOUND) {
        return !v;
    }
    if (o->result == RESULT_NON_NUMERIC) {
        return v && !v->is_number;
    }
    if (!v || !v->is_number || (o->result != LIN_UNKNOWN && o->result != RESULT_NUMBER)) {
        return false;
    }
    if (o->code == OP_INCR) {
        n = v->number + o->operand;
    } else {
        n = v->number > o->operand ? v->number - o->operand : 0;
    }
    if (o->result == RESULT_NUMBER && o->number != n) {
        return false;
    }
    return record_set(s, o, value_of_number(vs, n), s->flags);
}

static bool step_delete(struct lin_state *s, const struct lin_op *o)
{
    bool there = s->value != 0;

    if (o->result == RESULT_NOT_FOUND) {
        return !there;
    }
    record_remove(s);
    return there && (o->result == LIN_UNKNOWN || o->result == RESULT_DELETED);
}

bool lin_step(struct lin_values *vs, const struct lin_state *s, const struct lin_op *o,
              uint32_t value, struct lin_state *ret_next)
{
    struct lin_state *n = ret_next;

    *n = *s;
    switch (o->code) {
    case OP_GET:
    case OP_GAT:
        return step_read(n, o, value);
    case OP_SET:
        return step_store(n, o, true, RESULT_STORED, value, o->flags);
    case OP_ADD:
        return step_store(n, o, s->value == 0, RESULT_NOT_STORED, value, o->flags);
    case OP_REPLACE:
        return step_store(n, o, s->value != 0, RESULT_NOT_STORED, value, o->flags);
    case OP_APPEND:
    case OP_PREPEND:
        return step_append(vs, n, o, value);
    case OP_CAS:
        return step_cas(n, o, value);
    case OP_DELETE:
        return step_delete(n, o);
    case OP_INCR:
    case OP_DECR:
        return step_number(vs, n, o);
    case OP_TOUCH: /* histories have no expiry: it only looks whether the key is there */
        return o->result == (s->value != 0 ? RESULT_TOUCHED : RESULT_NOT_FOUND) ||
               o->result == LIN_UNKNOWN;
    case OP_FLUSH: /* of the key's partition */
        record_remove(n);
        return o->result == RESULT_FLUSHED || o->result == LIN_UNKNOWN;
    case LIN_EXPIRE:
        record_remove(n);
        return s->value == value;
    default:
        return false;
    }
}
