#include "host.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/clock.h"
#include "io/daemon.h"
#include "io/keyring.h"
#include "io/listener.h"
#include "io/log.h"
#include "io/loop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

/* ---- the machine ---- */

/* A proposal on its way: what MANAGER_DONE needs. */
struct ticket {
    struct host *host;
    uint64_t tag;
};

static void on_proposal_done(void *ctx, int status, uint64_t index)
{
    struct ticket *t = ctx;
    struct manager_event e = { .kind = MANAGER_DONE,
                               .done = { .tag = t->tag, .status = status, .index = index } };
    struct host *h = t->host;

    free(t);
    host_step(h, &e);
}

static void host_propose(struct host *h, const struct manager_action *a)
{
    struct ticket *t = mem_alloc(sizeof(*t));
    int r;

    *t = (struct ticket){ .host = h, .tag = a->propose.tag };
    r = consensus_propose(raft_group_consensus(h->group), a->propose.p, a->propose.bytes,
                          on_proposal_done, t);
    if (r < 0) {
        if (r != -EAGAIN) {
            log_ratelimit(LOG_LEVEL_WARNING, "the raft log did not take an entry: %s",
                          strerrordesc_np(-r));
        }
        on_proposal_done(t, r, 0); /* waits until this step is done */
    }
}

static void host_act(struct host *h, const struct manager_action *a)
{
    if (a->kind == MANAGER_DO_PROPOSE) {
        host_propose(h, a);
        return;
    }
    if (a->kind == MANAGER_DO_CHANGED) {
        news_add(&h->news, &manager_cluster(h->manager)->space, a->changed.rows, a->changed.before,
                 a->changed.n);
    }
    peers_do(&h->peers, a);
}

static void host_defer(struct host *h, const struct manager_event *e)
{
    kumo_assert(e->kind == MANAGER_DONE || e->kind == MANAGER_GONE);
    mem_grow(&h->deferred, &h->cap_deferred, h->n_deferred + 1, sizeof(*h->deferred));
    h->deferred[h->n_deferred++] = *e;
}

static void host_step_one(struct host *h, const struct manager_event *e)
{
    h->actions.n = 0;
    manager_step(h->manager, clock_boot_usec(), e, &h->actions);
    for (size_t i = 0; i < h->actions.n; i++) {
        host_act(h, &h->actions.v[i]);
    }
}

void host_step(struct host *h, const struct manager_event *e)
{
    if (h->stepping) {
        host_defer(h, e);
        return;
    }
    h->stepping = true;
    host_step_one(h, e);
    for (size_t i = 0; i < h->n_deferred; i++) {
        struct manager_event next = h->deferred[i];
        host_step_one(h, &next);
    }
    h->n_deferred = 0;
    h->stepping = false;
}

/* ---- the log ---- */

static void on_apply(void *ctx, uint64_t index, const uint8_t *data, size_t bytes)
{
    struct manager_event e = { .kind = MANAGER_COMMITTED,
                               .data = { .p = data, .bytes = bytes, .index = index } };

    host_step(ctx, &e);
}

static void on_snapshot(void *ctx, struct buf *out)
{
    struct host *h = ctx;

    manager_snapshot(h->manager, out);
}

static int on_restore(void *ctx, const uint8_t *data, size_t bytes)
{
    struct host *h = ctx;

    return manager_restore(h->manager, data, bytes);
}

static void on_leadership(void *ctx, bool leader)
{
    struct host *h = ctx;
    struct manager_event e = { .kind = MANAGER_LEADER, .flag = leader };

    h->leads = leader;
    log_info("this manager %s", leader ? "leads" : "does not lead any more");
    host_step(h, &e);
}

static void on_cluster_id(void *ctx, uint8_t ret_id[UUID_BYTES])
{
    const struct host *h = ctx;

    memcpy(ret_id, manager_cluster(h->manager)->space.cluster_id, UUID_BYTES);
}

static void on_released(void *ctx)
{
    struct host *h = ctx;

    listener_release(h->listener);
}

static void on_raft_log(void *ctx, int level, const char *text)
{
    (void) ctx;
    log_at(level <= LOG_ERR       ? LOG_LEVEL_ERROR
           : level == LOG_WARNING ? LOG_LEVEL_WARNING
                                  : LOG_LEVEL_NOTICE,
           "%s", text);
}

/* ---- turns ---- */

bool host_answers(const struct host *h)
{
    return h->leads && !h->stopping && manager_cluster(h->manager)->space.n_partitions > 0;
}

/* Begins to answer, or ends it: then servers and gateways look for the next leader. */
static void host_watch_lead(struct host *h)
{
    bool answers = host_answers(h);

    if (!answers && h->answering) {
        peers_dismiss(&h->peers);
    }
    h->answering = answers;
}

/* Alone it is ready when it answers. One of a group is as soon as the others and those who look for
 * the leader can reach it. */
static void host_serve(struct host *h)
{
    const struct hashspace *space = &manager_cluster(h->manager)->space;
    bool alone = h->managers.n == 1;
    char name[ADDR_TEXT_BYTES] = "nowhere";
    struct addr addr;

    if (h->serving || h->stopping || (alone && !h->answering)) {
        return;
    }
    h->serving = true;
    listener_start(h->listener);
    daemon_notify_ready();
    if (listener_addr(h->listener, 0, &addr) == 0) {
        addr_format(&addr, name);
    }
    if (alone) {
        log_info("ready on %s: %u partitions, %u servers known", name, space->n_partitions,
                 space->n_servers);
    } else {
        log_info("ready on %s: manager %zu of %zu", name, h->managers.self + 1, h->managers.n);
    }
}

static void host_say_status(struct host *h)
{
    char text[sizeof(h->said)];

    if (h->said_usec != 0 && clock_boot_usec() - h->said_usec < HOST_STATUS_USEC) {
        return;
    }
    h->said_usec = clock_boot_usec();
    if (h->answering) {
        status_sentence(h, text, sizeof(text));
    } else {
        managers_sentence(h, text, sizeof(text));
    }
    if (strcmp(text, h->said) != 0) {
        memcpy(h->said, text, sizeof(text));
        daemon_notify_status("%s", text);
    }
}

/* A failure changes partitions turn after turn: they are told of together. */
static void host_tell_news(struct host *h)
{
    if (h->news.views == 0) {
        h->news_usec = clock_boot_usec();
    } else if (clock_boot_usec() - h->news_usec >= HOST_NEWS_USEC) {
        news_tell(&h->news, &manager_cluster(h->manager)->space);
        h->news = (struct news){ 0 };
    }
}

static void on_tick(void *ctx)
{
    struct host *h = ctx;
    struct manager_event e = { .kind = MANAGER_TICK };

    host_step(h, &e);
    if (h->answering && clock_boot_usec() - h->beat_usec >= MANAGER_BEAT_USEC) {
        h->beat_usec = clock_boot_usec();
        peers_beat(&h->peers);
    }
    if (h->serving && !h->stopping) {
        host_tell_news(h);
        host_say_status(h);
    }
}

static void on_turn_end(void *ctx)
{
    struct host *h = ctx;

    host_watch_lead(h);
    if (!h->answering) {
        h->news = (struct news){ 0 }; /* the leader tells them, and what the disk held is none */
    }
    host_serve(h);
    peers_flush(&h->peers);
}

/* ---- stop and reload ---- */

static void on_raft_closed(void *ctx)
{
    struct host *h = ctx;

    h->group = NULL;
    loop_stop(h->loop);
}

static void host_stop(struct host *h)
{
    h->stopping = true;
    listener_stop(h->listener);
    loop_timer_stop(h->tick);
    peers_close(&h->peers);
    raft_group_close(h->group, on_raft_closed, h);
}

static void on_stop(void *ctx)
{
    struct host *h = ctx;

    if (!h->stopping) {
        log_info("stopping");
        host_stop(h);
    }
}

/* The log, or the group, does not let it go on. */
static void on_failed(void *ctx, const char *why)
{
    struct host *h = ctx;

    log_error("%s", why);
    h->exit_code = EXIT_FAILURE;
    if (!h->stopping) {
        host_stop(h);
    }
}

static void on_reload(void *ctx)
{
    const struct host *h = ctx;

    daemon_reload(&settings_program, h->settings->argc, h->settings->argv, sizeof(*h->settings));
}

static const struct daemon_ops host_daemon_ops = { .on_stop = on_stop, .on_reload = on_reload };

/* ---- making ---- */

static void on_accept(void *ctx, int fd)
{
    struct host *h = ctx;

    peers_accept(&h->peers, fd);
}

static int host_listen(struct host *h, struct io_error *error)
{
    const struct conf_list *list = &h->settings->listen;
    bool loopback_only = !keyring_in_use();
    int r;

    h->listener = listener_new(h->loop, HOST_CONNECTIONS_MAX, "listen", on_accept, h);
    r = listener_inherit(h->listener, "peer", loopback_only, error);
    if (r > 0) {
        return 0; /* systemd's sockets count instead of our own */
    }
    for (size_t i = 0; i < list->n && r == 0; i++) {
        r = listener_open(h->listener, list->items[i], MANAGER_PORT, loopback_only, error);
    }
    return r;
}

static int host_make_manager(struct host *h)
{
    struct manager_options o = { .partitions = (uint32_t) h->settings->partitions,
                                 .replicas = (uint32_t) h->settings->replicas,
                                 .failure_usec = h->settings->failure_usec,
                                 .min_replicas_auto = (uint32_t) h->settings->min_replicas_auto,
                                 .session_usec = h->settings->session_timeout_usec };

    /* Kept in memory only: the id of the cluster is the one that is committed. */
    if (getrandom(o.cluster_id, sizeof(o.cluster_id), 0) != sizeof(o.cluster_id)) {
        return -EIO;
    }
    h->manager = manager_new(&o);
    return 0;
}

static int host_open_log(struct host *h, struct io_error *error)
{
    _cleanup_free_ char *dir = NULL;
    const char *addresses[MANAGERS_MAX];
    struct raft_group_options o = { .loop = h->loop,
                                    .addresses = addresses,
                                    .fsm = { .ctx = h,
                                             .apply = on_apply,
                                             .snapshot = on_snapshot,
                                             .restore = on_restore,
                                             .leadership = on_leadership,
                                             .failed = on_failed },
                                    .cluster_id = on_cluster_id,
                                    .released = on_released,
                                    .log = on_raft_log };
    int r;

    h->lock_fd = daemon_lock_dir(h->settings->data_dir, error);
    if (h->lock_fd < 0) {
        return h->lock_fd;
    }
    if (asprintf(&dir, "%s/raft", h->settings->data_dir) < 0) {
        return io_error_set(error, -ENOMEM, "out of memory");
    }
    if (mkdir(dir, 0750) < 0 && errno != EEXIST) {
        return io_error_set(error, -errno, "%s: %s", dir, strerrordesc_np(errno));
    }
    r = managers_find(h->settings, h->listener, &h->managers, error);
    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < h->managers.n; i++) {
        addresses[i] = h->managers.addresses[i];
    }
    o.n = h->managers.n;
    o.self = h->managers.self;
    o.dir = dir;
    return raft_group_start(&o, &h->group);
}

static int host_open(struct host *h, struct io_error *error)
{
    int r = keyring_open(h->settings->cluster_key, error);

    if (r == 0) {
        r = loop_new(&h->loop);
    }
    if (r == 0) {
        r = daemon_new(h->loop, &host_daemon_ops, h, &h->daemon);
    }
    if (r == 0) {
        peers_init(&h->peers, h);
        r = host_make_manager(h);
    }
    if (r == 0) {
        r = host_listen(h, error);
    }
    if (r == 0) {
        r = host_open_log(h, error);
    }
    if (r == 0) {
        loop_add_turn_end(h->loop, on_turn_end, h);
        h->tick = loop_timer_new(h->loop, on_tick, h);
        loop_timer_every(h->tick, MANAGER_TICK_USEC);
    }
    return r;
}

int host_new(const struct settings *settings, struct host **ret_host)
{
    struct host *h = mem_zalloc(1, sizeof(*h));
    struct io_error error = { "" };
    int r;

    h->settings = settings;
    h->lock_fd = -1;
    h->started_usec = clock_boot_usec();
    r = host_open(h, &error);
    if (r < 0) {
        if (error.text[0] != '\0') { /* otherwise it was logged already */
            log_error("%s", error.text);
        }
        host_free(h);
        return r;
    }
    *ret_host = h;
    return 0;
}

int host_run(struct host *h)
{
    if (loop_run(h->loop) < 0) {
        log_error("the event loop failed");
        h->exit_code = EXIT_FAILURE;
    }
    return h->exit_code;
}

struct host *host_free(struct host *h)
{
    if (!h) {
        return NULL;
    }
    loop_timer_free(h->tick);
    if (h->peers.host) {
        peers_close(&h->peers);
        loop_turn(h->loop, false); /* what the listener posted to itself */
    }
    listener_free(h->listener);
    keyring_use(NULL);
    daemon_free(h->daemon);
    if (h->peers.host) {
        peers_free(&h->peers);
    }
    manager_free(h->manager);
    manager_actions_free(&h->actions);
    free(h->deferred);
    loop_free(h->loop);
    if (h->lock_fd >= 0) {
        close(h->lock_fd);
    }
    free(h);
    return NULL;
}
