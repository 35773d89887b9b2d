#include "lin/lin.h"

#include "base/cleanup.h"

#include <inttypes.h>

static const char *const codes[] = {
    [OP_GET] = "get",         [OP_GAT] = "gat",         [OP_SET] = "set",
    [OP_ADD] = "add",         [OP_REPLACE] = "replace", [OP_APPEND] = "append",
    [OP_PREPEND] = "prepend", [OP_CAS] = "cas",         [OP_DELETE] = "delete",
    [OP_INCR] = "incr",       [OP_DECR] = "decr",       [OP_TOUCH] = "touch",
    [OP_FLUSH] = "flush",
};

static const char *const results[] = {
    [LIN_UNKNOWN] = "unknown",
    [RESULT_STORED] = "STORED",
    [RESULT_NOT_STORED] = "NOT_STORED",
    [RESULT_EXISTS] = "EXISTS",
    [RESULT_NOT_FOUND] = "NOT_FOUND",
    [RESULT_DELETED] = "DELETED",
    [RESULT_TOUCHED] = "TOUCHED",
    [RESULT_VALUE] = "VALUE",
    [RESULT_NUMBER] = "NUMBER",
    [RESULT_NON_NUMERIC] = "NON_NUMERIC",
    [RESULT_TOO_LARGE] = "TOO_LARGE",
    [RESULT_FLUSHED] = "FLUSHED",
    [RESULT_NOT_PRIMARY] = "NOT_PRIMARY",
    [RESULT_BUSY] = "BUSY",
    [RESULT_UNKNOWN] = "UNKNOWN",
    [RESULT_REFUSED] = "REFUSED",
    [RESULT_NO_SPACE] = "NO_SPACE",
    [RESULT_DAMAGED] = "DAMAGED",
};

static const char *word(const char *const *words, size_t n, uint8_t i)
{
    return i < n && words[i] ? words[i] : "?";
}

void lin_print(FILE *f, const struct lin_op *o)
{
    const char *ends = o->value_len > 60 ? "..." : "";

    fprintf(f, "client %" PRIu32 " [%" PRIu64 ", ", o->client, o->call);
    if (o->ret == LIN_NEVER) {
        fprintf(f, "-]");
    } else {
        fprintf(f, "%" PRIu64 "]", o->ret);
    }
    fprintf(f, " %s", o->code == LIN_EXPIRE ? "expire" : word(codes, ARRAY_LEN(codes), o->code));
    if (o->code == OP_INCR || o->code == OP_DECR || o->code == OP_CAS) {
        fprintf(f, " (%" PRIu64 ")", o->operand);
    }
    if (o->value_len > 0 && o->result != RESULT_VALUE) {
        fprintf(f, " '%.*s%s'", (int) MIN_OF(o->value_len, 60u), (const char *) o->value, ends);
    }
    fprintf(f, " -> %s", word(results, ARRAY_LEN(results), o->result));
    if (o->result == RESULT_VALUE) {
        fprintf(f, " '%.*s%s'", (int) MIN_OF(o->value_len, 60u), (const char *) o->value, ends);
    }
    if (o->result == RESULT_NUMBER) {
        fprintf(f, " %" PRIu64, o->number);
    }
    if (o->token != 0) {
        fprintf(f, " token %" PRIu64, o->token);
    }
    fputc('\n', f);
}
