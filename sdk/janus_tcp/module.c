/*
 * module.c: the types become module janus_tcp._core; errors; forks.
 */
#include "janus_tcp/asyncio.h"
#include "janus_tcp/docs.h"

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>

PyObject *face_cancelled_error, *face_incomplete_error;

static PyObject *error_handler; /* called with (owner, exception); null: the unraisable hook */
static PyObject *slow_handler;  /* called with (owner, coroutine or callback, seconds); or null */
static unsigned fork_count;

static void count_fork(void)
{
    fork_count++;
}

unsigned face_fork_count(void)
{
    return fork_count;
}

int face_end_with_parent(void)
{
    return prctl(PR_SET_PDEATHSIG, SIGTERM);
}

/* --- errors --- */

PyObject *face_raise_os(int code, const char *text)
{
    PyObject *args = Py_BuildValue("(is)", code, text);

    if (args)
        PyErr_SetObject(PyExc_OSError, args);
    Py_XDECREF(args);
    return NULL;
}

PyObject *face_raise(const struct janus_error *error)
{
    return face_raise_os(error->code, error->text);
}

PyObject *face_take_exception(void)
{
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    if (!type)
        return NULL;
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback)
        PyException_SetTraceback(value, traceback);
    Py_DECREF(type);
    Py_XDECREF(traceback);
    return value;
}

void face_report(PyObject *owner, PyObject *exception)
{
    PyObject *r;

    if (!exception)
        return;
    if (error_handler) {
        r = PyObject_CallFunctionObjArgs(error_handler, owner ? owner : Py_None, exception, NULL);
        if (r) {
            Py_DECREF(r);
            return;
        }
    } else {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    }
    PyErr_WriteUnraisable(owner);
}

void face_report_slow(PyObject *owner, PyObject *coro, uint64_t ms)
{
    PyObject *type, *value, *traceback, *r;

    if (!slow_handler)
        return;
    PyErr_Fetch(&type, &value, &traceback); /* what the coroutine has ended with */
    r = PyObject_CallFunction(slow_handler, "OOd", owner, coro, (double)ms / 1000);
    if (!r)
        PyErr_WriteUnraisable(owner);
    Py_XDECREF(r);
    PyErr_Restore(type, value, traceback);
}

PyObject *face_stop(PySendResult result, PyObject *value)
{
    if (result == PYGEN_NEXT)
        return value;
    if (result == PYGEN_RETURN) {
        if (value != Py_None)
            _PyGen_SetStopIterationValue(value);
        Py_DECREF(value);
    }
    return NULL;
}

/* --- functions --- */

static PyObject *current_loop(PyObject *module, PyObject *unused)
{
    struct loop *loop = loop_current();

    (void)module;
    (void)unused;
    return Py_NewRef(loop ? (PyObject *)loop : Py_None);
}

static PyObject *current_task(PyObject *module, PyObject *unused)
{
    struct loop *loop = loop_current();

    (void)module;
    (void)unused;
    return Py_NewRef(loop && loop->current ? task_owner(loop->current) : Py_None);
}

static PyObject *face_sleep(PyObject *module, PyObject *arg)
{
    struct loop *loop = loop_current();
    double seconds = PyFloat_AsDouble(arg);

    (void)module;
    if (seconds == -1.0 && PyErr_Occurred())
        return NULL;
    if (!loop)
        return PyErr_Format(PyExc_RuntimeError, "sleep() must be awaited in a coroutine that janus_tcp runs");
    return sleep_new(loop, seconds);
}

/* Cancels a Task, or the handler of a Connection. */
static PyObject *face_cancel(PyObject *module, PyObject *owner)
{
    struct task *task;

    (void)module;
    if (Py_IS_TYPE(owner, &connection_type))
        task = &((struct connection *)owner)->task;
    else if (Py_IS_TYPE(owner, &task_type))
        task = &((struct task_object *)owner)->task;
    else
        return PyErr_Format(PyExc_TypeError, "cancel() takes what current_task() returns");
    if (task->coro) {
        struct loop *loop = task_loop(task);

        if (!loop_is_here(loop))
            return NULL;
        task_cancel(loop, task);
    }
    Py_RETURN_NONE;
}

static PyObject *set_error_handler(PyObject *module, PyObject *handler)
{
    (void)module;
    Py_XSETREF(error_handler, handler == Py_None ? NULL : Py_NewRef(handler));
    Py_RETURN_NONE;
}

static PyObject *set_slow_handler(PyObject *module, PyObject *handler)
{
    (void)module;
    Py_XSETREF(slow_handler, handler == Py_None ? NULL : Py_NewRef(handler));
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"current_loop", current_loop, METH_NOARGS, "The loop that runs the calling coroutine, or None."},
    {"current_task", current_task, METH_NOARGS, "The running Task, or the Connection whose handler runs, or None."},
    {"sleep", face_sleep, METH_O, DOC_SLEEP},
    {"cancel", face_cancel, METH_O, "Raise CancelledError in a task where it waits."},
    {"asyncio_types", asyncio_types, METH_NOARGS, "The types that janus_tcp.asyncio stands on."},
    {"set_slow_handler", set_slow_handler, METH_O,
     "handler(owner, coro, seconds) hears of who kept the loop for long."},
    {"set_error_handler", set_error_handler, METH_O, "handler(owner, exception) hears of what nobody caught."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "janus_tcp._core", .m_doc = "The SDK's types.",
                                        .m_size = -1, .m_methods = functions};

static int add_types(PyObject *module)
{
    static const struct {
        const char *name;
        PyTypeObject *type;
    } types[] = {
        {"Loop", &loop_type},   {"Connection", &connection_type}, {"Task", &task_type},       {"Timer", &timer_type},
        {"Sleep", &sleep_type}, {"Sending", &sending_type},       {"Reading", &reading_type}, {"Done", &done_type},
        {"Lent", &lent_type},
    };

    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (PyType_Ready(types[i].type) < 0 ||
            PyModule_AddObjectRef(module, types[i].name, (PyObject *)types[i].type) < 0)
            return -1;
    }
    face_cancelled_error =
        PyErr_NewExceptionWithDoc("janus_tcp.CancelledError", DOC_CANCELLED_ERROR, PyExc_BaseException, NULL);
    face_incomplete_error =
        PyErr_NewExceptionWithDoc("janus_tcp.IncompleteReadError", DOC_INCOMPLETE_READ_ERROR, PyExc_EOFError, NULL);
    if (PyModule_AddObjectRef(module, "CancelledError", face_cancelled_error) < 0 ||
        PyModule_AddObjectRef(module, "IncompleteReadError", face_incomplete_error) < 0)
        return -1;
    return 0;
}

int face_install(void)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *module = PyModule_Create(&definition);
    int rc = module && add_types(module) == 0 &&
                     PyDict_SetItemString(PyImport_GetModuleDict(), "janus_tcp._core", module) == 0
                 ? 0
                 : -1;

    if (rc == 0 && pthread_atfork(NULL, NULL, count_fork) != 0)
        rc = -1;
    if (PyErr_Occurred())
        PyErr_Print();
    Py_XDECREF(module);
    PyGILState_Release(gil);
    return rc;
}
