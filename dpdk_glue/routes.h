/*
 * routes.h: the way to a destination, as one immutable snapshot: routes by longest prefix, then neighbours by address.
 *
 *      dst -> route: port, next hop -> neighbour: MAC address, or none yet
 *
 * Knows no DPDK.
 */
#ifndef DPDK_GLUE_ROUTES_H
#define DPDK_GLUE_ROUTES_H

#include "dpdk_glue/glue.h"
#include "wire/ether.h"
#include "wire/flow.h"

#include <stdbool.h>
#include <stdint.h>

struct route {
    struct ip_addr prefix, next_hop;
    uint32_t prefix_len;
    uint32_t port;
    bool on_link;
};

struct neighbour {
    struct ip_addr address;
    uint32_t port; /* UINT32_MAX: the bucket is empty */
    struct ether_addr mac;
};

struct routes {
    uint64_t k0, k1; /* of the neighbours' hash */
    uint32_t route_count;
    uint32_t neighbour_count;
    uint32_t mask;                        /* buckets - 1; at most half of them are in use */
    struct route routes[GLUE_ROUTES_MAX]; /* longest prefix first */
    struct neighbour neighbours[];
};

enum route_verdict { ROUTE_OK, ROUTE_NO_NEIGHBOUR, ROUTE_NONE };

struct route_hop {
    uint32_t port;
    struct ip_addr next_hop;
    struct ether_addr mac;
    bool known; /* mac is next_hop's */
};

/* An empty snapshot. */
struct routes *routes_make_empty(uint64_t k0, uint64_t k1);
/* Snapshots that differ from old in one thing; null with why when that is impossible. */
struct routes *routes_with_routes(const struct routes *old, const struct glue_route *list, uint32_t count,
                                  struct glue_text *why);
struct routes *routes_with_neighbour(const struct routes *old, uint32_t port, const struct ip_addr *address,
                                     const struct ether_addr *mac, struct glue_text *why);
struct routes *routes_without_neighbour(const struct routes *old, uint32_t port, const struct ip_addr *address,
                                        struct glue_text *why);

const struct neighbour *routes_neighbour(const struct routes *r, uint32_t port, const struct ip_addr *address);

/* port and next_hop are filled unless ROUTE_NONE, mac when ROUTE_OK.  *out is zero, or what an earlier lookup in the same snapshot left
 * there: a batch of packets mostly goes to one router, which is searched for once. */
enum route_verdict routes_lookup(const struct routes *r, const struct ip_addr *dst, struct route_hop *out);

#endif
