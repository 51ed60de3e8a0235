/*
 * balance.h: the balancer between the control plane and the I/O threads: views that route, plans that drain, markers.
 *
 *   control plane ── struct balance_order ──> each I/O thread, at the start of its next turn ──> orders_obeyed
 *                                               └── markers into the rings of the app's sessions
 *
 * An order is one immutable value, the latest of its app; an I/O thread keeps what it needs of it in private, so that a lookup
 * costs no atomic.  A marker that finds its ring full stays due: nothing waits for the app, and a later marker than meant is
 * never wrong, as what it must not overtake is in front of it.
 */
#ifndef DPDK_GLUE_BALANCE_H
#define DPDK_GLUE_BALANCE_H

#include "csb/update.h"
#include "shm/layout.h"

#include <stdatomic.h>

struct glue;
struct io_thread;

/* A sealed value in shared memory. */
struct balance_value {
    void *memory; /* NULL: there is none */
    uint64_t bytes;
    int fd;
};

struct balance_answers {
    uint64_t *hashes;
    uint32_t count, room;
    uint32_t prepared; /* so many of them are in the next view */
};

struct balance_order {
    uint64_t number;
    struct csb_io io;
    bool has_marker;
    enum csb_marker marker;
    uint32_t attempt;
};

/* What the control plane keeps for one app. */
struct balance {
    struct balance_value view, next, plan, draft;
    bool is_prepared; /* next is being made of this attempt's lists, and is not sealed yet */
    struct balance_answers answers[SHM_TID_MAX];
    _Atomic(struct balance_order *) order;
};

/* What an I/O thread keeps for one app. */
struct balance_io {
    struct csb_io csb;
    uint64_t number; /* of the order it comes from */
};

struct balance_marker {
    bool due;
    enum csb_marker marker;
    uint32_t attempt;
};

void balance_init(struct balance *b);
/* No I/O thread knows of it any more. */
void balance_release(struct balance *b);
/* Makes all I/O threads forget the app's view. */
void balance_forget(struct glue *g, uint32_t app);

/* An I/O thread takes new orders, and tries again to place markers that are due. */
void balance_obey(struct io_thread *io);

/* Owners of a burst's flows; CSB_NO_TID: nobody. */
static inline void balance_route(const struct balance_io *b, const uint64_t *hashes, uint16_t *tids, uint32_t count)
{
    if (b->csb.view != NULL) {
        csb_view_lookup_batch(b->csb.view, hashes, tids, count);
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        tids[i] = CSB_NO_TID;
}

/* What becomes of a SYN whose owner is tid: tid, or CSB_DROP_SYN. */
static inline uint16_t balance_route_syn(const struct balance_io *b, uint64_t hash, uint16_t tid)
{
    if (__builtin_expect(b->csb.plan != NULL, 0) && csb_plan_concerns(b->csb.plan, b->csb.view, tid, hash))
        return CSB_DROP_SYN;
    return tid;
}

#endif
