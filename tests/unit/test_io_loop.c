/* The event loop: mailbox, timers, hooks and tasks of the turn's end. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/clock.h"
#include "io/loop.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define POSTERS    4
#define POSTS_EACH 2500
#define POSTS_ALL  (POSTERS * POSTS_EACH)

static struct loop *loop_make(void)
{
    struct loop *loop = NULL;

    assert_int_equal(loop_new(&loop), 0);
    return loop;
}

/* ---- mailbox ---- */

struct poster {
    struct loop *loop;
    struct counter *counter;
    unsigned id;
    pthread_t thread;
};

struct counter {
    struct loop *loop;
    unsigned n;
    unsigned last[POSTERS];
    bool in_order;
};

struct letter {
    struct counter *counter;
    unsigned poster;
    unsigned number;
};

static void letter_read(void *arg)
{
    struct letter *letter = arg;
    struct counter *c = letter->counter;

    c->in_order = c->in_order && letter->number == c->last[letter->poster] + 1;
    c->last[letter->poster] = letter->number;
    if (++c->n == POSTS_ALL) {
        loop_stop(c->loop);
    }
    free(letter);
}

static void *poster_run(void *arg)
{
    struct poster *p = arg;

    for (unsigned i = 1; i <= POSTS_EACH; i++) {
        struct letter *letter = mem_alloc(sizeof(*letter));

        *letter = (struct letter){ .counter = p->counter, .poster = p->id, .number = i };
        while (loop_post(p->loop, letter_read, letter) == -ENOBUFS) {
            sched_yield();
        }
    }
    return NULL;
}

static void test_posts_from_threads(void **state)
{
    struct loop *loop = loop_make();
    struct counter counter = { .loop = loop, .in_order = true };
    struct poster posters[POSTERS];

    (void) state;
    for (unsigned i = 0; i < POSTERS; i++) {
        posters[i] = (struct poster){ .loop = loop, .counter = &counter, .id = i };
        assert_int_equal(pthread_create(&posters[i].thread, NULL, poster_run, &posters[i]), 0);
    }
    assert_int_equal(loop_run(loop), 0);
    for (unsigned i = 0; i < POSTERS; i++) {
        pthread_join(posters[i].thread, NULL);
    }
    assert_int_equal(counter.n, POSTS_ALL);
    assert_true(counter.in_order);
    assert_true(loop_turns(loop) <= POSTS_ALL + 1);
    loop_free(loop);
}

static void count_up(void *arg)
{
    (*(unsigned *) arg)++;
}

static void test_mailbox_full(void **state)
{
    struct loop *loop = loop_make();
    unsigned n = 0;

    (void) state;
    for (unsigned i = 0; i < LOOP_MAILBOX_MAX; i++) {
        assert_int_equal(loop_post(loop, count_up, &n), 0);
    }
    assert_int_equal(loop_post(loop, count_up, &n), -ENOBUFS);
    assert_int_equal(loop_turn(loop, true), 0);
    assert_int_equal(n, LOOP_MAILBOX_MAX);
    assert_int_equal(loop_post(loop, count_up, &n), 0);
    loop_free(loop); /* delivers what is left */
    assert_int_equal(n, LOOP_MAILBOX_MAX + 1);
}

struct reposter {
    struct loop *loop;
    unsigned left;
};

static void repost(void *arg)
{
    struct reposter *r = arg;

    if (r->left-- == 0) {
        loop_stop(r->loop);
    } else {
        loop_post(r->loop, repost, r);
    }
}

/* A post made by a post comes in a later turn: it can't keep the loop from its other work. */
static void test_post_within_post(void **state)
{
    struct reposter r = { .loop = loop_make(), .left = 10 };

    (void) state;
    loop_post(r.loop, repost, &r);
    assert_int_equal(loop_run(r.loop), 0);
    assert_int_equal(loop_turns(r.loop), 11);
    loop_free(r.loop);
}

static void *stop_later(void *arg)
{
    loop_stop(arg);
    return NULL;
}

static void test_stop_from_thread(void **state)
{
    struct loop *loop = loop_make();
    pthread_t thread;

    (void) state;
    pthread_create(&thread, NULL, stop_later, loop);
    assert_int_equal(loop_run(loop), 0);
    pthread_join(thread, NULL);
    assert_true(loop_stopping(loop));
    assert_int_equal(loop_run(loop), 0); /* returns at once */
    loop_free(loop);
}

/* ---- timers ---- */

struct ticker {
    struct loop *loop;
    struct loop_timer *timer;
    unsigned fired;
    unsigned until;
    bool free_at_end;
};

static void tick(void *ctx)
{
    struct ticker *t = ctx;

    if (++t->fired < t->until) {
        return;
    }
    loop_stop(t->loop);
    if (t->free_at_end) {
        t->timer = loop_timer_free(t->timer);
    } else {
        loop_timer_stop(t->timer);
    }
}

static void test_timer_once(void **state)
{
    struct ticker t = { .loop = loop_make(), .until = 1 };
    uint64_t begin = clock_boot_usec();

    (void) state;
    t.timer = loop_timer_new(t.loop, tick, &t);
    assert_false(loop_timer_active(t.timer));
    loop_timer_start(t.timer, 3600000000ULL);
    loop_timer_start(t.timer, 20000); /* replaces */
    assert_true(loop_timer_active(t.timer));
    loop_run(t.loop);
    assert_int_equal(t.fired, 1);
    assert_true(clock_boot_usec() - begin >= 20000);
    assert_false(loop_timer_active(t.timer));
    loop_timer_free(t.timer);
    loop_free(t.loop);
}

static void test_timer_periodic(void **state)
{
    struct ticker t = { .loop = loop_make(), .until = 5, .free_at_end = true };

    (void) state;
    t.timer = loop_timer_new(t.loop, tick, &t);
    loop_timer_every(t.timer, 1000);
    loop_run(t.loop);
    assert_int_equal(t.fired, 5);
    assert_null(t.timer);
    loop_free(t.loop);
}

/* ---- the end of a turn ---- */

struct trace {
    char text[64];
    struct loop *loop;
    struct loop_task flush;
    struct loop_task freeing;
    unsigned flushes;
};

static void trace_add(struct trace *t, char c)
{
    size_t n = strlen(t->text);

    if (n + 1 < sizeof(t->text)) {
        t->text[n] = c;
    }
}

static void hook_a(void *ctx)
{
    trace_add(ctx, 'a');
}

static void hook_b(void *ctx)
{
    trace_add(ctx, 'b');
}

static void trace_flush(struct loop_task *task)
{
    struct trace *t = LIST_ENTRY(task, struct trace, flush);

    trace_add(t, 'W');
    if (++t->flushes < 2) {
        loop_task_add(t->loop, &t->flush, LOOP_FLUSH); /* next turn, which does not wait */
    }
}

static void trace_free(struct loop_task *task)
{
    trace_add(LIST_ENTRY(task, struct trace, freeing), 'F');
}

static void test_turn_end_order(void **state)
{
    struct trace t = { .loop = loop_make() };

    (void) state;
    loop_task_init(&t.flush, trace_flush);
    loop_task_init(&t.freeing, trace_free);
    loop_add_turn_end(t.loop, hook_a, &t);
    loop_add_turn_end(t.loop, hook_b, &t);
    loop_task_add(t.loop, &t.freeing, LOOP_FREE);
    loop_task_add(t.loop, &t.flush, LOOP_FLUSH);
    loop_task_add(t.loop, &t.flush, LOOP_FLUSH); /* once */
    loop_turn(t.loop, true);
    assert_string_equal(t.text, "abWF");
    loop_turn(t.loop, true);
    assert_string_equal(t.text, "abWFabW");
    assert_int_equal(loop_turns(t.loop), 2);
    loop_task_add(t.loop, &t.flush, LOOP_FLUSH);
    loop_task_remove(&t.flush);
    loop_turn(t.loop, false);
    assert_string_equal(t.text, "abWFabWab");
    loop_free(t.loop);
}

static void test_free_null(void **state)
{
    (void) state;
    assert_null(loop_free(NULL));
    assert_null(loop_timer_free(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_posts_from_threads), cmocka_unit_test(test_mailbox_full),
        cmocka_unit_test(test_post_within_post),   cmocka_unit_test(test_stop_from_thread),
        cmocka_unit_test(test_timer_once),         cmocka_unit_test(test_timer_periodic),
        cmocka_unit_test(test_turn_end_order),     cmocka_unit_test(test_free_null),
    };

    return cmocka_run_group_tests_name("io_loop", tests, NULL, NULL);
}
