/*
 * asyncio_outbox.c: writing: straight into the core's segments, and what finds no room there waits here.
 *
 * Nothing goes on the wire at a write(): the poller flushes once per batch, so the small writes of a batch share segments.
 */
#include "janus_tcp/asyncio.h"

#include <errno.h>

enum { WARN_FROM = 5, FIRST_ROOM = 4 }; /* constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES of asyncio */

/* --- the queue --- */

void outbox_clear(struct transport *t)
{
    struct outbox *o = t->outbox;

    if (!o)
        return;
    t->outbox = NULL;
    for (uint32_t i = 0; i < o->count; i++)
        Py_DECREF(o->chunks[(o->head + i) % o->room]);
    PyMem_Free(o);
}

static struct outbox *grown(struct outbox *old)
{
    uint32_t room = old ? 2 * old->room : FIRST_ROOM;
    struct outbox *o = PyMem_Malloc(sizeof *o + room * sizeof o->chunks[0]);

    if (!o) {
        PyErr_NoMemory();
        return NULL;
    }
    *o = (struct outbox){.room = room};
    if (old) {
        o->bytes = old->bytes;
        o->offset = old->offset;
        o->count = old->count;
        for (uint32_t i = 0; i < old->count; i++)
            o->chunks[i] = old->chunks[(old->head + i) % old->room];
        PyMem_Free(old);
    }
    return o;
}

/* Takes the bytes of view from sent on; bytes objects are not copied. */
static int append(struct transport *t, PyObject *data, const Py_buffer *view, size_t sent)
{
    bool shared = PyBytes_CheckExact(data) && (!t->outbox || sent == 0);
    PyObject *chunk =
        shared ? Py_NewRef(data) : PyBytes_FromStringAndSize((char *)view->buf + sent, view->len - (Py_ssize_t)sent);
    struct outbox *o = t->outbox;

    if (!chunk)
        return -1;
    if (!o || o->count == o->room) {
        o = grown(o);
        if (!o) {
            Py_DECREF(chunk);
            return -1;
        }
        if (!t->outbox)
            o->offset = shared ? sent : 0;
        t->outbox = o;
    }
    o->chunks[(o->head + o->count++) % o->room] = chunk;
    o->bytes += (size_t)view->len - sent;
    return 0;
}

/* Sends as much as there is room for; 0, or -1 with an OSError set. */
static int drain(struct transport *t)
{
    struct outbox *o = t->outbox;

    t->poller->touched = true;
    while (o->count > 0) {
        PyObject *chunk = o->chunks[o->head];
        size_t len = (size_t)PyBytes_GET_SIZE(chunk) - o->offset;
        int64_t n = thread_send(t->poller->thread, t->conn, PyBytes_AS_STRING(chunk) + o->offset, len);

        if (n < 0) {
            face_raise_os((int)-n, strerror((int)-n));
            return -1;
        }
        o->bytes -= (size_t)n;
        if ((size_t)n < len) {
            o->offset += (size_t)n;
            return 0;
        }
        o->offset = 0;
        o->head = (o->head + 1) % o->room;
        o->count--;
        Py_DECREF(chunk);
    }
    outbox_clear(t);
    return 0;
}

/* --- flow control --- */

/* Calls pause_writing() or resume_writing(), in the caller's context as asyncio does; an error is reported, not passed on. */
static int tell(struct transport *t, PyObject *name, const char *complaint)
{
    PyObject *r = t->protocol ? PyObject_CallMethodNoArgs(t->protocol, name) : Py_NewRef(Py_None);
    PyObject *e;

    if (r) {
        Py_DECREF(r);
        return 0;
    }
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit))
        return -1;
    e = face_take_exception();
    poller_complain(t->poller, complaint, e, t);
    Py_XDECREF(e);
    return 0;
}

static int maybe_hold_up(struct transport *t)
{
    if (!t->outbox || t->outbox->bytes <= t->high_bytes || t->flags & TRANSPORT_HELD_UP)
        return 0;
    t->flags |= TRANSPORT_HELD_UP;
    return tell(t, asyncio_names.pause_writing, "protocol.pause_writing() failed");
}

static int maybe_go_on(struct transport *t)
{
    if (!(t->flags & TRANSPORT_HELD_UP) || (t->outbox && t->outbox->bytes > t->low_bytes))
        return 0;
    t->flags &= (uint16_t)~TRANSPORT_HELD_UP;
    return tell(t, asyncio_names.resume_writing, "protocol.resume_writing() failed");
}

int outbox_flush(struct transport *t)
{
    PyObject *r = Py_None;

    if (!t->outbox)
        return 0;
    if (drain(t) < 0)
        return transport_failed(t, "Fatal write error on Janus transport");
    if (maybe_go_on(t) < 0)
        return -1;
    if (t->outbox || !(t->flags & TRANSPORT_OPEN)) /* resume_writing() may write, and abort */
        return 0;
    if (t->flags & TRANSPORT_CLOSING) {
        t->lost = 1;
        transport_let_go(t, false);
        r = t->protocol ? transport_schedule_lost(t, Py_None) : Py_NewRef(Py_None);
        if (!r)
            return transport_failed(t, "Fatal write error on Janus transport");
        Py_DECREF(r);
    } else if (t->flags & TRANSPORT_EOF_WRITTEN) {
        thread_shutdown(t->poller->thread, t->conn);
    }
    return 0;
}

/* --- methods --- */

/* Writes to a connection that is gone are counted, and said once they are many. */
static PyObject *write_lost(struct transport *t)
{
    PyObject *r;

    if (t->lost < UINT16_MAX)
        t->lost++;
    if (t->lost > WARN_FROM) {
        r = PyObject_CallMethod(t->poller->loop, "_report_lost_write", NULL);
        if (!r)
            return NULL;
        Py_DECREF(r);
    }
    Py_RETURN_NONE;
}

static PyObject *write_view(struct transport *t, PyObject *data, const Py_buffer *view)
{
    int64_t sent = 0;

    if (!(t->flags & TRANSPORT_OPEN) || t->lost)
        return write_lost(t);
    if (poller_is_here(t->poller) < 0)
        return NULL;
    t->poller->touched = true;
    if (!t->outbox)
        sent = thread_send(t->poller->thread, t->conn, view->buf, (size_t)view->len);
    if (sent == view->len)
        Py_RETURN_NONE;
    if (sent < 0) {
        face_raise_os((int)-sent, strerror((int)-sent));
        if (transport_failed(t, "Fatal write error on Janus transport") < 0)
            return NULL;
    } else if (append(t, data, view, (size_t)sent) < 0 || maybe_hold_up(t) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *transport_write(PyObject *self, PyObject *data)
{
    struct transport *t = (struct transport *)self;
    PyObject *r = Py_None;
    Py_buffer view;

    if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data))
        return PyErr_Format(PyExc_TypeError, "data argument must be a bytes-like object, not '%.200s'",
                            Py_TYPE(data)->tp_name);
    if (t->flags & TRANSPORT_EOF_WRITTEN)
        return PyErr_Format(PyExc_RuntimeError, "Cannot call write() after write_eof()");
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        PyObject *flat; /* a memoryview with gaps */

        if (!PyErr_ExceptionMatches(PyExc_BufferError))
            return NULL;
        PyErr_Clear();
        flat = PyBytes_FromObject(data);
        r = flat ? transport_write(self, flat) : NULL;
        Py_XDECREF(flat);
        return r;
    }
    r = view.len > 0 ? write_view(t, data, &view) : Py_NewRef(Py_None);
    PyBuffer_Release(&view);
    return r;
}

PyObject *transport_writelines(PyObject *self, PyObject *lines)
{
    PyObject *iterator = PyObject_GetIter(lines);
    PyObject *line;

    if (!iterator)
        return NULL;
    while ((line = PyIter_Next(iterator))) {
        PyObject *r = transport_write(self, line);

        Py_DECREF(line);
        if (!r)
            break;
        Py_DECREF(r);
    }
    Py_DECREF(iterator);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

PyObject *transport_write_eof(PyObject *self, PyObject *unused)
{
    struct transport *t = (struct transport *)self;

    (void)unused;
    if (t->flags & (TRANSPORT_CLOSING | TRANSPORT_EOF_WRITTEN))
        Py_RETURN_NONE;
    if (poller_is_here(t->poller) < 0)
        return NULL;
    t->flags |= TRANSPORT_EOF_WRITTEN;
    t->poller->touched = true;
    if (!t->outbox && t->flags & TRANSPORT_OPEN)
        thread_shutdown(t->poller->thread, t->conn);
    Py_RETURN_NONE;
}

PyObject *transport_can_write_eof(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    Py_RETURN_TRUE;
}

PyObject *transport_get_write_buffer_size(PyObject *self, PyObject *unused)
{
    struct transport *t = (struct transport *)self;

    (void)unused;
    return PyLong_FromSize_t(t->outbox ? t->outbox->bytes : 0);
}

PyObject *transport_get_write_buffer_limits(PyObject *self, PyObject *unused)
{
    struct transport *t = (struct transport *)self;

    (void)unused;
    return Py_BuildValue("(II)", t->low_bytes, t->high_bytes);
}

PyObject *transport_set_write_buffer_limits(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"high", "low", NULL};
    struct transport *t = (struct transport *)self;
    PyObject *high_given = Py_None, *low_given = Py_None;
    long long high, low = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:set_write_buffer_limits", names, &high_given, &low_given))
        return NULL;
    if (low_given != Py_None)
        low = PyLong_AsLongLong(low_given);
    high = high_given != Py_None ? PyLong_AsLongLong(high_given) : low_given != Py_None ? 4 * low : 64 * 1024;
    if (PyErr_Occurred())
        return NULL;
    if (low_given == Py_None)
        low = high / 4;
    if (!(high >= low && low >= 0))
        return PyErr_Format(PyExc_ValueError, "high (%lld) must be >= low (%lld) must be >= 0", high, low);
    t->high_bytes = high < UINT32_MAX ? (uint32_t)high : UINT32_MAX;
    t->low_bytes = low < UINT32_MAX ? (uint32_t)low : UINT32_MAX;
    if (maybe_hold_up(t) < 0)
        return NULL;
    Py_RETURN_NONE;
}
