/* A client: what a gateway thread is, with the routing of lib/core, and a few connections of its
 * own whose operations it records (struct slot). */
#include "sim/sim.h"

#include "base/cleanup.h"
#include "base/mem.h"

#include <stdlib.h>

#define REQUEST_TIMEOUT_USEC (5 * USEC_PER_SEC)

struct client *client_of(struct sim *s, uint32_t node)
{
    return node < SIM_CLIENTS_MAX ? &s->clients[node] : &s->prober;
}

/* The routing takes 0 for never. */
static uint64_t client_now(const struct sim *s)
{
    return s->now_usec + 1;
}

static struct link *manager_link(struct sim *s, const struct client *c)
{
    return net_manager_link(s, (struct endpoint){ END_CLIENT, (uint8_t) c->index, 0 });
}

static void to_manager(struct sim *s, struct client *c, enum message_kind kind)
{
    net_send(s, manager_link(s, c), 0, message_new(kind, 0));
}

/* ---- the end of an operation ---- */

static void value_keep(struct lin_op *o, const uint8_t *p, size_t bytes)
{
    uint8_t *copy = mem_alloc(bytes + 1);

    if (bytes > 0) {
        memcpy(copy, p, bytes);
    }
    copy[bytes] = '\0';
    o->value = copy;
    o->value_len = (uint32_t) bytes;
}

static void op_unknown(struct sim *s, struct key *key, struct lin_op *o)
{
    o->result = LIN_UNKNOWN;
    o->ret = LIN_NEVER;
    s->counts.ops_unknown++;
    if (key && !lin_is_read(o->code)) {
        key->unknown++;
    }
}

static void op_answered(struct sim *s, struct key *key, struct lin_op *o, const struct result *r)
{
    if (r->code == RESULT_UNKNOWN) {
        op_unknown(s, key, o);
        return;
    }
    s->counts.no_space += r->code == RESULT_NO_SPACE;
    if (r->code == RESULT_REFUSED || (r->code == RESULT_DAMAGED && !s->setup.read_errors) ||
        (r->code == RESULT_NO_SPACE && s->setup.fault_usec[FAULT_FULL] == 0)) {
        sim_fail(s, "a client was refused (%u) at key %s", r->code, key ? key->name : "-");
    }
    o->result = r->code;
    o->ret = ++s->logical;
    o->token = r->cas;
    o->number = r->number;
    if (r->code == RESULT_VALUE) {
        o->flags = r->flags;
        value_keep(o, r->value, r->value_len);
    }
    if (r->cas != 0 && key) {
        key->last_token = r->cas;
    }
    s->counts.ops_ok++;
    s->counts.writes_ok += o->code != OP_GET;
}

/* The record of what the slot does: it moves when the history grows. */
static struct lin_op *slot_op(struct slot *slot)
{
    return slot->key ? &slot->key->ops[slot->op] : &slot->flush;
}

static void slot_end(struct sim *s, struct slot *slot)
{
    slot->busy = false;
    if (!slot->key) {
        work_flushed(s, slot);
    }
}

static void next_begins(struct sim *s, struct event *e)
{
    work_next(s, client_of(s, (uint32_t) e->number), e->who);
}

static void op_done(struct sim *s, struct client *c, const struct route_action *a)
{
    struct slot *slot = a->done.token;
    struct lin_op *o = slot_op(slot);

    if (!a->done.failed) {
        op_answered(s, slot->key, o, &a->done.result);
    } else if (a->done.failure.may_happen) {
        op_unknown(s, slot->key, o);
    } else {
        o->result = RESULT_BUSY; /* it certainly did nothing */
        o->ret = ++s->logical;
        s->counts.ops_failed++;
    }
    sim_detail(s, "client %u: %s code %u -> %u, token %llu", c->index,
               slot->key ? slot->key->name : "flush", o->code, o->result,
               (unsigned long long) o->token);
    slot_end(s, slot);
    sim_after(s, sim_between(s, 1, s->setup.think_max_usec), &c->process, next_begins, slot,
              c->index, NULL);
}

/* ---- what the routing wants ---- */

/* By its address in the table: it may not know its number yet. */
static uint32_t server_index(const struct client *c, uint32_t number)
{
    return (uint32_t) strtoul(hashspace_server(&c->space, number)->address + 1, NULL, 10) - 1;
}

static void send_op(struct sim *s, struct client *c, const struct route_action *a)
{
    const struct op *op = a->send.op;
    struct message *m = message_new(MESSAGE_SHARD, (size_t) op->key_len + op->value_len);
    struct op *copy = &m->event.op.op;

    m->event.kind = SHARD_OP;
    m->event.op.asker.id = op->id;
    *copy = *op;
    copy->op.session = a->send.session;
    copy->key = m->bytes;
    copy->value = m->bytes + op->key_len;
    memcpy(m->bytes, op->key, op->key_len);
    if (op->value_len > 0) {
        memcpy(m->bytes + op->key_len, op->value, op->value_len);
    }
    if (s->o->plant == PLANT_RETRY_AS_NEW && copy->op.number > 0) {
        copy->op.number = copy->op.first = ++s->serial;
    }
    s->counts.sends++;
    net_send(s, net_client_link(s, c->index, server_index(c, a->server), a->shard), 0, m);
}

static void want_link(struct sim *s, struct client *c, const struct route_action *a)
{
    uint32_t server = server_index(c, a->server);

    kumo_assert(server < s->setup.servers && a->shard < SIM_SHARDS_MAX);
    c->wanted[server][a->shard] = true;
    net_connect(s, net_client_link(s, c->index, server, a->shard),
                sim_between(s, 0, 5) * USEC_PER_MSEC);
}

static void wake(struct sim *s, struct event *e);

static void wake_plan(struct sim *s, struct client *c)
{
    uint64_t at = route_wake_usec(c->route);

    if (at == UINT64_MAX || at >= c->next_wake_usec) {
        return;
    }
    c->next_wake_usec = at;
    sim_after(s, at > client_now(s) ? at - client_now(s) : 0, &c->process, wake, c, at, NULL);
}

static void act(struct sim *s, struct client *c)
{
    for (size_t i = 0; i < c->actions.n && !s->failed; i++) {
        const struct route_action *a = &c->actions.v[i];
        switch (a->kind) {
        case ROUTE_SEND:
            send_op(s, c, a);
            break;
        case ROUTE_DONE:
            op_done(s, c, a);
            break;
        case ROUTE_CONNECT:
            want_link(s, c, a);
            break;
        case ROUTE_NEED_TABLE:
            to_manager(s, c, MESSAGE_TABLE_ASK);
            break;
        case ROUTE_NEED_SESSION:
            c->session_wanted = true;
            to_manager(s, c, MESSAGE_SESSION_ASK);
            break;
        default:
            break;
        }
    }
    c->actions.n = 0;
    wake_plan(s, c);
}

static void wake(struct sim *s, struct event *e)
{
    struct client *c = e->who;

    if (c->next_wake_usec != e->number) {
        return; /* an earlier one was planned meanwhile */
    }
    c->next_wake_usec = UINT64_MAX;
    route_tick(c->route, client_now(s), &c->actions);
    act(s, c);
}

/* key NULL: a flush of op->operand. */
void client_submit(struct sim *s, struct client *c, struct slot *slot, struct key *key,
                   const struct op *op)
{
    struct route_failure failure;
    struct lin_op *o;

    slot->busy = true;
    slot->key = key;
    slot->partition = key ? key->partition : (uint16_t) op->operand;
    if (key) {
        mem_grow(&key->ops, &key->cap, key->n + 1, sizeof(*key->ops));
        slot->op = key->n++;
    }
    o = slot_op(slot);
    *o = (struct lin_op){
        .call = ++s->logical,
        .ret = LIN_NEVER,
        .client = c->index * 100 + (uint32_t) (slot - c->slots),
        .code = op->code,
        .flags = op->flags,
        .operand = op->operand,
    };
    if (op->value_len > 0) {
        value_keep(o, op->value, op->value_len);
    }
    if (route_submit(c->route, client_now(s), &slot->client, slot, op, &c->actions, &failure) < 0) {
        sim_fail(s, "the routing has no room (%d)", failure.error);
    }
    act(s, c);
}

/* ---- what arrives ---- */

static void table_arrives(struct sim *s, struct client *c, const struct message *m)
{
    struct mp_reader r = mp_reader_of(m->bytes, m->n);

    if (hashspace_merge(&c->space, &r) < 0) {
        sim_fail(s, "a client can't read the hash space");
        return;
    }
    route_table_changed(c->route, client_now(s), &c->space, &c->actions);
    act(s, c);
}

static void session_again(struct sim *s, struct event *e)
{
    struct client *c = e->who;

    if (c->session_wanted) {
        to_manager(s, c, MESSAGE_SESSION_ASK);
    }
}

static void session_renews(struct sim *s, struct event *e)
{
    struct client *c = e->who;
    struct message *m;

    if (c->session != 0) {
        m = message_new(MESSAGE_ALIVE, 0);
        m->session = c->session;
        net_send(s, manager_link(s, c), 0, m);
    }
    sim_after(s, s->healed ? 500 * USEC_PER_MSEC : s->setup.renew_usec, &c->process, session_renews,
              c, 0, NULL);
}

void client_receive(struct sim *s, struct link *l, unsigned side, struct message *m)
{
    struct client *c = client_of(s, l->end[side].node);
    const struct endpoint *other = &l->end[1 - side];

    switch (m->kind) {
    case MESSAGE_RESULT:
        s->counts.retries += m->result.code == RESULT_NOT_PRIMARY || m->result.code == RESULT_BUSY;
        route_result(c->route, client_now(s), s->servers[other->node].super.number, other->shard,
                     &m->result, &c->actions);
        act(s, c);
        return;
    case MESSAGE_TABLE:
        table_arrives(s, c, m);
        return;
    case MESSAGE_SESSION:
        c->session_wanted = false;
        c->session = m->session;
        route_set_session(c->route, client_now(s), m->session, &c->actions);
        act(s, c);
        return;
    case MESSAGE_OVER:
        if (m->session == c->session) {
            c->session = 0;
            c->session_wanted = true;
            to_manager(s, c, MESSAGE_SESSION_ASK);
        }
        return;
    case MESSAGE_REFUSED:
        sim_after(s, 200 * USEC_PER_MSEC, &c->process, session_again, c, 0, NULL);
        return;
    default:
        return;
    }
}

void client_link_up(struct sim *s, struct link *l, unsigned side, uint32_t shards)
{
    struct client *c = client_of(s, l->end[side].node);
    const struct endpoint *other = &l->end[1 - side];
    const struct hashspace_server *known;

    if (other->kind == END_MANAGER) {
        to_manager(s, c, MESSAGE_TABLE_ASK);
        if (c->session_wanted) {
            to_manager(s, c, MESSAGE_SESSION_ASK);
        }
        return;
    }
    known = hashspace_server(&c->space, s->servers[other->node].super.number);
    if (!known || known->shards != shards) { /* the table is older than the server's process */
        to_manager(s, c, MESSAGE_TABLE_ASK);
        net_break(s, l, 0);
        return;
    }
    c->up[other->node][other->shard] = true;
    route_link_up(c->route, client_now(s), known->server, other->shard, &c->actions);
    act(s, c);
}

void client_link_down(struct sim *s, struct link *l, unsigned side)
{
    struct client *c = client_of(s, l->end[side].node);
    const struct endpoint *other = &l->end[1 - side];

    if (other->kind == END_SHARD && c->up[other->node][other->shard]) {
        c->up[other->node][other->shard] = false;
        route_link_down(c->route, client_now(s), s->servers[other->node].super.number, other->shard,
                        &c->actions);
        act(s, c);
    }
}

/* ---- life ---- */

void client_start(struct sim *s, struct client *c)
{
    struct route_limits limits = {
        .timeout_usec = REQUEST_TIMEOUT_USEC,
        .server_bytes_max = 1u << 20,
        .ops_max = 1000,
    };

    c->process.alive = true;
    c->route = route_new(&limits);
    c->next_wake_usec = UINT64_MAX;
    c->session_wanted = false;
    for (uint32_t i = 0; i < c->n_slots; i++) {
        c->slots[i].busy = false;
        route_client_init(&c->slots[i].client, i + 1);
    }
    c->session = 0;
    sim_after(s, sim_between(s, 0, s->setup.renew_usec), &c->process, session_renews, c, 0, NULL);
    net_up(s, END_CLIENT, c->index);
    work_begin(s, c);
}

static void starts(struct sim *s, struct event *e)
{
    client_start(s, e->who);
}

void client_crash(struct sim *s, struct client *c)
{
    if (!c->process.alive) {
        return;
    }
    sim_trace(s, "client %u is killed", c->index);
    for (uint32_t i = 0; i < c->n_slots; i++) {
        if (c->slots[i].busy) {
            op_unknown(s, c->slots[i].key, slot_op(&c->slots[i]));
            slot_end(s, &c->slots[i]);
        }
    }
    c->process.alive = false;
    c->process.life++;
    c->route = route_free(c->route);
    hashspace_free(&c->space);
    c->space = (struct hashspace){ 0 };
    memset(c->wanted, 0, sizeof(c->wanted));
    memset(c->up, 0, sizeof(c->up));
    net_down(s, END_CLIENT, c->index, 100 * USEC_PER_MSEC);
    sim_after(s, sim_between(s, 10, 1000) * USEC_PER_MSEC, NULL, starts, c, 0, NULL);
}

void client_init(struct sim *s, struct client *c, uint32_t index, uint32_t n_slots)
{
    (void) s;
    c->index = index;
    c->process.name = "client";
    c->n_slots = n_slots;
    c->slots = mem_zalloc(n_slots, sizeof(*c->slots));
}

void client_free(struct client *c)
{
    c->route = route_free(c->route);
    hashspace_free(&c->space);
    route_actions_free(&c->actions);
    free(c->slots);
}
