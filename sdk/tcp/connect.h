/*
 * connect.h: active open, and simultaneous open, which is two of them (RFC 9293 3.5, 3.10.7.3).
 */
#ifndef TCP_CONNECT_H
#define TCP_CONNECT_H

#include "tcp/stack.h"

/* A segment in SYN-SENT. */
enum tcp_drop connect_input(struct tcp_stack *s, struct tcb *t, struct input *in);

/* In SYN-RECEIVED after a simultaneous open: the SYN of the peer's SYN-ACK is the one already seen; what is left is an ACK. */
void connect_strip_syn(const struct tcb *t, struct tcp_segment *seg);

/* The ACK of our SYN in SYN-RECEIVED. */
enum tcp_drop connect_acknowledged(struct tcp_stack *s, struct tcb *t, const struct input *in);

#endif
