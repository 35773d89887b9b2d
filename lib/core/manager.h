/* The manager's mind: who is connected, which partitions need a new view, what is proposed to the
 * log and who is told of what committed. step(state, event) -> actions, pure; the daemon and the
 * simulator drive it. The replicated state itself is core/cluster.h.
 *
 * Views change in two ways. At once, in one log entry: what the primary wants (another member is
 * out, a learner comes in, a successor leads), and that a secondary leaves. By sealing (R7): a
 * member restarted, or accuses the primary; all members are asked to seal and report, and when all
 * have, or some did within the failure timeout, the one with the highest (view, seq) leads the next
 * view. Who did not report is a learner there. Either way the old primary has sealed, or is the new
 * one, or has handed over, or needs a grant from a member that has sealed: at most one server acts
 * (I2). */
#pragma once

#include "core/cluster.h"

#include <stdbool.h>

#define MANAGER_TICK_USEC            20000   /* how often the owner should tick */
#define MANAGER_SEAL_USEC            1000000 /* a seal without report is asked for again */
#define MANAGER_GAP_USEC             1000000 /* between ticks: all waits begin anew (R14) */
#define MANAGER_VIEWS_MAX            1024    /* view changes in one log entry */
#define MANAGER_BEAT_USEC            200000  /* the leader tells its servers that it lives */
#define MANAGER_FAILURE_USEC_DEFAULT 1000000 /* who did not report for so long is removed (R7) */
#define MANAGER_REQUESTS_MAX         4096    /* unanswered requests; beyond: refused */
#define MANAGER_EXPIRE_USEC          1000000 /* how often sessions are looked through */
/* session-timeout: of one that nobody names (R12) */
#define MANAGER_SESSION_USEC_DEFAULT (UINT64_C(3600) * 1000000)

struct manager_options {
    uint8_t cluster_id[UUID_BYTES]; /* of the cluster to form, when there is none: random */
    uint32_t partitions;
    uint32_t replicas;
    uint64_t failure_usec;      /* 0: MANAGER_FAILURE_USEC_DEFAULT */
    uint32_t min_replicas_auto; /* a view is not made smaller by itself; 0: 1 (R11) */
    uint64_t session_usec;      /* 0: MANAGER_SESSION_USEC_DEFAULT */
};

enum manager_event_kind {
    MANAGER_LEADER = 1, /* flag: this manager leads now, or does no more */
    MANAGER_COMMITTED,  /* data: a log entry, to be applied */
    MANAGER_DONE,       /* tag, status, index: what became of a proposal; after MANAGER_COMMITTED */
    MANAGER_REGISTER,   /* conn, request, registration: a server introduces itself */
    MANAGER_GONE,       /* conn: a connection ended */
    MANAGER_HEARD,      /* conn: a server answered a beat */
    MANAGER_RECONFIG,   /* conn, reconfig: a member asks for a new view */
    MANAGER_SEALED,     /* conn, sealed */
    MANAGER_ATTACH,     /* conn, request, attach: names of servers; none = all that are new */
    MANAGER_SESSION,    /* conn, request: open a session */
    MANAGER_SESSIONS_ALIVE, /* conn, request, alive: a gateway has these sessions */
    MANAGER_TICK,
    _MANAGER_EVENT_KIND_MAX,
    _MANAGER_EVENT_KIND_INVALID = -22,
};

#define ATTACH_NAMES_MAX 64

struct manager_event {
    enum manager_event_kind kind;
    uint64_t conn;    /* names a connection; never reused */
    uint64_t request; /* its request id */
    union {
        bool flag;
        struct {
            const uint8_t *p;
            size_t bytes;
            uint64_t index;
        } data;
        struct {
            uint64_t tag;
            int status; /* consensus.h */
            uint64_t index;
        } done;
        struct msg_register registration;
        struct msg_reconfig reconfig;
        struct msg_sealed sealed;
        struct {
            uint32_t replicas; /* 0: as the cluster was formed */
            uint32_t n;
            char (*names)[NAME_BYTES_MAX];
        } attach;
        struct {
            const uint64_t *ids;
            uint32_t n;
        } alive;
    };
};

enum manager_action_kind {
    /* bytes under a tag; MANAGER_DONE follows, with status -EAGAIN when it was refused at once */
    MANAGER_DO_PROPOSE = 1,
    MANAGER_DO_ACCEPT,  /* conn, request: struct msg_registered, then every row that has `server` as
                           member or learner */
    MANAGER_DO_SESSION, /* conn, request: the session is open */
    MANAGER_DO_OVER,    /* conn, request: of the sessions that a gateway named, these are over */
    MANAGER_DO_SESSIONS, /* conn, a server: sessions */
    MANAGER_DO_TEXT,     /* conn, request: done; text for the operator */
    MANAGER_DO_REFUSE,   /* conn, request: refused for now; text says why */
    MANAGER_DO_DENY,     /* conn, request: refused for good; text says why */
    MANAGER_DO_SEAL,     /* conn: note */
    MANAGER_DO_VIEW,     /* conn: row */
    MANAGER_DO_CLOSE,    /* conn: a newer process of its server has registered */
    MANAGER_DO_CHANGED,  /* subscribers: rows changed (and servers, always included) */
    MANAGER_DO_BEAT,     /* conn: the leader lives */
    _MANAGER_ACTION_KIND_MAX,
    _MANAGER_ACTION_KIND_INVALID = -22,
};

#define MANAGER_TEXT_BYTES_MAX 400

struct manager_action {
    enum manager_action_kind kind;
    uint64_t conn;
    uint64_t request;
    union {
        struct {
            const uint8_t *p; /* until the next step */
            size_t bytes;
            uint64_t tag;
        } propose;
        struct msg_registered accept;
        uint64_t session;
        struct {
            const uint64_t *ids; /* until the next step */
            uint32_t n;
        } over;
        struct msg_sessions sessions; /* its ids until the next step */
        char text[MANAGER_TEXT_BYTES_MAX];
        struct msg_at note;
        struct view_row row;
        struct {
            const uint16_t *rows;          /* until the next step */
            const struct view_row *before; /* what they were */
            size_t n;
        } changed;
    };
};

struct manager_actions {
    struct manager_action *v;
    size_t n;
    size_t cap;
};
void manager_actions_free(struct manager_actions *a);

struct manager;

struct manager *manager_new(const struct manager_options *o);
struct manager *manager_free(struct manager *m);
/* The replicated state: what was committed and applied so far. */
const struct cluster *manager_cluster(const struct manager *m);

/* now_usec: CLOCK_BOOTTIME. */
void manager_step(struct manager *m, uint64_t now_usec, const struct manager_event *e,
                  struct manager_actions *out);

/* For the log's snapshots. manager_restore: -EBADMSG. */
void manager_snapshot(const struct manager *m, struct buf *out);
int manager_restore(struct manager *m, const uint8_t *data, size_t bytes);

/* Is this server connected, with its newest process? For status. */
bool manager_server_is_up(const struct manager *m, uint32_t server);
/* Partitions that wait for a new view, and the first member that they wait for (0: none). */
uint32_t manager_waiting(const struct manager *m, uint32_t *ret_server);
