/* What guards against peers that do nothing: connections that never say hello, and messages that
 * begin and do not go on. */
#include "io/rpc_private.h"

#include "base/assert.h"
#include "base/mem.h"
#include "io/conn.h"
#include "io/log.h"
#include "io/loop.h"

#include <errno.h>
#include <stdlib.h>

/* A message that stands still is looked at so often before its time is over: one look may come
 * late, because this process was stopped, and tells nothing then. */
#define RPC_MESSAGE_LOOKS 4

struct rpc_lobby {
    struct list waiting; /* the oldest first */
    size_t n;
};

/* ---- the lobby ---- */

struct rpc_lobby *rpc_lobby_new(void)
{
    struct rpc_lobby *lobby = mem_zalloc(1, sizeof(*lobby));

    list_init(&lobby->waiting);
    return lobby;
}

struct rpc_lobby *rpc_lobby_free(struct rpc_lobby *lobby)
{
    if (lobby) {
        while (!list_empty(&lobby->waiting)) {
            rpc_end_with(LIST_ENTRY(lobby->waiting.next, struct rpc, in_lobby), -ECANCELED,
                         "this process stops");
        }
        kumo_assert(lobby->n == 0);
        free(lobby);
    }
    return NULL;
}

size_t rpc_lobby_waiting(const struct rpc_lobby *lobby)
{
    return lobby->n;
}

static void rpc_close_oldest(struct rpc_lobby *lobby)
{
    static const char why[] = "too many connections wait for their hello, and it was the oldest";
    struct rpc *oldest = LIST_ENTRY(lobby->waiting.next, struct rpc, in_lobby);

    log_ratelimit(LOG_LEVEL_WARNING, "closed the connection with %s: %s", rpc_peer_name(oldest),
                  why);
    rpc_end_with(oldest, -ETIMEDOUT, why);
}

void rpc_enter_lobby(struct rpc *rpc, struct rpc_lobby *lobby)
{
    if (lobby->n >= RPC_LOBBY_MAX) {
        rpc_close_oldest(lobby);
    }
    rpc->lobby = lobby;
    list_push_back(&lobby->waiting, &rpc->in_lobby);
    lobby->n++;
}

void rpc_leave_lobby(struct rpc *rpc)
{
    if (rpc->lobby) {
        list_remove(&rpc->in_lobby);
        rpc->lobby->n--;
        rpc->lobby = NULL;
    }
}

/* ---- messages that stand still ---- */

static void rpc_on_message_timer(void *ctx)
{
    struct rpc *rpc = ctx;
    uint64_t bytes = conn_bytes_in(rpc->conn);

    if (buf_len(conn_in(rpc->conn)) == 0) {
        loop_timer_stop(rpc->message_timer);
        return;
    }
    if (rpc->paused || rpc->messages != rpc->looked_messages ||
        bytes - rpc->looked_bytes >= RPC_MESSAGE_STEP_BYTES) {
        rpc->looked_messages = rpc->messages;
        rpc->looked_bytes = bytes;
        rpc->looks = 0;
    } else if (++rpc->looks >= RPC_MESSAGE_LOOKS) {
        rpc_malformed(rpc, -ETIMEDOUT, "it began a message and did not go on");
    }
}

void rpc_watch_message(struct rpc *rpc)
{
    if (!rpc->message_timer) {
        rpc->message_timer = loop_timer_new(rpc->loop, rpc_on_message_timer, rpc);
    }
    if (!loop_timer_active(rpc->message_timer)) {
        rpc->looked_messages = rpc->messages;
        rpc->looked_bytes = conn_bytes_in(rpc->conn);
        rpc->looks = 0;
        loop_timer_every(rpc->message_timer, RPC_MESSAGE_TIMEOUT_USEC / RPC_MESSAGE_LOOKS);
    }
}
