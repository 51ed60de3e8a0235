/*
 * worker.h: a thread of the SDK and its C handlers, behind struct janus_worker.
 */
#ifndef APP_WORKER_H
#define APP_WORKER_H

#include "app/handlers.h"

struct janus_worker {
    struct janus_thread *thread;
    struct handlers *handlers;
    bool owns_thread;
};

/* Handlers on a thread that somebody else opened and closes; for a loop in memory, too. */
struct janus_worker *worker_on(struct janus_thread *thread, uint8_t stacks, struct janus_error *error);

#endif
