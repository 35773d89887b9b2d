/* Records into a live cluster: sets in memcached's text protocol, a batch at a time. A batch is
 * sent whole, then all of its answers are read: what is under way has a limit. */
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "import_target.h"
#include "io/addr.h"
#include "wire/mc_text.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define GATEWAY_PORT     11211
#define BATCH_RECORDS    256 /* their answers fit into the sockets' buffers: nobody blocks */
#define BATCH_BYTES      (256u << 10)
#define ANSWER_BYTES_MAX 512
#define PATIENCE_USEC    10000000 /* a gateway tries for its request-timeout before it answers */

static_assert(BATCH_RECORDS <= IMPORT_WINDOW, "a batch fits into the window");

struct gateway_sink {
    struct record_sink sink;
    int fd;
    const char *address;
    struct buf out;
    struct buf in;
    unsigned n_out; /* records in `out` */
};

/* ---- connecting ---- */

static int connect_one(const struct addr *a, uint64_t timeout_usec)
{
    int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval patience = { .tv_sec = (time_t) (timeout_usec / 1000000),
                                .tv_usec = (suseconds_t) (timeout_usec % 1000000) };

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0 ||
        connect(fd, &a->sa, a->bytes) < 0) {
        int r = errno == EINPROGRESS ? -ETIMEDOUT : -errno;
        if (fd >= 0) {
            close(fd);
        }
        return r;
    }
    patience.tv_sec += PATIENCE_USEC / 1000000;
    (void) setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    (void) setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    return fd;
}

static int gateway_connect(const char *address, uint64_t timeout_usec, struct io_error *error)
{
    struct addr addrs[ADDR_RESOLVED_MAX];
    int n = addr_parse(address, GATEWAY_PORT, addrs, ARRAY_LEN(addrs), error);
    int fd = -ENOENT;

    if (n < 0) {
        return n;
    }
    for (int i = 0; i < n && fd < 0; i++) {
        fd = connect_one(&addrs[i], timeout_usec);
    }
    return fd >= 0 ? fd
                   : io_error_set(error, fd,
                                  "no gateway at %s: %s. Is it up? See: systemctl status "
                                  "kumo-gateway",
                                  address, strerror(-fd));
}

/* ---- a batch ---- */

static int lost(const struct gateway_sink *s, int code, struct io_error *error)
{
    return io_error_set(error, code, "the gateway at %s %s", s->address,
                        code == -EAGAIN    ? "gives no answer"
                        : code == -ENODATA ? "closed the connection"
                                           : strerror(-code));
}

static int send_all(struct gateway_sink *s, struct io_error *error)
{
    while (buf_len(&s->out) > 0) {
        ssize_t n = send(s->fd, buf_head(&s->out), buf_len(&s->out), MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR) {
            return lost(s, -errno, error);
        }
        buf_consume(&s->out, n > 0 ? (size_t) n : 0);
    }
    buf_trim(&s->out, 4 * BATCH_BYTES);
    return 0;
}

/* The next line of answers, without its end. */
static int answer_read(struct gateway_sink *s, char out[ANSWER_BYTES_MAX], struct io_error *error)
{
    uint8_t *newline;
    size_t bytes;

    while (
        !(newline = buf_len(&s->in) > 0 ? memchr(buf_head(&s->in), '\n', buf_len(&s->in)) : NULL)) {
        ssize_t n = recv(s->fd, buf_reserve(&s->in, ANSWER_BYTES_MAX), ANSWER_BYTES_MAX, 0);
        if (n == 0 || buf_len(&s->in) > ANSWER_BYTES_MAX) {
            return lost(s, -ENODATA, error);
        }
        if (n < 0 && errno != EINTR) {
            return lost(s, -errno, error);
        }
        s->in.end += n > 0 ? (size_t) n : 0;
    }
    bytes = (size_t) (newline - buf_head(&s->in));
    bytes = MIN_OF(bytes, ANSWER_BYTES_MAX - 1);
    for (size_t i = 0; i < bytes; i++) { /* it goes to a terminal */
        uint8_t c = buf_head(&s->in)[i];
        out[i] = c >= ' ' && c < 0x7f ? (char) c : '\0';
    }
    out[bytes] = '\0';
    buf_consume(&s->in, (size_t) (newline - buf_head(&s->in)) + 1);
    return 0;
}

static int batch_run(struct gateway_sink *s, struct io_error *error)
{
    char answer[ANSWER_BYTES_MAX];
    int r = send_all(s, error);

    while (r == 0 && s->n_out > 0) {
        r = answer_read(s, answer, error);
        if (r == 0 && strcmp(answer, "STORED") != 0) {
            r = io_error_set(error, -EREMOTEIO, "the gateway at %s answered: %s", s->address,
                             answer);
        }
        if (r == 0) {
            s->n_out--;
            s->sink.done++;
        }
    }
    return r;
}

/* ---- the sink ---- */

static int gateway_check(struct record_sink *sink, const struct entry *e, struct io_error *error)
{
    (void) sink;
    if (!mc_text_key_ok(e->key, e->key_len)) {
        return io_error_set(error, -EINVAL,
                            "a key with blanks or control characters can't be sent to a gateway");
    }
    if (e->expiry_sec > INT32_MAX) {
        return io_error_set(error, -EINVAL,
                            "an expiry after the year 2038 can't be sent to a gateway");
    }
    return 0;
}

static int gateway_put(struct record_sink *sink, const struct entry *e, struct io_error *error)
{
    struct gateway_sink *s = (struct gateway_sink *) sink;
    char numbers[64];
    int n;

    if (s->n_out >= BATCH_RECORDS || buf_len(&s->out) >= BATCH_BYTES) {
        n = batch_run(s, error);
        if (n < 0) {
            return n;
        }
    }
    n = gateway_check(sink, e, error);
    if (n < 0) {
        return n;
    }
    n = snprintf(numbers, sizeof(numbers), " %" PRIu32 " %" PRIu32 " %" PRIu32 "\r\n", e->flags,
                 e->expiry_sec, e->value_len);
    buf_append(&s->out, "set ", 4);
    buf_append(&s->out, e->key, e->key_len);
    buf_append(&s->out, numbers, (size_t) n);
    buf_append(&s->out, e->value, e->value_len);
    buf_append(&s->out, "\r\n", 2);
    s->n_out++;
    return 0;
}

static int gateway_finish(struct record_sink *sink, struct io_error *error)
{
    return batch_run((struct gateway_sink *) sink, error);
}

static void gateway_free(struct record_sink *sink)
{
    struct gateway_sink *s = (struct gateway_sink *) sink;

    close(s->fd);
    buf_free(&s->out);
    buf_free(&s->in);
    free(s);
}

static const struct record_sink_ops gateway_ops = {
    .check = gateway_check, .put = gateway_put, .finish = gateway_finish, .free = gateway_free
};

int import_gateway_open(const char *address, uint64_t timeout_usec, struct record_sink **ret,
                        struct io_error *error)
{
    int fd = gateway_connect(address, timeout_usec, error);
    struct gateway_sink *s;

    if (fd < 0) {
        return fd;
    }
    s = mem_zalloc(1, sizeof(*s));
    s->sink.ops = &gateway_ops;
    s->fd = fd;
    s->address = address;
    *ret = &s->sink;
    return 0;
}
