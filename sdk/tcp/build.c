/*
 * build.c: headers.
 */
#include "tcp/build.h"

#include "wire/bytes.h"
#include "wire/checksum.h"
#include "wire/ip.h"

static_assert(IP_HEADER_MAX + TCP_HEADER_MAX <= TCP_SLOT_HEADROOM, "headers fit in front of the payload");

static uint64_t checksum_of(uint64_t sum, const uint8_t *payload, uint32_t len)
{
    return len != 0 ? checksum_add(sum, payload, len) : sum;
}

uint32_t build_packet(const struct tcp_stack *s, uint8_t *slot_data, const struct build *b, uint32_t *offset)
{
    bool ipv4 = ip_addr_is_ipv4(b->raddr);
    uint32_t ip_len = ipv4 ? IPV4_HEADER_LEN : IPV6_HEADER_LEN;
    bool plain = b->options->present == TCP_OPTION_TIMESTAMPS; /* as nearly all segments but SYNs */
    uint32_t options_len = plain ? TCP_TIMESTAMPS_LEN : (uint32_t)tcp_options_len(b->options);
    uint32_t header_len = TCP_HEADER_LEN + options_len;
    uint32_t l4_len = header_len + b->payload_len;
    uint8_t *tcp = slot_data + b->payload_offset - header_len;
    uint32_t src = ip_addr_last_word(b->laddr), dst = ip_addr_last_word(b->raddr);
    uint64_t pseudo = ipv4 ? checksum_pseudo_ipv4(src, dst, IP_PROTOCOL_TCP, l4_len)
                           : checksum_pseudo(b->laddr, b->raddr, IP_PROTOCOL_TCP, l4_len);
    uint64_t sum;
    uint16_t checksum;

    sum = put_word(tcp, (uint32_t)b->lport << 16 | b->rport);
    sum += put_word(tcp + 4, b->seq);
    sum += put_word(tcp + 8, b->ack);
    sum += put_word(tcp + 12, header_len / 4 << 28 | (uint32_t)b->flags << 16 | b->wnd);
    sum += put_word(tcp + 16, b->up);
    if (plain)
        sum += tcp_options_put_timestamps(tcp + TCP_HEADER_LEN, b->options);
    else {
        tcp_options_build(tcp + TCP_HEADER_LEN, b->options);
        sum += checksum_words(tcp + TCP_HEADER_LEN, options_len / 4);
    }
    if (s->config.tx_checksum_offload)
        checksum = (uint16_t)~checksum_finish(pseudo);
    else
        checksum = checksum_finish(checksum_plus(pseudo, checksum_of(sum, tcp + header_len, b->payload_len)));
    memcpy(tcp + 16, &checksum, sizeof checksum);
    if (ipv4)
        ipv4_build(tcp - ip_len, src, dst, IP_PROTOCOL_TCP, l4_len, b->tos, b->ttl);
    else
        ip_build(tcp - ip_len, b->laddr, b->raddr, IP_PROTOCOL_TCP, l4_len, b->tos, b->ttl);
    *offset = b->payload_offset - header_len - ip_len;
    return ip_len + l4_len;
}
