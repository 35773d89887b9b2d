#include "io/portuser.h"

#include "base/cleanup.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PORTUSER_TCP_LISTEN 0x0a /* state in /proc/net/tcp */

static void portuser_fclosep(FILE **f)
{
    if (*f) {
        fclose(*f);
    }
}

static void portuser_closedirp(DIR **d)
{
    if (*d) {
        closedir(*d);
    }
}

/* The address as /proc/net/tcp and tcp6 print it: words of four bytes in the machine's order. */
static void portuser_hex(const struct addr *addr, bool v6, char out[static 33])
{
    uint32_t words[4] = { 0 };

    if (v6 && addr->sa.sa_family == AF_INET6) {
        memcpy(words, &addr->in6.sin6_addr, sizeof(words));
    } else if (!v6 && addr->sa.sa_family == AF_INET) {
        memcpy(words, &addr->in.sin_addr, sizeof(words[0]));
    }
    for (size_t i = 0; i < (v6 ? ARRAY_LEN(words) : 1); i++) {
        snprintf(out + 8 * i, 9, "%08X", words[i]);
    }
}

static bool portuser_is_any(const char *hex)
{
    return hex[strspn(hex, "0")] == '\0';
}

/* Inode of a listening socket that stands in the way of this address, itself or by a wildcard; 0 if
 * there is none. */
static unsigned long portuser_tcp_inode(const char *path, bool v6, const struct addr *addr)
{
    _cleanup_(portuser_fclosep) FILE *f = fopen(path, "re");
    char want[33];
    char line[512];

    portuser_hex(addr, v6, want);
    while (f && fgets(line, sizeof(line), f)) {
        unsigned long inode;
        unsigned int port;
        unsigned int state;
        char have[33];

        if (sscanf(line, " %*d: %32[0-9A-F]:%x %*[0-9A-F]:%*x %x %*s %*s %*s %*s %*s %lu", have,
                   &port, &state, &inode) == 4 &&
            port == addr_port(addr) && state == PORTUSER_TCP_LISTEN && inode != 0 &&
            (portuser_is_any(want) || portuser_is_any(have) || strcmp(want, have) == 0)) {
            return inode;
        }
    }
    return 0;
}

static unsigned long portuser_unix_inode(const char *socket_path)
{
    _cleanup_(portuser_fclosep) FILE *f = fopen("/proc/self/net/unix", "re");
    char line[512];

    while (f && fgets(line, sizeof(line), f)) {
        unsigned long inode;
        int at = 0;

        line[strcspn(line, "\n")] = '\0';
        if (sscanf(line, "%*s %*s %*s %*s %*s %*s %lu %n", &inode, &at) == 1 && at > 0 &&
            strcmp(line + at, socket_path) == 0) {
            return inode;
        }
    }
    return 0;
}

static unsigned long portuser_inode(const struct addr *addr)
{
    unsigned long inode;

    if (addr->sa.sa_family == AF_UNIX) {
        return portuser_unix_inode(addr->un.sun_path);
    }
    if (addr->sa.sa_family == AF_INET) {
        inode = portuser_tcp_inode("/proc/self/net/tcp", false, addr);
        if (inode != 0) {
            return inode;
        }
    }
    return portuser_tcp_inode("/proc/self/net/tcp6", true,
                              addr); /* a wildcard there holds IPv4 too */
}

/* Does process `pid` have a descriptor that links to `link`? */
static bool portuser_holds(const char *pid, const char *link)
{
    char path[64];
    char target[64];
    struct dirent *e;

    snprintf(path, sizeof(path), "/proc/%.16s/fd", pid);
    _cleanup_(portuser_closedirp) DIR *d = opendir(path);
    while (d && (e = readdir(d))) {
        ssize_t n = readlinkat(dirfd(d), e->d_name, target, sizeof(target) - 1);

        if (n > 0) {
            target[n] = '\0';
            if (strcmp(target, link) == 0) {
                return true;
            }
        }
    }
    return false;
}

static void portuser_name(const char *pid, char out[static PORTUSER_TEXT_BYTES])
{
    char path[64];
    char comm[32] = "a process";

    snprintf(path, sizeof(path), "/proc/%.16s/comm", pid);
    _cleanup_(portuser_fclosep) FILE *f = fopen(path, "re");
    if (f && fgets(comm, sizeof(comm), f)) {
        comm[strcspn(comm, "\n")] = '\0';
    }
    snprintf(out, PORTUSER_TEXT_BYTES, "%s (pid %.16s)", comm, pid);
}

bool portuser_find(const struct addr *addr, char out[static PORTUSER_TEXT_BYTES])
{
    unsigned long inode = portuser_inode(addr);
    _cleanup_(portuser_closedirp) DIR *proc = opendir("/proc");
    char link[64];
    struct dirent *e;

    if (inode == 0) {
        return false;
    }
    snprintf(link, sizeof(link), "socket:[%lu]", inode);
    while (proc && (e = readdir(proc))) {
        if (isdigit((unsigned char) e->d_name[0]) && portuser_holds(e->d_name, link)) {
            portuser_name(e->d_name, out);
            return true;
        }
    }
    return false;
}
