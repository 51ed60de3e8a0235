/*
 * stack.c: a stack made in the memory that its driver hands over, and what the driver asks of it.
 */
#include "tcp/stack.h"

#include "tcp/listen.h"
#include "tcp/rate.h"
#include "tcp/rxq.h"
#include "tcp/settings.h"
#include "tcp/timewait.h"
#include "tcp/window.h"

enum {
    DEFAULT_BUF_BYTES = 256 * 1024,
    DEFAULT_BUF_MAX_BYTES = 4 * 1024 * 1024,
    DEFAULT_MSL_MS = 30000,
    DEFAULT_CHALLENGE_ACKS = 1000,
    CHALLENGE_ACKS_MAX = 1 << 30,
    DEFAULT_FIN_WAIT_2_MS = 60000,
    MTU_MIN = 576,
    MTU_MAX = 1920,
    BUF_BYTES_MIN = 4096,
    BUF_BYTES_MAX = 1 << 30, /* RFC 7323 2.3 */
    INDEX_MAX = 1 << 30,
    EXT_MAX = UINT32_MAX / EXT_LINES,
    SLOTS_MAX = 1 << 28,
    RESERVE_MAX = 64,
    LINE = 64,
    PAGE = 4096,
};

/* Offsets of the parts of the memory block. */
struct parts {
    size_t blocks[4], ext, half_open, time_wait, flows[3], tx[2], rx[2], table, marks, bbrs, end;
};

/* What can be spare begins with a page of its own. */
static size_t place(size_t *end, size_t align, size_t count, size_t size)
{
    size_t begin = (*end + align - 1) & ~(align - 1);

    *end = begin + count * size;
    return begin;
}

static bool is_buffer(uint32_t bytes, uint32_t max)
{
    return (bytes == 0 || (bytes >= BUF_BYTES_MIN && bytes <= BUF_BYTES_MAX)) &&
           (max == 0 || (max >= BUF_BYTES_MIN && max >= bytes && max <= BUF_BYTES_MAX));
}

static bool layout(const struct tcp_config *c, struct parts *p)
{
    uint64_t handles = (uint64_t)c->conn_max + c->half_open_max + c->time_wait_max;
    size_t end = sizeof(struct tcp_stack);

    if (c->conn_max == 0 || c->half_open_max == 0 || c->time_wait_max == 0 || c->extension_max == 0 ||
        handles > INDEX_MAX || c->extension_max > EXT_MAX || c->rx_slots == 0 || c->tx_slots == 0 ||
        c->rx_slots > SLOTS_MAX || c->tx_slots > SLOTS_MAX || c->mtu < MTU_MIN || c->mtu > MTU_MAX ||
        c->source_port_first > c->source_port_last || (c->source_port_first == 0 && c->source_port_last != 0) ||
        cc_ops(c->congestion_control) == NULL || c->ecn > TCP_ECN_OFF || c->msl_ms > 3600 * 1000u ||
        c->fin_wait_2_ms > 24 * 3600 * 1000u || c->window_scale > WSCALE_MAX ||
        c->challenge_acks > CHALLENGE_ACKS_MAX || (c->options_off & TCP_OPTION_MSS))
        return false;
    if (!is_buffer(c->rcv_buf_bytes, c->rcv_buf_max_bytes) || !is_buffer(c->snd_buf_bytes, c->snd_buf_max_bytes))
        return false;
    p->blocks[0] = place(&end, LINE, 1, slab_memory_bytes(c->conn_max));
    p->blocks[1] = place(&end, LINE, 1, slab_memory_bytes(c->extension_max));
    p->blocks[2] = place(&end, LINE, 1, slab_memory_bytes(c->half_open_max));
    p->blocks[3] = place(&end, LINE, 1, slab_memory_bytes(c->time_wait_max));
    p->ext = place(&end, PAGE, c->extension_max, sizeof(struct tcb_ext));
    p->half_open = place(&end, PAGE, c->half_open_max, sizeof(struct half_open));
    p->time_wait = place(&end, PAGE, c->time_wait_max, sizeof(struct time_wait));
    p->flows[HANDLE_TCB] = place(&end, PAGE, c->conn_max, sizeof(uint64_t));
    p->flows[HANDLE_HALF_OPEN] = place(&end, PAGE, c->half_open_max, sizeof(uint64_t));
    p->flows[HANDLE_TIME_WAIT] = place(&end, PAGE, c->time_wait_max, sizeof(uint64_t));
    for (int i = 0; i < 2; i++)
        p->tx[i] = place(&end, LINE, c->tx_slots, sizeof(struct tx_slot));
    for (int i = 0; i < 2; i++)
        p->rx[i] = place(&end, LINE, c->rx_slots, sizeof(struct reasm_slot));
    p->table = place(&end, PAGE, 1, table_memory_bytes((uint32_t)handles));
    p->marks = place(&end, LINE, c->tx_slots, sizeof(struct rate_mark));
    p->bbrs = place(&end, PAGE, c->extension_max, sizeof(struct bbr));
    p->end = (end + 63) & ~(size_t)63;
    return true;
}

size_t tcp_memory_bytes(const struct tcp_config *config)
{
    struct parts p;

    return layout(config, &p) ? p.end : 0;
}

size_t tcp_rows_bytes(const struct tcp_config *config)
{
    struct parts p;

    return layout(config, &p) ? (size_t)config->conn_max * sizeof(struct tcb) : 0;
}

/* One that is given without its limit is fixed. */
static void default_buffer(uint32_t *bytes, uint32_t *max)
{
    if (*max == 0)
        *max = *bytes != 0 ? *bytes : DEFAULT_BUF_MAX_BYTES;
    if (*bytes == 0)
        *bytes = DEFAULT_BUF_BYTES < *max ? DEFAULT_BUF_BYTES : *max;
}

static void set_defaults(struct tcp_config *c)
{
    default_buffer(&c->rcv_buf_bytes, &c->rcv_buf_max_bytes);
    default_buffer(&c->snd_buf_bytes, &c->snd_buf_max_bytes);
    c->challenge_acks = c->challenge_acks != 0 ? c->challenge_acks : DEFAULT_CHALLENGE_ACKS;
    c->msl_ms = c->msl_ms != 0 ? c->msl_ms : DEFAULT_MSL_MS;
    c->fin_wait_2_ms = c->fin_wait_2_ms != 0 ? c->fin_wait_2_ms : DEFAULT_FIN_WAIT_2_MS;
}

static void lists_init(struct tcp_stack *s)
{
    const struct tcb_list no_tcb = {TCP_NO_CONN, TCP_NO_CONN};
    const struct block_queue no_block = {BLOCK_NONE, BLOCK_NONE};

    s->output = s->blocked = s->events = no_tcb;
    s->time_wait_queue = no_block;
    for (uint32_t i = 0; i <= HALF_OPEN_RETRIES; i++)
        s->half_open_queue[i] = no_block;
}

void stack_take_env(struct tcp_stack *s, const struct tcp_env *env)
{
    s->env = *env;
    s->rows.populate = env->populate;
    s->rows.context = env->context;
}

struct tcp_stack *tcp_init(const struct tcp_config *config, const struct tcp_env *env, void *memory, void *rows,
                           uint64_t now_us)
{
    struct tcp_stack *s = memory;
    uint8_t *base = memory;
    struct parts p;

    if (!layout(config, &p) || (uintptr_t)memory % 64 != 0 || (uintptr_t)rows % 128 != 0)
        return NULL;
    s->config = *config;
    set_defaults(&s->config);
    settings_init(s);
    s->now_us = s->advanced_us = now_us;
    s->secret = config->secret;
    if (s->secret.k0 == 0 && s->secret.k1 == 0)
        env->random(env->context, &s->secret, sizeof s->secret);
    slab_init(&s->rows, rows, sizeof(struct tcb), config->conn_max, base + p.blocks[0]);
    slab_init(&s->ext, base + p.ext, sizeof(struct tcb_ext), config->extension_max, base + p.blocks[1]);
    slab_init(&s->half_open, base + p.half_open, sizeof(struct half_open), config->half_open_max, base + p.blocks[2]);
    slab_init(&s->time_wait, base + p.time_wait, sizeof(struct time_wait), config->time_wait_max, base + p.blocks[3]);
    stack_take_env(s, env);
    for (int i = 0; i < 3; i++)
        s->flows[i] = (uint64_t *)(void *)(base + p.flows[i]);
    s->tx = (struct tx_slot *)(void *)(base + p.tx[0]);
    s->tx_other = (struct tx_slot *)(void *)(base + p.tx[1]);
    s->rx = (struct reasm_slot *)(void *)(base + p.rx[0]);
    s->rx_other = (struct reasm_slot *)(void *)(base + p.rx[1]);
    s->marks = (struct rate_mark *)(void *)(base + p.marks);
    s->bbrs = (struct bbr *)(void *)(base + p.bbrs);
    table_init(&s->table, base + p.table, config->conn_max + config->half_open_max + config->time_wait_max);
    wheel_init(&s->wheel, rows, sizeof(struct tcb), offsetof(struct tcb, timer), stack_now_ms(now_us));
    s->rx_budget = config->rx_slots - config->rx_slots / 4;
    s->rx_most = config->rx_slots - (config->rx_slots / 8 > 1 ? config->rx_slots / 8 : 1);
    window_init(s);
    s->tx_reserve = config->tx_slots / 8 < RESERVE_MAX ? config->tx_slots / 8 : RESERVE_MAX;
    lists_init(s);
    return s;
}

bool tcp_add_address(struct tcp_stack *s, const struct ip_addr *addr)
{
    if (s->address_count == TCP_ADDRESSES_MAX)
        return false;
    s->addresses[s->address_count++] = *addr;
    return true;
}

bool stack_handle_is_flow(const struct tcp_stack *s, uint32_t handle, const struct flow *flow)
{
    uint32_t index = handle_index(handle);
    struct flow own;

    if (handle_kind(handle) == HANDLE_TCB)
        tcb_flow(s, stack_tcb(s, index), &own);
    else if (handle_kind(handle) == HANDLE_HALF_OPEN)
        half_open_flow(s, slab_at(&s->half_open, index), &own);
    else
        time_wait_flow(s, slab_at(&s->time_wait, index), &own);
    return flow_equal(&own, flow);
}

void tcp_row_layout(struct tcp_row_layout *out)
{
    *out = (struct tcp_row_layout){
        .stride = sizeof(struct tcb),
        .state = offsetof(struct tcb, state),
        .raddr = offsetof(struct tcb, raddr),
        .rport = offsetof(struct tcb, rport),
        .lport = offsetof(struct tcb, lport),
        .laddr_index = offsetof(struct tcb, laddr_word),
        .snd_nxt = offsetof(struct tcb, snd_nxt),
        .rcv_nxt = offsetof(struct tcb, rcv_nxt),
    };
}

const struct tcp_counters *tcp_counters(const struct tcp_stack *s)
{
    return &s->counters;
}

const char *tcp_drop_name(enum tcp_drop drop)
{
    static const char *const names[] = {
#define DROP(symbol, name, sentence) name,
#include "tcp/drops.def"
#undef DROP
    };

    return (unsigned)drop < TCP_DROP_COUNT ? names[drop] : NULL;
}

void tcp_usage(const struct tcp_stack *s, struct tcp_usage *usage)
{
    *usage = (struct tcp_usage){
        .conns = s->conns,
        .half_open = s->half_open.used,
        .time_wait = s->time_wait.used,
        .extensions = s->ext.used,
        .rx_slots_held = s->rx_held,
        .tx_slots_held = s->tx_held,
    };
}
