/*
 * listen.h: passive open: listeners, SYN-RECEIVED in compact blocks, and SYN cookies when those get scarce (RFC 4987).
 */
#ifndef TCP_LISTEN_H
#define TCP_LISTEN_H

#include "tcp/stack.h"

/* A segment without a connection (RFC 9293 3.10.7.1 and .2). */
enum tcp_drop listen_input(struct tcp_stack *s, struct input *in);

/* A SYN to a listener; its answer's ISS is not before iss_min when has_min (RFC 6191: a reused connection goes up). */
enum tcp_drop listen_syn(struct tcp_stack *s, struct input *in, bool has_min, uint32_t iss_min);

/* A segment of a half-open connection. */
enum tcp_drop half_open_input(struct tcp_stack *s, uint32_t index, struct input *in);

/* An ICMP error that will not go away is about sequence number seq of it: nobody is there (RFC 1122 4.2.3.9, RFC 5927 5.2). */
enum tcp_drop half_open_refused(struct tcp_stack *s, uint32_t index, uint32_t seq);

/* Sends SYN-ACKs again, and forgets who does not answer. */
void half_open_advance(struct tcp_stack *s, uint64_t now_us);

void half_open_flow(const struct tcp_stack *s, const struct half_open *h, struct flow *flow);

/* The listener for a local address and port, or null. */
struct listener *listener_find(struct tcp_stack *s, const struct ip_addr *laddr, uint16_t port);

#endif
