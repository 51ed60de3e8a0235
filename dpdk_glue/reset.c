/*
 * reset.c: RST as RFC 9293 3.5.2 wants it.
 */
#include "dpdk_glue/reset.h"

#include "wire/checksum.h"
#include "wire/ip.h"

bool reset_answer(struct reset *r, const struct tcp_segment *seg)
{
    if (seg->flags & TCP_RST)
        return false;
    if (seg->flags & TCP_ACK) {
        r->seq = seg->ack;
        r->ack = 0;
        r->flags = TCP_RST;
        return true;
    }
    r->seq = 0;
    r->ack = seg->seq + seg->payload_len + ((seg->flags & TCP_SYN) != 0) + ((seg->flags & TCP_FIN) != 0);
    r->flags = TCP_RST | TCP_ACK;
    return true;
}

uint32_t reset_build(uint8_t *out, const struct reset *r)
{
    const struct flow *f = &r->flow;
    uint16_t type = ip_addr_is_ipv4(&f->raddr) ? ETHER_TYPE_IPV4 : ETHER_TYPE_IPV6;
    uint32_t l2 = ether_build(out, &r->dst, &r->src, r->vlan_id, type);
    uint32_t l3 = ip_header_len(&f->raddr);
    uint8_t *tcp = out + l2 + l3;

    ip_build(out + l2, &f->laddr, &f->raddr, IP_PROTOCOL_TCP, TCP_HEADER_LEN, 0, IP_TTL);
    memset(tcp, 0, TCP_HEADER_LEN);
    put_be16(tcp, f->lport);
    put_be16(tcp + 2, f->rport);
    put_be32(tcp + 4, r->seq);
    put_be32(tcp + 8, r->ack);
    tcp[12] = TCP_HEADER_LEN / 4 << 4;
    tcp[13] = r->flags;
    uint64_t sum = checksum_pseudo(&f->laddr, &f->raddr, IP_PROTOCOL_TCP, TCP_HEADER_LEN);
    uint16_t checksum = checksum_finish(checksum_add(sum, tcp, TCP_HEADER_LEN));
    memcpy(tcp + 16, &checksum, sizeof checksum);
    return l2 + l3 + TCP_HEADER_LEN;
}
