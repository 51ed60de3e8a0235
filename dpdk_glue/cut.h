/*
 * cut.h: a large received segment as segments that fit a slot, for a port that joins what it receives (LRO).
 *
 *   from the port     Ethernet IP TCP PSH 3596          one frame, in one buffer or a chain
 *   to classify.h     Ethernet IP TCP 1448 | Ethernet IP TCP 1448 | Ethernet IP TCP PSH 700
 *
 * Only what is changed here is checked here, since each piece is classified like any frame: lengths, the IPv4 header's checksum, and
 * TCP's unless the port has found it right.  What no port joins (IPv4 options, fragments, extension headers, SYN, RST, URG) is not cut.
 * Pieces are verified by then: their TCP checksum is the whole's, and means nothing.  Knows no DPDK.
 */
#ifndef DPDK_GLUE_CUT_H
#define DPDK_GLUE_CUT_H

#include "dpdk_glue/classify.h"

enum {
    CUT_SEGMENT_MIN = 256,                        /* a smaller size that the port states is not believed */
    CUT_HEADERS_MAX = ETHER_HEADER_MAX + 40 + 60, /* IPv6, and a full TCP header */
    CUT_FRAME_MAX = ETHER_HEADER_MAX + 1500,      /* room for a piece, at the largest MTU of a port */
    CUT_PIECES_MAX = UINT16_MAX / CUT_SEGMENT_MIN + 1,
};

/* One buffer of the chain. */
struct cut_part {
    const uint8_t *data;
    uint32_t len;
};

struct cut {
    const struct cut_part *parts; /* where the next piece's payload begins */
    uint32_t part_at;             /* in the first of them */
    uint32_t done, payload;       /* bytes of payload: cut off; in all */
    uint32_t pieces;              /* cut off */
    uint16_t segment;             /* bytes of payload of each but the last */
    uint8_t version, l3, l4;      /* offsets of the headers in the frame */
    uint8_t len;                  /* of all headers */
    uint8_t headers[CUT_HEADERS_MAX];
};

/* Begins with a frame in count parts, whose headers are in the first one.  mtu: of the port, 576 to 1500.  segment: bytes of payload that
 * the port says its segments had, 0: it does not.  verified: it has found the TCP checksum right.  CLASSIFY_DROP_NONE, or why there
 * is nothing to cut.  The parts stay the caller's, and stay until the last piece. */
enum classify_drop cut_begin(struct cut *c, const struct cut_part *parts, uint32_t count, uint32_t mtu,
                             uint32_t segment, bool verified);

/* Writes the next piece, a whole frame, to the CUT_FRAME_MAX bytes at out.  Returns its length; 0: that was all. */
uint32_t cut_next(struct cut *c, uint8_t *out);

#endif
