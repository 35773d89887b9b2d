/* A partition's numbers and queues, and the links that its operations go to. See route.h. */
#include "core/route_internal.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"

#include <stdlib.h>

void route_partition_init(struct route_partition *p, uint16_t number)
{
    *p = (struct route_partition){ .number = number, .next = 1, .first = 1 };
    list_init(&p->stalled);
    list_init(&p->ready);
    list_init(&p->unnumbered);
}

const struct hashspace_server *route_primary(const struct route *r, const struct route_partition *p)
{
    const struct view_row *row = &r->table->rows[p->number];
    const struct hashspace_server *s;

    if (row->view == 0 || row->n_members == 0) {
        return NULL;
    }
    s = hashspace_server(r->table, row->members[0]);
    return s && s->shards > 0 && s->server < r->n_servers ? s : NULL;
}

/* ---- numbers (R12) ---- */

/* The partition's numbers begin anew with each session. */
static void window_reset(struct route_partition *p, uint64_t session)
{
    if (!p->answered) {
        p->answered = mem_alloc(SESSION_WINDOW / 8);
    }
    memset(p->answered, 0, SESSION_WINDOW / 8);
    p->session = session;
    p->next = p->first = 1;
}

static uint64_t window_bit(uint64_t number)
{
    return UINT64_C(1) << (number % 64);
}

static uint64_t *window_word(const struct route_partition *p, uint64_t number)
{
    return &p->answered[number % SESSION_WINDOW / 64];
}

bool route_window_open(const struct route *r, const struct route_partition *p)
{
    return p->session != r->session || p->next < p->first + SESSION_WINDOW;
}

void route_answered(struct route_partition *p, const struct op_id *id)
{
    if (id->session != p->session) {
        return;
    }
    kumo_assert(id->number >= p->first);
    kumo_assert(id->number < p->next);
    *window_word(p, id->number) |= window_bit(id->number);
    while (p->first < p->next && (*window_word(p, p->first) & window_bit(p->first))) {
        *window_word(p, p->first) &= ~window_bit(p->first);
        p->first++;
    }
}

/* Gives the operation its number when it has none, and the lowest one without an answer. */
static void op_number(const struct route *r, struct route_op *o)
{
    struct route_partition *p = o->partition;

    if (o->op.op.number == 0) {
        if (p->session != r->session) {
            window_reset(p, r->session);
        }
        kumo_assert(p->next < p->first + SESSION_WINDOW);
        o->op.op.session = p->session;
        o->op.op.number = p->next++;
    }
    if (o->op.op.session == p->session) {
        o->op.op.first = p->first;
    }
    kumo_assert(o->op.op.first <= o->op.op.number);
}

/* ---- queues ---- */

void route_enqueue(struct route *r, struct route_op *o)
{
    struct route_partition *p = o->partition;

    kumo_assert(list_empty(&o->queue));
    if (!p) {
        o->state = ROUTE_OP_UNROUTED;
        list_push_back(&r->unrouted, &o->queue);
        return;
    }
    o->state = ROUTE_OP_WAITING;
    if (route_needs_number(o) && o->op.op.number == 0) {
        list_push_back(&p->unnumbered, &o->queue);
    } else {
        list_push_back(&p->ready, &o->queue);
    }
    if (list_empty(&p->stalled)) {
        list_push_back(&r->stalled, &p->stalled);
    }
}

static void partition_settle(struct route_partition *p)
{
    if (list_empty(&p->ready) && list_empty(&p->unnumbered)) {
        list_remove(&p->stalled);
    }
}

void route_dequeue(struct route *r, struct route_op *o)
{
    (void) r;
    list_remove(&o->queue);
    if (o->state == ROUTE_OP_WAITING) {
        partition_settle(o->partition);
    }
}

void route_delay(struct route *r, uint64_t now_usec, struct route_partition *p)
{
    if (now_usec < p->not_before_usec) {
        return;
    }
    p->delay_usec = MIN_OF(MAX_OF(p->delay_usec * 2, (uint64_t) ROUTE_RETRY_MIN_USEC),
                           (uint64_t) ROUTE_RETRY_MAX_USEC);
    p->not_before_usec = now_usec + p->delay_usec;
    r->retry_usec = MIN_OF(r->retry_usec, p->not_before_usec);
}

/* ---- links ---- */

struct route_link *route_link_find(const struct route *r, uint32_t server, uint32_t shard)
{
    return server < r->n_servers && shard < SHARDS_MAX ? r->servers[server]->links[shard] : NULL;
}

static struct route_link *link_of(struct route *r, const struct hashspace_server *s,
                                  const struct route_partition *p, struct route_actions *out)
{
    uint32_t shard = p->number % s->shards;
    struct route_link *link = route_link_find(r, s->server, shard);
    struct route_action *a;

    if (link) {
        return link;
    }
    link = mem_zalloc(1, sizeof(*link));
    link->server = s->server;
    link->shard = shard;
    list_init(&link->sent);
    list_push_back(&r->links, &link->in_links);
    r->servers[s->server]->links[shard] = link;
    a = route_add(out, ROUTE_CONNECT);
    a->server = s->server;
    a->shard = shard;
    return link;
}

/* ---- sending ---- */

/* Where the partition's operations may be sent now; NULL: they wait. */
static struct route_link *pump_target(struct route *r, uint64_t now_usec,
                                      const struct route_partition *p, struct route_actions *out)
{
    const struct hashspace_server *s;
    struct route_link *link;

    if (now_usec < p->not_before_usec) {
        return NULL;
    }
    s = route_primary(r, p);
    if (!s) {
        route_need_table(r, now_usec, out);
        return NULL;
    }
    link = link_of(r, s, p, out);
    return link->up ? link : NULL;
}

/* Whether the queue to the link's server has room for it: only what was counted to another server
 * before may find none. */
static bool op_fits(const struct route *r, const struct route_op *o, const struct route_link *link)
{
    return o->charged == link->server ||
           r->servers[link->server]->bytes + o->bytes <= r->limits.server_bytes_max ||
           r->servers[link->server]->bytes == 0;
}

static void op_send(struct route *r, struct route_op *o, struct route_link *link,
                    struct route_actions *out)
{
    struct route_action *a;

    list_remove(&o->queue);
    if (o->charged != link->server) {
        route_op_charge(r, o, link->server);
    }
    if (route_needs_number(o)) {
        op_number(r, o);
    }
    o->state = ROUTE_OP_SENT;
    o->sent_usec = r->now_usec;
    o->link = link;
    r->retry_usec = MIN_OF(r->retry_usec, r->now_usec + ROUTE_SILENT_USEC);
    list_push_back(&link->sent, &o->queue);
    a = route_add(out, ROUTE_SEND);
    a->server = link->server;
    a->shard = link->shard;
    a->send.session = o->op.op.session;
    a->send.op = &o->op;
}

/* Sends from the front of one queue. */
static void pump_queue(struct route *r, uint64_t now_usec, struct route_partition *p,
                       struct list *queue, struct route_link *link, struct route_actions *out)
{
    while (!list_empty(queue)) {
        struct route_op *o = LIST_ENTRY(queue->next, struct route_op, queue);
        if (queue == &p->unnumbered && !route_window_open(r, p)) {
            return;
        }
        if (!op_fits(r, o, link)) {
            route_delay(r, now_usec, p);
            return;
        }
        op_send(r, o, link, out);
    }
}

void route_pump(struct route *r, uint64_t now_usec, struct route_partition *p,
                struct route_actions *out)
{
    struct route_link *link;

    if (list_empty(&p->stalled)) {
        return;
    }
    link = pump_target(r, now_usec, p, out);
    if (link) {
        pump_queue(r, now_usec, p, &p->ready, link, out);
        if (r->session > 0) {
            pump_queue(r, now_usec, p, &p->unnumbered, link, out);
        }
    }
    if (r->session == 0 && !list_empty(&p->unnumbered)) {
        route_need_session(r, now_usec, out);
    }
    partition_settle(p);
}

void route_pump_all(struct route *r, uint64_t now_usec, struct route_actions *out)
{
    LIST_FOR_EACH_SAFE(node, &r->stalled)
    {
        route_pump(r, now_usec, LIST_ENTRY(node, struct route_partition, stalled), out);
    }
}
