/*
 * spare.c: the slabs one after the other, then the table, a block at a time.
 */
#include "tcp/bbr.h"
#include "tcp/stack.h"

enum { PARTS = 4 };

static struct slab *part(struct tcp_stack *s, uint32_t number)
{
    struct slab *slabs[PARTS] = {&s->rows, &s->half_open, &s->time_wait, &s->ext}; /* flows: by enum handle_kind */

    return slabs[number];
}

static bool next_of_slab(struct tcp_stack *s, uint32_t number, struct tcp_spare *out)
{
    struct slab *slab = part(s, number);
    uint32_t first, count;

    if (!slab_next_spare(slab, &first, &count))
        return false;
    *out = (struct tcp_spare){.part[0] = {slab_at(slab, first), (size_t)count * slab->stride}};
    if (slab == &s->ext)
        out->part[1] = (struct tcp_spare_part){s->bbrs + first, count * sizeof *s->bbrs};
    else
        out->part[1] = (struct tcp_spare_part){s->flows[number] + first, count * sizeof *s->flows[number]};
    if (slab == &s->rows) {
        out->first_row = first;
        out->row_count = count;
    }
    return true;
}

static bool next_of_table(struct tcp_stack *s, struct tcp_spare *out)
{
    uint32_t first, count;

    if (!table_next_spare(&s->table, &first, &count))
        return false;
    *out = (struct tcp_spare){.part[0] = {s->table.buckets + first, (size_t)count * sizeof s->table.buckets[0]}};
    return true;
}

bool tcp_next_spare(struct tcp_stack *s, uint64_t now_us, struct tcp_spare *out)
{
    if (now_us < s->spare_due_us)
        return false;
    for (; s->spare_part < PARTS; s->spare_part++) {
        if (next_of_slab(s, s->spare_part, out))
            return true;
    }
    if (next_of_table(s, out))
        return true;
    s->spare_part = 0;
    s->spare_due_us = now_us + TCP_SPARE_US;
    return false;
}

uint64_t tcp_spare_deadline(const struct tcp_stack *s)
{
    bool some = s->rows.spare + s->half_open.spare + s->time_wait.spare + s->ext.spare != 0;

    return some || table_has_spare(&s->table) ? s->spare_due_us : UINT64_MAX;
}
