#include "reply.h"

#include "base/assert.h"
#include "stats.h"
#include "wire/mc_text_reply.h"

#include <string.h>

#define ERROR_LINE_BYTES_MAX 512

static void put_line(struct buf *out, const char *line)
{
    buf_append(out, line, strlen(line));
}

static void put_value(struct buf *out, enum mc_cmd cmd, const struct op *op,
                      const struct result *res)
{
    uint8_t *p = buf_reserve(out, MC_VALUE_LINE_BYTES_MAX + res->value_len + 2);
    int n;

    if (cmd == MC_GETS || cmd == MC_GATS) {
        n = mc_text_write_value_cas(p, MC_VALUE_LINE_BYTES_MAX, op->key, op->key_len, res->flags,
                                    res->value_len, res->cas);
    } else {
        n = mc_text_write_value(p, MC_VALUE_LINE_BYTES_MAX, op->key, op->key_len, res->flags,
                                res->value_len);
    }
    kumo_assert(n > 0);
    out->end += (size_t) n;
    buf_append(out, res->value, res->value_len);
    buf_append(out, "\r\n", 2);
}

static void put_number(struct buf *out, uint64_t number)
{
    int n = mc_text_write_number(buf_reserve(out, MC_NUMBER_LINE_BYTES_MAX),
                                 MC_NUMBER_LINE_BYTES_MAX, number);

    kumo_assert(n > 0);
    out->end += (size_t) n;
}

void reply_error(struct buf *out, const char *text)
{
    int n = mc_text_write_server_error(buf_reserve(out, ERROR_LINE_BYTES_MAX), ERROR_LINE_BYTES_MAX,
                                       text);

    kumo_assert(n > 0);
    out->end += (size_t) n;
}

static bool is_get(enum mc_cmd cmd)
{
    return cmd == MC_GET || cmd == MC_GETS || cmd == MC_GAT || cmd == MC_GATS;
}

/* The answers that are one line, and no error. */
static const char *result_line(enum mc_cmd cmd, const struct result *res)
{
    switch (res->code) {
    case RESULT_STORED:
        return MC_LINE_STORED;
    case RESULT_NOT_STORED:
        return MC_LINE_NOT_STORED;
    case RESULT_EXISTS:
        return MC_LINE_EXISTS;
    case RESULT_NOT_FOUND:
        return is_get(cmd) ? "" : MC_LINE_NOT_FOUND;
    case RESULT_DELETED:
        return MC_LINE_DELETED;
    case RESULT_TOUCHED:
        return MC_LINE_TOUCHED;
    case RESULT_FLUSHED:
        return MC_LINE_OK;
    default:
        return NULL;
    }
}

static const char *result_error(const struct result *res)
{
    switch (res->code) {
    case RESULT_UNKNOWN:
        return "outcome unknown; the write may have happened";
    case RESULT_REFUSED:
        return "the server refused the request; nothing was done";
    case RESULT_DAMAGED:
        return "the record is damaged on the server's disk; it can't be read";
    case RESULT_NO_SPACE:
        return "the server's disk is full; nothing was stored";
    default:
        return "the server answered what this gateway does not know";
    }
}

bool reply_result(struct buf *out, enum mc_cmd cmd, const struct op *op, const struct result *res)
{
    const char *line = result_line(cmd, res);

    if (line) {
        put_line(out, line);
        return false;
    }
    if (res->code == RESULT_VALUE && is_get(cmd)) {
        put_value(out, cmd, op, res);
        return false;
    }
    if (res->code == RESULT_NUMBER) {
        put_number(out, res->number);
        return false;
    }
    if (res->code == RESULT_NON_NUMERIC) {
        put_line(out, MC_LINE_NON_NUMERIC);
    } else if (res->code == RESULT_TOO_LARGE) {
        put_line(out, MC_LINE_TOO_LARGE);
    } else {
        reply_error(out, result_error(res));
    }
    return true;
}

/* ---- counting ---- */

static void count_either(struct counters *c, bool hit, enum counter hits, enum counter misses)
{
    counter_add(c, hit ? hits : misses, 1);
}

static void count_store(struct counters *c, enum mc_cmd cmd, const struct result *res)
{
    counter_add(c, COUNTER_CMD_SET, 1);
    if (res->code == RESULT_STORED) {
        counter_add(c, COUNTER_TOTAL_ITEMS, 1);
    }
    if (cmd == MC_CAS) {
        counter_add(c,
                    res->code == RESULT_STORED      ? COUNTER_CAS_HITS
                    : res->code == RESULT_NOT_FOUND ? COUNTER_CAS_MISSES
                                                    : COUNTER_CAS_BADVAL,
                    1);
    }
}

static void count_get(struct counters *c, enum mc_cmd cmd, const struct result *res)
{
    bool hit = res->code == RESULT_VALUE;

    counter_add(c, COUNTER_CMD_GET, 1);
    count_either(c, hit, COUNTER_GET_HITS, COUNTER_GET_MISSES);
    if (cmd == MC_GAT || cmd == MC_GATS) {
        counter_add(c, COUNTER_CMD_TOUCH, 1);
        count_either(c, hit, COUNTER_TOUCH_HITS, COUNTER_TOUCH_MISSES);
    }
}

void reply_count(struct counters *c, enum mc_cmd cmd, const struct result *res)
{
    bool miss = res->code == RESULT_NOT_FOUND;

    switch (cmd) {
    case MC_GET:
    case MC_GETS:
    case MC_GAT:
    case MC_GATS:
        count_get(c, cmd, res);
        return;
    case MC_DELETE:
        count_either(c, !miss, COUNTER_DELETE_HITS, COUNTER_DELETE_MISSES);
        return;
    case MC_INCR:
        count_either(c, !miss, COUNTER_INCR_HITS, COUNTER_INCR_MISSES);
        return;
    case MC_DECR:
        count_either(c, !miss, COUNTER_DECR_HITS, COUNTER_DECR_MISSES);
        return;
    case MC_TOUCH:
        counter_add(c, COUNTER_CMD_TOUCH, 1);
        count_either(c, !miss, COUNTER_TOUCH_HITS, COUNTER_TOUCH_MISSES);
        return;
    case MC_FLUSH_ALL:
        counter_add(c, COUNTER_CMD_FLUSH, 1);
        return;
    default:
        count_store(c, cmd, res);
        return;
    }
}
