#include "core/cluster.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "core/placement.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- commands as bytes ---- */

void cluster_put_form(struct buf *b, const uint8_t cluster_id[UUID_BYTES], uint32_t partitions,
                      uint32_t replicas)
{
    mp_put_array(b, 4);
    mp_put_uint(b, CLUSTER_FORM);
    mp_put_bin(b, cluster_id, UUID_BYTES);
    mp_put_uint(b, partitions);
    mp_put_uint(b, replicas);
}

void cluster_put_register(struct buf *b, const struct msg_register *m)
{
    mp_put_array(b, 2);
    mp_put_uint(b, CLUSTER_REGISTER);
    msg_put_register(b, m);
}

void cluster_put_attach(struct buf *b, uint32_t replicas, const uint32_t *servers, uint32_t n)
{
    mp_put_array(b, 3);
    mp_put_uint(b, CLUSTER_ATTACH);
    mp_put_uint(b, replicas);
    mp_put_array(b, n);
    for (uint32_t i = 0; i < n; i++) {
        mp_put_uint(b, servers[i]);
    }
}

void cluster_put_views(struct buf *b, const struct cluster *c, const struct view_row *rows,
                       size_t n)
{
    mp_put_array(b, 3);
    mp_put_uint(b, CLUSTER_VIEWS);
    mp_put_array(b, c->space.n_servers);
    for (uint32_t i = 0; i < c->space.n_servers; i++) {
        mp_put_uint(b, c->space.servers[i].incarnation);
    }
    mp_put_array(b, (uint32_t) n);
    for (size_t i = 0; i < n; i++) {
        msg_put_view_row(b, &rows[i]);
    }
}

void cluster_put_session(struct buf *b)
{
    mp_put_array(b, 1);
    mp_put_uint(b, CLUSTER_SESSION);
}

void cluster_put_expire(struct buf *b, const uint64_t *sessions, uint32_t n)
{
    kumo_assert(n <= CLUSTER_EXPIRE_MAX);
    mp_put_array(b, 2);
    mp_put_uint(b, CLUSTER_EXPIRE);
    msg_put_session_ids(b, sessions, n);
}

/* ---- applying ---- */

static void apply_form(struct cluster *c, struct mp_reader *r)
{
    uint8_t id[UUID_BYTES];
    uint32_t partitions;
    uint32_t replicas;

    mp_get_bin_exact(r, id, UUID_BYTES);
    partitions = (uint32_t) mp_get_uint_max(r, PARTITIONS_MAX);
    replicas = (uint32_t) mp_get_uint_max(r, REPLICAS_MAX);
    if (r->failed || c->space.n_partitions > 0 || partitions == 0 || replicas == 0 ||
        (partitions & (partitions - 1)) != 0) {
        return;
    }
    memcpy(c->space.cluster_id, id, UUID_BYTES);
    hashspace_set_partitions(&c->space, partitions);
    c->formed = mem_zalloc(partitions, sizeof(*c->formed));
    c->replicas = replicas;
    c->space.epoch++;
}

uint32_t cluster_find(const struct cluster *c, const uint8_t id[UUID_BYTES])
{
    for (uint32_t i = 0; i < c->space.n_servers; i++) {
        if (memcmp(c->servers[i].id, id, UUID_BYTES) == 0) {
            return i + 1;
        }
    }
    return 0;
}

/* The process that is known, or a later start of one that never learned that it was accepted. */
static bool is_same_start(const struct cluster_server *known, const struct msg_register *m)
{
    bool same = m->random == known->random;

    for (uint32_t i = 0; i < m->n_priors; i++) {
        same = same || m->priors[i] == known->random;
    }
    return same;
}

uint32_t cluster_attached(const struct cluster *c, uint32_t servers[SERVERS_MAX])
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < c->space.n_servers; i++) {
        if (c->space.servers[i].state == SERVER_ATTACHED) {
            servers[n++] = i + 1;
        }
    }
    return n;
}

const char *cluster_refuses(const struct cluster *c, const struct msg_register *m)
{
    uint32_t server = cluster_find(c, m->server_id);
    const struct hashspace_server *known = hashspace_server(&c->space, server);

    if (c->space.n_partitions == 0) {
        return "the cluster is not formed yet";
    }
    if (!known) {
        return c->space.n_servers >= SERVERS_MAX ? "too many servers" : NULL;
    }
    if (m->counter > known->incarnation ||
        (m->counter == known->incarnation && is_same_start(&c->servers[server - 1], m))) {
        return NULL;
    }
    return "a newer process of this server was here: this one is a clone or runs on restored data";
}

static void apply_register(struct cluster *c, struct mp_reader *r, struct cluster_effect *effect)
{
    struct hashspace_server s = { .state = SERVER_NEW };
    struct msg_register m;
    uint32_t server;

    msg_get_register(r, &m);
    if (r->failed || cluster_refuses(c, &m)) {
        return;
    }
    server = cluster_find(c, m.server_id);
    if (server == 0) {
        server = c->space.n_servers + 1;
        c->servers = mem_realloc(c->servers, server * sizeof(*c->servers));
        c->servers[server - 1] = (struct cluster_server){ 0 };
        memcpy(c->servers[server - 1].id, m.server_id, UUID_BYTES);
    } else {
        s = c->space.servers[server - 1];
    }
    c->space.epoch++;
    if (s.incarnation != m.counter || c->servers[server - 1].random != m.random) {
        c->servers[server - 1].epoch = c->space.epoch;
    }
    s.server = server;
    s.shards = m.shards;
    s.incarnation = m.counter;
    memcpy(s.name, m.name, sizeof(s.name));
    memcpy(s.address, m.address, sizeof(s.address));
    c->servers[server - 1].random = m.random;
    hashspace_set_server(&c->space, &s);
    effect->servers = true;
}

/* The row takes the place of the one that stands, in the epoch that this command makes. */
static void row_set(struct cluster *c, const struct view_row *row, struct cluster_effect *effect)
{
    effect->before[effect->n_rows] = c->space.rows[row->partition];
    effect->rows[effect->n_rows++] = row->partition;
    c->space.rows[row->partition] = *row;
    c->formed[row->partition] = c->space.epoch + 1;
}

static void apply_attach(struct cluster *c, struct mp_reader *r, struct cluster_effect *effect)
{
    uint32_t replicas = (uint32_t) mp_get_uint_max(r, REPLICAS_MAX);
    uint32_t n = mp_get_array(r);
    uint32_t servers[SERVERS_MAX];

    if (r->failed || n == 0 || n > SERVERS_MAX || replicas == 0 || replicas > n ||
        c->space.n_partitions == 0 || c->space.rows[0].view > 0) {
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        servers[i] = (uint32_t) mp_get_uint_max(r, c->space.n_servers);
        if (r->failed || servers[i] == 0 || (i > 0 && servers[i] <= servers[i - 1])) {
            return;
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        c->space.servers[servers[i] - 1].state = SERVER_ATTACHED;
    }
    for (uint32_t p = 0; p < c->space.n_partitions; p++) {
        struct view_row row = { 0 };
        placement_first((uint16_t) p, c->space.n_partitions, servers, n, replicas, &row);
        row_set(c, &row, effect);
    }
    c->replicas = replicas;
    c->space.epoch++;
    effect->servers = true;
}

bool cluster_is_restarted(const struct cluster *c, uint32_t server, uint16_t partition)
{
    return c->servers[server - 1].epoch > c->formed[partition];
}

/* R9, R11: the row follows the one that stands, by one view, and one of that one's members at least
 * stays; nobody comes in but as a learner. */
static bool row_follows(const struct cluster *c, const struct view_row *row)
{
    const struct view_row *old;
    unsigned stay = 0;

    if (row->partition >= c->space.n_partitions) {
        return false;
    }
    old = &c->space.rows[row->partition];
    if (old->view == 0 || row->view != old->view + 1) {
        return false;
    }
    for (unsigned i = 0; i < row->n_members; i++) {
        if (!hashspace_row_has(old, row->members[i])) {
            return false;
        }
        stay += hashspace_member_slot(old, row->members[i]) >= 0;
    }
    return stay > 0;
}

/* All members and learners are known servers, and none is there twice. */
static bool row_is_sound(const struct cluster *c, const struct view_row *row)
{
    for (unsigned i = 0; i < row->n_members; i++) {
        if (!hashspace_server(&c->space, row->members[i]) ||
            hashspace_member_slot(row, row->members[i]) != (int) i ||
            hashspace_learner_slot(row, row->members[i]) >= 0) {
            return false;
        }
    }
    for (unsigned i = 0; i < row->n_learners; i++) {
        if (!hashspace_server(&c->space, row->learners[i]) ||
            hashspace_learner_slot(row, row->learners[i]) != (int) i) {
            return false;
        }
    }
    return true;
}

/* The members' processes are those that the row was made for. */
static bool row_is_fresh(const struct cluster *c, const struct view_row *row,
                         const uint64_t *incarnations, uint32_t n_incarnations)
{
    for (unsigned i = 0; i < row->n_members; i++) {
        const struct hashspace_server *s = hashspace_server(&c->space, row->members[i]);
        if (s->server > n_incarnations || incarnations[s->server - 1] != s->incarnation) {
            return false;
        }
    }
    return true;
}

static void apply_views(struct cluster *c, struct mp_reader *r, struct cluster_effect *effect)
{
    uint64_t incarnations[SERVERS_MAX];
    uint32_t n_servers = mp_get_array(r);
    struct view_row row;
    uint32_t n;

    if (n_servers > SERVERS_MAX) {
        return;
    }
    for (uint32_t i = 0; i < n_servers; i++) {
        incarnations[i] = mp_get_uint(r);
    }
    n = mp_get_array(r);
    if (n > PARTITIONS_MAX) {
        return; /* the effect has no room for more */
    }
    for (uint32_t i = 0; i < n && !r->failed; i++) {
        msg_get_view_row(r, &row);
        if (!r->failed && row_follows(c, &row) && row_is_sound(c, &row) &&
            row_is_fresh(c, &row, incarnations, n_servers)) {
            row_set(c, &row, effect);
        }
    }
    c->space.epoch += effect->n_rows > 0;
}

static void apply_session(struct cluster *c, uint64_t index, struct cluster_effect *effect)
{
    if (live_sessions_open(&c->sessions, index) == 0) {
        effect->opened = index;
    }
}

static void apply_expire(struct cluster *c, uint64_t index, struct mp_reader *r,
                         struct cluster_effect *effect)
{
    uint32_t n = mp_get_array(r);

    if (n > CLUSTER_EXPIRE_MAX) {
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint64_t id = mp_get_uint(r);
        if (!r->failed && live_sessions_end(&c->sessions, id, index)) {
            effect->ended[effect->n_ended++] = id;
        }
    }
}

void cluster_apply(struct cluster *c, uint64_t index, const uint8_t *data, size_t bytes,
                   struct cluster_effect *effect)
{
    struct mp_reader r = mp_reader_of(data, bytes);
    uint32_t items = mp_get_array(&r);
    uint64_t command = items > 0 ? mp_get_uint(&r) : 0;

    effect->servers = false;
    effect->n_rows = 0;
    effect->opened = 0;
    effect->n_ended = 0;
    switch (command) {
    case CLUSTER_FORM:
        apply_form(c, &r);
        return;
    case CLUSTER_REGISTER:
        apply_register(c, &r, effect);
        return;
    case CLUSTER_ATTACH:
        apply_attach(c, &r, effect);
        return;
    case CLUSTER_VIEWS:
        apply_views(c, &r, effect);
        return;
    case CLUSTER_SESSION:
        apply_session(c, index, effect);
        return;
    case CLUSTER_EXPIRE:
        apply_expire(c, index, &r, effect);
        return;
    default: /* of a newer version, or garbage: ignored by all alike */
        return;
    }
}

/* ---- snapshots ---- */

#define SNAPSHOT_ITEMS_FIRST 4 /* of the first version */
#define SNAPSHOT_ITEMS       6u

static void put_server(struct buf *b, const struct cluster_server *s)
{
    mp_put_array(b, 3);
    mp_put_bin(b, s->id, UUID_BYTES);
    mp_put_uint(b, s->random);
    mp_put_uint(b, s->epoch);
}

static void get_server(struct mp_reader *r, struct cluster_server *ret)
{
    uint32_t items = mp_get_array(r);

    mp_get_bin_exact(r, ret->id, UUID_BYTES);
    ret->random = mp_get_uint(r);
    if (items < 2) {
        r->failed = true;
    } else if (items > 2) {
        ret->epoch = mp_get_uint(r);
        mp_skip_n(r, items - 3);
    }
}

static void put_formed(struct buf *b, const struct cluster *c)
{
    mp_put_array(b, c->space.n_partitions);
    for (uint32_t p = 0; p < c->space.n_partitions; p++) {
        mp_put_uint(b, c->formed[p]);
    }
}

static void get_formed(struct mp_reader *r, struct cluster *c)
{
    uint32_t n = mp_get_array(r);

    if (n != c->space.n_partitions) {
        r->failed = true;
        return;
    }
    for (uint32_t p = 0; p < n; p++) {
        c->formed[p] = mp_get_uint(r);
    }
}

void cluster_put(struct buf *b, const struct cluster *c)
{
    mp_put_array(b, SNAPSHOT_ITEMS);
    hashspace_put(b, &c->space, NULL, 0);
    mp_put_array(b, c->space.n_servers);
    for (uint32_t i = 0; i < c->space.n_servers; i++) {
        put_server(b, &c->servers[i]);
    }
    mp_put_uint(b, c->replicas);
    mp_put_uint(b, c->sessions.n);
    put_formed(b, c);
    mp_put_array(b, 2);
    mp_put_uint(b, c->sessions.index);
    msg_put_session_ids(b, c->sessions.ids, (uint32_t) c->sessions.n);
}

/* Earlier versions wrote their number only: those are over, gateways open others. */
static void get_sessions(struct mp_reader *r, struct live_sessions *l)
{
    uint64_t before = 0;
    uint32_t n;

    mp_get_array_exact(r, 2);
    l->index = mp_get_uint(r);
    n = mp_get_array(r);
    for (uint32_t i = 0; i < n && !r->failed; i++) {
        uint64_t id = mp_get_uint(r);
        if (id <= before || id > l->index || l->n >= SESSIONS_MAX) {
            r->failed = true;
            return;
        }
        before = id;
        mem_grow(&l->ids, &l->cap, l->n + 1, sizeof(*l->ids));
        l->ids[l->n++] = id;
    }
}

int cluster_get(struct mp_reader *r, struct cluster *c)
{
    uint32_t items = mp_get_array(r);
    uint32_t n;

    if (items < SNAPSHOT_ITEMS_FIRST || hashspace_merge(&c->space, r) < 0) {
        return -EBADMSG;
    }
    n = mp_get_array(r);
    if (n != c->space.n_servers) {
        return -EBADMSG;
    }
    c->servers = mem_zalloc(n, sizeof(*c->servers));
    for (uint32_t i = 0; i < n; i++) {
        get_server(r, &c->servers[i]);
    }
    c->formed = mem_zalloc(c->space.n_partitions, sizeof(*c->formed));
    c->replicas = (uint32_t) mp_get_uint_max(r, REPLICAS_MAX);
    (void) mp_get_uint(r); /* how many sessions */
    if (items > SNAPSHOT_ITEMS_FIRST) {
        get_formed(r, c);
    }
    if (items >= SNAPSHOT_ITEMS) {
        get_sessions(r, &c->sessions);
    }
    mp_skip_n(r, items - MIN_OF(items, SNAPSHOT_ITEMS));
    return r->failed ? -EBADMSG : 0;
}

void cluster_free(struct cluster *c)
{
    hashspace_free(&c->space);
    live_sessions_free(&c->sessions);
    free(c->servers);
    free(c->formed);
    *c = (struct cluster){ 0 };
}
