/*
 * ether.h: Ethernet II with at most one 802.1Q tag.
 */
#ifndef WIRE_ETHER_H
#define WIRE_ETHER_H

#include "wire/bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ETHER_ADDR_LEN = 6, ETHER_HEADER_LEN = 14, ETHER_VLAN_LEN = 4, ETHER_HEADER_MAX = 18, ETHER_TYPE_MIN = 0x600 };
enum ether_type {
    ETHER_TYPE_IPV4 = 0x0800,
    ETHER_TYPE_ARP = 0x0806,
    ETHER_TYPE_VLAN = 0x8100,
    ETHER_TYPE_IPV6 = 0x86dd,
    ETHER_TYPE_QINQ = 0x88a8,
    ETHER_TYPE_QINQ_OLD = 0x9100,
};
#define ETHER_VLAN_ID_MASK ((uint16_t)0x0fff)

struct ether_addr {
    uint8_t b[ETHER_ADDR_LEN];
};

enum ether_verdict {
    ETHER_OK,
    ETHER_TRUNCATED,   /* shorter than its header */
    ETHER_NO_TYPE,     /* an 802.3 length stands where the type should be */
    ETHER_DOUBLE_TAG,  /* two tags, or a provider's tag */
    ETHER_BAD_ADDRESS, /* the source is a group address or zero */
};

struct ether_frame {
    struct ether_addr dst, src;
    uint16_t type;    /* of the payload */
    uint16_t vlan_id; /* 0: no tag, or a priority tag */
    uint32_t offset;  /* of the payload: 14 or 18 */
};

static inline bool ether_addr_equal(const struct ether_addr *a, const struct ether_addr *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

/* Multicast or broadcast. */
static inline bool ether_addr_is_group(const struct ether_addr *a)
{
    return a->b[0] & 1;
}

static inline bool ether_addr_is_broadcast(const struct ether_addr *a)
{
    static const struct ether_addr broadcast = {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};
    return ether_addr_equal(a, &broadcast);
}

/* An address that one station may have. */
static inline bool ether_addr_is_unicast(const struct ether_addr *a)
{
    static const struct ether_addr zero = {{0}};
    return !ether_addr_is_group(a) && !ether_addr_equal(a, &zero);
}

static inline bool ether_type_is_tag(uint16_t type)
{
    return type == ETHER_TYPE_VLAN || type == ETHER_TYPE_QINQ || type == ETHER_TYPE_QINQ_OLD;
}

/* Parses the header of the frame of len bytes at data; out is filled when ETHER_OK. */
static inline enum ether_verdict ether_parse(const uint8_t *data, size_t len, struct ether_frame *out)
{
    if (len < ETHER_HEADER_LEN)
        return ETHER_TRUNCATED;
    memcpy(&out->dst, data, ETHER_ADDR_LEN);
    memcpy(&out->src, data + ETHER_ADDR_LEN, ETHER_ADDR_LEN);
    out->type = get_be16(data + 12);
    out->vlan_id = 0;
    out->offset = ETHER_HEADER_LEN;
    if (out->type == ETHER_TYPE_VLAN) {
        if (len < ETHER_HEADER_MAX)
            return ETHER_TRUNCATED;
        out->vlan_id = get_be16(data + 14) & ETHER_VLAN_ID_MASK;
        out->type = get_be16(data + 16);
        out->offset = ETHER_HEADER_MAX;
    }
    if (ether_type_is_tag(out->type))
        return ETHER_DOUBLE_TAG;
    if (out->type < ETHER_TYPE_MIN)
        return ETHER_NO_TYPE;
    return ether_addr_is_unicast(&out->src) ? ETHER_OK : ETHER_BAD_ADDRESS;
}

/* Writes a header and returns its length: 14, or 18 with a tag when vlan_id is not 0. */
static inline uint32_t ether_build(uint8_t *data, const struct ether_addr *dst, const struct ether_addr *src,
                                   uint16_t vlan_id, uint16_t type)
{
    uint32_t offset = 12;

    memcpy(data, dst, ETHER_ADDR_LEN);
    memcpy(data + ETHER_ADDR_LEN, src, ETHER_ADDR_LEN);
    if (vlan_id != 0) {
        put_be16(data + offset, ETHER_TYPE_VLAN);
        put_be16(data + offset + 2, vlan_id & ETHER_VLAN_ID_MASK);
        offset += ETHER_VLAN_LEN;
    }
    put_be16(data + offset, type);
    return offset + 2;
}

#endif
