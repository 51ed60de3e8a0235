/*
 * balance.c: a TCP thread's part in the balancer's updates.
 */
#include "app/balance.h"

#include "app/clock.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

/* A turn takes small steps until its time or its number of them is over: what one step may add is what a thread is held longer. */
enum {
    TURN_US = 10,
    TURN_STEPS = 16,
    STEP_ROWS = 256,   /* walked: about 1 us, 8 us where each key has to be looked for among the points */
    LIST_ROOM = 65536, /* hashes that wait to be sent; the walk uses half, what is created late the rest */
    WALK_ROOM = 32768,
    PROMPT_HASHES = 128, /* no more are sent by the thread itself, when newcomers wait for its answer */
    VIEW_WAIT_NS = 20000,
};

/* --- values --- */

static void retire(struct balance *b, struct balance_map *map)
{
    mapper_unmap(&b->mapper, map->memory, map->bytes);
    *map = (struct balance_map){0};
}

static bool is_view(const struct balance_map *map)
{
    const struct csb_view *view = map->memory;

    return view != NULL && map->bytes >= sizeof *view && view->bytes <= map->bytes &&
           view->map.point_count <= CSB_POINTS_MAX &&
           sizeof *view + (uint64_t)view->line_count * sizeof(struct csb_line) +
                   (uint64_t)view->exact_size * sizeof(struct csb_exact) <=
               map->bytes;
}

/* --- beginning and ending --- */

static void forget_attempt(struct balance *b)
{
    retire(b, &b->list);
    retire(b, &b->plan);
    retire(b, &b->draft);
    b->sent = 0;
    b->is_walking = b->has_failed = false;
    b->due = CSB_IDLE;
}

void balance_start(struct balance *b, struct attach *attach, uint16_t tid, bool is_on)
{
    b->attach = attach;
    b->is_on = is_on;
    b->member.tid = tid;
    if (!is_on)
        b->member.is_rebuilding = false;
}

/* Published, but not all that went by the former map has come out of the rings, or the view is not mapped. */
static bool is_unopened(const struct balance *b)
{
    return b->is_open_due || (b->member.attempt != 0 && b->view_heard == b->member.attempt);
}

static void drop_deferred(struct balance *b)
{
    if (b->has_deferred && b->deferred_fd >= 0)
        close(b->deferred_fd);
    b->has_deferred = false;
}

void balance_lost(struct balance *b)
{
    csb_member_abort(&b->member);
    forget_attempt(b);
    drop_deferred(b);
    retire(b, &b->view);
    retire(b, &b->next);
    b->member.view = NULL;
    b->member.is_rebuilding = b->is_on;
    b->is_open_due = false;
    b->attempt = b->view_heard = 0;
    b->views_asked = 0;
    b->session++;
}

static void drop(struct balance *b, const struct mapper_job *job)
{
    mapper_unmap(&b->mapper, job->memory, job->bytes);
    mapper_unmap(&b->mapper, job->list, job->list_bytes);
}

void balance_free(struct balance *b)
{
    struct mapper_job job;

    mapper_stop(&b->mapper);
    while (mapper_take(&b->mapper, &job))
        drop(b, &job);
    drop_deferred(b);
    forget_attempt(b);
    retire(b, &b->view);
    retire(b, &b->next);
}

static void fail(struct balance *b, uint64_t attempt)
{
    csb_member_abort(&b->member);
    forget_attempt(b);
    b->attempt = attempt;
    b->has_failed = true;
}

/* A view is in force: the one of an update whose markers have all come, or one that janusd says so of. */
static void enter_view(struct balance *b, uint64_t now_us)
{
    retire(b, &b->view);
    b->view = b->next;
    b->next = (struct balance_map){0};
    b->member.view = b->view.memory;
    tcp_expect_cookies(b->stack, now_us);
}

/* All open markers have come, and the view that they stand for is mapped. */
static void open_view(struct balance *b, uint64_t now_us)
{
    csb_member_open(&b->member, b->next.memory);
    forget_attempt(b);
    enter_view(b, now_us);
    b->is_open_due = false;
    b->due = CSB_OPEN;
    b->updates++;
}

/* All open markers have come: what follows in the rings went by the new map.  A view that is still being mapped is waited for by active opens
 * alone. */
static void open_early(struct balance *b, uint64_t now_us)
{
    if (!b->is_open_due || b->view_heard != b->attempt)
        return;
    if (b->next.memory && b->next_attempt == b->attempt) {
        open_view(b, now_us);
    } else if (b->member.attempt != 0) {
        csb_member_open(&b->member, b->view.memory);
        forget_attempt(b);
    }
}

/* --- how long the thread is held --- */

static struct balance_time time_now(void)
{
    return (struct balance_time){.wall_us = clock_now_us(), .own_ns = clock_thread_ns()};
}

/* Adds to this turn what the thread has worked since then, and what time has gone by. */
static void note_held(struct balance *b, struct balance_time since)
{
    b->spent.own_ns += clock_thread_ns() - since.own_ns;
    b->spent.wall_us += clock_now_us() - since.wall_us;
    b->held.own_ns = b->spent.own_ns > b->held.own_ns ? b->spent.own_ns : b->held.own_ns;
    b->held.wall_us = b->spent.wall_us > b->held.wall_us ? b->spent.wall_us : b->held.wall_us;
}

/* --- what janusd says: a value is mapped first --- */

static void begin(struct balance *b, const struct mapper_job *job)
{
    const struct attach_csb *m = &job->message;

    if (m->attempt != b->attempt) {
        drop(b, job);
        return;
    }
    b->plan = (struct balance_map){job->memory, job->bytes};
    b->list = (struct balance_map){job->list, job->list_bytes};
    if (job->memory == NULL || job->list == NULL || job->bytes < sizeof(struct csb_plan)) {
        fail(b, m->attempt);
        return;
    }
    b->part = 0;
    b->is_walking = true;
    csb_member_begin(&b->member, m->attempt, b->plan.memory, m->ios, job->list, LIST_ROOM);
}

static void check(struct balance *b, const struct mapper_job *job)
{
    const struct attach_csb *m = &job->message;

    if (m->attempt != b->member.attempt) {
        drop(b, job);
        return;
    }
    retire(b, &b->draft);
    b->draft = (struct balance_map){job->memory, job->bytes};
    if (!is_view(&b->draft)) {
        fail(b, m->attempt);
        return;
    }
    csb_member_check(&b->member, b->draft.memory);
    b->part = 0;
    b->is_walking = true;
}

static void take_view(struct balance *b, const struct mapper_job *job, uint64_t now_us)
{
    const struct attach_csb *m = &job->message;

    b->views_asked--;
    retire(b, &b->next);
    b->next = (struct balance_map){job->memory, job->bytes};
    if (!is_view(&b->next)) {
        retire(b, &b->next);
        fail(b, m->attempt);
        b->is_open_due = false;
        return;
    }
    b->next_attempt = m->attempt != 0 ? m->attempt : b->attempt;
    if (m->attempt == 0 && !is_unopened(b)) { /* else it takes the place of the one that is to be opened */
        csb_member_abort(&b->member);
        forget_attempt(b);
        b->member.is_rebuilding = m->phase != 0;
        enter_view(b, now_us);
    } else {
        open_early(b, now_us);
    }
}

/* Takes what is mapped. */
static void take_values(struct balance *b, uint64_t now_us)
{
    struct mapper_job job;

    while (mapper_take(&b->mapper, &job)) {
        if (job.session != b->session)
            drop(b, &job);
        else if (job.message.type == ATTACH_CSB_BEGIN)
            begin(b, &job);
        else if (job.message.type == ATTACH_CSB_CHECK)
            check(b, &job);
        else
            take_view(b, &job, now_us);
    }
}

static void end_attempt(struct balance *b)
{
    csb_member_abort(&b->member);
    forget_attempt(b);
    b->is_open_due = false;
}

static void ask_for(struct balance *b, const struct attach_csb *message, int fd)
{
    bool is_begin = message->type == ATTACH_CSB_BEGIN, is_view = message->type == ATTACH_CSB_VIEW;

    if (is_begin) {
        end_attempt(b);
        b->attempt = message->attempt;
    }
    b->views_asked += is_view;
    if (is_view && message->attempt != 0)
        b->view_heard = message->attempt;
    if (!mapper_map(&b->mapper, message, fd, is_begin ? LIST_ROOM * sizeof(uint64_t) : 0, b->session)) {
        b->views_asked -= is_view;
        fail(b, message->attempt);
    }
}

/* Kept until the thread has opened: who hung so long that janusd went on still has packets of the former map in front of it. */
static void defer(struct balance *b, const struct attach_csb *message, int fd)
{
    drop_deferred(b);
    b->has_deferred = true;
    b->deferred = *message;
    b->deferred_fd = fd;
}

static void abort_attempt(struct balance *b, uint64_t attempt)
{
    if (b->has_deferred && b->deferred.attempt == attempt)
        drop_deferred(b);
    if (attempt != b->attempt || b->is_open_due)
        return;
    end_attempt(b);
    b->attempt = 0;
}

void balance_hear(struct balance *b, const struct attach_csb *message, int fd, uint64_t now_us)
{
    struct balance_time began = time_now();

    if (message->type == ATTACH_CSB_ABORT) {
        abort_attempt(b, message->attempt);
        if (fd >= 0)
            close(fd);
    } else if (message->type == ATTACH_CSB_BEGIN && is_unopened(b)) {
        defer(b, message, fd);
    } else {
        ask_for(b, message, fd);
        take_values(b, now_us);
        open_early(b, now_us);
    }
    note_held(b, began);
}

void balance_marker(struct balance *b, uint32_t attempt, uint32_t marker, uint32_t io, uint64_t now_us)
{
    struct balance_time began = time_now();

    take_values(b, now_us);
    if (attempt != (uint32_t)b->member.attempt || marker > CSB_MARKER_OPEN ||
        !csb_member_marker(&b->member, b->member.attempt, (enum csb_marker)marker, io))
        return;
    if (marker == CSB_MARKER_SEAL) {
        b->due = CSB_SEAL;
    } else {
        b->is_open_due = true;
        open_early(b, now_us);
    }
    note_held(b, began);
}

/* --- each turn --- */

static bool has_room_for_walk(const struct csb_member *m)
{
    return m->list_count + STEP_ROWS <= WALK_ROOM;
}

/* True: some rows were walked. */
static bool walk(struct balance *b)
{
    struct csb_member *m = &b->member;
    const uint64_t *column;
    uint32_t rows;

    if (!b->is_walking || !has_room_for_walk(m))
        return false;
    rows = tcp_flow_column(b->stack, b->part, &column);
    if (!csb_member_walk(m, column, rows, STEP_ROWS))
        return true;
    m->cursor = 0;
    if (++b->part == TCP_FLOW_COLUMNS) {
        b->is_walking = false;
        b->due = m->draft ? CSB_CHECK : CSB_COLLECT;
    }
    return true;
}

static uint32_t unsent(const struct balance *b)
{
    return b->member.attempt != 0 ? b->member.list_count - b->sent : 0;
}

/* Newcomers wait for the answer to a marker: it does not wait for the other thread to be woken. */
static bool is_prompt(const struct balance *b)
{
    return b->has_failed || b->due == CSB_OPEN ||
           (b->due == CSB_SEAL && unsent(b) <= PROMPT_HASHES && !mapper_is_sending(&b->mapper));
}

/* What is listed is sent beside the loop, when it is all, with the answer, or when it is much. */
static bool hand_over(struct balance *b)
{
    struct csb_member *m = &b->member;
    bool is_much = !has_room_for_walk(m) && unsent(b) > 0 && !mapper_is_sending(&b->mapper);

    if (m->attempt == 0 || is_prompt(b) || (b->due == CSB_IDLE && !is_much) ||
        !mapper_send(&b->mapper, b->attach->fd, b->attempt, m->list + b->sent, unsent(b), b->due))
        return false;
    b->sent = m->list_count;
    b->due = CSB_IDLE;
    return true;
}

static bool answer(struct balance *b)
{
    uint32_t count = unsent(b);

    if ((b->due == CSB_IDLE && !b->has_failed) || !is_prompt(b))
        return false;
    if (count > 0 && attach_send_list(b->attach->fd, b->attempt, b->member.list + b->sent, count) < 0)
        return false;
    b->sent += count;
    if (attach_send_done(b->attach->fd, b->attempt, b->has_failed ? CSB_IDLE : b->due) < 0)
        return false;
    b->due = CSB_IDLE;
    b->has_failed = false;
    return true;
}

/* What is sent makes room. */
static void take_room(struct balance *b)
{
    if (b->sent > 0 && unsent(b) == 0 && !mapper_is_sending(&b->mapper))
        b->member.list_count = b->sent = 0;
}

static bool is_deferred_due(const struct balance *b)
{
    return b->has_deferred && !is_unopened(b);
}

bool balance_turn(struct balance *b)
{
    struct balance_time began = time_now();
    uint64_t until_us = began.wall_us + TURN_US;
    bool is_going = true;

    if (is_deferred_due(b)) {
        ask_for(b, &b->deferred, b->deferred_fd);
        b->has_deferred = false;
    }
    take_values(b, began.wall_us);
    if (b->member.is_full)
        fail(b, b->member.attempt);
    take_room(b);
    for (uint32_t step = 0; is_going && step < TURN_STEPS && (step == 0 || clock_now_us() < until_us); step++)
        is_going = hand_over(b) || walk(b) || answer(b);
    mapper_wake(&b->mapper);
    note_held(b, began);
    b->spent = (struct balance_time){0};
    return b->is_walking || b->due != CSB_IDLE || b->has_failed || is_deferred_due(b);
}

/* --- what the stack asks --- */

bool balance_may_create(struct balance *b, uint64_t hash)
{
    return csb_member_create(&b->member, hash);
}

/* The view in force, waited for if it is being mapped: an active open wants the newest. */
static void await_view(struct balance *b)
{
    mapper_wake(&b->mapper);
    while (b->views_asked > 0) {
        take_values(b, clock_now_us());
        if (b->views_asked > 0)
            nanosleep(&(struct timespec){.tv_nsec = VIEW_WAIT_NS}, NULL);
    }
}

bool balance_may_connect(struct balance *b, uint64_t hash)
{
    await_view(b);
    return !b->is_on || csb_member_connect(&b->member, hash);
}

enum tcp_miss balance_miss(const struct balance *b, uint64_t hash)
{
    const struct csb_member *m = &b->member;

    if (!csb_member_answers_miss(m, hash) || b->is_open_due || b->views_asked > 0)
        return TCP_MISS_SILENT;
    if (!m->view || csb_view_lookup(m->view, hash) == m->tid)
        return TCP_MISS_RESET;
    return attach_wait(b->attach, 0) ? TCP_MISS_SILENT : TCP_MISS_FOREIGN; /* perhaps a newer view waits to be read */
}

void balance_ended(struct balance *b, uint64_t hash)
{
    const struct csb_view *view = b->member.view;

    /* Where no slot is flagged all keys are the circle's, and its slots need not come into the cache. */
    b->closed += view && view->flagged_count != 0 && csb_lookup(&view->map, csb_key(hash)) != b->member.tid;
}
