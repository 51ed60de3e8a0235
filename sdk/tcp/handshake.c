/*
 * handshake.c: options of SYNs.
 */
#include "tcp/handshake.h"

#include "tcp/validation.h"
#include "tcp/window.h"

enum {
    MSS_DEFAULT_IPV4 = 536, /* RFC 9293 3.7.1 */
    MSS_DEFAULT_IPV6 = 1220,
    TIMESTAMPS_BYTES = 12,
};

uint16_t handshake_our_mss(const struct tcp_stack *s, const struct ip_addr *raddr)
{
    return (uint16_t)(s->config.mtu - stack_header_len(raddr));
}

static_assert(TCP_OPTION_WINDOW_SCALE == TCB_WINDOW_SCALE << 1 && TCP_OPTION_SACK_PERMITTED == TCB_SACK << 1 &&
                  TCP_OPTION_TIMESTAMPS == TCB_TIMESTAMPS << 1,
              "options and their flags are one shift apart");

static uint8_t flags_of(uint8_t options)
{
    return options >> 1 & HANDSHAKE_OPTIONS;
}

uint32_t handshake_flags(const struct tcp_stack *s)
{
    return flags_of((uint8_t)~s->config.options_off);
}

/* RFC 3168 6.1.1: an ECN-setup SYN has both flags, an ECN-setup SYN-ACK has ECE alone. */
static bool offers_ecn(const struct tcp_stack *s, uint8_t flags)
{
    if (flags & TCP_ACK)
        return (flags & (TCP_ECE | TCP_CWR)) == TCP_ECE;
    return s->config.ecn != TCP_ECN_OFF && (flags & (TCP_ECE | TCP_CWR)) == (TCP_ECE | TCP_CWR);
}

void handshake_read(const struct tcp_stack *s, const struct flow *flow, const struct tcp_segment *seg,
                    struct handshake *h)
{
    const struct tcp_options *options = &seg->options;
    uint16_t ours = handshake_our_mss(s, &flow->raddr);
    uint16_t mss = ip_addr_is_ipv4(&flow->raddr) ? MSS_DEFAULT_IPV4 : MSS_DEFAULT_IPV6;
    uint8_t present = options->present & (uint8_t)~s->config.options_off;

    if (present & TCP_OPTION_MSS)
        mss = options->mss;
    mss = mss > SMSS_MIN ? mss : SMSS_MIN;
    h->mss = mss < ours ? mss : ours;
    h->flags = flags_of(present) | (offers_ecn(s, seg->flags) ? TCB_ECN : 0);
    h->irs = seg->seq;
    h->tsval = options->tsval;
    h->rtt_us = 0;
    h->wscale = HANDSHAKE_NO_WSCALE;
    if (present & TCP_OPTION_WINDOW_SCALE)
        h->wscale = options->window_scale < WSCALE_MAX ? options->window_scale : WSCALE_MAX;
}

void handshake_apply(struct tcp_stack *s, struct tcb *t, const struct handshake *h, uint64_t now_us)
{
    bool asked = (t->flags & (TCB_ACTIVE | TCB_ECT)) != TCB_ACTIVE; /* a passive side is asked */

    t->flags &= ~(uint32_t)(HANDSHAKE_OPTIONS | TCB_ECT);
    t->flags |= h->flags & HANDSHAKE_OPTIONS;
    t->smss = h->mss;
    if (h->flags & TCB_TIMESTAMPS) {
        t->smss = (uint16_t)(t->smss - TIMESTAMPS_BYTES);
        t->ts_recent = h->tsval;
        t->ts_recent_age_ms = stack_now_ms(now_us);
    }
    if (h->rtt_us != 0)
        rtt_sample(&t->rtt, h->rtt_us, 1);
    if (s->config.quick_acks != 0)
        t->flags |= TCB_QUICK_ACK;
    if ((h->flags & TCB_ECN) && asked)
        t->flags |= TCB_ECN | TCB_ECT;
    if (h->flags & TCB_WINDOW_SCALE)
        t->snd_wind_shift = h->wscale & 0xf;
    t->rcv_nxt = h->irs + 1;
    t->rcv_adv = t->rcv_nxt + window_initial(s);
    t->last_ack_sent = t->rcv_nxt;
    t->validated_s = t->flags & TCB_QUICK_ACK ? 0 : validation_seconds(now_us);
    cc_window_init(&t->cc, t->smss, (t->flags & TCB_SYN_LOST) != 0);
}

void handshake_options(const struct tcp_stack *s, const struct flow *flow, const struct handshake *h, uint32_t tsval,
                       struct tcp_options *options)
{
    options->present = (uint8_t)(TCP_OPTION_MSS | (h->flags & HANDSHAKE_OPTIONS) << 1);
    options->mss = handshake_our_mss(s, &flow->raddr);
    options->window_scale = s->rcv_shifts[TCB_WINDOW_SCALE];
    options->tsval = tsval;
    options->tsecr = h->tsval;
}
