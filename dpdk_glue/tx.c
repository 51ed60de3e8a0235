/*
 * tx.c: from an app's descriptor to a frame.
 *
 * The whole packet is copied first and everything is checked on the copy, which is what is sent.  The slot is the app's own all
 * the time, so nothing is lent here and a completion only says that janusd no longer reads it.
 */
#include "dpdk_glue/tx.h"

#include "dpdk_glue/deliver.h"
#include "dpdk_glue/mbufs.h"
#include "dpdk_glue/out.h"
#include "dpdk_glue/slow_path.h"
#include "dpdk_glue/tso.h"

#include <rte_cycles.h>

enum { UNKNOWN_PER_SECOND = 64 };

/* The table of neighbours and the way to it are for all apps: none fills them alone. */
static bool may_ask(struct glue_session *s, uint32_t io)
{
    struct session_io *sio = &s->io[io];
    uint64_t now = rte_rdtsc();

    if (now - sio->unknown_since_tsc > s->glue->tsc_hz) {
        sio->unknown_since_tsc = now;
        sio->unknown = 0;
    }
    return sio->unknown++ < UNKNOWN_PER_SECOND;
}

/* What one turn sends by. */
struct tx_turn {
    struct io_thread *io;
    const struct services *services;
    const struct routes *routes;
    struct route_hop hop; /* of the last packet */
    struct tso run;
    uint32_t mbuf_count; /* taken from the pool together, so that their misses come together */
    struct rte_mbuf *mbufs[TX_BURST_PER_APP];
};

/* Sends the packet in m, Ethernet header still to come, or tells why not.  Takes m when SHM_DROP_NONE. */
static enum shm_drop route_and_stage(struct tx_turn *turn, struct glue_session *s, struct rte_mbuf *m,
                                     const struct txcheck_packet *packet, bool need_checksum)
{
    static const struct ether_addr unknown = {{0}};
    struct io_thread *io = turn->io;
    struct route_hop *hop = &turn->hop;

    if (services_address(turn->services, &packet->dst) != SERVICES_NO_ADDRESS) /* nothing loops back inside janusd */
        return SHM_DROP_TX_NO_ROUTE;
    enum route_verdict verdict = routes_lookup(turn->routes, &packet->dst, hop);
    if (verdict == ROUTE_NONE || hop->port >= atomic_load_explicit(&io->glue->port_count, memory_order_acquire))
        return SHM_DROP_TX_NO_ROUTE;
    struct port *port = &io->glue->ports[hop->port];
    if (rte_pktmbuf_pkt_len(m) > port->mtu)
        return SHM_DROP_TX_TOO_LONG;
    if (need_checksum && !(port->offloads & GLUE_OFFLOAD_TX_TCP))
        return SHM_DROP_TX_KIND;

    uint16_t l2_len = port->classify.vlan_id == 0 ? ETHER_HEADER_LEN : ETHER_HEADER_MAX;
    uint8_t *ether = (uint8_t *)rte_pktmbuf_prepend(m, l2_len);
    uint16_t type = packet->version == 4 ? ETHER_TYPE_IPV4 : ETHER_TYPE_IPV6;
    (void)ether_build(ether, verdict == ROUTE_OK ? &hop->mac : &unknown, &port->classify.mac, port->classify.vlan_id,
                      type);
    if (verdict == ROUTE_NO_NEIGHBOUR) {
        if (!may_ask(s, io->index))
            return SHM_DROP_TX_NEIGHBOURS;
        if (!slow_push(io, hop->port, GLUE_SLOW_NEIGHBOUR, &hop->next_hop, ether, rte_pktmbuf_pkt_len(m)))
            return SHM_DROP_SLOW_FULL;
        rte_pktmbuf_free(m);
        return SHM_DROP_NONE;
    }
    if (need_checksum) {
        m->l2_len = l2_len;
        m->l3_len = packet->l3_len;
        m->l4_len = packet->l4_len;
        m->ol_flags |= RTE_MBUF_F_TX_TCP_CKSUM | (packet->version == 4 ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6);
    }
    if (need_checksum && (port->offloads & GLUE_OFFLOAD_TX_TSO) != 0) {
        tso_stage(io, &turn->run, hop->port, m, packet);
    } else {
        tso_end(io, &turn->run);
        out_stage(io, hop->port, m);
    }
    return SHM_DROP_NONE;
}

static enum shm_drop send_one(struct tx_turn *turn, struct glue_session *s, const struct shm_desc *d)
{
    struct txcheck_packet packet;
    enum shm_drop drop = txcheck_desc(d, s->sizes.tx_slots);

    if (drop != SHM_DROP_NONE)
        return drop;
    struct rte_mbuf *m = turn->mbuf_count != 0 ? turn->mbufs[--turn->mbuf_count] : rte_pktmbuf_alloc(s->glue->pool);
    m = out_fill(m, s->a2j + s->offsets.tx_slots + (uint64_t)d->slot * SHM_SLOT_BYTES + d->offset, d->len);
    if (m == NULL)
        return SHM_DROP_TX_NO_MBUF;
    drop = txcheck_packet(&s->lease, rte_pktmbuf_mtod(m, const uint8_t *), d->len, &packet);
    bool need_checksum = (d->flags & SHM_DESC_NEED_CHECKSUM) != 0;
    if (drop == SHM_DROP_NONE && need_checksum && tso_joins(&turn->run, m, &packet))
        return SHM_DROP_NONE;
    if (drop == SHM_DROP_NONE)
        drop = route_and_stage(turn, s, m, &packet, need_checksum);
    if (drop != SHM_DROP_NONE)
        rte_pktmbuf_free(m);
    return drop;
}

/* The world's fault, or the app's? */
static bool is_violation(enum shm_drop drop)
{
    return drop >= SHM_DROP_TX_KIND && drop <= SHM_DROP_TX_DESTINATION;
}

static void complete(struct session_io *sio, struct shm_desc d, enum shm_drop drop)
{
    d.kind = SHM_DESC_RETURN;
    d.flags = drop == SHM_DROP_NONE ? 0 : SHM_DESC_DROPPED;
    ring_push(&sio->tx_done, d);
}

/* Descriptors that may be taken now: each needs room for its completion. */
static uint32_t ready(struct glue_session *s, uint32_t io)
{
    struct session_io *sio = &s->io[io];
    int32_t n = ring_consumer_refresh(&sio->tx);

    if (n > 0 && ring_producer_room(&sio->tx_done) < TX_BURST_PER_APP && ring_producer_refresh(&sio->tx_done) < 0)
        n = -1;
    if (n < 0) {
        session_violated(s, io, SHM_DROP_INDEX);
        return 0;
    }
    uint32_t room = ring_producer_room(&sio->tx_done);
    uint32_t count = (uint32_t)n < TX_BURST_PER_APP ? (uint32_t)n : TX_BURST_PER_APP;
    return count < room ? count : room;
}

/* Copies n descriptors, once, and fetches into cache what they name; they are checked later. */
static void take_descs(struct glue_session *s, struct ring_consumer *tx, struct shm_desc *descs, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        descs[i] = ring_pop(tx);
        if (descs[i].slot < s->sizes.tx_slots)
            rte_prefetch0(s->a2j + s->offsets.tx_slots + (uint64_t)descs[i].slot * SHM_SLOT_BYTES +
                          descs[i].offset % SHM_SLOT_BYTES);
    }
}

/* Completions alone are no reason to wake an app, unless it may be waiting for its slots. */
static bool many_completions(const struct glue_session *s, struct session_io *sio)
{
    uint32_t many = s->sizes.tx_slots / 4;

    if (s->sizes.tx_slots - ring_producer_room(&sio->tx_done) < many)
        return false;
    return ring_producer_refresh(&sio->tx_done) >= 0 && s->sizes.tx_slots - ring_producer_room(&sio->tx_done) >= many;
}

static uint32_t tx_session(struct tx_turn *turn, struct glue_session *s)
{
    const struct io_thread *io = turn->io;
    struct session_io *sio = &s->io[io->index];
    uint32_t n = ready(s, io->index), sent = 0;
    uint64_t bytes = 0;
    struct shm_desc descs[TX_BURST_PER_APP];

    if (n == 0)
        return 0;
    take_descs(s, &sio->tx, descs, n);
    turn->mbuf_count = mbufs_take(s->glue->pool, turn->mbufs, n) ? n : 0;
    for (uint32_t i = 0; i < n; i++) {
        struct shm_desc d = descs[i];
        enum shm_drop drop = send_one(turn, s, &d);
        complete(sio, d, drop);
        if (drop == SHM_DROP_NONE) {
            sent++;
            bytes += d.len;
        } else if (is_violation(drop)) {
            session_violated(s, io->index, drop);
        } else {
            count_drop(s, io->index, drop, 1);
        }
    }
    tso_end(turn->io, &turn->run);
    mbufs_free(turn->mbufs, turn->mbuf_count);
    ring_release(&sio->tx);
    ring_publish(&sio->tx_done);
    count_app(s, io->index, STATS_APP_TX_PACKETS, sent);
    count_app(s, io->index, STATS_APP_TX_BYTES, bytes);
    if (many_completions(s, sio))
        session_wake(s, io->index);
    return n;
}

bool tx_waits(struct glue_session *s, uint32_t io)
{
    return ready(s, io) > 0;
}

uint32_t tx_sessions(struct io_thread *io)
{
    struct tx_turn turn = {.io = io,
                           .services = atomic_load_explicit(&io->glue->services, memory_order_acquire),
                           .routes = atomic_load_explicit(&io->glue->routes, memory_order_acquire)};
    const struct session_list *list = atomic_load_explicit(&io->sessions, memory_order_acquire);
    uint32_t taken = 0;

    if (list == NULL || list->count == 0)
        return 0;
    uint32_t first = io->round_robin++ % list->count;
    for (uint32_t i = 0; i < list->count; i++) {
        struct glue_session *s = list->sessions[(first + i) % list->count];
        if (s->tx_io == io->index && !session_is_closed(s))
            taken += tx_session(&turn, s);
    }
    return taken;
}
