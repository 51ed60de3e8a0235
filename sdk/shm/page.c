/*
 * page.c: the writer's side of the stats page; a reader needs none of it.
 */
#include "shm/page.h"

#include <string.h>

static const char *const kind_names[PAGE_KIND_COUNT] = {"io", "port", "app", "thread"};

static void copy_name(char *out, const char *prefix, const char *name)
{
    size_t n = 0;

    for (; *prefix != '\0' && n < PAGE_NAME_BYTES - 1; prefix++)
        out[n++] = *prefix;
    for (; *name != '\0' && n < PAGE_NAME_BYTES - 1; name++)
        out[n++] = *name;
    memset(out + n, 0, PAGE_NAME_BYTES - n);
}

void page_init(struct page *p, uint32_t pid, uint64_t started_us)
{
    struct page_header *h = &p->header;

    h->version = PAGE_VERSION;
    h->kind_count = PAGE_KIND_COUNT;
    h->block_bytes = sizeof(struct page_block);
    h->kinds_offset = offsetof(struct page, kinds);
    h->kind_bytes = sizeof(struct page_kind_entry);
    h->blocks_offset = offsetof(struct page, blocks);
    h->pid = pid;
    h->started_us = started_us;
    h->bytes = sizeof *p;
    for (uint32_t i = 0; i < PAGE_KIND_COUNT; i++)
        copy_name(p->kinds[i].name, "", kind_names[i]);
    atomic_store_explicit((_Atomic uint32_t *)&h->magic, PAGE_MAGIC, memory_order_release);
}

bool page_name_counter(struct page *p, enum page_kind kind, const char *prefix, const char *name, uint32_t *counter)
{
    struct page_kind_entry *k = &p->kinds[kind];

    if (k->counter_count == PAGE_COUNTERS_MAX)
        return false;
    *counter = k->counter_count;
    copy_name(k->counter_names[k->counter_count++], prefix, name);
    return true;
}

static void directory_begin(struct page_header *h)
{
    atomic_fetch_add_explicit((_Atomic uint32_t *)&h->seq, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
}

static void directory_end(struct page_header *h)
{
    atomic_fetch_add_explicit((_Atomic uint32_t *)&h->seq, 1, memory_order_release);
}

struct page_block *page_block_add(struct page *p, enum page_kind kind, uint32_t id, uint32_t sub, uint32_t io,
                                  uint32_t generation, const char *name)
{
    uint32_t i = 0;

    while (i < p->header.block_count && p->blocks[i].used)
        i++;
    if (i == PAGE_BLOCKS_MAX)
        return NULL;
    struct page_block *b = &p->blocks[i];
    directory_begin(&p->header);
    memset(b, 0, sizeof *b);
    b->kind = kind;
    b->id = id;
    b->sub = sub;
    b->io = io;
    b->generation = generation;
    copy_name(b->name, "", name);
    b->used = 1;
    if (i == p->header.block_count)
        p->header.block_count++;
    directory_end(&p->header);
    return b;
}

void page_block_remove(struct page *p, struct page_block *b)
{
    directory_begin(&p->header);
    b->used = 0;
    directory_end(&p->header);
}
