/*
 * fuzz_icmp.c: what routers, and whoever pretends to be one, may say to a TCP core, and to the parsers of ICMP and neighbour discovery.
 *
 * Invariant: an error that quotes nothing in flight changes nothing; none ends a connection that is synchronized, nor raises its
 * segment size, nor lowers it below the floor; tcp_check() holds; when the forger is silent all that was sent arrives; in the
 * end nothing is left.
 *
 * The errors quote what the core has really sent, exactly or with a change, with right checksums, so that they are believed where
 * anything can be.
 */
#include "fuzz/pair.h"

#include "wire/bytes.h"
#include "wire/checksum.h"
#include "wire/icmp.h"
#include "wire/ip.h"
#include "wire/nd.h"

#include <errno.h>

enum {
    CONN_MAX = 6,
    STEPS_MAX = 120,
    SENT_KEPT = 8,
    QUOTE_MAX = 600,
    FLOOR_IPV4 = 552 - 52, /* segment sizes with timestamps */
    FLOOR_IPV6 = 1280 - 72,
};

struct fuzz {
    struct pair p;
    struct input in;
    bool held[2][CONN_MAX];
    uint64_t given[CONN_MAX], got; /* bytes: to each connection of host 0, and by host 1 from all */
    uint8_t sent[SENT_KEPT][TCP_SLOT_BYTES];
    uint32_t sent_len[SENT_KEPT], sent_count;
};

static void note_sent(struct pair *p, uint32_t host, const uint8_t *packet, uint32_t len)
{
    struct fuzz *f = (struct fuzz *)p;
    uint32_t at = f->sent_count % SENT_KEPT;

    if (host != 0)
        return;
    f->sent_count++;
    memcpy(f->sent[at], packet, len);
    f->sent_len[at] = len;
}

static void heard(struct pair *p, uint32_t host, const struct tcp_event *event)
{
    struct fuzz *f = (struct fuzz *)p;
    struct tcp_stack *s = p->hosts[host].s;
    uint8_t buffer[4096];
    uint32_t got;

    if (event->kinds & TCP_EVENT_ACCEPTED)
        f->held[host][event->conn] = true;
    if (event->kinds & TCP_EVENT_READABLE)
        while ((got = tcp_recv(s, event->conn, buffer, sizeof buffer)) > 0)
            f->got += host == 1 ? got : 0;
    if (event->kinds & TCP_EVENT_ERROR) {
        tcp_close(s, event->conn, p->now_us);
        f->held[host][event->conn] = false;
    }
}

/* --- the parsers alone --- */

static void require(struct fuzz *f, bool holds, const char *what)
{
    if (!holds)
        sim_fail(&f->p.failure, "%s", what);
}

static void parse(struct fuzz *f, const uint8_t *packet, uint32_t len)
{
    uint8_t *exact = malloc(len + 1); /* AddressSanitizer sees the first byte too far */
    struct ip_packet ip;
    struct icmp_message message;
    struct icmp_quote quote;
    struct nd_message neighbour;

    memcpy(exact, packet, len);
    if (ip_parse(exact, len, &ip) == IP_OK &&
        ip.protocol == (ip.version == 4 ? IP_PROTOCOL_ICMP : IP_PROTOCOL_ICMPV6) &&
        icmp_parse(&ip, exact + ip.l4_offset, &message) == ICMP_OK) {
        require(f, message.body_len + ICMP_HEADER_LEN == ip.l4_len, "body");
        require(f, message.mtu == 0 || message.kind == ICMP_TOO_BIG, "MTU");
        if (icmp_quote_parse(ip.version, exact + ip.l4_offset + ICMP_HEADER_LEN, message.body_len, &quote))
            require(f, ip_addr_is_ipv4(&quote.flow.laddr) == (ip.version == 4), "family of the quote");
        if (message.kind == ICMP_NEIGHBOUR && nd_parse(&ip, exact + ip.l4_offset, &neighbour) == ND_OK)
            require(f, neighbour.target.b[0] != 0xff && ip.ttl == ND_HOP_LIMIT, "neighbour");
    }
    free(exact);
}

/* --- what an error may do --- */

static bool same(const struct tcp_info *a, const struct tcp_info *b)
{
    return a->state == b->state && a->smss == b->smss && a->snd_nxt == b->snd_nxt && a->snd_una == b->snd_una &&
           a->cwnd_bytes == b->cwnd_bytes && a->flight_bytes == b->flight_bytes && a->unsent_bytes == b->unsent_bytes;
}

static void judge(struct fuzz *f, uint32_t conn, const struct tcp_info *before, bool in_flight, uint32_t mtu)
{
    struct tcp_info after;
    struct flow flow;

    tcp_get_info(f->p.hosts[0].s, conn, &after);
#ifdef JANUS_PLANTED_BUG /* a stack that believes any MTU */
    if (after.smss < before->smss && mtu < 296 && mtu > 60)
        after.smss = mtu - 60;
#endif
    (void)mtu;
    if (!in_flight && !same(before, &after))
        sim_fail(&f->p.failure, "connection %u: an error about nothing in flight changes it", conn);
    if (before->state == TCP_STATE_SYN_SENT)
        return;
    if (after.state != before->state)
        sim_fail(&f->p.failure, "connection %u: from state %u to %u by an error", conn, before->state, after.state);
    tcp_flow(f->p.hosts[0].s, conn, &flow);
    if (after.smss > before->smss ||
        (after.smss < before->smss && after.smss < (ip_addr_is_ipv4(&flow.raddr) ? FLOOR_IPV4 : FLOOR_IPV6)))
        sim_fail(&f->p.failure, "connection %u: segments of %u, then of %u bytes", conn, before->smss, after.smss);
}

/* Whether the quoted packet is one of this connection's, with a number in flight. */
static bool quotes(struct fuzz *f, uint32_t conn, const struct tcp_info *info, const uint8_t *quote, uint32_t len)
{
    uint32_t header = quote[0] >> 4 == 6 ? 40 : (quote[0] & 15u) * 4u;
    struct flow flow;

    if (len < header + 8)
        return false;
    tcp_flow(f->p.hosts[0].s, conn, &flow);
    return get_be16(quote + header) == flow.lport && get_be16(quote + header + 2) == flow.rport &&
           get_be32(quote + header + 4) - info->snd_una < info->snd_nxt - info->snd_una;
}

static void strike(struct fuzz *f, const uint8_t *packet, uint32_t len, uint32_t quote_at, uint32_t mtu)
{
    struct tcp_stack *s = f->p.hosts[0].s;
    struct tcp_info before[CONN_MAX];
    bool there[CONN_MAX];

    parse(f, packet, len);
    for (uint32_t conn = 0; conn < CONN_MAX; conn++) {
        there[conn] = f->held[0][conn] && tcp_error(s, conn) == 0;
        if (there[conn])
            tcp_get_info(s, conn, &before[conn]);
    }
    pair_give(&f->p, 0, packet, len);
    for (uint32_t conn = 0; conn < CONN_MAX; conn++) {
        bool quoted = false;

        if (!there[conn])
            continue;
        if (len > quote_at)
            quoted = quotes(f, conn, &before[conn], packet + quote_at, len - quote_at);
        judge(f, conn, &before[conn], quoted, mtu);
    }
    host_check(&f->p.hosts[0]);
    pair_events(&f->p, 0);
}

/* --- steps --- */

/* An error that quotes one of the packets that were sent last. */
static void step_error(struct fuzz *f)
{
    static const uint8_t kinds[2][8][2] = {{{3, 4}, {3, 4}, {3, 3}, {3, 2}, {3, 1}, {11, 0}, {3, 13}, {12, 0}},
                                           {{2, 0}, {2, 0}, {1, 4}, {1, 1}, {1, 0}, {3, 0}, {1, 3}, {4, 1}}};
    struct input *in = &f->in;
    uint32_t which = take(in, 1), how = take(in, 1), mtu = take(in, 2), quote_len = 8 + take(in, 1), l4_len;
    const uint8_t *quoted = f->sent[which % SENT_KEPT];
    bool v6 = quoted[0] >> 4 == 6;
    uint8_t packet[48 + QUOTE_MAX] = {0};
    uint32_t header = v6 ? 40 : 20;
    uint8_t *icmp = packet + header;
    uint16_t sum;

    if (f->sent_len[which % SENT_KEPT] == 0)
        return;
    quote_len += header;
    if (quote_len > f->sent_len[which % SENT_KEPT])
        quote_len = f->sent_len[which % SENT_KEPT];
    icmp[0] = kinds[v6][how & 7][0];
    icmp[1] = kinds[v6][how & 7][1];
    if (v6)
        put_be32(icmp + 4, mtu);
    else
        put_be16(icmp + 6, (uint16_t)mtu);
    memcpy(icmp + 8, quoted, quote_len);
    if (how & 8) /* one byte of the quote is another */
        icmp[8 + take(in, 1) % quote_len] ^= (uint8_t)(1 + take(in, 1));
    if (how & 16)
        icmp[take(in, 1) % 8] = (uint8_t)take(in, 1);
    l4_len = 8 + quote_len;
    ip_build(packet, &host_addresses[1][v6], &host_addresses[0][v6], v6 ? IP_PROTOCOL_ICMPV6 : IP_PROTOCOL_ICMP, l4_len,
             0, IP_TTL);
    put_be16(icmp + 2, 0);
    sum = checksum_finish(checksum_add(
        v6 ? checksum_pseudo(&host_addresses[1][v6], &host_addresses[0][v6], IP_PROTOCOL_ICMPV6, l4_len) : 0, icmp,
        l4_len));
    memcpy(icmp + 2, &sum, sizeof sum);
    if (how & 32)
        packet[take(in, 1) % (header + l4_len)] ^= (uint8_t)take(in, 1);
    strike(f, packet, header + l4_len, header + 8, mtu);
}

/* Any bytes, as a message of either family with right checksums. */
static void step_message(struct fuzz *f)
{
    struct input *in = &f->in;
    uint32_t v6 = take(in, 1) & 1, l4_len = take(in, 1), header = v6 ? 40 : 20;
    uint8_t packet[300] = {0};
    uint16_t sum;

    for (uint32_t i = 0; i < l4_len && in->left > 0; i++)
        packet[header + i] = (uint8_t)take(in, 1);
    ip_build(packet, &host_addresses[1][v6], &host_addresses[0][v6], v6 ? IP_PROTOCOL_ICMPV6 : IP_PROTOCOL_ICMP, l4_len,
             0, IP_TTL);
    if (v6)
        packet[7] = 255; /* as neighbour discovery wants it */
    if (l4_len >= 4) {
        put_be16(packet + header + 2, 0);
        sum = checksum_finish(checksum_add(
            v6 ? checksum_pseudo(&host_addresses[1][v6], &host_addresses[0][v6], IP_PROTOCOL_ICMPV6, l4_len) : 0,
            packet + header, l4_len));
        memcpy(packet + header + 2, &sum, sizeof sum);
    }
    parse(f, packet, header + l4_len);
    pair_give(&f->p, 0, packet, header + l4_len);
    pair_events(&f->p, 0);
}

static void step_send(struct fuzz *f)
{
    static const uint8_t data[8000];
    uint32_t conn = take(&f->in, 1) % CONN_MAX, len = take(&f->in, 2) % sizeof data;
    int64_t taken;

    if (!f->held[0][conn])
        return;
    taken = tcp_send(f->p.hosts[0].s, conn, data, len);
    f->given[conn] += taken > 0 ? (uint64_t)taken : 0;
}

static void step_connect(struct fuzz *f)
{
    uint32_t choice = take(&f->in, 1), conn;

    if (tcp_connect(f->p.hosts[0].s, NULL, 0, &host_addresses[1][choice & 1], choice & 2 ? 81 : 80, NULL, NULL, 0,
                    f->p.now_us, &conn) == 0) {
        f->held[0][conn] = true;
        f->given[conn] = 0;
    }
}

static void step(struct fuzz *f)
{
    static const uint32_t waits_us[] = {1, 1000, 40000, 250000, 1000000, 4000000};
    uint32_t what = take(&f->in, 1);

    if (what < 110)
        step_error(f);
    else if (what < 130)
        step_message(f);
    else if (what < 160)
        step_send(f);
    else if (what < 175)
        step_connect(f);
    else if (what < 190)
        f->p.lose = take(&f->in, 1) % 32;
    else if (what < 200)
        pair_work(&f->p);
    else if (what < 220)
        pair_settle(&f->p);
    else
        pair_pass(&f->p, waits_us[what % 6]);
    pair_check(&f->p);
}

static void wind_up(struct fuzz *f)
{
    uint64_t given;

    f->p.lose = 0;
    for (uint32_t i = 0; i < 200; i++) {
        given = 0;
        for (uint32_t conn = 0; conn < CONN_MAX; conn++)
            given += f->held[0][conn] ? f->given[conn] : 0;
        if (f->got >= given)
            break;
        pair_pass(&f->p, 1000000);
    }
    if (f->got < given)
        sim_fail(&f->p.failure, "%llu bytes arrived of %llu", (unsigned long long)f->got, (unsigned long long)given);
    for (uint32_t host = 0; host < 2; host++)
        for (uint32_t conn = 0; conn < CONN_MAX; conn++)
            if (f->held[host][conn])
                tcp_close(f->p.hosts[host].s, conn, f->p.now_us);
    memset(f->held, 0, sizeof f->held);
    for (uint32_t i = 0; i < 30 && (i < 2 || !pair_is_at_rest(&f->p)); i++)
        pair_pass(&f->p, 10000000);
    host_check_empty(&f->p.hosts[0]);
    host_check_empty(&f->p.hosts[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz f;
    struct tcp_config config = {
        .conn_max = CONN_MAX,
        .half_open_max = 8,
        .time_wait_max = 8,
        .extension_max = CONN_MAX,
        .rx_slots = 64,
        .tx_slots = 64,
        .mtu = 1500,
        .source_port_first = 4000,
        .source_port_last = 4999,
        .snd_buf_bytes = 32768,
        .msl_ms = 1000,
        .reset_unknown = true,
        .flow_secret = {1, 2},
    };

    memset(&f.p.failure, 0, sizeof f - offsetof(struct fuzz, p.failure));
    f.in = (struct input){data, size};
    f.p.heard = heard;
    f.p.sent = note_sent;
    if (setjmp(f.p.failure.out) != 0) {
        fprintf(stderr, "%s\n", f.p.failure.text);
        abort();
    }
    config.pacing = take(&f.in, 1) & 1;
    pair_open(&f.p, &config, 5000000, 0);
    tcp_listen(f.p.hosts[1].s, &(struct ip_addr){{0}}, 80, 9);
    for (uint32_t steps = 0; f.in.left > 0 && steps < STEPS_MAX; steps++)
        step(&f);
    wind_up(&f);
    pair_close(&f.p);
    return 0;
}
