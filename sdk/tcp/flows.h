/*
 * flows.h: the place of each flow in the table, with its hash in a column that the balancer walks, and what the balancer is asked.
 *
 *   columns, in walking order: | half-open blocks | TCB rows | TIME-WAIT blocks |     0: nobody's
 *
 * A flow goes through its blocks in that order, so a walk that has passed a flow has seen it.  What is created anew asks
 * env->may_create first, and a segment that belongs to nobody asks env->miss how to be answered; both may be null.
 */
#ifndef TCP_FLOWS_H
#define TCP_FLOWS_H

#include "tcp/stack.h"

static inline uint64_t flows_hash(const struct tcp_stack *s, const struct flow *flow)
{
    return csb_hash(&s->config.flow_secret, flow);
}

/* Of a segment's flow: the low half may lie behind its packet. */
static inline uint64_t flows_hash_of(const struct tcp_stack *s, const struct input *in)
{
    const struct tcp_packet *packet = in->packet;
    uint32_t end = packet->offset + (uint32_t)packet->len, low;

    if (!packet->has_low || !packet->has_hash || end + sizeof low > TCP_SLOT_BYTES)
        return flows_hash(s, &in->flow);
    memcpy(&low, packet->ip + packet->len, sizeof low);
    return (uint64_t)in->hash << 32 | low;
}

/* The hash of the flow of handle, which is in the table. */
static inline uint64_t flows_of(const struct tcp_stack *s, uint32_t handle)
{
    return s->flows[handle_kind(handle)][handle_index(handle)];
}

/* False: the table has no room. */
bool flows_add(struct tcp_stack *s, uint64_t hash, uint32_t handle);
void flows_remove(struct tcp_stack *s, uint32_t handle);
/* The flow of handle is new_handle's from now on. */
void flows_replace(struct tcp_stack *s, uint32_t handle, uint32_t new_handle);

/* Whether a flow may begin here. */
static inline bool flows_may_create(const struct tcp_stack *s, uint64_t hash)
{
    return s->env.may_create == NULL || s->env.may_create(s->env.context, hash);
}

/* Answers a segment without a connection: by RST, or by silence when the balancer knows better or it is to be spared.  Why it is
 * dropped. */
enum tcp_drop flows_miss(struct tcp_stack *s, const struct input *in, bool spared);

#endif
