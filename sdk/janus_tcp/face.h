/*
 * face.h: the Python face of one TCP thread: the types that live in C because every batch touches them.
 *
 *   Loop ──> janus_thread            one per system thread; loop_run() is one batch: poll, TCP, resume, output
 *    ├─ Connection (struct task)     its own awaiter for recv(); the handler's coroutine hangs on the embedded task
 *    ├─ Task (struct task)           a spawned coroutine
 *    └─ timers                       deadlines, sleeps, call_later()
 *
 * A task waits in one awaiter at a time (task.awaiting).  Waking it means resuming its coroutine; the awaiter then looks at the state
 * again, so a wake-up too many is harmless.  All of it runs under the GIL in the loop's own system thread.
 */
#ifndef JANUS_TCP_FACE_H
#define JANUS_TCP_FACE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "app/thread_api.h"

struct loop;
struct handlers;

/* A coroutine that the loop drives. */
struct task {
    PyObject *coro;            /* owned while it runs; null: there is none, or it has ended */
    PyObject *awaiting;        /* what it is blocked in (its frame owns that); null: running, ready or ended */
    uint8_t of_connection : 1; /* the struct it is part of */
    uint8_t ready : 1;         /* in the loop's ready queue */
    uint8_t cancelled : 1;     /* CancelledError is to be thrown at the next resume */
    /* A connection's, which are here because there is room. */
    uint8_t flags; /* enum connection_flag */
    uint8_t op;    /* enum connection_op: what awaiting the connection itself means */
    uint32_t want; /* recv()'s limit */
};

enum connection_flag {
    CONNECTION_CLOSED = 0x01,     /* the core's connection is given back */
    CONNECTION_EXPIRED = 0x02,    /* the deadline has passed */
    CONNECTION_CONNECTING = 0x04, /* an active open without an answer yet */
    CONNECTION_SENDING = 0x08,    /* a send() has not found room for all yet */
    CONNECTION_READING = 0x10,    /* somebody waits in recv: more->reader, or without one its own task */
};

enum connection_op { OP_RECV, OP_NEXT, OP_VIEW, OP_CONNECT };

/* Made at the first need, freed with the connection. */
struct connection_more {
    struct task *reader;   /* waiting in recv, and not the connection's own */
    struct task *writer;   /* waiting in send or connect */
    PyObject *user_data;   /* the handler's own */
    PyObject *view, *lent; /* what recv_view() handed out, and the packet under it */
};

struct connection {
    PyObject_HEAD struct loop *loop; /* null once closed */
    struct connection_more *more;    /* what most connections never need; null: not yet */
    uint32_t conn;
    uint32_t deadline_index; /* in the timer heap, 1-based; 0: none */
    struct task task;
};
static_assert(sizeof(struct connection) == 64, "part of the bytes per idle connection");

/* How every awaitable of a connection begins that is not the connection itself. */
struct awaiter {
    PyObject_HEAD struct connection *connection;
};

struct task_object {
    PyObject_HEAD struct loop *loop;
    struct task task;
    struct task *joiner;
    PyObject *result, *exception; /* one of them when it has ended */
    PyObject *done;               /* called with the task at its end, or null */
    bool ended, retrieved;
};

struct timer_entry {
    uint64_t when_us;
    PyObject *owner; /* Connection, Sleep or Timer; borrowed: its dealloc removes the entry.  Of asyncio: see there */
    uint32_t *index; /* the owner's place to remember where the entry is */
};

struct timers {
    struct timer_entry *heap; /* heap[1..count] */
    uint32_t count, room;
};

struct listener {
    PyObject *handler; /* null: free */
    struct ip_addr addr;
    uint16_t port;
};

/* A connection's user word is its Connection's address, borrowed; this when it has none any more.  Odd: its listener's, see loop_listen(). */
#define LOOP_NO_CONNECTION UINT64_C(1)

enum { LOOP_EVENTS = 64, LOOP_VIEWS = 1024, LOOP_CHUNK_BYTES = 64 * 1024, READING_LIMIT_MAX = 128 * 1024 };

struct loop {
    PyObject_HEAD struct janus_thread *thread;
    struct task *current;
    struct task **ready; /* ring, each entry holds a reference to the task's object */
    uint32_t ready_head, ready_count, ready_room;
    struct timers timers;
    struct listener listeners[TCP_LISTENERS_MAX];
    PyObject *tasks;   /* set of the running Tasks, and of closed Connections whose handler still runs */
    PyObject *orphans; /* list of what another system thread let go: unclosed Connections, numbers of lent slots */
    char *chunk;       /* LOOP_CHUNK_BYTES for sendfile(); null: not used yet */
    struct handlers *c_handlers; /* null: no handlers in C */
    uint32_t handlers;           /* connections whose handler runs */
    uint64_t accepted, failed;
    unsigned long system_thread; /* of the last loop_run(); 0: none yet */
    unsigned fork_count;
    uint32_t spin_us;
    uint32_t slow_ms;    /* who keeps the loop for so long is named; 0: nobody */
    uint64_t resumed_ms; /* when the one that runs now began */
    uint64_t *beat;      /* counted up each turn, in memory that others watch; null: nobody does */
    Py_buffer beat_buffer;
    bool owns_thread;
    PyObject *fatal; /* KeyboardInterrupt or SystemExit on its way out of loop_run() */
    struct tcp_event events[LOOP_EVENTS];
    struct tcp_view views[LOOP_VIEWS];
};

extern PyTypeObject connection_type, task_type, loop_type, sleep_type, timer_type, sending_type, reading_type,
    done_type, lent_type;
extern PyObject *face_cancelled_error, *face_incomplete_error;

/* --- module.c --- */
/* Creates module janus_tcp._core in sys.modules; 0, or -1 with a Python error printed. */
int face_install(void);
/* Tells the slow handler that owner's coroutine (or callback) kept the loop for so long; never raises. */
void face_report_slow(PyObject *owner, PyObject *coro, uint64_t ms);
/* Reports exception (borrowed) of owner to the error handler; never raises. */
void face_report(PyObject *owner, PyObject *exception);
/* OSError(code, text).  Returns null. */
PyObject *face_raise_os(int code, const char *text);
PyObject *face_raise(const struct janus_error *error);
/* The pending exception, taken and normalized; null: none. */
PyObject *face_take_exception(void);
/* am_send's PYGEN_RETURN through tp_iternext: StopIteration(value).  Steals value; returns null. */
PyObject *face_stop(PySendResult result, PyObject *value);
unsigned face_fork_count(void);
/* SIGTERM for this process when its parent dies; 0 or -1. */
int face_end_with_parent(void);

/* --- arenas.c --- */
/* From now on CPython's object arenas are cut from huge pages.  0, or -1: no address space. */
int face_huge_arenas(void);

/* --- loop.c --- */
struct loop *loop_current(void);
/* True: the calling system thread may touch loop's stack; else a RuntimeError is set. */
bool loop_is_here(struct loop *loop);
void loop_push_ready(struct loop *loop, struct task *task);
/* Room for more ready tasks.  False: there is none at all, and no memory; no exception is set. */
bool loop_ready_grow(struct loop *loop);
/* The next ready task, with its reference; there must be one. */
struct task *loop_pop_ready(struct loop *loop);
/* Resets the connections and gives the slots back that another system thread let go. */
void loop_close_orphans(struct loop *loop);
/* Gives a lent slot back, from whichever system thread. */
void loop_give_back(struct loop *loop, uint32_t slot);
/* LOOP_CHUNK_BYTES for a moment's use; null with MemoryError set. */
char *loop_chunk(struct loop *loop);
/* The kernel's time as of its last tick, to the nearest 4 ms or so, and nearly free. */
uint64_t loop_coarse_ms(void);
/* What ran until now, for owner, has given the loop back: says so when it took long. */
void loop_note_time(struct loop *loop, PyObject *owner, PyObject *coro);
/* One batch, called by cffi without the GIL; sleeps up to timeout_us (negative: no limit) when there is nothing to do.  Returns how much
 * there was to do, or -1: see take_fatal(). */
int loop_run(uintptr_t handle, int64_t timeout_us);

/* 16 bytes, or None for all zero.  False with an error set. */
bool loop_parse_address(PyObject *o, struct ip_addr *addr);

/* --- c_handlers.c --- */
PyObject *loop_listen_c(PyObject *self, PyObject *args);
/* When the next timer of a Python or a C handler is due. */
uint64_t loop_timer_us(const struct loop *loop);
/* Handlers in C that have begun and not ended. */
uint32_t loop_c_live(const struct loop *loop);

/* --- task.c --- */
PyObject *task_owner(struct task *task);
struct loop *task_loop(struct task *task);
/* Runs the coroutine until it waits or ends. */
void task_resume(struct loop *loop, struct task *task);
/* Registers the running task as blocked in awaiter; null with RuntimeError set when no task runs. */
struct task *task_block(struct loop *loop, PyObject *awaiter);
/* Wakes *waiter, if any, through the ready queue and clears it. */
void task_wake(struct loop *loop, struct task **waiter);
/* Throws CancelledError into the task at its next resume. */
void task_cancel(struct loop *loop, struct task *task);
/* Ends the task where it stands; its coroutine sees GeneratorExit. */
void task_kill(struct loop *loop, struct task *task);
PyObject *task_spawn(struct loop *loop, PyObject *coro, PyObject *done);

/* --- timers.c --- */
/* False with MemoryError set. */
bool timers_set(struct timers *timers, uint64_t when_us, PyObject *owner, uint32_t *index);
void timers_remove(struct timers *timers, uint32_t *index);
uint64_t timers_next_us(const struct timers *timers);
/* Takes the next due entry's owner (a new reference); null: none. */
PyObject *timers_pop(struct timers *timers, uint64_t now_us);
void timers_free(struct timers *timers);

/* --- sleeping.c --- */
PyObject *sleep_new(struct loop *loop, double seconds);
void sleep_fire(PyObject *sleep);
void sleep_abandon(PyObject *sleep);
PyObject *timer_new(struct loop *loop, double seconds, PyObject *callback);
void timer_fire(PyObject *timer);
/* now + seconds in the loop's time, saturating.  False with ValueError set: negative or not a number. */
bool sleep_when(struct loop *loop, double seconds, uint64_t *when_us);

/* --- connection.c --- */
/* A new Connection for the core's connection conn; null with an error set, conn is then aborted. */
struct connection *connection_new(struct loop *loop, uint32_t conn);
/* Gives the core's connection back, by FIN or by RST; wakes whoever waits. */
void connection_close(struct connection *c, bool abort);
void connection_on_event(struct connection *c, uint32_t kinds);
void connection_expire(struct connection *c);
/* 0, or -1 with the error set that recv or send must raise now: closed, expired, wrong thread. */
int connection_usable(struct connection *c, bool sending);
/* Sets the error that has ended the connection.  True: there is one. */
bool connection_failed(struct connection *c);
/* Null with MemoryError set. */
struct connection_more *connection_more(struct connection *c);
/* The task that waits in recv; null: none. */
struct task *connection_reader(const struct connection *c);
/* Blocks the running task, which receives, in awaiter.  False with an error set. */
bool connection_block_reader(struct connection *c, PyObject *awaiter);
/* Blocks the running task, which sends, in awaiter.  False with an error set. */
bool connection_block_writer(struct connection *c, PyObject *awaiter);
/* What task waits for on c is no longer its business. */
void connection_forget_task(struct connection *c, const struct task *task);
/* The time of the last recv_view()'s view is over.  0, or -1 with BufferError set: parts of it are held. */
int connection_take_view_back(struct connection *c);

/* --- view.c --- */
/* A memoryview of the first unread packet, of which there must be one; more remembers it. */
PyObject *view_lend(struct connection *c);
int view_take_back(struct connection_more *more);

/* --- options.c: methods and attributes of Connection --- */
PyObject *options_set_nodelay(PyObject *self, PyObject *on);
PyObject *options_set_keepalive(PyObject *self, PyObject *seconds);
PyObject *options_set_user_timeout(PyObject *self, PyObject *seconds);
PyObject *options_set_dscp(PyObject *self, PyObject *value);
PyObject *options_set_ttl(PyObject *self, PyObject *value);
PyObject *options_info(PyObject *self, PyObject *unused);
/* which: null for the peer, else this side. */
PyObject *options_name(PyObject *self, void *which);

/* --- sending.c --- */
/* Sends data, at once as far as there is room; returns an awaitable for the rest. */
PyObject *sending_start(struct connection *c, PyObject *data, bool urgent);
/* Sends what there is room for; how much that was. */
PyObject *sending_try(struct connection *c, PyObject *data);
/* An awaitable that is done when there is room. */
PyObject *sending_room(struct connection *c);
/* count bytes of file (what fileno() tells) from offset, or up to its end; the awaitable's result is how many. */
PyObject *sending_file(struct connection *c, PyObject *file, int64_t offset, int64_t count);

/* --- reading.c --- */
PyObject *reading_exactly(struct connection *c, Py_ssize_t n);
PyObject *reading_until(struct connection *c, PyObject *delimiter, Py_ssize_t limit);
PyObject *reading_into(struct connection *c, PyObject *buffer);

#endif
