/* The checker of histories: good ones pass, and every sort of lie that a broken store could tell is
 * caught.
 *
 * A history is text, operations separated by ";": "CALL-RET CODE ARGS [= RESULT] [#TOKEN]", RET
 * being "?" where nobody knows the outcome. "get -" is a miss; a write without a result was stored.
 */
#include "base/cleanup.h"
#include "lin/lin.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OPS_MAX 4096

struct word {
    const char *text;
    uint8_t code;
};

static const struct word codes[] = {
    { "get", OP_GET },         { "set", OP_SET },       { "add", OP_ADD },
    { "replace", OP_REPLACE }, { "append", OP_APPEND }, { "prepend", OP_PREPEND },
    { "cas", OP_CAS },         { "delete", OP_DELETE }, { "incr", OP_INCR },
    { "decr", OP_DECR },       { "touch", OP_TOUCH },   { "flush", OP_FLUSH },
    { "expire", LIN_EXPIRE },
};

static const struct word results[] = {
    { "STORED", RESULT_STORED },           { "NOT_STORED", RESULT_NOT_STORED },
    { "EXISTS", RESULT_EXISTS },           { "NOT_FOUND", RESULT_NOT_FOUND },
    { "DELETED", RESULT_DELETED },         { "TOUCHED", RESULT_TOUCHED },
    { "NON_NUMERIC", RESULT_NON_NUMERIC }, { "BUSY", RESULT_BUSY },
};

struct history {
    char text[65536];
    struct lin_op ops[OPS_MAX];
    size_t n;
};

static uint8_t word_code(const struct word *words, size_t n, const char *text)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(words[i].text, text) == 0) {
            return words[i].code;
        }
    }
    fail_msg("'%s' is no word of a history", text);
    return 0;
}

static uint8_t result_by_default(uint8_t code)
{
    switch (code) {
    case OP_GET:
        return RESULT_VALUE;
    case OP_DELETE:
        return RESULT_DELETED;
    case OP_INCR:
    case OP_DECR:
        return RESULT_NUMBER;
    case OP_TOUCH:
        return RESULT_TOUCHED;
    case OP_FLUSH:
        return RESULT_FLUSHED;
    default:
        return RESULT_STORED;
    }
}

static void op_set_value(struct lin_op *o, const char *text)
{
    o->value = (const uint8_t *) text;
    o->value_len = (uint32_t) strlen(text);
}

static void op_set_result(struct lin_op *o, const char *text)
{
    if (text[0] >= '0' && text[0] <= '9') {
        o->number = strtoull(text, NULL, 10);
    } else {
        o->result = word_code(results, ARRAY_LEN(results), text);
    }
}

static void op_add_word(struct lin_op *o, const char *text)
{
    if (text[0] == '#') {
        o->token = strtoull(text + 1, NULL, 10);
    } else if (o->operand == 0 && (o->code == OP_INCR || o->code == OP_DECR || o->code == OP_CAS)) {
        o->operand = strtoull(text, NULL, 10);
    } else if (o->code == OP_GET && strcmp(text, "-") == 0) {
        o->result = RESULT_NOT_FOUND;
    } else {
        op_set_value(o, text);
    }
}

static void op_parse(struct lin_op *o, char *text)
{
    char *at;
    char *times = strtok_r(text, " ", &at);
    char *word = strtok_r(NULL, " ", &at);

    o->call = strtoull(times, &times, 10);
    o->ret = times[1] == '?' ? LIN_NEVER : strtoull(times + 1, NULL, 10);
    o->code = word_code(codes, ARRAY_LEN(codes), word);
    o->result = o->ret == LIN_NEVER ? LIN_UNKNOWN : result_by_default(o->code);
    while ((word = strtok_r(NULL, " ", &at))) {
        if (strcmp(word, "=") == 0) {
            op_set_result(o, strtok_r(NULL, " ", &at));
        } else {
            op_add_word(o, word);
        }
    }
}

static struct history *history_of(const char *text)
{
    struct history *h = calloc(1, sizeof(*h));
    char *at;

    assert_non_null(h);
    snprintf(h->text, sizeof(h->text), "%s", text);
    for (char *op = strtok_r(h->text, ";", &at); op; op = strtok_r(NULL, ";", &at)) {
        assert_true(h->n < OPS_MAX);
        if (op[strspn(op, " ")] != '\0') {
            op_parse(&h->ops[h->n++], op);
        }
    }
    return h;
}

static void expect(enum lin_verdict verdict, const char *text)
{
    _cleanup_free_ struct history *h = history_of(text);
    struct lin_report r;
    enum lin_verdict got = lin_check(h->ops, h->n, &r);

    if (got != verdict) {
        for (size_t i = 0; i < h->n; i++) {
            lin_print(stderr, &h->ops[i]);
        }
        fail_msg("verdict %d instead of %d (%s) on: %s", got, verdict, r.why, text);
    }
}

static void good(const char *text)
{
    expect(LIN_OK, text);
}

static void bad(const char *text)
{
    expect(LIN_BAD, text);
}

/* ---- one operation after the other ---- */

static void test_sequences(void **state)
{
    (void) state;
    good("");
    good("1-2 get -; 3-4 set a; 5-6 get a; 7-8 delete; 9-10 get -");
    good("1-2 add a; 3-4 add b = NOT_STORED; 5-6 replace c; 7-8 get c");
    good("1-2 replace a = NOT_STORED; 3-4 append a = NOT_STORED; 5-6 get -");
    good("1-2 set a; 3-4 append b; 5-6 prepend c; 7-8 get cab");
    good("1-2 set 5; 3-4 incr 3 = 8; 5-6 decr 100 = 0; 7-8 get 0");
    good("1-2 set 10; 3-4 decr 1 = 9; 5-6 get 9");
    good("1-2 incr 1 = NOT_FOUND; 3-4 set x; 5-6 incr 1 = NON_NUMERIC; 7-8 get x");
    good("1-2 touch = NOT_FOUND; 3-4 set a; 5-6 touch; 7-8 delete; 9-10 delete = NOT_FOUND");
    good("1-2 set 18446744073709551615; 3-4 incr 2 = 1");
}

static void test_wrong_results(void **state)
{
    (void) state;
    bad("1-2 get a");
    bad("1-2 set a; 3-4 get b");
    bad("1-2 set a; 3-4 get -");
    bad("1-2 set a; 3-4 add b");
    bad("1-2 replace a");
    bad("1-2 set a; 3-4 replace b = NOT_STORED");
    bad("1-2 set a; 3-4 append b; 5-6 get ba");
    bad("1-2 set a; 3-4 prepend b; 5-6 get ab");
    bad("1-2 delete");
    bad("1-2 set a; 3-4 delete = NOT_FOUND");
    bad("1-2 set a; 3-4 touch = NOT_FOUND");
    bad("1-2 touch");
    bad("1-2 set 1; 3-4 incr 1 = 3");
    bad("1-2 set 1; 3-4 incr 1 = NON_NUMERIC");
    bad("1-2 set x; 3-4 incr 1 = 1");
}

static void test_stale_read(void **state)
{
    (void) state;
    bad("1-2 set a; 3-4 set b; 5-6 get a");
    bad("1-2 set a; 3-10 set b; 4-5 get b; 6-7 get a"); /* back in time while the write is under way
                                                         */
    good("1-2 set a; 3-10 set b; 4-5 get a; 6-7 get b");
    good("1-2 set a; 3-10 set b; 4-8 get b; 5-9 get a");
}

static void test_lost_update(void **state)
{
    (void) state;
    bad("1-2 set a; 3-4 get -; 5-6 get a");
    bad("1-2 set 0; 3-6 incr 1 = 1; 4-5 incr 1 = 1");
    good("1-2 set 0; 3-6 incr 1 = 2; 4-5 incr 1 = 1");
    bad("1-2 set a; 3-4 append b; 5-6 append c; 7-8 get ac");
}

static void test_resurrected_delete(void **state)
{
    (void) state;
    bad("1-2 set a; 3-4 delete; 5-6 get a");
    bad("1-2 set a; 3-4 delete; 5-6 get -; 7-8 get a");
    bad("1-2 set a; 3-4 delete; 5-6 add b = NOT_STORED");
    good("1-2 set a; 3-6 delete; 4-5 get a; 7-8 get -");
}

static void test_answer_before_effect(void **state)
{
    (void) state;
    bad("1-2 set a; 3-4 get -; 5-6 get a");
    bad("1-2 get a; 3-4 set a"); /* seen before it was asked for */
    good("1-4 set a; 2-3 get a");
    bad("1-2 add a; 3-4 add b");
}

/* ---- tokens ---- */

static void test_tokens(void **state)
{
    (void) state;
    good("1-2 set a #7; 3-4 get a #7; 5-6 cas 7 b #9; 7-8 get b #9");
    good("1-2 set a; 3-4 get a #7; 5-6 set b; 7-8 cas 7 c = EXISTS; 9-10 get b #8");
    good("1-2 cas 7 a = NOT_FOUND");
    good("1-2 set a; 3-4 cas 0 b = EXISTS; 5-6 get a #3");
    good("1-2 set a; 3-4 get a #7; 5-6 touch; 7-8 get a #7");
    bad("1-2 set a #7; 3-4 get a #8");
    bad("1-2 set a; 3-4 get a #7; 5-6 get a #8");
    bad("1-2 set a; 3-4 get a #7; 5-6 set b; 7-8 cas 7 c");
    bad("1-2 set a; 3-4 get a #7; 5-6 cas 7 b = EXISTS");
    bad("1-2 set a; 3-4 get a #7; 5-6 set b; 7-8 get b #7"); /* one token, two values */
    bad("1-2 set a #7; 3-4 delete; 5-6 set a #7");           /* given twice, even for one value */
    bad("1-2 set a; 3-4 get a #7; 5-6 cas 7 b = NOT_FOUND");
    bad("1-2 set a #7; 3-6 cas 7 b; 4-5 cas 7 c"); /* both win */
    good("1-2 set a #7; 3-6 cas 7 b; 4-5 cas 7 c = EXISTS");
}

static void test_tokens_of_numbers(void **state)
{
    (void) state;
    good("1-2 set 1 #3; 3-4 incr 1 = 2 #4; 5-6 get 2 #4; 7-8 cas 4 9 #5");
    bad("1-2 set 1 #3; 3-4 incr 1 = 2 #3");
    bad("1-2 set 1 #3; 3-4 incr 1 = 2 #4; 5-6 cas 3 9");
}

/* ---- outcomes that nobody knows ---- */

static void test_unknown(void **state)
{
    (void) state;
    good("1-? set a; 2-3 get -; 4-5 get a");
    good("1-? set a; 2-3 get -");
    good("1-? set a; 2-3 get a");
    good("1-2 set a; 3-? delete; 4-5 get a; 6-7 get -");
    good("1-2 set a; 3-? set b; 4-5 set c; 6-7 get c; 8-9 get b"); /* it happens late */
    good("1-? get -; 2-3 set a");
    bad("1-? set a; 2-3 get a; 4-5 get -");
    bad("1-2 set a; 3-? set b; 4-5 get b; 6-7 get a");
    bad("1-2 set a; 3-? set b; 4-5 get b; 6-7 set c; 8-9 get b"); /* it happened already */
    bad("1-2 get a; 3-? set a");
    good("1-? add a; 2-3 add b = NOT_STORED; 4-5 get a");
    bad("1-2 set a; 3-? cas 9 b; 4-5 get b #8"); /* a cas of a token that came later */
    good("1-2 set a #9; 3-? cas 9 b; 4-5 get b #12");
    bad("1-2 set a #9; 3-4 set c #10; 5-? cas 9 b; 6-7 get b #12");
}

static void test_unknown_once(void **state)
{
    (void) state;
    good("1-2 set 0; 3-? incr 1; 4-5 get 1");
    good("1-2 set 0; 3-? incr 1; 4-5 get 0; 6-7 incr 1 = 2");
    bad("1-2 set 0; 3-? incr 1; 4-5 get 2");
    bad("1-2 set 0; 3-? incr 1; 4-5 get 1; 6-7 get 2"); /* the retry counted twice */
    bad("1-2 set 0; 3-? incr 1; 4-5 incr 1 = 2; 6-7 incr 1 = 4");
    bad("1-2 set x; 3-? append y; 4-5 get xy; 6-7 get xyy");
}

static void test_refused_did_nothing(void **state)
{
    (void) state;
    good("1-2 set a = BUSY; 3-4 get -");
    bad("1-2 set a = BUSY; 3-4 get a");
}

static void test_flush(void **state)
{
    (void) state;
    good("1-2 set a; 3-4 flush; 5-6 get -");
    good("1-2 flush; 3-4 set a; 5-? flush; 6-7 get a; 8-9 get -");
    bad("1-2 set a; 3-4 flush; 5-6 get a");
    bad("1-2 set a; 3-? flush; 5-6 get -; 7-8 get a");
}

static void test_expiry(void **state)
{
    (void) state;
    good("1-2 set a; 1-? expire a; 3-4 get a; 5-6 get -; 7-8 add b");
    good("1-2 set a; 1-? expire a; 3-4 set b; 5-6 get b");
    bad("1-2 set a; 1-? expire a; 3-4 get -; 5-6 get a"); /* it comes back */
    bad("1-2 set a; 1-? expire a; 3-4 set b; 5-6 get -"); /* another one has gone */
}

/* ---- size ---- */

/* Clients that overlap all the time: no moment of quiet, and the search must not explode. */
static void test_long_overlap(void **state)
{
    _cleanup_free_ struct history *h = calloc(1, sizeof(*h));
    struct lin_report r;

    (void) state;
    assert_non_null(h);
    for (size_t i = 0; i < OPS_MAX; i++) {
        struct lin_op *o = &h->ops[h->n++];
        *o = (struct lin_op){ .call = 10 * i, .ret = 10 * i + 35, .client = (uint32_t) i % 4 };
        o->code = OP_INCR;
        o->operand = 1;
        o->result = i == 0 ? RESULT_STORED : RESULT_NUMBER;
        o->number = i;
        if (i == 0) {
            o->code = OP_SET;
            o->ret = 5;
            op_set_value(o, "0");
        }
    }
    assert_int_equal(lin_check(h->ops, h->n, &r), LIN_OK);
    h->ops[OPS_MAX / 2].number++;
    assert_int_equal(lin_check(h->ops, h->n, &r), LIN_BAD);
}

static void test_many_unknown(void **state)
{
    char text[4096] = "";
    size_t len = 0;

    (void) state;
    for (int i = 1; i <= 30; i++) {
        len += (size_t) snprintf(text + len, sizeof(text) - len, "%d-? set v%d; ", i, i);
        len += (size_t) snprintf(text + len, sizeof(text) - len, "%d-%d set w%d; %d-%d get w%d; ",
                                 100 + 4 * i, 101 + 4 * i, i, 102 + 4 * i, 103 + 4 * i, i);
    }
    good(text);
    snprintf(text + len, sizeof(text) - len, "900-901 get w1");
    bad(text);
}

/* ---- the linear checks ---- */

static void test_counter(void **state)
{
    _cleanup_free_ struct history *h = history_of("1-2 incr 1 = 6; 3-4 incr 2 = 8; 5-? incr 4");

    (void) state;
    assert_int_equal(lin_check_counter(h->ops, h->n, 5, 8), 0);
    assert_int_equal(lin_check_counter(h->ops, h->n, 5, 12), 0);
    assert_int_equal(lin_check_counter(h->ops, h->n, 5, 7), -ERANGE);
    assert_int_equal(lin_check_counter(h->ops, h->n, 5, 13), -ERANGE);
}

static int elements(const char *history, const char *final)
{
    _cleanup_free_ struct history *h = history_of(history);

    return lin_check_elements(h->ops, h->n, 2, (const uint8_t *) final, strlen(final));
}

static void test_elements(void **state)
{
    const char *h = "1-2 append aa; 3-4 prepend bb; 5-? append cc; 6-7 append dd = NOT_STORED";

    (void) state;
    assert_int_equal(elements(h, "bbaa"), 0);
    assert_int_equal(elements(h, "bbaacc"), 0);
    assert_int_equal(elements(h, "bbcc"), -ENOENT);
    assert_int_equal(elements(h, "bbaaaa"), -EEXIST);
    assert_int_equal(elements(h, "bbaadd"), -EBADMSG);
    assert_int_equal(elements(h, "bbaazz"), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sequences),
        cmocka_unit_test(test_wrong_results),
        cmocka_unit_test(test_stale_read),
        cmocka_unit_test(test_lost_update),
        cmocka_unit_test(test_resurrected_delete),
        cmocka_unit_test(test_answer_before_effect),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_tokens_of_numbers),
        cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_unknown_once),
        cmocka_unit_test(test_refused_did_nothing),
        cmocka_unit_test(test_flush),
        cmocka_unit_test(test_expiry),
        cmocka_unit_test(test_long_overlap),
        cmocka_unit_test(test_many_unknown),
        cmocka_unit_test(test_counter),
        cmocka_unit_test(test_elements),
    };

    return cmocka_run_group_tests_name("lin", tests, NULL, NULL);
}
