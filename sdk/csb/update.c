/*
 * update.c: the three roles of an update, each a few fields and the questions put to them.
 */
#include "csb/update.h"

#include <string.h>

static bool is_waiting(const struct csb_update *u)
{
    uint64_t any = u->ios_waiting;

    for (uint32_t i = 0; i < CSB_TID_WORDS; i++)
        any |= u->waiting[i];
    return any != 0;
}

static bool waits_for_io(enum csb_phase phase)
{
    return phase == CSB_DRAIN || phase == CSB_PUBLISH;
}

static void enter(struct csb_update *u, enum csb_phase phase)
{
    u->phase = phase;
    u->ios_waiting = waits_for_io(phase) ? u->ios : 0;
    memset(u->waiting, 0, sizeof u->waiting);
    if (phase != CSB_IDLE && !waits_for_io(phase))
        memcpy(u->waiting, u->members, sizeof u->waiting);
}

bool csb_update_start(struct csb_update *u, const uint64_t members[CSB_TID_WORDS], uint64_t ios, bool is_checked,
                      uint64_t now_us, uint64_t limit_us)
{
    if (u->phase != CSB_IDLE)
        return false;
    u->attempt++;
    u->deadline_us = now_us + limit_us;
    u->is_checked = is_checked;
    u->ios = ios;
    memcpy(u->members, members, sizeof u->members);
    enter(u, CSB_COLLECT);
    return true;
}

bool csb_update_member_done(struct csb_update *u, uint64_t attempt, enum csb_phase phase, uint16_t tid)
{
    uint64_t bit = UINT64_C(1) << (tid % 64);

    if (attempt != u->attempt || phase != u->phase || tid >= CSB_TIDS_MAX || !(u->waiting[tid / 64] & bit))
        return false;
    u->waiting[tid / 64] &= ~bit;
    return true;
}

bool csb_update_io_done(struct csb_update *u, uint64_t attempt, enum csb_phase phase, uint32_t io)
{
    if (attempt != u->attempt || phase != u->phase || io >= CSB_IO_MAX || !(u->ios_waiting >> io & 1))
        return false;
    u->ios_waiting &= ~(UINT64_C(1) << io);
    return true;
}

bool csb_update_advance(struct csb_update *u)
{
    if (u->phase == CSB_IDLE || is_waiting(u))
        return false;
    if (u->phase == CSB_OPEN)
        enter(u, CSB_IDLE);
    else if (u->phase == CSB_COLLECT && !u->is_checked)
        enter(u, CSB_DRAIN);
    else
        enter(u, u->phase + 1);
    return true;
}

bool csb_update_abort(struct csb_update *u)
{
    if (u->phase == CSB_IDLE || u->phase >= CSB_PUBLISH)
        return false;
    enter(u, CSB_IDLE);
    return true;
}

bool csb_update_tick(struct csb_update *u, uint64_t now_us)
{
    return now_us >= u->deadline_us && csb_update_abort(u);
}

bool csb_update_lost(struct csb_update *u, uint16_t tid)
{
    uint64_t bit = UINT64_C(1) << (tid % 64);

    if (tid >= CSB_TIDS_MAX || !(u->members[tid / 64] & bit))
        return false;
    u->members[tid / 64] &= ~bit;
    u->waiting[tid / 64] &= ~bit;
    return csb_update_abort(u);
}

void csb_member_begin(struct csb_member *m, uint64_t attempt, const struct csb_plan *plan, uint64_t ios, uint64_t *list,
                      uint32_t list_room)
{
    *m = (struct csb_member){
        .attempt = attempt,
        .view = m->view,
        .plan = plan,
        .ios = ios,
        .list = list,
        .list_room = list_room,
        .tid = m->tid,
        .is_rebuilding = m->is_rebuilding,
    };
}

bool csb_member_walk(struct csb_member *m, const uint64_t *column, uint32_t rows, uint32_t budget)
{
    uint32_t room = m->list_room - m->list_count;
    uint64_t *out = m->list + m->list_count;

    if (m->draft != NULL)
        m->list_count += csb_walk_check(m->draft, m->tid, column, rows, &m->cursor, budget, out, room);
    else
        m->list_count += csb_walk(m->plan, m->view, m->tid, column, rows, &m->cursor, budget, out, room);
    if (m->cursor < rows && m->list_count == m->list_room)
        m->is_full = true;
    return m->cursor >= rows || m->is_full;
}

void csb_member_check(struct csb_member *m, const struct csb_view *draft)
{
    m->draft = draft;
    m->cursor = 0;
}

bool csb_member_marker(struct csb_member *m, uint64_t attempt, enum csb_marker marker, uint32_t io)
{
    uint64_t *seen = marker == CSB_MARKER_SEAL ? &m->seal_markers : &m->open_markers;

    if (attempt == 0 || attempt != m->attempt || io >= CSB_IO_MAX)
        return false;
    *seen |= UINT64_C(1) << io & m->ios;
    if (*seen != m->ios)
        return false;
    m->is_sealed |= marker == CSB_MARKER_SEAL;
    return true;
}

static bool concerns(const struct csb_member *m, uint64_t hash)
{
    return csb_plan_concerns(m->plan, m->view, m->tid, hash) ||
           (m->draft != NULL && csb_view_lookup(m->draft, hash) != m->tid);
}

/* Whether the flow may belong to another thread by an exception that nobody knows any more. */
static bool is_in_doubt(const struct csb_member *m, uint64_t hash)
{
    return m->is_rebuilding && (m->view == NULL || m->view->slot[csb_key(hash) >> CSB_SLOT_SHIFT] & CSB_SLOT_FLAG);
}

bool csb_member_create(struct csb_member *m, uint64_t hash)
{
    if (is_in_doubt(m, hash))
        return false;
    if (m->attempt == 0 || !concerns(m, hash))
        return true;
    if (m->is_sealed)
        return false;
    if (m->list_count == m->list_room)
        m->is_full = true;
    else
        m->list[m->list_count++] = hash;
    return true;
}

bool csb_member_connect(struct csb_member *m, uint64_t hash)
{
    return m->view != NULL && csb_view_lookup(m->view, hash) == m->tid && csb_member_create(m, hash);
}

bool csb_member_answers_miss(const struct csb_member *m, uint64_t hash)
{
    return !is_in_doubt(m, hash) && !(m->attempt != 0 && m->is_sealed && concerns(m, hash));
}

void csb_member_open(struct csb_member *m, const struct csb_view *view)
{
    *m = (struct csb_member){.tid = m->tid, .view = view};
}

void csb_member_abort(struct csb_member *m)
{
    *m = (struct csb_member){.tid = m->tid, .view = m->view, .is_rebuilding = m->is_rebuilding};
}

void csb_io_drain(struct csb_io *io, const struct csb_plan *plan)
{
    io->plan = plan;
}

void csb_io_publish(struct csb_io *io, const struct csb_view *view)
{
    io->view = view;
    io->plan = NULL;
}

void csb_io_abort(struct csb_io *io)
{
    io->plan = NULL;
}
