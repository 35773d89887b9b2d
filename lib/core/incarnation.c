#include "core/incarnation.h"

#include <string.h>

void incarnation_begin(struct incarnation *i, uint64_t random)
{
    if (i->counter != i->accepted + 1) {
        i->counter = i->accepted + 1;
        i->n_priors = 0;
    } else if (i->sent) {
        if (i->n_priors == PRIORS_MAX) {
            return;
        }
        i->priors[i->n_priors++] = i->random;
    }
    i->sent = false;
    i->random = random;
}

bool incarnation_sending(struct incarnation *i)
{
    bool changed = !i->sent;

    i->sent = true;
    return changed;
}

void incarnation_accepted(struct incarnation *i)
{
    i->accepted = i->counter;
}

void incarnation_fill(const struct incarnation *i, struct msg_register *m)
{
    m->counter = i->counter;
    m->random = i->random;
    m->n_priors = i->n_priors;
    memcpy(m->priors, i->priors, sizeof(m->priors));
}
