/* The manager's process: drives core/manager with events of the Raft log, the connections and the
 * clock, and carries its actions out. Decides nothing itself. One thread, one loop. */
#pragma once

#include "core/consensus.h"
#include "core/manager.h"
#include "io/raft_group.h"
#include "io/raft_node.h"
#include "managers.h"
#include "news.h"
#include "peers.h"
#include "settings.h"
#include "status.h"

#include <stdbool.h>

#define HOST_CONNECTIONS_MAX 16384
#define HOST_STATUS_USEC     1000000 /* the sentence for systemd is renewed so often */
#define HOST_NEWS_USEC       500000  /* new views are told of so late at the latest */
#define HOST_DEFERRED_MAX    (2 * RAFT_NODE_PENDING_MAX)

struct daemon;
struct listener;
struct loop;
struct loop_timer;

struct host {
    const struct settings *settings;
    struct loop *loop;
    struct daemon *daemon;
    struct listener *listener;
    struct loop_timer *tick;
    int lock_fd;
    int exit_code;
    bool serving;   /* READY was said */
    bool answering; /* leads a cluster that is formed: requests are answered */
    bool stopping;
    uint64_t started_usec;
    uint64_t beat_usec; /* when gateways were last told that the leader lives */
    uint64_t said_usec; /* when the sentence for systemd was last made */
    char said[400];

    struct managers managers;
    struct raft_group *group;
    struct manager *manager;
    bool leads;
    bool stepping;
    struct manager_actions actions; /* of the step in progress */
    struct manager_event *deferred; /* came while stepping */
    size_t n_deferred;
    size_t cap_deferred;
    struct news news;   /* not told yet… */
    uint64_t news_usec; /* …since then, at most */

    struct peers peers;
};

/* Opens the data directory and the log, and listens; what is wrong was logged. -errno. */
int host_new(const struct settings *settings, struct host **ret_host);
/* Until it is told to stop. Returns the process's exit code. */
int host_run(struct host *h);
/* NULL is fine; returns NULL. */
struct host *host_free(struct host *h);

/* This manager leads, has seen all that was decided before, and there is a cluster. */
bool host_answers(const struct host *h);

/* Hands the event to the machine and carries its actions out; while that is being done, the event
 * waits and must not hold pointers. */
void host_step(struct host *h, const struct manager_event *e);
