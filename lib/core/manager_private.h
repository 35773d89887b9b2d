/* Inside of the manager's mind: manager.c (the door, connections, the log), manager_reconfig.c
 * (what members ask for), manager_views.c (sealing, and the views that follow), manager_requests.c
 * (registration, attach), manager_sessions.c (sessions of gateways). Nobody else includes this. */
#pragma once

#include "base/list.h"
#include "core/manager.h"

/* A request that waits for its proposal. */
struct request {
    struct list link;
    uint64_t tag;
    uint64_t conn;
    uint64_t request;
    enum manager_event_kind kind;
    struct msg_register registration;
    char text[MANAGER_TEXT_BYTES_MAX]; /* the answer when it has happened */
};

/* A registered connection of a server: `conn` 0 while it has none. */
struct link {
    uint64_t conn;
    uint64_t incarnation; /* that registered over it */
    uint64_t heard_usec;  /* when it answered last */
    uint64_t twin_usec;   /* when another process wanted to take its place, 0: none did… */
    uint64_t twin_random; /* …and which */
};

/* What one member reported of a sealed view. */
struct report {
    uint64_t incarnation; /* 0: nothing yet */
    struct name last;
    struct name commit;
    uint64_t time_usec;
    bool trusted;
};

enum need_kind {
    NEED_NONE,
    NEED_CHANGE, /* what the primary wants, or a leaving secondary: at once */
    NEED_SEAL,   /* all members are asked to seal, and their reports decide (R7) */
};

/* What a partition needs. Forgotten when its row changes: then it was asked for in an old view. */
struct need {
    struct list link; /* in manager.needed, in the order in which they came */
    uint8_t kind;     /* enum need_kind */
    uint32_t out;     /* members that leave: bits by position in the row */
    uint64_t since_usec;

    /* NEED_CHANGE */
    uint8_t change;       /* enum reconfig_kind */
    uint32_t server;      /* of RESIGN and PROMOTE… */
    uint64_t incarnation; /* …and its process */

    /* NEED_SEAL */
    bool is_accused; /* the primary is */
    uint64_t asked_usec;
    uint64_t asked[REPLICAS_MAX];        /* connections, by position in the row */
    struct report reports[REPLICAS_MAX]; /* likewise */
};

/* Servers that hold partitions. */
struct attached {
    uint32_t servers[SERVERS_MAX];
    uint32_t n;
};

/* When a live session was heard last. */
struct heard {
    uint64_t id;
    uint64_t usec;
};

struct manager {
    struct manager_options o;
    struct cluster cluster;
    struct cluster_effect effect;
    bool leader;
    bool forming;       /* a CLUSTER_FORM is under way */
    uint64_t views_tag; /* of the CLUSTER_VIEWS under way; 0: none */
    uint64_t next_tag;
    struct link *links; /* by server number - 1 */
    size_t n_links;
    size_t cap_links;
    struct need *needs; /* by partition */
    uint32_t n_needs;   /* room */
    struct list needed; /* those that need something */
    uint32_t n_needed;
    uint64_t waits_usec;  /* since when this manager has led and turned without a gap (R14) */
    uint64_t ticked_usec; /* 0: not since it leads */
    uint64_t beaten_usec;
    struct list requests;
    uint32_t n_requests;
    struct heard *heard; /* as cluster.sessions */
    size_t n_heard;
    size_t cap_heard;
    uint64_t *over; /* of the last answer */
    size_t n_over;
    size_t cap_over;
    uint64_t expire_tag;    /* of the CLUSTER_EXPIRE under way; 0: none */
    uint64_t sessions_usec; /* when they were looked through last */
    bool sessions_untold;   /* a snapshot brought them: servers need them whole */
    struct buf bytes;       /* of the proposals of the step in progress */

    /* of the step in progress */
    struct manager_actions *out;
    uint64_t now_usec;
};

struct manager_action *manager_act(struct manager *m, enum manager_action_kind kind, uint64_t conn,
                                   uint64_t request);
void manager_refuse(struct manager *m, uint64_t conn, uint64_t request, const char *text);
/* Proposes what was appended to m->bytes since `begin`. Returns the tag. */
uint64_t manager_propose(struct manager *m, size_t begin);
/* The registered connection of a server; room is made. */
struct link *manager_link(struct manager *m, uint32_t server);
/* The server that registered over this connection, 0 for none. */
uint32_t manager_server_of(const struct manager *m, uint64_t conn);

/* ---- manager_reconfig.c ---- */
void manager_on_reconfig(struct manager *m, const struct manager_event *e);
/* The row that follows by what is wanted at once; false: it is impossible by now. */
bool manager_next_at_once(const struct manager *m, const struct view_row *row,
                          const struct need *need, struct view_row *ret);

/* ---- manager_views.c ---- */
/* For the partitions that there are now; nothing is needed. */
void manager_needs_make(struct manager *m);
void manager_need_clear(struct manager *m, uint32_t partition);
/* Whatever was needed before is forgotten. */
void manager_need_begin(struct manager *m, uint32_t partition, enum need_kind kind);
/* NEED_SEAL from now on; reports that came are kept. */
void manager_need_seal(struct manager *m, uint32_t partition);
/* So many members at least a removal leaves. */
unsigned manager_members_min(const struct manager *m);
/* Adds a member, or a learner, behind the others. A learner beyond LEARNERS_MAX is forgotten. */
void manager_row_put(struct view_row *row, uint32_t server, bool member);
void manager_on_sealed(struct manager *m, const struct manager_event *e);
/* Asks members to seal, and proposes the views that can be formed. */
void manager_views_propose(struct manager *m);

/* ---- manager_requests.c ---- */
struct request *manager_request_add(struct manager *m, const struct manager_event *e, uint64_t tag);
void manager_request_free(struct manager *m, struct request *q);
/* May this request be taken? Answers it otherwise. */
bool manager_request_allowed(struct manager *m, const struct manager_event *e);
void manager_on_register(struct manager *m, const struct manager_event *e);
void manager_on_attach(struct manager *m, const struct manager_event *e);
void manager_on_done(struct manager *m, const struct manager_event *e);

/* ---- manager_sessions.c ---- */
void manager_on_session(struct manager *m, const struct manager_event *e);
void manager_on_sessions_alive(struct manager *m, const struct manager_event *e);
/* The opening was committed. */
void manager_session_done(struct manager *m, const struct request *q, uint64_t index);
/* Tells a server that has just registered. */
void manager_sessions_tell(struct manager *m, uint64_t conn);
/* A command was applied. */
void manager_sessions_changed(struct manager *m);
/* All count as heard now: a lead begins. */
void manager_sessions_begin(struct manager *m);
/* The replicated state was replaced. */
void manager_sessions_restored(struct manager *m);
/* Tells all servers what a snapshot brought. */
void manager_sessions_tell_untold(struct manager *m);
/* Ends those that nobody names; for the leader. */
void manager_sessions_tick(struct manager *m);
