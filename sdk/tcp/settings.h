/*
 * settings.h: how a connection behaves, kept once for all connections that behave alike.
 *
 * A row has one byte for it: an index into the stack's table, which counts the users of each entry.  Entry 0 is the stack's default and
 * always there.
 */
#ifndef TCP_SETTINGS_H
#define TCP_SETTINGS_H

#include "tcp/stack.h"

enum {
    KEEPALIVE_INTERVAL_MS = 75000,
    KEEPALIVE_PROBES = 9,
    KEEPALIVE_PROBES_MAX = 15, /* what tcb.unanswered can count */
    DSCP_MAX = 63,
    USER_TIMEOUT_DEFAULT_MS = 300000, /* RFC 9293 3.9.1.2; advertised when the user has set none */
    USER_TIMEOUT_LOW_MS = 100000,     /* RFC 5482 3.1: L_LIMIT, U_LIMIT of what a peer may ask for */
    USER_TIMEOUT_HIGH_MS = 3600000,
};

void settings_init(struct tcp_stack *s);

/* Takes the entry for these settings; -EINVAL, or -ENOSPC when the table is full of others. */
int settings_take(struct tcp_stack *s, const struct tcp_settings *settings);

static inline void settings_share(struct tcp_stack *s, uint8_t index)
{
    s->settings[index].users++;
}

static inline void settings_give(struct tcp_stack *s, uint8_t index)
{
    s->settings[index].users--;
}

static inline const struct tcp_settings *settings_of(const struct tcp_stack *s, const struct tcb *t)
{
    return &s->settings[t->settings].values;
}

/* The Differentiated Services field, without ECN's bits. */
static inline uint8_t settings_tos(const struct tcp_settings *settings)
{
    return (uint8_t)(settings->dscp << 2);
}

static inline const struct tcp_cc_ops *settings_cc(const struct tcp_stack *s, const struct tcb *t)
{
    return s->settings[t->settings].cc;
}

/* The extension was borrowed, or its congestion control is another one; its state is zero. */
void settings_start_cc(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e);

/* The user timeout in force (RFC 5482 3.1); 0: none, the count of retransmissions decides. */
uint32_t settings_user_timeout_ms(const struct tcp_stack *s, const struct tcb *t);

/* The peer's User Timeout Option (RFC 5482 3.1). */
void settings_heed(const struct tcp_stack *s, struct tcb *t, const struct tcp_options *options);

/* Adds the User Timeout Option if these settings advertise one (RFC 5482 3). */
void settings_advertise(const struct tcp_settings *settings, struct tcp_options *options);

#endif
