/*
 * timewait.h: TIME-WAIT in compact blocks (RFC 9293 3.3.3, RFC 1337, RFC 6191).
 *
 * A block answers for the connection on the wire.  The row stays only while its user still holds it, without a place in the table.
 */
#ifndef TCP_TIMEWAIT_H
#define TCP_TIMEWAIT_H

#include "tcp/stack.h"

/* Both FINs are acknowledged or about to be: a block takes t's place; the oldest makes room for it. */
void time_wait_enter(struct tcp_stack *s, struct tcb *t, uint64_t now_us);

enum tcp_drop time_wait_input(struct tcp_stack *s, uint32_t index, struct input *in);

/* May this side open the connection of a block again?  Timestamps must tell the two apart, and their clock have gone on (RFC 6191 2, RFC
 * 7323 5.4). */
bool time_wait_may_reopen(const struct tcp_stack *s, uint32_t index, uint64_t now_us);

/* Ends the wait for that; returns the least number that it may begin with. */
uint32_t time_wait_reopen(struct tcp_stack *s, uint32_t index);

void time_wait_advance(struct tcp_stack *s, uint64_t now_us);

void time_wait_flow(const struct tcp_stack *s, const struct time_wait *w, struct flow *flow);

#endif
