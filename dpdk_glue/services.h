/*
 * services.h: our addresses, and who serves which port of each, as one immutable snapshot.
 *
 *      address -> index (a small hash table) -> owners[port]: app id, 0: nobody
 *
 * Two loads for a packet, whatever the number of services.  Knows no DPDK.
 */
#ifndef DPDK_GLUE_SERVICES_H
#define DPDK_GLUE_SERVICES_H

#include "dpdk_glue/glue.h"
#include "wire/flow.h"

#include <stdbool.h>
#include <stdint.h>

enum { SERVICES_BUCKETS = 256, SERVICES_NONE = 255, SERVICES_NO_ADDRESS = -1 };

struct services {
    uint32_t address_count;
    uint8_t buckets[SERVICES_BUCKETS]; /* index of an address, or SERVICES_NONE */
    struct ip_addr addresses[GLUE_ADDRESSES_MAX];
    uint32_t ports[GLUE_ADDRESSES_MAX];
    uint8_t owners[][65536];
};

/* Makes a snapshot; null with why when it is impossible.  Services of addresses that are not ours are left out when lenient, an
 * error else. */
struct services *services_make(const struct glue_address *addresses, uint32_t address_count,
                               const struct glue_service *list, uint32_t count, bool lenient, struct glue_text *why);

static inline uint32_t services_bucket(const struct ip_addr *address)
{
    uint64_t high, low;
    memcpy(&high, address->b, 8);
    memcpy(&low, address->b + 8, 8);
    return (uint32_t)(((high ^ (low << 1)) * UINT64_C(0x9e3779b97f4a7c15)) >> 56);
}

/* Index of one of our addresses, or SERVICES_NO_ADDRESS. */
static inline int services_address(const struct services *s, const struct ip_addr *address)
{
    for (uint32_t b = services_bucket(address);; b = (b + 1) % SERVICES_BUCKETS) {
        uint8_t i = s->buckets[b];
        if (i == SERVICES_NONE)
            return SERVICES_NO_ADDRESS;
        if (ip_addr_equal(&s->addresses[i], address))
            return i;
    }
}

#endif
