/* The rules of replication for one partition: three servers, their logs, the manager.
 *
 * What each part stands for, what is left out, and what was found: docs/model.md. Rules are cited by
 * their numbers (docs/architecture.md). A rule is switched off by a macro OFF_...; tests/model/run
 * says what must be found then.
 *
 * A step is what a server does with one message, the sync that must come before anybody is told of
 * it, and all that it sends then: a crash in between is a crash before. Only what is told before its
 * sync, a primary's prepares, is synced in a step of its own. The network is the set of all that was
 * sent in each view, and who takes a step reads it: so messages are late, lost, repeated, and overtake
 * those of other links; the stream of prepares keeps its order (R1). What no step can read any more
 * is emptied, and steps that can't lead to a new violation in the last view are left out.
 */

/* ---- what is checked: set from the environment (tests/model/run), so that one program checks all ---- */

hidden byte WRITES = 3;        /* entries that clients write */
hidden byte VIEWS = 4;         /* the first view, and changes */
hidden byte CRASHES = 2;       /* restarts of processes, of all servers together */
hidden byte FIRST_MEMBERS = 7; /* of view 1: a bit for each server; server 0 leads */
hidden byte WEAK;              /* sync = interval or os: what is written counts; one server loses power once */
hidden byte DEEP;              /* only I12: what a rule's lack does where something is noticed sooner */
hidden byte NUMBERED;          /* traces keep the servers' numbers */
hidden byte off;               /* the rule that is switched off, and more that may happen: */

#define OWN_SYNC       1 /* R2: the primary's own log counts when it is synced */
#define NOOP           2 /* R5: it serves when its no-op has committed */
#define JOINT_COMMITS  3 /* R8 */
#define JOINT_READS    4 /* R8 */
#define COMPLETE       5 /* R17: only a complete copy is promoted */
#define DURABLE_VIEW   6 /* R4 */
#define LOWER_VIEWS    7 /* R4: refused for ever */
#define REPEATED_NAME  8 /* R1: changes nothing */
#define RESTART        9 /* R6: resumes nothing */
#define WITHDRAWAL    10 /* R8: makes a new view */
#define TAIL_GOES     11 /* R17: at the start */
#define INCARNATION   12 /* R8: the wish names it */
#define ACKS_ANEW     13 /* acks from before a start of catch-up don't count behind it */
#define AGAIN_JOINT   14 /* no second catch-up of a process that is joint */
#define SEALED_ACKS   15 /* R7; and then trusted reports don't go before others */
#define SAME_PROCESS  16 /* who leads a view formed at once is the process that was in the view before */
#define TRUSTED_LEADS 17 /* R7: the highest of the trusted leads; of the untrusted only if all report */
#define TRUST_STAYS   18 /* R7: a clean stop doesn't make an untrusted copy trusted */
#define EXCESS_ACKS   19 /* R2: an ack covers only what is here */
#define VIEW_MAX 4
#define OFF(rule) (off == rule)

c_code {
    static void options_read(void)
    {
        const char *text = getenv("MODEL");
        int v[8] = { 3, 4, 2, 7, 0, 0, 0, 0 };
        if (text) {
            sscanf(text, "%d,%d,%d,%d,%d,%d,%d,%d", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7]);
        }
        WRITES = v[0]; VIEWS = v[1]; CRASHES = v[2]; FIRST_MEMBERS = v[3];
        off = v[4]; WEAK = v[5]; DEEP = v[6]; NUMBERED = v[7];
    }
}

/* ---- entries and logs ---- */

/* An entry is a slot of 5 bits: the view it was born in, and its content (0 is a no-op). Its seq is its
 * place. A log is an int of up to 6 slots: to copy one, or compare a prefix, is one operation. */
#define SLOT(log, seq)   (((log) >> (5 * (seq) - 5)) & 31)
#define PUT(entry, seq)  ((entry) << (5 * (seq) - 5))
#define UPTO(seq)        ((1 << (5 * (seq))) - 1)
#define ENTRY(v, c)      ((v) * 4 + (c))
#define BORN(entry)      ((entry) >> 2)
#define BORN_AT(log, seq) ((seq) == 0 -> 0 : BORN(SLOT(log, seq)))
#define DIFFER(a, b, to) (((a) ^ (b)) & UPTO(to))

/* Bits 0, 5, 10… of the slots in which contents, or views, differ: for I5. */
#define EACH 34636833
#define CONTENTS(x) (((x) | ((x) >> 1)) & EACH)
#define BIRTHS(x)   ((((x) >> 2) | ((x) >> 3) | ((x) >> 4)) & EACH)
#define ONE_NAME_TWO_CONTENTS(a, b) (CONTENTS((a) ^ (b)) & ~BIRTHS((a) ^ (b)))

#define MIN(a, b) ((a) < (b) -> (a) : (b))

/* ---- a server ---- */

#define WAITING   0 /* restarted, sealed or resigned: takes and acks nothing in this view (R6, R7) */
#define RECONCILE 1 /* primary, its no-op has not committed (R5) */
#define PRIMARY   2
#define SECONDARY 3
#define LEARNER   4

byte st[3];
byte view[3];
int  log[3];
byte last[3];
byte commit[3];
byte hole[3];     /* R17: bits of the seqs that an incomplete copy knows by name only */
byte durable[3];  /* last seq that a crash leaves */
byte matched[3];  /* secondary, learner: last seq of this view's stream that is here */
byte started[3];  /* learner: has the start of a catch-up, from this view and process */
byte joint[3];    /* R8: primary: learner + 1 */

/* ---- what was sent, by view ---- */

int  stream[VIEW_MAX + 1];      /* prepares */
byte stream_from[VIEW_MAX + 1]; /* …begin behind this seq */
byte told[VIEW_MAX + 1];        /* commit that was told */
byte ack[3 * (VIEW_MAX + 1)];
#define ACK(s, v) ack[(s) * (VIEW_MAX + 1) + (v)]

/* ---- the manager ---- */

byte now = 1; /* the newest view */
byte members[VIEW_MAX + 1];
byte leader[VIEW_MAX + 1];
byte promote;  /* R8, a wish on its way: learner + 1; + 3 if that process is gone */

#define IS_MEMBER(s, v) ((members[v] >> (s)) & 1)

/* ---- the world ---- */

byte writes;
byte crashes;
int  truth; /* all that primaries ever committed */
byte truth_last;

/* Of WEAK: */
bit  lost;      /* power, once */
byte untrusted; /* copies that had an unclean start since they were last reconciled (R7) */
byte changed;   /* servers whose process is another one than when the newest view was formed */
byte report[3]; /* SEALED_ACKS: 1 + the last name that was told; else what is told is what is there */
#define COUNTS(s) (WEAK -> last[s] : durable[s])
#define HAS(bits, s) (((bits) >> (s)) & 1)

/* ---- the invariants ---- */

#define ACTS(s) (st[s] == RECONCILE || st[s] == PRIMARY)
#define SERVES(s) (st[s] == PRIMARY || (OFF(NOOP) && ACTS(s)))

/* R10 with read-mode = confirm: this server would say so now. */
#define NEEDED(s, p) (IS_MEMBER(s, view[p]) || (!OFF(JOINT_READS) && joint[p] == (s) + 1))
#define GRANTS(s, p) \
    ((s) == (p) || !NEEDED(s, p) || (view[s] == view[p] && (st[s] == SECONDARY || st[s] == LEARNER)))
#define CAN_READ(p) (SERVES(p) && GRANTS(0, p) && GRANTS(1, p) && GRANTS(2, p))

/* An untrusted member may lack what others have until the view is reconciled. */
#define KNOWN(s) (!HAS(untrusted, s))
#define HOLDS_TRUTH(s) \
    (DIFFER(log[s], truth, truth_last) == 0 && (WEAK || durable[s] >= truth_last) && hole[s] == 0)

#define FITS(s, p) \
    (!IS_MEMBER(s, now) || !KNOWN(s) || (commit[s] <= commit[p] && DIFFER(log[s], log[p], commit[p]) == 0))
#define I2(p)  (!CAN_READ(p) || commit[p] == truth_last) /* a read sees what was answered before */
#define I3(p)  (st[p] != PRIMARY || view[p] != now || (FITS(0, p) && FITS(1, p) && FITS(2, p)))
#define I4(s)  (!IS_MEMBER(s, now) || !KNOWN(s) || HOLDS_TRUTH(s))
#define I12(s) (DIFFER(log[s], truth, commit[s]) == 0)

#define SOONER(x) (DEEP || (x))

/* The servers are alike: of the states that differ in their numbers only, one is looked at. */
c_code {
    #define SWAP(a, i, j) do { int t_ = (a)[i]; (a)[i] = (a)[j]; (a)[j] = t_; } while (0)
    #define BITS_SWAP(x, i, j) \
        ((x) = ((x) & ~(1 << (i) | 1 << (j))) | ((x) >> (i) & 1) << (j) | ((x) >> (j) & 1) << (i))
    #define RENUMBER(x, i, j) ((x) == (i) ? (j) : (x) == (j) ? (i) : (x))

    static unsigned long long server_key(int s)
    {
        return (((((((unsigned long long) now.view[s] * 8 + now.st[s]) << 30 | now.log[s]) * 8 +
                   now.commit[s]) * 8 + now.matched[s]) * 8 + now.durable[s]) << 6 |
                now.hole[s]) * 4 + now.joint[s];
    }

    static void servers_swap(int i, int j)
    {
        int v;
        SWAP(now.st, i, j);
        SWAP(now.view, i, j);
        SWAP(now.log, i, j);
        SWAP(now.last, i, j);
        SWAP(now.commit, i, j);
        SWAP(now.hole, i, j);
        SWAP(now.durable, i, j);
        SWAP(now.matched, i, j);
        SWAP(now.started, i, j);
        SWAP(now.joint, i, j);
        SWAP(now.report, i, j);
        BITS_SWAP(now.untrusted, i, j);
        BITS_SWAP(now.changed, i, j);
        for (v = 1; v <= VIEW_MAX; v++) {
            int bits = now.members[v];
            SWAP(now.ack, i * (VIEW_MAX + 1) + v, j * (VIEW_MAX + 1) + v);
            BITS_SWAP(now.members[v], i, j);
            if (bits) {
                now.leader[v] = RENUMBER(now.leader[v], i, j);
            }
        }
        for (v = 0; v < 3; v++) {
            if (now.joint[v] > 0) {
                now.joint[v] = 1 + RENUMBER(now.joint[v] - 1, i, j);
            }
        }
        if (now.promote > 0) {
            int gone = now.promote > 3 ? 4 : 1;
            now.promote = gone + RENUMBER(now.promote - gone, i, j);
        }
    }

    static void servers_sort(void)
    {
        if (server_key(0) > server_key(1)) { servers_swap(0, 1); }
        if (server_key(1) > server_key(2)) { servers_swap(1, 2); }
        if (server_key(0) > server_key(1)) { servers_swap(0, 1); }
    }
}
#define SORT if :: NUMBERED -> skip :: else -> c_code { servers_sort(); } fi

inline check()
{
    assert(I12(0) && I12(1) && I12(2));
    assert(SOONER(I4(0) && I4(1) && I4(2)));
    assert(SOONER(I2(0) && I2(1) && I2(2)));
    assert(SOONER(I3(0) && I3(1) && I3(2)));
    assert(SOONER(!ONE_NAME_TWO_CONTENTS(log[0], log[1]) && !ONE_NAME_TWO_CONTENTS(log[0], log[2]) &&
                  !ONE_NAME_TWO_CONTENTS(log[1], log[2]))); /* I5 */
    SORT
}

/* ---- steps of a server ---- */

#define MAY_CRASH(s) (crashes < CRASHES && (view[s] < VIEWS || OFF(RESTART)))

inline append(s, entry)
{
    last[s]++;
    log[s] = log[s] | PUT(entry, last[s]);
    if
    :: !MAY_CRASH(s) && !WEAK -> durable[s] = last[s] /* when does not matter any more */
    :: else
    fi
}

/* R2: what is durable and of this view's stream. Only a primary that acts can use it. */
#define LED(v) (view[leader[v]] == (v) && ACTS(leader[v]))
inline send_ack(s)
{
    if
    :: LED(view[s]) && MIN(matched[s], COUNTS(s)) > ACK(s, view[s]) -> ACK(s, view[s]) = MIN(matched[s], COUNTS(s))
    :: else
    fi
}

/* Registers of a view that everybody has left. */
inline forget(v)
{
    if
    :: v < now && view[0] > v && view[1] > v && view[2] > v && members[v] != 0 ->
        stream[v] = 0; stream_from[v] = 0; told[v] = 0;
        ACK(0, v) = 0; ACK(1, v) = 0; ACK(2, v) = 0;
        members[v] = 0; leader[v] = 0
    :: else
        if
        :: view[leader[v]] >= v && !LED(v) -> ACK(0, v) = 0; ACK(1, v) = 0; ACK(2, v) = 0
        :: else
        fi
    fi
}

inline forget_all()
{
    if
    :: OFF(LOWER_VIEWS) -> skip
    :: else -> forget(1); forget(2); forget(3); forget(4)
    fi
}

inline leave(s)
{
    matched[s] = 0; started[s] = 0; joint[s] = 0
}

/* R4: the view is synced, with all before it. */
inline enter(s, v)
{
    assert(SOONER(v > view[s])); /* I7 */
    view[s] = v;
    leave(s);
    durable[s] = last[s];
    if
    :: IS_MEMBER(s, v) && leader[v] == s -> /* R5: the whole tail, then a no-op */
        st[s] = RECONCILE;
        stream_from[v] = commit[s];
        told[v] = commit[s];
        append(s, ENTRY(v, 0));
        stream[v] = log[s]
    :: IS_MEMBER(s, v) && leader[v] != s ->
        st[s] = SECONDARY;
        matched[s] = commit[s]
    :: else -> st[s] = LEARNER
    fi;
    forget_all()
}

/* Who does nothing in its view can learn of the newest as well now as later. (Who leads it can't: it would
 * propose.) */
#define IDLE(s) ((st[s] == WAITING || (st[s] == LEARNER && !started[s])) && view[s] < now && leader[now] != s)
inline enter_idle(s)
{
    if
    :: IDLE(s) -> enter(s, now)
    :: else
    fi
}

/* A process ends and starts again. What was not synced is lost (or, if WEAK, once); of the commits all or
 * none was noted. It is told of the newest view when it registers, and resumes nothing (R6). */
inline restart(s, lowest, kept)
{
    crashes++;
    if
    :: kept -> durable[s] = last[s]
    :: else -> log[s] = log[s] & UPTO(durable[s]); last[s] = durable[s]; lost = WEAK
    fi;
    commit[s] = (hole[s] != 0 -> commit[s] : MIN(last[s], lowest));
    assert(SOONER(!OFF(DURABLE_VIEW) || view[s] == 1)); /* I7: as if it were 1 again */
    leave(s);
    promote = (promote == s + 1 -> s + 4 : promote);
    changed = changed | (WEAK -> 1 << s : 0);
    report[s] = 0;
    if
    :: OFF(RESTART) && view[s] == now && leader[now] == s -> st[s] = PRIMARY
    :: OFF(RESTART) && view[s] == now && leader[now] != s && IS_MEMBER(s, now) ->
        st[s] = SECONDARY; matched[s] = commit[s]
    :: else ->
        st[s] = (IS_MEMBER(s, now) -> WAITING : LEARNER);
        view[s] = now
    fi;
    forget_all()
}

#define NEXT_SEQ(s) \
    ((matched[s] < stream_from[view[s]] -> stream_from[view[s]] : matched[s]) + 1)

/* R1: a name already held changes nothing; it cuts above its commit only, from a differing name on. */
inline take_prepare(s)
{
    seq = NEXT_SEQ(s);
    entry = SLOT(stream[view[s]], seq);
    if
    :: seq <= commit[s] -> matched[s] = seq
    :: seq > commit[s] && BORN(SLOT(log[s], seq)) == BORN(entry) ->
        if
        :: OFF(REPEATED_NAME) -> log[s] = log[s] & UPTO(seq); last[s] = seq; durable[s] = seq
        :: else
        fi;
        matched[s] = seq
    :: else ->
        log[s] = log[s] & UPTO(seq - 1);
        last[s] = MIN(last[s], seq - 1);
        durable[s] = MIN(durable[s], seq - 1);
        if
        :: last[s] == seq - 1 && BORN_AT(log[s], seq - 1) == BORN_AT(stream[view[s]], seq - 1) ->
            append(s, entry);
            durable[s] = (WEAK -> durable[s] : seq);
            matched[s] = seq
        :: else /* refused */
        fi
    fi;
    send_ack(s);
    seq = 0; entry = 0
}

/* R2: durable at every replica, its own log included, and at the joint learner (R8). */
#define ACKED(s, p, seq) ((s) == (p) || !IS_MEMBER(s, view[p]) || ACK(s, view[p]) >= (seq))
#define JOINT_ACKED(p, seq) \
    (OFF(JOINT_COMMITS) || joint[p] == 0 || ACK(joint[p] - 1, view[p]) >= (seq))
#define OWN(p) (OFF(OWN_SYNC) -> last[p] : COUNTS(p))
#define CAN_COMMIT(p, seq)                                                        \
    (ACTS(p) && (seq) <= OWN(p) && ACKED(0, p, seq) && ACKED(1, p, seq) && ACKED(2, p, seq) && \
     JOINT_ACKED(p, seq))

inline commit_next(p)
{
    commit[p]++;
    told[view[p]] = commit[p];
    if
    :: commit[p] > truth_last ->
        truth_last = commit[p];
        truth = truth | PUT(SLOT(log[p], commit[p]), commit[p])
    :: else
    fi;
    if
    :: SLOT(log[p], commit[p]) == ENTRY(view[p], 0) ->
        st[p] = PRIMARY; /* R5 */
        untrusted = untrusted & ~(1 << p)
    :: else
    fi
}

#define TOLD(s) MIN(told[view[s]], MIN(matched[s], COUNTS(s)))

/* R17: the primary p answers the learner s. The copies agree up to n; p has committed up to m. */
#define LOWEST_HOLE(h) \
    ((h) & 1 -> 0 : ((h) & 2 -> 1 : ((h) & 4 -> 2 : ((h) & 8 -> 3 : ((h) & 16 -> 4 : 5)))))
#define BASE(s) (hole[s] == 0 -> commit[s] : LOWEST_HOLE(hole[s]))
#define AGREE(s, p, seq) ((seq) <= commit[p] && BORN_AT(log[s], seq) == BORN_AT(log[p], seq))
inline start_catchup(s, p)
{
    n = (AGREE(s, p, BASE(s)) && AGREE(s, p, commit[s]) -> BASE(s) : 0);
    if
    :: OFF(TAIL_GOES) ->
        log[s] = (log[p] & UPTO(commit[p]) & ~UPTO(last[s])) | (log[s] & UPTO(MIN(last[s], commit[p])))
    :: else -> log[s] = log[p] & UPTO(commit[p])
    fi;
    last[s] = commit[p];
    hole[s] = ((1 << commit[p]) - 1) & ~((1 << n) - 1);
    commit[s] = commit[p];
    durable[s] = commit[p];
    matched[s] = commit[p];
    started[s] = 1;
    ACK(s, view[s]) = (OFF(ACKS_ANEW) -> ACK(s, view[s]) : 0);
    n = 0
}
/* The same process may ask again, but not when it is joint. */
#define MAY_START(s, p) \
    (!started[s] || ((hole[s] != 0 || last[s] > commit[s]) && (joint[p] != (s) + 1 || OFF(AGAIN_JOINT))))
#define CAN_START(s, p) \
    (st[s] == LEARNER && START_WHEN(s) && leader[view[s]] == (p) && view[p] == view[s] && ACTS(p) && MAY_START(s, p))

/* R8: the learner said so, as this process and behind this start. */
#define LEARNED(s, p) \
    (view[s] == view[p] && st[s] == LEARNER && started[s] && (hole[s] == 0 || OFF(COMPLETE)))
/* It becomes joint, and asks when all that was prepared before is acked. Here it does both in one, and
 * only what was committed need be acked: this allows more. */
#define CAN_ASK(s, p)                                                                       \
    (st[p] == PRIMARY && view[p] == now && now < VIEWS && promote != (s) + 1 &&               \
     (joint[p] == 0 || joint[p] == (s) + 1) && LEARNED(s, p) && ACK(s, now) >= commit[p])

/* WEAK: the only copy that counts is lost with its power; nothing can be promised for it. */
#define MAY_LOSE(s) (MAY_CRASH(s) && !lost && (!WEAK || members[now] != 1 << s))
#define UNCLEAN(s) untrusted = untrusted | (WEAK -> 1 << s : 0)
#define CLEAN(s)   untrusted = (OFF(TRUST_STAYS) -> untrusted & ~(1 << s) : untrusted)
#define LAST_NAME(s) (BORN_AT(log[s], last[s]) * 8 + last[s])

/* In the last view nobody is promoted, so that what learners do there, and who seals, changes nothing. */
#define LEARNS(s) (st[s] == LEARNER && view[s] < VIEWS && !WEAK)
/* A write after the view ended could as well have come before; so could a catch-up's start. */
#define WRITE_WHEN(s) (view[s] == now && now < VIEWS)
#define START_WHEN(s) (view[s] == now)

proctype server(byte s)
{
    byte seq;
    byte entry;
    byte n;

    do
    /* A row may come late, and rows in between may never come. */
    :: d_step { OFF(LOWER_VIEWS) && view[s] > 1 -> enter(s, 1); check() }
    :: d_step { now >= 2 && view[s] < 2 -> enter(s, 2); check() }
    :: d_step { now >= 3 && view[s] < 3 -> enter(s, 3); check() }
    :: d_step { now >= 4 && view[s] < 4 -> enter(s, 4); check() }

    /* the stream */
    :: d_step { SERVES(s) && writes < WRITES && WRITE_WHEN(s) ->
        writes++;
        append(s, ENTRY(view[s], writes));
        stream[view[s]] = log[s];
        check() }
    :: d_step { durable[s] < last[s] -> durable[s] = last[s]; check() }
    :: d_step { (st[s] == SECONDARY || (LEARNS(s) && started[s])) && SLOT(stream[view[s]], NEXT_SEQ(s)) != 0 ->
        take_prepare(s);
        check() }
    /* What it had committed already is held as well (R1). */
    :: d_step { st[s] == SECONDARY && ACK(s, view[s]) < matched[s] && matched[s] == commit[s] && LED(view[s]) &&
                matched[s] > 0 && SLOT(stream[view[s]], matched[s]) != 0 ->
        send_ack(s);
        check() }
    :: d_step { CAN_COMMIT(s, commit[s] + 1) -> commit_next(s); check() }
    :: d_step { (st[s] == SECONDARY || LEARNS(s)) && TOLD(s) > commit[s] -> commit[s] = TOLD(s);
        untrusted = (BORN_AT(log[s], commit[s]) == view[s] -> untrusted & ~(1 << s) : untrusted);
        check() }

    /* R6 */
    :: d_step { MAY_LOSE(s) -> restart(s, commit[s], false); UNCLEAN(s); check() }
    :: d_step { MAY_LOSE(s) && commit[s] > 0 && hole[s] == 0 -> restart(s, 0, false); UNCLEAN(s); check() }
    :: d_step { WEAK && MAY_CRASH(s) -> restart(s, commit[s], true); UNCLEAN(s); check() } /* kill -9 */
    :: d_step { WEAK && MAY_CRASH(s) -> restart(s, commit[s], true); CLEAN(s); check() }

    /* Switched off: it told its last name, and goes on acking; an ack covers a refused prepare. */
    :: d_step { OFF(SEALED_ACKS) && report[s] == 0 && view[s] == now && IS_MEMBER(s, now) ->
        report[s] = 1 + LAST_NAME(s); check() }
    :: d_step { OFF(EXCESS_ACKS) && st[s] == SECONDARY && SLOT(stream[view[s]], NEXT_SEQ(s)) != 0 ->
        ACK(s, view[s]) = NEXT_SEQ(s); check() }

    /* R17, R8 */
    :: d_step { LEARNS(s) && CAN_START(s, (s + 1) % 3) -> start_catchup(s, (s + 1) % 3); check() }
    :: d_step { LEARNS(s) && CAN_START(s, (s + 2) % 3) -> start_catchup(s, (s + 2) % 3); check() }
    :: d_step { LEARNS(s) && started[s] && hole[s] != 0 -> hole[s] = 0; check() }
    :: d_step { CAN_ASK((s + 1) % 3, s) -> joint[s] = (s + 1) % 3 + 1; promote = joint[s]; check() }
    :: d_step { CAN_ASK((s + 2) % 3, s) -> joint[s] = (s + 2) % 3 + 1; promote = joint[s]; check() }
    :: d_step { OFF(WITHDRAWAL) && joint[s] != 0 -> joint[s] = 0; check() }
    od
}

/* ---- the manager: every change is compare-and-set on the view (R9) ---- */

inline next_view(m, l)
{
    members[now + 1] = m; /* m and l may speak of the view before */
    leader[now + 1] = l;
    now++;
    promote = 0;
    changed = 0;
    report[0] = 0; report[1] = 0; report[2] = 0;
    enter_idle(0);
    enter_idle(1);
    enter_idle(2);
    forget_all();
    check()
}

/* R7: those who report: complete copies. They have sealed and finished the group in flight; until the
 * manager decides that only keeps them from doing anything, so here it happens in the same step. */
#define REPORTS(s) \
    (IS_MEMBER(s, now) && view[s] == now && hole[s] == 0 && (!OFF(SEALED_ACKS) || report[s] != 0))
inline seal(s)
{
    st[s] = WAITING;
    leave(s);
    durable[s] = last[s]
}
inline seal_all(r)
{
    if
    :: (r) & 1 -> seal(0)
    :: else
    fi;
    if
    :: (r) & 2 -> seal(1)
    :: else
    fi;
    if
    :: (r) & 4 -> seal(2)
    :: else
    fi
}
#define ALL_REPORT(r) \
    ((!((r) & 1) || REPORTS(0)) && (!((r) & 2) || REPORTS(1)) && (!((r) & 4) || REPORTS(2)))
#define TOLD_NAME(s) (OFF(SEALED_ACKS) -> report[s] - 1 : LAST_NAME(s))
/* The highest name of the trusted leads; an accused primary need not be looked at. An untrusted copy
 * leads only if all report, none of them is trusted, and none has more. */
#define ABOVE(l, s, r) (!HAS(r, s) || TOLD_NAME(l) >= TOLD_NAME(s))
#define ABOVE_TRUSTED(l, s, r) (HAS(untrusted, s) || (s) == leader[now] || ABOVE(l, s, r))
#define HIGHEST_TRUSTED(l, r) \
    (!HAS(untrusted, l) && ABOVE_TRUSTED(l, 0, r) && ABOVE_TRUSTED(l, 1, r) && ABOVE_TRUSTED(l, 2, r))
#define HIGHEST_OF_ALL(l, r) \
    ((r) == members[now] && (((r) & ~untrusted) == 0 || OFF(SEALED_ACKS)) && \
     ABOVE(l, 0, r) && ABOVE(l, 1, r) && ABOVE(l, 2, r))
/* Switched off: one trusted report, be it of the accused, lets the highest of the others lead. */
#define NOT_ACCUSED(l, s, r) ((s) == leader[now] || ABOVE(l, s, r))
#define LEADS_ANYWAY(l, r) \
    (((r) == members[now] || ((r) & ~untrusted) != 0) && \
     NOT_ACCUSED(l, 0, r) && NOT_ACCUSED(l, 1, r) && NOT_ACCUSED(l, 2, r))
#define LEADS(l, r) \
    (HIGHEST_TRUSTED(l, r) || HIGHEST_OF_ALL(l, r) || (OFF(TRUSTED_LEADS) && LEADS_ANYWAY(l, r)))
/* Who lacks what the leader knows to be committed becomes a learner. */
#define LACKS(s, l) (last[s] < commit[l] -> 1 << (s) : 0)
#define DECIDE(r, l) \
    :: d_step { now < VIEWS && ALL_REPORT(r) && LEADS(l, r) -> \
        seal_all(r); \
        next_view((r) & ~LACKS(0, l) & ~LACKS(1, l) & ~LACKS(2, l), l) }

#define SAME(l) (!HAS(changed, l) || OFF(SAME_PROCESS))
/* At once: the wish was sent in this view, by its primary or by who leaves; it may be late. */
#define REMOVE(s) \
    :: d_step { now < VIEWS && IS_MEMBER(s, now) && leader[now] != s && SAME(leader[now]) && \
                (view[leader[now]] == now || view[s] == now) -> \
        next_view(members[now] & ~(1 << s), leader[now]) }
/* R16: all that it prepared has committed. Or it restarted since it sent the wish. */
#define RESIGNS(p) (view[p] == now && (st[p] == WAITING || (st[p] == PRIMARY && commit[p] == last[p])))
#define RESIGN(s) \
    :: d_step { now < VIEWS && RESIGNS(leader[now]) && IS_MEMBER(s, now) && leader[now] != s && SAME(s) -> \
        seal(leader[now]); \
        next_view(members[now], s) } \
    :: d_step { now < VIEWS && RESIGNS(leader[now]) && IS_MEMBER(s, now) && leader[now] != s && SAME(s) -> \
        seal(leader[now]); \
        next_view(members[now] & ~(1 << leader[now]), s) }
#define PROMOTED(s) (promote == s + 1 || (OFF(INCARNATION) && promote == s + 4))
#define PROMOTE(s) \
    :: d_step { now < VIEWS && PROMOTED(s) && SAME(leader[now]) -> next_view(members[now] | (1 << s), leader[now]) }

inline begin(s)
{
    view[s] = 1;
    st[s] = (s == 0 -> PRIMARY : ((FIRST_MEMBERS >> s) & 1 -> SECONDARY : LEARNER))
}

init
{
    d_step {
        c_code { options_read(); };
        members[1] = FIRST_MEMBERS;
        begin(0); begin(1); begin(2)
    }
    atomic { run server(0); run server(1); run server(2) }
    do
    DECIDE(1, 0) DECIDE(2, 1) DECIDE(4, 2)
    DECIDE(3, 0) DECIDE(3, 1) DECIDE(5, 0) DECIDE(5, 2) DECIDE(6, 1) DECIDE(6, 2)
    DECIDE(7, 0) DECIDE(7, 1) DECIDE(7, 2)
    REMOVE(0) REMOVE(1) REMOVE(2)
    RESIGN(0) RESIGN(1) RESIGN(2)
    PROMOTE(0) PROMOTE(1) PROMOTE(2)
    /* R8: a withdrawal leaves the members unchanged. */
    :: d_step { now < VIEWS && view[leader[now]] == now && SAME(leader[now]) -> next_view(members[now], leader[now]) }
    od
}
