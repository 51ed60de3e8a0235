/*
 * ledger.c: slots go out and come back.
 */
#include "dpdk_glue/ledger.h"

#include <stdlib.h>

bool ledger_init(struct ledger *l, uint32_t first, uint32_t count)
{
    *l = (struct ledger){.first = first, .count = count};
    l->entries = calloc(count, sizeof *l->entries);
    l->free = calloc(count, sizeof *l->free);
    if (l->entries == NULL || l->free == NULL) {
        ledger_release(l);
        return false;
    }
    for (uint32_t i = 0; i < count; i++)
        l->free[i] = first + count - 1 - i; /* the lowest goes out first */
    l->free_count = count;
    return true;
}

void ledger_release(struct ledger *l)
{
    free(l->entries);
    free(l->free);
    *l = (struct ledger){0};
}

enum shm_drop ledger_take_back(struct ledger *l, uint32_t slot, uint16_t generation)
{
    if (slot - l->first >= l->count)
        return SHM_DROP_RETURN_SLOT;
    struct ledger_entry *e = &l->entries[slot - l->first];
    if (!e->lent)
        return SHM_DROP_RETURN_OWNER;
    if (e->generation != generation)
        return SHM_DROP_RETURN_GENERATION;
    e->lent = 0;
    l->free[l->free_count++] = slot;
    return SHM_DROP_NONE;
}

void ledger_take_all(struct ledger *l)
{
    for (uint32_t i = 0; i < l->count; i++) {
        if (l->entries[i].lent) {
            l->entries[i].lent = 0;
            l->free[l->free_count++] = l->first + i;
        }
    }
}

uint32_t ledger_lent(const struct ledger *l)
{
    uint32_t lent = 0;

    for (uint32_t i = 0; i < l->count; i++)
        lent += l->entries[i].lent;
    return lent;
}
