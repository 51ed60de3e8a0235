/*
 * icmp.h: ICMP and ICMPv6 errors about segments of this stack (RFC 792, 4443), believed as far as RFC 5927 allows.
 */
#ifndef TCP_ICMP_H
#define TCP_ICMP_H

#include "tcp/stack.h"

/* One packet whose protocol is ICMP or ICMPv6; its slot remains the caller's.  TCP_DROP_ICMP: nothing in flight has caused it. */
enum tcp_drop icmp_input(struct tcp_stack *s, const struct tcp_packet *packet, uint64_t now_us);

#endif
