/*
 * page.h: the stats page, read by anyone under its posix_ipc name, written by janusd alone.
 *
 *   +-------------+---------------------+---------------------------------+------------------------------------+
 *   | page_header | kinds: "port", ...  | counter names of each kind      | blocks: one per (kind, ids, io)    |
 *   +-------------+---------------------+---------------------------------+------------------------------------+
 *
 * It describes itself, so that a reader needs no header of another version.  Each block has one writer, so its counters are
 * plain 64-bit stores; a reader adds up the blocks of one object.  Blocks come and go under a sequence count: read seq
 * (even), read the directory, read seq again.
 */
#ifndef SHM_PAGE_H
#define SHM_PAGE_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_MAGIC UINT32_C(0x4a535431) /* "JST1" */

enum {
    PAGE_VERSION = 1,
    PAGE_NAME_BYTES = 32,
    PAGE_KINDS_MAX = 8,
    PAGE_COUNTERS_MAX = 88,
    PAGE_BLOCKS_MAX = 4096,
    PAGE_NO_IO = 255, /* the block is not an I/O thread's: the control plane's own counts */
};

enum page_kind {
    PAGE_KIND_IO = 0,     /* id: I/O thread */
    PAGE_KIND_PORT = 1,   /* id: port */
    PAGE_KIND_APP = 2,    /* id: app */
    PAGE_KIND_THREAD = 3, /* id: app, sub: tid */
    PAGE_KIND_COUNT
};

struct page_block {
    uint32_t used; /* 0: free */
    uint32_t kind; /* index of the kind */
    uint32_t id, sub;
    uint32_t io;         /* I/O thread that writes it, or PAGE_NO_IO */
    uint32_t generation; /* of the session, for a thread's block */
    uint32_t reserved[2];
    char name[PAGE_NAME_BYTES]; /* of the port or app */
    uint64_t counters[PAGE_COUNTERS_MAX];
};
static_assert(sizeof(struct page_block) == 768, "whole cache lines");

struct page_kind_entry {
    char name[PAGE_NAME_BYTES];
    uint32_t counter_count;
    uint32_t reserved[7];
    char counter_names[PAGE_COUNTERS_MAX][PAGE_NAME_BYTES]; /* "rx_packets"; "drop." and the reason for drops */
};

struct page_header {
    uint32_t magic, version;
    uint32_t seq; /* odd while blocks are being added or removed */
    uint32_t kind_count;
    uint32_t block_count; /* blocks [0, block_count) have ever been in use */
    uint32_t block_bytes;
    uint32_t kinds_offset, kind_bytes;
    uint32_t blocks_offset;
    uint32_t pid;
    uint64_t started_us; /* wall clock, microseconds since 1970 */
    uint64_t bytes;      /* of the page */
    uint32_t reserved[4];
};
static_assert(sizeof(struct page_header) == 72, "no holes");

struct page {
    struct page_header header;
    _Alignas(64) struct page_kind_entry kinds[PAGE_KINDS_MAX];
    _Alignas(64) struct page_block blocks[PAGE_BLOCKS_MAX];
};

/* Adds to a counter that the caller alone writes. */
static inline void page_add(struct page_block *b, uint32_t counter, uint64_t n)
{
    _Atomic uint64_t *c = (_Atomic uint64_t *)&b->counters[counter];
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}

/* Makes an empty page of zeroed memory. */
void page_init(struct page *p, uint32_t pid, uint64_t started_us);

/* Names the next counter of a kind, prefix and name put together; true: it fits and is counter *counter. */
bool page_name_counter(struct page *p, enum page_kind kind, const char *prefix, const char *name, uint32_t *counter);

/* Takes a free block, its counters zero; null when there is none.  The caller is the only one to add and remove. */
struct page_block *page_block_add(struct page *p, enum page_kind kind, uint32_t id, uint32_t sub, uint32_t io,
                                  uint32_t generation, const char *name);
void page_block_remove(struct page *p, struct page_block *b);

#endif
