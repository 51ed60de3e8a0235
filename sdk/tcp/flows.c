/*
 * flows.c: table and columns in step.
 */
#include "tcp/flows.h"

#include "tcp/isn.h"
#include "tcp/reply.h"

enum { SETTLING_US = 1000000 }; /* a client sends again what was dropped, and nothing but that */

static uint64_t *cell(const struct tcp_stack *s, uint32_t handle)
{
    return &s->flows[handle_kind(handle)][handle_index(handle)];
}

bool flows_add(struct tcp_stack *s, uint64_t hash, uint32_t handle)
{
    if (!table_insert(&s->table, csb_table_hash(hash), handle))
        return false;
    *cell(s, handle) = hash;
    return true;
}

void flows_remove(struct tcp_stack *s, uint32_t handle)
{
    uint64_t hash = *cell(s, handle);

    table_remove(&s->table, csb_table_hash(hash), handle);
    *cell(s, handle) = 0;
    if (s->env.ended != NULL)
        s->env.ended(s->env.context, hash);
}

void flows_replace(struct tcp_stack *s, uint32_t handle, uint32_t new_handle)
{
    uint64_t hash = *cell(s, handle);

    table_replace(&s->table, csb_table_hash(hash), handle, new_handle);
    *cell(s, handle) = 0;
    *cell(s, new_handle) = hash;
}

enum tcp_drop flows_miss(struct tcp_stack *s, const struct input *in, bool spared)
{
    bool syn = (in->seg.flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
    enum tcp_miss miss = TCP_MISS_RESET;

    if (s->env.miss != NULL)
        miss = s->env.miss(s->env.context, flows_hash(s, &in->flow));
    if (miss == TCP_MISS_RESET) {
        if (!spared)
            reply_reset(s, in);
        return TCP_DROP_NO_CONNECTION;
    }
    s->counters.misdirected_segments += miss == TCP_MISS_FOREIGN && !syn;
    return TCP_DROP_MOVING;
}

uint32_t tcp_flow_column(const struct tcp_stack *s, uint32_t part, const uint64_t **column)
{
    static const enum handle_kind kinds[TCP_FLOW_COLUMNS] = {HANDLE_HALF_OPEN, HANDLE_TCB, HANDLE_TIME_WAIT};
    const struct slab *slabs[] = {&s->rows, &s->half_open, &s->time_wait};

    *column = s->flows[kinds[part]];
    return slabs[kinds[part]]->fresh;
}

void tcp_expect_cookies(struct tcp_stack *s, uint64_t now_us)
{
    uint64_t until_us = now_us + UINT64_C(2000000) * ISN_COOKIE_PERIOD_S;

    if (until_us > s->cookies_until_us)
        s->cookies_until_us = until_us;
    s->settling_until_us = now_us + SETTLING_US;
}
