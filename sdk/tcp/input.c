/*
 * input.c: from packet to connection, and the steps of RFC 9293 3.10.7.4 in their order.
 *
 * A step that ends the matter says why.  None sends: they set owe bits that tcp_output() reads.
 */
#include "tcp/input.h"

#include "tcp/ack.h"
#include "tcp/connect.h"
#include "tcp/ecn.h"
#include "tcp/flows.h"
#include "tcp/icmp.h"
#include "tcp/listen.h"
#include "tcp/parse.h"
#include "tcp/predict.h"
#include "tcp/reply.h"
#include "tcp/run.h"
#include "tcp/rxq.h"
#include "tcp/sack.h"
#include "tcp/seq.h"
#include "tcp/settings.h"
#include "tcp/state.h"
#include "tcp/timers.h"
#include "tcp/timewait.h"
#include "tcp/window.h"

#include <errno.h>

enum {
    TS_RECENT_AGE_MAX_MS = 24 * 24 * 3600 * 1000, /* RFC 7323 5.5 */
    MORE_ACKS_MAX = 15,
};

static bool is_old_timestamp(const struct tcb *t, const struct input *in)
{
    return seq_lt(in->seg.options.tsval, t->ts_recent) &&
           stack_now_ms(in->now_us) - t->ts_recent_age_ms < TS_RECENT_AGE_MAX_MS;
}

/* First: sequence number, and before it PAWS (RFC 7323 5.3 R1). */
static enum tcp_drop check_sequence(struct tcp_stack *s, struct tcb *t, struct input *in)
{
    struct tcp_segment *seg = &in->seg;
    uint32_t wnd = t->rcv_adv - t->rcv_nxt;
    bool rst = (seg->flags & TCP_RST) != 0;
    uint32_t seg_len = rst ? 0 : seg->payload_len + !!(seg->flags & TCP_SYN) + !!(seg->flags & TCP_FIN);

    if ((t->flags & TCB_TIMESTAMPS) && !rst) {
        if (!(seg->options.present & TCP_OPTION_TIMESTAMPS))
            return TCP_DROP_NO_TIMESTAMP;
        if (is_old_timestamp(t, in)) {
            if (seg_len != 0)
                tcb_owe(s, t, OWE_ACK);
            else
                ack_limited(s, t, in->now_us);
            return TCP_DROP_PAWS;
        }
    }
    if (wnd == 0 && seg->seq == t->rcv_nxt && !rst && seg->payload_len != 0) {
        /* Acknowledgments are welcome behind a closed window, text is not (RFC 9293 3.10.7.4). */
        seg->payload_len = 0;
        seg->flags &= (uint8_t)~TCP_FIN;
        tcb_owe(s, t, OWE_ACK);
        return TCP_DROP_NONE;
    }
    if (wnd == 0 && seg->seq == t->rcv_nxt && seg_len == 1 && (seg->flags & TCP_FIN))
        return TCP_DROP_NONE;
    if (seq_is_acceptable(t->rcv_nxt, wnd, seg->seq, seg_len))
        return TCP_DROP_NONE;
    /* Who has filled the window sends its ACKs from the edge, though a part of what filled it is missing here.  That part may have been
     * dropped for want of room, which there is not again before the ACK and its window have been heard. */
    if (seg_len == 0 && !rst && seg->seq == t->rcv_adv)
        return TCP_DROP_NONE;
    if (rst)
        return TCP_DROP_OUT_OF_WINDOW;
    if (seg->payload_len != 0 || (seg->flags & TCP_FIN)) {
        if (seg->payload_len != 0 && seq_leq(seg->seq + seg->payload_len, t->rcv_nxt))
            sack_note_duplicate(s, t, seg->seq, seg->seq + seg->payload_len);
        tcb_owe(s, t, OWE_ACK);
    } else {
        ack_limited(s, t, in->now_us); /* keepalive probes of all peers among them */
    }
    return TCP_DROP_OUT_OF_WINDOW;
}

/* Second: RST (RFC 5961 3.2). */
static enum tcp_drop check_rst(struct tcp_stack *s, struct tcb *t, const struct input *in)
{
    if (!(in->seg.flags & TCP_RST))
        return TCP_DROP_NONE;
    if (in->seg.seq != t->rcv_nxt) {
        ack_challenge(s, t, in->now_us);
        return TCP_DROP_CHALLENGED;
    }
    s->counters.resets_received++;
    s->counters.connections_reset++;
    tcb_end(s, t, (t->flags & TCB_ACTIVE) && t->state == TCP_STATE_SYN_RECEIVED ? ECONNREFUSED : ECONNRESET);
    return TCP_DROP_NONE;
}

/* Fourth: SYN (RFC 5961 4.2). */
static enum tcp_drop check_syn(struct tcp_stack *s, struct tcb *t, struct input *in)
{
    if (!(in->seg.flags & TCP_SYN))
        return TCP_DROP_NONE;
    ack_challenge(s, t, in->now_us);
    return TCP_DROP_CHALLENGED;
}

static void note_timestamp(struct tcb *t, const struct input *in)
{
    const struct tcp_segment *seg = &in->seg;

    if (!(t->flags & TCB_TIMESTAMPS) || !(seg->options.present & TCP_OPTION_TIMESTAMPS))
        return;
    if (seq_leq(seg->seq, t->last_ack_sent) && seq_geq(seg->options.tsval, t->ts_recent)) {
        t->ts_recent = seg->options.tsval;
        t->ts_recent_age_ms = stack_now_ms(in->now_us);
    } else if (seq_leq(seg->seq, t->last_ack_sent) && !is_old_timestamp(t, in)) {
        t->ts_recent = seg->options.tsval; /* 24 days old: the stored one says nothing any more */
        t->ts_recent_age_ms = stack_now_ms(in->now_us);
    }
}

/* The ACK that a received text deserves (RFC 9293 3.8.6.3, RFC 5681 4.2): what is more than a full segment does not
 * wait, or a peer that has sent all probes for its tail (RFC 8985 7.2) before the delay is over.  Without SACK the peer
 * counts duplicate ACKs, so each segment out of order in a batch has its own. */
void input_owe_ack(struct tcp_stack *s, struct tcb *t, const struct input *in, bool in_order)
{
    struct tcb_ext *e = stack_ext(s, t);

    if (e != NULL && (t->owe & OWE_ACK) && !(t->flags & TCB_SACK) && seq_gt(in->seg.seq, t->rcv_nxt) &&
        e->more_acks < MORE_ACKS_MAX)
        e->more_acks++;
    if ((t->flags & TCB_QUICK_ACK) && ++t->validated_s >= s->config.quick_acks) {
        t->flags &= ~(uint32_t)TCB_QUICK_ACK;
        t->validated_s = 0;
        tcb_owe(s, t, OWE_ACK);
    }
    if (e == NULL || !in_order || !reasm_is_empty(&e->reasm) || (t->flags & TCB_QUICK_ACK)) {
        tcb_owe(s, t, OWE_ACK);
    } else if (t->rcv_nxt - t->last_ack_sent > e->rmss) {
        tcb_owe(s, t, OWE_ACK);
        if (!e->rcv_round || seq_geq(t->rcv_nxt, e->rcv_mark))
            window_round(s, t, e, in->now_us);
    } else if (e->ack_deadline == 0)
        e->ack_deadline = stack_deadline(in->now_us, DELAYED_ACK_US);
}

/* Seventh: text.  Trims to the window. */
static enum tcp_drop process_text(struct tcp_stack *s, struct tcb *t, struct input *in)
{
    struct tcp_segment *seg = &in->seg;
    uint32_t wnd = t->rcv_adv - t->rcv_nxt;
    bool had_hole = stack_ext(s, t) != NULL && !reasm_is_empty(&stack_ext(s, t)->reasm);
    uint32_t rcv_nxt = t->rcv_nxt;
    enum tcp_drop drop;

    if (seg->payload_len == 0)
        return TCP_DROP_NONE;
    if (seq_lt(seg->seq, t->rcv_nxt)) {
        uint32_t old = t->rcv_nxt - seg->seq;

        sack_note_duplicate(s, t, seg->seq, seg->seq + (old < seg->payload_len ? old : seg->payload_len));
        if (old >= seg->payload_len) {
            tcb_owe(s, t, OWE_ACK);
            seg->seq += seg->payload_len;
            seg->payload_len = 0;
            return TCP_DROP_DUPLICATE;
        }
        seg->seq += old;
        seg->payload_len -= old;
        in->data += old;
    }
    if (seg->seq - t->rcv_nxt + seg->payload_len > wnd) {
        seg->payload_len = wnd - (seg->seq - t->rcv_nxt);
        seg->flags &= (uint8_t)~TCP_FIN;
        if (seg->payload_len == 0)
            return TCP_DROP_OUT_OF_WINDOW;
    }
    drop = rxq_add(s, t, in);
    if (drop == TCP_DROP_NONE)
        input_owe_ack(s, t, in, seg->seq == rcv_nxt && !had_hole);
    else
        tcb_owe(s, t, OWE_ACK);
    if (drop == TCP_DROP_DUPLICATE)
        sack_note_duplicate(s, t, seg->seq, seg->seq + seg->payload_len);
    return drop;
}

void input_take_fin(struct tcp_stack *s, struct tcb *t, uint64_t now_us)
{
    t->flags &= ~(uint32_t)TCB_FIN_AHEAD;
    t->flags |= TCB_FIN_RECEIVED;
    t->rcv_nxt++;
    t->rcv_adv = seq_max(t->rcv_adv, t->rcv_nxt);
    tcb_owe(s, t, OWE_ACK);
    tcb_event(s, t, TCP_EVENT_READABLE);
    switch (t->state) {
    case TCP_STATE_ESTABLISHED:
        tcb_set_state(s, t, TCP_STATE_CLOSE_WAIT);
        break;
    case TCP_STATE_FIN_WAIT_1:
        tcb_set_state(s, t, TCP_STATE_CLOSING);
        break;
    case TCP_STATE_FIN_WAIT_2:
        time_wait_enter(s, t, now_us);
        break;
    default:
        break;
    }
}

/* Eighth: FIN. */
static enum tcp_drop process_fin(struct tcp_stack *s, struct tcb *t, const struct input *in)
{
    uint32_t fin_seq = in->seg.seq + in->seg.payload_len;
    bool fin = (in->seg.flags & TCP_FIN) != 0, ahead;
    struct tcb_ext *e = stack_ext(s, t);

    if (fin && seq_gt(fin_seq, t->rcv_nxt) && (e = tcb_borrow_ext(s, t)) != NULL) {
        t->flags |= TCB_FIN_AHEAD;
        e->fin_seq = fin_seq;
        e->fin_tsval = in->seg.options.tsval;
        tcb_owe(s, t, OWE_ACK);
    }
    ahead = (t->flags & TCB_FIN_AHEAD) && e->fin_seq == t->rcv_nxt;
    if (!(fin && fin_seq == t->rcv_nxt) && !ahead)
        return TCP_DROP_NONE;
    if (ahead && (t->flags & TCB_TIMESTAMPS))
        t->ts_recent = seq_max(t->ts_recent, e->fin_tsval); /* TIME-WAIT asks for the last one seen (RFC 6191 2) */
    input_take_fin(s, t, in->now_us);
    return TCP_DROP_NONE;
}

enum tcp_drop input_text_and_fin(struct tcp_stack *s, struct tcb *t, struct input *in)
{
    enum tcp_drop drop = TCP_DROP_NONE;
    uint32_t end = in->seg.seq + in->seg.payload_len;

    if (state_can_receive(t->state)) {
        if ((t->flags & TCB_ORPHAN) && in->seg.payload_len != 0 && seq_gt(end, t->rcv_nxt)) {
            tcb_reset(s, t, ECONNRESET); /* RFC 9293 3.6.1: nobody will read it */
            return TCP_DROP_AFTER_CLOSE;
        }
        drop = process_text(s, t, in);
        if (drop == TCP_DROP_NONE || drop == TCP_DROP_DUPLICATE)
            process_fin(s, t, in);
    } else if (in->seg.payload_len != 0 || (in->seg.flags & TCP_FIN)) {
        tcb_owe(s, t, OWE_ACK); /* sent again, since FIN has been received */
        drop = TCP_DROP_DUPLICATE;
    }
    return drop;
}

/* What the acknowledgment of our FIN ends. */
static bool end_by_ack(struct tcp_stack *s, struct tcb *t, uint64_t now_us)
{
    if (!(t->flags & TCB_FIN_SENT) || t->snd_una != t->snd_nxt)
        return false;
    if (t->state == TCP_STATE_CLOSING) {
        time_wait_enter(s, t, now_us);
        return true;
    }
    if (t->state == TCP_STATE_LAST_ACK) {
        tcb_end(s, t, 0);
        return true;
    }
    return false;
}

enum tcp_drop input_synchronized(struct tcp_stack *s, struct tcb *t, struct input *in)
{
    enum tcp_drop drop = check_sequence(s, t, in);

    s->counters.urgent_segments += (in->seg.flags & TCP_URG) != 0;
    if (drop == TCP_DROP_NONE) {
        drop = check_rst(s, t, in);
        if (!state_is_open(t->state))
            return drop;
    }
    if (drop == TCP_DROP_NONE)
        drop = check_syn(s, t, in);
    if (drop == TCP_DROP_NONE && !(in->seg.flags & TCP_ACK))
        drop = TCP_DROP_BAD_FLAGS;
    if (drop == TCP_DROP_NONE && t->state == TCP_STATE_SYN_RECEIVED)
        drop = connect_acknowledged(s, t, in);
    if (drop == TCP_DROP_NONE) {
        timers_heard(s, t, in->now_us);
        note_timestamp(t, in);
        if (t->flags & TCB_ECN)
            ecn_received(s, t, in);
        if (in->seg.options.present & TCP_OPTION_USER_TIMEOUT)
            settings_heed(s, t, &in->seg.options);
        drop = ack_process(s, t, in);
    }
    if (drop != TCP_DROP_NONE || end_by_ack(s, t, in->now_us))
        return drop;
    if ((in->seg.flags & TCP_URG) && state_can_receive(t->state))
        rxq_urgent(s, t, &in->seg);
    return input_text_and_fin(s, t, in);
}

static enum tcp_drop input_tcb(struct tcp_stack *s, struct tcb *t, struct input *in)
{
    enum tcp_drop drop = TCP_DROP_NONE;

    if (predict_input(s, t, in, &drop))
        ;
    else if (t->state == TCP_STATE_SYN_SENT)
        drop = connect_input(s, t, in);
    else {
        if (t->state == TCP_STATE_SYN_RECEIVED)
            connect_strip_syn(t, &in->seg);
        drop = input_synchronized(s, t, in);
    }
    if (state_is_open(t->state)) {
        tcb_return_ext(s, t);
        timers_update(s, t);
    }
    return drop;
}

/* stack_handle_is_flow(), of a TCB. */
static inline bool is_tcb_of(const struct tcp_stack *s, uint32_t handle, const struct input *in)
{
    const struct tcb *t;
    uint32_t ports, wanted;

    if (handle_kind(handle) != HANDLE_TCB) /* TABLE_NONE is of no kind */
        return false;
    t = stack_tcb(s, handle_index(handle));
    memcpy(&ports, &t->lport, sizeof ports); /* and rport */
    memcpy(&wanted, &in->flow.lport, sizeof wanted);
    return ports == wanted && t->laddr_index == in->laddr_index && ip_addr_equal(&t->raddr, &in->flow.raddr);
}

uint32_t input_find(const struct tcp_stack *s, const struct input *in)
{
    struct table_cursor cursor;
    uint32_t handle = table_first(&s->table, in->hash, &cursor);

    while (handle != TABLE_NONE && !is_tcb_of(s, handle, in) &&
           (handle_kind(handle) == HANDLE_TCB || !stack_handle_is_flow(s, handle, &in->flow)))
        handle = table_next(&s->table, &cursor);
    return handle;
}

/* The connection that handle stands for is in's: it was found a moment ago, and packets that have come since may have ended it. */
static inline bool is_still_tcb(const struct tcp_stack *s, uint32_t handle, const struct input *in)
{
    return is_tcb_of(s, handle, in) && (stack_tcb(s, handle_index(handle))->flags & TCB_IN_TABLE) != 0;
}

/* What is not found at once, or has no TCB.  found: as in dispatch(). */
static enum tcp_drop dispatch_rest(struct tcp_stack *s, struct input *in, uint32_t found)
{
    bool still = found != TABLE_NONE && flows_of(s, found) != 0 && stack_handle_is_flow(s, found, &in->flow);
    uint32_t handle = still ? found : input_find(s, in);

    if (handle == TABLE_NONE)
        return listen_input(s, in);
    switch (handle_kind(handle)) {
    case HANDLE_TCB:
        return input_tcb(s, stack_tcb(s, handle_index(handle)), in);
    case HANDLE_HALF_OPEN:
        return half_open_input(s, handle_index(handle), in);
    default:
        return time_wait_input(s, handle_index(handle), in);
    }
}

/* found: what was the first under the packet's hash a moment ago, or TABLE_NONE. */
static inline enum tcp_drop dispatch(struct tcp_stack *s, struct input *in, uint32_t found)
{
    if (found == TABLE_NONE) {
        const struct table_bucket *home = &s->table.buckets[table_home(&s->table, in->hash)];

        found = table_first_in(home, in->hash);
        if (found == TABLE_NONE && !table_overflows(home)) /* as for a SYN */
            return listen_input(s, in);
    }
    return is_still_tcb(s, found, in) ? input_tcb(s, stack_tcb(s, handle_index(found)), in)
                                      : dispatch_rest(s, in, found);
}

__attribute__((noinline)) static enum tcp_drop input_one(struct tcp_stack *s, const struct tcp_packet *packet,
                                                         uint64_t now_us, uint32_t found)
{
    struct input in; /* parse_packet() fills the rest */
    enum tcp_drop drop = TCP_DROP_MALFORMED;

    s->counters.segments_received++;
    if (packet->slot >= s->config.rx_slots) {
        s->counters.dropped[drop]++;
        return drop;
    }
    in.slot = packet->slot;
    in.now_us = now_us;
    in.taken = false;
    if (packet->offset + packet->len <= TCP_SLOT_BYTES)
        drop = parse_packet(s, packet, &in);
    if (drop == TCP_DROP_NONE)
        drop = dispatch(s, &in, found);
    else if (drop == PARSE_NOT_TCP)
        drop = icmp_input(s, packet, now_us);
    if (!in.taken)
        s->env.rx_release(s->env.context, packet->slot);
    if (drop != TCP_DROP_NONE)
        s->counters.dropped[drop]++;
    return drop;
}

enum tcp_drop tcp_input(struct tcp_stack *s, const struct tcp_packet *packet, uint64_t now_us)
{
    s->now_us = now_us;
    return input_one(s, packet, now_us, TABLE_NONE);
}

/* --- many at a time --- */

enum { BATCH = 64 };

/* The block that handle stands for: a TCB's two lines; the other blocks may cross into a second one. */
static void prefetch_block(const struct tcp_stack *s, uint32_t handle)
{
    const uint8_t *block;

    if (handle_kind(handle) == HANDLE_TCB)
        block = (const uint8_t *)stack_tcb(s, handle_index(handle));
    else
        block = slab_at(handle_kind(handle) == HANDLE_HALF_OPEN ? &s->half_open : &s->time_wait, handle_index(handle));
    __builtin_prefetch(block);
    __builtin_prefetch(block + 64);
}

/* What a packet of a connection with data under way reads of the extension. */
static void prefetch_ext(const struct tcb_ext *e)
{
    __builtin_prefetch(e);
    __builtin_prefetch((const uint8_t *)e + 64);
    __builtin_prefetch((const uint8_t *)e + 128);
}

/* Buckets of the table, then the connections' blocks that they name, then what those name, each a pass. */
static void look_ahead(const struct tcp_stack *s, const struct tcp_packet *packets, uint32_t count, uint32_t *handles)
{
    const struct table_bucket *homes[BATCH];

    for (uint32_t i = 0; i < count; i++) {
        homes[i] = &s->table.buckets[table_home(&s->table, packets[i].hash)];
        __builtin_prefetch(homes[i]);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (i != 0 && packets[i].hash == packets[i - 1].hash) {
            handles[i] = handles[i - 1];
            continue;
        }
        handles[i] = packets[i].has_hash ? table_first_in(homes[i], packets[i].hash) : TABLE_NONE;
        if (handles[i] != TABLE_NONE)
            prefetch_block(s, handles[i]);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (handles[i] != TABLE_NONE && handle_kind(handles[i]) == HANDLE_TCB) {
            const struct tcb_ext *e = stack_ext(s, stack_tcb(s, handle_index(handles[i])));

            if (e != NULL)
                prefetch_ext(e);
        }
    }
}

void tcp_input_batch(struct tcp_stack *s, const struct tcp_packet *packets, uint32_t count, uint64_t now_us)
{
    uint32_t handles[BATCH];

    if (count == 1) { /* nothing is ahead */
        tcp_input(s, packets, now_us);
        return;
    }
    s->now_us = now_us;
    for (uint32_t done = 0, n; done < count; done += n) {
        n = count - done < BATCH ? count - done : BATCH;
        look_ahead(s, packets + done, n, handles);
        for (uint32_t i = 0; i < n; i++) {
            const struct tcp_packet *packet = &packets[done + i];

            if (input_one(s, packet, now_us, handles[i]) == TCP_DROP_NONE && i + 1 < n &&
                packet[1].hash == packet->hash && handles[i] != TABLE_NONE && handle_kind(handles[i]) == HANDLE_TCB)
                i += run_take(s, stack_tcb(s, handle_index(handles[i])), packet, n - i);
        }
    }
}
