/* Configuration files. inih takes the lines apart, one at a time: it splits lines over 200 bytes,
 * continues a value on indented lines, cuts it at " ;", takes ':' for '=' and tells no line
 * numbers, so every line is looked at here first, and what it would misread never reaches it. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "io/conf.h"
#include "io/conf_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct conf_line {
    struct conf_source *source;
    struct io_error why; /* of this line */
    int result;
};

static int conf_check_chars(const char *line, size_t bytes, struct io_error *why)
{
    if (bytes > CONF_LINE_MAX) {
        return io_error_set(why, -EINVAL,
                            "the line has %zu bytes; allowed are %d (a list's key may be repeated)",
                            bytes, CONF_LINE_MAX);
    }
    for (size_t i = 0; i < bytes; i++) {
        unsigned char c = (unsigned char) line[i];

        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return io_error_set(why, -EINVAL, "a control character (0x%02x) at byte %zu", c, i + 1);
        }
    }
    return 0;
}

/* A line without the blanks around it and without its comment, which begins at a # that is the
 * first character or follows a blank. Returns whether anything is left. */
static bool conf_strip(char *line)
{
    char *begin = line + strspn(line, " \t");
    size_t n;

    memmove(line, begin, strlen(begin) + 1);
    for (char *p = line; *p; p++) {
        if (*p == '#' && (p == line || p[-1] == ' ' || p[-1] == '\t')) {
            *p = '\0';
            break;
        }
    }
    n = strlen(line);
    while (n > 0 && (line[n - 1] == ' ' || line[n - 1] == '\t')) {
        line[--n] = '\0';
    }
    return n > 0;
}

/* What must be true so that inih reads the line as meant. */
static int conf_check_syntax(const char *line, struct io_error *why)
{
    size_t key = strspn(line, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");
    const char *after = line + key + strspn(line + key, " \t");

    if (line[0] == '[') {
        return io_error_set(why, -EINVAL, "there are no sections; write 'key = value' only");
    }
    if (line[0] == ';') {
        return io_error_set(why, -EINVAL, "comments begin with '#'");
    }
    if (key == 0 || *after != '=') {
        return io_error_set(why, -EINVAL, "'%.64s' is not 'key = value'", line);
    }
    if (strstr(after, " ;") || strstr(after, "\t;")) {
        return io_error_set(why, -EINVAL, "';' begins no comment here; comments begin with '#'");
    }
    return 0;
}

/* From inih: one key and its value. Returns 1 as inih wants it; the outcome is in the line. */
static int conf_take(void *ctx, const char *section, const char *key, const char *value)
{
    struct conf_line *line = ctx;
    struct conf_source *source = line->source;
    const struct conf_option *o = conf_find(source->program, key);
    uint64_t bit;

    (void) section;
    if (!o) {
        conf_unknown_key(source->program, key, &line->why);
        line->result = -EINVAL;
        return 1;
    }
    bit = 1ULL << conf_index(source->program, o);
    if ((source->seen & bit) && o->type != CONF_LIST) {
        line->result = io_error_set(&line->why, -EINVAL, "'%s' was set above already", key);
        return 1;
    }
    line->result = conf_assign(o, source->settings, value, source->seen & bit, &line->why);
    source->seen |= bit;
    return 1;
}

static int conf_read_line(struct conf_source *source, char *text, size_t bytes,
                          struct io_error *why)
{
    struct conf_line line = { .source = source };
    int r = conf_check_chars(text, bytes, why);

    if (r < 0 || !conf_strip(text)) {
        return r;
    }
    r = conf_check_syntax(text, why);
    if (r < 0) {
        return r;
    }
    if (ini_parse_string(text, conf_take, &line) != 0) {
        return io_error_set(why, -EINVAL, "'%.64s' is not 'key = value'", text);
    }
    *why = line.why;
    return line.result;
}

static int conf_error_at(const char *path, size_t number, const struct io_error *why, int r,
                         struct io_error *error)
{
    return io_error_set(error, r, "%s:%zu: %s", path, number, why->text);
}

/* Cuts the text into lines; `text` has a NUL after its last byte. */
static int conf_read_text(const struct conf_program *program, const char *path, char *text,
                          size_t bytes, void *settings, struct io_error *error)
{
    struct conf_source source = { .program = program, .settings = settings };
    struct io_error why = { "" };
    char *end = text + bytes;
    size_t number = 0;

    for (char *next = text; text < end; text = next) {
        char *newline = memchr(text, '\n', (size_t) (end - text));
        size_t n = (size_t) ((newline ? newline : end) - text);
        int r;

        next = newline ? newline + 1 : end;
        text[n] = '\0';
        if (n > 0 && text[n - 1] == '\r') {
            text[--n] = '\0';
        }
        number++;
        r = conf_read_line(&source, text, n, &why);
        if (r < 0) {
            return conf_error_at(path, number, &why, r, error);
        }
    }
    return 0;
}

static void conf_closep(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
}

/* The whole file with a NUL behind it. */
static int conf_load(const char *path, char **ret_text, size_t *ret_bytes, struct io_error *error)
{
    _cleanup_(conf_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    _cleanup_free_ char *text = NULL;
    size_t used = 0;
    struct stat st;
    ssize_t n;

    if (fd < 0 || fstat(fd, &st) < 0) {
        return io_error_set(error, -errno, "%s: %s", path, strerrordesc_np(errno));
    }
    if (S_ISDIR(st.st_mode)) {
        return io_error_set(error, -EISDIR, "%s: this is a directory", path);
    }
    text = mem_alloc(CONF_FILE_MAX + 1);
    while (used < CONF_FILE_MAX && (n = read(fd, text + used, CONF_FILE_MAX - used)) != 0) {
        if (n < 0) {
            return io_error_set(error, -errno, "%s: %s", path, strerrordesc_np(errno));
        }
        used += (size_t) n;
    }
    if (used == CONF_FILE_MAX) {
        return io_error_set(error, -EFBIG, "%s: longer than %d bytes", path, CONF_FILE_MAX - 1);
    }
    text[used] = '\0';
    *ret_text = TAKE_PTR(text);
    *ret_bytes = used;
    return 0;
}

int conf_read_file(const struct conf_program *program, const char *path, void *settings,
                   struct io_error *error)
{
    _cleanup_free_ char *text = NULL;
    size_t bytes;
    int r = conf_load(path, &text, &bytes, error);

    return r < 0 ? r : conf_read_text(program, path, text, bytes, settings, error);
}

/* ---- drop-ins ---- */

static int conf_is_dropin(const struct dirent *e)
{
    size_t n = strlen(e->d_name);

    return e->d_name[0] != '.' && n > 5 && strcmp(e->d_name + n - 5, ".conf") == 0;
}

static int conf_by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int conf_read_dropins(const struct conf_program *program, const char *dir, void *settings,
                             struct io_error *error)
{
    struct dirent **entries = NULL;
    int n = scandir(dir, &entries, conf_is_dropin, conf_by_name);
    int r = 0;

    if (n < 0) {
        return errno == ENOENT || errno == ENOTDIR
                   ? 0
                   : io_error_set(error, -errno, "%s: %s", dir, strerrordesc_np(errno));
    }
    for (int i = 0; i < n; i++) {
        _cleanup_free_ char *path = NULL;

        if (r == 0 && asprintf(&path, "%s/%s", dir, entries[i]->d_name) >= 0) {
            r = conf_read_file(program, path, settings, error);
        }
        free(entries[i]);
    }
    free(entries);
    return r;
}

int conf_read_files(const struct conf_program *program, const char *path, bool must_exist,
                    void *settings, struct io_error *error)
{
    _cleanup_free_ char *dir = NULL;
    int r = conf_read_file(program, path, settings, error);

    if (r == -ENOENT && !must_exist) {
        r = 0;
    }
    if (r < 0) {
        return r;
    }
    if (asprintf(&dir, "%s.d", path) < 0) {
        return io_error_set(error, -ENOMEM, "%s: out of memory", path);
    }
    return conf_read_dropins(program, dir, settings, error);
}

/* ---- the documented examples ---- */

/* "#key = value" becomes "key = value", prose ("# text", "#") becomes empty. */
static void conf_uncomment(char *line)
{
    if (line[0] != '#') {
        return;
    }
    if (line[1] == ' ' || line[1] == '#' || line[1] == '\0') {
        line[0] = '\0';
    } else {
        memmove(line, line + 1, strlen(line));
    }
}

static int conf_check_example_line(struct conf_source *source, char *text, struct io_error *why)
{
    const struct conf_option *o = NULL;
    char copy[CONF_LINE_MAX + 1];
    char *value;
    int r;

    if (text[0] != '\0' && text[0] != '#') {
        return io_error_set(why, -EINVAL, "an example file sets nothing: begin the line with '#'");
    }
    conf_uncomment(text);
    snprintf(copy, sizeof(copy), "%s", text);
    r = conf_read_line(source, text, strlen(text), why);
    if (r < 0 || !conf_strip(copy)) {
        return r;
    }
    value = strchr(copy, '=') + 1;
    value += strspn(value, " \t");
    copy[strcspn(copy, " \t=")] = '\0';
    o = conf_find(source->program, copy);
    if (o->default_value && strcmp(o->default_value, value) != 0) {
        return io_error_set(why, -EINVAL, "the default of %s is '%s'", o->key, o->default_value);
    }
    return 0;
}

static int conf_check_all_seen(const struct conf_source *source, const char *path,
                               struct io_error *error)
{
    for (const struct conf_option *o = source->program->options; o->key; o++) {
        if (!(source->seen & 1ULL << conf_index(source->program, o))) {
            return io_error_set(error, -ENOENT, "%s: '%s' is not documented", path, o->key);
        }
    }
    return 0;
}

int conf_check_example(const struct conf_program *program, const char *path, struct io_error *error)
{
    _cleanup_free_ char *text = NULL;
    _cleanup_free_ char *settings = NULL;
    struct conf_source source = { .program = program };
    struct io_error why = { "" };
    size_t number = 0;
    size_t bytes;
    char *rest;
    char *line;
    size_t span = 0;
    int r = conf_load(path, &text, &bytes, error);

    for (const struct conf_option *o = program->options; o->key; o++) {
        span = o->offset + sizeof(struct conf_list) > span ? o->offset + sizeof(struct conf_list)
                                                           : span;
    }
    settings = mem_zalloc(1, span);
    source.settings = settings;
    rest = text;
    while (r == 0 && (line = strsep(&rest, "\n"))) {
        number++;
        r = conf_check_example_line(&source, line, &why);
        if (r < 0) {
            conf_error_at(path, number, &why, r, error);
        }
    }
    if (r == 0) {
        r = conf_check_all_seen(&source, path, error);
    }
    conf_free(program, settings);
    return r;
}
