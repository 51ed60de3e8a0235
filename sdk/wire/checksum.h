/*
 * checksum.h: the Internet checksum (RFC 1071), folded late.
 *
 * A sum is a uint64_t in memory order; checksum_finish() gives the 16 bits as they lie in the packet.
 */
#ifndef WIRE_CHECKSUM_H
#define WIRE_CHECKSUM_H

#include "wire/flow.h"

#include <stddef.h>
#include <stdint.h>

/* Adds len bytes to sum.  Only the last piece of a packet may have an odd length. */
uint64_t checksum_add(uint64_t sum, const void *data, size_t len);

/* The one's complement of the folded sum, in memory order: store it with memcpy; 0 when a received packet is whole. */
static inline uint16_t checksum_finish(uint64_t sum)
{
    uint32_t low = (uint32_t)sum, folded = low + (uint32_t)(sum >> 32);

    folded += folded < low;
    folded += folded << 16 | folded >> 16; /* the upper half is now both halves' sum, carry included */
    return (uint16_t)(~folded >> 16);
}

/* The sum of count words of 32 bits.  For headers that have just been written by words: loads that are wider than the
 * stores before them would wait for these. */
static inline uint64_t checksum_words(const uint8_t *data, uint32_t count)
{
    uint64_t sum = 0; /* of 2^32 words at most */

    for (uint32_t i = 0; i < count; i++) {
        uint32_t word;
        memcpy(&word, data + 4 * i, sizeof word);
        sum += word;
    }
    return sum;
}

/* The sum of two sums: the carry comes back. */
static inline uint64_t checksum_plus(uint64_t a, uint64_t b)
{
    a += b;
    return a + (a < b);
}

static inline uint64_t checksum_load(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* The pseudo header of TCP or another protocol over IPv4 (both addresses IPv4-mapped) or IPv6 (RFC 9293 3.1, RFC 8200
 * 8.1).  len: transport header and payload, bytes.  One form serves both families: the prefix of an IPv4-mapped address adds
 * 0xffff, which is zero in this arithmetic. */
static inline uint64_t checksum_pseudo(const struct ip_addr *src, const struct ip_addr *dst, uint8_t protocol,
                                       uint32_t len)
{
    uint64_t sum = (uint64_t)__builtin_bswap32(protocol) + __builtin_bswap32(len);

    sum = checksum_plus(sum, checksum_load(src->b));
    sum = checksum_plus(sum, checksum_load(src->b + 8));
    sum = checksum_plus(sum, checksum_load(dst->b));
    return checksum_plus(sum, checksum_load(dst->b + 8));
}

/* The same over IPv4 in fewer steps; src and dst as they lie in memory. */
static inline uint64_t checksum_pseudo_ipv4(uint32_t src, uint32_t dst, uint8_t protocol, uint32_t len)
{
    return (uint64_t)src + dst + __builtin_bswap32(protocol) + __builtin_bswap32(len);
}

#endif
