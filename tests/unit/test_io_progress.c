/* Work in several threads beside a loop: each item once, its first error, its end before time, and
 * what is told of it. */
#include "io/progress.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define ITEMS 1000

struct work {
    struct progress progress;
    _Atomic unsigned done[ITEMS];
    size_t stop_at; /* these items do so */
    size_t fail_at;
};

static int item(void *ctx, size_t i)
{
    struct work *w = ctx;

    atomic_fetch_add(&w->done[i], 1);
    if (i == w->stop_at) {
        progress_stop(&w->progress);
    }
    return i == w->fail_at ? -EBADMSG : progress_add(&w->progress, 2);
}

static size_t count_done(struct work *w)
{
    size_t n = 0;

    for (size_t i = 0; i < ITEMS; i++) {
        assert_true(w->done[i] <= 1);
        n += w->done[i];
    }
    return n;
}

static void test_each_once(void **state)
{
    char text[PROGRESS_TEXT_BYTES];

    (void) state;
    for (unsigned threads = 0; threads <= 4; threads++) {
        struct work w = { .progress.threads = threads, .stop_at = ITEMS, .fail_at = ITEMS };
        progress_begin(&w.progress, "doing", "items", ITEMS, 2 * ITEMS);
        assert_int_equal(progress_spread(&w.progress, ITEMS, item, &w), 0);
        assert_int_equal(count_done(&w), ITEMS);
        assert_true(progress_text(&w.progress, text));
        assert_string_equal(text, "doing: 1000 of 1000 items, 0.0 GB of 0.0 GB");
        progress_end(&w.progress);
        assert_false(progress_text(&w.progress, text));
    }
}

static void test_nobody_watches(void **state)
{
    struct work w = { .stop_at = ITEMS, .fail_at = ITEMS };

    (void) state;
    progress_begin(NULL, "doing", NULL, ITEMS, ITEMS);
    assert_int_equal(progress_spread(NULL, ITEMS, item, &w), 0);
    assert_int_equal(count_done(&w), ITEMS);
    assert_int_equal(progress_spread(NULL, 0, item, &w), 0);
    progress_end(NULL);
}

static void test_first_error(void **state)
{
    (void) state;
    for (unsigned threads = 1; threads <= 4; threads++) {
        struct work w = { .progress.threads = threads, .stop_at = ITEMS, .fail_at = 10 };
        assert_int_equal(progress_spread(&w.progress, ITEMS, item, &w), -EBADMSG);
        assert_int_equal(w.done[10], 1);
        assert_true(count_done(&w) < ITEMS || threads > 1);
    }
}

static void test_stopped(void **state)
{
    struct work w = { .progress.threads = 1, .stop_at = 10, .fail_at = ITEMS };

    (void) state;
    assert_int_equal(progress_spread(&w.progress, ITEMS, item, &w), -ECANCELED);
    assert_int_equal(count_done(&w), 11);
    assert_int_equal(progress_spread(&w.progress, ITEMS, item, &w), -ECANCELED);
    assert_int_equal(count_done(&w), 11);
}

static void test_text(void **state)
{
    struct progress p = { 0 };
    char text[PROGRESS_TEXT_BYTES];
    uint64_t moves;

    (void) state;
    assert_false(progress_text(&p, text));
    progress_begin(&p, "reading", NULL, 1, 0);
    assert_true(progress_text(&p, text));
    assert_string_equal(text, "reading: 100 %");
    progress_begin(&p, "checking", "segments", 10, 4000000000);
    moves = p.moves;
    assert_int_equal(progress_add(&p, 1200000000), 0);
    assert_true(p.moves > moves);
    assert_true(progress_text(&p, text));
    assert_string_equal(text, "checking: 0 of 10 segments, 1.2 GB of 4.0 GB");
    progress_begin(&p, "reading", NULL, 1, 1000);
    assert_int_equal(progress_add(&p, 999), 0);
    assert_true(progress_text(&p, text));
    assert_string_equal(text, "reading: 99 %");
    assert_int_equal(progress_add(&p, 100), 0); /* more than was known before */
    assert_true(progress_text(&p, text));
    assert_string_equal(text, "reading: 100 %");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_once),   cmocka_unit_test(test_nobody_watches),
        cmocka_unit_test(test_first_error), cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_text),
    };

    return cmocka_run_group_tests_name("io_progress", tests, NULL, NULL);
}
