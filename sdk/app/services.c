/*
 * services.c: which handler serves which address and port.
 */
#include "app/error.h"
#include "app/handlers.h"

#include <errno.h>

/* A place for it: a free one, or one that is not listened on any more and had the same handler, for its connections may live on. */
static struct handlers_service *find_place(struct handlers *h, janus_handler *handler)
{
    for (uint32_t i = 0; i < TCP_LISTENERS_MAX; i++) {
        struct handlers_service *s = &h->services[i];

        if (s->service.handler == NULL || (s->service.port == 0 && s->service.handler == handler))
            return s;
    }
    return NULL;
}

int handlers_listen(struct handlers *h, const struct ip_addr *addr, const struct janus_service *service,
                    struct janus_error *error)
{
    struct handlers_service *s = find_place(h, service->handler);
    int rc;

    if (service->handler == NULL || service->port == 0)
        return error_set(error, EINVAL, "a service needs a handler and a port");
    if (s == NULL)
        return error_set(error, ENOSPC, "port %u: too many services", service->port);
    rc = thread_listen(h->thread, addr, service->port, (uint64_t)(s - h->services) << 2 | HANDLERS_TAG, error);
    if (rc == 0)
        *s = (struct handlers_service){*service, *addr};
    return rc;
}

int handlers_unlisten(struct handlers *h, const struct ip_addr *addr, uint16_t port, struct janus_error *error)
{
    for (uint32_t i = 0; i < TCP_LISTENERS_MAX; i++) {
        struct handlers_service *s = &h->services[i];

        if (s->service.port == port && ip_addr_equal(&s->addr, addr))
            s->service.port = 0;
    }
    return thread_unlisten(h->thread, addr, port, error);
}
