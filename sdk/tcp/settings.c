/*
 * settings.c: the table of settings, and the user timeout (RFC 5482).
 */
#include "tcp/settings.h"

#include "tcp/ecn.h"
#include "tcp/rate.h"
#include "tcp/state.h"
#include "tcp/timers.h"

#include <errno.h>

enum {
    OPTION_IN_MINUTES = 0x8000,
    OPTION_MAX = 0x7fff,
    REMOTE_EXPONENT_MAX = 15,
};

void settings_init(struct tcp_stack *s)
{
    s->settings[0] = (struct settings){
        .values = {.congestion_control = s->config.congestion_control,
                   .keepalive_probes = KEEPALIVE_PROBES,
                   .ttl = IP_TTL,
                   .keepalive_interval_ms = KEEPALIVE_INTERVAL_MS},
        .cc = cc_ops(s->config.congestion_control),
        .users = 1,
    };
}

static bool are_equal(const struct tcp_settings *a, const struct tcp_settings *b)
{
    return a->congestion_control == b->congestion_control && a->keepalive_probes == b->keepalive_probes &&
           a->dscp == b->dscp && a->ttl == b->ttl && a->user_timeout_option == b->user_timeout_option &&
           a->keepalive_ms == b->keepalive_ms && a->keepalive_interval_ms == b->keepalive_interval_ms &&
           a->user_timeout_ms == b->user_timeout_ms;
}

int settings_take(struct tcp_stack *s, const struct tcp_settings *settings)
{
    int unused = -ENOSPC;

    if (cc_ops(settings->congestion_control) == NULL || settings->keepalive_probes == 0 ||
        settings->keepalive_probes > KEEPALIVE_PROBES_MAX || settings->dscp > DSCP_MAX || settings->ttl == 0 ||
        settings->keepalive_interval_ms == 0 || settings->keepalive_ms > INT32_MAX ||
        settings->keepalive_interval_ms > INT32_MAX || settings->user_timeout_ms > INT32_MAX)
        return -EINVAL;
    for (int i = 0; i < SETTINGS_MAX; i++) {
        if (s->settings[i].users == 0) {
            unused = unused < 0 ? i : unused;
        } else if (are_equal(&s->settings[i].values, settings)) {
            s->settings[i].users++;
            return i;
        }
    }
    if (unused >= 0)
        s->settings[unused] =
            (struct settings){.values = *settings, .cc = cc_ops(settings->congestion_control), .users = 1};
    return unused;
}

void settings_start_cc(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e)
{
    const struct tcp_cc_ops *cc = settings_cc(s, t);

    e->rated = false;
    if (cc->recall != NULL)
        cc->recall(&e->cc, t->cc_memory);
    if (cc->rated)
        rate_start(s, t, e);
}

/* A peer's timeout in one byte, rounded up: (16 + low four bits) << high four, in seconds; 0: none. */
static uint32_t remote_s(uint8_t code)
{
    return (16u + (code & 15u)) << (code >> 4);
}

static uint8_t remote_code(uint32_t seconds)
{
    uint32_t code = 1;

    while (code < UINT8_MAX && remote_s((uint8_t)code) < seconds)
        code++;
    return (uint8_t)code;
}

uint32_t settings_user_timeout_ms(const struct tcp_stack *s, const struct tcb *t)
{
    const struct tcp_settings *settings = settings_of(s, t);
    uint64_t ms;

    if (settings->user_timeout_ms != 0 || !settings->user_timeout_option || t->remote_user_timeout == 0)
        return settings->user_timeout_ms;
    ms = remote_s(t->remote_user_timeout) * UINT64_C(1000);
    ms = ms > USER_TIMEOUT_DEFAULT_MS ? ms : USER_TIMEOUT_DEFAULT_MS; /* max of both sides' */
    return ms < USER_TIMEOUT_HIGH_MS ? (uint32_t)ms : USER_TIMEOUT_HIGH_MS;
}

void settings_heed(const struct tcp_stack *s, struct tcb *t, const struct tcp_options *options)
{
    uint32_t value = options->user_timeout & OPTION_MAX;

    if (value == 0 || !settings_of(s, t)->user_timeout_option)
        return;
    t->remote_user_timeout = remote_code(options->user_timeout & OPTION_IN_MINUTES ? value * 60 : value);
}

void settings_advertise(const struct tcp_settings *settings, struct tcp_options *options)
{
    uint32_t seconds =
        ((settings->user_timeout_ms != 0 ? settings->user_timeout_ms : USER_TIMEOUT_DEFAULT_MS) + 999) / 1000;

    if (!settings->user_timeout_option)
        return;
    options->present |= TCP_OPTION_USER_TIMEOUT;
    options->user_timeout =
        (uint16_t)(seconds <= OPTION_MAX ? seconds : OPTION_IN_MINUTES | ((seconds + 59) / 60 & OPTION_MAX));
}

/* --- the user's calls --- */

int tcp_cc_by_name(const char *name)
{
    const struct tcp_cc_ops *ops;

    for (uint8_t i = 0; (ops = cc_ops(i)) != NULL; i++)
        if (strcmp(name, ops->name) == 0)
            return i;
    return -1;
}

void tcp_default_settings(const struct tcp_stack *s, struct tcp_settings *settings)
{
    *settings = s->settings[0].values;
}

void tcp_get_settings(const struct tcp_stack *s, uint32_t conn, struct tcp_settings *settings)
{
    *settings = *settings_of(s, stack_tcb(s, conn));
}

static void apply(struct tcp_stack *s, struct tcb *t, const struct tcp_settings *before)
{
    const struct tcp_settings *now = settings_of(s, t);
    struct tcb_ext *e = stack_ext(s, t);

    if (now->congestion_control != before->congestion_control) {
        t->cc_memory = 0;
        if (e != NULL) {
            e->cc = (struct cc_state){0};
            settings_start_cc(s, t, e);
        }
        if (t->state == TCP_STATE_SYN_SENT && t->backoff == 0 && (t->owe & OWE_SYN)) {
            t->flags &= ~(uint32_t)TCB_ECT;
            t->flags |= ecn_is_asked(s, now->congestion_control) ? TCB_ECT : 0;
        }
    }
    if (now->keepalive_ms != before->keepalive_ms) {
        t->idle_deadline = now->keepalive_ms != 0 ? stack_deadline(s->now_us, now->keepalive_ms * UINT64_C(1000)) : 0;
        timers_update(s, t);
    }
    if (now->user_timeout_option && state_is_synchronized(t->state)) {
        t->flags |= TCB_TELL_USER_TIMEOUT;
        tcb_owe(s, t, OWE_ACK);
    }
}

int tcp_set_settings(struct tcp_stack *s, uint32_t conn, const struct tcp_settings *settings)
{
    struct tcb *t = stack_tcb(s, conn);
    struct tcp_settings before = *settings_of(s, t);
    int index = settings_take(s, settings);

    if (index < 0)
        return index;
    settings_give(s, t->settings);
    t->settings = (uint8_t)index;
    if (state_is_open(t->state))
        apply(s, t, &before);
    return 0;
}

int tcp_set_keepalive(struct tcp_stack *s, uint32_t conn, uint32_t idle_ms)
{
    struct tcp_settings settings;

    tcp_get_settings(s, conn, &settings);
    settings.keepalive_ms = idle_ms < INT32_MAX ? idle_ms : INT32_MAX;
    return tcp_set_settings(s, conn, &settings);
}
