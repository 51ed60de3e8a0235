/*
 * streaming.c: operations that may take more than one event: a send without room, reading exactly n, reading up to a delimiter.
 */
#include "janus_tcp/face.h"

#include <errno.h>

struct sending {
    PyObject_HEAD struct connection *connection;
    Py_buffer view;
    Py_ssize_t sent;
    bool awaited;
};

struct reading {
    PyObject_HEAD struct connection *connection;
    PyObject *data;      /* exactly: bytes of need, filled so far; until: the delimiter */
    Py_ssize_t need;     /* exactly: bytes; until: the limit */
    Py_ssize_t progress; /* exactly: bytes filled; until: bytes searched */
    bool until;
};

static PyObject done_object = {_PyObject_EXTRA_INIT 1, &done_type};

/* --- an awaitable that is done --- */

static PySendResult done_send(PyObject *self, PyObject *value, PyObject **result)
{
    (void)self;
    (void)value;
    *result = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}

static PyObject *done_next(PyObject *self)
{
    (void)self;
    return NULL; /* StopIteration without a value */
}

static PyAsyncMethods done_async = {.am_await = PyObject_SelfIter, .am_send = done_send};

PyTypeObject done_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "janus_tcp.Done",
    .tp_basicsize = sizeof(PyObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_as_async = &done_async,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = done_next,
};

/* --- sending --- */

/* Sends what there is room for.  Bytes taken, or -1 with the error set. */
static Py_ssize_t push(struct connection *c, const char *data, Py_ssize_t len)
{
    int64_t n = thread_send(c->loop->thread, c->conn, data, (size_t)len);

    if (n < 0)
        face_raise_os((int)-n, n == -EPIPE ? "the connection was shut down on this side" : strerror((int)-n));
    return n < 0 ? -1 : (Py_ssize_t)n;
}

PyObject *sending_start(struct connection *c, PyObject *data)
{
    struct sending *s;
    Py_buffer view;
    Py_ssize_t n;

    if (connection_usable(c, true) < 0)
        return NULL;
    if (c->flags & CONNECTION_SENDING) {
        PyErr_SetString(PyExc_RuntimeError, "an earlier send() on this connection is not finished; await it first");
        return NULL;
    }
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    n = view.len > 0 ? push(c, view.buf, view.len) : 0;
    if (n == view.len || n < 0) {
        PyBuffer_Release(&view);
        return n < 0 ? NULL : Py_NewRef(&done_object);
    }
    s = PyObject_New(struct sending, &sending_type);
    if (!s) {
        PyBuffer_Release(&view);
        return NULL;
    }
    s->connection = (struct connection *)Py_NewRef((PyObject *)c);
    s->view = view;
    s->sent = n;
    s->awaited = false;
    c->flags |= CONNECTION_SENDING;
    return (PyObject *)s;
}

static PySendResult sending_send(PyObject *self, PyObject *value, PyObject **result)
{
    struct sending *s = (struct sending *)self;
    struct connection *c = s->connection;
    Py_ssize_t n;

    (void)value;
    *result = NULL;
    s->awaited = true;
    if (connection_usable(c, true) < 0)
        return PYGEN_ERROR;
    n = s->sent < s->view.len ? push(c, (const char *)s->view.buf + s->sent, s->view.len - s->sent) : 0;
    if (n < 0)
        return PYGEN_ERROR;
    s->sent += n;
    if (s->sent == s->view.len) {
        c->flags &= (uint8_t)~CONNECTION_SENDING;
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    c->writer = task_block(c->loop, self);
    *result = c->writer ? Py_NewRef(Py_None) : NULL;
    return *result ? PYGEN_NEXT : PYGEN_ERROR;
}

static PyObject *sending_next(PyObject *self)
{
    PyObject *value;
    PySendResult result = sending_send(self, Py_None, &value);

    return face_stop(result, value);
}

static void sending_dealloc(PyObject *self)
{
    struct sending *s = (struct sending *)self;

    s->connection->flags &= (uint8_t)~CONNECTION_SENDING;
    if (!s->awaited) {
        PyObject *type, *value, *traceback;

        PyErr_Fetch(&type, &value, &traceback);
        if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "send() was never awaited: %zd of %zd bytes were not sent",
                             s->view.len - s->sent, s->view.len) < 0)
            PyErr_WriteUnraisable(NULL);
        PyErr_Restore(type, value, traceback);
    }
    PyBuffer_Release(&s->view);
    Py_DECREF((PyObject *)s->connection);
    PyObject_Free(self);
}

static PyAsyncMethods sending_async = {.am_await = PyObject_SelfIter, .am_send = sending_send};

PyTypeObject sending_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "janus_tcp.Sending",
    .tp_basicsize = sizeof(struct sending),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = sending_dealloc,
    .tp_as_async = &sending_async,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = sending_next,
};

/* --- reading --- */

static PyObject *reading_new(struct connection *c, PyObject *data, Py_ssize_t need, bool until)
{
    struct reading *r = PyObject_New(struct reading, &reading_type);

    if (!r) {
        Py_DECREF(data);
        return NULL;
    }
    r->connection = (struct connection *)Py_NewRef((PyObject *)c);
    r->data = data;
    r->need = need;
    r->progress = 0;
    r->until = until;
    return (PyObject *)r;
}

PyObject *reading_exactly(struct connection *c, Py_ssize_t n)
{
    PyObject *data;

    if (n < 0)
        return PyErr_Format(PyExc_ValueError, "recv_exactly() takes a length that is not negative, not %zd", n);
    data = PyBytes_FromStringAndSize(NULL, n);
    return data ? reading_new(c, data, n, false) : NULL;
}

PyObject *reading_until(struct connection *c, PyObject *delimiter, Py_ssize_t limit)
{
    if (PyBytes_GET_SIZE(delimiter) < 1 || limit < PyBytes_GET_SIZE(delimiter) || limit > READING_LIMIT_MAX)
        return PyErr_Format(PyExc_ValueError,
                            "recv_until() takes a delimiter that is not empty and a limit from its length to %d",
                            READING_LIMIT_MAX);
    return reading_new(c, Py_NewRef(delimiter), limit, true);
}

static void raise_incomplete(PyObject *partial, Py_ssize_t expected)
{
    PyObject *args = partial ? Py_BuildValue("(On)", partial, expected) : NULL;

    if (args)
        PyErr_SetObject(face_incomplete_error, args);
    Py_XDECREF(args);
    Py_XDECREF(partial);
}

/* 1: *result is filled; 0: more is needed; -1: an error is set. */
static int step_exactly(struct reading *r, PyObject **result)
{
    struct connection *c = r->connection;

    if (r->progress < r->need) {
        Py_ssize_t rest = r->need - r->progress;

        r->progress += thread_recv(c->loop->thread, c->conn, PyBytes_AS_STRING(r->data) + r->progress,
                                   rest < INT32_MAX ? (uint32_t)rest : INT32_MAX);
    }
    if (r->progress == r->need) {
        *result = Py_NewRef(r->data);
        return 1;
    }
    if (connection_failed(c))
        return -1;
    if (!thread_recv_eof(c->loop->thread, c->conn))
        return 0;
    raise_incomplete(PyBytes_FromStringAndSize(PyBytes_AS_STRING(r->data), r->progress), r->need);
    return -1;
}

/* True when text of len bytes stands at byte from of views[i], running on into the following views. */
static bool stands_at(const struct tcp_view *views, uint32_t count, uint32_t i, uint32_t from, const char *text,
                      Py_ssize_t len)
{
    for (; len > 0 && i < count; i++, from = 0) {
        uint32_t rest = views[i].len - from;
        Py_ssize_t part = len < (Py_ssize_t)rest ? len : (Py_ssize_t)rest;

        if (memcmp(views[i].data + from, text, (size_t)part) != 0)
            return false;
        text += part;
        len -= part;
    }
    return len == 0;
}

/* Where text begins in the views, not before start; -1: nowhere. */
static Py_ssize_t find(const struct tcp_view *views, uint32_t count, Py_ssize_t start, const char *text, Py_ssize_t len)
{
    Py_ssize_t base = 0;

    for (uint32_t i = 0; i < count; base += views[i].len, i++) {
        uint32_t from = base >= start ? 0 : start - base < views[i].len ? (uint32_t)(start - base) : views[i].len;

        while (from < views[i].len) {
            const uint8_t *hit = memchr(views[i].data + from, text[0], views[i].len - from);

            if (!hit)
                break;
            from = (uint32_t)(hit - views[i].data);
            if (stands_at(views, count, i, from, text, len))
                return base + from;
            from++;
        }
    }
    return -1;
}

static PyObject *take(struct connection *c, uint32_t len)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, len);

    if (bytes)
        thread_recv(c->loop->thread, c->conn, PyBytes_AS_STRING(bytes), len);
    return bytes;
}

static int step_until(struct reading *r, PyObject **result)
{
    struct connection *c = r->connection;
    struct tcp_view *views = c->loop->views;
    Py_ssize_t len = PyBytes_GET_SIZE(r->data);
    uint32_t count = thread_recv_views(c->loop->thread, c->conn, views, LOOP_VIEWS);
    uint32_t ready = thread_recv_ready(c->loop->thread, c->conn);
    Py_ssize_t at = find(views, count, r->progress, PyBytes_AS_STRING(r->data), len);

    if (at >= 0 && at + len <= r->need) {
        *result = take(c, (uint32_t)(at + len));
        return *result ? 1 : -1;
    }
    if (at >= 0 || ready >= r->need || count == LOOP_VIEWS) {
        PyErr_Format(PyExc_ValueError, "the delimiter is not in the first %zd bytes", r->need);
        return -1;
    }
    r->progress = ready >= len ? ready - (len - 1) : 0;
    if (connection_failed(c))
        return -1;
    if (!thread_fin_received(c->loop->thread, c->conn))
        return 0;
    raise_incomplete(take(c, ready), r->need);
    return -1;
}

static PySendResult reading_send(PyObject *self, PyObject *value, PyObject **result)
{
    struct reading *r = (struct reading *)self;
    struct connection *c = r->connection;
    int step;

    (void)value;
    *result = NULL;
    if (connection_usable(c, false) < 0)
        return PYGEN_ERROR;
    step = r->until ? step_until(r, result) : step_exactly(r, result);
    if (step != 0)
        return step > 0 ? PYGEN_RETURN : PYGEN_ERROR;
    if (c->reader) {
        PyErr_SetString(PyExc_RuntimeError, "another task waits for this connection already");
        return PYGEN_ERROR;
    }
    c->reader = task_block(c->loop, self);
    *result = c->reader ? Py_NewRef(Py_None) : NULL;
    return *result ? PYGEN_NEXT : PYGEN_ERROR;
}

static PyObject *reading_next(PyObject *self)
{
    PyObject *value;
    PySendResult result = reading_send(self, Py_None, &value);

    return face_stop(result, value);
}

static void reading_dealloc(PyObject *self)
{
    struct reading *r = (struct reading *)self;

    Py_DECREF(r->data);
    Py_DECREF((PyObject *)r->connection);
    PyObject_Free(self);
}

static PyAsyncMethods reading_async = {.am_await = PyObject_SelfIter, .am_send = reading_send};

PyTypeObject reading_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "janus_tcp.Reading",
    .tp_basicsize = sizeof(struct reading),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = reading_dealloc,
    .tp_as_async = &reading_async,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = reading_next,
};

/* --- cancelling --- */

void streaming_abandon(PyObject *awaiter, struct task *task)
{
    struct connection *c = NULL;

    if (Py_IS_TYPE(awaiter, &sending_type))
        c = ((struct sending *)awaiter)->connection;
    else if (Py_IS_TYPE(awaiter, &reading_type))
        c = ((struct reading *)awaiter)->connection;
    if (c && c->reader == task)
        c->reader = NULL;
    if (c && c->writer == task)
        c->writer = NULL;
}
