/*
 * csb_sim_events.h: what happens to the interleaving simulation from outside: death and return of a thread, restart of
 * the controller; and its run.
 */
#include "csb_sim_run.h"

/* The thread's connections die with it.  Its memory and mail are gone. */
static void sim_die(struct sim *s, uint32_t tid)
{
    struct sim_thread *t = &s->thread[tid];

    for (uint32_t flow = 0; flow < SIM_FLOWS; flow++) {
        if (t->tcb[flow].state != SIM_NONE && s->flow[flow].incarnation == t->tcb[flow].incarnation)
            s->flow[flow].state = SIM_CLOSED;
        if (s->flow[flow].chosen_by == (int)tid)
            s->flow[flow].chosen_by = -1;
    }
    memset(t, 0, sizeof *t);
    t->is_dead = true;
    s->result.deaths++;
    if (csb_update_lost(&s->update, (uint16_t)tid)) {
        s->result.aborts++;
        sim_order_members(s, CSB_IDLE, NULL);
        sim_order_ios(s, CSB_IDLE, NULL);
    }
}

/* A new thread under the tid of a dead one joins between two updates. */
static void sim_join(struct sim *s, uint32_t tid)
{
    if (s->update.phase != CSB_IDLE || s->must_rebuild)
        return;
    s->thread[tid].is_dead = false;
    s->thread[tid].member = (struct csb_member){.tid = (uint16_t)tid, .view = s->view};
}

/* The controller and the I/O threads start again with the circle and the flags that were saved, and with empty rings.  They
 * are saved before a view is published, so the next ones count from PUBLISH on. */
static void sim_restart(struct sim *s)
{
    uint64_t flagged[CSB_SLOT_COUNT / 64] = {0};
    const struct csb_view *saved = s->next_view != NULL ? s->next_view : s->view;
    const struct csb_map *map = s->next_view != NULL ? &s->next_circle : &s->circle;
    struct csb_view *view = sim_build(s, map, false);

    for (uint32_t i = 0; i < CSB_SLOT_COUNT; i++) {
        if (saved->slot[i] & CSB_SLOT_FLAG)
            flagged[i / 64] |= UINT64_C(1) << (i % 64);
    }
    csb_view_flag(view, flagged);
    s->circle = *map;
    free(s->view);
    free(s->next_view);
    s->view = view;
    s->next_view = NULL;
    s->update = (struct csb_update){0};
    s->mail.count = 0;
    s->must_rebuild = true;
    for (uint32_t i = 0; i < SIM_IOS; i++) {
        s->io[i].mail.count = 0;
        s->io[i].plan = NULL;
        s->io[i].half_swapped = NULL;
        s->io[i].held_count = 0;
        s->io[i].io = (struct csb_io){.view = view};
    }
    for (uint32_t i = 0; i < SIM_TIDS; i++) {
        struct sim_thread *t = &s->thread[i];

        t->mail.count = 0;
        t->asked = CSB_IDLE;
        t->ring[0].count = t->ring[1].count = 0;
        t->member = (struct csb_member){.tid = (uint16_t)i, .view = view, .is_rebuilding = true};
    }
    s->result.restarts++;
}

static void sim_event(struct sim *s)
{
    uint32_t tid = sim_draw(s, SIM_TIDS);

    if (sim_draw(s, 12) == 0)
        sim_restart(s);
    else if (s->thread[tid].is_dead)
        sim_join(s, tid);
    else if (sim_draw(s, 3) == 0)
        sim_die(s, tid);
}

static void sim_begin(struct sim *s, uint64_t seed, uint32_t off)
{
    s->random = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
    s->off = off;
    s->is_pinned = seed % 2 == 0;
    for (uint32_t i = 0; i < 64; i++)
        s->plan[i] = malloc(sizeof *s->plan[i]);
    for (uint32_t i = 0; i < 8; i++)
        sim_draw(s, 2);
    for (uint32_t i = 0; i < SIM_FLOWS; i++)
        s->flow[i] = (struct sim_flow){.hash = (uint64_t)(i + 1) << 32 | sim_draw(s, 512) << 23, .chosen_by = -1};
    for (uint32_t i = 0; i < SIM_TIDS; i++)
        s->weight[i] = 1 + sim_draw(s, 8);
    sim_draw_circle(s);
    s->circle = s->next_circle;
    s->view = sim_build(s, &s->circle, false);
    for (uint32_t i = 0; i < SIM_TIDS; i++)
        s->thread[i].member = (struct csb_member){.tid = (uint16_t)i, .view = s->view};
    for (uint32_t i = 0; i < SIM_IOS; i++)
        s->io[i].io.view = s->view;
}

/* Runs until so many updates are through, or give up after steps; off is a mask of rules that are left out. */
static struct sim_result sim_run(uint64_t seed, uint32_t off, uint64_t updates, uint64_t steps)
{
    struct sim *s = calloc(1, sizeof *s);
    struct sim_result result;

    sim_begin(s, seed, off);
    for (uint64_t i = 0; i < steps && s->result.updates < updates; i++) {
        uint32_t actor = sim_draw(s, SIM_TIDS + SIM_IOS + 5);

        if (actor < SIM_TIDS)
            sim_thread_step(s, actor);
        else if (actor < SIM_TIDS + SIM_IOS)
            sim_io_step(s, actor - SIM_TIDS);
        else if (actor == SIM_TIDS + SIM_IOS)
            sim_controller_step(s);
        else
            sim_client(s);
        if (sim_draw(s, 4000) == 0)
            sim_event(s);
    }
    result = s->result;
    free(s->view);
    free(s->next_view);
    free(s->draft);
    for (uint32_t i = 0; i < 64; i++)
        free(s->plan[i]);
    free(s);
    return result;
}
