/* The turns of a raft node: libuv's loop inside libevent's, and what is looked at after each of its
 * turns: errors of the disk, leadership, the end.
 *
 * C-Raft is built without its asserts and swallows errors of the disk in several places (a lost
 * append would later count as stored). So after the first failure it isn't run again, not even to
 * close. */
#include "io/raft_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

/* A disk that stores nothing for so long has failed; so has one that doesn't let the log be closed.
 */
#define STALL_MSEC 30000
#define CLOSE_MSEC 10000

/* What a single look may count for: when the whole machine slept, the disk didn't. */
#define STALL_STEP_MSEC 1000

/* Not by event_active, which would come before other sockets are looked at. */
void raft_loop_wake(struct raft_node *n)
{
    static const struct timeval at_once = { 0 };

    n->again = true;
    if (!n->in_turn) {
        event_add(n->timer, &at_once);
    }
}

static void node_announce(struct raft_node *n, bool leader)
{
    n->announced = leader;
    n->options.fsm.leadership(n->options.fsm.ctx, leader);
}

static void barrier_done(struct raft_barrier *req, int status)
{
    struct raft_node *n = req->data;

    n->barrier_sent = false;
    if (status == 0) {
        n->leader_term = n->barrier_term;
    }
}

/* Tries again with the next tick when the disk has no room. */
static void node_send_barrier(struct raft_node *n)
{
    n->barrier.data = n;
    n->barrier_term = raft_current_term(&n->raft);
    int rv = raft_barrier(&n->raft, &n->barrier, barrier_done);
    if (rv == 0) {
        n->barrier_sent = true;
        raft_loop_wake(n);
    } else if (rv == RAFT_NOSPACE && !n->full_told) {
        n->full_told = true;
        raft_glue_log(
            &n->options, LOG_WARNING,
            "no room on the disk for the raft log: nothing can be decided until there is");
    } else if (rv != RAFT_NOSPACE && rv != RAFT_NOTLEADER) {
        n->io_failed = true;
    }
}

/* Raft tells nobody about its state: it is read after each turn. Between two turns leadership may
 * be lost and won again; then the term differs. */
static void node_watch_leadership(struct raft_node *n)
{
    bool leader = raft_state(&n->raft) == RAFT_LEADER;
    bool passed = leader && n->leader_term == raft_current_term(&n->raft);

    if (n->announced && !passed) {
        node_announce(n, false);
    } else if (passed && !n->announced) {
        n->full_told = false;
        node_announce(n, true);
    } else if (leader && !passed && !n->barrier_sent) {
        node_send_barrier(n);
    }
}

/* Time without progress, counted in steps so that a sleep of the machine is not the disk's. */
static void node_watch_clock(struct raft_node *n, bool progress)
{
    uint64_t now = uv_now(&n->loop);
    uint64_t step = now - n->watch_msec;

    n->watch_msec = now;
    n->stall_msec =
        progress ? 0 : n->stall_msec + (step < STALL_STEP_MSEC ? step : STALL_STEP_MSEC);
}

/* The reason why the log can't go on, or NULL. */
static const char *node_disk_error(struct raft_node *n)
{
    if (n->io_failed || n->io.errmsg[0] != '\0') {
        return n->io.errmsg[0] != '\0' ? n->io.errmsg : raft_errmsg(&n->raft);
    }
    if (raft_state(&n->raft) == RAFT_UNAVAILABLE) {
        return raft_errmsg(&n->raft);
    }
    node_watch_clock(n, n->raft.last_stored != n->stored ||
                            n->raft.last_stored >= raft_last_index(&n->raft));
    n->stored = n->raft.last_stored;
    return n->stall_msec >= STALL_MSEC ? "the disk has stored nothing for 30 s" : NULL;
}

/* As a sentence for the operator. */
static void disk_error_say(const struct raft_node *n, const char *reason, char *out, size_t cap)
{
    int error;

    if (sscanf(reason, "write failed: -%d", &error) == 1) { /* raft_uv's way to say it */
        reason = strerror(error);
    }
    snprintf(
        out, cap,
        "the raft log in %s can't be written: %s; check the disk, then start the manager again",
        n->dir, reason);
}

/* Ends with an answer for everybody. What the library still holds is left to the end of the
 * process. */
static void node_fail(struct raft_node *n, const char *why)
{
    n->state = NODE_FAILED;
    event_del(n->readable);
    event_del(n->timer);
    while (!list_empty(&n->pending)) {
        struct proposal *p = LIST_ENTRY(n->pending.next, struct proposal, node);
        list_remove(&p->node); /* raft still refers to it: not freed */
        if (p->done) {
            p->done(p->ctx, -EIO, 0);
        }
    }
    if (n->announced) {
        node_announce(n, false);
    }
    n->options.fsm.failed(n->options.fsm.ctx, why);
}

/* Tells the owner; the node is freed, or, after a failure, left alone. */
static void node_finish(struct raft_node *n, bool let_go)
{
    void (*closed)(void *ctx) = n->closed;
    void *ctx = n->closed_ctx;

    if (let_go) {
        raft_node_free(n);
    } else {
        raft_node_free_events(n);
    }
    if (closed) {
        closed(ctx);
    }
}

static void node_arm(struct raft_node *n)
{
    int msec = n->again ? 0 : n->state == NODE_FAILED ? -1 : uv_backend_timeout(&n->loop);

    if (n->state == NODE_CLOSED && (msec < 0 || msec > STALL_STEP_MSEC)) {
        msec = STALL_STEP_MSEC; /* raft's ticks have ended */
    }
    if (msec >= 0) {
        struct timeval tv = { .tv_sec = msec / 1000, .tv_usec = msec % 1000 * 1000 };
        event_add(n->timer, &tv);
    }
}

void raft_loop_closed(struct raft *raft)
{
    struct raft_node *n = raft->data;

    n->uv_closed = true;
}

static void node_run(struct raft_node *n)
{
    uv_run(&n->loop, UV_RUN_NOWAIT);
    /* What the first run's callbacks began to watch is known to the kernel only after another. */
    uv_run(&n->loop, UV_RUN_NOWAIT);
}

static void node_turn_closing(struct raft_node *n)
{
    if (n->state == NODE_CLOSING) {
        n->state = NODE_CLOSED;
        n->stall_msec = 0;
        raft_close(&n->raft, raft_loop_closed);
    }
    node_run(n);
    if (n->uv_closed && !uv_loop_alive(&n->loop)) {
        node_finish(n, true);
        return;
    }
    node_watch_clock(n, false);
    if (n->stall_msec >= CLOSE_MSEC) {
        raft_glue_log(&n->options, LOG_WARNING,
                      "the disk of the raft log doesn't end its last writes");
        node_finish(n, false);
        return;
    }
    node_arm(n);
}

static void node_turn_running(struct raft_node *n)
{
    char why[RAFT_WHY_BYTES];

    n->in_turn = true;
    node_run(n);
    const char *reason = node_disk_error(n);
    if (reason) {
        disk_error_say(n, reason, why, sizeof(why));
        node_fail(n, why);
    } else if (n->fatal) {
        node_fail(n, n->fatal);
    } else if (n->state == NODE_RUNNING) {
        node_watch_leadership(n);
    }
    n->in_turn = false;
    node_arm(n);
}

void raft_loop_turn(evutil_socket_t fd, short what, void *ctx)
{
    struct raft_node *n = ctx;

    (void) fd;
    (void) what;
    n->again = false;
    if (n->state == NODE_RUNNING) {
        node_turn_running(n);
    } else if (n->state != NODE_FAILED) {
        node_turn_closing(n);
    } else if (n->close_queued) {
        node_finish(n, false);
    }
}
