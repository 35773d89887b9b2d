/* What all daemons share towards the kernel and systemd. */
#include "io/daemon.h"

#include "io/conf.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/addr.h"
#include "io/clock.h"
#include "io/conn.h"
#include "io/keyring.h"
#include "io/log.h"
#include "io/loop.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define DAEMON_WATCHDOG_PER_INTERVAL 4 /* messages in one WatchdogSec= */

enum daemon_signal { DAEMON_TERM, DAEMON_INT, DAEMON_HUP, _DAEMON_SIGNAL_MAX };

static const int daemon_signals[_DAEMON_SIGNAL_MAX] = {
    [DAEMON_TERM] = SIGTERM,
    [DAEMON_INT] = SIGINT,
    [DAEMON_HUP] = SIGHUP,
};

struct daemon {
    struct loop *loop;
    const struct daemon_ops *ops;
    void *ctx;
    bool stopping;
    struct event *signals[_DAEMON_SIGNAL_MAX];
    struct loop_timer *watchdog;
};

void daemon_prepare(void)
{
    struct sigaction ignore = { .sa_handler = SIG_IGN };
    struct rlimit limit;

    sigaction(SIGPIPE, &ignore, NULL);
    umask(umask(0077) | 0027);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void) setrlimit(RLIMIT_NOFILE, &limit);
    }
}

void daemon_set_source(const char *text)
{
    struct io_error error;
    struct addr source;

    if (text) {
        int r = addr_parse_ip(text, &source, &error);
        kumo_assert(r == 0);
        conn_set_source(&source);
    }
}

/* ---- signals and watchdog ---- */

static bool said_ready; /* of the process */

static void daemon_on_stop(struct daemon *daemon)
{
    if (daemon->stopping || !daemon->ops->on_stop) {
        loop_stop(daemon->loop);
        return;
    }
    daemon->stopping = true;
    daemon_notify_stopping();
    daemon->ops->on_stop(daemon->ctx);
}

static void daemon_on_reload(struct daemon *daemon)
{
    if (!daemon->ops->on_reload || daemon->stopping) {
        return;
    }
    if (!said_ready) { /* of a start that goes on systemd must not think that it is over */
        daemon->ops->on_reload(daemon->ctx);
        return;
    }
    daemon_notify_reloading();
    daemon->ops->on_reload(daemon->ctx);
    daemon_notify_ready();
}

static void daemon_on_signal(evutil_socket_t number, short what, void *ctx)
{
    (void) what;
    if (number == SIGHUP) {
        daemon_on_reload(ctx);
    } else {
        daemon_on_stop(ctx);
    }
}

static void daemon_on_watchdog(void *ctx)
{
    struct daemon *daemon = ctx;

    if (!daemon->ops->is_alive || daemon->ops->is_alive(daemon->ctx)) {
        (void) sd_notify(0, "WATCHDOG=1");
    }
}

int daemon_new(struct loop *loop, const struct daemon_ops *ops, void *ctx,
               struct daemon **ret_daemon)
{
    struct daemon *daemon = mem_zalloc(1, sizeof(*daemon));
    uint64_t usec = 0;

    daemon->loop = loop;
    daemon->ops = ops;
    daemon->ctx = ctx;
    for (size_t i = 0; i < _DAEMON_SIGNAL_MAX; i++) {
        daemon->signals[i] = event_new(loop_base(loop), daemon_signals[i], EV_SIGNAL | EV_PERSIST,
                                       daemon_on_signal, daemon);
        if (!daemon->signals[i] || event_add(daemon->signals[i], NULL) < 0) {
            daemon_free(daemon);
            return -ENOMEM;
        }
    }
    daemon->watchdog = loop_timer_new(loop, daemon_on_watchdog, daemon);
    if (sd_watchdog_enabled(0, &usec) > 0 && usec >= DAEMON_WATCHDOG_PER_INTERVAL) {
        loop_timer_every(daemon->watchdog, usec / DAEMON_WATCHDOG_PER_INTERVAL);
    }
    *ret_daemon = daemon;
    return 0;
}

struct daemon *daemon_free(struct daemon *daemon)
{
    if (daemon) {
        for (size_t i = 0; i < _DAEMON_SIGNAL_MAX; i++) {
            if (daemon->signals[i]) {
                event_free(daemon->signals[i]);
            }
        }
        loop_timer_free(daemon->watchdog);
        free(daemon);
    }
    return NULL;
}

/* ---- sd_notify ---- */

void daemon_notify_ready(void)
{
    said_ready = true;
    (void) sd_notify(0, "READY=1");
}

void daemon_notify_stopping(void)
{
    (void) sd_notify(0, "STOPPING=1");
}

void daemon_notify_reloading(void)
{
    (void) sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu",
                      (unsigned long long) clock_usec_of(CLOCK_MONOTONIC));
}

void daemon_notify_status(const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    (void) sd_notifyf(0, "STATUS=%s", text);
}

void daemon_notify_extend(uint64_t usec)
{
    (void) sd_notifyf(0, "EXTEND_TIMEOUT_USEC=%llu", (unsigned long long) usec);
}

/* ---- the data directory ---- */

static int daemon_dir_error(const char *dir, int error, struct io_error *ret)
{
    return io_error_set(ret, -error, "%s: %s; set data-dir to a directory that this user may write",
                        dir, strerrordesc_np(error));
}

/* mkdir -p: parents 0755, the directory itself 0750. */
static int daemon_make_dir(const char *dir, struct io_error *error)
{
    _cleanup_free_ char *path = strdup(dir);
    struct stat st;

    for (char *p = path + 1; *p; p++) {
        if (*p == '/') {
            *p = '\0';
            if (mkdir(path, 0755) < 0 && errno != EEXIST) {
                return daemon_dir_error(path, errno, error);
            }
            *p = '/';
        }
    }
    if (mkdir(dir, 0750) < 0 && errno != EEXIST) {
        return daemon_dir_error(dir, errno, error);
    }
    if (stat(dir, &st) < 0 || !S_ISDIR(st.st_mode)) {
        return daemon_dir_error(dir, ENOTDIR, error);
    }
    return 0;
}

static int daemon_lock_busy(const char *dir, int fd, struct io_error *error)
{
    char pid[32] = "";
    ssize_t n = pread(fd, pid, sizeof(pid) - 1, 0);

    pid[n > 0 ? n : 0] = '\0';
    pid[strcspn(pid, "\n")] = '\0';
    return io_error_set(
        error, -EBUSY,
        "%s is in use by another process (pid %s); stop it, or choose another data-dir", dir,
        pid[0] ? pid : "unknown");
}

int daemon_lock_dir(const char *dir, struct io_error *error)
{
    _cleanup_free_ char *path = NULL;
    int fd;
    int r;

    if (dir[0] != '/') {
        return io_error_set(error, -EINVAL, "data-dir = %s: must be an absolute path", dir);
    }
    r = daemon_make_dir(dir, error);
    if (r < 0) {
        return r;
    }
    if (asprintf(&path, "%s/lock", dir) < 0) {
        return io_error_set(error, -ENOMEM, "%s: out of memory", dir);
    }
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0) {
        return daemon_dir_error(path, errno, error);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        r = errno == EWOULDBLOCK ? daemon_lock_busy(dir, fd, error)
                                 : daemon_dir_error(path, errno, error);
        close(fd);
        return r;
    }
    if (ftruncate(fd, 0) < 0 || dprintf(fd, "%ld\n", (long) getpid()) < 0) {
        r = daemon_dir_error(path, errno, error);
        close(fd);
        return r;
    }
    return fd;
}

void daemon_reload(const struct conf_program *program, int argc, char **argv, size_t settings_bytes)
{
    const struct conf_option *level = conf_find(program, "log-level");
    const struct conf_option *key = conf_find(program, "cluster-key");
    void *settings = mem_zalloc(1, settings_bytes);
    struct io_error error = { "" };

    if (conf_parse_args(program, argc, argv, settings, NULL, &error) < 0) {
        log_error("%s; the old settings stay", error.text);
    } else {
        log_set_level((enum log_level) * (const int *) ((const char *) settings + level->offset));
        bool has_key = keyring_reload(*(char *const *) ((const char *) settings + key->offset));
        log_info("settings read again: log-level %sin force, the others need a restart",
                 has_key ? "and cluster-key are " : "is ");
    }
    conf_free(program, settings);
    free(settings);
}
