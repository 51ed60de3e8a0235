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
    typedef uint32_t words4 __attribute__((vector_size(16)));
    static const uint8_t prefix[4] = {0, 0, 0xff, 0xff};
    uint32_t second, last;
    struct ip_addr a;

    memcpy(&second, prefix, sizeof second);
    memcpy(&last, v4, sizeof last);
    words4 words = {0, 0, second, last}; /* one store: a load that is wider than the stores before it waits for them */
    memcpy(&a, &words, sizeof a);
    return a;
}

static inline bool ip_addr_is_ipv4(const struct ip_addr *a)
{
    static const uint8_t prefix[4] = {0, 0, 0xff, 0xff};
    uint64_t first;
    uint32_t second, wanted;

    memcpy(&first, a->b, sizeof first);
    memcpy(&second, a->b + 8, sizeof second);
    memcpy(&wanted, prefix, sizeof wanted);
    return (first | (second ^ wanted)) == 0;
}

/* An IPv4 address as it lies in a packet. */
static inline uint32_t ip_addr_last_word(const struct ip_addr *a)
{
    uint32_t word;

    memcpy(&word, a->b + 12, sizeof word);
    return word;
}

static inline bool ip_addr_equal(const struct ip_addr *a, const struct ip_addr *b)
{
    uint64_t x[2], y[2]; /* words: compilers call memcmp() for more than eight bytes */

    memcpy(x, a, sizeof x);
    memcpy(y, b, sizeof y);
    return ((x[0] ^ y[0]) | (x[1] ^ y[1])) == 0;
}

static inline bool flow_equal(const struct flow *a, const struct flow *b)
{
    return a->lport == b->lport && a->rport == b->rport && ip_addr_equal(&a->raddr, &b->raddr) &&
           ip_addr_equal(&a->laddr, &b->laddr);
}

#endif
