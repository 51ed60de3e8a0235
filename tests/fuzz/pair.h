/*
 * pair.h: for fuzz targets: two TCP cores and the packets between them, which go on their way only when they are told to.
 */
#ifndef FUZZ_PAIR_H
#define FUZZ_PAIR_H

#include "fuzz/input.h"
#include "native/sim_host.h"

enum { WIRE_MAX = 64, TURNS_MAX = 400 };

struct pair_packet {
    uint8_t to;
    uint32_t len;
    uint8_t bytes[TCP_SLOT_BYTES];
};

struct pair {
    struct pair_packet wire[WIRE_MAX]; /* the oldest first; behind it all is zero at first */
    struct sim_failure failure;
    struct sim_host hosts[2];
    uint32_t count, lose; /* packets that will be lost from now on */
    uint64_t now_us;
    void (*heard)(struct pair *p, uint32_t host, const struct tcp_event *event);
    void (*sent)(struct pair *p, uint32_t host, const uint8_t *packet, uint32_t len); /* or null */
};

static bool pair_transmit(struct sim_host *h, const uint8_t *packet, uint32_t len)
{
    struct pair *p = h->world;
    struct pair_packet *out = &p->wire[p->count];

    if (p->count == WIRE_MAX)
        return false;
    if (p->sent != NULL)
        p->sent(p, h->index, packet, len);
    if (p->lose > 0) {
        p->lose--;
        return true;
    }
    out->to = (uint8_t)!h->index;
    out->len = len;
    memcpy(out->bytes, packet, len);
    p->count++;
    return true;
}

static void pair_open(struct pair *p, const struct tcp_config *config, uint64_t now_us, uint32_t busy_max_us)
{
    p->now_us = now_us;
    for (uint32_t i = 0; i < 2; i++) {
        struct sim_host *h = &p->hosts[i];

        h->failure = &p->failure;
        h->transmit = pair_transmit;
        h->world = p;
        h->index = i;
        h->rng.state = i;
        h->busy_max_us = busy_max_us;
        h->config = *config;
        host_open(h, now_us);
        for (uint32_t family = 0; family < 2; family++)
            tcp_add_address(h->s, &host_addresses[i][family]);
    }
}

static void pair_close(struct pair *p)
{
    host_close(&p->hosts[0]);
    host_close(&p->hosts[1]);
}

static void pair_events(struct pair *p, uint32_t host)
{
    struct tcp_event event;

    while (tcp_next_event(p->hosts[host].s, &event))
        p->heard(p, host, &event);
}

/* A packet to one host.  The drop reason; TCP_DROP_COUNT: it had no slot for it. */
static uint32_t pair_give(struct pair *p, uint32_t host, const uint8_t *bytes, uint32_t len)
{
    struct tcp_packet in = {0};

    if (!host_receive(&p->hosts[host], bytes, len, &in))
        return TCP_DROP_COUNT;
    return tcp_input(p->hosts[host].s, &in, p->now_us);
}

/* The packet at this place of the wire arrives. */
static void pair_deliver(struct pair *p, uint32_t at)
{
    static struct pair_packet packet;

    packet = p->wire[at];
    p->count--;
    memmove(&p->wire[at], &p->wire[at + 1], (p->count - at) * sizeof *p->wire);
    pair_give(p, packet.to, packet.bytes, packet.len);
    pair_events(p, packet.to);
}

/* What each host has to do now, but not what is on the wire. */
static void pair_work(struct pair *p)
{
    for (uint32_t i = 0; i < 2; i++) {
        struct sim_host *h = &p->hosts[i];

        h->now_us = p->now_us;
        host_complete(h, p->now_us);
        tcp_advance(h->s, p->now_us);
        pair_events(p, i);
        tcp_output(h->s, p->now_us);
        pair_events(p, i);
    }
}

/* All that is on the wire arrives, and the answers. */
static void pair_settle(struct pair *p)
{
    pair_work(p);
    for (uint32_t i = 0; i < TURNS_MAX && p->count > 0; i++) {
        for (uint32_t n = p->count; n > 0; n--)
            pair_deliver(p, 0);
        pair_work(p);
    }
}

/* Time passes; what is sent arrives. */
static void pair_pass(struct pair *p, uint64_t us)
{
    uint64_t end = p->now_us + us;

    for (uint32_t i = 0; i < TURNS_MAX && p->now_us < end; i++) {
        uint64_t next = end;

        pair_settle(p);
        for (uint32_t host = 0; host < 2; host++) {
            uint64_t timer = tcp_next_deadline(p->hosts[host].s), done = host_next_completion(&p->hosts[host]);

            next = timer < next ? timer : next;
            next = done < next ? done : next;
        }
        p->now_us = next > p->now_us + 100 ? next : p->now_us + 100;
    }
    pair_settle(p);
}

/* No timer waits, and nothing is on its way. */
static bool pair_is_at_rest(const struct pair *p)
{
    bool rest = p->count == 0;

    for (uint32_t i = 0; i < 2; i++)
        rest =
            rest && tcp_next_deadline(p->hosts[i].s) == UINT64_MAX && host_next_completion(&p->hosts[i]) == UINT64_MAX;
    return rest;
}

static void pair_check(struct pair *p)
{
    host_check(&p->hosts[0]);
    host_check(&p->hosts[1]);
}

#endif
