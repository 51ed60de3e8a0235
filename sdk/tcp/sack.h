/*
 * sack.h: the scoreboard: which sent segments the peer already holds, kept as flags of the slots (RFC 2018, RFC 6675).
 */
#ifndef TCP_SACK_H
#define TCP_SACK_H

#include "tcp/stack.h"

/* Marks what the blocks of an ACK cover; returns the bytes that are new.  Blocks that are not within (SND.UNA, SND.NXT] count for
 * nothing. */
uint32_t sack_mark(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, const struct input *in);

/* What a peer can make this side walk is bounded: in each millisecond some queue lengths for blocks, and as many for RACK, more than an
 * honest peer's need.  Blocks beyond that wait until they are named again, RACK for the next millisecond. */
bool sack_may_walk(const struct tcp_stack *s, const struct tcb_ext *e, uint32_t steps);
void sack_walked(struct tcp_stack *s, struct tcb_ext *e, uint32_t *steps, uint32_t count);

/* Judges one sent segment, neither SACKed nor lost, lost; or has it sent again without a sign of congestion. */
void sack_lose(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint32_t slot);
void sack_repeat(struct tcp_stack *s, struct tcb_ext *e, uint32_t slot);

/* Judges all that was sent lost; when the peer has reneged (RFC 2018 8), also what was SACKed. */
void sack_lose_all(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e);

/* The first lost segment; TCP_NO_SLOT: none. */
uint32_t sack_next_lost(const struct tcp_stack *s, struct tcb_ext *e);

/* Notes that [begin, end) was received a second time, for the next ACK (RFC 2883). */
void sack_note_duplicate(struct tcp_stack *s, struct tcb *t, uint32_t begin, uint32_t end);

/* The first block of an ACK tells of data received twice (RFC 2883 4). */
bool sack_is_duplicate(const struct tcp_segment *seg);

/* Our own blocks for an ACK into options, at most max. */
void sack_report(const struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e, struct tcp_options *options,
                 uint32_t max);

#endif
