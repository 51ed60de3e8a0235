/*
 * view.c: memoryviews of received packets where they lie.
 *
 *   memoryview (and its slices) ──> Lent ──> one RX slot, no longer the connection's
 *
 * The slot goes back when the last buffer over it is released, so a view never shows what came later.  The next receive on the connection
 * releases the view that it handed out: using it afterwards is a ValueError.  Slices and other exports that are then
 * still held are a BufferError there, as with a bytearray that is to change its size.
 */
#include "janus_tcp/face.h"

struct lent {
    PyObject_HEAD struct loop *loop;
    struct tcp_view view;
    uint32_t slot;
    uint32_t exports;
};

static int lent_getbuffer(PyObject *self, Py_buffer *buffer, int flags)
{
    struct lent *lent = (struct lent *)self;

    if (PyBuffer_FillInfo(buffer, self, (void *)(uintptr_t)lent->view.data, lent->view.len, 1, flags) < 0)
        return -1;
    lent->exports++;
    return 0;
}

static void lent_releasebuffer(PyObject *self, Py_buffer *buffer)
{
    (void)buffer;
    ((struct lent *)self)->exports--;
}

static void lent_dealloc(PyObject *self)
{
    struct lent *lent = (struct lent *)self;

    loop_give_back(lent->loop, lent->slot);
    Py_DECREF((PyObject *)lent->loop);
    PyObject_Free(self);
}

static PyBufferProcs lent_buffer = {lent_getbuffer, lent_releasebuffer};

PyTypeObject lent_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "janus_tcp.Lent",
    .tp_basicsize = sizeof(struct lent),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "A received packet that a memoryview shows.",
    .tp_dealloc = lent_dealloc,
    .tp_as_buffer = &lent_buffer,
};

PyObject *view_lend(struct connection *c)
{
    struct connection_more *more = connection_more(c);
    struct lent *lent = more ? PyObject_New(struct lent, &lent_type) : NULL;
    PyObject *view;

    if (!lent)
        return NULL;
    lent->exports = 0;
    lent->loop = (struct loop *)Py_NewRef((PyObject *)c->loop);
    lent->slot = thread_recv_lend(c->loop->thread, c->conn, &lent->view);
    view = PyMemoryView_FromObject((PyObject *)lent);
    if (!view) {
        Py_DECREF((PyObject *)lent);
        return NULL;
    }
    more->lent = (PyObject *)lent;
    more->view = Py_NewRef(view);
    return view;
}

int view_take_back(struct connection_more *more)
{
    PyObject *released = more->view ? PyObject_CallMethod(more->view, "release", NULL) : Py_NewRef(Py_None);

    if (released) {
        Py_DECREF(released);
        Py_CLEAR(more->view);
        if (((struct lent *)more->lent)->exports == 0) {
            Py_CLEAR(more->lent);
            return 0;
        }
    } else if (!PyErr_ExceptionMatches(PyExc_BufferError)) {
        return -1;
    }
    PyErr_SetString(PyExc_BufferError, "a part of the last recv_view() is still held: release it before receiving");
    return -1;
}
