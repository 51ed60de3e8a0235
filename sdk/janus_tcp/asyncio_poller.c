/*
 * asyncio_poller.c: Poller, one TCP thread under an asyncio loop: listeners, the batch, and going to sleep.
 */
#include "janus_tcp/asyncio.h"

#include <errno.h>
#include <math.h>

#define SLEEP_MAX_US UINT64_C(1000000000000)

int poller_is_here(struct poller *p)
{
    if (!p->thread)
        PyErr_SetString(PyExc_RuntimeError, "the Janus stack of this event loop is closed");
    else if (p->fork_count != face_fork_count())
        PyErr_SetString(PyExc_RuntimeError, "the event loop belongs to the process that made it, not to its child");
    else if (p->system_thread && p->system_thread != PyThread_get_thread_ident())
        PyErr_SetString(PyExc_RuntimeError, "a transport belongs to the thread that runs its event loop; "
                                            "use loop.call_soon_threadsafe()");
    else
        return 0;
    return -1;
}

void poller_complain(struct poller *p, const char *message, PyObject *exception, struct transport *t)
{
    PyObject *context = Py_BuildValue("{sssO}", "message", message, "exception", exception ? exception : Py_None);
    PyObject *r = NULL;

    if (context && (!t || (PyDict_SetItemString(context, "transport", (PyObject *)t) == 0 &&
                           (!t->protocol || PyDict_SetItemString(context, "protocol", t->protocol) == 0))))
        r = PyObject_CallMethod(p->loop, "call_exception_handler", "O", context);
    if (!r)
        PyErr_WriteUnraisable((PyObject *)t);
    Py_XDECREF(context);
    Py_XDECREF(r);
}

int poller_revisit(struct poller *p, struct transport *t)
{
    if (t->flags & TRANSPORT_REVISIT)
        return 0;
    if (p->revisit_count == p->revisit_room) {
        uint32_t room = p->revisit_room ? 2 * p->revisit_room : 64;
        struct transport **grown = PyMem_Realloc(p->revisit, room * sizeof(struct transport *));

        if (!grown) {
            PyErr_NoMemory();
            return -1;
        }
        p->revisit = grown;
        p->revisit_room = room;
    }
    t->flags |= TRANSPORT_REVISIT;
    p->revisit[p->revisit_count++] = (struct transport *)Py_NewRef((PyObject *)t);
    return 0;
}

/* --- one batch --- */

/* A connection is there: its protocol is made and told; with raw, whoever listens does both. */
static int start_accepted(struct asyncio_listener *l, struct transport *t)
{
    PyObject *made;
    int rc;

    if (l->raw) { /* its _start() enters the context */
        made = PyObject_CallOneArg(l->factory, (PyObject *)t);
    } else {
        if (PyContext_Enter(t->context) < 0)
            return -1;
        made = PyObject_CallNoArgs(l->factory);
        if (PyContext_Exit(t->context) < 0)
            Py_CLEAR(made);
    }
    if (!made)
        return -1;
    rc = l->raw ? 0 : transport_start(t, made);
    Py_DECREF(made);
    return rc;
}

static int accept_event(struct poller *p, const struct tcp_event *e)
{
    struct asyncio_listener *l = &p->listeners[e->user >> 1];
    struct transport *t;
    int rc;

    p->touched = true;
    if (!l->factory) {
        thread_abort(p->thread, e->conn);
        return 0;
    }
    t = transport_new(p, e->conn, l->server, l->context);
    if (!t) {
        PyErr_WriteUnraisable(l->factory);
        return 0;
    }
    p->accepted++;
    rc = start_accepted(l, t);
    if (rc < 0 && !(t->flags & TRANSPORT_STARTED))
        rc = transport_failed(t, "Error on transport creation for incoming connection");
    if (rc == 0 && (e->kinds & ~(uint32_t)TCP_EVENT_ACCEPTED))
        rc = transport_on_event(t, e->kinds & ~(uint32_t)TCP_EVENT_ACCEPTED);
    Py_DECREF((PyObject *)t);
    return rc;
}

static struct transport *event_transport(const struct tcp_event *e)
{
    return e->user & 1 ? NULL : (struct transport *)(uintptr_t)e->user;
}

/* All objects are held from here on: a callback may close the connection of a later event. */
static void gather(struct poller *p)
{
    p->event_at = p->event_count = 0;
    while (p->event_count < LOOP_EVENTS && thread_next_event(p->thread, &p->events[p->event_count])) {
        struct transport *t = event_transport(&p->events[p->event_count]);

        if (t)
            __builtin_prefetch(t, 1);
        p->event_count++;
    }
    for (uint32_t i = 0; i < p->event_count; i++) {
        struct transport *t = event_transport(&p->events[i]);

        if (t) {
            Py_INCREF((PyObject *)t);
            if (t->protocol)
                __builtin_prefetch(t->protocol);
        }
    }
}

static int run_events(struct poller *p)
{
    while (p->event_at < p->event_count) {
        const struct tcp_event *e = &p->events[p->event_at++];
        struct transport *t = event_transport(e);
        int rc = t ? transport_on_event(t, e->kinds) : accept_event(p, e);

        Py_XDECREF((PyObject *)t);
        if (rc < 0)
            return -1;
    }
    return 0;
}

/* What comes into the list meanwhile waits for the next batch. */
static int run_revisits(struct poller *p)
{
    uint32_t n = p->revisit_count;
    int rc = 0;
    uint32_t i;

    for (i = 0; i < n && rc == 0; i++) {
        struct transport *t = p->revisit[i];

        t->flags &= (uint16_t)~TRANSPORT_REVISIT;
        rc = transport_read(t);
        Py_DECREF((PyObject *)t);
    }
    p->revisit_count -= i;
    memmove(p->revisit, p->revisit + i, p->revisit_count * sizeof(struct transport *));
    return rc;
}

static void flush(struct poller *p)
{
    p->touched = false;
    thread_flush(p->thread);
}

static PyObject *poller_poll(PyObject *self, PyObject *unused)
{
    struct poller *p = (struct poller *)self;
    uint32_t work = 0;
    int rc;

    (void)unused;
    if (poller_is_here(p) < 0)
        return NULL;
    if (p->event_at == p->event_count) {
        if (p->touched)
            flush(p);
        work = thread_poll(p->thread);
        gather(p);
    }
    work += p->event_count - p->event_at + p->revisit_count;
    p->polling = true;
    rc = run_events(p);
    if (rc == 0 && p->revisit_count > 0)
        rc = run_revisits(p);
    p->polling = false;
    flush(p);
    return rc < 0 ? NULL : PyLong_FromUnsignedLong(work);
}

/* --- sleeping --- */

/* A short spin, since the next packet is often near.  True: there is something. */
static bool spin(struct poller *p, uint64_t until_us)
{
    bool found;

    Py_BEGIN_ALLOW_THREADS found = thread_spin(p->thread, until_us);
    Py_END_ALLOW_THREADS return found;
}

/* arm(timeout): how many seconds the caller may sleep on fileno() until it must poll() again, at most timeout (None: no limit), and
 * disarm() then; 0.0: do not sleep. */
static PyObject *poller_arm(PyObject *self, PyObject *timeout)
{
    struct poller *p = (struct poller *)self;
    double wanted = timeout == Py_None ? 1e9 : PyFloat_AsDouble(timeout);
    uint64_t now_us, deadline_us, limit_us;

    if ((wanted == -1.0 && PyErr_Occurred()) || poller_is_here(p) < 0)
        return NULL;
    if (p->revisit_count > 0 || p->event_at < p->event_count || wanted <= 0)
        return PyFloat_FromDouble(0);
    now_us = thread_clock_us(p->thread);
    limit_us = wanted < 1e6 ? (uint64_t)ceil(wanted * 1e6) : SLEEP_MAX_US;
    if (p->spin_us && spin(p, now_us + (limit_us < p->spin_us ? limit_us : p->spin_us)))
        return PyFloat_FromDouble(0);
    deadline_us = thread_next_deadline(p->thread);
    if (deadline_us <= now_us || !thread_arm(p->thread))
        return PyFloat_FromDouble(0);
    if (deadline_us - now_us < limit_us)
        limit_us = deadline_us - now_us;
    return PyFloat_FromDouble((double)limit_us / 1e6);
}

static PyObject *poller_disarm(PyObject *self, PyObject *unused)
{
    struct poller *p = (struct poller *)self;

    (void)unused;
    if (p->thread && p->fork_count == face_fork_count())
        thread_disarm(p->thread);
    Py_RETURN_NONE;
}

/* --- services --- */

static struct asyncio_listener *find_listener(struct poller *p, const struct ip_addr *addr, uint16_t port)
{
    for (uint32_t i = 0; i < TCP_LISTENERS_MAX; i++) {
        struct asyncio_listener *l = &p->listeners[i];

        if (addr ? l->factory && l->port == port && ip_addr_equal(&l->addr, addr) : !l->factory)
            return l;
    }
    return NULL;
}

static void forget_listener(struct asyncio_listener *l)
{
    Py_CLEAR(l->factory);
    Py_CLEAR(l->server);
    Py_CLEAR(l->context);
}

/* listen(address, port, factory, server, raw) */
static PyObject *poller_listen(PyObject *self, PyObject *args)
{
    struct poller *p = (struct poller *)self;
    struct janus_error error;
    struct ip_addr addr;
    struct asyncio_listener *l;
    PyObject *address, *factory, *server, *context;
    unsigned short port;
    int raw;

    if (!PyArg_ParseTuple(args, "OHOOp:listen", &address, &port, &factory, &server, &raw) ||
        !loop_parse_address(address, &addr) || poller_is_here(p) < 0)
        return NULL;
    l = find_listener(p, NULL, 0);
    if (!l)
        return face_raise_os(ENOSPC, "too many listeners");
    context = PyContext_CopyCurrent();
    if (!context)
        return NULL;
    if (thread_listen(p->thread, &addr, port, (uint64_t)(l - p->listeners) << 1 | 1, &error) < 0) {
        Py_DECREF(context);
        return face_raise(&error);
    }
    *l = (struct asyncio_listener){Py_NewRef(factory), Py_NewRef(server), context, addr, port, raw};
    Py_RETURN_NONE;
}

static PyObject *poller_unlisten(PyObject *self, PyObject *args)
{
    struct poller *p = (struct poller *)self;
    struct janus_error error;
    struct ip_addr addr;
    struct asyncio_listener *l;
    PyObject *address;
    unsigned short port;

    if (!PyArg_ParseTuple(args, "OH:unlisten", &address, &port) || !loop_parse_address(address, &addr) ||
        poller_is_here(p) < 0)
        return NULL;
    l = find_listener(p, &addr, port);
    if (l)
        forget_listener(l);
    if (thread_unlisten(p->thread, &addr, port, &error) < 0)
        return face_raise(&error);
    Py_RETURN_NONE;
}

static PyObject *poller_online(PyObject *self, PyObject *unused)
{
    struct poller *p = (struct poller *)self;
    struct janus_error error;
    int rc;

    (void)unused;
    if (poller_is_here(p) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS; /* janusd's answer may wait for another loop of this process */
    rc = thread_online(p->thread, &error);
    Py_END_ALLOW_THREADS;
    if (rc < 0)
        return face_raise(&error);
    Py_RETURN_NONE;
}

/* connect(local address, local port, remote address, remote port, future): a Transport to be started when the future has a result. */
static PyObject *poller_connect(PyObject *self, PyObject *args)
{
    struct poller *p = (struct poller *)self;
    struct janus_error error;
    struct ip_addr laddr, raddr;
    PyObject *local, *remote, *future, *context;
    unsigned short lport, rport;
    struct transport *t;
    uint32_t conn;

    if (!PyArg_ParseTuple(args, "OHOHO:connect", &local, &lport, &remote, &rport, &future) ||
        !loop_parse_address(local, &laddr) || !loop_parse_address(remote, &raddr) || poller_is_here(p) < 0)
        return NULL;
    context = PyContext_CopyCurrent();
    if (!context)
        return NULL;
    if (thread_connect(p->thread, local == Py_None ? NULL : &laddr, lport, &raddr, rport, 0, &conn, &error) < 0) {
        Py_DECREF(context);
        return face_raise(&error);
    }
    p->touched = true;
    t = transport_new(p, conn, future, context);
    Py_DECREF(context);
    return (PyObject *)t;
}

/* --- life --- */

static PyObject *poller_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"thread", "loop", "transport_type", "socket_type", "owns", "spin_us", NULL};
    unsigned long long thread;
    PyObject *loop, *transport_type, *socket_type;
    int owns = 1;
    unsigned spin_us = 20;
    struct poller *p;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "KOO!O|pI:Poller", names, &thread, &loop, &PyType_Type,
                                     &transport_type, &socket_type, &owns, &spin_us))
        return NULL;
    p = (struct poller *)type->tp_alloc(type, 0);
    if (!p)
        return NULL;
    p->thread = (struct janus_thread *)(uintptr_t)thread;
    p->owns_thread = owns;
    p->spin_us = spin_us;
    p->fork_count = face_fork_count();
    p->loop = Py_NewRef(loop);
    p->socket_type = Py_NewRef(socket_type);
    p->transport_type = Py_NewRef(transport_type);
    p->call_soon = PyObject_GetAttrString(loop, "call_soon");
    p->row_count = thread_rows(p->thread);
    p->rows = PyMem_RawCalloc(p->row_count, sizeof *p->rows);
    if (!p->call_soon || !p->rows) {
        Py_DECREF(p);
        return PyErr_Occurred() ? NULL : PyErr_NoMemory();
    }
    return (PyObject *)p;
}

static void drop_pending(struct poller *p)
{
    for (; p->event_at < p->event_count; p->event_at++)
        Py_XDECREF((PyObject *)event_transport(&p->events[p->event_at]));
    for (uint32_t i = 0; i < p->revisit_count; i++)
        Py_DECREF((PyObject *)p->revisit[i]);
    p->revisit_count = p->revisit_room = 0;
    PyMem_Free(p->revisit);
    p->revisit = NULL;
}

static void drop_connections(struct poller *p)
{
    for (uint32_t i = 0; p->open_count > 0 && i < p->row_count; i++) {
        if (p->rows[i])
            transport_let_go(p->rows[i], true);
    }
}

/* drop(): no listener and no open connection is left; what was closed before still goes out while poll() is called. */
static PyObject *poller_drop(PyObject *self, PyObject *unused)
{
    struct poller *p = (struct poller *)self;

    (void)unused;
    if (poller_is_here(p) < 0)
        return NULL;
    for (uint32_t i = 0; i < TCP_LISTENERS_MAX; i++)
        forget_listener(&p->listeners[i]);
    drop_connections(p);
    Py_RETURN_NONE;
}

/* In a forked child nothing of the stack is touched: it is the parent's. */
static void close_poller(struct poller *p)
{
    bool ours = p->fork_count == face_fork_count();

    if (!p->thread)
        return;
    drop_pending(p);
    if (ours)
        drop_connections(p);
    for (uint32_t i = 0; i < TCP_LISTENERS_MAX; i++)
        forget_listener(&p->listeners[i]);
    if (ours) {
        thread_flush(p->thread);
        if (p->owns_thread)
            thread_close(p->thread);
    }
    p->thread = NULL;
    PyMem_RawFree(p->rows);
    p->rows = NULL;
    p->row_count = 0;
}

static PyObject *poller_close(PyObject *self, PyObject *unused)
{
    struct poller *p = (struct poller *)self;

    (void)unused;
    if (p->thread && p->fork_count == face_fork_count() && poller_is_here(p) < 0)
        return NULL;
    if (p->polling)
        return PyErr_Format(PyExc_RuntimeError, "a callback cannot close the stack that calls it");
    close_poller(p);
    Py_RETURN_NONE;
}

/* enter(True): the calling thread runs the loop from now on; enter(False): nobody does. */
static PyObject *poller_enter(PyObject *self, PyObject *on)
{
    struct poller *p = (struct poller *)self;

    if (poller_is_here(p) < 0)
        return NULL;
    p->system_thread = on == Py_True ? PyThread_get_thread_ident() : 0;
    Py_RETURN_NONE;
}

static int poller_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct poller *p = (struct poller *)self;

    Py_VISIT(p->loop);
    Py_VISIT(p->call_soon);
    Py_VISIT(p->socket_type);
    Py_VISIT(p->transport_type);
    for (uint32_t i = 0; i < TCP_LISTENERS_MAX; i++) {
        Py_VISIT(p->listeners[i].factory);
        Py_VISIT(p->listeners[i].server);
        Py_VISIT(p->listeners[i].context);
    }
    return 0;
}

static int poller_clear(PyObject *self)
{
    struct poller *p = (struct poller *)self;

    close_poller(p);
    Py_CLEAR(p->loop);
    Py_CLEAR(p->call_soon);
    Py_CLEAR(p->socket_type);
    Py_CLEAR(p->transport_type);
    return 0;
}

static void poller_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    poller_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *poller_fileno(PyObject *self, PyObject *unused)
{
    struct poller *p = (struct poller *)self;

    (void)unused;
    return poller_is_here(p) < 0 ? NULL : PyLong_FromLong(thread_fd(p->thread));
}

static PyMethodDef poller_methods[] = {
    {"poll", poller_poll, METH_NOARGS, "One batch; returns how much there was to do."},
    {"arm", poller_arm, METH_O, NULL},
    {"disarm", poller_disarm, METH_NOARGS, NULL},
    {"fileno", poller_fileno, METH_NOARGS, "What to sleep on; -1: nothing rings."},
    {"listen", poller_listen, METH_VARARGS, NULL},
    {"unlisten", poller_unlisten, METH_VARARGS, NULL},
    {"online", poller_online, METH_NOARGS, NULL},
    {"connect", poller_connect, METH_VARARGS, NULL},
    {"enter", poller_enter, METH_O, NULL},
    {"drop", poller_drop, METH_NOARGS, NULL},
    {"close", poller_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyObject *poller_number(PyObject *self, void *which)
{
    struct poller *p = (struct poller *)self;

    switch ((uintptr_t)which) {
    case 0:
        return PyLong_FromVoidPtr(p->thread);
    case 1:
        return PyLong_FromUnsignedLong(p->open_count);
    case 2:
        return PyLong_FromUnsignedLongLong(p->accepted);
    case 3:
        return PyFloat_FromDouble(p->thread ? (double)thread_clock_us(p->thread) / 1e6 : 0);
    default:
        return PyLong_FromUnsignedLong(p->slow_us);
    }
}

static int poller_set_slow(PyObject *self, PyObject *value, void *unused)
{
    unsigned long us = value ? PyLong_AsUnsignedLong(value) : 0;

    (void)unused;
    if (us == (unsigned long)-1 && PyErr_Occurred())
        return -1;
    ((struct poller *)self)->slow_us = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
    return 0;
}

static PyGetSetDef poller_attributes[] = {
    {"thread", poller_number, NULL, "The struct janus_thread, 0 when closed.", (void *)0},
    {"open", poller_number, NULL, "Connections that are open.", (void *)1},
    {"accepted", poller_number, NULL, "Connections accepted so far.", (void *)2},
    {"clock_s", poller_number, NULL, "The stack's time.", (void *)3},
    {"slow_us", poller_number, poller_set_slow, "Callbacks that take longer are named; 0: none.", (void *)4},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject poller_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "janus_tcp._core.Poller",
    .tp_basicsize = sizeof(struct poller),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_doc = "One TCP thread under an asyncio loop.",
    .tp_new = poller_new,
    .tp_dealloc = poller_dealloc,
    .tp_traverse = poller_traverse,
    .tp_clear = poller_clear,
    .tp_methods = poller_methods,
    .tp_getset = poller_attributes,
};
