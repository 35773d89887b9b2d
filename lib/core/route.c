/* The events of a gateway thread's routing; see route.h. */
#include "core/route.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "core/route_internal.h"

#include <errno.h>
#include <stdlib.h>

struct route_action *route_add(struct route_actions *out, enum route_action_kind kind)
{
    mem_grow(&out->v, &out->cap, out->n + 1, sizeof(*out->v));
    out->v[out->n] = (struct route_action){ .kind = kind };
    return &out->v[out->n++];
}

void route_actions_free(struct route_actions *a)
{
    free(a->v);
    *a = (struct route_actions){ 0 };
}

void route_client_init(struct route_client *c, uint64_t id)
{
    c->id = id;
    list_init(&c->ops);
}

/* ---- life ---- */

/* Servers up to this number exist, the first being "none". */
static void servers_grow(struct route *r, uint32_t n)
{
    if (n <= r->n_servers) {
        return;
    }
    r->servers = mem_realloc(r->servers, n * sizeof(struct route_server *));
    for (uint32_t i = r->n_servers; i < n; i++) {
        r->servers[i] = mem_zalloc(1, sizeof(struct route_server));
    }
    r->n_servers = n;
}

struct route *route_new(const struct route_limits *limits)
{
    struct route *r = mem_zalloc(1, sizeof(*r));

    kumo_assert(limits->timeout_usec > 0);
    kumo_assert(limits->ops_max <= ROUTE_OPS_MAX);
    r->limits = *limits;
    r->retry_usec = UINT64_MAX;
    list_init(&r->links);
    list_init(&r->stalled);
    list_init(&r->unrouted);
    list_init(&r->deadlines);
    list_init(&r->dead);
    servers_grow(r, 1);
    return r;
}

struct route *route_free(struct route *r)
{
    if (!r) {
        return NULL;
    }
    route_op_free_all(r);
    for (uint32_t i = 0; i < r->n_servers; i++) {
        for (uint32_t s = 0; s < SHARDS_MAX; s++) {
            free(r->servers[i]->links[s]);
        }
        free(r->servers[i]);
    }
    for (uint32_t i = 0; i < r->n_partitions; i++) {
        free(r->partitions[i].answered);
    }
    free(r->servers);
    free(r->partitions);
    map_free(&r->by_key);
    free(r);
    return NULL;
}

/* ---- asking the managers ---- */

static bool is_due(uint64_t now_usec, uint64_t *asked_usec, uint64_t interval_usec)
{
    if (*asked_usec > 0 && now_usec < *asked_usec + interval_usec) {
        return false;
    }
    *asked_usec = now_usec;
    return true;
}

void route_need_table(struct route *r, uint64_t now_usec, struct route_actions *out)
{
    if (is_due(now_usec, &r->table_asked_usec, ROUTE_TABLE_USEC)) {
        route_add(out, ROUTE_NEED_TABLE);
    }
}

void route_need_session(struct route *r, uint64_t now_usec, struct route_actions *out)
{
    if (is_due(now_usec, &r->session_asked_usec, ROUTE_SESSION_USEC)) {
        route_add(out, ROUTE_NEED_SESSION);
    }
}

/* ---- submit and end ---- */

static struct route_partition *partition_of(struct route *r, const struct op *op, uint64_t hash)
{
    if (r->n_partitions == 0) {
        return NULL;
    }
    if (op->code == OP_FLUSH) {
        kumo_assert(op->operand < r->n_partitions);
        return &r->partitions[op->operand];
    }
    return &r->partitions[hashspace_partition_of_hash(hash, r->n_partitions)];
}

/* Number of the server in whose queue the partition's operations count. */
static uint32_t server_of(const struct route *r, const struct route_partition *p)
{
    const struct hashspace_server *s = p ? route_primary(r, p) : NULL;

    return s ? s->server : 0;
}

static bool is_over_limit(const struct route *r, uint32_t server, const struct op *op,
                          struct route_failure *ret_failure)
{
    size_t bytes = sizeof(struct route_op) + op->key_len + op->value_len;

    if (r->n_ops >= r->limits.ops_max) {
        *ret_failure = (struct route_failure){ .error = ROUTE_TOO_MANY, .server = server };
        return true;
    }
    if (r->servers[server]->bytes + bytes > r->limits.server_bytes_max) {
        *ret_failure = (struct route_failure){ .error = ROUTE_QUEUE_FULL, .server = server };
        return true;
    }
    return false;
}

int route_submit(struct route *r, uint64_t now_usec, struct route_client *client, void *token,
                 const struct op *op, struct route_actions *out, struct route_failure *ret_failure)
{
    uint64_t hash = hashspace_hash(op->key, op->key_len);
    struct route_partition *p = partition_of(r, op, hash);
    uint32_t server = server_of(r, p);
    struct route_op *first = NULL;
    struct route_op *o;

    route_reap(r);
    r->now_usec = now_usec;
    if (is_over_limit(r, server, op, ret_failure)) {
        return -ENOBUFS;
    }
    o = route_op_new(r, client, token, op, hash);
    o->partition = p;
    o->charged = server;
    r->servers[server]->bytes += o->bytes;
    if (op->code != OP_FLUSH) {
        first = route_op_first(r, client->id, hash);
    }
    if (first) {
        list_push_back(&first->followers, &o->queue);
        return 0;
    }
    route_op_begin(r, o);
    if (p) {
        route_pump(r, now_usec, p, out);
    } else {
        route_need_table(r, now_usec, out);
    }
    return 0;
}

static struct route_action *op_done(struct route *r, struct route_op *o, struct route_actions *out)
{
    struct route_action *a = NULL;

    if (o->client) {
        a = route_add(out, ROUTE_DONE);
        a->done.client = o->client;
        a->done.token = o->token;
        a->done.op = &o->op;
    }
    route_op_end(r, o);
    return a;
}

/* ---- answers ---- */

static bool is_worth_a_retry(const struct result *res)
{
    return res->code == RESULT_NOT_PRIMARY || res->code == RESULT_BUSY;
}

/* Nothing was done by this try, and another one won't help. */
static bool is_refusal(const struct result *res)
{
    return res->code == RESULT_REFUSED || res->code == RESULT_NO_SESSION;
}

/* It waits to be sent again, under the same number; a read that nobody waits for ends. */
static void op_retry(struct route *r, struct route_op *o)
{
    kumo_assert(o->state == ROUTE_OP_SENT);
    if (!o->client && o->op.code == OP_GET) {
        route_op_end(r, o);
        return;
    }
    route_dequeue(r, o);
    o->link = NULL;
    route_enqueue(r, o);
}

static void op_refused_for_now(struct route *r, uint64_t now_usec, struct route_op *o,
                               const struct result *res, struct route_actions *out)
{
    struct route_partition *p = o->partition;

    if (res->code == RESULT_NOT_PRIMARY) {
        o->lost = true; /* R3: what it had proposed may commit in the next view */
        if (res->number > r->table->rows[p->number].view) {
            route_need_table(r, now_usec, out);
        }
    }
    route_delay(r, now_usec, p);
    op_retry(r, o);
}

/* Its session is over, and this try did nothing. Without an earlier one that may have, it begins
 * anew in the next session; else nobody knows what became of it (R12). Returns whether it does. */
static bool op_renumber(struct route *r, uint64_t now_usec, struct route_op *o,
                        struct route_actions *out)
{
    if (o->op.op.session == r->session) {
        r->session = 0;
        route_need_session(r, now_usec, out);
    }
    if (o->lost) {
        return false;
    }
    route_answered(o->partition, &o->op.op);
    o->op.op = (struct op_id){ 0 };
    op_retry(r, o);
    return true;
}

void route_result(struct route *r, uint64_t now_usec, uint32_t server, uint32_t shard,
                  const struct result *result, struct route_actions *out)
{
    struct route_op *o = route_op_find(r, result->id);
    struct route_partition *p;
    struct route_action *a;

    route_reap(r);
    r->now_usec = now_usec;
    if (!o || o->state != ROUTE_OP_SENT || o->link != route_link_find(r, server, shard)) {
        return;
    }
    p = o->partition;
    o->link->heard_usec = now_usec;
    if (is_worth_a_retry(result)) {
        op_refused_for_now(r, now_usec, o, result, out);
        return;
    }
    p->delay_usec = 0;
    if (result->code == RESULT_NO_SESSION && op_renumber(r, now_usec, o, out)) {
        route_pump(r, now_usec, p, out);
        return;
    }
    a = op_done(r, o, out);
    if (a) {
        a->done.result = *result;
        if (is_refusal(result) && o->lost && route_needs_number(o)) {
            a->done.result.code = RESULT_UNKNOWN; /* what became of the try before is not known */
        }
    }
    route_pump(r, now_usec, p, out);
}

/* ---- links ---- */

void route_link_up(struct route *r, uint64_t now_usec, uint32_t server, uint32_t shard,
                   struct route_actions *out)
{
    struct route_link *link = route_link_find(r, server, shard);

    route_reap(r);
    r->now_usec = now_usec;
    if (link && !link->up) {
        link->up = true;
        link->heard_usec = now_usec;
        route_pump_all(r, now_usec, out);
    }
}

void route_link_down(struct route *r, uint64_t now_usec, uint32_t server, uint32_t shard,
                     struct route_actions *out)
{
    struct route_link *link = route_link_find(r, server, shard);

    route_reap(r);
    r->now_usec = now_usec;
    if (!link) {
        return;
    }
    link->up = false;
    while (!list_empty(&link->sent)) {
        struct route_op *o = LIST_ENTRY(link->sent.next, struct route_op, queue);
        o->lost = true;
        op_retry(r, o);
    }
    route_pump_all(r, now_usec, out);
}

/* ---- table and session ---- */

static void partitions_make(struct route *r, uint32_t n)
{
    r->partitions = mem_zalloc(n, sizeof(*r->partitions));
    for (uint32_t i = 0; i < n; i++) {
        route_partition_init(&r->partitions[i], (uint16_t) i);
    }
    r->n_partitions = n;
}

/* Operations that came before the number of partitions was known. */
static void unrouted_enqueue(struct route *r)
{
    struct list todo;

    list_init(&todo);
    list_splice(&todo, &r->unrouted);
    while (!list_empty(&todo)) {
        struct route_op *o = LIST_ENTRY(todo.next, struct route_op, queue);
        list_remove(&o->queue);
        o->partition = partition_of(r, &o->op, o->hash);
        LIST_FOR_EACH(node, &o->followers)
        {
            LIST_ENTRY(node, struct route_op, queue)->partition = o->partition;
        }
        route_enqueue(r, o);
    }
}

/* Takes operations back from links to what is no primary any more. */
static void link_take_back(struct route *r, struct route_link *link)
{
    LIST_FOR_EACH_SAFE(node, &link->sent)
    {
        struct route_op *o = LIST_ENTRY(node, struct route_op, queue);
        const struct hashspace_server *s =
            o->partition->moved ? route_primary(r, o->partition) : NULL;
        if (s && (s->server != link->server || o->partition->number % s->shards != link->shard)) {
            o->lost = true;
            op_retry(r, o);
        }
    }
}

static void links_take_back(struct route *r)
{
    for (uint32_t i = 1; i < r->n_servers; i++) {
        for (uint32_t s = 0; s < SHARDS_MAX; s++) {
            if (r->servers[i]->links[s]) {
                link_take_back(r, r->servers[i]->links[s]);
            }
        }
    }
}

/* A new view ends the delay. Returns whether any partition has one. */
static bool views_note(struct route *r)
{
    bool any = false;

    for (uint32_t i = 0; i < r->n_partitions; i++) {
        struct route_partition *p = &r->partitions[i];
        p->moved = p->view != r->table->rows[i].view;
        if (p->moved) {
            p->view = r->table->rows[i].view;
            p->delay_usec = 0;
            p->not_before_usec = 0;
            any = true;
        }
    }
    return any;
}

void route_table_changed(struct route *r, uint64_t now_usec, const struct hashspace *h,
                         struct route_actions *out)
{
    route_reap(r);
    r->now_usec = now_usec;
    r->table = h;
    servers_grow(r, h->n_servers + 1);
    if (h->n_partitions == 0) {
        return;
    }
    if (r->n_partitions == 0) {
        partitions_make(r, h->n_partitions);
        unrouted_enqueue(r);
    }
    kumo_assert(r->n_partitions == h->n_partitions);
    if (views_note(r)) {
        links_take_back(r);
    }
    route_pump_all(r, now_usec, out);
}

void route_set_session(struct route *r, uint64_t now_usec, uint64_t session,
                       struct route_actions *out)
{
    kumo_assert(session > 0);
    route_reap(r);
    r->now_usec = now_usec;
    r->session = session;
    route_pump_all(r, now_usec, out);
}

/* ---- time ---- */

static void op_fail(struct route *r, struct route_op *o, struct route_failure f,
                    struct route_actions *out)
{
    struct route_action *a = op_done(r, o, out);

    if (a) {
        a->done.failed = true;
        a->done.failure = f;
    }
}

/* What waits behind an operation that timed out would only wait as long again. */
static void followers_end(struct route *r, struct route_op *first, struct route_failure f,
                          struct route_actions *out)
{
    f.may_happen = false;
    while (!list_empty(&first->followers)) {
        op_fail(r, LIST_ENTRY(first->followers.next, struct route_op, queue), f, out);
    }
}

static void deadlines_end(struct route *r, uint64_t now_usec, struct route_actions *out)
{
    while (!list_empty(&r->deadlines)) {
        struct route_op *o = LIST_ENTRY(r->deadlines.next, struct route_op, by_deadline);
        struct route_failure f;
        if (o->deadline_usec > now_usec) {
            return;
        }
        f = route_timeout(r, now_usec, o);
        followers_end(r, o, f, out);
        op_fail(r, o, f, out);
    }
}

/* Operations that got no answer for too long: their partitions may have another primary by now, and
 * the connection may be dead without a word. */
static void silence_note(struct route *r, uint64_t now_usec, struct route_actions *out)
{
    LIST_FOR_EACH(node, &r->links)
    {
        struct route_link *link = LIST_ENTRY(node, struct route_link, in_links);
        struct route_action *a;
        uint64_t due_usec;
        if (list_empty(&link->sent)) {
            continue;
        }
        due_usec =
            LIST_ENTRY(link->sent.next, struct route_op, queue)->sent_usec + ROUTE_SILENT_USEC;
        if (due_usec > now_usec) {
            r->retry_usec = MIN_OF(r->retry_usec, due_usec);
            continue;
        }
        r->retry_usec = MIN_OF(r->retry_usec, now_usec + ROUTE_SILENT_USEC);
        route_need_table(r, now_usec, out);
        if (link->heard_usec + ROUTE_SILENT_USEC <= now_usec) {
            link->heard_usec = now_usec; /* not again at once */
            a = route_add(out, ROUTE_RECONNECT);
            a->server = link->server;
            a->shard = link->shard;
        }
    }
}

/* What could not be sent for so long should perhaps go elsewhere. */
static void stall_note(struct route *r, uint64_t now_usec, struct route_actions *out)
{
    if (list_empty(&r->stalled) && list_empty(&r->unrouted)) {
        r->stalled_usec = 0;
        return;
    }
    if (r->stalled_usec == 0) {
        r->stalled_usec = now_usec;
    } else if (now_usec - r->stalled_usec >= ROUTE_SILENT_USEC) {
        r->stalled_usec = now_usec;
        route_need_table(r, now_usec, out);
    }
    r->retry_usec = MIN_OF(r->retry_usec, r->stalled_usec + ROUTE_SILENT_USEC);
}

void route_tick(struct route *r, uint64_t now_usec, struct route_actions *out)
{
    route_reap(r);
    r->now_usec = now_usec;
    deadlines_end(r, now_usec, out);
    r->retry_usec = UINT64_MAX;
    route_pump_all(r, now_usec, out);
    silence_note(r, now_usec, out);
    stall_note(r, now_usec, out);
    LIST_FOR_EACH(node, &r->stalled)
    {
        const struct route_partition *p = LIST_ENTRY(node, struct route_partition, stalled);
        if (p->not_before_usec > now_usec) {
            r->retry_usec = MIN_OF(r->retry_usec, p->not_before_usec);
        }
    }
}

uint64_t route_wake_usec(const struct route *r)
{
    uint64_t deadline = UINT64_MAX;

    if (!list_empty(&r->deadlines)) {
        deadline = LIST_ENTRY(r->deadlines.next, struct route_op, by_deadline)->deadline_usec;
    }
    return MIN_OF(deadline, r->retry_usec);
}

/* ---- clients ---- */

void route_forget(struct route *r, uint64_t now_usec, struct route_client *client,
                  struct route_actions *out)
{
    struct list reads;

    route_reap(r);
    r->now_usec = now_usec;
    list_init(&reads);
    while (!list_empty(&client->ops)) {
        struct route_op *o = LIST_ENTRY(client->ops.next, struct route_op, by_client);
        list_remove(&o->by_client);
        o->client = NULL;
        if (o->op.code == OP_GET && o->state != ROUTE_OP_SENT) {
            list_push_back(&reads, &o->by_client);
        }
    }
    while (!list_empty(&reads)) {
        struct route_op *o = LIST_ENTRY(reads.next, struct route_op, by_client);
        struct route_partition *p = o->partition;
        route_op_end(r, o);
        if (p) {
            route_pump(r, now_usec, p, out);
        }
    }
}

/* ---- looking in ---- */

size_t route_unanswered(const struct route *r)
{
    return r->n_ops;
}

size_t route_server_bytes(const struct route *r, uint32_t server)
{
    return server < r->n_servers ? r->servers[server]->bytes : 0;
}
