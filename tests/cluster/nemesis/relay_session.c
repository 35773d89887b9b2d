/* The relay's connections. A side that is gone, and the end of what it sends, are news like its
 * bytes: they reach the other side only if the direction between them passes. */
#include "relay.h"

#include "base/cleanup.h"
#include "base/mem.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES 65536

uint64_t relay_now_usec(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t) ts.tv_sec * 1000000 + (uint64_t) ts.tv_nsec / 1000;
}

static void fd_tune(int fd)
{
    static const int on = 1;

    (void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static void fd_reset(int fd)
{
    static const struct linger now = { .l_onoff = 1 };

    if (fd >= 0) {
        (void) setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        close(fd);
    }
}

static void session_end(struct relay *r, struct session *s)
{
    list_remove(&s->node);
    list_push_back(&r->ended, &s->node);
    s->side[0].fd = s->side[1].fd = -1;
}

void session_reset(struct relay *r, struct session *s)
{
    fd_reset(s->side[0].fd);
    fd_reset(s->side[1].fd);
    session_end(r, s);
}

void session_free(struct session *s)
{
    for (size_t i = 0; i < 2; i++) {
        buf_free(&s->pipe[i].bytes);
        free(s->pipe[i].marks);
    }
    free(s);
}

/* ---- one direction ---- */

static void pipe_mark(struct pipe *p)
{
    if (p->marks_at == p->n_marks) {
        p->marks_at = p->n_marks = 0;
    }
    mem_grow(&p->marks, &p->marks_cap, p->n_marks + 1, sizeof(*p->marks));
    p->marks[p->n_marks++] = (struct mark){ p->in, relay_now_usec() + p->link->delay_usec };
}

/* Reads once. False: nothing came. */
static bool pipe_read(struct pipe *p, int fd, bool *dead)
{
    ssize_t n = recv(fd, buf_reserve(&p->bytes, READ_BYTES), READ_BYTES, 0);

    if (n > 0 && p->link->state == LINK_DROP) {
        p->lost = true;
    } else if (n > 0) {
        p->bytes.end += (size_t) n;
        p->in += (uint64_t) n;
        pipe_mark(p);
    } else if (n == 0) {
        p->eof = true;
    } else {
        *dead = errno != EAGAIN && errno != EINTR;
    }
    return n > 0;
}

/* True: there may be more to read, when there is room. */
static bool pipe_fill(struct pipe *p, int fd, bool *dead)
{
    while (!*dead && !p->eof && p->link->state != LINK_HOLD) {
        if (buf_len(&p->bytes) >= PIPE_BYTES_MAX) {
            return true;
        }
        if (!pipe_read(p, fd, dead)) {
            break;
        }
    }
    return false;
}

/* Bytes that may go on now. */
static size_t pipe_ready(struct pipe *p)
{
    uint64_t now = relay_now_usec();
    uint64_t end = p->out;

    for (size_t i = p->marks_at; i < p->n_marks && p->marks[i].due_usec <= now; i++) {
        end = p->marks[i].end;
    }
    return (size_t) (end - p->out);
}

static void pipe_consume(struct pipe *p, size_t bytes)
{
    buf_consume(&p->bytes, bytes);
    p->out += bytes;
    while (p->marks_at < p->n_marks && p->marks[p->marks_at].end <= p->out) {
        p->marks_at++;
    }
}

static void pipe_drop_all(struct pipe *p)
{
    p->lost = p->lost || buf_len(&p->bytes) > 0;
    pipe_consume(p, buf_len(&p->bytes));
}

/* To a side that is dead all bytes go lost. */
static void pipe_flush(struct pipe *p, int fd, bool *dead)
{
    size_t ready;

    if (p->link->state == LINK_DROP || *dead) {
        pipe_drop_all(p);
    }
    while (p->link->state == LINK_PASS && (ready = pipe_ready(p)) > 0) {
        ssize_t n = send(fd, buf_head(&p->bytes), ready, MSG_NOSIGNAL);
        if (n < 0) {
            *dead = errno != EAGAIN && errno != EINTR;
            return;
        }
        p->link->bytes += (uint64_t) n;
        pipe_consume(p, (size_t) n);
    }
    if (p->eof && !p->ended && buf_len(&p->bytes) == 0 && p->link->state == LINK_PASS) {
        p->ended = true;
        (void) shutdown(fd, SHUT_WR);
    }
}

/* Until nothing moves any more: nobody tells a second time that there is something to read. */
static void pipe_move(struct pipe *p, struct session *s, size_t from)
{
    bool more;

    do {
        more = pipe_fill(p, s->side[from].fd, &s->dead[from]);
        pipe_flush(p, s->side[1 - from].fd, &s->dead[1 - from]);
    } while (more && buf_len(&p->bytes) < PIPE_BYTES_MAX);
}

uint64_t session_due_usec(const struct session *s)
{
    uint64_t due = 0;

    for (size_t i = 0; i < 2; i++) {
        const struct pipe *p = &s->pipe[i];
        if (p->link->state == LINK_PASS && p->marks_at < p->n_marks &&
            p->marks[p->marks_at].due_usec > relay_now_usec()) {
            due = due == 0 ? p->marks[p->marks_at].due_usec
                           : MIN_OF(due, p->marks[p->marks_at].due_usec);
        }
    }
    return due;
}

/* ---- both ---- */

static bool hung_up(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLRDHUP };

    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLERR | POLLHUP)) != 0;
}

/* As the kernel would: only while both directions pass can a connection be made. Who gave up
 * meanwhile is not let through. */
static bool session_connect(struct session *s)
{
    struct watch *w = &s->side[1];

    if (hung_up(s->side[0].fd)) {
        return false;
    }
    w->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (w->fd < 0) {
        return false;
    }
    fd_tune(w->fd);
    s->connected = true;
    return connect(w->fd, (struct sockaddr *) &s->real, sizeof(s->real)) == 0 ||
           errno == EINPROGRESS;
}

static bool session_passes(const struct session *s)
{
    return s->pipe[0].link->state == LINK_PASS && s->pipe[1].link->state == LINK_PASS;
}

/* Must the connection be reset: bytes are missing, or one side learns that the other is gone? */
static bool session_is_over(const struct session *s)
{
    for (size_t i = 0; i < 2; i++) {
        if (s->pipe[i].link->state == LINK_PASS && (s->pipe[i].lost || s->dead[i])) {
            return true;
        }
    }
    return s->dead[0] && s->dead[1];
}

void session_pump(struct relay *r, struct session *s)
{
    if (!s->connected && session_passes(s) &&
        (!session_connect(s) || !relay_watch(r, &s->side[1]))) {
        session_reset(r, s);
        return;
    }
    for (size_t i = 0; i < 2 && s->connected; i++) {
        pipe_move(&s->pipe[i], s, i);
    }
    if (session_is_over(s)) {
        session_reset(r, s);
    } else if (s->pipe[0].ended && s->pipe[1].ended) {
        close(s->side[0].fd);
        close(s->side[1].fd);
        session_end(r, s);
    }
}

static size_t node_of(const struct relay *r, struct in_addr source)
{
    for (size_t i = 1; i < r->n_nodes; i++) {
        if (r->sources[i].s_addr == source.s_addr) {
            return i;
        }
    }
    return 0;
}

void session_accept(struct relay *r, struct door *d)
{
    struct sockaddr_in from;
    socklen_t bytes = sizeof(from);
    int fd;

    while ((fd = accept4(d->watch.fd, (struct sockaddr *) &from, &bytes,
                         SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct session *s = mem_zalloc(1, sizeof(*s));
        size_t node = node_of(r, from.sin_addr);
        fd_tune(fd);
        s->side[0] = (struct watch){ .fd = fd, .session = s };
        s->side[1] = (struct watch){ .fd = -1, .session = s };
        s->pipe[0].link = &r->links[node][d->node];
        s->pipe[1].link = &r->links[d->node][node];
        s->real = d->real;
        list_push_back(&r->sessions, &s->node);
        if (!relay_watch(r, &s->side[0])) {
            session_reset(r, s);
        } else {
            session_pump(r, s);
        }
    }
}
