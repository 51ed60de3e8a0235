/*
 * sending.c: sending what may take more than one event: a buffer, a region of a file, or nothing once there is room.
 */
#include "janus_tcp/face.h"

#include <errno.h>
#include <unistd.h>

struct sending {
    PyObject_HEAD struct connection *connection; /* as struct awaiter */
    int (*step)(struct sending *s);              /* 1: all is done; 0: wait for room; -1: an error is set */
    Py_buffer view;
    PyObject *file; /* sendfile() */
    int64_t offset, left;
    Py_ssize_t sent;
    int fd;
    bool awaited, urgent;
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
static Py_ssize_t push(struct connection *c, const char *data, Py_ssize_t len, bool urgent)
{
    int64_t n = (urgent ? thread_send_urgent : thread_send)(c->loop->thread, c->conn, data, (size_t)len);

    if (n < 0)
        face_raise_os((int)-n, n == -EPIPE ? "the connection was shut down on this side" : strerror((int)-n));
    return n < 0 ? -1 : (Py_ssize_t)n;
}

static struct sending *sending_new(struct connection *c, int (*step)(struct sending *s))
{
    struct sending *s = PyObject_New(struct sending, &sending_type);

    if (!s)
        return NULL;
    memset((char *)s + sizeof(PyObject), 0, sizeof *s - sizeof(PyObject));
    s->connection = (struct connection *)Py_NewRef((PyObject *)c);
    s->step = step;
    return s;
}

/* 0, or -1 with the error set: nothing may be sent before the earlier send() has ended. */
static int may_start(struct connection *c)
{
    if (connection_usable(c, true) < 0)
        return -1;
    if (!(c->task.flags & CONNECTION_SENDING))
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "an earlier send() on this connection is not finished; await it first");
    return -1;
}

static int step_buffer(struct sending *s)
{
    Py_ssize_t left = s->view.len - s->sent;
    Py_ssize_t n = left > 0 ? push(s->connection, (const char *)s->view.buf + s->sent, left, s->urgent) : 0;

    if (n < 0)
        return -1;
    s->sent += n;
    return s->sent == s->view.len;
}

PyObject *sending_start(struct connection *c, PyObject *data, bool urgent)
{
    struct sending *s;
    Py_buffer view;
    Py_ssize_t n = 0;

    if (may_start(c) < 0)
        return NULL;
    if (PyBytes_CheckExact(data)) { /* the usual case, without a buffer's ceremony */
        n = PyBytes_GET_SIZE(data) > 0 ? push(c, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), urgent) : 0;
        if (n < 0 || n == PyBytes_GET_SIZE(data))
            return n < 0 ? NULL : Py_NewRef(&done_object);
    }
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    if (n == 0 && view.len > 0)
        n = push(c, view.buf, view.len, urgent);
    s = n >= 0 && n < view.len ? sending_new(c, step_buffer) : NULL;
    if (!s) {
        bool done = n == view.len;

        PyBuffer_Release(&view);
        return done ? Py_NewRef(&done_object) : NULL;
    }
    s->view = view;
    s->sent = n;
    s->urgent = urgent;
    c->task.flags |= CONNECTION_SENDING;
    return (PyObject *)s;
}

PyObject *sending_try(struct connection *c, PyObject *data)
{
    Py_buffer view;
    Py_ssize_t n;

    if (may_start(c) < 0 || PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    n = view.len > 0 ? push(c, view.buf, view.len, false) : 0;
    PyBuffer_Release(&view);
    return n < 0 ? NULL : PyLong_FromSsize_t(n);
}

/* --- room --- */

static int step_room(struct sending *s)
{
    struct connection *c = s->connection;

    if (push(c, "", 0, false) < 0)
        return -1;
    return thread_send_room(c->loop->thread, c->conn) > 0;
}

PyObject *sending_room(struct connection *c)
{
    struct sending *s = may_start(c) < 0 ? NULL : sending_new(c, step_room);

    if (s)
        c->task.flags |= CONNECTION_SENDING;
    return (PyObject *)s;
}

/* --- a region of a file --- */

/* What the file has at the next offset, up to room bytes; 0: its end; -1: an error is set. */
static Py_ssize_t read_file(struct sending *s, char *chunk, size_t room)
{
    ssize_t n;

    Py_BEGIN_ALLOW_THREADS;
    do
        n = pread(s->fd, chunk, room, s->offset);
    while (n < 0 && errno == EINTR);
    Py_END_ALLOW_THREADS;
    if (n < 0)
        PyErr_SetFromErrno(PyExc_OSError);
    return n;
}

static int step_file(struct sending *s)
{
    struct connection *c = s->connection;
    char *chunk = loop_chunk(c->loop);

    if (!chunk || push(c, "", 0, false) < 0)
        return -1;
    while (s->left > 0) {
        size_t room = thread_send_room(c->loop->thread, c->conn);
        Py_ssize_t n;

        if (room == 0)
            return 0;
        room = room < LOOP_CHUNK_BYTES ? room : LOOP_CHUNK_BYTES;
        n = read_file(s, chunk, (uint64_t)s->left < room ? (size_t)s->left : room);
        if (n == 0)
            return 1; /* the file ends here */
        if (n > 0 && (n = push(c, chunk, n, false)) == 0)
            return 0;
        if (n < 0)
            return -1;
        s->sent += n;
        s->offset += n;
        s->left -= n;
    }
    return 1;
}

PyObject *sending_file(struct connection *c, PyObject *file, int64_t offset, int64_t count)
{
    int fd = PyObject_AsFileDescriptor(file);
    struct sending *s = fd < 0 || may_start(c) < 0 ? NULL : sending_new(c, step_file);

    if (!s)
        return NULL;
    s->file = Py_NewRef(file);
    s->fd = fd;
    s->offset = offset;
    s->left = count;
    c->task.flags |= CONNECTION_SENDING;
    return (PyObject *)s;
}

/* --- the awaiter --- */

static PySendResult sending_send(PyObject *self, PyObject *value, PyObject **result)
{
    struct sending *s = (struct sending *)self;
    struct connection *c = s->connection;
    int step;

    (void)value;
    *result = NULL;
    s->awaited = true;
    if (connection_usable(c, true) < 0)
        return PYGEN_ERROR;
    step = s->step(s);
    if (step != 0) {
        c->task.flags &= (uint8_t)~CONNECTION_SENDING;
        *result = step < 0 ? NULL : s->file ? PyLong_FromSsize_t(s->sent) : Py_NewRef(Py_None);
        return *result ? PYGEN_RETURN : PYGEN_ERROR;
    }
    *result = connection_block_writer(c, self) ? Py_NewRef(Py_None) : NULL;
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

    s->connection->task.flags &= (uint8_t)~CONNECTION_SENDING;
    if (!s->awaited && s->step != step_room) {
        PyObject *type, *value, *traceback;

        PyErr_Fetch(&type, &value, &traceback);
        if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "%s was never awaited: data was not sent",
                             s->file     ? "sendfile()"
                             : s->urgent ? "send_urgent()"
                                         : "send()") < 0)
            PyErr_WriteUnraisable(NULL);
        PyErr_Restore(type, value, traceback);
    }
    PyBuffer_Release(&s->view);
    Py_XDECREF(s->file);
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
