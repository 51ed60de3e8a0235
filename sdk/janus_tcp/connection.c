/*
 * connection.c: Connection, one TCP connection and at the same time the awaiter of its own recv().
 *
 * Reading goes straight to the core: data waits in its packets until a task asks for it.  Nothing is allocated per await.
 */
#include "janus_tcp/docs.h"
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
    thread_set_user(loop->thread, conn, (uint64_t)(uintptr_t)c);
    return c;
}

struct task *connection_reader(const struct connection *c)
{
    if (!(c->task.flags & CONNECTION_READING))
        return NULL;
    return c->more && c->more->reader ? c->more->reader : (struct task *)(uintptr_t)&c->task;
}

/* The task that waits in recv, which no longer does; null: none. */
static struct task *take_reader(struct connection *c)
{
    struct task *reader = connection_reader(c);

    c->task.flags &= (uint8_t)~CONNECTION_READING;
    if (c->more)
        c->more->reader = NULL;
    return reader;
}

static void wake_reader(struct connection *c)
{
    struct task *reader = take_reader(c);

    task_wake(c->loop, &reader);
}

void connection_close(struct connection *c, bool abort)
{
    struct loop *loop = c->loop;

    if (c->task.flags & CONNECTION_CLOSED)
        return;
    c->task.flags |= CONNECTION_CLOSED;
    timers_remove(&loop->timers, &c->deadline_index);
    thread_set_user(loop->thread, c->conn, LOOP_NO_CONNECTION);
    if (abort)
        thread_abort(loop->thread, c->conn);
    else
        thread_close_conn(loop->thread, c->conn);
    if (c->task.coro && PySet_Add(loop->tasks, (PyObject *)c) < 0) /* its handler goes on without its row */
        PyErr_Clear();
    wake_reader(c);
    if (c->more) {
        task_wake(loop, &c->more->writer);
        if (c->more->lent && view_take_back(c->more) < 0)
            PyErr_Clear(); /* what is still held keeps the packet, and shows nothing else */
        if (!c->task.coro)
            Py_CLEAR(c->more->user_data);
    }
}

/* --- what most connections never need --- */

struct connection_more *connection_more(struct connection *c)
{
    if (!c->more)
        c->more = PyMem_Calloc(1, sizeof *c->more);
    if (!c->more)
        PyErr_NoMemory();
    return c->more;
}

static void free_more(struct connection *c)
{
    struct connection_more *more = c->more;

    c->more = NULL;
    if (!more)
        return;
    Py_XDECREF(more->user_data);
    Py_XDECREF(more->view);
    Py_XDECREF(more->lent);
    PyMem_Free(more);
}

int connection_take_view_back(struct connection *c)
{
    return c->more && c->more->lent ? view_take_back(c->more) : 0;
}

/* --- the end of its object --- */

/* The last reference to an open connection is gone.  Only the loop's own thread may close it; another one leaves it there. */
static void connection_finalize(PyObject *self)
{
    struct connection *c = (struct connection *)self;
    PyObject *type, *value, *traceback;

    if (c->task.flags & CONNECTION_CLOSED)
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
    if (PyObject_CallFinalizerFromDealloc(self) < 0)
        return;
    free_more((struct connection *)self);
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
    if (c->task.flags & CONNECTION_CLOSED)
        face_raise_os(sending ? EPIPE : ECONNABORTED, "the connection was closed on this side");
    else if (!loop_is_here(c->loop))
        return -1;
    else if (c->task.flags & CONNECTION_EXPIRED)
        PyErr_SetString(PyExc_TimeoutError, "the connection's deadline has passed");
    else
        return 0;
    return -1;
}

/* --- the awaiter --- */

static bool may_block(const struct connection *c, const struct task *waiter)
{
    if (!waiter || waiter == c->loop->current)
        return true;
    PyErr_SetString(PyExc_RuntimeError, "another task waits for this connection already");
    return false;
}

bool connection_block_reader(struct connection *c, PyObject *awaiter)
{
    struct connection_more *more = NULL;
    struct task *task;

    if (!may_block(c, connection_reader(c)) || (c->loop->current != &c->task && !(more = connection_more(c))))
        return false;
    task = task_block(c->loop, awaiter);
    if (!task)
        return false;
    c->task.flags |= CONNECTION_READING;
    if (more)
        more->reader = task;
    return true;
}

bool connection_block_writer(struct connection *c, PyObject *awaiter)
{
    struct connection_more *more = connection_more(c);

    if (!more || !may_block(c, more->writer))
        return false;
    more->writer = task_block(c->loop, awaiter);
    return more->writer != NULL;
}

void connection_forget_task(struct connection *c, const struct task *task)
{
    if (connection_reader(c) == task)
        (void)take_reader(c);
    if (c->more && c->more->writer == task)
        c->more->writer = NULL;
}

static PySendResult blocked(bool blocked, PyObject **result)
{
    *result = blocked ? Py_NewRef(Py_None) : NULL;
    return blocked ? PYGEN_NEXT : PYGEN_ERROR;
}

static PySendResult take_data(struct connection *c, uint32_t ready, PyObject **result)
{
    uint32_t len = ready < c->task.want ? ready : c->task.want;

    if (c->task.op == OP_VIEW) {
        *result = view_lend(c);
        return *result ? PYGEN_RETURN : PYGEN_ERROR;
    }
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
    if (c->task.op == OP_CONNECT) {
        if (connection_failed(c))
            return PYGEN_ERROR;
        if (c->task.flags & CONNECTION_CONNECTING)
            return blocked(connection_block_writer(c, self), result);
        *result = Py_NewRef(self);
        return PYGEN_RETURN;
    }
    ready = thread_recv_ready(c->loop->thread, c->conn);
    if (ready > 0)
        return take_data(c, ready, result);
    if (connection_failed(c))
        return PYGEN_ERROR;
    if (!thread_recv_eof(c->loop->thread, c->conn))
        return blocked(connection_block_reader(c, self), result);
    if (c->task.op == OP_NEXT) {
        PyErr_SetNone(PyExc_StopAsyncIteration);
        return PYGEN_ERROR;
    }
    *result = PyBytes_FromStringAndSize(NULL, 0);
    if (c->task.op == OP_VIEW)
        Py_SETREF(*result, PyMemoryView_FromObject(*result));
    return *result ? PYGEN_RETURN : PYGEN_ERROR;
}

static PyObject *connection_next(PyObject *self)
{
    PyObject *value;
    PySendResult result = connection_send(self, Py_None, &value);

    return face_stop(result, value);
}

static PyObject *start(struct connection *c, enum connection_op op, uint32_t want)
{
    if (c->task.flags & CONNECTION_READING) {
        PyErr_SetString(PyExc_RuntimeError, "another task waits for this connection already");
        return NULL;
    }
    if (connection_take_view_back(c) < 0)
        return NULL;
    c->task.op = (uint8_t)op;
    c->task.want = want;
    return Py_NewRef((PyObject *)c);
}

static PyObject *connection_anext(PyObject *self)
{
    return start((struct connection *)self, OP_NEXT, RECV_DEFAULT);
}

/* --- events --- */

static void resume(struct loop *loop, struct task *task)
{
    if (task)
        task_resume(loop, task);
}

void connection_on_event(struct connection *c, uint32_t kinds)
{
    struct loop *loop = c->loop;

    if (c->task.flags & CONNECTION_CLOSED)
        return;
    if (kinds & TCP_EVENT_CONNECTED)
        c->task.flags &= (uint8_t)~CONNECTION_CONNECTING;
    if (kinds & (TCP_EVENT_READABLE | TCP_EVENT_ERROR))
        resume(loop, take_reader(c));
    if ((kinds & (TCP_EVENT_WRITABLE | TCP_EVENT_CONNECTED | TCP_EVENT_ERROR)) && c->more) {
        struct task *writer = c->more->writer;

        c->more->writer = NULL;
        resume(loop, writer);
    }
}

void connection_expire(struct connection *c)
{
    c->task.flags |= CONNECTION_EXPIRED;
    wake_reader(c);
    if (c->more)
        task_wake(c->loop, &c->more->writer);
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
    ((struct connection *)self)->task.op = OP_CONNECT;
    return Py_NewRef(self);
}

static PyObject *connection_recv_view(PyObject *self, PyObject *unused)
{
    (void)unused;
    return start((struct connection *)self, OP_VIEW, RECV_DEFAULT);
}

static PyObject *connection_recv_into(PyObject *self, PyObject *buffer)
{
    return reading_into((struct connection *)self, buffer);
}

static PyObject *connection_try_send(PyObject *self, PyObject *data)
{
    return sending_try((struct connection *)self, data);
}

static PyObject *connection_writable(PyObject *self, PyObject *unused)
{
    (void)unused;
    return sending_room((struct connection *)self);
}

static PyObject *connection_sendfile(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"file", "offset", "count", NULL};
    PyObject *file, *count = Py_None;
    long long offset = 0, bytes = INT64_MAX;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|LO:sendfile", names, &file, &offset, &count))
        return NULL;
    if (count != Py_None)
        bytes = PyLong_AsLongLong(count);
    if (bytes == -1 && PyErr_Occurred())
        return NULL;
    if (offset < 0 || bytes < 0)
        return PyErr_Format(PyExc_ValueError, "sendfile() takes an offset and a count that are not negative");
    return sending_file((struct connection *)self, file, offset, bytes);
}

static PyObject *connection_send_method(PyObject *self, PyObject *data)
{
    return sending_start((struct connection *)self, data, false);
}

static PyObject *connection_send_urgent(PyObject *self, PyObject *data)
{
    return sending_start((struct connection *)self, data, true);
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
    if (!(c->task.flags & CONNECTION_CLOSED)) {
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
    if (!(c->task.flags & CONNECTION_CLOSED)) {
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
    if (c->task.flags & CONNECTION_CLOSED)
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

    if (c->task.flags & CONNECTION_CLOSED)
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
    c->task.flags &= (uint8_t)~CONNECTION_EXPIRED;
    Py_RETURN_NONE;
}

static PyMethodDef connection_methods[] = {
    {"recv", (PyCFunction)(void (*)(void))connection_recv, METH_FASTCALL | METH_KEYWORDS, DOC_RECV},
    {"recv_view", connection_recv_view, METH_NOARGS, DOC_RECV_VIEW},
    {"recv_into", connection_recv_into, METH_O, DOC_RECV_INTO},
    {"recv_exactly", connection_recv_exactly, METH_O, DOC_RECV_EXACTLY},
    {"recv_until", (PyCFunction)(void (*)(void))connection_recv_until, METH_VARARGS | METH_KEYWORDS, DOC_RECV_UNTIL},
    {"send", connection_send_method, METH_O, DOC_SEND},
    {"send_urgent", connection_send_urgent, METH_O, DOC_SEND_URGENT},
    {"try_send", connection_try_send, METH_O, DOC_TRY_SEND},
    {"writable", connection_writable, METH_NOARGS, DOC_WRITABLE},
    {"sendfile", (PyCFunction)(void (*)(void))connection_sendfile, METH_VARARGS | METH_KEYWORDS, DOC_SENDFILE},
    {"_connected", connection_connected, METH_NOARGS, NULL},
    {"close", connection_close_method, METH_NOARGS, DOC_CLOSE},
    {"abort", connection_abort, METH_NOARGS, DOC_ABORT},
    {"shutdown", connection_shutdown, METH_NOARGS, DOC_SHUTDOWN},
    {"set_deadline", connection_set_deadline, METH_O, DOC_SET_DEADLINE},
    {"set_nodelay", options_set_nodelay, METH_O, DOC_SET_NODELAY},
    {"set_keepalive", options_set_keepalive, METH_O, DOC_SET_KEEPALIVE},
    {"set_user_timeout", options_set_user_timeout, METH_O, DOC_SET_USER_TIMEOUT},
    {"set_dscp", options_set_dscp, METH_O, DOC_SET_DSCP},
    {"set_ttl", options_set_ttl, METH_O, DOC_SET_TTL},
    {"info", options_info, METH_NOARGS, DOC_INFO},
    {NULL, NULL, 0, NULL},
};

static PyObject *connection_closed(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((struct connection *)self)->task.flags & CONNECTION_CLOSED);
}

static PyObject *connection_user_data(PyObject *self, void *unused)
{
    struct connection *c = (struct connection *)self;

    (void)unused;
    return Py_NewRef(c->more && c->more->user_data ? c->more->user_data : Py_None);
}

static int connection_set_user_data(PyObject *self, PyObject *value, void *unused)
{
    struct connection_more *more = connection_more((struct connection *)self);

    (void)unused;
    if (!more)
        return -1;
    Py_XSETREF(more->user_data, Py_XNewRef(value));
    return 0;
}

static PyGetSetDef connection_attributes[] = {
    {"user_data", connection_user_data, connection_set_user_data, DOC_USER_DATA, NULL},
    {"peername", options_name, NULL, DOC_PEERNAME, NULL},
    {"sockname", options_name, NULL, DOC_SOCKNAME, (void *)1},
    {"closed", connection_closed, NULL, DOC_CLOSED, NULL},
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
    .tp_doc = DOC_CONNECTION,
    .tp_dealloc = connection_dealloc,
    .tp_finalize = connection_finalize,
    .tp_as_async = &connection_async,
    .tp_iternext = connection_next,
    .tp_methods = connection_methods,
    .tp_getset = connection_attributes,
};
