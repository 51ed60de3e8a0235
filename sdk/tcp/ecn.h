/*
 * ecn.h: explicit congestion notification on an established connection (RFC 3168 6.1).
 *
 * The receiver says ECE from the first CE until the sender's CWR; the sender takes the first ECE of each window of data for a loss
 * that needs no retransmission.  What two SYNs agree on is handshake.h's.
 */
#ifndef TCP_ECN_H
#define TCP_ECN_H

#include "tcp/stack.h"

enum { ECN_TIMEOUTS_MAX = 2 }; /* in a row; after more, ECT may be what the path drops */

/* Whether a SYN of a connection with this congestion control asks for ECN: DCTCP needs it. */
static inline bool ecn_is_asked(const struct tcp_stack *s, uint8_t congestion_control)
{
    return s->config.ecn == TCP_ECN_ON || (s->config.ecn != TCP_ECN_OFF && congestion_control == TCP_CC_DCTCP);
}

/* The IP and TCP marks of an acceptable segment; before its text is taken. */
void ecn_received(struct tcp_stack *s, struct tcb *t, const struct input *in);

/* An ACK with ECE.  flight: bytes that were outstanding when it came. */
void ecn_congestion(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, const struct input *in, uint32_t flight);

/* cwnd goes down without a recovery. */
void ecn_reduce(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint32_t flight, uint64_t now_us);

/* cwnd went down, for whatever reason: not again for this window of data, and the peer is told (RFC 3168 6.1.2). */
static inline void ecn_reduced(struct tcb *t, struct tcb_ext *e)
{
    e->cwr_point = t->snd_nxt;
    if (t->flags & TCB_ECN)
        t->flags |= TCB_ECN_CWR;
}

#endif
