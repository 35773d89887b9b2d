#include "news.h"

#include "io/log.h"

#include <stdio.h>
#include <string.h>

#define NEWS_SERVERS_MAX 4 /* named in one line */
#define NEWS_BYTES_MAX   512

/* Counts the members of `row` that are none of `other`. */
static void count_alone(const struct view_row *row, const struct view_row *other, uint32_t *counts)
{
    for (unsigned i = 0; i < row->n_members; i++) {
        counts[row->members[i] - 1] += hashspace_member_slot(other, row->members[i]) < 0;
    }
}

void news_add(struct news *news, const struct hashspace *space, const uint16_t *rows,
              const struct view_row *before, size_t n)
{
    news->views += n;
    for (size_t i = 0; i < n; i++) {
        const struct view_row *row = &space->rows[rows[i]];
        if (before[i].view > 0) {
            count_alone(&before[i], row, news->out);
            count_alone(row, &before[i], news->in);
        }
    }
}

struct line {
    char text[NEWS_BYTES_MAX];
    size_t n;
    uint32_t servers;
};

static void line_add(struct line *line, const struct hashspace *space, uint32_t i, const char *what,
                     uint32_t partitions)
{
    if (partitions == 0 || line->servers++ >= NEWS_SERVERS_MAX) {
        return;
    }
    line->n += (size_t) snprintf(line->text + line->n, sizeof(line->text) - line->n,
                                 "%s server %s is %s %u", line->servers == 1 ? ":" : ",",
                                 space->servers[i].name, what, partitions);
}

void news_tell(const struct news *news, const struct hashspace *space)
{
    struct line line = { .n = 0 };

    if (news->views == 0) {
        return;
    }
    for (uint32_t i = 0; i < space->n_servers; i++) {
        line_add(&line, space, i, "out of", news->out[i]);
        line_add(&line, space, i, "back in", news->in[i]);
    }
    log_info("%zu partition%s got a new view%s%s", news->views, news->views == 1 ? "" : "s",
             line.text, line.servers > NEWS_SERVERS_MAX ? ", and so on" : "");
}
