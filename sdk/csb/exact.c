/*
 * exact.c: how a flow of a conflicted key gets into its cell.
 */
#include "csb/exact.h"

uint32_t csb_exact_size(uint32_t count)
{
    uint32_t size = 4;

    if (count == 0)
        return 0;
    while (size < UINT32_C(2) * count)
        size *= 2;
    return size;
}

void csb_exact_add(struct csb_exact *cells, uint32_t size, uint64_t hash, uint16_t tid)
{
    uint32_t at = (uint32_t)(hash >> 32) & (size - 1);

    while (cells[at].hash != 0 && cells[at].hash != hash)
        at = (at + 1) & (size - 1);
    cells[at] = (struct csb_exact){.hash = hash, .tid = tid};
}
