/* Listening sockets: opened here or inherited, accepted from on the main loop. */
#include <event2/event.h>
#include <event2/event_struct.h> /* before base/list.h: it undefines its own LIST_ENTRY */

#include "io/listener.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/log.h"
#include "io/loop.h"
#include "io/portuser.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define LISTENER_NAME_MAX 6

struct listener_socket {
    struct listener *listener;
    int fd;
    struct event event;
    char unlink_path[ADDR_TEXT_BYTES]; /* of a Unix socket that we bound; "" otherwise */
};

struct listener {
    struct loop *loop;
    const char *setting;
    listener_accept_fn on_accept;
    void *ctx;
    uint64_t connections_max;
    _Atomic uint64_t connections;
    _Atomic uint64_t pauses;
    _Atomic bool at_limit; /* paused because of connections_max: a release resumes */
    _Atomic bool resume_posted;
    bool started;
    bool accepting;
    struct loop_timer *timer; /* resumes after a lack of fds */
    size_t n;
    struct listener_socket *sockets[LISTENER_SOCKETS_MAX];
};

/* ---- accepting ---- */

static void listener_watch(struct listener *listener, bool on)
{
    for (size_t i = 0; i < listener->n && on != listener->accepting; i++) {
        if (on) {
            event_add(&listener->sockets[i]->event, NULL);
        } else {
            event_del(&listener->sockets[i]->event);
        }
    }
    listener->accepting = on;
}

static bool listener_is_full(const struct listener *listener)
{
    return listener->connections_max > 0 &&
           atomic_load(&listener->connections) >= listener->connections_max;
}

/* Accepts again if nothing speaks against it any more. */
static void listener_resume(void *ctx)
{
    struct listener *listener = ctx;

    if (!listener->started || loop_timer_active(listener->timer)) {
        return;
    }
    atomic_store(&listener->at_limit, true);
    if (listener_is_full(listener)) {
        return; /* a release that comes now sees at_limit */
    }
    atomic_store(&listener->at_limit, false);
    listener_watch(listener, true);
}

static void listener_on_release(void *ctx)
{
    struct listener *listener = ctx;

    atomic_store(&listener->resume_posted, false);
    listener_resume(listener);
}

static void listener_log_limit(const struct listener *listener)
{
    static struct log_ratelimit limit = LOG_RATELIMIT(60000000, 1);

    if (log_ratelimit_ok(&limit, NULL)) {
        log_warning("all %llu connections are in use; new ones wait until one ends (raise "
                    "max-connections, or find the client that leaks them)",
                    (unsigned long long) listener->connections_max);
    }
}

static void listener_log_fds(int error)
{
    static struct log_ratelimit limit = LOG_RATELIMIT(60000000, 1);

    if (log_ratelimit_ok(&limit, NULL)) {
        log_warning("can't accept connections: %s; trying again every %d ms (raise LimitNOFILE=)",
                    strerrordesc_np(error), LISTENER_PAUSE_USEC / 1000);
    }
}

static void listener_pause_full(struct listener *listener)
{
    listener_watch(listener, false);
    atomic_fetch_add(&listener->pauses, 1);
    listener_log_limit(listener);
    listener_resume(listener); /* one may have ended meanwhile */
}

static void listener_pause_error(struct listener *listener, int error)
{
    listener_watch(listener, false);
    atomic_fetch_add(&listener->pauses, 1);
    listener_log_fds(error);
    loop_timer_start(listener->timer, LISTENER_PAUSE_USEC);
}

static bool listener_accept_one(struct listener_socket *s)
{
    struct listener *listener = s->listener;
    int fd = accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0) {
        atomic_fetch_add(&listener->connections, 1);
        listener->on_accept(listener->ctx, fd);
        return true;
    }
    if (errno == EINTR || errno == ECONNABORTED) {
        return true;
    }
    if (errno != EAGAIN && errno != EWOULDBLOCK) {
        listener_pause_error(listener, errno);
    }
    return false;
}

static void listener_on_readable(evutil_socket_t fd, short what, void *ctx)
{
    struct listener_socket *s = ctx;
    struct listener *listener = s->listener;

    (void) fd;
    (void) what;
    for (int i = 0; i < LISTENER_ACCEPTS_PER_TURN && listener->accepting; i++) {
        if (listener_is_full(listener)) {
            listener_pause_full(listener);
        } else if (!listener_accept_one(s)) {
            return;
        }
    }
}

void listener_release(struct listener *listener)
{
    atomic_fetch_sub(&listener->connections, 1);
    if (atomic_load(&listener->at_limit) && !atomic_exchange(&listener->resume_posted, true)) {
        if (loop_post(listener->loop, listener_on_release, listener) < 0) {
            atomic_store(&listener->resume_posted, false); /* the next release tries again */
        }
    }
}

void listener_start(struct listener *listener)
{
    listener->started = true;
    listener_resume(listener);
}

/* ---- sockets ---- */

static void listener_add_fd(struct listener *listener, int fd, const char *unlink_path)
{
    struct listener_socket *s = mem_zalloc(1, sizeof(*s));

    s->listener = listener;
    s->fd = fd;
    snprintf(s->unlink_path, sizeof(s->unlink_path), "%s", unlink_path);
    event_assign(&s->event, loop_base(listener->loop), fd, EV_READ | EV_PERSIST,
                 listener_on_readable, s);
    listener->sockets[listener->n++] = s;
    if (listener->accepting) {
        event_add(&s->event, NULL);
    }
}

static int listener_error(struct listener *listener, const struct addr *addr, int error,
                          struct io_error *ret)
{
    char name[ADDR_TEXT_BYTES];
    char user[PORTUSER_TEXT_BYTES];

    addr_format(addr, name);
    if (error == EADDRINUSE && portuser_find(addr, user)) {
        return io_error_set(ret, -error, "%s is in use by %s; choose another with %s = ...", name,
                            user, listener->setting);
    }
    if (error == EADDRINUSE) {
        return io_error_set(ret, -error, "%s is in use; choose another with %s = ...", name,
                            listener->setting);
    }
    return io_error_set(ret, -error, "can't listen on %s: %s", name, strerrordesc_np(error));
}

/* A socket file that nobody listens on any more stands in the way. */
static void listener_unlink_stale(const struct addr *addr)
{
    struct stat st;
    int fd;

    if (lstat(addr->un.sun_path, &st) < 0 || !S_ISSOCK(st.st_mode)) {
        return;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0) {
        if (connect(fd, &addr->sa, addr->bytes) < 0 && errno == ECONNREFUSED) {
            (void) unlink(addr->un.sun_path);
        }
        close(fd);
    }
}

static int listener_bind(int fd, const struct addr *addr)
{
    int one = 1;

    if (addr->sa.sa_family == AF_UNIX) {
        listener_unlink_stale(addr);
    } else {
        (void) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    }
    if (addr->sa.sa_family == AF_INET6) {
        (void) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    }
    if (bind(fd, &addr->sa, addr->bytes) < 0 || listen(fd, LISTENER_BACKLOG) < 0) {
        return -errno;
    }
    return 0;
}

static int listener_refuse_remote(const struct addr *addr, struct io_error *error)
{
    char name[ADDR_TEXT_BYTES];

    return io_error_set(error, -EACCES,
                        "without a cluster key nothing may listen on %s, only on loopback "
                        "addresses (127.0.0.1, [::1]): make one with \"kumoctl key generate\" and "
                        "give it to every machine",
                        addr_format(addr, name));
}

static int listener_open_addr(struct listener *listener, const struct addr *addr,
                              struct io_error *error)
{
    int fd;
    int r;

    if (listener->n == LISTENER_SOCKETS_MAX) {
        return io_error_set(error, -E2BIG, "more than %d listening sockets", LISTENER_SOCKETS_MAX);
    }
    fd = socket(addr->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return listener_error(listener, addr, errno, error);
    }
    r = listener_bind(fd, addr);
    if (r < 0) {
        close(fd);
        return listener_error(listener, addr, -r, error);
    }
    listener_add_fd(listener, fd, addr->sa.sa_family == AF_UNIX ? addr->un.sun_path : "");
    return 0;
}

/* Of several addresses of one text, one whose family the machine lacks may fail. */
static bool listener_lacks_family(int r)
{
    return r == -EAFNOSUPPORT || r == -EADDRNOTAVAIL;
}

int listener_open(struct listener *listener, const char *text, uint16_t default_port,
                  bool loopback_only, struct io_error *error)
{
    struct addr addrs[ADDR_RESOLVED_MAX];
    struct io_error why;
    int n = addr_parse(text, default_port, addrs, ARRAY_LEN(addrs), &why);
    int opened = 0;
    int r = n;

    if (n < 0) {
        return io_error_set(error, n, "%s = %.100s: %.350s", listener->setting, text, why.text);
    }

    for (int i = 0; i < n; i++) {
        if (loopback_only && !addr_is_loopback(&addrs[i])) {
            return listener_refuse_remote(&addrs[i], error);
        }
    }
    for (int i = 0; i < n; i++) {
        r = listener_open_addr(listener, &addrs[i], error);
        if (r == 0) {
            opened++;
        } else if (n == 1 || !listener_lacks_family(r)) {
            return r;
        }
    }
    return opened > 0 ? 0 : r;
}

int listener_check_loopback(int fd, struct io_error *error)
{
    struct addr addr;
    int r = addr_of_fd(fd, &addr);

    if (r < 0) {
        return io_error_set(error, r, "an inherited descriptor is not a socket");
    }
    return addr_is_loopback(&addr) ? 0 : listener_refuse_remote(&addr, error);
}

static int listener_inherit_fd(struct listener *listener, int fd, const char *name,
                               bool loopback_only, struct io_error *error)
{
    int r;

    if (sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1) <= 0) {
        return io_error_set(error, -EINVAL,
                            "the inherited descriptor '%s' is not a listening stream socket: "
                            "check the ListenStream= of the socket unit",
                            name);
    }
    r = loopback_only ? listener_check_loopback(fd, error) : 0;
    if (r < 0) {
        return r;
    }
    if (listener->n == LISTENER_SOCKETS_MAX) {
        return io_error_set(error, -E2BIG, "more than %d listening sockets", LISTENER_SOCKETS_MAX);
    }
    (void) fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    (void) fcntl(fd, F_SETFD, FD_CLOEXEC);
    listener_add_fd(listener, fd, "");
    return 0;
}

int listener_inherit(struct listener *listener, const char *name, bool loopback_only,
                     struct io_error *error)
{
    char **names = NULL;
    int n = sd_listen_fds_with_names(0, &names);
    int taken = 0;
    int r = n;

    kumo_assert(strlen(name) <= LISTENER_NAME_MAX);
    if (n < 0) {
        return io_error_set(error, n, "LISTEN_FDS in the environment makes no sense");
    }
    for (int i = 0; i < n; i++) {
        if (r >= 0 && strcmp(names[i], name) == 0) {
            r = listener_inherit_fd(listener, SD_LISTEN_FDS_START + i, name, loopback_only, error);
            taken++;
        }
        free(names[i]);
    }
    free(names);
    return r < 0 ? r : taken;
}

/* ---- beginning and end ---- */

struct listener *listener_new(struct loop *loop, uint64_t connections_max, const char *setting,
                              listener_accept_fn on_accept, void *ctx)
{
    struct listener *listener = mem_zalloc(1, sizeof(*listener));

    listener->loop = loop;
    listener->connections_max = connections_max;
    listener->setting = setting;
    listener->on_accept = on_accept;
    listener->ctx = ctx;
    listener->timer = loop_timer_new(loop, listener_resume, listener);
    return listener;
}

void listener_stop(struct listener *listener)
{
    listener_watch(listener, false);
    listener->started = false;
    loop_timer_stop(listener->timer);
    while (listener->n > 0) {
        struct listener_socket *s = listener->sockets[--listener->n];

        close(s->fd);
        if (s->unlink_path[0]) {
            (void) unlink(s->unlink_path);
        }
        free(s);
    }
}

struct listener *listener_free(struct listener *listener)
{
    if (listener) {
        listener_stop(listener);
        loop_timer_free(listener->timer);
        free(listener);
    }
    return NULL;
}

uint64_t listener_connections(const struct listener *listener)
{
    return atomic_load(&listener->connections);
}

uint64_t listener_pauses(const struct listener *listener)
{
    return atomic_load(&listener->pauses);
}

size_t listener_sockets(const struct listener *listener)
{
    return listener->n;
}

int listener_addr(const struct listener *listener, size_t i, struct addr *ret_addr)
{
    return i < listener->n ? addr_of_fd(listener->sockets[i]->fd, ret_addr) : -ENOENT;
}
