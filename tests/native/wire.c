/* wire.c: the wire layer for Python, inline functions wrapped. */
#include "wire/arp.h"
#include "wire/checksum.h"
#include "wire/ether.h"
#include "wire/flow.h"
#include "wire/icmp.h"
#include "wire/ip.h"
#include "wire/nd.h"
#include "wire/tcp_header.h"
#include "wire/tcp_options.h"

static struct ip_addr wire_ip_addr_from_ipv4(const uint8_t *v4)
{
    return ip_addr_from_ipv4(v4);
}

static bool wire_ip_addr_is_ipv4(const struct ip_addr *a)
{
    return ip_addr_is_ipv4(a);
}

static bool wire_flow_equal(const struct flow *a, const struct flow *b)
{
    return flow_equal(a, b);
}

static void wire_ip_build(uint8_t *data, const struct ip_addr *src, const struct ip_addr *dst, uint8_t protocol,
                          uint32_t l4_len, int tos, int ttl)
{
    ip_build(data, src, dst, protocol, l4_len, (uint8_t)tos, (uint8_t)ttl);
}

static enum ether_verdict wire_ether_parse(const uint8_t *data, size_t len, struct ether_frame *out)
{
    return ether_parse(data, len, out);
}

static uint32_t wire_ether_build(uint8_t *data, const struct ether_addr *dst, const struct ether_addr *src,
                                 uint16_t vlan_id, uint16_t type)
{
    return ether_build(data, dst, src, vlan_id, type);
}
