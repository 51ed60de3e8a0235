/*
 * loop_type.c: Loop as Python sees it: its life, ports, connections, tasks and numbers.
 */
#include "janus_tcp/face.h"

#include "app/handlers.h"

#include <errno.h>

enum {
    CLOSE_MS =
        1000, /* for ending what runs when the loop closes: with millions of handlers it would take much longer */
    LOOK_EVERY = 1024, /* rows, between looks at the clock */
};

/* --- life --- */

static PyObject *loop_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"thread", "owns", "spin_us", "slow_ms", NULL};
    unsigned long long thread;
    int owns = 1;
    unsigned spin_us = 20, slow_ms = 100;
    struct loop *loop;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "K|pII:Loop", names, &thread, &owns, &spin_us, &slow_ms))
        return NULL;
    loop = (struct loop *)type->tp_alloc(type, 0);
    if (!loop)
        return NULL;
    loop->thread = (struct janus_thread *)(uintptr_t)thread;
    loop->owns_thread = owns;
    loop->spin_us = spin_us;
    loop->slow_ms = slow_ms;
    loop->fork_count = face_fork_count();
    loop->tasks = PySet_New(NULL);
    loop->orphans = PyList_New(0);
    if (!loop->tasks || !loop->orphans || !loop_ready_grow(loop)) {
        Py_DECREF(loop);
        return PyErr_NoMemory();
    }
    return (PyObject *)loop;
}

/* The Connection of a row of the core; null: there is none, or a handler in C has it. */
static struct connection *connection_of(const struct loop *loop, uint32_t row)
{
    uint64_t user = thread_user(loop->thread, row);

    return (user & 3) == 0 ? (struct connection *)(uintptr_t)user : NULL;
}

/* Calls act on every running task: handlers, then spawned ones.  False: not on all, the time until_ms is over. */
static bool for_each_task(struct loop *loop, void (*act)(struct loop *loop, struct task *task), uint64_t until_ms)
{
    PyObject *tasks = PySequence_List(loop->tasks);
    uint32_t rows = thread_rows_used(loop->thread), i;

    for (i = 0; i < rows && (i % LOOK_EVERY != 0 || loop_coarse_ms() <= until_ms); i++) {
        struct connection *c = connection_of(loop, i);

        if (c && c->task.coro)
            act(loop, &c->task);
    }
    if (!tasks) {
        PyErr_Clear();
        return i == rows;
    }
    for (Py_ssize_t n = 0; n < PyList_GET_SIZE(tasks); n++) {
        PyObject *owner = PyList_GET_ITEM(tasks, n);

        act(loop, Py_IS_TYPE(owner, &connection_type) ? &((struct connection *)owner)->task
                                                      : &((struct task_object *)owner)->task);
    }
    Py_DECREF(tasks);
    return i == rows;
}

/* Ends every task and connection.  False: some are left as they are, which would take too long. */
static bool end_all(struct loop *loop)
{
    uint64_t until_ms = loop_coarse_ms() + CLOSE_MS;
    bool ended = for_each_task(loop, task_kill, until_ms);

    for (uint32_t i = 0; ended && i < thread_rows_used(loop->thread); i++) {
        struct connection *c = connection_of(loop, i);

        if (c)
            connection_close(c, true);
        ended = i % LOOK_EVERY != 0 || loop_coarse_ms() <= until_ms;
    }
    return ended;
}

static void close_loop(struct loop *loop)
{
    if (!loop->thread)
        return;
    if (loop->tasks && loop->orphans) {
        if (!end_all(loop))
            Py_INCREF(loop); /* what is left refers to it, and stays until the process ends; janusd resets it */
        loop_close_orphans(loop);
    }
    while (loop->ready_count > 0)
        Py_DECREF(task_owner(loop_pop_ready(loop)));
    for (uint32_t i = 0; i < TCP_LISTENERS_MAX; i++)
        Py_CLEAR(loop->listeners[i].handler);
    if (loop->fork_count == face_fork_count()) {
        handlers_free(loop->c_handlers);
        thread_flush(loop->thread);
        if (loop->owns_thread)
            thread_close(loop->thread);
    }
    loop->c_handlers = NULL;
    loop->thread = NULL;
    timers_free(&loop->timers);
    PyMem_Free(loop->chunk);
    loop->chunk = NULL;
    PyMem_Free(loop->ready);
    loop->ready = NULL;
    loop->ready_room = 0;
}

static void loop_dealloc(PyObject *self)
{
    struct loop *loop = (struct loop *)self;

    close_loop(loop);
    if (Py_REFCNT(self) > 0)
        return; /* see close_loop() */
    Py_CLEAR(loop->tasks);
    Py_CLEAR(loop->orphans);
    Py_CLEAR(loop->fatal);
    if (loop->beat_buffer.obj)
        PyBuffer_Release(&loop->beat_buffer);
    Py_TYPE(self)->tp_free(self);
}

/* --- methods --- */

bool loop_parse_address(PyObject *o, struct ip_addr *addr)
{
    memset(addr, 0, sizeof *addr);
    if (o == Py_None)
        return true;
    if (!PyBytes_Check(o) || PyBytes_GET_SIZE(o) != sizeof addr->b) {
        PyErr_SetString(PyExc_TypeError, "an address is 16 bytes or None");
        return false;
    }
    memcpy(addr->b, PyBytes_AS_STRING(o), sizeof addr->b);
    return true;
}

static struct listener *find_listener(struct loop *loop, const struct ip_addr *addr, uint16_t port)
{
    for (uint32_t i = 0; i < TCP_LISTENERS_MAX; i++) {
        struct listener *l = &loop->listeners[i];

        if (addr ? l->handler && l->port == port && ip_addr_equal(&l->addr, addr) : !l->handler)
            return l;
    }
    return NULL;
}

/* What a service's connections begin with, of which None leaves the app's. */
static int read_settings(struct tcp_settings *settings, const char *congestion, PyObject *dscp, PyObject *ttl)
{
    int cc = congestion ? tcp_cc_by_name(congestion) : settings->congestion_control;
    long code_point = dscp == Py_None ? settings->dscp : PyLong_AsLong(dscp);
    long hops = ttl == Py_None ? settings->ttl : PyLong_AsLong(ttl);

    if (PyErr_Occurred())
        return -1;
    if (cc < 0) {
        PyErr_Format(PyExc_ValueError, "there is no congestion control \"%s\"", congestion);
        return -1;
    }
    if (code_point < 0 || code_point > 63 || hops < 1 || hops > UINT8_MAX) {
        PyErr_SetString(PyExc_ValueError, "dscp is 0 to 63, ttl 1 to 255");
        return -1;
    }
    settings->congestion_control = (uint8_t)cc;
    settings->dscp = (uint8_t)code_point;
    settings->ttl = (uint8_t)hops;
    return 0;
}

static PyObject *loop_listen(PyObject *self, PyObject *args)
{
    struct loop *loop = (struct loop *)self;
    struct janus_error error;
    struct ip_addr addr;
    struct listener *listener;
    struct tcp_settings settings;
    PyObject *address, *handler, *dscp = Py_None, *ttl = Py_None;
    const char *congestion = NULL;
    unsigned short port;

    if (!PyArg_ParseTuple(args, "OHO|zOO:listen", &address, &port, &handler, &congestion, &dscp, &ttl) ||
        !loop_parse_address(address, &addr) || !loop_is_here(loop))
        return NULL;
    listener = find_listener(loop, NULL, 0);
    if (!listener)
        return face_raise_os(ENOSPC, "too many listeners");
    thread_default_settings(loop->thread, &settings);
    if (read_settings(&settings, congestion, dscp, ttl) < 0)
        return NULL;
    if (thread_listen_with(loop->thread, &addr, port, (uint64_t)(listener - loop->listeners) << 1 | 1, &settings,
                           &error) < 0)
        return face_raise(&error);
    *listener = (struct listener){Py_NewRef(handler), addr, port};
    Py_RETURN_NONE;
}

static PyObject *loop_unlisten(PyObject *self, PyObject *args)
{
    struct loop *loop = (struct loop *)self;
    struct janus_error error;
    struct ip_addr addr;
    struct listener *listener;
    PyObject *address;
    unsigned short port;

    if (!PyArg_ParseTuple(args, "OH:unlisten", &address, &port) || !loop_parse_address(address, &addr) ||
        !loop_is_here(loop))
        return NULL;
    listener = find_listener(loop, &addr, port);
    if (listener)
        Py_CLEAR(listener->handler);
    if ((listener || !loop->c_handlers ? thread_unlisten(loop->thread, &addr, port, &error)
                                       : handlers_unlisten(loop->c_handlers, &addr, port, &error)) < 0)
        return face_raise(&error);
    Py_RETURN_NONE;
}

static PyObject *loop_online(PyObject *self, PyObject *unused)
{
    struct janus_error error;
    int rc;

    (void)unused;
    if (!loop_is_here((struct loop *)self))
        return NULL;
    Py_BEGIN_ALLOW_THREADS; /* janusd's answer may wait for another loop of this process */
    rc = thread_online(((struct loop *)self)->thread, &error);
    Py_END_ALLOW_THREADS;
    if (rc < 0)
        return face_raise(&error);
    Py_RETURN_NONE;
}

static PyObject *loop_leave(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (!loop_is_here((struct loop *)self))
        return NULL;
    thread_leave(((struct loop *)self)->thread);
    Py_RETURN_NONE;
}

static PyObject *loop_has_left(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (!loop_is_here((struct loop *)self))
        return NULL;
    return PyBool_FromLong(thread_has_left(((struct loop *)self)->thread));
}

static PyObject *loop_connect(PyObject *self, PyObject *args)
{
    struct loop *loop = (struct loop *)self;
    struct janus_error error;
    struct ip_addr laddr, raddr;
    PyObject *local, *remote;
    unsigned short lport, rport;
    uint32_t conn;
    struct connection *c;

    if (!PyArg_ParseTuple(args, "OHOH:connect", &local, &lport, &remote, &rport) ||
        !loop_parse_address(local, &laddr) || !loop_parse_address(remote, &raddr) || !loop_is_here(loop))
        return NULL;
    if (thread_connect(loop->thread, local == Py_None ? NULL : &laddr, lport, &raddr, rport, 0, &conn, &error) < 0)
        return face_raise(&error);
    c = connection_new(loop, conn);
    if (c)
        c->task.flags |= CONNECTION_CONNECTING;
    return (PyObject *)c;
}

static PyObject *loop_spawn(PyObject *self, PyObject *args)
{
    PyObject *coro, *done = NULL;

    if (!PyArg_ParseTuple(args, "O|O:spawn", &coro, &done) || !loop_is_here((struct loop *)self))
        return NULL;
    return task_spawn((struct loop *)self, coro, done);
}

static PyObject *loop_call_later(PyObject *self, PyObject *args)
{
    PyObject *callback;
    double seconds;

    if (!PyArg_ParseTuple(args, "dO:call_later", &seconds, &callback) || !loop_is_here((struct loop *)self))
        return NULL;
    return timer_new((struct loop *)self, seconds, callback);
}

static PyObject *loop_cancel_all(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (!loop_is_here((struct loop *)self))
        return NULL;
    (void)for_each_task((struct loop *)self, task_cancel, UINT64_MAX);
    if (((struct loop *)self)->c_handlers)
        handlers_cancel(((struct loop *)self)->c_handlers);
    Py_RETURN_NONE;
}

static PyObject *loop_close_method(PyObject *self, PyObject *unused)
{
    struct loop *loop = (struct loop *)self;

    (void)unused;
    if (loop->thread && loop->fork_count == face_fork_count() && !loop_is_here(loop))
        return NULL;
    close_loop(loop);
    Py_RETURN_NONE;
}

/* The exception that loop_run() returned -1 for; RuntimeError when the loop is not usable here. */
static PyObject *loop_take_fatal(PyObject *self, PyObject *unused)
{
    struct loop *loop = (struct loop *)self;
    PyObject *fatal = loop->fatal;

    (void)unused;
    loop->fatal = NULL;
    if (fatal)
        return fatal;
    return loop_is_here(loop) ? Py_NewRef(Py_None) : NULL;
}

static PyObject *loop_next_deadline(PyObject *self, PyObject *unused)
{
    struct loop *loop = (struct loop *)self;
    uint64_t stack_us, timer_us = loop_timer_us(loop);

    (void)unused;
    if (!loop_is_here(loop))
        return NULL;
    if (loop->ready_count > 0)
        return PyLong_FromLong(0);
    stack_us = thread_next_deadline(loop->thread);
    return PyLong_FromUnsignedLongLong(stack_us < timer_us ? stack_us : timer_us);
}

static PyObject *loop_number(PyObject *self, void *which)
{
    struct loop *loop = (struct loop *)self;

    switch ((uintptr_t)which) {
    case 0:
        return PyLong_FromVoidPtr(loop);
    case 1:
        return PyLong_FromUnsignedLong(loop->handlers + loop_c_live(loop));
    case 2:
        return PyLong_FromSsize_t(PySet_GET_SIZE(loop->tasks));
    case 3:
        return PyLong_FromUnsignedLongLong(loop->accepted + (loop->c_handlers ? loop->c_handlers->accepted : 0));
    case 4:
        return PyLong_FromUnsignedLongLong(loop->failed);
    case 5:
        return PyBool_FromLong(loop->thread && thread_attached(loop->thread, NULL));
    case 6:
        return PyLong_FromUnsignedLongLong(loop->thread ? thread_clock_us(loop->thread) : 0);
    default:
        return PyLong_FromVoidPtr(loop->thread);
    }
}

/* Counts turns in the first 8 bytes of a writable buffer, which the loop keeps; None: no longer. */
static PyObject *loop_beat(PyObject *self, PyObject *buffer)
{
    struct loop *loop = (struct loop *)self;
    Py_buffer view = {0};

    if (buffer != Py_None && PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE) < 0)
        return NULL;
    if (view.obj && (view.len < (Py_ssize_t)sizeof *loop->beat || (uintptr_t)view.buf % sizeof *loop->beat != 0)) {
        PyBuffer_Release(&view);
        return PyErr_Format(PyExc_ValueError, "beat() takes 8 bytes at an address that is a multiple of 8");
    }
    if (loop->beat_buffer.obj)
        PyBuffer_Release(&loop->beat_buffer);
    loop->beat_buffer = view;
    loop->beat = view.buf;
    Py_RETURN_NONE;
}

static PyMethodDef loop_methods[] = {
    {"beat", loop_beat, METH_O, NULL},
    {"listen", loop_listen, METH_VARARGS, NULL},
    {"listen_c", loop_listen_c, METH_VARARGS, NULL},
    {"unlisten", loop_unlisten, METH_VARARGS, NULL},
    {"online", loop_online, METH_NOARGS, NULL},
    {"leave", loop_leave, METH_NOARGS, NULL},
    {"has_left", loop_has_left, METH_NOARGS, NULL},
    {"connect", loop_connect, METH_VARARGS, NULL},
    {"spawn", loop_spawn, METH_VARARGS, NULL},
    {"call_later", loop_call_later, METH_VARARGS, NULL},
    {"cancel_all", loop_cancel_all, METH_NOARGS, NULL},
    {"close", loop_close_method, METH_NOARGS, NULL},
    {"take_fatal", loop_take_fatal, METH_NOARGS, NULL},
    {"next_deadline_us", loop_next_deadline, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef loop_attributes[] = {
    {"handle", loop_number, NULL, "For loop_run().", (void *)0},
    {"handlers", loop_number, NULL, "Connections whose handler runs.", (void *)1},
    {"tasks", loop_number, NULL, "Spawned tasks that run, and handlers whose connection is closed already.", (void *)2},
    {"accepted", loop_number, NULL, "Connections given to handlers so far.", (void *)3},
    {"failed", loop_number, NULL, "Handlers that ended with an exception.", (void *)4},
    {"attached", loop_number, NULL, "False while janusd is away.", (void *)5},
    {"clock_us", loop_number, NULL, "The loop's time now.", (void *)6},
    {"thread", loop_number, NULL, "The struct janus_thread, 0 when closed.", (void *)7},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject loop_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "janus_tcp._core.Loop",
    .tp_basicsize = sizeof(struct loop),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "One TCP thread under Python.",
    .tp_new = loop_new,
    .tp_dealloc = loop_dealloc,
    .tp_methods = loop_methods,
    .tp_getset = loop_attributes,
};
