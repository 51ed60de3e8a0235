/*
 * arp.c: the 28 bytes of an ARP packet for IPv4 over Ethernet.
 */
#include "wire/arp.h"

enum { HARDWARE_ETHERNET = 1, SHA = 8, SPA = 14, THA = 18, TPA = 24 };

/* 0.0.0.0 is allowed: a probe (RFC 5227 2.1.1). */
static bool sender_is_good(const uint8_t *spa)
{
    static const uint8_t probe[4] = {0};

    return memcmp(spa, probe, 4) == 0 || (spa[0] != 0 && spa[0] != 127 && spa[0] < 224);
}

enum arp_verdict arp_parse(const uint8_t *data, size_t len, struct arp_packet *out)
{
    if (len < ARP_LEN)
        return ARP_TRUNCATED;
    if (get_be16(data) != HARDWARE_ETHERNET || get_be16(data + 2) != ETHER_TYPE_IPV4 || data[4] != ETHER_ADDR_LEN ||
        data[5] != 4)
        return ARP_BAD_FORMAT;
    uint16_t op = get_be16(data + 6);
    if (op != ARP_REQUEST && op != ARP_REPLY)
        return ARP_BAD_OP;
    out->op = op == ARP_REQUEST ? ARP_REQUEST : ARP_REPLY;
    memcpy(&out->sha, data + SHA, ETHER_ADDR_LEN);
    memcpy(&out->tha, data + THA, ETHER_ADDR_LEN);
    out->spa = ip_addr_from_ipv4(data + SPA);
    out->tpa = ip_addr_from_ipv4(data + TPA);
    return ether_addr_is_unicast(&out->sha) && sender_is_good(data + SPA) ? ARP_OK : ARP_BAD_ADDRESS;
}
