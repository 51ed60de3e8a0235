/*
 * flow.h: the 4-tuple of a connection, in host values, the same for IPv4 and IPv6.
 *
 * An IPv4 address is kept in its IPv4-mapped form ::ffff:a.b.c.d (RFC 4291 2.5.5.2), so that comparing and hashing
 * never ask for the family.  "local" is the Janus side, on both sides of the ring and for both directions.
 */
#ifndef WIRE_FLOW_H
#define WIRE_FLOW_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct ip_addr {
    uint8_t b[16];
};

struct flow {
    struct ip_addr laddr;
    struct ip_addr raddr;
    uint16_t lport; /* host order */
    uint16_t rport; /* host order */
};

static inline struct ip_addr ip_addr_from_ipv4(const uint8_t v4[4])
{
    struct ip_addr a = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]}};
    return a;
}

static inline bool ip_addr_is_ipv4(const struct ip_addr *a)
{
    static const uint8_t prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    return memcmp(a->b, prefix, sizeof prefix) == 0;
}

static inline bool ip_addr_equal(const struct ip_addr *a, const struct ip_addr *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static inline bool flow_equal(const struct flow *a, const struct flow *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

#endif
