/*
 * thread_api.h: one TCP thread of an application, driven by events: what Python and the C handlers' loop stand on.
 *
 *   thread_open ─> thread_listen ─> thread_online ─> loop { thread_poll, thread_next_event ..., thread_flush, thread_wait }
 *
 * A thread shares nothing: every call on it comes from the one system thread that drives it, and none of them blocks except
 * thread_open(), thread_listen(), thread_unlisten(), thread_online() (an answer of janusd, bounded) and thread_wait().  When janusd dies, the
 * thread attaches again by itself inside thread_poll(); its connections go on.
 */
#ifndef APP_THREAD_API_H
#define APP_THREAD_API_H

#include "app/janus.h"
#include "tcp/tcp.h"

/* cffi:begin */
struct janus_thread;

/* Attaches to janusd.  Null: error says why.  ENOENT and ECONNREFUSED: no janusd; EACCES: policy; EPROTO: another version;
 * EDQUOT: quota. */
struct janus_thread *thread_open(const struct janus_options *options, struct janus_error *error);

/* Says good-bye to janusd, which resets what is still open, and frees everything.  Null is allowed. */
void thread_close(struct janus_thread *t);
/* cffi:end */

/* Listens on addr (null: every address of the lease) and port, in this stack and at janusd.  0 or -errno with error filled:
 * EADDRINUSE, EADDRNOTAVAIL, EACCES, ENOSPC.  The listener's connections start with user. */
int thread_listen(struct janus_thread *t, const struct ip_addr *addr, uint16_t port, uint64_t user,
                  struct janus_error *error);
/* With settings for its connections, made from thread_default_settings(). */
int thread_listen_with(struct janus_thread *t, const struct ip_addr *addr, uint16_t port, uint64_t user,
                       const struct tcp_settings *settings, struct janus_error *error);
int thread_unlisten(struct janus_thread *t, const struct ip_addr *addr, uint16_t port, struct janus_error *error);

/* Joins the circle: from now on janusd gives new connections to this thread too. */
int thread_online(struct janus_thread *t, struct janus_error *error);
/* Asks janusd for no more new connections; those that are here stay.  The loop goes on turning until thread_has_left(), which
 * is also true when janusd is away. */
void thread_leave(struct janus_thread *t);
bool thread_has_left(const struct janus_thread *t);

/* --- the loop --- */

/* Takes what has arrived, runs due timers.  Returns how many packets and completions there were. */
uint32_t thread_poll(struct janus_thread *t);

/* The next connection with news since thread_poll(); see enum tcp_event_kind.  False: none. */
bool thread_next_event(struct janus_thread *t, struct tcp_event *event);

/* Sends what is owed and rings the doorbells.  Returns segments sent. */
uint32_t thread_flush(struct janus_thread *t);

/* Looks for what arrives until then, without sleep, or at once back where nothing can arrive meanwhile: in memory, and while an I/O
 * thread of janusd has the same CPU.  True: thread_poll() would find something. */
bool thread_spin(const struct janus_thread *t, uint64_t until_us);

/* Sleeps until something arrives, a timer of the stack is due or timeout_us have passed (UINT64_MAX: no limit).  Returns at
 * once when something is there already; also on a signal. */
void thread_wait(struct janus_thread *t, uint64_t timeout_us);

/* For a loop that sleeps elsewhere: a descriptor that is readable when thread_poll() is worth a call, provided that
 * thread_arm() was called and returned true since the last thread_poll().  -1: this thread has none. */
int thread_fd(const struct janus_thread *t);
/* True when thread_poll() would find something now. */
bool thread_pending(const struct janus_thread *t);
/* Asks for the doorbell.  False: something is there already or the last turn may have left news, do not sleep. */
bool thread_arm(struct janus_thread *t);
void thread_disarm(struct janus_thread *t);
/* When the stack wants thread_poll() at the latest; UINT64_MAX: never.  In the time of thread_now_us(). */
uint64_t thread_next_deadline(const struct janus_thread *t);
/* The thread's time as of the last thread_poll(); monotonic. */
uint64_t thread_now_us(const struct janus_thread *t);
/* The time now. */
uint64_t thread_clock_us(const struct janus_thread *t);

/* --- connections; contracts as in tcp/tcp.h, time comes from the thread --- */

/* Active open; laddr null: chosen, lport 0: chosen so that the answers come to this thread.  0 or -errno with error filled. */
int thread_connect(struct janus_thread *t, const struct ip_addr *laddr, uint16_t lport, const struct ip_addr *raddr,
                   uint16_t rport, uint64_t user, uint32_t *conn, struct janus_error *error);
uint32_t thread_recv(struct janus_thread *t, uint32_t conn, void *data, uint32_t len);
uint32_t thread_recv_ready(const struct janus_thread *t, uint32_t conn);
uint32_t thread_recv_views(const struct janus_thread *t, uint32_t conn, struct tcp_view *views, uint32_t count);
void thread_recv_consume(struct janus_thread *t, uint32_t conn, uint32_t len);
uint32_t thread_recv_lend(struct janus_thread *t, uint32_t conn, struct tcp_view *view);
void thread_recv_give(struct janus_thread *t, uint32_t slot);
bool thread_recv_eof(const struct janus_thread *t, uint32_t conn);
/* True: the peer's FIN has arrived; what was received before it may be unread. */
bool thread_fin_received(const struct janus_thread *t, uint32_t conn);
int64_t thread_send(struct janus_thread *t, uint32_t conn, const void *data, size_t len);
int64_t thread_send_urgent(struct janus_thread *t, uint32_t conn, const void *data, size_t len);
uint32_t thread_send_room(struct janus_thread *t, uint32_t conn);
/* Bytes given to thread_send() and not yet acknowledged. */
uint32_t thread_unacked(const struct janus_thread *t, uint32_t conn);
/* TCP_EVENT_SENT_ALL when everything given to thread_send() is acknowledged. */
void thread_want_sent_all(struct janus_thread *t, uint32_t conn);
void thread_shutdown(struct janus_thread *t, uint32_t conn);
void thread_close_conn(struct janus_thread *t, uint32_t conn);
void thread_abort(struct janus_thread *t, uint32_t conn);
void thread_set_user(struct janus_thread *t, uint32_t conn, uint64_t user);
uint64_t thread_user(const struct janus_thread *t, uint32_t conn);
int thread_conn_error(const struct janus_thread *t, uint32_t conn);
void thread_flow(const struct janus_thread *t, uint32_t conn, struct flow *flow);
void thread_info(const struct janus_thread *t, uint32_t conn, struct tcp_info *info);
void thread_set_nodelay(struct janus_thread *t, uint32_t conn, bool on);
void thread_set_keepalive(struct janus_thread *t, uint32_t conn, uint32_t idle_ms);
void thread_default_settings(const struct janus_thread *t, struct tcp_settings *settings);
void thread_get_settings(const struct janus_thread *t, uint32_t conn, struct tcp_settings *settings);
int thread_set_settings(struct janus_thread *t, uint32_t conn, const struct tcp_settings *settings);

/* No connection has the numbers of rows [first, first + count), nor had them for a while: what their user keeps by these numbers is as it
 * was at first, and its memory need not be kept. */
typedef void thread_rows_spare(void *context, uint32_t first, uint32_t count);
void thread_on_rows_spare(struct janus_thread *t, thread_rows_spare *rows_spare, void *context);

/* --- what it is doing --- */

struct janus_stats {
    struct tcp_counters tcp;
    struct tcp_usage usage;
    uint64_t turns, sleeps;   /* thread_poll() calls; thread_wait() calls that slept */
    uint64_t busy_us;         /* time of the turns that found, changed or sent something */
    uint64_t attached;        /* sessions with janusd so far */
    uint64_t sent_detached;   /* packets lost because there was no janusd */
    uint64_t ring_violations; /* impossible indices and descriptors from janusd */
    uint64_t sent_refused;    /* packets that janusd did not send */
    uint64_t csb_updates;     /* of the balancer, that this thread took part in */
    uint64_t csb_held_us;     /* the longest part of a turn that one took, in processor time */
    uint32_t rx_slots_free, tx_slots_free;
};
void thread_get_stats(const struct janus_thread *t, struct janus_stats *stats);

/* This thread's number in its app, 0 on a loop; the lease's addresses in order, at most count are written, returns how many there are. */
uint16_t thread_tid(const struct janus_thread *t);
uint32_t thread_addresses(const struct janus_thread *t, struct ip_addr *addresses, uint32_t count);
uint32_t thread_rows(const struct janus_thread *t);
/* Rows [0, n) have ever been in use. */
uint32_t thread_rows_used(const struct janus_thread *t);
/* False while janusd is away; error (null is allowed) then says what the last attempt to attach again met, code 0: nothing yet. */
bool thread_attached(const struct janus_thread *t, struct janus_error *error);

#endif
