/*
 * classify.h: verify one received frame and say where it goes: the fast path, the slow path, or nowhere and why.
 *
 *      frame ──> Ethernet, VLAN ──> IP ──> TCP ───────────────────> CLASSIFY_TCP
 *                     │              ├───> ICMP error about TCP ──> CLASSIFY_ICMP
 *                     │              └───> ICMP, ND, UDP ─────────> CLASSIFY_SLOW
 *                     └──────────────────> ARP ───────────────────> CLASSIFY_SLOW
 *
 * What has passed is verified: every length lies within the frame, every checksum is right, the addresses can be a host's.
 * Whether the destination is one of ours is the next stage's question.  Pure; knows nothing of DPDK, services or apps.
 */
#ifndef DPDK_GLUE_CLASSIFY_H
#define DPDK_GLUE_CLASSIFY_H

#include "wire/ether.h"
#include "wire/flow.h"

#include <stdbool.h>
#include <stdint.h>

enum classify_verdict {
    CLASSIFY_TCP,  /* a whole and verified segment */
    CLASSIFY_ICMP, /* an error about a segment of struct classified.flow */
    CLASSIFY_SLOW, /* for the control plane: struct classified.slow */
    CLASSIFY_DROP, /* struct classified.drop */
};

enum classify_slow {
    CLASSIFY_SLOW_NONE,
    CLASSIFY_SLOW_ARP,
    CLASSIFY_SLOW_ECHO, /* ICMP or ICMPv6 echo request to one host */
    CLASSIFY_SLOW_ND,   /* neighbour solicitation or advertisement */
    CLASSIFY_SLOW_UDP,  /* nobody's, but an answer is owed (RFC 1122 4.1.3.1) */
};

enum classify_drop {
#define DROP(symbol, name, sentence) CLASSIFY_DROP_##symbol,
#include "dpdk_glue/classify_drops.def"
#undef DROP
    CLASSIFY_DROP_COUNT
};

/* What the port is and serves.  All zero but the MAC address: untagged frames of both families, of any size. */
struct classify_port {
    struct ether_addr mac;
    uint16_t vlan_id; /* 0: untagged and priority-tagged frames only; else frames of this VLAN only */
    uint16_t mtu;     /* bytes of the largest IP packet; 0: any */
    bool no_ipv4;     /* IPv4 and ARP are dropped */
    bool no_ipv6;
};

/* What the port has found about a frame.  The IPv4 header checksum is verified here in any case. */
enum classify_flag {
    CLASSIFY_L4_VERIFIED = 0x01, /* the port has found the TCP checksum right */
};

struct classified {
    struct flow flow;   /* local is the destination; ports of TCP and UDP only; of an ICMP error, the flow it quotes */
    uint16_t l3_offset; /* of the IP header or ARP packet, in the frame */
    uint16_t l4_offset; /* of the transport header, in the frame */
    uint16_t total_len; /* bytes of the IP packet; Ethernet padding excluded */
    uint8_t verdict;    /* enum classify_verdict */
    uint8_t slow;       /* enum classify_slow */
    uint8_t drop;       /* enum classify_drop */
    uint8_t version;    /* 4 or 6; 0: not known to be IP */
    uint8_t protocol;
    uint8_t tcp_flags; /* enum tcp_flag */
    bool is_syn;       /* SYN without ACK, RST or FIN: may open a connection */
};

/* Classifies the frame of len bytes at frame and fills out.  flags: enum classify_flag.  A drop leaves in out what was known by
 * then; the flow is set once the IP header is right. */
enum classify_verdict classify_frame(const struct classify_port *port, const uint8_t *frame, uint32_t len,
                                     uint32_t flags, struct classified *out);

/* The same for a burst, fetching frames into cache ahead; flags is null or one byte per frame. */
void classify_burst(const struct classify_port *port, const uint8_t *const *frames, const uint32_t *lens,
                    const uint8_t *flags, struct classified *out, uint32_t count);

/* The metric's label and the sentence for people; null when drop is none of the list. */
const char *classify_drop_name(enum classify_drop drop);
const char *classify_drop_sentence(enum classify_drop drop);

#endif
