/*
 * arp.h: ARP for IPv4 over Ethernet (RFC 826), as values.  Knows no table and gives no answers.
 */
#ifndef WIRE_ARP_H
#define WIRE_ARP_H

#include "wire/ether.h"
#include "wire/flow.h"

enum { ARP_LEN = 28 };
enum arp_op { ARP_REQUEST = 1, ARP_REPLY = 2 };

enum arp_verdict {
    ARP_OK,
    ARP_TRUNCATED,
    ARP_BAD_FORMAT,  /* not Ethernet and IPv4, or their address lengths are not 6 and 4 */
    ARP_BAD_OP,      /* neither request nor reply */
    ARP_BAD_ADDRESS, /* the sender's hardware address is no station's, or its IPv4 address no host's */
};

/* The addresses in RFC 826's order.  A probe (RFC 5227 2.1.1) has the sender address 0.0.0.0. */
struct arp_packet {
    enum arp_op op;
    struct ether_addr sha; /* sender */
    struct ip_addr spa;
    struct ether_addr tha; /* target */
    struct ip_addr tpa;
};

/* Parses the payload of an Ethernet frame, padding behind it allowed; out is filled when ARP_OK. */
enum arp_verdict arp_parse(const uint8_t *data, size_t len, struct arp_packet *out);

#endif
