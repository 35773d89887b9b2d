/* status and attach: what the manager knows and does. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "json.h"
#include "verb.h"
#include "wire/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define JUST_STARTED_USEC 3000000 /* so long after its start servers may still be coming back */

struct status {
    struct msg_status head;
    struct client_managers managers;
    struct msg_status_server *servers;
    char uuid[2 * UUID_BYTES + 1];
    const char *word;
    char why[400];
};

static bool is_known_server(const struct status *s, uint32_t server)
{
    return server >= 1 && server <= s->head.n_servers;
}

static void why_add(struct status *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void why_add(struct status *s, const char *format, ...)
{
    size_t n = strlen(s->why);
    va_list args;

    va_start(args, format);
    vsnprintf(s->why + n, sizeof(s->why) - n, format, args);
    va_end(args);
}

/* Some partitions may not serve. */
static void status_waiting(struct status *s)
{
    const struct msg_status *h = &s->head;

    s->word = h->waiting == h->partitions ? "down" : "degraded";
    if (is_known_server(s, h->blocker) && h->blocked > 0) {
        why_add(s, "%u partitions wait for server %s, which is not connected", h->blocked,
                s->servers[h->blocker - 1].name);
    } else {
        why_add(s, "%u partitions are getting a new view", h->waiting);
    }
    if (h->n_blockers > 1) {
        why_add(s, " (nor are %u others: %u of %u partitions wait)", h->n_blockers - 1, h->waiting,
                h->partitions);
    }
    if (h->uptime_usec < JUST_STARTED_USEC) {
        why_add(s, "; the manager has just started, servers may still be coming back");
    }
}

/* All partitions serve, some from fewer servers than there should be. */
static void status_short(struct status *s)
{
    const struct msg_status *h = &s->head;

    s->word = "degraded";
    why_add(s, "all %u partitions serve, %u of them from fewer than %u servers", h->partitions,
            h->degraded, h->replicas);
    if (is_known_server(s, h->blocker)) {
        why_add(s, "; server %s is not connected", s->servers[h->blocker - 1].name);
        if (h->n_blockers > 1) {
            why_add(s, ", nor are %u others", h->n_blockers - 1);
        }
    } else {
        why_add(s, "; the others are catching up");
    }
}

static void status_word(struct status *s)
{
    const struct msg_status *h = &s->head;
    uint32_t n_new = 0;
    char *why = s->why;
    size_t cap = sizeof(s->why);

    for (uint32_t i = 0; i < h->n_servers; i++) {
        n_new += s->servers[i].up;
    }
    if (h->partitions == 0) {
        s->word = "down";
        snprintf(why, cap, "the cluster is not formed yet; see: journalctl -u kumo-manager");
    } else if (h->unplaced == h->partitions && n_new == 0) {
        s->word = "new";
        snprintf(
            why, cap,
            "a new cluster, and no server is here (was there one before? Then this manager lost "
            "its data-dir). Start kumo-server on %u machine%s, then: kumoctl attach",
            h->replicas, h->replicas == 1 ? "" : "s");
    } else if (h->unplaced == h->partitions) {
        s->word = "new";
        snprintf(why, cap, "%u server%s here and hold%s nothing yet. Next: kumoctl attach%s", n_new,
                 n_new == 1 ? " is" : "s are", n_new == 1 ? "s" : "",
                 n_new < h->replicas ? " (needs more servers, or --replicas)" : "");
    } else if (h->waiting > 0) {
        status_waiting(s);
    } else if (h->degraded > 0) {
        status_short(s);
    } else {
        s->word = "ok";
        snprintf(why, cap, "all %u partitions serve", h->partitions);
    }
}

/* What fails next if another one dies is worth a word while all is well. */
static void status_managers(struct status *s)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->managers.n; i++) {
        n += s->managers.said[i].number == 0;
    }
    if (n > 0) {
        snprintf(s->why + strlen(s->why), sizeof(s->why) - strlen(s->why),
                 "; %u of %u managers unreachable", n, s->managers.n);
    }
}

static int status_ask(struct ctl *ctl, struct status *ret, struct io_error *error)
{
    _cleanup_(buf_free) struct buf answer = { 0 };
    struct mp_reader r;
    int err = client_call(ctl->client, MSG_STATUS, NULL, &answer, error);

    if (err < 0) {
        return err;
    }
    r = mp_reader_of(buf_head(&answer), buf_len(&answer));
    msg_get_status(&r, &ret->head);
    ret->servers = mem_zalloc(ret->head.n_servers + 1, sizeof(*ret->servers));
    for (uint32_t i = 0; i < ret->head.n_servers && !r.failed; i++) {
        msg_get_status_server(&r, &ret->servers[i]);
    }
    if (r.failed) {
        return io_error_set(error, -EBADMSG,
                            "the manager at %s gave a status that this kumoctl does not "
                            "understand; is it of another version? Try: kumo-manager --version",
                            client_manager_name(ctl->client));
    }
    for (unsigned i = 0; i < UUID_BYTES; i++) {
        snprintf(ret->uuid + 2 * i, 3, "%02x", ret->head.cluster_id[i]);
    }
    status_word(ret);
    err = client_managers(ctl->client, &ret->managers, error);
    if (err == 0) {
        status_managers(ret);
    }
    return err;
}

static const char *role_word(const struct msg_managers *m)
{
    static const char *const words[_MANAGER_ROLE_MAX] = {
        [MANAGER_WAITING] = "waits for the others",
        [MANAGER_LOOKING] = "looks for a leader",
        [MANAGER_FOLLOWS] = "follows",
        [MANAGER_LEADS] = "leads",
    };

    return m->number > 0 ? words[m->role] : "unreachable";
}

static void managers_print(const struct client_managers *all)
{
    printf("\n%-24s %-20s %6s %10s %10s  %s\n", "MANAGER", "STATE", "TERM", "LOG", "UP", "VERSION");
    for (uint32_t i = 0; i < all->n; i++) {
        const struct msg_managers *m = &all->said[i];
        if (m->number == 0) {
            printf("%-24s %-20s (%s)\n", all->addresses[i], role_word(m), all->why[i]);
            continue;
        }
        printf("%-24s %-20s %6llu %10llu %8llu s  %s\n", all->addresses[i], role_word(m),
               (unsigned long long) m->term, (unsigned long long) m->applied,
               (unsigned long long) (m->uptime_usec / 1000000), m->version);
    }
}

static void managers_json(struct json *j, const struct client_managers *all)
{
    json_open(j, "managers", '[');
    for (uint32_t i = 0; i < all->n; i++) {
        const struct msg_managers *m = &all->said[i];
        json_open(j, NULL, '{');
        json_uint(j, "number", i + 1);
        json_str(j, "address", all->addresses[i]);
        json_str(j, "state", role_word(m));
        if (m->number > 0) {
            json_uint(j, "term", m->term);
            json_uint(j, "leader", m->leader);
            json_uint(j, "applied", m->applied);
            json_uint(j, "uptime_usec", m->uptime_usec);
            json_str(j, "version", m->version);
        } else {
            json_str(j, "why", all->why[i]);
        }
        json_close(j, '}');
    }
    json_close(j, ']');
}

static const char *server_word(const struct msg_status_server *s)
{
    return s->primaries + s->secondaries + s->learning == 0 ? (s->up ? "new" : "new, down")
                                                            : (s->up ? "up" : "down");
}

static void status_print(const struct ctl *ctl, const struct status *s)
{
    const struct msg_status *h = &s->head;

    printf("%s: %s\n\n", s->word, s->why);
    printf("cluster   %s, %u partitions, %u replica%s, epoch %llu\n", s->uuid, h->partitions,
           h->replicas, h->replicas == 1 ? "" : "s", (unsigned long long) h->epoch);
    printf("manager   %s, %s, log at %llu, up %llu s, version %s\n",
           client_manager_name(ctl->client), h->leads ? "leading" : "not leading",
           (unsigned long long) h->applied, (unsigned long long) (h->uptime_usec / 1000000),
           h->version);
    if (s->managers.n > 1) {
        managers_print(&s->managers);
    }
    if (h->n_servers == 0) {
        printf("servers   none\n");
        return;
    }
    printf("\n%-20s %-24s %-9s %7s %8s %8s %8s\n", "SERVER", "ADDRESS", "STATE", "SHARDS",
           "PRIMARY", "REPLICA", "LEARNING");
    for (uint32_t i = 0; i < h->n_servers; i++) {
        const struct msg_status_server *v = &s->servers[i];
        printf("%-20s %-24s %-9s %7u %8u %8u %8u\n", v->name, v->address, server_word(v), v->shards,
               v->primaries, v->secondaries, v->learning);
    }
}

static void status_json(const struct ctl *ctl, const struct status *s)
{
    const struct msg_status *h = &s->head;
    struct json j;

    json_begin(&j, stdout);
    json_str(&j, "health", s->word);
    json_str(&j, "why", s->why);
    json_str(&j, "cluster_id", s->uuid);
    json_uint(&j, "epoch", h->epoch);
    json_uint(&j, "replicas", h->replicas);
    json_uint(&j, "partitions", h->partitions);
    json_uint(&j, "partitions_unplaced", h->unplaced);
    json_uint(&j, "partitions_waiting", h->waiting);
    json_uint(&j, "partitions_degraded", h->degraded);
    json_uint(&j, "sessions", h->sessions);
    json_open(&j, "manager", '{');
    json_str(&j, "address", client_manager_name(ctl->client));
    json_str(&j, "version", h->version);
    json_bool(&j, "leads", h->leads);
    json_uint(&j, "applied", h->applied);
    json_uint(&j, "uptime_usec", h->uptime_usec);
    json_close(&j, '}');
    managers_json(&j, &s->managers);
    json_open(&j, "servers", '[');
    for (uint32_t i = 0; i < h->n_servers; i++) {
        const struct msg_status_server *v = &s->servers[i];
        json_open(&j, NULL, '{');
        json_uint(&j, "number", v->server);
        json_str(&j, "name", v->name);
        json_str(&j, "address", v->address);
        json_bool(&j, "up", v->up);
        json_bool(&j, "attached", v->state == SERVER_ATTACHED);
        json_uint(&j, "incarnation", v->incarnation);
        json_uint(&j, "shards", v->shards);
        json_uint(&j, "primary", v->primaries);
        json_uint(&j, "replica", v->secondaries);
        json_uint(&j, "learner", v->learning);
        json_close(&j, '}');
    }
    json_close(&j, ']');
    json_end(&j);
}

/* Nobody leads: says at least how each manager does. */
static void status_without_leader(struct ctl *ctl, bool as_json, const char *why)
{
    struct client_managers all;
    struct io_error error;
    struct json j;

    if (client_managers(ctl->client, &all, &error) < 0 || all.n == 1) {
        return;
    }
    if (!as_json) {
        managers_print(&all);
        return;
    }
    json_begin(&j, stdout);
    json_str(&j, "health", "unknown");
    json_str(&j, "why", why);
    managers_json(&j, &all);
    json_end(&j);
}

int verb_status(struct ctl *ctl, int argc, char **argv)
{
    const char *json = NULL;
    const struct verb_option options[] = { { "--json", NULL, &json }, { 0 } };
    struct status s = { 0 };
    struct io_error error = { "" };
    struct verb_words w;
    int code;

    if (!verb_args(ctl, verb_find("status"), argc, argv, options, 0, 0, &w)) {
        return VERB_USAGE;
    }
    if (status_ask(ctl, &s, &error) < 0) {
        free(s.servers);
        status_without_leader(ctl, json != NULL, error.text);
        return verb_error(ctl, "%s", error.text);
    }
    if (json) {
        status_json(ctl, &s);
    } else {
        status_print(ctl, &s);
    }
    code = strcmp(s.word, "ok") == 0 || strcmp(s.word, "new") == 0 ? VERB_OK : VERB_FAILED;
    free(s.servers);
    return code;
}

/* ---- attach ---- */

static int attach_ask(struct ctl *ctl, uint32_t replicas, const struct verb_words *w, char *text,
                      size_t cap, struct io_error *error)
{
    _cleanup_(buf_free) struct buf params = { 0 };
    _cleanup_(buf_free) struct buf answer = { 0 };
    struct mp_reader r;
    int err;

    mp_put_array(&params, 2);
    mp_put_uint(&params, replicas);
    mp_put_array(&params, (uint32_t) w->n);
    for (int i = 0; i < w->n; i++) {
        mp_put_str(&params, w->v[i]);
    }
    err = client_call(ctl->client, MSG_ATTACH, &params, &answer, error);
    if (err < 0) {
        return err;
    }
    r = mp_reader_of(buf_head(&answer), buf_len(&answer));
    mp_get_array_exact(&r, 1);
    mp_get_str(&r, text, cap);
    return r.failed ? io_error_set(error, -EBADMSG, "the manager's answer makes no sense") : 0;
}

int verb_attach(struct ctl *ctl, int argc, char **argv)
{
    const char *json = NULL;
    const char *replicas_text = NULL;
    const struct verb_option options[] = { { "--replicas", "N", &replicas_text },
                                           { "--json", NULL, &json },
                                           { 0 } };
    struct io_error error = { "" };
    uint64_t replicas = 0;
    struct verb_words w;
    char text[512];

    if (!verb_args(ctl, verb_find("attach"), argc, argv, options, 0, VERB_WORDS_MAX, &w) ||
        !verb_number(ctl, "--replicas", replicas_text, REPLICAS_MAX, &replicas)) {
        return VERB_USAGE;
    }
    for (int i = 0; i < w.n; i++) {
        if (strlen(w.v[i]) >= NAME_BYTES_MAX) {
            return verb_error(ctl, "no server can have so long a name: %s", w.v[i]);
        }
    }
    if (attach_ask(ctl, (uint32_t) replicas, &w, text, sizeof(text), &error) < 0) {
        return verb_error(ctl, "%s", error.text);
    }
    if (json) {
        struct json j;
        json_begin(&j, stdout);
        json_str(&j, "text", text);
        json_end(&j);
    } else {
        printf("%s\n", text);
    }
    return VERB_OK;
}
