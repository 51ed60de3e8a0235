/*
 * connection.c: Connection, one TCP connection and at the same time the awaiter of its own recv().
 *
 * Reading goes straight to the core: data waits in its packets until a task asks for it.  Nothing is allocated per await.
 */
#include "janus_tcp/face.h"

#include <errno.h>

enum { RECV_DEFAULT = 65536, RECV_MAX = 1 << 30 };

/* --- life --- */

struct connection *connection_new(struct loop *loop, uint32_t conn)
{
    struct connection *c = PyObject_New(struct connection, &connection_type);

    if (!c) {
        thread_abort(loop->thread, conn);
        return NULL;
    }
    memset((char *)c + sizeof(PyObject), 0, sizeof *c - sizeof(PyObject));
    c->loop = loop;
    c->conn = conn;
    c->task.of_connection = 1;
    loop->rows[conn] = c;
    thread_set_user(loop->thread, conn, (uint64_t)(uintptr_t)c);
    return c;
}

void connection_close(struct connection *c, bool abort)
{
    struct loop *loop = c->loop;

    if (c->flags & CONNECTION_CLOSED)
        return;
    c->flags |= CONNECTION_CLOSED;
    timers_remove(&loop->timers, &c->deadline_index);
    loop->rows[c->conn] = NULL;
    if (abort)
        thread_abort(loop->thread, c->conn);
    else
        thread_close_conn(loop->thread, c->conn);
    if (c->task.coro && PySet_Add(loop->tasks, (PyObject *)c) < 0) /* its handler goes on without its row */
        PyErr_Clear();
    task_wake(loop, &c->reader);
    task_wake(loop, &c->writer);
}

/* The last reference to an open connection is gone.  Only the loop's own thread may close it; another one leaves it there. */
static void connection_finalize(PyObject *self)
{
    struct connection *c = (struct connection *)self;
    PyObject *type, *value, *traceback;

    if (c->flags & CONNECTION_CLOSED)
        return;
    PyErr_Fetch(&type, &value, &traceback);
    if (PyErr_WarnFormat(PyExc_ResourceWarning, 1, "a connection was never closed") < 0)
        PyErr_WriteUnraisable(NULL);
    if (loop_is_here(c->loop))
        connection_close(c, true);
    else if (PyList_Append(c->loop->orphans, self) < 0)
        PyErr_WriteUnraisable(NULL);
    PyErr_Restore(type, value, traceback);
}

static void connection_dealloc(PyObject *self)
{
    if (PyObject_CallFinalizerFromDealloc(self) == 0)
        PyObject_Free(self);
}

/* --- what may be done --- */

bool connection_failed(struct connection *c)
{
    int code = thread_conn_error(c->loop->thread, c->conn);

    if (code == 0)
        return false;
    face_raise_os(code, code == ETIMEDOUT ? "the peer does not answer" : strerror(code));
    return true;
}

int connection_usable(struct connection *c, bool sending)
{
    if (c->flags & CONNECTION_CLOSED)
        face_raise_os(sending ? EPIPE : ECONNABORTED, "the connection was closed on this side");
    else if (!loop_is_here(c->loop))
        return -1;
    else if (c->flags & CONNECTION_EXPIRED)
        PyErr_SetString(PyExc_TimeoutError, "the connection's deadline has passed");
    else
        return 0;
    return -1;
}

/* --- the awaiter --- */

/* Blocks the running task in *waiter. */
static PySendResult block(struct connection *c, struct task **waiter, PyObject **result)
{
    if (*waiter && *waiter != c->loop->current) {
        PyErr_SetString(PyExc_RuntimeError, "another task waits for this connection already");
        return PYGEN_ERROR;
    }
    *waiter = task_block(c->loop, (PyObject *)c);
    *result = *waiter ? Py_NewRef(Py_None) : NULL;
    return *result ? PYGEN_NEXT : PYGEN_ERROR;
}

static PySendResult take_data(struct connection *c, uint32_t ready, PyObject **result)
{
    uint32_t len = ready < c->want ? ready : c->want;

    *result = PyBytes_FromStringAndSize(NULL, len);
    if (!*result)
        return PYGEN_ERROR;
    thread_recv(c->loop->thread, c->conn, PyBytes_AS_STRING(*result), len);
    return PYGEN_RETURN;
}

static PySendResult connection_send(PyObject *self, PyObject *value, PyObject **result)
{
    struct connection *c = (struct connection *)self;
    uint32_t ready;

    (void)value;
    *result = NULL;
    if (connection_usable(c, false) < 0)
        return PYGEN_ERROR;
    if (c->op == OP_CONNECT) {
        if (connection_failed(c))
            return PYGEN_ERROR;
        if (c->flags & CONNECTION_CONNECTING)
            return block(c, &c->writer, result);
        *result = Py_NewRef(self);
        return PYGEN_RETURN;
    }
    ready = thread_recv_ready(c->loop->thread, c->conn);
    if (ready > 0)
        return take_data(c, ready, result);
    if (connection_failed(c))
        return PYGEN_ERROR;
    if (!thread_recv_eof(c->loop->thread, c->conn))
        return block(c, &c->reader, result);
    if (c->op == OP_NEXT) {
        PyErr_SetNone(PyExc_StopAsyncIteration);
        return PYGEN_ERROR;
    }
    *result = PyBytes_FromStringAndSize(NULL, 0);
    return PYGEN_RETURN;
}

static PyObject *connection_next(PyObject *self)
{
    PyObject *value;
    PySendResult result = connection_send(self, Py_None, &value);

    return face_stop(result, value);
}

static PyObject *start(struct connection *c, enum connection_op op, uint32_t want)
{
    if (c->reader) {
        PyErr_SetString(PyExc_RuntimeError, "another task waits for this connection already");
        return NULL;
    }
    c->op = (uint8_t)op;
    c->want = want;
    return Py_NewRef((PyObject *)c);
}

static PyObject *connection_anext(PyObject *self)
{
    return start((struct connection *)self, OP_NEXT, RECV_DEFAULT);
}

/* --- events --- */

static void resume(struct loop *loop, struct task **waiter)
{
    struct task *task = *waiter;

    if (!task)
        return;
    *waiter = NULL;
    task_resume(loop, task);
}

void connection_on_event(struct connection *c, uint32_t kinds)
{
    struct loop *loop = c->loop;

    if (c->flags & CONNECTION_CLOSED)
        return;
    if (kinds & TCP_EVENT_CONNECTED)
        c->flags &= (uint8_t)~CONNECTION_CONNECTING;
    if (kinds & (TCP_EVENT_READABLE | TCP_EVENT_ERROR))
        resume(loop, &c->reader);
    if (kinds & (TCP_EVENT_WRITABLE | TCP_EVENT_CONNECTED | TCP_EVENT_ERROR))
        resume(loop, &c->writer);
}

void connection_expire(struct connection *c)
{
    c->flags |= CONNECTION_EXPIRED;
    task_wake(c->loop, &c->reader);
    task_wake(c->loop, &c->writer);
}

/* --- methods --- */

static PyObject *connection_recv(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    Py_ssize_t n = RECV_DEFAULT;
    Py_ssize_t given = nargs + (names ? PyTuple_GET_SIZE(names) : 0);

    if (given > 1 || (names && PyTuple_GET_SIZE(names) == 1 &&
                      PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "n") != 0)) {
        PyErr_SetString(PyExc_TypeError, "recv() takes one argument, n");
        return NULL;
    }
    if (given == 1) {
        n = PyNumber_AsSsize_t(args[0], PyExc_OverflowError);
        if (n == -1 && PyErr_Occurred())
            return NULL;
        if (n < 1 || n > RECV_MAX)
            return PyErr_Format(PyExc_ValueError, "recv() takes 1 to %d bytes, not %zd", RECV_MAX, n);
    }
    return start((struct connection *)self, OP_RECV, (uint32_t)n);
}

static PyObject *connection_connected(PyObject *self, PyObject *unused)
{
    (void)unused;
    ((struct connection *)self)->op = OP_CONNECT;
    return Py_NewRef(self);
}

static PyObject *connection_send_method(PyObject *self, PyObject *data)
{
    return sending_start((struct connection *)self, data);
}

static PyObject *connection_recv_exactly(PyObject *self, PyObject *arg)
{
    Py_ssize_t n = PyNumber_AsSsize_t(arg, PyExc_OverflowError);

    return n == -1 && PyErr_Occurred() ? NULL : reading_exactly((struct connection *)self, n);
}

static PyObject *connection_recv_until(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"delimiter", "limit", NULL};
    PyObject *delimiter;
    Py_ssize_t limit = RECV_DEFAULT;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "S|n:recv_until", names, &delimiter, &limit))
        return NULL;
    return reading_until((struct connection *)self, delimiter, limit);
}

static PyObject *connection_close_method(PyObject *self, PyObject *unused)
{
    struct connection *c = (struct connection *)self;

    (void)unused;
    if (!(c->flags & CONNECTION_CLOSED)) {
        if (!loop_is_here(c->loop))
            return NULL;
        connection_close(c, false);
    }
    Py_RETURN_NONE;
}

static PyObject *connection_abort(PyObject *self, PyObject *unused)
{
    struct connection *c = (struct connection *)self;

    (void)unused;
    if (!(c->flags & CONNECTION_CLOSED)) {
        if (!loop_is_here(c->loop))
            return NULL;
        connection_close(c, true);
    }
    Py_RETURN_NONE;
}

static PyObject *connection_shutdown(PyObject *self, PyObject *unused)
{
    struct connection *c = (struct connection *)self;

    (void)unused;
    if (c->flags & CONNECTION_CLOSED)
        return face_raise_os(EPIPE, "the connection was closed on this side");
    if (!loop_is_here(c->loop))
        return NULL;
    thread_shutdown(c->loop->thread, c->conn);
    Py_RETURN_NONE;
}

static PyObject *connection_set_deadline(PyObject *self, PyObject *seconds)
{
    struct connection *c = (struct connection *)self;
    uint64_t when_us;
    double s;

    if (c->flags & CONNECTION_CLOSED)
        Py_RETURN_NONE;
    if (!loop_is_here(c->loop))
        return NULL;
    if (seconds == Py_None) {
        timers_remove(&c->loop->timers, &c->deadline_index);
    } else {
        s = PyFloat_AsDouble(seconds);
        if ((s == -1.0 && PyErr_Occurred()) || !sleep_when(c->loop, s, &when_us) ||
            !timers_set(&c->loop->timers, when_us, self, &c->deadline_index))
            return NULL;
    }
    c->flags &= (uint8_t)~CONNECTION_EXPIRED;
    Py_RETURN_NONE;
}

static PyMethodDef connection_methods[] = {
    {"recv", (PyCFunction)(void (*)(void))connection_recv, METH_FASTCALL | METH_KEYWORDS,
     "recv(n=65536)\n--\n\nWait for data and return 1 to n bytes of it; b'' after the peer's FIN."},
    {"send", connection_send_method, METH_O,
     "send(data)\n--\n\nSend bytes, bytearray or memoryview; await it: it waits until all has found room."},
    {"recv_exactly", connection_recv_exactly, METH_O,
     "recv_exactly(n)\n--\n\nWait for n bytes and return them; IncompleteReadError when the stream ends before."},
    {"recv_until", (PyCFunction)(void (*)(void))connection_recv_until, METH_VARARGS | METH_KEYWORDS,
     "recv_until(delimiter, limit=65536)\n--\n\nWait for delimiter and return all up to and with it; ValueError when "
     "it "
     "is not within limit bytes."},
    {"_connected", connection_connected, METH_NOARGS, NULL},
    {"close", connection_close_method, METH_NOARGS, "Close: what was sent still arrives, then FIN."},
    {"abort", connection_abort, METH_NOARGS, "Close at once by RST."},
    {"shutdown", connection_shutdown, METH_NOARGS, "Send FIN after what was sent; receiving goes on."},
    {"set_deadline", connection_set_deadline, METH_O,
     "set_deadline(seconds)\n--\n\nFrom seconds from now on recv and send raise TimeoutError; None: never."},
    {"set_nodelay", options_set_nodelay, METH_O, "set_nodelay(on)\n--\n\nSend small segments at once (no Nagle)."},
    {"set_keepalive", options_set_keepalive, METH_O,
     "set_keepalive(seconds)\n--\n\nProbe a silent peer after so long; None or 0: never."},
    {"info", options_info, METH_NOARGS, "What TCP knows of the path: a dict of srtt_us, cwnd_bytes and others."},
    {NULL, NULL, 0, NULL},
};

static PyObject *connection_closed(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((struct connection *)self)->flags & CONNECTION_CLOSED);
}

static PyGetSetDef connection_attributes[] = {
    {"peername", options_name, NULL, "(host, port) of the peer.", NULL},
    {"sockname", options_name, NULL, "(host, port) of this side.", (void *)1},
    {"closed", connection_closed, NULL, "True after close() or abort().", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyAsyncMethods connection_async = {
    .am_await = PyObject_SelfIter,
    .am_aiter = PyObject_SelfIter,
    .am_anext = connection_anext,
    .am_send = connection_send,
};

PyTypeObject connection_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "janus_tcp.Connection",
    .tp_basicsize = sizeof(struct connection),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "One TCP connection; iterate over it with async for to receive.",
    .tp_dealloc = connection_dealloc,
    .tp_finalize = connection_finalize,
    .tp_as_async = &connection_async,
    .tp_iternext = connection_next,
    .tp_methods = connection_methods,
    .tp_getset = connection_attributes,
};
