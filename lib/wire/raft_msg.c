#include "wire/raft_msg.h"

#include "base/assert.h"

/* Begins reading an array of at least `items` items; returns how many more there are. */
static uint32_t array_begin(struct mp_reader *r, uint32_t items)
{
    uint32_t n = mp_get_array(r);

    if (n < items) {
        r->failed = true;
        return 0;
    }
    return n - items;
}

static uint64_t get_number(struct mp_reader *r)
{
    return mp_get_uint_max(r, RAFT_NUMBER_MAX);
}

static uint16_t get_u16(struct mp_reader *r)
{
    return (uint16_t) mp_get_uint_max(r, UINT16_MAX);
}

static uint8_t get_u8(struct mp_reader *r)
{
    return (uint8_t) mp_get_uint_max(r, UINT8_MAX);
}

/* ---- Raft's messages: [[kind, version, term, …], [entry…]] ---- */

#define COMMON_ITEMS 3

/* Items of each kind's head behind the common ones. */
static const uint8_t own_items[_RAFT_MSG_KIND_MAX] = {
    [RAFT_MSG_APPEND] = 3,      [RAFT_MSG_APPEND_RESULT] = 4, [RAFT_MSG_VOTE] = 5,
    [RAFT_MSG_VOTE_RESULT] = 4, [RAFT_MSG_SNAPSHOT] = 5,      [RAFT_MSG_TIMEOUT_NOW] = 2,
};

static void put_servers(struct buf *b, const struct raft_msg_server *servers, uint32_t n)
{
    mp_put_array(b, n);
    for (uint32_t i = 0; i < n; i++) {
        mp_put_array(b, 3);
        mp_put_uint(b, servers[i].id);
        mp_put_uint(b, servers[i].role);
        mp_put_str(b, servers[i].address);
    }
}

static uint32_t get_servers(struct mp_reader *r, struct raft_msg_server *ret)
{
    uint32_t n = mp_get_array(r);

    if (n == 0 || n > MANAGERS_MAX) {
        r->failed = true;
        return 0;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t left = array_begin(r, 3);
        ret[i].id = get_number(r);
        ret[i].role = get_u8(r);
        mp_get_str(r, ret[i].address, sizeof(ret[i].address));
        mp_skip_n(r, left);
        if (ret[i].id == 0 || ret[i].address[0] == '\0') {
            r->failed = true;
        }
    }
    return r->failed ? 0 : n;
}

static void put_own(struct buf *b, const struct raft_msg *m)
{
    switch ((enum raft_msg_kind) m->kind) {
    case RAFT_MSG_APPEND:
        mp_put_uint(b, m->append.prev_index);
        mp_put_uint(b, m->append.prev_term);
        mp_put_uint(b, m->append.commit);
        return;
    case RAFT_MSG_APPEND_RESULT:
        mp_put_uint(b, m->append_result.rejected);
        mp_put_uint(b, m->append_result.last_index);
        mp_put_uint(b, m->append_result.features);
        mp_put_uint(b, m->append_result.capacity);
        return;
    case RAFT_MSG_VOTE:
        mp_put_uint(b, m->vote.candidate);
        mp_put_uint(b, m->vote.last_index);
        mp_put_uint(b, m->vote.last_term);
        mp_put_bool(b, m->vote.disrupt_leader);
        mp_put_bool(b, m->vote.pre_vote);
        return;
    case RAFT_MSG_VOTE_RESULT:
        mp_put_bool(b, m->vote_result.granted);
        mp_put_bool(b, m->vote_result.pre_vote);
        mp_put_uint(b, m->vote_result.features);
        mp_put_uint(b, m->vote_result.capacity);
        return;
    case RAFT_MSG_SNAPSHOT:
        mp_put_uint(b, m->snapshot.last_index);
        mp_put_uint(b, m->snapshot.last_term);
        mp_put_uint(b, m->snapshot.conf_index);
        put_servers(b, m->snapshot.servers, m->snapshot.n_servers);
        mp_put_bin(b, m->snapshot.data, m->snapshot.bytes);
        return;
    case RAFT_MSG_TIMEOUT_NOW:
        mp_put_uint(b, m->timeout_now.last_index);
        mp_put_uint(b, m->timeout_now.last_term);
        return;
    case _RAFT_MSG_KIND_MAX:
    case _RAFT_MSG_KIND_INVALID:
        break;
    }
    kumo_unreachable();
}

static void get_own(struct mp_reader *r, struct raft_msg *ret)
{
    switch (ret->kind) {
    case RAFT_MSG_APPEND:
        ret->append.prev_index = get_number(r);
        ret->append.prev_term = get_number(r);
        ret->append.commit = get_number(r);
        return;
    case RAFT_MSG_APPEND_RESULT:
        ret->append_result.rejected = get_number(r);
        ret->append_result.last_index = get_number(r);
        ret->append_result.features = get_u16(r);
        ret->append_result.capacity = get_u16(r);
        return;
    case RAFT_MSG_VOTE:
        ret->vote.candidate = get_number(r);
        ret->vote.last_index = get_number(r);
        ret->vote.last_term = get_number(r);
        ret->vote.disrupt_leader = mp_get_bool(r);
        ret->vote.pre_vote = mp_get_bool(r);
        return;
    case RAFT_MSG_VOTE_RESULT:
        ret->vote_result.granted = mp_get_bool(r);
        ret->vote_result.pre_vote = mp_get_bool(r);
        ret->vote_result.features = get_u16(r);
        ret->vote_result.capacity = get_u16(r);
        return;
    case RAFT_MSG_SNAPSHOT:
        ret->snapshot.last_index = get_number(r);
        ret->snapshot.last_term = get_number(r);
        ret->snapshot.conf_index = get_number(r);
        ret->snapshot.n_servers = get_servers(r, ret->snapshot.servers);
        ret->snapshot.data = mp_get_bin(r, MSG_BYTES_MAX, &ret->snapshot.bytes);
        r->failed |= ret->snapshot.bytes == 0 || ret->snapshot.last_index == 0;
        return;
    case RAFT_MSG_TIMEOUT_NOW:
        ret->timeout_now.last_index = get_number(r);
        ret->timeout_now.last_term = get_number(r);
        return;
    default:
        r->failed = true;
    }
}

void raft_msg_put(struct buf *b, const struct raft_msg *m)
{
    kumo_assert(m->kind < _RAFT_MSG_KIND_MAX);
    kumo_assert(m->n_entries == 0 || m->kind == RAFT_MSG_APPEND);
    mp_put_array(b, 2);
    mp_put_array(b, COMMON_ITEMS + own_items[m->kind]);
    mp_put_uint(b, m->kind);
    mp_put_uint(b, m->version);
    mp_put_uint(b, m->term);
    put_own(b, m);
    mp_put_array(b, m->n_entries);
}

void raft_msg_get(struct mp_reader *r, struct raft_msg *ret)
{
    uint32_t items;

    *ret = (struct raft_msg){ 0 };
    mp_get_array_exact(r, 2);
    items = mp_get_array(r);
    ret->kind = get_u8(r);
    if (ret->kind >= _RAFT_MSG_KIND_MAX || items < COMMON_ITEMS + (uint32_t) own_items[ret->kind]) {
        r->failed = true;
        return;
    }
    ret->version = get_u8(r);
    ret->term = get_number(r);
    get_own(r, ret);
    mp_skip_n(r, items - COMMON_ITEMS - own_items[ret->kind]);
    ret->n_entries = mp_get_array(r);
    if (r->failed || (ret->n_entries > 0 && ret->kind != RAFT_MSG_APPEND)) {
        r->failed = true;
        ret->n_entries = 0;
    }
}

void raft_msg_put_entry(struct buf *b, const struct raft_msg_entry *e)
{
    mp_put_array(b, 3);
    mp_put_uint(b, e->term);
    mp_put_uint(b, e->kind);
    mp_put_bin(b, e->p, e->bytes);
}

void raft_msg_get_entry(struct mp_reader *r, struct raft_msg_entry *ret)
{
    uint32_t left = array_begin(r, 3);

    *ret = (struct raft_msg_entry){ .term = get_number(r) };
    ret->kind = (uint8_t) mp_get_uint_max(r, _RAFT_ENTRY_KIND_MAX - 1);
    ret->p = mp_get_bin(r, RAFT_ENTRY_BYTES_MAX, &ret->bytes);
    mp_skip_n(r, left);
    if (ret->term == 0 || ret->kind == 0 || ret->bytes == 0 || ret->bytes % RAFT_ENTRY_ALIGN != 0) {
        r->failed = true;
    }
}

/* ---- who a manager is ---- */

void msg_put_manager(struct buf *b, const struct msg_manager *m)
{
    mp_put_array(b, 4);
    mp_put_uint(b, m->number);
    mp_put_bin(b, m->id, UUID_BYTES);
    mp_put_bool(b, m->begun);
    mp_put_array(b, m->n);
    for (uint32_t i = 0; i < m->n; i++) {
        mp_put_array(b, 2);
        mp_put_str(b, m->members[i].address);
        mp_put_bin(b, m->members[i].id, UUID_BYTES);
    }
}

static uint32_t get_count(struct mp_reader *r)
{
    uint32_t n = mp_get_array(r);

    if (n > MANAGERS_MAX) {
        r->failed = true;
    }
    return r->failed ? 0 : n;
}

void msg_get_manager(struct mp_reader *r, struct msg_manager *ret)
{
    uint32_t left = array_begin(r, 4);

    *ret = (struct msg_manager){ .number = (uint32_t) mp_get_uint_max(r, MANAGERS_MAX) };
    mp_get_bin_exact(r, ret->id, UUID_BYTES);
    ret->begun = mp_get_bool(r);
    ret->n = get_count(r);
    for (uint32_t i = 0; i < ret->n; i++) {
        uint32_t more = array_begin(r, 2);
        mp_get_str(r, ret->members[i].address, sizeof(ret->members[i].address));
        mp_get_bin_exact(r, ret->members[i].id, UUID_BYTES);
        mp_skip_n(r, more);
    }
    mp_skip_n(r, left);
    if (ret->number == 0 || ret->number > ret->n) {
        r->failed = true;
    }
}

/* ---- for kumoctl ---- */

#define MANAGERS_ITEMS 8

void msg_put_managers(struct buf *b, const struct msg_managers *m)
{
    mp_put_array(b, MANAGERS_ITEMS);
    mp_put_str(b, m->version);
    mp_put_uint(b, m->number);
    mp_put_uint(b, m->role);
    mp_put_uint(b, m->term);
    mp_put_uint(b, m->leader);
    mp_put_uint(b, m->applied);
    mp_put_uint(b, m->uptime_usec);
    mp_put_array(b, m->n);
    for (uint32_t i = 0; i < m->n; i++) {
        mp_put_array(b, 2);
        mp_put_str(b, m->members[i].address);
        mp_put_bool(b, m->members[i].reachable);
    }
}

void msg_get_managers(struct mp_reader *r, struct msg_managers *ret)
{
    uint32_t left = array_begin(r, MANAGERS_ITEMS);

    *ret = (struct msg_managers){ 0 };
    mp_get_str(r, ret->version, sizeof(ret->version));
    ret->number = (uint32_t) mp_get_uint_max(r, MANAGERS_MAX);
    ret->role = (uint8_t) mp_get_uint_max(r, _MANAGER_ROLE_MAX - 1);
    ret->term = get_number(r);
    ret->leader = (uint32_t) mp_get_uint_max(r, MANAGERS_MAX);
    ret->applied = get_number(r);
    ret->uptime_usec = mp_get_uint(r);
    ret->n = get_count(r);
    for (uint32_t i = 0; i < ret->n; i++) {
        uint32_t more = array_begin(r, 2);
        mp_get_str(r, ret->members[i].address, sizeof(ret->members[i].address));
        ret->members[i].reachable = mp_get_bool(r);
        mp_skip_n(r, more);
    }
    mp_skip_n(r, left);
    if (ret->role == 0 || ret->number == 0 || ret->number > ret->n) {
        r->failed = true;
    }
}
