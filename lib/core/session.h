/* What became of the operations of each session in one partition (R12): an operation that arrives
 * again is answered again and not done again. The table is made from committed entries, so every
 * replica has the same one. Pure. Source: RIFL (Lee et al., SOSP 2015): trimming by the first
 * unanswered number. */
#pragma once

#include "base/map.h"
#include "core/live_sessions.h"
#include "wire/entry.h"
#include "wire/mp.h"

/* Numbers that a session may have under way in one partition. */
#define SESSION_WINDOW 1024

struct session_answer {
    uint64_t number;
    struct name at; /* the entry */
    uint8_t code;   /* enum result_code */
    uint64_t value; /* of RESULT_NUMBER */
    uint64_t cas;
};

/* Valid when zeroed. */
struct session_table {
    struct map map;
    uint64_t known; /* sessions that were over by this entry of the managers' log were forgotten */
};

enum session_verdict {
    SESSION_NEW,   /* never seen: do it */
    SESSION_DONE,  /* done: *ret_answer says how it ended */
    SESSION_GONE,  /* below the first unanswered number and not in the table: outcome unknown */
    SESSION_AHEAD, /* beyond the window */
};
enum session_verdict session_look(const struct session_table *t, const struct op_id *op,
                                  struct session_answer *ret_answer);

/* An entry of this operation was applied. Trims what the session no longer waits for. */
void session_record(struct session_table *t, const struct op_id *op,
                    const struct session_answer *answer);

/* Sessions that are over, up to `max` of them, and were not given out in this view before. Returns
 * how many. */
size_t session_table_over(struct session_table *t, const struct live_sessions *live, uint32_t view,
                          uint64_t *ids, size_t max);
/* An entry was applied that says: this session was over by `known`. Forgets it. */
void session_table_end(struct session_table *t, uint64_t session, uint64_t known);

/* One MessagePack item: [known, [[session, first, [[number, view, seq, code, value, cas]…]]…]], for
 * checkpoints and catch-up. Earlier versions wrote the list alone. */
void session_table_put(struct buf *b, const struct session_table *t);
/* Reads it into an empty table; look at r->failed. */
void session_table_get(struct mp_reader *r, struct session_table *t);

void session_table_free(struct session_table *t);
