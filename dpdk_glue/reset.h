/*
 * reset.h: a frame with an RST, for segments nobody serves and for the peers of a dead app.  Knows no DPDK.
 */
#ifndef DPDK_GLUE_RESET_H
#define DPDK_GLUE_RESET_H

#include "wire/ether.h"
#include "wire/flow.h"
#include "wire/tcp_header.h"

#include <stdbool.h>
#include <stdint.h>

enum { RESET_FRAME_MAX = ETHER_HEADER_MAX + 40 + TCP_HEADER_LEN };

struct reset {
    struct ether_addr dst, src;
    uint16_t vlan_id;
    struct flow flow;
    uint32_t seq, ack;
    uint8_t flags; /* enum tcp_flag */
};

/* Sets seq, ack and flags to answer seg (RFC 9293 3.10.7.1).  False: an RST is never answered. */
bool reset_answer(struct reset *r, const struct tcp_segment *seg);

/* Writes the frame, checksums filled; out has RESET_FRAME_MAX bytes.  Returns its length. */
uint32_t reset_build(uint8_t *out, const struct reset *r);

#endif
