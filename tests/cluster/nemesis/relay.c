/* The relay's commands, one a line, each answered by a line "ok ..." or "error ...":
 *
 *   node NAME IP                     connections from this address are the node's
 *   door NAME IP:PORT IP:PORT        who wants the node comes here; there it listens
 *   link FROM TO pass|hold|drop [DELAY_USEC]   "*" stands for all nodes
 *   reset A B                        all connections between the two end by RST
 *   bytes FROM TO                    how many were passed on; "*" sums
 *
 * It ends with its standard input. */
#include "relay.h"

#include "base/cleanup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define EVENTS     64
#define LINE_BYTES 256
#define WORDS_MAX  6
#define BACKLOG    256

static void answer(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void answer(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

bool relay_watch(struct relay *r, struct watch *w)
{
    struct epoll_event e = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = w };

    return epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, w->fd, &e) == 0;
}

static void pump_all(struct relay *r)
{
    LIST_FOR_EACH_SAFE(node, &r->sessions)
    {
        session_pump(r, LIST_ENTRY(node, struct session, node));
    }
}

/* ---- commands ---- */

static bool parse_place(char *text, struct sockaddr_in *ret)
{
    char *colon = strchr(text, ':');

    *ret = (struct sockaddr_in){ .sin_family = AF_INET };
    if (!colon) {
        return false;
    }
    *colon = '\0';
    ret->sin_port = htons((uint16_t) atoi(colon + 1));
    return inet_pton(AF_INET, text, &ret->sin_addr) == 1;
}

/* The nodes that a word means: [*ret_from, *ret_to). */
static bool find_nodes(const struct relay *r, const char *word, size_t *ret_from, size_t *ret_to)
{
    *ret_from = 0;
    *ret_to = r->n_nodes;
    if (strcmp(word, "*") == 0) {
        return true;
    }
    for (size_t i = 0; i < r->n_nodes; i++) {
        if (strcmp(r->names[i], word) == 0) {
            *ret_from = i;
            *ret_to = i + 1;
            return true;
        }
    }
    return false;
}

static const char *do_node(struct relay *r, char **words)
{
    if (r->n_nodes == NODES_MAX || strlen(words[1]) >= NODE_NAME_BYTES) {
        return "too many nodes, or a name too long";
    }
    if (inet_pton(AF_INET, words[2], &r->sources[r->n_nodes]) != 1) {
        return "this is no address";
    }
    memcpy(r->names[r->n_nodes], words[1], strlen(words[1]) + 1);
    r->n_nodes++;
    return NULL;
}

static const char *do_door(struct relay *r, char **words)
{
    static const int on = 1;
    struct door *d = &r->doors[r->n_doors];
    struct sockaddr_in place;
    size_t end;

    if (r->n_doors == NODES_MAX || !find_nodes(r, words[1], &d->node, &end) ||
        !parse_place(words[2], &place) || !parse_place(words[3], &d->real)) {
        return "too many doors, no such node, or no address";
    }
    d->watch.door = d;
    d->watch.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    (void) setsockopt(d->watch.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(d->watch.fd, (struct sockaddr *) &place, sizeof(place)) < 0 ||
        listen(d->watch.fd, BACKLOG) < 0 || !relay_watch(r, &d->watch)) {
        close(d->watch.fd);
        return strerrordesc_np(errno);
    }
    r->n_doors++;
    return NULL;
}

static const char *do_link(struct relay *r, char **words)
{
    static const char *const states[] = { "pass", "hold", "drop" };
    size_t from, from_end, to, to_end;
    struct link link = { .state = (enum link_state) ARRAY_LEN(states) };

    for (size_t i = 0; i < ARRAY_LEN(states); i++) {
        if (strcmp(words[3], states[i]) == 0) {
            link.state = (enum link_state) i;
        }
    }
    if (link.state == ARRAY_LEN(states) || !find_nodes(r, words[1], &from, &from_end) ||
        !find_nodes(r, words[2], &to, &to_end)) {
        return "no such node, or none of pass, hold, drop";
    }
    link.delay_usec = words[4] ? strtoull(words[4], NULL, 10) : 0;
    for (size_t i = from; i < from_end; i++) {
        for (size_t k = to; k < to_end; k++) {
            r->links[i][k].state = link.state;
            r->links[i][k].delay_usec = link.delay_usec;
        }
    }
    pump_all(r);
    return NULL;
}

static bool is_between(const struct relay *r, const struct session *s, size_t a, size_t b)
{
    return s->pipe[0].link == &r->links[a][b] || s->pipe[0].link == &r->links[b][a];
}

static const char *do_reset(struct relay *r, char **words)
{
    size_t a, b, end;

    if (!find_nodes(r, words[1], &a, &end) || !find_nodes(r, words[2], &b, &end)) {
        return "no such node";
    }
    LIST_FOR_EACH_SAFE(node, &r->sessions)
    {
        struct session *s = LIST_ENTRY(node, struct session, node);
        if (is_between(r, s, a, b)) {
            session_reset(r, s);
        }
    }
    return NULL;
}

static const char *do_bytes(struct relay *r, char **words, uint64_t *ret_bytes)
{
    size_t from, from_end, to, to_end;

    *ret_bytes = 0;
    if (!find_nodes(r, words[1], &from, &from_end) || !find_nodes(r, words[2], &to, &to_end)) {
        return "no such node";
    }
    for (size_t i = from; i < from_end; i++) {
        for (size_t k = to; k < to_end; k++) {
            *ret_bytes += r->links[i][k].bytes;
        }
    }
    return NULL;
}

static void do_line(struct relay *r, char *line)
{
    char *words[WORDS_MAX + 1] = { NULL };
    const char *why = "no such command, or words are missing";
    uint64_t number = 0;
    size_t n = 0;
    char *at;

    for (char *word = strtok_r(line, " ", &at); word && n < WORDS_MAX;
         word = strtok_r(NULL, " ", &at)) {
        words[n++] = word;
    }
    if (n == 3 && strcmp(words[0], "node") == 0) {
        why = do_node(r, words);
    } else if (n == 4 && strcmp(words[0], "door") == 0) {
        why = do_door(r, words);
    } else if (n >= 4 && strcmp(words[0], "link") == 0) {
        why = do_link(r, words);
    } else if (n == 3 && strcmp(words[0], "reset") == 0) {
        why = do_reset(r, words);
    } else if (n == 3 && strcmp(words[0], "bytes") == 0) {
        why = do_bytes(r, words, &number);
    }
    if (why) {
        answer("error %s", why);
    } else {
        answer("ok %" PRIu64, number);
    }
}

/* False: no more commands will come. */
static bool read_commands(struct relay *r, struct buf *in)
{
    ssize_t n = read(STDIN_FILENO, buf_reserve(in, LINE_BYTES), LINE_BYTES);
    uint8_t *end;

    if (n <= 0) {
        return n < 0 && errno == EINTR;
    }
    in->end += (size_t) n;
    while (buf_len(in) > 0 && (end = memchr(buf_head(in), '\n', buf_len(in))) != NULL) {
        size_t bytes = (size_t) (end - buf_head(in)) + 1;
        *end = '\0';
        do_line(r, (char *) buf_head(in));
        buf_consume(in, bytes);
    }
    return true;
}

/* ---- the loop ---- */

/* When the next delayed byte is due: 0 = none waits. */
static uint64_t next_due_usec(const struct relay *r)
{
    uint64_t due = 0;

    LIST_FOR_EACH(node, &r->sessions)
    {
        uint64_t d = session_due_usec(LIST_ENTRY(node, struct session, node));
        due = due == 0 || (d != 0 && d < due) ? d : due;
    }
    return due;
}

static int wait_msec(uint64_t due_usec)
{
    uint64_t now = relay_now_usec();

    if (due_usec == 0) {
        return -1;
    }
    return due_usec > now ? (int) ((due_usec - now) / 1000) + 1 : 0;
}

static void free_ended(struct relay *r)
{
    LIST_FOR_EACH_SAFE(node, &r->ended)
    {
        list_remove(node);
        session_free(LIST_ENTRY(node, struct session, node));
    }
}

static bool turn(struct relay *r, struct buf *in)
{
    struct epoll_event events[EVENTS];
    uint64_t due_usec = next_due_usec(r);
    int n = epoll_wait(r->epoll_fd, events, EVENTS, wait_msec(due_usec));
    bool more = n >= 0 || errno == EINTR;

    for (int i = 0; i < n; i++) {
        struct watch *w = events[i].data.ptr;
        if (w->door) {
            session_accept(r, w->door);
        } else if (!w->session) {
            more = read_commands(r, in);
        } else if (w->session->side[0].fd >= 0) {
            session_pump(r, w->session);
        }
    }
    if (due_usec != 0 && relay_now_usec() >= due_usec) {
        pump_all(r);
    }
    free_ended(r);
    return more;
}

int main(void)
{
    static struct relay r = { .names = { "other" }, .n_nodes = 1 };
    struct watch commands = { .fd = STDIN_FILENO };
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = &commands };
    struct buf in = { 0 };

    list_init(&r.sessions);
    list_init(&r.ended);
    r.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (r.epoll_fd < 0 || epoll_ctl(r.epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &e) < 0) {
        perror("relay");
        return EXIT_FAILURE;
    }
    while (turn(&r, &in)) {
    }
    buf_free(&in);
    return EXIT_SUCCESS;
}
