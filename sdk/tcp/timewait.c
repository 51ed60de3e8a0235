/*
 * timewait.c: TIME-WAIT.
 */
#include "tcp/timewait.h"

#include "tcp/flows.h"
#include "tcp/isn.h"
#include "tcp/listen.h"
#include "tcp/reply.h"
#include "tcp/seq.h"
#include "tcp/settings.h"
#include "tcp/window.h"

enum { REOPEN_MS = 1000 }; /* after the last that was sent, as kernels have it */

static struct time_wait *at(const struct tcp_stack *s, uint32_t index)
{
    return slab_at(&s->time_wait, index);
}

void time_wait_flow(const struct tcp_stack *s, const struct time_wait *w, struct flow *flow)
{
    *flow = (struct flow){s->addresses[w->laddr_index], w->raddr, w->lport, w->rport};
}

static void enqueue(struct tcp_stack *s, uint32_t index, uint64_t now_us)
{
    struct block_queue *queue = &s->time_wait_queue;
    struct time_wait *w = at(s, index);

    w->deadline = stack_deadline(now_us, UINT64_C(2000) * s->config.msl_ms);
    w->next = BLOCK_NONE;
    w->prev = queue->last;
    if (queue->last == BLOCK_NONE)
        queue->first = index;
    else
        at(s, queue->last)->next = index;
    queue->last = index;
}

static void dequeue(struct tcp_stack *s, uint32_t index)
{
    struct block_queue *queue = &s->time_wait_queue;
    struct time_wait *w = at(s, index);

    if (w->prev == BLOCK_NONE)
        queue->first = w->next;
    else
        at(s, w->prev)->next = w->next;
    if (w->next == BLOCK_NONE)
        queue->last = w->prev;
    else
        at(s, w->next)->prev = w->prev;
}

static void block_free(struct tcp_stack *s, uint32_t index)
{
    flows_remove(s, handle_make(HANDLE_TIME_WAIT, index));
    settings_give(s, at(s, index)->settings);
    dequeue(s, index);
    slab_give(&s->time_wait, index);
}

static void reply_ack(struct tcp_stack *s, const struct time_wait *w, uint64_t now_us)
{
    struct reply *r;
    struct flow flow;

    time_wait_flow(s, w, &flow);
    r = reply_add(s, &flow, w->laddr_index, w->settings, TCP_ACK, w->snd_nxt, w->rcv_nxt);
    if (r == NULL)
        return;
    r->wnd = w->wnd;
    if (w->timestamps) {
        uint32_t handle = handle_make(HANDLE_TIME_WAIT, (uint32_t)(w - at(s, 0)));
        struct isn_offsets offsets = isn_offsets(&s->secret, flows_of(s, handle));

        r->options.present = TCP_OPTION_TIMESTAMPS;
        r->options.tsval = isn_tsval(&offsets, now_us);
        r->options.tsecr = w->ts_recent;
    }
}

void time_wait_enter(struct tcp_stack *s, struct tcb *t, uint64_t now_us)
{
    bool owes_ack = (t->owe & OWE_ACK) != 0;
    struct time_wait *w;
    uint32_t index;

    if (slab_available(&s->time_wait) == 0)
        block_free(s, s->time_wait_queue.first);
    index = slab_take(&s->time_wait);
    w = at(s, index);
    *w = (struct time_wait){
        .raddr = t->raddr,
        .rport = t->rport,
        .lport = t->lport,
        .snd_nxt = t->snd_nxt,
        .rcv_nxt = t->rcv_nxt,
        .ts_recent = t->ts_recent,
        .wnd = (uint16_t)((t->rcv_adv - t->rcv_nxt) >> window_rcv_shift(s, t)),
        .laddr_index = t->laddr_index,
        .timestamps = (t->flags & TCB_TIMESTAMPS) != 0,
        .settings = t->settings,
    };
    settings_share(s, w->settings);
    enqueue(s, index, now_us);
    flows_replace(s, handle_make(HANDLE_TCB, stack_index(s, t)), handle_make(HANDLE_TIME_WAIT, index));
    t->flags &= ~(uint32_t)TCB_IN_TABLE;
    if (owes_ack)
        reply_ack(s, w, now_us);
    tcb_set_state(s, t, TCP_STATE_TIME_WAIT);
    t->owe = 0;
    s->counters.connections_closed++;
    if (t->flags & TCB_ORPHAN)
        tcb_free(s, t);
    else
        tcb_detach(s, t, true);
}

/* RFC 6191 2: a SYN that cannot be of the old connection. */
static bool is_new_connection(const struct time_wait *w, const struct tcp_segment *seg)
{
    if ((seg->flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) != TCP_SYN)
        return false;
    if (w->timestamps && (seg->options.present & TCP_OPTION_TIMESTAMPS) && seg->options.tsval != w->ts_recent)
        return seq_gt(seg->options.tsval, w->ts_recent);
    return seq_gt(seg->seq, w->rcv_nxt);
}

enum tcp_drop time_wait_input(struct tcp_stack *s, uint32_t index, struct input *in)
{
    struct time_wait *w = at(s, index);
    const struct tcp_segment *seg = &in->seg;

    if (seg->flags & TCP_RST)
        return TCP_DROP_OUT_OF_WINDOW; /* RFC 1337: it would end the wait */
    if (is_new_connection(w, seg) && listener_find(s, &in->flow.laddr, in->flow.lport) != NULL) {
        uint32_t iss_min = w->snd_nxt + 1;

        if (!flows_may_create(s, flows_hash(s, &in->flow)))
            return TCP_DROP_MOVING; /* the block stays for the next SYN */
        block_free(s, index);
        return listen_syn(s, in, true, iss_min);
    }
    if (seg->payload_len == 0 && !(seg->flags & (TCP_SYN | TCP_FIN)))
        return TCP_DROP_DUPLICATE; /* an answer would answer an answer */
    reply_ack(s, w, in->now_us);
    if ((seg->flags & TCP_FIN) && seg->seq + seg->payload_len + 1 == w->rcv_nxt) {
        dequeue(s, index);
        enqueue(s, index, in->now_us);
        return TCP_DROP_DUPLICATE;
    }
    return TCP_DROP_OUT_OF_WINDOW;
}

bool time_wait_may_reopen(const struct tcp_stack *s, uint32_t index, uint64_t now_us)
{
    const struct time_wait *w = at(s, index);
    uint32_t began_ms = w->deadline - 2 * s->config.msl_ms;

    return w->timestamps && seq_geq(stack_now_ms(now_us), began_ms + REOPEN_MS);
}

uint32_t time_wait_reopen(struct tcp_stack *s, uint32_t index)
{
    uint32_t snd_nxt = at(s, index)->snd_nxt;

    block_free(s, index);
    return snd_nxt + 1;
}

void time_wait_advance(struct tcp_stack *s, uint64_t now_us)
{
    while (s->time_wait_queue.first != BLOCK_NONE && stack_is_due(at(s, s->time_wait_queue.first)->deadline, now_us))
        block_free(s, s->time_wait_queue.first);
}
