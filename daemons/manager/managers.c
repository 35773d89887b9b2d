#include "managers.h"

#include "host.h"
#include "io/addr.h"
#include "io/clock.h"
#include "io/listener.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define OWN_MAX LISTENER_SOCKETS_MAX

/* ---- which one this is ---- */

static int own_advertised(const struct settings *settings, struct addr *ret, struct io_error *error)
{
    return addr_parse(settings->advertise, MANAGER_PORT, ret, OWN_MAX, error);
}

static int own_bound(const struct listener *listener, struct addr *ret)
{
    int n = 0;

    for (size_t i = 0; i < listener_sockets(listener); i++) {
        n += listener_addr(listener, i, &ret[n]) == 0;
    }
    return n;
}

static bool is_one_of(const struct addr *addr, const struct addr *own, int n)
{
    for (int i = 0; i < n; i++) {
        if (addr_equal(addr, &own[i])) {
            return true;
        }
    }
    return false;
}

/* Whether the text of the list means one of this manager's own addresses: 1, 0, or -errno. */
static int is_own(const char *text, const struct addr *own, int n, struct io_error *error)
{
    struct addr addrs[ADDR_RESOLVED_MAX];
    int found = addr_parse(text, MANAGER_PORT, addrs, ADDR_RESOLVED_MAX, error);

    for (int i = 0; i < found; i++) {
        if (is_one_of(&addrs[i], own, n)) {
            return 1;
        }
    }
    return found < 0 ? found : 0;
}

/* As the others have it in their lists: with a port. */
static bool has_port(const char *text)
{
    const char *colon = strrchr(text, ':');

    return colon && !strchr(colon, ']') && (text[0] == '[' || strchr(text, ':') == colon);
}

static int address_take(struct managers *m, const char *text, struct io_error *error)
{
    char *out = m->addresses[m->n];
    int bytes = has_port(text) ? snprintf(out, ADDRESS_BYTES_MAX, "%s", text)
                               : snprintf(out, ADDRESS_BYTES_MAX, "%s:%d", text, MANAGER_PORT);

    if (bytes >= ADDRESS_BYTES_MAX || strpbrk(text, "#/* ")) {
        return io_error_set(error, -EINVAL,
                            "managers = names %s, which is no address: HOST:PORT is needed", text);
    }
    m->n++;
    return 0;
}

int managers_find(const struct settings *settings, const struct listener *listener,
                  struct managers *ret, struct io_error *error)
{
    const struct conf_list *list = &settings->managers;
    const char *alone = settings->listen.items[0];
    struct addr own[OWN_MAX];
    int n_own;
    size_t n_found = 0;

    *ret = (struct managers){ 0 };
    if (list->n <= 1) {
        snprintf(ret->addresses[0], ADDRESS_BYTES_MAX, "%s", list->n == 1 ? list->items[0] : alone);
        ret->n = 1;
        return 0;
    }
    if (list->n != 3 && list->n != MANAGERS_MAX) {
        return io_error_set(error, -EINVAL, "managers = names %zu managers; allowed: 1, 3 or %d",
                            list->n, MANAGERS_MAX);
    }
    n_own = settings->advertise ? own_advertised(settings, own, error) : own_bound(listener, own);
    if (n_own < 0) {
        return n_own;
    }
    for (size_t i = 0; i < list->n; i++) {
        int r = address_take(ret, list->items[i], error);
        r = r < 0 ? r : is_own(ret->addresses[i], own, n_own, error);
        if (r < 0) {
            return r;
        }
        n_found += (size_t) r;
        ret->self = r > 0 ? i : ret->self;
    }
    if (n_found != 1) {
        return io_error_set(error, -EINVAL,
                            "managers = names this manager %s; exactly one of its addresses must "
                            "be %s. Set advertise = to the one that is this manager's",
                            n_found == 0 ? "nowhere" : "more than once",
                            settings->advertise ? "advertise" : "one that it listens on");
    }
    return 0;
}

/* ---- what is told ---- */

static void tell(const struct host *h, struct msg_managers *ret)
{
    *ret = (struct msg_managers){ .uptime_usec = clock_boot_usec() - h->started_usec };
    snprintf(ret->version, sizeof(ret->version), "%s", KUMO_VERSION);
    raft_group_tell(h->group, ret);
}

void managers_put(struct buf *b, const struct host *h)
{
    struct msg_managers m;

    tell(h, &m);
    msg_put_managers(b, &m);
}

void managers_refusal(const struct host *h, char *out, size_t cap)
{
    struct msg_managers m;

    tell(h, &m);
    if (m.role == MANAGER_FOLLOWS) {
        snprintf(out, cap, "this manager does not lead; the leader is at %s",
                 m.members[m.leader - 1].address);
    } else if (m.role == MANAGER_WAITING) {
        snprintf(out, cap,
                 "this manager is new and waits for the others before the group can begin");
    } else if (m.role == MANAGER_LEADS) {
        snprintf(out, cap, "the cluster is not formed yet");
    } else {
        snprintf(out, cap, "this manager does not lead, and knows of no leader at the moment");
    }
}

static uint32_t n_reachable(const struct msg_managers *m)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < m->n; i++) {
        n += m->members[i].reachable;
    }
    return n;
}

void managers_sentence(const struct host *h, char *out, size_t cap)
{
    struct msg_managers m;

    tell(h, &m);
    if (m.role == MANAGER_FOLLOWS) {
        snprintf(out, cap, "following the manager at %s; %u of %u managers reachable",
                 m.members[m.leader - 1].address, n_reachable(&m), m.n);
    } else if (m.role == MANAGER_WAITING) {
        snprintf(out, cap, "new: waiting for all managers; %u of %u reachable", n_reachable(&m),
                 m.n);
    } else {
        snprintf(out, cap, "looking for a leader; %u of %u managers reachable", n_reachable(&m),
                 m.n);
    }
}
