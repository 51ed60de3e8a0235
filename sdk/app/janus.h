/*
 * janus.h: the C API: one plain blocking function per connection, tens of millions of them at a time.
 *
 *     static void echo(struct janus_conn *c)
 *     {
 *         struct janus_view v;
 *
 *         while ((v = janus_recv_view(c)).len > 0)
 *             janus_send(c, v.data, v.len);
 *     }
 *
 *     int main(void)
 *     {
 *         const struct janus_service service = {.port = 7, .handler = echo};
 *         struct janus_error error;
 *
 *         if (janus_run(&(struct janus_options){.app = "echo"}, &service, 1, &error) < 0)
 *             errx(1, "%s", error.text);
 *     }
 *
 * A handler runs in a coroutine of its connection's thread: where a call would block, the thread goes on with the others.  It
 * begins when the connection has sent something, and when it returns the connection is closed.  A thread shares nothing: a
 * connection is used by coroutines of its own thread only.  Calls that may wait say so and belong in a handler; they
 * return a negative errno value on failure: -ECONNRESET, -ETIMEDOUT, -EPIPE, ... A connection outlives janusd.
 *
 * What is alive on the handler's stack while it waits is what an idle connection costs beside its 179 bytes: nothing for the usual
 * handler, the frame's size for one with an array in the frame that waits (docs/c-api.md).
 */
#ifndef JANUS_H
#define JANUS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct janus_conn;   /* one connection */
struct janus_worker; /* one TCP thread with its handlers */

/* cffi:begin */
struct janus_options {
    const char *app;         /* name in janusd's policy; null: $JANUS_APP, else "default" */
    const char *socket_path; /* of janusd; null: $JANUS_SOCKET, else /run/janus/attach.sock */
    uint32_t rows;           /* connections at most of one thread; 0: the policy's */
    uint32_t rx_slots;       /* per I/O thread, 2 KiB each; 0: the policy's */
    uint32_t tx_slots;       /* 0: the policy's */
    uint32_t rcv_buf_bytes; /* most unread bytes of a connection, 0: 256 KiB, and up to 4 MiB as the path asks for it */
    uint32_t snd_buf_bytes; /* most unacknowledged bytes of a connection, 0: the same */
    uint32_t msl_ms;        /* TIME-WAIT lasts twice as long; 0: 30 s */
    uint8_t congestion_control; /* 0: CUBIC, 1: NewReno, 2: DCTCP, 3: BBR */
    uint8_t ecn;                /* 0: when the peer asks for it; 1: as an active opener too; 2: never */
    uint8_t stacks;             /* enum janus_stacks */
    uint32_t threads;           /* of janus_run(), 0: one */
    uint32_t drain_ms;          /* of janus_run(): how long handlers may go on after a stop; 0: 5 s */
    uint32_t stall_ms;          /* of janus_run(): a handler that runs for longer is named on stderr; 0: 1 s */
};

/* Every error has a text for a person beside its errno. */
enum { JANUS_ERROR_BYTES = 320 };
struct janus_error {
    int code; /* errno value, positive */
    char text[JANUS_ERROR_BYTES];
};
/* cffi:end */

enum janus_stacks {
    JANUS_STACKS_DEFAULT = 0,  /* shared, or what $JANUS_STACKS says: "shared" or "separate" */
    JANUS_STACKS_SHARED = 1,   /* one stack a thread; waiting handlers keep their live bytes */
    JANUS_STACKS_SEPARATE = 2, /* a mapped stack each, for debuggers and sanitizers: some ten thousand at most */
};

typedef void janus_handler(struct janus_conn *c);

enum {
    JANUS_START_AT_ACCEPT = 0x01, /* the handler begins before the peer has sent something: it speaks first */
    JANUS_NODELAY = 0x02,         /* small segments go out at once (no Nagle) */
};

struct janus_service {
    const char *address; /* one of the app's, as text; null: all */
    uint16_t port;
    uint16_t flags; /* JANUS_START_AT_ACCEPT ... */
    janus_handler *handler;
    /* Called when a connection is established, before its handler; must not wait.  Not 0: it is reset.  May be null. */
    int (*accept)(struct janus_conn *c, void *data);
    void *data; /* of janus_service_data() */
};

/* --- a process that serves --- */

/* Serves until janus_stop(), SIGINT or SIGTERM; then handlers may go on for drain_ms.  0, or -errno with error filled: EACCES by policy,
 * ENOENT or ECONNREFUSED without janusd, EADDRINUSE, EDQUOT. */
int janus_run(const struct janus_options *options, const struct janus_service *services, size_t count,
              struct janus_error *error);
/* Ends janus_run(); may be called anywhere, also in a signal handler. */
void janus_stop(void);

/* --- the same by hand: one worker per system thread, for programs with a loop of their own --- */

/* Null: error says why.  Must be used by the calling system thread alone. */
struct janus_worker *janus_attach(const struct janus_options *options, struct janus_error *error);
/* Forgets all handlers, resets their connections, says good-bye to janusd.  Null is allowed. */
void janus_detach(struct janus_worker *w);

int janus_listen(struct janus_worker *w, const struct janus_service *service, struct janus_error *error);
int janus_unlisten(struct janus_worker *w, const char *address, uint16_t port, struct janus_error *error);
/* From now on janusd gives new connections to this worker too. */
int janus_online(struct janus_worker *w, struct janus_error *error);

/* Begins fn(argument) in a coroutine without a connection, at the next turn.  w null: the worker of the caller, a handler.
 * 0, -ENOBUFS, or -EDEADLK: not in a handler. */
int janus_spawn(struct janus_worker *w, void (*fn)(void *argument), void *argument);

/* One turn: takes what has arrived, runs handlers, sends; sleeps up to timeout_us (negative: no limit) when there is nothing to
 * do.  Returns how much there was to do. */
uint32_t janus_turn(struct janus_worker *w, int64_t timeout_us);

struct janus_counts {
    uint64_t connections; /* established, or on their way in or out */
    uint64_t handlers;    /* coroutines that have begun and not ended */
    uint64_t accepted, opened, refused_by_hook;
    uint64_t stored_bytes; /* for the stacks of waiting handlers */
    uint64_t templated;    /* handlers that store nothing */
    uint64_t too_deep;     /* handlers ended because they waited with more than 64 KiB alive on their stack */
};
void janus_get_counts(const struct janus_worker *w, struct janus_counts *counts);

/* --- receiving --- */

struct janus_view {
    const void *data;
    ssize_t len; /* > 0; 0: the peer has ended its stream; < 0: -errno */
};

/* Waits for data and gives a view of it, in the packet buffer: valid until the next receiving call on c or its end. */
struct janus_view janus_recv_view(struct janus_conn *c);

/* Waits for data and copies up to len bytes (at most 65,535) of it.  > 0, 0 at the end of the stream, or -errno. */
ssize_t janus_recv(struct janus_conn *c, void *buffer, size_t len);

/* Waits until len bytes are there, and copies them.  len, fewer at the end of the stream, or -errno. */
ssize_t janus_recv_all(struct janus_conn *c, void *buffer, size_t len);

/* Bytes that can be received without waiting. */
size_t janus_readable(const struct janus_conn *c);

/* --- sending; len, or -errno --- */

/* Copies data into segments, and waits while there is no room. */
ssize_t janus_send(struct janus_conn *c, const void *data, size_t len);

/* The same, and data ends with urgent data (RFC 9293 3.8.5): the peer is told at once that it is on its way, even if its window is closed,
 * and where it ends.  For peers that ask for it: sockets give its last octet out of band (MSG_OOB, SIGURG), unless they have
 * SO_OOBINLINE. */
ssize_t janus_send_urgent(struct janus_conn *c, const void *data, size_t len);

/* Sends data where it lies, as the peer takes it, without waiting.  data must stay as it is until done(argument, status), which must not
 * wait either: status 0 when the peer has acknowledged all, or -errno.  Nothing is buffered between data and the segments. */
int janus_send_owned(struct janus_conn *c, const void *data, size_t len, void (*done)(void *argument, int status),
                     void *argument);

/* Sends len bytes of the file from offset on; waits as janus_send().  What could be read and sent, or -errno. */
ssize_t janus_send_file(struct janus_conn *c, int fd, off_t offset, size_t len);

/* Waits until the peer has acknowledged all that was sent.  0 or -errno. */
int janus_sent(struct janus_conn *c);

/* --- ending --- */

/* FIN behind what was sent; receiving goes on.  0 or -errno: -EBUSY while memory of janus_send_owned() is on its way. */
int janus_shutdown(struct janus_conn *c);

/* FIN behind what was sent (RST if something received was not read), and nothing more is received or sent.  By its own handler: c stays
 * valid until that returns.  By another, as who opened it: every wait of its handler ends with -ECONNABORTED, this waits until it has
 * returned, and then c is gone. */
void janus_close(struct janus_conn *c);

/* RST instead of FIN. */
void janus_abort(struct janus_conn *c);

/* --- opening --- */

/* Waits for a connection to address (text) and port.  The source port is chosen so that the answers come to this thread.  Null: *error
 * (null is allowed) is a positive errno: ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, EADDRNOTAVAIL, EADDRINUSE, EINVAL.  The connection is the
 * caller's, to be closed by janus_close(), unless janus_start() gives it away. */
struct janus_conn *janus_connect(const char *address, uint16_t port, int *error);

/* Gives a connection of janus_connect() a handler of its own, which begins at the next turn.  0, -EBUSY: it has one. */
int janus_start(struct janus_conn *c, janus_handler *handler);

/* Waits until the handler that janus_start() gave c has returned.  0, or -errno. */
int janus_join(struct janus_conn *c);

/* --- time --- */

/* Every wait of the calling handler that lasts longer than ms milliseconds from now ends with -ETIMEDOUT, until this is
 * called again; 0: no limit. */
void janus_deadline(uint32_t ms);
/* 0, or -ETIMEDOUT: the deadline came first. */
int janus_sleep(uint32_t ms);
/* The thread's time, monotonic, as of the beginning of this turn. */
uint64_t janus_now_us(void);

/* --- about a connection --- */

void janus_set_user(struct janus_conn *c, void *user);
void *janus_user(const struct janus_conn *c);
/* Of the service that c was accepted by; null for others. */
void *janus_service_data(const struct janus_conn *c);
/* A number that no other connection of the thread has now. */
uint32_t janus_id(const struct janus_conn *c);

enum { JANUS_NAME_BYTES = 56 };
/* "192.0.2.1:80" or "[2001:db8::1]:80" of the peer and of this side; JANUS_NAME_BYTES suffice.  Returns name. */
char *janus_peer_name(const struct janus_conn *c, char *name, size_t size);
char *janus_local_name(const struct janus_conn *c, char *name, size_t size);

struct janus_info {
    uint32_t srtt_us, rto_us;
    uint32_t smss_bytes, cwnd_bytes, send_window_bytes;
    uint32_t flight_bytes, unsent_bytes, unread_bytes;
    uint32_t timeouts; /* retransmission timeouts in a row */
    uint32_t
        stalled; /* 1: three transmissions in a row got no answer (R1 of RFC 9293 3.8.3); -ETIMEDOUT comes after ten more */
    uint32_t stalled_ms; /* for how long nothing has got through, 0 before the first timeout */
    uint32_t
        urgent_bytes; /* unread bytes up to the end of the peer's urgent data, which is received in line; 0: there is none */
    uint32_t retransmits; /* segments sent again so far; who is idle remembers at most 4,095 of them */
};
/* What TCP knows of c and its path; any handler of the thread may ask, as one that watches others. */
void janus_get_info(const struct janus_conn *c, struct janus_info *info);

void janus_set_nodelay(struct janus_conn *c, int on);
void janus_set_keepalive(struct janus_conn *c, uint32_t idle_ms); /* 0: off */
/* Of what is sent from now on: the Differentiated Services code point, 0 to 63 (RFC 2474), and the TTL or hop limit, 1 to 255, 64 at
 * first.  0, -EINVAL, or -ENOSPC: there are too many different settings of connections. */
int janus_set_dscp(struct janus_conn *c, uint32_t dscp);
int janus_set_ttl(struct janus_conn *c, uint32_t ttl);

enum { JANUS_SCRATCH_BYTES = 65536 };
/* Memory of the thread for use between two waits: it costs a waiting handler nothing, and the next one writes over it. */
void *janus_scratch(void);

#ifdef __cplusplus
}
#endif

#endif
