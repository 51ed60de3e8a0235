/*
 * balance.c: a TCP thread's part in the balancer's updates.
 */
#include "app/balance.h"

#include "app/clock.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* A turn takes small steps until its time or its number of them is over: what one step may add is what a thread is held longer. */
enum {
    TURN_US = 20,
    TURN_STEPS = 16,
    STEP_ROWS = 256, /* walked: about 1 us, 8 us where each key has to be looked for among the points */
    PAGE = 4096,
    STEP_TOUCHED = 16 * PAGE,  /* of a value that a walk will read: page faults */
    STEP_RELEASED = 64 * PAGE, /* of a value that is over */
    LIST_ROOM = 65536,         /* hashes that wait to be sent; the walk uses half, what is created late the rest */
    WALK_ROOM = 32768,
    SEND_HASHES = 1024, /* of a message */
};

/* --- values --- */

static void unmap(struct balance_map *map)
{
    if (map->memory)
        munmap((void *)(uintptr_t)map->memory, map->bytes);
    *map = (struct balance_map){0};
}

/* It is over: release() gives it back by and by. */
static void retire(struct balance *b, struct balance_map *map)
{
    if (map->memory && b->retired_count < BALANCE_RETIRED_MAX) {
        b->retired[b->retired_count++] = *map;
        *map = (struct balance_map){0};
    }
    unmap(map);
}

/* True: there was something to give back. */
static bool release(struct balance *b)
{
    struct balance_map *map;
    uint64_t left;

    if (b->retired_count == 0)
        return false;
    map = &b->retired[b->retired_count - 1];
    left = (map->bytes - 1) / STEP_RELEASED * STEP_RELEASED;
    munmap((char *)(uintptr_t)map->memory + left, map->bytes - left);
    map->bytes = left;
    b->retired_count -= left == 0;
    return true;
}

/* True: a part of it had not been read yet. */
static bool touch(struct balance_map *map)
{
    uint64_t end = map->touched + STEP_TOUCHED < map->bytes ? map->touched + STEP_TOUCHED : map->bytes;

    if (map->touched == map->bytes)
        return false;
    for (uint64_t at = map->touched; at < end; at += PAGE)
        (void)*((const volatile uint8_t *)map->memory + at);
    map->touched = end;
    return true;
}

/* Maps bytes of fd, at least least of them.  False: it is not what it is said to be. */
static bool map_value(struct balance *b, struct balance_map *map, int fd, uint64_t bytes, uint64_t least)
{
    struct stat st;
    void *p;

    retire(b, map);
    if (fd < 0 || bytes < least || fstat(fd, &st) < 0 || (uint64_t)st.st_size < bytes)
        return false;
    p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return false;
    *map = (struct balance_map){.memory = p, .bytes = bytes};
    return true;
}

static bool map_view(struct balance *b, struct balance_map *map, int fd, uint64_t bytes)
{
    const struct csb_view *view;

    if (!map_value(b, map, fd, bytes, sizeof *view))
        return false;
    view = map->memory;
    if (view->bytes <= bytes && view->map.point_count <= CSB_POINTS_MAX &&
        sizeof *view + (uint64_t)view->line_count * sizeof(struct csb_line) +
                (uint64_t)view->exact_size * sizeof(struct csb_exact) <=
            bytes)
        return true;
    retire(b, map);
    return false;
}

static bool make_list(struct balance *b)
{
    uint64_t bytes = LIST_ROOM * sizeof(uint64_t);
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        return false;
    b->list = (struct balance_map){.memory = p, .bytes = bytes};
    return true;
}

/* --- beginning and ending --- */

static void forget_attempt(struct balance *b)
{
    retire(b, &b->list);
    retire(b, &b->plan);
    retire(b, &b->draft);
    b->sent = 0;
    b->is_walking = b->is_open_due = b->has_failed = false;
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

void balance_lost(struct balance *b)
{
    csb_member_abort(&b->member);
    forget_attempt(b);
    retire(b, &b->view);
    retire(b, &b->next);
    b->member.view = NULL;
    b->member.is_rebuilding = b->is_on;
}

void balance_free(struct balance *b)
{
    forget_attempt(b);
    retire(b, &b->view);
    retire(b, &b->next);
    while (release(b))
        ;
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
    tcp_expect_cookies(b->stack, now_us);
}

static void open_view(struct balance *b, uint64_t now_us)
{
    csb_member_open(&b->member, b->next.memory);
    forget_attempt(b);
    enter_view(b, now_us);
    b->due = CSB_OPEN;
    b->updates++;
}

/* Adds what the thread has worked since began_ns to this turn; others' turns on its processor are not in it. */
static void note_held(struct balance *b, uint64_t began_ns)
{
    b->spent_ns += clock_thread_ns() - began_ns;
    b->held_ns = b->spent_ns > b->held_ns ? b->spent_ns : b->held_ns;
}

/* --- what janusd says --- */

static void begin(struct balance *b, const struct attach_csb *m, int fd)
{
    csb_member_abort(&b->member);
    forget_attempt(b);
    if (!make_list(b) || !map_value(b, &b->plan, fd, m->bytes, sizeof(struct csb_plan))) {
        fail(b, m->attempt);
        return;
    }
    b->attempt = m->attempt;
    b->part = 0;
    b->is_walking = true;
    csb_member_begin(&b->member, m->attempt, b->plan.memory, m->ios, (uint64_t *)(uintptr_t)b->list.memory, LIST_ROOM);
}

static void check(struct balance *b, const struct attach_csb *m, int fd)
{
    if (m->attempt != b->member.attempt)
        return;
    if (!map_view(b, &b->draft, fd, m->bytes)) {
        fail(b, m->attempt);
        return;
    }
    csb_member_check(&b->member, b->draft.memory);
    b->part = 0;
    b->is_walking = true;
}

static void take_view(struct balance *b, const struct attach_csb *m, int fd, uint64_t now_us)
{
    if (!map_view(b, &b->next, fd, m->bytes)) {
        fail(b, m->attempt);
        return;
    }
    b->next_attempt = m->attempt;
    if (m->attempt == 0) {
        csb_member_abort(&b->member);
        forget_attempt(b);
        b->member.view = b->next.memory;
        b->member.is_rebuilding = m->phase != 0;
        enter_view(b, now_us);
    } else if (b->is_open_due && m->attempt == b->member.attempt) {
        open_view(b, now_us);
    }
}

void balance_hear(struct balance *b, const struct attach_csb *message, int fd, uint64_t now_us)
{
    uint64_t began_ns = clock_thread_ns();

    switch (message->type) {
    case ATTACH_CSB_BEGIN:
        begin(b, message, fd);
        break;
    case ATTACH_CSB_CHECK:
        check(b, message, fd);
        break;
    case ATTACH_CSB_VIEW:
        take_view(b, message, fd, now_us);
        break;
    default:
        if (message->attempt == b->member.attempt) {
            csb_member_abort(&b->member);
            forget_attempt(b);
        }
        break;
    }
    if (fd >= 0)
        close(fd);
    note_held(b, began_ns);
}

void balance_marker(struct balance *b, uint32_t attempt, uint32_t marker, uint32_t io, uint64_t now_us)
{
    uint64_t began_ns = clock_thread_ns();

    if (attempt != (uint32_t)b->member.attempt || marker > CSB_MARKER_OPEN ||
        !csb_member_marker(&b->member, b->member.attempt, (enum csb_marker)marker, io))
        return;
    if (marker == CSB_MARKER_SEAL) {
        b->due = CSB_SEAL;
    } else if (b->next.memory && b->next_attempt == b->member.attempt) {
        open_view(b, now_us);
    } else {
        b->is_open_due = true;
    }
    note_held(b, began_ns);
}

/* --- each turn --- */

/* True: some rows were walked, or what that needs was made ready. */
static bool walk(struct balance *b)
{
    struct csb_member *m = &b->member;
    const uint64_t *column;
    uint32_t rows;

    if (!b->is_walking || m->list_count + STEP_ROWS > WALK_ROOM)
        return false;
    if (touch(&b->plan) || touch(&b->view) || touch(&b->draft))
        return true;
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

/* Sends a full message, or the rest when an answer is due behind it.  False: there is none, or the socket is full. */
static bool send_list(struct balance *b)
{
    struct csb_member *m = &b->member;
    struct attach_csb_list message = {.type = ATTACH_CSB_LIST, .attempt = b->attempt};
    uint32_t waiting = m->list_count - b->sent, count = waiting < SEND_HASHES ? waiting : SEND_HASHES;

    if (m->attempt == 0 || count < (b->due != CSB_IDLE ? 1 : SEND_HASHES))
        return false;
    message.count = count;
    memcpy(message.hashes, m->list + b->sent, count * sizeof *m->list);
    if (attach_send(b->attach, &message, offsetof(struct attach_csb_list, hashes) + count * sizeof *m->list) < 0)
        return false;
    b->sent += count;
    if (m->list_count - b->sent < SEND_HASHES) { /* little is left: it begins anew */
        m->list_count -= b->sent;
        memmove(m->list, m->list + b->sent, m->list_count * sizeof *m->list);
        b->sent = 0;
    }
    return true;
}

static bool send_answer(struct balance *b)
{
    struct attach_csb done = {.type = ATTACH_CSB_DONE, .attempt = b->attempt};

    if ((b->due == CSB_IDLE && !b->has_failed) || (b->member.attempt != 0 && b->member.list_count > 0))
        return false;
    done.phase = b->has_failed ? CSB_IDLE : b->due;
    if (attach_send(b->attach, &done, sizeof done) < 0)
        return false;
    b->due = CSB_IDLE;
    b->has_failed = false;
    return true;
}

bool balance_turn(struct balance *b)
{
    uint64_t began_ns = clock_thread_ns(), until_us = clock_now_us() + TURN_US;
    bool is_going = true;

    if (b->member.is_full)
        fail(b, b->member.attempt);
    for (uint32_t step = 0; is_going && step < TURN_STEPS && (step == 0 || clock_now_us() < until_us); step++)
        is_going = send_list(b) || walk(b) || send_answer(b) || release(b);
    note_held(b, began_ns);
    b->spent_ns = 0;
    return b->is_walking || b->due != CSB_IDLE || b->has_failed || b->retired_count > 0;
}

/* --- what the stack asks --- */

bool balance_may_create(struct balance *b, uint64_t hash)
{
    return csb_member_create(&b->member, hash);
}

bool balance_may_connect(struct balance *b, uint64_t hash)
{
    return !b->is_on || csb_member_connect(&b->member, hash);
}

enum tcp_miss balance_miss(const struct balance *b, uint64_t hash)
{
    const struct csb_member *m = &b->member;

    if (!csb_member_answers_miss(m, hash))
        return TCP_MISS_SILENT;
    if (!m->view || csb_view_lookup(m->view, hash) == m->tid)
        return TCP_MISS_RESET;
    return attach_wait(b->attach, 0) ? TCP_MISS_SILENT : TCP_MISS_FOREIGN; /* perhaps a newer view waits to be read */
}

void balance_ended(struct balance *b, uint64_t hash)
{
    const struct csb_view *view = b->member.view;

    b->closed += view && csb_lookup(&view->map, csb_key(hash)) != b->member.tid;
}
