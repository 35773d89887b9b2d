/* One non-blocking stream socket on raw libevent events. Never interprets bytes, never logs. The
 * two functions conn_sys_read and conn_sys_write are the only ones that move bytes through the
 * kernel. What is different under TLS is in conn_tls.c. */
#include "io/conn_private.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/clock.h"
#include "io/loop.h"
#include "io/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#define CONN_KEEPALIVE_IDLE_SEC     30
#define CONN_KEEPALIVE_INTERVAL_SEC 10
#define CONN_KEEPALIVE_PROBES       3

static struct addr source; /* of all connections of this process; its family 0: none */

/* ---- the kernel ---- */

ssize_t conn_sys_read(struct conn *conn, const struct iovec *iov, int n)
{
    ssize_t r;

    do {
        r = readv(conn->fd, iov, n);
    } while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : r;
}

ssize_t conn_sys_write(struct conn *conn, struct iovec *iov, size_t n)
{
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = n };
    ssize_t r;

    do {
        r = sendmsg(conn->fd, &msg, MSG_NOSIGNAL);
    } while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : r;
}

bool conn_would_block(ssize_t r)
{
    return r == -EAGAIN || r == -EWOULDBLOCK;
}

static void conn_set_int(int fd, int level, int name, int value)
{
    (void) setsockopt(fd, level, name, &value, sizeof(value));
}

/* Best effort: a Unix socket knows none of the TCP options. */
static void conn_tune(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags >= 0 && !(flags & O_NONBLOCK)) {
        (void) fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    }
    conn_set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    conn_set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    conn_set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, CONN_KEEPALIVE_IDLE_SEC);
    conn_set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, CONN_KEEPALIVE_INTERVAL_SEC);
    conn_set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, CONN_KEEPALIVE_PROBES);
}

void conn_set_patience(struct conn *conn, uint64_t usec)
{
    conn_set_int(conn->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int) (usec / 1000));
}

/* ---- ending ---- */

static void conn_ref_release(struct conn_ref *ref)
{
    if (ref->release) {
        ref->release(ref->ctx);
    }
}

static void conn_drop_refs(struct conn *conn)
{
    for (size_t i = conn->refs_head; i < conn->n_refs; i++) {
        conn_ref_release(&conn->refs[i]);
    }
    conn->refs_head = conn->n_refs = 0;
    conn->ref_bytes = 0;
}

static void conn_free_now(struct loop_task *task)
{
    struct conn *conn = LIST_ENTRY(task, struct conn, free_task);

    conn_drop_refs(conn);
    free(conn->refs);
    tls_free(conn->tls);
    buf_free(&conn->in);
    buf_free(&conn->out);
    free(conn);
}

/* Takes the connection out of the loop; the caller deals with the fd. */
static void conn_retire(struct conn *conn)
{
    conn->state = CONN_CLOSED;
    event_del(&conn->read_event);
    event_del(&conn->write_event);
    event_del(&conn->again_event);
    conn->reading = false;
    conn->close_timer = loop_timer_free(conn->close_timer);
    loop_task_remove(&conn->flush_task);
    loop_task_add(conn->loop, &conn->free_task, LOOP_FREE);
    conn_drop_refs(conn);
}

struct conn *conn_close(struct conn *conn)
{
    if (conn && conn->state != CONN_CLOSED) {
        conn_say_goodbye(conn);
        conn_retire(conn);
        close(conn->fd);
        conn->fd = -1;
    }
    return NULL;
}

/* The connection ended by itself. */
static void conn_end(struct conn *conn, int error)
{
    if (conn->state != CONN_CLOSED) {
        conn_close(conn);
        conn->ops->on_closed(conn, conn->ctx, error);
    }
}

static void conn_on_close_timeout(void *ctx)
{
    struct conn *conn = ctx;

    conn_end(conn, conn->lingering ? 0 : -ETIMEDOUT);
}

static void conn_update_read(struct conn *conn);

/* Everything was sent and no more will be. */
static void conn_finish_sending(struct conn *conn)
{
    if (conn->eof || conn->lingering) {
        conn_end(conn, 0);
        return;
    }
    if (shutdown(conn->fd, SHUT_WR) < 0) {
        conn_end(conn, 0);
        return;
    }
    conn->lingering = true;
    loop_timer_start(conn->close_timer, CONN_LINGER_USEC);
    conn_update_read(conn);
}

void conn_close_after_flush(struct conn *conn)
{
    if (conn->state == CONN_CLOSED || conn->closing) {
        return;
    }
    conn->closing = true;
    conn->close_timer = loop_timer_new(conn->loop, conn_on_close_timeout, conn);
    loop_timer_start(conn->close_timer, CONN_FLUSH_TIMEOUT_USEC);
    conn_update_read(conn);
    loop_task_add(conn->loop, &conn->flush_task, LOOP_FLUSH);
}

int conn_detach(struct conn *conn, struct buf *ret_in, struct tls **ret_tls)
{
    int fd = conn->fd;

    kumo_assert(conn->state == CONN_OPEN);
    conn_retire(conn);
    conn->fd = -1;
    *ret_in = conn->in;
    conn->in = (struct buf){ 0 };
    *ret_tls = TAKE_PTR(conn->tls);
    return fd;
}

/* ---- reading ---- */

static size_t conn_in_max(const struct conn *conn)
{
    return MAX_OF(conn->need, (size_t) CONN_IN_BYTES_MAX);
}

/* Watches the socket exactly when bytes are wanted. */
static void conn_update_read(struct conn *conn)
{
    bool want = conn->state == CONN_OPEN && !conn->eof;

    if (conn->closing) {
        want = want && conn->lingering;
    } else {
        want = want && !conn->paused && buf_len(&conn->in) < conn_in_max(conn);
    }
    if (want && !conn->reading) {
        event_add(&conn->read_event, NULL);
    } else if (!want && conn->reading) {
        event_del(&conn->read_event);
    }
    conn->reading = want;
}

/* Room in the buffer itself while a large message arrives: never more than twice what has come, so
 * that a peer which only promises bytes costs nothing. */
void conn_make_room(struct conn *conn)
{
    size_t have = buf_len(&conn->in);
    size_t more;

    if (conn->need > have) {
        more = MIN_OF(conn->need - have, (size_t) CONN_READ_LARGE_BYTES);
        buf_reserve(&conn->in, MIN_OF(more, MAX_OF(have, (size_t) CONN_READ_BYTES)));
    }
}

/* Reads once: into the buffer's room first, what doesn't fit into the loop's scratch. */
static ssize_t conn_fill_plain(struct conn *conn)
{
    struct buf *in = &conn->in;
    struct iovec iov[2];
    size_t room;
    ssize_t n;
    int n_iov = 0;

    conn_make_room(conn);
    room = MIN_OF(in->cap - in->end, (size_t) CONN_READ_LARGE_BYTES);
    if (room > 0) {
        iov[n_iov++] = (struct iovec){ .iov_base = in->data + in->end, .iov_len = room };
    }
    if (room < CONN_READ_BYTES) {
        iov[n_iov++] = (struct iovec){ .iov_base = loop_scratch(conn->loop),
                                       .iov_len = CONN_READ_BYTES - room };
    }
    n = conn_sys_read(conn, iov, n_iov);
    if (n > 0) {
        in->end += MIN_OF((size_t) n, room);
        if ((size_t) n > room) {
            buf_append(in, loop_scratch(conn->loop), (size_t) n - room);
        }
        conn->bytes_in += (uint64_t) n;
        conn->progress_usec = clock_boot_usec();
    }
    return n;
}

static ssize_t conn_fill(struct conn *conn)
{
    return conn->tls ? conn_fill_tls(conn) : conn_fill_plain(conn);
}

/* Gives the owner what is there. */
static void conn_deliver(struct conn *conn)
{
    if (conn->state != CONN_OPEN || conn->closing || conn->paused || buf_len(&conn->in) == 0) {
        return;
    }
    if (conn->ops->on_data) {
        conn->ops->on_data(conn, conn->ctx);
    } else {
        buf_clear(&conn->in);
    }
}

void conn_take_eof(struct conn *conn)
{
    conn->eof = true;
    conn_update_read(conn);
    if (conn->ops->on_eof) {
        conn->ops->on_eof(conn, conn->ctx);
    } else {
        conn_close_after_flush(conn);
    }
}

/* After our last byte: throws away until the peer closes too. */
static void conn_discard(struct conn *conn)
{
    struct iovec iov = { .iov_base = loop_scratch(conn->loop), .iov_len = LOOP_SCRATCH_BYTES };
    ssize_t n = conn_sys_read(conn, &iov, 1);

    if (n <= 0 && !conn_would_block(n)) {
        conn_end(conn, 0);
    }
}

static void conn_on_readable(evutil_socket_t fd, short what, void *ctx)
{
    struct conn *conn = ctx;
    ssize_t n;

    (void) fd;
    (void) what;
    if (conn->lingering) {
        conn_discard(conn);
        return;
    }
    n = conn_fill(conn);
    if (n > 0) {
        conn_check_tls(conn);
        conn_deliver(conn);
        if ((size_t) n < CONN_KEEP_BYTES) {
            buf_trim(&conn->in, CONN_KEEP_BYTES);
        }
        conn_update_read(conn);
        conn_check_tls_end(conn);
    } else if (n == 0) {
        conn_take_eof(conn);
    } else if (!conn_would_block(n)) {
        conn_end(conn, (int) n);
    }
}

static void conn_on_again(evutil_socket_t fd, short what, void *ctx)
{
    struct conn *conn = ctx;

    (void) fd;
    (void) what;
    conn_deliver(conn);
    conn_update_read(conn);
    conn_check_tls_end(conn);
}

void conn_unread(struct conn *conn, const void *p, size_t bytes)
{
    if (conn->state != CONN_CLOSED) {
        buf_append(&conn->in, p, bytes);
        event_active(&conn->again_event, EV_TIMEOUT, 0);
    }
}

void conn_need(struct conn *conn, size_t bytes)
{
    conn->need = bytes;
    conn_update_read(conn);
}

void conn_pause_read(struct conn *conn)
{
    conn->paused = true;
    conn_update_read(conn);
}

void conn_resume_read(struct conn *conn)
{
    conn->paused = false;
    conn_update_read(conn);
    if (conn->state == CONN_OPEN && (buf_len(&conn->in) > 0 || conn->tls)) {
        event_active(&conn->again_event, EV_TIMEOUT, 0);
    }
}

/* ---- writing ---- */

size_t conn_out_bytes(const struct conn *conn)
{
    return buf_len(&conn->out) + conn->ref_bytes + (conn->tls ? buf_len(tls_out(conn->tls)) : 0);
}

bool conn_out_full(const struct conn *conn)
{
    return conn_out_bytes(conn) > conn->out_bytes_max;
}

/* Pieces to send next, own bytes and references in their order. */
static size_t conn_gather(struct conn *conn, struct iovec *iov, size_t *ret_bytes)
{
    uint8_t *p = buf_head(&conn->out);
    uint64_t at = conn->out_sent;
    uint64_t end = at + buf_len(&conn->out);
    size_t ref = conn->refs_head;
    size_t n = 0;

    *ret_bytes = 0;
    while (n < CONN_IOV_MAX && (at < end || ref < conn->n_refs)) {
        if (ref < conn->n_refs && conn->refs[ref].at == at) {
            iov[n] = (struct iovec){ .iov_base = (void *) (uintptr_t) conn->refs[ref].p,
                                     .iov_len = conn->refs[ref].bytes };
            ref++;
        } else {
            uint64_t until = ref < conn->n_refs ? conn->refs[ref].at : end;
            iov[n] = (struct iovec){ .iov_base = p, .iov_len = until - at };
            p += until - at;
            at = until;
        }
        *ret_bytes += iov[n++].iov_len;
    }
    return n;
}

/* The kernel, or TLS, took `bytes`. */
static void conn_sent(struct conn *conn, size_t bytes)
{
    while (bytes > 0) {
        struct conn_ref *ref = conn->refs_head < conn->n_refs ? &conn->refs[conn->refs_head] : NULL;
        size_t n;

        if (ref && ref->at == conn->out_sent) {
            n = MIN_OF(bytes, ref->bytes);
            ref->p += n;
            ref->bytes -= n;
            conn->ref_bytes -= n;
            if (ref->bytes == 0) {
                conn->refs_head++;
                conn_ref_release(ref);
            }
        } else {
            n = MIN_OF(bytes, ref ? ref->at - conn->out_sent : buf_len(&conn->out));
            buf_consume(&conn->out, n);
            conn->out_sent += n;
        }
        bytes -= n;
    }
    if (conn->refs_head == conn->n_refs) {
        conn->refs_head = conn->n_refs = 0;
    }
}

static void conn_wait_writable(struct conn *conn)
{
    conn->write_blocked = true;
    event_add(&conn->write_event, NULL);
}

static ssize_t conn_push_plain(struct conn *conn, struct iovec *iov, size_t n)
{
    ssize_t taken = conn_sys_write(conn, iov, n);

    if (taken > 0) {
        conn->bytes_out += (uint64_t) taken;
        conn->progress_usec = clock_boot_usec();
    }
    return taken;
}

/* Writes until nothing is left or the kernel takes no more. Returns 0 or -errno. */
static int conn_write(struct conn *conn)
{
    struct iovec iov[CONN_IOV_MAX];
    size_t bytes;
    ssize_t n;

    while (conn_out_bytes(conn) > 0) {
        size_t n_iov = conn_gather(conn, iov, &bytes);

        n = conn->tls ? conn_push_tls(conn, iov, n_iov) : conn_push_plain(conn, iov, n_iov);
        if (n == 0 && conn_waits_for_tls(conn)) {
            return 0; /* conn_check_tls goes on */
        }
        if (n < 0 && !conn_would_block(n)) {
            return (int) n;
        }
        if (n > 0) {
            conn_sent(conn, (size_t) n);
        }
        if (n < 0 || (size_t) n < bytes) {
            conn_wait_writable(conn);
            return 0;
        }
        if (bytes < CONN_KEEP_BYTES) {
            buf_trim(&conn->out, CONN_KEEP_BYTES);
        }
    }
    return 0;
}

static void conn_flush(struct conn *conn)
{
    int r;

    if (conn->state != CONN_OPEN || conn->write_blocked) {
        return;
    }
    r = conn_write(conn);
    if (r == 0 && conn->closing && conn_out_bytes(conn) == 0 && conn_say_end(conn) &&
        conn_write(conn) < 0) {
        conn_end(conn, 0); /* all that mattered was sent before */
        return;
    }
    if (r < 0) {
        conn_end(conn, r);
        return;
    }
    /* Who is closing reads no more: TLS that is not up won't come up. */
    if (conn->closing && (conn_out_bytes(conn) == 0 || conn_waits_for_tls(conn))) {
        conn_finish_sending(conn);
        return;
    }
    if (conn->was_full && conn_out_bytes(conn) <= conn->out_bytes_max / 2) {
        conn->was_full = false;
        if (conn->ops->on_drained && !conn->closing) {
            conn->ops->on_drained(conn, conn->ctx);
        }
    }
}

static void conn_flush_task(struct loop_task *task)
{
    conn_flush(LIST_ENTRY(task, struct conn, flush_task));
}

struct buf *conn_out(struct conn *conn)
{
    return &conn->out;
}

void conn_mark(struct conn *conn)
{
    if (conn->state == CONN_CLOSED) {
        buf_clear(&conn->out);
        return;
    }
    if (conn_out_full(conn)) {
        conn->was_full = true;
    }
    if (conn->state == CONN_OPEN && !conn->write_blocked) {
        loop_task_add(conn->loop, &conn->flush_task, LOOP_FLUSH);
    }
}

void conn_out_ref(struct conn *conn, const void *p, size_t bytes, void (*release)(void *ctx),
                  void *ctx)
{
    struct conn_ref ref = { .p = p, .bytes = bytes, .release = release, .ctx = ctx };

    if (conn->state == CONN_CLOSED || bytes < CONN_REF_MIN_BYTES) {
        buf_append(&conn->out, p, bytes);
        conn_ref_release(&ref);
    } else {
        ref.at = conn->out_sent + buf_len(&conn->out);
        if (conn->refs_head > 0 && conn->n_refs == conn->refs_cap) {
            memmove(conn->refs, conn->refs + conn->refs_head,
                    (conn->n_refs - conn->refs_head) * sizeof(ref));
            conn->n_refs -= conn->refs_head;
            conn->refs_head = 0;
        }
        mem_grow(&conn->refs, &conn->refs_cap, conn->n_refs + 1, sizeof(ref));
        conn->refs[conn->n_refs++] = ref;
        conn->ref_bytes += bytes;
    }
    conn_mark(conn);
}

/* ---- beginning ---- */

/* A connect to a free port of our own range may meet itself. */
static bool conn_met_itself(int fd)
{
    struct addr own;
    struct addr peer;

    return addr_of_fd(fd, &own) == 0 && addr_of_peer(fd, &peer) == 0 &&
           own.sa.sa_family != AF_UNIX && addr_equal(&own, &peer);
}

static void conn_connected(struct conn *conn)
{
    int error = 0;
    socklen_t bytes = sizeof(error);

    if (conn->connect_error) {
        error = conn->connect_error;
    } else if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) < 0) {
        error = errno;
    } else if (error == 0 && conn_met_itself(conn->fd)) {
        error = ECONNREFUSED;
    }
    if (error != 0) {
        conn_end(conn, -error);
        return;
    }
    conn->state = CONN_OPEN;
    conn->progress_usec = clock_boot_usec();
    conn_update_read(conn);
    if (conn_out_bytes(conn) > 0 || conn->closing) {
        loop_task_add(conn->loop, &conn->flush_task, LOOP_FLUSH);
    }
    conn->connects = true;
    if (!conn->tls && conn->ops->on_connected && !conn->closing) {
        conn->ops->on_connected(conn, conn->ctx);
    }
}

static void conn_on_writable(evutil_socket_t fd, short what, void *ctx)
{
    struct conn *conn = ctx;

    (void) fd;
    if (conn->state == CONN_CONNECTING) {
        if (what & EV_TIMEOUT) {
            conn_end(conn, -ETIMEDOUT);
        } else {
            conn_connected(conn);
        }
        return;
    }
    conn->write_blocked = false;
    conn_flush(conn);
}

static struct conn *conn_make(struct loop *loop, int fd, const struct conn_ops *ops, void *ctx,
                              size_t out_bytes_max)
{
    struct conn *conn = mem_zalloc(1, sizeof(*conn));
    struct event_base *base = loop_base(loop);

    kumo_assert(ops->on_closed);
    conn->loop = loop;
    conn->fd = fd;
    conn->ops = ops;
    conn->ctx = ctx;
    conn->out_bytes_max = out_bytes_max;
    conn->progress_usec = clock_boot_usec();
    loop_task_init(&conn->flush_task, conn_flush_task);
    loop_task_init(&conn->free_task, conn_free_now);
    event_assign(&conn->read_event, base, fd, EV_READ | EV_PERSIST, conn_on_readable, conn);
    event_assign(&conn->write_event, base, fd, EV_WRITE, conn_on_writable, conn);
    event_assign(&conn->again_event, base, -1, 0, conn_on_again, conn);
    return conn;
}

struct conn *conn_new(struct loop *loop, int fd, const struct conn_ops *ops, void *ctx,
                      size_t out_bytes_max)
{
    struct conn *conn = conn_make(loop, fd, ops, ctx, out_bytes_max);
    struct addr peer;

    conn_tune(fd);
    if (addr_of_peer(fd, &peer) == 0) {
        addr_format(&peer, conn->peer_name);
    } else {
        memcpy(conn->peer_name, "unknown", sizeof("unknown"));
    }
    conn->state = CONN_OPEN;
    conn_update_read(conn);
    return conn;
}

void conn_set_source(const struct addr *addr)
{
    source = addr ? *addr : (struct addr){ 0 };
}

/* 0 or an errno. */
static int conn_bind(int fd, const struct addr *peer)
{
    static const int on = 1;

    if (source.sa.sa_family != peer->sa.sa_family) {
        return 0;
    }
    /* The kernel chooses the port when it knows the peer: one port serves for many peers. */
    (void) setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
    return bind(fd, &source.sa, source.bytes) < 0 ? errno : 0;
}

int conn_connect(struct loop *loop, const struct addr *addr, const struct conn_ops *ops, void *ctx,
                 size_t out_bytes_max, struct conn **ret_conn)
{
    struct timeval tv = { .tv_sec = CONN_CONNECT_TIMEOUT_USEC / 1000000 };
    struct conn *conn;
    int fd = socket(addr->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return -errno;
    }
    conn_tune(fd);
    conn = conn_make(loop, fd, ops, ctx, out_bytes_max);
    conn->state = CONN_CONNECTING;
    addr_format(addr, conn->peer_name);
    conn->connect_error = conn_bind(fd, addr);
    if (conn->connect_error == 0 && connect(fd, &addr->sa, addr->bytes) < 0 &&
        errno != EINPROGRESS) {
        conn->connect_error = errno;
    }
    event_add(&conn->write_event, &tv);
    if (conn->connect_error != 0) {
        event_active(&conn->write_event, EV_WRITE, 0);
    }
    *ret_conn = conn;
    return 0;
}

/* ---- asking ---- */

struct buf *conn_in(struct conn *conn)
{
    return &conn->in;
}

bool conn_is_open(const struct conn *conn)
{
    return conn->state == CONN_OPEN && !conn->closing;
}

bool conn_eof(const struct conn *conn)
{
    return conn->eof;
}

int conn_fd(const struct conn *conn)
{
    return conn->fd;
}

struct loop *conn_loop(const struct conn *conn)
{
    return conn->loop;
}

void conn_set_owner(struct conn *conn, const struct conn_ops *ops, void *ctx)
{
    kumo_assert(ops->on_closed);
    conn->ops = ops;
    conn->ctx = ctx;
}

const char *conn_peer_name(const struct conn *conn)
{
    return conn->peer_name;
}

uint64_t conn_progress_usec(const struct conn *conn)
{
    return conn->progress_usec;
}

uint64_t conn_bytes_in(const struct conn *conn)
{
    return conn->bytes_in;
}

uint64_t conn_bytes_out(const struct conn *conn)
{
    return conn->bytes_out;
}
