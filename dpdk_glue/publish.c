/*
 * publish.c: what the control plane knows, put before the I/O threads: addresses, services, routes, neighbours, circles, apps.
 *
 * Each change makes a new snapshot, swaps one pointer and retires the old one.
 */
#include "dpdk_glue/refuse.h"
#include "dpdk_glue/region.h"
#include "dpdk_glue/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static void swap_services(struct glue *g, struct services *fresh)
{
    qsbr_retire(g, atomic_exchange(&g->services, fresh));
}

static void swap_routes(struct glue *g, struct routes *fresh)
{
    qsbr_retire(g, atomic_exchange(&g->routes, fresh));
}

int glue_addresses_set(struct glue *g, const struct glue_address *list, uint32_t count, struct glue_text *why)
{
    mtx_lock(&g->control);
    struct services *fresh = services_make(list, count, g->service_list, g->service_count, true, why);
    int rc = fresh != NULL ? 0 : -why->code;
    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        if (list[i].port >= atomic_load(&g->port_count))
            rc = refuse(why, ENODEV, "address number %u names port number %u, which is not open", i, list[i].port);
    }
    if (rc == 0) {
        if (count != 0)
            memcpy(g->addresses, list, count * sizeof *list);
        g->address_count = count;
        swap_services(g, fresh);
    } else {
        free(fresh);
    }
    mtx_unlock(&g->control);
    return rc;
}

int glue_services_set(struct glue *g, const struct glue_service *list, uint32_t count, struct glue_text *why)
{
    struct glue_service *copy = malloc((count + 1) * sizeof *copy);
    int rc = copy != NULL ? 0 : refuse(why, ENOMEM, "no memory for the services");

    mtx_lock(&g->control);
    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        if (list[i].app >= GLUE_APPS_MAX || g->apps[list[i].app].id == 0)
            rc = refuse(why, ENOENT, "service number %u names app %u, which does not exist", i, list[i].app);
    }
    struct services *fresh = rc == 0 ? services_make(g->addresses, g->address_count, list, count, false, why) : NULL;
    if (rc == 0 && fresh == NULL)
        rc = -why->code;
    if (rc == 0) {
        if (count != 0)
            memcpy(copy, list, count * sizeof *list);
        free(g->service_list);
        g->service_list = copy;
        g->service_count = count;
        swap_services(g, fresh);
    } else {
        free(copy);
    }
    mtx_unlock(&g->control);
    return rc;
}

void glue_policy_set(struct glue *g, int reset, int recovery)
{
    atomic_store(&g->recovery, recovery != 0);
    atomic_store(&g->reset_unserved, reset != 0);
}

int glue_routes_set(struct glue *g, const struct glue_route *list, uint32_t count, struct glue_text *why)
{
    mtx_lock(&g->control);
    struct routes *fresh = routes_with_routes(atomic_load(&g->routes), list, count, why);
    if (fresh != NULL)
        swap_routes(g, fresh);
    mtx_unlock(&g->control);
    return fresh != NULL ? 0 : -why->code;
}

int glue_neighbour_set(struct glue *g, uint32_t port, const uint8_t address[16], const uint8_t mac[6],
                       struct glue_text *why)
{
    struct ip_addr ip;
    struct ether_addr ether;

    memcpy(&ip, address, sizeof ip);
    memcpy(&ether, mac, sizeof ether);
    if (!ether_addr_is_unicast(&ether))
        return refuse(why, EINVAL, "a neighbour's MAC address is one station's");
    mtx_lock(&g->control);
    struct routes *fresh = routes_with_neighbour(atomic_load(&g->routes), port, &ip, &ether, why);
    if (fresh != NULL)
        swap_routes(g, fresh);
    mtx_unlock(&g->control);
    return fresh != NULL ? 0 : -why->code;
}

int glue_neighbour_delete(struct glue *g, uint32_t port, const uint8_t address[16])
{
    struct ip_addr ip;
    int rc = 0;

    memcpy(&ip, address, sizeof ip);
    mtx_lock(&g->control);
    if (routes_neighbour(atomic_load(&g->routes), port, &ip) != NULL) {
        struct routes *fresh = routes_without_neighbour(atomic_load(&g->routes), port, &ip, NULL);
        rc = fresh != NULL ? 1 : -ENOMEM;
        if (fresh != NULL)
            swap_routes(g, fresh);
    }
    mtx_unlock(&g->control);
    return rc;
}

static void app_release(struct glue *g, struct app *app)
{
    for (uint32_t io = 0; io <= GLUE_IO_MAX; io++) {
        if (app->stats[io] != NULL)
            page_block_remove(g->page, app->stats[io]);
    }
    balance_release(&app->balance);
    region_unmap((uint8_t *)app->csb, REGION_CSB_BYTES);
    if (app->csb_fd >= 0)
        close(app->csb_fd);
    memset(app, 0, sizeof *app);
    balance_init(&app->balance);
    app->csb_fd = -1;
}

static int app_init(struct glue *g, struct app *app, uint32_t id, const char *name)
{
    bool huge = false;

    balance_init(&app->balance);
    app->csb_fd = -1;
    for (uint32_t io = 0; io <= GLUE_IO_MAX; io++) {
        if (io >= g->io_count && io != CONTROL)
            continue;
        app->stats[io] = page_block_add(g->page, PAGE_KIND_APP, id, 0, io == CONTROL ? PAGE_NO_IO : io, 0, name);
        if (app->stats[io] == NULL)
            return -ENOSPC;
    }
    int rc = region_make("janus-csb", REGION_CSB_BYTES, REGION_OURS, &app->csb_fd, (uint8_t **)&app->csb, &huge);
    return rc == 0 ? region_seal(app->csb_fd, (uint8_t *)app->csb, REGION_CSB_BYTES, REGION_OURS) : rc;
}

int glue_app_add(struct glue *g, uint32_t app, const char *name, uint64_t k0, uint64_t k1, struct glue_text *why)
{
    if (app == 0 || app >= GLUE_APPS_MAX)
        return refuse(why, EINVAL, "app ids are 1 to %d", GLUE_APPS_MAX - 1);
    mtx_lock(&g->control);
    struct app *a = &g->apps[app];
    int rc = a->id == 0 ? 0 : refuse(why, EEXIST, "app %u exists already", app);
    if (rc == 0) {
        rc = app_init(g, a, app, name);
        if (rc != 0) {
            app_release(g, a);
            refuse(why, -rc, "no memory for app %.31s: %s", name, strerror(-rc));
        }
    }
    if (rc == 0) {
        snprintf(a->name, sizeof a->name, "%.31s", name);
        a->csb->secret[0] = k0;
        a->csb->secret[1] = k1;
        a->id = app;
    }
    mtx_unlock(&g->control);
    return rc;
}

int glue_app_remove(struct glue *g, uint32_t app, struct glue_text *why)
{
    int rc = 0;

    mtx_lock(&g->control);
    if (app >= GLUE_APPS_MAX || g->apps[app].id == 0)
        rc = refuse(why, ENOENT, "there is no app %u", app);
    else if (g->apps[app].session_count != 0)
        rc = refuse(why, EBUSY, "app %u still has %u sessions", app, g->apps[app].session_count);
    for (uint32_t i = 0; rc == 0 && i < g->service_count; i++) {
        if (g->service_list[i].app == app)
            rc = refuse(why, EBUSY, "app %u still has services", app);
    }
    if (rc == 0) {
        balance_forget(g, app); /* a packet on its way may still ask for its view */
        app_release(g, &g->apps[app]);
    }
    mtx_unlock(&g->control);
    return rc;
}
