/* Why an operation failed in the gateway, and how a client is told; see route.h. */
#include "core/route_internal.h"

#include "base/assert.h"

#include <stdio.h>
#include <string.h>

/* What keeps an operation that isn't on the wire from being sent. */
static enum route_error op_obstacle(const struct route *r, uint64_t now_usec,
                                    const struct route_op *o, const struct route_link *link)
{
    const struct route_partition *p = o->partition;

    if (!link || !link->up) {
        return ROUTE_UNREACHABLE;
    }
    if (o->state == ROUTE_OP_WAITING && route_needs_number(o) && o->op.op.number == 0) {
        if (r->session == 0) {
            return ROUTE_NO_SESSION;
        }
        if (!route_window_open(r, p)) {
            return ROUTE_WINDOW;
        }
    }
    return p->delay_usec > 0 || now_usec < p->not_before_usec ? ROUTE_NOT_READY : ROUTE_SILENT;
}

struct route_failure route_timeout(const struct route *r, uint64_t now_usec,
                                   const struct route_op *o)
{
    struct route_failure f = { .error = ROUTE_NO_TABLE };
    const struct hashspace_server *s;

    f.may_happen = route_needs_number(o) && (o->lost || o->state == ROUTE_OP_SENT);
    if (o->state == ROUTE_OP_SENT) {
        f.error = ROUTE_SILENT;
        f.server = o->link->server;
    } else if (o->partition) {
        s = route_primary(r, o->partition);
        f.error = ROUTE_NO_PRIMARY;
        if (s) {
            f.server = s->server;
            f.error = op_obstacle(r, now_usec, o,
                                  route_link_find(r, s->server, o->partition->number % s->shards));
        }
    } else if (r->table) {
        f.error = ROUTE_NO_SERVERS;
    }
    return f;
}

static const char *failure_format(enum route_error error)
{
    switch (error) {
    case ROUTE_NO_TABLE:
        return "no manager can be reached";
    case ROUTE_NO_SERVERS:
        return "no servers are attached yet; run kumoctl attach";
    case ROUTE_NO_PRIMARY:
        return "no server holds this key's partition at present";
    case ROUTE_NO_SESSION:
        return "no manager can be reached for a session";
    case ROUTE_UNREACHABLE:
        return "server %s can't be reached";
    case ROUTE_NOT_READY:
        return "server %s is not ready";
    case ROUTE_SILENT:
        return "no answer from server %s, or from a replica that it waits for";
    case ROUTE_WINDOW:
        return "too many writes without an answer at server %s";
    case ROUTE_QUEUE_FULL:
        return "server %s: queue full";
    case ROUTE_TOO_MANY:
        return "too many requests under way in this gateway";
    default:
        kumo_unreachable();
    }
}

const char *route_failure_text(const struct route *r, const struct route_failure *f,
                               char out[static ROUTE_TEXT_BYTES])
{
    const struct hashspace_server *s = r->table ? hashspace_server(r->table, f->server) : NULL;
    const char *format = failure_format(f->error);
    const char *hole = strstr(format, "%s");
    bool at_once = f->error == ROUTE_QUEUE_FULL || f->error == ROUTE_TOO_MANY;

    snprintf(out, ROUTE_TEXT_BYTES, "%s%.*s%s%s (%s)", at_once ? "" : "request timed out; ",
             (int) (hole ? (size_t) (hole - format) : strlen(format)), format,
             !hole ? ""
             : s   ? s->name
                   : "(none)",
             hole ? hole + 2 : "",
             f->may_happen ? "the write may still happen" : "nothing was done");
    return out;
}
