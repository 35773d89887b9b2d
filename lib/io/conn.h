/* One non-blocking stream socket (TCP or Unix) with its own buffers, on raw libevent events, plain
 * or under TLS. Knows nothing of what the bytes mean. Belongs to the thread of its loop.
 *
 * Writing: append to conn_out and call conn_mark; all that was marked in a turn of the loop is
 * written once, at the turn's end, by one writev per connection. Reading: at most CONN_READ_BYTES
 * per turn, so that one peer can't starve the others, more when conn_need told of a large message.
 *
 * A callback may close this or any other connection. The memory lives until the end of the turn;
 * calls on a closed connection are harmless. */
#pragma once

#include "base/buf.h"
#include "io/addr.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONN_READ_BYTES       65536   /* read per turn and connection */
#define CONN_READ_LARGE_BYTES 1048576 /* the same while a message of known length arrives */
#define CONN_IN_BYTES_MAX                                                                          \
    262144 /* unread bytes that stop reading, unless conn_need asked for more */
#define CONN_KEEP_BYTES           16384 /* capacity that an empty buffer keeps */
#define CONN_REF_MIN_BYTES        4096  /* conn_out_ref copies what is shorter */
#define CONN_CONNECT_TIMEOUT_USEC 5000000
#define CONN_FLUSH_TIMEOUT_USEC                                                                    \
    30000000                     /* conn_close_after_flush gives up on a peer that doesn't read */
#define CONN_LINGER_USEC 1000000 /* and waits so long for its end after the last byte was sent */
#define CONN_IOV_MAX     64      /* pieces of one writev */

struct conn;
struct loop;
struct tls;

struct conn_ops {
    /* Bytes were read; the owner consumes from conn_in what it can and leaves an incomplete rest.
     */
    void (*on_data)(struct conn *conn, void *ctx);
    /* conn_connect succeeded, and the TLS handshake if there is one. Not called for conn_new. */
    void (*on_connected)(struct conn *conn, void *ctx);
    /* The peer will send no more (it closed, or shut down its sending side); called once, after
     * on_data of its last bytes. The owner may still send, and ends with conn_close_after_flush.
     * NULL: that is done at once. */
    void (*on_eof)(struct conn *conn, void *ctx);
    /* The connection ended: 0 orderly, else -errno (-ETIMEDOUT: connect; -EKEYREJECTED: the TLS
     * handshake failed, see conn_why). Called exactly once, unless the owner called conn_close or
     * conn_detach; the connection is gone after it. Needed.
     */
    void (*on_closed)(struct conn *conn, void *ctx, int error);
    /* conn_out_bytes went to half of out_bytes_max or less after conn_out_full was true. */
    void (*on_drained)(struct conn *conn, void *ctx);
};

/* Takes over an open socket (made non-blocking, TCP_NODELAY, keepalive). Never fails; owns fd. */
struct conn *conn_new(struct loop *loop, int fd, const struct conn_ops *ops, void *ctx,
                      size_t out_bytes_max);

/* The address that all connections made by conn_connect to peers of its family come from; NULL, and
 * until then: the kernel chooses. Before there are threads. */
void conn_set_source(const struct addr *source);

/* Begins to connect. The outcome comes by on_connected or on_closed, never within this call. Bytes
 * may be appended to conn_out at once. Returns -errno only when no socket could be made. */
int conn_connect(struct loop *loop, const struct addr *addr, const struct conn_ops *ops, void *ctx,
                 size_t out_bytes_max, struct conn **ret_conn);

/* Puts the connection under TLS: right after conn_new or conn_connect, before anything is read or
 * written. Owns tls. All else stays as it is: conn_in and conn_out hold plain bytes. */
void conn_use_tls(struct conn *conn, struct tls *tls);

/* The connection ends with -ETIMEDOUT when the peer's machine takes nothing of what was sent for so
 * long. Without it a link that was cut for a minute comes back a minute after the cut is mended. */
void conn_set_patience(struct conn *conn, uint64_t usec);

/* Closes at once, drops what waits, calls nothing back (except release functions of conn_out_ref).
 * NULL is fine; returns NULL. */
struct conn *conn_close(struct conn *conn);

/* Reads no more, sends what waits, then closes and calls on_closed (0, or the error), never within
 * this call. What the peer still sends is thrown away for at most CONN_LINGER_USEC, because closing
 * over unread bytes would make the kernel take back what was just sent. */
void conn_close_after_flush(struct conn *conn);

/* Gives the socket away as it is: returns the fd, moves the unread bytes to ret_in and its TLS, if
 * any, to ret_tls (else NULL; for conn_use_tls), calls nothing back. What waited to be sent is
 * dropped. */
int conn_detach(struct conn *conn, struct buf *ret_in, struct tls **ret_tls);

/* Bytes read and not consumed: consume with buf_consume. Who consumes outside on_data calls
 * conn_resume_read afterwards. */
struct buf *conn_in(struct conn *conn);

/* Hands bytes to the connection as if they had been read; on_data is called for them in the next
 * turn. */
void conn_unread(struct conn *conn, const void *p, size_t bytes);

/* The message at the front of conn_in will have this many bytes: room is made and reading goes on
 * beyond CONN_IN_BYTES_MAX until they are there. The caller has checked its own limit. 0: unknown.
 */
void conn_need(struct conn *conn, size_t bytes);

/* Buffer to append to; call conn_mark afterwards. Taking back what was appended since the last
 * conn_mark is allowed (by lowering ->end); touching anything before it is not. */
struct buf *conn_out(struct conn *conn);
void conn_mark(struct conn *conn);

/* Appends bytes by reference: they must stay until release(ctx), which is called once, when they
 * were sent or dropped, and must not touch the connection. Copied (and released within) when
 * shorter than CONN_REF_MIN_BYTES. Marks. */
void conn_out_ref(struct conn *conn, const void *p, size_t bytes, void (*release)(void *ctx),
                  void *ctx);

/* Bytes waiting to be sent (those that TLS has sealed already included), and whether they are more
 * than out_bytes_max: then the owner should stop making more (stop reading requests) until
 * on_drained. Appending is never refused. */
size_t conn_out_bytes(const struct conn *conn);
bool conn_out_full(const struct conn *conn);

/* Backpressure: no on_data while paused. After resume, on_data is called (not within) when bytes
 * are there. */
void conn_pause_read(struct conn *conn);
void conn_resume_read(struct conn *conn);

/* Neither closed nor closing. */
bool conn_is_open(const struct conn *conn);
bool conn_eof(const struct conn *conn);
int conn_fd(const struct conn *conn);
bool conn_is_secured(const struct conn *conn);
/* Why TLS ended the connection, for the operator; "" when it did not. */
const char *conn_why(const struct conn *conn);
struct loop *conn_loop(const struct conn *conn);
void conn_set_owner(struct conn *conn, const struct conn_ops *ops, void *ctx);
/* "127.0.0.1:4711", "[::1]:4711", "unix"; valid as long as the connection. */
const char *conn_peer_name(const struct conn *conn);
/* CLOCK_BOOTTIME when bytes last arrived or were taken by the kernel. */
uint64_t conn_progress_usec(const struct conn *conn);
/* Bytes read and written since the beginning. */
uint64_t conn_bytes_in(const struct conn *conn);
uint64_t conn_bytes_out(const struct conn *conn);
