/*
 * overload.h: when a thread's newcomers wait for their retransmission so that what has begun is finished.
 *
 *   packets waiting     0 ....... slots/8 ............... slots/2 .....
 *   SYNs                 taken    | taken until slots/2   |  dropped, and from slots/8 on until none had to be
 *                                 |  was reached          |  for a tenth of a second
 *
 * A connection takes five packets or more; were each as likely to be lost, none would get through.  A burst may fill half of the slots,
 * and clients that wait for answers never do more.  Whoever comes that far is offered more than he can serve, and a long queue
 * then only makes each packet dearer: it does not fit the caches; and what follows the SYNs in it finds no slot.  Knows no DPDK.
 */
#ifndef DPDK_GLUE_OVERLOAD_H
#define DPDK_GLUE_OVERLOAD_H

#include <stdbool.h>
#include <stdint.h>

/* All zero at first. */
struct overload {
    uint64_t until; /* on the caller's clock */
};

/* Whether a SYN is to be dropped while so many packets wait; tenth: of a second, on the clock of now. */
static inline bool overload_sheds(struct overload *o, uint32_t waiting, uint32_t slots, uint64_t now, uint64_t tenth)
{
    if (waiting < slots / 2 && (waiting < slots / 8 || now >= o->until))
        return false;
    o->until = now + tenth;
    return true;
}

#endif
