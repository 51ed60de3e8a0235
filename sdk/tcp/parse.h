/*
 * parse.h: from bytes to values, once a packet.
 *
 * Nearly all verified packets have one shape: IPv4 without options, no fragment, to an address of ours, with timestamps or no TCP options.
 * They are read in one go.  What is not of that shape, wrong or only unusual, is taken apart layer by layer, and there it is said why
 * it is dropped.
 */
#ifndef TCP_PARSE_H
#define TCP_PARSE_H

#include "tcp/stack.h"
#include "wire/bytes.h"
#include "wire/ip.h"

#define PARSE_NOT_TCP ((enum tcp_drop)TCP_DROP_COUNT) /* no reason of a drop: ICMP */

/* Index of the address, or the number of addresses: it is none of ours. */
uint32_t parse_find_address(const struct tcp_stack *s, const struct ip_addr *addr);

/* Fills what in has of the packet, whose IP header is at data. */
enum tcp_drop parse_any(const struct tcp_stack *s, const struct tcp_packet *packet, const uint8_t *data,
                        struct input *in);

#ifdef JANUS_NO_PREDICTION

static inline bool parse_plain(const struct tcp_stack *s, const struct tcp_packet *packet, const uint8_t *data,
                               struct input *in)
{
    (void)s, (void)packet, (void)data, (void)in;
    return false;
}

#else

/* False for those that ip_parse() refuses, and for some more, so that it is asked. */
static inline bool parse_source_is_plain(uint8_t first)
{
    return (uint8_t)(first - 1) < 223 && first != 127;
}

/* True: in is filled as parse_any() would have done it, but for what is said twice or is in no option. */
static inline bool parse_plain(const struct tcp_stack *s, const struct tcp_packet *packet, const uint8_t *data,
                               struct input *in)
{
    static const uint8_t plain[8] = {0x45}, asked[8] = {0xff, 0, 0, 0, 0, 0, 0x3f, 0xff}; /* options, MF and offset */
    const uint8_t *tcp = data + IPV4_HEADER_LEN;
    uint32_t total_len, header_len, payload_len, ports, laddr_index = 0;
    uint64_t first, wanted, mask;
    struct ip_addr laddr;

    if (packet->len < IPV4_HEADER_LEN + TCP_HEADER_LEN)
        return false;
    memcpy(&first, data, sizeof first);
    memcpy(&wanted, plain, sizeof wanted);
    memcpy(&mask, asked, sizeof mask);
    total_len = get_be16(data + 2);
    header_len = (tcp[12] & 0xf0u) >> 2;
    payload_len = total_len - IPV4_HEADER_LEN - header_len;
    if ((first & mask) != wanted || total_len > packet->len || payload_len > UINT16_MAX || data[9] != IP_PROTOCOL_TCP ||
        !parse_source_is_plain(data[12]))
        return false;
    laddr = ip_addr_from_ipv4(data + 16);
    if (!ip_addr_equal(&laddr, &s->addresses[0]) && (laddr_index = parse_find_address(s, &laddr)) == s->address_count)
        return false;
    ports = get_be32(tcp);
    if ((ports & 0xffff) == 0 || ports >> 16 == 0 || get_be32(data + 12) == get_be32(data + 16) ||
        !tcp_options_parse_usual(tcp + TCP_HEADER_LEN, header_len - TCP_HEADER_LEN, &in->seg.options))
        return false;
    in->seg.seq = get_be32(tcp + 4);
    in->seg.ack = get_be32(tcp + 8);
    in->seg.flags = tcp[13];
    in->seg.wnd = get_be16(tcp + 14);
    in->seg.up = get_be16(tcp + 18);
    in->seg.payload_len = payload_len;
    in->flow.laddr = laddr;
    in->flow.raddr = ip_addr_from_ipv4(data + 12);
    in->flow.lport = (uint16_t)ports;
    in->flow.rport = (uint16_t)(ports >> 16);
    in->data = packet->offset + IPV4_HEADER_LEN + header_len;
    in->laddr_index = (uint8_t)laddr_index;
    in->ecn = data[1] & 3;
    return true;
}

#endif

/* Fills what in has of the packet, whose offset and length lie within its slot.  TCP_DROP_NONE, PARSE_NOT_TCP, or why it is dropped. */
static inline enum tcp_drop parse_packet(const struct tcp_stack *s, const struct tcp_packet *packet, struct input *in)
{
    const uint8_t *data = packet->ip;

    in->packet = packet;
    if (!packet->verified || !parse_plain(s, packet, data, in)) {
        enum tcp_drop drop = parse_any(s, packet, data, in);

        if (drop != TCP_DROP_NONE)
            return drop;
    }
    in->hash = packet->has_hash ? packet->hash : csb_table_hash(csb_hash(&s->config.flow_secret, &in->flow));
    return TCP_DROP_NONE;
}

#endif
