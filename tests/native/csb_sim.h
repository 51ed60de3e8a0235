/*
 * csb_sim.h: the world of the interleaving simulation: clients, rings, TCP threads' tables, and what is wrong in it.
 *
 * Keys have 9 bits, so that equal keys are frequent.  A row of a thread's table is the flow's number, so a creation is
 * seen by a walk that runs, or not, as its cursor stands.
 */
#include "csb/update.h"

#include <stdlib.h>
#include <string.h>

enum {
    SIM_TIDS = 6,
    SIM_IOS = 2,
    SIM_FLOWS = 384,
    SIM_RING = 128,
    SIM_RING_FOR_MARKERS = 32,
    SIM_MAIL = 64,
    SIM_WIRE = 256,
    SIM_HELD = 4,
};

/* A rule that is switched off; sim_run() takes a mask of 1 << rule. */
enum sim_rule {
    SIM_FENCE,           /* seal and open by markers in the rings, not by word from the controller */
    SIM_ALL_STATES,      /* the walk sees half-open connections and TIME-WAIT */
    SIM_EXACT,           /* flows of one key with different owners are told apart */
    SIM_CHECK,           /* after a restart that accepted newcomers, the draft is checked */
    SIM_OLD_MAP,         /* SYNs follow map n-1 during the update */
    SIM_RETEST,          /* an active open asks the published map when it creates, not only when it chose the port */
    SIM_ONE_SWAP,        /* H_new and the exceptions are published as one */
    SIM_EVERY_IO,        /* every I/O thread is waited for */
    SIM_LATE,            /* late lists */
    SIM_SEAL,            /* a sealed thread creates no concerned flow */
    SIM_SEALED_SILENCE,  /* a sealed thread answers no miss on one by RST */
    SIM_REBUILD_SILENCE, /* nor does a thread after a restart, in a flagged slot */
    SIM_REBUILD_REFUSE,  /* a thread creates nothing in a flagged slot after a restart */
    SIM_HELD_ANEW,       /* a held SYN goes by the map that is in force when it is let go, not when it came */
    SIM_HELD_ABORT,      /* held SYNs are let go when the update is aborted as well */
    SIM_REBUILD_FRESH, /* not a rule of the product: with the last one off, newcomers alone are accepted by an oracle */
    SIM_FLOOD,         /* nor this: sixteen spoofed SYNs with each packet of data */
};

enum sim_kind { SIM_SYN, SIM_DATA, SIM_FIN, SIM_MARK };
enum sim_tcb_state { SIM_NONE, SIM_SYN_RECEIVED, SIM_ESTABLISHED, SIM_TIME_WAIT };
enum sim_client_state { SIM_CLOSED, SIM_SYN_SENT, SIM_OPENED };

struct sim_packet {
    enum sim_kind kind;
    uint32_t flow, incarnation;
    bool has_cookie;
    enum csb_marker marker;
    uint64_t attempt;
    uint32_t io;
};

struct sim_ring {
    struct sim_packet packet[SIM_RING];
    uint32_t head, count;
};

struct sim_order {        /* between controller, members and I/O threads; in order per receiver */
    enum csb_phase phase; /* CSB_IDLE: abort */
    uint64_t attempt;
    void *what;
    uint32_t from;
    bool is_io;
};

struct sim_mail {
    struct sim_order order[SIM_MAIL];
    uint32_t head, count;
};

struct sim_flow {
    uint64_t hash;
    enum sim_client_state state;
    uint32_t incarnation;
    bool has_cookie;
    int chosen_by; /* an active open has chosen this port; the thread, or -1 */
};

struct sim_tcb {
    enum sim_tcb_state state;
    uint32_t incarnation;
};

struct sim_thread {
    struct csb_member member;
    struct sim_tcb tcb[SIM_FLOWS];
    uint64_t column[SIM_FLOWS]; /* what the walk sees */
    uint64_t list[4 * SIM_FLOWS];
    struct sim_ring ring[SIM_IOS];
    struct sim_mail mail;
    enum csb_phase asked; /* the phase whose answer is owed, or CSB_IDLE */
    uint64_t asked_attempt;
    bool is_dead;
};

struct sim_io {
    struct csb_io io;
    struct sim_packet wire[SIM_WIRE];
    uint32_t wire_count;
    struct sim_mail mail;
    struct sim_packet held[SIM_HELD]; /* SYNs of flows that move */
    uint16_t held_for[SIM_HELD];      /* their owners by the map that was in force */
    uint32_t held_count;
    bool is_release_due;
    struct csb_view *half_swapped; /* with SIM_ONE_SWAP off: H_new is in force, the exceptions not yet */
    const struct csb_plan *plan;   /* with SIM_OLD_MAP off: SYNs go by it */
};

struct sim_result {
    uint64_t packets, spoofed, connections, updates, aborts, deaths, restarts, exceptions, conflicts, late_drops;
    uint64_t held, held_over;                       /* SYNs that were held, and those for which there was no room */
    uint64_t resets, splits, misdirected, stranded; /* what must be 0 */
};

struct sim {
    uint64_t random;
    uint32_t off; /* rules */
    struct sim_flow flow[SIM_FLOWS];
    struct sim_thread thread[SIM_TIDS];
    struct sim_io io[SIM_IOS];
    struct csb_update update;
    struct sim_mail mail; /* the controller's */
    struct csb_plan *plan[64];
    struct csb_view *view, *next_view, *draft;
    struct csb_map circle, next_circle;
    uint32_t weight[SIM_TIDS];
    bool is_pinned;    /* a flow's packets all come to one I/O thread */
    uint32_t recent;   /* the flow that a client step was for: it goes on with it three times of four */
    bool must_rebuild; /* since the restart no view has been published */
    struct sim_result result;
};

static uint32_t sim_draw(struct sim *s, uint32_t below)
{
    s->random ^= s->random << 13;
    s->random ^= s->random >> 7;
    s->random ^= s->random << 17;
    return (uint32_t)((s->random >> 32) * below >> 32);
}

static bool sim_is_off(const struct sim *s, enum sim_rule rule)
{
    return s->off >> rule & 1;
}

static void sim_post(struct sim_mail *mail, struct sim_order order)
{
    if (mail->count == SIM_MAIL)
        abort();
    mail->order[(mail->head + mail->count++) % SIM_MAIL] = order;
}

static bool sim_take(struct sim_mail *mail, struct sim_order *order)
{
    if (mail->count == 0)
        return false;
    *order = mail->order[mail->head];
    mail->head = (mail->head + 1) % SIM_MAIL;
    mail->count--;
    return true;
}

static void sim_push(struct sim_ring *ring, struct sim_packet packet)
{
    uint32_t room = packet.kind == SIM_MARK ? SIM_RING : SIM_RING - SIM_RING_FOR_MARKERS;

    if (ring->count < room)
        ring->packet[(ring->head + ring->count++) % SIM_RING] = packet;
    else if (packet.kind == SIM_MARK)
        abort();
}

/* --- clients --- */

static void sim_send(struct sim *s, uint32_t flow, enum sim_kind kind, uint32_t incarnation)
{
    struct sim_io *io = &s->io[s->is_pinned ? flow % SIM_IOS : sim_draw(s, SIM_IOS)];

    if (sim_draw(s, 20) == 0 || io->wire_count == SIM_WIRE)
        return;
    io->wire[io->wire_count++] = (struct sim_packet){
        .kind = kind,
        .flow = flow,
        .incarnation = incarnation,
        .has_cookie = s->flow[flow].has_cookie && incarnation == s->flow[flow].incarnation,
    };
}

static void sim_client(struct sim *s)
{
    uint32_t n = s->recent = sim_draw(s, 4) != 0 ? s->recent : sim_draw(s, SIM_FLOWS);
    struct sim_flow *f = &s->flow[n];

    if (f->chosen_by >= 0)
        return;
    if (f->state == SIM_CLOSED && sim_draw(s, 4) == 0) {
        f->state = SIM_SYN_SENT;
        f->incarnation++;
        f->has_cookie = sim_draw(s, 4) == 0;
        s->result.connections++;
    }
    if (f->state == SIM_SYN_SENT && sim_draw(s, 30) == 0)
        f->state = SIM_CLOSED; /* gives up */
    else if (f->state == SIM_SYN_SENT)
        sim_send(s, n, SIM_SYN, f->incarnation);
    else if (f->state == SIM_OPENED && sim_draw(s, 40) == 0) {
        f->state = SIM_CLOSED;
        sim_send(s, n, SIM_FIN, f->incarnation);
    } else if (f->state == SIM_OPENED) {
        sim_send(s, n, SIM_DATA, f->incarnation);
        for (uint32_t left = sim_is_off(s, SIM_FLOOD) ? 16 : sim_draw(s, 10) == 0; left > 0; left--)
            sim_send(s, n, SIM_SYN, UINT32_MAX); /* spoofed, with a live 4-tuple */
    }
}

/* --- a TCP thread's table --- */

static void sim_set(struct sim *s, uint32_t tid, uint32_t flow, enum sim_tcb_state state, uint32_t incarnation)
{
    struct sim_thread *t = &s->thread[tid];
    bool is_seen = state == SIM_ESTABLISHED || (state != SIM_NONE && !sim_is_off(s, SIM_ALL_STATES));

    t->tcb[flow] = (struct sim_tcb){state, incarnation};
    t->column[flow] = is_seen ? s->flow[flow].hash : 0;
}

static bool sim_is_elsewhere(const struct sim *s, uint32_t tid, uint32_t flow)
{
    for (uint32_t i = 0; i < SIM_TIDS; i++) {
        if (i != tid && !s->thread[i].is_dead && s->thread[i].tcb[flow].state != SIM_NONE)
            return true;
    }
    return false;
}

/* Whether a thread has the flow, or has reported it: what a newcomer is not. */
static bool sim_is_known(const struct sim *s, uint32_t tid, uint32_t flow)
{
    for (uint32_t i = 0; i < SIM_TIDS; i++) {
        const struct csb_member *m = &s->thread[i].member;
        for (uint32_t j = 0; i != tid && j < m->list_count; j++) {
            if (m->list[j] == s->flow[flow].hash)
                return true;
        }
    }
    return sim_is_elsewhere(s, tid, flow);
}

static bool sim_may_create(struct sim *s, uint32_t tid, uint32_t flow)
{
    struct csb_member *m = &s->thread[tid].member;
    uint64_t hash = s->flow[flow].hash;
    uint32_t listed = m->list_count;
    bool was_sealed = m->is_sealed, was_rebuilding = m->is_rebuilding, may;

    if (m->is_rebuilding && sim_is_off(s, SIM_REBUILD_REFUSE)) {
        if (!sim_is_off(s, SIM_REBUILD_FRESH) && sim_is_known(s, tid, flow))
            return false;
        m->is_rebuilding = false;
    }
    if (sim_is_off(s, SIM_SEAL))
        m->is_sealed = false;
    may = csb_member_create(m, hash);
    if (sim_is_off(s, SIM_LATE) || was_sealed)
        m->list_count = listed;
    m->is_sealed = was_sealed;
    m->is_rebuilding = was_rebuilding;
    return may;
}

static void sim_create(struct sim *s, uint32_t tid, uint32_t flow, enum sim_tcb_state state, uint32_t incarnation)
{
    s->result.splits += sim_is_elsewhere(s, tid, flow);
    sim_set(s, tid, flow, state, incarnation);
}

/* The SYN-ACK, or the answer to an active open, reaches the client, or does not. */
static void sim_accept(struct sim *s, uint32_t flow, uint32_t incarnation)
{
    struct sim_flow *f = &s->flow[flow];

    if (f->state == SIM_SYN_SENT && f->incarnation == incarnation && sim_draw(s, 5) != 0)
        f->state = SIM_OPENED;
}

static void sim_syn(struct sim *s, uint32_t tid, const struct sim_packet *p)
{
    struct sim_tcb *tcb = &s->thread[tid].tcb[p->flow];
    bool is_spoofed = p->incarnation == UINT32_MAX;

    if (tcb->state == SIM_NONE && p->has_cookie && !is_spoofed) {
        sim_accept(s, p->flow, p->incarnation);
    } else if (tcb->state == SIM_NONE) {
        if (!sim_may_create(s, tid, p->flow))
            return;
        sim_create(s, tid, p->flow, SIM_SYN_RECEIVED, p->incarnation);
        sim_accept(s, p->flow, p->incarnation);
    } else if (tcb->state == SIM_TIME_WAIT && !is_spoofed && p->incarnation > tcb->incarnation) {
        sim_set(s, tid, p->flow, SIM_SYN_RECEIVED, p->incarnation);
        sim_accept(s, p->flow, p->incarnation);
    } else if (tcb->incarnation == p->incarnation) {
        sim_accept(s, p->flow, p->incarnation);
    }
}

static bool sim_is_live_elsewhere(const struct sim *s, uint32_t tid, const struct sim_packet *p)
{
    const struct sim_flow *f = &s->flow[p->flow];

    for (uint32_t i = 0; i < SIM_TIDS; i++) {
        const struct sim_tcb *tcb = &s->thread[i].tcb[p->flow];
        if (i != tid && !s->thread[i].is_dead && (tcb->state == SIM_ESTABLISHED || tcb->state == SIM_SYN_RECEIVED) &&
            tcb->incarnation == p->incarnation && f->state == SIM_OPENED && f->incarnation == p->incarnation)
            return true;
    }
    return false;
}

static void sim_miss(struct sim *s, uint32_t tid, const struct sim_packet *p)
{
    struct csb_member asked = s->thread[tid].member;
    struct sim_flow *f = &s->flow[p->flow];

    if (sim_is_off(s, SIM_SEALED_SILENCE))
        asked.is_sealed = false;
    if (sim_is_off(s, SIM_REBUILD_SILENCE))
        asked.is_rebuilding = false;
    if (!csb_member_answers_miss(&asked, f->hash)) {
        s->result.late_drops++;
        return;
    }
    s->result.resets += sim_is_live_elsewhere(s, tid, p);
    if (f->state == SIM_OPENED && f->incarnation == p->incarnation)
        f->state = SIM_CLOSED;
}

static void sim_data(struct sim *s, uint32_t tid, const struct sim_packet *p)
{
    struct sim_tcb *tcb = &s->thread[tid].tcb[p->flow];

    if (tcb->state == SIM_NONE && p->has_cookie && p->kind == SIM_DATA) {
        if (sim_may_create(s, tid, p->flow))
            sim_create(s, tid, p->flow, SIM_ESTABLISHED, p->incarnation);
    } else if (tcb->state == SIM_NONE) {
        sim_miss(s, tid, p);
    } else if (tcb->incarnation == p->incarnation && tcb->state != SIM_TIME_WAIT) {
        sim_set(s, tid, p->flow, p->kind == SIM_FIN ? SIM_TIME_WAIT : SIM_ESTABLISHED, p->incarnation);
    }
}

/* TIME-WAIT ends, half-open connections and those whose peer has gone are given up. */
static void sim_expire(struct sim *s, uint32_t tid, uint32_t flow)
{
    struct sim_tcb *tcb = &s->thread[tid].tcb[flow];
    const struct sim_flow *f = &s->flow[flow];
    bool is_wanted = f->state != SIM_CLOSED && f->incarnation == tcb->incarnation;

    if (tcb->state != SIM_NONE && !is_wanted && sim_draw(s, 3) == 0)
        sim_set(s, tid, flow, SIM_NONE, 0);
}

/* An active open: a port is chosen by the published map; the SYN goes out some time later. */
static void sim_connect(struct sim *s, uint32_t tid, uint32_t flow)
{
    struct csb_member *m = &s->thread[tid].member;
    struct sim_flow *f = &s->flow[flow];

    if (f->chosen_by == (int)tid) {
        bool may = !sim_is_elsewhere(s, tid, flow);
        uint32_t listed = m->list_count;

        f->chosen_by = -1;
        if (sim_is_off(s, SIM_RETEST))
            may &= sim_may_create(s, tid, flow);
        else
            may &= csb_member_connect(m, f->hash);
        if (sim_is_off(s, SIM_LATE))
            m->list_count = listed;
        if (!may)
            return;
        f->incarnation++;
        f->has_cookie = false;
        f->state = SIM_OPENED;
        s->result.connections++;
        sim_create(s, tid, flow, SIM_SYN_RECEIVED, f->incarnation); /* the peer's answer is on its way */
    } else if (f->chosen_by < 0 && f->state == SIM_CLOSED && m->view != NULL &&
               csb_view_lookup(m->view, f->hash) == tid && s->thread[tid].tcb[flow].state == SIM_NONE) {
        f->chosen_by = (int)tid;
    }
}
