/*
 * recovery.h: from duplicate ACKs, SACK and timeouts to segments judged lost (RFC 5681, 6582, 6298, 5682; with SACK RFC 8985).
 *
 * Judging is here and, with SACK, in rack.h; how fast the lost go out again is tcp_output()'s, which keeps rtxq_pipe() within cwnd
 * (RFC 6675).  Without SACK each duplicate ACK stands for a segment that has left the network.
 */
#ifndef TCP_RECOVERY_H
#define TCP_RECOVERY_H

#include "tcp/stack.h"

/* A duplicate ACK, or one that SACKs more. */
void recovery_on_duplicate(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us);

/* RACK's reordering timer has fired. */
void recovery_by_time(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us);

/* A D-SACK of the peer: when all that was sent again was needless, so was the reduction of cwnd (RFC 2883 4, RFC 3708). */
void recovery_on_d_sack(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, const struct tcp_sack_block *block);

/* In fast recovery with SACK, after all else of an ACK: cwnd follows what was delivered (RFC 6937 3). */
void recovery_reduce(struct tcb *t, struct tcb_ext *e, uint32_t delivered);

/* SND.UNA moved by acked bytes; true: cwnd may grow for them. */
bool recovery_on_ack(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint32_t acked, uint64_t now_us);

/* The retransmission timer fired with data or FIN in flight. */
void recovery_on_rto(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us);

#endif
