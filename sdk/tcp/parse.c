/*
 * parse.c: what is taken apart layer by layer.
 */
#include "tcp/parse.h"

uint32_t parse_find_address(const struct tcp_stack *s, const struct ip_addr *addr)
{
    uint32_t i = 0;

    while (i < s->address_count && !ip_addr_equal(&s->addresses[i], addr))
        i++;
    return i;
}

enum tcp_drop parse_any(const struct tcp_stack *s, const struct tcp_packet *packet, const uint8_t *data,
                        struct input *in)
{
    struct ip_packet ip;
    enum ip_verdict verdict =
        packet->verified ? ip_parse_verified(data, packet->len, &ip) : ip_parse(data, packet->len, &ip);
    uint32_t laddr_index;

    if (verdict != IP_OK)
        return verdict == IP_BAD_CHECKSUM ? TCP_DROP_CHECKSUM : TCP_DROP_MALFORMED;
    if (ip.protocol != IP_PROTOCOL_TCP)
        return PARSE_NOT_TCP;
    if (tcp_header_parse(data + ip.l4_offset, ip.l4_len, &in->seg) != TCP_HEADER_OK)
        return TCP_DROP_MALFORMED;
    if (!packet->verified && tcp_header_verify(data + ip.l4_offset, ip.l4_len, &ip.src, &ip.dst) != TCP_HEADER_OK)
        return TCP_DROP_CHECKSUM;
    laddr_index = parse_find_address(s, &ip.dst);
    if (laddr_index == s->address_count)
        return TCP_DROP_NOT_LOCAL;
    in->flow = (struct flow){ip.dst, ip.src, in->seg.dport, in->seg.sport};
    in->data = packet->offset + ip.l4_offset + in->seg.data_offset;
    in->laddr_index = (uint8_t)laddr_index;
    in->ecn = ip.ecn;
    return TCP_DROP_NONE;
}
