/*
 * tso.c: runs of segments on their way out.
 */
#include "dpdk_glue/tso.h"

#include "dpdk_glue/out.h"
#include "wire/checksum.h"

/* The header's checksum, whose field is zero. */
static void sum_ipv4(uint8_t *ip, uint32_t len)
{
    uint16_t sum = checksum_finish(checksum_add(0, ip, len));

    memcpy(ip + 10, &sum, sizeof sum);
}

void tso_end(struct io_thread *io, struct tso *run)
{
    struct rte_mbuf *m = run->head;

    if (m == NULL)
        return;
    run->head = NULL;
    if (run->join.count > 1) {
        join_finish(&run->join);
        m->tso_segsz = run->join.segment;
        m->ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
        if (run->join.version == 4 && (io->glue->ports[run->port].offloads & GLUE_OFFLOAD_TX_IPV4) != 0)
            m->ol_flags |= RTE_MBUF_F_TX_IP_CKSUM;
        else if (run->join.version == 4)
            sum_ipv4(run->join.packet, run->join.l3_len);
        page_add(io->glue->ports[run->port].stats[io->index], STATS_PORT_TX_JOINED, run->join.count);
    }
    out_stage(io, run->port, m);
}

void tso_stage(struct io_thread *io, struct tso *run, uint32_t port, struct rte_mbuf *m,
               const struct txcheck_packet *what)
{
    const struct port *p = &io->glue->ports[port];
    uint32_t can = what->version == 4 ? GLUE_OFFLOAD_TX_TSO_IPV4 : GLUE_OFFLOAD_TX_TSO_IPV6;
    uint32_t len = m->data_len - m->l2_len;

    tso_end(io, run);
    if ((p->offloads & can) != 0 && m->data_len <= p->tso_frame_max &&
        join_begin(&run->join, rte_pktmbuf_mtod_offset(m, uint8_t *, m->l2_len), len, what)) {
        run->head = run->tail = m;
        run->port = port;
    } else {
        out_stage(io, port, m);
    }
}
