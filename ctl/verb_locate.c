/* locate and partitions: which servers hold what. */
#include "base/cleanup.h"
#include "json.h"
#include "verb.h"

#include <errno.h>
#include <string.h>

#define VERIFY_TRIES      5 /* secondaries learn of a commit a little later */
#define VERIFY_PAUSE_USEC 200000

/* What one replica said. */
struct replica {
    const struct hashspace_server *server;
    int status; /* of asking it */
    struct io_error error;
    struct msg_peek peek;
    struct buf value;
};

struct location {
    const char *key;
    uint16_t partition;
    struct view_row row;
    uint32_t n_partitions;
    struct replica replicas[REPLICAS_MAX];
    bool agree;
};

static int location_find(struct ctl *ctl, const char *key, struct location *ret,
                         struct io_error *error)
{
    const struct hashspace *h;
    int r = client_table(ctl->client, &h, error);

    if (r < 0) {
        return r;
    }
    if (h->n_partitions == 0) {
        return io_error_set(error, -ENODATA, "the cluster is not formed yet; see: kumoctl status");
    }
    ret->key = key;
    ret->n_partitions = h->n_partitions;
    ret->partition = hashspace_partition_of_hash(hashspace_hash((const uint8_t *) key, strlen(key)),
                                                 h->n_partitions);
    ret->row = h->rows[ret->partition];
    if (ret->row.view == 0) {
        return io_error_set(error, -ENODATA,
                            "no server holds data yet. Start servers, then: kumoctl attach");
    }
    for (unsigned i = 0; i < ret->row.n_members; i++) {
        ret->replicas[i].server = hashspace_server(h, ret->row.members[i]);
        if (!ret->replicas[i].server) {
            return io_error_set(error, -EBADMSG, "the manager's table names an unknown server");
        }
    }
    return 0;
}

static void location_free(struct location *l)
{
    for (unsigned i = 0; i < REPLICAS_MAX; i++) {
        buf_free(&l->replicas[i].value);
    }
}

/* ---- verify ---- */

static bool peek_equal(const struct replica *a, const struct replica *b)
{
    const struct msg_peek *x = &a->peek;
    const struct msg_peek *y = &b->peek;

    if (!x->found || !y->found) {
        return x->found == y->found;
    }
    return name_equal(x->record, y->record) && x->flags == y->flags && x->cas == y->cas &&
           x->expiry_sec == y->expiry_sec && x->value_len == y->value_len &&
           memcmp(x->value ? x->value : (const uint8_t *) "",
                  y->value ? y->value : (const uint8_t *) "", x->value_len) == 0;
}

/* Asks every replica once. False: they differ, or one did not answer. */
static bool verify_once(struct ctl *ctl, struct location *l)
{
    bool agree = true;

    for (unsigned i = 0; i < l->row.n_members; i++) {
        struct replica *rep = &l->replicas[i];
        rep->status = client_peek(ctl->client, rep->server, l->key, strlen(l->key), &rep->peek,
                                  &rep->value, &rep->error);
        if (rep->status == 0 && rep->peek.trouble != 0) {
            rep->status = io_error_set(&rep->error, -EIO, "%s",
                                       rep->peek.trouble == RESULT_BUSY
                                           ? "too many reads wait for its disk; try again"
                                           : "the record is damaged on its disk: see its journal");
        }
        agree = agree && rep->status == 0 && peek_equal(&l->replicas[0], rep);
    }
    return agree;
}

static bool all_answered(const struct location *l)
{
    for (unsigned i = 0; i < l->row.n_members; i++) {
        if (l->replicas[i].status < 0) {
            return false;
        }
    }
    return true;
}

static void verify(struct ctl *ctl, struct location *l)
{
    l->agree = verify_once(ctl, l);
    for (int i = 1; i < VERIFY_TRIES && !l->agree && all_answered(l); i++) {
        if (client_sleep(ctl->client, VERIFY_PAUSE_USEC) < 0) {
            return;
        }
        l->agree = verify_once(ctl, l);
    }
}

/* ---- output ---- */

static void print_peek(const struct replica *rep)
{
    const struct msg_peek *p = &rep->peek;

    if (rep->status < 0) {
        printf("           %s\n", rep->error.text);
    } else if (!p->found) {
        printf("           no record; view %u, commit %llu\n", p->view,
               (unsigned long long) p->commit.seq);
    } else {
        printf(
            "           record %u.%llu, flags %u, cas %llu, expiry %u, %zu bytes, hash %016llx\n",
            p->record.view, (unsigned long long) p->record.seq, p->flags,
            (unsigned long long) p->cas, p->expiry_sec, p->value_len,
            (unsigned long long) hashspace_hash(p->value, p->value_len));
    }
}

static void location_print(const struct location *l, bool verified)
{
    printf("key        ");
    verb_print_escaped(stdout, (const uint8_t *) l->key, strlen(l->key));
    printf("\npartition  %u of %u\nview       %u\n", l->partition, l->n_partitions, l->row.view);
    for (unsigned i = 0; i < l->row.n_members; i++) {
        const struct replica *rep = &l->replicas[i];
        printf("%-10s %s %s, shard %u\n", i == 0 ? "primary" : "replica", rep->server->name,
               rep->server->address, l->partition % rep->server->shards);
        if (verified && !l->agree) {
            print_peek(rep);
        }
    }
    if (verified && l->agree) {
        printf("verify     %s%u replica%s agree%s: %s\n", l->row.n_members > 1 ? "all " : "",
               l->row.n_members, l->row.n_members == 1 ? "" : "s", l->row.n_members == 1 ? "s" : "",
               l->replicas[0].peek.found ? "the record is the same" : "there is no such record");
    } else if (verified) {
        printf("verify     %s\n",
               all_answered(l) ? "the replicas differ" : "not every replica answered");
    }
}

static void replica_json(struct json *j, const struct replica *rep, bool primary, bool verified)
{
    const struct msg_peek *p = &rep->peek;

    json_open(j, NULL, '{');
    json_str(j, "name", rep->server->name);
    json_str(j, "address", rep->server->address);
    json_bool(j, "primary", primary);
    if (verified && rep->status < 0) {
        json_str(j, "error", rep->error.text);
    } else if (verified) {
        json_bool(j, "found", p->found);
        json_uint(j, "commit", p->commit.seq);
        if (p->found) {
            json_uint(j, "view", p->record.view);
            json_uint(j, "seq", p->record.seq);
            json_uint(j, "flags", p->flags);
            json_uint(j, "cas", p->cas);
            json_uint(j, "expiry", p->expiry_sec);
            json_uint(j, "bytes", p->value_len);
        }
    }
    json_close(j, '}');
}

static void location_json(const struct location *l, bool verified)
{
    struct json j;

    json_begin(&j, stdout);
    json_str(&j, "key", l->key);
    json_uint(&j, "partition", l->partition);
    json_uint(&j, "partitions", l->n_partitions);
    json_uint(&j, "view", l->row.view);
    if (verified) {
        json_bool(&j, "agree", l->agree);
    }
    json_open(&j, "replicas", '[');
    for (unsigned i = 0; i < l->row.n_members; i++) {
        replica_json(&j, &l->replicas[i], i == 0, verified);
    }
    json_close(&j, ']');
    json_end(&j);
}

int verb_locate(struct ctl *ctl, int argc, char **argv)
{
    const char *json = NULL;
    const char *verified = NULL;
    const struct verb_option options[] = { { "--json", NULL, &json },
                                           { "--verify", NULL, &verified },
                                           { 0 } };
    struct location l = { 0 };
    struct io_error error = { "" };
    struct verb_words w;

    if (!verb_args(ctl, verb_find("locate"), argc, argv, options, 1, 1, &w) ||
        !verb_key(ctl, w.v[0])) {
        return VERB_USAGE;
    }
    if (location_find(ctl, w.v[0], &l, &error) < 0) {
        return verb_error(ctl, "%s", error.text);
    }
    if (verified) {
        verify(ctl, &l);
    }
    if (json) {
        location_json(&l, verified != NULL);
    } else {
        location_print(&l, verified != NULL);
    }
    location_free(&l);
    return !verified || l.agree ? VERB_OK : VERB_FAILED;
}

/* ---- partitions ---- */

static void partition_put(const struct hashspace *h, const struct view_row *row, struct json *j)
{
    if (j) {
        json_open(j, NULL, '{');
        json_uint(j, "partition", row->partition);
        json_uint(j, "view", row->view);
        json_open(j, "servers", '[');
    } else {
        printf("%9u %6u ", row->partition, row->view);
    }
    for (unsigned i = 0; i < row->n_members; i++) {
        const struct hashspace_server *s = hashspace_server(h, row->members[i]);
        const char *name = s ? s->name : "?";
        if (j) {
            json_str(j, NULL, name);
        } else {
            printf(" %s", name);
        }
    }
    if (j) {
        json_close(j, ']');
        json_close(j, '}');
    } else {
        printf("%s\n", row->view == 0 ? " -" : "");
    }
}

static bool partition_is_wanted(const struct verb_words *w, uint32_t partition)
{
    for (int i = 0; i < w->n; i++) {
        uint64_t v;
        if (conf_parse_uint(w->v[i], &v) == 0 && v == partition) {
            return true;
        }
    }
    return w->n == 0;
}

/* Says which word is no partition of this cluster. */
static bool partitions_exist(const struct hashspace *h, const struct verb_words *w)
{
    for (int i = 0; i < w->n; i++) {
        uint64_t v;
        if (conf_parse_uint(w->v[i], &v) < 0 || v >= h->n_partitions) {
            fprintf(stderr, "kumoctl: there is no partition %s: they are 0 to %u\n", w->v[i],
                    h->n_partitions - 1);
            return false;
        }
    }
    return true;
}

static void partitions_put(const struct hashspace *h, const struct verb_words *w, struct json *j)
{
    for (uint32_t p = 0; p < h->n_partitions; p++) {
        if (partition_is_wanted(w, p)) {
            partition_put(h, &h->rows[p], j);
        }
    }
}

int verb_partitions(struct ctl *ctl, int argc, char **argv)
{
    const char *json = NULL;
    const struct verb_option options[] = { { "--json", NULL, &json }, { 0 } };
    const struct hashspace *h;
    struct io_error error = { "" };
    struct verb_words w;
    struct json j;

    if (!verb_args(ctl, verb_find("partitions"), argc, argv, options, 0, VERB_WORDS_MAX, &w)) {
        return VERB_USAGE;
    }
    for (int i = 0; i < w.n; i++) {
        uint64_t v;
        if (!verb_number(ctl, "partition", w.v[i], PARTITIONS_MAX - 1, &v)) {
            return VERB_USAGE;
        }
    }
    if (client_table(ctl->client, &h, &error) < 0) {
        return verb_error(ctl, "%s", error.text);
    }
    if (!partitions_exist(h, &w)) {
        return VERB_USAGE;
    }
    if (json) {
        json_begin(&j, stdout);
        json_open(&j, "partitions", '[');
        partitions_put(h, &w, &j);
        json_close(&j, ']');
        json_end(&j);
    } else {
        printf("%9s %6s  SERVERS, PRIMARY FIRST\n", "PARTITION", "VIEW");
        partitions_put(h, &w, NULL);
    }
    return VERB_OK;
}
