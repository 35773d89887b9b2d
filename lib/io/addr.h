/* Socket addresses as text and back. */
#pragma once

#include "io/io_error.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#define ADDR_TEXT_BYTES   128
#define ADDR_RESOLVED_MAX 16 /* addresses of one name */

struct addr {
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    };
    socklen_t bytes;
};

/* "127.0.0.1:80", "[::1]:80", "localhost:80" (both loopbacks, without asking a resolver), "*:80"
 * (all addresses, IPv6 first), "/path" (Unix), "host.name:80" (asks the resolver, which may block:
 * at start only). A text without port gets default_port; 0 means that the port must be there,
 * unless default_port is what the text says itself. Writes at most `max` addresses to ret_addrs;
 * returns how many, > 0, or -EINVAL, -ENOENT (name not found) with a sentence in `error`. */
int addr_parse(const char *text, uint16_t default_port, struct addr *ret_addrs, size_t max,
               struct io_error *error);

/* As addr_parse, the first address only and never asks a resolver. */
int addr_parse_numeric(const char *text, uint16_t default_port, struct addr *ret_addr,
                       struct io_error *error);

/* An IP address alone: "192.0.2.1", "2001:db8::1". Its port is 0. 0 or -EINVAL with a sentence. */
int addr_parse_ip(const char *text, struct addr *ret_addr, struct io_error *error);
/* The same of the char * that `target` points to: the check of a setting (io/conf.h). */
bool addr_check_ip(const void *target, struct io_error *error);

/* "127.0.0.1:80", "[::1]:80", "/path", "unix" (no name). Returns out. */
const char *addr_format(const struct addr *addr, char out[static ADDR_TEXT_BYTES]);

/* Own and peer address of a socket; -errno. */
int addr_of_fd(int fd, struct addr *ret_addr);
int addr_of_peer(int fd, struct addr *ret_addr);

/* 127.0.0.0/8, ::1, those mapped into IPv6, and Unix sockets. */
bool addr_is_loopback(const struct addr *addr);
bool addr_equal(const struct addr *a, const struct addr *b);
/* Port of an IP address, 0 for Unix. */
uint16_t addr_port(const struct addr *addr);
