/*
 * asyncio_ready.c: Ready, the base of the event loop that makes and runs asyncio's own Handles without a Python frame for each.
 *
 * A Handle is a plain class with slots; where they lie is learned from its member descriptors, so the objects are real Handles.  Any
 * other type in the queue, and debug mode, goes the way of asyncio.
 */
#include "janus_tcp/asyncio.h"

#include <structmember.h>

struct asyncio_names asyncio_names;

static const char *const slot_names[HANDLE_SLOTS] = {"_callback",         "_args", "_cancelled", "_loop",
                                                     "_source_traceback", "_repr", "_context"};
static Py_ssize_t slot_offsets[HANDLE_SLOTS];
static PyTypeObject *handle_type, *timer_handle_type, *our_timer_type;

PyObject **handle_slot(PyObject *handle, enum handle_slot which)
{
    return (PyObject **)((char *)handle + slot_offsets[which]);
}

static int learn_handles(void)
{
    PyObject *module = PyImport_ImportModule("asyncio.events");

    handle_type = module ? (PyTypeObject *)PyObject_GetAttrString(module, "Handle") : NULL;
    timer_handle_type = handle_type ? (PyTypeObject *)PyObject_GetAttrString(module, "TimerHandle") : NULL;
    Py_XDECREF(module);
    if (!timer_handle_type)
        return -1;
    for (int i = 0; i < HANDLE_SLOTS; i++) {
        PyObject *descriptor = PyDict_GetItemString(handle_type->tp_dict, slot_names[i]);

        if (!descriptor || !Py_IS_TYPE(descriptor, &PyMemberDescr_Type) ||
            ((PyMemberDescrObject *)descriptor)->d_member->type != T_OBJECT_EX) {
            PyErr_Format(PyExc_ImportError, "asyncio.Handle has no slot %s", slot_names[i]);
            return -1;
        }
        slot_offsets[i] = ((PyMemberDescrObject *)descriptor)->d_member->offset;
    }
    our_timer_type = timers_make_type(timer_handle_type);
    return our_timer_type ? 0 : -1;
}

/* --- making --- */

PyObject *handle_new(PyTypeObject *type, PyObject *loop, PyObject *callback, PyObject *const *args, Py_ssize_t count,
                     PyObject *context)
{
    PyObject *handle = type->tp_alloc(type, 0);
    PyObject *tuple = PyTuple_New(count);

    if (!handle || !tuple)
        goto fail;
    for (Py_ssize_t i = 0; i < count; i++)
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    *handle_slot(handle, HANDLE_ARGS) = tuple;
    *handle_slot(handle, HANDLE_CALLBACK) = Py_NewRef(callback);
    *handle_slot(handle, HANDLE_CANCELLED) = Py_NewRef(Py_False);
    *handle_slot(handle, HANDLE_LOOP) = Py_NewRef(loop);
    *handle_slot(handle, HANDLE_TRACEBACK) = Py_NewRef(Py_None);
    *handle_slot(handle, HANDLE_REPR) = Py_NewRef(Py_None);
    tuple = NULL;
    *handle_slot(handle, HANDLE_CONTEXT) = context && context != Py_None ? Py_NewRef(context) : PyContext_CopyCurrent();
    if (*handle_slot(handle, HANDLE_CONTEXT))
        return handle;
fail:
    Py_XDECREF(handle);
    Py_XDECREF(tuple);
    return NULL;
}

/* A future forgets its callbacks before it calls call_soon() with each and itself: a failure would leave who waits for it waiting. */
static void keep_spare(struct ready *r, PyObject *self)
{
    PyObject *none = Py_None;

    if (r->spare)
        return;
    r->spare = handle_new(handle_type, self, Py_None, &none, 1, NULL);
    if (!r->spare)
        PyErr_Clear(); /* the next turn tries again */
}

static PyObject *use_spare(struct ready *r, PyObject *callback, PyObject *argument, PyObject *context)
{
    PyObject *handle = r->spare;

    if (!handle || !context || !PyErr_ExceptionMatches(PyExc_MemoryError))
        return NULL;
    PyErr_Clear();
    r->spare = NULL;
    Py_SETREF(*handle_slot(handle, HANDLE_CALLBACK), Py_NewRef(callback));
    Py_SETREF(PyTuple_GET_ITEM(*handle_slot(handle, HANDLE_ARGS), 0), Py_NewRef(argument));
    Py_SETREF(*handle_slot(handle, HANDLE_CONTEXT), Py_NewRef(context));
    return handle;
}

/* call_soon(callback, *args, context=None) */
static PyObject *ready_call_soon(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    struct ready *r = (struct ready *)self;
    PyObject *context = NULL, *handle, *appended;

    if (names && PyTuple_GET_SIZE(names) > 0) {
        if (PyTuple_GET_SIZE(names) != 1 || PyUnicode_Compare(PyTuple_GET_ITEM(names, 0), asyncio_names.context) != 0)
            return PyErr_Format(PyExc_TypeError, "call_soon() takes no keyword but context");
        context = args[nargs];
    }
    if (nargs < 1)
        return PyErr_Format(PyExc_TypeError, "call_soon() missing 1 required positional argument: 'callback'");
    if (r->closed || !r->append)
        return PyErr_Format(PyExc_RuntimeError, "Event loop is closed");
    if (r->slow) {
        PyObject *slow = PyObject_GetAttrString(self, "_call_soon_slowly");
        PyObject *made = slow ? PyObject_Vectorcall(slow, args, (size_t)nargs, names) : NULL;

        Py_XDECREF(slow);
        return made;
    }
    handle = handle_new(handle_type, self, args[0], args + 1, nargs - 1, context);
    if (!handle && nargs == 2)
        handle = use_spare(r, args[0], args[1], context);
    appended = handle ? PyObject_CallOneArg(r->append, handle) : NULL;
    if (!appended)
        Py_CLEAR(handle);
    Py_XDECREF(appended);
    return handle;
}

/* --- running --- */

static PyObject *call_handle(PyObject *handle)
{
    PyObject *callback = Py_XNewRef(*handle_slot(handle, HANDLE_CALLBACK));
    PyObject *args = Py_XNewRef(*handle_slot(handle, HANDLE_ARGS));
    PyObject *context = Py_XNewRef(*handle_slot(handle, HANDLE_CONTEXT));
    PyObject *r = NULL;

    if (!callback || !args || !context || !PyTuple_Check(args)) {
        PyErr_SetString(PyExc_TypeError, "a Handle was changed from outside");
    } else if (PyContext_Enter(context) == 0) {
        r = PyObject_Vectorcall(callback, &PyTuple_GET_ITEM(args, 0), (size_t)PyTuple_GET_SIZE(args), NULL);
        if (PyContext_Exit(context) < 0)
            Py_CLEAR(r);
    }
    Py_XDECREF(callback);
    Py_XDECREF(args);
    Py_XDECREF(context);
    return r;
}

/* What a callback raised goes to the loop's exception handler; 0, or -1 when it has to leave the loop. */
static int callback_failed(PyObject *self, PyObject *handle)
{
    PyObject *e, *r;

    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit))
        return -1;
    e = face_take_exception();
    r = PyObject_CallMethod(self, "_callback_failed", "OO", handle, e);
    Py_XDECREF(e);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

static int run_handle(PyObject *self, PyObject *handle)
{
    PyObject *r;

    if (!Py_IS_TYPE(handle, handle_type) && !Py_IS_TYPE(handle, our_timer_type) &&
        !Py_IS_TYPE(handle, timer_handle_type)) {
        PyObject *cancelled = PyObject_GetAttrString(handle, "_cancelled");
        int skip = cancelled ? PyObject_IsTrue(cancelled) : -1;

        Py_XDECREF(cancelled);
        r = skip == 0 ? PyObject_CallMethod(handle, "_run", NULL) : skip > 0 ? Py_NewRef(Py_None) : NULL;
        Py_XDECREF(r);
        return r ? 0 : -1;
    }
    if (*handle_slot(handle, HANDLE_CANCELLED) == Py_True)
        return 0;
    r = call_handle(handle);
    Py_XDECREF(r);
    return r ? 0 : callback_failed(self, handle);
}

/* Runs what is in the queue now; what comes in meanwhile waits, for input and output come in between. */
static PyObject *ready_run(PyObject *self, PyObject *unused)
{
    struct ready *r = (struct ready *)self;
    PyObject *queue = Py_XNewRef(r->queue), *popleft = Py_XNewRef(r->popleft);
    Py_ssize_t n = queue ? PyObject_Size(queue) : 0;
    int rc = n < 0 ? -1 : 0;

    (void)unused;
    if (rc == 0)
        keep_spare(r, self);
    for (; n > 0 && rc == 0; n--) {
        PyObject *handle = PyObject_CallNoArgs(popleft);

        rc = handle ? run_handle(self, handle) : -1;
        Py_XDECREF(handle);
    }
    Py_XDECREF(queue);
    Py_XDECREF(popleft);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* --- the type --- */

static int ready_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct ready *r = (struct ready *)self;

    Py_VISIT(r->queue);
    Py_VISIT(r->append);
    Py_VISIT(r->popleft);
    Py_VISIT(r->spare);
    return ready_visit_timers(r, visit, arg);
}

static int ready_clear(PyObject *self)
{
    struct ready *r = (struct ready *)self;

    Py_CLEAR(r->queue);
    Py_CLEAR(r->append);
    Py_CLEAR(r->popleft);
    Py_CLEAR(r->spare);
    ready_clear_timers(r);
    return 0;
}

static void ready_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    ready_clear(self);
    Py_TYPE(self)->tp_free(self);
}

/* _ready_is(deque): which queue; None: the loop is closed. */
static PyObject *ready_is(PyObject *self, PyObject *queue)
{
    struct ready *r = (struct ready *)self;

    ready_clear(self);
    r->closed = queue == Py_None;
    if (!r->closed) {
        r->queue = Py_NewRef(queue);
        r->append = PyObject_GetAttrString(queue, "append");
        r->popleft = PyObject_GetAttrString(queue, "popleft");
        if (!r->append || !r->popleft)
            return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *ready_slow(PyObject *self, PyObject *on)
{
    int truth = PyObject_IsTrue(on);

    if (truth < 0)
        return NULL;
    ((struct ready *)self)->slow = truth;
    Py_RETURN_NONE;
}

static PyMethodDef ready_methods[] = {
    {"call_soon", (PyCFunction)(void (*)(void))ready_call_soon, METH_FASTCALL | METH_KEYWORDS,
     "Call a function in the next turn of the loop; returns a Handle."},
    {"call_later", (PyCFunction)(void (*)(void))ready_call_later, METH_FASTCALL | METH_KEYWORDS,
     "Call a function after so many seconds; returns a TimerHandle."},
    {"call_at", (PyCFunction)(void (*)(void))ready_call_at, METH_FASTCALL | METH_KEYWORDS,
     "Call a function at a time of the loop's time(), in seconds; returns a TimerHandle."},
    {"_next_timer", ready_next_timer, METH_NOARGS, NULL},
    {"_queue_timers", ready_queue_timers, METH_O, NULL},
    {"_take_timers", ready_take_timers, METH_NOARGS, NULL},
    {"_run_ready", ready_run, METH_NOARGS, NULL},
    {"_ready_is", ready_is, METH_O, NULL},
    {"_ready_slow", ready_slow, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject ready_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "janus_tcp._core.Ready",
    .tp_basicsize = sizeof(struct ready),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .tp_doc = "The ready queue of an asyncio loop.",
    .tp_new = PyType_GenericNew,
    .tp_dealloc = ready_dealloc,
    .tp_traverse = ready_traverse,
    .tp_clear = ready_clear,
    .tp_methods = ready_methods,
};

static int intern_names(void)
{
    static const struct {
        const char *text;
        PyObject **name;
    } names[] = {
        {"data_received", &asyncio_names.data_received},
        {"get_buffer", &asyncio_names.get_buffer},
        {"buffer_updated", &asyncio_names.buffer_updated},
        {"eof_received", &asyncio_names.eof_received},
        {"connection_made", &asyncio_names.connection_made},
        {"_attach", &asyncio_names.attach},
        {"done", &asyncio_names.done},
        {"set_result", &asyncio_names.set_result},
        {"set_exception", &asyncio_names.set_exception},
        {"connection_lost", &asyncio_names.connection_lost},
        {"pause_writing", &asyncio_names.pause_writing},
        {"resume_writing", &asyncio_names.resume_writing},
        {"_call_connection_lost", &asyncio_names.call_connection_lost},
        {"context", &asyncio_names.context},
    };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!*names[i].name && !(*names[i].name = PyUnicode_InternFromString(names[i].text)))
            return -1;
    }
    return 0;
}

PyObject *asyncio_types(PyObject *module, PyObject *unused)
{
    PyObject *base = NULL, *transport;

    (void)unused;
    (void)module;
    if (intern_names() < 0 || learn_handles() < 0 || PyType_Ready(&poller_type) < 0 || PyType_Ready(&ready_type) < 0)
        return NULL;
    module = PyImport_ImportModule("asyncio.transports");
    base = module ? PyObject_GetAttrString(module, "Transport") : NULL;
    transport = base ? transport_make_type(base) : NULL;
    Py_XDECREF(module);
    Py_XDECREF(base);
    return transport ? Py_BuildValue("(OON)", &poller_type, &ready_type, transport) : NULL;
}
