/*
 * handshake.h: what two SYNs agree on (RFC 9293 3.7.1, RFC 7323, RFC 2018).
 */
#ifndef TCP_HANDSHAKE_H
#define TCP_HANDSHAKE_H

#include "tcp/isn.h"
#include "tcp/stack.h"

enum {
    HANDSHAKE_NO_WSCALE = 15,
    HANDSHAKE_OPTIONS = TCB_WINDOW_SCALE | TCB_SACK | TCB_TIMESTAMPS,
};

/* What the peer's SYN offers. */
struct handshake {
    uint16_t mss;   /* clamped to what this stack would send */
    uint8_t wscale; /* 0 to 14 with TCB_WINDOW_SCALE, else HANDSHAKE_NO_WSCALE */
    uint8_t flags;  /* of HANDSHAKE_OPTIONS, and TCB_ECN */
    uint32_t irs, tsval;
    uint32_t rtt_us; /* from SYN-ACK to its ACK, 0: not measured */
};

void handshake_read(const struct tcp_stack *s, const struct flow *flow, const struct tcp_segment *seg,
                    struct handshake *h);

/* enum tcb_flag of the options that this stack offers. */
uint32_t handshake_flags(const struct tcp_stack *s);

/* The MSS that this stack offers. */
uint16_t handshake_our_mss(const struct tcp_stack *s, const struct ip_addr *raddr);

/* Gives t what both sides can do, and the congestion window that follows from it. */
void handshake_apply(struct tcp_stack *s, struct tcb *t, const struct handshake *h, uint64_t now_us);

/* Options of a SYN-ACK that accepts h. */
void handshake_options(const struct tcp_stack *s, const struct flow *flow, const struct handshake *h, uint32_t tsval,
                       struct tcp_options *options);

#endif
