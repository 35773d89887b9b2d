/* Connections between processes. Each direction of each connection is a stream in order; streams
 * overtake each other. A broken connection loses what was on its way, and its ends learn of that at
 * different times. Where the network is cut (cuts.c) nothing arrives: what was sent comes later, if
 * the connection lives so long. */
#include "sim/sim.h"

#include "base/cleanup.h"
#include "base/mem.h"

#include <stdlib.h>

#define CONN_LINKS 4096 /* conn = serial * CONN_LINKS + index of the link */

struct message *message_new(enum message_kind kind, size_t bytes)
{
    struct message *m = mem_zalloc(1, sizeof(*m) + bytes);

    m->kind = kind;
    m->n = bytes;
    return m;
}

/* ---- the links that there can be ---- */

/* Some are slower than the others. */
static void link_add(struct sim *s, enum msg_lane lane, struct endpoint a, struct endpoint b)
{
    struct link *l = &s->links[s->n_links];
    uint64_t slower = s->setup.slow_links > 0 && sim_chance(s, s->setup.slow_links, 100)
                          ? sim_between(s, 2, 30)
                          : 1;

    *l = (struct link){ .end = { a, b },
                        .lane = lane,
                        .delay_min_usec = s->setup.delay_min_usec * slower,
                        .delay_max_usec = s->setup.delay_max_usec * slower,
                        .index = s->n_links++ };
}

static struct endpoint end_of(enum endpoint_kind kind, uint32_t node, uint32_t shard)
{
    return (struct endpoint){ (uint8_t) kind, (uint8_t) node, (uint8_t) shard };
}

/* The order here is what the functions that find a link count on. */
void net_init(struct sim *s)
{
    uint32_t all = SIM_SERVERS_MAX * SIM_SHARDS_MAX;

    s->links =
        mem_zalloc(_LANE_MAX * all * all + (SIM_CLIENTS_MAX + 1) * (all + 1) + SIM_SERVERS_MAX,
                   sizeof(*s->links));
    for (uint32_t i = 0; i < _LANE_MAX * all * all; i++) {
        uint32_t a = i / all % all;
        uint32_t b = i % all;
        link_add(s, (enum msg_lane)(i / (all * all)),
                 end_of(END_SHARD, a / SIM_SHARDS_MAX, a % SIM_SHARDS_MAX),
                 end_of(END_SHARD, b / SIM_SHARDS_MAX, b % SIM_SHARDS_MAX));
    }
    for (uint32_t c = 0; c <= SIM_CLIENTS_MAX; c++) {
        for (uint32_t j = 0; j < all; j++) {
            link_add(s, LANE_DATA, end_of(END_CLIENT, c, 0),
                     end_of(END_SHARD, j / SIM_SHARDS_MAX, j % SIM_SHARDS_MAX));
        }
    }
    for (uint32_t c = 0; c <= SIM_CLIENTS_MAX; c++) {
        link_add(s, LANE_DATA, end_of(END_CLIENT, c, 0), end_of(END_MANAGER, 0, 0));
    }
    for (uint32_t i = 0; i < SIM_SERVERS_MAX; i++) {
        link_add(s, LANE_DATA, end_of(END_SERVER, i, 0), end_of(END_MANAGER, 0, 0));
    }
    kumo_assert(s->n_links <= CONN_LINKS);
}

void net_heal(struct sim *s)
{
    for (uint32_t i = 0; i < s->n_links; i++) {
        s->links[i].delay_min_usec = s->setup.delay_min_usec;
        s->links[i].delay_max_usec = s->setup.delay_max_usec;
    }
}

void net_free(struct sim *s)
{
    free(s->links);
}

struct link *net_shard_link(struct sim *s, enum msg_lane lane, uint32_t a, uint32_t i, uint32_t b,
                            uint32_t j)
{
    uint32_t all = SIM_SERVERS_MAX * SIM_SHARDS_MAX;
    uint32_t x = a * SIM_SHARDS_MAX + i;
    uint32_t y = b * SIM_SHARDS_MAX + j;

    return &s->links[(uint32_t) lane * all * all + (x < y ? x * all + y : y * all + x)];
}

struct link *net_client_link(struct sim *s, uint32_t client, uint32_t server, uint32_t shard)
{
    uint32_t all = SIM_SERVERS_MAX * SIM_SHARDS_MAX;

    return &s->links[_LANE_MAX * all * all + client * all + server * SIM_SHARDS_MAX + shard];
}

struct link *net_manager_link(struct sim *s, struct endpoint end)
{
    uint32_t all = SIM_SERVERS_MAX * SIM_SHARDS_MAX;
    uint32_t base = _LANE_MAX * all * all + (SIM_CLIENTS_MAX + 1) * all;

    return &s->links[end.kind == END_CLIENT ? base + end.node
                                            : base + SIM_CLIENTS_MAX + 1 + end.node];
}

struct link *net_link_of_conn(struct sim *s, uint64_t conn)
{
    struct link *l = &s->links[conn % CONN_LINKS];

    return conn != 0 && l->conn == conn ? l : NULL;
}

struct link *net_past_link(struct sim *s, uint64_t conn)
{
    return &s->links[conn % CONN_LINKS];
}

unsigned net_side(const struct link *l, enum endpoint_kind kind, uint32_t node)
{
    return l->end[0].kind == kind && l->end[0].node == node ? 0 : 1;
}

/* ---- who is there ---- */

static struct process *end_process(struct sim *s, const struct endpoint *e)
{
    switch (e->kind) {
    case END_MANAGER:
        return &s->manager.process;
    case END_CLIENT:
        return &client_of(s, e->node)->process;
    default:
        return &s->servers[e->node].process;
    }
}

static bool end_is_there(struct sim *s, const struct endpoint *e)
{
    const struct server *sv;

    if (!end_process(s, e)->alive) {
        return false;
    }
    if (e->kind == END_MANAGER) {
        return s->manager.leader;
    }
    if (e->kind == END_CLIENT) {
        return true;
    }
    sv = &s->servers[e->node];
    return e->kind == END_SERVER ? sv->state >= LIFE_REGISTERING
                                 : sv->state == LIFE_RUNNING && e->shard < sv->n_shards;
}

static bool way_is_cut(const struct sim *s, const struct link *l, unsigned to)
{
    return cut_until(s, l->lane, &l->end[1 - to], &l->end[to]) > s->now_usec;
}

static uint32_t end_shards(struct sim *s, const struct endpoint *e)
{
    return e->kind == END_SHARD ? s->servers[e->node].n_shards : 0;
}

/* A client connects only to shards that its routing asked for; a server not to itself. */
static bool link_is_wanted(struct sim *s, const struct link *l)
{
    if (l->end[0].kind == END_SHARD) {
        return l->end[0].node < l->end[1].node;
    }
    return l->end[0].kind != END_CLIENT || l->end[1].kind != END_SHARD ||
           client_of(s, l->end[0].node)->wanted[l->end[1].node][l->end[1].shard];
}

/* ---- telling the ends ---- */

static void end_tell_up(struct sim *s, struct link *l, unsigned side, uint32_t shards)
{
    l->told[side] = l->conn;
    l->ready[side] = true;
    switch (l->end[side].kind) {
    case END_SERVER:
        server_link_up(s, l, side);
        break;
    case END_SHARD:
        shard_link_up(s, l, side);
        break;
    case END_CLIENT:
        client_link_up(s, l, side, shards);
        break;
    default:
        break;
    }
}

static void end_tell_down(struct sim *s, struct link *l, unsigned side)
{
    uint64_t conn = l->told[side];

    l->told[side] = 0;
    switch (l->end[side].kind) {
    case END_MANAGER:
        managers_link_down(s, conn);
        break;
    case END_SERVER:
        server_link_down(s, l, side);
        break;
    case END_CLIENT:
        client_link_down(s, l, side);
        break;
    default:
        break;
    }
}

/* e->number: the connection that is gone. */
static void told_down(struct sim *s, struct event *e)
{
    struct link *l = e->who;

    for (unsigned side = 0; side < 2; side++) {
        if (end_process(s, &l->end[side]) == e->process && l->told[side] == e->number) {
            end_tell_down(s, l, side);
            net_connect(s, l, sim_between(s, 1, 200) * USEC_PER_MSEC);
        }
    }
}

/* When an end learns that the connection is gone: where the network is cut, only by waiting. */
static uint64_t notice_draw(struct sim *s, const struct link *l, unsigned side,
                            uint64_t notice_usec)
{
    return sim_between(s, 0, way_is_cut(s, l, side) ? 3 * USEC_PER_SEC : notice_usec);
}

void net_break(struct sim *s, struct link *l, uint64_t notice_usec)
{
    if (l->conn == 0) {
        return;
    }
    l->conn = 0;
    l->ready[0] = l->ready[1] = false;
    for (unsigned side = 0; side < 2; side++) {
        struct process *p = end_process(s, &l->end[side]);
        if (p->alive && l->told[side] != 0) {
            sim_after(s, notice_draw(s, l, side, notice_usec), p, told_down, l, l->told[side],
                      NULL);
        }
    }
    net_connect(s, l, notice_usec + sim_between(s, 1, 300) * USEC_PER_MSEC);
}

/* ---- connecting ---- */

static void connect_now(struct sim *s, struct event *e)
{
    struct link *l = e->who;

    if (l->conn != 0 || !end_is_there(s, &l->end[0]) || !end_is_there(s, &l->end[1]) ||
        !link_is_wanted(s, l)) {
        return;
    }
    if (way_is_cut(s, l, 0) || way_is_cut(s, l, 1)) {
        net_connect(s, l, sim_between(s, 20, 300) * USEC_PER_MSEC);
        return;
    }
    for (unsigned side = 0; side < 2; side++) {
        if (l->told[side] != 0) {
            end_tell_down(s, l, side);
        }
    }
    l->conn = ++s->conns * CONN_LINKS + l->index;
    l->ready[0] = true; /* for its hello only; end_tell_up comes with the answer */
    net_send(s, l, 0, message_new(MESSAGE_HELLO, 0));
    l->ready[0] = false;
}

void net_connect(struct sim *s, struct link *l, uint64_t delay_usec)
{
    sim_after(s, delay_usec, NULL, connect_now, l, 0, NULL);
}

void net_up(struct sim *s, enum endpoint_kind kind, uint32_t node)
{
    for (uint32_t i = 0; i < s->n_links; i++) {
        struct link *l = &s->links[i];
        bool ours = (l->end[0].kind == kind && l->end[0].node == node) ||
                    (l->end[1].kind == kind && l->end[1].node == node);
        if (ours && l->conn == 0 && end_is_there(s, &l->end[0]) && end_is_there(s, &l->end[1]) &&
            link_is_wanted(s, l)) {
            net_connect(s, l, sim_between(s, 0, 50) * USEC_PER_MSEC);
        }
    }
}

void net_break_all(struct sim *s, enum endpoint_kind kind, uint32_t node, uint64_t notice_usec)
{
    for (uint32_t i = 0; i < s->n_links; i++) {
        struct link *l = &s->links[i];
        if ((l->end[0].kind == kind && l->end[0].node == node) ||
            (l->end[1].kind == kind && l->end[1].node == node)) {
            net_break(s, l, notice_usec);
        }
    }
}

void net_down(struct sim *s, enum endpoint_kind kind, uint32_t node, uint64_t notice_usec)
{
    for (uint32_t i = 0; i < s->n_links; i++) {
        struct link *l = &s->links[i];
        for (unsigned side = 0; side < 2; side++) {
            if (l->end[side].kind == kind && l->end[side].node == node) {
                net_break(s, l, notice_usec);
                l->told[side] = 0;
            }
        }
    }
}

/* ---- messages ---- */

static void hello(struct sim *s, struct link *l, unsigned side, struct message *m)
{
    end_tell_up(s, l, side, m->shards);
    if (side == 1 && l->conn != 0) {
        net_send(s, l, 1, message_new(MESSAGE_HELLO, 0));
    }
}

/* What was on its way when the connection broke arrives until this end has noticed. */
static bool arrives(const struct link *l, unsigned side, uint64_t conn, const struct message *m)
{
    return l->told[side] == conn || (m->kind == MESSAGE_HELLO && l->conn == conn);
}

/* When the network is whole again, in the same order; never, when whoever would send it again is
 * gone. */
static void deliver_again(struct sim *s, struct link *l, unsigned side, struct event *e)
{
    const struct process *from = end_process(s, &l->end[1 - side]);

    if (!from->alive || ((struct message *) e->data)->life != from->life) {
        s->counts.messages_lost++;
        return;
    }
    e->at_usec = cut_until(s, l->lane, &l->end[1 - side], &l->end[side]);
    l->last_usec[side] = MAX_OF(l->last_usec[side], e->at_usec);
    queue_push_again(&s->queue, e);
    e->data = NULL; /* kept */
}

/* e->number: connection and side (lowest bit). */
static void deliver(struct sim *s, struct event *e)
{
    struct link *l = e->who;
    unsigned side = e->number & 1;
    struct message *m = e->data;

    if (!arrives(l, side, e->number >> 1, m)) {
        s->counts.messages_lost++;
        return;
    }
    if (way_is_cut(s, l, side)) {
        deliver_again(s, l, side, e);
        return;
    }
    m->conn = e->number >> 1;
    if (m->kind == MESSAGE_HELLO) {
        hello(s, l, side, m);
        return;
    }
    switch (l->end[side].kind) {
    case END_MANAGER:
        managers_receive(s, l, side, m);
        break;
    case END_SERVER:
        server_receive(s, l, side, m);
        break;
    case END_SHARD:
        shard_receive(s, l, side, m);
        break;
    default:
        client_receive(s, l, side, m);
    }
}

void net_send(struct sim *s, struct link *l, unsigned from, struct message *m)
{
    unsigned to = 1 - from;
    uint64_t at;

    s->counts.messages++;
    if (l->conn == 0 || !l->ready[from]) {
        s->counts.messages_lost++;
        free(m);
        return;
    }
    m->shards = end_shards(s, &l->end[from]);
    m->life = end_process(s, &l->end[from])->life;
    at = s->now_usec + sim_between(s, l->delay_min_usec, l->delay_max_usec);
    if (at < l->last_usec[to]) {
        at = l->last_usec[to];
    }
    l->last_usec[to] = at;
    sim_after(s, at - s->now_usec, end_process(s, &l->end[to]), deliver, l, l->conn << 1 | to, m);
}
