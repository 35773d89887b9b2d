#include "manager_link.h"

#include "base/cleanup.h"
#include "base/mem.h"
#include "gateway.h"
#include "io/clock.h"
#include "io/log.h"
#include "io/loop.h"
#include "io/rpc.h"
#include "store.h"
#include "thread.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What a thread is to get. */
struct want {
    struct manager_link *manager;
    struct thread *thread;
    bool wanted;
    bool asked;       /* and the answer is under way */
    uint64_t session; /* that it has; 0: none yet */
};

struct manager_link {
    struct gateway *gateway;
    struct rpc_link *rpc_link;
    struct loop_timer *timer; /* while something is wanted */
    struct hashspace table;
    struct want sessions[THREADS_MAX];
    bool table_wanted;
    bool table_asked;
    struct store *store;            /* NULL: nothing is kept */
    struct loop_timer *store_timer; /* the hash space is to be kept */
    bool spare_asked;               /* a session for the store is under way */
    struct loop_timer *alive_timer;
    bool alive_asked;
    bool was_up;
    uint64_t alone_usec; /* since when no manager answers */
    char down_why[160];  /* the reason that was logged; empty while it is up */
};

static void ask_all(struct manager_link *m);

/* ---- what is given to threads ---- */

static void session_give(struct want *w, uint64_t session)
{
    w->wanted = false;
    w->session = session;
    thread_give_session(w->thread, session);
}

static void table_give(struct manager_link *m, const uint8_t *bytes, size_t n)
{
    for (unsigned i = 0; i < m->gateway->n_threads; i++) {
        thread_give_table(m->gateway->threads[i], bytes, n);
    }
    gateway_update_status(m->gateway);
}

/* ---- answers ---- */

/* A request failed: another manager may know better. */
static void answer_failed(struct manager_link *m, const char *what, const struct rpc_answer *answer)
{
    if (answer->status == -ECONNRESET) {
        return; /* on_closed has told */
    }
    log_ratelimit(answer->error_code == MSG_ERROR_NOT_LEADER ? LOG_LEVEL_DEBUG : LOG_LEVEL_NOTICE,
                  "the manager gave no %s: %s; asking again", what, answer->error_text);
    rpc_link_next(m->rpc_link);
}

static void table_merge(struct manager_link *m, struct mp_reader *r)
{
    const uint8_t *bytes = r->p;

    if (hashspace_merge(&m->table, r) < 0) {
        log_ratelimit(LOG_LEVEL_ERROR, "a manager sent a hash space that can't be read");
        return;
    }
    table_give(m, bytes, (size_t) (r->p - bytes));
    if (m->store && !loop_timer_active(m->store_timer)) {
        loop_timer_start(m->store_timer, MANAGER_LINK_STORE_USEC);
    }
}

static void on_table(void *ctx, const struct rpc_answer *answer)
{
    struct manager_link *m = ctx;

    m->table_asked = false;
    if (answer->status < 0) {
        answer_failed(m, "hash space", answer);
        return;
    }
    m->table_wanted = false;
    if (m->down_why[0] != '\0') {
        log_notice("connected to the manager at %s", rpc_peer_name(rpc_link_rpc(m->rpc_link)));
        m->down_why[0] = '\0';
    }
    table_merge(m, answer->result);
}

/* 0: there is none in it. */
static uint64_t session_of(struct manager_link *m, const struct rpc_answer *answer)
{
    uint64_t session;

    if (answer->status < 0) {
        answer_failed(m, "session", answer);
        return 0;
    }
    (void) mp_get_array(answer->result);
    session = mp_get_uint(answer->result);
    if (answer->result->failed || session == 0) {
        log_ratelimit(LOG_LEVEL_ERROR, "a manager sent a session that can't be read");
        return 0;
    }
    return session;
}

static void on_session(void *ctx, const struct rpc_answer *answer)
{
    struct want *w = ctx;
    uint64_t session = session_of(w->manager, answer);

    w->asked = false;
    if (session != 0 && w->wanted) {
        session_give(w, session);
    }
}

static void on_spare(void *ctx, const struct rpc_answer *answer)
{
    struct manager_link *m = ctx;
    uint64_t session = session_of(m, answer);

    m->spare_asked = false;
    if (session != 0) {
        store_add_session(m->store, session);
        ask_all(m);
    }
}

static void session_over(struct manager_link *m, uint64_t session)
{
    for (unsigned i = 0; i < m->gateway->n_threads; i++) {
        struct want *w = &m->sessions[i];
        if (w->session == session) {
            w->session = 0;
            w->wanted = true;
        }
    }
    if (m->store) {
        store_drop_session(m->store, session);
    }
}

static void on_over(void *ctx, const struct rpc_answer *answer)
{
    struct manager_link *m = ctx;
    uint32_t n;

    m->alive_asked = false;
    if (answer->status < 0) {
        answer_failed(m, "word about sessions", answer);
        return;
    }
    (void) mp_get_array(answer->result);
    n = mp_get_array(answer->result);
    for (uint32_t i = 0; i < n && !answer->result->failed; i++) {
        session_over(m, mp_get_uint(answer->result));
    }
    ask_all(m);
}

/* ---- requests ---- */

static bool ask(struct manager_link *m, uint32_t method, rpc_answer_fn fn, void *ctx)
{
    struct rpc *rpc = rpc_link_rpc(m->rpc_link);
    struct buf *out;

    if (!rpc ||
        rpc_begin_request(rpc, method, fn, ctx, MANAGER_LINK_REQUEST_USEC, &out, NULL) < 0) {
        return false;
    }
    mp_put_array(out, 0);
    return rpc_end(rpc) == 0;
}

/* Names the sessions that threads have or that are kept. */
static void alive_tell(struct manager_link *m)
{
    struct rpc *rpc = rpc_link_rpc(m->rpc_link);
    const uint64_t *kept = NULL;
    size_t n_kept = m->store ? store_sessions(m->store, &kept) : 0;
    uint64_t ids[THREADS_MAX + STORE_SESSIONS_MAX];
    uint32_t n = 0;
    struct buf *out;

    for (unsigned i = 0; i < m->gateway->n_threads; i++) {
        if (m->sessions[i].session != 0) {
            ids[n++] = m->sessions[i].session;
        }
    }
    for (size_t i = 0; i < n_kept; i++) {
        ids[n++] = kept[i];
    }
    if (!rpc || n == 0 || m->alive_asked ||
        rpc_begin_request(rpc, MSG_SESSIONS_ALIVE, on_over, m, MANAGER_LINK_REQUEST_USEC, &out,
                          NULL) < 0) {
        return;
    }
    mp_put_array(out, 1);
    msg_put_session_ids(out, ids, n);
    m->alive_asked = rpc_end(rpc) == 0;
}

static void on_alive_timer(void *ctx)
{
    alive_tell(ctx);
}

/* ---- without managers ---- */

static void on_store_timer(void *ctx)
{
    struct manager_link *m = ctx;

    store_put_table(m->store, &m->table);
    ask_all(m);
}

static void table_restore(struct manager_link *m)
{
    struct buf b = { 0 };

    if (m->table.epoch == 0 && store_get_table(m->store, &m->table)) {
        log_notice("no manager answers: serving with the hash space that was kept, of epoch %llu",
                   (unsigned long long) m->table.epoch);
        hashspace_put(&b, &m->table, NULL, 0);
        table_give(m, buf_head(&b), buf_len(&b));
        buf_free(&b);
    }
}

/* What is wanted comes from the store when no manager has answered for a while. */
static void make_do(struct manager_link *m)
{
    if (!m->store || rpc_link_rpc(m->rpc_link) ||
        clock_boot_usec() - m->alone_usec < MANAGER_LINK_ALONE_USEC) {
        return;
    }
    table_restore(m);
    for (unsigned i = 0; i < m->gateway->n_threads; i++) {
        struct want *w = &m->sessions[i];
        uint64_t session = w->wanted ? store_take_session(m->store) : 0;
        if (session != 0) {
            session_give(w, session);
        }
    }
}

/* A session more for the store, one at a time. */
static void spare_ask(struct manager_link *m)
{
    const uint64_t *kept;
    size_t wanted =
        MIN_OF((size_t) MANAGER_LINK_SPARES * m->gateway->n_threads, (size_t) STORE_SESSIONS_MAX);

    if (m->store && !m->spare_asked && m->table.epoch > 0 &&
        store_sessions(m->store, &kept) < wanted) {
        m->spare_asked = ask(m, MSG_SESSION, on_spare, m);
    }
}

/* Asks for what is wanted and not under way, now and until it is there. */
static void ask_all(struct manager_link *m)
{
    bool wanted = m->table_wanted;

    if (m->table_wanted && !m->table_asked) {
        m->table_asked = ask(m, MSG_TABLE, on_table, m);
    }
    for (unsigned i = 0; i < m->gateway->n_threads; i++) {
        struct want *w = &m->sessions[i];
        wanted |= w->wanted;
        if (w->wanted && !w->asked) {
            w->asked = ask(m, MSG_SESSION, on_session, w);
        }
    }
    spare_ask(m);
    if (wanted && !loop_timer_active(m->timer)) {
        loop_timer_start(m->timer, MANAGER_LINK_RETRY_USEC);
    }
}

static void on_timer(void *ctx)
{
    make_do(ctx);
    ask_all(ctx);
}

void manager_link_want_table(struct manager_link *m)
{
    m->table_wanted = true;
    ask_all(m);
}

void manager_link_want_session(struct manager_link *m, struct thread *t)
{
    m->sessions[t->index].wanted = true;
    ask_all(m);
}

/* ---- the connection ---- */

static void pack_hello(struct rpc *rpc, void *ctx, struct buf *out)
{
    struct manager_link *m = ctx;
    struct msg_hello h = { .protocol_min = MSG_PROTOCOL_MIN,
                           .protocol_max = MSG_PROTOCOL_MAX,
                           .role = ROLE_GATEWAY,
                           .shard = SHARD_NONE,
                           .clock_usec = clock_real_usec() };

    (void) rpc;
    memcpy(h.cluster_id, m->table.cluster_id, UUID_BYTES);
    msg_put_hello(out, &h);
}

static int on_up(struct rpc *rpc, void *ctx, struct mp_reader *answer)
{
    struct manager_link *m = ctx;
    struct msg_hello h;

    msg_get_hello_answer(answer, ROLE_MANAGER, &h);
    if (answer->failed) {
        log_ratelimit(LOG_LEVEL_ERROR, "there is no manager of this release at %s",
                      rpc_peer_name(rpc));
        return -EBADMSG;
    }
    m->table_wanted = true;
    m->was_up = true;
    alive_tell(m);
    ask_all(m);
    gateway_update_status(m->gateway);
    return 0;
}

static void on_notify(struct rpc *rpc, void *ctx, uint32_t method, struct mp_reader *params)
{
    (void) rpc;
    if (method == MSG_TABLE_CHANGED) {
        table_merge(ctx, params);
    }
}

static void on_closed(struct rpc *rpc, void *ctx, int error, const char *why)
{
    struct manager_link *m = ctx;

    (void) rpc;
    if (error != -EAGAIN && strncmp(m->down_why, why, sizeof(m->down_why) - 1) != 0 &&
        !m->gateway->stopping) {
        log_warning("no connection to the manager at %s: %s; trying again", rpc_peer_name(rpc),
                    why);
        snprintf(m->down_why, sizeof(m->down_why), "%s", why);
    }
    if (m->was_up) {
        m->was_up = false;
        m->alone_usec = clock_boot_usec();
    }
    gateway_update_status(m->gateway);
}

static const struct rpc_ops manager_ops = {
    .pack_hello = pack_hello,
    .on_up = on_up,
    .on_notify = on_notify,
    .on_closed = on_closed,
};

/* ---- life ---- */

static int addresses_parse(const struct conf_list *list, struct addr *addrs, struct io_error *error)
{
    size_t n = 0;
    int r;

    for (size_t i = 0; i < list->n; i++) {
        struct io_error why;
        r = addr_parse(list->items[i], MANAGER_PORT, addrs + n, MANAGER_LINK_ADDRESSES_MAX - n,
                       &why);
        if (r < 0) {
            return io_error_set(error, r, "manager = %.100s: %.350s", list->items[i], why.text);
        }
        n += (size_t) r;
        if (n == MANAGER_LINK_ADDRESSES_MAX) {
            break;
        }
    }
    if (n == 0) {
        return io_error_set(error, -EINVAL, "manager: no address is given");
    }
    return (int) n;
}

int manager_link_new(struct gateway *g, struct manager_link **ret_manager, struct io_error *error)
{
    struct rpc_config config = { .ops = &manager_ops,
                                 .message_bytes_max = MSG_BYTES_MAX,
                                 .out_bytes_max = MANAGER_LINK_OUT_BYTES_MAX };
    struct addr addrs[MANAGER_LINK_ADDRESSES_MAX];
    int n = addresses_parse(&g->settings.manager, addrs, error);
    struct manager_link *m;

    if (n < 0) {
        return n;
    }
    m = mem_zalloc(1, sizeof(*m));
    m->gateway = g;
    for (unsigned i = 0; i < g->n_threads; i++) {
        m->sessions[i] = (struct want){ .manager = m, .thread = g->threads[i], .wanted = true };
    }
    config.ctx = m;
    m->timer = loop_timer_new(g->loop, on_timer, m);
    m->store_timer = loop_timer_new(g->loop, on_store_timer, m);
    m->alive_timer = loop_timer_new(g->loop, on_alive_timer, m);
    m->alone_usec = clock_boot_usec();
    m->store = g->store;
    loop_timer_every(m->alive_timer, MANAGER_LINK_ALIVE_USEC);
    loop_timer_start(m->timer, MANAGER_LINK_RETRY_USEC);
    m->rpc_link = rpc_link_new(g->loop, addrs, (size_t) n, &config);
    rpc_link_set_silence(m->rpc_link, MSG_MANAGER_SILENCE_USEC);
    *ret_manager = m;
    return 0;
}

struct manager_link *manager_link_free(struct manager_link *m)
{
    if (!m) {
        return NULL;
    }
    rpc_link_free(m->rpc_link);
    loop_timer_free(m->timer);
    loop_timer_free(m->store_timer);
    loop_timer_free(m->alive_timer);
    hashspace_free(&m->table);
    free(m);
    return NULL;
}

bool manager_link_is_up(const struct manager_link *m)
{
    return rpc_link_rpc(m->rpc_link) != NULL;
}

const struct hashspace *manager_link_table(const struct manager_link *m)
{
    return &m->table;
}

bool manager_link_table_is_whole(const struct manager_link *m)
{
    for (uint32_t i = 0; i < m->table.n_partitions; i++) {
        if (m->table.rows[i].view == 0) {
            return false;
        }
    }
    return m->table.n_partitions > 0;
}
