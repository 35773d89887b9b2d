#include "core/operation.h"

#include "base/assert.h"
#include "wire/mc_number.h"

#define USEC_PER_SEC UINT64_C(1000000)

static void answer_only(struct outcome *ret, uint8_t answer)
{
    ret->proposes = false;
    ret->answer = answer;
}

static void propose(struct outcome *ret, uint8_t kind, uint8_t answer)
{
    ret->proposes = true;
    ret->kind = kind;
    ret->answer = answer;
}

/* Relative times begin at the next whole second, so that 1 lasts one second at least. */
static uint32_t expiry_of(int64_t exptime, uint64_t now_usec)
{
    return mc_exptime_to_unix(exptime, (uint32_t) ((now_usec + USEC_PER_SEC - 1) / USEC_PER_SEC));
}

/* A value that is too large is not stored; for a set the old one goes, as in memcached: stale data
 * must not survive. */
static void refuse_large(const struct op *o, const struct record *rec, struct outcome *ret)
{
    if (o->code == OP_SET && rec->exists) {
        propose(ret, ENTRY_DELETE, RESULT_TOO_LARGE);
    } else {
        answer_only(ret, RESULT_TOO_LARGE);
    }
}

static void store(const struct op *o, uint64_t now_usec, struct outcome *ret)
{
    propose(ret, ENTRY_SET, RESULT_STORED);
    ret->flags = o->flags;
    ret->expiry_sec = expiry_of(o->exptime, now_usec);
    ret->value[0] = (struct slice){ o->value, o->value_len };
}

/* The record stays as it is, but for what the caller changes then. */
static void keep(const struct record *rec, uint8_t answer, struct outcome *ret)
{
    propose(ret, ENTRY_SET, answer);
    ret->flags = rec->flags;
    ret->expiry_sec = rec->expiry_sec;
    ret->value[0] = (struct slice){ rec->value, rec->value_len };
}

static void extend(const struct op *o, const struct record *rec, size_t value_bytes_max,
                   struct outcome *ret)
{
    struct slice added = { o->value, o->value_len };

    if (!rec->exists) {
        answer_only(ret, RESULT_NOT_STORED);
        return;
    }
    if ((size_t) rec->value_len + o->value_len > value_bytes_max) {
        answer_only(ret, RESULT_TOO_LARGE);
        return;
    }
    keep(rec, RESULT_STORED, ret);
    ret->value[1] = added;
    if (o->code == OP_PREPEND) {
        ret->value[1] = ret->value[0];
        ret->value[0] = added;
    }
}

static void count(const struct op *o, const struct record *rec, struct outcome *ret)
{
    uint64_t n;

    if (!rec->exists) {
        answer_only(ret, RESULT_NOT_FOUND);
        return;
    }
    if (mc_parse_counter(rec->value, rec->value_len, &n) < 0) {
        answer_only(ret, RESULT_NON_NUMERIC);
        return;
    }
    if (o->code == OP_INCR) {
        n += o->operand; /* wraps at 2^64, as memcached's */
    } else {
        n = n > o->operand ? n - o->operand : 0;
    }
    keep(rec, RESULT_NUMBER, ret);
    ret->value[0] = (struct slice){ (const uint8_t *) ret->number,
                                    (uint32_t) mc_format_u64((uint8_t *) ret->number, n) };
}

static void touch(const struct op *o, const struct record *rec, uint64_t now_usec, uint8_t answer,
                  struct outcome *ret)
{
    if (!rec->exists) {
        answer_only(ret, RESULT_NOT_FOUND);
        return;
    }
    keep(rec, answer, ret);
    ret->expiry_sec = expiry_of(o->exptime, now_usec);
    ret->keeps_cas = true;
}

void operation_evaluate(const struct op *o, const struct record *rec, uint64_t now_usec,
                        size_t value_bytes_max, struct outcome *ret)
{
    *ret = (struct outcome){ 0 };
    if (o->value_len > value_bytes_max) {
        refuse_large(o, rec, ret);
        return;
    }
    switch (o->code) {
    case OP_SET:
        store(o, now_usec, ret);
        return;
    case OP_ADD:
    case OP_REPLACE:
        if (rec->exists == (o->code == OP_REPLACE)) {
            store(o, now_usec, ret);
        } else {
            answer_only(ret, RESULT_NOT_STORED);
        }
        return;
    case OP_CAS:
        if (rec->exists && rec->cas == o->operand) {
            store(o, now_usec, ret);
        } else {
            answer_only(ret, rec->exists ? RESULT_EXISTS : RESULT_NOT_FOUND);
        }
        return;
    case OP_APPEND:
    case OP_PREPEND:
        extend(o, rec, value_bytes_max, ret);
        return;
    case OP_DELETE:
        if (rec->exists) {
            propose(ret, ENTRY_DELETE, RESULT_DELETED);
        } else {
            answer_only(ret, RESULT_NOT_FOUND);
        }
        return;
    case OP_INCR:
    case OP_DECR:
        count(o, rec, ret);
        return;
    case OP_TOUCH:
        touch(o, rec, now_usec, RESULT_TOUCHED, ret);
        return;
    case OP_GAT:
        touch(o, rec, now_usec, RESULT_VALUE, ret);
        return;
    case OP_FLUSH: /* a delayed one takes effect at its time, see replica.c */
        propose(ret, ENTRY_FLUSH, RESULT_FLUSHED);
        ret->expiry_sec = expiry_of(o->exptime, now_usec);
        return;
    default:
        kumo_unreachable();
    }
}
