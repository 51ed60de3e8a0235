/*
 * task.c: coroutines that the loop drives, and Task, the one that stands for itself.
 */
#include "janus_tcp/docs.h"
#include "janus_tcp/face.h"

#include <stddef.h>
#include <structmember.h>

PyObject *task_owner(struct task *task)
{
    size_t offset = task->of_connection ? offsetof(struct connection, task) : offsetof(struct task_object, task);

    return (PyObject *)((char *)task - offset);
}

struct loop *task_loop(struct task *task)
{
    return task->of_connection ? ((struct connection *)task_owner(task))->loop
                               : ((struct task_object *)task_owner(task))->loop;
}

struct task *task_block(struct loop *loop, PyObject *awaiter)
{
    struct task *task = loop->current;

    if (!task) {
        PyErr_SetString(PyExc_RuntimeError, "this must be awaited in a coroutine that janus_tcp runs");
        return NULL;
    }
    task->awaiting = awaiter;
    return task;
}

void task_wake(struct loop *loop, struct task **waiter)
{
    struct task *task = *waiter;

    if (!task)
        return;
    *waiter = NULL;
    task->awaiting = NULL;
    loop_push_ready(loop, task);
}

/* Takes the task out of whatever it waits in. */
static void detach(struct task *task)
{
    PyObject *awaiting = task->awaiting;

    task->awaiting = NULL;
    if (!awaiting)
        return;
    if (Py_IS_TYPE(awaiting, &connection_type)) {
        connection_forget_task((struct connection *)awaiting, task);
    } else if (Py_IS_TYPE(awaiting, &sleep_type)) {
        sleep_abandon(awaiting);
    } else if (Py_IS_TYPE(awaiting, &task_type)) {
        ((struct task_object *)awaiting)->joiner = NULL;
    } else if (Py_IS_TYPE(awaiting, &sending_type) || Py_IS_TYPE(awaiting, &reading_type)) {
        connection_forget_task(((struct awaiter *)awaiting)->connection, task);
    }
}

void task_cancel(struct loop *loop, struct task *task)
{
    if (!task->coro || task->cancelled)
        return;
    task->cancelled = 1;
    if (task == loop->current)
        return; /* thrown when it waits next */
    detach(task);
    loop_push_ready(loop, task);
}

void task_kill(struct loop *loop, struct task *task)
{
    PyObject *owner = Py_NewRef(task_owner(task));
    PyObject *coro = task->coro;

    detach(task);
    task->coro = NULL;
    task->cancelled = 0;
    Py_XDECREF(coro);
    if (coro && task->of_connection) {
        loop->handlers--;
        connection_close((struct connection *)owner, true);
        Py_DECREF(owner); /* the reference of its running handler */
    }
    if (coro && PySet_Discard(loop->tasks, owner) < 0)
        PyErr_Clear();
    Py_DECREF(owner);
}

/* --- the end of a task --- */

/* KeyboardInterrupt and SystemExit leave the loop; they are nobody's mistake. */
static bool is_fatal(PyObject *exception)
{
    return PyErr_GivenExceptionMatches(exception, PyExc_KeyboardInterrupt) ||
           PyErr_GivenExceptionMatches(exception, PyExc_SystemExit);
}

static void finish_handler(struct loop *loop, struct connection *c, PyObject *exception)
{
    loop->handlers--;
    if (exception) {
        if (!is_fatal(exception) && !PyErr_GivenExceptionMatches(exception, face_cancelled_error)) {
            loop->failed++;
            face_report((PyObject *)c, exception);
        }
        connection_close(c, true);
    } else {
        connection_close(c, false);
    }
    if (PySet_Discard(loop->tasks, (PyObject *)c) < 0)
        PyErr_Clear();
    if (c->more)
        Py_CLEAR(c->more->user_data); /* it may refer to the connection */
    Py_DECREF(c);                     /* the reference of its running handler */
}

static void finish_task(struct loop *loop, struct task_object *t, PyObject *result, PyObject *exception)
{
    t->ended = true;
    t->result = Py_XNewRef(result);
    t->exception = Py_XNewRef(exception);
    task_wake(loop, &t->joiner);
    if (t->done) {
        PyObject *done = t->done, *r;

        t->done = NULL;
        r = PyObject_CallOneArg(done, (PyObject *)t);
        Py_DECREF(done);
        if (!r) {
            PyObject *e = face_take_exception();

            face_report((PyObject *)t, e);
            Py_XDECREF(e);
        }
        Py_XDECREF(r);
    }
    if (PySet_Discard(loop->tasks, (PyObject *)t) < 0)
        PyErr_Clear();
}

/* Steals result and exception. */
static void finish(struct loop *loop, struct task *task, PyObject *result, PyObject *exception)
{
    Py_CLEAR(task->coro);
    task->cancelled = 0;
    if (exception && is_fatal(exception) && !loop->fatal)
        loop->fatal = Py_NewRef(exception);
    if (task->of_connection)
        finish_handler(loop, (struct connection *)task_owner(task), exception);
    else
        finish_task(loop, (struct task_object *)task_owner(task), result, exception);
    Py_XDECREF(result);
    Py_XDECREF(exception);
}

/* --- running --- */

/* Throws type(text) into the coroutine.  As PyIter_Send(). */
static PySendResult throw_into(PyObject *coro, PyObject *type, const char *text, PyObject **result)
{
    PyObject *exception = text ? PyObject_CallFunction(type, "s", text) : PyObject_CallNoArgs(type);

    *result = exception ? PyObject_CallMethod(coro, "throw", "O", exception) : NULL;
    Py_XDECREF(exception);
    if (*result)
        return PYGEN_NEXT;
    if (!PyErr_ExceptionMatches(PyExc_StopIteration))
        return PYGEN_ERROR;
    exception = face_take_exception();
    *result = PyObject_GetAttrString(exception, "value");
    Py_DECREF(exception);
    return *result ? PYGEN_RETURN : PYGEN_ERROR;
}

static PySendResult step(struct task *task, PyObject **result)
{
    if (!task->cancelled)
        return Py_TYPE(task->coro)
            ->tp_as_async->am_send(task->coro, Py_None, result); /* PyIter_Send() of a coroutine */
    task->cancelled = 0;
    return throw_into(task->coro, face_cancelled_error, NULL, result);
}

/* The coroutine awaits another library's object: it is told so, and ended when it goes on doing it. */
static PySendResult refuse_foreign(struct task *task, PyObject **result)
{
    static const char text[] = "a janus_tcp coroutine can only await janus_tcp's own awaitables";
    PySendResult status = PYGEN_NEXT;

    for (int i = 0; i < 3 && status == PYGEN_NEXT && !task->awaiting; i++) {
        Py_XDECREF(*result);
        status = throw_into(task->coro, PyExc_RuntimeError, text, result);
    }
    if (status != PYGEN_NEXT || task->awaiting)
        return status;
    Py_CLEAR(*result);
    PyErr_SetString(PyExc_RuntimeError, text);
    return PYGEN_ERROR;
}

void task_resume(struct loop *loop, struct task *task)
{
    PyObject *owner = Py_NewRef(task_owner(task));
    PyObject *result = NULL;
    PySendResult status = PYGEN_NEXT;

    loop->current = task;
    if (task->coro) {
        task->awaiting = NULL;
        status = step(task, &result);
        if (status == PYGEN_NEXT && !task->awaiting)
            status = refuse_foreign(task, &result);
        if (loop->slow_ms)
            loop_note_time(loop, owner, task->coro);
    }
    loop->current = NULL;
    if (status == PYGEN_RETURN) {
        finish(loop, task, result, NULL);
    } else if (status == PYGEN_ERROR) {
        finish(loop, task, NULL, face_take_exception());
    } else {
        Py_XDECREF(result);
        if (task->cancelled) { /* it cancelled itself before it waited */
            detach(task);
            loop_push_ready(loop, task);
        }
    }
    Py_DECREF(owner);
}

/* --- Task --- */

PyObject *task_spawn(struct loop *loop, PyObject *coro, PyObject *done)
{
    struct task_object *t;

    if (!PyCoro_CheckExact(coro))
        return PyErr_Format(PyExc_TypeError, "a coroutine is wanted, not %.100s: call the async function",
                            Py_TYPE(coro)->tp_name);
    t = PyObject_GC_New(struct task_object, &task_type);
    if (!t)
        return NULL;
    memset((char *)t + sizeof(PyObject), 0, sizeof *t - sizeof(PyObject));
    t->loop = (struct loop *)Py_NewRef((PyObject *)loop);
    t->task.coro = Py_NewRef(coro);
    t->done = done == Py_None ? NULL : Py_XNewRef(done);
    PyObject_GC_Track(t);
    if (PySet_Add(loop->tasks, (PyObject *)t) < 0) {
        Py_DECREF(t);
        return NULL;
    }
    loop_push_ready(loop, &t->task);
    return (PyObject *)t;
}

static int task_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct task_object *t = (struct task_object *)self;

    Py_VISIT(t->loop);
    Py_VISIT(t->task.coro);
    Py_VISIT(t->result);
    Py_VISIT(t->exception);
    Py_VISIT(t->done);
    return 0;
}

static int task_clear(PyObject *self)
{
    struct task_object *t = (struct task_object *)self;

    Py_CLEAR(t->task.coro);
    Py_CLEAR(t->result);
    Py_CLEAR(t->exception);
    Py_CLEAR(t->done);
    Py_CLEAR(t->loop);
    return 0;
}

static void task_dealloc(PyObject *self)
{
    struct task_object *t = (struct task_object *)self;

    PyObject_GC_UnTrack(self);
    if (t->exception && !t->retrieved && !PyErr_GivenExceptionMatches(t->exception, face_cancelled_error) &&
        !is_fatal(t->exception))
        face_report(Py_None, t->exception);
    task_clear(self);
    PyObject_GC_Del(self);
}

static PySendResult task_send(PyObject *self, PyObject *value, PyObject **result)
{
    struct task_object *t = (struct task_object *)self;

    (void)value;
    *result = NULL;
    if (t->ended) {
        t->retrieved = true;
        if (t->exception) {
            PyErr_SetObject((PyObject *)Py_TYPE(t->exception), t->exception);
            return PYGEN_ERROR;
        }
        *result = Py_NewRef(t->result ? t->result : Py_None);
        return PYGEN_RETURN;
    }
    if (t->joiner || t->loop->current == &t->task) {
        PyErr_SetString(PyExc_RuntimeError,
                        t->joiner ? "another task awaits this one already" : "a task cannot await itself");
        return PYGEN_ERROR;
    }
    t->joiner = task_block(t->loop, self);
    *result = t->joiner ? Py_NewRef(Py_None) : NULL;
    return *result ? PYGEN_NEXT : PYGEN_ERROR;
}

static PyObject *task_next(PyObject *self)
{
    PyObject *value;
    PySendResult result = task_send(self, Py_None, &value);

    return face_stop(result, value);
}

static PyObject *task_cancel_method(PyObject *self, PyObject *unused)
{
    struct task_object *t = (struct task_object *)self;

    (void)unused;
    if (t->ended || !loop_is_here(t->loop))
        return t->ended ? Py_NewRef(Py_None) : NULL;
    task_cancel(t->loop, &t->task);
    Py_RETURN_NONE;
}

static PyObject *task_done(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(((struct task_object *)self)->ended);
}

static PyObject *task_exception(PyObject *self, PyObject *unused)
{
    struct task_object *t = (struct task_object *)self;

    (void)unused;
    t->retrieved = true;
    return Py_NewRef(t->exception ? t->exception : Py_None);
}

static PyMethodDef task_methods[] = {
    {"cancel", task_cancel_method, METH_NOARGS, DOC_TASK_CANCEL},
    {"done", task_done, METH_NOARGS, DOC_TASK_DONE},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "Task[T] for annotations."},
    {"exception", task_exception, METH_NOARGS, DOC_TASK_EXCEPTION},
    {NULL, NULL, 0, NULL},
};

static PyAsyncMethods task_async = {.am_await = PyObject_SelfIter, .am_send = task_send};

PyTypeObject task_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "janus_tcp.Task",
    .tp_basicsize = sizeof(struct task_object),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = DOC_TASK,
    .tp_dealloc = task_dealloc,
    .tp_traverse = task_traverse,
    .tp_clear = task_clear,
    .tp_as_async = &task_async,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = task_next,
    .tp_methods = task_methods,
};
