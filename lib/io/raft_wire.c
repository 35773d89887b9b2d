#include "io/raft_wire.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "wire/raft_msg.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* What an entry needs beside its bytes, at most. */
#define ENTRY_AROUND_BYTES 24

/* ---- writing ---- */

/* How many of the entries go into one message. */
static uint32_t entries_fit(const struct raft_append_entries *a, size_t bytes_max)
{
    size_t bytes = 0;
    uint32_t n = 0;

    while (n < a->n_entries) {
        bytes += a->entries[n].buf.len + ENTRY_AROUND_BYTES;
        if (n > 0 && bytes > bytes_max) {
            break;
        }
        n++;
    }
    return n;
}

static void put_append(struct buf *b, const struct raft_append_entries *a, size_t bytes_max)
{
    struct raft_msg m = {
        .kind = RAFT_MSG_APPEND,
        .version = a->version,
        .term = a->term,
        .append = { a->prev_log_index, a->prev_log_term, a->leader_commit },
        .n_entries = entries_fit(a, bytes_max),
    };

    raft_msg_put(b, &m);
    for (uint32_t i = 0; i < m.n_entries; i++) {
        const struct raft_entry *e = &a->entries[i];
        struct raft_msg_entry out = {
            .term = e->term, .kind = (uint8_t) e->type, .p = e->buf.base, .bytes = e->buf.len
        };
        raft_msg_put_entry(b, &out);
    }
}

static void put_snapshot(struct buf *b, const struct raft_install_snapshot *s)
{
    struct raft_msg m = {
        .kind = RAFT_MSG_SNAPSHOT,
        .version = s->version,
        .term = s->term,
        .snapshot = { .last_index = s->last_index,
                      .last_term = s->last_term,
                      .conf_index = s->conf_index,
                      .n_servers = s->conf.n,
                      .data = s->data.base,
                      .bytes = s->data.len },
    };

    kumo_assert(s->conf.n <= MANAGERS_MAX);
    for (unsigned i = 0; i < s->conf.n; i++) {
        const struct raft_server *from = &s->conf.servers[i];
        struct raft_msg_server *to = &m.snapshot.servers[i];
        to->id = from->id;
        to->role = (uint8_t) from->role;
        snprintf(to->address, sizeof(to->address), "%s", from->address);
    }
    raft_msg_put(b, &m);
}

static void put_small(struct buf *b, const struct raft_message *from)
{
    struct raft_msg m = { 0 };

    if (from->type == RAFT_APPEND_ENTRIES_RESULT) {
        const struct raft_append_entries_result *a = &from->append_entries_result;
        m = (struct raft_msg){
            .kind = RAFT_MSG_APPEND_RESULT,
            .version = a->version,
            .term = a->term,
            .append_result = { a->rejected, a->last_log_index, a->features, a->capacity },
        };
    } else if (from->type == RAFT_REQUEST_VOTE) {
        const struct raft_request_vote *v = &from->request_vote;
        m = (struct raft_msg){
            .kind = RAFT_MSG_VOTE,
            .version = v->version,
            .term = v->term,
            .vote = { v->candidate_id, v->last_log_index, v->last_log_term, v->disrupt_leader,
                      v->pre_vote },
        };
    } else if (from->type == RAFT_REQUEST_VOTE_RESULT) {
        const struct raft_request_vote_result *v = &from->request_vote_result;
        m = (struct raft_msg){
            .kind = RAFT_MSG_VOTE_RESULT,
            .version = v->version,
            .term = v->term,
            .vote_result = { v->vote_granted, v->pre_vote, v->features, v->capacity },
        };
    } else {
        const struct raft_timeout_now *t = &from->timeout_now;
        kumo_assert(from->type == RAFT_TIMEOUT_NOW);
        m = (struct raft_msg){
            .kind = RAFT_MSG_TIMEOUT_NOW,
            .version = t->version,
            .term = t->term,
            .timeout_now = { t->last_log_index, t->last_log_term },
        };
    }
    raft_msg_put(b, &m);
}

void raft_wire_put(struct buf *b, const struct raft_message *m, size_t bytes_max)
{
    if (m->type == RAFT_APPEND_ENTRIES) {
        put_append(b, &m->append_entries, bytes_max);
    } else if (m->type == RAFT_INSTALL_SNAPSHOT) {
        put_snapshot(b, &m->install_snapshot);
    } else {
        put_small(b, m);
    }
}

/* ---- reading ---- */

/* C-Raft reads a configuration without looking where it ends: version u8, servers u64, and of each
 * id u64, address with NUL, role u8. */
static bool configuration_is_sound(const uint8_t *p, size_t bytes)
{
    const uint8_t *end = p + bytes;
    uint64_t n;

    if (bytes < 9 || p[0] != 1) {
        return false;
    }
    n = bytes_get_u64(p + 1);
    p += 9;
    for (uint64_t i = 0; i < n; i++) {
        const uint8_t *nul = end - p > 8 ? memchr(p + 8, 0, (size_t) (end - p) - 8) : NULL;
        if (i >= MANAGERS_MAX || !nul || nul + 1 >= end) {
            return false;
        }
        p = nul + 2;
    }
    return n > 0;
}

/* Reads the entries once to check them: what they need together, or 0. */
static size_t entries_check(struct mp_reader r, uint32_t n)
{
    struct raft_msg_entry e;
    size_t bytes = 0;

    for (uint32_t i = 0; i < n; i++) {
        raft_msg_get_entry(&r, &e);
        if (r.failed || (e.kind == RAFT_ENTRY_CHANGE && !configuration_is_sound(e.p, e.bytes))) {
            return 0;
        }
        bytes += e.bytes;
    }
    return bytes;
}

/* All entries lie in one block, which C-Raft frees by the first one's `batch`. */
static int get_entries(struct mp_reader *r, uint32_t n, struct raft_append_entries *ret)
{
    size_t bytes = entries_check(*r, n);
    struct raft_entry *entries;
    uint8_t *batch;

    if (bytes == 0) {
        return -EBADMSG;
    }
    batch = raft_malloc(bytes);
    entries = raft_malloc(n * sizeof(*entries));
    if (!batch || !entries) {
        raft_free(batch);
        raft_free(entries);
        return -ENOMEM;
    }
    ret->entries = entries;
    ret->n_entries = n;
    for (uint8_t *p = batch; n > 0; n--, entries++) {
        struct raft_msg_entry e;
        raft_msg_get_entry(r, &e);
        *entries = (struct raft_entry){
            .term = e.term,
            .type = (enum raft_entry_type) e.kind,
            .buf = { .base = p, .len = e.bytes },
            .batch = batch,
        };
        memcpy(p, e.p, e.bytes);
        p += e.bytes;
    }
    return 0;
}

static int get_append(struct mp_reader *r, const struct raft_msg *m, struct raft_message *ret)
{
    ret->type = RAFT_APPEND_ENTRIES;
    ret->append_entries = (struct raft_append_entries){
        .version = m->version,
        .term = m->term,
        .prev_log_index = m->append.prev_index,
        .prev_log_term = m->append.prev_term,
        .leader_commit = m->append.commit,
    };
    return m->n_entries == 0 ? 0 : get_entries(r, m->n_entries, &ret->append_entries);
}

static int get_configuration(const struct raft_msg *m, struct raft_configuration *ret)
{
    raft_configuration_init(ret);
    for (uint32_t i = 0; i < m->snapshot.n_servers; i++) {
        const struct raft_msg_server *s = &m->snapshot.servers[i];
        int rv = raft_configuration_add(ret, s->id, s->address, s->role);
        if (rv != 0) {
            raft_configuration_close(ret);
            return rv == RAFT_NOMEM ? -ENOMEM : -EBADMSG;
        }
    }
    return 0;
}

static int get_snapshot(const struct raft_msg *m, struct raft_message *ret)
{
    struct raft_install_snapshot *s = &ret->install_snapshot;
    int r;

    ret->type = RAFT_INSTALL_SNAPSHOT;
    *s = (struct raft_install_snapshot){
        .version = m->version,
        .term = m->term,
        .last_index = m->snapshot.last_index,
        .last_term = m->snapshot.last_term,
        .conf_index = m->snapshot.conf_index,
        .data = { .base = raft_malloc(m->snapshot.bytes), .len = m->snapshot.bytes },
    };
    if (!s->data.base) {
        return -ENOMEM;
    }
    r = get_configuration(m, &s->conf);
    if (r < 0) {
        raft_free(s->data.base);
        return r;
    }
    memcpy(s->data.base, m->snapshot.data, m->snapshot.bytes);
    return 0;
}

static void get_small(const struct raft_msg *m, struct raft_message *ret)
{
    if (m->kind == RAFT_MSG_APPEND_RESULT) {
        ret->type = RAFT_APPEND_ENTRIES_RESULT;
        ret->append_entries_result = (struct raft_append_entries_result){
            .version = m->version,
            .term = m->term,
            .rejected = m->append_result.rejected,
            .last_log_index = m->append_result.last_index,
            .features = m->append_result.features,
            .capacity = m->append_result.capacity,
        };
    } else if (m->kind == RAFT_MSG_VOTE) {
        ret->type = RAFT_REQUEST_VOTE;
        ret->request_vote = (struct raft_request_vote){
            .version = m->version,
            .term = m->term,
            .candidate_id = m->vote.candidate,
            .last_log_index = m->vote.last_index,
            .last_log_term = m->vote.last_term,
            .disrupt_leader = m->vote.disrupt_leader,
            .pre_vote = m->vote.pre_vote,
        };
    } else if (m->kind == RAFT_MSG_VOTE_RESULT) {
        ret->type = RAFT_REQUEST_VOTE_RESULT;
        ret->request_vote_result = (struct raft_request_vote_result){
            .version = m->version,
            .term = m->term,
            .vote_granted = m->vote_result.granted,
            .pre_vote = m->vote_result.pre_vote,
            .features = m->vote_result.features,
            .capacity = m->vote_result.capacity,
        };
    } else {
        kumo_assert(m->kind == RAFT_MSG_TIMEOUT_NOW);
        ret->type = RAFT_TIMEOUT_NOW;
        ret->timeout_now = (struct raft_timeout_now){
            .version = m->version,
            .term = m->term,
            .last_log_index = m->timeout_now.last_index,
            .last_log_term = m->timeout_now.last_term,
        };
    }
}

int raft_wire_get(struct mp_reader *r, struct raft_message *ret)
{
    struct raft_msg m;

    raft_msg_get(r, &m);
    if (r->failed) {
        return -EBADMSG;
    }
    *ret = (struct raft_message){ 0 };
    if (m.kind == RAFT_MSG_APPEND) {
        return get_append(r, &m, ret);
    }
    if (m.kind == RAFT_MSG_SNAPSHOT) {
        return get_snapshot(&m, ret);
    }
    get_small(&m, ret);
    return 0;
}

void raft_wire_free(struct raft_message *m)
{
    if (m->type == RAFT_APPEND_ENTRIES && m->append_entries.n_entries > 0) {
        raft_free(m->append_entries.entries[0].batch);
        raft_free(m->append_entries.entries);
    } else if (m->type == RAFT_INSTALL_SNAPSHOT) {
        raft_configuration_close(&m->install_snapshot.conf);
        raft_free(m->install_snapshot.data.base);
    }
}
