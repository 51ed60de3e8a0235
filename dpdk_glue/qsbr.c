/*
 * qsbr.c: turns noted, turns passed.
 */
#include "dpdk_glue/qsbr.h"

#include "dpdk_glue/state.h"

#include <stdlib.h>
#include <time.h>

enum { WAIT_NS = 20000 };

static void note_turns(struct glue *g, uint64_t turns[GLUE_IO_MAX])
{
    atomic_thread_fence(memory_order_seq_cst);
    for (uint32_t i = 0; i < g->io_count; i++)
        turns[i] = atomic_load(&g->io[i].turns);
}

static bool have_passed(struct glue *g, const uint64_t turns[GLUE_IO_MAX])
{
    for (uint32_t i = 0; i < g->io_count; i++) {
        if (atomic_load(&g->io[i].running) && atomic_load(&g->io[i].turns) == turns[i])
            return false;
    }
    return true;
}

static void reclaim(struct glue *g)
{
    struct qsbr_retired **link = &g->qsbr.retired;

    while (*link != NULL) {
        struct qsbr_retired *r = *link;
        if (!have_passed(g, r->turns)) {
            link = &r->next;
            continue;
        }
        *link = r->next;
        free(r->memory);
        free(r);
    }
}

void qsbr_retire(struct glue *g, void *memory)
{
    reclaim(g);
    if (memory == NULL)
        return;
    struct qsbr_retired *r = malloc(sizeof *r);
    if (r == NULL) { /* then wait instead of remembering */
        qsbr_synchronize(g);
        free(memory);
        return;
    }
    r->memory = memory;
    note_turns(g, r->turns);
    r->next = g->qsbr.retired;
    g->qsbr.retired = r;
}

void qsbr_synchronize(struct glue *g)
{
    uint64_t turns[GLUE_IO_MAX];

    note_turns(g, turns);
    for (uint32_t i = 0; i < g->io_count; i++)
        doorbell_ring_io(g->io[i].kick_fd);
    while (!have_passed(g, turns))
        nanosleep(&(struct timespec){.tv_nsec = WAIT_NS}, NULL);
}

void qsbr_release(struct glue *g)
{
    for (struct qsbr_retired *r = g->qsbr.retired, *next; r != NULL; r = next) {
        next = r->next;
        free(r->memory);
        free(r);
    }
    g->qsbr.retired = NULL;
}
