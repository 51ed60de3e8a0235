/*
 * ahead.h: what has been read from a port's queue and is not yet worked on.
 *
 * Two bursts are read at once: while the first is worked on, the headers of the second, which another processor has written, are on their
 * way.  All is worked on in the order of the queue, and before the queue is read again there is less than a burst left.
 */
#ifndef DPDK_GLUE_AHEAD_H
#define DPDK_GLUE_AHEAD_H

#include <rte_ethdev.h>
#include <stdbool.h>
#include <string.h>

enum {
    BURST = 64, /* packets that are worked on together */
    AHEAD_MAX = 2 * BURST,
};

struct ahead {
    struct rte_mbuf *mbufs[AHEAD_MAX];
    uint32_t at, end; /* mbufs[at..end) are there */
    bool was_full;    /* the last read gave all that was asked for */
};

/* Asks for the headers of mbufs[from..to), as far as there are any: all misses at once. */
static inline void ahead_fetch(const struct ahead *a, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to && i < a->end; i++)
        __builtin_prefetch(a->mbufs[i]);
}

/* Is there more, or likely to be?  What is left says nothing of the queue: it is read every other time. */
static inline bool ahead_has_more(const struct ahead *a)
{
    return a->at < a->end || a->was_full;
}

/* Gives the next burst of the queue; how many, 0 when there is nothing. */
static inline uint32_t ahead_take(struct ahead *a, uint16_t ethdev, uint16_t queue, struct rte_mbuf *mbufs[BURST])
{
    uint32_t left = a->end - a->at;

    if (left < BURST) {
        memmove(a->mbufs, a->mbufs + a->at, left * sizeof a->mbufs[0]);
        uint16_t asked = (uint16_t)(AHEAD_MAX - left), n = rte_eth_rx_burst(ethdev, queue, a->mbufs + left, asked);
        a->at = 0;
        a->end = left + n;
        a->was_full = n == asked;
        ahead_fetch(a, left, BURST);
    }
    left = a->end - a->at;
    uint32_t n = left < BURST ? left : BURST;
    memcpy(mbufs, a->mbufs + a->at, n * sizeof mbufs[0]);
    a->at += n;
    ahead_fetch(a, a->at, a->at + BURST);
    return n;
}

static inline void ahead_clear(struct ahead *a)
{
    rte_pktmbuf_free_bulk(a->mbufs + a->at, a->end - a->at);
    a->at = a->end = 0;
}

#endif
