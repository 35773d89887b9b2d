/* What is asked of the manager: registration of servers (R6), attach. A request is
 * answered when its proposal has committed. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "core/manager_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct request *manager_request_add(struct manager *m, const struct manager_event *e, uint64_t tag)
{
    struct request *q = mem_zalloc(1, sizeof(*q));

    q->tag = tag;
    q->conn = e->conn;
    q->request = e->request;
    q->kind = e->kind;
    list_push_back(&m->requests, &q->link);
    m->n_requests++;
    return q;
}

void manager_request_free(struct manager *m, struct request *q)
{
    list_remove(&q->link);
    m->n_requests--;
    free(q);
}

bool manager_request_allowed(struct manager *m, const struct manager_event *e)
{
    if (!m->leader) {
        manager_refuse(m, e->conn, e->request, "this manager does not lead");
        return false;
    }
    if (m->n_requests >= MANAGER_REQUESTS_MAX) {
        manager_refuse(m, e->conn, e->request, "the manager has too many unanswered requests");
        return false;
    }
    return true;
}

/* Answers a registration that the replicated state refuses: by an incarnation it is refused for
 * good. */
static void deny(struct manager *m, uint64_t conn, uint64_t request, const struct msg_register *r,
                 const char *text)
{
    manager_refuse(m, conn, request, text);
    if (cluster_find(&m->cluster, r->server_id) > 0) {
        m->out->v[m->out->n - 1].kind = MANAGER_DO_DENY;
    }
}

/* ---- copies ---- */

/* A server that still answers does not start once more: that is a copy of its data, and the process
 * that holds what was answered since must not give way to it. One that was killed has lost its
 * connection; one whose machine died is silent before long. */
static struct link *link_that_answers(struct manager *m, const struct manager_event *e)
{
    uint32_t server = cluster_find(&m->cluster, e->registration.server_id);
    struct link *l;

    if (!manager_server_is_up(m, server)) {
        return NULL;
    }
    l = &m->links[server - 1];
    if (l->conn == e->conn ||
        m->now_usec - MAX_OF(l->heard_usec, m->waits_usec) >= m->o.failure_usec) {
        return NULL;
    }
    return l;
}

/* Refused for now; for good when the other one was heard after this one had begun: both live. */
static void twin_refuse(struct manager *m, const struct manager_event *e, struct link *l)
{
    const char *address = m->cluster.space.servers[l - m->links].address;
    bool known = l->twin_usec != 0 && l->twin_random == e->registration.random;
    struct manager_action *a =
        manager_act(m, known && l->heard_usec > l->twin_usec ? MANAGER_DO_DENY : MANAGER_DO_REFUSE,
                    e->conn, e->request);

    snprintf(a->text, sizeof(a->text), "this server runs already, at %s%s", address,
             a->kind == MANAGER_DO_DENY ? ": this one is a clone or runs on restored data" : "");
    if (!known) {
        l->twin_usec = m->now_usec;
        l->twin_random = e->registration.random;
    }
}

/* ---- registration (R6, incarnations) ---- */

static void accept(struct manager *m, uint64_t conn, uint64_t request,
                   const struct msg_register *registration)
{
    uint32_t server = cluster_find(&m->cluster, registration->server_id);
    struct link *old = manager_link(m, server);
    struct manager_action *a;

    if (old->conn != 0 && old->conn != conn) {
        manager_act(m, MANAGER_DO_CLOSE, old->conn,
                    0); /* an older process learns that it is over */
    }
    a = manager_act(m, MANAGER_DO_ACCEPT, conn, request);
    memcpy(a->accept.cluster_id, m->cluster.space.cluster_id, UUID_BYTES);
    a->accept.server = server;
    a->accept.partitions = m->cluster.space.n_partitions;
    *old = (struct link){ .conn = conn,
                          .incarnation = registration->counter,
                          .heard_usec = m->now_usec };
    manager_sessions_tell(m, conn);
}

/* Is the registration in the replicated state, as it is? */
static bool is_registered(const struct cluster *c, const struct msg_register *r)
{
    uint32_t server = cluster_find(c, r->server_id);
    const struct hashspace_server *s = hashspace_server(&c->space, server);

    return s && s->incarnation == r->counter && c->servers[server - 1].random == r->random &&
           s->shards == r->shards && strcmp(s->name, r->name) == 0 &&
           strcmp(s->address, r->address) == 0;
}

void manager_on_register(struct manager *m, const struct manager_event *e)
{
    struct link *other;
    const char *why;
    size_t begin;

    if (!manager_request_allowed(m, e)) {
        return;
    }
    why = cluster_refuses(&m->cluster, &e->registration);
    if (why) {
        deny(m, e->conn, e->request, &e->registration, why);
        return;
    }
    if (is_registered(&m->cluster, &e->registration)) {
        accept(m, e->conn, e->request, &e->registration);
        return;
    }
    other = link_that_answers(m, e);
    if (other) {
        twin_refuse(m, e, other);
        return;
    }
    begin = buf_len(&m->bytes);
    cluster_put_register(&m->bytes, &e->registration);
    manager_request_add(m, e, manager_propose(m, begin))->registration = e->registration;
}

/* ---- attach ---- */

static bool is_wanted(const struct manager_event *e, const struct hashspace_server *s)
{
    for (uint32_t i = 0; i < e->attach.n; i++) {
        if (strcmp(e->attach.names[i], s->name) == 0) {
            return true;
        }
    }
    return e->attach.n == 0;
}

/* NULL, or why this name does not name one server (in `text`). */
static const char *name_refuses(const struct manager *m, const char *name, char *text,
                                size_t text_bytes)
{
    const struct hashspace *h = &m->cluster.space;
    uint32_t known = 0;
    uint32_t up = 0;

    for (uint32_t i = 0; i < h->n_servers; i++) {
        bool same = strcmp(h->servers[i].name, name) == 0;
        known += same;
        up += same && manager_server_is_up(m, i + 1);
    }
    if (known == 0) {
        snprintf(text, text_bytes, "no server is called \"%s\"; `kumoctl status` lists them", name);
        return text;
    }
    if (up > 1) {
        snprintf(
            text, text_bytes,
            "%u servers are called \"%s\": give each a name of its own (name = in server.conf)", up,
            name);
        return text;
    }
    return NULL;
}

/* NULL, or why these servers can't be attached (in `text`). Fills servers[]. */
static const char *attach_choose(const struct manager *m, const struct manager_event *e,
                                 uint32_t *servers, uint32_t *ret_n, char *text, size_t text_bytes)
{
    const struct hashspace *h = &m->cluster.space;

    *ret_n = 0;
    if (h->n_partitions > 0 && h->rows[0].view > 0) {
        return "the partitions are placed already, and this version can't move them to other "
               "servers";
    }
    for (uint32_t i = 0; i < e->attach.n; i++) {
        const char *why = name_refuses(m, e->attach.names[i], text, text_bytes);
        if (why) {
            return why;
        }
    }
    for (uint32_t i = 0; i < h->n_servers; i++) {
        if (is_wanted(e, &h->servers[i]) && manager_server_is_up(m, i + 1)) {
            servers[(*ret_n)++] = i + 1;
        }
    }
    return NULL;
}

void manager_on_attach(struct manager *m, const struct manager_event *e)
{
    uint32_t replicas = e->attach.replicas ? e->attach.replicas : m->cluster.replicas;
    char text[MANAGER_TEXT_BYTES_MAX];
    uint32_t servers[SERVERS_MAX];
    struct request *q;
    const char *why;
    size_t begin;
    uint32_t n;

    if (!manager_request_allowed(m, e)) {
        return;
    }
    why = attach_choose(m, e, servers, &n, text, sizeof(text));
    if (!why && n < replicas) {
        snprintf(text, sizeof(text),
                 "%u replicas need %u servers, and %u can be attached now. Start more servers, or "
                 "keep fewer "
                 "copies: attach --replicas %u",
                 replicas, replicas, n, n > 0 ? n : 1);
        why = text;
    }
    if (why) {
        manager_refuse(m, e->conn, e->request, why);
        return;
    }
    begin = buf_len(&m->bytes);
    cluster_put_attach(&m->bytes, replicas, servers, n);
    q = manager_request_add(m, e, manager_propose(m, begin));
    snprintf(q->text, sizeof(q->text), "attached %u server%s: %u partitions, %u replica%s each", n,
             n == 1 ? "" : "s", m->cluster.space.n_partitions, replicas, replicas == 1 ? "" : "s");
}

/* ---- outcomes ---- */

static void request_done(struct manager *m, const struct request *q, uint64_t index)
{
    switch (q->kind) {
    case MANAGER_REGISTER:
        if (is_registered(&m->cluster, &q->registration)) {
            accept(m, q->conn, q->request, &q->registration);
        } else {
            const char *why = cluster_refuses(&m->cluster, &q->registration);
            deny(m, q->conn, q->request, &q->registration,
                 why ? why : "registered otherwise at the same time");
        }
        return;
    case MANAGER_SESSION:
        manager_session_done(m, q, index);
        return;
    default:
        memcpy(manager_act(m, MANAGER_DO_TEXT, q->conn, q->request)->text, q->text,
               sizeof(q->text));
    }
}

static const char *failure_text(int status)
{
    switch (status) {
    case -EAGAIN:
        return "this manager does not lead";
    case -EREMOTEIO:
        return "outcome unknown: the manager lost its lead";
    case -ENOSPC:
        return "nothing was done: the manager's disk is full";
    default:
        return "nothing was done: the manager's log takes no more now";
    }
}

void manager_on_done(struct manager *m, const struct manager_event *e)
{
    if (e->done.tag == m->views_tag) {
        m->views_tag = 0; /* whatever became of it: what is still needed is proposed again */
        if (e->done.status == 0 && m->leader && m->effect.n_rows > 0) {
            manager_views_propose(m); /* there may have been too many for one entry */
        }
    }
    if (e->done.tag == m->expire_tag) {
        m->expire_tag = 0;
    }
    LIST_FOR_EACH_SAFE(i, &m->requests)
    {
        struct request *q = LIST_ENTRY(i, struct request, link);
        if (q->tag != e->done.tag) {
            continue;
        }
        if (e->done.status == 0) {
            request_done(m, q, e->done.index);
        } else {
            manager_refuse(m, q->conn, q->request, failure_text(e->done.status));
        }
        manager_request_free(m, q);
    }
    if (m->forming && m->cluster.space.n_partitions == 0) {
        m->forming = false;
    }
}
