#include "core/actions.h"

#include "base/mem.h"

#include <stdlib.h>

struct action *actions_add(struct actions *a, enum action_kind kind)
{
    mem_grow(&a->v, &a->cap, a->n + 1, sizeof(*a->v));
    a->v[a->n] = (struct action){ .kind = kind };
    return &a->v[a->n++];
}

void actions_free(struct actions *a)
{
    free(a->v);
    *a = (struct actions){ 0 };
}
