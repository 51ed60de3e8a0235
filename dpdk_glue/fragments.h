/*
 * fragments.h: TCP segments that came in IP fragments, put together within a bound (RFC 791 3.2, RFC 8200 4.5).
 *
 *   first fragment ──┐
 *   later fragment ──┼──> struct datagram, one of few ──> the frame as it would have come whole ──> classify
 *   last fragment ───┘
 *
 * Memory is fixed, time is limited, and no source has more than a part of it.  What overlaps is discarded whole, with all that still comes
 * of it (RFC 5722), but an exact duplicate alone.  IPv6 fragments that are all there is stand for themselves (RFC 6946).  Nothing but
 * TCP is put together: neighbour discovery must not be (RFC 6980), and errors and echoes need not.  Pure.
 */
#ifndef DPDK_GLUE_FRAGMENTS_H
#define DPDK_GLUE_FRAGMENTS_H

#include "wire/ip.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    FRAGMENTS_DATAGRAMS = 64,
    FRAGMENTS_OF_A_SOURCE = 16,
    FRAGMENTS_BYTES = 1920, /* payload of IP */
    FRAGMENTS_LIFE_MS = 15000,
    FRAGMENTS_WHOLE = 32,    /* more than a burst of 64 fragments can complete */
    FRAGMENTS_HEAD_MAX = 64, /* Ethernet with a VLAN tag, and IPv6 */
    FRAGMENTS_FIRST_MIN = 20 /* of TCP's header in the first one (RFC 1858 3.2, RFC 7112) */
};

struct datagram {
    struct ip_addr src, dst;
    uint32_t id;
    uint32_t since_ms;
    uint8_t state; /* enum datagram_state */
    uint8_t ecn;   /* bit 1 << enum ip_ecn of each fragment */
    uint8_t head_len, l3_offset;
    uint16_t pieces;
    uint16_t received, total;                /* bytes; total 0: the last one has not come */
    uint64_t map[FRAGMENTS_BYTES / 512 + 1]; /* by units of eight bytes */
    uint8_t head[FRAGMENTS_HEAD_MAX];        /* of the first fragment, as the whole datagram is to have it */
    uint8_t data[FRAGMENTS_BYTES];
};

/* All zero at first. */
struct fragments {
    uint64_t lost; /* fragments that will never be part of anything, counted up */
    uint32_t whole_next;
    struct datagram datagrams[FRAGMENTS_DATAGRAMS];
    uint8_t whole[FRAGMENTS_WHOLE][FRAGMENTS_HEAD_MAX + FRAGMENTS_BYTES];
};

/* Takes the fragment in frame, whose IP packet at l3_offset ip_parse() has found to be one (ip).  Not null: it was the last that was
 * missing, and this is the frame of *len bytes, valid until FRAGMENTS_WHOLE others are.  Null: it is held, or in lost. */
const uint8_t *fragments_add(struct fragments *f, const uint8_t *frame, uint32_t l3_offset, const struct ip_packet *ip,
                             uint32_t now_ms, uint32_t *len);

#endif
