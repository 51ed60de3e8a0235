/*
 * lro.c: see lro.h.
 */
#include "dpdk_glue/lro.h"

#include "dpdk_glue/mbufs.h"

enum classify_drop lro_begin(struct lro *l, const struct port *p, const struct rte_mbuf *m)
{
    uint32_t segment = (m->ol_flags & RTE_MBUF_F_RX_LRO) != 0 ? m->tso_segsz : 0, count = 0;

    for (const struct rte_mbuf *part = m; part != NULL; part = part->next) {
        if (count == LRO_PARTS_MAX)
            return CLASSIFY_DROP_OVERSIZE;
        l->parts[count++] = (struct cut_part){rte_pktmbuf_mtod(part, const uint8_t *), part->data_len};
    }
    return cut_begin(&l->cut, l->parts, count, p->mtu, segment, mbuf_is_verified(m));
}

struct rte_mbuf *lro_next(struct lro *l, struct rte_mempool *pool)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(pool);

    if (m == NULL)
        return NULL;
    m->data_len =
        rte_pktmbuf_tailroom(m) >= CUT_FRAME_MAX ? (uint16_t)cut_next(&l->cut, rte_pktmbuf_mtod(m, uint8_t *)) : 0;
    m->pkt_len = m->data_len;
    m->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_GOOD;
    if (m->data_len != 0)
        return m;
    rte_pktmbuf_free(m);
    return NULL;
}
