/* The disk and what the clients know, at one place in a journal. */
#pragma once

#include "disk.h"
#include "model.h"

struct instant {
    struct disk *disk;
    struct model *model;
    uint64_t position; /* records before it have been applied */
};

/* Applies the records up to this position. */
static inline void instant_advance(struct instant *i, const struct journal *j, uint64_t position)
{
    while (i->position < position) {
        const struct record *r = journal_at(j, i->position);
        disk_apply(i->disk, r, i->position);
        model_apply(i->model, r, i->position);
        i->position = journal_next(j, i->position);
    }
}

static inline void instant_end(struct instant *i)
{
    disk_free(i->disk);
    model_free(i->model);
}
