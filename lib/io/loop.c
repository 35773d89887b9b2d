/* The event loop: one thread, one libevent base. Bases have no locks of their own, because only the
 * loop's thread touches them; other threads reach a loop through its mailbox and an eventfd. */
#include "io/loop.h"

#include "base/assert.h"
#include "base/mem.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/thread.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/time.h>
#include <unistd.h>

struct loop_mail {
    void (*fn)(void *arg);
    void *arg;
};

struct loop_mailbox {
    struct loop_mail *mails;
    size_t n;
    size_t cap;
};

struct loop_hook {
    void (*fn)(void *ctx);
    void *ctx;
};

struct loop {
    struct event_base *base;
    struct event *wakeup;
    int wakeup_fd;
    _Atomic bool stopping;
    _Atomic bool woken; /* the eventfd was written and not read since */
    _Atomic uint64_t turns;
    pthread_mutex_t lock; /* of `incoming` */
    struct loop_mailbox incoming;
    struct loop_mailbox delivering;
    size_t n_hooks;
    struct loop_hook hooks[LOOP_HOOKS_MAX];
    struct list tasks[_LOOP_PHASE_MAX];
    uint8_t scratch[LOOP_SCRATCH_BYTES];
};

struct loop_timer {
    struct event *event;
    struct loop *loop;
    void (*fn)(void *ctx);
    void *ctx;
    uint64_t every_usec; /* 0: one shot */
};

/* ---- making and waking ---- */

static void loop_use_threads(void)
{
    kumo_assert(evthread_use_pthreads() == 0);
}

static void loop_wake(struct loop *loop)
{
    uint64_t one = 1;
    ssize_t n;

    if (!atomic_exchange(&loop->woken, true)) {
        n = write(loop->wakeup_fd, &one, sizeof(one));
        (void) n; /* full means that the loop will wake */
    }
}

/* Takes what was posted so far; posts made meanwhile wake the loop again. */
static void loop_deliver(struct loop *loop)
{
    struct loop_mailbox taken;

    pthread_mutex_lock(&loop->lock);
    taken = loop->incoming;
    loop->incoming = loop->delivering;
    pthread_mutex_unlock(&loop->lock);
    for (size_t i = 0; i < taken.n; i++) {
        taken.mails[i].fn(taken.mails[i].arg);
    }
    taken.n = 0;
    loop->delivering = taken;
}

static void loop_on_wakeup(evutil_socket_t fd, short what, void *ctx)
{
    struct loop *loop = ctx;
    uint64_t count;
    ssize_t n = read(fd, &count, sizeof(count));

    (void) n;
    (void) what;
    /* Cleared before taking: a post that comes after the taking writes again. */
    atomic_store(&loop->woken, false);
    loop_deliver(loop);
}

static struct event_base *loop_base_new(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct event_config *config;
    struct event_base *base;

    pthread_once(&once, loop_use_threads);
    config = event_config_new();
    if (!config) {
        return NULL;
    }
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_PRECISE_TIMER |
                                      EVENT_BASE_FLAG_NO_CACHE_TIME);
    base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

int loop_new(struct loop **ret_loop)
{
    struct loop *loop = mem_zalloc(1, sizeof(*loop));
    int r = -ENOMEM;

    pthread_mutex_init(&loop->lock, NULL);
    for (size_t i = 0; i < _LOOP_PHASE_MAX; i++) {
        list_init(&loop->tasks[i]);
    }
    loop->wakeup_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->wakeup_fd < 0) {
        r = -errno;
        goto fail;
    }
    errno = ENOMEM;
    loop->base = loop_base_new();
    if (!loop->base) {
        r = -errno;
        goto fail;
    }
    loop->wakeup =
        event_new(loop->base, loop->wakeup_fd, EV_READ | EV_PERSIST, loop_on_wakeup, loop);
    if (!loop->wakeup || event_add(loop->wakeup, NULL) < 0) {
        goto fail;
    }
    *ret_loop = loop;
    return 0;
fail:
    loop_free(loop);
    return r;
}

struct event_base *loop_base(struct loop *loop)
{
    return loop->base;
}

uint8_t *loop_scratch(struct loop *loop)
{
    return loop->scratch;
}

/* ---- turning ---- */

static void loop_run_tasks(struct loop *loop, enum loop_phase phase)
{
    struct list now;

    list_init(&now);
    list_splice(&now, &loop->tasks[phase]);
    while (!list_empty(&now)) {
        struct loop_task *task = LIST_ENTRY(now.next, struct loop_task, node);

        list_remove(&task->node);
        task->fn(task);
    }
}

static void loop_end_turn(struct loop *loop)
{
    for (size_t i = 0; i < loop->n_hooks; i++) {
        loop->hooks[i].fn(loop->hooks[i].ctx);
    }
    loop_run_tasks(loop, LOOP_FLUSH);
    loop_run_tasks(loop, LOOP_FREE);
    atomic_fetch_add_explicit(&loop->turns, 1, memory_order_relaxed);
}

int loop_turn(struct loop *loop, bool wait)
{
    bool waiting = wait && list_empty(&loop->tasks[LOOP_FLUSH]) &&
                   list_empty(&loop->tasks[LOOP_FREE]) && !loop_stopping(loop);
    int r = event_base_loop(loop->base, waiting ? EVLOOP_ONCE : EVLOOP_NONBLOCK | EVLOOP_ONCE);

    loop_end_turn(loop);
    return r < 0 ? -EIO : 0;
}

int loop_run(struct loop *loop)
{
    int r = 0;

    while (!loop_stopping(loop) && r == 0) {
        r = loop_turn(loop, true);
    }
    return r;
}

/* What was closed or posted last is still freed; bounded, because tasks may make tasks. */
static void loop_drain(struct loop *loop)
{
    for (int i = 0; i < 8; i++) {
        loop_deliver(loop);
        loop_run_tasks(loop, LOOP_FLUSH);
        loop_run_tasks(loop, LOOP_FREE);
    }
}

struct loop *loop_free(struct loop *loop)
{
    if (!loop) {
        return NULL;
    }
    loop_drain(loop);
    if (loop->wakeup) {
        event_free(loop->wakeup);
    }
    if (loop->base) {
        event_base_free(loop->base);
    }
    if (loop->wakeup_fd >= 0) {
        close(loop->wakeup_fd);
    }
    pthread_mutex_destroy(&loop->lock);
    free(loop->incoming.mails);
    free(loop->delivering.mails);
    free(loop);
    return NULL;
}

void loop_stop(struct loop *loop)
{
    atomic_store(&loop->stopping, true);
    loop_wake(loop);
}

bool loop_stopping(const struct loop *loop)
{
    return atomic_load(&loop->stopping);
}

uint64_t loop_turns(const struct loop *loop)
{
    return atomic_load_explicit(&loop->turns, memory_order_relaxed);
}

int loop_post(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    struct loop_mailbox *box = &loop->incoming;
    bool full;

    pthread_mutex_lock(&loop->lock);
    full = box->n >= LOOP_MAILBOX_MAX;
    if (!full) {
        mem_grow(&box->mails, &box->cap, box->n + 1, sizeof(*box->mails));
        box->mails[box->n++] = (struct loop_mail){ .fn = fn, .arg = arg };
    }
    pthread_mutex_unlock(&loop->lock);
    if (full) {
        return -ENOBUFS;
    }
    loop_wake(loop);
    return 0;
}

void loop_add_turn_end(struct loop *loop, void (*fn)(void *ctx), void *ctx)
{
    kumo_assert(loop->n_hooks < LOOP_HOOKS_MAX);
    loop->hooks[loop->n_hooks++] = (struct loop_hook){ .fn = fn, .ctx = ctx };
}

/* ---- tasks ---- */

void loop_task_init(struct loop_task *task, void (*fn)(struct loop_task *task))
{
    list_init(&task->node);
    task->fn = fn;
}

void loop_task_add(struct loop *loop, struct loop_task *task, enum loop_phase phase)
{
    if (list_empty(&task->node)) {
        list_push_back(&loop->tasks[phase], &task->node);
    }
}

void loop_task_remove(struct loop_task *task)
{
    list_remove(&task->node);
}

/* ---- timers ---- */

static struct timeval loop_timeval(uint64_t usec)
{
    return (struct timeval){ .tv_sec = (time_t) (usec / 1000000),
                             .tv_usec = (suseconds_t) (usec % 1000000) };
}

static void loop_timer_fire(evutil_socket_t fd, short what, void *ctx)
{
    struct loop_timer *timer = ctx;

    (void) fd;
    (void) what;
    if (timer->every_usec > 0) {
        struct timeval tv = loop_timeval(timer->every_usec);
        event_add(timer->event, &tv);
    }
    timer->fn(timer->ctx); /* last: it may free the timer */
}

struct loop_timer *loop_timer_new(struct loop *loop, void (*fn)(void *ctx), void *ctx)
{
    struct loop_timer *timer = mem_zalloc(1, sizeof(*timer));

    timer->loop = loop;
    timer->fn = fn;
    timer->ctx = ctx;
    timer->event = event_new(loop->base, -1, 0, loop_timer_fire, timer);
    kumo_assert(timer->event);
    return timer;
}

struct loop_timer *loop_timer_free(struct loop_timer *timer)
{
    if (timer) {
        event_free(timer->event);
        free(timer);
    }
    return NULL;
}

static void loop_timer_set(struct loop_timer *timer, uint64_t usec, uint64_t every_usec)
{
    struct timeval tv = loop_timeval(usec);

    timer->every_usec = every_usec;
    event_add(timer->event, &tv);
}

void loop_timer_start(struct loop_timer *timer, uint64_t usec)
{
    loop_timer_set(timer, usec, 0);
}

void loop_timer_every(struct loop_timer *timer, uint64_t usec)
{
    kumo_assert(usec > 0);
    loop_timer_set(timer, usec, usec);
}

void loop_timer_stop(struct loop_timer *timer)
{
    event_del(timer->event);
}

bool loop_timer_active(const struct loop_timer *timer)
{
    return event_pending(timer->event, EV_TIMEOUT, NULL) != 0;
}
