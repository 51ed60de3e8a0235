/*
 * sim_users.h: the two users of each simulated connection and what they want: send so much, read at some speed, end in
 * some way.  They act on events alone, as an application does, so that an event that does not come is a hang.
 */
#ifndef SIM_USERS_H
#define SIM_USERS_H

#include "sim_host.h"

#include <errno.h>

/* How a side ends.  The first three are clean: the other side gets every byte and the end of the stream. */
enum side_ending {
    END_SHUTDOWN,    /* FIN when all is sent; closes at the other's end of stream */
    END_SENT_ALL,    /* the same, but FIN only when all is acknowledged */
    END_CLOSE,       /* closes when all is sent and all that the other will send is read */
    END_CLOSE_EARLY, /* closes when all is sent */
    END_ABORT,       /* aborts when some is sent, or at some time */
};

enum side_life { SIDE_WAITING, SIDE_OPENING, SIDE_OPEN, SIDE_DONE };

struct side {
    uint8_t life, ending;
    bool can_write, can_read, shut, eof, want_sent_all, sent_all, use_views;
    uint32_t conn;
    int error;
    uint64_t send_total, sent, received;
    uint32_t write_max, read_max, read_every_us; /* one call takes so much; a slow reader waits in between */
    uint64_t next_read_us, abort_at_us, abort_after_bytes;
};

/* A connection of the script; opened by host `opener` at open_at_us, or by both. */
struct pair {
    uint64_t open_at_us;
    uint8_t opener;
    bool ipv6, both_open, nodelay, gave_up;
    uint16_t lport, rport; /* 0: the core chooses lport */
    uint32_t keepalive_ms;
    struct tcp_settings settings; /* all zero: the listener's */
    uint32_t after;               /* pair + 1 that must have ended before, since it has the same ports; 0: none */
    struct side side[2];          /* by host */
};

struct users {
    struct sim_failure *failure;
    struct pair *pairs;
    uint32_t pair_count;
    struct sim_host *hosts;
    uint32_t *owner[2];   /* pair + 1 by connection */
    uint32_t *by_flow[2]; /* pair + 1 of the latest opener, by flow_index() */
    bool tolerant;        /* connections may fail: the faults are harsh or the tables tight */
    bool scarce;          /* or slots to send are so few that a window closed for seconds ends its connection */
    bool lossy;           /* packets get lost at all */
    uint64_t give_up_us;  /* who is not done by then aborts, when it may fail */
    uint32_t pattern;
};

#define USER_LISTENER UINT64_MAX

enum { FLOW_INDICES = 65536 * 4 };

/* Of a flow from lport to one of the listeners. */
static uint32_t flow_index(uint16_t lport, uint16_t rport, const struct ip_addr *raddr)
{
    return lport * 4u + (rport == 8080) * 2u + ip_addr_is_ipv4(raddr);
}

static bool pair_is_clean(const struct pair *p)
{
    return p->side[0].ending <= END_CLOSE && p->side[1].ending <= END_CLOSE;
}

/* May a connection of this pair fail?  When all SYN-ACKs or the ACKs of them are lost, the passive side forgets (RFC 9293 3.8.3, R2). */
static bool pair_may_fail(const struct users *u, const struct pair *p)
{
    return u->tolerant || p->both_open || !pair_is_clean(p) || (u->lossy && p->side[!p->opener].life == SIDE_WAITING);
}

/* The byte at a position of the stream that the user at host sends. */
static uint8_t pattern_at(uint32_t key, uint64_t position)
{
    uint32_t x = (uint32_t)position * 2654435761u + key;

    return (uint8_t)(x >> 13 ^ x >> 24);
}

static uint32_t pattern_key(const struct users *u, uint32_t pair, uint32_t host)
{
    return (u->pattern + pair * 2 + host) * 0x9e3779b1u;
}

static void side_done(struct users *u, struct side *side, uint32_t host)
{
    if (side->life == SIDE_OPENING || side->life == SIDE_OPEN)
        u->owner[host][side->conn] = 0;
    side->life = SIDE_DONE;
}

static void side_close(struct users *u, struct side *side, uint32_t host)
{
    struct sim_host *h = &u->hosts[host];

    tcp_close(h->s, side->conn, h->now_us);
    side_done(u, side, host);
}

static void side_abort(struct users *u, struct side *side, uint32_t host)
{
    struct sim_host *h = &u->hosts[host];

    tcp_abort(h->s, side->conn, h->now_us);
    side_done(u, side, host);
}

static void pair_open(struct users *u, uint32_t index, uint32_t host)
{
    struct pair *p = &u->pairs[index];
    struct side *side = &p->side[host];
    struct sim_host *h = &u->hosts[host];
    uint16_t lport = host == p->opener ? p->lport : p->rport;
    uint16_t rport = host == p->opener ? p->rport : p->lport;
    struct flow flow;
    int result = tcp_connect(h->s, NULL, lport, &host_addresses[!host][p->ipv6], rport, NULL, NULL, index, h->now_us,
                             &side->conn);

    if (result == -EADDRINUSE && p->after != 0) { /* its own TIME-WAIT stands in the way */
        p->open_at_us = h->now_us + 1000000;
        return;
    }
    if (result != 0) {
        if (result != -ENOBUFS && result != -EADDRINUSE)
            sim_fail(u->failure, "pair %u: tcp_connect() says %d", index, result);
        side->life = SIDE_DONE;
        side->error = -result;
        if (p->side[!host].life == SIDE_WAITING)
            p->side[!host].life = SIDE_DONE;
        return;
    }
    if (u->owner[host][side->conn] != 0)
        sim_fail(u->failure, "host %u: connection %u given out twice", host, side->conn);
    u->owner[host][side->conn] = index + 1;
    side->life = SIDE_OPENING;
    tcp_flow(h->s, side->conn, &flow);
    if (host == p->opener)
        u->by_flow[host][flow_index(flow.lport, flow.rport, &flow.raddr)] = index + 1;
}

static void side_established(struct users *u, struct pair *p, uint32_t host)
{
    struct side *side = &p->side[host];
    struct tcp_stack *s = u->hosts[host].s;

    side->life = SIDE_OPEN;
    side->can_write = true;
    if (p->nodelay)
        tcp_set_nodelay(s, side->conn, true);
    if (p->keepalive_ms > 0)
        tcp_set_keepalive(s, side->conn, p->keepalive_ms);
    if (p->settings.keepalive_probes != 0 && tcp_set_settings(s, side->conn, &p->settings) != 0)
        sim_fail(u->failure, "host %u: tcp_set_settings() refused", host);
}

/* Whose connection is it that a listener of host accepted? */
static void host_accepted(struct users *u, uint32_t host, const struct tcp_event *event)
{
    struct tcp_stack *s = u->hosts[host].s;
    struct flow flow;
    uint32_t index;
    struct side *side;

    if (u->owner[host][event->conn] != 0)
        sim_fail(u->failure, "host %u: ACCEPTED for connection %u that is in use", host, event->conn);
    tcp_flow(s, event->conn, &flow);
    index = u->by_flow[!host][flow_index(flow.rport, flow.lport, &flow.raddr)];
    if (index == 0 || flow.lport != u->pairs[index - 1].rport)
        sim_fail(u->failure, "host %u: accepted from port %u, which never opened", host, flow.rport);
    side = &u->pairs[index - 1].side[host];
    if (side->life != SIDE_WAITING) {
        if (pair_is_clean(&u->pairs[index - 1]) && !u->tolerant)
            sim_fail(u->failure, "host %u: pair %u accepted twice", host, index - 1);
        tcp_abort(s, event->conn, u->hosts[host].now_us);
        return;
    }
    side->conn = event->conn;
    u->owner[host][event->conn] = index;
    tcp_set_user(s, event->conn, index - 1);
    side_established(u, &u->pairs[index - 1], host);
}

static void side_failed(struct users *u, uint32_t index, uint32_t host)
{
    struct pair *p = &u->pairs[index];
    struct side *side = &p->side[host];

    side->error = tcp_error(u->hosts[host].s, side->conn);
    if (side->error == 0)
        sim_fail(u->failure, "host %u: pair %u: ERROR without an error", host, index);
    if (!pair_may_fail(u, p) && !(u->scarce && (side->error == ENOBUFS || side->error == ECONNRESET)))
        sim_fail(u->failure, "host %u: pair %u failed with errno %d, state %u, sent %llu, received %llu", host, index,
                 side->error, tcp_conn_state(u->hosts[host].s, side->conn), (unsigned long long)side->sent,
                 (unsigned long long)side->received);
    if (side->life == SIDE_OPENING && p->side[!host].life == SIDE_WAITING)
        p->side[!host].life = SIDE_DONE;
    side_close(u, side, host);
}

/* Takes the news; false: there was none. */
static bool users_events(struct users *u, uint32_t host)
{
    struct tcp_stack *s = u->hosts[host].s;
    struct tcp_event event;
    bool any = false;

    while (tcp_next_event(s, &event)) {
        struct side *side;

        any = true;
        if (event.kinds & TCP_EVENT_ACCEPTED) {
            if (event.user != USER_LISTENER)
                sim_fail(u->failure, "host %u: ACCEPTED with user data %llu", host, (unsigned long long)event.user);
            host_accepted(u, host, &event);
            if (u->owner[host][event.conn] == 0)
                continue;
            event.user = u->owner[host][event.conn] - 1;
        }
        if (event.user >= u->pair_count || u->owner[host][event.conn] != event.user + 1)
            sim_fail(u->failure, "host %u: events %#x for connection %u that nobody has", host, event.kinds,
                     event.conn);
        side = &u->pairs[event.user].side[host];
        if (event.kinds & TCP_EVENT_CONNECTED)
            side_established(u, &u->pairs[event.user], host);
        side->can_read |= (event.kinds & TCP_EVENT_READABLE) != 0;
        side->can_write |= (event.kinds & TCP_EVENT_WRITABLE) != 0;
        side->sent_all |= (event.kinds & TCP_EVENT_SENT_ALL) != 0;
        if (event.kinds & TCP_EVENT_ERROR)
            side_failed(u, (uint32_t)event.user, host);
    }
    return any;
}

static void verify(struct users *u, uint32_t index, uint32_t host, const uint8_t *data, uint32_t len)
{
    struct side *side = &u->pairs[index].side[host];
    const struct side *other = &u->pairs[index].side[!host];
    uint32_t key = pattern_key(u, index, !host);

    for (uint32_t i = 0; i < len; i++) {
        if (data[i] != pattern_at(key, side->received + i))
            sim_fail(u->failure, "host %u: pair %u received a wrong byte at %llu", host, index,
                     (unsigned long long)(side->received + i));
    }
    side->received += len;
    if (side->received > other->sent)
        sim_fail(u->failure, "host %u: pair %u received more than was sent", host, index);
}

static uint32_t urgent_bytes(const struct tcp_stack *s, uint32_t conn)
{
    struct tcp_info info;

    tcp_get_info(s, conn, &info);
    return info.urgent_bytes;
}

/* Reads once: up to read_max bytes. */
static void side_read(struct users *u, uint32_t index, uint32_t host)
{
    struct side *side = &u->pairs[index].side[host];
    struct tcp_stack *s = u->hosts[host].s;
    uint32_t ready = tcp_recv_ready(s, side->conn);
    uint32_t want = ready < side->read_max ? ready : side->read_max;

    if (side->use_views) {
        struct tcp_view views[4];
        uint32_t count = tcp_recv_views(s, side->conn, views, 4), got = 0;

        if ((count == 0) != (ready == 0) || count > 4)
            sim_fail(u->failure, "host %u: pair %u: %u views of %u bytes", host, index, count, ready);
        for (uint32_t i = 0; i < count && got < want; i++) {
            uint32_t len = views[i].len < want - got ? views[i].len : want - got;

            if (views[i].len == 0)
                sim_fail(u->failure, "host %u: pair %u: an empty view", host, index);
            verify(u, index, host, views[i].data, len);
            got += len;
        }
        tcp_recv_consume(s, side->conn, got);
    } else {
        static uint8_t buffer[65536];

        while (want > 0) {
            uint32_t got = tcp_recv(s, side->conn, buffer, want < sizeof buffer ? want : sizeof buffer);

            if (got == 0)
                sim_fail(u->failure, "host %u: pair %u: tcp_recv() gave none of %u ready bytes", host, index, want);
            verify(u, index, host, buffer, got);
            want -= got;
        }
    }
    if (tcp_recv_ready(s, side->conn) == 0) {
        side->can_read = false;
        side->eof = tcp_recv_eof(s, side->conn);
    }
    if (side->eof && urgent_bytes(s, side->conn) != 0)
        sim_fail(u->failure, "host %u: pair %u: urgent data behind the end of the stream", host, index);
    if (side->eof && pair_is_clean(&u->pairs[index]) && side->received != u->pairs[index].side[!host].sent)
        sim_fail(u->failure, "host %u: pair %u: end of stream at %llu of %llu", host, index,
                 (unsigned long long)side->received, (unsigned long long)u->pairs[index].side[!host].sent);
}

static void side_write(struct users *u, uint32_t index, uint32_t host)
{
    static uint8_t buffer[65536];
    struct side *side = &u->pairs[index].side[host];
    uint32_t key = pattern_key(u, index, host);

    while (side->can_write && side->sent < side->send_total) {
        uint64_t left = side->send_total - side->sent;
        uint32_t len = left < side->write_max ? (uint32_t)left : side->write_max;
        int64_t taken;

        for (uint32_t i = 0; i < len; i++)
            buffer[i] = pattern_at(key, side->sent + i);
        taken = (len % 8 == 5 ? tcp_send_urgent : tcp_send)(u->hosts[host].s, side->conn, buffer, len);
        if (taken < 0 || taken > len)
            sim_fail(u->failure, "host %u: pair %u: tcp_send() of %u says %lld", host, index, len, (long long)taken);
        side->sent += (uint64_t)taken;
        side->can_write = taken == len;
    }
}

/* Ends as the script says, when its time has come. */
static void side_end(struct users *u, uint32_t index, uint32_t host)
{
    struct pair *p = &u->pairs[index];
    struct side *side = &p->side[host];
    struct sim_host *h = &u->hosts[host];
    bool all = side->sent == side->send_total;

    if (side->ending == END_ABORT && (side->sent >= side->abort_after_bytes || h->now_us >= side->abort_at_us)) {
        side_abort(u, side, host);
        return;
    }
    if (side->ending == END_SENT_ALL && all && !side->want_sent_all) {
        side->want_sent_all = true;
        tcp_want_sent_all(h->s, side->conn);
        return;
    }
    if (all && !side->shut && (side->ending == END_SHUTDOWN || (side->ending == END_SENT_ALL && side->sent_all))) {
        if (side->sent_all && tcp_unacked(h->s, side->conn) != 0)
            sim_fail(u->failure, "host %u: pair %u: SENT_ALL with unacknowledged bytes", host, index);
        side->shut = true;
        tcp_shutdown(h->s, side->conn, h->now_us);
    }
    if ((side->shut && side->eof) || (all && side->ending == END_CLOSE_EARLY) ||
        (all && side->ending == END_CLOSE && side->received == p->side[!host].send_total))
        side_close(u, side, host);
}

static bool pair_may_open(const struct users *u, const struct pair *p)
{
    const struct pair *before = &u->pairs[p->after - 1];

    return p->after == 0 || (before->side[0].life == SIDE_DONE && before->side[1].life == SIDE_DONE);
}

static void side_step(struct users *u, uint32_t index, uint32_t host)
{
    struct pair *p = &u->pairs[index];
    struct side *side = &p->side[host];
    struct sim_host *h = &u->hosts[host];

    if (side->life == SIDE_WAITING && h->now_us >= p->open_at_us && pair_may_open(u, p) &&
        (host == p->opener || p->both_open))
        pair_open(u, index, host);
    if (side->life == SIDE_OPENING || side->life == SIDE_OPEN) {
        if (pair_may_fail(u, p) && h->now_us >= u->give_up_us) {
            p->gave_up = true;
            side_abort(u, side, host);
            return;
        }
    } else if (side->life == SIDE_WAITING && h->now_us >= u->give_up_us && p->side[!host].life == SIDE_DONE) {
        p->gave_up =
            pair_may_fail(u, p); /* the other one has closed in order, and nobody tells it what became of its data */
        side->life = SIDE_DONE;
    }
    if (side->life != SIDE_OPEN)
        return;
    if (side->can_read && h->now_us >= side->next_read_us) {
        side_read(u, index, host);
        side->next_read_us = h->now_us + side->read_every_us;
    }
    side_write(u, index, host);
    side_end(u, index, host);
}

/* When a user of host wants to act without an event. */
static uint64_t users_next_us(const struct users *u, uint32_t host)
{
    uint64_t next = UINT64_MAX, now_us = u->hosts[host].now_us;

    for (uint32_t i = 0; i < u->pair_count; i++) {
        const struct pair *p = &u->pairs[i];
        const struct side *side = &p->side[host];
        uint64_t at = UINT64_MAX;

        if (side->life == SIDE_DONE)
            continue;
        if (side->life == SIDE_WAITING && (host == p->opener || p->both_open))
            at = pair_may_open(u, p) ? p->open_at_us : now_us + 10000;
        else if (side->life == SIDE_OPEN && side->can_read)
            at = side->next_read_us;
        if (side->life == SIDE_OPEN && side->ending == END_ABORT && side->abort_at_us < at)
            at = side->abort_at_us;
        if (u->give_up_us > now_us && u->give_up_us < at)
            at = u->give_up_us;
        if (at < next)
            next = at;
    }
    return next;
}

static bool users_done(const struct users *u)
{
    for (uint32_t i = 0; i < u->pair_count; i++) {
        if (u->pairs[i].side[0].life != SIDE_DONE || u->pairs[i].side[1].life != SIDE_DONE)
            return false;
    }
    return true;
}

#endif
