/* One shard of a server: its log, the replicas of its partitions, and the rules of replication
 * between them. step(state, event) -> actions: no clock, no I/O, no randomness, no threads. The
 * server's shard thread and the simulator drive it in the same way:
 *
 *   shard_new, then at a start with data shard_replay_frame for each frame of the checked log in
 * order, then shard_replay_end; then shard_step for each event, each followed by carrying the
 * actions out in order.
 *
 * SHARD_TURN_END closes a turn: what was appended to the log becomes one write. */
#pragma once

#include "core/actions.h"
#include "core/index.h"
#include "core/wal.h"

#include <stdbool.h>

/* Limits, each with a refusal of its own (RESULT_BUSY). */
#define TAIL_ENTRIES_MAX 8192                  /* uncommitted entries of one partition */
#define TAIL_BYTES_MAX   (UINT64_C(128) << 20) /* uncommitted bytes of one shard */
#define PARKED_OPS_MAX   4096                  /* operations of one shard that wait for the disk */
#define PARKED_BYTES_MAX (UINT64_C(64) << 20)  /* and their keys and values */

/* Rhythms of SHARD_TICK's work, microseconds. */
#define SHARD_TICK_USEC   50000   /* how often the owner should tick */
#define SHARD_COMMIT_USEC 100000  /* commits are told and noted this late at the latest */
#define SHARD_RESEND_USEC 1000000 /* a tail without progress is sent again */
#define SHARD_ACCUSE_USEC 500000  /* a view is asked for again */
#define SHARD_RESIGN_USEC 1500000 /* no successor came: the members are asked who leads (R16) */
#define SHARD_LEASE_USEC  200000  /* leases are asked for */
#define SHARD_GAP_USEC    1000000 /* between two ticks: nobody else is blamed for it (R14) */

/* Leases (R10): a lease counts from when it was asked for, a promise from when it was given. */
#define LEASE_USEC   1000000
#define PROMISE_USEC (LEASE_USEC + LEASE_USEC / 10 + 100000)

#define LESSON_BYTES_DEFAULT (256u << 10)
#define FAILURE_USEC_DEFAULT 1000000 /* failure-timeout: a primary that is not heard is accused */
#define REPLICA_USEC_DEFAULT 1000000 /* replica-timeout: so is another replica (R14) */

#define SWEEP_USEC_DEFAULT                                                                         \
    (UINT64_C(300) * 1000000)  /* a pass through all partitions of a shard                         \
                                */
#define SWEEP_RECORDS_MAX 1024 /* dropped in one step */

struct shard_options {
    struct wal_options log;
    uint32_t server; /* own number in the cluster */
    size_t value_bytes_max;
    uint64_t sweep_usec;   /* 0: SWEEP_USEC_DEFAULT */
    uint64_t failure_usec; /* 0: FAILURE_USEC_DEFAULT */
    uint64_t replica_usec; /* 0: REPLICA_USEC_DEFAULT */
    uint32_t lesson_bytes; /* of one piece of a catch-up; 0: LESSON_BYTES_DEFAULT */
    bool confirm;    /* read-mode = confirm: a round to the secondaries instead of leases (R10) */
    bool distrusted; /* nothing that was here counts: every copy begins emptied (R15) */
    bool untrusted;  /* an unclean start with a sync mode below always (R7) */
    index_open_fn index_open;
    void *index_ctx;
    /* The bytes of a committed entry of this server's log; they stay readable until the next step.
     * -EAGAIN: they are not in memory, ask by ACTION_READ; another -errno: they can't be read. */
    int (*read)(void *ctx, struct position at, size_t bytes, const uint8_t **ret);
    void *read_ctx;
};

/* Time is a parameter: both clocks, read afresh for each step. */
struct shard_clock {
    uint64_t boot_usec; /* CLOCK_BOOTTIME: for delays */
    uint64_t real_usec; /* CLOCK_REALTIME: for expiry only, through R13's median */
};

enum shard_event_kind {
    SHARD_FLOOR = 1, /* row: at registration the manager's newest view of a partition: formed with
                        an earlier process, not to be acted in (R6) */
    SHARD_VIEW,      /* row: the manager pushed a committed view (R9) */
    SHARD_SEAL,      /* note: seal this view and report (R7) */
    SHARD_OP,        /* op from a gateway or client */
    SHARD_PEEK,      /* peek: what is here of this key */
    SHARD_PREPARE,   /* from a primary */
    SHARD_COMMIT,    /* from a primary */
    SHARD_ACK,       /* from a secondary */
    SHARD_RESEND,    /* from a secondary */
    SHARD_CLOCK,     /* clock: a server's CLOCK_REALTIME and room, just received */
    SHARD_SPACE,     /* space: how much room this server's disk has */
    SHARD_PEER_UP,   /* the connection to `from` is new: what was sent before may be lost */
    SHARD_SYNCED,    /* everything up to `group` is on the disk */
    SHARD_WRITTEN,   /* everything up to `group` is written, which counts as durable (sync interval,
                        os) */
    SHARD_READ,      /* read: what an ACTION_READ asked for */
    SHARD_COMPACT,   /* victim: begin to copy what is needed of it (core/compaction.h) */
    SHARD_LEASES,    /* leases: a primary asks for them; its heartbeat (R10) */
    SHARD_GRANTS,    /* leases: what a secondary granted of what was asked at sent_usec */
    SHARD_LEASE_BACK,  /* note: a primary gives one back */
    SHARD_CATCHUP_ASK, /* from a learner */
    SHARD_CATCHUP,     /* to a learner */
    SHARD_CATCHUP_ACK, /* note, from a learner */
    SHARD_LEARNED,     /* learned, from a learner of `incarnation` */
    SHARD_MANAGER,     /* the leading manager was heard just now */
    SHARD_SESSIONS,    /* sessions: which are open, whole or what changed, in the order of the
                          managers'    log (R12) */
    SHARD_LEAVE,       /* this server stops: what it is primary of is handed over (R16) */
    SHARD_TICK,
    SHARD_TURN_END,
    _SHARD_EVENT_KIND_MAX,
    _SHARD_EVENT_KIND_INVALID = -22,
};

/* Room on a disk. What is left at SPACE_LOW is for deletes and for compaction, which make room. */
enum shard_space {
    SPACE_ROOM,
    SPACE_LOW,  /* nothing that stores is taken by partitions with a member here */
    SPACE_FULL, /* nothing is written that can be left out; reads go on */
    _SPACE_MAX,
    _SPACE_INVALID = -22,
};

struct shard_read {
    uint64_t number;     /* the action's */
    int error;           /* 0; -EBUSY: not tried, too many wait; else it can't be read */
    const uint8_t *data; /* valid until the step's actions were carried out */
    size_t bytes;
};

struct shard_event {
    enum shard_event_kind kind;
    uint32_t from;        /* server number of the sender, where a server sent it */
    uint64_t incarnation; /* of that server's process, from its hello */
    union {
        struct view_row row;
        struct msg_at note;
        struct {
            struct asker asker;
            struct op op;
        } op;
        struct {
            struct asker asker;
            const uint8_t *key;
            size_t key_len;
        } peek;
        struct msg_prepare prepare;
        struct msg_commit commit;
        struct {
            uint64_t usec;
            uint8_t space; /* enum shard_space */
        } clock;
        enum shard_space space;
        uint64_t group;
        struct shard_read read;
        struct msg_sessions sessions;
        struct wal_segment victim; /* its data stays until ACTION_COMPACTED */
        struct {
            uint64_t sent_usec;
            const struct msg_lease *v;
            size_t n;
        } leases;
        struct msg_catchup_ask ask;
        struct msg_catchup catchup;
        struct msg_learned learned;
    };
};

struct shard;

/* -errno of an index that can't be made. */
int shard_new(const struct shard_options *o, struct shard **ret);
/* NULL is fine; returns NULL. */
struct shard *shard_free(struct shard *s);

/* Frames of other shards' partitions are passed over. -EBADMSG: the log contradicts itself. */
int shard_replay_frame(struct shard *s, const struct frame *f, struct position at);
/* All of the log was replayed and is durable. Every partition held waits for a new view (R6). */
void shard_replay_end(struct shard *s);

void shard_step(struct shard *s, const struct shard_clock *now, const struct shard_event *e,
                struct actions *out);

/* ---- looking in, for status and the simulator's invariants ---- */

struct shard_counts {
    uint32_t members;      /* partitions that this shard is a member of */
    uint32_t primary;      /* of them, serving as primary */
    uint32_t waiting;      /* of them, waiting for a view */
    uint32_t distrusted;   /* partitions whose emptying is not on the disk yet (R15) */
    uint32_t untrusted;    /* members that may still lack answered writes (R7) */
    uint32_t learning;     /* partitions that it is a learner of, not a member… */
    uint64_t learnt_bytes; /* …and what catch-ups brought since the start */
    uint64_t taught_bytes; /* what catch-ups sent */
    uint32_t working;      /* of them, serving as primary or secondary */
    uint64_t records;      /* in the indexes, tombstones included */
    uint64_t tail_bytes;
};
void shard_count(const struct shard *s, struct shard_counts *ret);

enum replica_state {
    REPLICA_NONE,        /* not a member of the newest view that is known here */
    REPLICA_WAITING,     /* a member that may not act: restarted (R6) or sealed (R7) */
    REPLICA_ENTERING,    /* a new view is being made durable (R4) */
    REPLICA_RECONCILING, /* primary, until the view's no-op has committed (R5) */
    REPLICA_PRIMARY,
    REPLICA_SECONDARY,
    REPLICA_LEARNER, /* not a member: takes all writes and catches up (R6, R8) */
    _REPLICA_STATE_MAX,
    _REPLICA_STATE_INVALID = -22,
};
/* "primary", "secondary"… */
const char *replica_state_name(uint8_t state);

struct replica_info {
    uint16_t partition;
    uint8_t state; /* enum replica_state */
    uint32_t view;
    struct name commit;
    struct name durable;
    struct name last;
    uint64_t time_usec; /* partition time (R13) */
    uint8_t n_members;
    uint32_t members[REPLICAS_MAX]; /* of the newest view known here; the primary first */
    uint8_t n_learners;
    uint32_t learners[LEARNERS_MAX];
    bool complete;             /* R17: no catch-up is under way here */
    bool joint;                /* R8: the primary commits and reads nothing without a learner */
    uint64_t lease_until_usec; /* boot time: a primary may answer reads until then (R10) */
    uint64_t digest; /* of the records that live without end: equal where commits are equal */
};
/* -ENOENT when the partition is not of this shard or never was here. */
int shard_replica_info(const struct shard *s, uint16_t partition, struct replica_info *ret);
/* Calls fn for each entry of the tail (above the commit), in order. */
void shard_tail_walk(const struct shard *s, uint16_t partition,
                     void (*fn)(void *ctx, const struct entry *e, bool durable), void *ctx);
/* The committed record of a key, tombstones included, whatever this server's part: 0, -ENOENT. */
int shard_record(const struct shard *s, const uint8_t *key, size_t key_len,
                 struct index_record *ret);
