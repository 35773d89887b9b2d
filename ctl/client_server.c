/* Operations at the primary of a key, and looks at single replicas. */
#include "client_private.h"

#include "io/clock.h"

#include <errno.h>
#include <string.h>

/* The link to the server's shard that has the partition. */
static int server_open(struct client *c, const struct hashspace_server *s, uint16_t partition,
                       struct link **ret, struct io_error *error)
{
    uint32_t shard = partition % s->shards;
    uint64_t now = clock_boot_usec();
    uint64_t left = c->deadline_usec > now ? c->deadline_usec - now : 0;
    struct io_error why = { "" };
    int r;

    LIST_FOR_EACH_SAFE(i, &c->links)
    {
        struct link *l = LIST_ENTRY(i, struct link, node);
        if (l->server == s->server && !l->rpc) {
            client_link_free(l);
        } else if (l->server == s->server && l->shard == shard) {
            *ret = l;
            return 0;
        }
    }
    r = client_link_open(c, s->address, s->server, shard, now + left / CLIENT_TIMEOUT_MARGIN, ret,
                         &why);
    if (r == -EINTR) {
        return io_error_set(error, r, "interrupted");
    }
    if (r < 0) {
        io_error_set(error, r,
                     "server %s does not answer at %s (%s). Is it running? Try: kumoctl status, "
                     "and there: systemctl status kumo-server",
                     s->name, s->address, why.text);
    }
    return r;
}

static bool op_writes(const struct op *op)
{
    return op->code != OP_GET;
}

/* One try. 0: ret has the server's word. -EAGAIN: it certainly did not happen, error says why.
 * -EREMOTEIO: unknown. */
static int op_try(struct client *c, const struct op *op, struct client_result *ret,
                  struct io_error *error)
{
    uint64_t hash = hashspace_hash(op->key, op->key_len);
    const struct view_row *row;
    const struct hashspace_server *s;
    struct op copy = *op;
    struct link *l;
    struct buf *out;
    uint16_t p;
    int r;

    if (c->space.n_partitions == 0 || c->space.rows[0].view == 0) {
        return io_error_set(error, -ENODATA,
                            "no server holds data yet. Start servers, then: kumoctl attach");
    }
    p = hashspace_partition_of_hash(hash, c->space.n_partitions);
    row = &c->space.rows[p];
    s = hashspace_server(&c->space, row->members[0]);
    r = s ? server_open(c, s, p, &l, error) : -EBADMSG;
    if (r < 0) {
        return r == -EINTR ? r : -EAGAIN;
    }
    copy.id = ++c->last_op;
    out = rpc_begin_notify(l->rpc, MSG_OPS);
    mp_put_array(out, 2);
    mp_put_uint(out, 0);
    mp_put_array(out, 1);
    msg_put_op(out, &copy);
    if (rpc_end(l->rpc) < 0) {
        return io_error_set(error, -EMSGSIZE, "the value is too large to be sent");
    }
    c->answered = false;
    c->result = ret;
    r = client_wait(c, &c->answered, l, c->deadline_usec);
    c->result = NULL;
    if (r == 0) {
        return 0;
    }
    io_error_set(error, r, "server %s (%s), the primary of partition %u, did not answer", s->name,
                 s->address, p);
    return r == -EINTR || r == -ETIMEDOUT || op_writes(op) ? -EREMOTEIO : -EAGAIN;
}

static bool result_is_retried(uint8_t code, struct io_error *error)
{
    if (code == RESULT_NOT_PRIMARY) {
        io_error_set(error, 0, "the partition has no working primary at the moment");
    } else if (code == RESULT_BUSY) {
        io_error_set(error, 0, "the server has too much to do");
    }
    return code == RESULT_NOT_PRIMARY || code == RESULT_BUSY;
}

static int op_give_up(struct client *c, const struct op *op, int r, const struct io_error *why,
                      struct io_error *error)
{
    if (r == -EREMOTEIO && op_writes(op)) {
        return io_error_set(error, r,
                            "outcome unknown: %.300s. It may have happened or happen yet; read the "
                            "key again (kumoctl get), and see: kumoctl status",
                            client_is_interrupted(c) ? "interrupted" : why->text);
    }
    if (client_is_interrupted(c)) {
        return io_error_set(error, -EINTR, "interrupted");
    }
    if (r == -EAGAIN || r == -EREMOTEIO) {
        return io_error_set(error, -ETIMEDOUT, "gave up after %.1f s: %.300s. See: kumoctl status",
                            (double) c->o.timeout_usec / 1e6, why->text);
    }
    return io_error_set(error, r, "%s", why->text);
}

int client_op(struct client *c, const struct op *op, struct client_result *ret,
              struct io_error *error)
{
    struct io_error why = { "" };
    int r;

    client_begin(c);
    r = client_table_fetch(c, error);
    if (r < 0) {
        return r;
    }
    for (;;) {
        r = op_try(c, op, ret, &why);
        if (r == 0 && !result_is_retried(ret->code, &why)) {
            return 0;
        }
        r = r == 0 ? -EAGAIN : r;
        if (r != -EAGAIN || client_sleep(c, CLIENT_RETRY_USEC) < 0 ||
            clock_boot_usec() >= c->deadline_usec) {
            return op_give_up(c, op, r, &why, error);
        }
        if (client_table_fetch(c, &why) == -EINTR) {
            return op_give_up(c, op, -EINTR, &why, error);
        }
    }
}

int client_peek(struct client *c, const struct hashspace_server *server, const char *key,
                size_t key_len, struct msg_peek *ret, struct buf *ret_value, struct io_error *error)
{
    uint64_t hash = hashspace_hash((const uint8_t *) key, key_len);
    uint16_t p = hashspace_partition_of_hash(hash, c->space.n_partitions);
    struct buf params = { 0 };
    struct mp_reader reader;
    struct link *l;
    int r;

    client_begin(c);
    r = server_open(c, server, p, &l, error);
    if (r < 0) {
        return r;
    }
    mp_put_array(&params, 1);
    mp_put_bin(&params, key, key_len);
    r = client_ask(c, l, MSG_PEEK_KEY, &params);
    buf_free(&params);
    if (r < 0) {
        return io_error_set(error, r, "server %s gave no answer: %s", server->name, c->text);
    }
    reader = mp_reader_of(buf_head(&c->answer), buf_len(&c->answer));
    mp_get_array_exact(&reader, 1);
    msg_get_peek(&reader, ret);
    if (reader.failed) {
        return io_error_set(error, -EBADMSG, "server %s sent an answer that makes no sense",
                            server->name);
    }
    buf_clear(ret_value);
    buf_append(ret_value, ret->value, ret->value_len);
    ret->value = buf_len(ret_value) > 0 ? buf_head(ret_value) : NULL;
    return 0;
}
