/*
 * sleeping.c: what waits for time: sleep() and call_later().
 */
#include "janus_tcp/face.h"

#include <math.h>

struct sleep_object {
    PyObject_HEAD struct loop *loop;
    struct task *task; /* waiting */
    double seconds;
    uint32_t index;
    bool started, fired;
};

struct timer_object {
    PyObject_HEAD struct loop *loop;
    PyObject
        *callback; /* null: called or cancelled; it may hold the Timer, and the collector does not know of either */
    uint32_t index;
};

bool sleep_when(struct loop *loop, double seconds, uint64_t *when_us)
{
    if (isnan(seconds) || seconds < 0) {
        PyErr_SetString(PyExc_ValueError, "a time is wanted that is not negative, in seconds");
        return false;
    }
    *when_us =
        thread_clock_us(loop->thread) + (seconds > 1e9 ? UINT64_C(1000000000000000) : (uint64_t)ceil(seconds * 1e6));
    return true;
}

/* --- sleep() --- */

PyObject *sleep_new(struct loop *loop, double seconds)
{
    struct sleep_object *s;

    if (isnan(seconds) || seconds < 0)
        return PyErr_Format(PyExc_ValueError, "sleep() wants a time that is not negative, in seconds");
    s = PyObject_New(struct sleep_object, &sleep_type);
    if (!s)
        return NULL;
    s->loop = (struct loop *)Py_NewRef((PyObject *)loop);
    s->task = NULL;
    s->seconds = seconds;
    s->index = 0;
    s->started = s->fired = false;
    return (PyObject *)s;
}

static PySendResult sleep_send(PyObject *self, PyObject *value, PyObject **result)
{
    struct sleep_object *s = (struct sleep_object *)self;
    uint64_t when_us;

    (void)value;
    *result = Py_NewRef(Py_None);
    if (s->fired)
        return PYGEN_RETURN;
    if (!s->started && s->loop->thread && sleep_when(s->loop, s->seconds, &when_us) &&
        (s->task = task_block(s->loop, self)) && timers_set(&s->loop->timers, when_us, self, &s->index)) {
        s->started = true;
        return PYGEN_NEXT;
    }
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_RuntimeError, "sleep() was awaited twice, or its loop is closed");
    Py_CLEAR(*result);
    return PYGEN_ERROR;
}

static PyObject *sleep_next(PyObject *self)
{
    PyObject *value;
    PySendResult result = sleep_send(self, Py_None, &value);

    return face_stop(result, value);
}

void sleep_fire(PyObject *self)
{
    struct sleep_object *s = (struct sleep_object *)self;

    s->fired = true;
    task_wake(s->loop, &s->task);
}

void sleep_abandon(PyObject *self)
{
    struct sleep_object *s = (struct sleep_object *)self;

    s->task = NULL;
    timers_remove(&s->loop->timers, &s->index);
}

static void sleep_dealloc(PyObject *self)
{
    struct sleep_object *s = (struct sleep_object *)self;

    timers_remove(&s->loop->timers, &s->index);
    Py_DECREF((PyObject *)s->loop);
    PyObject_Free(self);
}

static PyAsyncMethods sleep_async = {.am_await = PyObject_SelfIter, .am_send = sleep_send};

PyTypeObject sleep_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "janus_tcp.Sleep",
    .tp_basicsize = sizeof(struct sleep_object),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = sleep_dealloc,
    .tp_as_async = &sleep_async,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = sleep_next,
};

/* --- call_later() --- */

PyObject *timer_new(struct loop *loop, double seconds, PyObject *callback)
{
    struct timer_object *t;
    uint64_t when_us;

    if (!sleep_when(loop, seconds, &when_us))
        return NULL;
    t = PyObject_New(struct timer_object, &timer_type);
    if (!t)
        return NULL;
    t->loop = (struct loop *)Py_NewRef((PyObject *)loop);
    t->callback = Py_NewRef(callback);
    t->index = 0;
    if (!timers_set(&loop->timers, when_us, (PyObject *)t, &t->index)) {
        Py_DECREF(t);
        return NULL;
    }
    return (PyObject *)t;
}

void timer_fire(PyObject *self)
{
    struct timer_object *t = (struct timer_object *)self;
    PyObject *callback = t->callback, *e;

    t->callback = NULL;
    Py_XDECREF(PyObject_CallNoArgs(callback));
    e = PyErr_Occurred() ? face_take_exception() : NULL;
    if (t->loop->slow_ms)
        loop_note_time(t->loop, self, callback);
    if (e)
        face_report(self, e);
    Py_XDECREF(e);
    Py_DECREF(callback);
}

static PyObject *timer_cancel(PyObject *self, PyObject *unused)
{
    struct timer_object *t = (struct timer_object *)self;

    (void)unused;
    timers_remove(&t->loop->timers, &t->index);
    Py_CLEAR(t->callback);
    Py_RETURN_NONE;
}

static void timer_dealloc(PyObject *self)
{
    struct timer_object *t = (struct timer_object *)self;

    timers_remove(&t->loop->timers, &t->index);
    Py_XDECREF(t->callback);
    Py_DECREF((PyObject *)t->loop);
    PyObject_Free(self);
}

static PyMethodDef timer_methods[] = {
    {"cancel", timer_cancel, METH_NOARGS, "Forget the call; harmless when it was made."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject timer_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "janus_tcp.Timer",
    .tp_basicsize = sizeof(struct timer_object),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "A call at a later time; it is made only while somebody keeps the Timer.",
    .tp_dealloc = timer_dealloc,
    .tp_methods = timer_methods,
};
