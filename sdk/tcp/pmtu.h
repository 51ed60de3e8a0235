/*
 * pmtu.h: the path's MTU, as one connection knows it: its full segment, smss (RFC 1191, 8201, 4821, 5927 7).
 *
 *   too big, nothing of this size was ever acknowledged ──> smaller at once
 *   too big, but such segments have come through      ──> noted; believed when the retransmission timer fires for that segment
 *   three timeouts in a row of a large segment (R1)   ──> a black hole: base size, then the floor; and up again by probing
 *
 * A claim is about a segment in flight that is really larger than the claimed MTU; anything else was not caused by us.  What is in
 * flight and too large goes out again in pieces, without congestion's consequences.  The size from before is tried again ten
 * minutes after a router's word, or after the end of a search (RFC 1191 6.3, RFC 8201 4, RFC 4821 7.3): routes change.  By then the
 * connection may have been idle: it is tried when data flows again.
 */
#ifndef TCP_PMTU_H
#define TCP_PMTU_H

#include "tcp/stack.h"

enum {
    PMTU_FLOOR_IPV4 = 576, /* no claim below it is believed (RFC 5927 7.3 asks for a floor, RFC 791's 68 is none) */
    PMTU_FLOOR_IPV6 = 1280,
    PMTU_BASE_BYTES = 1024, /* payload, RFC 4821 7.2 */
    PMTU_WAIT_MS = 600000,
    PMTU_GRAIN_BYTES = 32, /* a search ends when this little is left */
};

/* An ICMP error that quotes seq of t says that a packet must be at most mtu bytes (0: not said) on its path. */
enum tcp_drop pmtu_too_big(struct tcp_stack *s, struct tcb *t, uint32_t seq, uint32_t mtu);

/* The retransmission timer fired.  True: the full segment is smaller now. */
bool pmtu_on_rto(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e);

/* SND.UNA moved while a probe is out. */
void pmtu_on_ack(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e);

/* Loss was found.  True: all that is lost is the probe, which is no sign of congestion (RFC 4821 7.6.2). */
bool pmtu_is_probe_loss(const struct tcp_stack *s, struct tcb *t, struct tcb_ext *e);

/* A slot of more than a full segment is to be sent: it is a probe, or is cut.  False: no slot for the rest. */
bool pmtu_fits(struct tcp_stack *s, const struct tcb *t, struct tcb_ext *e, uint32_t slot);

/* t falls idle and gives its extension back, and has it again: what is to be tried again is kept meanwhile, for as many connections as
 * there is room for. */
void pmtu_note(struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e);
void pmtu_recall(struct tcp_stack *s, const struct tcb *t, struct tcb_ext *e);

/* Makes the first unsent slot a probe when the search goes on and all conditions are right (RFC 4821 7.4). */
void pmtu_probe(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e);

#endif
