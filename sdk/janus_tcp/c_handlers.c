/*
 * c_handlers.c: handlers in C beside Python's, in the same loop: they run without the GIL.
 */
#include "janus_tcp/face.h"

#include "app/handlers.h"

/* listen_c(address, port, handler, accept, flags): handler and accept are addresses of C functions, accept may be 0. */
PyObject *loop_listen_c(PyObject *self, PyObject *args)
{
    struct loop *loop = (struct loop *)self;
    struct janus_service service = {0};
    struct janus_error error;
    struct ip_addr addr;
    PyObject *address;
    unsigned long long handler, accept;

    if (!PyArg_ParseTuple(args, "OHKKH:listen_c", &address, &service.port, &handler, &accept, &service.flags) ||
        !loop_parse_address(address, &addr) || !loop_is_here(loop))
        return NULL;
    service.handler = (janus_handler *)(uintptr_t)handler;
    service.accept = (int (*)(struct janus_conn *, void *))(uintptr_t)accept;
    if (!loop->c_handlers && handlers_new(loop->thread, JANUS_STACKS_DEFAULT, &loop->c_handlers, &error) < 0)
        return face_raise(&error);
    if (handlers_listen(loop->c_handlers, &addr, &service, &error) < 0)
        return face_raise(&error);
    Py_RETURN_NONE;
}

uint64_t loop_timer_us(const struct loop *loop)
{
    uint64_t python_us = timers_next_us(&loop->timers);
    uint64_t c_us = loop->c_handlers ? handlers_next_us(loop->c_handlers) : UINT64_MAX;

    return python_us < c_us ? python_us : c_us;
}

uint32_t loop_c_live(const struct loop *loop)
{
    return loop->c_handlers ? (uint32_t)handlers_live(loop->c_handlers) : 0;
}
