/*
 * run.c: see run.h.
 */
#include "tcp/run.h"

#ifdef JANUS_NO_PREDICTION

uint32_t run_take(struct tcp_stack *s, struct tcb *t, const struct tcp_packet *packets, uint32_t count)
{
    (void)s, (void)t, (void)packets, (void)count;
    return 0;
}

#else

#include "tcp/predict.h"
#include "tcp/reasm.h"
#include "wire/bytes.h"
#include "wire/ip.h"

enum {
    IPV4_PLAIN = 0x45,
    IPV4_MF_AND_OFFSET = 0x3fff,
    PSH_AND_OFFSET_REST = 0x0f00 | TCP_PSH, /* of the word that has flags and data offset */
};

/* A run as it grows. */
struct run {
    const uint8_t *ip;   /* the IP header of the segment before it */
    uint32_t ip_len;     /* of that header */
    uint32_t header_len; /* with TCP's */
    uint32_t seq;        /* of the next */
    uint32_t room;       /* bytes that the next may have at most */
    uint32_t slots;      /* that there are for it */
    uint32_t last;       /* slot of the latest */
    uint32_t last_seq, longest;
    bool timestamps;
};

/* Slots that has_room() of rxq.c would give one after the other to segments at RCV.NXT, without giving anything up. */
static inline uint32_t slots_left(const struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e)
{
    uint32_t limit = s->rcv_sizes[t->rcv_level].slots, held = e->rx_slots;
    uint64_t used = (uint64_t)s->rx_held + held;
    uint32_t own = limit > held ? limit - held : 0;
    uint32_t all = s->rx_budget > used ? (uint32_t)(s->rx_budget - used + 1) / 2 : 0;

    return own < all ? own : all;
}

/* Bytes that may come before there is more to do than to take them: the window's end, or that of a round of receiving. */
static inline uint32_t bytes_left(const struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e)
{
    uint32_t room = t->rcv_adv - t->rcv_nxt;

    if (s->rcv_level_max == 0)
        return room;
    if (!e->rcv_round || seq_geq(t->rcv_nxt, e->rcv_mark))
        return 0;
    return e->rcv_mark - t->rcv_nxt - 1 < room ? e->rcv_mark - t->rcv_nxt - 1 : room;
}

/* May there be a run behind this packet?  It has one if its slot is the last of t's. */
static inline bool begin(const struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e,
                         const struct tcp_packet *packet, struct run *run)
{
    if (e->rx_last != packet->slot || (t->flags & (PREDICT_UNUSUAL | TCB_QUICK_ACK)) || !reasm_is_empty(&e->reasm) ||
        seq_gt(t->snd_wl1, t->rcv_nxt))
        return false;
    run->ip = packet->ip;
    if (run->ip[0] >> 4 == 6)
        run->ip_len = run->ip[6] == IP_PROTOCOL_TCP ? IPV6_HEADER_LEN : 0;
    else
        run->ip_len = run->ip[0] == IPV4_PLAIN ? IPV4_HEADER_LEN : 0;
    run->timestamps = (t->flags & TCB_TIMESTAMPS) != 0;
    run->header_len = run->ip_len + TCP_HEADER_LEN + (run->timestamps ? TCP_TIMESTAMPS_LEN : 0);
    run->seq = t->rcv_nxt;
    run->room = bytes_left(s, t, e);
    run->slots = slots_left(s, t, e);
    run->last = packet->slot;
    run->longest = e->rmss;
    return run->ip_len != 0;
}

/* Is b the IPv4 header of the same flow, as plain as a?  Gives the packet's length as it says. */
static inline bool is_alike_ipv4(const uint8_t *a, const uint8_t *b, uint32_t *len)
{
    uint64_t addresses_a, addresses_b;

    memcpy(&addresses_a, a + 12, sizeof addresses_a);
    memcpy(&addresses_b, b + 12, sizeof addresses_b);
    *len = get_be16(b + 2);
    return ((addresses_a ^ addresses_b) | (uint64_t)(get_be16(a) ^ get_be16(b)) |
            (uint64_t)(get_be16(b + 6) & IPV4_MF_AND_OFFSET) | (uint64_t)(b[9] ^ IP_PROTOCOL_TCP)) == 0;
}

static inline bool is_alike_ipv6(const uint8_t *a, const uint8_t *b, uint32_t *len)
{
    struct ip_addr x[2], y[2];

    memcpy(x, a + 8, sizeof x);
    memcpy(y, b + 8, sizeof y);
    *len = IPV6_HEADER_LEN + get_be16(b + 4);
    return get_be32(a) == get_be32(b) && b[6] == IP_PROTOCOL_TCP && ip_addr_equal(&x[0], &y[0]) &&
           ip_addr_equal(&x[1], &y[1]);
}

/* Bytes of text that the packet adds to the run; 0: it is none of the run's. */
static inline uint32_t text_of(const struct tcp_stack *s, const struct tcb *t, const struct run *run,
                               const struct tcp_packet *packet)
{
    const uint8_t *ip = packet->ip, *tcp;
    uint32_t len, text;

    if (!packet->verified || packet->slot >= s->config.rx_slots || packet->len <= run->header_len ||
        packet->offset + packet->len > TCP_SLOT_BYTES)
        return 0;
    tcp = ip + run->ip_len;
    if (!(run->ip_len == IPV4_HEADER_LEN ? is_alike_ipv4(run->ip, ip, &len) : is_alike_ipv6(run->ip, ip, &len)))
        return 0;
    text = len - run->header_len;
    /* A length within the headers leaves no text, or more than there is room for. */
    if ((get_be32(tcp) ^ get_be32(run->ip + run->ip_len)) | (get_be32(tcp + 4) ^ run->seq) |
        (get_be32(tcp + 8) ^ t->snd_una) |
        (uint32_t)((get_be16(tcp + 12) & ~PSH_AND_OFFSET_REST) ^ ((run->header_len - run->ip_len) << 10 | TCP_ACK)) |
        (((uint32_t)get_be16(tcp + 14) << t->snd_wind_shift) ^ t->snd_wnd) | (uint32_t)(len > packet->len) |
        (uint32_t)(text > run->room))
        return 0;
    if (run->timestamps && (get_be32(tcp + TCP_HEADER_LEN) != TCP_ALIGNED_TIMESTAMPS ||
                            seq_lt(get_be32(tcp + TCP_HEADER_LEN + 4), t->ts_recent)))
        return 0;
    return text;
}

/* What header prediction does for each segment, for all.  RFC 7323 4.3 is done with: they begin behind Last.ACK.sent.  The segment before
 * them has begun to delay its ACK, unless it is due already; and who is due stays so, since each adds as much to what waits as it can
 * add to what may wait. */
static inline void finish(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, const struct run *run, uint32_t count)
{
    uint32_t bytes = run->seq - t->rcv_nxt;

    s->counters.segments_received += count;
    s->counters.run_segments += count;
    s->counters.bytes_received += bytes;
    s->rx_held += count;
    s->rx[run->last].next = TCP_NO_SLOT;
    e->rx_last = run->last;
    e->rx_slots = (uint16_t)(e->rx_slots + count);
    e->rx_bytes += bytes;
    e->rmss = (uint16_t)run->longest;
    reasm_skip(&e->reasm, bytes);
    t->rcv_nxt = run->seq;
    t->snd_wl1 = run->last_seq;
    if (t->rcv_nxt - t->last_ack_sent > e->rmss)
        tcb_owe(s, t, OWE_ACK);
}

uint32_t run_take(struct tcp_stack *s, struct tcb *t, const struct tcp_packet *packets, uint32_t count)
{
    struct tcb_ext *e = t->state == TCP_STATE_ESTABLISHED ? stack_ext(s, t) : NULL;
    struct run run;
    uint32_t n = 0;

    if (e == NULL || !begin(s, t, e, &packets[0], &run))
        return 0;
    count = run.slots < count - 1 ? run.slots : count - 1;
    for (; n < count; n++) {
        const struct tcp_packet *packet = &packets[n + 1];
        uint32_t text = text_of(s, t, &run, packet);

        if (text == 0)
            break;
        s->rx[run.last].next = packet->slot;
        s->rx[packet->slot] = (struct reasm_slot){
            .data = (uint16_t)(packet->offset + run.header_len),
            .len = (uint16_t)text,
        };
        run.last = packet->slot;
        run.last_seq = run.seq;
        run.seq += text;
        run.room -= text;
        run.longest = text > run.longest ? text : run.longest;
    }
    if (n != 0)
        finish(s, t, e, &run, n);
    return n;
}

#endif
