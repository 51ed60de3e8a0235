/*
 * asyncio_transport.c: Transport, one TCP connection under an asyncio protocol: reading, ending, and what is known of it.
 *
 * The rules are those of asyncio's own socket transport: connection_made() first, no callback while paused, connection_lost() once and
 * from the ready queue, an exception in a callback ends this connection alone.
 */
#include "janus_tcp/asyncio.h"

#include <errno.h>
#include <stddef.h>
#include <structmember.h>

enum { READ_MAX = 256 * 1024, HIGH_DEFAULT = 64 * 1024, LOW_DEFAULT = 16 * 1024 };

/* --- life --- */

struct transport *transport_new(struct poller *p, uint32_t conn, PyObject *owner, PyObject *context)
{
    PyTypeObject *type = (PyTypeObject *)p->transport_type;
    struct transport *t = (struct transport *)type->tp_alloc(type, 0);

    if (t)
        t->context = PyContext_Copy(context);
    if (!t || !t->context) {
        Py_XDECREF((PyObject *)t);
        thread_abort(p->thread, conn);
        return NULL;
    }
    t->poller = (struct poller *)Py_NewRef((PyObject *)p);
    t->owner = owner == Py_None ? NULL : Py_NewRef(owner);
    t->conn = conn;
    t->high_bytes = HIGH_DEFAULT;
    t->low_bytes = LOW_DEFAULT;
    t->flags = TRANSPORT_OPEN;
    thread_flow(p->thread, conn, &t->flow);
    thread_set_user(p->thread, conn, (uint64_t)(uintptr_t)t);
    thread_set_nodelay(p->thread, conn, true); /* as asyncio does for every TCP socket */
    p->rows[conn] = (struct transport *)Py_NewRef((PyObject *)t);
    p->open_count++;
    return t;
}

/* Gives the core's connection back, by FIN or by RST. */
void transport_let_go(struct transport *t, bool abort)
{
    struct poller *p = t->poller;

    if (!(t->flags & TRANSPORT_OPEN))
        return;
    t->flags &= (uint16_t)~TRANSPORT_OPEN;
    p->rows[t->conn] = NULL;
    p->open_count--;
    p->touched = true;
    if (abort)
        thread_abort(p->thread, t->conn);
    else
        thread_close_conn(p->thread, t->conn);
    Py_DECREF((PyObject *)t);
}

static int transport_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct transport *t = (struct transport *)self;

    Py_VISIT(Py_TYPE(self));
    Py_VISIT(t->extra);
    Py_VISIT(t->poller);
    Py_VISIT(t->protocol);
    Py_VISIT(t->context);
    Py_VISIT(t->owner);
    return 0;
}

static int transport_clear(PyObject *self)
{
    struct transport *t = (struct transport *)self;

    Py_CLEAR(t->extra);
    Py_CLEAR(t->protocol);
    Py_CLEAR(t->context);
    Py_CLEAR(t->owner);
    outbox_clear(t);
    return 0;
}

static void transport_dealloc(PyObject *self)
{
    struct transport *t = (struct transport *)self;
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    if (t->weakrefs)
        PyObject_ClearWeakRefs(self);
    transport_clear(self);
    Py_CLEAR(t->poller);
    type->tp_free(self);
    Py_DECREF(type);
}

/* --- calling the protocol --- */

static void report_slow(struct transport *t, PyObject *name, uint64_t us)
{
    PyObject *type, *value, *traceback, *r;

    PyErr_Fetch(&type, &value, &traceback);
    r = PyObject_CallMethod(t->poller->loop, "_report_slow", "OOd", t->protocol ? t->protocol : Py_None, name,
                            (double)us / 1e6);
    if (!r)
        PyErr_WriteUnraisable((PyObject *)t);
    Py_XDECREF(r);
    PyErr_Restore(type, value, traceback);
}

PyObject *transport_call(struct transport *t, PyObject *name, PyObject *argument)
{
    struct poller *p = t->poller;
    uint64_t begin_us = p->slow_us ? thread_clock_us(p->thread) : 0;
    PyObject *context = Py_NewRef(t->context);
    PyObject *protocol = Py_NewRef(t->protocol);
    PyObject *r = NULL;

    if (PyContext_Enter(context) == 0) {
        r = argument ? PyObject_CallMethodOneArg(protocol, name, argument) : PyObject_CallMethodNoArgs(protocol, name);
        if (PyContext_Exit(context) < 0)
            Py_CLEAR(r);
    }
    if (p->slow_us && thread_clock_us(p->thread) - begin_us > p->slow_us)
        report_slow(t, name, thread_clock_us(p->thread) - begin_us);
    Py_DECREF(protocol);
    Py_DECREF(context);
    return r;
}

static int set_protocol(struct transport *t, PyObject *protocol)
{
    static PyObject *buffered_type;
    int buffered;

    if (!buffered_type) {
        PyObject *module = PyImport_ImportModule("asyncio.protocols");

        buffered_type = module ? PyObject_GetAttrString(module, "BufferedProtocol") : NULL;
        Py_XDECREF(module);
        if (!buffered_type)
            return -1;
    }
    buffered = PyObject_IsInstance(protocol, buffered_type);
    if (buffered < 0)
        return -1;
    t->flags = buffered ? t->flags | TRANSPORT_BUFFERED : t->flags & (uint16_t)~TRANSPORT_BUFFERED;
    Py_XSETREF(t->protocol, Py_NewRef(protocol));
    return 0;
}

/* CPython's Server counts its connections; since 3.13 it knows them. */
static PyObject *tell_server(struct transport *t, PyObject *server, const char *method)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyObject_CallMethod(server, method, "O", (PyObject *)t);
#else
    (void)t;
    return PyObject_CallMethod(server, method, NULL);
#endif
}

int transport_start(struct transport *t, PyObject *protocol)
{
    PyObject *r;

    if (set_protocol(t, protocol) < 0)
        return -1;
    t->flags |= TRANSPORT_STARTED;
    if (t->owner && asyncio_has_method(t->owner, asyncio_names.attach)) {
        r = tell_server(t, t->owner, "_attach");
        if (!r)
            return transport_failed(t, "Error on transport creation for incoming connection");
        Py_DECREF(r);
    }
    r = transport_call(t, asyncio_names.connection_made, (PyObject *)t);
    if (!r)
        return transport_failed(t, "Fatal error: protocol.connection_made() call failed.");
    Py_DECREF(r);
    return 0;
}

/* --- reading --- */

static bool may_read(const struct transport *t)
{
    return (t->flags & (TRANSPORT_OPEN | TRANSPORT_STARTED | TRANSPORT_PAUSED | TRANSPORT_CLOSING |
                        TRANSPORT_EOF_SEEN)) == (TRANSPORT_OPEN | TRANSPORT_STARTED);
}

static int give_bytes(struct transport *t, uint32_t ready)
{
    uint32_t len = ready < READ_MAX ? ready : READ_MAX;
    PyObject *data = PyBytes_FromStringAndSize(NULL, len);
    PyObject *r;

    if (!data)
        return transport_failed(t, "Fatal read error on Janus transport");
    thread_recv(t->poller->thread, t->conn, PyBytes_AS_STRING(data), len);
    r = transport_call(t, asyncio_names.data_received, data);
    Py_DECREF(data);
    if (!r)
        return transport_failed(t, "Fatal error: protocol.data_received() call failed.");
    Py_DECREF(r);
    return 0;
}

/* get_buffer() may do anything, so the connection is looked at again before it is read. */
static int fill_buffer(struct transport *t, uint32_t ready)
{
    PyObject *hint = PyLong_FromUnsignedLong(ready < READ_MAX ? ready : READ_MAX);
    PyObject *object = hint ? transport_call(t, asyncio_names.get_buffer, hint) : NULL;
    PyObject *count, *r;
    Py_buffer view;
    uint32_t len = 0;

    Py_XDECREF(hint);
    if (object && PyObject_GetBuffer(object, &view, PyBUF_WRITABLE) == 0) {
        if (view.len == 0)
            PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
        else if (may_read(t))
            len = thread_recv(t->poller->thread, t->conn, view.buf,
                              view.len < INT32_MAX ? (uint32_t)view.len : INT32_MAX);
        PyBuffer_Release(&view);
    }
    Py_XDECREF(object);
    if (PyErr_Occurred())
        return transport_failed(t, "Fatal error: protocol.get_buffer() call failed.");
    if (len == 0)
        return 0;
    count = PyLong_FromUnsignedLong(len);
    r = count ? transport_call(t, asyncio_names.buffer_updated, count) : NULL;
    Py_XDECREF(count);
    if (!r)
        return transport_failed(t, "Fatal error: protocol.buffer_updated() call failed.");
    Py_DECREF(r);
    return 0;
}

static PyObject *transport_close(PyObject *self, PyObject *unused);

static int give_eof(struct transport *t)
{
    PyObject *r;
    int keep_open;

    t->flags |= TRANSPORT_EOF_SEEN;
    r = transport_call(t, asyncio_names.eof_received, NULL);
    keep_open = r ? PyObject_IsTrue(r) : -1;
    Py_XDECREF(r);
    if (keep_open < 0)
        return transport_failed(t, "Fatal error: protocol.eof_received() call failed.");
    if (!keep_open) {
        r = transport_close((PyObject *)t, NULL);
        if (!r)
            return transport_failed(t, "Fatal error on Janus transport");
        Py_DECREF(r);
    }
    return 0;
}

/* The core has ended the connection; what it had received comes first.  Who neither reads nor has anything unread is told now. */
static int give_error(struct transport *t)
{
    struct janus_thread *thread = t->poller->thread;
    int code = thread_conn_error(thread, t->conn);

    if (code == 0 || (may_read(t) ? 0 : thread_recv_ready(thread, t->conn) > 0 && !(t->flags & TRANSPORT_CLOSING)))
        return 0;
    face_raise_os(code, code == ETIMEDOUT ? "the peer does not answer" : strerror(code));
    return transport_failed(t, "Fatal read error on Janus transport");
}

int transport_read(struct transport *t)
{
    while (may_read(t)) {
        uint32_t ready = thread_recv_ready(t->poller->thread, t->conn);
        int rc;

        if (ready == 0)
            break;
        t->poller->touched = true;
        rc = t->flags & TRANSPORT_BUFFERED ? fill_buffer(t, ready) : give_bytes(t, ready);
        if (rc < 0)
            return -1;
    }
    if (may_read(t) && thread_recv_eof(t->poller->thread, t->conn) && give_eof(t) < 0)
        return -1;
    if ((t->flags & (TRANSPORT_OPEN | TRANSPORT_FAILED)) == (TRANSPORT_OPEN | TRANSPORT_FAILED))
        return give_error(t);
    return 0;
}

/* --- an active open --- */

/* The future that waits hears; then it is no longer needed. */
static int tell_opener(struct transport *t, int code)
{
    PyObject *future = t->owner;

    t->owner = NULL;
    asyncio_end_future(future, code);
    Py_DECREF(future);
    if (code != 0)
        transport_let_go(t, true);
    return PyErr_Occurred() ? transport_failed(t, "Error on opening a connection") : 0;
}

int transport_on_event(struct transport *t, uint32_t kinds)
{
    if (!(t->flags & TRANSPORT_OPEN))
        return 0;
    if (kinds & TCP_EVENT_ERROR)
        t->flags |= TRANSPORT_FAILED;
    if (!(t->flags & TRANSPORT_STARTED)) {
        if (t->owner && (kinds & (TCP_EVENT_CONNECTED | TCP_EVENT_ERROR)) &&
            asyncio_has_method(t->owner, asyncio_names.set_result))
            return tell_opener(t, kinds & TCP_EVENT_ERROR ? thread_conn_error(t->poller->thread, t->conn) : 0);
        return 0;
    }
    if (kinds & (TCP_EVENT_READABLE | TCP_EVENT_ERROR) && transport_read(t) < 0)
        return -1;
    if (kinds & TCP_EVENT_WRITABLE && t->flags & TRANSPORT_OPEN)
        return outbox_flush(t);
    return 0;
}

/* --- ending --- */

PyObject *transport_schedule_lost(struct transport *t, PyObject *exception)
{
    static PyObject *keywords;
    PyObject *method = PyObject_GetAttr((PyObject *)t, asyncio_names.call_connection_lost);
    PyObject *stack[] = {method, exception, t->context};
    PyObject *r;

    if (!keywords)
        keywords = PyTuple_Pack(1, asyncio_names.context);
    r = method && keywords ? PyObject_Vectorcall(t->poller->call_soon, stack, 2, keywords) : NULL;
    Py_XDECREF(method);
    return r;
}

void transport_force_close(struct transport *t, PyObject *exception)
{
    PyObject *r;

    if (t->lost)
        return;
    t->lost = 1;
    t->flags |= TRANSPORT_CLOSING;
    outbox_clear(t);
    transport_let_go(t, true);
    if (!t->protocol)
        return;
    r = transport_schedule_lost(t, exception ? exception : Py_None);
    if (!r)
        PyErr_WriteUnraisable((PyObject *)t); /* the loop is closed */
    Py_XDECREF(r);
}

int transport_failed(struct transport *t, const char *message)
{
    PyObject *e = face_take_exception();

    if (PyErr_GivenExceptionMatches(e, PyExc_KeyboardInterrupt) || PyErr_GivenExceptionMatches(e, PyExc_SystemExit)) {
        PyErr_SetObject((PyObject *)Py_TYPE(e), e);
        Py_DECREF(e);
        return -1;
    }
    Py_INCREF((PyObject *)t);
    if (!PyErr_GivenExceptionMatches(e, PyExc_OSError))
        poller_complain(t->poller, message, e, t);
    transport_force_close(t, e);
    Py_DECREF((PyObject *)t);
    Py_DECREF(e);
    return 0;
}

/* From the ready queue, in the transport's context. */
static PyObject *transport_call_connection_lost(PyObject *self, PyObject *exception)
{
    struct transport *t = (struct transport *)self;
    PyObject *protocol = t->protocol;
    PyObject *owner = t->owner;
    PyObject *type, *value, *traceback, *r = NULL, *detached = NULL;

    t->protocol = t->owner = NULL;
    if (protocol)
        r = PyObject_CallMethodOneArg(protocol, asyncio_names.connection_lost, exception);
    PyErr_Fetch(&type, &value, &traceback);
    if (owner)
        detached = tell_server(t, owner, "_detach");
    if (owner && !detached)
        PyErr_WriteUnraisable(self);
    PyErr_Restore(type, value, traceback);
    Py_XDECREF(detached);
    Py_XDECREF(protocol);
    Py_XDECREF(owner);
    if (!r && PyErr_Occurred())
        return NULL;
    Py_XDECREF(r);
    Py_RETURN_NONE;
}

static PyObject *transport_close(PyObject *self, PyObject *unused)
{
    struct transport *t = (struct transport *)self;

    (void)unused;
    if (t->flags & TRANSPORT_CLOSING)
        Py_RETURN_NONE;
    if (t->flags & TRANSPORT_OPEN && poller_is_here(t->poller) < 0)
        return NULL;
    t->flags |= TRANSPORT_CLOSING;
    if (t->outbox || t->lost)
        Py_RETURN_NONE;
    t->lost = 1;
    transport_let_go(t, false);
    return t->protocol ? transport_schedule_lost(t, Py_None) : Py_NewRef(Py_None);
}

static PyObject *transport_force_close_method(PyObject *self, PyObject *exception)
{
    struct transport *t = (struct transport *)self;

    if (t->flags & TRANSPORT_OPEN && poller_is_here(t->poller) < 0)
        return NULL;
    transport_force_close(t, exception);
    Py_RETURN_NONE;
}

static PyObject *transport_abort(PyObject *self, PyObject *unused)
{
    (void)unused;
    return transport_force_close_method(self, Py_None);
}

/* --- pausing, protocols --- */

static PyObject *transport_pause_reading(PyObject *self, PyObject *unused)
{
    struct transport *t = (struct transport *)self;

    (void)unused;
    if (!(t->flags & TRANSPORT_CLOSING))
        t->flags |= TRANSPORT_PAUSED;
    Py_RETURN_NONE;
}

static PyObject *transport_resume_reading(PyObject *self, PyObject *unused)
{
    struct transport *t = (struct transport *)self;

    (void)unused;
    if (t->flags & TRANSPORT_CLOSING || !(t->flags & TRANSPORT_PAUSED))
        Py_RETURN_NONE;
    if (poller_is_here(t->poller) < 0)
        return NULL;
    t->flags &= (uint16_t)~TRANSPORT_PAUSED;
    if (poller_revisit(t->poller, t) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *transport_is_reading(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(!(((struct transport *)self)->flags & (TRANSPORT_PAUSED | TRANSPORT_CLOSING)));
}

static PyObject *transport_is_closing(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(((struct transport *)self)->flags & TRANSPORT_CLOSING);
}

static PyObject *transport_set_protocol(PyObject *self, PyObject *protocol)
{
    if (set_protocol((struct transport *)self, protocol) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *transport_get_protocol(PyObject *self, PyObject *unused)
{
    PyObject *protocol = ((struct transport *)self)->protocol;

    (void)unused;
    return Py_NewRef(protocol ? protocol : Py_None);
}

/* _start(protocol): what connect() has opened, or a raw listener accepted, gets its protocol. */
static PyObject *transport_start_method(PyObject *self, PyObject *protocol)
{
    struct transport *t = (struct transport *)self;

    if (!(t->flags & TRANSPORT_OPEN) || t->flags & TRANSPORT_STARTED)
        return PyErr_Format(PyExc_RuntimeError, "the transport is not one that waits for its protocol");
    if (poller_is_here(t->poller) < 0 || transport_start(t, protocol) < 0)
        return NULL;
    if (t->flags & TRANSPORT_OPEN && poller_revisit(t->poller, t) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* --- the type --- */

static PyMethodDef transport_methods[] = {
    {"get_extra_info", (PyCFunction)(void (*)(void))transport_get_extra_info, METH_VARARGS | METH_KEYWORDS, NULL},
    {"set_protocol", transport_set_protocol, METH_O, NULL},
    {"get_protocol", transport_get_protocol, METH_NOARGS, NULL},
    {"is_reading", transport_is_reading, METH_NOARGS, NULL},
    {"is_closing", transport_is_closing, METH_NOARGS, NULL},
    {"pause_reading", transport_pause_reading, METH_NOARGS, "Leave received data in its packets; the window closes."},
    {"resume_reading", transport_resume_reading, METH_NOARGS, NULL},
    {"close", transport_close, METH_NOARGS, "Close: what was written still arrives, then FIN."},
    {"abort", transport_abort, METH_NOARGS, "Close at once by RST."},
    {"write", transport_write, METH_O, NULL},
    {"writelines", transport_writelines, METH_O, NULL},
    {"write_eof", transport_write_eof, METH_NOARGS, "FIN after what was written; reading goes on."},
    {"can_write_eof", transport_can_write_eof, METH_NOARGS, NULL},
    {"get_write_buffer_size", transport_get_write_buffer_size, METH_NOARGS, NULL},
    {"get_write_buffer_limits", transport_get_write_buffer_limits, METH_NOARGS, NULL},
    {"set_write_buffer_limits", (PyCFunction)(void (*)(void))transport_set_write_buffer_limits,
     METH_VARARGS | METH_KEYWORDS, NULL},
    {"_start", transport_start_method, METH_O, NULL},
    {"_force_close", transport_force_close_method, METH_O, NULL},
    {"_call_connection_lost", transport_call_connection_lost, METH_O, NULL},
    {"_set_option", transport_set_option, METH_VARARGS, NULL},
    {"_option", transport_option, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef transport_attributes[] = {
    {"_loop", transport_attribute, NULL, NULL, (void *)0},
    {"_protocol_paused", transport_attribute, NULL, NULL, (void *)1},
    {"_flow", transport_attribute, NULL, "(local, remote), 16 bytes and a port each.", (void *)2},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef transport_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct transport, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot transport_slots[] = {
    {Py_tp_doc, "A TCP connection on Janus for an asyncio protocol."},
    {Py_tp_methods, transport_methods},
    {Py_tp_getset, transport_attributes},
    {Py_tp_members, transport_members},
    {Py_tp_dealloc, transport_dealloc},
    {Py_tp_traverse, transport_traverse},
    {Py_tp_clear, transport_clear},
    {Py_tp_repr, transport_repr},
    {0, NULL},
};

static PyType_Spec transport_spec = {
    .name = "janus_tcp.asyncio.Transport",
    .basicsize = sizeof(struct transport),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = transport_slots,
};

PyObject *transport_make_type(PyObject *base)
{
    PyObject *bases, *type;

    if (!PyType_Check(base) || ((PyTypeObject *)base)->tp_basicsize != offsetof(struct transport, poller))
        return PyErr_Format(PyExc_ImportError, "asyncio.Transport is not made as janus_tcp expects it");
    bases = PyTuple_Pack(1, base);
    type = bases ? PyType_FromSpecWithBases(&transport_spec, bases) : NULL;
    Py_XDECREF(bases);
    return type;
}
