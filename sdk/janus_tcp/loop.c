/*
 * loop.c: Loop, one TCP thread under Python, and the batch: one call runs poll, TCP, every ready coroutine and the output.
 *
 *   loop_run():  thread_poll ─> events ─┐ GIL: events ─> timers ─> ready tasks ┌─> thread_flush ─> spin, sleep
 *                                      └───────────────────────────────────────┘
 *
 * loop_run() is called without the GIL and takes it once per batch, only when there is something for Python.
 */
#include "janus_tcp/face.h"

#include "app/handlers.h"

#include <time.h>

enum {
    READY_MAX = 4096,
    CORO_LINES = 4, /* of a coroutine and its frame */
};

/* Asked for in every call on a connection: without the model each access is a call too. */
static _Thread_local struct loop *running_loop __attribute__((tls_model("initial-exec")));

struct loop *loop_current(void)
{
    return running_loop;
}

bool loop_is_here(struct loop *loop)
{
    if (loop == running_loop && loop->thread && loop->fork_count == face_fork_count())
        return true;
    if (!loop->thread)
        PyErr_SetString(PyExc_RuntimeError, "the loop is closed");
    else if (loop->system_thread && loop->system_thread != PyThread_get_thread_ident())
        PyErr_SetString(PyExc_RuntimeError, "a connection belongs to the thread that runs its loop");
    else if (loop->fork_count != face_fork_count())
        PyErr_SetString(PyExc_RuntimeError, "the loop belongs to the process that made it, not to its child");
    else
        return true;
    return false;
}

/* --- the ready queue --- */

bool loop_ready_grow(struct loop *loop)
{
    uint32_t room = loop->ready_room ? 2 * loop->ready_room : 64;
    struct task **ring = PyMem_Malloc(room * sizeof *ring);

    if (!ring)
        return loop->ready_count < loop->ready_room;
    for (uint32_t i = 0; i < loop->ready_count; i++)
        ring[i] = loop->ready[(loop->ready_head + i) % loop->ready_room];
    PyMem_Free(loop->ready);
    loop->ready = ring;
    loop->ready_room = room;
    loop->ready_head = 0;
    return true;
}

void loop_push_ready(struct loop *loop, struct task *task)
{
    if (task->ready)
        return;
    /* Nobody is there to be told that it could not grow, so it is tried while there is room yet, each time anew. */
    if (loop->ready_count >= loop->ready_room / 2 && !loop_ready_grow(loop))
        Py_FatalError("janus_tcp: no memory for the queue of ready tasks");
    task->ready = 1;
    Py_INCREF(task_owner(task));
    loop->ready[(loop->ready_head + loop->ready_count++) % loop->ready_room] = task;
}

struct task *loop_pop_ready(struct loop *loop)
{
    struct task *task = loop->ready[loop->ready_head];

    loop->ready_head = (loop->ready_head + 1) % loop->ready_room;
    loop->ready_count--;
    task->ready = 0;
    return task;
}

/* --- one batch, with the GIL --- */

static void accept_connection(struct loop *loop, const struct tcp_event *event)
{
    struct listener *listener = &loop->listeners[event->user >> 1];
    struct connection *c;
    PyObject *coro;

    if (!listener->handler) {
        thread_abort(loop->thread, event->conn);
        return;
    }
    c = connection_new(loop, event->conn);
    coro = c ? PyObject_CallOneArg(listener->handler, (PyObject *)c) : NULL;
    if (coro && !PyCoro_CheckExact(coro)) {
        PyErr_Format(PyExc_TypeError, "a handler must be an async function; this one returned %.100s",
                     Py_TYPE(coro)->tp_name);
        Py_CLEAR(coro);
    }
    if (coro) {
        c->task.coro = coro;
        Py_INCREF(c);
        loop->handlers++;
        loop->accepted++;
        task_resume(loop, &c->task);
    } else {
        PyObject *e = face_take_exception();

        loop->failed++;
        face_report((PyObject *)c, e);
        Py_XDECREF(e);
        if (c)
            connection_close(c, true);
    }
    Py_XDECREF(c);
}

/* All objects are held first: a handler may close the connection of a later event. */
static void run_events(struct loop *loop, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (!(loop->events[i].user & 1))
            __builtin_prefetch((void *)(uintptr_t)loop->events[i].user, 1);
    }
    for (uint32_t i = 0; i < n; i++) {
        struct connection *c = (struct connection *)(uintptr_t)loop->events[i].user;

        if (!(loop->events[i].user & 1)) {
            Py_INCREF(c);
            for (int line = 0; c->task.coro && line < CORO_LINES; line++)
                __builtin_prefetch((char *)c->task.coro + 64 * line, 1);
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        if (loop->events[i].user & 1) {
            accept_connection(loop, &loop->events[i]);
        } else {
            struct connection *c = (struct connection *)(uintptr_t)loop->events[i].user;

            connection_on_event(c, loop->events[i].kinds);
            Py_DECREF(c);
        }
    }
}

uint64_t loop_coarse_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void loop_note_time(struct loop *loop, PyObject *owner, PyObject *coro)
{
    uint64_t began_ms = loop->resumed_ms;

    loop->resumed_ms = loop_coarse_ms();
    if (loop->resumed_ms - began_ms >= loop->slow_ms && coro)
        face_report_slow(owner, coro, loop->resumed_ms - began_ms);
}

static void run_timers(struct loop *loop, uint64_t now_us)
{
    PyObject *owner;

    while ((owner = timers_pop(&loop->timers, now_us))) {
        if (Py_IS_TYPE(owner, &connection_type))
            connection_expire((struct connection *)owner);
        else if (Py_IS_TYPE(owner, &sleep_type))
            sleep_fire(owner);
        else
            timer_fire(owner);
        Py_DECREF(owner);
    }
}

/* What becomes ready meanwhile waits for the next batch, as does what is more than READY_MAX: input and output come in between. */
static void run_ready(struct loop *loop)
{
    for (uint32_t n = loop->ready_count < READY_MAX ? loop->ready_count : READY_MAX; n > 0; n--) {
        struct task *task = loop_pop_ready(loop);
        PyObject *owner = task_owner(task);

        if (task->coro && !task->awaiting)
            task_resume(loop, task);
        Py_DECREF(owner);
    }
}

void loop_close_orphans(struct loop *loop)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(loop->orphans); i++) {
        PyObject *orphan = PyList_GET_ITEM(loop->orphans, i);

        if (PyLong_CheckExact(orphan))
            thread_recv_give(loop->thread, (uint32_t)PyLong_AsUnsignedLong(orphan));
        else
            connection_close((struct connection *)orphan, true);
    }
    PyList_SetSlice(loop->orphans, 0, PyList_GET_SIZE(loop->orphans), NULL);
}

void loop_give_back(struct loop *loop, uint32_t slot)
{
    PyObject *number;

    if (!loop->thread || loop->fork_count != face_fork_count())
        return; /* with the stack the slot has gone too */
    if (loop->system_thread == 0 || loop->system_thread == PyThread_get_thread_ident()) {
        thread_recv_give(loop->thread, slot);
        return;
    }
    number = PyLong_FromUnsignedLong(slot);
    if (!number || PyList_Append(loop->orphans, number) < 0)
        PyErr_WriteUnraisable(NULL);
    Py_XDECREF(number);
}

char *loop_chunk(struct loop *loop)
{
    if (!loop->chunk)
        loop->chunk = PyMem_Malloc(LOOP_CHUNK_BYTES);
    if (!loop->chunk)
        PyErr_NoMemory();
    return loop->chunk;
}

static void run_python(struct loop *loop, uint32_t n)
{
    struct loop *outer = running_loop;

    running_loop = loop;
    if (loop->slow_ms)
        loop->resumed_ms = loop_coarse_ms();
    run_events(loop, n);
    run_timers(loop, thread_now_us(loop->thread));
    run_ready(loop);
    if (PyList_GET_SIZE(loop->orphans) > 0)
        loop_close_orphans(loop);
    running_loop = outer;
}

/* --- one batch, without the GIL --- */

static uint32_t gather(struct loop *loop)
{
    uint32_t n = 0;

    while (n < LOOP_EVENTS && !handlers_full(loop->c_handlers) && thread_next_event(loop->thread, &loop->events[n]))
        n += !handlers_take(loop->c_handlers, &loop->events[n]);
    return n;
}

/* Returns how much there was to do. */
static uint32_t turn(struct loop *loop)
{
    uint32_t work = thread_poll(loop->thread);
    uint32_t n = gather(loop);

    if (loop->c_handlers)
        work += handlers_run(loop->c_handlers);
    if (n > 0 || loop->ready_count > 0 || timers_next_us(&loop->timers) <= thread_now_us(loop->thread)) {
        PyGILState_STATE gil = PyGILState_Ensure();

        run_python(loop, n);
        PyGILState_Release(gil);
        work += n + 1;
    }
    thread_flush(loop->thread);
    return work;
}

/* A short spin, since the next packet is often near; then sleep. */
static void idle(struct loop *loop, uint64_t timeout_us)
{
    uint64_t now_us = thread_clock_us(loop->thread);
    uint64_t spin_until_us = now_us + loop->spin_us;
    uint64_t timer_us = loop_timer_us(loop);

    if (timer_us <= now_us || loop->ready_count > 0)
        return;
    if (thread_spin(loop->thread, spin_until_us))
        return;
    now_us = thread_clock_us(loop->thread);
    if (timer_us <= now_us)
        return;
    thread_wait(loop->thread, timer_us - now_us < timeout_us ? timer_us - now_us : timeout_us);
}

int loop_run(uintptr_t handle, int64_t timeout_us)
{
    struct loop *loop = (struct loop *)handle;
    uint32_t work;

    if (loop->fork_count != face_fork_count() || !loop->thread)
        return -1;
    loop->system_thread = PyThread_get_thread_ident();
    if (loop->beat)
        __atomic_fetch_add(loop->beat, 1, __ATOMIC_RELAXED);
    work = turn(loop);
    if (work == 0 && timeout_us != 0) {
        idle(loop, timeout_us < 0 ? UINT64_MAX : (uint64_t)timeout_us);
        work = turn(loop);
    }
    return loop->fatal ? -1 : (int)work;
}
