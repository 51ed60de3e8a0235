/*
 * parse.c: from bytes to values.
 *
 * Nearly all verified packets have one shape: IPv4 without options, no fragment, to an address of ours.  They are read in one go.  What
 * is not of that shape, wrong or only unusual, is taken apart layer by layer, and there it is said why it is dropped.
 */
#include "tcp/parse.h"

#include "wire/bytes.h"
#include "wire/ip.h"

enum {
    IPV4_PLAIN = 0x45, /* version, and a header without options */
    IPV4_MF_AND_OFFSET = 0x3fff,
    TCP_OFFSET_MASK = 0xf0,
};

static inline uint32_t find_address(const struct tcp_stack *s, const struct ip_addr *addr)
{
    uint32_t i = 0;

    while (i < s->address_count && !ip_addr_equal(&s->addresses[i], addr))
        i++;
    return i;
}

#ifdef JANUS_NO_PREDICTION

static bool parse_plain(const struct tcp_stack *s, const struct tcp_packet *packet, const uint8_t *data,
                        struct input *in)
{
    (void)s, (void)packet, (void)data, (void)in;
    return false;
}

#else

/* False for those that ip_parse() refuses, and for some more, so that it is asked. */
static inline bool source_is_plain(const uint8_t *src)
{
    return (uint8_t)(src[0] - 1) < 223 && src[0] != 127;
}

/* True: in is filled as parse_any() would have done it. */
static inline bool parse_plain(const struct tcp_stack *s, const struct tcp_packet *packet, const uint8_t *data,
                               struct input *in)
{
    const uint8_t *tcp = data + IPV4_HEADER_LEN;
    uint32_t first, total_len, header_len, ports, laddr_index = 0;
    struct ip_addr laddr;

    if (packet->len < IPV4_HEADER_LEN + TCP_HEADER_LEN)
        return false;
    first = get_be32(data);
    total_len = first & 0xffff;
    header_len = (tcp[12] & TCP_OFFSET_MASK) >> 2;
    if (first >> 24 != IPV4_PLAIN || total_len > packet->len || header_len < TCP_HEADER_LEN ||
        total_len < IPV4_HEADER_LEN + header_len || (get_be16(data + 6) & IPV4_MF_AND_OFFSET) ||
        data[9] != IP_PROTOCOL_TCP || !source_is_plain(data + 12))
        return false;
    ports = get_be32(tcp);
    laddr = ip_addr_from_ipv4(data + 16);
    if (!ip_addr_equal(&laddr, &s->addresses[0]))
        laddr_index = find_address(s, &laddr);
    if (laddr_index >= s->address_count || (ports & 0xffff) == 0 || ports >> 16 == 0 ||
        get_be32(data + 12) == get_be32(data + 16) ||
        !tcp_options_parse_usual(tcp + TCP_HEADER_LEN, header_len - TCP_HEADER_LEN, &in->seg.options))
        return false;
    in->seg.sport = (uint16_t)(ports >> 16);
    in->seg.dport = (uint16_t)ports;
    in->seg.seq = get_be32(tcp + 4);
    in->seg.ack = get_be32(tcp + 8);
    in->seg.flags = tcp[13];
    in->seg.wnd = get_be16(tcp + 14);
    in->seg.up = get_be16(tcp + 18);
    in->seg.data_offset = (uint8_t)header_len;
    in->seg.payload_len = total_len - IPV4_HEADER_LEN - header_len;
    in->flow.laddr = laddr;
    in->flow.raddr = ip_addr_from_ipv4(data + 12);
    in->flow.lport = in->seg.dport;
    in->flow.rport = in->seg.sport;
    in->data = packet->offset + IPV4_HEADER_LEN + header_len;
    in->laddr_index = (uint8_t)laddr_index;
    in->ecn = first >> 16 & 3;
    return true;
}

#endif

__attribute__((noinline)) static enum tcp_drop parse_any(const struct tcp_stack *s, const struct tcp_packet *packet,
                                                         const uint8_t *data, struct input *in)
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
    laddr_index = find_address(s, &ip.dst);
    if (laddr_index == s->address_count)
        return TCP_DROP_NOT_LOCAL;
    in->flow = (struct flow){ip.dst, ip.src, in->seg.dport, in->seg.sport};
    in->data = packet->offset + ip.l4_offset + in->seg.data_offset;
    in->laddr_index = (uint8_t)laddr_index;
    in->ecn = ip.ecn;
    return TCP_DROP_NONE;
}

enum tcp_drop parse_packet(const struct tcp_stack *s, const struct tcp_packet *packet, struct input *in)
{
    const uint8_t *data = s->env.rx_data(s->env.context, packet->slot) + packet->offset;

    if (!packet->verified || !parse_plain(s, packet, data, in)) {
        enum tcp_drop drop = parse_any(s, packet, data, in);

        if (drop != TCP_DROP_NONE)
            return drop;
    }
    in->low = packet->has_low && packet->has_hash && packet->offset + packet->len + 4u <= TCP_SLOT_BYTES
                  ? data + packet->len
                  : NULL;
    in->hash = packet->has_hash ? packet->hash : csb_table_hash(csb_hash(&s->config.flow_secret, &in->flow));
    return TCP_DROP_NONE;
}
