/*
 * tcp_instructions.c: the TCP core alone under a load of packets made by a stateless peer, for bench/programs/tcp_instructions.py.
 *
 *     tcp_instructions CASE COUNT [baseline]    with CASE receive, batch, send, request or short; prints the packets in and out
 *
 * The counter (callgrind) collects inside the functions of tcp.h alone, or inside baseline(), which takes the very same packets
 * apart and sums them.  A packet comes with its hash and verified, as from janusd.
 */
#include "bench/core_env.h"
#include "wire/bytes.h"
#include "wire/checksum.h"
#include "wire/ip.h"
#include "wire/tcp_header.h"

#include <stdio.h>

enum {
    BATCH = 32, /* connections of the case short, packets of the others */
    MSS = 1448, /* with timestamps, over Ethernet */
    SMALL = 64,
    SERVER_PORT = 80,
    WARM_UP = 4, /* batches before those that count */
};

struct client {
    uint16_t port;
    uint32_t conn;
    uint32_t seq, ack; /* next to send, next expected */
    uint32_t tsecr;
    uint64_t hash;
};

static struct tcp_stack *stack;
static struct csb_secret secret = {1, 2};
static struct client clients[BATCH];
static uint64_t now_us = 1000000, packets;
static struct ip_addr here, there;
static bool with_baseline;
static struct tcp_packet queued[BATCH];
static uint32_t queued_count;
static volatile uint32_t sink;

__attribute__((noinline)) static void baseline(const uint8_t *data, uint32_t len)
{
    struct tcp_segment segment;
    struct ip_packet ip;

    if (ip_parse(data, len, &ip) == IP_OK &&
        tcp_header_parse(data + ip.l4_offset, ip.l4_len, &segment) == TCP_HEADER_OK)
        sink += (uint32_t)tcp_header_verify(data + ip.l4_offset, ip.l4_len, &ip.src, &ip.dst);
}

/* --- a trivial environment --- */

static uint32_t env_alloc(void *context)
{
    (void)context;
    return tx_count != 0 ? tx_free[--tx_count] : TCP_NO_SLOT;
}

static void env_free(void *context, uint32_t slot)
{
    (void)context;
    tx_free[tx_count++] = slot;
}

/* A sent packet tells its client what to acknowledge and to echo. */
static bool env_send(void *context, uint32_t slot, uint32_t offset, uint32_t len, bool last)
{
    const uint8_t *tcp = tx[slot] + offset + IPV4_HEADER_LEN;
    struct client *c = &clients[get_be16(tcp + 2) % BATCH];

    (void)context;
    if (with_baseline)
        baseline(tx[slot] + offset, len);
    c->tsecr = tcp[12] == 0x80 ? get_be32(tcp + 24) : 0;
    c->ack = get_be32(tcp + 4) + (len - IPV4_HEADER_LEN - (tcp[12] >> 4) * 4u) + !!(tcp[13] & (TCP_SYN | TCP_FIN));
    packets++;
    if (last)
        tx_free[tx_count++] = slot;
    return true;
}

static bool env_busy(void *context, uint32_t slot)
{
    (void)context;
    (void)slot;
    return false;
}

/* --- the peer --- */

/* One more packet of client c for the core. */
static void queue(struct client *c, uint8_t flags, uint32_t payload)
{
    uint32_t slot = rx_free[--rx_count];
    uint8_t *tcp = rx[slot] + TCP_SLOT_HEADROOM;
    struct tcp_packet packet = {.slot = slot, .hash = csb_table_hash(c->hash), .has_hash = true, .verified = true};
    struct tcp_options options = {
        .present = TCP_OPTION_TIMESTAMPS, .tsval = (uint32_t)(now_us / 1000), .tsecr = c->tsecr};
    uint32_t header_len;
    uint16_t checksum;

    if (flags & TCP_SYN) {
        options.present |= TCP_OPTION_MSS | TCP_OPTION_SACK_PERMITTED | TCP_OPTION_WINDOW_SCALE;
        options.mss = MSS + 12;
        options.window_scale = 7;
    }
    header_len = TCP_HEADER_LEN + (uint32_t)tcp_options_len(&options);
    put_be16(tcp, c->port);
    put_be16(tcp + 2, SERVER_PORT);
    put_be32(tcp + 4, c->seq);
    put_be32(tcp + 8, flags & TCP_ACK ? c->ack : 0);
    tcp[12] = (uint8_t)(header_len / 4 << 4);
    tcp[13] = flags;
    put_be16(tcp + 14, 0x7fff);
    put_be32(tcp + 16, 0);
    tcp_options_build(tcp + TCP_HEADER_LEN, &options);
    memset(tcp + header_len, 'x', payload);
    checksum = checksum_finish(
        checksum_add(checksum_pseudo(&there, &here, IP_PROTOCOL_TCP, header_len + payload), tcp, header_len + payload));
    memcpy(tcp + 16, &checksum, sizeof checksum);
    ip_build(tcp - IPV4_HEADER_LEN, &there, &here, IP_PROTOCOL_TCP, header_len + payload, 0, IP_TTL);
    packet.ip = tcp - IPV4_HEADER_LEN;
    packet.offset = TCP_SLOT_HEADROOM - IPV4_HEADER_LEN;
    packet.len = (uint16_t)(IPV4_HEADER_LEN + header_len + payload);
    if (flags & TCP_SYN) {
        uint32_t low = csb_key(c->hash);

        memcpy(tcp + header_len, &low, sizeof low);
        packet.has_low = true;
    }
    c->seq += payload + !!(flags & (TCP_SYN | TCP_FIN));
    packets++;
    if (with_baseline)
        baseline(rx[slot] + packet.offset, packet.len);
    queued[queued_count++] = packet;
    now_us++;
}

static void give(void)
{
    tcp_input_batch(stack, queued, queued_count, now_us);
    queued_count = 0;
}

static void put(struct client *c, uint8_t flags, uint32_t payload)
{
    queue(c, flags, payload);
    give();
}

static uint32_t output(void)
{
    uint32_t sent;

    tcp_advance(stack, now_us);
    sent = tcp_output(stack, now_us);
    now_us += 50;
    return sent;
}

/* What a user does with its news: reads all, answers each request when there is a reply, closes at the end. */
static void serve(uint32_t reply)
{
    static uint8_t data[MSS];
    struct tcp_event event;
    struct tcp_view view;

    while (tcp_next_event(stack, &event)) {
        uint32_t read = 0;

        if (event.kinds & TCP_EVENT_ACCEPTED)
            tcp_set_nodelay(stack, event.conn, true);
        while (tcp_recv_views(stack, event.conn, &view, 1) != 0) {
            tcp_recv_consume(stack, event.conn, view.len);
            read += view.len;
        }
        clients[0].conn = event.conn;
        if (read != 0 && reply != 0 && tcp_send(stack, event.conn, data, reply) != reply)
            abort();
        if (tcp_recv_eof(stack, event.conn))
            tcp_close(stack, event.conn, now_us);
    }
}

static void open_client(struct client *c, uint32_t number)
{
    struct flow flow = {.laddr = here, .raddr = there, .lport = SERVER_PORT};

    flow.rport = (uint16_t)(1024 + number % 60000 / BATCH * BATCH + number % BATCH);
    *c = (struct client){.port = flow.rport, .seq = number * 1000};
    c->hash = csb_hash(&secret, &flow);
    put(c, TCP_SYN, 0);
}

/* --- the cases, one batch each --- */

static void receive_batch(void)
{
    for (int i = 0; i < BATCH; i += 2) { /* each second segment is acknowledged */
        put(&clients[0], TCP_ACK, MSS);
        put(&clients[0], TCP_ACK, MSS);
        serve(0);
        output();
    }
}

static void receive_together_batch(void)
{
    for (int i = 0; i < BATCH; i++)
        queue(&clients[0], TCP_ACK, MSS);
    give();
    serve(0);
    output();
}

static void send_batch(void)
{
    static uint8_t data[MSS];
    uint32_t before = clients[0].ack;

    for (int i = 0; i < BATCH; i++)
        if (tcp_send(stack, clients[0].conn, data, MSS) != MSS)
            abort();
    for (uint32_t sent = 0; sent < BATCH;) {
        uint32_t now = output();
        uint32_t all = clients[0].ack;

        for (uint32_t i = 2; i <= now + 1; i += 2) {
            clients[0].ack = before + (i < now ? i : now) * MSS;
            put(&clients[0], TCP_ACK, 0);
        }
        clients[0].ack = before = all;
        sent += now;
        serve(0);
    }
}

static void request_batch(void)
{
    for (int i = 0; i < BATCH; i++) {
        put(&clients[0], TCP_ACK | TCP_PSH, SMALL);
        serve(SMALL);
        output();
    }
}

static void short_batch(void)
{
    static uint32_t number;

    for (int i = 0; i < BATCH; i++)
        open_client(&clients[i], number++);
    output();
    for (int i = 0; i < BATCH; i++) {
        put(&clients[i], TCP_ACK, 0);
        put(&clients[i], TCP_ACK | TCP_PSH, SMALL);
    }
    serve(SMALL);
    output();
    for (int i = 0; i < BATCH; i++)
        put(&clients[i], TCP_ACK | TCP_FIN, 0);
    serve(SMALL);
    output();
    for (int i = 0; i < BATCH; i++)
        put(&clients[i], TCP_ACK, 0);
    serve(SMALL);
    output();
}

static void start(void)
{
    static const uint8_t addresses[2][4] = {{10, 0, 0, 1}, {10, 0, 0, 2}};
    const struct tcp_env env = {.tx_alloc = env_alloc, .tx_free = env_free, .tx_send = env_send, .tx_busy = env_busy};
    const struct tcp_config config = {
        .conn_max = 4096, .half_open_max = 1024, .time_wait_max = 1024, .extension_max = 4096, .flow_secret = secret};

    here = ip_addr_from_ipv4(addresses[0]);
    there = ip_addr_from_ipv4(addresses[1]);
    stack = core_start(&env, config, &here, SERVER_PORT, now_us);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*batch)(void);
    } cases[] = {{"receive", receive_batch},
                 {"batch", receive_together_batch},
                 {"send", send_batch},
                 {"request", request_batch},
                 {"short", short_batch}};
    uint32_t which = 0, batches = argc >= 3 ? (uint32_t)atoi(argv[2]) / BATCH : 0;

    while (batches != 0 && which < 5 && strcmp(argv[1], cases[which].name) != 0)
        which++;
    if (batches == 0 || which == 5) {
        fprintf(stderr, "usage: %s receive|batch|send|request|short COUNT [baseline], COUNT at least %d\n", argv[0],
                BATCH);
        return 2;
    }
    with_baseline = argc > 3;
    start();
    if (cases[which].batch != short_batch) {
        open_client(&clients[0], 0);
        output();
        put(&clients[0], TCP_ACK, 0);
        serve(0);
    }
    for (uint32_t i = 0; i < WARM_UP; i++)
        cases[which].batch();
    packets = 0;
    for (uint32_t i = 0; i < batches; i++)
        cases[which].batch();
    printf("%llu\n", (unsigned long long)packets);
    return 0;
}
