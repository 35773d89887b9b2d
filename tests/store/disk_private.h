/* Inside of a disk: disk.c (what happens to it) and disk_after.c (what is found after the power
 * went). */
#pragma once

#include "base/buf.h"
#include "disk.h"

#define PAGE_BYTES 4096u
#define FDS_MAX    1024

/* A file's or folder's contents, whatever its names. */
struct inode {
    bool is_folder;
    struct buf cache;
    struct buf durable;
    size_t durable_bytes; /* size that is durable; `durable` may hold less */
    uint8_t *dirty;       /* by page: written since the last sync began, failed ones forgotten */
    size_t n_dirty;       /* pages that `dirty` has room for */
    uint64_t oldest;      /* position of the first write that isn't durable; UINT64_MAX: none */
    bool lost;            /* a sync failed: `oldest` stays */
};

struct name {
    char path[DISK_PATH_BYTES];
    struct inode *inode;
};

struct names {
    struct name *v;
    size_t n;
    size_t cap;
};

/* A change of a folder that is not durable yet. */
struct change {
    uint64_t position;
    uint64_t age;               /* of the disk when it was made */
    char from[DISK_PATH_BYTES]; /* this name goes; "" : none */
    char to[DISK_PATH_BYTES];   /* this name comes; "": none */
    struct inode *inode;
    struct inode *swapped; /* gets the name `from`; NULL: none does */
};

/* A sync under way: what it will have made durable. */
struct sync {
    bool running;
    uint64_t begun; /* age of the disk */
    uint64_t oldest;
    size_t bytes;
    struct buf pages; /* number of the page, then its bytes */
};

struct disk {
    enum disk_lie lie;
    uint64_t lies;
    uint64_t age;          /* records applied, of all journals */
    struct inode **inodes; /* all there ever were */
    size_t n_inodes;
    size_t cap_inodes;
    struct names cached;
    struct names durable;
    struct change *changes;
    size_t n_changes;
    size_t cap_changes;
    struct inode *open[FDS_MAX];
    char paths[FDS_MAX][DISK_PATH_BYTES]; /* of the open ones, as they were opened */
    struct sync syncs[FDS_MAX];
};

void disk_names_put(struct names *s, const char *path, struct inode *inode);
void disk_names_change(struct names *s, const struct change *c);
/* Is the name in this folder itself? "" is the outermost one. */
bool disk_is_in(const char *path, const char *folder);
/* Cuts, or adds zeros. */
void disk_buf_resize(struct buf *b, size_t bytes);
