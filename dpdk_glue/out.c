/*
 * out.c: staging and sending.
 */
#include "dpdk_glue/out.h"

void out_stage(struct io_thread *io, uint32_t port, struct rte_mbuf *m)
{
    struct out_queue *q = &io->out[port];

    if (q->count == OUT_QUEUE)
        (void)out_flush(io);
    if (q->count == OUT_QUEUE) {
        page_add(io->glue->ports[port].stats[io->index], STATS_PORT_DROPS + SHM_DROP_TX_PORT_FULL, m->nb_segs);
        rte_pktmbuf_free(m);
        return;
    }
    q->mbufs[q->count++] = m;
}

/* On the wire: a run of segments (tso.h) has one in each of its mbufs, and its headers once. */
struct volume {
    uint64_t packets, bytes;
};

static struct volume volume_of(struct rte_mbuf *const *mbufs, uint32_t count)
{
    struct volume v = {0};

    for (uint32_t i = 0; i < count; i++) {
        const struct rte_mbuf *m = mbufs[i];

        v.packets += m->nb_segs;
        v.bytes += m->pkt_len;
        if (m->nb_segs > 1)
            v.bytes += (m->nb_segs - 1u) * (m->l2_len + m->l3_len + m->l4_len);
    }
    return v;
}

/* Lets the driver set up the headers of runs as its card wants them; drops what it refuses, which would block the queue. */
static void prepare(struct io_thread *io, struct port *p, struct out_queue *q)
{
    uint32_t done = 0;

    while (done < q->count) {
        done += rte_eth_tx_prepare(p->ethdev, (uint16_t)io->index, q->mbufs + done, (uint16_t)(q->count - done));
        if (done == q->count)
            break;
        page_add(p->stats[io->index], STATS_PORT_DROPS + SHM_DROP_TX_TOO_LONG, q->mbufs[done]->nb_segs);
        rte_pktmbuf_free(q->mbufs[done]);
        q->count--;
        memmove(q->mbufs + done, q->mbufs + done + 1, (q->count - done) * sizeof q->mbufs[0]);
    }
}

static uint32_t flush_port(struct io_thread *io, struct port *p, struct out_queue *q)
{
    uint32_t sent;

    if (io->index < p->tx_queues) {
        if (p->offloads & GLUE_OFFLOAD_TX_TSO)
            prepare(io, p, q);
        struct volume all = volume_of(q->mbufs, q->count);
        sent = rte_eth_tx_burst(p->ethdev, (uint16_t)io->index, q->mbufs, (uint16_t)q->count);
        struct volume left = volume_of(q->mbufs + sent, q->count - sent);
        page_add(p->stats[io->index], STATS_PORT_TX_PACKETS, all.packets - left.packets);
        page_add(p->stats[io->index], STATS_PORT_TX_BYTES, all.bytes - left.bytes);
    } else {
        sent = rte_ring_enqueue_burst(p->handover, (void **)q->mbufs, q->count, NULL);
        doorbell_ring_io(io->glue->io[0].kick_fd);
    }
    if (sent < q->count)
        memmove(q->mbufs, q->mbufs + sent, (q->count - sent) * sizeof q->mbufs[0]);
    q->count -= sent;
    return sent;
}

uint32_t out_flush(struct io_thread *io)
{
    uint32_t ports = atomic_load_explicit(&io->glue->port_count, memory_order_acquire), sent = 0;

    for (uint32_t i = 0; i < ports; i++) {
        if (io->out[i].count != 0)
            sent += flush_port(io, &io->glue->ports[i], &io->out[i]);
    }
    return sent;
}

uint32_t out_take_handover(struct io_thread *io)
{
    uint32_t ports = atomic_load_explicit(&io->glue->port_count, memory_order_acquire), taken = 0;

    for (uint32_t i = 0; i < ports; i++) {
        struct out_queue *q = &io->out[i];
        uint32_t room = OUT_QUEUE - q->count;
        uint32_t n = rte_ring_dequeue_burst(io->glue->ports[i].handover, (void **)(q->mbufs + q->count),
                                            room < BURST ? room : BURST, NULL);
        q->count += n;
        taken += n;
    }
    return taken;
}

void out_clear(struct io_thread *io)
{
    for (uint32_t i = 0; i < GLUE_PORTS_MAX; i++) {
        rte_pktmbuf_free_bulk(io->out[i].mbufs, io->out[i].count);
        io->out[i].count = 0;
    }
}

struct rte_mbuf *out_frame(struct glue *g, const uint8_t *frame, uint32_t len)
{
    return out_fill(rte_pktmbuf_alloc(g->pool), frame, len);
}

struct rte_mbuf *out_fill(struct rte_mbuf *m, const uint8_t *frame, uint32_t len)
{
    char *data = m != NULL ? rte_pktmbuf_append(m, (uint16_t)len) : NULL;

    if (data == NULL) {
        rte_pktmbuf_free(m);
        return NULL;
    }
    memcpy(data, frame, len);
    return m;
}
