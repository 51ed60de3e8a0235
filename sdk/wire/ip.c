/*
 * ip.c: IPv4 (RFC 791) and IPv6 (RFC 8200) headers, each bound checked against the bytes that are there.
 */
#include "wire/ip.h"

#include "wire/bytes.h"
#include "wire/checksum.h"

enum {
    IPV4_MF_AND_OFFSET = 0x3fff,
    IPV4_OPTION_END = 0,
    IPV4_OPTION_NOP = 1,
    IPV4_OPTION_LOOSE_ROUTE = 131,
    IPV4_OPTION_STRICT_ROUTE = 137,
    IPV6_HOP_BY_HOP = 0,
    IPV6_ROUTING = 43,
    IPV6_FRAGMENT = 44,
    IPV6_DESTINATION_OPTIONS = 60,
    IPV6_EXTENSIONS_MAX = 8,
    IPV6_OPTION_PAD1 = 0,
    IPV6_OPTION_ACTION = 0xc0, /* not 0: discard when the option is not known (RFC 8200 4.2) */
};

/* Sources that no host may use on a wire (RFC 1122 3.2.1.3): this network, loopback, multicast, reserved, broadcast. */
static bool ipv4_source_is_bad(const uint8_t *a)
{
    return a[0] == 0 || a[0] == 127 || a[0] >= 224;
}

static bool ipv6_is_low(const uint8_t *a)
{
    static const uint8_t zero[15] = {0};

    return memcmp(a, zero, sizeof zero) == 0 && a[15] <= 1; /* :: and ::1 */
}

/* Options are skipped by their lengths (RFC 1122 3.2.1.8), but source routes refused: who sends them wants answers to take a way that he
 * names (RFC 7126 4.3, 4.4). */
static bool ipv4_options_are_good(const uint8_t *options, uint32_t len)
{
    uint32_t i = 0;

    while (i < len && options[i] != IPV4_OPTION_END) {
        if (options[i] == IPV4_OPTION_NOP) {
            i++;
            continue;
        }
        if (len - i < 2 || options[i + 1] < 2 || options[i + 1] > len - i || options[i] == IPV4_OPTION_LOOSE_ROUTE ||
            options[i] == IPV4_OPTION_STRICT_ROUTE)
            return false;
        i += options[i + 1];
    }
    return true;
}

static inline enum ip_verdict ipv4_parse(const uint8_t *data, size_t len, struct ip_packet *out, bool verified)
{
    if (len < IPV4_HEADER_LEN)
        return IP_TRUNCATED;
    uint32_t header_len = (data[0] & 0x0fu) * 4u;
    uint32_t total_len = get_be16(data + 2);
    if (header_len < IPV4_HEADER_LEN || total_len < header_len)
        return IP_BAD_HEADER;
    if (total_len > len)
        return IP_TRUNCATED;
    if (!verified && checksum_finish(checksum_words(data, header_len / 4)) != 0)
        return IP_BAD_CHECKSUM;
    if (header_len > IPV4_HEADER_LEN && !ipv4_options_are_good(data + IPV4_HEADER_LEN, header_len - IPV4_HEADER_LEN))
        return IP_OPTIONS;
    out->version = 4;
    out->src = ip_addr_from_ipv4(data + 12);
    out->dst = ip_addr_from_ipv4(data + 16);
    out->l4_offset = header_len;
    out->l4_len = total_len - header_len;
    out->total_len = (uint16_t)total_len;
    out->protocol = data[9];
    out->ecn = data[1] & 3;
    out->ttl = data[8];
    if (get_be16(data + 6) & IPV4_MF_AND_OFFSET)
        return IP_FRAGMENT;
    if (ipv4_source_is_bad(data + 12) || memcmp(data + 12, data + 16, 4) == 0)
        return IP_BAD_ADDRESS;
    return IP_OK;
}

/* True: every option of a hop-by-hop or destination options header lies within it, and none that is unknown here asks
 * for the packet to be discarded (RFC 8200 4.2). */
static bool ipv6_options_are_good(const uint8_t *options, uint32_t len)
{
    uint32_t i = 0;

    while (i < len) {
        if (options[i] == IPV6_OPTION_PAD1) {
            i++;
            continue;
        }
        if (len - i < 2 || (options[i] & IPV6_OPTION_ACTION))
            return false;
        uint32_t option_len = 2u + options[i + 1];
        if (option_len > len - i)
            return false;
        i += option_len;
    }
    return true;
}

/* Walks from the fixed header to the upper layer; fills l4_offset and protocol.  total_len bytes are there. */
static enum ip_verdict ipv6_skip_extensions(const uint8_t *data, uint32_t total_len, struct ip_packet *out)
{
    uint32_t at = IPV6_HEADER_LEN;
    uint8_t next = data[6];

    for (int n = 0;; n++) {
        out->protocol = next;
        out->l4_offset = at;
        if (next != IPV6_HOP_BY_HOP && next != IPV6_ROUTING && next != IPV6_FRAGMENT &&
            next != IPV6_DESTINATION_OPTIONS)
            return IP_OK;
        if (n == IPV6_EXTENSIONS_MAX || total_len - at < 8 || (next == IPV6_HOP_BY_HOP && n > 0))
            return IP_EXTENSIONS;
        if (next == IPV6_FRAGMENT) {
            out->protocol = data[at];
            return IP_FRAGMENT;
        }
        uint32_t extension_len = (data[at + 1] + 1u) * 8u;
        if (extension_len > total_len - at)
            return IP_EXTENSIONS;
        /* A host is no router: a route that goes on is an error (RFC 8200 4.4, RFC 5095). */
        if (next == IPV6_ROUTING ? data[at + 3] != 0 : !ipv6_options_are_good(data + at + 2, extension_len - 2))
            return IP_EXTENSIONS;
        next = data[at];
        at += extension_len;
    }
}

static enum ip_verdict ipv6_parse(const uint8_t *data, size_t len, struct ip_packet *out)
{
    if (len < IPV6_HEADER_LEN)
        return IP_TRUNCATED;
    uint32_t total_len = IPV6_HEADER_LEN + (uint32_t)get_be16(data + 4);
    if (total_len > UINT16_MAX)
        return IP_BAD_HEADER;
    if (total_len > len)
        return IP_TRUNCATED;
    out->version = 6;
    memcpy(out->src.b, data + 8, 16);
    memcpy(out->dst.b, data + 24, 16);
    out->total_len = (uint16_t)total_len;
    out->ecn = data[1] >> 4 & 3;
    out->ttl = data[7];
    enum ip_verdict verdict = ipv6_skip_extensions(data, total_len, out);
    if (verdict != IP_OK)
        return verdict;
    out->l4_len = total_len - out->l4_offset;
    /* An IPv4-mapped address on the wire would take the place of an IPv4 flow (RFC 4291 2.5.5.2: for hosts only). */
    if (out->src.b[0] == 0xff || ipv6_is_low(out->src.b) || ip_addr_is_ipv4(&out->src) || ip_addr_is_ipv4(&out->dst) ||
        ip_addr_equal(&out->src, &out->dst))
        return IP_BAD_ADDRESS;
    return IP_OK;
}

static inline enum ip_verdict parse(const uint8_t *data, size_t len, struct ip_packet *out, bool verified)
{
    if (len == 0)
        return IP_TRUNCATED;
    if (data[0] >> 4 == 4)
        return ipv4_parse(data, len, out, verified);
    return data[0] >> 4 == 6 ? ipv6_parse(data, len, out) : IP_BAD_VERSION;
}

enum ip_verdict ip_parse(const uint8_t *data, size_t len, struct ip_packet *out)
{
    return parse(data, len, out, false);
}

enum ip_verdict ip_parse_verified(const uint8_t *data, size_t len, struct ip_packet *out)
{
    return parse(data, len, out, true);
}

void ip_build(uint8_t *data, const struct ip_addr *src, const struct ip_addr *dst, uint8_t protocol, uint32_t l4_len,
              uint8_t tos, uint8_t ttl)
{
    if (!ip_addr_is_ipv4(dst)) {
        put_be32(data, 6u << 28 | (uint32_t)tos << 20);
        put_be16(data + 4, (uint16_t)l4_len);
        data[6] = protocol;
        data[7] = ttl;
        memcpy(data + 8, src->b, 16);
        memcpy(data + 24, dst->b, 16);
        return;
    }
    ipv4_build(data, ip_addr_last_word(src), ip_addr_last_word(dst), protocol, l4_len, tos, ttl);
}
