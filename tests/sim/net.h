/* Connections between the simulated processes, and what they say over them. */
#pragma once

#include "core/shard.h"

#include <stdbool.h>
#include <stdint.h>

struct sim;

enum endpoint_kind { END_MANAGER, END_SERVER, END_SHARD, END_CLIENT };

struct endpoint {
    uint8_t kind; /* enum endpoint_kind */
    uint8_t node;
    uint8_t shard; /* of END_SHARD */
};

struct link {
    struct endpoint end[2];  /* the first one connects */
    enum msg_lane lane;      /* between shards */
    uint64_t conn;           /* names the connection, 0: down */
    bool ready[2];           /* this end has heard the other's hello: it may send */
    uint64_t told[2];        /* the connection that this end believes to be up, 0: none */
    uint64_t last_usec[2];   /* when the newest message to this end arrives: streams are in order */
    uint64_t delay_min_usec; /* of every message */
    uint64_t delay_max_usec;
    uint32_t index;
};

enum message_kind {
    MESSAGE_HELLO,
    MESSAGE_SHARD, /* event: for a shard */
    MESSAGE_RESULT,
    MESSAGE_REGISTER,
    MESSAGE_REGISTERED, /* registered, rows in bytes */
    MESSAGE_REFUSED,    /* text in bytes */
    MESSAGE_RECONFIG,
    MESSAGE_SEALED,
    MESSAGE_VIEW,
    MESSAGE_SEAL,
    MESSAGE_BEAT,
    MESSAGE_TABLE_ASK,
    MESSAGE_TABLE, /* encoded, in bytes */
    MESSAGE_SESSION_ASK,
    MESSAGE_SESSION,
    MESSAGE_SESSIONS, /* to a server: sessions, its ids in bytes */
    MESSAGE_ALIVE,    /* a client has this session */
    MESSAGE_OVER,     /* and it is over */
};

struct message {
    enum message_kind kind;
    uint32_t shards; /* how many the sender has */
    uint64_t conn;   /* that it came over */
    uint64_t life;   /* of the process that sent it */
    union {
        struct shard_event event;
        struct result result;
        struct msg_register registration;
        struct msg_registered registered;
        struct msg_at note;
        struct msg_sealed sealed;
        struct msg_reconfig reconfig;
        struct view_row row;
        uint64_t session;
        struct msg_sessions sessions;
    };
    size_t n;
    _Alignas(8) uint8_t bytes[];
};

struct message *message_new(enum message_kind kind, size_t bytes);
void net_init(struct sim *s);
void net_free(struct sim *s);
/* No connection is slower than the others any more. */
void net_heal(struct sim *s);
struct link *net_link_of_conn(struct sim *s, uint64_t conn);
/* The link of a connection that may be gone. */
struct link *net_past_link(struct sim *s, uint64_t conn);
struct link *net_shard_link(struct sim *s, enum msg_lane lane, uint32_t a, uint32_t i, uint32_t b,
                            uint32_t j);
struct link *net_client_link(struct sim *s, uint32_t client, uint32_t server, uint32_t shard);
struct link *net_manager_link(struct sim *s, struct endpoint end);
/* Sends from one end of the link; takes the message over. Lost without a word when the end isn't
 * ready. */
void net_send(struct sim *s, struct link *l, unsigned from, struct message *m);
/* Which end of the link is this. */
unsigned net_side(const struct link *l, enum endpoint_kind kind, uint32_t node);
/* The process behind these ends is there: its links connect. */
void net_up(struct sim *s, enum endpoint_kind kind, uint32_t node);
/* …is gone: its links break, and the others learn of it after up to `notice_usec`. */
void net_down(struct sim *s, enum endpoint_kind kind, uint32_t node, uint64_t notice_usec);
/* Connects when it is down and both ends are there. */
void net_connect(struct sim *s, struct link *l, uint64_t delay_usec);
void net_break(struct sim *s, struct link *l, uint64_t notice_usec);
void net_break_all(struct sim *s, enum endpoint_kind kind, uint32_t node, uint64_t notice_usec);
