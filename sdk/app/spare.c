/*
 * spare.c: see spare.h.
 */
#include "app/spare.h"

#include <sys/mman.h>

enum { PAUSE_US = 1000, PAGE_BYTES = 4096 };

static void advise(void *memory, size_t bytes, int advice)
{
    uintptr_t begin = ((uintptr_t)memory + PAGE_BYTES - 1) & ~(uintptr_t)(PAGE_BYTES - 1);
    uintptr_t end = ((uintptr_t)memory + bytes) & ~(uintptr_t)(PAGE_BYTES - 1);

    if (begin < end)
        (void)madvise((void *)begin, end - begin, advice); /* what does not go back stays as it is */
}

void spare_discard(void *memory, size_t bytes)
{
    advise(memory, bytes, MADV_DONTNEED);
}

void spare_turn(struct janus_thread *t)
{
    struct tcp_spare spare;

    t->spare_us = t->now_us + PAUSE_US;
    if (!tcp_next_spare(t->stack, t->now_us, &spare))
        return;
    advise(spare.part[0].memory, spare.part[0].bytes, spare.row_count != 0 && t->session ? MADV_REMOVE : MADV_DONTNEED);
    spare_discard(spare.part[1].memory, spare.part[1].bytes);
    if (spare.row_count != 0 && t->rows_spare != NULL)
        t->rows_spare(t->rows_spare_context, spare.first_row, spare.row_count);
}

uint64_t spare_next_us(const struct janus_thread *t)
{
    uint64_t deadline_us = tcp_spare_deadline(t->stack);

    return deadline_us < t->spare_us ? t->spare_us : deadline_us;
}
