#include "io/residency.h"

#include "base/assert.h"
#include "base/cleanup.h"
#include "base/mem.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE_BYTES_MIN 4096
#define REGION_PAGES   (RESIDENCY_REGION_BYTES / PAGE_BYTES_MIN)

/* What was found when a region was looked at as a whole. */
struct region {
    uintptr_t at; /* its first byte; 0: nothing is known */
    uint64_t seen_usec;
    bool is_hot; /* all of its pages were there */
};

/* Regions that share a place forget each other. */
struct residency {
    size_t page_bytes;
    bool blind; /* the kernel, or a sandbox, does not tell */
    struct region regions[RESIDENCY_REGIONS_MAX];
};

struct residency *residency_new(void)
{
    struct residency *r = mem_zalloc(1, sizeof(*r));

    r->page_bytes = (size_t) sysconf(_SC_PAGESIZE);
    kumo_assert(r->page_bytes >= PAGE_BYTES_MIN);
    return r;
}

struct residency *residency_free(struct residency *r)
{
    free(r);
    return NULL;
}

/* Asks the kernel. What is not mapped is not there. */
static bool pages_are(struct residency *r, uintptr_t p, size_t bytes)
{
    unsigned char pages[REGION_PAGES + 1];
    uintptr_t from = p / r->page_bytes * r->page_bytes;
    size_t n = (p + bytes - from + r->page_bytes - 1) / r->page_bytes;

    kumo_assert(n <= ARRAY_LEN(pages));
    if (mincore((void *) from, p + bytes - from, pages) < 0) {
        r->blind = r->blind || errno == EPERM || errno == ENOSYS;
        return r->blind; /* then reads wait for the disk where they are */
    }
    for (size_t i = 0; i < n; i++) {
        if (!(pages[i] & 1)) {
            return false;
        }
    }
    return true;
}

static bool region_is_hot(struct residency *r, uintptr_t at, size_t bytes, uint64_t now_usec)
{
    struct region *g = &r->regions[at / RESIDENCY_REGION_BYTES % RESIDENCY_REGIONS_MAX];

    if (g->at != at || now_usec - g->seen_usec >= RESIDENCY_TRUST_USEC) {
        *g = (struct region){ .at = at, .seen_usec = now_usec, .is_hot = pages_are(r, at, bytes) };
    }
    return g->is_hot;
}

bool residency_is(struct residency *r, const uint8_t *file, size_t file_bytes, size_t offset,
                  size_t bytes, uint64_t now_usec)
{
    uintptr_t base = (uintptr_t) file;
    size_t end = offset + bytes;

    kumo_assert(end <= file_bytes);
    while (offset < end && !r->blind) {
        size_t region = offset / RESIDENCY_REGION_BYTES * RESIDENCY_REGION_BYTES;
        size_t next = MIN_OF(region + RESIDENCY_REGION_BYTES, file_bytes);
        if (!region_is_hot(r, base + region, next - region, now_usec) &&
            !pages_are(r, base + offset, MIN_OF(next, end) - offset)) {
            return false;
        }
        offset = next;
    }
    return true;
}
