/*
 * tcp_header.c: the fixed header of a segment, and its checksum.
 */
#include "wire/tcp_header.h"

#include "wire/bytes.h"
#include "wire/checksum.h"
#include "wire/ip.h"

enum tcp_header_verdict tcp_header_parse(const uint8_t *data, size_t len, struct tcp_segment *out)
{
    if (len < TCP_HEADER_LEN)
        return TCP_HEADER_TRUNCATED;
    uint32_t data_offset = (data[12] >> 4) * 4u;
    if (data_offset < TCP_HEADER_LEN)
        return TCP_HEADER_BAD_OFFSET;
    if (data_offset > len)
        return TCP_HEADER_TRUNCATED;
    out->sport = get_be16(data);
    out->dport = get_be16(data + 2);
    if (out->sport == 0 || out->dport == 0)
        return TCP_HEADER_BAD_PORT;
    out->seq = get_be32(data + 4);
    out->ack = get_be32(data + 8);
    out->wnd = get_be16(data + 14);
    out->up = get_be16(data + 18);
    out->flags = data[13];
    out->data_offset = (uint8_t)data_offset;
    out->payload_len = (uint32_t)(len - data_offset);
    if (!tcp_options_parse(data + TCP_HEADER_LEN, data_offset - TCP_HEADER_LEN, &out->options))
        return TCP_HEADER_BAD_OPTIONS;
    return TCP_HEADER_OK;
}

enum tcp_header_verdict tcp_header_verify(const uint8_t *data, size_t len, const struct ip_addr *src,
                                          const struct ip_addr *dst)
{
    uint64_t sum = checksum_pseudo(src, dst, IP_PROTOCOL_TCP, (uint32_t)len);

    return checksum_finish(checksum_add(sum, data, len)) == 0 ? TCP_HEADER_OK : TCP_HEADER_BAD_CHECKSUM;
}
