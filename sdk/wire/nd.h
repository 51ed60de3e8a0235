/*
 * nd.h: neighbour solicitation and advertisement (RFC 4861 4.3, 4.4), as values.  Knows no table and gives no answers.
 */
#ifndef WIRE_ND_H
#define WIRE_ND_H

#include "wire/ether.h"
#include "wire/ip.h"

enum { ND_LEN = 24, ND_HOP_LIMIT = 255 };

enum nd_verdict {
    ND_OK,
    ND_OTHER_TYPE,    /* neither a solicitation nor an advertisement */
    ND_TRUNCATED,     /* shorter than 24 bytes */
    ND_BAD_HOP_LIMIT, /* not 255: it has passed a router */
    ND_BAD_CODE,      /* not 0 */
    ND_BAD_OPTION,    /* an option has length 0 or runs past the end */
    ND_BAD_ADDRESS,   /* target is multicast or no host's; or source and destination break RFC 4861 7.1 */
};

struct nd_message {
    bool solicitation;                /* else an advertisement */
    bool router, solicited, override; /* of an advertisement */
    bool has_lladdr;
    struct ether_addr lladdr; /* source link-layer address of a solicitation, target's of an advertisement */
    struct ip_addr target;
};

/* Parses the message of ip->l4_len bytes at data, an ICMPv6 message that icmp_parse() found whole. */
enum nd_verdict nd_parse(const struct ip_packet *ip, const uint8_t *data, struct nd_message *out);

#endif
