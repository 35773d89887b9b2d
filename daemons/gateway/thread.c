#include "thread.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "client.h"
#include "gateway.h"
#include "io/clock.h"
#include "io/log.h"
#include "link.h"
#include "manager_link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WAKE_USEC_MIN 1000 /* shortest time that the timer is set to */

/* ---- what the routing wants ---- */

struct ask {
    struct gateway *gateway;
    struct thread *thread; /* NULL: the table */
};

/* On the main thread. */
static void ask_manager(void *arg)
{
    struct ask *ask = arg;

    if (!ask->gateway->manager) {
        log_debug("asked for the managers while stopping");
    } else if (ask->thread) {
        manager_link_want_session(ask->gateway->manager, ask->thread);
    } else {
        manager_link_want_table(ask->gateway->manager);
    }
    free(ask);
}

static void thread_ask(struct thread *t, bool session)
{
    struct ask *ask = mem_zalloc(1, sizeof(*ask));

    ask->gateway = t->gateway;
    ask->thread = session ? t : NULL;
    if (loop_post(t->gateway->loop, ask_manager, ask) < 0) {
        free(ask); /* the routing asks again */
    }
}

static void thread_act_one(struct thread *t, const struct route_action *a)
{
    switch (a->kind) {
    case ROUTE_SEND:
        link_send(t, a->server, a->shard, a->send.session, a->send.op);
        return;
    case ROUTE_DONE:
        client_done(a->done.token, a);
        return;
    case ROUTE_CONNECT:
        link_connect(t, a->server, a->shard);
        return;
    case ROUTE_RECONNECT:
        link_reconnect(t, a->server, a->shard);
        return;
    case ROUTE_NEED_TABLE:
        thread_ask(t, false);
        return;
    case ROUTE_NEED_SESSION:
        thread_ask(t, true);
        return;
    default:
        kumo_unreachable();
    }
}

void thread_act(struct thread *t)
{
    kumo_assert(!t->acting); /* the routing isn't called while its actions are carried out */
    t->acting = true;
    for (size_t i = 0; i < t->actions.n; i++) {
        thread_act_one(t, &t->actions.v[i]);
    }
    t->actions.n = 0;
    t->acting = false;
}

int thread_submit(struct thread *t, struct route_client *client, struct slot *slot,
                  const struct op *op, struct route_failure *ret_failure)
{
    int r = route_submit(t->route, t->now_usec, client, slot, op, &t->actions, ret_failure);

    thread_act(t);
    return r;
}

void thread_note_time(struct thread *t)
{
    t->now_usec = clock_boot_usec();
}

/* ---- the loop ---- */

static void on_timer(void *ctx)
{
    struct thread *t = ctx;

    thread_note_time(t);
    route_tick(t->route, t->now_usec, &t->actions);
    thread_act(t);
}

static void timer_set(struct thread *t)
{
    uint64_t wake = route_wake_usec(t->route);

    if (wake == UINT64_MAX || (loop_timer_active(t->timer) && wake >= t->timer_usec)) {
        return;
    }
    t->timer_usec = wake;
    loop_timer_start(t->timer,
                     wake > t->now_usec + WAKE_USEC_MIN ? wake - t->now_usec : WAKE_USEC_MIN);
}

/* Clients first: what they ask goes into the same messages. */
static void on_turn_end(void *ctx)
{
    struct thread *t = ctx;

    thread_note_time(t);
    while (!list_empty(&t->ready_clients)) {
        struct client *c = LIST_ENTRY(t->ready_clients.next, struct client, ready);
        list_remove(&c->ready);
        client_continue(c);
    }
    link_flush_all(t);
    timer_set(t);
}

/* Nothing is to be done: that a task waits makes the turn. */
static void on_wake(struct loop_task *task)
{
    (void) task;
}

void thread_wake(struct thread *t)
{
    loop_task_add(t->loop, &t->wake, LOOP_FLUSH);
}

static void *thread_main(void *arg)
{
    struct thread *t = arg;

    loop_run(t->loop);
    return NULL;
}

/* ---- from the main thread ---- */

/* A post with its bytes. */
struct gift {
    struct thread *thread;
    int fd;
    uint64_t session;
    size_t bytes;
    uint8_t data[];
};

static struct gift *gift_new(struct thread *t, size_t bytes)
{
    struct gift *g = mem_alloc(sizeof(*g) + bytes);

    *g = (struct gift){ .thread = t, .fd = -1, .bytes = bytes };
    return g;
}

static void take_client(void *arg)
{
    struct gift *g = arg;

    client_new(g->thread, g->fd);
    free(g);
}

int thread_give_client(struct thread *t, int fd)
{
    struct gift *g = gift_new(t, 0);
    int r;

    g->fd = fd;
    r = loop_post(t->loop, take_client, g);
    if (r < 0) {
        free(g);
    }
    return r;
}

static void take_table(void *arg)
{
    struct gift *g = arg;
    struct thread *t = g->thread;
    struct mp_reader r = mp_reader_of(g->data, g->bytes);

    thread_note_time(t);
    if (hashspace_merge(&t->table, &r) < 0) {
        log_ratelimit(LOG_LEVEL_ERROR, "the hash space can't be read");
    } else {
        route_table_changed(t->route, t->now_usec, &t->table, &t->actions);
        thread_act(t);
        link_check_addresses(t);
    }
    free(g);
}

void thread_give_table(struct thread *t, const uint8_t *bytes, size_t n)
{
    struct gift *g = gift_new(t, n);

    memcpy(g->data, bytes, n);
    if (loop_post(t->loop, take_table, g) < 0) {
        free(g);
        manager_link_want_table(t->gateway->manager);
    }
}

static void take_session(void *arg)
{
    struct gift *g = arg;
    struct thread *t = g->thread;

    thread_note_time(t);
    t->session = g->session;
    route_set_session(t->route, t->now_usec, t->session, &t->actions);
    thread_act(t);
    free(g);
}

void thread_give_session(struct thread *t, uint64_t session)
{
    struct gift *g = gift_new(t, 0);

    g->session = session;
    if (loop_post(t->loop, take_session, g) < 0) {
        free(g); /* the routing asks again */
    }
}

void thread_client_gone(struct thread *t)
{
    if (t->stopping && !t->stop_told && list_empty(&t->clients)) {
        t->stop_told = true;
        (void) loop_post(t->gateway->loop, gateway_thread_stopped, t->gateway);
    }
}

static void take_stop(void *arg)
{
    struct thread *t = arg;

    t->stopping = true;
    LIST_FOR_EACH(node, &t->clients)
    {
        client_stop(LIST_ENTRY(node, struct client, node));
    }
    thread_client_gone(t);
}

void thread_stop(struct thread *t)
{
    if (loop_post(t->loop, take_stop, t) < 0) {
        log_warning("thread %u is overloaded: its clients are closed at once", t->index);
        gateway_thread_stopped(t->gateway);
    }
}

/* ---- life ---- */

int thread_new(struct gateway *g, unsigned index, struct thread **ret_thread)
{
    struct thread *t = mem_zalloc(1, sizeof(*t));
    struct route_limits limits = {
        .timeout_usec = g->settings.request_timeout_usec,
        .server_bytes_max = settings_thread_queue_bytes(&g->settings, g->n_threads),
        .ops_max = THREAD_OPS_MAX,
    };
    int r;

    t->gateway = g;
    t->index = index;
    t->value_bytes = THREAD_VALUE_BYTES;
    list_init(&t->links);
    list_init(&t->dirty_links);
    list_init(&t->clients);
    list_init(&t->ready_clients);
    list_init(&t->free_slots);
    r = loop_new(&t->loop);
    if (r < 0) {
        free(t);
        return r;
    }
    loop_task_init(&t->wake, on_wake);
    t->route = route_new(&limits);
    t->timer = loop_timer_new(t->loop, on_timer, t);
    loop_add_turn_end(t->loop, on_turn_end, t);
    *ret_thread = t;
    return 0;
}

int thread_start(struct thread *t)
{
    int r = pthread_create(&t->id, NULL, thread_main, t);

    t->running = r == 0;
    return -r;
}

struct thread *thread_free(struct thread *t)
{
    if (!t) {
        return NULL;
    }
    if (t->running) {
        loop_stop(t->loop);
        pthread_join(t->id, NULL);
    }
    (void) loop_turn(t->loop, false); /* connections that were on the way here */
    t->stop_told = true;
    while (!list_empty(&t->clients)) {
        client_free(LIST_ENTRY(t->clients.next, struct client, node));
    }
    while (!list_empty(&t->free_slots)) {
        struct slot *s = LIST_ENTRY(t->free_slots.next, struct slot, node);
        list_remove(&s->node);
        free(s);
    }
    link_free_all(t);
    loop_task_remove(&t->wake);
    loop_timer_free(t->timer);
    loop_free(t->loop);
    route_free(t->route);
    route_actions_free(&t->actions);
    hashspace_free(&t->table);
    free(t);
    return NULL;
}
