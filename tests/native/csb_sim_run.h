/*
 * csb_sim_run.h: the actors of the interleaving simulation, one step at a time in random order, and its oracle.
 *
 * The update's three roles are the product's; this file carries orders, markers and lists between them.  A rule that is
 * switched off is left out here, not in the product.
 */
#include "csb_sim.h"

enum { SIM_WALK_BUDGET = 24 };

static struct csb_view *sim_build(struct sim *s, const struct csb_map *map, bool with_lists)
{
    struct csb_list lists[SIM_TIDS];
    uint64_t room = csb_view_bytes(SIM_TIDS * 4 * SIM_FLOWS, SIM_TIDS * 4 * SIM_FLOWS);
    struct csb_view *view = aligned_alloc(64, (room + 63) / 64 * 64);
    uint32_t count = 0;

    for (uint32_t i = 0; with_lists && i < SIM_TIDS; i++) {
        struct csb_member *m = &s->thread[i].member;

        if (s->thread[i].is_dead)
            continue;
        lists[count++] = (struct csb_list){m->list, m->list_count, (uint16_t)i};
        for (uint32_t j = 0; sim_is_off(s, SIM_EXACT) && j < m->list_count; j++) {
            for (uint32_t k = 0; k < i; k++) { /* of a key's owners the first alone is kept */
                const struct csb_member *other = &s->thread[k].member;
                for (uint32_t l = 0; !s->thread[k].is_dead && l < other->list_count; l++) {
                    if (other->list[l] != 0 && csb_key(other->list[l]) == csb_key(m->list[j]))
                        m->list[j] = 0;
                }
            }
        }
    }
    if (csb_view_build(view, room, map, lists, count) > room)
        abort();
    s->result.exceptions += view->exception_count;
    s->result.conflicts += view->exact_count;
    return view;
}

/* --- an I/O thread --- */

static void sim_mark(struct sim *s, uint32_t io, enum csb_marker marker, uint64_t attempt)
{
    for (uint32_t i = 0; i < SIM_TIDS; i++) {
        if (!s->thread[i].is_dead)
            sim_push(&s->thread[i].ring[io],
                     (struct sim_packet){.kind = SIM_MARK, .marker = marker, .attempt = attempt, .io = io});
    }
}

static void sim_io_order(struct sim *s, uint32_t n, const struct sim_order *order)
{
    struct sim_io *io = &s->io[n];

    if (order->phase == CSB_COLLECT) {
        io->plan = order->what;
        return;
    }
    if (order->phase == CSB_IDLE) {
        csb_io_abort(&io->io);
        io->plan = NULL;
        io->is_release_due = !sim_is_off(s, SIM_HELD_ABORT);
        return;
    }
    if (order->phase == CSB_DRAIN) {
        csb_io_drain(&io->io, order->what);
        sim_mark(s, n, CSB_MARKER_SEAL, order->attempt);
    } else {
        csb_io_publish(&io->io, order->what);
        io->plan = NULL;
        io->is_release_due = true;
        if (sim_is_off(s, SIM_ONE_SWAP))
            io->half_swapped = order->what;
        sim_mark(s, n, CSB_MARKER_OPEN, order->attempt);
    }
    sim_post(&s->mail, (struct sim_order){.phase = order->phase, .attempt = order->attempt, .from = n, .is_io = true});
}

static uint16_t sim_route(struct sim *s, struct sim_io *io, const struct sim_packet *p)
{
    uint64_t hash = s->flow[p->flow].hash;

    if (io->half_swapped != NULL && sim_draw(s, 8) != 0)
        return csb_lookup(&io->half_swapped->map, csb_key(hash));
    io->half_swapped = NULL;
    if (sim_is_off(s, SIM_OLD_MAP) && io->plan != NULL && p->kind == SIM_SYN)
        return csb_lookup(&io->plan->next, csb_key(hash));
    return csb_io_route(&io->io, hash, p->kind == SIM_SYN);
}

static void sim_dispatch(struct sim *s, uint32_t n, const struct sim_packet *p, uint16_t tid)
{
    struct sim_io *io = &s->io[n];

    if (tid < SIM_TIDS && !s->thread[tid].is_dead)
        sim_push(&s->thread[tid].ring[n], *p);
    if (tid != CSB_DROP_SYN)
        return;
    if (io->held_count == SIM_HELD) {
        s->result.held_over++;
        return;
    }
    io->held_for[io->held_count] = csb_view_lookup(io->io.view, s->flow[p->flow].hash);
    io->held[io->held_count++] = *p;
    s->result.held++;
}

/* Those that were held go on as if they came now. */
static void sim_release(struct sim *s, uint32_t n)
{
    struct sim_io *io = &s->io[n], were = *io;

    io->held_count = 0;
    io->is_release_due = false;
    for (uint32_t i = 0; i < were.held_count; i++)
        sim_dispatch(s, n, &were.held[i],
                     sim_is_off(s, SIM_HELD_ANEW) ? were.held_for[i] : sim_route(s, io, &were.held[i]));
}

static void sim_io_step(struct sim *s, uint32_t n)
{
    struct sim_io *io = &s->io[n];
    struct sim_order order;

    if (sim_draw(s, 30) == 0 && sim_take(&io->mail, &order))
        sim_io_order(s, n, &order);
    if (io->is_release_due)
        sim_release(s, n);
    s->result.stranded += io->held_count > 0 && io->io.plan == NULL;
    for (uint32_t burst = sim_draw(s, sim_is_off(s, SIM_FLOOD) ? 32 : 4); burst > 0 && io->wire_count > 0; burst--) {
        uint32_t at = sim_draw(s, io->wire_count);
        struct sim_packet packet = io->wire[at];
        uint16_t tid = sim_route(s, io, &packet);

        io->wire[at] = io->wire[--io->wire_count];
        s->result.packets++;
        s->result.spoofed += packet.incarnation == UINT32_MAX;
        sim_dispatch(s, n, &packet, tid);
    }
}

/* --- a TCP thread --- */

static void sim_answer(struct sim *s, uint32_t tid)
{
    struct sim_thread *t = &s->thread[tid];

    sim_post(&s->mail, (struct sim_order){.phase = t->asked, .attempt = t->asked_attempt, .from = tid});
    t->asked = CSB_IDLE;
}

static void sim_thread_order(struct sim *s, uint32_t tid, const struct sim_order *order)
{
    struct sim_thread *t = &s->thread[tid];
    struct csb_member *m = &t->member;
    uint64_t ios = sim_is_off(s, SIM_EVERY_IO) ? 1 : (UINT64_C(1) << SIM_IOS) - 1;

    t->asked = order->phase;
    t->asked_attempt = order->attempt;
    if (order->phase == CSB_IDLE)
        csb_member_abort(m);
    if (order->phase == CSB_COLLECT)
        csb_member_begin(m, order->attempt, order->what, ios, t->list, sizeof t->list / sizeof t->list[0]);
    if (order->phase == CSB_CHECK)
        csb_member_check(m, order->what);
    if (order->phase == CSB_SEAL && sim_is_off(s, SIM_FENCE))
        m->is_sealed = true;
    if (order->phase == CSB_OPEN && sim_is_off(s, SIM_FENCE))
        csb_member_open(m, order->what);
}

/* Says what has been done of what was asked. */
static void sim_thread_progress(struct sim *s, uint32_t tid)
{
    struct sim_thread *t = &s->thread[tid];
    bool is_done = false;

    if (t->asked == CSB_COLLECT || t->asked == CSB_CHECK)
        is_done = csb_member_walk(&t->member, t->column, SIM_FLOWS, SIM_WALK_BUDGET);
    if (t->asked == CSB_SEAL)
        is_done = t->member.is_sealed;
    if (t->asked == CSB_OPEN)
        is_done = t->member.attempt == 0;
    if (is_done)
        sim_answer(s, tid);
}

static void sim_thread_packet(struct sim *s, uint32_t tid, uint32_t io)
{
    struct sim_thread *t = &s->thread[tid];
    struct sim_ring *ring = &t->ring[io];
    struct sim_packet p = ring->packet[ring->head];

    ring->head = (ring->head + 1) % SIM_RING;
    ring->count--;
    if (p.kind == SIM_SYN)
        sim_syn(s, tid, &p);
    else if (p.kind != SIM_MARK)
        sim_data(s, tid, &p);
    else if (!sim_is_off(s, SIM_FENCE) && csb_member_marker(&t->member, p.attempt, p.marker, p.io) &&
             p.marker == CSB_MARKER_OPEN)
        csb_member_open(&t->member, s->next_view);
}

static void sim_thread_step(struct sim *s, uint32_t tid)
{
    struct sim_thread *t = &s->thread[tid];
    struct sim_order order;

    if (t->is_dead)
        return;
    if (sim_draw(s, 3) == 0 && sim_take(&t->mail, &order))
        sim_thread_order(s, tid, &order);
    for (uint32_t batch = sim_draw(s, 6); batch > 0; batch--) {
        uint32_t io = sim_draw(s, SIM_IOS);
        if (t->ring[io].count > 0)
            sim_thread_packet(s, tid, io);
    }
    sim_thread_progress(s, tid);
    for (uint32_t i = 0; i < 4; i++)
        sim_expire(s, tid, sim_draw(s, SIM_FLOWS));
    sim_connect(s, tid, sim_draw(s, SIM_FLOWS));
}

/* --- the controller --- */

static void sim_order_members(struct sim *s, enum csb_phase phase, void *what)
{
    for (uint32_t i = 0; i < SIM_TIDS; i++) {
        if (!s->thread[i].is_dead)
            sim_post(&s->thread[i].mail,
                     (struct sim_order){.phase = phase, .attempt = s->update.attempt, .what = what});
    }
}

static void sim_order_ios(struct sim *s, enum csb_phase phase, void *what)
{
    for (uint32_t i = 0; i < SIM_IOS; i++)
        sim_post(&s->io[i].mail, (struct sim_order){.phase = phase, .attempt = s->update.attempt, .what = what});
}

static void sim_draw_circle(struct sim *s)
{
    struct csb_point points[SIM_TIDS * 8];
    uint32_t count = 0, changed = sim_draw(s, SIM_TIDS);

    s->weight[changed] = sim_draw(s, 9);
    for (uint32_t i = 0; i < SIM_TIDS; i++) {
        for (uint32_t j = 0; !s->thread[i].is_dead && j < s->weight[i]; j++) {
            uint32_t at = csb_murmur3((uint64_t)i << 32 | j, 7) & 0xfff00000; /* a key of its own, mixed slots */
            bool is_taken = false;
            for (uint32_t k = 0; k < count; k++)
                is_taken |= points[k].point == at;
            if (!is_taken)
                points[count++] = (struct csb_point){at, i};
        }
    }
    if (!csb_map_build(&s->next_circle, points, count, s->circle.epoch + 1))
        abort();
}

static void sim_start(struct sim *s)
{
    uint64_t members[CSB_TID_WORDS] = {0}, ios = (UINT64_C(1) << SIM_IOS) - 1;
    struct csb_plan **plan;

    for (uint32_t i = 0; i < SIM_TIDS; i++)
        members[0] |= (uint64_t)!s->thread[i].is_dead << i;
    if (s->must_rebuild)
        s->next_circle = s->circle;
    else
        sim_draw_circle(s);
    csb_update_start(&s->update, members, ios, s->must_rebuild && !sim_is_off(s, SIM_CHECK), 0, 1);
    plan = &s->plan[s->update.attempt % 64]; /* no thread lags that far behind */
    csb_plan_init(*plan, &s->next_circle, s->view);
    sim_order_members(s, CSB_COLLECT, *plan);
    if (sim_is_off(s, SIM_OLD_MAP))
        sim_order_ios(s, CSB_COLLECT, *plan);
}

/* Every I/O thread sends every live connection to the thread that has it. */
static void sim_verify(struct sim *s)
{
    for (uint32_t tid = 0; tid < SIM_TIDS; tid++) {
        for (uint32_t flow = 0; flow < SIM_FLOWS && !s->thread[tid].is_dead; flow++) {
            if (s->thread[tid].tcb[flow].state == SIM_NONE)
                continue;
            for (uint32_t io = 0; io < SIM_IOS; io++)
                s->result.misdirected += csb_view_lookup(s->io[io].io.view, s->flow[flow].hash) != tid;
        }
    }
}

static void sim_enter_phase(struct sim *s)
{
    struct csb_plan *plan = s->plan[s->update.attempt % 64];

    switch (s->update.phase) {
    case CSB_CHECK:
        free(s->draft);
        s->draft = sim_build(s, &s->next_circle, true);
        sim_order_members(s, CSB_CHECK, s->draft);
        break;
    case CSB_DRAIN:
        if (sim_is_off(s, SIM_EVERY_IO))
            s->update.ios_waiting &= 1;
        sim_order_ios(s, CSB_DRAIN, plan);
        break;
    case CSB_SEAL:
        sim_order_members(s, CSB_SEAL, NULL);
        break;
    case CSB_PUBLISH:
        s->next_view = sim_build(s, &s->next_circle, true);
        sim_order_ios(s, CSB_PUBLISH, s->next_view);
        break;
    case CSB_OPEN:
        sim_order_members(s, CSB_OPEN, s->next_view);
        break;
    default: /* the update is over */
        free(s->view);
        s->view = s->next_view;
        s->next_view = NULL;
        s->circle = s->next_circle;
        s->must_rebuild = false;
        s->result.updates++;
        sim_verify(s);
    }
}

static void sim_abort(struct sim *s)
{
    if (!csb_update_abort(&s->update))
        return;
    s->result.aborts++;
    sim_order_members(s, CSB_IDLE, NULL);
    sim_order_ios(s, CSB_IDLE, NULL);
}

static void sim_controller_step(struct sim *s)
{
    struct sim_order order;

    if (sim_take(&s->mail, &order)) {
        if (order.is_io)
            csb_update_io_done(&s->update, order.attempt, order.phase, order.from);
        else
            csb_update_member_done(&s->update, order.attempt, order.phase, (uint16_t)order.from);
    }
    if (s->update.phase == CSB_IDLE && (s->must_rebuild || sim_draw(s, 40) == 0))
        sim_start(s);
    else if (csb_update_advance(&s->update))
        sim_enter_phase(s);
    else if (sim_draw(s, 1500) == 0)
        sim_abort(s);
}
