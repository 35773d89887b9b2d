/* Inside of the manager's mind: manager.c (the door, connections, the log), manager_views.c (who
 * needs a new view), manager_requests.c (registration, attach, sessions). Nobody else includes
 * this. */
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
};

/* What one member reported of a sealed view. */
struct report {
    uint64_t incarnation; /* 0: nothing yet */
    struct name last;
    uint64_t time_usec;
};

/* A partition that needs a new view. */
struct need {
    bool needed;
    uint64_t asked_usec;                 /* when its members were asked to seal; 0: not yet */
    struct report reports[REPLICAS_MAX]; /* by position in the row */
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
    uint32_t n_needed;
    struct list requests;
    uint32_t n_requests;
    struct buf bytes; /* of the proposals of the step in progress */

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

/* ---- manager_views.c ---- */
void manager_need_clear(struct manager *m, uint32_t partition);
void manager_on_reconfig(struct manager *m, const struct manager_event *e);
void manager_on_sealed(struct manager *m, const struct manager_event *e);
/* Asks members to seal, and proposes the views that can be formed. */
void manager_views_propose(struct manager *m);

/* ---- manager_requests.c ---- */
void manager_request_free(struct manager *m, struct request *q);
void manager_on_register(struct manager *m, const struct manager_event *e);
void manager_on_attach(struct manager *m, const struct manager_event *e);
void manager_on_session(struct manager *m, const struct manager_event *e);
void manager_on_done(struct manager *m, const struct manager_event *e);
