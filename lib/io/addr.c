#include "io/addr.h"

#include "base/cleanup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "host:port" cut in two. */
struct addr_words {
    char host[256];
    uint16_t port;
    bool bracketed;
};

static struct addr addr_of_in(in_addr_t ip, uint16_t port)
{
    struct addr a = { .bytes = sizeof(a.in) };

    a.in.sin_family = AF_INET;
    a.in.sin_port = htons(port);
    a.in.sin_addr.s_addr = htonl(ip);
    return a;
}

static struct addr addr_of_in6(const struct in6_addr *ip, uint16_t port)
{
    struct addr a = { .bytes = sizeof(a.in6) };

    a.in6.sin6_family = AF_INET6;
    a.in6.sin6_port = htons(port);
    a.in6.sin6_addr = *ip;
    return a;
}

static int addr_parse_unix(const char *path, struct addr *ret_addr, struct io_error *error)
{
    struct addr a = { .un = { .sun_family = AF_UNIX } };
    size_t bytes = strlen(path);

    if (bytes >= sizeof(a.un.sun_path)) {
        return io_error_set(error, -EINVAL, "'%s': a socket's path may have at most %zu bytes",
                            path, sizeof(a.un.sun_path) - 1);
    }
    memcpy(a.un.sun_path, path, bytes + 1);
    a.bytes = (socklen_t) (offsetof(struct sockaddr_un, sun_path) + bytes + 1);
    *ret_addr = a;
    return 1;
}

static int addr_bad(const char *text, const char *what, struct io_error *error)
{
    return io_error_set(error, -EINVAL,
                        "'%s': %s; allowed are ADDRESS:PORT, [IPv6]:PORT, *:PORT, localhost:PORT "
                        "and /PATH of a Unix socket",
                        text, what);
}

static bool addr_port_of(const char *digits, uint16_t *ret_port)
{
    char *end;
    unsigned long v;

    if (*digits < '0' || *digits > '9') {
        return false;
    }
    v = strtoul(digits, &end, 10);
    if (*end != '\0' || v > UINT16_MAX) {
        return false;
    }
    *ret_port = (uint16_t) v;
    return true;
}

/* Cuts text into host and port. Returns 0 or -EINVAL with a sentence. */
static int addr_split(const char *text, uint16_t default_port, struct addr_words *ret,
                      struct io_error *error)
{
    const char *colon = strrchr(text, ':');
    const char *host = text;
    size_t host_bytes = colon ? (size_t) (colon - text) : strlen(text);

    *ret = (struct addr_words){ .port = default_port };
    if (text[0] == '[') {
        const char *close = strchr(text, ']');
        if (!close || (close[1] != '\0' && close[1] != ':')) {
            return addr_bad(text, "the bracket must be closed before the port", error);
        }
        colon = close[1] == ':' ? close + 1 : NULL;
        host = text + 1;
        host_bytes = (size_t) (close - host);
        ret->bracketed = true;
    } else if (colon && strchr(text, ':') != colon) {
        return addr_bad(text, "an IPv6 address must stand in brackets", error);
    }
    if (host_bytes == 0 || host_bytes >= sizeof(ret->host)) {
        return addr_bad(text, "the address is missing or too long", error);
    }
    memcpy(ret->host, host, host_bytes);
    if (colon && !addr_port_of(colon + 1, &ret->port)) {
        return addr_bad(text, "the port must be a number from 0 to 65535", error);
    }
    if (!colon && default_port == 0) {
        return addr_bad(text, "the port is missing", error);
    }
    return 0;
}

static int addr_put(struct addr *ret_addrs, size_t max, size_t n, struct addr a)
{
    if (n < max) {
        ret_addrs[n++] = a;
    }
    return (int) n;
}

/* Numbers, "*" and "localhost": no resolver. Returns how many, 0 when it is a name. */
static int addr_parse_known(const struct addr_words *w, struct addr *ret_addrs, size_t max)
{
    struct in6_addr ip6;
    struct in_addr ip4;
    int n = 0;

    if (strcmp(w->host, "*") == 0 && !w->bracketed) {
        n = addr_put(ret_addrs, max, 0, addr_of_in6(&in6addr_any, w->port));
        return addr_put(ret_addrs, max, (size_t) n, addr_of_in(INADDR_ANY, w->port));
    }
    if (strcmp(w->host, "localhost") == 0 && !w->bracketed) {
        n = addr_put(ret_addrs, max, 0, addr_of_in(INADDR_LOOPBACK, w->port));
        return addr_put(ret_addrs, max, (size_t) n, addr_of_in6(&in6addr_loopback, w->port));
    }
    if (w->bracketed) {
        return inet_pton(AF_INET6, w->host, &ip6) == 1
                   ? addr_put(ret_addrs, max, 0, addr_of_in6(&ip6, w->port))
                   : 0;
    }
    if (inet_pton(AF_INET, w->host, &ip4) == 1) {
        return addr_put(ret_addrs, max, 0, addr_of_in(ntohl(ip4.s_addr), w->port));
    }
    return 0;
}

static int addr_resolve(const char *text, const struct addr_words *w, struct addr *ret_addrs,
                        size_t max, struct io_error *error)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
    struct addrinfo *found;
    char port[8];
    int n = 0;
    int r;

    snprintf(port, sizeof(port), "%u", w->port);
    r = getaddrinfo(w->host, port, &hints, &found);
    if (r != 0) {
        return io_error_set(error, -ENOENT, "'%s': %s", text, gai_strerror(r));
    }
    for (struct addrinfo *ai = found; ai; ai = ai->ai_next) {
        struct addr a = { .bytes = ai->ai_addrlen };

        if (ai->ai_family == AF_INET || ai->ai_family == AF_INET6) {
            memcpy(&a.sa, ai->ai_addr, ai->ai_addrlen);
            n = addr_put(ret_addrs, max, (size_t) n, a);
        }
    }
    freeaddrinfo(found);
    return n > 0 ? n : io_error_set(error, -ENOENT, "'%s': has no IP address", text);
}

int addr_parse(const char *text, uint16_t default_port, struct addr *ret_addrs, size_t max,
               struct io_error *error)
{
    struct addr_words words;
    int r;

    if (text[0] == '/') {
        return addr_parse_unix(text, ret_addrs, error);
    }
    r = addr_split(text, default_port, &words, error);
    if (r < 0) {
        return r;
    }
    r = addr_parse_known(&words, ret_addrs, max);
    if (r == 0 && words.bracketed) {
        return addr_bad(text, "this is not an IPv6 address", error);
    }
    return r != 0 ? r : addr_resolve(text, &words, ret_addrs, max, error);
}

int addr_parse_numeric(const char *text, uint16_t default_port, struct addr *ret_addr,
                       struct io_error *error)
{
    struct addr_words words;
    int r;

    if (text[0] == '/') {
        r = addr_parse_unix(text, ret_addr, error);
        return r < 0 ? r : 0;
    }
    r = addr_split(text, default_port, &words, error);
    if (r < 0) {
        return r;
    }
    if (addr_parse_known(&words, ret_addr, 1) == 0) {
        return addr_bad(text, "this is not an address in numbers", error);
    }
    return 0;
}

int addr_parse_ip(const char *text, struct addr *ret_addr, struct io_error *error)
{
    struct in6_addr ip6;
    struct in_addr ip4;

    if (inet_pton(AF_INET, text, &ip4) == 1) {
        *ret_addr = addr_of_in(ntohl(ip4.s_addr), 0);
    } else if (inet_pton(AF_INET6, text, &ip6) == 1) {
        *ret_addr = addr_of_in6(&ip6, 0);
    } else {
        return io_error_set(error, -EINVAL,
                            "'%s' is no IP address; allowed are addresses in numbers, without port",
                            text);
    }
    return 0;
}

bool addr_check_ip(const void *target, struct io_error *error)
{
    struct addr addr;

    return addr_parse_ip(*(char *const *) target, &addr, error) == 0;
}

const char *addr_format(const struct addr *addr, char out[static ADDR_TEXT_BYTES])
{
    char ip[INET6_ADDRSTRLEN] = "";

    if (addr->sa.sa_family == AF_INET) {
        inet_ntop(AF_INET, &addr->in.sin_addr, ip, sizeof(ip));
        snprintf(out, ADDR_TEXT_BYTES, "%s:%u", ip, ntohs(addr->in.sin_port));
    } else if (addr->sa.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &addr->in6.sin6_addr, ip, sizeof(ip));
        snprintf(out, ADDR_TEXT_BYTES, "[%s]:%u", ip, ntohs(addr->in6.sin6_port));
    } else if (addr->bytes > offsetof(struct sockaddr_un, sun_path) &&
               addr->un.sun_path[0] == '/') {
        snprintf(out, ADDR_TEXT_BYTES, "%.*s", (int) sizeof(addr->un.sun_path), addr->un.sun_path);
    } else {
        snprintf(out, ADDR_TEXT_BYTES, "unix");
    }
    return out;
}

int addr_of_fd(int fd, struct addr *ret_addr)
{
    struct addr a = { .bytes = sizeof(a.un) };

    if (getsockname(fd, &a.sa, &a.bytes) < 0) {
        return -errno;
    }
    *ret_addr = a;
    return 0;
}

int addr_of_peer(int fd, struct addr *ret_addr)
{
    struct addr a = { .bytes = sizeof(a.un) };

    if (getpeername(fd, &a.sa, &a.bytes) < 0) {
        return -errno;
    }
    *ret_addr = a;
    return 0;
}

bool addr_is_loopback(const struct addr *addr)
{
    const struct in6_addr *ip6 = &addr->in6.sin6_addr;

    if (addr->sa.sa_family == AF_INET) {
        return ntohl(addr->in.sin_addr.s_addr) >> 24 == 127;
    }
    if (addr->sa.sa_family == AF_INET6) {
        return IN6_IS_ADDR_LOOPBACK(ip6) || (IN6_IS_ADDR_V4MAPPED(ip6) && ip6->s6_addr[12] == 127);
    }
    return addr->sa.sa_family == AF_UNIX;
}

bool addr_equal(const struct addr *a, const struct addr *b)
{
    if (a->sa.sa_family != b->sa.sa_family) {
        return false;
    }
    if (a->sa.sa_family == AF_INET) {
        return a->in.sin_port == b->in.sin_port && a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
    }
    if (a->sa.sa_family == AF_INET6) {
        return a->in6.sin6_port == b->in6.sin6_port &&
               a->in6.sin6_scope_id == b->in6.sin6_scope_id &&
               IN6_ARE_ADDR_EQUAL(&a->in6.sin6_addr, &b->in6.sin6_addr);
    }
    return a->bytes == b->bytes && memcmp(&a->un, &b->un, a->bytes) == 0;
}

uint16_t addr_port(const struct addr *addr)
{
    if (addr->sa.sa_family == AF_INET) {
        return ntohs(addr->in.sin_port);
    }
    return addr->sa.sa_family == AF_INET6 ? ntohs(addr->in6.sin6_port) : 0;
}
