/*
 * connect.c: SYN-SENT, and SYN-RECEIVED behind it.
 */
#include "tcp/connect.h"

#include "tcp/ecn.h"
#include "tcp/flows.h"
#include "tcp/handshake.h"
#include "tcp/input.h"
#include "tcp/reply.h"
#include "tcp/rtxq.h"
#include "tcp/seq.h"
#include "tcp/settings.h"
#include "tcp/timers.h"
#include "tcp/timewait.h"

#include <errno.h>

enum { PORTS_UNTIL_REOPENED = 64 };

/* The handle of what has this flow; TABLE_NONE: it is free. */
static uint32_t holder_of(const struct tcp_stack *s, uint32_t hash, const struct flow *flow)
{
    struct table_cursor cursor;
    uint32_t h = table_first(&s->table, hash, &cursor);

    while (h != TABLE_NONE && !stack_handle_is_flow(s, h, flow))
        h = table_next(&s->table, &cursor);
    return h;
}

static bool may_reopen(const struct tcp_stack *s, uint32_t handle)
{
    return handle_kind(handle) == HANDLE_TIME_WAIT && time_wait_may_reopen(s, handle_index(handle), s->now_us);
}

/* A free local port whose flow accept_port likes, from a random start (RFC 6056 3.3.1), or where none is found soon one that may be opened
 * again; 0: none. */
static uint16_t choose_port(struct tcp_stack *s, struct flow *flow, bool (*accept_port)(void *context, uint64_t hash),
                            void *context)
{
    uint32_t first = s->config.source_port_first;
    uint32_t count = s->config.source_port_last - first + 1u;
    uint16_t again = 0;
    uint32_t start;

    if (first == 0)
        return 0;
    s->env.random(s->env.context, &start, sizeof start);
    for (uint32_t i = 0; i < count && (again == 0 || i < PORTS_UNTIL_REOPENED); i++) {
        uint32_t holder;
        uint64_t hash;

        flow->lport = (uint16_t)(first + (start % count + i) % count);
        hash = flows_hash(s, flow);
        holder = holder_of(s, csb_table_hash(hash), flow);
        if ((holder != TABLE_NONE && !may_reopen(s, holder)) || (accept_port != NULL && !accept_port(context, hash)))
            continue;
        if (holder == TABLE_NONE)
            return flow->lport;
        again = again != 0 ? again : flow->lport;
    }
    return flow->lport = again;
}

static bool choose_address(const struct tcp_stack *s, const struct ip_addr *laddr, const struct ip_addr *raddr,
                           uint8_t *index)
{
    for (uint32_t i = 0; i < s->address_count; i++) {
        const struct ip_addr *a = &s->addresses[i];

        if (ip_addr_is_ipv4(a) == ip_addr_is_ipv4(raddr) && (laddr == NULL || ip_addr_equal(a, laddr))) {
            *index = (uint8_t)i;
            return true;
        }
    }
    return false;
}

/* RFC 9293 3.9.1.1: no connection to many or to nobody. */
static bool is_unicast(const struct ip_addr *a)
{
    static const struct ip_addr unspecified;

    if (ip_addr_is_ipv4(a))
        return a->b[12] != 0 && a->b[12] < 224;
    return a->b[0] != 0xff && !ip_addr_equal(a, &unspecified);
}

/* before: a connection in TIME-WAIT, which ends; or TABLE_NONE. */
static struct tcb *make(struct tcp_stack *s, const struct flow *flow, uint64_t hash, uint8_t laddr_index,
                        uint32_t before, uint64_t now_us)
{
    uint32_t index = slab_available(&s->ext) != 0 ? tcb_take(s, 0) : TCP_NO_CONN;
    struct isn_offsets offsets = isn_offsets(&s->secret, hash);
    uint32_t iss = isn_at(&offsets, now_us);
    struct tcb *t;
    struct tcb_ext *e;

    if (index == TCP_NO_CONN)
        return NULL;
    if (before != TABLE_NONE)
        iss = seq_max(iss, time_wait_reopen(s, handle_index(before)));
    t = stack_tcb(s, index);
    t->raddr = flow->raddr;
    t->rport = flow->rport;
    t->lport = flow->lport;
    t->laddr_index = laddr_index & 0xf;
    if (!flows_add(s, hash, handle_make(HANDLE_TCB, index))) {
        tcb_free(s, t);
        return NULL;
    }
    t->flags = TCB_IN_TABLE | TCB_ACTIVE | handshake_flags(s);
    t->snd_una = iss;
    t->snd_nxt = t->snd_una + 1;
    t->flags |= ecn_is_asked(s, s->config.congestion_control) ? TCB_ECT : 0;
    t->smss = SMSS_MIN;
    e = tcb_borrow_ext(s, t);
    (void)e;
    tcb_set_state(s, t, TCP_STATE_SYN_SENT);
    return t;
}

int tcp_connect(struct tcp_stack *s, const struct ip_addr *laddr, uint16_t lport, const struct ip_addr *raddr,
                uint16_t rport, bool (*accept_port)(void *context, uint64_t hash), void *context, uint64_t user,
                uint64_t now_us, uint32_t *conn)
{
    struct flow flow = {.raddr = *raddr, .rport = rport, .lport = lport};
    uint8_t laddr_index;
    uint32_t holder;
    uint64_t hash;
    struct tcb *t;

    s->now_us = now_us;
    if (!choose_address(s, laddr, raddr, &laddr_index) || rport == 0)
        return -EADDRNOTAVAIL;
    flow.laddr = s->addresses[laddr_index];
    if (ip_addr_equal(&flow.laddr, raddr) || !is_unicast(raddr))
        return -EADDRNOTAVAIL;
    if (lport == 0) {
        if (choose_port(s, &flow, accept_port, context) == 0)
            return s->config.source_port_first == 0 ? -EADDRNOTAVAIL : -EADDRINUSE;
    }
    hash = flows_hash(s, &flow);
    holder = holder_of(s, csb_table_hash(hash), &flow);
    if (holder != TABLE_NONE && !may_reopen(s, holder))
        return -EADDRINUSE;
    if (lport != 0 && accept_port != NULL && !accept_port(context, hash))
        return -EADDRNOTAVAIL;
    t = make(s, &flow, hash, laddr_index, holder, now_us);
    if (t == NULL)
        return -ENOBUFS;
    t->user = user;
    tcb_owe(s, t, OWE_SYN);
    *conn = stack_index(s, t);
    return 0;
}

void connect_strip_syn(const struct tcb *t, struct tcp_segment *seg)
{
    if ((seg->flags & (TCP_SYN | TCP_ACK | TCP_RST)) == (TCP_SYN | TCP_ACK) && seg->seq + 1 == t->rcv_nxt) {
        seg->seq++;
        seg->flags &= (uint8_t)~TCP_SYN;
    }
}

static void established(struct tcp_stack *s, struct tcb *t, const struct input *in)
{
    struct tcb_ext *e = stack_ext(s, t);

    tcb_set_state(s, t, TCP_STATE_ESTABLISHED);
    if ((t->flags & TCB_TIMESTAMPS) && (in->seg.options.present & TCP_OPTION_TIMESTAMPS)) {
        uint32_t elapsed_ms = stack_now_ms(in->now_us) + e->ts_base - in->seg.options.tsecr;

        if (elapsed_ms < RTT_SAMPLE_MAX_US / 1000)
            rtt_sample(&t->rtt, (elapsed_ms + (elapsed_ms == 0)) * 1000, 1);
    }
    t->snd_una = in->seg.ack;
    t->snd_wl1 = in->seg.seq;
    t->snd_wnd = (uint32_t)in->seg.wnd << ((in->seg.flags & TCP_SYN) ? 0 : t->snd_wind_shift);
    t->backoff = 0;
    timers_heard(s, t, in->now_us);
    e->max_snd_wnd = t->snd_wnd;
    e->tx_end = t->snd_nxt;
    e->recovery_point = t->snd_una;
    e->rtx_deadline = 0;
    e->round_end = t->snd_una;
    settings_start_cc(s, t, e);
    s->counters.connections_opened++;
    tcb_event(s, t, TCP_EVENT_CONNECTED);
    tcb_owe(s, t, OWE_ACK);
}

enum tcp_drop connect_acknowledged(struct tcp_stack *s, struct tcb *t, const struct input *in)
{
    if (in->seg.ack != t->snd_nxt) {
        reply_reset(s, in);
        return TCP_DROP_BAD_ACK;
    }
    t->owe &= (uint8_t)~OWE_SYN;
    established(s, t, in);
    return TCP_DROP_NONE;
}

enum tcp_drop connect_input(struct tcp_stack *s, struct tcb *t, struct input *in)
{
    struct tcp_segment *seg = &in->seg;
    struct handshake hs;
    struct flow flow;

    if ((seg->flags & TCP_ACK) && seg->ack != t->snd_nxt) {
        reply_reset(s, in);
        return TCP_DROP_BAD_ACK;
    }
    if (seg->flags & TCP_RST) {
        if (!(seg->flags & TCP_ACK))
            return TCP_DROP_BAD_FLAGS;
        s->counters.resets_received++;
        if (t->flags & TCB_ECT) { /* it may be the flags that are refused: again without them (RFC 3168 6.1.1.1) */
            t->flags &= ~(uint32_t)TCB_ECT;
            tcb_owe(s, t, OWE_SYN);
            return TCP_DROP_NONE;
        }
        s->counters.connections_failed++;
        tcb_end(s, t, ECONNREFUSED);
        return TCP_DROP_NONE;
    }
    if (!(seg->flags & TCP_SYN))
        return TCP_DROP_BAD_FLAGS;
    tcb_flow(s, t, &flow);
    handshake_read(s, &flow, seg, &hs);
    handshake_apply(s, t, &hs, in->now_us);
    t->owe &= (uint8_t)~OWE_SYN;
    if (!(seg->flags & TCP_ACK)) {  /* simultaneous open */
        t->snd_wnd = seg->wnd + 1U; /* our own SYN needs no window */
        tcb_set_state(s, t, TCP_STATE_SYN_RECEIVED);
        stack_ext(s, t)->rtx_deadline = 0;
        tcb_owe(s, t, OWE_SYN);
        return TCP_DROP_NONE;
    }
    if (seg->options.present & TCP_OPTION_USER_TIMEOUT)
        settings_heed(s, t, &seg->options);
    established(s, t, in);
    seg->seq++;
    seg->flags &= (uint8_t)~TCP_SYN;
    return input_text_and_fin(s, t, in);
}
