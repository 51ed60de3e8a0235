/*
 * rack.h: losses found by time (RACK), and tails that are probed (TLP): RFC 8985.  With SACK only; without it recovery.c counts
 * duplicate ACKs.
 *
 * A segment is lost when one that was sent later has been delivered, and a round trip and a reordering window have gone by since it
 * was sent.  What is not yet due waits for rack_deadline; while nothing is SACKed and nothing lost that deadline is the probe's.
 */
#ifndef TCP_RACK_H
#define TCP_RACK_H

#include "tcp/stack.h"

/* Before the first rack_delivered() of an ACK, whose segments come in no particular order. */
static inline void rack_begin(struct tcb_ext *e)
{
    e->rack_fack_before = e->rack_fack;
}

/* A segment that was in flight is delivered, SACKed or acknowledged for the first time (RFC 8985 6.2, steps 1 to 3). */
void rack_delivered(struct tcb *t, struct tcb_ext *e, const struct tx_slot *m, const struct input *in);

/* A D-SACK: the reordering window was too short; and a recovery is over (step 4). */
void rack_on_d_sack(const struct tcb *t, struct tcb_ext *e);
void rack_on_exit(struct tcb_ext *e);

/* Judges segments lost, and sets rack_deadline for those that may soon be (steps 4 and 5).  True: there was one. */
bool rack_detect_loss(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us);

/* New data was sent, or SND.UNA has moved: the probe's time, if one may be sent (RFC 8985 7.2). */
void rack_schedule_probe(struct tcb *t, struct tcb_ext *e, uint64_t now_us);

/* rack_deadline has come. */
void rack_fire(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint64_t now_us);

/* The probe is out (RFC 8985 7.3). */
void rack_probe_sent(struct tcb *t, struct tcb_ext *e, bool retransmission, uint64_t now_us);

/* What an ACK says of the probe (RFC 8985 7.4).  e is null when nothing is in flight. */
void rack_probe_on_ack(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, const struct input *in);

#endif
