/* Inside of the invariants: what was ever logged, committed or promised, kept outside of the
 * servers, so that nothing that they forget is forgotten. check.c looks at what is written and
 * committed, check_acts.c at who acts. */
#pragma once

#include "sim/sim.h"

typedef unsigned long long llu;

/* An entry that was logged by anybody at any time. */
struct seen {
    struct map_node node;
    uint16_t partition;
    struct name name;
    uint32_t prev_view;
    uint32_t crc;
    uint32_t bytes;
    struct op_id op;
};

/* A committed operation. */
struct effect {
    struct map_node node;
    uint16_t partition;
    struct op_id op;
    struct name name;
};

struct actor {
    uint32_t server; /* index + 1; 0: nobody yet */
    uint64_t life;
};

struct partition_check {
    uint32_t *views; /* of committed entries: views[seq - 1] */
    size_t n_views;
    size_t cap_views;
    struct name top;       /* highest committed */
    struct actor *primary; /* by view */
    size_t n_primary;
    size_t cap_primary;
    struct view_row row; /* newest that the managers committed */
    bool lossy;          /* all members of a view had lost power, and syncs are weak */
};

/* What a server's replica was seen to be. */
struct replica_check {
    uint32_t durable_view;
    uint32_t sealed_view; /* that this process reported */
    bool live;            /* info is of the process that runs now */
    bool distrusts; /* its disk lost what it had: nothing is expected of it while it is a member */
    bool lost;      /* it lost power, syncs were weak, and was not seen to hold everything since */
    struct replica_info info;
};

struct check {
    struct map entries;
    struct map effects;
    struct partition_check p[SIM_PARTITIONS_MAX];
    struct replica_check r[SIM_SERVERS_MAX][SIM_PARTITIONS_MAX];
};

/* Is an entry here, committed or in the tail? */
bool check_holds(const struct sim *s, const struct server *sv, uint16_t partition,
                 struct name name);
/* I1, I2, I3, I10: after a step of the server. */
void check_acts(struct sim *s, const struct server *sv, const struct replica_info *info,
                const struct replica_info *old);
