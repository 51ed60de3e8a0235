/*
 * arenas.c: CPython's object arenas out of huge pages.
 *
 *   reserved address space: | 2 MiB | 2 MiB | ...     arenas of 1 MiB are cut from it, in order; what is freed is used first
 *
 * With very many connections their objects lie far apart, and the TLB is what an access waits for.  Arenas that were there before go back
 * to where they came from.
 */
#include "janus_tcp/face.h"

#include <sys/mman.h>

#define RESERVED_BYTES ((size_t)1 << 36)
#define HUGE_BYTES     ((size_t)2 << 20)

static PyObjectArenaAllocator former;
static char *reserved, *next_fresh;
static void *first_free; /* each begins with the next */
static size_t arena_bytes;

static void *arena_alloc(void *context, size_t bytes)
{
    void *arena = first_free;

    (void)context;
    if (arena_bytes == 0)
        arena_bytes = bytes;
    if (bytes != arena_bytes || HUGE_BYTES % bytes != 0)
        return former.alloc(former.ctx, bytes);
    if (arena) {
        first_free = *(void **)arena;
        return arena;
    }
    if (next_fresh + bytes > reserved + RESERVED_BYTES)
        return former.alloc(former.ctx, bytes);
    arena = next_fresh;
    if ((size_t)(next_fresh - reserved) % HUGE_BYTES == 0 && mprotect(arena, HUGE_BYTES, PROT_READ | PROT_WRITE) < 0)
        return former.alloc(former.ctx, bytes);
    next_fresh += bytes;
    return arena;
}

static void arena_free(void *context, void *arena, size_t bytes)
{
    (void)context;
    if ((char *)arena < reserved || (char *)arena >= reserved + RESERVED_BYTES) {
        former.free(former.ctx, arena, bytes);
        return;
    }
    *(void **)arena = first_free;
    first_free = arena;
}

int face_huge_arenas(void)
{
    PyObjectArenaAllocator ours = {NULL, arena_alloc, arena_free};
    char *p;

    if (reserved)
        return 0;
    p = mmap(NULL, RESERVED_BYTES + HUGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return -1;
    reserved = next_fresh = (char *)(((uintptr_t)p + HUGE_BYTES - 1) & ~(uintptr_t)(HUGE_BYTES - 1));
    (void)madvise(reserved, RESERVED_BYTES, MADV_HUGEPAGE); /* without it they are small pages, as before */
    PyObject_GetArenaAllocator(&former);
    PyObject_SetArenaAllocator(&ours);
    return 0;
}
