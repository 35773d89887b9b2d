/* Our own messages: what the processes say to each other, as MessagePack-RPC over one connection
 * each. Methods are numbers; parameters are arrays in the order given here; items may be appended
 * in later versions and are skipped by older readers. Pure. docs/architecture.md has the list with
 * who says what to whom.
 *
 * Each struct has msg_put_X, which appends one MessagePack item, and msg_get_X, which reads one.
 * Readers check everything; pointers in what they return lie in the message's bytes. After a
 * msg_get_X look at r->failed. */
#pragma once

#include "wire/entry.h"
#include "wire/frame.h"
#include "wire/mp.h"

#include <stdbool.h>
#include <stdint.h>

#define MSG_PROTOCOL_MIN 1
#define MSG_PROTOCOL_MAX 1

#define UUID_BYTES        16
#define NAME_BYTES_MAX    64  /* with NUL */
#define ADDRESS_BYTES_MAX 280 /* host:port, with NUL */
#define SERVERS_MAX       1024
#define SHARDS_MAX        64
#define SESSIONS_MAX      65536 /* that are open at one time (R12) */
/* starts in a row that lose their acceptance and yet get an incarnation of their own */
#define PRIORS_MAX 8

/* A message that isn't only values: rows of a whole hash space, a batch of view changes. */
#define MSG_BYTES_MAX (8u << 20)

enum msg_role {
    ROLE_MANAGER = 1,
    ROLE_SERVER,
    ROLE_GATEWAY,
    ROLE_CTL,
    _ROLE_MAX,
};

enum msg_method {
    MSG_HELLO = 0, /* request, first on every connection: struct msg_hello -> struct msg_hello */

    /* to a manager */
    MSG_REGISTER = 1,   /* server, request: struct msg_register -> struct msg_registered */
    MSG_RECONFIG,       /* server, notify: array of struct msg_reconfig: asks for new views */
    MSG_SEALED,         /* server, notify: array of struct msg_sealed (R7) */
    MSG_TABLE,          /* anyone, request: [] -> struct hashspace's encoding; subscribes to
                           MSG_TABLE_CHANGED */
    MSG_SESSION,        /* gateway, request: [] -> [session] (R12) */
    MSG_STATUS,         /* kumoctl, request: [] -> struct status (wire/status.h) */
    MSG_ATTACH,         /* kumoctl, request: [array of names; empty = all new servers] -> [text] */
    MSG_SESSIONS_ALIVE, /* gateway, request: [[session…]] it has these -> [[session…]] of them,
                           those that are over */

    /* from a manager, on connections which the other side opened */
    MSG_VIEWS = 16,    /* to a server, notify: array of struct view_row: act in them (R9) */
    MSG_SEAL,          /* to a server, notify: array of struct msg_at: seal and report (R7) */
    MSG_TABLE_CHANGED, /* to subscribers, notify: the hash space's changed rows */
    MSG_BEAT, /* to a server, notify: [], every MANAGER_BEAT_USEC: the leader lives; answered by the
                 same: so does the server */
    MSG_SESSIONS, /* to a server, notify: struct msg_sessions: which sessions are open (R12) */

    /* gateway <-> server's shard */
    MSG_OPS = 32, /* notify: [session, [struct op…]] */
    MSG_RESULTS,  /* notify: [[struct result…]] in the order in which they became known */

    /* server <-> server, shard to shard */
    MSG_PREPARES = 48, /* primary, notify: [[struct msg_prepare…]] */
    MSG_ACKS, /* secondary, notify: [clock, space, [struct msg_at…]] last contiguous durable (R2) */
    MSG_RESEND,  /* secondary, notify: [[struct msg_at…]] send again from seq + 1 (R1) */
    MSG_COMMITS, /* primary, notify: [clock, space, [struct msg_commit…]] committed up to seq */
    MSG_CATCHUP_ASK, /* learner, notify: [[struct msg_catchup_ask…]] (R17) */
    MSG_CATCHUP,     /* primary, notify: struct msg_catchup, between the prepares */
    MSG_CATCHUP_ACK, /* learner, notify: [[struct msg_at…]] seq: number of the last one taken */
    MSG_LEARNED,     /* learner, notify: [[struct msg_learned…]] it is complete (R8) */
    MSG_LEASES, /* primary, notify: [clock, space, sent, [struct msg_lease…]] (R10); sent: its
                   CLOCK_BOOTTIME in microseconds. These three over a connection of their own */
    MSG_GRANTS, /* secondary, notify: the same, `sent` returned, for the pairs that are granted */
    MSG_LEASES_BACK, /* primary, notify: [[struct msg_at…]]: it acts no more in these views */

    /* kumoctl -> server's shard */
    MSG_PEEK_KEY =
        64, /* request: [key] -> [struct msg_peek] what this replica holds, whatever its part */

    /* manager <-> manager (wire/raft_msg.h) */
    MSG_RAFT = 80, /* notify: [struct raft_msg] */
    MSG_MANAGER,   /* request: [struct msg_manager] -> struct msg_manager: who they are */

    /* anyone -> any manager, whether it leads or not */
    MSG_MANAGERS = 88, /* request: [] -> struct msg_managers */
};

/* A manager that leads says something to its servers and gateways more often than this: who hears
 * nothing goes to the next one. */
#define MSG_MANAGER_SILENCE_USEC 1000000

/* Codes of errors that answer a request. */
enum msg_error {
    MSG_ERROR_REFUSED = 1, /* not now, not here, or not so: the text says what */
    MSG_ERROR_DENIED,      /* for good: asking again is no use */
    MSG_ERROR_NOT_LEADER,  /* nothing was done: another manager leads, or none at the moment */
};

/* ---- connections ---- */

struct msg_hello {
    uint32_t protocol_min; /* an answer has the chosen version in both */
    uint32_t protocol_max;
    uint32_t role;                  /* enum msg_role */
    uint8_t cluster_id[UUID_BYTES]; /* zeros: not known yet */
    uint32_t server;                /* a server's number; 0 for others */
    uint64_t incarnation;           /* a server's counter; 0 for others */
    uint32_t shard;                 /* which shard is wanted; SHARD_NONE: none */
    uint32_t shards;                /* how many this server has; 0 for others */
    uint64_t clock_usec;            /* CLOCK_REALTIME, for R13 */
    uint8_t
        lane; /* enum msg_lane, between servers; appended later: LANE_DATA when it isn't there */
    uint32_t from_shard; /* of the server that connects; SHARD_NONE when it isn't there */
};
#define SHARD_NONE UINT32_MAX
/* What a connection between two shards carries: leases never wait behind large prepares (R10). */
enum msg_lane { LANE_DATA, LANE_LEASES, _LANE_MAX };
void msg_put_hello(struct buf *b, const struct msg_hello *h);
void msg_get_hello(struct mp_reader *r, struct msg_hello *ret);
/* Of the side that connected: an answer from anybody but this role, or in a version that is not
 * spoken here, is a failed one. */
void msg_get_hello_answer(struct mp_reader *r, uint32_t role, struct msg_hello *ret);

/* ---- views ---- */

/* A place in a partition's history: which of view and seq matter depends on the method. */
struct msg_at {
    uint16_t partition;
    uint32_t view;
    uint64_t seq;
};
void msg_put_at(struct buf *b, const struct msg_at *a);
void msg_get_at(struct mp_reader *r, struct msg_at *ret);

/* One partition's membership: its view and the server numbers of its replicas, the primary first.
 * Learners receive all writes and count for nothing until they are promoted (R8). */
#define LEARNERS_MAX REPLICAS_MAX
struct view_row {
    uint16_t partition;
    uint8_t n_members;
    uint8_t n_learners;
    uint32_t view;
    uint32_t members[REPLICAS_MAX];
    uint32_t learners[LEARNERS_MAX];
    uint64_t time_usec; /* partition time must not be below it in this view (R13) */
};
void msg_put_view_row(struct buf *b, const struct view_row *v);
void msg_get_view_row(struct mp_reader *r, struct view_row *ret);

/* What a sealed member holds of the partition. */
struct msg_sealed {
    uint16_t partition;
    uint32_t view;      /* the view that was sealed */
    struct name last;   /* last durable entry */
    uint64_t time_usec; /* partition time (R13) */
    struct name commit;
    bool trusted; /* false: it may have lost answered writes (R7: an unclean start, weak sync) */
};
void msg_put_sealed(struct buf *b, const struct msg_sealed *s);
void msg_get_sealed(struct mp_reader *r, struct msg_sealed *ret);

/* What a member of a view asks the manager for; void when the view is over (R9). */
enum reconfig_kind {
    RECONFIG_RENEW = 1, /* it restarted, or was sealed and nothing came: a view is needed (R6) */
    RECONFIG_REMOVE,    /* `server` is accused (R14), or is the sender; a learner: withdrawn (R8) */
    RECONFIG_RESIGN,    /* the primary has stopped: `server`, a member, is to follow it (R16) */
    RECONFIG_PROMOTE,   /* `server`, a learner of this incarnation, holds everything (R8) */
    _RECONFIG_MAX,
};
struct msg_reconfig {
    uint16_t partition;
    uint32_t view;
    uint8_t kind; /* enum reconfig_kind */
    uint32_t server;
    uint64_t incarnation;
};
void msg_put_reconfig(struct buf *b, const struct msg_reconfig *m);
void msg_get_reconfig(struct mp_reader *r, struct msg_reconfig *ret);

/* ---- servers at the manager ---- */

/* A server introduces itself. The pair (counter, random) names this process: incarnation. */
struct msg_register {
    uint8_t server_id[UUID_BYTES];
    uint64_t counter;
    uint64_t random;
    /* random numbers of earlier starts with this counter, whose acceptance may have been lost */
    uint64_t priors[PRIORS_MAX];
    uint32_t n_priors;
    uint32_t shards;
    char name[NAME_BYTES_MAX];
    char address[ADDRESS_BYTES_MAX];
};
void msg_put_register(struct buf *b, const struct msg_register *m);
void msg_get_register(struct mp_reader *r, struct msg_register *ret);

/* The manager's acceptance; view rows follow in the same array (all in which the server is a
 * member). */
struct msg_registered {
    uint8_t cluster_id[UUID_BYTES];
    uint32_t server;     /* its number in this cluster, for ever */
    uint32_t partitions; /* of the cluster */
};
void msg_put_registered(struct buf *b, const struct msg_registered *m);
void msg_get_registered(struct mp_reader *r, struct msg_registered *ret);

/* ---- sessions (R12) ---- */

/* What became of sessions up to an entry of the managers' log, which is also the number of a
 * session that it opened: all that are open, or what changed since the message before. */
struct msg_sessions {
    uint64_t index;
    bool whole;
    uint32_t n_opened;
    uint32_t n_ended;
    const uint64_t *ids; /* those opened, then those that are over */
};
void msg_put_sessions(struct buf *b, const struct msg_sessions *m);
/* The ids go to `ids`, which has room for as many as the message has bytes. */
void msg_get_sessions(struct mp_reader *r, uint64_t *ids, struct msg_sessions *ret);
/* An array of sessions; to `ids` as above. Returns how many, at most SESSIONS_MAX. */
void msg_put_session_ids(struct buf *b, const uint64_t *ids, uint32_t n);
uint32_t msg_get_session_ids(struct mp_reader *r, uint64_t *ids);

/* ---- operations ---- */

enum op_code {
    OP_GET = 1,
    OP_GAT,
    OP_SET,
    OP_ADD,
    OP_REPLACE,
    OP_APPEND,
    OP_PREPEND,
    OP_CAS,
    OP_DELETE,
    OP_INCR,
    OP_DECR,
    OP_TOUCH,
    OP_FLUSH, /* of one partition: no key, `number` is the partition, exptime the delay */
    _OP_CODE_MAX,
    _OP_CODE_INVALID = -22,
};

/* OP_GET is [id, code, key], all others [id, code, key, number, first, flags, exptime, number,
 * value]. */
struct op {
    uint64_t id; /* the asker's, returned with the result */
    uint8_t code;
    uint8_t key_len;
    uint32_t flags;
    uint32_t value_len;
    int64_t exptime;  /* as memcached's clients say it: relative, absolute, 0, negative */
    uint64_t operand; /* delta of incr and decr, token of cas, partition of flush */
    struct op_id op;  /* session is the message's */
    const uint8_t *key;
    const uint8_t *value;
};
void msg_put_op(struct buf *b, const struct op *o);
void msg_get_op(struct mp_reader *r, size_t value_bytes_max, struct op *ret);

enum result_code {
    RESULT_STORED = 1,
    RESULT_NOT_STORED,
    RESULT_EXISTS,
    RESULT_NOT_FOUND,
    RESULT_DELETED,
    RESULT_TOUCHED,
    RESULT_VALUE,       /* flags, cas, value */
    RESULT_NUMBER,      /* number, cas */
    RESULT_NON_NUMERIC, /* incr or decr of something that is no number */
    RESULT_TOO_LARGE,   /* append or prepend beyond the limit */
    RESULT_FLUSHED,
    /* not done here; the first two are worth another try */
    RESULT_NOT_PRIMARY, /* number = view that it knows; what was proposed before may still commit */
    RESULT_BUSY,        /* a queue is at its limit */
    RESULT_UNKNOWN,     /* "outcome unknown" (R12): the operation may have happened, long ago */
    RESULT_REFUSED,    /* it can't be done here, a retry won't help: malformed, beyond the window */
    RESULT_NO_SPACE,   /* disk full */
    RESULT_DAMAGED,    /* the record can't be read from the disk */
    RESULT_NO_SESSION, /* the session is over: this try did nothing; another session is needed */
    _RESULT_CODE_MAX,
    _RESULT_CODE_INVALID = -22,
};

/* [id, code, cas], VALUE with flags and value appended, NUMBER and NOT_PRIMARY with the number. */
struct result {
    uint64_t id;
    uint8_t code;
    uint32_t flags;
    uint32_t value_len;
    uint64_t cas;
    uint64_t number;
    const uint8_t *value;
};
void msg_put_result(struct buf *b, const struct result *res);
void msg_get_result(struct mp_reader *r, struct result *ret);

/* ---- replication ---- */

/* The current view and the commit travel around the entry; the entry's bytes never change. */
struct msg_prepare {
    uint16_t partition;
    uint32_t view;
    uint64_t commit_seq;
    const uint8_t *entry;
    size_t entry_bytes;
};
void msg_put_prepare(struct buf *b, const struct msg_prepare *p);
void msg_get_prepare(struct mp_reader *r, struct msg_prepare *ret);

struct msg_commit {
    uint16_t partition;
    uint32_t view;
    uint64_t seq;
    uint64_t time_usec; /* partition time: replicas run it on (R13) */
};
void msg_put_commit(struct buf *b, const struct msg_commit *c);
void msg_get_commit(struct mp_reader *r, struct msg_commit *ret);

/* ---- catch-up (R17) and promotion (R8) ---- */

/* A learner says what it holds. */
struct msg_catchup_ask {
    uint16_t partition;
    uint32_t view;
    struct name base;    /* everything up to it is here */
    struct name applied; /* highest that was applied */
};
void msg_put_catchup_ask(struct buf *b, const struct msg_catchup_ask *m);
void msg_get_catchup_ask(struct mp_reader *r, struct msg_catchup_ask *ret);

enum catchup_part { CATCHUP_START = 1, CATCHUP_RECORDS, CATCHUP_END, _CATCHUP_PART_MAX };
/* Of one message: a chunk and the record that went over its end, or a start with its sessions. */
#define CATCHUP_BYTES_MAX (ENTRY_BYTES_MAX + (4u << 20))
struct msg_catchup {
    uint16_t partition;
    uint32_t view;
    uint64_t number; /* rises by one from the start on, which is above all of earlier attempts */
    uint8_t part;    /* enum catchup_part */
    const uint8_t *data;
    size_t bytes;
};
void msg_put_catchup(struct buf *b, const struct msg_catchup *m);
void msg_get_catchup(struct mp_reader *r, struct msg_catchup *ret);

/* A learner is complete. */
struct msg_learned {
    uint16_t partition;
    uint32_t view;
    uint64_t commit_seq;
    uint64_t digest; /* at that commit */
};
void msg_put_learned(struct buf *b, const struct msg_learned *m);
void msg_get_learned(struct mp_reader *r, struct msg_learned *ret);

/* ---- leases (R10) ---- */

struct msg_lease {
    uint16_t partition;
    uint32_t view;
    uint64_t time_usec; /* asked: partition time of the primary (R13); granted: 0 */
};
void msg_put_lease(struct buf *b, const struct msg_lease *m);
void msg_get_lease(struct mp_reader *r, struct msg_lease *ret);

/* ---- looking at one replica ---- */

struct msg_peek {
    uint16_t partition;
    uint32_t view;
    uint8_t part;       /* enum replica_state of the core */
    struct name commit; /* of the partition */
    struct name last;
    uint8_t trouble;    /* 0, or RESULT_BUSY, RESULT_DAMAGED: it can't be said whether… */
    bool found;         /* …the replica has a live, committed record of the key */
    struct name record; /* its name, flags, cas, expiry, value */
    uint32_t flags;
    uint32_t expiry_sec;
    uint64_t cas;
    const uint8_t *value;
    size_t value_len;
};
void msg_put_peek(struct buf *b, const struct msg_peek *p);
void msg_get_peek(struct mp_reader *r, struct msg_peek *ret);
