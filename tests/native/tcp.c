/*
 * A driver of one TCP stack that records: slots in plain arrays, sent packets copied to a list, refusals on request.
 */
#include "tcp/rate.h"
#include "tcp/stack.h"
#include "wire/bytes.h"

#include <assert.h>
#include <stdlib.h>

enum { PACKETS_MAX = 16384, BATCH_MAX = 64 };

struct native_packet {
    uint32_t len;
    uint8_t data[TCP_SLOT_BYTES];
};

struct native {
    struct tcp_stack *stack;
    struct tcp_config config;
    struct tcp_env env;
    void *memory, *rows;
    uint8_t *tx, *rx;
    uint8_t *tx_state; /* bit 0: owned by the core, bit 1: busy, bit 2: freed while busy */
    uint8_t *rx_state; /* 1: with the core */
    uint32_t tx_limit; /* slots that tx_alloc() gives at most */
    uint32_t tx_used, rx_used;
    uint64_t asked;    /* how many free slots there are */
    uint32_t out_room; /* packets that tx_send() takes before it refuses */
    bool hold;         /* sent slots stay busy until native_complete() */
    uint64_t random;
    uint32_t first, count;
    uint32_t moves;
    bool dry;           /* there is no memory for rows that come into use */
    bool refuse;        /* the balancer lets no flow begin */
    enum tcp_miss miss; /* its word on segments without a connection */
    struct native_packet *packets;
    struct tcp_packet batch[BATCH_MAX];
    uint32_t batched;
    uint32_t odd_low; /* what the batch's packets say of the low half of their hash; 0: the truth */
};

static uint32_t native_tx_alloc(void *context)
{
    struct native *n = context;

    if (n->tx_used >= n->tx_limit)
        return TCP_NO_SLOT;
    for (uint32_t i = 0; i < n->config.tx_slots; i++)
        if (n->tx_state[i] == 0) {
            n->tx_state[i] = 1;
            n->tx_used++;
            memset(n->tx + (size_t)i * TCP_SLOT_BYTES, 0xaa, TCP_SLOT_BYTES);
            return i;
        }
    return TCP_NO_SLOT;
}

static void native_tx_free(void *context, uint32_t slot)
{
    struct native *n = context;

    assert(slot < n->config.tx_slots && (n->tx_state[slot] & 5) == 1);
    if (n->tx_state[slot] & 2) {
        n->tx_state[slot] |= 4;
        return;
    }
    n->tx_state[slot] = 0;
    n->tx_used--;
}

static uint8_t *native_tx_data(void *context, uint32_t slot)
{
    struct native *n = context;

    assert(n->tx_state[slot] & 1);
    return n->tx + (size_t)slot * TCP_SLOT_BYTES;
}

static bool native_tx_send(void *context, uint32_t slot, uint32_t offset, uint32_t len, bool last)
{
    struct native *n = context;
    struct native_packet *p;

    assert(n->tx_state[slot] == 1 && offset + len <= TCP_SLOT_BYTES);
    if (n->out_room == 0 || n->count == PACKETS_MAX)
        return false;
    n->out_room--;
    p = &n->packets[(n->first + n->count++) % PACKETS_MAX];
    p->len = len;
    memcpy(p->data, n->tx + (size_t)slot * TCP_SLOT_BYTES + offset, len);
    if (n->hold)
        n->tx_state[slot] |= 2;
    if (last)
        native_tx_free(n, slot);
    return true;
}

static bool native_tx_busy(void *context, uint32_t slot)
{
    return (((struct native *)context)->tx_state[slot] & 2) != 0;
}

static uint32_t native_tx_available(void *context)
{
    struct native *n = context;

    n->asked++;
    return n->tx_limit > n->tx_used ? n->tx_limit - n->tx_used : 0;
}

static const uint8_t *native_rx_data(void *context, uint32_t slot)
{
    struct native *n = context;

    assert(n->rx_state[slot] == 1);
    return n->rx + (size_t)slot * TCP_SLOT_BYTES;
}

static void native_rx_release(void *context, uint32_t slot)
{
    struct native *n = context;

    assert(slot < n->config.rx_slots && n->rx_state[slot] == 1);
    n->rx_state[slot] = 0;
    n->rx_used--;
    memset(n->rx + (size_t)slot * TCP_SLOT_BYTES, 0xbb, TCP_SLOT_BYTES);
}

static void native_random(void *context, void *data, size_t len)
{
    struct native *n = context;

    for (size_t i = 0; i < len; i++) {
        n->random = n->random * 6364136223846793005u + 1442695040888963407u;
        ((uint8_t *)data)[i] = (uint8_t)(n->random >> 56);
    }
}

static bool native_may_create(void *context, uint64_t hash)
{
    (void)hash;
    return !((struct native *)context)->refuse;
}

static bool native_populate(void *context, void *rows, size_t bytes)
{
    struct native *n = context;

    if ((uint8_t *)rows < (uint8_t *)n->rows ||
        (uint8_t *)rows + bytes > (uint8_t *)n->rows + tcp_rows_bytes(&n->config))
        abort();
    return !n->dry;
}

static enum tcp_miss native_miss(void *context, uint64_t hash)
{
    (void)hash;
    return ((struct native *)context)->miss;
}

static struct native *native_new(const struct tcp_config *config, uint64_t now_us)
{
    struct native *n = calloc(1, sizeof *n);
    size_t memory_bytes = tcp_memory_bytes(config), rows_bytes = tcp_rows_bytes(config);

    n->config = *config;
    if (memory_bytes == 0) {
        free(n);
        return NULL;
    }
    n->memory = aligned_alloc(64, memory_bytes);
    n->rows = aligned_alloc(128, rows_bytes);
    memset(n->memory, 0, memory_bytes);
    memset(n->rows, 0, rows_bytes);
    n->tx = malloc((size_t)config->tx_slots * TCP_SLOT_BYTES);
    n->rx = malloc((size_t)config->rx_slots * TCP_SLOT_BYTES);
    n->tx_state = calloc(config->tx_slots, 1);
    n->rx_state = calloc(config->rx_slots, 1);
    n->packets = malloc(PACKETS_MAX * sizeof *n->packets);
    n->tx_limit = config->tx_slots;
    n->out_room = UINT32_MAX;
    n->random = 1;
    n->env = (struct tcp_env){n,
                              native_tx_alloc,
                              native_tx_free,
                              native_tx_data,
                              native_tx_send,
                              native_tx_busy,
                              native_tx_available,
                              native_rx_data,
                              native_rx_release,
                              native_random,
                              native_may_create,
                              native_miss,
                              NULL,
                              native_populate};
    n->stack = tcp_init(config, &n->env, n->memory, n->rows, now_us);
    return n;
}

static void native_free(struct native *n)
{
    free(n->memory);
    free(n->rows);
    free(n->tx);
    free(n->rx);
    free(n->tx_state);
    free(n->rx_state);
    free(n->packets);
    free(n);
}

static bool native_fill(struct native *n, const uint8_t *data, uint32_t len, uint32_t offset, struct tcp_packet *packet)
{
    for (uint32_t i = 0; i < n->config.rx_slots; i++)
        if (n->rx_state[i] == 0) {
            *packet = (struct tcp_packet){.ip = n->rx + (size_t)i * TCP_SLOT_BYTES + offset,
                                          .slot = i,
                                          .offset = (uint16_t)offset,
                                          .len = (uint16_t)len};
            n->rx_state[i] = 1;
            n->rx_used++;
            memcpy(n->rx + (size_t)i * TCP_SLOT_BYTES + offset, data, len);
            return true;
        }
    return false;
}

/* The drop reason, or -1: no RX slot. */
static int native_input(struct native *n, const uint8_t *data, uint32_t len, uint32_t offset, bool verified,
                        uint64_t now_us)
{
    struct tcp_packet packet;

    if (!native_fill(n, data, len, offset, &packet))
        return -1;
    packet.verified = verified;
    return (int)tcp_input(n->stack, &packet, now_us);
}

/* A packet of the next batch, as janusd gives it. */
static void native_queue(struct native *n, const uint8_t *data, uint32_t len)
{
    struct tcp_packet *packet = &n->batch[n->batched++];
    const uint8_t *tcp = data + (data[0] >> 4 == 6 ? IPV6_HEADER_LEN : IPV4_HEADER_LEN);
    struct flow flow = {.lport = get_be16(tcp + 2), .rport = get_be16(tcp)};
    bool filled = native_fill(n, data, len, 14, packet);
    uint64_t hash;
    uint32_t low;

    assert(filled && n->batched <= BATCH_MAX);
    if (data[0] >> 4 == 6) {
        memcpy(&flow.raddr, data + 8, sizeof flow.raddr);
        memcpy(&flow.laddr, data + 24, sizeof flow.laddr);
    } else {
        flow.raddr = ip_addr_from_ipv4(data + 12);
        flow.laddr = ip_addr_from_ipv4(data + 16);
    }
    hash = csb_hash(&n->config.flow_secret, &flow);
    low = n->odd_low != 0 ? n->odd_low : csb_key(hash);
    memcpy(n->rx + (size_t)packet->slot * TCP_SLOT_BYTES + 14 + len, &low, sizeof low);
    packet->hash = csb_table_hash(hash);
    packet->has_hash = packet->has_low = packet->verified = true;
}

/* The batch, or so many of it at once, one part after the other at the same time. */
static void native_input_queued(struct native *n, uint32_t at_once, uint64_t now_us)
{
    for (uint32_t done = 0; done < n->batched; done += at_once)
        tcp_input_batch(n->stack, n->batch + done, n->batched - done < at_once ? n->batched - done : at_once, now_us);
    n->batched = 0;
}

/* Do both keep the same: rows, extensions, what is known of received slots, and all counters but that of runs? */
static bool native_is_twin(const struct native *a, const struct native *b)
{
    const struct tcp_stack *s = a->stack, *other = b->stack;
    struct tcp_counters x = s->counters, y = other->counters;

    x.run_segments = y.run_segments;
    return memcmp(a->rows, b->rows, tcp_rows_bytes(&a->config)) == 0 &&
           memcmp(s->ext.base, other->ext.base, a->config.extension_max * sizeof(struct tcb_ext)) == 0 &&
           memcmp(s->rx, other->rx, a->config.rx_slots * sizeof *s->rx) == 0 && memcmp(&x, &y, sizeof x) == 0 &&
           s->rx_held == other->rx_held && s->tx_held == other->tx_held &&
           memcmp(a->rx_state, b->rx_state, a->config.rx_slots) == 0;
}

/* A packet whose descriptor says what it likes. */
static int native_input_raw(struct native *n, uint16_t offset, uint16_t len, uint64_t now_us)
{
    uint32_t slot = n->config.rx_slots - 1;
    struct tcp_packet packet = {
        .ip = n->rx + (size_t)slot * TCP_SLOT_BYTES + offset, .slot = slot, .offset = offset, .len = len};

    assert(n->rx_state[slot] == 0);
    n->rx_state[slot] = 1;
    n->rx_used++;
    return (int)tcp_input(n->stack, &packet, now_us);
}

/* Length of the oldest packet sent, copied to buf; -1: none. */
static int native_take(struct native *n, uint8_t *buf)
{
    struct native_packet *p = &n->packets[n->first];

    if (n->count == 0)
        return -1;
    memcpy(buf, p->data, p->len);
    n->first = (n->first + 1) % PACKETS_MAX;
    n->count--;
    return (int)p->len;
}

static void native_complete(struct native *n)
{
    for (uint32_t i = 0; i < n->config.tx_slots; i++) {
        if (n->tx_state[i] & 4) {
            n->tx_state[i] = 0;
            n->tx_used--;
        }
        n->tx_state[i] &= 1;
    }
}

/* Null: the connection has no extension, or another control. */
static struct bbr *native_bbr(struct native *n, uint32_t conn)
{
    const struct tcb_ext *e = stack_ext(n->stack, stack_tcb(n->stack, conn));

    return e != NULL && e->rated ? e->cc.bbr : NULL;
}

/* What the marks of free slots say is of no account: the worst that they could. */
static void native_spoil_marks(struct native *n, const struct bbr *b, uint64_t now_us)
{
    for (uint32_t i = 0; i < n->config.tx_slots; i++)
        if (n->tx_state[i] == 0)
            n->stack->marks[i] = (struct rate_mark){
                .delivered = b->rate.delivered - (1u << 30),
                .delivered_us = (uint32_t)now_us,
                .first_sent_us = (uint32_t)now_us - 1000000,
            };
}

static const uint8_t *native_old_tx, *native_old_rx;

static uint32_t native_move_tx(void *context, uint32_t slot)
{
    struct native *n = context;
    uint32_t to = n->moves != 0 ? native_tx_alloc(n) : TCP_NO_SLOT;

    n->moves -= n->moves != 0;
    if (to != TCP_NO_SLOT)
        memcpy(n->tx + (size_t)to * TCP_SLOT_BYTES, native_old_tx + (size_t)slot * TCP_SLOT_BYTES, TCP_SLOT_BYTES);
    return to;
}

static uint32_t native_move_rx(void *context, uint32_t slot)
{
    struct native *n = context;

    if (n->moves == 0)
        return TCP_NO_SLOT;
    n->moves--;
    for (uint32_t i = n->config.rx_slots; i-- > 0;)
        if (n->rx_state[i] == 0) {
            n->rx_state[i] = 1;
            n->rx_used++;
            memcpy(n->rx + (size_t)i * TCP_SLOT_BYTES, native_old_rx + (size_t)slot * TCP_SLOT_BYTES, TCP_SLOT_BYTES);
            return i;
        }
    return TCP_NO_SLOT;
}

/* New regions for old; at most moves slots find a place in them. */
static void native_rebase(struct native *n, uint32_t moves, uint64_t now_us, uint32_t spread_us)
{
    size_t rows_bytes = tcp_rows_bytes(&n->config);
    uint8_t *old_tx = n->tx, *old_rx = n->rx;
    void *old_rows = n->rows;

    n->tx = malloc((size_t)n->config.tx_slots * TCP_SLOT_BYTES);
    n->rx = malloc((size_t)n->config.rx_slots * TCP_SLOT_BYTES);
    n->rows = aligned_alloc(128, rows_bytes);
    memset(n->rows, 0, rows_bytes);
    memset(n->tx_state, 0, n->config.tx_slots);
    memset(n->rx_state, 0, n->config.rx_slots);
    n->tx_used = n->rx_used = 0;
    native_old_tx = old_tx;
    native_old_rx = old_rx;
    n->moves = moves;
    tcp_rebase(n->stack, &n->env, n->rows, native_move_tx, native_move_rx, now_us, spread_us);
    memset(old_rows, 0xcc, rows_bytes);
    free(old_tx);
    free(old_rx);
    free(old_rows);
}

static bool native_accept_odd(void *context, uint64_t hash)
{
    ++*(uint32_t *)context;
    return hash & 1;
}

static int native_connect_odd(struct tcp_stack *s, uint16_t lport, const struct ip_addr *raddr, uint16_t rport,
                              uint64_t now_us, uint32_t *conn)
{
    uint32_t asked = 0;

    return tcp_connect(s, NULL, lport, raddr, rport, native_accept_odd, &asked, 0, now_us, conn);
}
