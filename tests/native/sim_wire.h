/*
 * sim_wire.h: a wire between two simulated hosts that loses, doubles, corrupts, truncates, cuts up, delays and overtakes, with a rate and a
 * finite queue in each direction.  Packets arrive in the order of (time, number).
 */
#ifndef SIM_WIRE_H
#define SIM_WIRE_H

#include "sim_host.h"
#include "wire/bytes.h"
#include "wire/checksum.h"
#include "wire/ip.h"
#include "wire/tcp_header.h"

enum { WIRE_PACKETS = 2048, WIRE_BYTES = 2000 };

/* Chances are per million packets. */
struct wire_faults {
    uint32_t loss, duplication, corruption, truncation, reordering, recut;
    uint32_t delay_us, jitter_us; /* jitter alone reorders too */
    uint32_t reorder_us;          /* how much later a reordered packet comes at most */
    uint32_t burst;               /* packets lost in a row after a loss, at most */
    uint32_t bytes_per_ms;        /* 0: no limit */
    uint32_t queue_us;            /* what the queue holds at most, at that rate */
    uint32_t marking, unmarking;  /* ECT becomes CE; any mark becomes not-ECT, as by an old router */
};

struct wire_packet {
    uint64_t at_us, order;
    uint32_t index; /* of bytes */
    uint16_t len;
    uint8_t to;
    bool damaged;
};

struct wire {
    struct wire_faults faults;
    struct sim_rng rng;
    struct wire_packet heap[WIRE_PACKETS];
    uint32_t count, free_count;
    uint32_t free[WIRE_PACKETS];
    uint64_t order, busy_until_us[2];
    uint32_t burst_left[2];
    uint64_t lost, doubled, damaged, overtaken, queue_full, recut, marked;
    uint8_t bytes[WIRE_PACKETS][WIRE_BYTES];
};

static void wire_init(struct wire *w, uint64_t seed)
{
    memset(w, 0, offsetof(struct wire, bytes));
    w->rng.state = seed;
    for (uint32_t i = 0; i < WIRE_PACKETS; i++)
        w->free[w->free_count++] = i;
}

static bool wire_before(const struct wire_packet *a, const struct wire_packet *b)
{
    return a->at_us < b->at_us || (a->at_us == b->at_us && a->order < b->order);
}

static void wire_push(struct wire *w, struct wire_packet packet)
{
    uint32_t i = w->count++;

    packet.order = w->order++;
    while (i > 0 && wire_before(&packet, &w->heap[(i - 1) / 2])) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = packet;
}

/* The next packet; its bytes stay until wire_free(). */
static struct wire_packet wire_pop(struct wire *w)
{
    struct wire_packet top = w->heap[0], last = w->heap[--w->count];
    uint32_t i = 0;

    for (;;) {
        uint32_t child = 2 * i + 1;

        if (child >= w->count)
            break;
        if (child + 1 < w->count && wire_before(&w->heap[child + 1], &w->heap[child]))
            child++;
        if (!wire_before(&w->heap[child], &last))
            break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

static void wire_free(struct wire *w, struct wire_packet packet)
{
    w->free[w->free_count++] = packet.index;
}

static uint64_t wire_next_us(const struct wire *w)
{
    return w->count ? w->heap[0].at_us : UINT64_MAX;
}

/* One bit, or up to 8 bits that stand together: the Internet checksum sees all of those. */
static void wire_corrupt(struct wire *w, uint8_t *bytes, uint32_t len)
{
    bytes[rng_below(&w->rng, len)] ^= (uint8_t)rng_between(&w->rng, 1, 255);
}

static void wire_put(struct wire *w, const uint8_t *bytes, uint32_t len, uint8_t to, uint64_t at_us)
{
    struct wire_packet packet = {.at_us = at_us, .len = (uint16_t)len, .to = to};

    if (w->free_count == 0) {
        w->queue_full++;
        return;
    }
    packet.index = w->free[--w->free_count];
    memcpy(w->bytes[packet.index], bytes, len);
    if (rng_chance(&w->rng, w->faults.corruption)) {
        wire_corrupt(w, w->bytes[packet.index], len);
        packet.damaged = true;
        w->damaged++;
    } else if (rng_chance(&w->rng, w->faults.truncation)) {
        packet.len = (uint16_t)rng_between(&w->rng, 1, len - 1);
        packet.damaged = true;
        w->damaged++;
    }
    wire_push(w, packet);
}

/* Makes the packet of payload bytes [from, to) of a TCP packet, as a middlebox would; returns its length. */
static uint32_t wire_piece(uint8_t *out, const uint8_t *in, uint32_t len, uint32_t from, uint32_t to)
{
    bool v6 = in[0] >> 4 == 6;
    uint32_t ip = v6 ? 40 : 20, header = ip + (in[ip + 12] >> 4) * 4u;
    uint32_t payload = len - header, up = get_be16(in + ip + 18), l4;
    struct ip_addr src, dst;
    uint16_t sum;

    memcpy(out, in, header);
    memcpy(out + header, in + header + from, to - from);
    l4 = header - ip + to - from;
    put_be32(out + ip + 4, get_be32(in + ip + 4) + from);
    if (to < payload)
        out[ip + 13] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
    if (up <= from)
        out[ip + 13] &= (uint8_t)~TCP_URG;
    put_be16(out + ip + 18, (uint16_t)(up > from ? up - from : 0));
    if (v6) {
        memcpy(&src, in + 8, 16);
        memcpy(&dst, in + 24, 16);
        put_be16(out + 4, (uint16_t)l4);
    } else {
        src = ip_addr_from_ipv4(in + 12);
        dst = ip_addr_from_ipv4(in + 16);
        put_be16(out + 2, (uint16_t)(20 + l4));
        memset(out + 10, 0, 2);
        sum = checksum_finish(checksum_add(0, out, 20));
        memcpy(out + 10, &sum, 2);
    }
    memset(out + ip + 16, 0, 2);
    sum = checksum_finish(checksum_add(checksum_pseudo(&src, &dst, 6, l4), out + ip, l4));
    memcpy(out + ip + 16, &sum, 2);
    return ip + l4;
}

/* The packet in two pieces that may overlap, in any order. */
static void wire_put_pieces(struct wire *w, const uint8_t *bytes, uint32_t len, uint8_t to, uint64_t at_us)
{
    uint32_t ip = bytes[0] >> 4 == 6 ? 40 : 20, header = ip + (bytes[ip + 12] >> 4) * 4u;
    uint32_t payload = len - header, cut, overlap, first;
    uint8_t piece[WIRE_BYTES];

    if (payload < 2 || (bytes[ip + 13] & (TCP_SYN | TCP_RST))) {
        wire_put(w, bytes, len, to, at_us);
        return;
    }
    cut = rng_between(&w->rng, 1, payload);
    overlap = rng_below(&w->rng, 2) ? rng_below(&w->rng, cut) : 0;
    first = wire_piece(piece, bytes, len, 0, cut);
    wire_put(w, piece, first, to, at_us + rng_below(&w->rng, w->faults.reorder_us + 1));
    if (cut == payload && overlap == 0)
        return;
    first = wire_piece(piece, bytes, len, cut - overlap, payload);
    wire_put(w, piece, first, to, at_us + rng_below(&w->rng, w->faults.reorder_us + 1));
    w->recut++;
}

static bool wire_loses(struct wire *w, uint8_t to)
{
    if (w->burst_left[to] > 0) {
        w->burst_left[to]--;
        return true;
    }
    if (!rng_chance(&w->rng, w->faults.loss))
        return false;
    if (w->faults.burst > 0)
        w->burst_left[to] = rng_below(&w->rng, w->faults.burst);
    return true;
}

static void set_ecn(uint8_t *p, uint8_t ecn)
{
    if (p[0] >> 4 == 6) {
        p[1] = (uint8_t)((p[1] & ~0x30) | ecn << 4);
    } else {
        uint16_t sum;

        p[1] = (uint8_t)((p[1] & ~3) | ecn);
        memset(p + 10, 0, 2);
        sum = checksum_finish(checksum_add(0, p, 20));
        memcpy(p + 10, &sum, 2);
    }
}

/* A router that is congested, or that clears what it does not know. */
static const uint8_t *wire_mark(struct wire *w, const uint8_t *bytes, uint32_t len, uint8_t *copy)
{
    uint8_t ecn = bytes[0] >> 4 == 6 ? bytes[1] >> 4 & 3 : bytes[1] & 3;
    bool mark = rng_chance(&w->rng, w->faults.marking), clear = rng_chance(&w->rng, w->faults.unmarking);

    if (ecn == IP_ECN_NOT_ECT || (!mark && !clear))
        return bytes;
    memcpy(copy, bytes, len);
    set_ecn(copy, clear ? IP_ECN_NOT_ECT : IP_ECN_CE);
    w->marked += !clear;
    return copy;
}

static void wire_send(struct wire *w, const uint8_t *bytes, uint32_t len, uint8_t to, uint64_t now_us)
{
    uint8_t copy[WIRE_BYTES];
    uint64_t at = now_us;

    if (wire_loses(w, to)) {
        w->lost++;
        return;
    }
    if (w->faults.bytes_per_ms > 0) {
        uint64_t start = w->busy_until_us[to] > now_us ? w->busy_until_us[to] : now_us;

        if (start - now_us > w->faults.queue_us) {
            w->queue_full++;
            return;
        }
        at = w->busy_until_us[to] = start + (uint64_t)len * 1000 / w->faults.bytes_per_ms;
    }
    if (w->faults.marking > 0 || w->faults.unmarking > 0)
        bytes = wire_mark(w, bytes, len, copy);
    at += w->faults.delay_us;
    if (w->faults.jitter_us > 0)
        at += rng_below(&w->rng, w->faults.jitter_us);
    if (rng_chance(&w->rng, w->faults.reordering)) {
        at += rng_below(&w->rng, w->faults.reorder_us + 1);
        w->overtaken++;
    }
    if (rng_chance(&w->rng, w->faults.recut))
        wire_put_pieces(w, bytes, len, to, at);
    else
        wire_put(w, bytes, len, to, at);
    if (rng_chance(&w->rng, w->faults.duplication)) {
        wire_put(w, bytes, len, to, at + rng_below(&w->rng, w->faults.reorder_us + 1));
        w->doubled++;
    }
}

#endif
