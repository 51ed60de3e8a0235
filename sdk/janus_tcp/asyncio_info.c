/*
 * asyncio_info.c: what is known of a Transport, and its few settings.
 */
#include "janus_tcp/asyncio.h"

#include <arpa/inet.h>
#include <errno.h>

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

/* _set_option(name, value): for the pretended socket. */
PyObject *transport_set_option(PyObject *self, PyObject *args)
{
    struct transport *t = (struct transport *)self;
    const char *name;
    unsigned value;

    if (!PyArg_ParseTuple(args, "sI:_set_option", &name, &value))
        return NULL;
    if (!(t->flags & TRANSPORT_OPEN))
        return face_raise_os(EBADF, "the connection was closed on this side");
    if (poller_is_here(t->poller) < 0)
        return NULL;
    t->poller->touched = true;
    if (strcmp(name, "nodelay") == 0)
        thread_set_nodelay(t->poller->thread, t->conn, value != 0);
    else
        thread_set_keepalive(t->poller->thread, t->conn, value < UINT16_MAX ? value * 1000 : UINT16_MAX * 1000u);
    Py_RETURN_NONE;
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
