#include "client.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "wire/mp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES        65536
#define MESSAGE_BYTES_MAX (ENTRY_BYTES_MAX + (16u << 20))

static int send_all(int fd, struct buf *b)
{
    while (buf_len(b) > 0) {
        ssize_t n = send(fd, buf_head(b), buf_len(b), MSG_NOSIGNAL);
        if (n < 0) {
            return -errno;
        }
        buf_consume(b, (size_t) n);
    }
    return 0;
}

static int receive(struct client *c)
{
    ssize_t n = recv(c->fd, buf_reserve(&c->in, READ_BYTES), READ_BYTES, 0);

    if (n <= 0) {
        return -ECONNRESET;
    }
    c->in.end += (size_t) n;
    return 0;
}

/* Length of the message at the front, 0: not whole yet. */
static size_t message_bytes(struct client *c)
{
    struct mp_scan scan = { 0 };
    int64_t n = mp_scan(&scan, buf_head(&c->in), buf_len(&c->in), MESSAGE_BYTES_MAX, NULL);

    kumo_assert(n >= 0);
    return (size_t) n;
}

static int hello(struct client *c, uint32_t shard)
{
    _cleanup_(buf_free) struct buf b = { 0 };
    struct msg_hello h = { .protocol_min = MSG_PROTOCOL_MIN,
                           .protocol_max = MSG_PROTOCOL_MAX,
                           .role = ROLE_GATEWAY,
                           .shard = shard };
    int r;

    mp_put_array(&b, 4);
    mp_put_uint(&b, 0);
    mp_put_uint(&b, 0);
    mp_put_uint(&b, MSG_HELLO);
    msg_put_hello(&b, &h);
    r = send_all(c->fd, &b);
    while (r == 0 && (buf_len(&c->in) == 0 || message_bytes(c) == 0)) {
        r = receive(c);
    }
    if (r == 0) {
        buf_consume(&c->in, message_bytes(c));
    }
    return r;
}

int client_open(struct client *c, uint16_t port, uint32_t shard)
{
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(port) };
    int r;

    *c = (struct client){ .fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) };
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    kumo_assert(c->fd >= 0);
    r = connect(c->fd, (struct sockaddr *) &addr, sizeof(addr)) < 0 ? -errno : 0;
    return r == 0 ? hello(c, shard) : r;
}

void client_close(struct client *c)
{
    close(c->fd);
    buf_free(&c->in);
    buf_free(&c->ops);
}

void client_add(struct client *c, const struct op *op)
{
    msg_put_op(&c->ops, op);
    c->n_ops++;
}

int client_flush(struct client *c, uint64_t session)
{
    _cleanup_(buf_free) struct buf b = { 0 };

    if (c->n_ops == 0) {
        return 0;
    }
    mp_put_array(&b, 3);
    mp_put_uint(&b, 2);
    mp_put_uint(&b, MSG_OPS);
    mp_put_array(&b, 2);
    mp_put_uint(&b, session);
    mp_put_array(&b, c->n_ops);
    buf_append(&b, buf_head(&c->ops), buf_len(&c->ops));
    buf_clear(&c->ops);
    c->n_ops = 0;
    return send_all(c->fd, &b);
}

static void results(struct mp_reader *r, client_result_fn fn, void *ctx)
{
    struct result res;
    uint32_t n;

    kumo_assert(mp_get_array(r) == 3 && mp_get_uint(r) == 2 && mp_get_uint(r) == MSG_RESULTS);
    (void) mp_get_array(r);
    n = mp_get_array(r);
    for (uint32_t i = 0; i < n; i++) {
        msg_get_result(r, &res);
        kumo_assert(!r->failed);
        fn(ctx, &res);
    }
}

int client_read(struct client *c, client_result_fn fn, void *ctx)
{
    int r = receive(c);
    size_t n;

    while (r == 0 && buf_len(&c->in) > 0 && (n = message_bytes(c)) > 0) {
        struct mp_reader reader = mp_reader_of(buf_head(&c->in), n);
        results(&reader, fn, ctx);
        buf_consume(&c->in, n);
    }
    return r;
}
