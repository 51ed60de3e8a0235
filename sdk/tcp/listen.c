/*
 * listen.c: LISTEN and SYN-RECEIVED.
 *
 * Half-open blocks wait in one queue per number of retransmissions: all in it wait equally long, so its head is due first.
 */
#include "tcp/listen.h"

#include "tcp/ack.h"
#include "tcp/flows.h"
#include "tcp/handshake.h"
#include "tcp/input.h"
#include "tcp/predict.h"
#include "tcp/reply.h"
#include "tcp/seq.h"
#include "tcp/settings.h"
#include "tcp/timers.h"
#include "tcp/window.h"

#include <errno.h>

static const struct ip_addr any_addr;

static uint16_t *bucket_of(struct tcp_stack *s, uint16_t port)
{
    return &s->listener_buckets[port % LISTENER_BUCKETS];
}

static struct listener *find_exact(struct tcp_stack *s, const struct ip_addr *addr, uint16_t port)
{
    for (uint32_t i = *bucket_of(s, port); i != 0; i = s->listeners[i - 1].next)
        if (s->listeners[i - 1].port == port && ip_addr_equal(&s->listeners[i - 1].addr, addr))
            return &s->listeners[i - 1];
    return NULL;
}

struct listener *listener_find(struct tcp_stack *s, const struct ip_addr *laddr, uint16_t port)
{
    struct listener *of_any = NULL;

    for (uint32_t i = *bucket_of(s, port); i != 0; i = s->listeners[i - 1].next) {
        struct listener *l = &s->listeners[i - 1];

        if (l->port == port && ip_addr_equal(&l->addr, laddr))
            return l;
        if (l->port == port && ip_addr_equal(&l->addr, &any_addr))
            of_any = l;
    }
    return of_any;
}

int tcp_listen(struct tcp_stack *s, const struct ip_addr *addr, uint16_t port, uint64_t user)
{
    return tcp_listen_with(s, addr, port, user, &s->settings[0].values);
}

int tcp_listen_with(struct tcp_stack *s, const struct ip_addr *addr, uint16_t port, uint64_t user,
                    const struct tcp_settings *settings)
{
    uint16_t *bucket = bucket_of(s, port);
    uint32_t i = 0;
    int index;

    while (!ip_addr_equal(addr, &any_addr) && i < s->address_count && !ip_addr_equal(addr, &s->addresses[i]))
        i++;
    if (port == 0 || (!ip_addr_equal(addr, &any_addr) && i == s->address_count))
        return -EADDRNOTAVAIL;
    if (find_exact(s, addr, port) != NULL)
        return -EADDRINUSE;
    for (i = 0; i < TCP_LISTENERS_MAX && s->listeners[i].port != 0; i++)
        ;
    if (i == TCP_LISTENERS_MAX)
        return -ENOSPC;
    index = settings_take(s, settings);
    if (index < 0)
        return index;
    s->listeners[i] =
        (struct listener){.addr = *addr, .user = user, .port = port, .next = *bucket, .settings = (uint8_t)index};
    *bucket = (uint16_t)(i + 1);
    s->listener_count++;
    return 0;
}

/* --- half-open blocks --- */

static struct half_open *half_open_at(const struct tcp_stack *s, uint32_t index)
{
    return slab_at(&s->half_open, index);
}

static void enqueue(struct tcp_stack *s, uint32_t index, uint64_t now_us)
{
    struct half_open *h = half_open_at(s, index);
    struct block_queue *queue = &s->half_open_queue[h->retries];

    h->deadline = stack_deadline(now_us, (uint64_t)(HALF_OPEN_FIRST_MS << h->retries) * 1000);
    h->next = BLOCK_NONE;
    h->prev = queue->last;
    if (queue->last == BLOCK_NONE)
        queue->first = index;
    else
        half_open_at(s, queue->last)->next = index;
    queue->last = index;
}

static void dequeue(struct tcp_stack *s, uint32_t index)
{
    struct half_open *h = half_open_at(s, index);
    struct block_queue *queue = &s->half_open_queue[h->retries];

    if (h->prev == BLOCK_NONE)
        queue->first = h->next;
    else
        half_open_at(s, h->prev)->next = h->next;
    if (h->next == BLOCK_NONE)
        queue->last = h->prev;
    else
        half_open_at(s, h->next)->prev = h->prev;
}

void half_open_flow(const struct tcp_stack *s, const struct half_open *h, struct flow *flow)
{
    *flow = (struct flow){s->addresses[h->laddr_index], h->raddr, h->lport, h->rport};
}

static void half_open_free(struct tcp_stack *s, uint32_t index)
{
    flows_remove(s, handle_make(HANDLE_HALF_OPEN, index));
    dequeue(s, index);
    slab_give(&s->half_open, index);
}

int tcp_unlisten(struct tcp_stack *s, const struct ip_addr *addr, uint16_t port)
{
    struct listener *l = find_exact(s, addr, port);
    uint16_t *link = bucket_of(s, port);
    uint32_t number;

    if (port == 0 || l == NULL)
        return -ENOENT;
    number = (uint32_t)(l - s->listeners);
    while (*link != number + 1)
        link = &s->listeners[*link - 1].next;
    *link = l->next;
    settings_give(s, l->settings);
    *l = (struct listener){0};
    s->listener_count--;
    for (uint32_t i = 0; i <= HALF_OPEN_RETRIES; i++) {
        uint32_t index = s->half_open_queue[i].first;

        while (index != BLOCK_NONE) {
            uint32_t next = half_open_at(s, index)->next;

            if (half_open_at(s, index)->listener == number)
                half_open_free(s, index);
            index = next;
        }
    }
    return 0;
}

static uint8_t agreed_flags(const struct half_open *h)
{
    return (uint8_t)(h->agreed << 1 | (h->wscale != HANDSHAKE_NO_WSCALE ? TCB_WINDOW_SCALE : 0));
}

static void handshake_of(const struct half_open *h, struct handshake *hs)
{
    *hs = (struct handshake){
        .mss = h->mss,
        .wscale = h->wscale,
        .flags = agreed_flags(h),
        .irs = h->irs,
        .tsval = h->ts_recent,
    };
}

static void reply_syn_ack(struct tcp_stack *s, const struct half_open *h, const struct handshake *hs,
                          const struct flow *flow, const struct isn_offsets *offsets, uint64_t now_us)
{
    uint8_t settings = s->listeners[h->listener].settings;
    uint8_t flags = TCP_SYN | TCP_ACK | (hs->flags & TCB_ECN ? TCP_ECE : 0);
    struct reply *r = reply_add(s, flow, h->laddr_index, settings, flags, h->iss, h->irs + 1);

    if (r == NULL)
        return;
    handshake_options(s, flow, hs, isn_tsval(offsets, now_us), &r->options);
    settings_advertise(&s->settings[settings].values, &r->options);
    r->wnd = window_initial(s);
}

static struct isn_offsets offsets_of(const struct tcp_stack *s, uint32_t index)
{
    return isn_offsets(&s->secret, flows_of(s, handle_make(HANDLE_HALF_OPEN, index)));
}

static void repeat_syn_ack(struct tcp_stack *s, uint32_t index, uint64_t now_us)
{
    const struct half_open *h = half_open_at(s, index);
    struct isn_offsets offsets = offsets_of(s, index);
    struct handshake hs;
    struct flow flow;

    half_open_flow(s, h, &flow);
    handshake_of(h, &hs);
    reply_syn_ack(s, h, &hs, &flow, &offsets, now_us);
}

/* An ACK that says where this side is, to a segment that is not acceptable. */
static void reply_ack(struct tcp_stack *s, uint32_t index, const struct input *in)
{
    const struct half_open *h = half_open_at(s, index);
    uint8_t settings = s->listeners[h->listener].settings;
    struct reply *r;

    if (!ack_may_challenge(s, in->now_us) ||
        (r = reply_add(s, &in->flow, in->laddr_index, settings, TCP_ACK, h->iss + 1, h->irs + 1)) == NULL)
        return;
    r->wnd = window_initial(s);
    if (agreed_flags(h) & TCB_TIMESTAMPS) {
        struct isn_offsets offsets = offsets_of(s, index);

        r->options.present = TCP_OPTION_TIMESTAMPS;
        r->options.tsval = isn_tsval(&offsets, in->now_us);
        r->options.tsecr = h->ts_recent;
    }
}

void half_open_advance(struct tcp_stack *s, uint64_t now_us)
{
    if (s->half_open.used == 0)
        return;
    for (uint32_t i = HALF_OPEN_RETRIES + 1; i-- > 0;) {
        struct block_queue *queue = &s->half_open_queue[i];

        while (queue->first != BLOCK_NONE && stack_is_due(half_open_at(s, queue->first)->deadline, now_us)) {
            uint32_t index = queue->first;
            struct half_open *h = half_open_at(s, index);

            if (h->retries == HALF_OPEN_RETRIES) {
                s->counters.connections_timed_out++;
                half_open_free(s, index);
                continue;
            }
            dequeue(s, index);
            h->retries = (h->retries + 1) & 3;
            enqueue(s, index, now_us);
            s->counters.retransmitted_segments++;
            repeat_syn_ack(s, index, now_us);
        }
    }
}

/* --- a new connection --- */

/* The final ACK of a handshake makes a TCB of what was agreed.  handle: of the half-open block, or TABLE_NONE. */
static enum tcp_drop establish(struct tcp_stack *s, struct input *in, const struct handshake *hs,
                               const struct listener *l, bool syn_lost, uint32_t handle)
{
    uint64_t hash = handle == TABLE_NONE ? flows_hash(s, &in->flow) : 0;
    enum tcp_drop drop;
    uint32_t index;
    struct tcb *t;

    if (handle == TABLE_NONE && !flows_may_create(s, hash))
        return TCP_DROP_MOVING;
    index = tcb_take(s, l->settings);
    if (index == TCP_NO_CONN)
        return TCP_DROP_NO_TCB;
    t = stack_tcb(s, index);
    t->raddr = in->flow.raddr;
    t->rport = in->flow.rport;
    t->lport = in->flow.lport;
    t->laddr_index = in->laddr_index & 0xf;
    if (handle != TABLE_NONE) {
        flows_replace(s, handle, handle_make(HANDLE_TCB, index));
    } else if (!flows_add(s, hash, handle_make(HANDLE_TCB, index))) {
        tcb_free(s, t);
        return TCP_DROP_NO_TCB;
    }
    t->flags = TCB_IN_TABLE | (syn_lost ? TCB_SYN_LOST : 0);
    t->user = l->user;
    if (settings_of(s, t)->keepalive_ms != 0)
        t->idle_deadline = stack_deadline(in->now_us, settings_of(s, t)->keepalive_ms * UINT64_C(1000));
    handshake_apply(s, t, hs, in->now_us);
    t->snd_una = t->snd_nxt = in->seg.ack;
    t->snd_wnd = (uint32_t)in->seg.wnd << t->snd_wind_shift;
    t->snd_wl1 = in->seg.seq;
    tcb_set_state(s, t, TCP_STATE_ESTABLISHED);
    s->counters.connections_accepted++;
    tcb_event(s, t, TCP_EVENT_ACCEPTED);
    drop = predict_first(t, in) ? TCP_DROP_NONE : input_synchronized(s, t, in);
    tcb_return_ext(s, t);
    timers_update(s, t);
    return drop;
}

static void answer_by_cookie(struct tcp_stack *s, const struct input *in, const struct handshake *hs,
                             const struct listener *l)
{
    struct isn_offsets offsets = isn_offsets(&s->secret, flows_hash(s, &in->flow));
    bool timestamps = (hs->flags & TCB_TIMESTAMPS) != 0;
    struct isn_cookie cookie = {.mss = hs->mss,
                                .timestamps = timestamps,
                                .sack = (hs->flags & TCB_SACK) != 0,
                                .ecn = (hs->flags & TCB_ECN) != 0,
                                .wscale = hs->wscale};
    struct handshake plain = *hs;
    uint32_t iss = isn_cookie_encode(&s->secret, &in->flow, in->seg.seq, hs->mss, in->now_us);
    uint8_t flags = TCP_SYN | TCP_ACK | (cookie.ecn && timestamps ? TCP_ECE : 0);
    struct reply *r = reply_add(s, &in->flow, in->laddr_index, l->settings, flags, iss, in->seg.seq + 1);

    if (r == NULL)
        return;
    if (!timestamps) /* nothing would bring these back */
        plain.flags = 0;
    handshake_options(s, &in->flow, &plain, isn_cookie_tsval(isn_tsval(&offsets, in->now_us), &cookie), &r->options);
    r->wnd = window_initial(s);
    s->counters.syn_cookies_sent++;
    s->cookies_until_us = in->now_us + UINT64_C(2000000) * ISN_COOKIE_PERIOD_S;
}

/* The final ACK of a handshake of which nothing was kept. */
static enum tcp_drop accept_cookie(struct tcp_stack *s, struct input *in, const struct listener *l)
{
    const struct tcp_options *options = &in->seg.options;
    struct isn_cookie cookie = {.wscale = ISN_NO_WSCALE};
    struct handshake hs = {.wscale = HANDSHAKE_NO_WSCALE, .irs = in->seg.seq - 1};
    enum tcp_drop drop;

    if (!isn_cookie_decode(&s->secret, &in->flow, in->seg.seq - 1, in->seg.ack - 1, in->now_us, &cookie.mss)) {
        /* The handshake's ACK and the first data may have been dropped at a thread that was sealed; the client sends them again,
         * but what follows them is here already and names no IRS. */
        drop = flows_miss(s, in, in->now_us < s->settling_until_us);
        return drop == TCP_DROP_MOVING ? drop : TCP_DROP_COOKIE;
    }
    if (options->present & TCP_OPTION_TIMESTAMPS) {
        isn_cookie_read_tsecr(options->tsecr, &cookie);
        hs.tsval = options->tsval;
        hs.wscale = cookie.wscale;
        hs.flags = TCB_TIMESTAMPS | (cookie.sack ? TCB_SACK : 0) |
                   (cookie.ecn && s->config.ecn != TCP_ECN_OFF ? TCB_ECN : 0) |
                   (cookie.wscale != ISN_NO_WSCALE ? TCB_WINDOW_SCALE : 0);
    }
    hs.mss = cookie.mss < handshake_our_mss(s, &in->flow.raddr) ? cookie.mss : handshake_our_mss(s, &in->flow.raddr);
    drop = establish(s, in, &hs, l, false, TABLE_NONE);
    s->counters.syn_cookies_accepted += drop != TCP_DROP_NO_TCB && drop != TCP_DROP_MOVING;
    return drop;
}

enum tcp_drop listen_syn(struct tcp_stack *s, struct input *in, bool has_min, uint32_t iss_min)
{
    struct listener *l = listener_find(s, &in->flow.laddr, in->flow.lport);
    struct isn_offsets offsets;
    struct handshake hs;
    struct half_open *h;
    uint64_t hash;
    uint32_t index;

    s->counters.syn_received++;
    if (l == NULL)
        return s->config.reset_unknown ? flows_miss(s, in, false) : TCP_DROP_NO_CONNECTION;
    if (in->seg.flags & TCP_FIN)
        return TCP_DROP_BAD_FLAGS;
    handshake_read(s, &in->flow, &in->seg, &hs);
    if (s->half_open.used >= (s->config.half_open_max + 1) / 2) {
        if (hs.mss < ISN_COOKIE_MSS_MIN)
            return TCP_DROP_NO_TCB; /* no cookie can say it, and larger segments would not be taken */
        answer_by_cookie(s, in, &hs, l);
        return TCP_DROP_NONE;
    }
    hash = flows_hash_of(s, in);
    if (!flows_may_create(s, hash))
        return TCP_DROP_MOVING;
    index = slab_take(&s->half_open);
    if (index == SLAB_NONE || !flows_add(s, hash, handle_make(HANDLE_HALF_OPEN, index))) {
        if (index != SLAB_NONE)
            slab_give(&s->half_open, index);
        return TCP_DROP_NO_TCB;
    }
    h = half_open_at(s, index);
    offsets = isn_offsets(&s->secret, hash);
    *h = (struct half_open){
        .raddr = in->flow.raddr,
        .rport = in->flow.rport,
        .lport = in->flow.lport,
        .iss = isn_at(&offsets, in->now_us),
        .irs = in->seg.seq,
        .ts_recent = hs.tsval,
        .mss = hs.mss & 0x7ff,
        .agreed = hs.flags >> 1 & 7,
        .laddr_index = in->laddr_index & 0xf,
        .wscale = hs.wscale & 0xf,
        .listener = (uint8_t)(l - s->listeners),
    };
    if (has_min && seq_lt(h->iss, iss_min))
        h->iss = iss_min;
    enqueue(s, index, in->now_us);
    reply_syn_ack(s, h, &hs, &in->flow, &offsets, in->now_us);
    return TCP_DROP_NONE;
}

enum tcp_drop listen_input(struct tcp_stack *s, struct input *in)
{
    struct listener *l;

    if ((in->seg.flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN)
        return listen_syn(s, in, false, 0);
    if (in->seg.flags & TCP_RST)
        return TCP_DROP_NO_CONNECTION;
    l = listener_find(s, &in->flow.laddr, in->flow.lport);
    if (l != NULL && (in->seg.flags & (TCP_SYN | TCP_ACK)) == TCP_ACK && in->now_us < s->cookies_until_us)
        return accept_cookie(s, in, l);
    /* To a listener too, an ACK is a bad one (RFC 9293 3.10.7.2); a segment without ACK is nothing to it. */
    if (s->config.reset_unknown && (l == NULL || (in->seg.flags & TCP_ACK)))
        return flows_miss(s, in, false);
    return TCP_DROP_NO_CONNECTION;
}

static enum tcp_drop check_half_open(struct tcp_stack *s, uint32_t index, const struct input *in)
{
    struct half_open *h = half_open_at(s, index);
    const struct tcp_segment *seg = &in->seg;
    uint32_t seg_len = seg->payload_len + !!(seg->flags & TCP_FIN);
    bool timestamps = (agreed_flags(h) & TCB_TIMESTAMPS) != 0;

    if (seg->flags & TCP_RST) {
        if (seg->seq == h->irs + 1) {
            s->counters.resets_received++;
            half_open_free(s, index);
            return TCP_DROP_NONE;
        }
        if (seq_between(seg->seq, h->irs + 1, window_initial(s))) {
            reply_ack(s, index, in);
            return TCP_DROP_CHALLENGED;
        }
        return TCP_DROP_OUT_OF_WINDOW;
    }
    if (seg->flags & TCP_SYN) {
        if (seg->seq == h->irs && !(seg->flags & TCP_ACK)) {
            if (timestamps && (seg->options.present & TCP_OPTION_TIMESTAMPS) &&
                seq_gt(seg->options.tsval,
                       h->ts_recent)) /* the echo of the first would be a round trip of seconds (RFC 7323 4.3) */
                h->ts_recent = seg->options.tsval;
            repeat_syn_ack(s, index, in->now_us);
            return TCP_DROP_DUPLICATE;
        }
        reply_ack(s, index, in);
        return TCP_DROP_CHALLENGED;
    }
    if (timestamps && !(seg->options.present & TCP_OPTION_TIMESTAMPS))
        return TCP_DROP_NO_TIMESTAMP;
    if ((timestamps && seq_lt(seg->options.tsval, h->ts_recent)) ||
        !seq_is_acceptable(h->irs + 1, window_initial(s), seg->seq, seg_len)) {
        reply_ack(s, index, in);
        return TCP_DROP_OUT_OF_WINDOW;
    }
    if (!(seg->flags & TCP_ACK))
        return TCP_DROP_BAD_FLAGS;
    if (seg->ack != h->iss + 1) {
        reply_reset(s, in);
        return TCP_DROP_BAD_ACK;
    }
    return TCP_DROP_NONE;
}

enum tcp_drop half_open_refused(struct tcp_stack *s, uint32_t index, uint32_t seq)
{
    if (seq != half_open_at(s, index)->iss)
        return TCP_DROP_ICMP;
    s->counters.connections_failed++;
    half_open_free(s, index);
    return TCP_DROP_NONE;
}

enum tcp_drop half_open_input(struct tcp_stack *s, uint32_t index, struct input *in)
{
    const struct half_open *h = half_open_at(s, index);
    enum tcp_drop drop = check_half_open(s, index, in);
    bool syn_lost = h->retries != 0;
    struct handshake hs;

    if (drop != TCP_DROP_NONE || (in->seg.flags & TCP_RST))
        return drop;
    handshake_of(h, &hs);
    if (s->config.handshake_rtt && !syn_lost) {              /* else the ACK may be of either copy (Karn) */
        uint32_t sent_ms = h->deadline - HALF_OPEN_FIRST_MS; /* rounded up */

        hs.rtt_us = seq_gt(stack_now_ms(in->now_us), sent_ms) ? (stack_now_ms(in->now_us) - sent_ms) * 1000 : 1000;
    }
    drop = establish(s, in, &hs, &s->listeners[h->listener], syn_lost, handle_make(HANDLE_HALF_OPEN, index));
    if (drop == TCP_DROP_NO_TCB)
        return drop;
    dequeue(s, index);
    slab_give(&s->half_open, index);
    return drop;
}
