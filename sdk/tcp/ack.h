/*
 * ack.h: the ACK field and the send window of a segment in a synchronized state (RFC 9293 3.10.7.4, fifth).
 */
#ifndef TCP_ACK_H
#define TCP_ACK_H

#include "tcp/stack.h"

enum tcp_drop ack_process(struct tcp_stack *s, struct tcb *t, const struct input *in);

/* SEG.ACK is above SND.UNA and not above SND.NXT.  sacked: bytes that this segment has SACKed for the first time. */
void ack_new(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, const struct input *in, uint32_t sacked);

/* May another challenge ACK go out?  The stack's budget for a second is drawn at random, so that counting what is left of it says nothing
 * of other connections (RFC 5961 7, CVE-2016-5696). */
bool ack_may_challenge(struct tcp_stack *s, uint64_t now_us);

/* Marks an ACK in answer to a segment that may be looped: at most one in CHALLENGE_MS per connection. */
void ack_limited(struct tcp_stack *s, struct tcb *t, uint64_t now_us);

/* The same of one that may be forged (RFC 5961), within the stack's budget. */
void ack_challenge(struct tcp_stack *s, struct tcb *t, uint64_t now_us);

/* Takes SND.WND from a segment whose window is newer: by SND.WL1, or as is known since it acknowledges what was not.  RFC 9293 asks for SND.WL1
 * alone; then a segment sent again, with an older sequence number, moves SND.UNA and leaves the window where a reordered one put it, so that
 * more is sent than is offered, and two that do so to each other hold each other's ACKs for old. */
void ack_update_window(struct tcp_stack *s, struct tcb *t, const struct tcp_segment *seg, bool newer);

#endif
