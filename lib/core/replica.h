/* Inside of a shard: its parts and one partition's replica. Only the machine's own files in core
 * include this, and the offline tools (io/datadir, the server's offline verbs), which look at a
 * shard's state or make one by hand; everybody else sees core/shard.h. */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "core/catchup.h"
#include "core/operation.h"
#include "core/session.h"
#include "core/shard.h"

/* An entry above the commit. */
struct tail_entry {
    struct map_node by_key;   /* in shard->pending_keys: the newest of its key */
    struct tail_entry *older; /* the one of the same key before it, and… */
    struct tail_entry *newer; /* …after it */
    struct map_node by_op;    /* in shard->pending_ops */
    struct list waiters;      /* struct waiter: who is answered when this entry commits */
    struct list dead;         /* in shard->graveyard until the next step */
    struct entry e;           /* points into bytes */
    struct position at;       /* in this server's log */
    uint64_t group;           /* durable when this group of the log is */
    size_t n_bytes;
    uint8_t bytes[];
};

/* An answer that waits for an entry, by its name (R3): its own, or one that it depends on. */
struct waiter {
    struct list link;
    struct asker asker;
    uint8_t answer; /* enum result_code */
    bool own;       /* the entry is the operation's own: the answer's values come from it */
    bool reads;     /* it proposed nothing: answered under leases only (R10) */
    uint64_t asked_usec;
};

/* What the primary knows of another member, or of a learner, in this view. */
struct member {
    uint32_t server;
    uint64_t acked_seq;      /* durable there up to here, as of this view */
    uint64_t told_seq;       /* commit that it was told */
    uint64_t told_time_usec; /* partition time that it was told */
    uint64_t told_digest;    /* of the copy here at that commit */
    uint64_t granted_usec; /* its newest grant of a lease: when that was asked for; 0: none (R10) */
    uint64_t heard_usec;   /* boot time of its newest grant or ack (R14) */

    /* of a learner */
    bool streams; /* it is sent all prepares */
    bool begun;   /* it has taken the start of its catch-up: what it acks counts from then on */
    bool taught;  /* and all the rest */
    bool learned; /* it says that it is complete */
    bool agrees;  /* and its digest was that of the copy here */
    bool joint;   /* nothing is committed or read without it (R8) */
    uint64_t joint_seq;    /* what was prepared before it became so */
    uint64_t incarnation;  /* of the process that learned */
    uint64_t asked_usec;   /* when its promotion was asked for */
    struct lesson *lesson; /* the catch-up that it is sent, or NULL */
    bool waits;            /* for its turn to be sent what it asked for */
    struct catchup_ask ask;
};

/* A promise not to act as primary before `until`: a lease was granted (R10). */
struct promise {
    uint32_t server;
    uint32_t view; /* of the newest grant */
    uint64_t until_usec;
};

struct flush_mark {
    uint64_t seq;       /* records below it are dead */
    uint64_t past_usec; /* records stamped before it are dead */
    uint64_t at_usec;   /* not 0: from this time on, records stamped before it are dead */
};

/* A row of the view table: entries from `first` on bear this view, up to the next row. */
struct view_run {
    uint32_t view;
    uint64_t first;
};
/* The manager was heard so lately: it can form a view that a step depends on (R8, R16). */
#define MANAGER_FRESH_USEC 1000000
#define SEQ_MAX            (UINT64_C(1) << 62) /* no partition comes near it */
#define VIEW_RUNS_MAX      1024                /* the oldest are forgotten */

struct replica {
    uint16_t partition;
    uint8_t state; /* enum replica_state; replica_move changes it */
    uint8_t n_members;
    uint8_t n_learners;
    uint32_t view;       /* highest that was ever logged here (R4, I7) */
    uint64_t view_group; /* the view is durable when this group is */
    struct member members[REPLICAS_MAX + LEARNERS_MAX]; /* the primary first, learners last */
    struct promise promises[REPLICAS_MAX];
    bool alone;          /* the log holds the committed no-op of a view of itself alone (R10) */
    bool doubted;        /* it may lack what was answered: an unclean start (R7) */
    bool rotten;         /* a record of it can't be read: it is to leave, and then to drop (R15) */
    bool dropped;        /* it was emptied, and the log says so (R15) */
    bool resigned;       /* as primary of this view it has stopped, for members[1] (R16) */
    uint64_t act_usec;   /* primary: not before this time */
    uint64_t heard_usec; /* secondary: when the primary was heard last; learner: it taught */
    uint64_t reconfig_usec; /* when the manager may be asked again */
    struct list in_leasing; /* shard list: leases are to be asked for at the turn's end */
    struct list leased_ops; /* operations that wait for leases: parked.c */
    struct index *index;
    struct position replay_from; /* what stands before it came with a checkpoint */

    /* the tail: entries with seq commit.seq + 1 .. last.seq, in a ring */
    struct tail_entry **ring;
    size_t ring_cap; /* a power of two */
    size_t ring_head;
    size_t n_tail;
    struct name commit;
    struct name last;
    uint64_t durable_seq;      /* last contiguous one durable here; >= commit.seq */
    uint64_t matched_seq;      /* secondary: last one known to be the primary's of this view */
    uint64_t acked_seq;        /* secondary: last one acked in this view */
    uint64_t heard_commit_seq; /* …and the highest commit that it was told of */
    uint64_t progress_usec;    /* boot time of the last commit, resend or change of view */
    uint64_t commit_usec;      /* boot time of the last commit, or when the tail began to wait */

    struct view_run *runs; /* the view table: view_table.c */
    size_t n_runs;
    size_t cap_runs;

    /* R17: catchup_sink.c */
    bool incomplete;      /* it holds all up to `base`, and some up to base_end */
    bool names_all;       /* the source names all live keys */
    struct name base;     /* n */
    struct name base_end; /* m */
    uint64_t base_group;  /* of the log: the note about it is in it */
    struct index *named;  /* keys that the source named */
    unsigned n_sources;   /* catch-ups that read here: the horizon stands still */

    uint64_t digest;                  /* replica_index_put */
    uint64_t n_expiring;              /* records in the index that have an end */
    uint64_t swept_flush_seq;         /* what this flush killed has left the index */
    uint64_t horizon_seq;             /* highest seq of a dropped tombstone or dead record */
    uint64_t time_usec;               /* partition time given out so far (R13) */
    struct flush_mark flush;          /* of what is committed */
    struct flush_mark flush_pending;  /* of the tail as well */
    struct tail_entry *pending_flush; /* the newest in the tail */
    struct session_table sessions;
    uint64_t ends_index; /* shard->ended_index when `sessions` was looked through for ended ones… */
    uint32_t ends_view; /* …and the view */

    struct list in_unsynced; /* shard lists; empty node = not in it */
    struct list in_acks;
    struct list in_commits; /* its commit is to be noted in the log */
    struct list in_told;    /* its members are to be told */
    struct list in_entering;
    struct list in_sealing;
    struct list in_completing;
    bool ack_owed;        /* even when nothing new is durable: the primary asked again */
    bool asked;           /* a resend was asked for and nothing fitting came yet */
    uint64_t taken;       /* learner: number of the last piece of its catch-up; UINT64_MAX: none */
    uint64_t taken_group; /* of the log: it is in it */
    struct list in_taking;
};

struct peer {
    bool clock_known;
    uint8_t space;             /* enum shard_space */
    int64_t clock_offset_usec; /* its CLOCK_REALTIME minus our CLOCK_BOOTTIME */
    uint64_t progress_usec;    /* when an ack of any partition moved on (R14) */
    struct msg_lease *asks;    /* leases to be asked for */
    size_t n_asks;
    size_t cap_asks;
};

/* A copy or a drop that is in the log and not yet in the index. */
struct relocation {
    const uint8_t *entry; /* in the victim */
    size_t bytes;
    struct position from;
    struct position to; /* segment 0: dropped */
    uint64_t group;
};

struct compaction {
    bool running;
    bool read;   /* the cursor is at the victim's end */
    bool ending; /* what was committed meanwhile is noted, in end_group */
    uint64_t end_group;
    struct wal_segment victim;
    struct wal_cursor cursor;
    uint64_t budget_bytes;          /* that may be read now */
    uint64_t budget_usec;           /* boot time when it was counted last… */
    uint64_t budget_prepared;       /* …and shard->prepared_bytes */
    struct relocation *relocations; /* oldest first */
    size_t n;
    size_t cap;
    uint64_t copied;
    uint64_t dropped;
};

/* The record of a parked operation, as it was read, or why it was not. */
struct warm_record {
    struct position at; /* segment 0: there is none */
    const uint8_t *data;
    size_t bytes;
    int error;
};

struct shard {
    struct shard_options o;
    struct wal log;
    struct replica *replicas; /* of partitions shard, shard + shards, … */
    size_t n_replicas;
    struct peer *peers; /* by server number */
    size_t n_peers;
    size_t cap_peers;
    struct map pending_keys;
    struct map pending_ops;
    uint64_t tail_bytes;
    uint64_t prepared_bytes; /* since the start */
    struct list unsynced;
    struct list acks;
    struct list commits;
    struct list told;
    struct list entering;
    struct list sealing;
    struct list completing; /* catch-ups whose end is not synced yet */
    struct list leasing;
    struct list taking;  /* pieces of catch-ups that are not acked yet */
    struct list lessons; /* catch-ups that are sent: learner.c */
    uint32_t n_lessons;
    uint32_t lessons_wait; /* learners that wait for one */
    uint64_t lesson_ids;
    size_t lesson_next; /* replica, counted on, whose learners are looked at next */
    struct buf *pieces; /* sent in the step in progress */
    size_t n_pieces;
    size_t cap_pieces;
    struct msg_lease *grants; /* of the step in progress */
    size_t cap_grants;
    uint64_t lease_usec;   /* when leases were asked for last */
    uint64_t manager_usec; /* when the manager was heard last */
    uint64_t tick_usec;    /* the last tick */
    uint64_t quiet_usec;   /* nobody was expected to be heard before this time */
    uint64_t begin_usec;   /* the first step */
    uint64_t asked_usec;   /* when the operation in progress arrived */
    uint64_t learnt_bytes;
    uint64_t taught_bytes;
    bool leaving; /* R16 */
    struct list graveyard;
    struct list free_waiters;
    struct map parked; /* operations that wait for the disk: parked.c */
    struct map parked_ops;
    uint64_t parked_bytes;
    uint64_t parked_number;
    struct warm_record warm; /* what was read for the operation that begins anew in this step */
    struct buf scratch;
    uint64_t commits_usec; /* when commits were noted and told last */
    bool commits_due;
    bool flushed; /* the log's last flush was handed out and not yet given up */
    bool halted;
    enum shard_space space;
    struct compaction compaction;
    size_t sweep_next;   /* replica, counted on */
    uint64_t sweep_usec; /* boot time of the next one */
    struct live_sessions live;
    uint64_t ended_index; /* of the managers' log, when a session was last heard to be over */
    size_t sessions_next; /* replica, counted on */

    /* of the step in progress */
    struct actions *out;
    struct shard_clock now;
};

/* ---- replica.c: views, commit, apply ---- */

extern const struct sm_table replica_sm;
void replica_init(struct shard *s, struct replica *r, uint16_t partition);
void replica_free(struct shard *s, struct replica *r);
static inline bool replica_is_primary(const struct replica *r)
{
    return r->state == REPLICA_PRIMARY || r->state == REPLICA_RECONCILING;
}
static inline struct tail_entry *replica_tail(const struct replica *r, uint64_t seq)
{
    return seq > r->commit.seq && seq <= r->last.seq
               ? r->ring[(r->ring_head + (seq - r->commit.seq - 1)) & (r->ring_cap - 1)]
               : NULL;
}
/* A view from the manager (R4, R9); `floor`: formed with an earlier process. */
void replica_view(struct shard *s, struct replica *r, const struct view_row *row, bool floor);
/* The view became durable: begin it (R5). */
void replica_enter(struct shard *s, struct replica *r);
void replica_seal(struct shard *s, struct replica *r, uint32_t view);
/* The primary stops, so that members[1] follows it (R16). */
void replica_resign(struct shard *s, struct replica *r);
/* The copy counts for nothing any more: emptied, incomplete, and said so in the log (R15). */
void replica_drop(struct shard *s, struct replica *r);
/* A primary that can't be read stops and asks to leave: the other members have theirs. It is
 * dropped when one of them leads; whoever is left alone keeps what can be read. */
void replica_distrust(struct shard *s, struct replica *r);
/* It is a member of a view that was formed with this very process: before view 1 there was nothing,
 * so whatever lies here is all. */
static inline void replica_born(struct replica *r, uint32_t view, enum view_part part)
{
    r->incomplete =
        r->incomplete && (view != 1 || (part != VIEW_PRIMARY && part != VIEW_SECONDARY));
}
/* Begins with nothing, and says so in the log. */
void replica_begin_dropped(struct shard *s, struct replica *r);
/* Primary, when its view's no-op has committed and no promise stands against it (R5, R10). */
void replica_serve(struct shard *s, struct replica *r);
/* Asks the manager, at most every SHARD_ACCUSE_USEC for a replica unless `at_once`. */
void replica_reconfig(struct shard *s, struct replica *r, enum reconfig_kind kind, uint32_t server,
                      uint64_t incarnation);
/* This server's place among members and learners, or NULL. */
struct member *replica_member(struct replica *r, uint32_t server);
static inline bool replica_is_learner(const struct replica *r, const struct member *m)
{
    return m >= r->members + r->n_members;
}
/* Reports if all that it holds is durable. Returns whether it did. */
bool replica_report_sealed(struct shard *s, struct replica *r);
/* Commits and applies up to seq (R2): members' logs have it. */
void replica_commit_to(struct shard *s, struct replica *r, uint64_t seq);
/* The primary's rule: what is durable at every member is committed. */
void replica_try_commit(struct shard *s, struct replica *r);
/* Moves durable_seq on after a sync. */
void replica_sync(struct shard *s, struct replica *r);
/* What a commit or a replay does to the index, and with it to the digest: a sum over (key, seq) of
 * the records that live without end and were not flushed. Replicas with equal commits have equal
 * digests. No memory: the shard halts. */
void replica_index_put(struct shard *s, struct replica *r, const uint8_t *key, size_t key_len,
                       const struct index_record *rec);
void replica_index_drop(struct replica *r, const uint8_t *key, size_t key_len);
/* What the record adds to the digest. */
uint64_t replica_digest_of(const struct replica *r, const uint8_t *key, size_t key_len,
                           const struct index_record *rec);
/* Adds an entry (encoded at `bytes`, checked) to the tail and the log. `at`: it is in the log
 * already. */
struct tail_entry *replica_push(struct shard *s, struct replica *r, const uint8_t *bytes,
                                size_t n_bytes, const struct position *at);
/* The newest entry of the key in the tail, or NULL. */
struct tail_entry *replica_pending(const struct shard *s, const struct replica *r,
                                   const uint8_t *key, size_t key_len);
/* Removes entries from seq on; above the commit only (R1). */
void replica_cut(struct shard *s, struct replica *r, uint64_t seq);
/* Answers all waiters "not me" (R3). */
void replica_release_waiters(struct shard *s, struct replica *r);
/* Partition time now, for the primary; never falls (R13). */
uint64_t replica_now(struct shard *s, struct replica *r);
/* For whoever is not to move it: the primary's, or what was told last. A member that restarted
 * knows its own clock only. */
uint64_t replica_told_time(struct shard *s, struct replica *r);
/* Is a record dead by a flush? */
bool flush_covers(const struct flush_mark *f, uint64_t seq, uint64_t stamp_usec, uint64_t now_usec);
/* What a flush entry does to the mark. */
void flush_apply(struct flush_mark *f, const struct entry *e);
void replica_waiter_add(struct shard *s, struct tail_entry *te, const struct waiter *w);
void shard_halt(struct shard *s, const char *why);
/* Begins what is done between steps; the actions are carried out as a step's. False: halted. */
bool shard_enter(struct shard *s, struct actions *out);
/* What is known of a server; room is made. */
struct peer *shard_peer(struct shard *s, uint32_t server);
/* NULL: not a partition of this shard. */
struct replica *shard_replica(const struct shard *s, uint32_t partition);

/* ---- view_table.c ---- */

/* An entry was added behind all others. */
void view_runs_add(struct replica *r, struct name name);
/* Entries above seq are gone. */
void view_runs_cut(struct replica *r, uint64_t seq);
void view_runs_set(struct replica *r, const struct view_run *runs, uint32_t n);
/* Does this name belong to what is committed here? Names that the table has forgotten don't. */
bool view_runs_agree(const struct replica *r, struct name name);
void view_runs_put(struct buf *b, const struct replica *r);
/* Returns how many; look at in->failed. Rising views and seqs only. */
uint32_t view_runs_get(struct mp_reader *in, struct view_run runs[VIEW_RUNS_MAX]);

/* ---- catchup_sink.c ---- */

/* FRAME_BASE, and what a source sends first: [BASE_START, n, m, all keys are named?, view table,
 * flush mark, horizon, time, sessions]; or [BASE_END, m]. */
enum { BASE_START, BASE_END };
#define BASE_START_ITEMS 13
/* In what a source sends: the kind, then the bytes. */
enum { CATCHUP_RECORD, CATCHUP_KEY };
/* The end of a catch-up may be durable now. */
void catchup_synced(struct shard *s);
int catchup_replay_base(struct shard *s, struct replica *r, const struct frame *f);

/* ---- stream.c: prepares, acks, resends ---- */

/* The other members, and learners that are being taught. `m` may be NULL. */
bool stream_goes_to(const struct replica *r, const struct member *m);
void stream_send(struct shard *s, struct replica *r, uint32_t server, const struct tail_entry *te);
/* Sends the tail above seq to one member. */
void stream_resend(struct shard *s, struct replica *r, uint32_t server, uint64_t seq);
void stream_prepare(struct shard *s, struct replica *r, uint32_t from, const struct msg_prepare *m);
void stream_commit(struct shard *s, struct replica *r, uint32_t from, const struct msg_commit *m);
void stream_ack(struct shard *s, struct replica *r, uint32_t from, const struct msg_at *m);
void stream_resend_asked(struct shard *s, struct replica *r, uint32_t from, const struct msg_at *m);
/* Emits the acks that are due (R2: one listing per sync). */
void stream_flush_acks(struct shard *s);
/* Tells members of commits. */
void stream_tell_commits(struct shard *s);
/* This one's are to be told. */
void stream_tell(struct shard *s, struct replica *r);

/* ---- lease.c: leases, promises, who is not heard (R10, R14) ---- */

/* Leases are asked for at the turn's end. */
void lease_want(struct shard *s, struct replica *r);
void lease_turn_end(struct shard *s);
void lease_tick(struct shard *s);
void lease_asked(struct shard *s, const struct shard_event *e);
void lease_granted(struct shard *s, const struct shard_event *e);
void lease_returned(struct replica *r, uint32_t from, uint32_t view);
/* The primary acts no more: what was granted is given back. */
void lease_give_back(struct shard *s, const struct replica *r);
/* May the primary answer, now, what was asked at s->asked_usec? */
bool lease_holds(const struct shard *s, const struct replica *r);
/* When the last promise to another server ends. */
uint64_t lease_promised_until(const struct replica *r, uint32_t self);
/* Accuses who is not heard. */
void lease_watch(struct shard *s, struct replica *r);

/* ---- learner.c: catch-up over the network and promotion (R17, R8) ---- */

/* A learner entered a view, or has to begin anew. */
void learner_begin(struct shard *s, struct replica *r);
void learner_tick(struct shard *s, struct replica *r);
void learner_synced(struct shard *s);
void learner_catchup(struct shard *s, struct replica *r, uint32_t from,
                     const struct msg_catchup *m);
/* Tells the primary how far a complete copy is. */
void learner_tell(struct shard *s, struct replica *r);
void learner_asked(struct shard *s, struct replica *r, const struct shard_event *e);
void learner_acked(struct shard *s, struct replica *r, uint32_t from, const struct msg_at *m);
void learner_learned(struct shard *s, struct replica *r, const struct shard_event *e);
/* What it needed of the disk was read. False: it was not for a catch-up. */
bool learner_read(struct shard *s, const struct shard_read *read);
/* Begins the catch-ups that there is room for. */
void learner_turn_end(struct shard *s);
/* The primary's care for its learners: lessons, joint state, promotion. */
void learner_watch(struct shard *s, struct replica *r);
/* Nothing more is taught in this view. */
void learner_dismiss(struct shard *s, struct replica *r);
void lesson_free(struct shard *s, struct lesson *l);

/* ---- compaction.c ---- */

void compaction_begin(struct shard *s, const struct wal_segment *victim);
/* Reads on, a slice at a time, at a bounded rate; called at the end of every turn. */
void compaction_go_on(struct shard *s);
/* What became durable goes to the index. */
void compaction_synced(struct shard *s);
void compaction_free(struct shard *s);
/* Notes in the log that a dead record leaves the index, and raises the horizon. */
void compaction_gone(struct shard *s, struct replica *r, uint64_t seq, const uint8_t *key,
                     size_t key_len);
int compaction_replay_copy(struct shard *s, struct replica *r, const struct frame *f,
                           struct position at);
int compaction_replay_gone(struct replica *r, const struct frame *f);
/* Notes the replica's commit in the log now, if that is owed. */
void shard_note_commit(struct shard *s, struct replica *r);

/* ---- sweep.c ---- */

/* Looks through one partition, when it is time. */
void sweep_tick(struct shard *s);

/* ---- shard_sessions.c ---- */

/* The managers told which sessions are open. */
void sessions_told(struct shard *s, const struct msg_sessions *m);
/* Why an operation of this session is not taken now: enum result_code; 0: it is. */
uint8_t session_refusal(const struct shard *s, const struct replica *r, uint64_t session);
/* Proposes that ended sessions be forgotten, a few at a time. */
void sessions_tick(struct shard *s);

/* ---- parked.c: operations that wait for the disk ---- */

/* Keep the operation, and ask for the record. False: too many wait. */
bool parked_op(struct shard *s, const struct replica *r, struct asker asker, const struct op *op,
               const struct index_record *rec);
/* Keep the operation until the replica's leases are good for it. False: too many wait. */
bool parked_lease(struct shard *s, struct replica *r, struct asker asker, const struct op *op);
/* The leases may be good now. */
void parked_leased(struct shard *s, struct replica *r);
/* The replica acts no more: "not me". */
void parked_refuse(struct shard *s, struct replica *r);
bool parked_peek(struct shard *s, const struct replica *r, struct asker asker, const uint8_t *key,
                 size_t key_len, const struct index_record *rec);
/* Another copy of this operation has come: the one that waits is not wanted any more. */
void parked_forget(struct shard *s, const struct replica *r, const struct op *op);
void parked_read(struct shard *s, const struct shard_read *read);
void parked_free(struct shard *s);

/* ---- propose.c: operations ---- */

void propose_op(struct shard *s, struct replica *r, struct asker asker, const struct op *op);
/* Answers "not me". */
void propose_not_primary(struct shard *s, const struct replica *r, struct asker asker);
void propose_noop(struct shard *s, struct replica *r);
/* What is remembered of this session is to go: it is over. */
void propose_session_end(struct shard *s, struct replica *r, uint64_t session);
void propose_peek(struct shard *s, struct replica *r, struct asker asker, const uint8_t *key,
                  size_t key_len);
/* Answers one waiter of a committed entry. */
void propose_answer(struct shard *s, const struct replica *r, const struct waiter *w,
                    const struct tail_entry *te);
uint64_t propose_op_hash(uint16_t partition, const struct op_id *op);
