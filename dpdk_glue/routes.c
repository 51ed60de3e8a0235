/*
 * routes.c: snapshots of routes and neighbours.  A change copies all: changes are rare and lookups are not.
 */
#include "dpdk_glue/routes.h"

#include "csb/hash.h"
#include "dpdk_glue/refuse.h"

#include <errno.h>
#include <stdlib.h>

enum { BUCKETS_MIN = 64, PREFIX_BITS = 128, IPV4_BITS = 96 /* in front of a mapped address */ };
#define NO_PORT UINT32_MAX

static uint32_t bucket_of(const struct routes *r, const struct ip_addr *address)
{
    struct csb_secret secret = {r->k0, r->k1};

    return (uint32_t)csb_siphash13(&secret, address->b, sizeof address->b) & r->mask;
}

static struct routes *make(const struct routes *like, uint32_t neighbours)
{
    uint32_t buckets = BUCKETS_MIN;

    while (buckets < 2 * neighbours)
        buckets *= 2;
    struct routes *r = malloc(sizeof *r + buckets * sizeof r->neighbours[0]);
    if (r == NULL)
        return NULL;
    memcpy(r, like, sizeof *r);
    r->neighbour_count = 0;
    r->mask = buckets - 1;
    for (uint32_t i = 0; i < buckets; i++)
        r->neighbours[i].port = NO_PORT;
    return r;
}

static void insert(struct routes *r, const struct neighbour *n)
{
    uint32_t b = bucket_of(r, &n->address);

    while (r->neighbours[b].port != NO_PORT)
        b = (b + 1) & r->mask;
    r->neighbours[b] = *n;
    r->neighbour_count++;
}

/* A copy without the entry (port, address), with room for one more. */
static struct routes *copy_without(const struct routes *old, uint32_t port, const struct ip_addr *address)
{
    struct routes *r = make(old, old->neighbour_count + 1);

    for (uint32_t i = 0; r != NULL && i <= old->mask; i++) {
        const struct neighbour *n = &old->neighbours[i];
        if (n->port != NO_PORT && !(n->port == port && ip_addr_equal(&n->address, address)))
            insert(r, n);
    }
    return r;
}

struct routes *routes_make_empty(uint64_t k0, uint64_t k1)
{
    struct routes *like = calloc(1, sizeof *like);

    if (like == NULL)
        return NULL;
    like->k0 = k0;
    like->k1 = k1;
    struct routes *r = make(like, 0);
    free(like);
    return r;
}

static int longer_first(const void *a, const void *b)
{
    uint32_t x = ((const struct route *)a)->prefix_len, y = ((const struct route *)b)->prefix_len;

    return (x < y) - (x > y);
}

struct routes *routes_with_routes(const struct routes *old, const struct glue_route *list, uint32_t count,
                                  struct glue_text *why)
{
    static const struct ip_addr unset = {{0}};

    if (count > GLUE_ROUTES_MAX) {
        refuse(why, E2BIG, "at most %d routes", GLUE_ROUTES_MAX);
        return NULL;
    }
    struct routes *r = copy_without(old, NO_PORT, &unset);
    if (r == NULL) {
        refuse(why, ENOMEM, "no memory for the routes");
        return NULL;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct route *route = &r->routes[i];
        memcpy(&route->prefix, list[i].prefix, sizeof route->prefix);
        memcpy(&route->next_hop, list[i].next_hop, sizeof route->next_hop);
        route->prefix_len = list[i].prefix_len;
        route->port = list[i].port;
        route->on_link = ip_addr_equal(&route->next_hop, &unset);
        if (route->prefix_len > PREFIX_BITS || route->port >= GLUE_PORTS_MAX) {
            refuse(why, EINVAL, "route number %u: prefix of %u bits, port %u", i, route->prefix_len, route->port);
            free(r);
            return NULL;
        }
    }
    r->route_count = count;
    qsort(r->routes, count, sizeof r->routes[0], longer_first);
    return r;
}

struct routes *routes_with_neighbour(const struct routes *old, uint32_t port, const struct ip_addr *address,
                                     const struct ether_addr *mac, struct glue_text *why)
{
    struct neighbour n = {.address = *address, .port = port, .mac = *mac};

    if (old->neighbour_count >= GLUE_NEIGHBOURS_MAX && routes_neighbour(old, port, address) == NULL) {
        refuse(why, ENOSPC, "at most %d neighbours", GLUE_NEIGHBOURS_MAX);
        return NULL;
    }
    struct routes *r = copy_without(old, port, address);
    if (r == NULL) {
        refuse(why, ENOMEM, "no memory for the neighbours");
        return NULL;
    }
    insert(r, &n);
    return r;
}

struct routes *routes_without_neighbour(const struct routes *old, uint32_t port, const struct ip_addr *address,
                                        struct glue_text *why)
{
    struct routes *r = copy_without(old, port, address);

    if (r == NULL)
        refuse(why, ENOMEM, "no memory for the neighbours");
    return r;
}

const struct neighbour *routes_neighbour(const struct routes *r, uint32_t port, const struct ip_addr *address)
{
    for (uint32_t b = bucket_of(r, address); r->neighbours[b].port != NO_PORT; b = (b + 1) & r->mask) {
        const struct neighbour *n = &r->neighbours[b];
        if (n->port == port && ip_addr_equal(&n->address, address))
            return n;
    }
    return NULL;
}

static bool matches(const struct route *route, const struct ip_addr *dst)
{
    uint64_t prefix[2], address[2]; /* in network order, so that the first prefix_len bits are the highest ones */
    uint32_t len = route->prefix_len;

    if (ip_addr_is_ipv4(dst) && route->prefix_len < IPV4_BITS) /* ::/0 is IPv6's default route alone */
        return false;
    memcpy(prefix, route->prefix.b, sizeof prefix);
    memcpy(address, dst->b, sizeof address);
    uint64_t high = __builtin_bswap64(prefix[0] ^ address[0]), low = __builtin_bswap64(prefix[1] ^ address[1]);
    if (len <= 64)
        return len == 0 || high >> (64 - len) == 0;
    return high == 0 && low >> (128 - len) == 0;
}

enum route_verdict routes_lookup(const struct routes *r, const struct ip_addr *dst, struct route_hop *out)
{
    for (uint32_t i = 0; i < r->route_count; i++) {
        const struct route *route = &r->routes[i];
        if (!matches(route, dst))
            continue;
        const struct ip_addr *next_hop = route->on_link ? dst : &route->next_hop;
        if (out->known && out->port == route->port && ip_addr_equal(&out->next_hop, next_hop))
            return ROUTE_OK;
        out->port = route->port;
        out->next_hop = *next_hop;
        const struct neighbour *n = routes_neighbour(r, out->port, &out->next_hop);
        out->known = n != NULL;
        if (n == NULL)
            return ROUTE_NO_NEIGHBOUR;
        out->mac = n->mac;
        return ROUTE_OK;
    }
    return ROUTE_NONE;
}
