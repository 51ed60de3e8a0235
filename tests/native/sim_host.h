/*
 * sim_host.h: what a simulated machine gives its TCP core: slots with one owner each, a transmit queue that keeps slots
 * busy for a while and is full at times, random bytes from a seed.
 *
 * The regions may be replaced under the core, as when the daemon restarts: host_rebase().
 *
 * Everything that the core may not do with a slot ends the run: to send, free or release what it does not own, to send what
 * is busy, to write into a packet that is still being sent.
 */
#ifndef SIM_HOST_H
#define SIM_HOST_H

#include "tcp/tcp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* By host, and IPv4 or IPv6. */
static const struct ip_addr host_addresses[2][2] = {
    {{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 77, 0, 1}},
     {{0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}},
    {{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 77, 0, 2}},
     {{0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}}},
};

/* splitmix64 (Steele, Lea, Flood 2014). */
struct sim_rng {
    uint64_t state;
};

static uint64_t rng_next(struct sim_rng *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

/* 0 to n - 1. */
static uint32_t rng_below(struct sim_rng *r, uint32_t n)
{
    return (uint32_t)((rng_next(r) >> 32) * n >> 32);
}

static uint32_t rng_between(struct sim_rng *r, uint32_t low, uint32_t high)
{
    return low + rng_below(r, high - low + 1);
}

static bool rng_chance(struct sim_rng *r, uint32_t per_million)
{
    return rng_below(r, 1000000) < per_million;
}

/* Of bytes; not for strangers' input. */
static uint64_t sim_hash(uint64_t h, const void *data, size_t len)
{
    const uint8_t *p = data;
    uint64_t word;

    for (; len >= 8; len -= 8, p += 8) {
        memcpy(&word, p, 8);
        h = (h ^ word) * 0x9fb21c651e98df25ull;
        h ^= h >> 32;
    }
    word = len;
    memcpy(&word, p, len);
    h = (h ^ word) * 0x9fb21c651e98df25ull;
    return h ^ h >> 29;
}

struct sim_failure {
    jmp_buf out;
    char text[256];
};

__attribute__((format(printf, 2, 3), noreturn)) static void sim_fail(struct sim_failure *f, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(f->text, sizeof f->text, format, args);
    va_end(args);
    longjmp(f->out, 1);
}

enum tx_owner { TX_FREE, TX_OWNED, TX_GIVEN }; /* GIVEN: freed when it is no longer busy */

struct sim_tx {
    uint8_t owner;
    bool busy;
    uint16_t offset, len;
    uint32_t next_busy;
    uint64_t until_us, hash; /* while busy: the bytes being sent must not change */
};

struct sim_host;

/* Where packets go.  False: the way out is full. */
typedef bool sim_transmit(struct sim_host *h, const uint8_t *packet, uint32_t len);

struct sim_host {
    struct tcp_stack *s;
    struct tcp_config config;
    struct sim_failure *failure;
    sim_transmit *transmit;
    void *world;
    uint32_t index;
    struct sim_rng rng;
    uint64_t now_us;
    uint32_t busy_max_us; /* how long a sent slot stays busy at most */
    void *memory, *rows;
    uint8_t *tx_bytes, *rx_bytes;
    struct sim_tx *tx;
    bool *rx_held;
    uint32_t *tx_free, *rx_free;
    uint32_t tx_free_count, rx_free_count, busy_first;
    struct sim_host *old; /* while the regions are being replaced */
    bool refused;         /* transmit said no since it was last asked */
};

static uint32_t host_tx_alloc(void *context)
{
    struct sim_host *h = context;
    uint32_t slot;

    if (h->tx_free_count == 0)
        return TCP_NO_SLOT;
    slot = h->tx_free[--h->tx_free_count];
    h->tx[slot].owner = TX_OWNED;
    return slot;
}

static void host_own_tx(struct sim_host *h, uint32_t slot, const char *what)
{
    if (slot >= h->config.tx_slots || h->tx[slot].owner != TX_OWNED)
        sim_fail(h->failure, "host %u: %s of TX slot %u that the core does not own", h->index, what, slot);
}

static void host_tx_give(struct sim_host *h, uint32_t slot)
{
    if (h->tx[slot].busy) {
        h->tx[slot].owner = TX_GIVEN;
    } else {
        h->tx[slot].owner = TX_FREE;
        h->tx_free[h->tx_free_count++] = slot;
    }
}

static void host_tx_free(void *context, uint32_t slot)
{
    host_own_tx(context, slot, "tx_free");
    host_tx_give(context, slot);
}

static uint8_t *host_tx_data(void *context, uint32_t slot)
{
    struct sim_host *h = context;

    host_own_tx(h, slot, "tx_data");
    return h->tx_bytes + (size_t)slot * TCP_SLOT_BYTES;
}

static bool host_tx_send(void *context, uint32_t slot, uint32_t offset, uint32_t len, bool last)
{
    struct sim_host *h = context;
    const uint8_t *packet = h->tx_bytes + (size_t)slot * TCP_SLOT_BYTES + offset;
    struct sim_tx *tx;

    host_own_tx(h, slot, "tx_send");
    tx = &h->tx[slot];
    if (tx->busy)
        sim_fail(h->failure, "host %u: tx_send of busy slot %u", h->index, slot);
    if (len > h->config.mtu || offset > TCP_SLOT_BYTES || offset + len > TCP_SLOT_BYTES || len < 40)
        sim_fail(h->failure, "host %u: tx_send of %u bytes at %u", h->index, len, offset);
    if (!h->transmit(h, packet, len)) {
        h->refused = true;
        return false;
    }
    if (h->busy_max_us > 0) {
        tx->busy = true;
        tx->offset = (uint16_t)offset;
        tx->len = (uint16_t)len;
        tx->until_us = h->now_us + rng_below(&h->rng, h->busy_max_us);
        tx->hash = sim_hash(0, packet, len);
        tx->next_busy = h->busy_first;
        h->busy_first = slot;
    }
    if (last)
        host_tx_give(h, slot);
    return true;
}

static bool host_tx_busy(void *context, uint32_t slot)
{
    host_own_tx(context, slot, "tx_busy");
    return ((struct sim_host *)context)->tx[slot].busy;
}

static uint32_t host_tx_available(void *context)
{
    return ((struct sim_host *)context)->tx_free_count;
}

static void host_own_rx(struct sim_host *h, uint32_t slot, const char *what)
{
    if (slot >= h->config.rx_slots || !h->rx_held[slot])
        sim_fail(h->failure, "host %u: %s of RX slot %u that the core does not hold", h->index, what, slot);
}

static const uint8_t *host_rx_data(void *context, uint32_t slot)
{
    struct sim_host *h = context;

    host_own_rx(h, slot, "rx_data");
    return h->rx_bytes + (size_t)slot * TCP_SLOT_BYTES;
}

static void host_rx_release(void *context, uint32_t slot)
{
    struct sim_host *h = context;

    host_own_rx(h, slot, "rx_release");
    h->rx_held[slot] = false;
    h->rx_free[h->rx_free_count++] = slot;
    memset(h->rx_bytes + (size_t)slot * TCP_SLOT_BYTES, 0xdd, 256); /* who still reads it, reads nonsense */
}

static void host_random(void *context, void *data, size_t len)
{
    struct sim_host *h = context;
    uint8_t *p = data;

    while (len-- > 0)
        *p++ = (uint8_t)(rng_next(&h->rng) >> 40);
}

/* Ends what was being sent until now. */
static void host_complete(struct sim_host *h, uint64_t now_us)
{
    uint32_t *link = &h->busy_first;

    while (*link != TCP_NO_SLOT) {
        uint32_t slot = *link;
        struct sim_tx *tx = &h->tx[slot];

        if (tx->until_us > now_us) {
            link = &tx->next_busy;
            continue;
        }
        if (sim_hash(0, h->tx_bytes + (size_t)slot * TCP_SLOT_BYTES + tx->offset, tx->len) != tx->hash)
            sim_fail(h->failure, "host %u: TX slot %u was written while it was being sent", h->index, slot);
        *link = tx->next_busy;
        tx->busy = false;
        if (tx->owner == TX_GIVEN)
            host_tx_give(h, slot);
    }
}

static uint64_t host_next_completion(const struct sim_host *h)
{
    uint64_t next = UINT64_MAX;

    for (uint32_t slot = h->busy_first; slot != TCP_NO_SLOT; slot = h->tx[slot].next_busy) {
        if (h->tx[slot].until_us < next)
            next = h->tx[slot].until_us;
    }
    return next;
}

/* Puts a packet into a free RX slot; false: none is free. */
static bool host_receive(struct sim_host *h, const uint8_t *data, uint32_t len, struct tcp_packet *packet)
{
    uint32_t slot;

    if (h->rx_free_count == 0)
        return false;
    slot = h->rx_free[--h->rx_free_count];
    h->rx_held[slot] = true;
    packet->slot = slot;
    packet->offset = 64;
    packet->len = (uint16_t)len;
    packet->ip = memcpy(h->rx_bytes + (size_t)slot * TCP_SLOT_BYTES + packet->offset, data, len);
    return true;
}

static void host_free_slots(struct sim_host *h)
{
    free(h->rows);
    free(h->tx_bytes);
    free(h->rx_bytes);
    free(h->tx);
    free(h->rx_held);
    free(h->tx_free);
    free(h->rx_free);
}

static void host_close(struct sim_host *h)
{
    free(h->memory);
    host_free_slots(h);
}

static struct tcp_env host_env(struct sim_host *h)
{
    return (struct tcp_env){
        .context = h,
        .tx_alloc = host_tx_alloc,
        .tx_free = host_tx_free,
        .tx_data = host_tx_data,
        .tx_send = host_tx_send,
        .tx_busy = host_tx_busy,
        .tx_available = host_tx_available,
        .rx_data = host_rx_data,
        .rx_release = host_rx_release,
        .random = host_random,
    };
}

static size_t host_rows_bytes(const struct sim_host *h)
{
    return (tcp_rows_bytes(&h->config) + 127) & ~(size_t)127;
}

/* Fresh rows and pools, all slots free, given out from high numbers down when backwards. */
static void host_make_slots(struct sim_host *h, bool backwards)
{
    uint32_t tx = h->config.tx_slots, rx = h->config.rx_slots;

    h->rows = memset(aligned_alloc(128, host_rows_bytes(h)), 0, host_rows_bytes(h));
    h->tx_bytes = malloc((size_t)tx * TCP_SLOT_BYTES);
    h->rx_bytes = malloc((size_t)rx * TCP_SLOT_BYTES);
    h->tx = calloc(tx, sizeof *h->tx);
    h->rx_held = calloc(rx, sizeof *h->rx_held);
    h->tx_free = calloc(tx, sizeof *h->tx_free);
    h->rx_free = calloc(rx, sizeof *h->rx_free);
    h->busy_first = TCP_NO_SLOT;
    for (h->tx_free_count = 0; h->tx_free_count < tx; h->tx_free_count++)
        h->tx_free[h->tx_free_count] = backwards ? h->tx_free_count : tx - 1 - h->tx_free_count;
    for (h->rx_free_count = 0; h->rx_free_count < rx; h->rx_free_count++)
        h->rx_free[h->rx_free_count] = backwards ? h->rx_free_count : rx - 1 - h->rx_free_count;
}

/* With failure, transmit, world, index, rng, busy_max_us and config set. */
static void host_open(struct sim_host *h, uint64_t now_us)
{
    const struct tcp_env env = host_env(h);
    size_t memory = (tcp_memory_bytes(&h->config) + 127) & ~(size_t)127;

    if (memory == 0 || host_rows_bytes(h) == 0)
        sim_fail(h->failure, "host %u: configuration refused", h->index);
    h->now_us = now_us;
    h->memory = memset(aligned_alloc(128, memory), 0, memory);
    host_make_slots(h, false);
    h->s = tcp_init(&h->config, &env, h->memory, h->rows, now_us);
    if (h->s == NULL)
        sim_fail(h->failure, "host %u: tcp_init() refused", h->index);
}

static uint32_t host_move_tx(void *context, uint32_t slot)
{
    struct sim_host *h = context;
    uint32_t fresh = host_tx_alloc(h);

    host_own_tx(h->old, slot, "move");
    h->old->tx[slot].owner = TX_FREE;
    memcpy(h->tx_bytes + (size_t)fresh * TCP_SLOT_BYTES, h->old->tx_bytes + (size_t)slot * TCP_SLOT_BYTES,
           TCP_SLOT_BYTES);
    return fresh;
}

static uint32_t host_move_rx(void *context, uint32_t slot)
{
    struct sim_host *h = context;
    uint32_t fresh = h->rx_free[--h->rx_free_count];

    host_own_rx(h->old, slot, "move");
    h->old->rx_held[slot] = false;
    h->rx_held[fresh] = true;
    memcpy(h->rx_bytes + (size_t)fresh * TCP_SLOT_BYTES, h->old->rx_bytes + (size_t)slot * TCP_SLOT_BYTES,
           TCP_SLOT_BYTES);
    return fresh;
}

/* What the core does without is overwritten, as by a machine that has taken it back. */
static void host_give_spare(struct sim_host *h)
{
    struct tcp_spare spare;

    while (tcp_next_spare(h->s, h->now_us, &spare)) {
        for (uint32_t i = 0; i < 2 && spare.part[i].bytes != 0; i++)
            memset(spare.part[i].memory, 0, spare.part[i].bytes);
    }
}

/* All slots and rows are elsewhere and have other numbers; what was being sent is gone. */
static void host_rebase(struct sim_host *h, uint32_t spread_us)
{
    const struct tcp_env env = host_env(h);
    struct sim_host old = *h;
    bool left = false;

    host_make_slots(h, rng_below(&h->rng, 2));
    h->old = &old;
    tcp_rebase(h->s, &env, h->rows, host_move_tx, host_move_rx, h->now_us, spread_us);
    h->old = NULL;
    for (uint32_t i = 0; i < h->config.tx_slots; i++)
        left |= old.tx[i].owner == TX_OWNED;
    for (uint32_t i = 0; i < h->config.rx_slots; i++)
        left |= old.rx_held[i];
    host_free_slots(&old);
    if (left)
        sim_fail(h->failure, "host %u: tcp_rebase() left a slot behind", h->index);
}

/* Held and free slots of pool and core agree; for between the core's functions. */
static void host_check(struct sim_host *h)
{
    struct tcp_usage usage;
    uint32_t owned = 0, held = 0;

    tcp_check(h->s);
    tcp_usage(h->s, &usage);
    for (uint32_t i = 0; i < h->config.tx_slots; i++)
        owned += h->tx[i].owner == TX_OWNED;
    for (uint32_t i = 0; i < h->config.rx_slots; i++)
        held += h->rx_held[i];
    if (owned != usage.tx_slots_held || held != usage.rx_slots_held)
        sim_fail(h->failure, "host %u: owns %u TX and %u RX slots, knows of %u and %u", h->index, owned, held,
                 usage.tx_slots_held, usage.rx_slots_held);
}

/* Nothing is left of anything. */
static void host_check_empty(struct sim_host *h)
{
    struct tcp_usage usage;

    host_check(h);
    tcp_usage(h->s, &usage);
    if (usage.conns | usage.half_open | usage.time_wait | usage.extensions | usage.rx_slots_held | usage.tx_slots_held)
        sim_fail(h->failure,
                 "host %u: left over: %u connections, %u half open, %u TIME-WAIT, %u extensions, %u + %u slots",
                 h->index, usage.conns, usage.half_open, usage.time_wait, usage.extensions, usage.rx_slots_held,
                 usage.tx_slots_held);
    if (h->rx_free_count != h->config.rx_slots || h->tx_free_count != h->config.tx_slots)
        sim_fail(h->failure, "host %u: %u RX and %u TX slots free at the end", h->index, h->rx_free_count,
                 h->tx_free_count);
}

#endif
