/*
 * fuzz_stack.c: a whole TCP core under segments that a clever peer makes up and whatever its users may call.
 *
 * Invariant: after every step tcp_check() holds, the core owns exactly the slots that it says, and gives back, sends and writes
 * only what it owns; when all users have let go and time has passed, nothing is left of any connection.
 *
 * The input is a list of steps.  Segments take their numbers from a connection's own (SND.UNA, RCV.NXT, its window), shifted by a
 * little or by a lot, so that they land at the edges; some are then damaged, or are no packets at all, and some come in a batch
 * with those that continue them.
 */
#include "fuzz/input.h"
#include "native/sim_host.h"

#include "wire/bytes.h"
#include "wire/checksum.h"
#include "wire/ip.h"
#include "wire/tcp_header.h"

enum {
    CONN_MAX = 6,
    STEPS_MAX = 400,
    PEER_PORTS = 3,
    SENT_KEPT = 8,
    TRAIN_MAX = 12,
};

struct user {
    bool held;
    bool sent_fin;
};

/* What the peer at a port would send next, as the stack's last segment to it says. */
struct peer {
    uint32_t seq, ack;
};

struct fuzz {
    struct sim_failure failure;
    struct sim_host host;
    struct user users[CONN_MAX];
    struct peer peers[2][PEER_PORTS];
    struct input in;
    uint8_t sent[SENT_KEPT][2048]; /* what the stack sent last: played back and mirrored */
    uint32_t sent_len[SENT_KEPT], sent_count;
};

static void note_sent(struct fuzz *f, const uint8_t *packet, uint32_t len)
{
    uint32_t header = packet[0] >> 4 == 6 ? 40 : 20, port = get_be16(packet + header + 2) - 2000u;
    const uint8_t *t = packet + header;
    struct peer *peer;

    if (port >= PEER_PORTS || (t[13] & TCP_RST))
        return;
    peer = &f->peers[header == 40][port];
    if (t[13] & TCP_ACK)
        peer->seq = get_be32(t + 8);
    peer->ack = get_be32(t + 4) + len - header - (t[12] >> 4) * 4u + ((t[13] & TCP_SYN) != 0) + (t[13] & TCP_FIN);
}

static bool transmit(struct sim_host *h, const uint8_t *packet, uint32_t len)
{
    struct fuzz *f = h->world;
    uint32_t at = f->sent_count++ % SENT_KEPT;

    if (rng_below(&h->rng, 16) == 0)
        return false;
    memcpy(f->sent[at], packet, len);
    f->sent_len[at] = len;
    note_sent(f, packet, len);
    return true;
}

static void deliver(struct fuzz *f, const uint8_t *packet, uint32_t len, bool verified)
{
    struct tcp_packet in = {.verified = verified};

    if (len > 0 && host_receive(&f->host, packet, len, &in))
        tcp_input(f->host.s, &in, f->host.now_us);
}

static void events(struct fuzz *f)
{
    struct tcp_event event;

    while (tcp_next_event(f->host.s, &event)) {
        if (event.conn >= CONN_MAX)
            sim_fail(&f->failure, "event of connection %u", event.conn);
        if (event.kinds & TCP_EVENT_ACCEPTED) {
            if (f->users[event.conn].held)
                sim_fail(&f->failure, "connection %u accepted twice", event.conn);
            f->users[event.conn] = (struct user){.held = true};
        }
        if (!f->users[event.conn].held)
            sim_fail(&f->failure, "events %#x of connection %u that nobody has", event.kinds, event.conn);
        if ((event.kinds & TCP_EVENT_ERROR) && tcp_error(f->host.s, event.conn) == 0)
            sim_fail(&f->failure, "ERROR without an error");
    }
}

static void settle(struct fuzz *f, uint64_t now_us)
{
    f->host.now_us = now_us;
    host_complete(&f->host, now_us);
    tcp_advance(f->host.s, now_us);
    events(f);
    tcp_output(f->host.s, now_us);
    events(f);
}

/* A number near base, or anywhere. */
static uint32_t near(struct input *in, uint32_t base)
{
    uint32_t how = take(in, 1);

    if (how < 100)
        return base;
    if (how < 150)
        return base + (how - 125);
    if (how < 200)
        return base + (int16_t)take(in, 2);
    if (how < 210)
        return base + 0x7fffffff + (how & 3);
    return take(in, 4);
}

static void draw_options(struct input *in, struct tcp_options *o, uint32_t ack)
{
    memset(o, 0, sizeof *o);
    o->present = (uint8_t)take(in, 1);
    o->mss = (uint16_t)near(in, 1460);
    o->window_scale = (uint8_t)take(in, 1);
    o->tsval = near(in, 1000);
    o->tsecr = near(in, 0);
    o->sack_count = (uint8_t)(take(in, 1) % (TCP_SACK_BLOCKS_MAX + 1));
    for (uint32_t i = 0; i < o->sack_count; i++) {
        o->sack[i].begin = near(in, ack);
        o->sack[i].end = near(in, o->sack[i].begin + 100);
    }
    if (o->sack_count == 0)
        o->present &= (uint8_t)~TCP_OPTION_SACK;
}

/* A segment of flow but for its checksum, whose payload is there.  Returns the length of TCP's part. */
static uint32_t build(uint8_t *packet, const struct flow *flow, const struct tcp_options *options, uint32_t seq,
                      uint32_t ack, uint32_t flags, uint32_t wnd, uint32_t payload)
{
    uint8_t *tcp = packet + ip_header_len(&flow->laddr);
    uint32_t len = (uint32_t)tcp_options_build(tcp + TCP_HEADER_LEN, options);

    put_be16(tcp, flow->rport);
    put_be16(tcp + 2, flow->lport);
    put_be32(tcp + 4, seq);
    put_be32(tcp + 8, ack);
    tcp[12] = (uint8_t)((TCP_HEADER_LEN + len) / 4 << 4);
    tcp[13] = (uint8_t)flags;
    put_be16(tcp + 14, (uint16_t)wnd);
    memset(tcp + 16, 0, 4);
    len += TCP_HEADER_LEN + payload;
    ip_build(packet, &flow->raddr, &flow->laddr, 6, len, 0, IP_TTL);
    return len;
}

static void add_checksum(uint8_t *packet, const struct flow *flow, uint32_t len)
{
    uint8_t *tcp = packet + ip_header_len(&flow->laddr);
    uint16_t sum = checksum_finish(checksum_add(checksum_pseudo(&flow->raddr, &flow->laddr, 6, len), tcp, len));

    memcpy(tcp + 16, &sum, sizeof sum);
}

/* A segment for the flow of a held connection, or of one that may come to be. */
static void step_segment(struct fuzz *f)
{
    struct input *in = &f->in;
    uint32_t conn = take(in, 1), what = take(in, 1), len, header, payload;
    struct tcp_info info = {.rcv_nxt = f->peers[what & 1][conn % PEER_PORTS].seq,
                            .snd_nxt = f->peers[what & 1][conn % PEER_PORTS].ack};
    struct flow flow = {.laddr = host_addresses[0][what & 1], .raddr = host_addresses[1][what & 1], .lport = 80};
    struct tcp_options options;
    uint8_t packet[1600];
    uint32_t flags = take(in, 1), seq, ack;

    flow.rport = (uint16_t)(2000 + conn % PEER_PORTS);
    if (conn >= 128 && conn % 8 < CONN_MAX && f->users[conn % 8].held) {
        tcp_flow(f->host.s, conn % 8, &flow);
        tcp_get_info(f->host.s, conn % 8, &info);
    }
    seq = near(in, info.rcv_nxt);
    ack = near(in, info.snd_nxt);
    payload = what & 2 ? take(in, 2) % 1400 : take(in, 1) & 3;
    memset(packet, (int)(what + 1), sizeof packet);
    draw_options(in, &options, info.snd_una);
    header = ip_header_len(&flow.laddr);
    len = build(packet, &flow, &options, seq, ack, flags, near(in, 5000), payload);
    if (what & 4) /* damaged before the checksum: a header that no stack would send */
        packet[header + take(in, 1) % 60] ^= (uint8_t)take(in, 1);
    add_checksum(packet, &flow, len);
    if (what & 8)
        packet[take(in, 2) % (header + len)] ^= (uint8_t)take(in, 1);
    len += header;
    if (what & 16)
        len = take(in, 2) % (len + 1);
    deliver(f, packet, len, (what & 32) != 0);
    if (what & 64)
        settle(f, f->host.now_us + 10);
}

/* Segments of a held connection in one batch, each of which continues the one before it but for what the input changes. */
static void step_train(struct fuzz *f)
{
    struct input *in = &f->in;
    uint32_t conn = take(in, 1) % CONN_MAX, count = 2 + take(in, 1) % (TRAIN_MAX - 1), given = 0, seq, ack;
    struct tcp_packet batch[TRAIN_MAX];
    struct tcp_options options = {0};
    struct tcp_info info;
    struct flow flow;

    if (!f->users[conn].held)
        return;
    tcp_flow(f->host.s, conn, &flow);
    tcp_get_info(f->host.s, conn, &info);
    seq = near(in, info.rcv_nxt);
    ack = near(in, info.snd_nxt);
    options.present = take(in, 1) & 1 ? TCP_OPTION_TIMESTAMPS : 0;
    options.tsval = near(in, 1000);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t change = take(in, 1), payload = change & 1 ? take(in, 2) % 1400 : 100;
        uint32_t flags = change >= 0xf0 ? take(in, 1) : TCP_ACK, len;
        uint8_t packet[1600];

        memset(packet, (int)change, sizeof packet);
        if (change >= 0xe0 && change < 0xf0)
            seq = near(in, seq);
        len = build(packet, &flow, &options, seq, ack, flags, change >> 4 == 0xd ? take(in, 2) : 5000, payload);
        seq += payload;
        add_checksum(packet, &flow, len);
        len += ip_header_len(&flow.laddr);
        if (change >> 4 == 0xc)
            packet[take(in, 1) % (len < 100 ? len : 100)] ^= (uint8_t)take(in, 1);
        if (change >> 4 == 0xb)
            len = 1 + take(in, 2) % len;
        batch[given] = (struct tcp_packet){
            .verified = change >> 4 != 0xa,
            .has_hash = change >> 4 != 9,
            .hash = csb_table_hash(csb_hash(&f->host.config.flow_secret, &flow)),
        };
        given += host_receive(&f->host, packet, len, &batch[given]);
    }
    tcp_input_batch(f->host.s, batch, given, f->host.now_us);
}

/* The stack's own packet comes back, as it was or with its ends exchanged: simultaneous opens, loops, stray replies. */
static void step_echo(struct fuzz *f)
{
    uint32_t at = take(&f->in, 1), how = take(&f->in, 1), len = f->sent_len[at % SENT_KEPT];
    uint8_t packet[2048], swap[16];
    uint32_t header, address;

    if (len == 0)
        return;
    memcpy(packet, f->sent[at % SENT_KEPT], len);
    header = packet[0] >> 4 == 6 ? 40 : 20;
    address = header == 40 ? 16 : 4;
    if (how & 1) {
        uint8_t *source = packet + header - 2 * address;

        memcpy(swap, source, address);
        memcpy(source, source + address, address);
        memcpy(source + address, swap, address);
        memcpy(swap, packet + header, 2);
        memcpy(packet + header, packet + header + 2, 2);
        memcpy(packet + header + 2, swap, 2);
    }
    if (how & 2) {
        memcpy(swap, packet + header + 4, 4);
        memcpy(packet + header + 4, packet + header + 8, 4);
        memcpy(packet + header + 8, swap, 4);
    }
    if (how & 4)
        packet[header + 13] ^= (uint8_t)take(&f->in, 1);
    deliver(f, packet, len, true);
}

static void let_go(struct fuzz *f, uint32_t conn, bool abort_it)
{
    if (abort_it)
        tcp_abort(f->host.s, conn, f->host.now_us);
    else
        tcp_close(f->host.s, conn, f->host.now_us);
    f->users[conn].held = false;
}

static void step_user(struct fuzz *f)
{
    static uint8_t buffer[5000];
    struct tcp_stack *s = f->host.s;
    uint32_t conn = take(&f->in, 1) % CONN_MAX, what = take(&f->in, 1) % 12, amount = take(&f->in, 2) % sizeof buffer;
    struct tcp_view views[3];

    if (what == 0) {
        uint32_t made;
        uint16_t lport = amount & 1 ? (uint16_t)(4000 + amount % 8) : 0;

        if (tcp_connect(s, NULL, lport, &host_addresses[1][conn & 1], (uint16_t)(2000 + conn % PEER_PORTS), NULL, NULL,
                        7, f->host.now_us, &made) == 0) {
            if (made >= CONN_MAX || f->users[made].held)
                sim_fail(&f->failure, "connection %u given out twice", made);
            f->users[made] = (struct user){.held = true};
        }
        return;
    }
    if (!f->users[conn].held)
        return;
    switch (what) {
    case 1:
        tcp_send(s, conn, buffer, amount);
        break;
    case 2:
        tcp_send_urgent(s, conn, buffer, amount);
        break;
    case 3:
        tcp_recv(s, conn, buffer, amount);
        break;
    case 4:
        tcp_recv_views(s, conn, views, 3);
        amount = amount < tcp_recv_ready(s, conn) ? amount : tcp_recv_ready(s, conn);
        tcp_recv_consume(s, conn, amount);
        break;
    case 5:
        tcp_shutdown(s, conn, f->host.now_us);
        break;
    case 6:
    case 7:
        let_go(f, conn, what == 6);
        break;
    case 8:
        tcp_set_nodelay(s, conn, amount & 1);
        break;
    case 9:
        tcp_set_keepalive(s, conn, amount);
        if (amount & 1)
            (void)tcp_set_settings(s, conn,
                                   &(struct tcp_settings){.congestion_control = amount >> 1 & 3,
                                                          .keepalive_probes = amount >> 3 & 15,
                                                          .dscp = amount >> 2 & 63,
                                                          .ttl = IP_TTL,
                                                          .user_timeout_option = amount >> 7 & 1,
                                                          .keepalive_ms = amount,
                                                          .keepalive_interval_ms = amount * 3,
                                                          .user_timeout_ms = amount >> 8});
        break;
    case 10:
        tcp_want_sent_all(s, conn);
        break;
    default:
        (void)tcp_recv_eof(s, conn);
        (void)tcp_unacked(s, conn);
    }
}

static void step(struct fuzz *f)
{
    static const uint32_t waits_us[] = {1, 500, 1000, 40000, 250000, 1000000, 7000000, 61000000};
    uint32_t what = take(&f->in, 1);

    if (what < 128) {
        step_segment(f);
    } else if (what < 150) {
        step_echo(f);
    } else if (what < 210) {
        step_user(f);
    } else if (what < 230) {
        settle(f, f->host.now_us + waits_us[what % 8]);
    } else if (what < 234) {
        (void)tcp_unlisten(f->host.s, &(struct ip_addr){{0}}, 80);
    } else if (what < 240) {
        (void)tcp_listen(f->host.s, &(struct ip_addr){{0}}, 80, 9);
    } else if (what < 248) {
        step_train(f);
    } else {
        uint8_t junk[64];
        uint32_t len = take(&f->in, 1) % sizeof junk;

        for (uint32_t i = 0; i < len; i++)
            junk[i] = (uint8_t)take(&f->in, 1);
        deliver(f, junk, len, what & 1);
    }
    events(f);
#ifdef JANUS_PLANTED_BUG /* a driver that forgets a slot, when a connection with a gap was reset: counts do not agree */
    if (tcp_counters(f->host.s)->out_of_order_segments > 0 && tcp_counters(f->host.s)->resets_received > 0)
        f->host.rx_held[f->host.rx_free[--f->host.rx_free_count]] = true;
#endif
    host_check(&f->host);
}

/* All users let go; then every state has a timer that ends it. */
static void wind_up(struct fuzz *f)
{
    for (uint32_t conn = 0; conn < CONN_MAX; conn++) {
        if (f->users[conn].held)
            let_go(f, conn, conn & 1);
    }
    (void)tcp_unlisten(f->host.s, &(struct ip_addr){{0}}, 80);
    for (uint32_t i = 0; i < 5000; i++) {
        uint64_t next = tcp_next_deadline(f->host.s), later = f->host.now_us + 1000;

        if (next == UINT64_MAX && host_next_completion(&f->host) == UINT64_MAX && i > 50)
            break;
        settle(f, next != UINT64_MAX && next > later ? next : later);
        for (uint32_t conn = 0; conn < CONN_MAX; conn++) { /* accepted meanwhile */
            if (f->users[conn].held)
                let_go(f, conn, true);
        }
    }
    host_check_empty(&f->host);
}

static void set_up(struct fuzz *f)
{
    uint32_t choice = take(&f->in, 1);

    f->host.failure = &f->failure;
    f->host.transmit = transmit;
    f->host.world = f;
    f->host.rng.state = take(&f->in, 2);
    f->host.busy_max_us = choice & 1 ? 2000 : 0;
    f->host.config = (struct tcp_config){
        .conn_max = CONN_MAX,
        .half_open_max = choice & 2 ? 2 : 8,
        .time_wait_max = choice & 4 ? 1 : 4,
        .extension_max = choice & 8 ? 2 : CONN_MAX,
        .rx_slots = choice & 16 ? 8 : 64,
        .tx_slots = choice & 32 ? 8 : 64,
        .mtu = choice & 64 ? 576 : 1500,
        .source_port_first = 4000,
        .source_port_last = 4007,
        .rcv_buf_bytes = 8192,
        .snd_buf_bytes = 8192,
        .msl_ms = 1000,
        .congestion_control = choice % 4,
        .ecn = choice % 3,
        .pacing = (choice & 4) != 0,
        .reset_unknown = (choice & 128) != 0,
        .flow_secret = {1, 2},
    };
    host_open(&f->host, choice & 4 ? 4294967295000ull : 5000000);
    for (uint32_t family = 0; family < 2; family++)
        tcp_add_address(f->host.s, &host_addresses[0][family]);
    tcp_listen(f->host.s, &(struct ip_addr){{0}}, 80, 9);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz f;

    memset(&f, 0, sizeof f);
    f.in = (struct input){data, size};
    if (setjmp(f.failure.out) != 0) {
        fprintf(stderr, "%s\n", f.failure.text);
        abort();
    }
    set_up(&f);
    for (uint32_t steps = 0; f.in.left > 0 && steps < STEPS_MAX; steps++)
        step(&f);
    wind_up(&f);
    host_close(&f.host);
    return 0;
}
