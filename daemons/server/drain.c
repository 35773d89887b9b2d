/* A stop hands over what is led here before the process ends, so that no request fails (R16): the
 * shards resign and leave their views, the manager forms new ones. Meanwhile everything is served
 * as always. */
#include "io/clock.h"
#include "io/daemon.h"
#include "io/log.h"
#include "server_private.h"

#define DRAIN_IDLE_USEC    (UINT64_C(3) * 1000000) /* nothing was handed over for so long */
#define DRAIN_MANAGER_USEC (UINT64_C(1) * 1000000) /* no manager is connected, who could do it */

static bool has_manager(const struct server *s)
{
    return s->manager && rpc_link_rpc(s->manager);
}

/* NULL: go on. Else why not; "" when all is done. */
static const char *drain_ends(const struct server *s, uint64_t now_usec)
{
    const struct drain *d = &s->drain;

    if (!s->serving || s->held.shared == 0) {
        return "";
    }
    if (now_usec - d->manager_usec >= DRAIN_MANAGER_USEC) {
        return "no manager is there";
    }
    if (now_usec - d->moved_usec >= DRAIN_IDLE_USEC) {
        return "nobody takes them over";
    }
    return now_usec - d->began_usec >= s->settings->stop_usec ? "stop-timeout is over" : NULL;
}

void drain_tick(struct server *s)
{
    struct drain *d = &s->drain;
    uint64_t now_usec = clock_boot_usec();
    const char *why;

    if (!d->running) {
        return;
    }
    d->manager_usec = has_manager(s) ? now_usec : d->manager_usec;
    if (s->held.shared != d->left) {
        d->left = s->held.shared;
        d->moved_usec = now_usec;
    }
    why = drain_ends(s, now_usec);
    if (!why) {
        for (uint32_t i = 0; i < s->n_shards; i++) {
            (void) shard_thread_leave(s->shards[i]);
        }
        daemon_notify_status("stopping: %u partitions are being handed over", d->left);
        return;
    }
    d->running = false;
    if (*why) {
        log_warning("stopping although %u partitions were not handed over: %s", s->held.shared,
                    why);
    } else if (s->serving && d->began_with > 0) {
        log_info("%u partitions were handed over in %llu ms", d->began_with,
                 (unsigned long long) ((now_usec - d->began_usec) / 1000));
    }
    server_finish(s);
}

void drain_begin(struct server *s)
{
    uint64_t now_usec = clock_boot_usec();

    s->drain = (struct drain){
        .running = true,
        .began_with = s->held.shared,
        .left = s->held.shared,
        .began_usec = now_usec,
        .moved_usec = now_usec,
        .manager_usec = now_usec,
    };
    drain_tick(s);
}
