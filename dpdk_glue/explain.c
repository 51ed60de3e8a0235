/*
 * explain.c: what the view in force says of one flow, asked by a person, and of the exceptions in each slot.
 */
#include "csb/census.h"
#include "dpdk_glue/state.h"

#include <errno.h>
#include <stdlib.h>

int glue_csb_explain(struct glue *g, uint32_t app, const uint8_t remote[16], uint16_t remote_port,
                     const uint8_t local[16], uint16_t local_port, struct glue_csb_explained *out)
{
    struct flow flow = {.rport = remote_port, .lport = local_port};
    uint16_t tid, home;
    int rc = -ENOENT;

    memcpy(&flow.raddr, remote, sizeof flow.raddr);
    memcpy(&flow.laddr, local, sizeof flow.laddr);
    mtx_lock(&g->control);
    if (app < GLUE_APPS_MAX && g->apps[app].id != 0) {
        const struct app *a = &g->apps[app];
        const struct csb_view *view = a->balance.view.memory;
        const struct csb_secret secret = {a->csb->secret[0], a->csb->secret[1]};
        uint64_t hash = csb_hash(&secret, &flow);
        rc = view != NULL ? 0 : -EAGAIN;
        if (view != NULL) {
            enum csb_decider decider = csb_view_explain(view, hash, &tid, &home);
            *out = (struct glue_csb_explained){.decider = decider,
                                               .key = csb_key(hash),
                                               .slot = csb_key(hash) >> CSB_SLOT_SHIFT,
                                               .tid = tid,
                                               .home = home,
                                               .epoch = view->map.epoch};
        }
    }
    mtx_unlock(&g->control);
    return rc;
}

int glue_csb_strangers(struct glue *g, uint32_t app, struct glue_csb_strangers *out, uint32_t room)
{
    static_assert(sizeof(struct glue_csb_strangers) == sizeof(struct csb_strangers), "one layout");
    uint32_t *counts = malloc((uint64_t)CSB_SLOT_COUNT * CSB_TIDS_MAX * sizeof *counts);
    int found = 0;

    if (counts == NULL)
        return -ENOMEM;
    mtx_lock(&g->control);
    if (app < GLUE_APPS_MAX && g->apps[app].id != 0 && g->apps[app].balance.view.memory != NULL)
        found = (int)csb_view_census(g->apps[app].balance.view.memory, counts, (struct csb_strangers *)out, room);
    mtx_unlock(&g->control);
    free(counts);
    return found;
}
