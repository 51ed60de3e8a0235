/*
 * stack.h: one share-nothing stack, laid out in the two blocks that tcp_init() was given.
 *
 *   memory: | struct tcp_stack | blocks of the slabs | ext | half_open | time_wait | flows x 3
 *           | TX metadata x 2 | RX metadata x 2 | table | marks of TX slots | models of ext |
 *   rows:   | struct tcb ...                            |
 *
 * The second copy of the slot metadata is where tcp_rebase() renumbers into.  The table maps the flow's hash to a
 * handle: two bits of kind, thirty of index.
 */
#ifndef TCP_STACK_H
#define TCP_STACK_H

#include "csb/hash.h"
#include "tcp/seq.h"
#include "tcp/slab.h"
#include "tcp/table.h"
#include "tcp/tcb.h"
#include "wire/ip.h"
#include "wire/tcp_header.h"

enum {
    HALF_OPEN_RETRIES = 3, /* SYN-ACKs after the first, THREATS' bound on reflection */
    HALF_OPEN_FIRST_MS = 1000,
    REPLIES_MAX = 512,
    LISTENER_BUCKETS = 256,
    PMTU_NOTES = 256,   /* idle connections that will try a former path MTU again */
    OUTPUT_BURST = 16,  /* segments of one connection before the next one has its turn */
    CHALLENGE_MS = 500, /* between challenge ACKs of one connection */
    CHALLENGES_PERIOD_US = 1000000,
    DELAYED_ACK_US = 40000, /* RFC 9293 3.8.6.3: less than 500 ms */
    SMSS_MIN = 64,
    WSCALE_MAX = 14,     /* RFC 7323 2.3 */
    RCV_LEVELS_MAX = 16, /* sizes of a receive buffer, each twice the one before */
    BACKOFF_R1 = 3,      /* R1 of RFC 9293 3.8.3 */
    BACKOFF_MAX = 12,    /* R2 of RFC 9293 3.8.3: over 100 s even from the smallest RTO */
    BACKOFF_KEPT = 4,    /* at most, from one segment to the next */
    BACKOFF_MAX_SYN = 7, /* over 3 minutes */
    BACKOFF_MAX_ORPHAN = 8,
    PERSIST_PATIENCE = 3,   /* probes of a closed window before the pool's need counts: 3 s at the smallest RTO */
    SLOW_MS = 10000,        /* what a peer with a tiny window takes in this time is measured */
    SLOW_BYTES_MIN = 10240, /* and may be less only while nobody needs its slots */
    SETTINGS_MAX = 256,
};

enum { EXT_LINE = 64, EXT_LINES = sizeof(struct tcb_ext) / EXT_LINE };

enum handle_kind { HANDLE_TCB = 0, HANDLE_HALF_OPEN = 1, HANDLE_TIME_WAIT = 2 };

static inline uint32_t handle_make(enum handle_kind kind, uint32_t index)
{
    return (uint32_t)kind << 30 | index;
}

static inline enum handle_kind handle_kind(uint32_t handle)
{
    return (enum handle_kind)(handle >> 30);
}

static inline uint32_t handle_index(uint32_t handle)
{
    return handle & 0x3fffffffu;
}

struct listener {
    struct ip_addr addr; /* all zero: every local address */
    uint64_t user;
    uint16_t port; /* 0: free */
    uint16_t next; /* index + 1 in its bucket */
    uint8_t settings;
};

struct settings {
    struct tcp_settings values;
    const struct tcp_cc_ops *cc;
    uint32_t users; /* rows and listeners; 0: free */
};

/* A packet without payload that belongs to no TCB. */
struct reply {
    struct ip_addr raddr;
    uint16_t lport, rport;
    uint32_t seq, ack;
    uint16_t wnd;
    uint8_t laddr_index;
    uint8_t flags;
    uint8_t tos, ttl;
    struct tcp_options options; /* sack_count 0 */
};

/* Sorted by deadline, since all that enter wait equally long. */
struct block_queue {
    uint32_t first, last;
};

struct rate_mark;

struct tcb_list {
    uint32_t first, last; /* TCP_NO_CONN: empty */
};

/* A connection's receive buffer, the RX slots that it may hold, and its largest window without scale and with it. */
struct rcv_size {
    uint32_t bytes, slots, largest[TCB_WINDOW_SCALE + 1];
};

/* What an idle connection has given back with its extension (pmtu.h). */
struct pmtu_note {
    struct ip_addr raddr;
    uint16_t lport, rport;
    uint16_t former; /* 0: nothing is noted here */
    uint16_t high;   /* as far as the search has come */
    uint32_t wait_ms;
    bool halve;
};

struct tcp_stack {
    struct tcp_config config;
    struct tcp_env env;
    struct tcp_counters counters;
    struct csb_secret secret;     /* of ISNs and cookies */
    uint64_t now_us;              /* the latest time given */
    uint64_t advanced_us;         /* where the wheel stands */
    uint64_t challenges_until_us; /* the second that challenge_acks_left is of */
    uint32_t challenge_acks_left;
    uint64_t cookies_until_us;  /* an unknown ACK may be the answer to a cookie */
    uint64_t settling_until_us; /* and what follows one that was dropped while load moved */

    struct slab rows, ext, half_open, time_wait;
    uint32_t spare_part;   /* the slab, or behind them the table, that is looked at for spare memory */
    uint64_t spare_due_us; /* the next look begins */
    uint32_t conns;        /* rows in use, without zombies */
    struct table table;
    uint64_t *flows[3]; /* by enum handle_kind: csb_hash() of what is in the table, else 0 (flows.h) */
    struct wheel wheel; /* over the rows */
    struct tx_slot *tx, *tx_other;
    struct rate_mark *marks; /* of TX slots, and the models of extensions: of those with BBR */
    struct bbr *bbrs;
    struct reasm_slot *rx, *rx_other;
    uint32_t rx_held, tx_held;
    uint32_t rx_lent;   /* of rx_held, by tcp_recv_lend() */
    uint32_t rx_budget; /* RX slots that the core may hold, beyond that one for a connection */
    uint32_t rx_most;   /* and of all of them these */
    struct rcv_size rcv_sizes[RCV_LEVELS_MAX];
    uint32_t rcv_step; /* a window moves by this or by a segment, whichever is less */
    uint8_t rcv_level_max;
    uint8_t rcv_shifts[TCB_WINDOW_SCALE + 1]; /* 0, and the one that is offered (RFC 7323 2.3) */
    uint32_t tx_reserve;                      /* TX slots that data leaves to control packets */

    struct tcb_list output, blocked, events;
    bool more_blocked;                                         /* the last tcp_output() has not tried all of them */
    uint32_t told_writable;                                    /* users, by this call of tcp_output() */
    struct block_queue half_open_queue[HALF_OPEN_RETRIES + 1]; /* by retries */
    struct block_queue time_wait_queue;

    uint32_t reply_first, reply_count;
    struct reply replies[REPLIES_MAX];

    uint32_t pmtu_noted; /* of pmtu_notes */
    struct pmtu_note pmtu_notes[PMTU_NOTES];

    uint32_t address_count;
    struct ip_addr addresses[TCP_ADDRESSES_MAX];
    struct settings settings[SETTINGS_MAX];
    uint32_t listener_count;
    uint16_t listener_buckets[LISTENER_BUCKETS]; /* index + 1, by low bits of the port */
    struct listener listeners[TCP_LISTENERS_MAX];
};

/* A segment on its way through the input functions. */
struct input {
    struct tcp_segment seg; /* trimmed as it goes; its ports are in flow */
    struct flow flow;
    uint32_t hash;
    const struct tcp_packet *packet;
    uint32_t slot;
    uint32_t data; /* offset of the payload in the slot */
    uint64_t now_us;
    uint8_t laddr_index;
    uint8_t ecn; /* enum ip_ecn */
    bool taken;  /* the slot stays with the connection */
};

static inline struct tcb *stack_tcb(const struct tcp_stack *s, uint32_t index)
{
    return (struct tcb *)(void *)s->rows.base + index; /* as slab_at(), which does not know the stride */
}

static inline uint32_t stack_index(const struct tcp_stack *s, const struct tcb *t)
{
    return (uint32_t)(t - (const struct tcb *)(const void *)s->rows.base);
}

static inline struct tcb_ext *stack_ext(const struct tcp_stack *s, const struct tcb *t)
{
    struct tcb_ext *e;

    if (t->ext == TCB_NO_EXT)
        return NULL;
    e = (struct tcb_ext *)(void *)(s->ext.base + (size_t)t->ext * EXT_LINE);
    if (e == NULL)
        __builtin_unreachable(); /* so that the compiler does not ask again whether there is one */
    return e;
}

/* Of the extension that t has. */
static inline uint32_t stack_ext_index(const struct tcb *t)
{
    return t->ext / EXT_LINES;
}

static inline uint32_t stack_now_ms(uint64_t now_us)
{
    return (uint32_t)(now_us / 1000);
}

/* Never early, never 0. */
static inline uint32_t stack_deadline(uint64_t now_us, uint64_t delay_us)
{
    uint32_t ms = (uint32_t)((now_us + delay_us + 999) / 1000);

    return ms == 0 ? 1 : ms;
}

static inline bool stack_is_due(uint32_t deadline, uint64_t now_us)
{
    return deadline != 0 && seq_leq(deadline, stack_now_ms(now_us));
}

/* Bytes of IP and TCP header without options. */
static inline uint32_t stack_header_len(const struct ip_addr *raddr)
{
    return (ip_addr_is_ipv4(raddr) ? 20u : 40u) + TCP_HEADER_LEN;
}

/* The driver from now on. */
void stack_take_env(struct tcp_stack *s, const struct tcp_env *env);

/* What handle stands for is the connection of this flow. */
bool stack_handle_is_flow(const struct tcp_stack *s, uint32_t handle, const struct flow *flow);

/* Appends t to a list; its link is output_next. */
void tcb_list_push(struct tcp_stack *s, struct tcb_list *list, struct tcb *t);

/* Gives an RX slot back to the driver. */
static inline void stack_release_rx(struct tcp_stack *s, uint32_t slot)
{
    s->rx_held--;
    s->env.rx_release(s->env.context, slot);
}

static inline void stack_free_tx(struct tcp_stack *s, uint32_t slot)
{
    s->tx_held--;
    s->env.tx_free(s->env.context, slot);
}

#endif
