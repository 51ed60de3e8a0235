/*
 * update.h: the update from map n-1 to map n without a packet astray (paper section IV, its in-between repaired).
 *
 *   controller   COLLECT ──────> CHECK ──> DRAIN ───────> SEAL ───────────> PUBLISH ────> OPEN ─────> IDLE
 *   I/O thread                             holds SYNs,    (markers          swaps,
 *                                          seal markers    travel)          open markers
 *   TCP thread   walks, then     walks     -              after the last    -            after the last
 *                lists the late                           marker: sealed                 marker: open
 *
 * 1. Every packet follows map n-1 until its I/O thread has swapped: there is no state per SYN (the paper's Set_fly).
 * 2. A TCP thread walks all its flows, in whatever state, and reports those that the update concerns (walk.h); those that
 *    it creates from then on it reports as well: the late list.
 * 3. In DRAIN an I/O thread holds SYNs of moved flows back, or drops them, and puts a marker into each ring.
 * 4. A thread that has the marker of every I/O thread is sealed: it creates no concerned flow, and answers a miss on one by
 *    dropping, never by RST.  A second marker, behind the last packet that went by map n-1, opens it again.
 * 5. When all are sealed the lists become one view, which goes to all I/O threads by one pointer.
 * 6. Until then the update can be aborted at any time: map n is dropped, and there is nothing to undo.
 *
 * CHECK is taken when flows of one key may have got two owners: after a restart, with the circle as it was.  Three values, one per role, none of which
 * knows threads, rings or clocks: whoever owns them carries orders and answers, each with the number of the attempt, so
 * that what comes late from an aborted one is nothing.
 */
#ifndef CSB_UPDATE_H
#define CSB_UPDATE_H

#include "csb/walk.h"

enum {
    CSB_IO_MAX = 64,
    CSB_TID_WORDS = CSB_TIDS_MAX / 64,
};

/* --- the controller's part --- */

enum csb_phase {
    CSB_IDLE,
    CSB_COLLECT, /* every member: begin, walk, answer */
    CSB_CHECK,   /* every member: check the draft, answer */
    CSB_DRAIN,   /* every I/O thread: drain, answer when its markers are in the rings */
    CSB_SEAL,    /* every member: answer when sealed, with its lists */
    CSB_PUBLISH, /* build the view; every I/O thread: publish, answer when it has swapped */
    CSB_OPEN,    /* every member: answer when open; the former view is nobody's any more */
};

struct csb_update {
    uint64_t attempt;
    uint64_t deadline_us; /* of being aborted; not from PUBLISH on */
    enum csb_phase phase;
    bool is_checked;
    uint64_t members[CSB_TID_WORDS]; /* a bit per tid */
    uint64_t waiting[CSB_TID_WORDS]; /* members that have not answered in this phase */
    uint64_t ios, ios_waiting;
};

/* Starts an attempt: COLLECT.  is_checked: with CHECK; H_new must then be that of map n-1.  False: one runs; whoever asks keeps the last target for the next one. */
bool csb_update_start(struct csb_update *u, const uint64_t members[CSB_TID_WORDS], uint64_t ios, bool is_checked,
                      uint64_t now_us, uint64_t limit_us);

/* A member or an I/O thread has done what the phase asks.  False: not of this attempt and phase; it is ignored. */
bool csb_update_member_done(struct csb_update *u, uint64_t attempt, enum csb_phase phase, uint16_t tid);
bool csb_update_io_done(struct csb_update *u, uint64_t attempt, enum csb_phase phase, uint32_t io);

/* Enters the next phase when nobody is waited for: true, and the owner gives the orders of u->phase. */
bool csb_update_advance(struct csb_update *u);

/* Gives the attempt up: true, and the owner tells all members and I/O threads.  False: idle, or published already. */
bool csb_update_abort(struct csb_update *u);

/* Aborts what has not published by its deadline. */
bool csb_update_tick(struct csb_update *u, uint64_t now_us);

/* A tid has died.  True: the attempt is aborted by it.  Once published, it is only waited for no longer. */
bool csb_update_lost(struct csb_update *u, uint16_t tid);

/* --- a TCP thread's part --- */

enum csb_marker {
    CSB_MARKER_SEAL,
    CSB_MARKER_OPEN,
};

struct csb_member {
    uint64_t attempt;            /* 0: open, no update */
    const struct csb_view *view; /* in force for this thread */
    const struct csb_plan *plan;
    const struct csb_view *draft; /* of CHECK, or NULL */
    uint64_t ios, seal_markers, open_markers;
    uint64_t *list; /* of list_room hashes */
    uint32_t list_count, list_room;
    uint32_t cursor;
    uint16_t tid;
    bool is_sealed;
    bool is_full; /* the list was too short: this attempt must be aborted */
    bool
        is_rebuilding; /* after a restart, until the first view is opened: exceptions of view's flagged slots are unknown */
};

/* An attempt begins: from here on concerned flows that are created are listed.  plan and list stay until the end. */
void csb_member_begin(struct csb_member *m, uint64_t attempt, const struct csb_plan *plan, uint64_t ios, uint64_t *list,
                      uint32_t list_room);

/* Walks some more of the column; true when all of it has been seen, or the list is full. */
bool csb_member_walk(struct csb_member *m, const uint64_t *column, uint32_t rows, uint32_t budget);

/* Turns to the second walk, over what the draft would misdirect; csb_member_walk does it. */
void csb_member_check(struct csb_member *m, const struct csb_view *draft);

/* A marker came out of the ring from I/O thread io.  True: it was the last of its kind: the member is sealed now, or must
 * be opened before the next packet. */
bool csb_member_marker(struct csb_member *m, uint64_t attempt, enum csb_marker marker, uint32_t io);

/* A flow is about to be created, by a SYN or a cookie.  False: it must not be; else it is listed if it must be. */
bool csb_member_create(struct csb_member *m, uint64_t hash);

/* The same for an active open, at the moment that creates it: the published map must give it to this thread. */
bool csb_member_connect(struct csb_member *m, uint64_t hash);

/* Whether a packet without a flow may be answered by RST; else it is dropped. */
bool csb_member_answers_miss(const struct csb_member *m, uint64_t hash);

/* Map n is in force for this thread, and the attempt over: its plan, former view, draft and list are the owner's again. */
void csb_member_open(struct csb_member *m, const struct csb_view *view);

/* The attempt is aborted: the same, but for the view, which stays. */
void csb_member_abort(struct csb_member *m);

/* --- an I/O thread's part --- */

#define CSB_DROP_SYN                                                                                                   \
    ((uint16_t)0x7ffe) /* of csb_io_route: a moved flow's SYN while draining; it may be held and routed anew, or the client sends it again */

struct csb_io {
    const struct csb_view *view; /* in force; the old one is free when the swap is answered */
    const struct csb_plan *plan; /* while draining, else NULL */
};

/* Where a packet goes: a tid, CSB_NO_TID or CSB_DROP_SYN.  is_syn: SYN without ACK. */
static inline uint16_t csb_io_route(const struct csb_io *io, uint64_t hash, bool is_syn)
{
    uint16_t tid = csb_view_lookup(io->view, hash);

    if (__builtin_expect(io->plan != NULL && is_syn, 0) && csb_plan_concerns(io->plan, io->view, tid, hash))
        return CSB_DROP_SYN;
    return tid;
}

/* DRAIN: then a seal marker goes into each ring.  PUBLISH: then an open marker.  Abort: nothing more. */
void csb_io_drain(struct csb_io *io, const struct csb_plan *plan);
void csb_io_publish(struct csb_io *io, const struct csb_view *view);
void csb_io_abort(struct csb_io *io);

#endif
