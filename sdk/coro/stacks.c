/* stacks.c: mapping stacks, and a pool of them. */
#include "coro/stacks.h"

#include <stdlib.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define FORGET_SHADOW(p, bytes) __asan_unpoison_memory_region(p, bytes)
#else
#define FORGET_SHADOW(p, bytes) ((void)(p), (void)(bytes))
#endif

/* Tops at different lines of their pages: at the same one, all stacks would compete for one set of the cache. */
enum { TOP_BYTES = 64, COLORS = 48 };

bool stack_map(struct coro_stack *stack, size_t bytes, size_t guard_bytes, uint32_t color)
{
    char *low =
        mmap(NULL, guard_bytes + bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);

    if (low == MAP_FAILED)
        return false;
    if (mprotect(low + guard_bytes, bytes, PROT_READ | PROT_WRITE) != 0) {
        munmap(low, guard_bytes + bytes);
        return false;
    }
    madvise(low + guard_bytes, bytes, MADV_NOHUGEPAGE);
    *stack = (struct coro_stack){.low = low, .top = low + guard_bytes + bytes - (1 + color) * (size_t)TOP_BYTES};
    return true;
}

void stack_unmap(struct coro_stack *stack, size_t bytes, size_t guard_bytes)
{
    if (stack->low == NULL)
        return;
    FORGET_SHADOW(stack->low, guard_bytes + bytes);
    munmap(stack->low, guard_bytes + bytes);
    stack->low = NULL;
}

static bool grow(struct coro_stacks *stacks)
{
    uint32_t allocated = stacks->allocated != 0 ? stacks->allocated * 2 : 64;
    struct coro_stack *at = realloc(stacks->at, allocated * sizeof *at);

    if (at == NULL)
        return false;
    stacks->at = at;
    stacks->allocated = allocated;
    return true;
}

uint32_t stacks_take(struct coro_stacks *stacks)
{
    struct coro_stack *stack;
    uint32_t number;

    if (stacks->free != 0) {
        number = stacks->free - 1;
    } else {
        if (stacks->count == stacks->allocated && !grow(stacks))
            return UINT32_MAX;
        number = stacks->count;
        stacks->at[number] = (struct coro_stack){0};
    }
    stack = &stacks->at[number];
    if (stack->low == NULL) {
        uint32_t next_free = stack->next_free;

        if (!stack_map(stack, stacks->bytes, stacks->guard_bytes, number % COLORS))
            return UINT32_MAX;
        stack->next_free = next_free;
    }
    if (number == stacks->count)
        stacks->count++;
    else
        stacks->free = stack->next_free;
    stacks->live++;
    return number;
}

void stacks_give(struct coro_stacks *stacks, uint32_t number)
{
    struct coro_stack *stack = &stacks->at[number];

    /* A dropped coroutine's frames never left, so their shadow is still there. */
    FORGET_SHADOW(stack->low + stacks->guard_bytes, stacks->bytes);
    stack->next_free = stacks->free;
    stacks->free = number + 1;
    stacks->live--;
}

void stacks_finish(struct coro_stacks *stacks)
{
    for (uint32_t i = 0; i < stacks->count; i++)
        stack_unmap(&stacks->at[i], stacks->bytes, stacks->guard_bytes);
    free(stacks->at);
    *stacks = (struct coro_stacks){0};
}
