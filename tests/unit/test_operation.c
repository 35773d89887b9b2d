/* Every operation on every sort of record: what is proposed, and what is answered. An expired,
 * deleted or flushed record does not exist for an operation; that is decided before. */
#include "base/cleanup.h"
#include "core/operation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define NOW_SEC   UINT64_C(1700000000)
#define VALUE_MAX 10
#define FLAGS_OP  77 /* those of the operation, of the record, … */
#define FLAGS_REC 88
#define EXP_REC   1700005555
#define CAS_REC   4242
#define NOTHING   0 /* proposes no entry */

struct scenario {
    uint8_t code;
    const char *record;  /* NULL: there is none */
    const char *operand; /* value of the operation */
    uint64_t number;
    uint8_t kind; /* of the entry, or NOTHING */
    uint8_t answer;
    const char *value; /* of the entry */
    uint32_t flags;
    uint32_t expiry_sec;
    bool keeps_cas;
};

static const struct scenario scenarios[] = {
    { OP_SET, NULL, "v", 0, ENTRY_SET, RESULT_STORED, "v", FLAGS_OP, NOW_SEC + 100, false },
    { OP_SET, "old", "v", 0, ENTRY_SET, RESULT_STORED, "v", FLAGS_OP, NOW_SEC + 100, false },
    { OP_SET, "old", "", 0, ENTRY_SET, RESULT_STORED, "", FLAGS_OP, NOW_SEC + 100, false },
    { OP_ADD, NULL, "v", 0, ENTRY_SET, RESULT_STORED, "v", FLAGS_OP, NOW_SEC + 100, false },
    { OP_ADD, "old", "v", 0, NOTHING, RESULT_NOT_STORED, NULL, 0, 0, false },
    { OP_REPLACE, "old", "v", 0, ENTRY_SET, RESULT_STORED, "v", FLAGS_OP, NOW_SEC + 100, false },
    { OP_REPLACE, NULL, "v", 0, NOTHING, RESULT_NOT_STORED, NULL, 0, 0, false },
    { OP_APPEND, NULL, "v", 0, NOTHING, RESULT_NOT_STORED, NULL, 0, 0, false },
    { OP_APPEND, "ab", "cd", 0, ENTRY_SET, RESULT_STORED, "abcd", FLAGS_REC, EXP_REC, false },
    { OP_APPEND, "", "cd", 0, ENTRY_SET, RESULT_STORED, "cd", FLAGS_REC, EXP_REC, false },
    { OP_APPEND, "ab", "", 0, ENTRY_SET, RESULT_STORED, "ab", FLAGS_REC, EXP_REC, false },
    { OP_APPEND, "", "", 0, ENTRY_SET, RESULT_STORED, "", FLAGS_REC, EXP_REC, false },
    { OP_APPEND, "12345", "67890", 0, ENTRY_SET, RESULT_STORED, "1234567890", FLAGS_REC, EXP_REC,
      false },
    { OP_APPEND, "12345", "678901", 0, NOTHING, RESULT_TOO_LARGE, NULL, 0, 0, false },
    { OP_PREPEND, NULL, "v", 0, NOTHING, RESULT_NOT_STORED, NULL, 0, 0, false },
    { OP_PREPEND, "ab", "cd", 0, ENTRY_SET, RESULT_STORED, "cdab", FLAGS_REC, EXP_REC, false },
    { OP_PREPEND, "", "cd", 0, ENTRY_SET, RESULT_STORED, "cd", FLAGS_REC, EXP_REC, false },
    { OP_PREPEND, "ab", "", 0, ENTRY_SET, RESULT_STORED, "ab", FLAGS_REC, EXP_REC, false },
    { OP_PREPEND, "1234567890", "1", 0, NOTHING, RESULT_TOO_LARGE, NULL, 0, 0, false },
    { OP_CAS, NULL, "v", CAS_REC, NOTHING, RESULT_NOT_FOUND, NULL, 0, 0, false },
    { OP_CAS, NULL, "v", 0, NOTHING, RESULT_NOT_FOUND, NULL, 0, 0, false },
    { OP_CAS, "old", "v", CAS_REC + 1, NOTHING, RESULT_EXISTS, NULL, 0, 0, false },
    { OP_CAS, "old", "v", 0, NOTHING, RESULT_EXISTS, NULL, 0, 0, false },
    { OP_CAS, "old", "v", CAS_REC, ENTRY_SET, RESULT_STORED, "v", FLAGS_OP, NOW_SEC + 100, false },
    { OP_DELETE, "old", NULL, 0, ENTRY_DELETE, RESULT_DELETED, "", 0, 0, false },
    { OP_DELETE, NULL, NULL, 0, NOTHING, RESULT_NOT_FOUND, NULL, 0, 0, false },
    { OP_INCR, NULL, NULL, 1, NOTHING, RESULT_NOT_FOUND, NULL, 0, 0, false },
    { OP_INCR, "9", NULL, 1, ENTRY_SET, RESULT_NUMBER, "10", FLAGS_REC, EXP_REC, false },
    { OP_INCR, "0", NULL, 0, ENTRY_SET, RESULT_NUMBER, "0", FLAGS_REC, EXP_REC, false },
    { OP_INCR, "007", NULL, 1, ENTRY_SET, RESULT_NUMBER, "8", FLAGS_REC, EXP_REC, false },
    { OP_INCR, "5 ", NULL, 1, ENTRY_SET, RESULT_NUMBER, "6", FLAGS_REC, EXP_REC, false },
    { OP_INCR, "18446744073709551615", NULL, 1, ENTRY_SET, RESULT_NUMBER, "0", FLAGS_REC, EXP_REC,
      false },
    { OP_INCR, "18446744073709551615", NULL, UINT64_MAX, ENTRY_SET, RESULT_NUMBER,
      "18446744073709551614", FLAGS_REC, EXP_REC, false },
    { OP_INCR, "1", NULL, UINT64_MAX, ENTRY_SET, RESULT_NUMBER, "0", FLAGS_REC, EXP_REC, false },
    { OP_INCR, "18446744073709551616", NULL, 1, NOTHING, RESULT_NON_NUMERIC, NULL, 0, 0, false },
    { OP_INCR, "-1", NULL, 1, NOTHING, RESULT_NON_NUMERIC, NULL, 0, 0, false },
    { OP_INCR, "", NULL, 1, NOTHING, RESULT_NON_NUMERIC, NULL, 0, 0, false },
    { OP_INCR, "x", NULL, 1, NOTHING, RESULT_NON_NUMERIC, NULL, 0, 0, false },
    { OP_DECR, NULL, NULL, 1, NOTHING, RESULT_NOT_FOUND, NULL, 0, 0, false },
    { OP_DECR, "10", NULL, 1, ENTRY_SET, RESULT_NUMBER, "9", FLAGS_REC, EXP_REC, false },
    { OP_DECR, "10", NULL, 10, ENTRY_SET, RESULT_NUMBER, "0", FLAGS_REC, EXP_REC, false },
    { OP_DECR, "10", NULL, 11, ENTRY_SET, RESULT_NUMBER, "0", FLAGS_REC, EXP_REC, false },
    { OP_DECR, "0", NULL, UINT64_MAX, ENTRY_SET, RESULT_NUMBER, "0", FLAGS_REC, EXP_REC, false },
    { OP_DECR, "x", NULL, 1, NOTHING, RESULT_NON_NUMERIC, NULL, 0, 0, false },
    { OP_TOUCH, NULL, NULL, 0, NOTHING, RESULT_NOT_FOUND, NULL, 0, 0, false },
    { OP_TOUCH, "old", NULL, 0, ENTRY_SET, RESULT_TOUCHED, "old", FLAGS_REC, NOW_SEC + 100, true },
    { OP_GAT, NULL, NULL, 0, NOTHING, RESULT_NOT_FOUND, NULL, 0, 0, false },
    { OP_GAT, "old", NULL, 0, ENTRY_SET, RESULT_VALUE, "old", FLAGS_REC, NOW_SEC + 100, true },
    { OP_FLUSH, NULL, NULL, 3, ENTRY_FLUSH, RESULT_FLUSHED, "", 0, NOW_SEC + 100, false },
};

static struct op op_of(const struct scenario *c)
{
    return (struct op){
        .code = c->code,
        .flags = FLAGS_OP,
        .exptime = 100,
        .operand = c->number,
        .value = (const uint8_t *) c->operand,
        .value_len = c->operand ? (uint32_t) strlen(c->operand) : 0,
    };
}

static struct record record_of(const char *value)
{
    if (!value) {
        return (struct record){ 0 };
    }
    return (struct record){
        .exists = true,
        .flags = FLAGS_REC,
        .expiry_sec = EXP_REC,
        .cas = CAS_REC,
        .value = (const uint8_t *) value,
        .value_len = (uint32_t) strlen(value),
    };
}

static void test_scenarios(void **state)
{
    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(scenarios); i++) {
        const struct scenario *c = &scenarios[i];
        struct record rec = record_of(c->record);
        struct op op = op_of(c);
        struct outcome o;
        char value[64];
        /* the limit is of appended values: 20 digits pass it */
        size_t max = c->code == OP_INCR || c->code == OP_DECR ? 64 : VALUE_MAX;
        memset(&o, 0xee, sizeof(o));
        operation_evaluate(&op, &rec, NOW_SEC * 1000000, max, &o);
        if (o.answer != c->answer || o.proposes != (c->kind != NOTHING)) {
            fail_msg("scenario %zu: answer %d, proposes %d", i, o.answer, o.proposes);
        }
        if (c->kind == NOTHING) {
            continue;
        }
        memset(value, 0, sizeof(value));
        for (int j = 0; j < 2; j++) {
            if (o.value[j].bytes > 0) {
                memcpy(value + strlen(value), o.value[j].p, o.value[j].bytes);
            }
        }
        if (o.kind != c->kind || strcmp(value, c->value) != 0 || o.flags != c->flags ||
            o.expiry_sec != c->expiry_sec || o.keeps_cas != c->keeps_cas) {
            fail_msg("scenario %zu: kind %d, '%s', flags %u, expiry %u, keeps %d", i, o.kind, value,
                     o.flags, o.expiry_sec, o.keeps_cas);
        }
    }
}

/* An exptime becomes a second at which the record is over: relative ones last at least as long as
 * they say. */
static void test_exptime(void **state)
{
    static const struct {
        uint64_t now_usec;
        int64_t exptime;
        uint32_t expiry_sec;
    } cases[] = {
        { NOW_SEC * 1000000, 0, 0 },
        { NOW_SEC * 1000000, 1, NOW_SEC + 1 },
        { NOW_SEC * 1000000 + 1, 1, NOW_SEC + 2 },
        { NOW_SEC * 1000000 + 999999, 1, NOW_SEC + 2 },
        { NOW_SEC * 1000000, 2592000, NOW_SEC + 2592000 },
        { NOW_SEC * 1000000, 2592001, 2592001 }, /* absolute, long past */
        { NOW_SEC * 1000000, NOW_SEC + 7, NOW_SEC + 7 },
        { NOW_SEC * 1000000, -1, 1 },
        { NOW_SEC * 1000000, INT64_MIN, 1 },
        { NOW_SEC * 1000000, INT64_MAX, UINT32_MAX },
        { NOW_SEC * 1000000, UINT32_MAX, UINT32_MAX },
    };
    static const uint8_t codes[] = { OP_SET, OP_ADD, OP_TOUCH, OP_GAT, OP_FLUSH, OP_CAS };

    (void) state;
    for (size_t i = 0; i < ARRAY_LEN(cases) * ARRAY_LEN(codes); i++) {
        struct op op = { .code = codes[i % ARRAY_LEN(codes)], .operand = CAS_REC };
        struct record rec = record_of(op.code == OP_ADD ? NULL : "v");
        size_t c = i / ARRAY_LEN(codes);
        struct outcome o;
        op.exptime = cases[c].exptime;
        operation_evaluate(&op, &rec, cases[c].now_usec, VALUE_MAX, &o);
        assert_true(o.proposes);
        if (o.expiry_sec != cases[c].expiry_sec) {
            fail_msg("case %zu: expiry %u", c, o.expiry_sec);
        }
    }
}

static void test_expiry_is_over(void **state)
{
    (void) state;
    assert_false(expiry_is_over(0, UINT64_MAX));
    assert_false(expiry_is_over(5, 4999999));
    assert_true(expiry_is_over(5, 5000000));
    assert_true(expiry_is_over(1, NOW_SEC * 1000000));
    assert_false(expiry_is_over(UINT32_MAX, NOW_SEC * 1000000));
    assert_true(expiry_is_over(UINT32_MAX, UINT32_MAX * UINT64_C(1000000)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scenarios),
        cmocka_unit_test(test_exptime),
        cmocka_unit_test(test_expiry_is_over),
    };

    return cmocka_run_group_tests_name("operation", tests, NULL, NULL);
}
