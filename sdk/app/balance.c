/*
 * balance.c: a TCP thread's part in the balancer's updates.
 */
#include "app/balance.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    WALK_ROWS = 4096,  /* of one turn: about 11 us */
    LIST_ROOM = 65536, /* hashes that wait to be sent; the walk uses half, what is created late the rest */
    WALK_ROOM = 32768,
    SENDS_PER_TURN = 2, /* of ATTACH_CSB_HASHES_MAX hashes each */
};

/* --- values --- */

static void unmap(struct balance_map *map)
{
    if (map->memory)
        munmap((void *)(uintptr_t)map->memory, map->bytes);
    *map = (struct balance_map){0};
}

/* Maps bytes of fd, at least least of them.  False: it is not what it is said to be. */
static bool map_value(struct balance_map *map, int fd, uint64_t bytes, uint64_t least)
{
    struct stat st;
    void *p;

    unmap(map);
    if (fd < 0 || bytes < least || fstat(fd, &st) < 0 || (uint64_t)st.st_size < bytes)
        return false;
    p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return false;
    *map = (struct balance_map){p, bytes};
    return true;
}

static bool map_view(struct balance_map *map, int fd, uint64_t bytes)
{
    const struct csb_view *view;

    if (!map_value(map, fd, bytes, sizeof *view))
        return false;
    view = map->memory;
    if (view->bytes <= bytes && view->map.point_count <= CSB_POINTS_MAX &&
        sizeof *view + (uint64_t)view->line_count * sizeof(struct csb_line) +
                (uint64_t)view->exact_size * sizeof(struct csb_exact) <=
            bytes)
        return true;
    unmap(map);
    return false;
}

/* --- beginning and ending --- */

static void forget_attempt(struct balance *b)
{
    free(b->list);
    b->list = NULL;
    unmap(&b->plan);
    unmap(&b->draft);
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
    unmap(&b->view);
    unmap(&b->next);
    b->member.view = NULL;
    b->member.is_rebuilding = b->is_on;
}

void balance_free(struct balance *b)
{
    forget_attempt(b);
    unmap(&b->view);
    unmap(&b->next);
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
    unmap(&b->view);
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

/* --- what janusd says --- */

static void begin(struct balance *b, const struct attach_csb *m, int fd)
{
    csb_member_abort(&b->member);
    forget_attempt(b);
    b->list = malloc(LIST_ROOM * sizeof *b->list);
    if (!b->list || !map_value(&b->plan, fd, m->bytes, sizeof(struct csb_plan))) {
        fail(b, m->attempt);
        return;
    }
    b->attempt = m->attempt;
    b->part = 0;
    b->is_walking = true;
    csb_member_begin(&b->member, m->attempt, b->plan.memory, m->ios, b->list, LIST_ROOM);
}

static void check(struct balance *b, const struct attach_csb *m, int fd)
{
    if (m->attempt != b->member.attempt)
        return;
    if (!map_view(&b->draft, fd, m->bytes)) {
        fail(b, m->attempt);
        return;
    }
    csb_member_check(&b->member, b->draft.memory);
    b->part = 0;
    b->is_walking = true;
}

static void take_view(struct balance *b, const struct attach_csb *m, int fd, uint64_t now_us)
{
    if (!map_view(&b->next, fd, m->bytes)) {
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
}

void balance_marker(struct balance *b, uint32_t attempt, uint32_t marker, uint32_t io, uint64_t now_us)
{
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
}

/* --- each turn --- */

static void walk(struct balance *b)
{
    struct csb_member *m = &b->member;
    uint32_t budget = WALK_ROWS;

    while (b->part < TCP_FLOW_COLUMNS && budget > 0 && m->list_count + budget <= WALK_ROOM) {
        const uint64_t *column;
        uint32_t rows = tcp_flow_column(b->stack, b->part, &column), before = m->cursor;

        if (!csb_member_walk(m, column, rows, budget))
            return;
        budget -= m->cursor > before ? m->cursor - before : 0;
        m->cursor = 0;
        b->part++;
    }
    if (b->part == TCP_FLOW_COLUMNS) {
        b->is_walking = false;
        b->due = m->draft ? CSB_CHECK : CSB_COLLECT;
    }
}

/* True: sent. */
static bool send_message(struct balance *b, const void *message, size_t bytes)
{
    return attach_send(b->attach, message, bytes) == 0;
}

/* Sends full messages, and the rest when an answer is due behind it.  False: the socket is full, or it is enough for a turn. */
static bool send_lists(struct balance *b)
{
    struct csb_member *m = &b->member;
    struct attach_csb_list message = {.type = ATTACH_CSB_LIST, .attempt = b->attempt};

    for (uint32_t i = 0; m->list_count >= (b->due != CSB_IDLE ? 1 : ATTACH_CSB_HASHES_MAX); i++) {
        uint32_t count = m->list_count < ATTACH_CSB_HASHES_MAX ? m->list_count : ATTACH_CSB_HASHES_MAX;

        message.count = count;
        memcpy(message.hashes, m->list, count * sizeof *m->list);
        if (i == SENDS_PER_TURN ||
            !send_message(b, &message, offsetof(struct attach_csb_list, hashes) + count * sizeof *m->list))
            return false;
        m->list_count -= count;
        memmove(m->list, m->list + count, m->list_count * sizeof *m->list);
    }
    return true;
}

bool balance_turn(struct balance *b)
{
    struct attach_csb done = {.type = ATTACH_CSB_DONE, .attempt = b->attempt};

    if (balance_is_idle(b))
        return false;
    if (b->member.is_full)
        fail(b, b->member.attempt);
    if (b->is_walking)
        walk(b);
    if (b->member.attempt != 0 && !send_lists(b))
        return true;
    if (b->due == CSB_IDLE && !b->has_failed)
        return b->is_walking;
    done.phase = b->has_failed ? CSB_IDLE : b->due;
    if (!send_message(b, &done, sizeof done))
        return true;
    b->due = CSB_IDLE;
    b->has_failed = false;
    return b->is_walking;
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
