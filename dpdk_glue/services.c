/*
 * services.c: snapshots of addresses and services.
 */
#include "dpdk_glue/services.h"

#include "dpdk_glue/refuse.h"

#include <errno.h>
#include <stdlib.h>

static int add_address(struct services *s, const struct glue_address *a, struct glue_text *why)
{
    struct ip_addr address;

    memcpy(&address, a->address, sizeof address);
    if (services_address(s, &address) != SERVICES_NO_ADDRESS)
        return refuse(why, EEXIST, "address number %u is listed twice", s->address_count);
    uint32_t b = services_bucket(&address);
    while (s->buckets[b] != SERVICES_NONE)
        b = (b + 1) % SERVICES_BUCKETS;
    s->buckets[b] = (uint8_t)s->address_count;
    s->ports[s->address_count] = a->port;
    s->addresses[s->address_count++] = address;
    return 0;
}

static int add_service(struct services *s, const struct glue_service *service, uint32_t number, bool lenient,
                       struct glue_text *why)
{
    struct ip_addr address;

    memcpy(&address, service->address, sizeof address);
    int i = services_address(s, &address);
    if (i == SERVICES_NO_ADDRESS)
        return lenient ? 0 : refuse(why, EADDRNOTAVAIL, "service number %u is on an address that is not ours", number);
    if (service->first > service->last || service->app == 0 || service->app >= GLUE_APPS_MAX)
        return refuse(why, EINVAL, "service number %u: ports %u to %u, app %u", number, service->first, service->last,
                      service->app);
    memset(&s->owners[i][service->first], service->app, (size_t)(service->last - service->first) + 1);
    return 0;
}

struct services *services_make(const struct glue_address *addresses, uint32_t address_count,
                               const struct glue_service *list, uint32_t count, bool lenient, struct glue_text *why)
{
    if (address_count > GLUE_ADDRESSES_MAX || count > GLUE_SERVICES_MAX) {
        refuse(why, E2BIG, "at most %d addresses and %d services", GLUE_ADDRESSES_MAX, GLUE_SERVICES_MAX);
        return NULL;
    }
    struct services *s = calloc(1, sizeof *s + address_count * sizeof s->owners[0]);
    if (s == NULL) {
        refuse(why, ENOMEM, "no memory for the services");
        return NULL;
    }
    memset(s->buckets, SERVICES_NONE, sizeof s->buckets);
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < address_count; i++)
        rc = add_address(s, &addresses[i], why);
    for (uint32_t i = 0; rc == 0 && i < count; i++)
        rc = add_service(s, &list[i], i, lenient, why);
    if (rc == 0)
        return s;
    free(s);
    return NULL;
}
