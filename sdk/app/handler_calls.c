/*
 * handler_calls.c: what a handler calls.
 *
 * What may wait tries first, and waits in a tail call: nothing of this file is on the stack of an idle connection.  The loop then
 * makes the attempt again when there is something, with the handler's stack in place, and its result is the call's.
 */
#include "app/handlers.h"

#include "app/address.h"
#include "coro/run.h"

#include <errno.h>
#include <unistd.h>

enum { FILE_PART_BYTES = 16384 };

/* The coroutine that calls; null outside of handlers. */
static inline struct janus_conn *self_here(void)
{
    return handlers_here != NULL && coro_here() != NULL ? coro_running_->owner : NULL;
}

/* --- waiting --- */

/* Notes what self is going to wait for.  0, or -errno: it must not. */
static inline int prepare_wait(struct handlers *h, struct janus_conn *self, struct janus_conn *c,
                               enum handler_wait wait)
{
    if (self == NULL)
        return -EDEADLK;
    if (self->flags & (CONN_EXPIRED | CONN_KILLED))
        return self->flags & CONN_KILLED ? -ECONNABORTED : -ETIMEDOUT;
    if (self != c) {
        if (c->other != 0)
            return -EBUSY;
        c->other = handlers_index(h, self) + 1;
    }
    self->waits_on = handlers_index(h, c);
    self->co.tag = (uint8_t)wait;
    return 0;
}

/* 0: look again; or -errno.  A wake-up may be one too many. */
static int wait_for(struct janus_conn *c, enum handler_wait wait)
{
    int error = prepare_wait(handlers_here, self_here(), c, wait);

    return error != 0 ? error : (int)coro_wait_value(0);
}

/* --- receiving --- */

ssize_t janus_recv(struct janus_conn *c, void *buffer, size_t len)
{
    struct janus_conn *self = self_here();
    int64_t n;

    if (self == NULL || len == 0)
        return self == NULL ? -EDEADLK : -EINVAL;
    n = handlers_recv_now(handlers_here, c, self, buffer, len);
    if (n != -EAGAIN)
        return n;
    n = prepare_wait(handlers_here, self, c, WAIT_RECV);
    if (n != 0)
        return n;
    return coro_wait_value(handlers_request(buffer, len));
}

/* The same two words in the same two registers. */
struct janus_view janus_recv_view(struct janus_conn *c)
{
    struct janus_view (*wait)(uint64_t request) = (struct janus_view(*)(uint64_t))(void (*)(void))coro_wait;
    struct janus_conn *self = self_here();
    struct janus_view v = {NULL, -EDEADLK};

    if (self == NULL)
        return v;
    v = handlers_view_now(handlers_here, c, self);
    if (v.len != -EAGAIN)
        return v;
    v.len = prepare_wait(handlers_here, self, c, WAIT_VIEW);
    if (v.len != 0)
        return v;
    return wait(0);
}

ssize_t janus_recv_all(struct janus_conn *c, void *buffer, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = janus_recv(c, (char *)buffer + done, len - done);

        if (n < 0)
            return n;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

size_t janus_readable(const struct janus_conn *c)
{
    return thread_recv_ready(handlers_here->thread, handlers_index(handlers_here, c)) - c->viewed;
}

/* --- sending --- */

typedef int64_t sender(struct janus_thread *t, uint32_t conn, const void *data, size_t len);

/* One attempt: > 0 taken, 0 no room yet, or -errno. */
static inline int64_t send_now(struct handlers *h, struct janus_conn *c, sender *send, const void *data, size_t len)
{
    if (c->flags & CONN_CLOSED)
        return handlers_closed_error(c);
    if ((c->flags & CONN_OWNED) && owned_is_waiting(h, c))
        return 0;
    return send(h->thread, handlers_index(h, c), data, len);
}

static __attribute__((noinline)) ssize_t send_rest(struct janus_conn *c, sender *send, const char *data, size_t len,
                                                   size_t done)
{
    struct handlers *h = handlers_here;
    int64_t n = 0;

    if (c->flags & CONN_SENDING)
        return -EBUSY;
    c->flags |= CONN_SENDING;
    while (done < len) {
        n = wait_for(c, WAIT_WRITABLE);
        if (n == -ECONNABORTED)
            return n; /* c may be gone */
        n = n == 0 ? send_now(h, c, send, data + done, len - done) : n;
        if (n < 0)
            break;
        done += (size_t)n;
    }
    c->flags &= (uint16_t)~CONN_SENDING;
    return n < 0 ? n : (ssize_t)len;
}

static inline ssize_t send_all(struct janus_conn *c, sender *send, const void *data, size_t len)
{
    int64_t n;

    if (len == 0)
        return 0;
    if (c->flags & CONN_SENDING)
        return -EBUSY;
    n = send_now(handlers_here, c, send, data, len);
    if (n < 0 || (size_t)n == len)
        return n;
    return send_rest(c, send, data, len, (size_t)n);
}

ssize_t janus_send(struct janus_conn *c, const void *data, size_t len)
{
    return send_all(c, thread_send, data, len);
}

ssize_t janus_send_urgent(struct janus_conn *c, const void *data, size_t len)
{
    return send_all(c, thread_send_urgent, data, len);
}

ssize_t janus_send_file(struct janus_conn *c, int fd, off_t offset, size_t len)
{
    size_t done = 0;

    while (done < len) {
        size_t part = len - done < FILE_PART_BYTES ? len - done : FILE_PART_BYTES;
        ssize_t n = pread(fd, handlers_here->scratch, part, offset + (off_t)done);
        int64_t taken;

        if (n <= 0)
            return n < 0 && done == 0 ? -errno : (ssize_t)done;
        if (c->flags & CONN_SENDING)
            return -EBUSY;
        taken = send_now(handlers_here, c, thread_send, handlers_here->scratch,
                         (size_t)n); /* what was not taken is read again, from the page cache */
        if (taken == 0)
            taken = wait_for(c, WAIT_WRITABLE);
        if (taken < 0)
            return taken;
        done += (size_t)taken;
    }
    return (ssize_t)done;
}

int janus_sent(struct janus_conn *c)
{
    struct handlers *h = handlers_here;

    while (!(c->flags & CONN_CLOSED)) {
        uint32_t index = handlers_index(h, c);
        int error = thread_conn_error(h->thread, index);

        if (error != 0 || (!owned_is_waiting(h, c) && thread_unacked(h->thread, index) == 0))
            return -error;
        thread_want_sent_all(h->thread, index);
        error = wait_for(c, WAIT_SENT_ALL);
        if (error != 0)
            return error;
    }
    return handlers_closed_error(c);
}

/* --- ending --- */

int janus_shutdown(struct janus_conn *c)
{
    if (c->flags & CONN_CLOSED)
        return handlers_closed_error(c);
    if (c->flags & CONN_OWNED)
        return -EBUSY;
    thread_shutdown(handlers_here->thread, handlers_index(handlers_here, c));
    return 0;
}

/* By its own handler: the core's connection stays ours until that returns, so that nobody else gets its row. */
static void close_own(struct handlers *h, struct janus_conn *c)
{
    if (!(c->flags & (CONN_ABORTED | CONN_OWNED)))
        thread_shutdown(h->thread, handlers_index(h, c));
    c->flags |= CONN_CLOSED;
}

/* By another: its handler has to end first. */
static void close_other(struct handlers *h, struct janus_conn *c)
{
    c->flags |= CONN_CLOSED;
    handlers_kill(h, c);
    while (c->co.state != CORO_NEW && wait_for(c, WAIT_ENDED) == 0)
        continue;
    if (c->co.state != CORO_NEW) { /* who closes may not wait any more: its own end gives it back */
        c->flags &= (uint16_t)~CONN_HELD;
        return;
    }
    if (c->flags & CONN_OWNED) {
        c->flags = (uint16_t)((c->flags & ~CONN_HELD) | CONN_ENDED);
        if (!(c->flags & CONN_ABORTED))
            return;
        owned_end(h, c, -ECONNABORTED);
    }
    handlers_give_back(h, c);
}

void janus_close(struct janus_conn *c)
{
    if (c == self_here())
        close_own(handlers_here, c);
    else
        close_other(handlers_here, c);
}

void janus_abort(struct janus_conn *c)
{
    c->flags |= CONN_ABORTED;
    janus_close(c);
}

/* --- opening --- */

static int open_conn(struct handlers *h, const char *address, uint16_t port, struct janus_conn **out)
{
    struct janus_error error;
    struct ip_addr raddr;
    uint32_t index;
    int rc;

    if (!address_parse(address, &raddr))
        return -EINVAL;
    rc = thread_connect(h->thread, NULL, 0, &raddr, port, HANDLERS_NO_SERVICE << 2 | HANDLERS_TAG, &index, &error);
    if (rc < 0)
        return rc;
    *out = &h->rows[index];
    **out = (struct janus_conn){
        .flags = (uint16_t)(CONN_LIVE | CONN_HELD | CONN_CONNECTING | ((*out)->flags & CONN_QUEUED))};
    return 0;
}

struct janus_conn *janus_connect(const char *address, uint16_t port, int *error)
{
    struct handlers *h = handlers_here;
    struct janus_conn *c = NULL;
    int rc = self_here() == NULL ? -EDEADLK : open_conn(h, address, port, &c);

    while (rc == 0 && (c->flags & CONN_CONNECTING)) {
        rc = wait_for(c, WAIT_CONNECTED);
        if (rc == 0)
            rc = -thread_conn_error(h->thread, handlers_index(h, c));
    }
    if (error != NULL)
        *error = -rc;
    if (rc == 0) {
        h->opened++;
        return c;
    }
    if (c != NULL) {
        c->other = 0;
        handlers_give_back(h, c);
    }
    return NULL;
}

int janus_start(struct janus_conn *c, janus_handler *handler)
{
    if (c->co.state != CORO_NEW || (c->flags & (CONN_QUEUED | CONN_ENDED)))
        return -EBUSY;
    return handlers_queue(handlers_here, c, (void (*)(void *))handler, c) ? 0 : -ENOMEM;
}

int janus_join(struct janus_conn *c)
{
    int error = 0;

    while (error == 0 && (c->co.state != CORO_NEW || (c->flags & CONN_QUEUED)))
        error = wait_for(c, WAIT_ENDED);
    return error;
}

/* --- time --- */

static uint32_t tick_after(const struct handlers *h, uint32_t ms)
{
    return (uint32_t)(thread_now_us(h->thread) / 1000) + (ms < WHEEL_DELAY_MAX ? ms : WHEEL_DELAY_MAX);
}

void janus_deadline(uint32_t ms)
{
    struct janus_conn *self = self_here();
    struct handlers *h = handlers_here;

    if (self == NULL)
        return;
    self->flags &= (uint16_t)~CONN_EXPIRED;
    if (ms == 0)
        wheel_cancel(&h->wheel, handlers_index(h, self));
    else
        wheel_schedule(&h->wheel, handlers_index(h, self), tick_after(h, ms));
}

int janus_sleep(uint32_t ms)
{
    struct janus_conn *self = self_here();
    struct handlers *h = handlers_here;
    uint32_t index, end, deadline;
    bool has_deadline, sooner;
    int error = 0;

    if (self == NULL)
        return -EDEADLK;
    index = handlers_index(h, self);
    end = tick_after(h, ms);
    deadline = self->timer.deadline_tick;
    has_deadline = wheel_is_scheduled(&h->wheel, index);
    sooner = has_deadline && (int32_t)(deadline - end) < 0;
    if (self->flags & CONN_EXPIRED)
        return -ETIMEDOUT;
    if (!sooner)
        wheel_schedule(&h->wheel, index, end);
    while (error == 0)
        error = wait_for(self, WAIT_TIME);
    if (sooner || error != -ETIMEDOUT)
        return error;
    self->flags &= (uint16_t)~CONN_EXPIRED;
    if (has_deadline)
        wheel_schedule(&h->wheel, index, deadline);
    return 0;
}

uint64_t janus_now_us(void)
{
    return thread_now_us(handlers_here->thread);
}

/* --- about a connection --- */

void janus_set_user(struct janus_conn *c, void *user)
{
    c->user = user;
}

void *janus_user(const struct janus_conn *c)
{
    return c->user;
}

void *janus_service_data(const struct janus_conn *c)
{
    uint64_t service = thread_user(handlers_here->thread, janus_id(c)) >> 2;

    return service != HANDLERS_NO_SERVICE ? handlers_here->services[service].service.data : NULL;
}

uint32_t janus_id(const struct janus_conn *c)
{
    return handlers_index(handlers_here, c);
}

char *janus_peer_name(const struct janus_conn *c, char *name, size_t size)
{
    struct flow flow;

    thread_flow(handlers_here->thread, janus_id(c), &flow);
    return address_name(&flow.raddr, flow.rport, name, size);
}

char *janus_local_name(const struct janus_conn *c, char *name, size_t size)
{
    struct flow flow;

    thread_flow(handlers_here->thread, janus_id(c), &flow);
    return address_name(&flow.laddr, flow.lport, name, size);
}

void janus_get_info(const struct janus_conn *c, struct janus_info *info)
{
    struct tcp_info i;

    thread_info(handlers_here->thread, janus_id(c), &i);
    *info = (struct janus_info){
        .srtt_us = i.srtt_us,
        .rto_us = i.rto_us,
        .smss_bytes = i.smss,
        .cwnd_bytes = i.cwnd_bytes,
        .send_window_bytes = i.snd_wnd,
        .flight_bytes = i.flight_bytes,
        .unsent_bytes = i.unsent_bytes,
        .unread_bytes = i.unread_bytes,
        .timeouts = i.timeouts,
        .stalled = i.stalled,
        .stalled_ms = i.stalled_ms,
        .urgent_bytes = i.urgent_bytes,
        .retransmits = i.retransmits,
    };
}

void janus_set_nodelay(struct janus_conn *c, int on)
{
    thread_set_nodelay(handlers_here->thread, janus_id(c), on != 0);
}

void janus_set_keepalive(struct janus_conn *c, uint32_t idle_ms)
{
    thread_set_keepalive(handlers_here->thread, janus_id(c), idle_ms);
}

int janus_set_dscp(struct janus_conn *c, uint32_t dscp)
{
    struct tcp_settings settings;

    thread_get_settings(handlers_here->thread, janus_id(c), &settings);
    settings.dscp = dscp < UINT8_MAX ? (uint8_t)dscp : UINT8_MAX;
    return thread_set_settings(handlers_here->thread, janus_id(c), &settings);
}

int janus_set_ttl(struct janus_conn *c, uint32_t ttl)
{
    struct tcp_settings settings;

    thread_get_settings(handlers_here->thread, janus_id(c), &settings);
    settings.ttl = ttl <= UINT8_MAX ? (uint8_t)ttl : 0;
    return thread_set_settings(handlers_here->thread, janus_id(c), &settings);
}

void *janus_scratch(void)
{
    return handlers_here->scratch;
}
