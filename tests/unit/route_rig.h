/* A gateway's routing with a small hash space: three servers of two shards, four partitions that
 * begin at server 1, two clients. */
#pragma once

#include "base/cleanup.h"
#include "base/mem.h"
#include "core/route.h"
#include "core/session.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PARTITIONS   4
#define SERVERS      3
#define SHARDS       2
#define TIMEOUT_USEC 5000000
#define SESSION      77

struct fixture {
    struct route *route;
    struct hashspace table;
    struct route_actions out;
    struct route_client client[2];
    struct route_failure failure;
    uint64_t now;
};

/* ---- setting up ---- */

static inline void set_row(struct fixture *f, uint16_t partition, uint32_t view, uint32_t primary)
{
    f->table.rows[partition] = (struct view_row){
        .partition = partition, .view = view, .n_members = 1, .members = { primary }
    };
}

static inline void table_form(struct fixture *f)
{
    hashspace_set_partitions(&f->table, PARTITIONS);
    for (uint32_t i = 1; i <= SERVERS; i++) {
        struct hashspace_server s = { .server = i, .shards = SHARDS, .state = SERVER_ATTACHED };
        snprintf(s.name, sizeof(s.name), "db%u", (unsigned) i);
        hashspace_set_server(&f->table, &s);
    }
    for (uint16_t p = 0; p < PARTITIONS; p++) {
        set_row(f, p, 1, 1);
    }
    f->table.epoch = 1;
}

static inline void tell_table(struct fixture *f)
{
    f->out.n = 0;
    route_table_changed(f->route, f->now, &f->table, &f->out);
}

static inline struct fixture *fixture_bare(size_t server_bytes_max, uint32_t ops_max)
{
    struct route_limits limits = { .timeout_usec = TIMEOUT_USEC,
                                   .server_bytes_max = server_bytes_max,
                                   .ops_max = ops_max };
    struct fixture *f = mem_zalloc(1, sizeof(*f));

    f->now = 1000000;
    f->route = route_new(&limits);
    route_client_init(&f->client[0], 1);
    route_client_init(&f->client[1], 2);
    return f;
}

static inline void links_up(struct fixture *f, uint32_t server)
{
    for (uint32_t s = 0; s < SHARDS; s++) {
        route_link_up(f->route, f->now, server, s, &f->out);
    }
}

static inline void fixture_free(struct fixture **f)
{
    route_free((*f)->route);
    hashspace_free(&(*f)->table);
    route_actions_free(&(*f)->out);
    free(*f);
}
#define _cleanup_fixture_ _cleanup_(fixture_free)

static inline int try_submit(struct fixture *f, unsigned client, uint8_t code, const char *key,
                             const char *value, void *token)
{
    struct op op = { .code = code,
                     .key = (const uint8_t *) key,
                     .key_len = (uint8_t) strlen(key),
                     .value = (const uint8_t *) value,
                     .value_len = value ? (uint32_t) strlen(value) : 0 };

    f->out.n = 0;
    return route_submit(f->route, f->now, &f->client[client], token, &op, &f->out, &f->failure);
}

static inline void submit(struct fixture *f, unsigned client, uint8_t code, const char *key)
{
    assert_int_equal(
        try_submit(f, client, code, key, code == OP_GET ? NULL : "value", (void *) key), 0);
}

/* Connections are there after the first operations asked for them. */
static inline struct fixture *fixture_with(size_t server_bytes_max, uint32_t ops_max)
{
    struct fixture *f = fixture_bare(server_bytes_max, ops_max);

    table_form(f);
    tell_table(f);
    route_set_session(f->route, f->now, SESSION, &f->out);
    return f;
}

/* A key of this partition, the n-th. */
static inline const char *key_in(uint16_t partition, unsigned n)
{
    static char keys[64][16];
    static unsigned next;
    char *key = keys[next++ % 64];

    for (unsigned i = 0;; i++) {
        snprintf(key, 16, "key%u", i);
        if (hashspace_partition_of_hash(hashspace_hash((uint8_t *) key, strlen(key)), PARTITIONS) ==
                partition &&
            n-- == 0) {
            return key;
        }
    }
}

/* ---- looking at actions ---- */

static inline unsigned count(const struct fixture *f, enum route_action_kind kind)
{
    unsigned n = 0;

    for (size_t i = 0; i < f->out.n; i++) {
        n += f->out.v[i].kind == kind;
    }
    return n;
}

static inline const struct route_action *nth(const struct fixture *f, enum route_action_kind kind,
                                             unsigned n)
{
    for (size_t i = 0; i < f->out.n; i++) {
        if (f->out.v[i].kind == kind && n-- == 0) {
            return &f->out.v[i];
        }
    }
    fail_msg("there is no such action");
    return NULL;
}

/* The only SEND, as it would be on the wire. */
static inline struct op the_send(const struct fixture *f)
{
    assert_int_equal(count(f, ROUTE_SEND), 1);
    return *nth(f, ROUTE_SEND, 0)->send.op;
}

static inline bool is_key(const struct op *op, const char *key)
{
    return op->key_len == strlen(key) && memcmp(op->key, key, op->key_len) == 0;
}

static inline void answer_at(struct fixture *f, uint32_t server, uint16_t partition, uint64_t id,
                             uint8_t code, uint64_t number)
{
    struct result res = { .id = id, .code = code, .number = number };

    f->out.n = 0;
    route_result(f->route, f->now, server, partition % SHARDS, &res, &f->out);
}

static inline void answer(struct fixture *f, uint16_t partition, uint64_t id, uint8_t code)
{
    answer_at(f, 1, partition, id, code, 0);
}

static inline void tick_at(struct fixture *f, uint64_t now)
{
    f->now = now;
    f->out.n = 0;
    route_tick(f->route, f->now, &f->out);
}

static inline struct fixture *fixture_up(void)
{
    struct fixture *f = fixture_with(1 << 20, 100000);

    for (uint16_t p = 0; p < SHARDS; p++) { /* makes both links */
        submit(f, 0, OP_GET, key_in(p, 0));
        assert_int_equal(count(f, ROUTE_CONNECT), 1);
        assert_int_equal(nth(f, ROUTE_CONNECT, 0)->shard, p);
        f->out.n = 0;
        route_link_up(f->route, f->now, 1, p, &f->out);
        answer(f, p, the_send(f).id, RESULT_NOT_FOUND);
        assert_int_equal(count(f, ROUTE_DONE), 1);
    }
    assert_int_equal(route_unanswered(f->route), 0);
    return f;
}

static inline void window_fill(struct fixture *f, uint64_t ids[static SESSION_WINDOW])
{
    char key[32];

    for (unsigned i = 0, n = 0; n < SESSION_WINDOW; i++) {
        snprintf(key, sizeof(key), "window%u", i);
        if (hashspace_partition_of_hash(hashspace_hash((uint8_t *) key, strlen(key)), PARTITIONS)) {
            continue;
        }
        submit(f, 0, OP_SET, key);
        assert_int_equal(the_send(f).op.number, n + 1);
        assert_int_equal(the_send(f).op.first, 1);
        ids[n++] = the_send(f).id;
    }
}
