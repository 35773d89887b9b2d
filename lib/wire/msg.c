#include "wire/msg.h"

#include <string.h>

/* Begins reading an array of at least `items` items; what is left beyond them is skipped by
 * array_end. */
static uint32_t array_begin(struct mp_reader *r, uint32_t items)
{
    uint32_t n = mp_get_array(r);

    if (n < items) {
        r->failed = true;
        return 0;
    }
    return n - items;
}

static void array_end(struct mp_reader *r, uint32_t left)
{
    mp_skip_n(r, left);
}

static uint32_t get_u32(struct mp_reader *r)
{
    return (uint32_t) mp_get_uint_max(r, UINT32_MAX);
}

static uint16_t get_partition(struct mp_reader *r)
{
    return (uint16_t) mp_get_uint_max(r, PARTITIONS_MAX - 1);
}

static void put_name(struct buf *b, struct name n)
{
    mp_put_uint(b, n.view);
    mp_put_uint(b, n.seq);
}

static struct name get_name(struct mp_reader *r)
{
    uint32_t view = get_u32(r);

    return (struct name){ .view = view, .seq = mp_get_uint(r) };
}

void msg_put_hello(struct buf *b, const struct msg_hello *h)
{
    mp_put_array(b, 11);
    mp_put_uint(b, h->protocol_min);
    mp_put_uint(b, h->protocol_max);
    mp_put_uint(b, h->role);
    mp_put_bin(b, h->cluster_id, UUID_BYTES);
    mp_put_uint(b, h->server);
    mp_put_uint(b, h->incarnation);
    mp_put_uint(b, h->shard);
    mp_put_uint(b, h->shards);
    mp_put_uint(b, h->clock_usec);
    mp_put_uint(b, h->lane);
    mp_put_uint(b, h->from_shard);
}

void msg_get_hello(struct mp_reader *r, struct msg_hello *ret)
{
    uint32_t left = array_begin(r, 9);

    ret->protocol_min = get_u32(r);
    ret->protocol_max = get_u32(r);
    ret->role = (uint32_t) mp_get_uint_max(r, _ROLE_MAX - 1);
    mp_get_bin_exact(r, ret->cluster_id, UUID_BYTES);
    ret->server = get_u32(r);
    ret->incarnation = mp_get_uint(r);
    ret->shard = get_u32(r);
    ret->shards = (uint32_t) mp_get_uint_max(r, SHARDS_MAX);
    ret->clock_usec = mp_get_uint(r);
    ret->lane = LANE_DATA;
    if (left > 0) {
        ret->lane = (uint8_t) mp_get_uint_max(r, _LANE_MAX - 1);
        left--;
    }
    ret->from_shard = SHARD_NONE;
    if (left > 0) {
        ret->from_shard = get_u32(r);
        left--;
    }
    array_end(r, left);
}

void msg_get_hello_answer(struct mp_reader *r, uint32_t role, struct msg_hello *ret)
{
    msg_get_hello(r, ret);
    if (!r->failed && (ret->role != role || ret->protocol_min > MSG_PROTOCOL_MAX ||
                       ret->protocol_min < MSG_PROTOCOL_MIN)) {
        r->failed = true;
    }
}

void msg_put_at(struct buf *b, const struct msg_at *a)
{
    mp_put_array(b, 3);
    mp_put_uint(b, a->partition);
    mp_put_uint(b, a->view);
    mp_put_uint(b, a->seq);
}

void msg_get_at(struct mp_reader *r, struct msg_at *ret)
{
    uint32_t left = array_begin(r, 3);

    ret->partition = get_partition(r);
    ret->view = get_u32(r);
    ret->seq = mp_get_uint(r);
    array_end(r, left);
}

static void put_servers(struct buf *b, const uint32_t *servers, uint32_t n)
{
    mp_put_array(b, n);
    for (uint32_t i = 0; i < n; i++) {
        mp_put_uint(b, servers[i]);
    }
}

static uint8_t get_servers(struct mp_reader *r, uint32_t *servers, uint32_t max)
{
    uint32_t n = mp_get_array(r);

    if (n > max) {
        r->failed = true;
    }
    for (uint32_t i = 0; i < n && !r->failed; i++) {
        servers[i] = get_u32(r);
    }
    return r->failed ? 0 : (uint8_t) n;
}

void msg_put_view_row(struct buf *b, const struct view_row *v)
{
    mp_put_array(b, 5);
    mp_put_uint(b, v->partition);
    mp_put_uint(b, v->view);
    put_servers(b, v->members, v->n_members);
    mp_put_uint(b, v->time_usec);
    put_servers(b, v->learners, v->n_learners);
}

void msg_get_view_row(struct mp_reader *r, struct view_row *ret)
{
    uint32_t left = array_begin(r, 4);

    *ret = (struct view_row){ .partition = get_partition(r) };
    ret->view = get_u32(r);
    ret->n_members = get_servers(r, ret->members, REPLICAS_MAX);
    ret->time_usec = mp_get_uint(r);
    if (left > 0) { /* rows in logs of the first version end here */
        ret->n_learners = get_servers(r, ret->learners, LEARNERS_MAX);
        left--;
    }
    array_end(r, left);
}

void msg_put_sealed(struct buf *b, const struct msg_sealed *s)
{
    mp_put_array(b, 8);
    mp_put_uint(b, s->partition);
    mp_put_uint(b, s->view);
    put_name(b, s->last);
    mp_put_uint(b, s->time_usec);
    put_name(b, s->commit);
    mp_put_bool(b, s->trusted);
}

void msg_get_sealed(struct mp_reader *r, struct msg_sealed *ret)
{
    uint32_t left = array_begin(r, 8);

    ret->partition = get_partition(r);
    ret->view = get_u32(r);
    ret->last = get_name(r);
    ret->time_usec = mp_get_uint(r);
    ret->commit = get_name(r);
    ret->trusted = mp_get_bool(r);
    array_end(r, left);
}

void msg_put_reconfig(struct buf *b, const struct msg_reconfig *m)
{
    mp_put_array(b, 5);
    mp_put_uint(b, m->partition);
    mp_put_uint(b, m->view);
    mp_put_uint(b, m->kind);
    mp_put_uint(b, m->server);
    mp_put_uint(b, m->incarnation);
}

void msg_get_reconfig(struct mp_reader *r, struct msg_reconfig *ret)
{
    uint32_t left = array_begin(r, 5);

    ret->partition = get_partition(r);
    ret->view = get_u32(r);
    ret->kind = (uint8_t) mp_get_uint_max(r, _RECONFIG_MAX - 1);
    ret->server = get_u32(r);
    ret->incarnation = mp_get_uint(r);
    array_end(r, left);
}

void msg_put_register(struct buf *b, const struct msg_register *m)
{
    mp_put_array(b, 7);
    mp_put_bin(b, m->server_id, UUID_BYTES);
    mp_put_uint(b, m->counter);
    mp_put_uint(b, m->random);
    mp_put_uint(b, m->shards);
    mp_put_str(b, m->name);
    mp_put_str(b, m->address);
    mp_put_array(b, m->n_priors);
    for (uint32_t i = 0; i < m->n_priors; i++) {
        mp_put_uint(b, m->priors[i]);
    }
}

void msg_get_register(struct mp_reader *r, struct msg_register *ret)
{
    uint32_t left = array_begin(r, 7);

    mp_get_bin_exact(r, ret->server_id, UUID_BYTES);
    ret->counter = mp_get_uint(r);
    ret->random = mp_get_uint(r);
    ret->shards = (uint32_t) mp_get_uint_max(r, SHARDS_MAX);
    mp_get_str(r, ret->name, sizeof(ret->name));
    mp_get_str(r, ret->address, sizeof(ret->address));
    ret->n_priors = mp_get_array(r);
    if (ret->n_priors > PRIORS_MAX) {
        ret->n_priors = 0;
        r->failed = true;
    }
    for (uint32_t i = 0; i < ret->n_priors; i++) {
        ret->priors[i] = mp_get_uint(r);
    }
    array_end(r, left);
    if (ret->shards == 0 || ret->name[0] == 0 || ret->address[0] == 0) {
        r->failed = true;
    }
}

void msg_put_registered(struct buf *b, const struct msg_registered *m)
{
    mp_put_array(b, 3);
    mp_put_bin(b, m->cluster_id, UUID_BYTES);
    mp_put_uint(b, m->server);
    mp_put_uint(b, m->partitions);
}

void msg_get_registered(struct mp_reader *r, struct msg_registered *ret)
{
    uint32_t left = array_begin(r, 3);

    mp_get_bin_exact(r, ret->cluster_id, UUID_BYTES);
    ret->server = get_u32(r);
    ret->partitions = (uint32_t) mp_get_uint_max(r, PARTITIONS_MAX);
    array_end(r, left);
    if (ret->server == 0 || ret->partitions == 0) {
        r->failed = true;
    }
}

void msg_put_session_ids(struct buf *b, const uint64_t *ids, uint32_t n)
{
    mp_put_array(b, n);
    for (uint32_t i = 0; i < n; i++) {
        mp_put_uint(b, ids[i]);
    }
}

uint32_t msg_get_session_ids(struct mp_reader *r, uint64_t *ids)
{
    uint32_t n = mp_get_array(r);

    if (n > SESSIONS_MAX) {
        r->failed = true;
    }
    for (uint32_t i = 0; i < n && !r->failed; i++) {
        ids[i] = mp_get_uint(r);
    }
    return r->failed ? 0 : n;
}

void msg_put_sessions(struct buf *b, const struct msg_sessions *m)
{
    mp_put_array(b, 4);
    mp_put_uint(b, m->index);
    mp_put_bool(b, m->whole);
    msg_put_session_ids(b, m->ids, m->n_opened);
    msg_put_session_ids(b, m->ids + m->n_opened, m->n_ended);
}

void msg_get_sessions(struct mp_reader *r, uint64_t *ids, struct msg_sessions *ret)
{
    uint32_t left = array_begin(r, 4);

    *ret = (struct msg_sessions){ .index = mp_get_uint(r), .ids = ids };
    ret->whole = mp_get_bool(r);
    ret->n_opened = msg_get_session_ids(r, ids);
    ret->n_ended = msg_get_session_ids(r, ids + ret->n_opened);
    array_end(r, left);
}

void msg_put_op(struct buf *b, const struct op *o)
{
    mp_put_array(b, o->code == OP_GET ? 3 : 9);
    mp_put_uint(b, o->id);
    mp_put_uint(b, o->code);
    mp_put_bin(b, o->key, o->key_len);
    if (o->code == OP_GET) {
        return;
    }
    mp_put_uint(b, o->op.number);
    mp_put_uint(b, o->op.first);
    mp_put_uint(b, o->flags);
    mp_put_int(b, o->exptime);
    mp_put_uint(b, o->operand);
    mp_put_bin(b, o->value, o->value_len);
}

void msg_get_op(struct mp_reader *r, size_t value_bytes_max, struct op *ret)
{
    uint32_t left = array_begin(r, 3);
    size_t n;

    *ret = (struct op){ .id = mp_get_uint(r) };
    ret->code = (uint8_t) mp_get_uint_max(r, _OP_CODE_MAX - 1);
    ret->key = mp_get_bin(r, ENTRY_KEY_BYTES_MAX, &n);
    ret->key_len = (uint8_t) n;
    if (ret->code == 0 || (ret->key_len == 0) != (ret->code == OP_FLUSH)) {
        r->failed = true;
    }
    if (ret->code != OP_GET) {
        if (left < 6) {
            r->failed = true;
            return;
        }
        left -= 6;
        ret->op.number = mp_get_uint(r);
        ret->op.first = mp_get_uint(r);
        ret->flags = get_u32(r);
        ret->exptime = mp_get_int(r);
        ret->operand = mp_get_uint(r);
        ret->value = mp_get_bin(r, value_bytes_max, &n);
        ret->value_len = (uint32_t) n;
        if (ret->op.first > ret->op.number) {
            r->failed = true;
        }
    }
    array_end(r, left);
}

void msg_put_result(struct buf *b, const struct result *res)
{
    bool value = res->code == RESULT_VALUE;
    bool number = res->code == RESULT_NUMBER || res->code == RESULT_NOT_PRIMARY;

    mp_put_array(b, value ? 5 : number ? 4 : 3);
    mp_put_uint(b, res->id);
    mp_put_uint(b, res->code);
    mp_put_uint(b, res->cas);
    if (value) {
        mp_put_uint(b, res->flags);
        mp_put_bin(b, res->value, res->value_len);
    } else if (number) {
        mp_put_uint(b, res->number);
    }
}

void msg_get_result(struct mp_reader *r, struct result *ret)
{
    uint32_t left = array_begin(r, 3);
    size_t n;

    *ret = (struct result){ .id = mp_get_uint(r) };
    ret->code = (uint8_t) mp_get_uint_max(r, _RESULT_CODE_MAX - 1);
    ret->cas = mp_get_uint(r);
    if (ret->code == RESULT_VALUE && left >= 2) {
        ret->flags = get_u32(r);
        ret->value = mp_get_bin(r, ENTRY_VALUE_BYTES_MAX, &n);
        ret->value_len = (uint32_t) n;
        left -= 2;
    } else if ((ret->code == RESULT_NUMBER || ret->code == RESULT_NOT_PRIMARY) && left >= 1) {
        ret->number = mp_get_uint(r);
        left -= 1;
    } else if (ret->code == 0 || ret->code == RESULT_VALUE || ret->code == RESULT_NUMBER) {
        r->failed = true;
    }
    array_end(r, left);
}

void msg_put_prepare(struct buf *b, const struct msg_prepare *p)
{
    mp_put_array(b, 4);
    mp_put_uint(b, p->partition);
    mp_put_uint(b, p->view);
    mp_put_uint(b, p->commit_seq);
    mp_put_bin(b, p->entry, p->entry_bytes);
}

void msg_get_prepare(struct mp_reader *r, struct msg_prepare *ret)
{
    uint32_t left = array_begin(r, 4);

    ret->partition = get_partition(r);
    ret->view = get_u32(r);
    ret->commit_seq = mp_get_uint(r);
    ret->entry = mp_get_bin(r, ENTRY_BYTES_MAX, &ret->entry_bytes);
    array_end(r, left);
}

void msg_put_commit(struct buf *b, const struct msg_commit *c)
{
    mp_put_array(b, 4);
    mp_put_uint(b, c->partition);
    mp_put_uint(b, c->view);
    mp_put_uint(b, c->seq);
    mp_put_uint(b, c->time_usec);
}

void msg_get_commit(struct mp_reader *r, struct msg_commit *ret)
{
    uint32_t left = array_begin(r, 4);

    ret->partition = get_partition(r);
    ret->view = get_u32(r);
    ret->seq = mp_get_uint(r);
    ret->time_usec = mp_get_uint(r);
    array_end(r, left);
}

void msg_put_catchup_ask(struct buf *b, const struct msg_catchup_ask *m)
{
    mp_put_array(b, 6);
    mp_put_uint(b, m->partition);
    mp_put_uint(b, m->view);
    put_name(b, m->base);
    put_name(b, m->applied);
}

void msg_get_catchup_ask(struct mp_reader *r, struct msg_catchup_ask *ret)
{
    uint32_t left = array_begin(r, 6);

    ret->partition = get_partition(r);
    ret->view = get_u32(r);
    ret->base = get_name(r);
    ret->applied = get_name(r);
    array_end(r, left);
}

void msg_put_catchup(struct buf *b, const struct msg_catchup *m)
{
    mp_put_array(b, 5);
    mp_put_uint(b, m->partition);
    mp_put_uint(b, m->view);
    mp_put_uint(b, m->number);
    mp_put_uint(b, m->part);
    mp_put_bin(b, m->data, m->bytes);
}

void msg_get_catchup(struct mp_reader *r, struct msg_catchup *ret)
{
    uint32_t left = array_begin(r, 5);

    ret->partition = get_partition(r);
    ret->view = get_u32(r);
    ret->number = mp_get_uint(r);
    ret->part = (uint8_t) mp_get_uint_max(r, _CATCHUP_PART_MAX - 1);
    ret->data = mp_get_bin(r, CATCHUP_BYTES_MAX, &ret->bytes);
    array_end(r, left);
}

void msg_put_learned(struct buf *b, const struct msg_learned *m)
{
    mp_put_array(b, 4);
    mp_put_uint(b, m->partition);
    mp_put_uint(b, m->view);
    mp_put_uint(b, m->commit_seq);
    mp_put_uint(b, m->digest);
}

void msg_get_learned(struct mp_reader *r, struct msg_learned *ret)
{
    uint32_t left = array_begin(r, 4);

    ret->partition = get_partition(r);
    ret->view = get_u32(r);
    ret->commit_seq = mp_get_uint(r);
    ret->digest = mp_get_uint(r);
    array_end(r, left);
}

void msg_put_lease(struct buf *b, const struct msg_lease *m)
{
    mp_put_array(b, 3);
    mp_put_uint(b, m->partition);
    mp_put_uint(b, m->view);
    mp_put_uint(b, m->time_usec);
}

void msg_get_lease(struct mp_reader *r, struct msg_lease *ret)
{
    uint32_t left = array_begin(r, 3);

    ret->partition = get_partition(r);
    ret->view = get_u32(r);
    ret->time_usec = mp_get_uint(r);
    array_end(r, left);
}

void msg_put_peek(struct buf *b, const struct msg_peek *p)
{
    mp_put_array(b, p->found ? 15 : 9);
    mp_put_uint(b, p->partition);
    mp_put_uint(b, p->view);
    mp_put_uint(b, p->part);
    put_name(b, p->commit);
    put_name(b, p->last);
    mp_put_uint(b, p->trouble);
    mp_put_bool(b, p->found);
    if (p->found) {
        put_name(b, p->record);
        mp_put_uint(b, p->flags);
        mp_put_uint(b, p->expiry_sec);
        mp_put_uint(b, p->cas);
        mp_put_bin(b, p->value, p->value_len);
    }
}

void msg_get_peek(struct mp_reader *r, struct msg_peek *ret)
{
    uint32_t left = array_begin(r, 9);

    *ret = (struct msg_peek){ .partition = get_partition(r) };
    ret->view = get_u32(r);
    ret->part = (uint8_t) mp_get_uint_max(r, UINT8_MAX);
    ret->commit = get_name(r);
    ret->last = get_name(r);
    ret->trouble = (uint8_t) mp_get_uint_max(r, _RESULT_CODE_MAX - 1);
    ret->found = mp_get_bool(r);
    if (ret->found && left >= 6) {
        ret->record = get_name(r);
        ret->flags = get_u32(r);
        ret->expiry_sec = get_u32(r);
        ret->cas = mp_get_uint(r);
        ret->value = mp_get_bin(r, ENTRY_VALUE_BYTES_MAX, &ret->value_len);
        left -= 6;
    } else if (ret->found) {
        r->failed = true;
    }
    array_end(r, left);
}
