/* The simulator: managers, servers and clients of one cluster in one process, on virtual time, with
 * the code of lib/core that the daemons run and nothing of lib/io. Everything that happens follows
 * from the seed: one random number generator, one queue of events, no clock, no addresses. What
 * only the daemons do (superblock, registration, the order of a start) is done here as they do it.
 *
 * docs: "the simulator" in docs/architecture.md. Consensus is an ideal log with delays, lost
 * leadership and unknown outcomes (managers.c), not libraft. */
#pragma once

#include "base/assert.h"
#include "base/buf.h"
#include "base/map.h"
#include "base/rng.h"
#include "core/checkpoint.h"
#include "core/incarnation.h"
#include "core/cluster.h"
#include "core/manager.h"
#include "core/replica.h"
#include "core/route.h"
#include "core/shard.h"
#include "lin/lin.h"
#include "sim/disk.h"
#include "sim/net.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define SIM_SERVERS_MAX    5
#define SIM_SHARDS_MAX     3
#define SIM_CLIENTS_MAX    6
#define SIM_NODES_MAX      (SIM_SERVERS_MAX + 1 + SIM_CLIENTS_MAX + 1)
#define SIM_PARTITIONS_MAX 8
#define SIM_SLOTS_MAX      4 /* operations that a client has under way */
#define SIM_KEYS_MAX       48
#define SIM_VALUE_BYTES    8192
#define SIM_LINES_MAX      400 /* of the trace that are kept */
#define MEMBERS_BACK_SEC   10  /* after healing, and the starts that it means, all serves (I11) */

#define USEC_PER_MSEC UINT64_C(1000)
#define USEC_PER_SEC  UINT64_C(1000000)

struct sim;

/* ---- queue.c: events in the order of (time, sequence) ---- */

/* Something that can die: events of an earlier life never happen. */
struct process {
    const char *name;
    bool alive;
    uint64_t life;
    uint64_t paused_until_usec;
};

struct event {
    uint64_t at_usec;
    uint64_t seq;
    void (*fn)(struct sim *s, struct event *e);
    struct process *process; /* NULL: of nobody */
    uint64_t life;
    void *who;
    uint64_t number;
    void *data; /* one block of malloc, freed after fn */
};

struct queue {
    struct event *heap;
    size_t n;
    size_t cap;
    uint64_t next_seq;
};

void queue_push(struct queue *q, const struct event *e);
/* An event that was popped, at another time: it keeps its place among those of one time. */
void queue_push_again(struct queue *q, const struct event *e);
bool queue_pop(struct queue *q, struct event *ret);
void queue_free(struct queue *q);

/* ---- the simulated processes ---- */

struct shard_process {
    struct server *server;
    struct shard *shard;
    uint32_t index;
    bool turn_due;
    bool syncing;
    uint64_t sync_group;   /* of the sync under way */
    uint64_t queued_group; /* of the one after it; 0: none */
    uint64_t early_group;  /* the core was told of it too early, by a planted bug */
    uint32_t segment_crc;  /* of the head of the segment being written */
    uint32_t written_view[SIM_PARTITIONS_MAX];
    uint32_t syncing_view[SIM_PARTITIONS_MAX];
    struct message **held; /* acks that a planted bug holds back */
    struct link **held_links;
    size_t n_held;
    size_t cap_held;
    size_t cap_held_links;

    /* its part of the generation of checkpoints that is being made */
    uint64_t synced_group; /* of the log, durable in truth */
    uint64_t x_group;      /* durable: the log is, through every X */
    uint32_t taken;
    uint64_t file_bytes;
    bool waits_for_log;

    struct action *blocked; /* for the log, while the disk is full; the bytes are its own */
    size_t n_blocked;
    size_t cap_blocked;

    /* its part of a compaction */
    uint64_t asked_group; /* of the log: a sync of it was asked for */
    bool compact_runs;    /* the core copies */
    bool compact_waits;   /* all is copied: for the sync of what is written */
    bool compact_copied;  /* a copy was written */
    bool compact_early;   /* the main thread was told too early, by a planted bug */
    int compact_error;
};

/* A generation of checkpoints that is being made. */
struct generation {
    bool running;
    uint64_t number;
    uint32_t shards_done;
    struct manifest manifest;
};

/* Victims of a compaction, one after the other. */
struct compactor {
    bool running;
    struct wal_floor floor;        /* X of the newest generation… */
    struct wal_floor floor_before; /* …and of the one before it; empty: there is none */
    struct compaction_live live;
    uint32_t *victims;
    size_t n;
    size_t next;
    uint32_t shards_done;
    int status;
    uint32_t early; /* removed too early, by a planted bug: it is mapped still */
};

/* What a server keeps beside its log: durable as soon as it is written. */
struct superblock {
    uint64_t start;
    struct incarnation incarnation; /* of this process */
    bool compacted;                 /* the log alone is not everything any more */
    bool clean;                     /* the last process stopped in order */
    bool doubt;                     /* answered writes may have been lost here (R7) */
    bool distrust;          /* nothing on this disk counts, until the log says so itself (R15) */
    uint32_t first_segment; /* of this start: numbers are never used again */
    uint32_t number;
    uint32_t partitions;
};

enum server_life { LIFE_OFF, LIFE_STARTING, LIFE_REGISTERING, LIFE_ACCEPTING, LIFE_RUNNING };

struct server {
    struct sim *sim;
    enum shard_space space; /* of its disk */
    struct process process;
    uint32_t index;
    uint8_t id[UUID_BYTES];
    char name[NAME_BYTES_MAX];
    enum server_life state;
    struct disk disk;
    struct superblock super; /* as this process sees it */
    struct superblock super_durable;
    uint32_t highest_segment; /* that was found at the start */
    uint32_t n_shards;
    struct shard_process shards[SIM_SHARDS_MAX];
    struct message **early; /* from the manager, before the acceptance was durable */
    size_t n_early;
    size_t cap_early;
    uint64_t boot_offset_usec;
    int64_t clock_skew_usec;
    int64_t clock_drift_ppm;
    bool restart_due;
    uint32_t doom; /* crashes after so many writes to its logs; 0: not planned */

    struct disk folder; /* of checkpoints */
    struct disk attic;  /* segments as they were when they were compacted */
    struct generation generation;
    struct compactor compactor;
    uint64_t highest_generation; /* of anything that lies in the folder */
    uint64_t good_generation;    /* that this start used or that was published last; 0: none */
    struct manifest manifest;    /* of the generation that this start uses */
    bool leaving;                /* hands over, before it stops */
    bool stopping;               /* after this generation */
    /* What is known here and not there. Generations that it counted as published and that nothing
     * damaged, the newest last: one of them must always be found. */
    uint64_t published[2];
    uint64_t *damaged; /* generations */
    size_t n_damaged;
    size_t cap_damaged;
};

struct manager_process {
    struct process process;
    struct manager *manager;
    bool leader;
    bool attached;
    struct buf *log; /* committed entries; log[i] has index i + 1 */
    size_t n_log;
    size_t cap_log;
    size_t applied;
    struct buf snapshot; /* of the first `snapshot_index` entries */
    size_t snapshot_index;
    struct proposal *proposals; /* not decided yet, oldest first */
    size_t n_proposals;
    size_t cap_proposals;
    uint64_t term; /* how often the lead was taken or lost */
    bool stepping;
    uint64_t subscribers; /* bit: client */
    struct manager_actions actions;
};

enum key_kind { KEY_MIXED, KEY_COUNTER, KEY_ELEMENTS, KEY_EXPIRING };

/* A key and what clients saw of it. */
struct key {
    char name[32];
    uint8_t name_len;
    uint8_t kind; /* enum key_kind */
    uint16_t partition;
    bool retired; /* nobody begins operations on it any more */
    uint32_t unknown;
    uint64_t last_token; /* that some client saw */
    struct lin_op *ops;
    size_t n;
    size_t cap;
};

struct slot {
    struct route_client client;
    bool busy;
    struct key *key; /* NULL: it flushes a partition */
    size_t op;       /* of key->ops */
    struct lin_op flush;
    uint16_t partition; /* that it flushes */
};

struct client {
    struct process process;
    uint32_t index;
    uint32_t n_slots;
    struct slot *slots;
    struct route *route;
    struct hashspace space;
    bool wanted[SIM_SERVERS_MAX][SIM_SHARDS_MAX]; /* connections that the routing asked for */
    bool up[SIM_SERVERS_MAX][SIM_SHARDS_MAX];     /* connections that the routing was told of */
    bool session_wanted;
    uint64_t session; /* 0: none */
    uint64_t next_wake_usec;
    struct route_actions actions;
};

struct lost_flush {
    uint16_t partition;
    struct lin_op op;
};

/* ---- check.c: invariants ---- */

struct check;
void check_init(struct sim *s);
void check_free(struct sim *s);
/* Bytes that a shard writes to its log: every entry, commit and view in them. */
void check_write(struct sim *s, struct shard_process *sp, const uint8_t *p, size_t bytes);
/* After each step of a shard. */
void check_step(struct sim *s, struct shard_process *sp, const struct shard_event *e);
/* A message that names a view leaves the shard. */
void check_sent_view(struct sim *s, const struct shard_process *sp, uint16_t partition,
                     uint32_t view);
/* A server says what it holds of a sealed view (R7); it acks something of a view. */
void check_sealed(struct sim *s, const struct server *sv, uint16_t partition, uint32_t view);
void check_acked(struct sim *s, const struct server *sv, uint16_t partition, uint32_t view);
void check_synced(struct sim *s, struct shard_process *sp);
/* What is written counts as durable (sync modes below always). */
void check_written(struct sim *s, struct shard_process *sp);
/* Is a view written and not durable? */
bool check_view_pending(const struct sim *s, const struct shard_process *sp);
/* It has read its log. */
void check_replayed(struct sim *s, struct shard_process *sp);
/* The process is gone. */
void check_server_gone(struct sim *s, const struct server *sv);
/* The manager committed a row. */
void check_row(struct sim *s, const struct view_row *row);
/* How many members the partition's newest view has. */
unsigned check_members(const struct sim *s, uint16_t partition);
/* The power went, with a sync mode below always: it may lack what was answered. */
void check_lost(struct sim *s, const struct server *sv);
/* A member finds that it lacks what its primary knows as committed. */
void check_lacking(struct sim *s, const struct server *sv, const struct msg_at *above);
/* Did all members of a view lose power so? Then answered writes may be gone (R7). */
bool check_is_lossy(const struct sim *s, uint16_t partition);
/* Its disk lost what it had: what it holds counts for nothing while it is a member still. */
void check_distrusts(struct sim *s, const struct server *sv);
/* Has every partition another copy that counts, at a server that runs? */
bool check_may_distrust(const struct sim *s, const struct server *sv);
/* Is the server in the newest view that the managers committed? */
bool check_is_member(const struct sim *s, const struct server *sv, uint16_t partition);
/* Are as many complete copies of the partition at members that run as a view needs? */
bool check_has_copy(const struct sim *s, uint16_t partition);
/* At the end: every learner is a member again. */
void check_redundancy(struct sim *s);
/* At the end, when all is quiet: replicas hold the same (I6). */
void check_equal(struct sim *s);
/* The histories. */
void check_histories(struct sim *s);

/* ---- the whole ---- */

enum plant {
    PLANT_NONE,
    PLANT_ANSWER_BEFORE_OWN_SYNC,
    PLANT_ACK_BEFORE_SYNC,
    PLANT_ACK_BEFORE_RECEIPT,
    PLANT_FORGET_VIEW,
    PLANT_NO_SYNC_AT_START,
    PLANT_KEEP_TORN_TAIL,
    PLANT_NO_FOLDER_SYNC,
    PLANT_RETRY_AS_NEW,
    PLANT_COMMIT_BEFORE_ACKS,
    PLANT_READ_FROM_SECONDARY,
    PLANT_INDEX_FORGETS,
    PLANT_NEVER_ACCUSE,
    PLANT_CHECKPOINT_WITHOUT_TAIL,
    PLANT_PUBLISH_BEFORE_LOG,
    PLANT_PUBLISH_BEFORE_FILES,
    PLANT_WRONG_X,
    PLANT_KEEP_ONE_GENERATION,
    PLANT_KEEP_BY_NUMBER,
    PLANT_NO_FOLDER_SYNC_AFTER_RENAME,
    PLANT_TRUST_TOO_MUCH,
    PLANT_COMPACTION_DROPS_PENDING,
    PLANT_VICTIM_ABOVE_X,
    PLANT_UNLINK_BEFORE_COPIES,
    PLANT_GONE_FORGOTTEN,
    PLANT_REPLAY_BY_SEQ,
    PLANT_COMPACTION_DURING_GENERATION,
    PLANT_ANSWER_CUT,
    PLANT_CUT_HELD,
    PLANT_ACK_AFTER_SEAL,
    PLANT_ACK_SEALED,
    PLANT_SERVE_EARLY,
    PLANT_JOINT_COMMITS,
    PLANT_JOINT_READS,
    PLANT_PROMOTE_ANY_VIEW,
    PLANT_ADMIT_INCOMPLETE,
    PLANT_BELOW_HORIZON,
    PLANT_TRIM_EARLY,
    PLANT_READ_WITHOUT_LEASE,
    PLANT_LEASE_FROM_GRANT,
    PLANT_PROMISE_NOT_KEPT,
    PLANT_PROMISE_FORGOTTEN,
    PLANT_CONFIRM_BEFORE,
    _PLANT_MAX,
};
extern const char *const plant_names[_PLANT_MAX];
extern const char *const plant_stories[_PLANT_MAX];

enum fault {
    FAULT_KILL,
    FAULT_POWER,
    FAULT_POWER_ALL,
    FAULT_BREAK,
    FAULT_STALL,
    FAULT_PAUSE,
    FAULT_CLOCK,
    FAULT_MANAGER_KILL,
    FAULT_MANAGER_FLIP,
    FAULT_CLIENT_KILL,
    FAULT_STOP, /* a clean one, with a last generation of checkpoints */
    FAULT_FULL, /* a disk has little room, or none */
    FAULT_CUT,  /* of the network (cuts.c) */
    FAULT_AWAY, /* a server is killed and stays away for long */
    _FAULT_MAX,
};

/* What is seldom and yet allowed, at places that the code names: each seed draws how often. */
enum bug {
    BUG_TICK_GAP,         /* a tick comes seconds late */
    BUG_SLOW_ASK,         /* what a server asks the manager for stands still on its way */
    BUG_CRASH_IN_CATCHUP, /* either side is killed, or its machine */
    BUG_CRASH_IN_VIEW,    /* a member is killed when a view is committed, or soon after */
    BUG_BREAK_IN_VIEW,    /* a connection breaks then */
    BUG_CUT_IN_VIEW, /* the primary is cut off, but for some clients, before or after it hears */
    BUG_EARLY_GENERATION, /* checkpoints are taken in the middle of a catch-up */
    _BUG_MAX,
};

/* Drawn from the seed. */
struct setup {
    uint32_t servers;
    uint32_t partitions;
    uint32_t replicas;
    uint32_t clients;
    uint32_t keys_per_partition;
    uint32_t segment_bytes;
    uint64_t faults_end_usec; /* then everything is healed */
    uint64_t probe_usec;      /* then every partition must serve */
    uint64_t end_usec;
    uint64_t fault_usec[_FAULT_MAX]; /* mean time between two; 0: never */
    uint64_t bug_chance[_BUG_MAX];   /* of 1000 */
    uint64_t slow_links;             /* of 100 */
    bool small_pieces;               /* a catch-up sends record after record */
    uint64_t delay_min_usec;
    uint64_t delay_max_usec;
    uint64_t sync_max_usec;
    uint64_t think_max_usec;
    uint64_t checkpoint_usec;       /* mean time between two generations; 0: only at clean stops */
    uint64_t checkpoint_pause_usec; /* at most, between two partitions */
    uint64_t sweep_usec;
    uint64_t session_usec; /* of a session that nobody names; 0: for ever, as far as this goes */
    uint64_t renew_usec;   /* how often a client names its session */
    uint64_t cold_chance;  /* of 4: a record is not in memory */
    bool read_errors;      /* the disk fails to give some of them */
    uint64_t compaction_chance; /* of 4, after a generation; 0: never */
    bool compaction_crashes;
    bool damage; /* some generations are damaged */
    bool shards_change;
    bool slow_syncs;
    bool weak_sync;        /* what is written counts as durable */
    bool confirm;          /* read-mode = confirm */
    bool distrust;         /* some starts find that their disk lost what it had */
    uint64_t failure_usec; /* of the manager */
    uint64_t silence_usec; /* failure-timeout and replica-timeout of the servers */
    uint32_t min_replicas_auto;
    bool flushes;
    bool expiry;
    bool large_values;
};

struct counts {
    uint64_t events;
    uint64_t ops_ok;
    uint64_t writes_ok;
    uint64_t ops_unknown;
    uint64_t ops_failed;
    uint64_t sends; /* operations to servers, again and again */
    uint64_t retries;
    uint64_t sessions_ended;
    uint64_t syncs;
    uint64_t views;
    uint64_t starts;
    uint64_t faults[_FAULT_MAX];
    uint64_t bugs[_BUG_MAX];
    uint64_t reconfigs[_RECONFIG_MAX]; /* views that servers asked for, again and again */
    uint64_t entries;
    uint64_t resends;
    uint64_t damages;  /* records that a disk could not give */
    uint64_t no_space; /* operations refused by a full disk */
    uint64_t blocked;  /* writes to the log that had to wait */
    uint64_t cold;     /* records read off the loop */
    uint64_t messages;
    uint64_t messages_lost;
    uint64_t configurations; /* of the histories' check */
    uint64_t gave_up;        /* histories of too many unknown outcomes to be judged */
    uint64_t cut_bytes;      /* torn tails, at starts */
    uint64_t torn;           /* power losses that hit unsynced bytes */
    uint64_t tails_cut;      /* entries that a replica took back (R1) */
    uint64_t reconciled;     /* new primaries with a tail (R5) */
    uint64_t generations;    /* of checkpoints, published */
    uint64_t checkpointed;   /* starts from a generation */
    uint64_t older;          /* of them, from one that was not the newest */
    uint64_t damaged;        /* generations that a fault damaged */
    uint64_t tails;          /* entries in tails of checkpoints that were loaded */
    uint64_t stops;          /* clean ones */
    uint64_t left;           /* of them, after all was handed over */
    uint64_t lossy;          /* partitions whose members all lost power, with weak syncs */
    uint64_t copies_dropped; /* of members, because they can't be read */
    uint64_t distrusts;      /* starts that found their disk emptied */
    uint64_t victims;        /* segments that were compacted and removed */
    uint64_t refused;        /* …that stayed */
    uint64_t copied;         /* bytes of records */
    uint64_t dropped;        /* records */
    uint64_t resurrected;    /* removed segments that a crash brought back */
};

struct options {
    enum plant plant;
    bool trace;  /* print every event */
    bool record; /* keep the last lines */
};

struct sim {
    const struct options *o;
    uint64_t seed;
    struct rng rng;
    uint64_t now_usec;
    uint64_t logical; /* clock of the histories */
    struct setup setup;
    struct counts counts;
    struct queue queue;
    bool failed;
    char why[400];
    bool healed; /* no faults any more */
    bool quiet;  /* clients begin no operations any more */

    struct manager_process manager;
    struct server servers[SIM_SERVERS_MAX];
    struct client clients[SIM_CLIENTS_MAX];
    struct client prober;
    struct key **keys;
    size_t n_keys;
    size_t cap_keys;
    struct lost_flush *lost_flushes; /* of unknown outcome: they may hit keys yet to come */
    size_t n_lost_flushes;
    size_t cap_lost_flushes;
    struct key *current[SIM_KEYS_MAX];
    uint32_t n_current;
    uint64_t serial; /* makes values unique */

    struct link *links;
    uint32_t n_links;
    uint64_t conns;
    uint64_t cuts[_LANE_MAX][SIM_NODES_MAX]
                 [SIM_NODES_MAX]; /* until when, from machine to machine */
    uint64_t asked_conn; /* a shard's step is about leases that were asked for here; 0: not */
    struct actions actions;
    struct check *check;

    const struct key *bad_key; /* whose history is impossible: ops [bad_begin, bad_end) */
    size_t bad_begin;
    size_t bad_end;
    char (*lines)[200];
    uint64_t n_lines;
};

/* ---- sim.c ---- */

void sim_run(struct sim *s, uint64_t seed, const struct options *o);
void sim_free(struct sim *s);
/* An event of a process `delay` from now. It is forgotten when the process dies. */
void sim_after(struct sim *s, uint64_t delay_usec, struct process *p,
               void (*fn)(struct sim *s, struct event *e), void *who, uint64_t number, void *data);
/* The first failure ends the run. */
void sim_fail(struct sim *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sim_line(struct sim *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define sim_trace(s, ...)                                                                          \
    do {                                                                                           \
        if ((s)->lines) {                                                                          \
            sim_line((s), __VA_ARGS__);                                                            \
        }                                                                                          \
    } while (0)
/* What there is too much of: only with --trace. */
#define sim_detail(s, ...)                                                                         \
    do {                                                                                           \
        if ((s)->o->trace) {                                                                       \
            sim_line((s), __VA_ARGS__);                                                            \
        }                                                                                          \
    } while (0)
void sim_print_lines(const struct sim *s, FILE *f, uint64_t n);
/* Uniform in [lo, hi]. */
uint64_t sim_between(struct sim *s, uint64_t lo, uint64_t hi);
bool sim_chance(struct sim *s, uint64_t n, uint64_t of);

/* ---- server.c, start.c ---- */

void server_init(struct sim *s, uint32_t index);
void server_free(struct server *sv);
void server_boot(struct sim *s, struct server *sv);
void server_crash(struct sim *s, struct server *sv, bool power);
void server_receive(struct sim *s, struct link *l, unsigned side, struct message *m);
void server_link_up(struct sim *s, struct link *l, unsigned side);
void server_link_down(struct sim *s, struct link *l, unsigned side);
void server_accepted(struct sim *s, struct server *sv, const struct message *m);
void server_refused(struct sim *s, struct server *sv);
void server_go(struct sim *s, struct server *sv, const struct message *registered);
struct shard_clock server_clock(const struct sim *s, const struct server *sv);
void shard_run(struct sim *s, struct shard_process *sp, const struct shard_event *e);
/* The disk has room again: what waited is written; or the process is gone, and it is forgotten. */
void shard_unblock(struct sim *s, struct shard_process *sp, bool write);
/* Tells the shard how much room its disk has. */
void shard_space(struct sim *s, struct shard_process *sp);
void shard_receive(struct sim *s, struct link *l, unsigned side, struct message *m);
void shard_link_up(struct sim *s, struct link *l, unsigned side);
/* What the process reads of its log, or NULL. */
const uint8_t *server_read(const struct server *sv, struct position at, size_t bytes);
/* The files of the log, sorted; the caller frees *ret. `power`: if the power goes now. */
int server_segments(const struct server *sv, bool power, struct wal_segment **ret);
void server_shard_options(struct sim *s, struct server *sv, uint32_t shard, uint32_t shards,
                          struct shard_options *ret);
/* Who has this number, or NULL. */
struct server *server_of_number(struct sim *s, uint32_t number);

/* ---- managers.c ---- */

void managers_init(struct sim *s);
void managers_free(struct sim *s);
void managers_start(struct sim *s);
void managers_crash(struct sim *s);
void managers_flip(struct sim *s);
void managers_receive(struct sim *s, struct link *l, unsigned side, struct message *m);
/* An event of nobody's. */
void managers_step(struct sim *s, const struct manager_event *e);
void managers_link_down(struct sim *s, uint64_t conn);

/* ---- stop.c ---- */

void server_stop(struct sim *s, struct server *sv);

/* ---- checkpoints.c ---- */

/* The server runs: generations begin now and then. */
void checkpoints_run(struct sim *s, struct server *sv);
/* A generation begins now, unless one is being made or segments are compacted. */
void checkpoints_begin(struct sim *s, struct server *sv);
/* A clean stop: a last generation. */
void checkpoints_stop(struct sim *s, struct server *sv);
/* A shard's log was synced. */
void checkpoints_synced(struct sim *s, struct shard_process *sp);
/* The process is gone. */
void checkpoints_gone(struct server *sv);
/* A start: chooses a generation. */
void checkpoints_open(struct sim *s, struct server *sv);
/* Segments below it are not looked through. */
void checkpoints_floor(const struct sim *s, const struct server *sv, struct wal_floor *ret);
/* …loads the shard's partitions from it. */
void checkpoints_load(struct sim *s, struct shard_process *sp);
void checkpoints_free(struct server *sv);

/* Loads a generation into a shard that has every partition. -errno: it is no good one. */
int checkpoints_try(const struct server *sv, uint64_t generation, struct shard *shard,
                    struct wal_floor *ret_floor);

/* ---- compactor.c ---- */

/* A generation was published. */
void compactor_begin(struct sim *s, struct server *sv, const struct manifest *manifest);
/* ACTION_COMPACTED. */
void compactor_shard_done(struct sim *s, struct shard_process *sp, const struct action *a);
/* A shard's log was synced; was written. */
void compactor_synced(struct sim *s, struct shard_process *sp);
void compactor_written(struct sim *s, struct shard_process *sp);
/* A generation begins: live bytes are counted anew. */
void compactor_count(struct server *sv);
/* The process is gone. */
void compactor_gone(struct server *sv);

/* ---- final.c ---- */

/* Every record of the shard's index can be read where it points, or is mended by the tail. `power`:
 * if the power goes now. */
void readable_check(struct sim *s, const struct server *sv, const struct shard *shard,
                    uint32_t index, uint32_t shards, bool power, const char *when);

/* ---- oracle.c ---- */

/* Starts from each generation that is kept: all that it needs must be there. */
void oracle_generations(struct sim *s, struct server *sv);
/* Does nobody see this record of the partition at the server? `forgotten`: it may have dropped it.
 */
bool oracle_is_dead(struct sim *s, const struct server *sv, uint16_t partition,
                    const struct index_record *rec, bool forgotten);

/* After a start from checkpoints: replays the whole log too, which must lead to the same. */
void oracle_check(struct sim *s, struct server *sv);

/* ---- plants.c: what the planted bugs do at the seams ---- */

/* Before an event reaches the shard. True: it is answered already. */
bool plant_receive(struct sim *s, struct link *l, struct shard_process *sp, struct message *m);
/* Before a seal reaches the shard. True: it is answered already. */
bool plant_sealing(struct sim *s, struct server *sv, const struct msg_at *seal);
/* Before the manager hears what a server asks for. */
void plant_promotion(struct sim *s, uint64_t conn, const struct msg_reconfig *r);
/* wraps.c: planted bugs inside of the core. */
void wraps_begin(struct sim *s);
/* After a prepare was taken. */
void plant_taken(struct sim *s, struct shard_process *sp, const struct shard_event *prepare);
/* Before a prepare is sent. */
void plant_sending(struct sim *s, struct shard_process *sp, struct message *m, uint32_t to);
/* After a checkpoint was taken: bytes that were appended from `begin` on. */
void plant_checkpoint_taken(struct sim *s, struct buf *b, size_t begin);
/* Before a checkpoint is loaded: *p may be exchanged for bytes in `b`. */
void plant_checkpoint_loading(struct sim *s, struct server *sv, const uint8_t **p, size_t bytes,
                              struct buf *b);
/* Segments below it may be compacted. */
void plant_floor(struct sim *s, const struct server *sv, struct wal_floor *floor);
/* What the shards said of a victim: 0: it may go. */
int plant_victim_status(const struct sim *s, const struct server *sv, uint32_t victim, int status);
/* A frame of the log at a start. True: it is passed over. */
bool plant_replaying(const struct sim *s, const struct frame *f);
/* An index_open_fn; ctx: the simulator. */
int plant_index_open(void *ctx, uint16_t partition, struct index **ret);
struct message *shard_message(enum shard_event_kind kind, size_t bytes);
void shard_send(struct sim *s, struct shard_process *sp, uint32_t number, uint16_t partition,
                struct message *m);

/* ---- client.c, work.c ---- */

void client_init(struct sim *s, struct client *c, uint32_t index, uint32_t n_slots);
void client_free(struct client *c);
void client_start(struct sim *s, struct client *c);
void client_crash(struct sim *s, struct client *c);
void client_receive(struct sim *s, struct link *l, unsigned side, struct message *m);
void client_link_up(struct sim *s, struct link *l, unsigned side, uint32_t shards);
void client_link_down(struct sim *s, struct link *l, unsigned side);
struct client *client_of(struct sim *s, uint32_t node);
/* Begins an operation on a key through a slot. */
void client_submit(struct sim *s, struct client *c, struct slot *slot, struct key *key,
                   const struct op *op);
/* The slot's operation has ended: what comes next. */
void work_next(struct sim *s, struct client *c, struct slot *slot);
void work_begin(struct sim *s, struct client *c);
void work_keys_init(struct sim *s);
void work_keys_free(struct sim *s);
/* What became of a flush, into the history of every key of its partition. */
void work_flushed(struct sim *s, const struct slot *slot);
struct key *work_key_new(struct sim *s, enum key_kind kind, int partition);
/* At the end: writes and reads every partition, and reads every key. */
void work_probe(struct sim *s);
/* Are all probes answered? Otherwise fails. */
void work_probe_end(struct sim *s);

/* ---- cuts.c ---- */

/* Until when nothing arrives from one end at the other. */
uint64_t cut_until(const struct sim *s, enum msg_lane lane, const struct endpoint *from,
                   const struct endpoint *to);
void cuts_strike(struct sim *s);
/* Around a server and some clients. */
void cuts_around(struct sim *s, const struct server *sv);
/* Another manager leads. */
void cuts_manager_moved(struct sim *s);
void cuts_heal(struct sim *s);

/* ---- faults.c ---- */

bool bug_strikes(struct sim *s, enum bug b);
/* One direction of a connection stands still for a while. */
void faults_stall(struct sim *s, struct link *l);
/* How long it is until the next tick. */
uint64_t faults_tick(struct sim *s, uint64_t tick_usec);
/* A piece of a catch-up goes from one server to another one (or NULL). */
void faults_in_catchup(struct sim *s, struct server *from, struct server *to);
/* A row was committed; `grows`: with a member more. */
void faults_in_view(struct sim *s, const struct view_row *row, bool grows);

void faults_begin(struct sim *s);
/* The process ends by itself, and is started again. */
void faults_stopped(struct sim *s, struct server *sv);
/* A crash, and the restart after it. */
void faults_crash(struct sim *s, struct server *sv, bool power);
/* Everything runs again. */
void faults_heal(struct sim *s);
