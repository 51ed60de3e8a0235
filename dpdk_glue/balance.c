/*
 * balance.c: orders given, obeyed and waited for; markers into rings.
 */
#include "dpdk_glue/balance.h"

#include "dpdk_glue/balance_values.h"
#include "dpdk_glue/deliver.h"
#include "dpdk_glue/refuse.h"
#include "dpdk_glue/state.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

enum { WAIT_NS = 20000 };

void balance_init(struct balance *b)
{
    b->view.fd = b->next.fd = b->plan.fd = b->draft.fd = -1;
}

void balance_release(struct balance *b)
{
    balance_forget_attempt(b);
    balance_value_free(&b->view);
    free(atomic_exchange(&b->order, NULL));
}

/* --- the control plane's part; the control lock is held --- */

static bool have_obeyed(struct glue *g, uint64_t number)
{
    for (uint32_t i = 0; i < g->io_count; i++) {
        if (atomic_load(&g->io[i].running) && atomic_load(&g->io[i].orders_obeyed) < number)
            return false;
    }
    return true;
}

static int give_order(struct glue *g, struct balance *b, struct balance_order wish, struct glue_text *why)
{
    struct balance_order *order = malloc(sizeof *order);

    if (order == NULL)
        return refuse(why, ENOMEM, "no memory for an order to the I/O threads");
    *order = wish;
    order->number = atomic_load(&g->orders) + 1;
    qsbr_retire(g, atomic_exchange(&b->order, order));
    atomic_store(&g->orders, order->number);
    for (uint32_t i = 0; i < g->io_count; i++)
        doorbell_ring_io(g->io[i].kick_fd);
    while (!have_obeyed(g, order->number))
        nanosleep(&(struct timespec){.tv_nsec = WAIT_NS}, NULL);
    return 0;
}

void balance_forget(struct glue *g, uint32_t app)
{
    struct glue_text unused;

    if (give_order(g, &g->apps[app].balance, (struct balance_order){.io = {NULL, NULL}}, &unused) != 0)
        balance_init(&g->apps[app].balance); /* then what the I/O threads may still read is not freed */
}

static struct balance *balance_of(struct glue *g, uint32_t app, struct glue_text *why)
{
    if (app < GLUE_APPS_MAX && g->apps[app].id != 0)
        return &g->apps[app].balance;
    refuse(why, ENOENT, "there is no app %u", app);
    return NULL;
}

int glue_csb_drain(struct glue *g, uint32_t app, uint32_t attempt, struct glue_text *why)
{
    mtx_lock(&g->control);
    struct balance *b = balance_of(g, app, why);
    int rc = b != NULL ? 0 : -ENOENT;
    if (rc == 0 && (b->plan.memory == NULL || b->view.memory == NULL))
        rc = refuse(why, EINVAL, "a drain comes after a plan");
    if (rc == 0)
        rc = give_order(g, b,
                        (struct balance_order){.io = {b->view.memory, b->plan.memory},
                                               .has_marker = true,
                                               .marker = CSB_MARKER_SEAL,
                                               .attempt = attempt},
                        why);
    mtx_unlock(&g->control);
    return rc;
}

int glue_csb_publish(struct glue *g, uint32_t app, uint32_t attempt, struct glue_text *why)
{
    mtx_lock(&g->control);
    struct balance *b = balance_of(g, app, why);
    int rc = b != NULL ? 0 : -ENOENT;
    if (rc == 0 && b->next.memory == NULL)
        rc = refuse(why, EINVAL, "there is no view to publish");
    if (rc == 0)
        rc = give_order(g, b,
                        (struct balance_order){.io = {b->next.memory, NULL},
                                               .has_marker = attempt != 0,
                                               .marker = CSB_MARKER_OPEN,
                                               .attempt = attempt},
                        why);
    if (rc == 0) {
        balance_value_free(&b->view);
        b->view = b->next;
        b->next = (struct balance_value){.fd = -1};
        balance_forget_attempt(b);
    }
    mtx_unlock(&g->control);
    return rc;
}

int glue_csb_abort(struct glue *g, uint32_t app, struct glue_text *why)
{
    mtx_lock(&g->control);
    struct balance *b = balance_of(g, app, why);
    int rc = b != NULL ? 0 : -ENOENT;
    if (rc == 0)
        rc = give_order(g, b, (struct balance_order){.io = {b->view.memory, NULL}}, why);
    if (rc == 0)
        balance_forget_attempt(b);
    mtx_unlock(&g->control);
    return rc;
}

void glue_csb_forget(struct glue *g, uint32_t app)
{
    struct glue_text unused;

    mtx_lock(&g->control);
    struct balance *b = balance_of(g, app, &unused);
    if (b != NULL) {
        balance_forget(g, app);
        balance_value_free(&b->view);
        balance_forget_attempt(b);
    }
    mtx_unlock(&g->control);
}

/* --- the I/O threads' part --- */

static void place_marker(struct io_thread *io, struct glue_session *s)
{
    struct session_io *sio = &s->io[io->index];

    sio->marker.due = false;
    if (ring_producer_room(&sio->rx) == 0 && ring_producer_refresh(&sio->rx) < 0) {
        session_violated(s, io->index, SHM_DROP_INDEX);
        return;
    }
    if (ring_producer_room(&sio->rx) == 0) {
        sio->marker.due = io->markers_due = true;
        return;
    }
    ring_push(
        &sio->rx,
        (struct shm_desc){.slot = sio->marker.attempt, .hash = (uint32_t)sio->marker.marker, .kind = SHM_DESC_MARKER});
    ring_publish(&sio->rx);
    session_wake(s, io->index);
}

static void place_markers(struct io_thread *io, struct app *app, const struct balance_order *order)
{
    for (uint32_t tid = 0; tid < SHM_TID_MAX; tid++) {
        struct glue_session *s = atomic_load_explicit(&app->sessions[tid], memory_order_acquire);

        if (s == NULL || session_is_closed(s))
            continue;
        s->io[io->index].marker = (struct balance_marker){true, order->marker, order->attempt};
        place_marker(io, s);
    }
}

static void place_due(struct io_thread *io)
{
    const struct session_list *list = atomic_load_explicit(&io->sessions, memory_order_acquire);

    io->markers_due = false;
    for (uint32_t i = 0; list != NULL && i < list->count; i++) {
        if (list->sessions[i]->io[io->index].marker.due && !session_is_closed(list->sessions[i]))
            place_marker(io, list->sessions[i]);
    }
}

static void obey(struct io_thread *io, uint64_t number)
{
    for (uint32_t i = 1; i < GLUE_APPS_MAX; i++) {
        struct app *app = &io->glue->apps[i];
        const struct balance_order *order = atomic_load_explicit(&app->balance.order, memory_order_acquire);

        if (order == NULL || order->number <= io->csb[i].number)
            continue;
        io->csb[i] = (struct balance_io){order->io, order->number};
        if (order->has_marker)
            place_markers(io, app, order);
        io->held.is_due |= order->io.plan == NULL;
    }
    io->orders_taken = number;
    atomic_store(&io->orders_obeyed, number);
}

void balance_obey(struct io_thread *io)
{
    uint64_t number = atomic_load_explicit(&io->glue->orders, memory_order_acquire);

    if (__builtin_expect(io->markers_due, 0))
        place_due(io);
    if (__builtin_expect(number != io->orders_taken, 0))
        obey(io, number);
}
