/*
 * join.h: consecutive segments of one connection as one, for a port that cuts it again (TSO).
 *
 *   app's packets     IP TCP 1448 | IP TCP 1448 | IP TCP PSH 700
 *   to the port       IP TCP 1448 ->        1448 ->          700      one frame, cut by the port every 1448 bytes
 *
 * Only what the port will restore bit by bit is joined, the IPv4 identification and checksums excepted.  All packets have
 * passed txcheck.h, each on a private copy; the app has no say in what is joined.  Knows no DPDK.
 */
#ifndef DPDK_GLUE_JOIN_H
#define DPDK_GLUE_JOIN_H

#include "dpdk_glue/txcheck.h"

enum {
    JOIN_SEGMENT_MIN = 256, /* cards take a tiny segment size for an attack and stop */
    JOIN_BYTES_MAX = 65535, /* what the length of an IP header can say */
};

struct join {
    uint8_t *packet; /* the first one's IP header */
    uint32_t count;  /* segments */
    uint32_t payload;
    uint16_t segment; /* bytes of payload of each but the last */
    uint16_t headers;
    uint8_t version, l3_len;
    bool closed; /* a short one or PSH was the last */
};

/* Begins with a packet that txcheck_packet() has passed and described; false: others may not follow it. */
bool join_begin(struct join *j, uint8_t *packet, uint32_t len, const struct txcheck_packet *what);

/* Whether this packet goes on where the last one ended; if so it is counted in, and its payload is to be chained. */
bool join_follows(struct join *j, const uint8_t *packet, uint32_t len, const struct txcheck_packet *what);

/* Makes the first packet's header that of all: lengths; IPv4 checksum 0; TCP checksum: pseudo header without length. */
void join_finish(struct join *j);

#endif
