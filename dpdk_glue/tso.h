/*
 * tso.h: the run of segments that is being joined (join.h) for a port that cuts it.
 *
 * It belongs to one turn and one session, and waits in nobody's queue: what is staged is sent at some time that we do not choose.
 */
#ifndef DPDK_GLUE_TSO_H
#define DPDK_GLUE_TSO_H

#include "dpdk_glue/join.h"
#include "dpdk_glue/state.h"

struct tso {
    struct join join;
    struct rte_mbuf *head, *tail; /* head NULL: there is no run */
    uint32_t port;
};

/* Joins m, a packet without Ethernet header.  Takes it when true. */
static inline bool tso_joins(struct tso *run, struct rte_mbuf *m, const struct txcheck_packet *what)
{
    if (run->head == NULL || !join_follows(&run->join, rte_pktmbuf_mtod(m, const uint8_t *), m->data_len, what))
        return false;
    (void)rte_pktmbuf_adj(m, run->join.headers);
    run->tail->next = m;
    run->tail = m;
    run->head->nb_segs++;
    run->head->pkt_len += m->data_len;
    return true;
}

/* Stages the frame m, whose lengths are set, or keeps it as the first of a run.  Takes it.  The run before it is staged. */
void tso_stage(struct io_thread *io, struct tso *run, uint32_t port, struct rte_mbuf *m,
               const struct txcheck_packet *what);
/* Stages the run. */
void tso_end(struct io_thread *io, struct tso *run);

#endif
