/*
 * coro_switch.h: what the switches in one process share: the rows, and the two older ways to switch.
 */
#ifndef BENCH_CORO_SWITCH_H
#define BENCH_CORO_SWITCH_H

#include "coro/run.h"

struct copier;

struct row {
    _Alignas(128) struct coro co;
    uint64_t served;
    union {
        void (*callback)(struct row *r, int64_t got);
        struct copier *copier;
        void *context;
    };
};
_Static_assert(sizeof(struct row) == 128, "as large as a connection's row");

extern struct row *rows;
extern uint32_t *order; /* rows by event */

void prepare_copying(uint32_t count, size_t live);
void pass_copying(uint32_t events);
void prepare_swapcontext(uint32_t count, size_t live);
void pass_swapcontext(uint32_t events);

#endif
