#include "wire/status.h"

#define STATUS_ITEMS        15
#define STATUS_SERVER_ITEMS 10

void msg_put_status(struct buf *b, const struct msg_status *s)
{
    mp_put_array(b, 2);
    mp_put_array(b, STATUS_ITEMS);
    mp_put_str(b, s->version);
    mp_put_bin(b, s->cluster_id, UUID_BYTES);
    mp_put_bool(b, s->leads);
    mp_put_uint(b, s->uptime_usec);
    mp_put_uint(b, s->applied);
    mp_put_uint(b, s->epoch);
    mp_put_uint(b, s->sessions);
    mp_put_uint(b, s->replicas);
    mp_put_uint(b, s->partitions);
    mp_put_uint(b, s->unplaced);
    mp_put_uint(b, s->waiting);
    mp_put_uint(b, s->blocker);
    mp_put_uint(b, s->blocked);
    mp_put_uint(b, s->n_blockers);
    mp_put_uint(b, s->degraded);
    mp_put_array(b, s->n_servers);
}

void msg_put_status_server(struct buf *b, const struct msg_status_server *s)
{
    mp_put_array(b, STATUS_SERVER_ITEMS);
    mp_put_uint(b, s->server);
    mp_put_str(b, s->name);
    mp_put_str(b, s->address);
    mp_put_uint(b, s->shards);
    mp_put_uint(b, s->state);
    mp_put_bool(b, s->up);
    mp_put_uint(b, s->incarnation);
    mp_put_uint(b, s->primaries);
    mp_put_uint(b, s->secondaries);
    mp_put_uint(b, s->learning);
}

void msg_get_status(struct mp_reader *r, struct msg_status *ret)
{
    uint32_t n;

    *ret = (struct msg_status){ 0 };
    mp_get_array_exact(r, 2);
    n = mp_get_array(r);
    if (n < STATUS_ITEMS) {
        r->failed = true;
        return;
    }
    mp_get_str(r, ret->version, sizeof(ret->version));
    mp_get_bin_exact(r, ret->cluster_id, UUID_BYTES);
    ret->leads = mp_get_bool(r);
    ret->uptime_usec = mp_get_uint(r);
    ret->applied = mp_get_uint(r);
    ret->epoch = mp_get_uint(r);
    ret->sessions = mp_get_uint(r);
    ret->replicas = (uint32_t) mp_get_uint_max(r, REPLICAS_MAX);
    ret->partitions = (uint32_t) mp_get_uint_max(r, PARTITIONS_MAX);
    ret->unplaced = (uint32_t) mp_get_uint_max(r, PARTITIONS_MAX);
    ret->waiting = (uint32_t) mp_get_uint_max(r, PARTITIONS_MAX);
    ret->blocker = (uint32_t) mp_get_uint_max(r, SERVERS_MAX);
    ret->blocked = (uint32_t) mp_get_uint_max(r, PARTITIONS_MAX);
    ret->n_blockers = (uint32_t) mp_get_uint_max(r, SERVERS_MAX);
    ret->degraded = (uint32_t) mp_get_uint_max(r, PARTITIONS_MAX);
    mp_skip_n(r, n - STATUS_ITEMS);
    ret->n_servers = mp_get_array(r);
    if (ret->n_servers > SERVERS_MAX) {
        r->failed = true;
    }
    if (r->failed) {
        ret->n_servers = 0;
    }
}

void msg_get_status_server(struct mp_reader *r, struct msg_status_server *ret)
{
    uint32_t n = mp_get_array(r);

    *ret = (struct msg_status_server){ 0 };
    if (n < STATUS_SERVER_ITEMS) {
        r->failed = true;
        return;
    }
    ret->server = (uint32_t) mp_get_uint_max(r, SERVERS_MAX);
    mp_get_str(r, ret->name, sizeof(ret->name));
    mp_get_str(r, ret->address, sizeof(ret->address));
    ret->shards = (uint32_t) mp_get_uint_max(r, SHARDS_MAX);
    ret->state = (uint8_t) mp_get_uint_max(r, UINT8_MAX);
    ret->up = mp_get_bool(r);
    ret->incarnation = mp_get_uint(r);
    ret->primaries = (uint32_t) mp_get_uint_max(r, PARTITIONS_MAX);
    ret->secondaries = (uint32_t) mp_get_uint_max(r, PARTITIONS_MAX);
    ret->learning = (uint32_t) mp_get_uint_max(r, PARTITIONS_MAX);
    mp_skip_n(r, n - STATUS_SERVER_ITEMS);
}
