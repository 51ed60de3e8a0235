/*
 * mbufs.h: mbufs of a burst, all at once.
 *
 * Another processor has had them: whoever touches one after the other waits for each line apart, 0.2 us when the two do not share a
 * cache.  So the lines are asked for together, and the second one of a header, which only chains need, is left alone.
 */
#ifndef DPDK_GLUE_MBUFS_H
#define DPDK_GLUE_MBUFS_H

#include <rte_mbuf.h>

/* Gives back a burst's; null ones are not there. */
static inline void mbufs_free(struct rte_mbuf **mbufs, uint32_t count)
{
    struct rte_mempool *pool = NULL;
    uint32_t n = 0; /* mbufs[0..n) are whole ones of pool */

    for (uint32_t i = 0; i < count; i++) {
        struct rte_mbuf *m = mbufs[i];
        if (m == NULL)
            continue;
        if (m->nb_segs != 1 || rte_mbuf_refcnt_read(m) != 1 || !RTE_MBUF_DIRECT(m)) {
            rte_pktmbuf_free(m);
            continue;
        }
        if (m->pool != pool && n != 0) {
            rte_mempool_put_bulk(pool, (void **)mbufs, n);
            n = 0;
        }
        pool = m->pool;
        mbufs[n++] = m;
    }
    if (n != 0)
        rte_mempool_put_bulk(pool, (void **)mbufs, n);
}

/* Takes count fresh ones, the lines to be written on their way.  False: the pool has not so many, none is taken. */
static inline bool mbufs_take(struct rte_mempool *pool, struct rte_mbuf **mbufs, uint32_t count)
{
    if (rte_mempool_get_bulk(pool, (void **)mbufs, count) != 0)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *m = (const uint8_t *)mbufs[i], *data = m + sizeof *mbufs[i] + RTE_PKTMBUF_HEADROOM;
        __builtin_prefetch(m, 1);
        __builtin_prefetch(m + RTE_CACHE_LINE_MIN_SIZE, 1);
        __builtin_prefetch(data - RTE_CACHE_LINE_MIN_SIZE, 1); /* the Ethernet header will end there */
        __builtin_prefetch(data, 1);
    }
    for (uint32_t i = 0; i < count; i++)
        rte_pktmbuf_reset(mbufs[i]);
    return true;
}

/* Has the port seen that the TCP checksum is right, or, where the sum is not in the packet yet, that the text is? */
static inline bool mbuf_is_verified(const struct rte_mbuf *m)
{
    return (m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_GOOD) != 0; /* one of the two bits of RTE_MBUF_F_RX_L4_CKSUM_NONE */
}

#endif
