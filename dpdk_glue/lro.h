/*
 * lro.h: received segments that the port has joined, as mbufs of the pool with a piece each (cut.h).
 */
#ifndef DPDK_GLUE_LRO_H
#define DPDK_GLUE_LRO_H

#include "dpdk_glue/cut.h"
#include "dpdk_glue/state.h"

enum { LRO_PARTS_MAX = 64 }; /* buffers of a chain: 64 KiB of 1 KiB each */

struct lro {
    struct cut cut;
    struct cut_part parts[LRO_PARTS_MAX];
};

/* Must m be cut before anything looks at it?  False for all of a port that joins nothing. */
static inline bool lro_is_due(const struct port *p, const struct rte_mbuf *m)
{
    return (p->offloads & GLUE_OFFLOAD_RX_LRO) != 0 &&
           (m->nb_segs != 1 || (m->ol_flags & RTE_MBUF_F_RX_LRO) != 0 || m->data_len > p->mtu + ETHER_HEADER_MAX);
}

/* Begins with m, which stays the caller's.  CLASSIFY_DROP_NONE, or why not. */
enum classify_drop lro_begin(struct lro *l, const struct port *p, const struct rte_mbuf *m);

/* The next piece, verified; NULL: that was all, or the pool is dry. */
struct rte_mbuf *lro_next(struct lro *l, struct rte_mempool *pool);

#endif
