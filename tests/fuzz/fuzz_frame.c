/*
 * fuzz_frame.c: any bytes as a received frame.
 *
 * Invariant: the verdict is one of three, a drop has a reason, every offset that the I/O thread will use lies within the
 * frame, what is called TCP can be parsed again to the same flow, and a longer buffer behind the frame changes nothing.
 *
 * The first bytes choose the port: VLAN, MTU, families, checksums verified by the port; and whether the frame is given a
 * plausible Ethernet destination and right checksums, and the port's tag, so that the inner headers are reached: a mutation
 * does not hit upon four right bytes at the right place.
 */
#include "dpdk_glue/classify.h"

#include "wire/bytes.h"
#include "wire/checksum.h"
#include "wire/ip.h"
#include "wire/tcp_header.h"

#include <stdlib.h>

enum { CHOICE_BYTES = 4, FRAME_MAX = 70000 };

static const struct ether_addr OUR_MAC = {{2, 0, 0, 0, 0, 1}};

static void require(bool holds)
{
    if (!holds)
        abort();
}

/* Makes the checksums of a frame right where its headers let it, as a clever attacker would. */
static void mend(uint8_t *frame, size_t len)
{
    if (len < ETHER_HEADER_LEN + 1)
        return;
    memcpy(frame, &OUR_MAC, ETHER_ADDR_LEN);
    frame[6] = 2;
    size_t at = get_be16(frame + 12) == ETHER_TYPE_VLAN ? ETHER_HEADER_MAX : ETHER_HEADER_LEN;
    if (len < at + IPV4_HEADER_LEN)
        return;
    uint8_t *ip = frame + at;
    size_t header_len = (ip[0] & 15u) * 4u;
    if (ip[0] >> 4 == 4 && header_len <= len - at) {
        put_be16(ip + 10, 0);
        uint16_t checksum = checksum_finish(checksum_add(0, ip, header_len));
        memcpy(ip + 10, &checksum, sizeof checksum);
    }
    struct ip_packet packet;
    if (ip_parse(ip, len - at, &packet) != IP_OK)
        return;
    size_t field = packet.protocol == IP_PROTOCOL_TCP ? 16 : 2;
    if (packet.l4_len < field + 2)
        return;
    uint8_t *l4 = ip + packet.l4_offset;
    uint64_t sum = packet.protocol == IP_PROTOCOL_ICMP
                       ? 0
                       : checksum_pseudo(&packet.src, &packet.dst, packet.protocol, packet.l4_len);
    put_be16(l4 + field, 0);
    uint16_t checksum = checksum_finish(checksum_add(sum, l4, packet.l4_len));
    memcpy(l4 + field, &checksum, sizeof checksum);
}

/* Copies the frame, with a tag of this VLAN behind its addresses when tagged; returns its new length. */
static size_t copy_frame(uint8_t *frame, const uint8_t *data, size_t len, bool tagged, uint16_t vlan_id)
{
    const size_t addresses = 2 * ETHER_ADDR_LEN;

    if (!tagged || len < addresses) {
        memcpy(frame, data, len);
        return len;
    }
    memcpy(frame, data, addresses);
    put_be16(frame + addresses, ETHER_TYPE_VLAN);
    put_be16(frame + addresses + 2, vlan_id);
    memcpy(frame + addresses + ETHER_VLAN_LEN, data + addresses, len - addresses);
    return len + ETHER_VLAN_LEN;
}

static void check(const uint8_t *frame, size_t len, const struct classified *c)
{
    require((c->drop != CLASSIFY_DROP_NONE) == (c->verdict == CLASSIFY_DROP));
    require((c->slow != CLASSIFY_SLOW_NONE) == (c->verdict == CLASSIFY_SLOW));
    require(c->drop < CLASSIFY_DROP_COUNT && c->l3_offset + (size_t)c->total_len <= len);
    if (c->version != 0)
        require(c->l4_offset >= c->l3_offset + IPV4_HEADER_LEN && c->l4_offset <= c->l3_offset + c->total_len);
    if (c->verdict != CLASSIFY_TCP)
        return;
    struct ip_packet ip;
    struct tcp_segment segment;
    require(ip_parse(frame + c->l3_offset, c->total_len, &ip) == IP_OK && ip.protocol == IP_PROTOCOL_TCP);
    require(c->l3_offset + ip.l4_offset == c->l4_offset && ip.total_len == c->total_len);
    require(tcp_header_parse(frame + c->l4_offset, ip.l4_len, &segment) == TCP_HEADER_OK);
    struct flow flow = {ip.dst, ip.src, segment.dport, segment.sport};
    require(flow_equal(&flow, &c->flow) && c->tcp_flags == segment.flags);
    require(segment.data_offset + segment.payload_len == ip.l4_len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < CHOICE_BYTES || size > FRAME_MAX)
        return 0;
    struct classify_port port = {.mac = OUR_MAC,
                                 .vlan_id = data[0] & 4 ? data[1] : 0,
                                 .mtu = data[0] & 8 ? 1500 : 0,
                                 .no_ipv4 = (data[0] & 0x30) == 0x10,
                                 .no_ipv6 = (data[0] & 0x30) == 0x20};
    uint32_t flags = data[0] & 1 ? CLASSIFY_L4_VERIFIED : 0;
    bool tagged = data[0] & 0x40;
    size_t given = size - CHOICE_BYTES;
    bool grows = tagged && given >= 2 * ETHER_ADDR_LEN;
    uint8_t *frame = malloc(given + (grows ? ETHER_VLAN_LEN : 0) + 1); /* and a byte behind it */
    require(frame != NULL);
    size_t len = copy_frame(frame, data + CHOICE_BYTES, given, tagged, port.vlan_id);
    frame[len] = 0xee;
    if (data[0] & 2)
        mend(frame, len);
    struct classified once, again;
    memset(&once, 0, sizeof once); /* with what lies between the fields, which are compared below */
    memset(&again, 0, sizeof again);
    classify_frame(&port, frame, (uint32_t)len, flags, &once);
#ifdef JANUS_PLANTED_BUG /* the tag's four bytes are counted twice */
    if (once.verdict == CLASSIFY_TCP && once.l3_offset == ETHER_HEADER_MAX)
        once.total_len += ETHER_VLAN_LEN;
#endif
    check(frame, len, &once);
    uint8_t *exact = malloc(len > 0 ? len : 1); /* AddressSanitizer sees the first byte too far */
    require(exact != NULL);
    memcpy(exact, frame, len);
    const uint8_t *frames[] = {exact};
    uint32_t lens[] = {(uint32_t)len};
    uint8_t burst_flags[] = {(uint8_t)flags};
    classify_burst(&port, frames, lens, burst_flags, &again, 1);
    require(memcmp(&once, &again, sizeof once) == 0);
    free(exact);
    free(frame);
    return 0;
}
