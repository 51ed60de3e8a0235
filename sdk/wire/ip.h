/*
 * ip.h: one IP packet, either family, taken apart once and put together in place.
 *
 * Every length is derived from the number of bytes that are really there, never from a header alone.  Fragments are
 * reported; IPv4 options are skipped, and IPv6 extension headers up to a bound (RFC 8200 4), but no route is followed.
 */
#ifndef WIRE_IP_H
#define WIRE_IP_H

#include "wire/bytes.h"
#include "wire/checksum.h"
#include "wire/flow.h"

#include <stddef.h>
#include <stdint.h>

enum { IP_PROTOCOL_ICMP = 1, IP_PROTOCOL_TCP = 6, IP_PROTOCOL_UDP = 17, IP_PROTOCOL_ICMPV6 = 58 };
enum { IPV4_HEADER_LEN = 20, IPV6_HEADER_LEN = 40, IP_HEADER_MAX = 40 };

enum ip_ecn { IP_ECN_NOT_ECT = 0, IP_ECN_ECT1 = 1, IP_ECN_ECT0 = 2, IP_ECN_CE = 3 };

enum ip_verdict {
    IP_OK,
    IP_TRUNCATED,    /* shorter than its header or its total length says */
    IP_BAD_VERSION,  /* neither 4 nor 6 */
    IP_BAD_HEADER,   /* IHL < 5, total length below the header or above 65,535 */
    IP_BAD_CHECKSUM, /* IPv4 header checksum */
    IP_OPTIONS,      /* IPv4 options malformed, or a source route (RFC 7126 4.3, 4.4) */
    IP_FRAGMENT,     /* more fragments, or an offset, or a fragment header */
    IP_EXTENSIONS,   /* IPv6 extension headers malformed, more than 8, or to be refused by a host (RFC 8200 4.2, 4.4) */
    IP_BAD_ADDRESS,  /* source is multicast, broadcast, unspecified or loopback, source equals destination (LAND), or an
                      * IPv4-mapped address in an IPv6 packet */
};

struct ip_packet {
    struct ip_addr src, dst;
    uint32_t l4_offset; /* from the IP header's first byte */
    uint32_t l4_len;    /* bytes of transport header and payload; Ethernet padding excluded */
    uint16_t total_len; /* bytes of the IP packet */
    uint8_t protocol;
    uint8_t ecn; /* enum ip_ecn */
    uint8_t ttl; /* or hop limit */
    uint8_t version;
};

/* Parses the IP packet at data, len bytes really present (padding behind it allowed).  out is filled when IP_OK or
 * IP_BAD_ADDRESS; all but l4_len also for IP_FRAGMENT, where l4_offset is that of what IPv4 carries, or of IPv6's fragment header. */
enum ip_verdict ip_parse(const uint8_t *data, size_t len, struct ip_packet *out);

/* The same for a packet whose checksums somebody trusted has verified. */
enum ip_verdict ip_parse_verified(const uint8_t *data, size_t len, struct ip_packet *out);

/* Header bytes that ip_build() writes for this destination: 20 or 40. */
static inline uint32_t ip_header_len(const struct ip_addr *dst)
{
    return ip_addr_is_ipv4(dst) ? IPV4_HEADER_LEN : IPV6_HEADER_LEN;
}

/* Writes an IP header of ip_header_len(dst) bytes at data for l4_len bytes of payload: DF set, identification 0 (RFC 6864
 * 4.1), header checksum filled.  src and dst are of one family; tos: the Differentiated Services field and ECN; ttl: or hop limit. */
void ip_build(uint8_t *data, const struct ip_addr *src, const struct ip_addr *dst, uint8_t protocol, uint32_t l4_len,
              uint8_t tos, uint8_t ttl);

enum { IPV4_DONT_FRAGMENT = 0x4000, IP_TTL = 64 /* where nobody says another */ };

/* The same over IPv4; src and dst as they lie in memory. */
static inline void ipv4_build(uint8_t *data, uint32_t src, uint32_t dst, uint8_t protocol, uint32_t l4_len, uint8_t tos,
                              uint8_t ttl)
{
    uint64_t sum = put_word(data, 0x45u << 24 | (uint32_t)tos << 16 | (IPV4_HEADER_LEN + l4_len));
    uint16_t checksum;

    sum += put_word(data + 4, IPV4_DONT_FRAGMENT);
    sum += put_word(data + 8, (uint32_t)ttl << 24 | (uint32_t)protocol << 16);
    memcpy(data + 12, &src, sizeof src);
    memcpy(data + 16, &dst, sizeof dst);
    checksum = checksum_finish(sum + src + dst);
    memcpy(data + 10, &checksum, sizeof checksum);
}

#endif
