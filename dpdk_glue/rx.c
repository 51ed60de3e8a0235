/*
 * rx.c: one burst on its way in.
 */
#include "dpdk_glue/rx.h"

#include "dpdk_glue/deliver.h"
#include "dpdk_glue/lro.h"
#include "dpdk_glue/mbufs.h"
#include "dpdk_glue/out.h"
#include "dpdk_glue/reset.h"
#include "dpdk_glue/slow_path.h"
#include "wire/arp.h"
#include "wire/ip.h"

#include <rte_cycles.h>

enum { RESETS_PER_MS = 20 };

struct burst {
    struct io_thread *io;
    struct port *port;
    uint32_t port_number;
    const struct services *services;
    const struct routes *routes;
    uint32_t count;
    uint64_t bytes;
    struct rte_mbuf *mbufs[BURST]; /* NULL: held */
    uint8_t mbuf[BURST];           /* of each frame */
    const uint8_t *frames[BURST];
    uint32_t lens[BURST];
    uint8_t flags[BURST];
    struct classified classified[BURST];
    uint32_t tcp_count; /* packets for an app */
    uint8_t tcp[BURST];
    uint8_t app[BURST];
    struct flow flows[BURST];
    uint64_t hash[BURST];
    struct glue_session *session[BURST];
    struct delivered delivered;
};

static void drop(struct burst *b, enum shm_drop reason)
{
    page_add(b->port->stats[b->io->index], STATS_PORT_DROPS + (uint32_t)reason, 1);
}

static void drop_for_app(struct burst *b, struct app *app, enum shm_drop reason)
{
    page_add(app->stats[b->io->index], STATS_APP_DROPS + (uint32_t)reason, 1);
}

static bool is_local(const struct burst *b, const struct ip_addr *address)
{
    return services_address(b->services, address) != SERVICES_NO_ADDRESS;
}

/* ARP matters when it asks for one of ours or tells of a neighbour that we know (RFC 826); the rest is the segment's noise. */
static bool arp_matters(const struct burst *b, uint32_t i)
{
    struct arp_packet arp;
    uint32_t offset = b->classified[i].l3_offset;

    if (arp_parse(b->frames[i] + offset, b->lens[i] - offset, &arp) != ARP_OK)
        return false;
    return is_local(b, &arp.tpa) || routes_neighbour(b->routes, b->port_number, &arp.spa) != NULL;
}

static void to_slow_path(struct burst *b, uint32_t i)
{
    const struct classified *c = &b->classified[i];
    bool wanted = true;

    if (c->slow == CLASSIFY_SLOW_ARP)
        wanted = arp_matters(b, i);
    else if (c->slow != CLASSIFY_SLOW_ND) /* a solicitation goes to a group */
        wanted = is_local(b, &c->flow.laddr);
    if (!wanted)
        drop(b, SHM_DROP_SLOW_OTHER);
    else if (!slow_push(b->io, b->port_number, (enum glue_slow_reason)c->slow, NULL, b->frames[i], b->lens[i]))
        drop(b, SHM_DROP_SLOW_FULL);
}

/* Resets are few per millisecond: nobody is to use us as a mirror. */
static bool reset_allowed(struct io_thread *io)
{
    uint64_t now = rte_rdtsc();

    if (now - io->reset_tsc > io->glue->tsc_hz / 1000) {
        io->reset_tsc = now;
        io->reset_tokens = RESETS_PER_MS;
    }
    if (io->reset_tokens == 0)
        return false;
    io->reset_tokens--;
    return true;
}

static void answer_unserved(struct burst *b, uint32_t i)
{
    struct glue *g = b->io->glue;
    const struct classified *c = &b->classified[i];
    uint32_t l4_len = c->total_len - (c->l4_offset - c->l3_offset);
    uint8_t frame[RESET_FRAME_MAX];
    struct ether_frame ether;
    struct tcp_segment seg;
    struct reset reset = {.src = b->port->classify.mac, .vlan_id = b->port->classify.vlan_id, .flow = c->flow};

    drop(b, SHM_DROP_UNSERVED);
    if (!atomic_load_explicit(&g->reset_unserved, memory_order_relaxed) ||
        atomic_load_explicit(&g->recovery, memory_order_relaxed))
        return;
    if (ether_parse(b->frames[i], b->lens[i], &ether) != ETHER_OK ||
        tcp_header_parse(b->frames[i] + c->l4_offset, l4_len, &seg) != TCP_HEADER_OK)
        return;
    reset.dst = ether.src;
    if (!reset_answer(&reset, &seg) || !reset_allowed(b->io))
        return;
    struct rte_mbuf *m = out_frame(g, frame, reset_build(frame, &reset));
    if (m == NULL) {
        drop(b, SHM_DROP_TX_NO_MBUF);
        return;
    }
    out_stage(b->io, b->port_number, m);
    page_add(b->port->stats[b->io->index], STATS_PORT_RESETS_SENT, 1);
}

static void to_service(struct burst *b, uint32_t i)
{
    const struct classified *c = &b->classified[i];
    int address = services_address(b->services, &c->flow.laddr);

    if (address == SERVICES_NO_ADDRESS) {
        drop(b, SHM_DROP_NOT_LOCAL);
        return;
    }
    uint8_t app = b->services->owners[address][c->flow.lport];
    if (app == 0 && c->verdict == CLASSIFY_ICMP) {
        drop(b, SHM_DROP_UNSERVED);
        return;
    }
    if (app == 0) {
        answer_unserved(b, i);
        return;
    }
    b->app[b->tcp_count] = app;
    b->flows[b->tcp_count] = c->flow;
    b->tcp[b->tcp_count++] = (uint8_t)i;
}

static void drop_frame(struct burst *b, enum classify_drop reason, uint64_t count)
{
    page_add(b->port->stats[b->io->index], STATS_PORT_CLASSIFY_DROPS + (uint32_t)reason, count);
}

/* A fragment: when it was the last one that was missing, the whole stands in its place. */
static __attribute__((noinline, cold)) void reassemble(struct burst *b, uint32_t i)
{
    struct fragments *f = b->io->fragments;
    uint32_t offset = b->classified[i].l3_offset, len;
    uint64_t lost = f->lost;
    const uint8_t *whole;
    struct ip_packet ip;

    if (!b->port->reassembles || ip_parse(b->frames[i] + offset, b->lens[i] - offset, &ip) != IP_FRAGMENT ||
        !is_local(b, &ip.dst)) {
        drop_frame(b, CLASSIFY_DROP_IP_FRAGMENT, 1);
        return;
    }
    whole = fragments_add(f, b->frames[i], offset, &ip, (uint32_t)(rte_rdtsc() / (b->io->glue->tsc_hz / 1000)), &len);
    drop_frame(b, CLASSIFY_DROP_IP_FRAGMENT, f->lost - lost);
    if (whole == NULL)
        return;
    page_add(b->io->stats, STATS_IO_REASSEMBLED, 1);
    b->frames[i] = whole;
    b->lens[i] = len;
    if (classify_frame(&b->port->classify, whole, len, 0, &b->classified[i]) == CLASSIFY_TCP)
        to_service(b, i);
    else
        drop_frame(b, (enum classify_drop)b->classified[i].drop, 1);
}

static void dispatch(struct burst *b)
{
    for (uint32_t i = 0; i < b->count; i++) {
        const struct classified *c = &b->classified[i];
        if (c->verdict == CLASSIFY_TCP || c->verdict == CLASSIFY_ICMP) /* an error goes where its flow does */
            to_service(b, i);
        else if (c->verdict == CLASSIFY_SLOW)
            to_slow_path(b, i);
        else if (c->drop == CLASSIFY_DROP_IP_FRAGMENT)
            reassemble(b, i);
        else
            drop_frame(b, (enum classify_drop)c->drop, 1);
    }
}

/* How many packets from k on are for the same app. */
static uint32_t run_of_app(const struct burst *b, uint32_t k)
{
    uint32_t end = k + 1;

    while (end < b->tcp_count && b->app[end] == b->app[k])
        end++;
    return end - k;
}

/* The mbuf of a frame that is to be kept: its own, or a new one where it was put together.  NULL: there is none, or it fills no slot. */
static struct rte_mbuf *keep(struct burst *b, uint32_t i)
{
    struct rte_mbuf **m = &b->mbufs[b->mbuf[i]], *kept = *m;

    if (b->frames[i] != rte_pktmbuf_mtod(kept, const uint8_t *))
        return b->lens[i] <= SHM_SLOT_BYTES ? out_frame(b->io->glue, b->frames[i], b->lens[i]) : NULL;
    *m = NULL;
    return kept;
}

/* Keeps a SYN until its new owner is known.  False: there are too many. */
static bool hold(struct burst *b, uint32_t k)
{
    struct held_syns *h = &b->io->held;
    struct rte_mbuf *m = h->count < HELD_MAX ? keep(b, b->tcp[k]) : NULL;

    if (m == NULL)
        return false;
    h->mbufs[h->count] = m;
    h->port[h->count++] = b->port_number;
    return true;
}

static void find_session(struct burst *b, struct app *app, uint32_t k, uint16_t tid)
{
    b->session[k] = tid < SHM_TID_MAX ? atomic_load_explicit(&app->sessions[tid], memory_order_acquire) : NULL;
    if (b->session[k] != NULL && !session_is_closed(b->session[k]))
        return;
    b->session[k] = NULL;
    if (tid == CSB_DROP_SYN && hold(b, k))
        return;
    drop_for_app(b, app, tid == CSB_DROP_SYN ? SHM_DROP_SYN_MOVING : SHM_DROP_NO_THREAD);
}

static void find_sessions(struct burst *b)
{
    uint16_t tids[BURST];

    for (uint32_t k = 0, run; k < b->tcp_count; k += run) { /* each app has a secret and a view of its own */
        struct app *app = &b->io->glue->apps[b->app[k]];
        const struct csb_secret secret = {app->csb->secret[0], app->csb->secret[1]};

        run = run_of_app(b, k);
        csb_hash_batch(&secret, b->flows + k, b->hash + k, run);
        balance_route(&b->io->csb[b->app[k]], b->hash + k, tids + k, run);
        for (uint32_t i = k; i < k + run; i++) {
            if (b->classified[b->tcp[i]].is_syn)
                tids[i] = balance_route_syn(&b->io->csb[b->app[k]], b->hash[i], tids[i]);
            find_session(b, app, i, tids[i]);
        }
    }
}

static void deliver_all(struct burst *b)
{
    for (uint32_t k = 0; k < b->tcp_count; k++) {
        if (b->session[k] == NULL)
            continue;
        uint32_t i = b->tcp[k];
        const struct classified *c = &b->classified[i];
        (void)deliver(&b->delivered, b->session[k], b->io->index, c, b->frames[i] + c->l3_offset, b->hash[k]);
    }
    deliver_publish(&b->delivered, b->io->index);
}

/* Its first lines: what follows, the processor fetches by itself. */
static void fetch_frame(const uint8_t *frame, uint32_t len)
{
    enum { LINES = 3 };

    for (uint32_t at = 0; at < len && at < LINES * RTE_CACHE_LINE_MIN_SIZE; at += RTE_CACHE_LINE_MIN_SIZE)
        rte_prefetch0(frame + at);
}

/* Frames of one mbuf each; only a port that joins segments is set up to give chains, and they are cut before this. */
static void lay_out(struct burst *b, uint32_t received)
{
    b->count = 0;
    b->bytes = 0;
    for (uint32_t i = 0; i < received; i++) {
        struct rte_mbuf *m = b->mbufs[i];
        if (m->nb_segs != 1) {
            drop(b, SHM_DROP_OVERSIZE);
            continue;
        }
        b->frames[b->count] = rte_pktmbuf_mtod(m, const uint8_t *);
        b->lens[b->count] = rte_pktmbuf_data_len(m);
        fetch_frame(b->frames[b->count], b->lens[b->count]);
        b->bytes += b->lens[b->count];
        b->mbuf[b->count] = (uint8_t)i;
        b->flags[b->count++] = mbuf_is_verified(m) ? CLASSIFY_L4_VERIFIED : 0;
    }
}

static void take(struct burst *b, uint32_t port)
{
    b->port = &b->io->glue->ports[port];
    b->port_number = port;
}

static void process(struct burst *b, uint32_t received)
{
    lay_out(b, received);
    classify_burst(&b->port->classify, b->frames, b->lens, b->flags, b->classified, b->count);
    b->tcp_count = 0;
    dispatch(b);
    find_sessions(b);
    deliver_all(b);
    mbufs_free(b->mbufs, received);
}

/* One long segment, burst by burst of its pieces.  Gives frames and bytes. */
static void process_pieces(struct burst *b, struct rte_mbuf *m, uint64_t sums[2])
{
    struct lro lro;
    enum classify_drop reason = lro_begin(&lro, b->port, m);

    if (reason != CLASSIFY_DROP_NONE)
        drop_frame(b, reason, 1);
    for (uint32_t n = BURST; reason == CLASSIFY_DROP_NONE && n == BURST;) {
        for (n = 0; n < BURST && (b->mbufs[n] = lro_next(&lro, b->io->glue->pool)) != NULL;)
            n++;
        process(b, n);
        sums[0] += b->count;
        sums[1] += b->bytes;
    }
    if (reason == CLASSIFY_DROP_NONE && lro.cut.done != lro.cut.payload)
        drop(b, SHM_DROP_TX_NO_MBUF);
    rte_pktmbuf_free(m);
}

/* As process(), of a port that joins segments: what is long is taken by itself, in its place. */
static void process_joined(struct burst *b, uint32_t received)
{
    struct rte_mbuf *mbufs[BURST];
    uint64_t sums[2] = {0, 0};

    memcpy(mbufs, b->mbufs, received * sizeof mbufs[0]);
    for (uint32_t at = 0, n; at < received; at += n) {
        for (n = 0; at + n < received && !lro_is_due(b->port, mbufs[at + n]); n++)
            b->mbufs[n] = mbufs[at + n];
        process(b, n);
        sums[0] += b->count;
        sums[1] += b->bytes;
        if (at + n < received)
            process_pieces(b, mbufs[at + n++], sums);
    }
    b->count = (uint32_t)sums[0];
    b->bytes = sums[1];
}

static uint32_t rx_queue(struct burst *b, uint16_t queue)
{
    struct page_block *stats = b->port->stats[b->io->index];
    struct ahead *ahead = &b->port->ahead[queue];
    uint32_t received = ahead_take(ahead, b->port->ethdev, queue, b->mbufs);

    if (received == 0)
        return 0;
    b->io->port_has_more |= ahead_has_more(ahead);
    if (__builtin_expect((b->port->offloads & GLUE_OFFLOAD_RX_LRO) != 0, 0))
        process_joined(b, received);
    else
        process(b, received);
    page_add(stats, STATS_PORT_RX_PACKETS, b->count);
    page_add(stats, STATS_PORT_RX_BYTES, b->bytes);
    return received;
}

/* An update has ended: held SYNs go their way, or are held again for another app's. */
static uint32_t rx_held(struct burst *b)
{
    struct held_syns held = b->io->held;

    b->io->held.count = 0;
    b->io->held.is_due = false;
    for (uint32_t at = 0, n; at < held.count; at += n) {
        take(b, held.port[at]);
        for (n = 0; n < BURST && at + n < held.count && held.port[at + n] == b->port_number; n++)
            b->mbufs[n] = held.mbufs[at + n];
        process(b, n);
    }
    page_add(b->io->stats, STATS_IO_SYNS_HELD, held.count - b->io->held.count);
    return held.count;
}

uint32_t rx_ports(struct io_thread *io)
{
    struct glue *g = io->glue;
    uint32_t ports = atomic_load_explicit(&g->port_count, memory_order_acquire), received = 0;
    struct burst b;

    b.io = io;
    b.services = atomic_load_explicit(&g->services, memory_order_acquire);
    b.routes = atomic_load_explicit(&g->routes, memory_order_acquire);
    b.delivered.count = 0;
    if (__builtin_expect(io->held.is_due, 0))
        received += rx_held(&b);
    io->port_has_more = io->thread_is_full = false;
    for (uint32_t i = 0; i < ports; i++) {
        take(&b, i);
        for (uint32_t q = io->index; q < b.port->rx_queues; q += g->io_count)
            received += rx_queue(&b, (uint16_t)q);
    }
    return received;
}

void rx_clear(struct io_thread *io)
{
    struct glue *g = io->glue;

    for (uint32_t i = 0; i < atomic_load_explicit(&g->port_count, memory_order_acquire); i++) {
        for (uint32_t q = io->index; q < g->ports[i].rx_queues; q += g->io_count)
            ahead_clear(&g->ports[i].ahead[q]);
    }
    rte_pktmbuf_free_bulk(io->held.mbufs, io->held.count);
    io->held.count = 0;
}
