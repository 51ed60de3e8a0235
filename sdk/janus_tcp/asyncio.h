/*
 * asyncio.h: the C half of janus_tcp.asyncio: transports and the dispatch straight from the poll.
 *
 *   JanusEventLoop (Python) ─ selector ─> Poller ──> janus_thread
 *                                          ├─ rows[conn] ──> Transport ──> protocol (Python)
 *                                          └─ listeners ──> protocol factory
 *
 * Poller.poll() is one batch: it polls the stack and calls data_received() and the other callbacks of each connection with news
 * directly, in the connection's own context.  An open Transport is held by its row; received data waits in its packets, so pausing is
 * not reading.  What a callback raises ends its connection; KeyboardInterrupt and SystemExit leave poll(), and the next poll() goes on
 * with the rest of the batch.  All of it runs under the GIL, which is let go only to spin and to sleep.
 */
#ifndef JANUS_TCP_ASYNCIO_H
#define JANUS_TCP_ASYNCIO_H

#include "janus_tcp/face.h"

struct transport;

struct asyncio_listener {
    PyObject *factory; /* called for a protocol, or with the Transport when raw; null: free */
    PyObject *server;  /* asyncio.Server or None */
    PyObject *context;
    struct ip_addr addr;
    uint16_t port;
    bool raw;
};

struct poller {
    PyObject_HEAD struct janus_thread *thread; /* null: closed */
    PyObject *loop, *call_soon, *socket_type, *transport_type;
    struct transport **rows; /* by connection number, owned: an open connection is alive whoever forgets it */
    uint32_t row_count, open_count;
    struct asyncio_listener listeners[TCP_LISTENERS_MAX];
    struct transport **revisit; /* owned; to be read although the core has no news: resumed, or started late */
    uint32_t revisit_count, revisit_room;
    unsigned long system_thread; /* that runs the loop now; 0: none */
    unsigned fork_count;
    uint32_t spin_us;
    uint32_t slow_us; /* callbacks that take longer are named in the log; 0: not looked at */
    bool owns_thread;
    bool polling;
    bool touched; /* the stack owes output since the last flush */
    uint64_t accepted;
    uint32_t event_at, event_count;
    struct tcp_event events[LOOP_EVENTS]; /* a reference for each that names a Transport */
};

enum transport_flag {
    TRANSPORT_OPEN = 0x001,    /* the core's connection is held */
    TRANSPORT_STARTED = 0x002, /* connection_made() was called */
    TRANSPORT_PAUSED = 0x004,
    TRANSPORT_BUFFERED = 0x008, /* an asyncio.BufferedProtocol */
    TRANSPORT_CLOSING = 0x010,
    TRANSPORT_EOF_SEEN = 0x020,
    TRANSPORT_EOF_WRITTEN = 0x040,
    TRANSPORT_HELD_UP = 0x080, /* pause_writing() was called */
    TRANSPORT_REVISIT = 0x100, /* in the poller's list */
    TRANSPORT_FAILED = 0x200,  /* the core has ended the connection; unread data is still to be had */
};

/* What the core had no room for yet: bytes objects, the first from offset on. */
struct outbox {
    size_t bytes, offset;
    uint32_t head, count, room;
    PyObject *chunks[]; /* ring */
};

struct transport {
    PyObject_HEAD PyObject *extra; /* slot _extra of asyncio.BaseTransport: a dict, or null */
    struct poller *poller;         /* owned */
    PyObject *protocol;            /* null: not yet, or no longer */
    PyObject *context;
    PyObject *owner; /* of an accepted connection the Server, of an active open the future that waits for it; or null */
    PyObject *weakrefs;
    struct outbox *outbox; /* null: nothing waits */
    struct flow flow;
    uint32_t conn;
    uint32_t high_bytes, low_bytes;
    uint16_t flags; /* enum transport_flag */
    uint16_t lost;  /* writes since the connection was lost, from 1 */
};

/* --- asyncio_poller.c --- */
extern PyTypeObject poller_type;
/* 0, or -1 with RuntimeError set: the stack may not be touched from here, or is closed. */
int poller_is_here(struct poller *p);
/* Have t read at the next poll. */
int poller_revisit(struct poller *p, struct transport *t);
/* {message, exception, transport, protocol} to the loop's exception handler; never raises. */
void poller_complain(struct poller *p, const char *message, PyObject *exception, struct transport *t);

/* --- asyncio_transport.c --- */
/* The type, a subclass of asyncio.Transport; null with an error set. */
PyObject *transport_make_type(PyObject *base);
/* A new Transport for the core's connection conn, which is aborted on failure.  Context is borrowed and copied. */
struct transport *transport_new(struct poller *p, uint32_t conn, PyObject *owner, PyObject *context);
/* Gives it its protocol and calls connection_made(); 0, or -1: see below. */
int transport_start(struct transport *t, PyObject *protocol);
/* These return 0, or -1 with KeyboardInterrupt or SystemExit set. */
int transport_on_event(struct transport *t, uint32_t kinds);
int transport_read(struct transport *t);
/* The exception that is set ends the connection; 0, or -1 when it has to leave the loop. */
int transport_failed(struct transport *t, const char *message);
/* Lets the connection go at once by RST; connection_lost(exception) follows. */
void transport_force_close(struct transport *t, PyObject *exception);
void transport_let_go(struct transport *t, bool abort);
PyObject *transport_schedule_lost(struct transport *t, PyObject *exception);
/* protocol.name(argument), in t's context; argument null: without one. */
PyObject *transport_call(struct transport *t, PyObject *name, PyObject *argument);

/* --- asyncio_info.c --- */
PyObject *transport_get_extra_info(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *transport_set_option(PyObject *self, PyObject *args);
PyObject *transport_option(PyObject *self, PyObject *args);
PyObject *transport_repr(PyObject *self);
PyObject *transport_attribute(PyObject *self, void *which);

/* --- asyncio_outbox.c --- */
PyObject *transport_write(PyObject *self, PyObject *data);
PyObject *transport_writelines(PyObject *self, PyObject *lines);
PyObject *transport_write_eof(PyObject *self, PyObject *unused);
PyObject *transport_can_write_eof(PyObject *self, PyObject *unused);
PyObject *transport_get_write_buffer_size(PyObject *self, PyObject *unused);
PyObject *transport_get_write_buffer_limits(PyObject *self, PyObject *unused);
PyObject *transport_set_write_buffer_limits(PyObject *self, PyObject *args, PyObject *kwargs);
/* Sends what waits; tells the protocol; ends what was to end after it.  0, or -1 as above. */
int outbox_flush(struct transport *t);
void outbox_clear(struct transport *t);

/* --- asyncio_ready.c --- */
extern PyTypeObject ready_type;

struct ready {
    PyObject_HEAD PyObject *queue, *append, *popleft; /* BaseEventLoop._ready, a deque */
    PyObject *spare;                                  /* a Handle with one argument, for when there is no memory */
    struct timers timers;                             /* of TimerHandles of ours, owned */
    bool slow;                                        /* debug: asyncio's way */
    bool closed;
};

enum handle_slot {
    HANDLE_CALLBACK,
    HANDLE_ARGS,
    HANDLE_CANCELLED,
    HANDLE_LOOP,
    HANDLE_TRACEBACK,
    HANDLE_REPR,
    HANDLE_CONTEXT,
    HANDLE_SLOTS
};

PyObject **handle_slot(PyObject *handle, enum handle_slot which);
/* A Handle of a type; context null or None: the current one. */
PyObject *handle_new(PyTypeObject *type, PyObject *loop, PyObject *callback, PyObject *const *args, Py_ssize_t count,
                     PyObject *context);

/* --- asyncio_timers.c --- */
/* Our TimerHandle, a subclass of asyncio's; null with an error set. */
PyTypeObject *timers_make_type(PyTypeObject *base);
/* Methods of Ready. */
PyObject *ready_call_at(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names);
PyObject *ready_call_later(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names);
PyObject *ready_next_timer(PyObject *self, PyObject *unused);
PyObject *ready_queue_timers(PyObject *self, PyObject *end);
PyObject *ready_take_timers(PyObject *self, PyObject *unused);
int ready_visit_timers(struct ready *r, visitproc visit, void *arg);
void ready_clear_timers(struct ready *r);

/* Names that are called often, interned. */
struct asyncio_names {
    PyObject *data_received, *get_buffer, *buffer_updated, *eof_received, *connection_made, *connection_lost,
        *pause_writing, *resume_writing, *call_connection_lost, *context, *attach, *done, *set_result, *set_exception;
};
extern struct asyncio_names asyncio_names;

/* Whether its class has it: unlike an attribute's look-up this cannot fail. */
bool asyncio_has_method(PyObject *object, PyObject *name);
/* Ends a future unless it has ended, with None or with code as an OSError.  An exception may be set afterwards. */
void asyncio_end_future(PyObject *future, int code);

/* For module.c: makes the types, returns (Poller, Ready, Transport). */
PyObject *asyncio_types(PyObject *module, PyObject *unused);

#endif
