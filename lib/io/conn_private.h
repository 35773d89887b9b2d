/* Between conn.c and conn_tls.c: what is different under TLS. */
#pragma once

#include <event2/event.h>
#include <event2/event_struct.h> /* before base/list.h: it undefines its own LIST_ENTRY */

#include "io/conn.h"

#include "io/loop.h"

#include <sys/uio.h>

enum conn_state {
    CONN_CONNECTING,
    CONN_OPEN,
    CONN_CLOSED,
};

/* Foreign bytes that are to be sent when `at` bytes of `out` have been. */
struct conn_ref {
    uint64_t at;
    const uint8_t *p;
    size_t bytes;
    void (*release)(void *ctx);
    void *ctx;
};

struct conn {
    struct loop *loop;
    int fd;
    enum conn_state state;
    const struct conn_ops *ops;
    void *ctx;

    struct event read_event;
    struct event write_event;
    struct event again_event; /* on_data is due without new bytes */
    struct loop_task flush_task;
    struct loop_task free_task;
    struct loop_timer *close_timer;

    struct buf in;
    size_t need; /* length of the message at the front of `in`, 0 if unknown */
    bool paused;
    bool eof;
    bool reading; /* read_event is added */

    struct buf out;
    uint64_t out_sent;     /* bytes of `out` that were sent, ever */
    struct conn_ref *refs; /* [refs_head, n_refs) wait, in order */
    size_t refs_head;
    size_t n_refs;
    size_t refs_cap;
    size_t ref_bytes;
    size_t out_bytes_max;
    bool was_full;
    bool write_blocked; /* the kernel took no more; write_event is added */
    bool closing;       /* conn_close_after_flush */
    bool lingering;     /* everything was sent and our side shut down */
    int connect_error;  /* found at once, told later */

    struct tls *tls; /* NULL: plain */
    bool connects;   /* on_connected is due when TLS is up */
    bool tls_was_up; /* what waited for it was told */
    bool tls_end_said;

    uint64_t progress_usec;
    uint64_t bytes_in;
    uint64_t bytes_out;
    char peer_name[ADDR_TEXT_BYTES];
};

/* ---- in conn.c ---- */

/* Bytes, or -errno. */
ssize_t conn_sys_read(struct conn *conn, const struct iovec *iov, int n);
ssize_t conn_sys_write(struct conn *conn, struct iovec *iov, size_t n);
bool conn_would_block(ssize_t r);
/* Room in `in` while a large message arrives. */
void conn_make_room(struct conn *conn);
/* The peer will send no more: tells the owner. */
void conn_take_eof(struct conn *conn);

/* ---- in conn_tls.c; all but conn_push_tls and conn_fill_tls are harmless on a plain connection
 * ----
 */

/* Reads once and takes what TLS makes of it: bytes that came, 0 at the end, or -errno. */
ssize_t conn_fill_tls(struct conn *conn);
/* The next pieces go through TLS, when those before are gone. Returns how many plain bytes it took
 * (0 while it is not up, or with nothing but sealed ones left), -EAGAIN, or -errno. */
ssize_t conn_push_tls(struct conn *conn, const struct iovec *iov, size_t n);
/* After bytes were taken: TLS may have come up, and may have something to say. */
void conn_check_tls(struct conn *conn);
/* The peer's last word came with other bytes: told when the owner has seen those. */
void conn_check_tls_end(struct conn *conn);
/* Before an orderly end: true when there is now a last record to be sent. */
bool conn_say_end(struct conn *conn);
/* Last words of a connection that is closed at once, if they can be said without waiting. */
void conn_say_goodbye(struct conn *conn);
/* TLS is not up, and waits for the peer. */
bool conn_waits_for_tls(const struct conn *conn);
