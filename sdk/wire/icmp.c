/*
 * icmp.c: ICMP messages of both families; only ICMPv6 has a pseudo header in its checksum.
 */
#include "wire/icmp.h"

#include "wire/bytes.h"
#include "wire/checksum.h"

static enum icmp_kind kind_of_v4(uint8_t type, uint8_t code)
{
    switch (type) {
    case ICMPV4_ECHO_REQUEST:
        return ICMP_ECHO_REQUEST;
    case ICMPV4_ECHO_REPLY:
        return ICMP_ECHO_REPLY;
    case ICMPV4_UNREACHABLE:
        return code == ICMPV4_FRAGMENTATION_NEEDED ? ICMP_TOO_BIG : ICMP_UNREACHABLE;
    case ICMPV4_TIME_EXCEEDED:
        return ICMP_TIME_EXCEEDED;
    case ICMPV4_PARAMETER_PROBLEM:
        return ICMP_PARAMETER_PROBLEM;
    default:
        return ICMP_OTHER;
    }
}

static enum icmp_kind kind_of_v6(uint8_t type)
{
    switch (type) {
    case ICMPV6_ECHO_REQUEST:
        return ICMP_ECHO_REQUEST;
    case ICMPV6_ECHO_REPLY:
        return ICMP_ECHO_REPLY;
    case ICMPV6_UNREACHABLE:
        return ICMP_UNREACHABLE;
    case ICMPV6_PACKET_TOO_BIG:
        return ICMP_TOO_BIG;
    case ICMPV6_TIME_EXCEEDED:
        return ICMP_TIME_EXCEEDED;
    case ICMPV6_PARAMETER_PROBLEM:
        return ICMP_PARAMETER_PROBLEM;
    case ICMPV6_NEIGHBOUR_SOLICITATION:
    case ICMPV6_NEIGHBOUR_ADVERTISEMENT:
        return ICMP_NEIGHBOUR;
    default:
        return ICMP_OTHER;
    }
}

static uint64_t pseudo_sum(const struct ip_addr *src, const struct ip_addr *dst, size_t len)
{
    return ip_addr_is_ipv4(dst) ? 0 : checksum_pseudo(src, dst, IP_PROTOCOL_ICMPV6, (uint32_t)len);
}

enum icmp_verdict icmp_parse(const struct ip_packet *ip, const uint8_t *data, struct icmp_message *out)
{
    if (ip->l4_len < ICMP_HEADER_LEN)
        return ICMP_TRUNCATED;
    if (checksum_finish(checksum_add(pseudo_sum(&ip->src, &ip->dst, ip->l4_len), data, ip->l4_len)) != 0)
        return ICMP_BAD_CHECKSUM;
    out->type = data[0];
    out->code = data[1];
    out->kind = ip->version == 4 ? kind_of_v4(data[0], data[1]) : kind_of_v6(data[0]);
    bool echo = out->kind == ICMP_ECHO_REQUEST || out->kind == ICMP_ECHO_REPLY;
    out->id = echo ? get_be16(data + 4) : 0;
    out->seq = echo ? get_be16(data + 6) : 0;
    out->mtu = 0;
    if (out->kind == ICMP_TOO_BIG)
        out->mtu = ip->version == 4 ? get_be16(data + 6) : get_be32(data + 4);
    out->body_len = ip->l4_len - ICMP_HEADER_LEN;
    return ICMP_OK;
}

/* Where the quoted transport header begins; 0: there is none. */
static uint32_t quoted_l4_offset(uint8_t version, const uint8_t *body, size_t len)
{
    if (len < IPV4_HEADER_LEN || body[0] >> 4 != version)
        return 0;
    if (version == 6)
        return len < IPV6_HEADER_LEN ? 0 : IPV6_HEADER_LEN;
    uint32_t header_len = (body[0] & 0x0fu) * 4u;
    bool first_fragment = (get_be16(body + 6) & 0x1fff) == 0;
    return header_len >= IPV4_HEADER_LEN && first_fragment ? header_len : 0;
}

bool icmp_quote_parse(uint8_t version, const uint8_t *body, size_t len, struct icmp_quote *out)
{
    uint32_t at = quoted_l4_offset(version, body, len);

    if (at == 0 || at > len || len - at < 8)
        return false;
    if (version == 4) {
        out->protocol = body[9];
        out->flow.laddr = ip_addr_from_ipv4(body + 12);
        out->flow.raddr = ip_addr_from_ipv4(body + 16);
    } else {
        out->protocol = body[6];
        memcpy(out->flow.laddr.b, body + 8, 16);
        memcpy(out->flow.raddr.b, body + 24, 16);
        /* On an IPv6 wire such an address would name an IPv4 flow. */
        if (ip_addr_is_ipv4(&out->flow.laddr) || ip_addr_is_ipv4(&out->flow.raddr))
            return false;
    }
    bool has_ports = out->protocol == IP_PROTOCOL_TCP || out->protocol == IP_PROTOCOL_UDP;
    out->flow.lport = has_ports ? get_be16(body + at) : 0;
    out->flow.rport = has_ports ? get_be16(body + at + 2) : 0;
    out->seq = out->protocol == IP_PROTOCOL_TCP ? get_be32(body + at + 4) : 0;
    return has_ports || out->protocol == (version == 4 ? IP_PROTOCOL_ICMP : IP_PROTOCOL_ICMPV6);
}
