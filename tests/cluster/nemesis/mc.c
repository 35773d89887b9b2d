#include "mc.h"

#include "base/cleanup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 2048
#define READ_BYTES     65536

uint64_t mc_now_nsec(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t) ts.tv_sec * 1000000000 + (uint64_t) ts.tv_nsec;
}

void mc_close(struct mc *m)
{
    if (m->fd >= 0) {
        close(m->fd);
    }
    m->fd = -1;
    buf_free(&m->in);
}

static int mc_wait(struct mc *m, short events)
{
    uint64_t now = mc_now_nsec();
    struct pollfd p = { .fd = m->fd, .events = events };
    int n =
        now < m->deadline_nsec ? poll(&p, 1, (int) ((m->deadline_nsec - now) / 1000000) + 1) : 0;

    return n > 0 ? 0 : n == 0 ? -ETIMEDOUT : -errno;
}

int mc_connect(struct mc *m, uint16_t port, uint64_t timeout_nsec)
{
    static const int on = 1;
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
    int error = 0;
    socklen_t bytes = sizeof(error);

    mc_close(m);
    m->deadline_nsec = mc_now_nsec() + timeout_nsec;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    m->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (m->fd < 0) {
        return -errno;
    }
    (void) setsockopt(m->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(m->fd, (struct sockaddr *) &a, sizeof(a)) < 0 && errno != EINPROGRESS) {
        error = errno;
    } else if (mc_wait(m, POLLOUT) < 0 ||
               getsockopt(m->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) < 0) {
        error = ETIMEDOUT;
    }
    if (error != 0) {
        mc_close(m);
    }
    return -error;
}

/* ---- bytes ---- */

static int mc_send(struct mc *m, const uint8_t *p, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = send(m->fd, p, bytes, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            int r = mc_wait(m, POLLOUT);
            if (r < 0) {
                return r;
            }
        } else if (n < 0) {
            return -errno;
        } else {
            p += n;
            bytes -= (size_t) n;
        }
    }
    return 0;
}

static int mc_fill(struct mc *m)
{
    ssize_t n = recv(m->fd, buf_reserve(&m->in, READ_BYTES), READ_BYTES, 0);

    if (n > 0) {
        m->in.end += (size_t) n;
        return 0;
    }
    if (n == 0) {
        return -ECONNRESET;
    }
    return errno == EAGAIN ? mc_wait(m, POLLIN) : -errno;
}

/* A line without its end. */
static int mc_line(struct mc *m, char line[static LINE_MAX_BYTES])
{
    for (;;) {
        uint8_t *end = buf_len(&m->in) > 0 ? memchr(buf_head(&m->in), '\n', buf_len(&m->in)) : NULL;
        size_t bytes = end ? (size_t) (end - buf_head(&m->in)) + 1 : 0;
        int r;
        if (bytes > LINE_MAX_BYTES || (end && (bytes < 2 || end[-1] != '\r')) ||
            (!end && buf_len(&m->in) > LINE_MAX_BYTES)) {
            return -EBADMSG;
        }
        if (end) {
            memcpy(line, buf_head(&m->in), bytes - 2);
            line[bytes - 2] = '\0';
            buf_consume(&m->in, bytes);
            return 0;
        }
        r = mc_fill(m);
        if (r < 0) {
            return r;
        }
    }
}

/* A value of so many bytes and the end of its line. */
static int mc_value(struct mc *m, size_t bytes, struct buf *value)
{
    while (buf_len(&m->in) < bytes + 2) {
        int r = mc_fill(m);
        if (r < 0) {
            return r;
        }
    }
    if (memcmp(buf_head(&m->in) + bytes, "\r\n", 2) != 0) {
        return -EBADMSG;
    }
    buf_append(value, buf_head(&m->in), bytes);
    buf_consume(&m->in, bytes + 2);
    return 0;
}

/* ---- one operation ---- */

static void put_store(struct buf *b, const char *verb, const char *key, const struct lin_op *o)
{
    char line[LINE_MAX_BYTES];
    int n = snprintf(line, sizeof(line), "%s %s %" PRIu32 " 0 %" PRIu32, verb, key, o->flags,
                     o->value_len);

    if (o->code == OP_CAS) {
        n += snprintf(line + n, sizeof(line) - (size_t) n, " %" PRIu64, o->operand);
    }
    n += snprintf(line + n, sizeof(line) - (size_t) n, "\r\n");
    buf_append(b, line, (size_t) n);
    buf_append(b, o->value, o->value_len);
    buf_append(b, "\r\n", 2);
}

static void put_request(struct buf *b, const char *key, const struct lin_op *o)
{
    static const char *const verbs[] = {
        [OP_GET] = "gets",        [OP_SET] = "set",       [OP_ADD] = "add",
        [OP_REPLACE] = "replace", [OP_APPEND] = "append", [OP_PREPEND] = "prepend",
        [OP_CAS] = "cas",         [OP_DELETE] = "delete", [OP_INCR] = "incr",
        [OP_DECR] = "decr",       [OP_TOUCH] = "touch",
    };
    char line[LINE_MAX_BYTES];
    int n;

    switch (o->code) {
    case OP_GET:
    case OP_DELETE:
        n = snprintf(line, sizeof(line), "%s %s\r\n", verbs[o->code], key);
        break;
    case OP_INCR:
    case OP_DECR:
        n = snprintf(line, sizeof(line), "%s %s %" PRIu64 "\r\n", verbs[o->code], key, o->operand);
        break;
    case OP_TOUCH:
        n = snprintf(line, sizeof(line), "touch %s 0\r\n", key);
        break;
    default:
        put_store(b, verbs[o->code], key, o);
        return;
    }
    buf_append(b, line, (size_t) n);
}

/* "VALUE key flags bytes token", and the value behind it. */
static int read_value(struct mc *m, const char *line, char key[static MC_KEY_BYTES],
                      struct lin_op *o, struct buf *value)
{
    int r;

    if (sscanf(line, "VALUE %63s %" SCNu32 " %" SCNu32 " %" SCNu64, key, &o->flags, &o->value_len,
               &o->token) != 4) {
        return -EBADMSG;
    }
    o->result = RESULT_VALUE;
    r = mc_value(m, o->value_len, value);
    o->value = r == 0 && o->value_len > 0 ? value->data + value->end - o->value_len : NULL;
    return r;
}

static int read_get(struct mc *m, const char *key, const char *first, struct lin_op *o,
                    struct buf *value)
{
    char line[LINE_MAX_BYTES];
    char got[MC_KEY_BYTES];
    int r;

    if (strcmp(first, "END") == 0) {
        o->result = RESULT_NOT_FOUND;
        return 0;
    }
    r = read_value(m, first, got, o, value);
    if (r == 0) {
        r = mc_line(m, line);
    }
    if (r == 0 && (strcmp(line, "END") != 0 || strcmp(got, key) != 0)) {
        r = -EBADMSG;
    }
    o->result = r == 0 ? RESULT_VALUE : LIN_UNKNOWN;
    return r;
}

struct word {
    const char *text;
    uint8_t result;
};

static int read_word(const char *line, struct lin_op *o)
{
    static const struct word words[] = {
        { "STORED", RESULT_STORED },   { "NOT_STORED", RESULT_NOT_STORED },
        { "EXISTS", RESULT_EXISTS },   { "NOT_FOUND", RESULT_NOT_FOUND },
        { "DELETED", RESULT_DELETED }, { "TOUCHED", RESULT_TOUCHED },
    };

    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (strcmp(line, words[i].text) == 0) {
            o->result = words[i].result;
            return 0;
        }
    }
    if (line[0] >= '0' && line[0] <= '9') {
        o->result = RESULT_NUMBER;
        o->number = strtoull(line, NULL, 10);
        return 0;
    }
    return -EBADMSG;
}

/* The server says that it can't: whether anything happened stands in its words. */
static bool is_refusal(const char *line, struct lin_op *o)
{
    if (strncmp(line, "SERVER_ERROR", 12) != 0) {
        return false;
    }
    o->result = strstr(line, "nothing was") || lin_is_read(o->code) ? RESULT_REFUSED : LIN_UNKNOWN;
    return true;
}

static int mc_exchange(struct mc *m, const char *key, struct lin_op *o, struct buf *value,
                       char error[static 160])
{
    _cleanup_(buf_free) struct buf request = { 0 };
    char line[LINE_MAX_BYTES];
    int r;

    put_request(&request, key, o);
    r = mc_send(m, buf_head(&request), buf_len(&request));
    if (r == 0) {
        r = mc_line(m, line);
    }
    if (r < 0) {
        return r;
    }
    if (is_refusal(line, o)) {
        snprintf(error, 160, "%.159s", line);
        return 0;
    }
    r = o->code == OP_GET ? read_get(m, key, line, o, value) : read_word(line, o);
    if (r == -EBADMSG) {
        snprintf(error, 160, "unexpected: %.140s", line);
    }
    return r;
}

int mc_do(struct mc *m, const char *key, struct lin_op *o, uint64_t timeout_nsec, struct buf *value,
          char error[static 160])
{
    int r;

    error[0] = '\0';
    o->result = LIN_UNKNOWN;
    m->deadline_nsec = mc_now_nsec() + timeout_nsec;
    r = m->fd >= 0 ? mc_exchange(m, key, o, value, error) : -ENOTCONN;
    if (r < 0) {
        mc_close(m);
    }
    return r;
}

/* ---- many ---- */

int mc_pipeline(struct mc *m, struct buf *requests, size_t n, const char *want,
                uint64_t timeout_nsec)
{
    char line[LINE_MAX_BYTES];
    int r;

    m->deadline_nsec = mc_now_nsec() + timeout_nsec;
    r = m->fd >= 0 ? mc_send(m, buf_head(requests), buf_len(requests)) : -ENOTCONN;
    for (size_t i = 0; r == 0 && i < n; i++) {
        r = mc_line(m, line);
        if (r == 0 && strcmp(line, want) != 0) {
            r = -EBADMSG;
        }
    }
    if (r < 0) {
        mc_close(m);
    }
    return r;
}

static int read_many(struct mc *m, char (*keys)[MC_KEY_BYTES], size_t n, mc_value_fn fn, void *ctx)
{
    _cleanup_(buf_free) struct buf value = { 0 };
    char line[LINE_MAX_BYTES];
    char key[MC_KEY_BYTES];
    size_t i = 0;

    for (;;) {
        struct lin_op o = { .code = OP_GET };
        int r = mc_line(m, line);
        if (r < 0 || strcmp(line, "END") == 0) {
            return r;
        }
        buf_clear(&value);
        r = read_value(m, line, key, &o, &value);
        if (r < 0) {
            return r;
        }
        while (i < n && strcmp(keys[i], key) != 0) {
            i++;
        }
        if (i == n) {
            return -EBADMSG;
        }
        fn(ctx, i++, &o);
    }
}

int mc_get_many(struct mc *m, char (*keys)[MC_KEY_BYTES], size_t n, uint64_t timeout_nsec,
                mc_value_fn fn, void *ctx)
{
    _cleanup_(buf_free) struct buf request = { 0 };
    int r = -ENOTCONN;

    buf_append(&request, "gets", 4);
    for (size_t i = 0; i < n; i++) {
        buf_append(&request, " ", 1);
        buf_append(&request, keys[i], strlen(keys[i]));
    }
    buf_append(&request, "\r\n", 2);
    m->deadline_nsec = mc_now_nsec() + timeout_nsec;
    if (m->fd >= 0) {
        r = mc_send(m, buf_head(&request), buf_len(&request));
    }
    if (r == 0) {
        r = read_many(m, keys, n, fn, ctx);
    }
    if (r < 0) {
        mc_close(m);
    }
    return r;
}
