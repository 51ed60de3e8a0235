/*
 * conn.c: the user's calls on one connection, and what a thread says of itself.
 */
#include "app/error.h"
#include "app/thread.h"

#include <errno.h>
#include <string.h>

/* True when janusd will give the answers of a flow with this hash to this thread, at the moment that creates it. */
static bool answers_come_here(void *context, uint64_t hash)
{
    return balance_may_connect(context, hash);
}

static int connect_error(int code, uint16_t rport, struct janus_error *error)
{
    switch (code) {
    case EADDRNOTAVAIL:
        return error_set(error, code,
                         "connect to port %u: no source address of that family, or no source ports, in the lease",
                         rport);
    case EADDRINUSE:
        return error_set(error, code, "connect to port %u: every source port of the lease is in use", rport);
    case ENOBUFS:
        return error_set(error, code, "connect to port %u: the connection table is full", rport);
    default:
        return error_set(error, code, "connect to port %u: %s", rport, strerror(code));
    }
}

int thread_connect(struct janus_thread *t, const struct ip_addr *laddr, uint16_t lport, const struct ip_addr *raddr,
                   uint16_t rport, uint64_t user, uint32_t *conn, struct janus_error *error)
{
    int rc = tcp_connect(t->stack, laddr, lport, raddr, rport, t->session ? answers_come_here : NULL,
                         t->session ? &t->session->balance : NULL, user, t->now_us, conn);

    if (rc < 0)
        return connect_error(-rc, rport, error);
    thread_note_row(t, *conn);
    return 0;
}

uint32_t thread_recv(struct janus_thread *t, uint32_t conn, void *data, uint32_t len)
{
    return tcp_recv(t->stack, conn, data, len);
}

uint32_t thread_recv_ready(const struct janus_thread *t, uint32_t conn)
{
    return tcp_recv_ready(t->stack, conn);
}

uint32_t thread_recv_views(const struct janus_thread *t, uint32_t conn, struct tcp_view *views, uint32_t count)
{
    return tcp_recv_views(t->stack, conn, views, count);
}

void thread_recv_consume(struct janus_thread *t, uint32_t conn, uint32_t len)
{
    tcp_recv_consume(t->stack, conn, len);
}

uint32_t thread_recv_lend(struct janus_thread *t, uint32_t conn, struct tcp_view *view)
{
    uint32_t slot = tcp_recv_lend(t->stack, conn, view);

    t->lent += slot != TCP_NO_SLOT;
    return slot;
}

void thread_recv_give(struct janus_thread *t, uint32_t slot)
{
    tcp_recv_give(t->stack, slot);
    if (--t->lent == 0 && t->session)
        session_unmap_kept(t->session);
}

bool thread_recv_eof(const struct janus_thread *t, uint32_t conn)
{
    return tcp_recv_eof(t->stack, conn);
}

bool thread_fin_received(const struct janus_thread *t, uint32_t conn)
{
    enum tcp_state state = tcp_conn_state(t->stack, conn);

    return state == TCP_STATE_CLOSE_WAIT || state == TCP_STATE_CLOSING || state == TCP_STATE_LAST_ACK ||
           state == TCP_STATE_TIME_WAIT;
}

int64_t thread_send(struct janus_thread *t, uint32_t conn, const void *data, size_t len)
{
    return tcp_send(t->stack, conn, data, len);
}

int64_t thread_send_urgent(struct janus_thread *t, uint32_t conn, const void *data, size_t len)
{
    return tcp_send_urgent(t->stack, conn, data, len);
}

uint32_t thread_send_room(struct janus_thread *t, uint32_t conn)
{
    return tcp_send_room(t->stack, conn);
}

uint32_t thread_unacked(const struct janus_thread *t, uint32_t conn)
{
    return tcp_unacked(t->stack, conn);
}

void thread_want_sent_all(struct janus_thread *t, uint32_t conn)
{
    tcp_want_sent_all(t->stack, conn);
}

void thread_shutdown(struct janus_thread *t, uint32_t conn)
{
    tcp_shutdown(t->stack, conn, t->now_us);
}

void thread_close_conn(struct janus_thread *t, uint32_t conn)
{
    tcp_close(t->stack, conn, t->now_us);
}

void thread_abort(struct janus_thread *t, uint32_t conn)
{
    tcp_abort(t->stack, conn, t->now_us);
}

void thread_set_user(struct janus_thread *t, uint32_t conn, uint64_t user)
{
    tcp_set_user(t->stack, conn, user);
}

uint64_t thread_user(const struct janus_thread *t, uint32_t conn)
{
    return tcp_user(t->stack, conn);
}

int thread_conn_error(const struct janus_thread *t, uint32_t conn)
{
    return tcp_error(t->stack, conn);
}

void thread_flow(const struct janus_thread *t, uint32_t conn, struct flow *flow)
{
    tcp_flow(t->stack, conn, flow);
}

void thread_info(const struct janus_thread *t, uint32_t conn, struct tcp_info *info)
{
    tcp_get_info(t->stack, conn, info);
}

void thread_set_nodelay(struct janus_thread *t, uint32_t conn, bool on)
{
    tcp_set_nodelay(t->stack, conn, on);
}

void thread_set_keepalive(struct janus_thread *t, uint32_t conn, uint32_t idle_ms)
{
    tcp_set_keepalive(t->stack, conn, idle_ms);
}

void thread_default_settings(const struct janus_thread *t, struct tcp_settings *settings)
{
    tcp_default_settings(t->stack, settings);
}

void thread_get_settings(const struct janus_thread *t, uint32_t conn, struct tcp_settings *settings)
{
    tcp_get_settings(t->stack, conn, settings);
}

int thread_set_settings(struct janus_thread *t, uint32_t conn, const struct tcp_settings *settings)
{
    return tcp_set_settings(t->stack, conn, settings);
}

void thread_get_stats(const struct janus_thread *t, struct janus_stats *stats)
{
    *stats = (struct janus_stats){
        .tcp = *tcp_counters(t->stack), .turns = t->turns, .sleeps = t->sleeps, .busy_us = t->busy_us};
    tcp_usage(t->stack, &stats->usage);
    stats->tx_slots_free = t->env.tx_available(t->env.context);
    if (t->session) {
        const struct env_rings *rings = &t->session->rings;

        stats->attached = t->session->attached;
        stats->sent_detached = rings->sent_detached;
        stats->ring_violations = rings->violations;
        stats->sent_refused = rings->sent_refused;
        stats->csb_updates = t->session->balance.updates;
        stats->csb_held_us = t->session->balance.held.own_ns / 1000;
        stats->rx_slots_free = rings->rx_free_count;
    }
}

uint16_t thread_tid(const struct janus_thread *t)
{
    return t->session ? t->session->region.tid : 0;
}

uint32_t thread_addresses(const struct janus_thread *t, struct ip_addr *addresses, uint32_t count)
{
    memcpy(addresses, t->addresses, sizeof *addresses * (count < t->address_count ? count : t->address_count));
    return t->address_count;
}

uint32_t thread_rows(const struct janus_thread *t)
{
    return t->config.conn_max;
}

uint32_t thread_rows_used(const struct janus_thread *t)
{
    return t->rows_used;
}

bool thread_attached(const struct janus_thread *t, struct janus_error *error)
{
    if (!t->session || t->session->phase == SESSION_UP)
        return true;
    if (error)
        *error = t->session->last_error;
    return false;
}
