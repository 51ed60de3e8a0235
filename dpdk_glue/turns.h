/*
 * turns.h: in mode yield, after how many turns with work in a row an I/O thread lets another have its turn.
 *
 *   the ports have more  no   yes  yes
 *   a thread is full      -   no   yes
 *   turns                 4   64    4
 *
 * A switch costs as much as ten packets.  What waits in a port is taken first: the port does not tell newcomers from connections when it
 * is full, a thread's ring does (overload.h).  Unless a thread is full itself: what is read then is lost.  Knows no DPDK.
 */
#ifndef DPDK_GLUE_TURNS_H
#define DPDK_GLUE_TURNS_H

#include <stdbool.h>
#include <stdint.h>

enum { TURNS_MIN = 4, TURNS_MAX = 64, TURNS_FULL_PART = 4 };

/* Has a thread with so few free slots to have its turn, before the next packets find none? */
static inline bool turns_is_full(uint32_t free_slots, uint32_t slots)
{
    return free_slots < slots / TURNS_FULL_PART;
}

static inline bool turns_are_enough(uint32_t turns, bool port_has_more, bool thread_is_full)
{
    return turns >= TURNS_MAX || (turns >= TURNS_MIN && (!port_has_more || thread_is_full));
}

#endif
