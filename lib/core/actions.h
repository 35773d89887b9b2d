/* What a shard wants done. The core decides, whoever runs it (the server's shard thread, the
 * simulator) does, in the order given, before it takes the next step. Pointers in an action are
 * valid until then. */
#pragma once

#include "wire/msg.h"

#include <stddef.h>
#include <stdint.h>

/* Who asked for an operation: opaque to the core, handed back with the result. */
struct asker {
    uint64_t conn; /* names a connection; never reused for another one */
    uint64_t id;   /* the asker's number of the operation */
};

enum action_kind {
    ACTION_CREATE = 1,  /* a new segment file `at.segment` that begins with `data`; its folder entry
                           durable with the next ACTION_SYNC */
    ACTION_WRITE,       /* `data` at `at` of a segment */
    ACTION_SYNC,        /* make all written up to here durable, then step SHARD_SYNCED(group) */
    ACTION_PREPARE,     /* to server: prepare */
    ACTION_ACK,         /* to server: ack at (partition, view, seq) */
    ACTION_RESEND,      /* to server: ask for entries from at.seq + 1 on */
    ACTION_COMMIT,      /* to server: commit */
    ACTION_RESULT,      /* to asker: result */
    ACTION_PEEK,        /* to asker: peek */
    ACTION_SEALED,      /* to the manager: sealed */
    ACTION_RECONFIG,    /* to the manager: reconfig */
    ACTION_LEASES,      /* to server: ask for leases */
    ACTION_GRANTS,      /* to server: leases are granted; over the connection that asked */
    ACTION_LEASE_BACK,  /* to server: note: the lease is given back */
    ACTION_CATCHUP_ASK, /* to server: ask */
    ACTION_CATCHUP,     /* to server: catchup, in the order of the prepares */
    ACTION_CATCHUP_ACK, /* to server: note */
    ACTION_LEARNED,     /* to server: learned */
    ACTION_DIFFERS,   /* for the log: server's copy differs at note; it is taught from the beginning
                       */
    ACTION_READ,      /* `bytes` at `at` of a segment, off the loop; then step SHARD_READ(number) */
    ACTION_PREFETCH,  /* `bytes` at `at` of a segment will be looked at soon: best in memory */
    ACTION_DAMAGED,   /* for the log: the record at `damaged` can't be read (R15) */
    ACTION_COMPACTED, /* the victim is not needed once all written so far is on the disk, or `error`
                       */
    ACTION_LACKING,   /* for the log: `server` lacks committed entries (note: from seq + 1 on) of a
                         partition */
    ACTION_HALT,      /* stop this process: `why` */
    _ACTION_KIND_MAX,
    _ACTION_KIND_INVALID = -22,
};

struct action {
    enum action_kind kind;
    uint32_t server;
    union {
        struct {
            struct position at;
            const uint8_t *data;
            size_t bytes;
        } file;
        uint64_t group;
        struct msg_prepare prepare;
        struct msg_at note;
        struct msg_commit commit;
        struct msg_sealed sealed;
        struct {
            struct asker asker;
            struct result result;
        } answer;
        struct {
            struct asker asker;
            struct msg_peek peek;
        } peek;
        struct {
            uint32_t segment;
            int error;        /* 0; -EBUSY: it holds a pending entry; -EBADMSG: it can't be read */
            uint64_t copied;  /* bytes */
            uint64_t dropped; /* records */
        } compacted;
        struct {
            uint64_t number;
            struct position at;
            size_t bytes;
        } read; /* and prefetch */
        struct {
            struct position at;
            uint16_t partition;
        } damaged;
        const char *why;
        struct msg_reconfig reconfig;
        struct {
            uint64_t sent_usec;
            const struct msg_lease *v; /* until the next step */
            size_t n;
        } leases;
        struct msg_catchup_ask ask;
        struct msg_catchup catchup;
        struct msg_learned learned;
    };
};

/* The result of a step; the caller clears it (n = 0) and keeps the memory. */
struct actions {
    struct action *v;
    size_t n;
    size_t cap;
};

/* Appends an action and returns it, zeroed but for its kind. */
struct action *actions_add(struct actions *a, enum action_kind kind);
void actions_free(struct actions *a);
