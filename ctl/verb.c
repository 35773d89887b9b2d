#include "verb.h"

#include "base/cleanup.h"
#include "wire/entry.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>
#include <wctype.h>

static int verb_help(struct ctl *ctl, int argc, char **argv);

static int verb_version(struct ctl *ctl, int argc, char **argv)
{
    (void) ctl;
    (void) argc;
    (void) argv;
    printf("kumoctl %s\n", settings_program.version);
    return VERB_OK;
}

static int verb_exit(struct ctl *ctl, int argc, char **argv)
{
    (void) ctl;
    (void) argc;
    (void) argv;
    return VERB_EXIT;
}

static const char *const options_json[] = { "--json", NULL };
static const char *const options_attach[] = { "--replicas", "--json", NULL };
static const char *const options_set[] = { "--expire", "--flags", NULL };
static const char *const options_locate[] = { "--verify", "--json", NULL };
static const char *const options_export[] = { "--format", "--partition", "--json", NULL };
static const char *const options_import[] = { "--dry-run", "--skip", "--json", NULL };
static const char *const options_backup[] = { "--previous", "--json", NULL };

const struct verb verbs[] = {
    { .name = "status",
      .args = "[--json]",
      .help = "how the cluster does, on one screen",
      .details = "The first line says it in a word: ok, new (nothing is attached yet), degraded "
                 "(some\npartitions wait) or down (all do), and why. Exit code 0 for ok and new.",
      .examples = "kumoctl status\nkumoctl status --json\n",
      .run = verb_status,
      .options = options_json },
    { .name = "attach",
      .args = "[--replicas N] [--json] [SERVER...]",
      .help = "place the partitions on servers",
      .details = "Without names: on all servers that are up. N copies of each record are kept, as "
                 "many as\nthe manager's setting \"replicas\" unless given.",
      .examples = "kumoctl attach\nkumoctl attach --replicas 1 db1\n",
      .run = verb_attach,
      .options = options_attach,
      .names_servers = true },
    { .name = "get",
      .args = "KEY",
      .help = "print a record's value",
      .details =
          "Into a file or pipe: the bytes as they are, no newline added. On a terminal: with "
          "escapes.\nExit code 1 when there is no such record.",
      .examples = "kumoctl get user:7\nkumoctl get photo >photo.jpg\n",
      .run = verb_get },
    { .name = "set",
      .args = "KEY VALUE [--expire SECONDS] [--flags N]",
      .help = "store a record",
      .details = "--expire deletes it after so many seconds; --flags is the number that memcached "
                 "clients keep\nwith it.",
      .examples = "kumoctl set user:7 Frodo\nkumoctl set session:x '' --expire 3600\n",
      .run = verb_set,
      .options = options_set },
    { .name = "delete",
      .args = "KEY",
      .help = "delete a record",
      .examples = "kumoctl delete user:7\n",
      .run = verb_delete },
    { .name = "locate",
      .args = "KEY [--verify] [--json]",
      .help = "say which servers hold a key",
      .details = "--verify asks each of them what it holds, and compares; exit code 1 when they "
                 "differ.",
      .examples = "kumoctl locate user:7\nkumoctl locate user:7 --verify\n",
      .run = verb_locate,
      .options = options_locate },
    { .name = "partitions",
      .args = "[--json] [PARTITION...]",
      .help = "list the partitions with their servers",
      .examples = "kumoctl partitions\nkumoctl partitions 17\n",
      .run = verb_partitions,
      .options = options_json },
    { .name = "export",
      .args = "DIR [FILE] [--format jsonl|tch] [--partition N[,N...]] [--json]",
      .help = "write a server's records into a file",
      .details =
          "DIR is the data directory of a server that is stopped, or a backup. The file has a "
          "line of JSON\nfor each record; --format tch makes a hash database of Tokyo Cabinet "
          "instead, with keys and\nvalues only. Without FILE, or with -: to the standard "
          "output.",
      .examples = "kumoctl export /var/lib/kumofs/server records.jsonl\n"
                  "kumoctl export /backup/monday - --partition 17 | gzip >17.jsonl.gz\n"
                  "kumoctl export /backup/monday records.tch --format tch\n",
      .run = verb_export,
      .options = options_export },
    { .name = "import",
      .args = "DIR|HOST:PORT FILE [--dry-run] [--skip N] [--json]",
      .help = "add the records of a file",
      .details =
          "HOST:PORT is a gateway of a running cluster. DIR is the data directory of a "
          "stopped server that\nholds the only copy of its partitions. FILE is what export "
          "wrote, - is the standard input; a\nfile is looked through before anything is "
          "changed. Records that are there already are\nreplaced. --dry-run changes nothing; "
          "--skip passes over the first N records, which an\ninterrupted import brought.",
      .examples = "kumoctl import 127.0.0.1:11211 records.jsonl\n"
                  "kumoctl import /var/lib/kumofs/server records.jsonl --dry-run\n"
                  "zcat 17.jsonl.gz | kumoctl import 127.0.0.1:11211 -\n",
      .run = verb_import,
      .options = options_import },
    { .name = "backup",
      .args = "DIR TARGET [--previous OLD] [--json]",
      .help = "copy a server's data directory, running or not",
      .details =
          "Takes no longer than a start of the server: what doesn't change any more is linked, "
          "not copied,\nwhere DIR and TARGET are on one file system. On another one it is "
          "linked to the backup OLD, or\nto the newest one beside TARGET. Run it as the user "
          "that the server runs as.",
      .examples = "sudo -u kumofs kumoctl backup /var/lib/kumofs/server /backup/monday\n"
                  "kumoctl backup /var/lib/kumofs/server /backup/tuesday --previous "
                  "/backup/monday\n",
      .run = verb_backup,
      .options = options_backup },
    { .name = "restore",
      .args = "BACKUP DIR|HOST:PORT [--json]",
      .help = "bring the records of a backup back",
      .details =
          "HOST:PORT is a gateway of a running cluster of any size. DIR is the data directory "
          "of a stopped\nserver that holds the only copy of its partitions. Records that are "
          "there already are replaced;\nothers stay. It may be run again.",
      .examples = "kumoctl restore /backup/monday 127.0.0.1:11211\n",
      .run = verb_restore,
      .options = options_json },
    { .name = "key",
      .args = "generate|rotate|finish|check [FILE]",
      .help = "make or exchange the cluster key",
      .details =
          "The key protects all connections inside the cluster; every machine has the same file. "
          "FILE is\n/etc/kumofs/cluster.key unless given. generate makes it, and with - prints it; "
          "rotate puts a\nnew key in front of the old one, which stays accepted until finish "
          "removes it; check shows the\nkeys' names, which are no secrets.",
      .examples = "kumoctl key generate\nkumoctl key check\n",
      .run = verb_cluster_key },
    { .name = "help",
      .args = "[VERB]",
      .help = "list the verbs, or explain one",
      .examples = "kumoctl help locate\n",
      .run = verb_help },
    { .name = "version", .args = "", .help = "print the version", .run = verb_version },
    { .name = "exit", .args = "", .help = "leave the shell", .run = verb_exit },
    { 0 },
};

/* ---- the table ---- */

const struct verb *verb_find(const char *name)
{
    for (const struct verb *v = verbs; v->name; v++) {
        if (strcmp(v->name, name) == 0) {
            return v;
        }
    }
    return NULL;
}

void verb_list(FILE *out)
{
    for (const struct verb *v = verbs; v->name; v++) {
        char usage[100];
        int n = snprintf(usage, sizeof(usage), "%s %s", v->name, v->args);
        fprintf(out, n > 48 ? "  %s\n%51s%s\n" : "  %-48s%1s%s\n", usage, "", v->help);
    }
}

static int verb_help(struct ctl *ctl, int argc, char **argv)
{
    const struct verb *v = argc > 0 ? verb_find(argv[0]) : NULL;

    if (argc == 0) {
        verb_list(stdout);
        printf("\nhelp VERB explains one.%s\n",
               ctl->interactive ? " Tab completes, Ctrl-C stops a command, Ctrl-D leaves." : "");
        return VERB_OK;
    }
    if (!v) {
        verb_error(ctl, "there is no verb \"%s\"; \"help\" lists them", argv[0]);
        return VERB_USAGE;
    }
    printf("%s %s\n\n%c%s.\n", v->name, v->args, toupper((unsigned char) v->help[0]), v->help + 1);
    if (v->details) {
        printf("%s\n", v->details);
    }
    if (v->examples) {
        printf("\nExamples:\n");
        for (const char *p = v->examples; *p; p += strcspn(p, "\n") + 1) {
            printf("  %.*s\n", (int) strcspn(p, "\n"), p);
        }
    }
    return VERB_OK;
}

int verb_run(struct ctl *ctl, int argc, char **argv)
{
    const struct verb *v = verb_find(strcmp(argv[0], "?") == 0 ? "help" : argv[0]);
    int code;

    if (!v) {
        verb_error(ctl, "there is no verb \"%s\"; \"%shelp\" lists them", argv[0],
                   ctl->interactive ? "" : "kumoctl ");
        return VERB_USAGE;
    }
    code = v->run(ctl, argc - 1, argv + 1);
    client_hang_up(ctl->client);
    if (fflush(stdout) == EOF && code == VERB_OK) {
        return verb_error(ctl, "can't write the output: %m");
    }
    return code;
}

/* ---- arguments ---- */

static bool usage_error(const struct ctl *ctl, const struct verb *v, const char *what,
                        const char *word)
{
    verb_error(ctl, "%s%s%s. Usage: %s%s %s", what, word ? ": " : "", word ? word : "",
               ctl->interactive ? "" : "kumoctl ", v->name, v->args);
    return false;
}

static const struct verb_option *option_find(const struct verb_option *o, const char *word,
                                             size_t bytes)
{
    for (; o->name; o++) {
        if (strlen(o->name) == bytes && strncmp(o->name, word, bytes) == 0) {
            return o;
        }
    }
    return NULL;
}

/* Takes the option at argv[i]. Returns how many words it is, 0: said what is wrong. */
static int option_take(const struct ctl *ctl, const struct verb *verb, int argc, char **argv, int i,
                       const struct verb_option *options)
{
    const char *equals = strchr(argv[i], '=');
    size_t bytes = equals ? (size_t) (equals - argv[i]) : strlen(argv[i]);
    const struct verb_option *o = option_find(options, argv[i], bytes);

    if (!o) {
        usage_error(ctl, verb, "unknown option", argv[i]);
        return 0;
    }
    if (*o->ret) {
        usage_error(ctl, verb, "this option was given twice", o->name);
        return 0;
    }
    if (!o->metavar) {
        *o->ret = o->name;
        if (equals) {
            usage_error(ctl, verb, "this option takes no value", o->name);
        }
        return equals ? 0 : 1;
    }
    if (!equals && i + 1 >= argc) {
        usage_error(ctl, verb, "the value is missing", o->name);
        return 0;
    }
    *o->ret = equals ? equals + 1 : argv[i + 1];
    return equals ? 1 : 2;
}

bool verb_args(struct ctl *ctl, const struct verb *verb, int argc, char **argv,
               const struct verb_option *options, int words_min, int words_max,
               struct verb_words *ret)
{
    bool words_only = false;

    ret->n = 0;
    for (int i = 0; i < argc;) {
        if (!words_only && strcmp(argv[i], "--") == 0) {
            words_only = true;
            i++;
        } else if (!words_only && strncmp(argv[i], "--", 2) == 0) {
            int n = option_take(ctl, verb, argc, argv, i, options);
            if (n == 0) {
                return false;
            }
            i += n;
        } else if (ret->n >= words_max || ret->n >= VERB_WORDS_MAX) {
            return usage_error(ctl, verb, "too many words", argv[i]);
        } else {
            ret->v[ret->n++] = argv[i++];
        }
    }
    if (ret->n < words_min) {
        return usage_error(ctl, verb, "something is missing", NULL);
    }
    return true;
}

bool verb_number(struct ctl *ctl, const char *option, const char *value, uint64_t max,
                 uint64_t *ret)
{
    uint64_t v;

    if (!value) {
        return true;
    }
    if (conf_parse_uint(value, &v) < 0 || v > max) {
        verb_error(ctl, "%s %s: a number from 0 to %llu is expected", option, value,
                   (unsigned long long) max);
        return false;
    }
    *ret = v;
    return true;
}

bool verb_key(struct ctl *ctl, const char *key)
{
    size_t bytes = strlen(key);
    bool ok = bytes > 0 && bytes <= ENTRY_KEY_BYTES_MAX;

    for (size_t i = 0; ok && i < bytes; i++) {
        ok = (unsigned char) key[i] > ' ' && key[i] != 0x7f;
    }
    if (!ok) {
        verb_error(ctl, "a key has 1 to %d bytes, without spaces and control characters",
                   ENTRY_KEY_BYTES_MAX);
    }
    return ok;
}

/* ---- speaking ---- */

int verb_error(const struct ctl *ctl, const char *fmt, ...)
{
    va_list ap;

    fflush(stdout);
    if (!ctl->interactive) {
        fputs("kumoctl: ", stderr);
    }
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    putc('\n', stderr);
    return VERB_FAILED;
}

static void print_byte(FILE *out, uint8_t c)
{
    switch (c) {
    case '\n':
        fputs("\\n", out);
        return;
    case '\r':
        fputs("\\r", out);
        return;
    case '\t':
        fputs("\\t", out);
        return;
    case '\\':
        fputs("\\\\", out);
        return;
    default:
        if (c >= 0x20 && c < 0x7f) {
            putc(c, out);
        } else {
            fprintf(out, "\\x%02x", c);
        }
    }
}

void verb_print_escaped(FILE *out, const uint8_t *p, size_t bytes)
{
    mbstate_t state = { 0 };

    for (size_t i = 0; i < bytes;) {
        wchar_t wide;
        size_t n = p[i] < 0x80 ? 1 : mbrtowc(&wide, (const char *) p + i, bytes - i, &state);
        if (n <= 1 || n > bytes - i || !iswprint((wint_t) wide)) {
            state = (mbstate_t){ 0 };
            print_byte(out, p[i++]);
        } else {
            fwrite(p + i, 1, n, out);
            i += n;
        }
    }
}
