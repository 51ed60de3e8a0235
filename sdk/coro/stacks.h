/*
 * stacks.h: mapped stacks with guard pages below: the run stack, and the separate ones of the second backend.
 *
 *   low                    low + guard                                     top     low + guard + bytes
 *    |--- guard, no access --|------------ grows downward <------------------|-------|
 */
#ifndef CORO_STACKS_H
#define CORO_STACKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct coro_stack {
    char *low;          /* null: not mapped */
    char *top;          /* 64-byte aligned */
    void *sp;           /* of the coroutine that waits on it */
    uint32_t next_free; /* number + 1 */
};

struct coro_stacks {
    struct coro_stack *at;
    uint32_t count, allocated;
    uint32_t free; /* number + 1 */
    uint32_t live;
    size_t bytes, guard_bytes;
};

/* Maps one whose top is color lines below its end; false when there is no memory or the process has too many mappings. */
bool stack_map(struct coro_stack *stack, size_t bytes, size_t guard_bytes, uint32_t color);
void stack_unmap(struct coro_stack *stack, size_t bytes, size_t guard_bytes);

/* A stack's number; UINT32_MAX: there is none. */
uint32_t stacks_take(struct coro_stacks *stacks);
void stacks_give(struct coro_stacks *stacks, uint32_t number);

void stacks_finish(struct coro_stacks *stacks);

#endif
