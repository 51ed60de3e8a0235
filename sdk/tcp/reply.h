/*
 * reply.h: packets that no TCB sends: SYN-ACKs and ACKs of compact blocks, and RSTs to segments without a connection.
 *
 * They wait in a bounded ring until tcp_output().  When it is full the reply is lost, as a packet may be: peers ask again.
 */
#ifndef TCP_REPLY_H
#define TCP_REPLY_H

#include "tcp/output.h"

/* A reply of the stack to the flow of a segment, as the settings of this number have it; the caller fills the rest.  Null: the ring is
 * full. */
struct reply *reply_add(struct tcp_stack *s, const struct flow *flow, uint8_t laddr_index, uint8_t settings,
                        uint8_t flags, uint32_t seq, uint32_t ack);

/* RST in answer to a segment that is not acceptable to anyone (RFC 9293 3.10.7.1); nothing when it is a RST itself. */
void reply_reset(struct tcp_stack *s, const struct input *in);

/* Sends what waits, as far as it goes; adds to *sent. */
enum sent reply_send_all(struct tcp_stack *s, uint32_t *sent);

#endif
