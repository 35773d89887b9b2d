/* What managers say to each other: who they are (MSG_MANAGER) and Raft's messages (MSG_RAFT), and
 * what a manager tells of their group to an operator's tool (MSG_MANAGERS). Pure; follows the rules
 * of wire/msg.h. No trust in a sender: what can't be right for any state of Raft is refused here;
 * what may or may not be, Raft decides. */
#pragma once

#include "wire/msg.h"

#define MANAGERS_MAX          5 /* of one group: 1, 3 or 5 */
#define RAFT_ENTRY_BYTES_MAX  ((size_t) 5 << 20)
#define RAFT_NUMBER_MAX       ((uint64_t) INT64_MAX) /* terms and indexes */
#define RAFT_ENTRY_ALIGN      8                      /* an entry's bytes are a multiple of it */
#define MANAGER_VERSION_BYTES 32                     /* with NUL */

/* ---- Raft's messages, as in its paper ---- */

enum raft_msg_kind {
    RAFT_MSG_APPEND = 1,
    RAFT_MSG_APPEND_RESULT,
    RAFT_MSG_VOTE,
    RAFT_MSG_VOTE_RESULT,
    RAFT_MSG_SNAPSHOT,
    RAFT_MSG_TIMEOUT_NOW,
    _RAFT_MSG_KIND_MAX,
    _RAFT_MSG_KIND_INVALID = -22,
};

/* A member of the group as the log has it; the address may carry more than one (io/raft_group.h).
 */
struct raft_msg_server {
    uint64_t id;
    uint8_t role;
    char address[ADDRESS_BYTES_MAX];
};

struct raft_msg {
    uint8_t kind;    /* enum raft_msg_kind */
    uint8_t version; /* of this kind, as the library counts */
    uint64_t term;   /* the sender's */
    union {
        struct {
            uint64_t prev_index;
            uint64_t prev_term;
            uint64_t commit;
        } append;
        struct {
            uint64_t rejected; /* 0: not */
            uint64_t last_index;
            uint16_t features;
            uint16_t capacity;
        } append_result;
        struct {
            uint64_t candidate;
            uint64_t last_index;
            uint64_t last_term;
            bool disrupt_leader;
            bool pre_vote;
        } vote;
        struct {
            bool granted;
            bool pre_vote;
            uint16_t features;
            uint16_t capacity;
        } vote_result;
        struct {
            uint64_t last_index;
            uint64_t last_term;
            uint64_t conf_index;
            uint32_t n_servers;
            struct raft_msg_server servers[MANAGERS_MAX];
            const uint8_t *data;
            size_t bytes;
        } snapshot;
        struct {
            uint64_t last_index;
            uint64_t last_term;
        } timeout_now;
    };
    uint32_t n_entries; /* so many follow; 0 but for RAFT_MSG_APPEND */
};

/* Kinds of entries: the library's numbers. */
enum raft_msg_entry_kind {
    RAFT_ENTRY_COMMAND = 1,
    RAFT_ENTRY_BARRIER,
    RAFT_ENTRY_CHANGE,
    _RAFT_ENTRY_KIND_MAX,
};

struct raft_msg_entry {
    uint64_t term;
    uint8_t kind;     /* enum raft_msg_entry_kind */
    const uint8_t *p; /* a multiple of RAFT_ENTRY_ALIGN bytes, at least one; any alignment */
    size_t bytes;
};

/* The message up to and including the head of its entries' array; m->n_entries calls of
 * raft_msg_put_entry complete it. */
void raft_msg_put(struct buf *b, const struct raft_msg *m);
void raft_msg_put_entry(struct buf *b, const struct raft_msg_entry *e);

/* As above: after it, ret->n_entries calls of raft_msg_get_entry. */
void raft_msg_get(struct mp_reader *r, struct raft_msg *ret);
void raft_msg_get_entry(struct mp_reader *r, struct raft_msg_entry *ret);

/* ---- who a manager is ---- */

struct msg_manager_member {
    char address[ADDRESS_BYTES_MAX]; /* as in everybody's list */
    uint8_t id[UUID_BYTES];          /* zeros: not known */
};

struct msg_manager {
    uint32_t number;        /* its place in the list, from 1 */
    uint8_t id[UUID_BYTES]; /* made at its first start */
    bool begun;             /* it has a log: the members are those of it, and don't change */
    uint32_t n;
    struct msg_manager_member members[MANAGERS_MAX];
};
void msg_put_manager(struct buf *b, const struct msg_manager *m);
void msg_get_manager(struct mp_reader *r, struct msg_manager *ret);

/* ---- for kumoctl ---- */

enum manager_role {
    MANAGER_WAITING = 1, /* for the others, at the first start of a group */
    MANAGER_LOOKING,     /* for a leader */
    MANAGER_FOLLOWS,
    MANAGER_LEADS,
    _MANAGER_ROLE_MAX,
};

struct msg_managers {
    char version[MANAGER_VERSION_BYTES]; /* of the manager's program */
    uint32_t number;                     /* whose answer this is */
    uint8_t role;                        /* enum manager_role */
    uint64_t term;
    uint32_t leader;  /* whom it takes for the leader; 0: nobody */
    uint64_t applied; /* index of the last log entry */
    uint64_t uptime_usec;
    uint32_t n;
    struct {
        char address[ADDRESS_BYTES_MAX];
        bool reachable; /* connected to this one */
    } members[MANAGERS_MAX];
};
void msg_put_managers(struct buf *b, const struct msg_managers *m);
void msg_get_managers(struct mp_reader *r, struct msg_managers *ret);
