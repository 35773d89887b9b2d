/* Fuzzes the readers of what managers say to each other. What one of them reads, its writer must
 * write, and the reader read again as the same; no part of a message is a whole one. The first byte
 * of the input chooses the message. */
#include "base/assert.h"
#include "base/cleanup.h"
#include "wire/raft_msg.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { RAFT, MANAGER, MANAGERS, N_MESSAGES };

/* Reads one message and appends what was read to `out`: entries one by one, as their receiver does.
 */
static void copy_raft(struct mp_reader *r, struct buf *out)
{
    struct raft_msg m;
    struct raft_msg_entry e;

    raft_msg_get(r, &m);
    if (r->failed) {
        kumo_assert(m.n_entries == 0);
        return;
    }
    kumo_assert(m.kind > 0 && m.kind < _RAFT_MSG_KIND_MAX);
    kumo_assert(m.term <= RAFT_NUMBER_MAX);
    kumo_assert(m.n_entries <= (size_t) (r->end - r->p));
    kumo_assert(m.kind != RAFT_MSG_SNAPSHOT || m.snapshot.n_servers <= MANAGERS_MAX);
    raft_msg_put(out, &m);
    for (uint32_t i = 0; i < m.n_entries && !r->failed; i++) {
        raft_msg_get_entry(r, &e);
        if (!r->failed) {
            kumo_assert(e.bytes > 0 && e.bytes % RAFT_ENTRY_ALIGN == 0);
            raft_msg_put_entry(out, &e);
        }
    }
}

static void copy(uint8_t what, struct mp_reader *r, struct buf *out)
{
    struct msg_manager one;
    struct msg_managers all;

    if (what == RAFT) {
        copy_raft(r, out);
    } else if (what == MANAGER) {
        msg_get_manager(r, &one);
        if (!r->failed) {
            kumo_assert(one.number >= 1 && one.number <= one.n && one.n <= MANAGERS_MAX);
            msg_put_manager(out, &one);
        }
    } else {
        msg_get_managers(r, &all);
        if (!r->failed) {
            kumo_assert(all.number >= 1 && all.number <= all.n && all.n <= MANAGERS_MAX);
            msg_put_managers(out, &all);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    _cleanup_(buf_free) struct buf once = { 0 };
    _cleanup_(buf_free) struct buf twice = { 0 };
    struct mp_reader r;
    uint8_t what;

    if (len == 0) {
        return 0;
    }
    what = data[0] % N_MESSAGES;
    r = mp_reader_of(data + 1, len - 1);
    copy(what, &r, &once);
    kumo_assert(r.p <= data + len);
    if (r.failed) {
        return 0;
    }
    r = mp_reader_of(once.data, buf_len(&once));
    copy(what, &r, &twice);
    kumo_assert(!r.failed);
    kumo_assert(r.p == r.end);
    kumo_assert(buf_len(&once) == buf_len(&twice));
    kumo_assert(memcmp(once.data, twice.data, buf_len(&once)) == 0);
    for (size_t cut = 0; cut < buf_len(&once); cut += 1 + cut / 16) {
        r = mp_reader_of(once.data, cut);
        buf_clear(&twice);
        copy(what, &r, &twice);
        kumo_assert(r.failed);
    }
    return 0;
}
