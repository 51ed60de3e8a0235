/*
 * asyncio_timers.c: call_later() and call_at() of the loop: a TimerHandle that knows its place in a heap in C, which it leaves when it is
 * cancelled.
 *
 *   Ready ──owns──> timers (heap) ──owns──> TimerHandle of ours: asyncio.TimerHandle │ place
 *
 * In debug mode, and for keywords that are not context, asyncio's own call_at() makes asyncio's own handles in asyncio's own heap.
 */
#include "janus_tcp/asyncio.h"

#include <string.h>
#include <structmember.h>

static PyTypeObject *our_type;
static Py_ssize_t place_offset, when_offset, scheduled_offset;
static PyObject *name_time, *name_slow_at, *name_slow_later, *name_cancelled;

static uint32_t *place(PyObject *handle)
{
    return (uint32_t *)((char *)handle + place_offset);
}

static PyObject **member(PyObject *handle, Py_ssize_t offset)
{
    return (PyObject **)((char *)handle + offset);
}

static void set_scheduled(PyObject *handle, PyObject *truth)
{
    Py_XSETREF(*member(handle, scheduled_offset), Py_NewRef(truth));
}

/* The order of all doubles as that of their bits. */
static uint64_t order_of(double when)
{
    uint64_t bits;

    when += 0.0; /* -0.0 is 0.0 */
    memcpy(&bits, &when, sizeof bits);
    return bits >> 63 ? ~bits : bits | UINT64_C(1) << 63;
}

/* --- making --- */

static PyObject *timer_at(PyObject *self, PyObject *when, PyObject *const *args, Py_ssize_t count, PyObject *context)
{
    struct ready *r = (struct ready *)self;
    double seconds = PyFloat_AsDouble(when);
    PyObject *handle;

    if (seconds == -1.0 && PyErr_Occurred())
        return NULL;
    handle = handle_new(our_type, self, args[0], args + 1, count - 1, context);
    if (!handle)
        return NULL;
    *member(handle, when_offset) = Py_NewRef(when);
    *member(handle, scheduled_offset) = Py_NewRef(Py_True);
    if (!timers_set(&r->timers, order_of(seconds), handle, place(handle))) {
        Py_DECREF(handle);
        return NULL;
    }
    return Py_NewRef(handle); /* the other reference is the heap's */
}

/* Whether the arguments are (time, callback, *args[, context=]); 1, 0 for asyncio's own way, -1 with an error set. */
static int understood(struct ready *r, PyObject *const *args, Py_ssize_t nargs, PyObject *names, PyObject **context)
{
    if (r->closed || !r->append) {
        PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
        return -1;
    }
    *context = NULL;
    if (r->slow || nargs < 2 || args[0] == Py_None)
        return 0;
    if (names && PyTuple_GET_SIZE(names) > 0) {
        if (PyTuple_GET_SIZE(names) != 1 || PyUnicode_Compare(PyTuple_GET_ITEM(names, 0), asyncio_names.context) != 0)
            return 0;
        *context = args[nargs];
    }
    return 1;
}

static PyObject *slowly(PyObject *self, PyObject *name, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    PyObject *method = PyObject_GetAttr(self, name);
    PyObject *made = method ? PyObject_Vectorcall(method, args, (size_t)nargs, names) : NULL;

    Py_XDECREF(method);
    return made;
}

PyObject *ready_call_at(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    PyObject *context;
    int rc = understood((struct ready *)self, args, nargs, names, &context);

    if (rc <= 0)
        return rc == 0 ? slowly(self, name_slow_at, args, nargs, names) : NULL;
    return timer_at(self, args[0], args + 1, nargs - 1, context);
}

PyObject *ready_call_later(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    PyObject *context, *now, *when, *made;
    int rc = understood((struct ready *)self, args, nargs, names, &context);

    if (rc <= 0)
        return rc == 0 ? slowly(self, name_slow_later, args, nargs, names) : NULL;
    now = PyObject_CallMethodNoArgs(self, name_time);
    when = now ? PyNumber_Add(now, args[0]) : NULL;
    made = when ? timer_at(self, when, args + 1, nargs - 1, context) : NULL;
    Py_XDECREF(now);
    Py_XDECREF(when);
    return made;
}

/* --- cancelling --- */

static PyObject *timer_cancel(PyObject *self, PyObject *unused)
{
    PyObject *loop, *told;

    (void)unused;
    if (*handle_slot(self, HANDLE_CANCELLED) == Py_True)
        Py_RETURN_NONE;
    loop = *handle_slot(self, HANDLE_LOOP);
    if (!loop || !PyObject_TypeCheck(loop, &ready_type))
        return PyErr_Format(PyExc_TypeError, "a Handle was changed from outside");
    if (*place(self) == 0 && *member(self, scheduled_offset) == Py_True) { /* in asyncio's heap: see set_debug() */
        told = PyObject_CallMethodOneArg(loop, name_cancelled, self);
        if (!told)
            return NULL;
        Py_DECREF(told);
    }
    Py_XSETREF(*handle_slot(self, HANDLE_CANCELLED), Py_NewRef(Py_True));
    if (((struct ready *)loop)->slow && (told = PyObject_Repr(self))) /* what it was, before that is forgotten */
        Py_XSETREF(*handle_slot(self, HANDLE_REPR), told);
    if (*place(self) != 0) {
        timers_remove(&((struct ready *)loop)->timers, place(self));
        set_scheduled(self, Py_False);
        Py_DECREF(self); /* the heap's; the caller has another */
    }
    Py_XSETREF(*handle_slot(self, HANDLE_CALLBACK), Py_NewRef(Py_None));
    Py_XSETREF(*handle_slot(self, HANDLE_ARGS), Py_NewRef(Py_None));
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

/* --- for the loop's turn --- */

/* _next_timer(): when the first is due, by the loop's time(); None: there is none. */
PyObject *ready_next_timer(PyObject *self, PyObject *unused)
{
    struct timers *t = &((struct ready *)self)->timers;

    (void)unused;
    return Py_NewRef(t->count > 0 ? *member(t->heap[1].owner, when_offset) : Py_None);
}

/* The heap's reference becomes the caller's. */
static PyObject *pop(struct timers *t, uint64_t until)
{
    PyObject *handle = timers_pop(t, until);

    Py_XDECREF(handle); /* still held by the one that was the heap's */
    return handle;
}

/* _queue_timers(end): those that are due before end go into the queue of what is run next. */
PyObject *ready_queue_timers(PyObject *self, PyObject *end)
{
    struct ready *r = (struct ready *)self;
    double before = PyFloat_AsDouble(end);
    PyObject *handle, *done = Py_None;

    if (before == -1.0 && PyErr_Occurred())
        return NULL;
    while (done && (handle = pop(&r->timers, order_of(before) - 1))) {
        set_scheduled(handle, Py_False);
        done = PyObject_CallOneArg(r->append, handle);
        Py_XDECREF(done);
        Py_DECREF(handle);
    }
    if (!done)
        return NULL;
    Py_RETURN_NONE;
}

/* _take_timers(): all of them, in order, no longer in our heap. */
PyObject *ready_take_timers(PyObject *self, PyObject *unused)
{
    struct ready *r = (struct ready *)self;
    PyObject *list = PyList_New(0), *handle;

    (void)unused;
    while (list && (handle = pop(&r->timers, UINT64_MAX))) {
        if (PyList_Append(list, handle) < 0)
            Py_CLEAR(list);
        Py_DECREF(handle);
    }
    return list;
}

int ready_visit_timers(struct ready *r, visitproc visit, void *arg)
{
    for (uint32_t i = 1; i <= r->timers.count; i++)
        Py_VISIT(r->timers.heap[i].owner);
    return 0;
}

void ready_clear_timers(struct ready *r)
{
    PyObject *handle;

    while ((handle = pop(&r->timers, UINT64_MAX)))
        Py_DECREF(handle);
    timers_free(&r->timers);
}

/* --- the type --- */

static PyMethodDef timer_methods[] = {
    {"cancel", timer_cancel, METH_NOARGS, "Forget the call; harmless when it was made."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot timer_slots[] = {{Py_tp_methods, timer_methods}, {0, NULL}};
static PyType_Spec timer_spec = {
    .name = "janus_tcp._core.TimerHandle",
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = timer_slots,
};

static int learn_member(PyTypeObject *type, const char *name, Py_ssize_t *offset)
{
    PyObject *descriptor = PyDict_GetItemString(type->tp_dict, name);

    if (!descriptor || !Py_IS_TYPE(descriptor, &PyMemberDescr_Type) ||
        ((PyMemberDescrObject *)descriptor)->d_member->type != T_OBJECT_EX) {
        PyErr_Format(PyExc_ImportError, "asyncio.TimerHandle has no slot %s", name);
        return -1;
    }
    *offset = ((PyMemberDescrObject *)descriptor)->d_member->offset;
    return 0;
}

PyTypeObject *timers_make_type(PyTypeObject *base)
{
    PyObject *bases;

    if (learn_member(base, "_when", &when_offset) < 0 || learn_member(base, "_scheduled", &scheduled_offset) < 0)
        return NULL;
    name_time = PyUnicode_InternFromString("time");
    name_slow_at = PyUnicode_InternFromString("_call_at_slowly");
    name_slow_later = PyUnicode_InternFromString("_call_later_slowly");
    name_cancelled = PyUnicode_InternFromString("_timer_handle_cancelled");
    if (!name_time || !name_slow_at || !name_slow_later || !name_cancelled)
        return NULL;
    place_offset = base->tp_basicsize;
    timer_spec.basicsize = (int)(place_offset + (Py_ssize_t)sizeof(void *));
    bases = PyTuple_Pack(1, base);
    our_type = bases ? (PyTypeObject *)PyType_FromSpecWithBases(&timer_spec, bases) : NULL;
    Py_XDECREF(bases);
    return our_type;
}
