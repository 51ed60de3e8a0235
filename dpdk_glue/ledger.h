/*
 * ledger.h: who has which RX slot of one (session, I/O thread), in janusd's private memory.
 *
 *      free (LIFO, hot in cache)   --ledger_lend-->   lent, with a generation   --ledger_take_back-->   free
 *
 * Every slot is free or lent, never both, whatever the app writes: what it gives back is looked up here and must be lent, and of the
 * generation that it was lent with.  free_count + lent == count always holds.  Knows no DPDK.
 */
#ifndef DPDK_GLUE_LEDGER_H
#define DPDK_GLUE_LEDGER_H

#include "shm/drops.h"

#include <stdbool.h>
#include <stdint.h>

struct ledger_entry {
    uint16_t generation; /* of the last lending */
    uint8_t lent;
};

struct ledger {
    struct ledger_entry *entries; /* of slots first to first + count - 1 */
    uint32_t *free;               /* a stack of slot indices */
    uint32_t first, count, free_count;
};

/* All slots free.  False: no memory. */
bool ledger_init(struct ledger *l, uint32_t first, uint32_t count);
void ledger_release(struct ledger *l);

/* Lends a slot; the caller has seen that free_count is not 0. */
static inline uint32_t ledger_lend(struct ledger *l, uint16_t *generation)
{
    uint32_t slot = l->free[--l->free_count];
    struct ledger_entry *e = &l->entries[slot - l->first];

    e->lent = 1;
    *generation = ++e->generation;
    return slot;
}

/* Takes back what the app says that it gives back; SHM_DROP_NONE, or why not. */
enum shm_drop ledger_take_back(struct ledger *l, uint32_t slot, uint16_t generation);

/* Takes all lent slots back: the app is gone. */
void ledger_take_all(struct ledger *l);

/* How many slots are lent, counted one by one. */
uint32_t ledger_lent(const struct ledger *l);

#endif
