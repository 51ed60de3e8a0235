/*
 * nd.c: the two messages of address resolution; what RFC 4861 7.1 tells to discard in silence is a verdict here.
 */
#include "wire/nd.h"

#include "wire/icmp.h"

enum {
    OPTION_SOURCE_LLADDR = 1,
    OPTION_TARGET_LLADDR = 2,
    OPTION_LLADDR_LEN = 8,
    FLAG_ROUTER = 0x80,
    FLAG_SOLICITED = 0x40,
    FLAG_OVERRIDE = 0x20,
    TARGET = 8,
};

/* The multicast group ff02::1:ffXX:XXXX on which target is solicited (RFC 4291 2.7.1). */
static struct ip_addr solicited_node(const struct ip_addr *target)
{
    struct ip_addr group = {{0xff, 0x02, [11] = 0x01, [12] = 0xff}};

    memcpy(group.b + 13, target->b + 13, 3);
    return group;
}

static bool is_unspecified(const struct ip_addr *a)
{
    static const struct ip_addr zero = {{0}};

    return ip_addr_equal(a, &zero);
}

static bool is_multicast(const struct ip_addr *a)
{
    return a->b[0] == 0xff;
}

static bool take_options(const uint8_t *p, uint32_t len, struct nd_message *out)
{
    uint8_t wanted = out->solicitation ? OPTION_SOURCE_LLADDR : OPTION_TARGET_LLADDR;

    out->has_lladdr = false;
    while (len > 0) {
        if (len < 2 || p[1] == 0 || p[1] * 8u > len)
            return false;
        uint32_t option_len = p[1] * 8u;
        if (p[0] == wanted && option_len == OPTION_LLADDR_LEN && !out->has_lladdr) {
            memcpy(&out->lladdr, p + 2, ETHER_ADDR_LEN);
            out->has_lladdr = true;
        }
        p += option_len;
        len -= option_len;
    }
    return true;
}

/* RFC 4861 7.1.1 and 7.1.2. */
static bool addresses_are_good(const struct ip_packet *ip, const struct nd_message *m)
{
    if (is_multicast(&m->target) || is_unspecified(&m->target) || ip_addr_is_ipv4(&m->target))
        return false;
    if (m->has_lladdr && !ether_addr_is_unicast(&m->lladdr))
        return false;
    if (!m->solicitation)
        return !is_unspecified(&ip->src) && !(is_multicast(&ip->dst) && m->solicited);
    if (!is_unspecified(&ip->src))
        return true;
    struct ip_addr group = solicited_node(&m->target);
    return !m->has_lladdr && ip_addr_equal(&ip->dst, &group);
}

enum nd_verdict nd_parse(const struct ip_packet *ip, const uint8_t *data, struct nd_message *out)
{
    if (ip->l4_len < ND_LEN)
        return ND_TRUNCATED;
    if (data[0] != ICMPV6_NEIGHBOUR_SOLICITATION && data[0] != ICMPV6_NEIGHBOUR_ADVERTISEMENT)
        return ND_OTHER_TYPE;
    if (ip->ttl != ND_HOP_LIMIT)
        return ND_BAD_HOP_LIMIT;
    if (data[1] != 0)
        return ND_BAD_CODE;
    out->solicitation = data[0] == ICMPV6_NEIGHBOUR_SOLICITATION;
    out->router = !out->solicitation && data[4] & FLAG_ROUTER;
    out->solicited = !out->solicitation && data[4] & FLAG_SOLICITED;
    out->override = !out->solicitation && data[4] & FLAG_OVERRIDE;
    memcpy(out->target.b, data + TARGET, 16);
    if (!take_options(data + ND_LEN, ip->l4_len - ND_LEN, out))
        return ND_BAD_OPTION;
    return addresses_are_good(ip, out) ? ND_OK : ND_BAD_ADDRESS;
}
