/*
 * icmp.h: ICMP for both families (RFC 792, RFC 4443): echo, errors, and the packet that an error quotes.
 *
 * All lengths are of the ICMP message, behind the IP header.  Neighbour discovery is in nd.h.
 */
#ifndef WIRE_ICMP_H
#define WIRE_ICMP_H

#include "wire/flow.h"
#include "wire/ip.h"

#include <stddef.h>
#include <stdint.h>

enum { ICMP_HEADER_LEN = 8 };
enum icmpv4_type {
    ICMPV4_ECHO_REPLY = 0,
    ICMPV4_UNREACHABLE = 3,
    ICMPV4_ECHO_REQUEST = 8,
    ICMPV4_TIME_EXCEEDED = 11,
    ICMPV4_PARAMETER_PROBLEM = 12,
};
enum icmpv4_unreachable {
    ICMPV4_NET = 0,
    ICMPV4_HOST = 1,
    ICMPV4_PROTOCOL = 2,
    ICMPV4_PORT = 3,
    ICMPV4_FRAGMENTATION_NEEDED = 4,
};
enum icmpv6_type {
    ICMPV6_UNREACHABLE = 1,
    ICMPV6_PACKET_TOO_BIG = 2,
    ICMPV6_TIME_EXCEEDED = 3,
    ICMPV6_PARAMETER_PROBLEM = 4,
    ICMPV6_ECHO_REQUEST = 128,
    ICMPV6_ECHO_REPLY = 129,
    ICMPV6_NEIGHBOUR_SOLICITATION = 135,
    ICMPV6_NEIGHBOUR_ADVERTISEMENT = 136,
};

enum icmp_verdict {
    ICMP_OK,
    ICMP_TRUNCATED, /* shorter than its header */
    ICMP_BAD_CHECKSUM,
};

/* What a message means, the same for both families. */
enum icmp_kind {
    ICMP_OTHER,
    ICMP_ECHO_REQUEST,
    ICMP_ECHO_REPLY,
    ICMP_UNREACHABLE,
    ICMP_TOO_BIG, /* IPv4: unreachable, fragmentation needed */
    ICMP_TIME_EXCEEDED,
    ICMP_PARAMETER_PROBLEM,
    ICMP_NEIGHBOUR, /* solicitation or advertisement: nd_parse() */
};

struct icmp_message {
    enum icmp_kind kind;
    uint8_t type, code;
    uint16_t id, seq;  /* of an echo */
    uint32_t mtu;      /* of ICMP_TOO_BIG; 0: the router told none (RFC 1191 5) */
    uint32_t body_len; /* bytes behind the 8 of the header: echo data, or the quoted packet */
};

/* The packet that an error quotes, which this host is said to have sent: its source is the local side. */
struct icmp_quote {
    struct flow flow;
    uint32_t seq; /* of TCP */
    uint8_t protocol;
};

/* Parses and verifies the message of ip->l4_len bytes at data.  ip: IPv4 with ICMP, or IPv6 with ICMPv6. */
enum icmp_verdict icmp_parse(const struct ip_packet *ip, const uint8_t *data, struct icmp_message *out);

/* Parses the body of an error.  False: it is not the start of a TCP, UDP or ICMP packet of this family with at least 8
 * bytes behind its IP header, or a fragment without them.  Ports are 0 for ICMP. */
bool icmp_quote_parse(uint8_t version, const uint8_t *body, size_t len, struct icmp_quote *out);

#endif
