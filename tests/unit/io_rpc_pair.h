/* For the tests of io/rpc: a listening server and a client in one loop, whose owners count what
 * they are told and do as their `struct side` says. */
#pragma once

#include "base/cleanup.h"
#include "base/mem.h"
#include "io/clock.h"
#include "io/listener.h"
#include "io/log.h"
#include "io/loop.h"
#include "io/rpc.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_USEC         10000000
#define MESSAGE_BYTES_MAX 262144
#define OUT_BYTES_MAX     1048576
#define METHOD_ECHO       7  /* answers with its params */
#define METHOD_FAIL       8  /* answers with an error */
#define METHOD_SILENT     9  /* never answers */
#define METHOD_CLOSE      10 /* closes the connection */
#define METHOD_PAUSE      11 /* answers and reads no more */

struct side {
    struct rpc *rpc;
    struct loop *loop; /* stopped when up or closed, if not NULL */
    unsigned ups;
    unsigned hellos;
    unsigned requests;
    unsigned notifies;
    unsigned draineds;
    unsigned closeds;
    int error;
    char why[256];
    const char *refuse;         /* with this text */
    bool unacceptable;          /* on_up says no */
    struct rpc_parcel **detach; /* on_hello detaches to here */
    uint64_t last;              /* number in the last notify */
    bool close_in_closed;
};

struct pair {
    struct loop *loop;
    struct listener *listener;
    struct rpc_lobby *lobby; /* of accepted ones; NULL: none */
    struct addr addr;
    struct side server;
    struct side client;
};

/* ---- both owners ---- */

static inline void pack_hello(struct rpc *rpc, void *ctx, struct buf *out)
{
    (void) rpc;
    (void) ctx;
    mp_put_array(out, 2);
    mp_put_uint(out, 1);
    mp_put_str(out, "kumofs");
}

static inline int on_up(struct rpc *rpc, void *ctx, struct mp_reader *answer)
{
    struct side *s = ctx;

    (void) rpc;
    s->ups++;
    assert_int_equal(mp_get_uint(answer), 42);
    assert_false(answer->failed);
    return s->unacceptable ? -EPROTO : 0;
}

static inline enum rpc_verdict on_hello(struct rpc *rpc, void *ctx, struct mp_reader *params,
                                        struct buf *answer)
{
    struct side *s = ctx;
    char name[16] = "";

    s->hellos++;
    if (s->detach) {
        *s->detach = rpc_detach(rpc);
        return RPC_HELLO_DETACHED;
    }
    mp_get_array_exact(params, 2);
    (void) mp_get_uint(params);
    mp_get_str(params, name, sizeof(name));
    if (s->refuse || params->failed || strcmp(name, "kumofs") != 0) {
        const char *text = s->refuse ? s->refuse : "not one of us";
        buf_append(answer, text, strlen(text));
        return RPC_HELLO_REFUSE;
    }
    mp_put_uint(answer, 42);
    return RPC_HELLO_ACCEPT;
}

static inline void echo(struct rpc *rpc, uint64_t id, const struct mp_reader *params)
{
    struct buf *out = rpc_begin_response(rpc, id);

    buf_append(out, params->p, (size_t) (params->end - params->p));
    assert_int_equal(rpc_end(rpc), 0);
}

static inline void on_request(struct rpc *rpc, void *ctx, uint64_t id, uint32_t method,
                              struct mp_reader *params)
{
    struct side *s = ctx;

    s->requests++;
    if (method == METHOD_ECHO || method == METHOD_PAUSE) {
        echo(rpc, id, params);
    } else if (method == METHOD_FAIL) {
        rpc_error(rpc, id, 77, "no such thing");
    } else if (method == METHOD_CLOSE) {
        s->rpc = rpc_close(rpc);
    }
    if (method == METHOD_PAUSE) {
        rpc_pause_read(rpc);
    }
}

static inline void on_notify(struct rpc *rpc, void *ctx, uint32_t method, struct mp_reader *params)
{
    struct side *s = ctx;

    (void) rpc;
    (void) method;
    s->notifies++;
    if (mp_get_array(params) > 0 && mp_peek_type(params) == MP_UINT) {
        s->last = mp_get_uint(params);
    }
}

static inline void on_closed(struct rpc *rpc, void *ctx, int error, const char *why)
{
    struct side *s = ctx;

    s->closeds++;
    s->error = error;
    snprintf(s->why, sizeof(s->why), "%s", why);
    s->rpc = NULL;
    if (s->close_in_closed) {
        rpc_close(rpc);
    }
    if (s->loop) {
        loop_stop(s->loop);
    }
}

static inline void on_drained(struct rpc *rpc, void *ctx)
{
    (void) rpc;
    ((struct side *) ctx)->draineds++;
}

static const struct rpc_ops ops = {
    .pack_hello = pack_hello,
    .on_up = on_up,
    .on_hello = on_hello,
    .on_request = on_request,
    .on_notify = on_notify,
    .on_closed = on_closed,
    .on_drained = on_drained,
};

static inline struct rpc_config config_of(struct side *side)
{
    return (struct rpc_config){
        .ops = &ops,
        .ctx = side,
        .message_bytes_max = MESSAGE_BYTES_MAX,
        .out_bytes_max = OUT_BYTES_MAX,
    };
}

/* ---- a listening server and a client ---- */

static inline void on_accept(void *ctx, int fd)
{
    struct pair *p = ctx;
    struct rpc_config config = config_of(&p->server);

    config.lobby = p->lobby;
    p->server.rpc = rpc_accept(p->loop, fd, &config);
}

static inline void pair_listen(struct pair *p)
{
    *p = (struct pair){ 0 };
    assert_int_equal(loop_new(&p->loop), 0);
    p->listener = listener_new(p->loop, 0, "listen", on_accept, p);
    assert_int_equal(listener_open(p->listener, "127.0.0.1:0", 0, true, NULL), 0);
    listener_start(p->listener);
    assert_int_equal(listener_addr(p->listener, 0, &p->addr), 0);
}

static inline void pair_connect(struct pair *p)
{
    struct rpc_config config = config_of(&p->client);

    assert_int_equal(rpc_connect(p->loop, &p->addr, &config, &p->client.rpc), 0);
}

static inline void pair_close(struct pair *p)
{
    rpc_close(p->client.rpc);
    rpc_close(p->server.rpc);
    listener_free(p->listener);
    loop_free(p->loop);
}

#define TURN_UNTIL(p, condition)                                                                   \
    do {                                                                                           \
        uint64_t until_ = clock_boot_usec() + WAIT_USEC;                                           \
        while (!(condition)) {                                                                     \
            assert_true(clock_boot_usec() < until_);                                               \
            loop_turn((p)->loop, false);                                                           \
        }                                                                                          \
    } while (0)

static inline void pair_up(struct pair *p)
{
    pair_listen(p);
    pair_connect(p);
    TURN_UNTIL(p, p->client.ups == 1);
}

/* A raw peer of the server. */
static inline int raw_connect(struct pair *p)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, &p->addr.sa, p->addr.bytes), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static inline void raw_send(int fd, const struct buf *b)
{
    assert_int_equal(send(fd, b->data + b->start, buf_len(b), MSG_NOSIGNAL), buf_len(b));
}

static inline void put_hello(struct buf *b)
{
    mp_put_array(b, 4);
    mp_put_uint(b, 0);
    mp_put_uint(b, 0);
    mp_put_uint(b, RPC_METHOD_HELLO);
    pack_hello(NULL, NULL, b);
}

/* ---- answers ---- */

struct result {
    unsigned calls;
    int status;
    uint32_t code;
    char text[64];
    uint64_t number;
    struct rpc *close; /* within */
};

static inline void on_answer(void *ctx, const struct rpc_answer *answer)
{
    struct result *r = ctx;

    r->calls++;
    r->status = answer->status;
    r->code = answer->error_code;
    snprintf(r->text, sizeof(r->text), "%s", answer->error_text);
    if (answer->result) {
        struct mp_reader copy = *answer->result;
        if (mp_get_array(&copy) > 0 && mp_peek_type(&copy) == MP_UINT) {
            r->number = mp_get_uint(&copy);
        }
    }
    if (r->close) {
        rpc_close(r->close);
    }
}

static inline int ask(struct rpc *rpc, uint32_t method, uint64_t number, uint64_t timeout_usec,
                      struct result *result)
{
    struct buf *out;
    int r = rpc_begin_request(rpc, method, on_answer, result, timeout_usec, &out, NULL);

    if (r == 0) {
        mp_put_array(out, 1);
        mp_put_uint(out, number);
        r = rpc_end(rpc);
    }
    return r;
}

static inline int quiet(void **state)
{
    (void) state;
    log_set_level(LOG_LEVEL_ERROR);
    return 0;
}
