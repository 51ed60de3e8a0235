/*
 * input.h: SEGMENT ARRIVES for connections that have a TCB (RFC 9293 3.10.7.4).
 */
#ifndef TCP_INPUT_H
#define TCP_INPUT_H

#include "tcp/stack.h"

enum tcp_drop input_synchronized(struct tcp_stack *s, struct tcb *t, struct input *in);

/* The ACK that a received text deserves: now, or delayed.  in_order: it came at RCV.NXT and there was no hole. */
void input_owe_ack(struct tcp_stack *s, struct tcb *t, const struct input *in, bool in_order);

/* The peer's FIN, whose turn it is. */
void input_take_fin(struct tcp_stack *s, struct tcb *t, uint64_t now_us);

/* The steps after the ACK field: text and FIN. */
enum tcp_drop input_text_and_fin(struct tcp_stack *s, struct tcb *t, struct input *in);

/* The handle of the flow, by in's hash, flow and laddr_index; TABLE_NONE: there is none. */
uint32_t input_find(const struct tcp_stack *s, const struct input *in);

#endif
