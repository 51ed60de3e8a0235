/*
 * adversary_peer.h: one peer with its vices: what it hears, what it says next, and what it may demand of what the core sends.
 *
 * Numbers are relative: 0 is the SYN, 1 the first byte.  It judges every packet of the core: checksums, bytes, the window that
 * was offered, its MSS, and that nothing is acknowledged that it has not sent.
 */
#ifndef ADVERSARY_PEER_H
#define ADVERSARY_PEER_H

#include "sim_host.h"

#include "wire/bytes.h"
#include "wire/checksum.h"
#include "wire/ip.h"
#include "wire/tcp_header.h"

enum { CORE_PORT = 80, PEER_PORT = 5000, TOTAL_MAX = 60000, SMSS_LEAST = 64 };

enum vice {
    VICE_ACK_LOSS,
    VICE_COMPRESS,
    VICE_SPLIT,
    VICE_STRETCH,
    VICE_DUPLICATE,
    VICE_OPTIMISTIC,
    VICE_FUTURE,
    VICE_SACK_FLOOD,
    VICE_SHRINK,
    VICE_ZERO_WINDOW,
    VICE_TINY_MSS,
    VICE_OVERLAP,
    VICE_OLD_TIMESTAMPS,
    VICE_SPIKES,
    VICE_BLACKOUT,
    VICE_DEATH,
    VICE_RESET,
    VICES,
};

static const char *const VICE_NAMES[VICES] = {
    "ack_loss",    "compress", "split",   "stretch",        "duplicate", "optimistic", "future", "sack_flood", "shrink",
    "zero_window", "tiny_mss", "overlap", "old_timestamps", "spikes",    "blackout",   "death",  "reset",
};

static const char *vice_name(uint32_t vice)
{
    return vice < VICES ? VICE_NAMES[vice] : NULL;
}

enum peer_life { PEER_NEW, PEER_OPEN, PEER_DEAD };

struct peer {
    uint32_t vices;
    uint8_t index, life;
    bool blameless, v6, listens, sack, timestamps, scaling; /* the last three: offered, then agreed */
    bool owes_syn, liar;
    uint8_t shift;
    uint16_t mss;
    uint32_t delay_us, iss, irs, core_total, fin_at;
    uint64_t dark_from_us, dark_to_us, due_us, ack_us, end_us;
    uint32_t una, room;          /* of what it sends, as the core says */
    uint32_t sent_top;           /* behind the last that it ever sent */
    uint32_t next, top, acked;   /* of what it gets: contiguous, behind all that was ever sent to it, acknowledged */
    uint32_t edge;               /* the farthest that it ever offered */
    uint32_t owed, burst, tsval; /* ACKs; segments left of this turn; heard last */
    uint32_t data_at;
    bool got[TOTAL_MAX + 2];
};

struct peer_segment {
    uint32_t seq, ack, data_len, sack_count;
    uint16_t wnd;
    uint8_t flags;
    struct tcp_sack_block sack[4];
};

static uint8_t peer_byte(const struct peer *p, bool from_core, uint64_t at)
{
    return (uint8_t)(at * 13 + (at >> 8) * 5 + p->index * 71 + (from_core ? 0x80 : 0));
}

static void peer_print(const char *who, const uint8_t *packet, uint32_t len, uint64_t us)
{
    const uint8_t *t = packet + (packet[0] >> 4 == 6 ? 40 : 20);

    printf("%12.6f %s %u>%u flags %02x seq %u ack %u win %u len %u\n", (double)us / 1e6, who, get_be16(t),
           get_be16(t + 2), t[13], get_be32(t + 4), get_be32(t + 8), get_be16(t + 14),
           len - (uint32_t)(t - packet) - (t[12] >> 4) * 4u);
}

static void peer_draw(struct peer *p, uint32_t index, struct sim_rng *r, uint64_t start_us, uint64_t end_us)
{
    uint32_t span = (uint32_t)(end_us - start_us);

    p->index = (uint8_t)index;
    p->v6 = rng_below(r, 2);
    p->listens = rng_below(r, 3) == 0;
    p->vices = rng_below(r, 6) == 0 ? 0 : (uint32_t)rng_next(r) & (uint32_t)rng_next(r) & ((1u << VICES) - 1);
    if (rng_below(r, 3)) /* most live */
        p->vices &= ~(1u << VICE_DEATH | 1u << VICE_RESET);
    p->blameless = p->vices == 0;
    p->sack = rng_below(r, 4) > 0;
    p->timestamps = rng_below(r, 2);
    p->scaling = rng_below(r, 2);
    p->shift = (uint8_t)(p->scaling ? rng_below(r, 15) : 0);
    p->mss = p->vices & 1u << VICE_TINY_MSS ? (uint16_t)rng_below(r, 101) : (uint16_t)rng_between(r, 536, 1460);
    p->delay_us = rng_below(r, 2) ? 100 : rng_below(r, 100000);
    p->iss = rng_below(r, 2) ? (uint32_t)rng_next(r) : 0u - rng_below(r, 50000);
    p->core_total = rng_below(r, 5) ? rng_below(r, TOTAL_MAX) : 0;
    p->fin_at = rng_below(r, 5) ? rng_below(r, TOTAL_MAX) : 0;
    p->due_us = start_us + rng_below(r, 100000);
    p->end_us = start_us + rng_below(r, span);
    p->next = p->top = p->acked = p->una = p->sent_top = 0;
    if (p->vices & 1u << VICE_BLACKOUT) {
        p->dark_from_us = start_us + rng_below(r, span);
        p->dark_to_us = p->dark_from_us + rng_below(r, 30000000);
        p->dark_to_us = p->dark_to_us < end_us ? p->dark_to_us : end_us;
    }
}

static void peer_reform(struct peer *p, uint64_t now_us)
{
    p->vices &= 1u << VICE_TINY_MSS;
    p->due_us = p->ack_us = now_us;
    p->owed++;
}

static uint64_t peer_due_us(const struct peer *p)
{
    if (p->life == PEER_DEAD)
        return UINT64_MAX;
    return p->life == PEER_OPEN && p->owed > 0 && p->ack_us < p->due_us ? p->ack_us : p->due_us;
}

/* --- what the core sends --- */

static void peer_judge(struct sim_failure *failure, struct peer *p, const uint8_t *packet, uint32_t len)
{
    struct tcp_segment seg;
    struct ip_packet ip;
    uint32_t at, end, least = p->mss > SMSS_LEAST ? p->mss : SMSS_LEAST;

    if (ip_parse(packet, len, &ip) != IP_OK || ip.l4_len != len - ip.l4_offset ||
        tcp_header_parse(packet + ip.l4_offset, ip.l4_len, &seg) != TCP_HEADER_OK ||
        tcp_header_verify(packet + ip.l4_offset, ip.l4_len, &ip.src, &ip.dst) != TCP_HEADER_OK)
        sim_fail(failure, "peer %u: the core sends a bad packet", p->index);
    if ((seg.flags & TCP_RST) || p->life == PEER_DEAD)
        return;
    if ((seg.flags & TCP_ACK) && seg.ack - p->iss > p->sent_top)
        sim_fail(failure, "peer %u: %u is acknowledged, but %u was sent", p->index, seg.ack - p->iss, p->sent_top);
    if (seg.flags & TCP_SYN) {
        p->top = p->top > 1 ? p->top : 1;
        return;
    }
    at = seg.seq - p->irs;
    end = at + seg.payload_len;
    if (seg.payload_len > least)
        sim_fail(failure, "peer %u: %u bytes for an MSS of %u", p->index, seg.payload_len, p->mss);
    if (seg.payload_len != 0 && (at == 0 || end > p->edge || end > p->core_total + 1))
        sim_fail(failure, "peer %u: %u:%u, where %u was offered and %u was to come", p->index, at, end, p->edge,
                 p->core_total);
    for (uint32_t i = 0; i < seg.payload_len; i++)
        if (packet[ip.l4_offset + seg.data_offset + i] != peer_byte(p, true, at - 1 + i))
            sim_fail(failure, "peer %u: a wrong byte at %u", p->index, at - 1 + i);
    end += (seg.flags & TCP_FIN) != 0;
    if (seg.payload_len != 0 || (seg.flags & TCP_FIN))
        p->top = end > p->top ? end : p->top;
}

/* --- what it hears --- */

static void hear_syn(struct peer *p, const struct tcp_segment *seg, uint64_t now_us)
{
    const struct tcp_options *o = &seg->options;

    p->irs = seg->seq;
    p->next = p->acked = 1;
    p->timestamps = p->timestamps && (o->present & TCP_OPTION_TIMESTAMPS);
    p->sack = p->sack && (o->present & TCP_OPTION_SACK_PERMITTED);
    p->scaling = p->scaling && (o->present & TCP_OPTION_WINDOW_SCALE);
    p->shift = p->scaling ? p->shift : 0;
    p->owes_syn = p->listens;
    if (!p->listens)
        p->una = 1;
    p->life = PEER_OPEN;
    p->edge = 1 + 65535;
    p->due_us = now_us;
    p->owed = !p->listens;
    p->ack_us = now_us;
}

static void hear_text(struct peer *p, const struct tcp_segment *seg)
{
    uint32_t at = seg->seq - p->irs;

    for (uint32_t i = 0; i < seg->payload_len + !!(seg->flags & TCP_FIN); i++)
        if (at + i >= 1 && at + i < TOTAL_MAX + 2)
            p->got[at + i] = true;
    while (p->next < TOTAL_MAX + 2 && p->got[p->next])
        p->next++;
}

static void peer_hear(struct peer *p, const uint8_t *packet, uint32_t len, struct sim_rng *r, uint64_t now_us)
{
    struct tcp_segment seg;
    struct ip_packet ip;

    if (p->life == PEER_DEAD || ip_parse(packet, len, &ip) != IP_OK ||
        tcp_header_parse(packet + ip.l4_offset, ip.l4_len, &seg) != TCP_HEADER_OK)
        return;
    if (seg.flags & TCP_RST) {
        uint32_t at = seg.seq - p->irs; /* a liar's RCV.NXT is what it has said */

        p->life = p->life == PEER_OPEN && at != p->next && at != p->acked ? p->life : PEER_DEAD;
        return;
    }
    if (seg.options.present & TCP_OPTION_TIMESTAMPS)
        p->tsval = seg.options.tsval;
    if (seg.flags & TCP_SYN) {
        if (p->life == PEER_NEW)
            hear_syn(p, &seg, now_us);
        else if (p->listens && p->una == 0)
            p->owes_syn = true;
        p->owed += p->life == PEER_OPEN && !p->owes_syn;
        return;
    }
    if (p->life != PEER_OPEN)
        return;
    if (seg.ack - p->iss > p->una)
        p->una = seg.ack - p->iss;
    p->room = seg.ack - p->iss + seg.wnd;
    hear_text(p, &seg);
    if (seg.payload_len == 0 && !(seg.flags & TCP_FIN) && seg.seq - p->irs >= p->acked)
        return;
    if (p->owed++ == 0) {
        p->ack_us = now_us;
        if (p->vices & 1u << VICE_COMPRESS)
            p->ack_us += rng_below(r, 500000);
    }
}

/* --- what it says --- */

static uint32_t peer_build(struct peer *p, const struct peer_segment *g, uint8_t *packet, uint64_t now_us)
{
    const struct ip_addr *src = &host_addresses[1][p->v6], *dst = &host_addresses[0][p->v6];
    uint32_t header = ip_header_len(dst), len;
    struct tcp_options o;
    uint8_t *t = packet + header;
    uint16_t sum;

    memset(&o, 0, sizeof o);
    if (g->flags & TCP_SYN) {
        o.present = (uint8_t)(TCP_OPTION_MSS | (p->sack ? TCP_OPTION_SACK_PERMITTED : 0) |
                              (p->scaling ? TCP_OPTION_WINDOW_SCALE : 0));
        o.mss = p->mss;
        o.window_scale = p->shift;
    }
    if (p->timestamps) {
        o.present |= TCP_OPTION_TIMESTAMPS;
        o.tsval = (uint32_t)(now_us / 1000) - (g->flags & 0x80 ? 100000 : 0);
        o.tsecr = g->flags & TCP_ACK ? p->tsval : 0;
    }
    if (p->sack && g->sack_count != 0) {
        o.present |= TCP_OPTION_SACK;
        o.sack_count = (uint8_t)(p->timestamps && g->sack_count > 3 ? 3 : g->sack_count);
        for (uint32_t i = 0; i < o.sack_count; i++)
            o.sack[i] = (struct tcp_sack_block){p->irs + g->sack[i].begin, p->irs + g->sack[i].end};
    }
    len = TCP_HEADER_LEN + (uint32_t)tcp_options_build(t + TCP_HEADER_LEN, &o);
    memset(t, 0, TCP_HEADER_LEN);
    put_be16(t, (uint16_t)(PEER_PORT + p->index));
    put_be16(t + 2, CORE_PORT);
    put_be32(t + 4, p->iss + g->seq);
    put_be32(t + 8, g->flags & TCP_ACK ? p->irs + g->ack : 0);
    t[12] = (uint8_t)(len / 4 << 4);
    t[13] = g->flags & 0x3f;
    put_be16(t + 14, g->wnd);
    for (uint32_t i = 0; i < g->data_len; i++)
        t[len + i] = peer_byte(p, false, g->seq - 1 + i);
    len += g->data_len;
    ip_build(packet, src, dst, IP_PROTOCOL_TCP, len, 0, IP_TTL);
    sum = checksum_finish(checksum_add(checksum_pseudo(src, dst, IP_PROTOCOL_TCP, len), t, len));
    memcpy(t + 16, &sum, sizeof sum);
    return header + len;
}

static void offer(struct peer *p, struct peer_segment *g, struct sim_rng *r)
{
    g->wnd = 65535;
    if (p->vices & 1u << VICE_SHRINK && rng_below(r, 2))
        g->wnd = (uint16_t)(rng_below(r, 3000) >> p->shift);
    if (p->vices & 1u << VICE_ZERO_WINDOW && rng_below(r, 3))
        g->wnd = 0;
    if (g->ack + ((uint32_t)g->wnd << p->shift) > p->edge)
        p->edge = g->ack + ((uint32_t)g->wnd << p->shift);
}

static uint32_t ack_of(struct peer *p, struct sim_rng *r)
{
    uint32_t target;

    if (p->vices & 1u << VICE_OPTIMISTIC && rng_below(r, 2) && p->top > p->next)
        p->liar = true;
    target = p->liar ? p->top : p->next;
    if (target < p->acked)
        target = p->acked;
    if (p->vices & 1u << VICE_SPLIT && target > p->acked) {
        uint32_t step = 1 + rng_below(r, 300);

        if (target - p->acked > step) {
            target = p->acked + step;
            p->owed++; /* and more at once */
        }
    }
    p->acked = target;
    if (p->vices & 1u << VICE_FUTURE && rng_below(r, 4) == 0) {
        p->liar = true; /* it may be on the way for so long that it is true when it comes */
        return p->top + 1 + rng_below(r, 100000);
    }
    return target;
}

static void flood(struct peer *p, struct peer_segment *g, struct sim_rng *r)
{
    g->sack_count = 1 + rng_below(r, 4);
    for (uint32_t i = 0; i < g->sack_count; i++) {
        g->sack[i].begin = rng_below(r, 3) ? p->acked + rng_below(r, p->top - p->acked + 3000) : (uint32_t)rng_next(r);
        g->sack[i].end = g->sack[i].begin + (rng_below(r, 3) ? rng_below(r, 5000) : (uint32_t)rng_next(r));
    }
}

/* The first hole that an honest receiver reports. */
static void report(const struct peer *p, struct peer_segment *g)
{
    uint32_t at = p->next, end;

    if (p->liar)
        return;
    while (at < p->top && at < TOTAL_MAX + 1 && !p->got[at])
        at++;
    for (end = at; end < p->top && end < TOTAL_MAX + 1 && p->got[end]; end++)
        ;
    if (end > at)
        g->sack[g->sack_count++] = (struct tcp_sack_block){at, end};
}

static bool say_ack(struct peer *p, struct peer_segment *g, struct sim_rng *r, uint64_t now_us)
{
    if (p->owed == 0 || now_us < p->ack_us)
        return false;
    p->owed--;
    if (p->vices & 1u << VICE_STRETCH && p->owed == 0 && rng_below(r, 4)) { /* this one later */
        p->owed = 1;
        p->ack_us = now_us + 1000 + rng_below(r, 300000);
        return false;
    }
    if (p->vices & 1u << VICE_ACK_LOSS && rng_below(r, 2))
        return false;
    if (!(p->vices & 1u << VICE_COMPRESS || p->vices & 1u << VICE_SPLIT))
        p->owed = 0;
    if (p->vices & 1u << VICE_DUPLICATE && rng_below(r, 4) == 0)
        p->owed += rng_below(r, 8);
    p->owed = p->owed < 200 ? p->owed : 200;
    *g = (struct peer_segment){.flags = TCP_ACK, .seq = p->una > 1 ? p->una : 1, .ack = ack_of(p, r)};
    g->seq = p->sent_top > g->seq ? p->sent_top : g->seq;
    if (p->vices & 1u << VICE_SACK_FLOOD)
        flood(p, g, r);
    else
        report(p, g);
    if (p->vices & 1u << VICE_OLD_TIMESTAMPS && rng_below(r, 4) == 0)
        g->flags |= 0x80;
    offer(p, g, r);
    return true;
}

/* Text, and FIN at its end; from una on, or anywhere near. */
static bool say_text(struct peer *p, struct peer_segment *g, struct sim_rng *r)
{
    uint32_t end = p->fin_at + 1, len;

    if (p->burst == 0 || p->una > end)
        return false;
    p->burst--;
    if (p->vices & 1u << VICE_OVERLAP)
        p->data_at = p->una + rng_below(r, 6000) > 3000 ? p->una + rng_below(r, 6000) - 3000 : 1;
    p->data_at = p->data_at < 1 ? 1 : p->data_at > end ? end : p->data_at;
    len = end - p->data_at;
    len = len > 1000 ? 1000 : len;
    if (p->vices & 1u << VICE_OVERLAP && len > 0)
        len = 1 + rng_below(r, len);
    *g = (struct peer_segment){.flags = TCP_ACK | TCP_PSH, .seq = p->data_at, .data_len = len, .ack = ack_of(p, r)};
    p->data_at += len;
    if (p->data_at == end) {
        g->flags |= TCP_FIN;
        p->burst = 0;
    }
    p->sent_top = p->data_at + (p->data_at == end) > p->sent_top ? p->data_at + (p->data_at == end) : p->sent_top;
    offer(p, g, r);
    return true;
}

static bool say_syn(struct peer *p, struct peer_segment *g, uint64_t now_us)
{
    bool again = p->life == PEER_NEW && !p->listens && now_us >= p->due_us;

    if (!again && !p->owes_syn)
        return false;
    p->owes_syn = false;
    if (again)
        p->due_us = now_us + 1000000;
    p->sent_top = p->sent_top > 1 ? p->sent_top : 1;
    *g = (struct peer_segment){.flags = (uint8_t)(again ? TCP_SYN : TCP_SYN | TCP_ACK), .ack = 1, .wnd = 65535};
    return true;
}

/* The next segment that it has for now; false: none. */
static bool peer_next(struct peer *p, struct peer_segment *g, bool evil, struct sim_rng *r, uint64_t now_us)
{
    if (p->life == PEER_DEAD)
        return false;
    if (evil && now_us >= p->end_us && (p->vices & (1u << VICE_DEATH | 1u << VICE_RESET))) {
        *g = (struct peer_segment){.flags = TCP_RST, .seq = p->una};
        evil = p->vices & 1u << VICE_RESET && p->life == PEER_OPEN;
        p->life = PEER_DEAD;
        return evil;
    }
    if (say_syn(p, g, now_us))
        return true;
    if (p->life != PEER_OPEN) {
        if (now_us >= p->due_us)
            p->due_us = now_us + 1000000;
        return false;
    }
    if (say_ack(p, g, r, now_us))
        return true;
    if (now_us >= p->due_us) {
        p->due_us = now_us + (evil ? 1000 + rng_below(r, 300000) : 200000);
        p->data_at = p->una;
        p->burst = p->una > 0 ? 8 : 0;
        if (p->vices && evil && rng_below(r, 4) == 0)
            p->owed++;
        if (p->listens && p->una == 0)
            p->owes_syn = true;
    }
    return say_text(p, g, r);
}

#endif
