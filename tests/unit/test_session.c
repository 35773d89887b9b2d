/* The table of what became of operations (R12). */
#include "base/cleanup.h"
#include "base/rng.h"
#include "core/session.h"
#include "wire/msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void record(struct session_table *t, uint64_t session, uint64_t number, uint64_t first)
{
    struct op_id op = { session, number, first };
    struct session_answer a = {
        .number = number,
        .at = { .seq = number * 10, .view = 3 },
        .code = RESULT_NUMBER,
        .value = number + 5,
        .cas = number * 10,
    };

    session_record(t, &op, &a);
}

static int look(struct session_table *t, uint64_t session, uint64_t number, uint64_t first)
{
    struct op_id op = { session, number, first };
    struct session_answer a = { .number = 99 };
    int verdict = (int) session_look(t, &op, &a);

    if (verdict == SESSION_DONE) {
        assert_int_equal(a.number, number);
        assert_int_equal(a.at.seq, number * 10);
        assert_int_equal(a.code, RESULT_NUMBER);
        assert_int_equal(a.value, number + 5);
        assert_int_equal(a.cas, number * 10);
    } else {
        assert_int_equal(a.number, 99);
    }
    return verdict;
}

static void test_story(void **state)
{
    struct session_table t = { 0 };

    (void) state;
    assert_int_equal(look(&t, 7, 1, 1), SESSION_NEW);
    assert_int_equal(look(&t, 7, 1024, 1), SESSION_NEW);
    assert_int_equal(look(&t, 7, 1025, 1), SESSION_AHEAD);
    record(&t, 7, 1, 1);
    record(&t, 7, 3, 1);
    assert_int_equal(look(&t, 7, 1, 1), SESSION_DONE);
    assert_int_equal(look(&t, 7, 2, 1), SESSION_NEW);
    assert_int_equal(look(&t, 7, 3, 1), SESSION_DONE);
    assert_int_equal(look(&t, 8, 1, 1), SESSION_NEW); /* another session */
    record(&t, 7, 4, 3);                              /* 1 and 2 are answered */
    assert_int_equal(look(&t, 7, 1, 1), SESSION_GONE);
    assert_int_equal(look(&t, 7, 2, 1), SESSION_GONE);
    assert_int_equal(look(&t, 7, 3, 1), SESSION_DONE);
    assert_int_equal(look(&t, 7, 4, 3), SESSION_DONE);
    record(&t, 7, 5, 2); /* an older first takes nothing back */
    assert_int_equal(look(&t, 7, 2, 2), SESSION_GONE);
    assert_int_equal(look(&t, 7, 3 + 1023, 3), SESSION_NEW);
    assert_int_equal(look(&t, 7, 3 + 1024, 3), SESSION_AHEAD);
    assert_int_equal(look(&t, 7, 2000, 1500), SESSION_NEW); /* it says that it has moved on */
    session_table_free(&t);
    session_table_free(&t);
}

/* Numbers at the end of what there is. */
static void test_edges(void **state)
{
    struct session_table t = { 0 };

    (void) state;
    record(&t, 1, UINT64_MAX, UINT64_MAX);
    assert_int_equal(look(&t, 1, UINT64_MAX - 1, 1), SESSION_GONE);
    assert_int_equal(look(&t, 1, 1, 1), SESSION_GONE);
    record(&t, UINT64_MAX, 1, 1);
    assert_int_equal(look(&t, UINT64_MAX, 1, 1), SESSION_DONE);
    session_table_free(&t);
}

#define SESSIONS 300
#define NUMBERS  400

/* Against arrays: any order inside of the window, many sessions. */
static void test_model(void **state)
{
    static bool done[SESSIONS][NUMBERS];
    static uint64_t first[SESSIONS];
    struct session_table t = { 0 };
    struct rng rng = { 9 };

    (void) state;
    for (int round = 0; round < 100000; round++) {
        uint64_t s = rng_below(&rng, SESSIONS);
        uint64_t number = first[s] + rng_below(&rng, 20), got;
        if (number >= NUMBERS) {
            continue;
        }
        got = (uint64_t) look(&t, s * 1000 + 1, number, first[s]);
        assert_int_equal(got, done[s][number] ? SESSION_DONE : SESSION_NEW);
        if (first[s] > 0) {
            assert_int_equal(look(&t, s * 1000 + 1, first[s] - 1, 0), SESSION_GONE);
        }
        if (got == SESSION_NEW) {
            if (rng_chance(&rng, 1, 3)) { /* it waits for no less than this now */
                first[s] = number;
            }
            record(&t, s * 1000 + 1, number, first[s]);
            done[s][number] = true;
        }
    }
    session_table_free(&t);
}

/* The window bounds what a session costs. */
static void test_window(void **state)
{
    struct session_table t = { 0 };

    (void) state;
    for (uint64_t n = 1; n <= SESSION_WINDOW; n++) {
        assert_int_equal(look(&t, 1, n, 1), SESSION_NEW);
        record(&t, 1, n, 1);
    }
    assert_int_equal(look(&t, 1, SESSION_WINDOW + 1, 1), SESSION_AHEAD);
    for (uint64_t n = 1; n <= SESSION_WINDOW; n++) {
        assert_int_equal(look(&t, 1, n, 1), SESSION_DONE);
    }
    record(&t, 1, SESSION_WINDOW + 1, SESSION_WINDOW + 1);
    for (uint64_t n = 1; n <= SESSION_WINDOW; n++) {
        assert_int_equal(look(&t, 1, n, 1), SESSION_GONE);
    }
    session_table_free(&t);
}

/* ---- sessions that are over ---- */

static void test_end(void **state)
{
    struct session_table t = { 0 };

    (void) state;
    record(&t, 7, 1, 1);
    record(&t, 8, 1, 1);
    session_table_end(&t, 7, 50);
    assert_int_equal(look(&t, 7, 1, 1), SESSION_NEW); /* so it must be refused before */
    assert_int_equal(look(&t, 8, 1, 1), SESSION_DONE);
    assert_int_equal(t.known, 50);
    session_table_end(&t, 9, 40); /* was never here */
    assert_int_equal(t.known, 50);
    session_table_free(&t);
    assert_int_equal(t.known, 0);
}

static void test_over(void **state)
{
    struct session_table t = { 0 };
    struct live_sessions live = { 0 };
    uint64_t ids[8];

    (void) state;
    for (uint64_t s = 10; s < 20; s++) {
        record(&t, s, 1, 1);
    }
    assert_int_equal(session_table_over(&t, &live, 1, ids, 8), 0); /* nothing is known of any */
    assert_int_equal(live_sessions_open(&live, 12), 0);
    assert_int_equal(live_sessions_open(&live, 15), 0);
    assert_int_equal(session_table_over(&t, &live, 1, ids, 2), 2); /* 10, 11, 13, 14 */
    assert_int_equal(session_table_over(&t, &live, 1, ids, 8), 2);
    assert_int_equal(session_table_over(&t, &live, 1, ids, 8), 0);
    assert_int_equal(session_table_over(&t, &live, 2, ids, 8), 4); /* another view */
    for (int i = 0; i < 4; i++) {
        assert_true(ids[i] < 15 && ids[i] != 12);
    }
    live_sessions_free(&live);
    session_table_free(&t);
}

static void test_live(void **state)
{
    struct live_sessions a = { 0 };
    struct live_sessions b = { 0 };
    uint64_t ids[] = { 30, 20, 25 }; /* two opened, one over */
    struct msg_sessions m = { .index = 30, .n_opened = 2, .n_ended = 1, .ids = ids };

    (void) state;
    for (uint64_t id = 5; id <= 25; id += 5) {
        assert_int_equal(live_sessions_open(&a, id), 0);
    }
    m = live_sessions_whole(&a);
    assert_true(live_sessions_told(&b, &m));
    assert_false(live_sessions_told(&b, &m));
    m = (struct msg_sessions){ .index = 30, .n_opened = 2, .n_ended = 1, .ids = ids };
    assert_true(live_sessions_told(&b, &m));
    assert_int_equal(b.n, 5); /* 20 was there */
    assert_int_equal(b.index, 30);
    assert_true(live_sessions_has(&b, 30));
    assert_false(live_sessions_has(&b, 25));
    assert_false(live_sessions_has(&b, 0));
    assert_false(live_sessions_has(&b, 31));
    assert_true(live_sessions_end(&b, 30, 31));
    assert_false(live_sessions_end(&b, 30, 32));
    assert_int_equal(b.index, 32);
    live_sessions_free(&a);
    live_sessions_free(&b);
}

/* What is known travels; what an earlier version wrote is read. */
static void test_forms(void **state)
{
    _cleanup_(buf_free) struct buf b = { 0 };
    struct session_table t = { 0 };
    struct session_table back = { 0 };
    struct mp_reader r;

    (void) state;
    record(&t, 7, 1, 1);
    session_table_end(&t, 8, 50);
    session_table_put(&b, &t);
    r = mp_reader_of(buf_head(&b), buf_len(&b));
    session_table_get(&r, &back);
    assert_false(r.failed);
    assert_ptr_equal(r.p, r.end);
    assert_int_equal(back.known, 50);
    assert_int_equal(look(&back, 7, 1, 1), SESSION_DONE);
    session_table_free(&back);
    r = mp_reader_of(buf_head(&b) + 2, buf_len(&b) - 2); /* the list alone */
    session_table_get(&r, &back);
    assert_false(r.failed);
    assert_ptr_equal(r.p, r.end);
    assert_int_equal(back.known, 0);
    assert_int_equal(look(&back, 7, 1, 1), SESSION_DONE);
    session_table_free(&back);
    session_table_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_story),  cmocka_unit_test(test_edges), cmocka_unit_test(test_model),
        cmocka_unit_test(test_window), cmocka_unit_test(test_end),   cmocka_unit_test(test_over),
        cmocka_unit_test(test_live),   cmocka_unit_test(test_forms),
    };

    return cmocka_run_group_tests_name("session", tests, NULL, NULL);
}
