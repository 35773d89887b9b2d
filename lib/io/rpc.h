/* MessagePack-RPC over one connection: requests [0, id, method, params], responses [1, id, error,
 * result], notifies [2, method, params]. `method` is an unsigned integer, `params` one array. Both
 * ends may send requests once the hello is done: the first message of every connection is the
 * request with method RPC_METHOD_HELLO from the side that connected, the second its answer; nothing
 * else is accepted before. An error on the wire is [code, text], nil for none.
 *
 * With a cluster key in use (io/keyring.h) connections are made and accepted under TLS, else plain.
 * Who connects tries its keys in turn. A peer that does otherwise is closed with a log line.
 *
 * Everything here belongs to the thread of the loop that the rpc was made on. A message that is not
 * as above closes the connection with a rate-limited log line. Messages are handed over in place:
 * what a struct mp_reader points to is valid until the callback returns (or closes the rpc and
 * returns). */
#pragma once

#include "base/buf.h"
#include "io/addr.h"
#include "wire/mp.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RPC_METHOD_HELLO       0
#define RPC_HELLO_TIMEOUT_USEC 5000000  /* from connect or accept to the end of the hello */
#define RPC_PATIENCE_USEC      10000000 /* a peer's machine that takes no byte for so long is gone */
#define RPC_HELLO_BYTES_MAX    65536    /* a message before the hello is done */
#define RPC_PENDING_MAX        65536    /* requests without an answer, per connection */
#define RPC_ERROR_TEXT_MAX     512      /* text of an error; longer ones are cut */
#define RPC_METHOD_MAX         65535

/* Accepted connections of one lobby whose hello is not done; beyond it the oldest is closed. */
#define RPC_LOBBY_MAX 512
/* A message that has begun must end, or grow by so many bytes, within about so long. */
#define RPC_MESSAGE_STEP_BYTES   65536
#define RPC_MESSAGE_TIMEOUT_USEC 20000000

#define RPC_LINK_BACKOFF_MIN_USEC 50000
#define RPC_LINK_BACKOFF_MAX_USEC 1000000

struct conn;
struct loop;
struct rpc;
struct rpc_link;
struct rpc_lobby;
struct rpc_parcel;

/* What became of a request. */
struct rpc_answer {
    int status;               /* 0: `result` is there. -EREMOTEIO: the peer answered with an error.
                               * -ECONNRESET: the connection ended. -ETIMEDOUT. In the last two the
                               * outcome is unknown. */
    uint32_t error_code;      /* of -EREMOTEIO, the peer's; 0 otherwise */
    const char *error_text;   /* of -EREMOTEIO, the peer's; otherwise a general word; never NULL */
    struct mp_reader *result; /* at the result; NULL unless status is 0 */
};

/* Called exactly once per request that rpc_begin_request and rpc_end accepted, unless cancelled. */
typedef void (*rpc_answer_fn)(void *ctx, const struct rpc_answer *answer);

enum rpc_verdict {
    RPC_HELLO_ACCEPT, /* `answer` holds the result */
    RPC_HELLO_REFUSE, /* `answer` holds plain text, at most RPC_ERROR_TEXT_MAX bytes, that the peer
                       * gets as error with code RPC_ERROR_REFUSED before the connection is closed
                       */
    RPC_HELLO_DETACHED, /* rpc_detach or rpc_close was called within */
};

#define RPC_ERROR_REFUSED 1 /* error code of a refused hello */

/* The owner's side. Any of them may close this or any other rpc. NULL where not wanted, except as
 * said. */
struct rpc_ops {
    /* Connecting side (needed): packs the params (one array) of the hello to `out`. */
    void (*pack_hello)(struct rpc *rpc, void *ctx, struct buf *out);
    /* Connecting side: the hello was accepted, `answer` is the acceptor's result. Requests and
     * notifies may be sent from now on, within this call too. Returning < 0 (the answer is
     * unacceptable) closes the connection as refused: on_closed follows with that error. */
    int (*on_up)(struct rpc *rpc, void *ctx, struct mp_reader *answer);
    /* Accepting side (needed): the peer's hello. Packs its result (one item) or text to `answer`.
     */
    enum rpc_verdict (*on_hello)(struct rpc *rpc, void *ctx, struct mp_reader *params,
                                 struct buf *answer);
    /* Every request must be answered once by rpc_begin_response..rpc_end or rpc_error, now or
     * later. NULL: every request is answered by an error. */
    void (*on_request)(struct rpc *rpc, void *ctx, uint64_t id, uint32_t method,
                       struct mp_reader *params);
    void (*on_notify)(struct rpc *rpc, void *ctx, uint32_t method, struct mp_reader *params);
    /* The connection ended: 0 = the peer closed orderly, -ETIMEDOUT (connect or hello), -EBADMSG
     * (malformed), -EMSGSIZE, -EPERM (the hello was refused; `why` is the peer's text),
     * -EKEYREJECTED (one side uses TLS and the other does not, or with another key), other -errno.
     * `why` is never NULL. Called exactly once unless the owner closed the rpc itself, after the
     * callbacks of all pending requests. The rpc is gone after it. */
    void (*on_closed)(struct rpc *rpc, void *ctx, int error, const char *why);
    /* What waits to be sent went below half of out_bytes_max again, after rpc_out_full was true. */
    void (*on_drained)(struct rpc *rpc, void *ctx);
};

struct rpc_config {
    const struct rpc_ops *ops;
    void *ctx;
    size_t message_bytes_max; /* of one message, either direction; > 0 */
    size_t out_bytes_max; /* rpc_out_full above this; > 0. A mark, not a wall: see rpc_out_full */
    struct rpc_lobby
        *lobby; /* of rpc_accept: where it waits until its hello is done; may be NULL */
};

/* Where accepted connections of one loop wait until they have said who they are, so that any number
 * of silent ones can't use up descriptors, nor keep a real peer out. */
struct rpc_lobby *rpc_lobby_new(void);
/* Closes those that wait (on_closed). NULL is fine; returns NULL. */
struct rpc_lobby *rpc_lobby_free(struct rpc_lobby *lobby);
size_t rpc_lobby_waiting(const struct rpc_lobby *lobby);

/* Takes over an accepted, non-blocking socket and waits for the hello. Never fails; owns fd. */
struct rpc *rpc_accept(struct loop *loop, int fd, const struct rpc_config *config);

/* Begins to connect. Failure to connect is told by on_closed, always later than this call. Returns
 * -errno only when no socket could be made. */
int rpc_connect(struct loop *loop, const struct addr *addr, const struct rpc_config *config,
                struct rpc **ret_rpc);

/* Closes at once; what was not sent is dropped. Pending requests get -ECONNRESET within this call;
 * on_closed is not called. NULL is fine; returns NULL. The memory lives until the end of the loop's
 * turn, so that a caller further up the stack may still touch the rpc (all calls are then
 * harmless). */
struct rpc *rpc_close(struct rpc *rpc);

/* Takes no more messages, sends what is waiting, then closes; on_closed is called then (error 0).
 */
void rpc_close_after_flush(struct rpc *rpc);

/* Gives the connection to another owner, for instance within on_hello. */
void rpc_set_owner(struct rpc *rpc, const struct rpc_ops *ops, void *ctx);
void *rpc_ctx(const struct rpc *rpc);

/* The hello is done and the connection open. */
bool rpc_is_up(const struct rpc *rpc);
/* It is under TLS. */
bool rpc_is_secured(const struct rpc *rpc);
/* "127.0.0.1:4711" or "unix"; valid as long as the rpc. */
const char *rpc_peer_name(const struct rpc *rpc);
struct loop *rpc_loop(const struct rpc *rpc);

/* ---- sending: begin, append exactly one MessagePack item to the returned buffer, end ----
 * Between begin and end no other call on this rpc is allowed. All that was ended in a turn of the
 * loop is written by one system call at the turn's end. */

/* Sent nowhere when the rpc is closed. Needs rpc_is_up or closed. Never NULL. */
struct buf *rpc_begin_notify(struct rpc *rpc, uint32_t method);

/* The answer to request `id` of the peer. Never NULL. */
struct buf *rpc_begin_response(struct rpc *rpc, uint64_t id);

/* *ret_out is where the params go. timeout_usec > 0. -ENOTCONN: not up or closed; -ENOBUFS:
 * RPC_PENDING_MAX requests are under way. Then nothing was begun and `fn` will not be called.
 * *ret_id (may be NULL) is for rpc_cancel. */
int rpc_begin_request(struct rpc *rpc, uint32_t method, rpc_answer_fn fn, void *ctx,
                      uint64_t timeout_usec, struct buf **ret_out, uint64_t *ret_id);

/* -EMSGSIZE: the message is longer than message_bytes_max; it was taken back (`fn` of a request
 * will not be called). -ENOTCONN: closed meanwhile. */
int rpc_end(struct rpc *rpc);

/* Takes back what was begun. */
void rpc_abort(struct rpc *rpc);

/* Answers request `id` by an error; code > 0; text may be any length, must be UTF-8. */
void rpc_error(struct rpc *rpc, uint64_t id, uint32_t code, const char *text);

/* Forgets a request: its callback will not be called. Unknown ids are ignored. */
void rpc_cancel(struct rpc *rpc, uint64_t id);

/* More than out_bytes_max bytes wait to be sent: the caller should send no more until on_drained.
 * Nothing is refused because of it, so that answers and small messages always pass: the owner of
 * each queue has its own named limit. */
bool rpc_out_full(const struct rpc *rpc);
/* Bytes that wait to be sent. */
size_t rpc_out_bytes(const struct rpc *rpc);
/* Requests without an answer yet. */
size_t rpc_pending(const struct rpc *rpc);
/* CLOCK_BOOTTIME of the last byte that arrived or was taken by the kernel: progress in bytes (R14).
 */
uint64_t rpc_progress_usec(const struct rpc *rpc);
/* CLOCK_BOOTTIME of the last message that came; 0: none yet. */
uint64_t rpc_heard_usec(const struct rpc *rpc);

/* Stops and goes on reading: backpressure. Messages already read are kept and handed over after
 * resume, never within it. */
void rpc_pause_read(struct rpc *rpc);
void rpc_resume_read(struct rpc *rpc);

/* ---- moving an accepted connection to another thread ---- */

/* Within on_hello only (which then returns RPC_HELLO_DETACHED): takes the socket and all bytes read
 * so far, the hello itself included, away from the rpc, which is closed without on_closed. The
 * parcel belongs to the caller and to no thread. Never fails. */
struct rpc_parcel *rpc_detach(struct rpc *rpc);

/* On the thread of `loop`: as rpc_accept; the hello is read again from the parcel, so that on_hello
 * of the new owner answers it, never within this call. Frees the parcel. */
struct rpc *rpc_adopt(struct loop *loop, struct rpc_parcel *parcel,
                      const struct rpc_config *config);

/* Closes the socket of a parcel that nobody adopted. NULL is fine; returns NULL. */
struct rpc_parcel *rpc_parcel_free(struct rpc_parcel *parcel);

/* ---- an outgoing connection that comes back by itself ---- */

/* Connects at once, and again after RPC_LINK_BACKOFF_MIN_USEC, doubled up to
 * RPC_LINK_BACKOFF_MAX_USEC, until rpc_link_free; from the beginning of the backoff after a
 * connection that was up, unless it was left by rpc_link_next soon after. `addrs` (copied, n > 0)
 * are tried in turn, the one that worked last first. config->ops as above: pack_hello and on_up are
 * called for each connection, on_closed for each that ended, also those that never were up. */
struct rpc_link *rpc_link_new(struct loop *loop, const struct addr *addrs, size_t n,
                              const struct rpc_config *config);

/* Closes and forgets: no on_closed. Pending requests get -ECONNRESET within. Allowed in any
 * callback. NULL is fine; returns NULL. */
struct rpc_link *rpc_link_free(struct rpc_link *link);

/* The connection when it is up, otherwise NULL. Valid until on_closed. */
struct rpc *rpc_link_rpc(const struct rpc_link *link);

/* Other addresses from now on; a connection to an address not among them is closed (on_closed
 * called with -EAGAIN) and made anew. */
void rpc_link_set_addrs(struct rpc_link *link, const struct addr *addrs, size_t n);

/* Ends the present connection, if any (on_closed with -EAGAIN within), and goes to the next
 * address, at once unless all were tried since the last wait: "this manager isn't the leader". */
void rpc_link_next(struct rpc_link *link);

/* From now on a connection over which nothing came for so long, or which is not up after so long,
 * is left for the next address, with -ETIMEDOUT: the other side is known to say something more
 * often. 0: never. */
void rpc_link_set_silence(struct rpc_link *link, uint64_t usec);

/* Address that the link is or will be connected to. */
const struct addr *rpc_link_addr(const struct rpc_link *link);
