/*
 * handlers.c: C handlers on one TCP thread: the loop's side.
 *
 *   event of a connection ─> its own coroutine, if that waits for it ─┐
 *                         ─> the other that waits on it               ├─> load its stack, serve the request into it, run
 *   timers, queue ────────────────────────────────────────────────────┘
 */
#include "app/handlers.h"

#include "app/error.h"
#include "app/spare.h"
#include "coro/run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { CANCELLED_PER_TURN = 4096, TRIM_STEP_US = 1000, TRIM_PAUSE_US = 1000000 };

_Thread_local struct handlers *handlers_here;

/* --- making --- */

static uint64_t owner_id(const void *owner)
{
    return handlers_here != NULL ? handlers_index(handlers_here, owner) : 0;
}

static bool wants_separate(uint8_t stacks)
{
    const char *text = getenv("JANUS_STACKS");

    if (stacks != JANUS_STACKS_DEFAULT)
        return stacks == JANUS_STACKS_SEPARATE;
#if defined(__SANITIZE_ADDRESS__)
    return true;
#endif
    return text != NULL && strcmp(text, "separate") == 0;
}

static void *map_rows(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return NULL;
    (void)madvise(p, bytes, MADV_HUGEPAGE); /* they are used from the first on */
    return p;
}

/* Rows that nobody has are zero. */
static void rows_spare(void *context, uint32_t first, uint32_t count)
{
    struct handlers *h = context;

    spare_discard(&h->rows[first], count * sizeof *h->rows);
}

int handlers_new(struct janus_thread *thread, uint8_t stacks, struct handlers **out, struct janus_error *error)
{
    struct handlers *h = calloc(1, sizeof *h);
    struct coro_options options = {
        .backend = wants_separate(stacks) ? CORO_SEPARATE_STACKS : CORO_SHARED,
        .templates = true,
        .owner_bytes = sizeof(struct janus_conn),
        .owner_id = owner_id,
    };
    int rc;

    if (h == NULL)
        return error_set(error, ENOMEM, "no memory");
    h->thread = thread;
    h->conn_max = thread_rows(thread);
    h->rows_bytes = ((size_t)h->conn_max + HANDLERS_TASKS_MAX) * sizeof *h->rows;
    h->rows = map_rows(h->rows_bytes);
    rc = h->rows != NULL ? coro_sched_new(&options, &h->sched) : -ENOMEM;
    if (rc < 0) {
        handlers_free(h);
        return error_set(error, -rc, "no coroutines for %u connections: %s", thread_rows(thread), strerror(-rc));
    }
    wheel_init(&h->wheel, h->rows, sizeof *h->rows, offsetof(struct janus_conn, timer),
               (uint32_t)(thread_now_us(thread) / 1000));
    thread_on_rows_spare(thread, rows_spare, h);
    *out = h;
    return 0;
}

void handlers_free(struct handlers *h)
{
    if (h == NULL)
        return;
    for (uint32_t i = 0; h->rows != NULL && i < thread_rows_used(h->thread); i++) {
        struct janus_conn *c = &h->rows[i];

        if (c->flags & CONN_OWNED)
            owned_end(h, c, -ECONNABORTED);
        if (c->flags & CONN_LIVE)
            thread_abort(h->thread, i);
    }
    thread_on_rows_spare(h->thread, NULL, NULL);
    coro_sched_free(h->sched);
    if (h->rows != NULL)
        munmap(h->rows, h->rows_bytes);
    free(h->ready);
    free(h);
}

/* --- the queue --- */

static bool queue_grow(struct handlers *h)
{
    uint32_t room = h->ready_room != 0 ? 2 * h->ready_room : 64;
    struct handlers_ready *ring = malloc(room * sizeof *ring);

    if (ring == NULL)
        return false;
    for (uint32_t i = 0; i < h->ready_count; i++)
        ring[i] = h->ready[(h->ready_first + i) % h->ready_room];
    free(h->ready);
    h->ready = ring;
    h->ready_room = room;
    h->ready_first = 0;
    return true;
}

bool handlers_queue(struct handlers *h, struct janus_conn *c, void (*fn)(void *argument), void *argument)
{
    if (c->flags & CONN_QUEUED)
        return true;
    if (h->ready_count == h->ready_room && !queue_grow(h))
        return false;
    c->flags |= CONN_QUEUED;
    h->ready[(h->ready_first + h->ready_count++) % h->ready_room] =
        (struct handlers_ready){handlers_index(h, c), fn, argument};
    return true;
}

/* A handler that has not begun yet will not. */
static void queue_forget(struct handlers *h, uint32_t index)
{
    for (uint32_t i = 0; i < h->ready_count; i++) {
        struct handlers_ready *r = &h->ready[(h->ready_first + i) % h->ready_room];

        if (r->index == index)
            r->fn = NULL;
    }
}

struct janus_conn *handlers_take_task(struct handlers *h)
{
    struct janus_conn *c;

    if (h->task_free != 0) {
        c = &h->rows[h->conn_max + h->task_free - 1];
        h->task_free = (uint32_t)(uintptr_t)c->user;
    } else if (h->task_fresh < HANDLERS_TASKS_MAX) {
        c = &h->rows[h->conn_max + h->task_fresh++];
    } else {
        return NULL;
    }
    *c = (struct janus_conn){.flags = CONN_TASK};
    return c;
}

/* --- ending --- */

static void give_task(struct handlers *h, struct janus_conn *c)
{
    *c = (struct janus_conn){.user = (void *)(uintptr_t)h->task_free};
    h->task_free = handlers_index(h, c) - h->conn_max + 1;
}

static struct janus_conn *other_of(struct handlers *h, const struct janus_conn *c)
{
    return c->other != 0 ? &h->rows[c->other - 1] : NULL;
}

static void lose_other(struct handlers *h, struct janus_conn *c)
{
    struct janus_conn *other = other_of(h, c);

    if (other == NULL)
        return;
    if (other->co.tag != WAIT_ENDED)
        other->flags |= CONN_LOST;
    (void)handlers_queue(h, other, NULL, NULL);
    c->other = 0;
}

void handlers_settle_view(struct handlers *h, struct janus_conn *c)
{
    if (c->viewed != 0)
        thread_recv_consume(h->thread, handlers_index(h, c), c->viewed);
    c->viewed = 0;
}

void handlers_give_back(struct handlers *h, struct janus_conn *c)
{
    uint32_t index = handlers_index(h, c);
    uint16_t flags = c->flags;

    assert(c->co.state == CORO_NEW);
    if (flags & CONN_LIVE)
        handlers_settle_view(h, c);
    lose_other(h, c);
    if (flags & CONN_QUEUED)
        queue_forget(h, index);
    wheel_cancel(&h->wheel, index);
    *c = (struct janus_conn){.flags = flags & CONN_QUEUED};
    if (flags & CONN_ABORTED)
        thread_abort(h->thread, index);
    else if (flags & CONN_LIVE)
        thread_close_conn(h->thread, index);
}

/* The coroutine of c has returned, or was dropped. */
static void finish(struct handlers *h, struct janus_conn *c)
{
    c->co.tag = WAIT_NOTHING;
    wheel_cancel(&h->wheel, handlers_index(h, c));
    if (c->flags & CONN_TASK) {
        give_task(h, c);
        return;
    }
    c->flags |= CONN_ENDED;
    if ((c->flags & CONN_OWNED) && !(c->flags & CONN_ABORTED))
        return; /* on its way: owned_step() is the end */
    if (c->flags & CONN_OWNED)
        owned_end(h, c, -ECONNABORTED);
    if (!(c->flags & CONN_HELD)) {
        handlers_give_back(h, c);
        return;
    }
    if (!(c->flags & (CONN_CLOSED | CONN_ABORTED)))
        thread_shutdown(h->thread, handlers_index(h, c));
    lose_other(h, c);
}

void handlers_kill(struct handlers *h, struct janus_conn *c)
{
    c->flags |= CONN_KILLED;
    if (c->co.state != CORO_NEW)
        (void)handlers_queue(h, c, NULL, NULL);
}

/* --- resuming --- */

static bool is_receiving(enum handler_wait wait)
{
    return wait == WAIT_RECV || wait == WAIT_VIEW || wait == WAIT_READABLE;
}

/* A failure that ends any wait of self; 0: none. */
static int wait_error(const struct janus_conn *self)
{
    if (self->flags & (CONN_LOST | CONN_KILLED))
        return -ECONNABORTED;
    return self->flags & CONN_EXPIRED ? -ETIMEDOUT : 0;
}

/* Why nothing can be received now: 0 at the end of the stream, else -errno. */
static int64_t why_nothing(struct handlers *h, struct janus_conn *c, const struct janus_conn *self)
{
    uint32_t index = handlers_index(h, c);
    int error = thread_conn_error(h->thread, index);

    if (error != 0)
        return -error;
    if (thread_recv_eof(h->thread, index))
        return 0;
    error = wait_error(self);
    return error != 0 ? error : -EAGAIN;
}

int64_t handlers_recv_now(struct handlers *h, struct janus_conn *c, const struct janus_conn *self, void *buffer,
                          size_t len)
{
    uint32_t n;

    if (c->flags & CONN_CLOSED)
        return handlers_closed_error(c);
    handlers_settle_view(h, c);
    n = thread_recv(h->thread, handlers_index(h, c), buffer, len < UINT16_MAX ? (uint32_t)len : UINT16_MAX);
    return n > 0 ? n : why_nothing(h, c, self);
}

struct janus_view handlers_view_now(struct handlers *h, struct janus_conn *c, const struct janus_conn *self)
{
    struct tcp_view view;

    if (c->flags & CONN_CLOSED)
        return (struct janus_view){NULL, handlers_closed_error(c)};
    handlers_settle_view(h, c);
    if (thread_recv_views(h->thread, handlers_index(h, c), &view, 1) == 0)
        return (struct janus_view){NULL, why_nothing(h, c, self)};
    c->viewed = (uint16_t)view.len;
    return (struct janus_view){view.data, view.len};
}

/* The answer to what the loaded coroutine waits for; its stack is in place. */
static struct coro_result serve(struct handlers *h, struct janus_conn *self, uint64_t request)
{
    enum handler_wait wait = (enum handler_wait)self->co.tag;
    struct janus_conn *c = &h->rows[self->waits_on];
    bool lost = self->flags & CONN_LOST;

    self->co.tag = WAIT_NOTHING;
    if (c != self && !lost)
        c->other = 0;
    if (wait == WAIT_VIEW) {
        struct janus_view v = lost ? (struct janus_view){NULL, -ECONNABORTED} : handlers_view_now(h, c, self);

        self->flags &= (uint16_t)~CONN_LOST;
        return (struct coro_result){(uintptr_t)v.data, (uint64_t)v.len};
    }
    if (wait == WAIT_RECV && !lost)
        return (struct coro_result){(uint64_t)handlers_recv_now(h, c, self,
                                                                (void *)(uintptr_t)(request & (UINT64_MAX >> 16)),
                                                                (size_t)(request >> 48)),
                                    0};
    request = (uint64_t)(int64_t)wait_error(self);
    self->flags &= (uint16_t)~CONN_LOST;
    return (struct coro_result){request, 0};
}

static void after(struct handlers *h, struct janus_conn *self, enum coro_outcome outcome)
{
    __atomic_store_n(&h->running, 0, __ATOMIC_RELAXED);
    if (outcome == CORO_WAITS)
        return;
    if (outcome != CORO_ENDED)
        self->flags |= CONN_ABORTED; /* what its frames owned is lost; the peer is told */
    finish(h, self);
}

static void start(struct handlers *h, struct janus_conn *self, void (*fn)(void *), void *owner)
{
    __atomic_store_n(&h->running, handlers_index(h, self) + 1, __ATOMIC_RELAXED);
    after(h, self, coro_start(h->sched, &self->co, fn, owner));
}

static void resume(struct handlers *h, struct janus_conn *self)
{
    uint64_t request;

    __atomic_store_n(&h->running, handlers_index(h, self) + 1, __ATOMIC_RELAXED);
    request = coro_load(h->sched, &self->co, self);
    after(h, self, coro_run(h->sched, serve(h, self, request)));
}

/* False: nothing of what a receiving coroutine waits for has come. */
static bool wait_is_over(struct handlers *h, const struct janus_conn *self)
{
    const struct janus_conn *c = &h->rows[self->waits_on];
    uint32_t index = self->waits_on;

    if (!is_receiving((enum handler_wait)self->co.tag) || wait_error(self) != 0 || (c->flags & CONN_CLOSED))
        return true;
    return thread_recv_ready(h->thread, index) > c->viewed || thread_recv_eof(h->thread, index) ||
           thread_conn_error(h->thread, index) != 0;
}

/* --- events --- */

static bool wakes(enum handler_wait wait, uint32_t kinds)
{
    if (kinds & TCP_EVENT_ERROR)
        return wait != WAIT_TIME && wait != WAIT_ENDED && wait != WAIT_NOTHING;
    switch (wait) {
    case WAIT_RECV:
    case WAIT_VIEW:
    case WAIT_READABLE:
        return kinds & TCP_EVENT_READABLE;
    case WAIT_WRITABLE:
        return kinds & TCP_EVENT_WRITABLE;
    case WAIT_CONNECTED:
        return kinds & TCP_EVENT_CONNECTED;
    case WAIT_SENT_ALL:
        return kinds & TCP_EVENT_SENT_ALL;
    default:
        return false;
    }
}

static uint32_t wake(struct handlers *h, struct janus_conn *self, const struct janus_conn *c, uint32_t kinds)
{
    if (self->co.state == CORO_NEW || &h->rows[self->waits_on] != c || !wakes((enum handler_wait)self->co.tag, kinds) ||
        !wait_is_over(h, self))
        return 0;
    resume(h, self);
    return 1;
}

/* A new connection: false when the hook does not want it. */
static bool accept_conn(struct handlers *h, struct janus_conn *c, const struct handlers_service *s, uint32_t index)
{
    *c = (struct janus_conn){.flags = CONN_LIVE | (c->flags & CONN_QUEUED)};
    if (s->service.flags & JANUS_NODELAY)
        thread_set_nodelay(h->thread, index, true);
    if (s->service.accept != NULL && s->service.accept(c, s->service.data) != 0) {
        h->refused_by_hook++;
        c->flags |= CONN_ABORTED;
        handlers_give_back(h, c);
        return false;
    }
    h->accepted++;
    return true;
}

/* An accepted connection without a coroutine: it begins with the first payload, or at once if the service says so. */
static uint32_t begin(struct handlers *h, struct janus_conn *c, const struct handlers_service *s, uint32_t kinds)
{
    if (kinds & TCP_EVENT_ERROR) {
        handlers_give_back(h, c);
        return 0;
    }
    if (!(kinds & TCP_EVENT_READABLE) && !(s->service.flags & JANUS_START_AT_ACCEPT))
        return 0;
    start(h, c, (void (*)(void *))s->service.handler, c);
    return 1;
}

static uint32_t on_event(struct handlers *h, const struct tcp_event *event)
{
    struct janus_conn *c = &h->rows[event->conn], *other;
    uint32_t service = (uint32_t)(event->user >> 2), ran = 0;

    if ((event->kinds & TCP_EVENT_ACCEPTED) && !accept_conn(h, c, &h->services[service], event->conn))
        return 0;
    if (!(c->flags & CONN_LIVE))
        return 0;
    if (event->kinds & TCP_EVENT_CONNECTED)
        c->flags &= (uint16_t)~CONN_CONNECTING;
    if ((c->flags & CONN_OWNED) && !owned_step(h, c, event->kinds & TCP_EVENT_SENT_ALL) && (c->flags & CONN_ENDED)) {
        finish(h, c);
        return 0;
    }
    other = other_of(h, c);
    if (c->co.state != CORO_NEW)
        ran += wake(h, c, c, event->kinds);
    else if (service != HANDLERS_NO_SERVICE && !(c->flags & (CONN_ENDED | CONN_QUEUED)))
        ran += begin(h, c, &h->services[service], event->kinds);
    if (other != NULL && c->other == handlers_index(h, other) + 1)
        ran += wake(h, other, c, event->kinds);
    return ran;
}

static void prefetch_batch(const struct handlers *h)
{
    for (uint32_t i = 0; i < h->batch_count; i++)
        __builtin_prefetch(&h->rows[h->batch[i].conn], 1);
    for (uint32_t i = 0; i < h->batch_count; i++)
        coro_prefetch_image(h->sched, &h->rows[h->batch[i].conn].co);
}

static uint32_t run_timers(struct handlers *h)
{
    uint32_t now_ms = (uint32_t)(thread_now_us(h->thread) / 1000), index, ran = 0;

    while ((index = wheel_pop(&h->wheel, now_ms)) != WHEEL_NONE) {
        struct janus_conn *self = &h->rows[index];

        self->flags |= CONN_EXPIRED;
        if (self->co.state != CORO_NEW && self->co.tag != WAIT_NOTHING && self->co.tag != WAIT_ENDED) {
            resume(h, self);
            ran++;
        }
    }
    return ran;
}

static void task_main(void *self)
{
    struct handlers_ready task = handlers_here->starting;

    (void)self;
    task.fn(task.argument);
}

/* What is queued meanwhile waits for the next turn: input and output come in between. */
static uint32_t run_ready(struct handlers *h)
{
    uint32_t ran = 0;

    for (uint32_t n = h->ready_count; n > 0; n--) {
        struct handlers_ready next = h->ready[h->ready_first];
        struct janus_conn *self = &h->rows[next.index];

        h->ready_first = (h->ready_first + 1) % h->ready_room;
        h->ready_count--;
        self->flags &= (uint16_t)~CONN_QUEUED;
        if (next.fn != NULL && self->co.state == CORO_NEW) {
            h->starting = next;
            start(h, self, self->flags & CONN_TASK ? task_main : next.fn, self);
            ran++;
        } else if (next.fn == NULL && self->co.state != CORO_NEW && self->co.tag != WAIT_NOTHING &&
                   wait_is_over(h, self)) {
            resume(h, self);
            ran++;
        }
    }
    return ran;
}

static uint32_t run_cancel(struct handlers *h)
{
    uint32_t ran = 0;

    for (uint32_t n = 0; n < CANCELLED_PER_TURN && h->cancel_next < h->cancel_end; n++, h->cancel_next++) {
        struct janus_conn *self;

        if (h->cancel_next == thread_rows_used(h->thread) && h->cancel_next < h->conn_max)
            h->cancel_next = h->conn_max; /* from the connections to the tasks */
        self = &h->rows[h->cancel_next];
        if (!(self->flags & (CONN_LIVE | CONN_TASK)))
            continue;
        self->flags |= CONN_KILLED;
        if (self->co.state != CORO_NEW && self->co.tag != WAIT_NOTHING) {
            resume(h, self);
            ran++;
        }
    }
    return ran;
}

uint32_t handlers_run(struct handlers *h)
{
    struct handlers *outer = handlers_here;
    uint32_t ran = 0;

    handlers_here = h;
    __atomic_store_n(&h->turns, h->turns + 1, __ATOMIC_RELAXED);
    prefetch_batch(h);
    for (uint32_t i = 0; i < h->batch_count; i++)
        ran += on_event(h, &h->batch[i]);
    h->batch_count = 0;
    ran += run_timers(h);
    ran += run_ready(h);
    if (h->cancel_next < h->cancel_end)
        ran += run_cancel(h);
    if (thread_now_us(h->thread) >= h->trim_us)
        h->trim_us = thread_now_us(h->thread) + (coro_trim(h->sched) ? TRIM_STEP_US : TRIM_PAUSE_US);
    handlers_here = outer;
    return ran;
}

uint64_t handlers_next_us(const struct handlers *h)
{
    uint64_t now_us = thread_now_us(h->thread), trim_us = coro_has_spare(h->sched) ? h->trim_us : UINT64_MAX, at_us;
    uint32_t tick;

    if (h->ready_count > 0 || h->batch_count > 0 || h->cancel_next < h->cancel_end)
        return 0;
    if (!wheel_next_tick(&h->wheel, &tick))
        return trim_us;
    at_us = (now_us / 1000 + (int64_t)(int32_t)(tick - (uint32_t)(now_us / 1000))) * 1000;
    return at_us < trim_us ? at_us : trim_us;
}

void handlers_cancel(struct handlers *h)
{
    h->cancel_next = 0;
    h->cancel_end = h->conn_max + h->task_fresh;
}

uint64_t handlers_live(const struct handlers *h)
{
    struct coro_stats stats;

    coro_stats(h->sched, &stats);
    return stats.live;
}

void handlers_count(const struct handlers *h, struct janus_counts *counts)
{
    struct coro_stats coro;
    struct janus_stats stats;

    coro_stats(h->sched, &coro);
    thread_get_stats(h->thread, &stats);
    *counts = (struct janus_counts){
        .connections = stats.usage.conns + stats.usage.half_open,
        .handlers = coro.live,
        .accepted = h->accepted,
        .opened = h->opened,
        .refused_by_hook = h->refused_by_hook,
        .stored_bytes = coro.image_bytes,
        .templated = coro.templated,
        .too_deep = coro.too_deep,
    };
}
