/* Clients that work and note what they were told, for the judge.
 *
 *   load PREFIX SEED CLIENTS PAUSE_USEC PORT...
 *
 * Begins at once. Commands, one a line, each answered by a line:
 *   count        "OK UNKNOWN REFUSED" so far
 *   stop         the clients end
 *   read PORT    every key that was ever used is read through that gateway, and noted
 *   write FILE   the history; answers in JSON what happened
 * It ends with its standard input. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/rng.h"
#include "mc.h"
#include "notes.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SEC            UINT64_C(1000000000) /* in nanoseconds */
#define MSEC           UINT64_C(1000000)
#define TIMEOUT_NSEC   (8 * SEC)    /* more than a gateway tries */
#define SLOT_NSEC      (2 * SEC)    /* then come other keys: a key's history stays short */
#define PAUSE_NSEC     (500 * MSEC) /* without an answer that is told as a pause */
#define READ_NSEC      (60 * SEC)
#define PORTS_MAX      4
#define ERRORS_MAX     32 /* different words of servers */
#define READ_KEYS      100
#define READERS        4 /* clients more, who only read, and don't wait long for an answer */
#define HURRY_NSEC     (300 * MSEC)
#define KEYS_OF_A_KIND 4 /* at a time: many clients on one key are too much to check */

struct gap {
    uint64_t from_nsec, to_nsec;
};

struct client {
    struct load *load;
    pthread_t thread;
    uint32_t id;
    bool reader;
    struct rng rng;
    struct mc mc;
    struct notes notes;
    unsigned port; /* index */
    uint64_t uniques;
    uint64_t elements;
    uint64_t last_ok_nsec;
    struct gap *gaps;
    size_t n_gaps, gaps_cap;
    uint64_t token; /* what a gets of a KEY_CAS told */
    char token_key[MC_KEY_BYTES];
};

struct error_words {
    char text[160];
    size_t n;
};

struct load {
    const char *prefix;
    uint64_t pause_usec;
    uint16_t ports[PORTS_MAX];
    unsigned n_ports;
    uint64_t start_nsec;
    atomic_bool stop;
    atomic_size_t ok, unknown, refused, wrong;
    struct client *clients;
    size_t n_clients;
    struct notes reads;
    pthread_mutex_t lock; /* of the errors */
    struct error_words errors[ERRORS_MAX];
    size_t n_errors;
};

static void count_error(struct load *l, const char *text)
{
    size_t i = 0;

    pthread_mutex_lock(&l->lock);
    while (i < l->n_errors && strcmp(l->errors[i].text, text) != 0) {
        i++;
    }
    if (i < ERRORS_MAX) {
        l->n_errors = MAX_OF(l->n_errors, i + 1);
        snprintf(l->errors[i].text, sizeof(l->errors[i].text), "%s", text);
        l->errors[i].n++;
    }
    pthread_mutex_unlock(&l->lock);
}

/* ---- what to do next ---- */

static void choose_key(struct client *c, char kind, bool read, char key[static MC_KEY_BYTES])
{
    uint64_t slot = (mc_now_nsec() - c->load->start_nsec) / SLOT_NSEC;

    if (read && rng_chance(&c->rng, 1, 5)) {
        slot = rng_below(&c->rng, slot + 1);
    }
    /* Neighbours, who use different gateways, share a key. */
    snprintf(key, MC_KEY_BYTES, "%c%s.%" PRIu64 ".%" PRIu32, kind, c->load->prefix, slot,
             c->id / 2 % KEYS_OF_A_KIND);
}

static void choose_register(struct client *c, struct lin_op *o)
{
    static const uint8_t writes[] = { OP_SET,     OP_SET,    OP_SET,  OP_ADD,
                                      OP_REPLACE, OP_DELETE, OP_TOUCH };

    o->code = rng_chance(&c->rng, 1, 2) ? OP_GET : writes[rng_below(&c->rng, ARRAY_LEN(writes))];
}

/* The token of a gets is used by the next operation, if the key has not changed meanwhile. */
static void choose_cas(struct client *c, const char *key, struct lin_op *o)
{
    if (c->token != 0 && strcmp(c->token_key, key) == 0) {
        o->code = OP_CAS;
        o->operand = c->token;
        c->token = 0;
    } else {
        o->code = rng_chance(&c->rng, 1, 8) ? OP_ADD : OP_GET;
    }
}

/* Whoever waits for half of the cluster does not see what the other half says meanwhile: a reader
 * asks on. */
static void choose_read(struct client *c, struct lin_op *o, char key[static MC_KEY_BYTES])
{
    static const char kinds[] = { KEY_REGISTER, KEY_REGISTER, KEY_CAS, KEY_COUNTER };
    uint64_t slot = (mc_now_nsec() - c->load->start_nsec) / SLOT_NSEC;

    o->code = OP_GET;
    snprintf(key, MC_KEY_BYTES, "%c%s.%" PRIu64 ".%" PRIu64,
             kinds[rng_below(&c->rng, ARRAY_LEN(kinds))], c->load->prefix, slot,
             rng_below(&c->rng, KEYS_OF_A_KIND));
}

/* Sets the key, the code and its operand. */
static void choose_op(struct client *c, struct lin_op *o, char key[static MC_KEY_BYTES])
{
    uint64_t dice = rng_below(&c->rng, 100);

    if (c->reader) {
        choose_read(c, o, key);
    } else if (dice < 20) {
        o->code = OP_SET;
        snprintf(key, MC_KEY_BYTES, "%c%s.%" PRIu32 ".%" PRIu64, KEY_UNIQUE, c->load->prefix, c->id,
                 c->uniques++);
    } else if (dice < 55) {
        choose_register(c, o);
        choose_key(c, KEY_REGISTER, o->code == OP_GET, key);
    } else if (dice < 75) {
        choose_key(c, KEY_CAS, false, key);
        choose_cas(c, key, o);
    } else if (dice < 90) {
        o->code = rng_chance(&c->rng, 2, 3) ? OP_INCR : OP_GET;
        o->operand = 1;
        choose_key(c, KEY_COUNTER, o->code == OP_GET, key);
    } else {
        o->code = rng_chance(&c->rng, 2, 3) ? OP_APPEND : OP_GET;
        choose_key(c, KEY_SET, o->code == OP_GET, key);
    }
}

/* A value that nobody else writes; of KEY_SET an element. */
static void make_value(struct client *c, struct lin_op *o, char kind, char text[static 32])
{
    int n = 0;

    if (lin_is_read(o->code) || o->code == OP_DELETE || o->code == OP_INCR || o->code == OP_TOUCH) {
        return;
    }
    if (kind == KEY_COUNTER) {
        n = snprintf(text, 32, "0");
    } else {
        n = snprintf(text, 32, "%02" PRIx32 ".%06" PRIx64, c->id & 0xff, c->elements++ & 0xffffff);
        o->flags = kind == KEY_SET ? 0 : (uint32_t) rng_below(&c->rng, 4);
    }
    o->value = (const uint8_t *) text;
    o->value_len = (uint32_t) n;
}

/* ---- doing it ---- */

static void client_answered(struct client *c, uint64_t now)
{
    if (now - c->last_ok_nsec > PAUSE_NSEC) {
        mem_grow(&c->gaps, &c->gaps_cap, c->n_gaps + 1, sizeof(*c->gaps));
        c->gaps[c->n_gaps++] = (struct gap){ c->last_ok_nsec, now };
    }
    c->last_ok_nsec = now;
}

static void client_count(struct client *c, const struct lin_op *o, int r, const char *error)
{
    struct load *l = c->load;

    if (c->reader && (r < 0 || o->result == RESULT_REFUSED)) {
        l->wrong += r == -EBADMSG;
        return;
    }
    if (o->result == RESULT_REFUSED) {
        l->refused++;
    } else if (o->result == LIN_UNKNOWN) {
        l->unknown++;
    } else {
        l->ok++;
        client_answered(c, o->ret);
    }
    l->wrong += r == -EBADMSG;
    if (error[0] != '\0') {
        count_error(l, error);
    } else if (r < 0) {
        count_error(l, strerrordesc_np(-r));
    }
}

/* Returns the result. */
static uint8_t client_do(struct client *c, const char *key, struct lin_op *o)
{
    _cleanup_(buf_free) struct buf value = { 0 };
    char error[160];
    int r;

    o->client = c->id;
    o->call = mc_now_nsec();
    r = mc_do(&c->mc, key, o, c->reader ? HURRY_NSEC : TIMEOUT_NSEC, &value, error);
    o->ret = o->result == LIN_UNKNOWN ? LIN_NEVER : mc_now_nsec();
    client_count(c, o, r, error);
    if (!c->reader || o->ret != LIN_NEVER) {
        notes_add(&c->notes, key, o);
    }
    return o->result;
}

/* What the first one of a slot finds: there is no counter, or no set, yet. */
static void client_begin_key(struct client *c, const char *key, uint8_t code)
{
    struct lin_op o = { .code = OP_ADD };
    char text[32];

    if (code == OP_INCR || code == OP_APPEND) {
        make_value(c, &o, key[0], text);
        client_do(c, key, &o);
    }
}

static void client_step(struct client *c)
{
    struct lin_op o = { 0 };
    char key[MC_KEY_BYTES];
    char text[32];
    uint8_t result;

    choose_op(c, &o, key);
    make_value(c, &o, key[0], text);
    result = client_do(c, key, &o);
    if (result == RESULT_NOT_FOUND || result == RESULT_NOT_STORED) {
        client_begin_key(c, key, o.code);
    }
    if (key[0] == KEY_CAS && result == RESULT_VALUE) {
        c->token = o.token;
        memcpy(c->token_key, key, sizeof(key));
    }
}

static void pause_usec(uint64_t usec)
{
    struct timespec ts = { .tv_sec = (time_t) (usec / 1000000),
                           .tv_nsec = (long) (usec % 1000000) * 1000 };

    nanosleep(&ts, NULL);
}

/* To another gateway than before; readers stay with theirs. */
static int client_connect(struct client *c)
{
    uint16_t port = c->load->ports[c->port % c->load->n_ports];

    c->port += !c->reader;
    return mc_connect(&c->mc, port, SEC);
}

static void *client_run(void *ctx)
{
    struct client *c = ctx;

    c->last_ok_nsec = mc_now_nsec();
    while (!c->load->stop) {
        if (c->mc.fd >= 0) {
            client_step(c);
            pause_usec(rng_below(&c->rng, 2 * c->load->pause_usec + 1));
        } else if (client_connect(c) < 0) {
            pause_usec(50000);
        }
    }
    if (mc_now_nsec() - c->last_ok_nsec > PAUSE_NSEC) {
        client_answered(c, mc_now_nsec());
    }
    mc_close(&c->mc);
    return NULL;
}

static void load_start(struct load *l, uint64_t seed)
{
    l->clients = mem_zalloc(l->n_clients, sizeof(*l->clients));
    l->start_nsec = mc_now_nsec();
    for (size_t i = 0; i < l->n_clients; i++) {
        struct client *c = &l->clients[i];
        c->load = l;
        c->id = (uint32_t) i + 1;
        c->rng.state = seed * 1000 + i;
        c->mc.fd = -1;
        c->port = (unsigned) i;
        c->reader = i + READERS >= l->n_clients;
        if (pthread_create(&c->thread, NULL, client_run, c) != 0) {
            abort();
        }
    }
}

static void load_stop(struct load *l)
{
    if (!atomic_exchange(&l->stop, true)) {
        for (size_t i = 0; i < l->n_clients; i++) {
            pthread_join(l->clients[i].thread, NULL);
        }
    }
}

/* ---- reading everything at the end ---- */

struct reading {
    struct notes *notes;
    bool found[READ_KEYS];
    struct lin_op ops[READ_KEYS];
    struct buf values[READ_KEYS];
};

static void on_value(void *ctx, size_t i, const struct lin_op *o)
{
    struct reading *r = ctx;

    r->ops[i] = *o;
    r->found[i] = true;
    buf_append(&r->values[i], o->value, o->value_len);
}

/* One batch; notes it only when it was answered whole. */
static int read_batch(struct load *l, struct mc *m, char (*keys)[MC_KEY_BYTES], size_t n)
{
    struct reading r = { 0 };
    uint64_t call = mc_now_nsec();
    int err = mc_get_many(m, keys, n, TIMEOUT_NSEC, on_value, &r);
    uint64_t ret = mc_now_nsec();

    for (size_t i = 0; i < n; i++) {
        struct lin_op *o = &r.ops[i];
        if (!r.found[i]) {
            *o = (struct lin_op){ .code = OP_GET, .result = RESULT_NOT_FOUND };
        }
        o->call = call;
        o->ret = ret;
        o->value = r.values[i].data;
        if (err == 0) {
            notes_add(&l->reads, keys[i], o);
        }
        buf_free(&r.values[i]);
    }
    return err;
}

static int key_compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Every key once; the caller frees. */
static size_t all_keys(const struct load *l, char (**ret_keys)[MC_KEY_BYTES])
{
    size_t n = 0, kept = 0;
    char(*keys)[MC_KEY_BYTES];

    for (size_t i = 0; i < l->n_clients; i++) {
        n += l->clients[i].notes.n;
    }
    keys = mem_zalloc(n + 1, MC_KEY_BYTES);
    n = 0;
    for (size_t i = 0; i < l->n_clients; i++) {
        const struct notes *notes = &l->clients[i].notes;
        for (size_t k = 0; k < notes->n; k++) {
            memcpy(keys[n++], notes->v[k].key, MC_KEY_BYTES);
        }
    }
    qsort(keys, n, MC_KEY_BYTES, key_compare);
    for (size_t i = 0; i < n; i++) {
        if (kept == 0 || strcmp(keys[kept - 1], keys[i]) != 0) {
            memmove(keys[kept++], keys[i], MC_KEY_BYTES);
        }
    }
    *ret_keys = keys;
    return kept;
}

/* Returns how many keys, or -errno when a batch was not answered in all the time. */
static int64_t load_read(struct load *l, uint16_t port)
{
    uint64_t end = mc_now_nsec() + READ_NSEC;
    struct mc m = { .fd = -1 };
    char(*keys)[MC_KEY_BYTES];
    size_t n = all_keys(l, &keys);
    size_t at = 0;
    int err = 0;

    while (at < n && mc_now_nsec() < end) {
        size_t batch = MIN_OF(n - at, (size_t) READ_KEYS);
        err = m.fd >= 0 ? 0 : mc_connect(&m, port, SEC);
        err = err < 0 ? err : read_batch(l, &m, keys + at, batch);
        if (err < 0) {
            pause_usec(100000);
        } else {
            at += batch;
        }
    }
    mc_close(&m);
    free(keys);
    return at < n ? (err < 0 ? err : -ETIMEDOUT) : (int64_t) n;
}

/* ---- telling ---- */

static int load_write(struct load *l, const char *path)
{
    FILE *f = fopen(path, "we");
    int r = f ? 0 : -errno;

    for (size_t i = 0; r == 0 && i < l->n_clients; i++) {
        r = notes_write(&l->clients[i].notes, f);
    }
    if (r == 0) {
        r = notes_write(&l->reads, f);
    }
    if (f && fclose(f) != 0 && r == 0) {
        r = -EIO;
    }
    return r;
}

static void print_gaps(const struct load *l)
{
    const char *comma = "";

    printf("\"pauses\": [");
    for (size_t i = 0; i < l->n_clients; i++) {
        for (size_t k = 0; k < l->clients[i].n_gaps; k++) {
            const struct gap *g = &l->clients[i].gaps[k];
            printf("%s[%.3f, %.3f]", comma, (double) g->from_nsec / 1e9, (double) g->to_nsec / 1e9);
            comma = ", ";
        }
    }
    printf("]");
}

/* Quotes and backslashes in words of servers would end the JSON. */
static void print_text(const char *text)
{
    putchar('"');
    for (const char *p = text; *p != '\0'; p++) {
        putchar(*p == '"' || *p == '\\' || *p < ' ' ? '\'' : *p);
    }
    putchar('"');
}

static void print_summary(const struct load *l)
{
    printf("{\"ok\": %zu, \"unknown\": %zu, \"refused\": %zu, \"wrong\": %zu, ", l->ok, l->unknown,
           l->refused, l->wrong);
    print_gaps(l);
    printf(", \"errors\": {");
    for (size_t i = 0; i < l->n_errors; i++) {
        printf(i > 0 ? ", " : "");
        print_text(l->errors[i].text);
        printf(": %zu", l->errors[i].n);
    }
    printf("}}\n");
}

static void do_line(struct load *l, char *line)
{
    int64_t r;

    line[strcspn(line, "\n")] = '\0';
    if (strcmp(line, "count") == 0) {
        printf("%zu %zu %zu\n", l->ok, l->unknown, l->refused);
    } else if (strcmp(line, "stop") == 0) {
        load_stop(l);
        printf("ok\n");
    } else if (strncmp(line, "read ", 5) == 0) {
        r = load_read(l, (uint16_t) atoi(line + 5));
        if (r < 0) {
            printf("error %s\n", strerrordesc_np((int) -r));
        } else {
            printf("ok %" PRId64 "\n", r);
        }
    } else if (strncmp(line, "write ", 6) == 0) {
        r = load_write(l, line + 6);
        if (r < 0) {
            printf("error %s\n", strerrordesc_np((int) -r));
        } else {
            print_summary(l);
        }
    } else {
        printf("error: no such command\n");
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static struct load l = { .lock = PTHREAD_MUTEX_INITIALIZER };
    char line[4096];

    if (argc < 6 || argc > 5 + PORTS_MAX) {
        fprintf(stderr, "load PREFIX SEED CLIENTS PAUSE_USEC PORT...\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    l.prefix = argv[1];
    l.n_clients = (size_t) atoi(argv[3]) + READERS;
    l.pause_usec = strtoull(argv[4], NULL, 10);
    for (int i = 5; i < argc; i++) {
        l.ports[l.n_ports++] = (uint16_t) atoi(argv[i]);
    }
    load_start(&l, strtoull(argv[2], NULL, 10));
    while (fgets(line, sizeof(line), stdin)) {
        do_line(&l, line);
    }
    load_stop(&l);
    return EXIT_SUCCESS;
}
