/* A connection of a memcached client. Requests are answered in the order in which they came: each
 * is a slot in a queue, and answers that come early wait in theirs. A client that doesn't read its
 * answers, or is far ahead of them, isn't read. */
#pragma once

#include "base/buf.h"
#include "base/list.h"
#include "core/route.h"
#include "wire/mc_text.h"

#include <stdbool.h>
#include <stdint.h>

#define CLIENT_SLOTS_MAX 1024 /* requests and keys without an answer; a get line may exceed it */
#define CLIENT_VALUE_BYTES_MAX                                                                     \
    (8u << 20) /* values on their way to servers; one value may exceed it */
#define CLIENT_REPLY_BYTES_MAX (8u << 20) /* answers that wait for earlier ones */
#define CLIENT_GET_BYTES_MAX                                                                       \
    (4u << 20) /* values expected by reads on the wire; one value may exceed it */
#define CLIENT_GET_BYTES_FIRST                                                                     \
    131072 /* what a value is expected to have at least before any was seen */
#define CLIENT_GET_BYTES_LEAST 1024       /* and at least, for what comes with it */
#define CLIENT_OUT_BYTES_MAX   (1u << 20) /* answers that the client doesn't read */

struct conn;
struct thread;

struct client {
    struct list node;  /* in thread.clients */
    struct list ready; /* in thread.ready_clients */
    struct thread *thread;
    struct conn *conn;
    struct route_client route;
    struct mc_parser parser;
    struct list slots;  /* oldest first */
    struct list unsent; /* of them, keys of a get that wait until others were answered */
    uint32_t gets;      /* keys on the wire */
    size_t get_bytes;   /* what the value of one more is expected to have */
    uint32_t n_slots;
    size_t value_bytes; /* in operations without an answer */
    size_t reply_bytes; /* in slots */
    uint64_t bytes_in;  /* counted so far */
    uint64_t bytes_out;
    bool begun;      /* bytes were read */
    bool needs;      /* conn_need was told of a large request */
    bool paused;     /* isn't read for the time being */
    bool barrier;    /* a flush_all is the last slot: nothing is read until it is answered */
    bool closing;    /* no more requests; closed when all is answered */
    bool get_failed; /* an error stands for the rest of the present get */
};

/* One answer that is due: of a request, or of one key of a get. */
struct slot {
    struct list node;
    struct list unsent; /* in client.unsent; `reply` is its key */
    struct client *client;
    enum mc_cmd cmd;
    bool end; /* END of a get */
    bool noreply;
    bool done;      /* `reply` is what to write */
    bool failed;    /* with an error */
    bool too_large; /* a delete that stands for a value refused for its size */
    bool begun;     /* flush_all: was sent */
    uint32_t parts; /* flush_all: partitions without an answer */
    uint32_t value_bytes;
    size_t get_bytes; /* what the value was expected to have */
    int64_t exptime;  /* of flush_all and gat */
    const char *line; /* the answer when `reply` is empty; NULL: none */
    struct buf reply;
};

/* Takes over an accepted socket. */
void client_new(struct thread *t, int fd);
/* Closes at once. */
void client_free(struct client *c);
/* Takes no more requests; closes when all is answered. */
void client_stop(struct client *c);

/* An operation of the slot has ended (ROUTE_DONE). Makes no calls to the routing. */
void client_done(struct slot *s, const struct route_action *a);
/* At the turn's end: whatever waited for an answer. */
void client_continue(struct client *c);

/* ---- request.c ---- */

/* Carries out what the parser found. */
void request_handle(struct client *c, enum mc_parse_result r, const struct mc_request *req);
/* Sends keys of a get, as many as may be on the wire. */
void request_continue_get(struct client *c);
/* Sends a flush_all whose turn has come. */
void request_begin_flush(struct client *c, struct slot *s);

/* ---- for request.c ---- */

/* Answers wait for being read, or for earlier ones, up to their limit. */
bool client_is_behind(const struct client *c);

/* A slot at the end of the queue. */
struct slot *client_add_slot(struct client *c, enum mc_cmd cmd, bool noreply);
/* Answers, after all that are due before it. */
void client_answer(struct client *c, const void *line, size_t bytes);
/* The same for a constant line that refuses a request; behind the keys of a get it stands instead
 * of END. */
void client_answer_error(struct client *c, enum mc_cmd cmd, const char *line);
/* The slot's answer is there: in slot.reply, or slot.line. Writes what can be written. */
void client_slot_done(struct slot *s);
