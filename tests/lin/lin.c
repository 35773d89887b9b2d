#include "lin/lin.h"

#include "base/cleanup.h"
#include "base/mem.h"
#include "lin/search.h"

#include <stdarg.h>
#include <stdlib.h>

static int op_compare(const void *a, const void *b)
{
    const struct lin_op *x = a;
    const struct lin_op *y = b;

    if (x->call != y->call) {
        return x->call < y->call ? -1 : 1;
    }
    return x->client < y->client ? -1 : x->client > y->client;
}

/* Says nothing about the key: it certainly did nothing, or is a read that nobody saw the answer of.
 */
static bool op_is_void(const struct lin_op *o)
{
    switch (o->result) {
    case RESULT_NOT_PRIMARY:
    case RESULT_BUSY:
    case RESULT_REFUSED:
    case RESULT_NO_SPACE:
    case RESULT_DAMAGED:
        return true;
    default:
        return o->ret == LIN_NEVER && lin_is_read(o->code);
    }
}

/* Moves void operations behind the others; returns how many are left. */
static size_t ops_choose(struct lin_op *ops, size_t n)
{
    size_t kept = 0;

    for (size_t i = 0; i < n; i++) {
        if (ops[i].result == LIN_UNKNOWN || ops[i].result == RESULT_UNKNOWN) {
            ops[i].result = LIN_UNKNOWN;
            ops[i].ret = LIN_NEVER;
        }
        if (!op_is_void(&ops[i])) {
            struct lin_op o = ops[kept];
            ops[kept++] = ops[i];
            ops[i] = o;
        }
    }
    qsort(ops, kept, sizeof(*ops), op_compare);
    return kept;
}

/* Where the piece that begins at `begin` ends: all before has returned when the next one is called.
 */
static size_t piece_end(const struct lin_op *ops, size_t n, size_t begin)
{
    uint64_t last_ret = 0;
    size_t i = begin;

    do {
        if (ops[i].ret != LIN_NEVER) {
            last_ret = MAX_OF(last_ret, ops[i].ret);
        }
        i++;
    } while (i < n && ops[i].call <= last_ret);
    return i;
}

static void report_say(struct lin_report *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void report_say(struct lin_report *r, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(r->why, sizeof(r->why), format, args);
    va_end(args);
}

/* Takes piece after piece, from the configurations that the one before can have left. */
static enum lin_verdict pieces_check(struct lin_search *s, size_t n, struct lin_report *ret)
{
    struct lin_configs in = { 0 };
    struct lin_configs out = { 0 };
    enum lin_verdict verdict = LIN_OK;

    lin_configs_add(&in, &(struct lin_config){ 0 });
    for (size_t begin = 0; begin < n && verdict == LIN_OK;) {
        size_t end = piece_end(s->ops, n, begin);
        struct lin_configs swap = in;
        ret->begin = begin;
        ret->end = end;
        if (!lin_search_piece(s, begin, end, &in, &out)) {
            verdict = LIN_GAVE_UP;
            report_say(ret, "gave up after %zu configurations, %zu unknown outcomes", s->visited,
                       s->n_carried);
        } else if (out.n == 0) {
            verdict = LIN_BAD;
            ret->stuck = s->stuck;
            report_say(ret, "no order of the operations explains the results");
        }
        in = out;
        out = swap;
        begin = end;
    }
    ret->visited = s->visited;
    free(in.v);
    free(out.v);
    return verdict;
}

enum lin_verdict lin_check(struct lin_op *ops, size_t n, struct lin_report *ret)
{
    struct lin_values values = { 0 };
    _cleanup_free_ uint32_t *ids = mem_zalloc(n + 1, sizeof(*ids));
    struct lin_search s = { .ops = ops, .value_ids = ids, .values = &values };
    enum lin_verdict verdict;
    size_t kept = ops_choose(ops, n);

    *ret = (struct lin_report){ 0 };
    for (size_t i = 0; i < kept; i++) {
        ids[i] = lin_values_add(&values, ops[i].value, ops[i].value_len);
    }
    if (lin_check_tokens(ops, kept, &ret->stuck) < 0) {
        ret->end = kept;
        report_say(ret, "one cas token stands for two values");
        verdict = LIN_BAD;
    } else {
        verdict = pieces_check(&s, kept, ret);
    }
    lin_values_free(&values);
    return verdict;
}
