/*
 * tcp_header.h: one TCP segment, header and options, parsed once (RFC 9293 3.1).
 */
#ifndef WIRE_TCP_HEADER_H
#define WIRE_TCP_HEADER_H

#include "wire/flow.h"
#include "wire/tcp_options.h"

#include <stddef.h>
#include <stdint.h>

enum { TCP_HEADER_LEN = 20, TCP_HEADER_MAX = 60 };

enum tcp_flag {
    TCP_FIN = 0x01,
    TCP_SYN = 0x02,
    TCP_RST = 0x04,
    TCP_PSH = 0x08,
    TCP_ACK = 0x10,
    TCP_URG = 0x20,
    TCP_ECE = 0x40,
    TCP_CWR = 0x80,
};

enum tcp_header_verdict {
    TCP_HEADER_OK,
    TCP_HEADER_TRUNCATED,    /* fewer than 20 bytes, or data offset beyond the segment */
    TCP_HEADER_BAD_OFFSET,   /* data offset < 5 */
    TCP_HEADER_BAD_OPTIONS,  /* an option runs past the header, or has length 0 or 1 */
    TCP_HEADER_BAD_PORT,     /* source or destination port 0 */
    TCP_HEADER_BAD_CHECKSUM, /* tcp_header_verify() only */
};

/* A segment in the RFC's words.  seg.len counts SYN and FIN (RFC 9293 3.4); payload_len does not. */
struct tcp_segment {
    uint16_t sport, dport;
    uint32_t seq, ack;
    uint16_t wnd; /* as on the wire, not scaled */
    uint16_t up;
    uint8_t flags;       /* enum tcp_flag */
    uint8_t data_offset; /* bytes, 20 to 60 */
    uint32_t payload_len;
    struct tcp_options options;
};

/* Parses the segment at data, len bytes of TCP header and payload. */
enum tcp_header_verdict tcp_header_parse(const uint8_t *data, size_t len, struct tcp_segment *out);

/* TCP_HEADER_OK or TCP_HEADER_BAD_CHECKSUM, over len bytes at data. */
enum tcp_header_verdict tcp_header_verify(const uint8_t *data, size_t len, const struct ip_addr *src,
                                          const struct ip_addr *dst);

#endif
