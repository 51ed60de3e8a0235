/*
 * handlers.h: C handlers on one TCP thread: a coroutine for each connection, resumed by the thread's events.
 *
 *   rows of the core   | tcb 0 | tcb 1 | ...                    128 bytes each
 *   rows here          | janus_conn 0 | janus_conn 1 | ... | tasks     40 bytes each, the same index
 *
 * A coroutine waits for one thing of one connection, mostly its own.  Others may wait on a connection too, one at a time.  Whoever
 * runs the thread's loop gives it the events of handlers, runs them once a turn, and asks when to wake up:
 *
 *   thread_poll ─> handlers_take() for each event ─> handlers_run() ─> thread_flush ─> sleep until handlers_next_us()
 */
#ifndef APP_HANDLERS_H
#define APP_HANDLERS_H

#include "app/janus.h"
#include "app/thread_api.h"
#include "coro/coro.h"
#include "tcp/wheel.h"

#include <assert.h>
#include <errno.h>

enum {
    HANDLERS_BATCH = 64,
    HANDLERS_TASKS_MAX = 65536, /* coroutines without a connection */
    HANDLERS_TAG = 2,           /* low two bits of the user word of connections with C handlers; then the service */
    HANDLERS_NO_SERVICE = 0xffff,
    HANDLERS_OWNED_LISTS = 1024,
};

/* What a coroutine waits for: coro.tag. */
enum handler_wait {
    WAIT_NOTHING,
    WAIT_RECV, /* the request is buffer and length, see handlers_request() */
    WAIT_VIEW,
    WAIT_READABLE,
    WAIT_WRITABLE,
    WAIT_CONNECTED,
    WAIT_SENT_ALL,
    WAIT_ENDED, /* the connection's own coroutine */
    WAIT_TIME,
};

enum conn_flag {
    CONN_LIVE = 0x0001,       /* the core's connection is ours */
    CONN_CLOSED = 0x0002,     /* by janus_close() or janus_abort(): nothing more is received or sent */
    CONN_ABORTED = 0x0004,    /* RST instead of FIN when it is given back */
    CONN_KILLED = 0x0008,     /* closed by another: each wait of its own coroutine fails */
    CONN_HELD = 0x0010,       /* by who opened it: given back at janus_close() */
    CONN_CONNECTING = 0x0020, /* no answer yet */
    CONN_EXPIRED = 0x0040,    /* the coroutine's deadline has passed */
    CONN_LOST = 0x0080,       /* what the coroutine waited on is gone */
    CONN_QUEUED = 0x0100,     /* the coroutine is to be resumed at the next turn */
    CONN_SENDING = 0x0200,    /* a janus_send() waits for room */
    CONN_OWNED = 0x0400,      /* memory of janus_send_owned() is on its way */
    CONN_ENDED = 0x0800,      /* its coroutine has returned, and it is kept for what is on its way */
    CONN_TASK = 0x1000,       /* no connection at all */
};

struct janus_conn {
    struct coro co;
    void *user;
    struct wheel_node timer;
    uint32_t waits_on; /* row that its coroutine waits on */
    uint32_t other;    /* index + 1 of another coroutine that waits on this row */
    uint16_t viewed;   /* bytes of the last janus_recv_view() */
    uint16_t flags;    /* enum conn_flag */
};
static_assert(sizeof(struct janus_conn) == 40, "part of the bytes per idle connection");

struct handlers_service {
    struct janus_service service; /* handler null: free */
    struct ip_addr addr;
};

/* To be begun or resumed at the next turn. */
struct handlers_ready {
    uint32_t index;
    void (*fn)(void *argument); /* null: resumed */
    void *argument;
};

struct owned_send;

struct handlers {
    struct janus_thread *thread;
    struct coro_sched *sched;
    struct janus_conn *rows;
    size_t rows_bytes;
    uint32_t conn_max;
    uint32_t task_fresh, task_free; /* as in a slab, over rows[conn_max...]; user links the free ones */
    struct wheel wheel;             /* in milliseconds */
    struct handlers_service services[TCP_LISTENERS_MAX];
    uint32_t batch_count;
    struct tcp_event batch[HANDLERS_BATCH];
    struct handlers_ready *ready; /* ring */
    uint32_t ready_first, ready_count, ready_room;
    struct handlers_ready starting; /* what task_main() finds */
    struct owned_send *owned[HANDLERS_OWNED_LISTS];
    uint32_t cancel_next, cancel_end; /* rows to be cancelled, some each turn */
    uint64_t trim_us;                 /* the next look for images that nobody has */
    uint64_t turns;                   /* read by the watch, as running */
    uint32_t running;                 /* row index + 1 of the coroutine that runs now, read by the watch; 0: none */
    uint64_t accepted, opened, refused_by_hook;
    uint8_t scratch[JANUS_SCRATCH_BYTES]; /* not thread-local: such room is scarce in what is loaded later */
};

/* The one whose handlers run in this system thread now; null outside of handlers_run(). */
extern _Thread_local struct handlers *handlers_here;

/* Handlers for a thread that is open.  0 or -errno with error filled. */
int handlers_new(struct janus_thread *thread, uint8_t stacks, struct handlers **out, struct janus_error *error);
/* Forgets all coroutines and resets their connections.  Null is allowed. */
void handlers_free(struct handlers *h);

int handlers_listen(struct handlers *h, const struct ip_addr *addr, const struct janus_service *service,
                    struct janus_error *error);
int handlers_unlisten(struct handlers *h, const struct ip_addr *addr, uint16_t port, struct janus_error *error);

/* True: the event is of a connection with a C handler, and is kept for handlers_run(). */
static inline bool handlers_take(struct handlers *h, const struct tcp_event *event)
{
    if (h == NULL || (event->user & 3) != HANDLERS_TAG)
        return false;
    h->batch[h->batch_count++] = *event;
    return true;
}

static inline bool handlers_full(const struct handlers *h)
{
    return h != NULL && h->batch_count == HANDLERS_BATCH;
}

/* Runs what the events taken, the time and other coroutines have made ready.  Returns how many coroutines ran. */
uint32_t handlers_run(struct handlers *h);

/* When handlers_run() has something to do by itself, in the thread's time; UINT64_MAX: never. */
uint64_t handlers_next_us(const struct handlers *h);

/* Ends all waits of all coroutines with -ECONNABORTED, some thousand each turn. */
void handlers_cancel(struct handlers *h);

/* Coroutines that have begun and not ended. */
uint64_t handlers_live(const struct handlers *h);

void handlers_count(const struct handlers *h, struct janus_counts *counts);

/* --- for handler_calls.c and owned.c --- */

static inline uint32_t handlers_index(const struct handlers *h, const struct janus_conn *c)
{
    return (uint32_t)(c - h->rows);
}

/* Queues a coroutine: fn null resumes it.  False: no memory. */
bool handlers_queue(struct handlers *h, struct janus_conn *c, void (*fn)(void *argument), void *argument);
/* A row for a coroutine without a connection; null when all are taken. */
struct janus_conn *handlers_take_task(struct handlers *h);
/* What the last janus_recv_view() showed counts as read. */
void handlers_settle_view(struct handlers *h, struct janus_conn *c);
/* Gives the core's connection back and forgets the row; who waits on it is told. */
void handlers_give_back(struct handlers *h, struct janus_conn *c);
/* Ends whatever the connection's own coroutine waits for. */
void handlers_kill(struct handlers *h, struct janus_conn *c);

/* Why a closed connection refuses a call. */
static inline int handlers_closed_error(const struct janus_conn *c)
{
    return c->flags & CONN_KILLED ? -ECONNABORTED : -ENOTCONN;
}

/* Receives into buffer what is there: > 0, 0 at the end of the stream, -EAGAIN when there is nothing yet and the coroutine self is
 * not expired, another -errno. */
int64_t handlers_recv_now(struct handlers *h, struct janus_conn *c, const struct janus_conn *self, void *buffer,
                          size_t len);
struct janus_view handlers_view_now(struct handlers *h, struct janus_conn *c, const struct janus_conn *self);

/* A WAIT_RECV's request: an address has 48 bits. */
static inline uint64_t handlers_request(const void *buffer, size_t len)
{
    return (uint64_t)(len < UINT16_MAX ? len : UINT16_MAX) << 48 | (uintptr_t)buffer;
}

/* --- owned.c: memory of the caller's on its way --- */

/* The connection may take more, or has ended: feeds it.  Returns false when nothing of c is on its way any more. */
bool owned_step(struct handlers *h, struct janus_conn *c, bool all_acknowledged);
/* All of c's memory is given up with this status. */
void owned_end(struct handlers *h, struct janus_conn *c, int status);
/* True while not all of it has been taken by the core: what is sent now would overtake it. */
bool owned_is_waiting(const struct handlers *h, const struct janus_conn *c);

#endif
