/*
 * cut.c: see cut.h.
 */
#include "dpdk_glue/cut.h"

#include "wire/bytes.h"
#include "wire/checksum.h"
#include "wire/ip.h"
#include "wire/tcp_header.h"

enum { IPV4_PLAIN = 0x45, IPV4_MF_AND_OFFSET = 0x3fff, SEQ = 4, OFFSET = 12, FLAGS = 13 };

/* The IP header, which begins at c->l3 of have bytes; gives the packet's length as it says.  left: bytes of the frame from there on. */
static enum classify_drop check_ip(struct cut *c, uint16_t type, uint32_t have, uint32_t left, uint32_t *total)
{
    const uint8_t *ip = c->headers + c->l3;
    uint32_t header = type == ETHER_TYPE_IPV4 ? IPV4_HEADER_LEN : IPV6_HEADER_LEN;

    if (type != ETHER_TYPE_IPV4 && type != ETHER_TYPE_IPV6)
        return CLASSIFY_DROP_OVERSIZE;
    if (have < c->l3 + header)
        return CLASSIFY_DROP_IP_TRUNCATED;
    c->version = ip[0] >> 4;
    c->l4 = (uint8_t)(c->l3 + header);
    if (type == ETHER_TYPE_IPV4) {
        *total = get_be16(ip + 2);
        if (ip[0] != IPV4_PLAIN || (get_be16(ip + 6) & IPV4_MF_AND_OFFSET) != 0 || ip[9] != IP_PROTOCOL_TCP)
            return CLASSIFY_DROP_OVERSIZE;
        if (checksum_finish(checksum_add(0, ip, IPV4_HEADER_LEN)) != 0)
            return CLASSIFY_DROP_IP_CHECKSUM;
    } else {
        *total = IPV6_HEADER_LEN + get_be16(ip + 4);
        if (c->version != 6 || ip[6] != IP_PROTOCOL_TCP)
            return CLASSIFY_DROP_OVERSIZE;
    }
    return *total > left ? CLASSIFY_DROP_IP_TRUNCATED : CLASSIFY_DROP_NONE;
}

static enum classify_drop check_tcp(struct cut *c, uint32_t have, uint32_t total)
{
    const uint8_t *tcp = c->headers + c->l4;
    uint32_t header;

    if (have < (uint32_t)c->l4 + TCP_HEADER_LEN)
        return CLASSIFY_DROP_TCP_TRUNCATED;
    header = (tcp[OFFSET] >> 4) * 4u;
    if (header < TCP_HEADER_LEN)
        return CLASSIFY_DROP_TCP_OFFSET;
    if (have < c->l4 + header || total < c->l4 - c->l3 + header)
        return CLASSIFY_DROP_TCP_TRUNCATED;
    if ((tcp[FLAGS] & (TCP_SYN | TCP_RST | TCP_URG | TCP_ACK)) != TCP_ACK)
        return CLASSIFY_DROP_OVERSIZE;
    c->len = (uint8_t)(c->l4 + header);
    c->payload = total - (c->len - c->l3);
    return CLASSIFY_DROP_NONE;
}

/* Of len bytes from at on, wherever they lie.  A part that begins at an odd place is summed as if it did not, and turned. */
static uint64_t sum_parts(const struct cut_part *part, uint32_t at, uint32_t len)
{
    uint64_t sum = 0;

    for (uint32_t done = 0, n; done < len; done += n, at = 0, part++) {
        uint16_t folded;

        n = part->len - at < len - done ? part->len - at : len - done;
        folded = (uint16_t)~checksum_finish(checksum_add(0, part->data + at, n));
        sum += (done & 1) != 0 ? __builtin_bswap16(folded) : folded;
    }
    return sum;
}

static bool checksum_is_right(const struct cut *c, const struct cut_part *parts, uint32_t len)
{
    const uint8_t *ip = c->headers + c->l3;
    struct ip_addr src, dst;

    if (c->version == 4) {
        src = ip_addr_from_ipv4(ip + 12);
        dst = ip_addr_from_ipv4(ip + 16);
    } else {
        memcpy(&src, ip + 8, sizeof src);
        memcpy(&dst, ip + 24, sizeof dst);
    }
    return checksum_finish(
               checksum_plus(checksum_pseudo(&src, &dst, IP_PROTOCOL_TCP, len), sum_parts(parts, c->l4, len))) == 0;
}

enum classify_drop cut_begin(struct cut *c, const struct cut_part *parts, uint32_t count, uint32_t mtu,
                             uint32_t segment, bool verified)
{
    uint32_t have = count != 0 && parts[0].len < CUT_HEADERS_MAX ? parts[0].len : CUT_HEADERS_MAX;
    uint64_t bytes = 0;
    uint32_t total, fit;
    struct ether_frame ether;
    enum classify_drop drop;

    for (uint32_t i = 0; i < count; i++)
        bytes += parts[i].len;
    if (count == 0 || bytes > UINT32_MAX || ether_parse(parts[0].data, have, &ether) != ETHER_OK)
        return CLASSIFY_DROP_RUNT;
    *c = (struct cut){.parts = parts, .l3 = (uint8_t)ether.offset};
    memcpy(c->headers, parts[0].data, have);
    drop = check_ip(c, ether.type, have, (uint32_t)bytes - c->l3, &total);
    if (drop == CLASSIFY_DROP_NONE)
        drop = check_tcp(c, have, total);
    if (drop != CLASSIFY_DROP_NONE)
        return drop;
    if (!verified && !checksum_is_right(c, parts, total - (c->l4 - c->l3)))
        return CLASSIFY_DROP_TCP_CHECKSUM;
    fit = mtu - (c->len - c->l3);
    c->segment = (uint16_t)(segment >= CUT_SEGMENT_MIN && segment < fit ? segment : fit);
    c->part_at = c->len;
    return CLASSIFY_DROP_NONE;
}

/* Copies len bytes of payload, which the chain is known to have. */
static void take(struct cut *c, uint8_t *out, uint32_t len)
{
    while (len != 0) {
        uint32_t left = c->parts->len - c->part_at, n = left < len ? left : len;

        memcpy(out, c->parts->data + c->part_at, n);
        out += n;
        len -= n;
        c->part_at += n;
        if (n == left) {
            c->parts++;
            c->part_at = 0;
        }
    }
}

uint32_t cut_next(struct cut *c, uint8_t *out)
{
    uint32_t left = c->payload - c->done, payload = left < c->segment ? left : c->segment;
    uint32_t total = c->len - c->l3 + payload;
    uint8_t *ip = out + c->l3, *tcp = out + c->l4;

    if (left == 0 && c->pieces != 0)
        return 0;
    memcpy(out, c->headers, c->len);
    if (c->version == 4) {
        uint16_t sum;

        put_be16(ip + 2, (uint16_t)total);
        put_be16(ip + 4, (uint16_t)(get_be16(ip + 4) + c->pieces));
        put_be16(ip + 10, 0);
        sum = checksum_finish(checksum_add(0, ip, IPV4_HEADER_LEN));
        memcpy(ip + 10, &sum, sizeof sum);
    } else {
        put_be16(ip + 4, (uint16_t)(total - IPV6_HEADER_LEN));
    }
    put_be32(tcp + SEQ, get_be32(tcp + SEQ) + c->done);
    if (payload < left)
        tcp[FLAGS] &= (uint8_t) ~(TCP_PSH | TCP_FIN);
    if (c->pieces != 0)
        tcp[FLAGS] &= (uint8_t)~TCP_CWR;
    take(c, out + c->len, payload);
    c->done += payload;
    c->pieces++;
    return c->len + payload;
}
