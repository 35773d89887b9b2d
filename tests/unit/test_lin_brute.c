/* The checker of histories against brute force: on small histories, good, spoilt and made up, its
 * verdict is that of trying every order of the operations. What an operation does is written here
 * once more, by executing it, so that a mistake in the checker's own rules shows too. */
#include "base/cleanup.h"
#include "base/rng.h"
#include "lin/lin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OPS_MAX     7
#define CLIENTS_MAX 3
#define TEXT_MAX    64
#define HISTORIES   20000 /* of each sort */
#define STEPS_MAX   200   /* of making one */

/* ---- a key, and what an operation does to it ---- */

struct key {
    bool there;
    char text[TEXT_MAX];
    size_t bytes;
    uint32_t flags;
    size_t write; /* the one that made the record: an index of tokens */
    uint64_t tokens[OPS_MAX + 1];
    size_t n_writes;
};

static void key_store(struct key *k, const void *value, size_t bytes, uint32_t flags)
{
    assert_true(bytes <= TEXT_MAX);
    memmove(k->text, value, bytes);
    k->bytes = bytes;
    k->there = true;
    k->flags = flags;
    k->write = k->n_writes++;
    k->tokens[k->write] = 0;
}

static uint8_t key_store_if(struct key *k, bool holds, const struct lin_op *o)
{
    if (!holds) {
        return RESULT_NOT_STORED;
    }
    key_store(k, o->value, o->value_len, o->flags);
    return RESULT_STORED;
}

static uint8_t key_join(struct key *k, const struct lin_op *o)
{
    char text[2 * TEXT_MAX];
    size_t old_at = o->code == OP_PREPEND ? o->value_len : 0;
    size_t new_at = o->code == OP_PREPEND ? 0 : k->bytes;

    if (!k->there) {
        return RESULT_NOT_STORED;
    }
    memcpy(text + old_at, k->text, k->bytes);
    memcpy(text + new_at, o->value, o->value_len);
    key_store(k, text, k->bytes + o->value_len, k->flags);
    return RESULT_STORED;
}

static uint8_t key_count(struct key *k, const struct lin_op *o, uint64_t *ret_number)
{
    char text[TEXT_MAX + 1] = "";
    char *end;
    uint64_t n;

    if (!k->there) {
        return RESULT_NOT_FOUND;
    }
    memcpy(text, k->text, k->bytes);
    n = strtoull(text, &end, 10);
    if (end == text || *end != '\0') {
        return RESULT_NON_NUMERIC;
    }
    n = o->code == OP_INCR ? n + o->operand : n - MIN_OF(n, o->operand);
    snprintf(text, sizeof(text), "%llu", (unsigned long long) n);
    key_store(k, text, strlen(text), k->flags);
    *ret_number = n;
    return RESULT_NUMBER;
}

static uint8_t key_remove(struct key *k, uint8_t result, uint8_t otherwise)
{
    bool there = k->there;

    k->there = false;
    return there ? result : otherwise;
}

static bool key_equals(const struct key *k, const struct lin_op *o)
{
    return k->bytes == o->value_len && (k->bytes == 0 || memcmp(k->text, o->value, k->bytes) == 0);
}

/* Does the operation; returns its result. `fits`: the token of a cas is that of the record. */
static uint8_t key_do(struct key *k, const struct lin_op *o, bool fits, uint64_t *ret_number)
{
    switch (o->code) {
    case OP_GET:
    case OP_GAT:
        return k->there ? RESULT_VALUE : RESULT_NOT_FOUND;
    case OP_SET:
        return key_store_if(k, true, o);
    case OP_ADD:
        return key_store_if(k, !k->there, o);
    case OP_REPLACE:
        return key_store_if(k, k->there, o);
    case OP_APPEND:
    case OP_PREPEND:
        return key_join(k, o);
    case OP_CAS:
        return !k->there ? RESULT_NOT_FOUND : fits ? key_store_if(k, true, o) : RESULT_EXISTS;
    case OP_DELETE:
        return key_remove(k, RESULT_DELETED, RESULT_NOT_FOUND);
    case OP_INCR:
    case OP_DECR:
        return key_count(k, o, ret_number);
    case OP_TOUCH:
        return k->there ? RESULT_TOUCHED : RESULT_NOT_FOUND;
    case OP_FLUSH:
        return key_remove(k, RESULT_FLUSHED, RESULT_FLUSHED);
    default:
        assert_int_equal(o->code, LIN_EXPIRE);
        return key_equals(k, o) ? key_remove(k, 0, 0) : 0;
    }
}

/* ---- brute force ---- */

/* The record made by `write` has this token: tokens rise from write to write, and never change. */
static bool token_put(struct key *k, size_t write, uint64_t token)
{
    if (token == 0 || (k->tokens[write] != 0 && k->tokens[write] != token)) {
        return false;
    }
    for (size_t i = 0; i < k->n_writes; i++) {
        uint64_t other = k->tokens[i];
        if (other != 0 && ((i < write && other >= token) || (i > write && other <= token))) {
            return false;
        }
    }
    k->tokens[write] = token;
    return true;
}

static bool cas_fits(struct key *k, const struct lin_op *o)
{
    if (o->code != OP_CAS || !k->there) {
        return false;
    }
    if (o->result == RESULT_EXISTS) { /* a token that nobody was told yet may be any other one */
        return o->operand != 0 && k->tokens[k->write] == o->operand;
    }
    return token_put(k, k->write, o->operand);
}

static bool is_unknown(const struct lin_op *o)
{
    return o->result == LIN_UNKNOWN || o->result == RESULT_UNKNOWN;
}

/* Can the operation, with its result, come next? Then does it. */
static bool brute_do(struct key *k, const struct lin_op *o)
{
    bool was_there = k->there;
    uint64_t number = 0;
    uint8_t result;

    if (o->result == RESULT_TOO_LARGE) {
        return was_there && (o->code == OP_APPEND || o->code == OP_PREPEND);
    }
    result = key_do(k, o, cas_fits(k, o), &number);
    if (is_unknown(o)) {
        return true;
    }
    if (result != o->result || (result == RESULT_NUMBER && number != o->number) ||
        (result == RESULT_VALUE && (!key_equals(k, o) || k->flags != o->flags))) {
        return false;
    }
    if (o->token != 0 &&
        (result == RESULT_VALUE || result == RESULT_STORED || result == RESULT_NUMBER)) {
        return token_put(k, k->write, o->token);
    }
    return true;
}

static bool is_refused(const struct lin_op *o)
{
    return o->result == RESULT_NOT_PRIMARY || o->result == RESULT_BUSY ||
           o->result == RESULT_REFUSED || o->result == RESULT_NO_SPACE ||
           o->result == RESULT_DAMAGED;
}

/* Has another operation that must come first returned before this one was called? */
static bool is_blocked(const struct lin_op *ops, size_t n, unsigned left, size_t i)
{
    for (size_t j = 0; j < n; j++) {
        if ((left >> j & 1) && !is_unknown(&ops[j]) && ops[j].ret < ops[i].call) {
            return true;
        }
    }
    return false;
}

/* `left`: bits of the operations that did not happen yet, `must`: of those that have to. */
static bool brute_from(const struct lin_op *ops, size_t n, const struct key *k, unsigned left,
                       unsigned must)
{
    if ((left & must) == 0) {
        return true;
    }
    for (size_t i = 0; i < n; i++) {
        struct key next = *k;
        if ((left >> i & 1) && !is_blocked(ops, n, left, i) && brute_do(&next, &ops[i]) &&
            brute_from(ops, n, &next, left & ~(1U << i), must)) {
            return true;
        }
    }
    return false;
}

static bool brute_check(const struct lin_op *ops, size_t n)
{
    struct key absent = { 0 };
    unsigned left = 0;
    unsigned must = 0;

    for (size_t i = 0; i < n; i++) {
        left |= is_refused(&ops[i]) ? 0 : 1U << i;
        must |= is_refused(&ops[i]) || is_unknown(&ops[i]) ? 0 : 1U << i;
    }
    return brute_from(ops, n, &absent, left, must);
}

/* ---- histories ---- */

struct history {
    struct lin_op ops[OPS_MAX];
    size_t n;
};

struct told {
    uint8_t code;
    uint8_t results[5];
};

/* What each operation can be told; ends with 0. */
static const struct told tolds[] = {
    { OP_GET, { RESULT_VALUE, RESULT_NOT_FOUND } },
    { OP_GAT, { RESULT_VALUE, RESULT_NOT_FOUND } },
    { OP_SET, { RESULT_STORED } },
    { OP_ADD, { RESULT_STORED, RESULT_NOT_STORED } },
    { OP_REPLACE, { RESULT_STORED, RESULT_NOT_STORED } },
    { OP_APPEND, { RESULT_STORED, RESULT_NOT_STORED, RESULT_TOO_LARGE } },
    { OP_PREPEND, { RESULT_STORED, RESULT_NOT_STORED, RESULT_TOO_LARGE } },
    { OP_CAS, { RESULT_STORED, RESULT_EXISTS, RESULT_NOT_FOUND } },
    { OP_DELETE, { RESULT_DELETED, RESULT_NOT_FOUND } },
    { OP_INCR, { RESULT_NUMBER, RESULT_NOT_FOUND, RESULT_NON_NUMERIC } },
    { OP_DECR, { RESULT_NUMBER, RESULT_NOT_FOUND, RESULT_NON_NUMERIC } },
    { OP_TOUCH, { RESULT_TOUCHED, RESULT_NOT_FOUND } },
    { OP_FLUSH, { RESULT_FLUSHED } },
    { LIN_EXPIRE, { LIN_UNKNOWN } },
};

static const uint8_t refusals[] = { RESULT_NOT_PRIMARY, RESULT_BUSY, RESULT_REFUSED,
                                    RESULT_NO_SPACE, RESULT_DAMAGED };

static const char *const texts[] = { "0", "1", "2", "7", "a", "b", "" };

static void op_set_text(struct lin_op *o, const char *text)
{
    o->value = (const uint8_t *) text;
    o->value_len = (uint32_t) strlen(text);
}

static void op_forget(struct lin_op *o)
{
    o->ret = LIN_NEVER;
    o->result = LIN_UNKNOWN;
    o->token = 0;
}

static const struct told *told_of(uint8_t code)
{
    for (size_t i = 0; i < ARRAY_LEN(tolds); i++) {
        if (tolds[i].code == code) {
            return &tolds[i];
        }
    }
    fail_msg("no operation has code %u", code);
    return NULL;
}

/* A question without an answer. Sets of few values come most often: something must be there. */
static struct lin_op op_random(struct rng *r, uint32_t client)
{
    struct lin_op o = { .client = client };

    o.code = rng_chance(r, 1, 3) ? OP_SET : tolds[rng_below(r, ARRAY_LEN(tolds))].code;
    o.code = rng_chance(r, 1, 5) ? OP_GET : o.code;
    if (o.code != OP_GET && o.code != OP_GAT) {
        op_set_text(&o, texts[rng_below(r, ARRAY_LEN(texts))]);
        o.flags = (uint32_t) rng_below(r, 2);
    }
    o.operand = rng_below(r, 4);
    return o;
}

static uint8_t result_random(struct rng *r, uint8_t code)
{
    const uint8_t *results = told_of(code)->results;
    size_t n = 1;

    if (rng_chance(r, 1, 10)) {
        return refusals[rng_below(r, ARRAY_LEN(refusals))];
    }
    while (n < ARRAY_LEN(tolds[0].results) && results[n] != 0) {
        n++;
    }
    return results[rng_below(r, n)];
}

/* ---- good ones: made by a key that does what it should ---- */

/* A client has nothing under way, has called, or its operation has happened; or it lost patience,
 * and the operation may happen at any later time. */
struct maker {
    struct rng *r;
    struct history *h;
    struct key key;
    uint64_t clock;
    uint64_t token;
    size_t op_of[CLIENTS_MAX]; /* index + 1; 0: idle */
    bool done[OPS_MAX];
    char read[OPS_MAX][TEXT_MAX + 1]; /* what gets saw */
};

static void make_call(struct maker *m, size_t client)
{
    struct lin_op *o = &m->h->ops[m->h->n++];

    *o = op_random(m->r, (uint32_t) client);
    if (o->code == OP_CAS && m->key.there && rng_chance(m->r, 2, 3)) {
        o->operand = m->key.tokens[m->key.write];
    }
    o->call = m->clock;
    if (o->code == LIN_EXPIRE) {
        op_forget(o);
    } else {
        m->op_of[client] = m->h->n;
    }
}

static void make_tell(struct maker *m, struct lin_op *o)
{
    char *read = m->read[o - m->h->ops];

    if (o->result == RESULT_VALUE) {
        memcpy(read, m->key.text, m->key.bytes);
        read[m->key.bytes] = '\0';
        op_set_text(o, read);
        o->flags = m->key.flags;
    }
    if ((o->result == RESULT_VALUE || o->result == RESULT_STORED || o->result == RESULT_NUMBER) &&
        rng_chance(m->r, 1, 2)) {
        o->token = m->key.tokens[m->key.write];
    }
}

static void make_happen(struct maker *m, size_t op)
{
    struct lin_op *o = &m->h->ops[op];
    size_t writes = m->key.n_writes;
    bool fits = m->key.there && m->key.tokens[m->key.write] == o->operand;
    uint8_t result = key_do(&m->key, o, fits, &o->number);

    m->done[op] = true;
    if (m->key.n_writes > writes) {
        m->key.tokens[m->key.write] = m->token += rng_between(m->r, 1, 2);
    }
    if (o->ret != LIN_NEVER) {
        o->result = result;
        make_tell(m, o);
    }
}

/* The client hears the answer, or an error, or nothing. */
static void make_return(struct maker *m, size_t client)
{
    struct lin_op *o = &m->h->ops[m->op_of[client] - 1];

    m->op_of[client] = 0;
    o->ret = m->clock;
    if (!m->done[o - m->h->ops] && rng_chance(m->r, 1, 2)) {
        o->result = refusals[rng_below(m->r, ARRAY_LEN(refusals))];
        m->done[o - m->h->ops] = true;
    } else if (!m->done[o - m->h->ops] || rng_chance(m->r, 1, 10)) {
        op_forget(o);
        o->result = rng_chance(m->r, 1, 2) ? RESULT_UNKNOWN : LIN_UNKNOWN;
    }
}

static void make_step(struct maker *m, size_t clients, size_t n)
{
    size_t client = rng_below(m->r, clients);
    size_t op = m->op_of[client];

    m->clock += rng_chance(m->r, 4, 5);
    if (op == 0 && m->h->n < n) {
        make_call(m, client);
    } else if (op == 0) {
        op = rng_below(m->r, n); /* a late effect */
        if (m->h->ops[op].ret == LIN_NEVER && !m->done[op]) {
            make_happen(m, op);
        }
    } else if (!m->done[op - 1] && rng_chance(m->r, 9, 10)) {
        make_happen(m, op - 1);
    } else {
        make_return(m, client);
    }
}

static void make_good(struct rng *r, struct history *h, struct maker *m)
{
    size_t n = rng_between(r, 2, OPS_MAX);
    size_t clients = rng_between(r, 2, CLIENTS_MAX);

    *h = (struct history){ 0 };
    *m = (struct maker){ .r = r, .h = h, .clock = 1 };
    for (size_t i = 0; i < STEPS_MAX; i++) {
        make_step(m, clients, n);
    }
    for (size_t i = 0; i < clients; i++) {
        if (m->op_of[i] != 0) {
            op_forget(&h->ops[m->op_of[i] - 1]);
        }
    }
}

/* ---- spoilt ones ---- */

static void spoil_time(struct rng *r, struct lin_op *o)
{
    uint64_t length = o->ret - o->call;

    o->call = rng_between(r, 1, 20);
    if (o->ret != LIN_NEVER) {
        o->ret = o->call + rng_below(r, length + 2);
    }
}

static void spoil(struct rng *r, struct history *h)
{
    struct lin_op *o = &h->ops[rng_below(r, h->n)];

    switch (rng_below(r, 7)) {
    case 0:
        spoil_time(r, o);
        break;
    case 1:
        op_set_text(o, texts[rng_below(r, ARRAY_LEN(texts))]);
        break;
    case 2:
        o->token = is_unknown(o) ? 0 : rng_between(r, 1, 6);
        break;
    case 3:
        o->number += rng_between(r, 0, 2) - 1;
        break;
    case 4:
        o->operand = rng_below(r, 6);
        break;
    case 5:
        o->flags ^= 1;
        break;
    default:
        o->result = o->ret != LIN_NEVER ? result_random(r, o->code) : LIN_UNKNOWN;
    }
}

/* ---- made up ones ---- */

static void make_up(struct rng *r, struct history *h)
{
    *h = (struct history){ .n = rng_between(r, 2, OPS_MAX) };
    for (size_t i = 0; i < h->n; i++) {
        struct lin_op *o = &h->ops[i];
        *o = op_random(r, (uint32_t) i);
        o->call = rng_between(r, 1, 20);
        o->ret = o->call + rng_below(r, 6);
        o->result = result_random(r, o->code);
        o->number = rng_below(r, 4);
        o->token = rng_chance(r, 1, 4) ? rng_between(r, 1, 6) : 0;
        if (o->result == RESULT_VALUE) {
            op_set_text(o, texts[rng_below(r, ARRAY_LEN(texts))]);
        }
        if (o->code == LIN_EXPIRE || rng_chance(r, 1, 4)) {
            op_forget(o);
        }
    }
}

/* ---- both verdicts ---- */

struct counts {
    size_t good;
    size_t bad;
};

static void compare(const struct history *h, uint64_t seed, struct counts *counts)
{
    struct history copy = *h; /* the checker sorts it */
    struct lin_report report;
    enum lin_verdict got = lin_check(copy.ops, copy.n, &report);
    bool good = brute_check(h->ops, h->n);

    if (got != (good ? LIN_OK : LIN_BAD)) {
        for (size_t i = 0; i < h->n; i++) {
            lin_print(stderr, &h->ops[i]);
        }
        fail_msg("history %llu: brute force says %s, the checker %d (%s)",
                 (unsigned long long) seed, good ? "good" : "bad", got, report.why);
    }
    counts->good += good;
    counts->bad += !good;
}

static void test_good(void **state)
{
    struct counts counts = { 0 };
    struct history h;
    struct maker m;

    (void) state;
    for (uint64_t seed = 0; seed < HISTORIES; seed++) {
        struct rng r = { seed };
        make_good(&r, &h, &m);
        compare(&h, seed, &counts);
        assert_int_equal(counts.bad, 0);
    }
    printf("# %d histories of a key that works: all good\n", HISTORIES);
}

static void test_spoilt(void **state)
{
    struct counts counts = { 0 };
    struct history h;
    struct maker m;

    (void) state;
    for (uint64_t seed = 0; seed < HISTORIES; seed++) {
        struct rng r = { seed };
        make_good(&r, &h, &m);
        for (uint64_t i = rng_between(&r, 1, 3); i > 0 && h.n > 0; i--) {
            spoil(&r, &h);
        }
        compare(&h, seed, &counts);
    }
    printf("# %d spoilt ones: %zu good, %zu bad\n", HISTORIES, counts.good, counts.bad);
    assert_true(counts.good > HISTORIES / 10);
    assert_true(counts.bad > HISTORIES / 10);
}

static void test_made_up(void **state)
{
    struct counts counts = { 0 };
    struct history h;

    (void) state;
    for (uint64_t seed = 0; seed < HISTORIES; seed++) {
        struct rng r = { seed };
        make_up(&r, &h);
        compare(&h, seed, &counts);
    }
    printf("# %d made up ones: %zu good, %zu bad\n", HISTORIES, counts.good, counts.bad);
    assert_true(counts.good > HISTORIES / 100);
    assert_true(counts.bad > HISTORIES / 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_spoilt),
        cmocka_unit_test(test_made_up),
    };

    return cmocka_run_group_tests_name("lin_brute", tests, NULL, NULL);
}
