/*
 * worker.c: one TCP thread with C handlers: attach, listen, turn.
 */
#include "app/worker.h"

#include "app/address.h"
#include "app/error.h"

#include <errno.h>
#include <stdlib.h>

enum { SPIN_US = 20 };
#define DEFAULT_SOCKET "/run/janus/attach.sock"

static const char *or_environment(const char *given, const char *variable, const char *usual)
{
    if (given == NULL)
        given = getenv(variable);
    return given != NULL && *given != '\0' ? given : usual;
}

struct janus_worker *worker_on(struct janus_thread *thread, uint8_t stacks, struct janus_error *error)
{
    struct janus_worker *w = calloc(1, sizeof *w);

    if (w == NULL) {
        error_set(error, ENOMEM, "no memory");
        return NULL;
    }
    w->thread = thread;
    if (handlers_new(thread, stacks, &w->handlers, error) < 0) {
        free(w);
        return NULL;
    }
    return w;
}

struct janus_worker *janus_attach(const struct janus_options *options, struct janus_error *error)
{
    struct janus_options o = *options;
    struct janus_thread *thread;
    struct janus_worker *w;

    o.app = or_environment(o.app, "JANUS_APP", "default");
    o.socket_path = or_environment(o.socket_path, "JANUS_SOCKET", DEFAULT_SOCKET);
    thread = thread_open(&o, error);
    if (thread == NULL)
        return NULL;
    w = worker_on(thread, o.stacks, error);
    if (w == NULL)
        thread_close(thread);
    else
        w->owns_thread = true;
    return w;
}

void janus_detach(struct janus_worker *w)
{
    if (w == NULL)
        return;
    handlers_free(w->handlers);
    thread_flush(w->thread);
    if (w->owns_thread)
        thread_close(w->thread);
    free(w);
}

int janus_listen(struct janus_worker *w, const struct janus_service *service, struct janus_error *error)
{
    struct ip_addr addr;

    if (!address_parse(service->address, &addr))
        return error_set(error, EINVAL, "'%s' is not an address", service->address);
    return handlers_listen(w->handlers, &addr, service, error);
}

int janus_unlisten(struct janus_worker *w, const char *address, uint16_t port, struct janus_error *error)
{
    struct ip_addr addr;

    if (!address_parse(address, &addr))
        return error_set(error, EINVAL, "'%s' is not an address", address);
    return handlers_unlisten(w->handlers, &addr, port, error);
}

int janus_online(struct janus_worker *w, struct janus_error *error)
{
    return thread_online(w->thread, error);
}

int janus_spawn(struct janus_worker *w, void (*fn)(void *argument), void *argument)
{
    struct handlers *h = w != NULL ? w->handlers : handlers_here;
    struct janus_conn *task;

    if (h == NULL)
        return -EDEADLK;
    task = handlers_take_task(h);
    return task != NULL && handlers_queue(h, task, fn, argument) ? 0 : -ENOBUFS;
}

/* --- one turn --- */

static uint32_t work(struct janus_worker *w)
{
    uint32_t done = thread_poll(w->thread);
    struct tcp_event event;

    while (!handlers_full(w->handlers) && thread_next_event(w->thread, &event))
        (void)handlers_take(w->handlers, &event);
    done += handlers_run(w->handlers);
    thread_flush(w->thread);
    return done;
}

/* A short spin, since the next packet is often near; then sleep. */
static void idle(struct janus_worker *w, uint64_t timeout_us)
{
    uint64_t now_us = thread_clock_us(w->thread), own_us = handlers_next_us(w->handlers);

    if (thread_spin(w->thread, own_us < now_us + SPIN_US ? own_us : now_us + SPIN_US))
        return;
    now_us = thread_clock_us(w->thread);
    if (own_us <= now_us)
        return;
    thread_wait(w->thread, own_us - now_us < timeout_us ? own_us - now_us : timeout_us);
}

uint32_t janus_turn(struct janus_worker *w, int64_t timeout_us)
{
    uint32_t done = work(w);

    if (done > 0 || timeout_us == 0)
        return done;
    idle(w, timeout_us < 0 ? UINT64_MAX : (uint64_t)timeout_us);
    return work(w);
}

void janus_get_counts(const struct janus_worker *w, struct janus_counts *counts)
{
    handlers_count(w->handlers, counts);
}
