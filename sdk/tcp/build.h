/*
 * build.h: IP and TCP headers, in place in front of the payload.
 */
#ifndef TCP_BUILD_H
#define TCP_BUILD_H

#include "tcp/stack.h"

struct build {
    const struct ip_addr *laddr, *raddr;
    uint16_t lport, rport;
    uint32_t seq, ack;
    uint16_t wnd, up;
    uint8_t flags; /* enum tcp_flag */
    uint8_t tos;   /* Differentiated Services field, and enum ip_ecn */
    uint8_t ttl;
    const struct tcp_options *options;
    uint32_t payload_offset, payload_len; /* in the slot; offset at least TCP_SLOT_HEADROOM */
};

/* Writes the headers; returns the length of the packet and, in *offset, where it begins in the slot. */
uint32_t build_packet(const struct tcp_stack *s, uint8_t *slot_data, const struct build *b, uint32_t *offset);

#endif
