/*
 * classify.c: the checks of one frame, outermost header first; the first that fails names the reason.
 */
#include "dpdk_glue/classify.h"

#include "wire/arp.h"
#include "wire/bytes.h"
#include "wire/checksum.h"
#include "wire/icmp.h"
#include "wire/ip.h"
#include "wire/nd.h"
#include "wire/tcp_header.h"

enum { PREFETCH_AHEAD = 4, UDP_HEADER_LEN = 8 };

/* What is known of a frame on its way through the checks. */
struct passage {
    const uint8_t *l3;
    uint32_t l3_len;
    bool to_group; /* the Ethernet destination is broadcast or multicast */
};

static enum classify_verdict drop(struct classified *out, enum classify_drop reason)
{
    out->drop = (uint8_t)reason;
    out->verdict = CLASSIFY_DROP;
    return CLASSIFY_DROP;
}

static enum classify_verdict slow(struct classified *out, enum classify_slow kind)
{
    out->slow = (uint8_t)kind;
    out->verdict = CLASSIFY_SLOW;
    return CLASSIFY_SLOW;
}

/* --- Ethernet --- */

/* The groups of neighbour discovery: all nodes and the solicited-node range (RFC 4291 2.7.1, RFC 2464 7). */
static bool is_nd_group(const struct ether_addr *dst)
{
    static const uint8_t all_nodes[ETHER_ADDR_LEN] = {0x33, 0x33, 0, 0, 0, 1};

    return (dst->b[0] == 0x33 && dst->b[1] == 0x33 && dst->b[2] == 0xff) ||
           memcmp(dst, all_nodes, sizeof all_nodes) == 0;
}

static bool is_for_us(const struct classify_port *port, const struct ether_frame *ether)
{
    if (ether_addr_equal(&ether->dst, &port->mac) || ether_addr_is_broadcast(&ether->dst))
        return true;
    return ether->type == ETHER_TYPE_IPV6 && is_nd_group(&ether->dst);
}

static enum classify_drop check_ether(const struct classify_port *port, const uint8_t *frame, uint32_t len,
                                      struct ether_frame *ether)
{
    switch (ether_parse(frame, len, ether)) {
    case ETHER_OK:
        break;
    case ETHER_TRUNCATED:
        return CLASSIFY_DROP_RUNT;
    case ETHER_NO_TYPE:
        return CLASSIFY_DROP_NO_ETHER_TYPE;
    case ETHER_DOUBLE_TAG:
        return CLASSIFY_DROP_DOUBLE_TAG;
    case ETHER_BAD_ADDRESS:
        return CLASSIFY_DROP_ETHER_SOURCE;
    }
    if (ether->vlan_id != port->vlan_id)
        return CLASSIFY_DROP_OTHER_VLAN;
    return is_for_us(port, ether) ? CLASSIFY_DROP_NONE : CLASSIFY_DROP_NOT_FOR_US;
}

static enum classify_verdict classify_arp(const struct passage *p, struct classified *out)
{
    struct arp_packet packet;

    switch (arp_parse(p->l3, p->l3_len, &packet)) {
    case ARP_OK:
        return slow(out, CLASSIFY_SLOW_ARP);
    case ARP_BAD_ADDRESS:
        return drop(out, CLASSIFY_DROP_ARP_SENDER);
    default:
        return drop(out, CLASSIFY_DROP_ARP_MALFORMED);
    }
}

/* --- IP --- */

/* A destination that no frame from a wire may have. */
static bool destination_is_bad(const struct ip_packet *ip)
{
    static const uint8_t zero[15] = {0};
    const uint8_t *b = ip->dst.b;

    if (ip->version == 4)
        return b[12] == 0 || b[12] == 127;
    return (memcmp(b, zero, sizeof zero) == 0 && b[15] <= 1) || ip_addr_is_ipv4(&ip->dst);
}

/* Multicast, limited broadcast, and IPv4's reserved class E. */
static bool destination_is_group(const struct ip_packet *ip)
{
    return ip->version == 4 ? ip->dst.b[12] >= 224 : ip->dst.b[0] == 0xff;
}

/* Duplicate address detection solicits from the unspecified address (RFC 4862 5.4.2): nd_parse() judges it. */
static bool may_be_dad(const struct ip_packet *ip)
{
    static const struct ip_addr unspecified = {{0}};

    return ip->version == 6 && ip->protocol == IP_PROTOCOL_ICMPV6 && ip_addr_equal(&ip->src, &unspecified) &&
           ip->dst.b[0] == 0xff;
}

static enum classify_drop check_ip(const struct passage *p, struct ip_packet *ip)
{
    switch (ip_parse(p->l3, p->l3_len, ip)) {
    case IP_OK:
        break;
    case IP_TRUNCATED:
        return CLASSIFY_DROP_IP_TRUNCATED;
    case IP_BAD_VERSION:
        return CLASSIFY_DROP_IP_VERSION;
    case IP_BAD_HEADER:
        return CLASSIFY_DROP_IP_HEADER;
    case IP_BAD_CHECKSUM:
        return CLASSIFY_DROP_IP_CHECKSUM;
    case IP_OPTIONS:
        return CLASSIFY_DROP_IP_OPTIONS;
    case IP_FRAGMENT:
        return CLASSIFY_DROP_IP_FRAGMENT;
    case IP_EXTENSIONS:
        return CLASSIFY_DROP_IP_EXTENSIONS;
    case IP_BAD_ADDRESS:
        if (may_be_dad(ip))
            break;
        if (destination_is_bad(ip))
            return CLASSIFY_DROP_IP_DESTINATION;
        return ip_addr_equal(&ip->src, &ip->dst) ? CLASSIFY_DROP_LAND : CLASSIFY_DROP_IP_SOURCE;
    }
    return destination_is_bad(ip) ? CLASSIFY_DROP_IP_DESTINATION : CLASSIFY_DROP_NONE;
}

/* --- what IP carries --- */

static enum classify_verdict classify_tcp(const struct ip_packet *ip, const uint8_t *l4, uint32_t flags,
                                          struct classified *out)
{
    struct tcp_segment segment;

    switch (tcp_header_parse(l4, ip->l4_len, &segment)) {
    case TCP_HEADER_OK:
        break;
    case TCP_HEADER_BAD_OFFSET:
        return drop(out, CLASSIFY_DROP_TCP_OFFSET);
    case TCP_HEADER_BAD_OPTIONS:
        return drop(out, CLASSIFY_DROP_TCP_OPTIONS);
    case TCP_HEADER_BAD_PORT:
        return drop(out, CLASSIFY_DROP_TCP_PORT);
    default:
        return drop(out, CLASSIFY_DROP_TCP_TRUNCATED);
    }
    if (!(flags & CLASSIFY_L4_VERIFIED) && tcp_header_verify(l4, ip->l4_len, &ip->src, &ip->dst) != TCP_HEADER_OK)
        return drop(out, CLASSIFY_DROP_TCP_CHECKSUM);
    out->flow.lport = segment.dport;
    out->flow.rport = segment.sport;
    out->tcp_flags = segment.flags;
    out->is_syn = (segment.flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
    out->verdict = CLASSIFY_TCP;
    return CLASSIFY_TCP;
}

/* An error is believed only about a segment that its destination can have sent (RFC 5927 4.1 goes on in the TCP core). */
static enum classify_verdict classify_icmp_error(const struct ip_packet *ip, const uint8_t *body, uint32_t len,
                                                 struct classified *out)
{
    struct icmp_quote quote;

    if (!icmp_quote_parse(ip->version, body, len, &quote) || quote.protocol != IP_PROTOCOL_TCP ||
        !ip_addr_equal(&quote.flow.laddr, &ip->dst))
        return drop(out, CLASSIFY_DROP_ICMP_QUOTE);
    out->flow = quote.flow;
    out->verdict = CLASSIFY_ICMP;
    return CLASSIFY_ICMP;
}

static enum classify_verdict classify_icmp(const struct ip_packet *ip, const uint8_t *l4, bool to_group,
                                           struct classified *out)
{
    struct icmp_message message;
    struct nd_message nd;

    switch (icmp_parse(ip, l4, &message)) {
    case ICMP_OK:
        break;
    case ICMP_TRUNCATED:
        return drop(out, CLASSIFY_DROP_ICMP_TRUNCATED);
    case ICMP_BAD_CHECKSUM:
        return drop(out, CLASSIFY_DROP_ICMP_CHECKSUM);
    }
    if (message.kind == ICMP_NEIGHBOUR)
        return nd_parse(ip, l4, &nd) == ND_OK ? slow(out, CLASSIFY_SLOW_ND) : drop(out, CLASSIFY_DROP_ND_MALFORMED);
    if (may_be_dad(ip))
        return drop(out, CLASSIFY_DROP_IP_SOURCE);
    if (to_group)
        return drop(out, CLASSIFY_DROP_TO_GROUP);
    switch (message.kind) {
    case ICMP_ECHO_REQUEST:
        return slow(out, CLASSIFY_SLOW_ECHO);
    case ICMP_UNREACHABLE:
    case ICMP_TOO_BIG:
    case ICMP_TIME_EXCEEDED:
    case ICMP_PARAMETER_PROBLEM:
        return classify_icmp_error(ip, l4 + ICMP_HEADER_LEN, message.body_len, out);
    default:
        return drop(out, CLASSIFY_DROP_ICMP_TYPE);
    }
}

/* The checksum is left alone: the only answer quotes the datagram as it came. */
static enum classify_verdict classify_udp(const struct ip_packet *ip, const uint8_t *l4, struct classified *out)
{
    if (ip->l4_len < UDP_HEADER_LEN || get_be16(l4 + 4) < UDP_HEADER_LEN || get_be16(l4 + 4) > ip->l4_len)
        return drop(out, CLASSIFY_DROP_UDP_HEADER);
    out->flow.lport = get_be16(l4 + 2);
    out->flow.rport = get_be16(l4);
    return slow(out, CLASSIFY_SLOW_UDP);
}

static enum classify_verdict classify_ip(const struct classify_port *port, const struct passage *p, uint32_t flags,
                                         struct classified *out)
{
    struct ip_packet ip;
    enum classify_drop reason = check_ip(p, &ip);

    if (reason != CLASSIFY_DROP_NONE)
        return drop(out, reason);
    out->flow.laddr = ip.dst;
    out->flow.raddr = ip.src;
    out->l4_offset = (uint16_t)(out->l3_offset + ip.l4_offset);
    out->total_len = ip.total_len;
    out->version = ip.version;
    out->protocol = ip.protocol;
    if (port->mtu != 0 && ip.total_len > port->mtu)
        return drop(out, CLASSIFY_DROP_OVERSIZE);
    bool to_group = p->to_group || destination_is_group(&ip);
    const uint8_t *l4 = p->l3 + ip.l4_offset;
    if (ip.protocol == (ip.version == 4 ? IP_PROTOCOL_ICMP : IP_PROTOCOL_ICMPV6))
        return classify_icmp(&ip, l4, to_group, out);
    if (to_group)
        return drop(out, CLASSIFY_DROP_TO_GROUP);
    if (ip.protocol == IP_PROTOCOL_TCP)
        return classify_tcp(&ip, l4, flags, out);
    return ip.protocol == IP_PROTOCOL_UDP ? classify_udp(&ip, l4, out) : drop(out, CLASSIFY_DROP_PROTOCOL);
}

/* --- the frame that nearly all are --- */

static uint64_t load_mac(const struct ether_addr *a)
{
    uint16_t high;
    uint32_t low;

    memcpy(&low, a->b, sizeof low);
    memcpy(&high, a->b + 4, sizeof high);
    return (uint64_t)high << 32 | low;
}

static bool ipv4_may_be_a_host(uint8_t first)
{
    return first != 0 && first != 127 && first < 224;
}

/* Whether it is a right TCP segment in IPv4 to this port's own address, untagged, with no options but timestamps.  All is asked
 * that the checks one by one ask; what is not so goes through those, and they name the reason. */
static bool is_plain(const struct classify_port *port, const uint8_t *frame, uint32_t len, uint32_t flags,
                     struct classified *out)
{
    enum { L4 = ETHER_HEADER_LEN + IPV4_HEADER_LEN };
    const uint8_t *ip = frame + ETHER_HEADER_LEN, *tcp = frame + L4;

    if (len < L4 + TCP_HEADER_LEN || port->vlan_id != 0 || port->no_ipv4)
        return false;
    uint64_t mac = load_mac(&port->mac), dst = checksum_load(frame) << 16 >> 16, src = checksum_load(frame + 4) >> 16;
    uint32_t total_len = get_be16(ip + 2), l4_len = total_len - IPV4_HEADER_LEN, header_len = (tcp[12] >> 4) * 4u;
    bool shape = (dst ^ mac) == 0 && !(dst & 1) && src != 0 && !(src & 1) && get_be32(frame + 12) >> 8 == 0x080045 &&
                 total_len >= IPV4_HEADER_LEN + TCP_HEADER_LEN && total_len <= len - ETHER_HEADER_LEN &&
                 !(get_be16(ip + 6) & 0x3fff) && ip[9] == IP_PROTOCOL_TCP;
    bool options =
        header_len == TCP_HEADER_LEN ||
        (header_len == TCP_HEADER_LEN + TCP_TIMESTAMPS_LEN && l4_len >= header_len &&
         len >= L4 + TCP_HEADER_LEN + TCP_TIMESTAMPS_LEN && get_be32(tcp + TCP_HEADER_LEN) == TCP_ALIGNED_TIMESTAMPS);
    if (!shape || !options || (port->mtu != 0 && total_len > port->mtu))
        return false;
    uint64_t addresses = checksum_load(ip + 12);
    if (!ipv4_may_be_a_host(ip[12]) || !ipv4_may_be_a_host(ip[16]) || (uint32_t)addresses == addresses >> 32)
        return false;
    if (checksum_finish(checksum_words(ip, IPV4_HEADER_LEN / 4)) != 0)
        return false;
    out->flow.lport = get_be16(tcp + 2);
    out->flow.rport = get_be16(tcp);
    if (out->flow.lport == 0 || out->flow.rport == 0)
        return false;
    uint64_t pseudo =
        checksum_plus(addresses, (uint64_t)__builtin_bswap32(IP_PROTOCOL_TCP) + __builtin_bswap32(l4_len));
    if (!(flags & CLASSIFY_L4_VERIFIED) && checksum_finish(checksum_add(pseudo, tcp, l4_len)) != 0)
        return false;
    out->flow.laddr = ip_addr_from_ipv4(ip + 16);
    out->flow.raddr = ip_addr_from_ipv4(ip + 12);
    out->l3_offset = ETHER_HEADER_LEN;
    out->l4_offset = L4;
    out->total_len = (uint16_t)total_len;
    out->verdict = CLASSIFY_TCP;
    out->slow = CLASSIFY_SLOW_NONE;
    out->drop = CLASSIFY_DROP_NONE;
    out->version = 4;
    out->protocol = IP_PROTOCOL_TCP;
    out->tcp_flags = tcp[13];
    out->is_syn = (tcp[13] & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
    return true;
}

enum classify_verdict classify_frame(const struct classify_port *port, const uint8_t *frame, uint32_t len,
                                     uint32_t flags, struct classified *out)
{
    struct ether_frame ether;

    if (is_plain(port, frame, len, flags, out))
        return CLASSIFY_TCP;

    memset(out, 0, sizeof *out);
    enum classify_drop reason = check_ether(port, frame, len, &ether);
    if (reason != CLASSIFY_DROP_NONE)
        return drop(out, reason);
    out->l3_offset = (uint16_t)ether.offset;
    struct passage p = {frame + ether.offset, len - ether.offset, ether_addr_is_group(&ether.dst)};
    bool ipv6 = ether.type == ETHER_TYPE_IPV6;
    if (!ipv6 && ether.type != ETHER_TYPE_IPV4 && ether.type != ETHER_TYPE_ARP)
        return drop(out, CLASSIFY_DROP_ETHER_TYPE);
    if (ipv6 ? port->no_ipv6 : port->no_ipv4)
        return drop(out, CLASSIFY_DROP_FAMILY_OFF);
    if (ether.type == ETHER_TYPE_ARP)
        return classify_arp(&p, out);
    if (p.l3_len == 0)
        return drop(out, CLASSIFY_DROP_IP_TRUNCATED);
    if (p.l3[0] >> 4 != (ipv6 ? 6 : 4))
        return drop(out, CLASSIFY_DROP_IP_VERSION);
    return classify_ip(port, &p, flags, out);
}

void classify_burst(const struct classify_port *port, const uint8_t *const *frames, const uint32_t *lens,
                    const uint8_t *flags, struct classified *out, uint32_t count)
{
    for (uint32_t i = 0; i < count && i < PREFETCH_AHEAD; i++)
        __builtin_prefetch(frames[i]);
    for (uint32_t i = 0; i < count; i++) {
        if (i + PREFETCH_AHEAD < count)
            __builtin_prefetch(frames[i + PREFETCH_AHEAD]);
        classify_frame(port, frames[i], lens[i], flags ? flags[i] : 0, &out[i]);
    }
}

static const struct {
    const char *name, *sentence;
} DROPS[CLASSIFY_DROP_COUNT] = {
#define DROP(symbol, name, sentence) {name, sentence},
#include "dpdk_glue/classify_drops.def"
#undef DROP
};

const char *classify_drop_name(enum classify_drop drop)
{
    return (unsigned)drop < CLASSIFY_DROP_COUNT ? DROPS[drop].name : NULL;
}

const char *classify_drop_sentence(enum classify_drop drop)
{
    return (unsigned)drop < CLASSIFY_DROP_COUNT ? DROPS[drop].sentence : NULL;
}
