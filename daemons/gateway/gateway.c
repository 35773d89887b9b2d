#include "gateway.h"

#include "base/mem.h"
#include "io/clock.h"
#include "io/daemon.h"
#include "io/keyring.h"
#include "io/listener.h"
#include "io/log.h"
#include "io/loop.h"
#include "manager_link.h"
#include "store.h"
#include "thread.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SOCKET_NAME "client" /* FileDescriptorName= of kumo-gateway.socket */

/* ---- status ---- */

static void tell_status(const struct gateway *g)
{
    const struct hashspace *h = manager_link_table(g->manager);

    if (g->stopping) {
        daemon_notify_status("Stopping: answering what was asked.");
    } else if (h->epoch == 0) {
        daemon_notify_status("Waiting for a manager.");
    } else if (h->n_partitions == 0) {
        daemon_notify_status("No servers are attached yet: run \"kumoctl attach\".");
    } else if (!manager_link_is_up(g->manager)) {
        daemon_notify_status(
            "Serving with the hash space of epoch %llu; no manager can be reached.",
            (unsigned long long) h->epoch);
    } else {
        daemon_notify_status("Serving %u partitions on %u servers (epoch %llu).", h->n_partitions,
                             h->n_servers, (unsigned long long) h->epoch);
    }
}

static void tell_ready(struct gateway *g)
{
    if (!g->ready && !g->stopping) {
        g->ready = true;
        loop_timer_stop(g->ready_timer);
        daemon_notify_ready();
    }
}

void gateway_update_status(struct gateway *g)
{
    if (!g->manager) {
        return; /* it is being made */
    }
    if (!g->ready && manager_link_table_is_whole(g->manager)) {
        log_info("serving: epoch %llu, %u partitions, %u servers",
                 (unsigned long long) manager_link_table(g->manager)->epoch,
                 manager_link_table(g->manager)->n_partitions,
                 manager_link_table(g->manager)->n_servers);
        tell_ready(g);
    }
    tell_status(g);
}

static void on_ready_timer(void *ctx)
{
    struct gateway *g = ctx;

    log_notice("the hash space is not there yet: requests get an error until it is");
    tell_ready(g);
    tell_status(g);
}

/* ---- connections ---- */

static void on_accept(void *ctx, int fd)
{
    struct gateway *g = ctx;

    for (unsigned i = 0; i < g->n_threads; i++) {
        struct thread *t = g->threads[g->next_thread];
        g->next_thread = (g->next_thread + 1) % g->n_threads;
        if (thread_give_client(t, fd) == 0) {
            return;
        }
    }
    log_ratelimit(LOG_LEVEL_WARNING, "all threads are overloaded: a client was closed");
    close(fd);
    listener_release(g->listener);
}

static int listen_all(struct gateway *g, struct io_error *error)
{
    int r = listener_inherit(g->listener, SOCKET_NAME, false, error);

    for (size_t i = 0; r == 0 && i < g->settings.listen.n; i++) {
        r = listener_open(g->listener, g->settings.listen.items[i], GATEWAY_PORT, false, error);
    }
    if (r >= 0 && listener_sockets(g->listener) == 0) {
        return io_error_set(error, -EINVAL, "listen: no address is given");
    }
    return r < 0 ? r : 0;
}

static void tell_addresses(const struct gateway *g)
{
    char text[ADDR_TEXT_BYTES];
    struct addr addr;

    for (size_t i = 0; i < listener_sockets(g->listener); i++) {
        if (listener_addr(g->listener, i, &addr) == 0) {
            log_info("listening for memcached clients on %s", addr_format(&addr, text));
        }
    }
}

/* ---- stop ---- */

static void on_stop_timer(void *ctx)
{
    struct gateway *g = ctx;

    log_warning("some clients did not read their answers: closing");
    loop_stop(g->loop);
}

static void on_stop(void *ctx)
{
    struct gateway *g = ctx;

    g->stopping = true;
    daemon_notify_stopping();
    tell_status(g);
    listener_stop(g->listener);
    loop_timer_start(g->stop_timer, g->settings.request_timeout_usec + STOP_GRACE_USEC);
    for (unsigned i = 0; i < g->n_threads; i++) {
        thread_stop(g->threads[i]);
    }
}

void gateway_thread_stopped(void *gateway)
{
    struct gateway *g = gateway;

    g->stopped_threads++;
    if (g->stopped_threads >= g->n_threads) {
        loop_stop(g->loop);
    }
}

/* ---- start ---- */

static int make_threads(struct gateway *g, struct io_error *error)
{
    int r = 0;

    g->n_threads = settings_threads(&g->settings);
    g->threads = mem_zalloc(g->n_threads, sizeof(*g->threads));
    for (unsigned i = 0; r == 0 && i < g->n_threads; i++) {
        r = thread_new(g, i, &g->threads[i]);
    }
    return r < 0 ? io_error_set(error, r, "can't make the threads: %s", strerror(-r)) : 0;
}

static int start_threads(struct gateway *g, struct io_error *error)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < g->n_threads; i++) {
        r = thread_start(g->threads[i]);
    }
    return r < 0 ? io_error_set(error, r, "can't start the threads: %s", strerror(-r)) : 0;
}

static void on_reload(void *ctx)
{
    const struct gateway *g = ctx;

    daemon_reload(&gateway_program, g->settings.argc, g->settings.argv, sizeof(g->settings));
}

/* state-dir, or what systemd made for this service. */
static int open_store(struct gateway *g, struct io_error *error)
{
    const char *dir = g->settings.state_dir ? g->settings.state_dir : getenv("STATE_DIRECTORY");

    return dir && dir[0] != '\0' ? store_open(dir, &g->store, error) : 0;
}

static int gateway_start(struct gateway *g, struct io_error *error)
{
    static const struct daemon_ops daemon_ops = { .on_stop = on_stop, .on_reload = on_reload };
    int r = keyring_open(g->settings.cluster_key, error);

    if (r < 0) {
        return r;
    }
    r = loop_new(&g->loop);
    if (r < 0) {
        return io_error_set(error, r, "can't make the event loop: %s", strerror(-r));
    }
    r = daemon_new(g->loop, &daemon_ops, g, &g->daemon);
    if (r < 0) {
        return io_error_set(error, r, "can't set up signals: %s", strerror(-r));
    }
    g->ready_timer = loop_timer_new(g->loop, on_ready_timer, g);
    g->stop_timer = loop_timer_new(g->loop, on_stop_timer, g);
    g->listener = listener_new(g->loop, g->settings.max_connections, "listen", on_accept, g);
    r = make_threads(g, error);
    if (r == 0) {
        r = listen_all(g, error);
    }
    if (r == 0) {
        r = open_store(g, error);
    }
    if (r == 0) {
        r = manager_link_new(g, &g->manager, error);
    }
    if (r == 0) {
        r = start_threads(g, error);
    }
    return r;
}

static void gateway_end(struct gateway *g)
{
    for (unsigned i = 0; i < g->n_threads; i++) {
        thread_free(g->threads[i]);
    }
    free(g->threads);
    g->manager = manager_link_free(g->manager);
    g->store = store_free(g->store);
    listener_free(g->listener);
    loop_timer_free(g->ready_timer);
    loop_timer_free(g->stop_timer);
    daemon_free(g->daemon);
    loop_free(g->loop);
    keyring_use(NULL);
    conf_free(&gateway_program, &g->settings);
}

int gateway_run(struct settings *settings, struct io_error *error)
{
    struct gateway g = { .settings = *settings, .started_usec = clock_boot_usec() };
    int r;

    *settings = (struct settings){ 0 };
    r = gateway_start(&g, error);
    if (r == 0) {
        tell_addresses(&g);
        tell_status(&g);
        loop_timer_start(g.ready_timer, READY_WAIT_USEC);
        listener_start(g.listener);
        r = loop_run(g.loop);
        log_info("stopped");
    }
    gateway_end(&g);
    return r;
}
