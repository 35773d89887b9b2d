/* What is asked of managers. One of several answers what concerns the cluster, the leader; the
 * others know which one it is. */
#include "client_private.h"

#include "base/cleanup.h"
#include "io/clock.h"
#include "io/keyring.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- finding one ---- */

static int no_manager(const struct client *c, int r, const char *name, const char *why,
                      struct io_error *error)
{
    if (r == -EINTR) {
        return io_error_set(error, r, "interrupted");
    }
    if (r == -EPERM) {
        return io_error_set(error, r, "the manager at %s refused: this kumoctl %s", name, why);
    }
    if (r == -EKEYREJECTED) {
        return io_error_set(error, r, "the manager at %s can't be spoken with: %s", name, why);
    }
    return io_error_set(error, r,
                        "no manager answers at %s (%s). Is kumo-manager running? Try: systemctl "
                        "status kumo-manager, or name another with -m HOST:PORT%s",
                        name, why, c->o.managers->n > 1 ? "; the others don't answer either" : "");
}

static uint64_t time_left(const struct client *c)
{
    uint64_t now = clock_boot_usec();

    return c->deadline_usec > now ? c->deadline_usec - now : 0;
}

static int manager_open_at(struct client *c, const char *address, uint64_t usec,
                           struct io_error *why)
{
    snprintf(c->manager_name, sizeof(c->manager_name), "%s", address);
    return client_link_open(c, address, 0, SHARD_NONE, clock_boot_usec() + usec, &c->manager, why);
}

static int key_open(struct client *c, struct io_error *error)
{
    int r = c->has_key ? 0 : keyring_open(c->o.cluster_key, error);

    c->has_key = r == 0;
    return r;
}

/* Whichever answers, from c->next_manager on. */
static int manager_open(struct client *c, struct io_error *error)
{
    const struct conf_list *list = c->o.managers;
    struct io_error why = { "" };
    int r = key_open(c, error);

    if (r < 0) {
        return r;
    }
    r = -EINVAL;
    if (c->manager && c->manager->rpc) {
        return 0;
    }
    if (c->manager) {
        c->manager = client_link_free(c->manager);
    }
    for (size_t i = 0; i < list->n; i++) {
        const char *address = list->items[(c->next_manager + i) % list->n];
        r = manager_open_at(c, address, time_left(c) / (list->n - i), &why);
        if (r == 0 || r == -EINTR || r == -EPERM) {
            break;
        }
    }
    return r < 0 ? no_manager(c, r, c->manager_name, why.text, error) : 0;
}

static int ask_managers(struct client *c, struct link *l, struct msg_managers *ret)
{
    int r = client_ask(c, l, MSG_MANAGERS, NULL);
    struct mp_reader reader;

    if (r < 0) {
        return r;
    }
    reader = mp_reader_of(buf_head(&c->answer), buf_len(&c->answer));
    msg_get_managers(&reader, ret);
    return reader.failed ? -EBADMSG : 0;
}

/* The one that was asked does not lead: goes to the one that it takes for the leader, or, after a
 * while, to the next. What it said is kept in c->text. */
static int manager_move(struct client *c)
{
    struct msg_managers said;
    struct io_error why;
    char text[sizeof(c->text)];
    char leader[ADDRESS_BYTES_MAX] = "";

    memcpy(text, c->text, sizeof(text));
    if (ask_managers(c, c->manager, &said) == 0 && said.leader > 0 && said.leader <= said.n &&
        said.leader != said.number) {
        memcpy(leader, said.members[said.leader - 1].address, sizeof(leader));
    }
    memcpy(c->text, text, sizeof(text));
    c->manager = client_link_free(c->manager);
    c->next_manager++;
    if (leader[0] != '\0' && manager_open_at(c, leader, time_left(c) / 2, &why) == 0) {
        return 0;
    }
    return client_sleep(c, CLIENT_RETRY_USEC);
}

/* ---- asking the leader ---- */

static bool leads_not(const struct client *c, int r)
{
    return r == -EREMOTEIO && c->code == MSG_ERROR_NOT_LEADER;
}

/* Goes from one to the next until the leader answers or the time is over; `said` gets what the last
 * one that does not lead said. An error of which `error` tells already is put there. */
static int leader_ask(struct client *c, uint32_t method, const struct buf *params,
                      struct io_error *said, struct io_error *error)
{
    for (;;) {
        int r = manager_open(c, error);
        if (r < 0) {
            return r;
        }
        r = client_ask(c, c->manager, method, params);
        if (!leads_not(c, r)) {
            return r;
        }
        io_error_set(said, r, "the one at %.150s says: %.200s", c->manager_name, c->text);
        r = time_left(c) > 0 ? manager_move(c) : r;
        if (r < 0) {
            return r;
        }
    }
}

static int manager_ask(struct client *c, uint32_t method, const struct buf *params,
                       struct io_error *error)
{
    struct io_error said = { "" };
    int r;

    error->text[0] = '\0';
    r = leader_ask(c, method, params, &said, error);
    if (r == -EINTR) {
        return io_error_set(error, r, "interrupted");
    }
    if (leads_not(c, r) || (said.text[0] != '\0' && error->text[0] != '\0')) {
        return io_error_set(error, r,
                            "no manager leads at the moment: %s. More than half of them must run "
                            "and reach each other",
                            said.text);
    }
    if (r == -EREMOTEIO) {
        return io_error_set(error, r, "%s", c->text);
    }
    if (r < 0 && error->text[0] == '\0') {
        return io_error_set(error, r,
                            "the manager at %s gave no answer: %s. See its log: journalctl -u "
                            "kumo-manager",
                            c->manager_name, c->text);
    }
    return r;
}

int client_call(struct client *c, uint32_t method, const struct buf *params, struct buf *ret_result,
                struct io_error *error)
{
    int r;

    client_begin(c);
    r = manager_ask(c, method, params, error);
    if (r == 0) {
        *ret_result = c->answer;
        c->answer = (struct buf){ 0 };
    }
    return r;
}

int client_table_fetch(struct client *c, struct io_error *error)
{
    int r = manager_ask(c, MSG_TABLE, NULL, error);
    struct mp_reader reader;

    if (r < 0) {
        return r;
    }
    hashspace_free(&c->space); /* it may be another cluster's by now */
    reader = mp_reader_of(buf_head(&c->answer), buf_len(&c->answer));
    if (hashspace_merge(&c->space, &reader) < 0) {
        return io_error_set(
            error, -EBADMSG,
            "the manager at %s sent a table that this kumoctl does not understand; "
            "is it of another version? Try: kumoctl version, kumo-manager --version",
            c->manager_name);
    }
    return 0;
}

int client_table(struct client *c, const struct hashspace **ret_space, struct io_error *error)
{
    int r;

    client_begin(c);
    r = client_table_fetch(c, error);
    if (r == 0) {
        *ret_space = &c->space;
    }
    return r;
}

/* ---- asking each ---- */

static void ask_each(struct client *c, struct client_managers *all, uint32_t i)
{
    struct io_error why = { "" };
    struct link *l = NULL;
    uint64_t until = clock_boot_usec() + CLIENT_MANAGER_USEC;
    int r = client_link_open(c, all->addresses[i], 0, SHARD_NONE, until, &l, &why);

    if (r == 0) {
        c->deadline_usec = until;
        r = ask_managers(c, l, &all->said[i]);
        io_error_set(&why, r, "%s", r == -EBADMSG ? "what it says makes no sense" : c->text);
        client_link_free(l);
    }
    if (r < 0) {
        all->said[i] = (struct msg_managers){ 0 };
        snprintf(all->why[i], sizeof(all->why[i]), "%.99s", why.text);
    }
}

int client_managers(struct client *c, struct client_managers *ret, struct io_error *error)
{
    struct msg_managers one;
    int r;

    *ret = (struct client_managers){ 0 };
    client_begin(c);
    r = manager_open(c, error);
    if (r < 0) {
        return r;
    }
    r = ask_managers(c, c->manager, &one);
    if (r < 0) {
        return io_error_set(error, r, "the manager at %s does not tell of the others: %s",
                            c->manager_name, c->text);
    }
    ret->n = one.n;
    for (uint32_t i = 0; i < one.n && !client_is_interrupted(c); i++) {
        memcpy(ret->addresses[i], one.members[i].address, sizeof(ret->addresses[i]));
        if (i + 1 == one.number) {
            ret->said[i] = one;
        } else {
            ask_each(c, ret, i);
        }
    }
    return 0;
}
