/*
 * parse.h: from bytes to values, once a packet.
 */
#ifndef TCP_PARSE_H
#define TCP_PARSE_H

#include "tcp/stack.h"

#define PARSE_NOT_TCP ((enum tcp_drop)TCP_DROP_COUNT) /* no reason of a drop: ICMP */

/* Fills what in has of the packet, whose offset and length lie within its slot.  TCP_DROP_NONE, PARSE_NOT_TCP, or why it is dropped. */
enum tcp_drop parse_packet(const struct tcp_stack *s, const struct tcp_packet *packet, struct input *in);

#endif
