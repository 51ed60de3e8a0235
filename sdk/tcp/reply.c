/*
 * reply.c: the ring of replies.
 */
#include "tcp/reply.h"

#include "tcp/build.h"
#include "tcp/settings.h"

/* A batch that asks twice in a row for the same is answered once. */
static bool is_same(const struct reply *r, const struct flow *flow, uint8_t laddr_index, uint8_t flags, uint32_t seq,
                    uint32_t ack)
{
    return r->seq == seq && r->ack == ack && r->flags == flags && r->laddr_index == laddr_index &&
           r->rport == flow->rport && r->lport == flow->lport && ip_addr_equal(&r->raddr, &flow->raddr);
}

struct reply *reply_add(struct tcp_stack *s, const struct flow *flow, uint8_t laddr_index, uint8_t settings,
                        uint8_t flags, uint32_t seq, uint32_t ack)
{
    const struct tcp_settings *values = &s->settings[settings].values;
    struct reply *r = &s->replies[(s->reply_first + s->reply_count - 1) % REPLIES_MAX];

    if (s->reply_count == 0 || !is_same(r, flow, laddr_index, flags, seq, ack)) {
        if (s->reply_count == REPLIES_MAX)
            return NULL;
        r = &s->replies[(s->reply_first + s->reply_count++) % REPLIES_MAX];
    }
    r->raddr = flow->raddr;
    r->rport = flow->rport;
    r->lport = flow->lport;
    r->seq = seq;
    r->ack = ack;
    r->wnd = 0;
    r->laddr_index = laddr_index;
    r->flags = flags;
    r->tos = settings_tos(values);
    r->ttl = values->ttl;
    r->options.present = r->options.sack_count = 0; /* the rest says nothing then */
    return r;
}

void reply_reset(struct tcp_stack *s, const struct input *in)
{
    const struct tcp_segment *seg = &in->seg;
    struct reply *r;

    if (seg->flags & TCP_RST)
        return;
    if (seg->flags & TCP_ACK) {
        r = reply_add(s, &in->flow, in->laddr_index, 0, TCP_RST, seg->ack, 0);
    } else {
        uint32_t seg_len = seg->payload_len + !!(seg->flags & TCP_SYN) + !!(seg->flags & TCP_FIN);

        r = reply_add(s, &in->flow, in->laddr_index, 0, TCP_RST | TCP_ACK, 0, seg->seq + seg_len);
    }
    s->counters.resets_sent += r != NULL;
}

enum sent reply_send_all(struct tcp_stack *s, uint32_t *sent)
{
    while (s->reply_count != 0) {
        const struct reply *r = &s->replies[s->reply_first];
        struct build b = {
            .laddr = &s->addresses[r->laddr_index],
            .raddr = &r->raddr,
            .lport = r->lport,
            .rport = r->rport,
            .seq = r->seq,
            .ack = r->ack,
            .wnd = r->wnd,
            .flags = r->flags,
            .tos = r->tos,
            .ttl = r->ttl,
            .options = &r->options,
        };
        enum sent result = output_control(s, &b);

        if (result != SENT)
            return result;
        ++*sent;
        s->reply_first = (s->reply_first + 1) % REPLIES_MAX;
        s->reply_count--;
    }
    return SENT;
}
