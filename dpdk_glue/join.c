/*
 * join.c: what may be joined.
 */
#include "dpdk_glue/join.h"

#include "wire/bytes.h"
#include "wire/checksum.h"
#include "wire/ip.h"
#include "wire/tcp_header.h"

enum { IPV4_DF = 0x4000, FLAGS = 13, CHECKSUM = 16 };

bool join_begin(struct join *j, uint8_t *packet, uint32_t len, const struct txcheck_packet *what)
{
    uint32_t headers = (uint32_t)what->l3_len + what->l4_len;

    if (len - headers < JOIN_SEGMENT_MIN || packet[what->l3_len + FLAGS] != TCP_ACK)
        return false;
    if (what->version == 4 &&
        get_be16(packet + 6) != IPV4_DF) /* else each has an identification of its own, RFC 6864 */
        return false;
    *j = (struct join){.packet = packet,
                       .count = 1,
                       .payload = len - headers,
                       .segment = (uint16_t)(len - headers),
                       .headers = (uint16_t)headers,
                       .version = what->version,
                       .l3_len = what->l3_len};
    return true;
}

static bool same(const uint8_t *a, const uint8_t *b, uint32_t from, uint32_t to)
{
    return memcmp(a + from, b + from, to - from) == 0;
}

/* All of the IP header but lengths, identification and checksum. */
static bool same_ip(const struct join *j, const uint8_t *packet)
{
    if (j->version == 6)
        return same(j->packet, packet, 0, 4) && same(j->packet, packet, 6, IPV6_HEADER_LEN);
    return same(j->packet, packet, 0, 2) && same(j->packet, packet, 6, 10) &&
           same(j->packet, packet, 12, IPV4_HEADER_LEN);
}

bool join_follows(struct join *j, const uint8_t *packet, uint32_t len, const struct txcheck_packet *what)
{
    uint32_t payload = len - j->headers;

    if (j->closed || what->version != j->version || what->l3_len + what->l4_len != j->headers || len <= j->headers ||
        payload > j->segment || j->headers + j->payload + payload > JOIN_BYTES_MAX)
        return false;
    uint8_t *first = j->packet + j->l3_len;
    const uint8_t *tcp = packet + j->l3_len;
    if ((tcp[FLAGS] & ~TCP_PSH) != TCP_ACK || get_be32(tcp + 4) != get_be32(first + 4) + j->payload)
        return false;
    if (!same_ip(j, packet) || !same(first, tcp, 0, 4) || !same(first, tcp, 8, FLAGS) ||
        !same(first, tcp, FLAGS + 1, CHECKSUM) || !same(first, tcp, CHECKSUM + 2, what->l4_len))
        return false;
    j->count++;
    j->payload += payload;
    j->closed = payload < j->segment || (tcp[FLAGS] & TCP_PSH);
    first[FLAGS] |= tcp[FLAGS]; /* the port keeps PSH for the last */
    return true;
}

void join_finish(struct join *j)
{
    uint8_t *tcp = j->packet + j->l3_len;
    uint32_t len = j->headers + j->payload;
    struct ip_addr src, dst;

    if (j->version == 4) {
        put_be16(j->packet + 2, (uint16_t)len);
        put_be16(j->packet + 10, 0);
        src = ip_addr_from_ipv4(j->packet + 12);
        dst = ip_addr_from_ipv4(j->packet + 16);
    } else {
        put_be16(j->packet + 4, (uint16_t)(len - IPV6_HEADER_LEN));
        memcpy(&src, j->packet + 8, sizeof src);
        memcpy(&dst, j->packet + 24, sizeof dst);
    }
    uint16_t sum = (uint16_t)~checksum_finish(checksum_pseudo(&src, &dst, IP_PROTOCOL_TCP, 0));
    memcpy(tcp + CHECKSUM, &sum, sizeof sum);
}
