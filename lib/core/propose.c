/* Operations at the primary: found again or evaluated once (R3), then proposed or answered. */
#include "core/replica.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "wire/mc_number.h"

#include <errno.h>
#include <string.h>

uint64_t propose_op_hash(uint16_t partition, const struct op_id *op)
{
    return map_hash_u64(op->session * 31 + partition) ^ map_hash_u64(op->number);
}

/* ---- answers ---- */

static struct result *answer(struct shard *s, struct asker asker, uint8_t code)
{
    struct action *a = actions_add(s->out, ACTION_RESULT);

    a->answer.asker = asker;
    a->answer.result = (struct result){ .id = asker.id, .code = code };
    return &a->answer.result;
}

static void answer_value(struct shard *s, struct asker asker, const struct entry *e)
{
    struct result *res = answer(s, asker, RESULT_VALUE);

    res->cas = e->cas;
    res->flags = e->flags;
    res->value = e->value;
    res->value_len = e->value_len;
}

void propose_answer(struct shard *s, const struct replica *r, const struct waiter *w,
                    const struct tail_entry *te)
{
    struct result *res;

    s->asked_usec = w->asked_usec;
    if (w->reads && !lease_holds(s, r)) {
        answer(s, w->asker, RESULT_BUSY); /* R10: it is asked again, and evaluated again */
        return;
    }
    if (w->own && w->answer == RESULT_VALUE) {
        answer_value(s, w->asker, &te->e);
        return;
    }
    res = answer(s, w->asker, w->answer);
    if (w->own) {
        res->cas = te->e.cas;
        if (w->answer == RESULT_NUMBER) {
            (void) mc_parse_counter(te->e.value, te->e.value_len, &res->number);
        }
    }
}

/* ---- finding records ---- */

/* What the index knows of a key, and the entry that it points at. */
struct found {
    struct index_record rec;
    struct entry e;
    bool ended; /* it is there, but its time is over */
};

/* The bytes where the index points: in memory, or read for this operation just now. */
static int record_bytes(struct shard *s, const struct index_record *rec, const uint8_t **ret)
{
    const struct warm_record *w = &s->warm;

    if (w->at.segment == 0 || position_compare(w->at, rec->at) != 0) {
        return s->o.read(s->o.read_ctx, rec->at, rec->bytes, ret);
    }
    *ret = w->data;
    return w->error < 0 ? w->error : w->bytes == rec->bytes ? 0 : -EBADMSG;
}

/* The committed entry of a key, alive or not. -ENOENT: there is none, or a tombstone; -EAGAIN: it
 * is not in memory; -EBUSY: too many wait for the disk; -EBADMSG: it can't be read, and R15: rot is
 * never served. */
static int committed_entry(struct shard *s, const struct replica *r, const uint8_t *key,
                           size_t key_len, struct found *ret)
{
    const uint8_t *bytes;
    struct action *a;
    int err;

    if (r->index->ops->get(r->index, key, key_len, &ret->rec) < 0 || ret->rec.kind != ENTRY_SET) {
        return -ENOENT;
    }
    err = record_bytes(s, &ret->rec, &bytes);
    if (err == -EAGAIN || err == -EBUSY) {
        return err;
    }
    if (err == 0 && entry_decode(bytes, ret->rec.bytes, &ret->e) == 0 &&
        ret->e.key_len == key_len && memcmp(ret->e.key, key, key_len) == 0) {
        return 0;
    }
    a = actions_add(s->out, ACTION_DAMAGED);
    a->damaged.at = ret->rec.at;
    a->damaged.partition = r->partition;
    return -EBADMSG;
}

/* The record can't be had now: the operation waits for it, or hears why not. */
static void not_at_hand(struct shard *s, struct replica *r, struct asker asker, const struct op *op,
                        const struct found *f, int err)
{
    if (err == -EBADMSG && r->n_members > 1 && lease_holds(s, r)) {
        replica_distrust(s, r); /* R15: others have theirs, and are there */
        propose_not_primary(s, r, asker);
    } else if (err == -EBADMSG) {
        answer(s, asker, RESULT_DAMAGED);
    } else if (err == -EBUSY || !parked_op(s, r, asker, op, &f->rec)) {
        answer(s, asker, RESULT_BUSY);
    }
}

static bool is_alive(const struct flush_mark *f, const struct entry *e, uint64_t now_usec)
{
    return e->kind == ENTRY_SET && !expiry_is_over(e->expiry_sec, now_usec) &&
           !flush_covers(f, e->name.seq, e->time_usec, now_usec);
}

/* Is it only the time that makes it dead? */
static bool is_ended(const struct flush_mark *f, const struct entry *e, uint64_t now_usec)
{
    return is_alive(f, e, 0) && !is_alive(f, e, now_usec);
}

/* Does the outcome not depend on what is there? Then it need not be read. */
static bool is_blind(const struct shard *s, const struct op *op)
{
    return op->code == OP_FLUSH || (op->code == OP_SET && op->value_len <= s->o.value_bytes_max);
}

/* The record as the operation finds it: committed state plus pending writes of the key and a
 * pending flush (R3). *ret_depends is the newest pending entry that made it so, or NULL. Returns as
 * committed_entry, but 0 when there is none. */
static int record_find(struct shard *s, const struct replica *r, const struct op *op,
                       uint64_t now_usec, struct record *ret, struct tail_entry **ret_depends,
                       struct found *ret_found)
{
    struct tail_entry *pending = replica_pending(s, r, op->key, op->key_len);
    const struct entry *e = pending ? &pending->e : &ret_found->e;
    int err = pending ? 0 : committed_entry(s, r, op->key, op->key_len, ret_found);

    if (err < 0 && err != -ENOENT) {
        return err;
    }
    *ret = (struct record){ .exists = err == 0 && is_alive(&r->flush_pending, e, now_usec) };
    ret_found->ended = err == 0 && is_ended(&r->flush_pending, e, now_usec);
    if (ret->exists) {
        ret->flags = e->flags;
        ret->expiry_sec = e->expiry_sec;
        ret->cas = e->cas;
        ret->value = e->value;
        ret->value_len = e->value_len;
    }
    *ret_depends = pending;
    if (r->pending_flush && (!pending || r->pending_flush->e.name.seq > pending->e.name.seq)) {
        *ret_depends = r->pending_flush;
    }
    return 0;
}

/* ---- proposing ---- */

/* Encodes the entry into the shard's scratch and pushes it to the tail, the log and the stream. */
static struct tail_entry *propose(struct shard *s, struct replica *r, struct entry *e)
{
    struct tail_entry *te;
    size_t n;

    e->partition = r->partition;
    e->name = (struct name){ .view = r->view, .seq = r->last.seq + 1 };
    e->prev_view = r->last.view;
    e->time_usec = replica_now(s, r);
    if (e->cas == 0) {
        e->cas = e->name.seq;
    }
    n = entry_bytes(e);
    buf_clear(&s->scratch);
    entry_encode(e, buf_reserve(&s->scratch, n));
    te = replica_push(s, r, s->scratch.data, n, NULL);
    buf_trim(&s->scratch, 1u << 20);
    for (unsigned i = 1; i < r->n_members + r->n_learners; i++) {
        if (stream_goes_to(r, &r->members[i])) {
            stream_send(s, r, r->members[i].server, te);
        }
    }
    return te;
}

void propose_noop(struct shard *s, struct replica *r)
{
    struct entry e = { .kind = ENTRY_NOOP };

    propose(s, r, &e);
}

void propose_session_end(struct shard *s, struct replica *r, uint64_t session)
{
    struct entry e = { .kind = ENTRY_SESSION, .op.session = session, .cas = s->live.index };

    propose(s, r, &e);
}

/* The two slices of an outcome as one string; `joined` holds it when there are two. */
static struct slice outcome_value(const struct outcome *o, struct buf *joined)
{
    if (o->value[1].bytes == 0) {
        return o->value[0];
    }
    if (o->value[0].bytes == 0) {
        return o->value[1];
    }
    buf_append(joined, o->value[0].p, o->value[0].bytes);
    buf_append(joined, o->value[1].p, o->value[1].bytes);
    return (struct slice){ buf_head(joined), (uint32_t) buf_len(joined) };
}

static struct tail_entry *propose_outcome(struct shard *s, struct replica *r, const struct op *op,
                                          const struct outcome *o, uint64_t old_cas)
{
    _cleanup_(buf_free) struct buf joined = { 0 };
    struct slice value = outcome_value(o, &joined);
    struct entry e = {
        .kind = o->kind,
        .answer = o->answer,
        .key = op->key,
        .key_len = op->key_len,
        .flags = o->flags,
        .expiry_sec = o->expiry_sec,
        .value = value.p,
        .value_len = value.bytes,
        .op = op->op,
        .cas = o->keeps_cas ? old_cas : 0,
    };

    return propose(s, r, &e);
}

/* R15: a full disk refuses writes with a clear answer, its own and those of the other members. What
 * makes room is taken while there is a little left. */
static bool no_space(const struct shard *s, const struct replica *r, const struct op *op)
{
    uint8_t space = (uint8_t) s->space;

    for (unsigned i = 1; i < r->n_members; i++) {
        uint32_t server = r->members[i].server;
        space = MAX_OF(space, server < s->n_peers ? s->peers[server].space : SPACE_ROOM);
    }
    return space >= SPACE_FULL ||
           (space == SPACE_LOW && op->code != OP_DELETE && op->code != OP_FLUSH);
}

/* Are there too many entries that are not committed? */
static bool is_full(const struct shard *s, const struct replica *r)
{
    return r->n_tail >= TAIL_ENTRIES_MAX || s->tail_bytes >= TAIL_BYTES_MAX;
}

/* R13: a record that was found ended stays so, whoever leads next with whatever clocks: it is
 * deleted before that is answered. Returns the entry to wait for: that, or the given one when there
 * is no room for it. */
static struct tail_entry *bury(struct shard *s, struct replica *r, const struct op *op,
                               struct tail_entry *depends)
{
    struct op delete = { .code = OP_DELETE };
    struct entry e = {
        .kind = ENTRY_DELETE, .answer = RESULT_NOT_FOUND, .key = op->key, .key_len = op->key_len
    };

    return no_space(s, r, &delete) || is_full(s, r) ? depends : propose(s, r, &e);
}

/* R10: what proposes nothing is answered under leases. Else it waits for them. */
static bool has_leases(struct shard *s, struct replica *r, struct asker asker, const struct op *op)
{
    if (lease_holds(s, r)) {
        return true;
    }
    if (!parked_lease(s, r, asker, op)) {
        answer(s, asker, RESULT_BUSY);
    }
    return false;
}

static void evaluate(struct shard *s, struct replica *r, struct asker asker, const struct op *op)
{
    uint64_t now_usec = replica_now(s, r);
    struct tail_entry *depends = NULL;
    struct record rec = { 0 };
    struct found found = { .ended = false };
    struct outcome o;
    struct waiter w;
    int err;

    err = is_blind(s, op) ? 0 : record_find(s, r, op, now_usec, &rec, &depends, &found);
    if (err < 0) {
        not_at_hand(s, r, asker, op, &found, err);
        return;
    }
    operation_evaluate(op, &rec, now_usec, s->o.value_bytes_max, &o);
    if (o.proposes) {
        w = (struct waiter){ .asker = asker, .answer = o.answer, .own = true };
        replica_waiter_add(s, propose_outcome(s, r, op, &o, rec.cas), &w);
        return;
    }
    if (!has_leases(s, r, asker, op)) {
        return;
    }
    if (found.ended) {
        depends = bury(s, r, op, depends);
    }
    if (depends) {
        w = (struct waiter){ .asker = asker, .answer = o.answer, .reads = true };
        replica_waiter_add(s, depends, &w);
    } else {
        answer(s, asker, o.answer);
    }
}

/* ---- operations that were here before (R12) ---- */

static void answer_again(struct shard *s, struct replica *r, struct asker asker,
                         const struct op *op, const struct session_answer *before)
{
    struct found found;
    struct result *res;
    int err;

    if (before->code == RESULT_VALUE) {
        err = committed_entry(s, r, op->key, op->key_len, &found);
        if (err < 0 && err != -ENOENT) {
            not_at_hand(s, r, asker, op, &found, err);
        } else if (err == 0 && name_equal(found.e.name, before->at)) {
            answer_value(s, asker, &found.e); /* it is still the one that the operation made */
        } else {
            answer(s, asker, RESULT_UNKNOWN);
        }
        return;
    }
    res = answer(s, asker, before->code);
    res->cas = before->cas;
    res->number = before->value;
}

/* A pending duplicate joins the original. */
static bool join_pending(struct shard *s, struct replica *r, struct asker asker,
                         const struct op *op)
{
    uint64_t hash = propose_op_hash(r->partition, &op->op);

    for (struct map_node *i = map_first(&s->pending_ops, hash); i; i = map_next(i)) {
        struct tail_entry *te = MAP_ENTRY(i, struct tail_entry, by_op);
        if (te->e.partition == r->partition && te->e.op.session == op->op.session &&
            te->e.op.number == op->op.number) {
            struct waiter w = { .asker = asker, .answer = te->e.answer, .own = true };
            replica_waiter_add(s, te, &w);
            return true;
        }
    }
    return false;
}

/* Answers an operation that was here before, or whose session is over. False: it is new. */
static bool answered_before(struct shard *s, struct replica *r, struct asker asker,
                            const struct op *op)
{
    struct session_answer before;
    uint8_t refusal = session_refusal(s, r, op->op.session);

    if (refusal != 0) {
        answer(s, asker, refusal);
        return true;
    }
    if (op->op.session == 0) {
        return false;
    }
    switch (session_look(&r->sessions, &op->op, &before)) {
    case SESSION_DONE:
        answer_again(s, r, asker, op, &before);
        return true;
    case SESSION_GONE:
        answer(s, asker, RESULT_UNKNOWN);
        return true;
    case SESSION_AHEAD:
        answer(s, asker, RESULT_REFUSED);
        return true;
    case SESSION_NEW:
        break;
    }
    return join_pending(s, r, asker, op);
}

/* ---- the door ---- */

void propose_not_primary(struct shard *s, const struct replica *r, struct asker asker)
{
    answer(s, asker, RESULT_NOT_PRIMARY)->number = r->view;
}

/* The committed record is dead. A write that was proposed while it lived must not come after a miss
 * by its end: the read waits for the newest pending write of the key, and is answered from that. */
static void read_dead(struct shard *s, struct replica *r, struct asker asker, const struct op *op,
                      const struct entry *dead, uint64_t now_usec)
{
    struct tail_entry *te = replica_pending(s, r, op->key, op->key_len);
    bool alive = te && is_alive(&r->flush, &te->e, now_usec);
    struct waiter w = { .asker = asker,
                        .answer = alive ? RESULT_VALUE : RESULT_NOT_FOUND,
                        .own = alive,
                        .reads = true };

    if (is_ended(&r->flush, te ? &te->e : dead, now_usec)) {
        te = bury(s, r, op, te);
    }
    if (te) {
        replica_waiter_add(s, te, &w);
    } else {
        answer(s, asker, RESULT_NOT_FOUND);
    }
}

static void read_record(struct shard *s, struct replica *r, struct asker asker, const struct op *op)
{
    uint64_t now_usec = replica_now(s, r);
    struct found found;
    int err;

    if (!has_leases(s, r, asker, op)) {
        return;
    }
    err = committed_entry(s, r, op->key, op->key_len, &found);
    if (err == -ENOENT) {
        answer(s, asker, RESULT_NOT_FOUND);
        return;
    }
    if (err < 0) {
        not_at_hand(s, r, asker, op, &found, err);
        return;
    }
    if (is_alive(&r->flush, &found.e, now_usec)) {
        answer_value(s, asker, &found.e);
        return;
    }
    read_dead(s, r, asker, op, &found.e, now_usec);
}

void propose_op(struct shard *s, struct replica *r, struct asker asker, const struct op *op)
{
    if (r->state != REPLICA_PRIMARY || r->resigned) {
        propose_not_primary(s, r, asker);
        return;
    }
    if (op->code == OP_GET) {
        read_record(s, r, asker, op);
        return;
    }
    if (s->parked_ops.count > 0) {
        parked_forget(s, r, op);
    }
    if (answered_before(s, r, asker, op)) {
        return;
    }
    if (op->op.number - op->op.first >= SESSION_WINDOW) {
        answer(s, asker, RESULT_REFUSED);
        return;
    }
    if (no_space(s, r, op)) {
        answer(s, asker, RESULT_NO_SPACE);
        return;
    }
    if (is_full(s, r)) {
        answer(s, asker, RESULT_BUSY);
        return;
    }
    evaluate(s, r, asker, op);
}

void propose_peek(struct shard *s, struct replica *r, struct asker asker, const uint8_t *key,
                  size_t key_len)
{
    struct msg_peek peek = {
        .partition = r->partition,
        .view = r->view,
        .part = r->state,
        .commit = r->commit,
        .last = r->last,
    };
    struct action *a;
    struct found f;
    int err = committed_entry(s, r, key, key_len, &f);

    if (err == -EAGAIN && parked_peek(s, r, asker, key, key_len, &f.rec)) {
        return;
    }
    peek.trouble = err == -EAGAIN || err == -EBUSY ? RESULT_BUSY
                   : err == -EBADMSG               ? RESULT_DAMAGED
                                                   : 0;
    if (err == 0 && is_alive(&r->flush, &f.e, replica_told_time(s, r))) {
        peek.found = true;
        peek.record = f.e.name;
        peek.flags = f.e.flags;
        peek.expiry_sec = f.e.expiry_sec;
        peek.cas = f.e.cas;
        peek.value = f.e.value;
        peek.value_len = f.e.value_len;
    }
    a = actions_add(s->out, ACTION_PEEK);
    a->peek.asker = asker;
    a->peek.peek = peek;
}
