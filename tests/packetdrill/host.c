/*
 * host.c: see host.h.
 */
#include "tests/packetdrill/host.h"

#include "wire/bytes.h"
#include "wire/checksum.h"
#include "wire/ip.h"
#include "wire/tcp_header.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { START_US = 1000000000, TELL_SECONDS = 2 };

/* --- what the core asks for --- */

static uint32_t tx_alloc(void *context)
{
    struct host *h = context;

    return h->tx_free_count != 0 ? h->tx_free[--h->tx_free_count] : TCP_NO_SLOT;
}

static void tx_free(void *context, uint32_t slot)
{
    struct host *h = context;

    h->tx_free[h->tx_free_count++] = slot;
}

static uint8_t *tx_data(void *context, uint32_t slot)
{
    return ((struct host *)context)->tx + (size_t)slot * TCP_SLOT_BYTES;
}

static bool is_whole(const uint8_t *data, uint32_t len)
{
    struct ip_packet ip;

    return ip_parse(data, len, &ip) == IP_OK && ip.total_len == len &&
           tcp_header_verify(data + ip.l4_offset, ip.l4_len, &ip.src, &ip.dst) == TCP_HEADER_OK;
}

static bool tx_send(void *context, uint32_t slot, uint32_t offset, uint32_t len, bool last)
{
    struct host *h = context;
    struct host_packet *p = &h->out[(h->out_first + h->out_count) % HOST_OUT_MAX];

    if (h->out_count == HOST_OUT_MAX)
        return false;
    h->out_count++;
    p->at_us = h->now_us;
    p->len = len;
    memcpy(p->data, tx_data(h, slot) + offset, len);
    if (!is_whole(p->data, len)) {
        fprintf(stderr, "janus: the stack sent a packet that is malformed or has a wrong checksum\n");
        h->broken = true;
    }
    if (last)
        tx_free(h, slot);
    return true;
}

static bool tx_busy(void *context, uint32_t slot)
{
    (void)context, (void)slot;
    return false;
}

static uint32_t tx_available(void *context)
{
    return ((struct host *)context)->tx_free_count;
}

static const uint8_t *rx_data(void *context, uint32_t slot)
{
    return ((struct host *)context)->rx + (size_t)slot * TCP_SLOT_BYTES;
}

static void rx_release(void *context, uint32_t slot)
{
    struct host *h = context;

    h->rx_free[h->rx_free_count++] = slot;
}

/* The same in every run. */
static void random_bytes(void *context, void *data, size_t len)
{
    struct host *h = context;

    for (size_t i = 0; i < len; i++) {
        h->random = h->random * 6364136223846793005u + 1442695040888963407u;
        ((uint8_t *)data)[i] = (uint8_t)(h->random >> 56);
    }
}

/* --- life --- */

static void *get(size_t alignment, size_t bytes)
{
    size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    void *p = aligned_alloc(alignment, rounded);

    if (p == NULL) {
        perror("janus");
        exit(1);
    }
    return memset(p, 0, rounded);
}

void host_init(struct host *h, const struct host_settings *settings, void (*on_event)(const struct tcp_event *event))
{
    pthread_condattr_t attr;

    memset(h, 0, sizeof *h);
    pthread_mutex_init(&h->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&h->wake, &attr);
    pthread_cond_init(&h->told, &attr);
    pthread_condattr_destroy(&attr);
    h->main = pthread_self();
    h->settings = *settings;
    h->now_us = START_US;
    h->random = 1;
    h->on_event = on_event;
    h->tx = get(64, (size_t)HOST_TX_SLOTS * TCP_SLOT_BYTES);
    h->rx = get(64, (size_t)HOST_RX_SLOTS * TCP_SLOT_BYTES);
    h->tx_free = get(64, HOST_TX_SLOTS * sizeof *h->tx_free);
    h->rx_free = get(64, HOST_RX_SLOTS * sizeof *h->rx_free);
    h->out = get(64, HOST_OUT_MAX * sizeof *h->out);
    while (h->tx_free_count < HOST_TX_SLOTS)
        tx_free(h, HOST_TX_SLOTS - 1 - h->tx_free_count);
    while (h->rx_free_count < HOST_RX_SLOTS)
        rx_release(h, HOST_RX_SLOTS - 1 - h->rx_free_count);
    host_own(h, &settings->laddr[0]);
    host_own(h, &settings->laddr[1]);
}

void host_free(struct host *h)
{
    free(h->memory);
    free(h->rows);
    free(h->tx);
    free(h->rx);
    free(h->tx_free);
    free(h->rx_free);
    free(h->out);
    pthread_cond_destroy(&h->wake);
    pthread_cond_destroy(&h->told);
    pthread_mutex_destroy(&h->lock);
    memset(h, 0, sizeof *h);
}

struct tcp_stack *host_stack(struct host *h)
{
    const struct tcp_config *config = &h->settings.config;
    const struct tcp_env env = {
        .context = h,
        .tx_alloc = tx_alloc,
        .tx_free = tx_free,
        .tx_data = tx_data,
        .tx_send = tx_send,
        .tx_busy = tx_busy,
        .tx_available = tx_available,
        .rx_data = rx_data,
        .rx_release = rx_release,
        .random = random_bytes,
    };

    if (h->stack != NULL || tcp_memory_bytes(config) == 0)
        return h->stack;
    h->memory = get(64, tcp_memory_bytes(config));
    h->rows = get(128, tcp_rows_bytes(config));
    h->stack = tcp_init(config, &env, h->memory, h->rows, h->now_us);
    for (uint32_t i = 0; h->stack != NULL && i < h->address_count; i++)
        tcp_add_address(h->stack, &h->addresses[i]);
    return h->stack;
}

void host_own(struct host *h, const struct ip_addr *addr)
{
    for (uint32_t i = 0; i < h->address_count; i++)
        if (ip_addr_equal(&h->addresses[i], addr))
            return;
    if (h->address_count == TCP_ADDRESSES_MAX)
        return;
    h->addresses[h->address_count++] = *addr;
    if (h->stack != NULL)
        tcp_add_address(h->stack, addr);
}

/* --- time --- */

/* Lets the other thread go on when it can, and waits until it has told its time. */
static void wake_waiter(struct host *h)
{
    struct host_waiter *w = h->waiter;
    struct timespec until;

    if (w == NULL || w->go || !(w->is_over(w->arg) || h->now_us >= w->deadline_us))
        return;
    w->go = h->telling = true;
    pthread_cond_broadcast(&h->wake);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += TELL_SECONDS;
    while (h->telling && pthread_cond_timedwait(&h->told, &h->lock, &until) == 0)
        ;
    h->telling = false;
}

void host_step(struct host *h)
{
    struct tcp_event event;
    bool moved;

    do {
        moved = h->stack != NULL && tcp_output(h->stack, h->now_us) != 0;
        while (h->stack != NULL && tcp_next_event(h->stack, &event)) {
            h->on_event(&event);
            moved = true;
        }
    } while (moved);
    if (pthread_equal(pthread_self(), h->main))
        wake_waiter(h);
}

/* When something happens by itself. */
static uint64_t next_us(const struct host *h)
{
    uint64_t at = h->stack != NULL ? tcp_next_deadline(h->stack) : HOST_NEVER;

    if (h->waiter != NULL && !h->waiter->go && h->waiter->deadline_us < at)
        at = h->waiter->deadline_us;
    return at > h->now_us ? at : h->now_us + 1;
}

static void advance(struct host *h, uint64_t at_us)
{
    h->now_us = at_us;
    if (h->stack != NULL)
        tcp_advance(h->stack, at_us);
    host_step(h);
}

void host_run_until(struct host *h, uint64_t target_us, bool (*is_over)(void *arg), void *arg)
{
    uint64_t at;

    while (!(is_over != NULL && is_over(arg)) && (at = next_us(h)) <= target_us)
        advance(h, at);
    if (!(is_over != NULL && is_over(arg)) && target_us > h->now_us)
        advance(h, target_us);
}

bool host_wait(struct host *h, bool (*is_over)(void *arg), void *arg, uint64_t deadline_us)
{
    struct host_waiter waiter = {is_over, arg, deadline_us, false};

    host_step(h);
    if (is_over(arg) || h->now_us >= deadline_us)
        return is_over(arg);
    if (pthread_equal(pthread_self(), h->main)) {
        uint64_t limit = h->now_us + HOST_RECEIVE_US;

        host_run_until(h, deadline_us < limit ? deadline_us : limit, is_over, arg);
        return is_over(arg);
    }
    h->waiter = &waiter;
    host_tell(h);
    while (!waiter.go)
        pthread_cond_wait(&h->wake, &h->lock);
    h->waiter = NULL;
    return is_over(arg);
}

void host_tell(struct host *h)
{
    if (pthread_equal(pthread_self(), h->main))
        return;
    h->telling = false;
    pthread_cond_broadcast(&h->told);
}

/* --- packets in --- */

static void input_one(struct host *h, const uint8_t *data, uint32_t len, bool verified)
{
    struct tcp_packet packet = {.offset = HOST_RX_OFFSET, .len = (uint16_t)len, .verified = verified};

    if (h->rx_free_count == 0)
        return; /* as a NIC does */
    packet.slot = h->rx_free[--h->rx_free_count];
    packet.ip = memcpy(h->rx + (size_t)packet.slot * TCP_SLOT_BYTES + HOST_RX_OFFSET, data, len);
    tcp_input(h->stack, &packet, h->now_us);
}

/* A packet that is too long for a slot, as segments with mss bytes of payload: PSH and FIN are the last one's, CWR is the first one's. */
static void input_segments(struct host *h, const uint8_t *data, const struct ip_packet *ip, uint32_t mss)
{
    const uint8_t *tcp = data + ip->l4_offset;
    uint8_t piece[TCP_SLOT_BYTES];
    struct tcp_segment seg;
    uint32_t headers;

    if (tcp_header_verify(tcp, ip->l4_len, &ip->src, &ip->dst) != TCP_HEADER_OK ||
        tcp_header_parse(tcp, ip->l4_len, &seg) != TCP_HEADER_OK)
        return;
    headers = ip->l4_offset + seg.data_offset;
    for (uint32_t done = 0; done < seg.payload_len; done += mss) {
        uint32_t part = seg.payload_len - done < mss ? seg.payload_len - done : mss;
        bool is_last = done + part == seg.payload_len;
        uint8_t *piece_tcp = piece + ip->l4_offset;
        uint32_t ip_len = headers + part;
        uint16_t sum;

        memcpy(piece, data, headers);
        memcpy(piece + headers, data + headers + done, part);
        if (ip->version == 4) {
            put_be16(piece + 2, (uint16_t)ip_len);
            put_be16(piece + 10, 0);
            sum = checksum_finish(checksum_add(0, piece, ip->l4_offset));
            memcpy(piece + 10, &sum, sizeof sum);
        } else {
            put_be16(piece + 4, (uint16_t)(ip_len - IPV6_HEADER_LEN));
        }
        put_be32(piece_tcp + 4, seg.seq + done);
        piece_tcp[13] = seg.flags & (uint8_t) ~((is_last ? 0 : TCP_PSH | TCP_FIN) | (done == 0 ? 0 : TCP_CWR));
        input_one(h, piece, ip_len, true);
    }
}

void host_input(struct host *h, const uint8_t *data, uint32_t len)
{
    struct ip_packet ip;

    if (host_stack(h) == NULL || ip_parse(data, len, &ip) != IP_OK)
        return;
    host_own(h, &ip.dst);
    if (ip.total_len + HOST_RX_OFFSET <= TCP_SLOT_BYTES)
        input_one(h, data, ip.total_len, false);
    else if (ip.protocol == IP_PROTOCOL_TCP)
        input_segments(h, data, &ip, h->settings.config.mtu - ip.l4_offset - TCP_HEADER_MAX);
}
