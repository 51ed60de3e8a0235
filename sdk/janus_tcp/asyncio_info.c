/*
 * asyncio_info.c: what is known of a Transport, and its few settings.
 */
#include "janus_tcp/asyncio.h"

#include <arpa/inet.h>
#include <errno.h>

enum { TRIES_MORE = 2 };

static PyObject *endpoint(const struct ip_addr *addr, uint16_t port)
{
    char text[INET6_ADDRSTRLEN];

    if (ip_addr_is_ipv4(addr)) {
        inet_ntop(AF_INET, addr->b + 12, text, sizeof text);
        return Py_BuildValue("(si)", text, port);
    }
    inet_ntop(AF_INET6, addr->b, text, sizeof text);
    return Py_BuildValue("(siii)", text, port, 0, 0);
}

PyObject *transport_get_extra_info(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", "default", NULL};
    struct transport *t = (struct transport *)self;
    PyObject *name, *found, *otherwise = Py_None;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:get_extra_info", names, &name, &otherwise))
        return NULL;
    if (PyUnicode_Check(name)) {
        if (PyUnicode_CompareWithASCIIString(name, "peername") == 0)
            return endpoint(&t->flow.raddr, t->flow.rport);
        if (PyUnicode_CompareWithASCIIString(name, "sockname") == 0)
            return endpoint(&t->flow.laddr, t->flow.lport);
        if (PyUnicode_CompareWithASCIIString(name, "socket") == 0)
            return PyObject_CallOneArg(t->poller->socket_type, self);
    }
    found = t->extra && PyDict_Check(t->extra) ? PyDict_GetItemWithError(t->extra, name) : NULL;
    if (!found && PyErr_Occurred())
        return NULL;
    return Py_NewRef(found ? found : otherwise);
}

/* The field of settings that an option of the pretended socket means; null with ValueError set: none. */
static uint32_t *setting(struct tcp_settings *settings, const char *name)
{
    if (strcmp(name, "keepalive_ms") == 0)
        return &settings->keepalive_ms;
    if (strcmp(name, "keepalive_interval_ms") == 0)
        return &settings->keepalive_interval_ms;
    if (strcmp(name, "user_timeout_ms") == 0)
        return &settings->user_timeout_ms;
    PyErr_Format(PyExc_ValueError, "there is no setting %s", name);
    return NULL;
}

/* The same of those that are a byte, null: it is none of them. */
static uint8_t *byte_setting(struct tcp_settings *settings, const char *name)
{
    if (strcmp(name, "keepalive_probes") == 0)
        return &settings->keepalive_probes;
    if (strcmp(name, "dscp") == 0)
        return &settings->dscp;
    return strcmp(name, "ttl") == 0 ? &settings->ttl : NULL;
}

static int option_usable(struct transport *t)
{
    if (!(t->flags & TRANSPORT_OPEN)) {
        face_raise_os(EBADF, "the connection was closed on this side");
        return -1;
    }
    return poller_is_here(t->poller);
}

/* _set_option(name, value): for the pretended socket. */
PyObject *transport_set_option(PyObject *self, PyObject *args)
{
    struct transport *t = (struct transport *)self;
    struct tcp_settings settings;
    uint32_t *number;
    uint8_t *byte;
    const char *name;
    unsigned value;
    int code;

    if (!PyArg_ParseTuple(args, "sI:_set_option", &name, &value) || option_usable(t) < 0)
        return NULL;
    t->poller->touched = true;
    if (strcmp(name, "nodelay") == 0) {
        thread_set_nodelay(t->poller->thread, t->conn, value != 0);
        Py_RETURN_NONE;
    }
    thread_get_settings(t->poller->thread, t->conn, &settings);
    if ((byte = byte_setting(&settings, name)))
        *byte = value <= UINT8_MAX ? (uint8_t)value : 0;
    else if ((number = setting(&settings, name)))
        *number = value;
    else
        return NULL;
    code = -thread_set_settings(t->poller->thread, t->conn, &settings);
    if (code != 0)
        return face_raise_os(code, code == ENOSPC ? "too many different settings of connections" : strerror(code));
    Py_RETURN_NONE;
}

/* _option(name): what _set_option() has set. */
PyObject *transport_option(PyObject *self, PyObject *args)
{
    struct transport *t = (struct transport *)self;
    struct tcp_settings settings;
    uint32_t *number;
    const uint8_t *byte;
    const char *name;

    if (!PyArg_ParseTuple(args, "s:_option", &name) || option_usable(t) < 0)
        return NULL;
    thread_get_settings(t->poller->thread, t->conn, &settings);
    if ((byte = byte_setting(&settings, name)))
        return PyLong_FromLong(*byte);
    number = setting(&settings, name);
    return number ? PyLong_FromUnsignedLong(*number) : NULL;
}

PyObject *transport_repr(PyObject *self)
{
    struct transport *t = (struct transport *)self;
    PyObject *peer = endpoint(&t->flow.raddr, t->flow.rport);
    PyObject *text;

    text = !peer ? NULL
                 : PyUnicode_FromFormat("<%s %s peer=%R reading=%d unsent=%zu>", Py_TYPE(self)->tp_name,
                                        !(t->flags & TRANSPORT_OPEN)   ? "closed"
                                        : t->flags & TRANSPORT_CLOSING ? "closing"
                                                                       : "open",
                                        peer, (t->flags & (TRANSPORT_PAUSED | TRANSPORT_CLOSING)) == 0,
                                        t->outbox ? t->outbox->bytes : 0);
    Py_XDECREF(peer);
    return text;
}

PyObject *transport_attribute(PyObject *self, void *which)
{
    struct transport *t = (struct transport *)self;

    switch ((uintptr_t)which) {
    case 0:
        return Py_NewRef(t->poller->loop ? t->poller->loop : Py_None);
    case 1:
        return PyBool_FromLong(t->flags & TRANSPORT_HELD_UP);
    default:
        return Py_BuildValue("(y#iy#i)", t->flow.laddr.b, (Py_ssize_t)sizeof t->flow.laddr.b, t->flow.lport,
                             t->flow.raddr.b, (Py_ssize_t)sizeof t->flow.raddr.b, t->flow.rport);
    }
}

/* --- futures --- */

bool asyncio_has_method(PyObject *object, PyObject *name)
{
    return _PyType_Lookup(Py_TYPE(object), name) != NULL;
}

static void try_to_end(PyObject *future, int code)
{
    PyObject *done = PyObject_CallMethodNoArgs(future, asyncio_names.done);
    int is_done = done ? PyObject_IsTrue(done) : -1;
    PyObject *exception, *r = NULL;

    Py_XDECREF(done);
    if (is_done == 0 && code == 0) {
        r = PyObject_CallMethodOneArg(future, asyncio_names.set_result, Py_None);
    } else if (is_done == 0) {
        face_raise_os(code, code == ETIMEDOUT ? "the peer does not answer" : strerror(code));
        exception = face_take_exception();
        r = PyObject_CallMethodOneArg(future, asyncio_names.set_exception, exception);
        Py_DECREF(exception);
    }
    Py_XDECREF(r);
}

/* Who is not told for want of memory would wait for ever, so it is tried again.  What set_result() has lost of its callbacks
 * by then is lost, as it is in asyncio. */
void asyncio_end_future(PyObject *future, int code)
{
    try_to_end(future, code);
    for (int more = TRIES_MORE; more > 0 && PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_MemoryError); more--) {
        PyErr_Clear();
        try_to_end(future, code);
    }
}
