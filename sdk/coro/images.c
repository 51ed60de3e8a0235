/* images.c: runs and slots. */
#include "coro/images.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

enum image_chunk_state {
    CHUNK_CLEAN,
    CHUNK_TOUCHED,
    CHUNK_IDLE, /* all its runs were free at the last look, and since */
};

static void *map_zero(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

int images_init(struct coro_images *m, size_t bytes_max)
{
    size_t chunks = (bytes_max + IMAGE_CHUNK_BYTES - 1) / IMAGE_CHUNK_BYTES;

    *m = (struct coro_images){.runs_max = (uint32_t)(chunks * IMAGE_CHUNK_RUNS)};
    m->reserved_bytes = (chunks + 1) * IMAGE_CHUNK_BYTES;
    m->reserved = mmap(NULL, m->reserved_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m->reserved == MAP_FAILED) {
        m->reserved = NULL;
        return -ENOMEM;
    }
    m->base = (uint8_t *)(((uintptr_t)m->reserved + IMAGE_CHUNK_BYTES - 1) & ~(uintptr_t)(IMAGE_CHUNK_BYTES - 1));
    m->runs = map_zero(m->runs_max * sizeof *m->runs);
    m->chunks = map_zero(chunks * sizeof *m->chunks);
    if (m->runs == NULL || m->chunks == NULL) {
        images_finish(m);
        return -ENOMEM;
    }
    return 0;
}

void images_finish(struct coro_images *m)
{
    if (m->reserved != NULL)
        munmap(m->reserved, m->reserved_bytes);
    if (m->runs != NULL)
        munmap(m->runs, m->runs_max * sizeof *m->runs);
    if (m->chunks != NULL)
        munmap(m->chunks, m->runs_max / IMAGE_CHUNK_RUNS * sizeof *m->chunks);
    *m = (struct coro_images){0};
}

/* The first run of a chunk makes the chunk's memory usable. */
static bool open_chunk(struct coro_images *m, uint32_t run)
{
    uint8_t *chunk = m->base + (size_t)run * IMAGE_RUN_BYTES;

    if (mprotect(chunk, IMAGE_CHUNK_BYTES, PROT_READ | PROT_WRITE) != 0)
        return false;
    madvise(chunk, IMAGE_CHUNK_BYTES, MADV_HUGEPAGE);
    return true;
}

static void list_run(struct coro_images *m, uint32_t run)
{
    struct image_run *r = &m->runs[run];

    r->prev = 0;
    r->next = m->partial[r->units];
    if (r->next != 0)
        m->runs[r->next - 1].prev = run + 1;
    m->partial[r->units] = run + 1;
}

static void unlist_run(struct coro_images *m, uint32_t run)
{
    struct image_run *r = &m->runs[run];

    if (r->prev != 0)
        m->runs[r->prev - 1].next = r->next;
    else
        m->partial[r->units] = r->next;
    if (r->next != 0)
        m->runs[r->next - 1].prev = r->prev;
}

static void touch_chunk(struct coro_images *m, uint32_t run)
{
    struct image_chunk *chunk = &m->chunks[run / IMAGE_CHUNK_RUNS];

    if (chunk->state == CHUNK_CLEAN)
        m->touched++;
    else if (chunk->runs == 0)
        m->spare--;
    chunk->state = CHUNK_TOUCHED;
    chunk->runs++;
}

/* A free run becomes one of slots of this class. */
static bool add_run(struct coro_images *m, uint32_t units)
{
    uint32_t run;

    if (m->free_runs != 0) {
        run = m->free_runs - 1;
        m->free_runs = m->runs[run].next;
    } else if (m->runs_fresh < m->runs_max) {
        run = m->runs_fresh;
        if (run % IMAGE_CHUNK_RUNS == 0 && !open_chunk(m, run))
            return false;
        m->runs_fresh++;
    } else {
        return false;
    }
    m->runs[run] = (struct image_run){.units = (uint16_t)units};
    touch_chunk(m, run);
    list_run(m, run);
    return true;
}

uint32_t images_take(struct coro_images *m, uint32_t units)
{
    struct image_run *r;
    uint32_t run, slot;

    assert(units >= 1 && units <= IMAGE_RUN_UNITS);
    if (m->partial[units] == 0 && !add_run(m, units))
        return IMAGE_NONE;
    run = m->partial[units] - 1;
    r = &m->runs[run];
    if (r->free != 0) {
        slot = r->free - 1u;
        memcpy(&r->free, images_at(m, run * IMAGE_RUN_UNITS + slot * units), sizeof r->free);
    } else {
        slot = r->fresh++;
    }
    r->live++;
    if (r->free == 0 && r->fresh == IMAGE_RUN_UNITS / units)
        unlist_run(m, run);
    m->live++;
    m->live_units += units;
    return run * IMAGE_RUN_UNITS + slot * units;
}

void images_give(struct coro_images *m, uint32_t image)
{
    uint32_t run = image / IMAGE_RUN_UNITS;
    struct image_run *r = &m->runs[run];
    bool was_full = r->free == 0 && r->fresh == IMAGE_RUN_UNITS / r->units;

    assert(r->units != 0 && r->live > 0 && image % IMAGE_RUN_UNITS % r->units == 0);
    m->live--;
    m->live_units -= r->units;
    memcpy(images_at(m, image), &r->free, sizeof r->free);
    r->free = (uint16_t)(image % IMAGE_RUN_UNITS / r->units + 1);
    r->live--;
    if (was_full)
        list_run(m, run);
    if (r->live == 0) {
        unlist_run(m, run);
        r->units = 0;
        r->next = m->free_runs;
        m->free_runs = run + 1;
        m->spare += --m->chunks[run / IMAGE_CHUNK_RUNS].runs == 0;
    }
}

bool images_trim(struct coro_images *m)
{
    uint32_t chunks = (m->runs_fresh + IMAGE_CHUNK_RUNS - 1) / IMAGE_CHUNK_RUNS;

    while (m->spare != 0 && m->touched > 1 && m->looked < chunks) {
        struct image_chunk *chunk = &m->chunks[m->looked++];

        if (chunk->state == CHUNK_CLEAN || chunk->runs != 0)
            continue;
        if (chunk->state == CHUNK_TOUCHED) {
            chunk->state = CHUNK_IDLE;
            continue;
        }
        madvise(m->base + (size_t)(m->looked - 1) * IMAGE_CHUNK_BYTES, IMAGE_CHUNK_BYTES, MADV_DONTNEED);
        chunk->state = CHUNK_CLEAN;
        m->touched--;
        m->spare--;
        return true;
    }
    m->looked = 0;
    return false;
}

uint64_t images_held_bytes(const struct coro_images *m)
{
    return (uint64_t)m->touched * IMAGE_CHUNK_BYTES;
}
