/*
 * transmit.h: the segments of one connection: which, with what in them, and what sending them changes.
 *
 * Called by tcp_output() alone.  Each clears the marks that its segment fulfils; every segment but a RST carries an ACK and so
 * fulfils that one too.
 */
#ifndef TCP_TRANSMIT_H
#define TCP_TRANSMIT_H

#include "tcp/output.h"

enum sent transmit_syn(struct tcp_stack *s, struct tcb *t, uint64_t now_us, uint32_t *sent);
enum sent transmit_ack(struct tcp_stack *s, struct tcb *t, uint64_t now_us, uint32_t *sent);

/* Lost segments, then new ones, then FIN, within cwnd and the peer's window, while *sent is below limit (OWE_DATA stays). */
enum sent transmit_data(struct tcp_stack *s, struct tcb *t, uint64_t now_us, uint32_t *sent, uint32_t limit);

/* The tail loss probe: new data, or else the last segment again (RFC 8985 7.3). */
enum sent transmit_tail_probe(struct tcp_stack *s, struct tcb *t, uint64_t now_us, uint32_t *sent);

/* What the silly window avoidance held back, as far as the window allows, or an old sequence number that makes a living peer tell
 * its window (RFC 9293 3.8.6.1, 3.8.4).  Never an octet beyond a closed window: one that is taken after all leaves SND.NXT behind the
 * peer's RCV.NXT, and when both sides probe at once each holds the other's ACKs for old. */
enum sent transmit_probe(struct tcp_stack *s, struct tcb *t, uint64_t now_us, uint32_t *sent);

/* RST; frees the row when nobody holds it. */
enum sent transmit_reset(struct tcp_stack *s, struct tcb *t, uint32_t *sent);

#endif
