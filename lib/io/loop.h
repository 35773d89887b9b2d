/* One event loop per thread, over libevent. A turn: wait, run what became ready, then the hooks of
 * the turn's end in the order added, then the tasks (connections write once, closed things are
 * freed). Everything is for the loop's own thread except loop_post and loop_stop. */
#pragma once

#include "base/list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOOP_MAILBOX_MAX 65536 /* posts that wait for one loop */
#define LOOP_HOOKS_MAX   32

struct event_base;
struct loop;
struct loop_timer;

/* Returns -errno (-EMFILE…). May be called before the thread that will run it exists. */
int loop_new(struct loop **ret_loop);
/* Runs the mailbox's remaining posts and the tasks first, so that what they own is freed. The loop
 * must not be running. NULL is fine; returns NULL. */
struct loop *loop_free(struct loop *loop);

/* Turns until loop_stop; a stop asked for before makes it return at once. Returns 0 or -EIO. */
int loop_run(struct loop *loop);
/* One turn, waiting for events only if `wait`; for tests and for draining. */
int loop_turn(struct loop *loop, bool wait);
/* From any thread, and from signal handlers: the turn under way is finished, hooks included. */
void loop_stop(struct loop *loop);
bool loop_stopping(const struct loop *loop);

struct event_base *loop_base(struct loop *loop);

/* From any thread: calls fn(arg) on the loop's thread, in order of posting. -ENOBUFS:
 * LOOP_MAILBOX_MAX wait (nothing happened). One wake-up per batch. */
int loop_post(struct loop *loop, void (*fn)(void *arg), void *arg);

/* fn(ctx) at the end of every turn, in the order added, before connections write. Stays for ever.
 */
void loop_add_turn_end(struct loop *loop, void (*fn)(void *ctx), void *ctx);

/* Turns finished; from any thread. A watchdog posts something and asks whether it moved. */
uint64_t loop_turns(const struct loop *loop);

/* ---- timers (CLOCK_MONOTONIC underneath: not for leases, whose end is checked on clock_boot_usec)
 * ---- */

/* A timer, stopped. fn may stop, start or free it. */
struct loop_timer *loop_timer_new(struct loop *loop, void (*fn)(void *ctx), void *ctx);
struct loop_timer *loop_timer_free(struct loop_timer *timer);
/* Once, `usec` from now; replaces what was set before. */
void loop_timer_start(struct loop_timer *timer, uint64_t usec);
/* Every `usec` (> 0), the first time after `usec`. */
void loop_timer_every(struct loop_timer *timer, uint64_t usec);
void loop_timer_stop(struct loop_timer *timer);
bool loop_timer_active(const struct loop_timer *timer);

/* ---- tasks: done once at the end of a turn, after the hooks; for conn.c and its like ---- */

enum loop_phase {
    LOOP_FLUSH, /* write what waits */
    LOOP_FREE,  /* free what was closed; last of all */
    _LOOP_PHASE_MAX,
};

/* Embedded in its owner; zeroed, then initialised. */
struct loop_task {
    struct list node;
    void (*fn)(struct loop_task *task);
};

void loop_task_init(struct loop_task *task, void (*fn)(struct loop_task *task));
/* Adds it unless it is waiting already. A task of LOOP_FLUSH added while LOOP_FLUSH runs waits for
 * the next turn, which then comes without waiting. */
void loop_task_add(struct loop *loop, struct loop_task *task, enum loop_phase phase);
void loop_task_remove(struct loop_task *task);

/* 64 KiB of scratch that anyone on the loop's thread may use until it returns. */
#define LOOP_SCRATCH_BYTES 65536
uint8_t *loop_scratch(struct loop *loop);
