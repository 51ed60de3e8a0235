/*
 * txcheck.c: every field of what an app sends that the lease or the next router depends on.
 */
#include "dpdk_glue/txcheck.h"

#include "wire/bytes.h"
#include "wire/checksum.h"
#include "wire/ip.h"
#include "wire/tcp_header.h"

enum { IPV4_DF = 0x4000, TX_LEN_MIN = IPV4_HEADER_LEN + TCP_HEADER_LEN };

void txcheck_lease_port(struct txcheck_lease *lease, uint16_t first, uint16_t last)
{
    for (uint32_t port = first; port <= last; port++)
        lease->ports[port / 64] |= UINT64_C(1) << (port % 64);
}

bool txcheck_address_leased(const struct txcheck_lease *lease, const struct ip_addr *address)
{
    for (uint32_t i = 0; i < lease->address_count; i++) {
        if (ip_addr_equal(&lease->addresses[i], address))
            return true;
    }
    return false;
}

bool txcheck_is_host(const struct ip_addr *address)
{
    static const uint8_t zeroes[15] = {0};
    const uint8_t *b = address->b;

    if (ip_addr_is_ipv4(address))
        return b[12] != 0 && b[12] != 127 && b[12] < 224;
    if (b[0] == 0xff)
        return false;
    return memcmp(b, zeroes, sizeof zeroes) != 0 || b[15] > 1; /* neither :: nor ::1 */
}

enum shm_drop txcheck_desc(const struct shm_desc *desc, uint32_t tx_slots)
{
    if (desc->kind != SHM_DESC_PACKET || (desc->flags & ~SHM_DESC_NEED_CHECKSUM) != 0)
        return SHM_DROP_TX_KIND;
    if (desc->slot >= tx_slots)
        return SHM_DROP_TX_SLOT;
    if (desc->len < TX_LEN_MIN || (uint32_t)desc->offset + desc->len > SHM_SLOT_BYTES)
        return SHM_DROP_TX_BOUNDS;
    return SHM_DROP_NONE;
}

static enum shm_drop check_ipv4(const uint8_t *packet, uint32_t len, struct ip_addr *src, struct ip_addr *dst)
{
    if (packet[0] != 0x45 || get_be16(packet + 2) != len)
        return SHM_DROP_TX_HEADER;
    if ((get_be16(packet + 6) & (uint16_t)~IPV4_DF) != 0 || packet[8] == 0)
        return SHM_DROP_TX_HEADER;
    if (checksum_finish(checksum_words(packet, IPV4_HEADER_LEN / 4)) != 0)
        return SHM_DROP_TX_HEADER;
    if (packet[9] != IP_PROTOCOL_TCP)
        return SHM_DROP_TX_PROTOCOL;
    *src = ip_addr_from_ipv4(packet + 12);
    *dst = ip_addr_from_ipv4(packet + 16);
    return SHM_DROP_NONE;
}

static enum shm_drop check_ipv6(const uint8_t *packet, uint32_t len, struct ip_addr *src, struct ip_addr *dst)
{
    if (len < IPV6_HEADER_LEN + TCP_HEADER_LEN || (uint32_t)get_be16(packet + 4) + IPV6_HEADER_LEN != len ||
        packet[7] == 0)
        return SHM_DROP_TX_HEADER;
    if (packet[6] != IP_PROTOCOL_TCP)
        return SHM_DROP_TX_PROTOCOL;
    memcpy(src, packet + 8, sizeof *src);
    memcpy(dst, packet + 24, sizeof *dst);
    if (ip_addr_is_ipv4(src))
        return SHM_DROP_TX_SOURCE;
    return ip_addr_is_ipv4(dst) ? SHM_DROP_TX_DESTINATION : SHM_DROP_NONE;
}

enum shm_drop txcheck_packet(const struct txcheck_lease *lease, const uint8_t *packet, uint32_t len,
                             struct txcheck_packet *out)
{
    struct ip_addr src;
    enum shm_drop drop = SHM_DROP_TX_HEADER;

    if (len < TX_LEN_MIN)
        return SHM_DROP_TX_BOUNDS;
    out->version = packet[0] >> 4;
    if (out->version == 4)
        drop = check_ipv4(packet, len, &src, &out->dst);
    else if (out->version == 6)
        drop = check_ipv6(packet, len, &src, &out->dst);
    if (drop != SHM_DROP_NONE)
        return drop;
    if (!txcheck_address_leased(lease, &src))
        return SHM_DROP_TX_SOURCE;
    if (!txcheck_is_host(&out->dst))
        return SHM_DROP_TX_DESTINATION;

    out->l3_len = out->version == 4 ? IPV4_HEADER_LEN : IPV6_HEADER_LEN;
    const uint8_t *tcp = packet + out->l3_len;
    uint32_t l4_len = (tcp[12] >> 4) * 4u;
    if (l4_len < TCP_HEADER_LEN || l4_len > len - out->l3_len || get_be16(tcp + 2) == 0)
        return SHM_DROP_TX_HEADER;
    out->l4_len = (uint8_t)l4_len;
    return txcheck_port_leased(lease, get_be16(tcp)) ? SHM_DROP_NONE : SHM_DROP_TX_SOURCE_PORT;
}
