/* A relay between the processes of a cluster that does what networks do. Each process (a node)
 * connects from an address of its own, and others reach it through a listening socket of the relay,
 * so that both ends of every connection are known. What happens to bytes is said per pair (from,
 * to): one direction alone may be cut. Knows nothing of what the bytes mean. One thread. */
#pragma once

#include "base/buf.h"
#include "base/list.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NODES_MAX       32
#define NODE_NAME_BYTES 24
#define PIPE_BYTES_MAX                                                                             \
    (1u << 20) /* of one direction of a connection; beyond it nothing is read                      \
                */

enum link_state {
    LINK_PASS,
    LINK_HOLD, /* bytes wait until it passes again: lost packets, sent again */
    LINK_DROP, /* bytes vanish; when it passes again, connections that lost some are reset */
};

/* Bytes from one node to another. */
struct link {
    enum link_state state;
    uint64_t delay_usec;
    uint64_t bytes; /* that were passed on */
};

/* Bytes up to `end` (of all that ever came) may go on at `due_usec`. */
struct mark {
    uint64_t end;
    uint64_t due_usec;
};

/* One direction of a connection: from side 0 to side 1, or back. */
struct pipe {
    struct link *link;
    struct buf bytes;
    struct mark *marks;
    size_t marks_at, n_marks, marks_cap;
    uint64_t in, out; /* bytes that ever came and went */
    bool eof;         /* no more come */
    bool ended;       /* and that was passed on */
    bool lost;        /* some vanished */
};

/* Who is woken by epoll: a listening socket, one side of a connection, or the commands. */
struct watch {
    int fd;
    struct session *session; /* of a side */
    struct door *door;       /* of a listening socket */
};

struct session {
    struct list node;
    struct watch side[2]; /* 0 connected to the relay, 1 is the node that it wanted */
    struct pipe pipe[2];  /* pipe[i] carries what side i sends */
    bool dead[2];         /* the side is gone without a word: its connection was reset */
    bool connected;
    struct sockaddr_in real;
};

/* Where others reach a node. */
struct door {
    struct watch watch;
    size_t node;
    struct sockaddr_in real; /* where it listens */
};

struct relay {
    int epoll_fd;
    char names[NODES_MAX][NODE_NAME_BYTES];
    struct in_addr sources[NODES_MAX];
    size_t n_nodes; /* the first one is whoever has no source address of ours */
    struct door doors[NODES_MAX];
    size_t n_doors;
    struct link links[NODES_MAX][NODES_MAX];
    struct list sessions;
    struct list ended; /* freed when no event can name them any more */
};

uint64_t relay_now_usec(void);

/* A connection arrived at the door. */
void session_accept(struct relay *r, struct door *d);

/* Moves what can move, and ends what has to end. */
void session_pump(struct relay *r, struct session *s);

/* Closes both sides by RST. */
void session_reset(struct relay *r, struct session *s);

/* When the next delayed byte is due: 0 = none waits. */
uint64_t session_due_usec(const struct session *s);

void session_free(struct session *s);

/* Wakes by reading, writing and hanging up, once each time. */
bool relay_watch(struct relay *r, struct watch *w);
