/* An outgoing connection that comes back by itself: addresses in turn, and the backoff between
 * rounds. */
#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/clock.h"
#include "io/loop.h"
#include "io/rpc.h"
#include "io/rpc_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct rpc_link {
    struct loop *loop;
    struct rpc_config config;
    struct addr *addrs;
    size_t n;
    size_t at;        /* address in use or next */
    size_t tried;     /* addresses that failed since the last wait */
    bool was_up;      /* the present connection */
    bool skip;        /* rpc_link_next is ending it */
    uint64_t up_usec; /* since when */
    uint64_t backoff_usec;
    uint64_t silence_usec; /* 0: any */
    uint64_t watched_usec; /* for silence, since when */
    struct loop_timer *timer;
    struct loop_timer *listener; /* for silence */
    struct rpc *rpc;
};

/* The next address, at once while there are untried ones, otherwise after the backoff. */
static void rpc_link_retry(struct rpc_link *link)
{
    uint64_t wait = 0;

    link->at = (link->at + 1) % link->n;
    if (++link->tried >= link->n) {
        link->tried = 0;
        wait = link->backoff_usec;
        link->backoff_usec = MIN_OF(wait * 2, (uint64_t) RPC_LINK_BACKOFF_MAX_USEC);
    }
    loop_timer_start(link->timer, wait);
}

/* Silence counts from now on. */
static void rpc_link_watch(struct rpc_link *link)
{
    link->watched_usec = clock_boot_usec();
    if (link->silence_usec > 0) {
        loop_timer_start(link->listener, link->silence_usec);
    }
}

static void rpc_link_connect(void *ctx)
{
    struct rpc_link *link = ctx;

    link->was_up = false;
    if (rpc_connect(link->loop, &link->addrs[link->at], &link->config, &link->rpc) < 0) {
        rpc_link_retry(link);
        return;
    }
    rpc_set_link(link->rpc, link);
    rpc_link_watch(link);
}

void rpc_link_on_up(struct rpc_link *link)
{
    link->was_up = true;
    link->up_usec = clock_boot_usec();
}

/* Before the owner hears of it, who may free the link. */
void rpc_link_on_closed(struct rpc_link *link)
{
    bool served = link->was_up && clock_boot_usec() - link->up_usec >= RPC_LINK_BACKOFF_MAX_USEC;

    link->rpc = NULL;
    loop_timer_stop(link->listener);
    if (link->was_up && (served || !link->skip)) {
        link->backoff_usec = RPC_LINK_BACKOFF_MIN_USEC;
    }
    if (link->was_up && !link->skip) {
        link->tried = 0;
        loop_timer_start(link->timer, RPC_LINK_BACKOFF_MIN_USEC);
    } else {
        rpc_link_retry(link);
    }
    link->skip = false;
}

/* To the next address. */
static void rpc_link_leave(struct rpc_link *link, int error, const char *why)
{
    link->skip = true;
    rpc_end_with(link->rpc, error, why);
}

static void rpc_link_listen(void *ctx)
{
    struct rpc_link *link = ctx;
    uint64_t silent;

    if (!link->rpc) {
        return;
    }
    silent = clock_boot_usec() - MAX_OF(link->watched_usec, rpc_heard_usec(link->rpc));
    if (silent >= link->silence_usec) {
        rpc_link_leave(link, -ETIMEDOUT, "it says nothing");
    } else {
        loop_timer_start(link->listener, link->silence_usec - silent);
    }
}

void rpc_link_set_silence(struct rpc_link *link, uint64_t usec)
{
    link->silence_usec = usec;
    loop_timer_stop(link->listener);
    if (link->rpc) {
        rpc_link_watch(link);
    }
}

static void rpc_link_copy_addrs(struct rpc_link *link, const struct addr *addrs, size_t n)
{
    struct addr *copy = mem_zalloc(n, sizeof(*copy));

    kumo_assert(n > 0);
    memcpy(copy, addrs, n * sizeof(*copy));
    free(link->addrs);
    link->addrs = copy;
    link->n = n;
}

struct rpc_link *rpc_link_new(struct loop *loop, const struct addr *addrs, size_t n,
                              const struct rpc_config *config)
{
    struct rpc_link *link = mem_zalloc(1, sizeof(*link));

    link->loop = loop;
    link->config = *config;
    link->backoff_usec = RPC_LINK_BACKOFF_MIN_USEC;
    link->timer = loop_timer_new(loop, rpc_link_connect, link);
    link->listener = loop_timer_new(loop, rpc_link_listen, link);
    rpc_link_copy_addrs(link, addrs, n);
    loop_timer_start(link->timer, 0);
    return link;
}

struct rpc_link *rpc_link_free(struct rpc_link *link)
{
    struct rpc *rpc;

    if (link) {
        rpc = TAKE_PTR(link->rpc);
        if (rpc) {
            rpc_set_link(rpc, NULL);
            rpc_close(rpc);
        }
        loop_timer_free(link->timer);
        loop_timer_free(link->listener);
        free(link->addrs);
        free(link);
    }
    return NULL;
}

struct rpc *rpc_link_rpc(const struct rpc_link *link)
{
    return link->rpc && rpc_is_up(link->rpc) ? link->rpc : NULL;
}

const struct addr *rpc_link_addr(const struct rpc_link *link)
{
    return &link->addrs[link->at];
}

void rpc_link_set_addrs(struct rpc_link *link, const struct addr *addrs, size_t n)
{
    struct addr present = link->addrs[link->at];
    size_t at = 0;

    while (at < n && !addr_equal(&addrs[at], &present)) {
        at++;
    }
    rpc_link_copy_addrs(link, addrs, n);
    link->tried = 0;
    link->at = at < n ? at : n - 1; /* a retry goes on to the first */
    if (at == n) {
        rpc_link_next(link);
    }
}

void rpc_link_next(struct rpc_link *link)
{
    if (link->rpc) {
        rpc_link_leave(link, -EAGAIN, "going to another address");
    } else {
        rpc_link_retry(link);
    }
}
