/*
 * reading.c: receiving what may take more than one event: exactly n bytes, up to a delimiter, into a buffer.
 */
#include "janus_tcp/face.h"

struct reading {
    PyObject_HEAD struct connection *connection; /* as struct awaiter */
    PyObject *data;      /* exactly: bytes of need, filled so far; until: the delimiter; into: null */
    Py_ssize_t need;     /* exactly: bytes; until: the limit */
    Py_ssize_t progress; /* exactly: bytes filled; until: bytes searched */
    Py_buffer buffer;    /* into */
    int (*step)(struct reading *r, PyObject **result);
};

/* Steals data. */
static struct reading *reading_new(struct connection *c, PyObject *data, Py_ssize_t need,
                                   int (*step)(struct reading *r, PyObject **result))
{
    struct reading *r = PyObject_New(struct reading, &reading_type);

    if (!r) {
        Py_XDECREF(data);
        return NULL;
    }
    memset((char *)r + sizeof(PyObject), 0, sizeof *r - sizeof(PyObject));
    r->connection = (struct connection *)Py_NewRef((PyObject *)c);
    r->data = data;
    r->need = need;
    r->step = step;
    return r;
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

static int step_into(struct reading *r, PyObject **result)
{
    struct connection *c = r->connection;
    uint32_t room = r->buffer.len < INT32_MAX ? (uint32_t)r->buffer.len : INT32_MAX;
    uint32_t n = thread_recv(c->loop->thread, c->conn, r->buffer.buf, room);

    if (n == 0 && connection_failed(c))
        return -1;
    if (n == 0 && !thread_recv_eof(c->loop->thread, c->conn))
        return 0;
    *result = PyLong_FromUnsignedLong(n);
    return *result ? 1 : -1;
}

PyObject *reading_exactly(struct connection *c, Py_ssize_t n)
{
    PyObject *data;

    if (n < 0)
        return PyErr_Format(PyExc_ValueError, "recv_exactly() takes a length that is not negative, not %zd", n);
    data = PyBytes_FromStringAndSize(NULL, n);
    return data ? (PyObject *)reading_new(c, data, n, step_exactly) : NULL;
}

PyObject *reading_until(struct connection *c, PyObject *delimiter, Py_ssize_t limit)
{
    if (PyBytes_GET_SIZE(delimiter) < 1 || limit < PyBytes_GET_SIZE(delimiter) || limit > READING_LIMIT_MAX)
        return PyErr_Format(PyExc_ValueError,
                            "recv_until() takes a delimiter that is not empty and a limit from its length to %d",
                            READING_LIMIT_MAX);
    return (PyObject *)reading_new(c, Py_NewRef(delimiter), limit, step_until);
}

PyObject *reading_into(struct connection *c, PyObject *buffer)
{
    struct reading *r = reading_new(c, NULL, 0, step_into);

    if (!r || PyObject_GetBuffer(buffer, &r->buffer, PyBUF_WRITABLE) < 0) {
        Py_XDECREF((PyObject *)r);
        return NULL;
    }
    if (r->buffer.len == 0) {
        Py_DECREF((PyObject *)r);
        return PyErr_Format(PyExc_ValueError, "recv_into() takes a buffer that is not empty");
    }
    return (PyObject *)r;
}

/* --- the awaiter --- */

static PySendResult reading_send(PyObject *self, PyObject *value, PyObject **result)
{
    struct reading *r = (struct reading *)self;
    struct connection *c = r->connection;
    int step;

    (void)value;
    *result = NULL;
    if (connection_usable(c, false) < 0)
        return PYGEN_ERROR;
    if (connection_take_view_back(c) < 0)
        return PYGEN_ERROR;
    step = r->step(r, result);
    if (step != 0)
        return step > 0 ? PYGEN_RETURN : PYGEN_ERROR;
    *result = connection_block_reader(c, self) ? Py_NewRef(Py_None) : NULL;
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

    if (r->buffer.obj)
        PyBuffer_Release(&r->buffer);
    Py_XDECREF(r->data);
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
