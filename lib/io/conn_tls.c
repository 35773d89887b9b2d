/* A connection under TLS: what conn.c does otherwise when it is plain. */
#include "io/conn_private.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "io/clock.h"
#include "io/tls.h"

#include <errno.h>

/* ---- reading ---- */

ssize_t conn_fill_tls(struct conn *conn)
{
    struct iovec iov = { .iov_base = loop_scratch(conn->loop), .iov_len = LOOP_SCRATCH_BYTES };
    ssize_t n = conn_sys_read(conn, &iov, 1);
    int r;

    if (n < 0 && conn_would_block(n)) {
        return n;
    }
    if (n <= 0) {
        r = tls_take_eof(conn->tls); /* a reset tells no more than an end */
        return r < 0 ? r : n;
    }
    conn->bytes_in += (uint64_t) n;
    conn->progress_usec = clock_boot_usec();
    conn_make_room(conn);
    r = tls_take(conn->tls, iov.iov_base, (size_t) n, &conn->in);
    return r < 0 ? r : n;
}

void conn_check_tls_end(struct conn *conn)
{
    if (conn->tls && tls_ended(conn->tls) && conn_is_open(conn) && !conn->eof && !conn->paused) {
        conn_take_eof(conn);
    }
}

void conn_check_tls(struct conn *conn)
{
    if (!conn->tls || conn->state != CONN_OPEN) {
        return;
    }
    if (tls_is_up(conn->tls) && !conn->tls_was_up) {
        conn->tls_was_up = true;
        if (conn->connects && conn->ops->on_connected && !conn->closing) {
            conn->ops->on_connected(conn, conn->ctx);
        }
    }
    if (conn->state == CONN_OPEN && conn_out_bytes(conn) > 0 && !conn->write_blocked) {
        loop_task_add(conn->loop, &conn->flush_task, LOOP_FLUSH);
    }
}

/* ---- writing ---- */

/* Sends what TLS has sealed. 0, also when the kernel took only a part, or -errno. */
static int conn_send_sealed(struct conn *conn)
{
    struct buf *out = tls_out(conn->tls);

    while (buf_len(out) > 0) {
        struct iovec iov = { .iov_base = buf_head(out), .iov_len = buf_len(out) };
        ssize_t n = conn_sys_write(conn, &iov, 1);
        if (n < 0) {
            return conn_would_block(n) ? 0 : (int) n;
        }
        conn->bytes_out += (uint64_t) n;
        conn->progress_usec = clock_boot_usec();
        buf_consume(out, (size_t) n);
    }
    return 0;
}

ssize_t conn_push_tls(struct conn *conn, const struct iovec *iov, size_t n)
{
    struct buf *out = tls_out(conn->tls);
    ssize_t taken = 0;
    int r = conn_send_sealed(conn);

    if (r == 0 && buf_len(out) == 0 && n > 0 && tls_is_up(conn->tls)) {
        taken = tls_seal(conn->tls, iov, n);
        r = taken < 0 ? (int) taken : conn_send_sealed(conn);
        if (taken < CONN_KEEP_BYTES) {
            buf_trim(out, CONN_KEEP_BYTES);
        }
    }
    if (r < 0) {
        return r;
    }
    return taken == 0 && buf_len(out) > 0 ? -EAGAIN : taken;
}

/* ---- beginning and end ---- */

void conn_use_tls(struct conn *conn, struct tls *tls)
{
    kumo_assert(!conn->tls);
    conn->tls = tls;
    conn->tls_was_up = tls_is_up(tls);
    conn_check_tls(conn);
}

bool conn_say_end(struct conn *conn)
{
    if (!conn->tls || !tls_is_up(conn->tls) || conn->tls_end_said) {
        return false;
    }
    conn->tls_end_said = true;
    tls_end(conn->tls);
    return true;
}

bool conn_waits_for_tls(const struct conn *conn)
{
    return conn->tls && !tls_is_up(conn->tls) && buf_len(tls_out(conn->tls)) == 0;
}

/* Without them the peer would think that somebody cut the connection, or would not know why its
 * handshake failed. */
void conn_say_goodbye(struct conn *conn)
{
    if (conn->state != CONN_OPEN || !conn->tls) {
        return;
    }
    if (tls_is_up(conn->tls) && !conn->tls_end_said && buf_len(tls_out(conn->tls)) == 0) {
        tls_end(conn->tls);
    }
    (void) conn_send_sealed(conn);
}

bool conn_is_secured(const struct conn *conn)
{
    return conn->tls != NULL;
}

const char *conn_why(const struct conn *conn)
{
    return conn->tls ? tls_why(conn->tls) : "";
}
