/*
 * txcheck.h: may this app send this packet?
 *
 * Looks at a private copy only, which is what is then sent: the app cannot change it any more (THREATS: time of check, time
 * of use).  What passes is one whole TCP segment in one plain IP packet, from an address and port of the lease, to one
 * host.  The TCP checksum is the app's own affair.  Knows no DPDK.
 */
#ifndef DPDK_GLUE_TXCHECK_H
#define DPDK_GLUE_TXCHECK_H

#include "shm/drops.h"
#include "shm/layout.h"
#include "wire/flow.h"

#include <stdbool.h>
#include <stdint.h>

enum { TXCHECK_ADDRESSES_MAX = 16 };

struct txcheck_lease {
    uint32_t address_count;
    struct ip_addr addresses[TXCHECK_ADDRESSES_MAX];
    uint64_t ports[65536 / 64]; /* a bit per source port */
};

struct txcheck_packet {
    struct ip_addr dst;
    uint8_t version; /* 4 or 6 */
    uint8_t l3_len;  /* 20 or 40 */
    uint8_t l4_len;  /* of the TCP header */
};

static inline bool txcheck_port_leased(const struct txcheck_lease *lease, uint16_t port)
{
    return lease->ports[port / 64] >> (port % 64) & 1;
}

void txcheck_lease_port(struct txcheck_lease *lease, uint16_t first, uint16_t last);
bool txcheck_address_leased(const struct txcheck_lease *lease, const struct ip_addr *address);

/* Unicast, and neither unspecified, loopback nor (an IPv6 packet's) IPv4-mapped. */
bool txcheck_is_host(const struct ip_addr *address);

/* Is this descriptor (a private copy) one to send, within its slot and the region? */
enum shm_drop txcheck_desc(const struct shm_desc *desc, uint32_t tx_slots);

/* Is this packet of len bytes (a private copy) within the lease?  out is filled when SHM_DROP_NONE. */
enum shm_drop txcheck_packet(const struct txcheck_lease *lease, const uint8_t *packet, uint32_t len,
                             struct txcheck_packet *out);

#endif
