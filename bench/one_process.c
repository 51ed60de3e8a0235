/*
 * one_process.c: the load generator and the TCP stack in one thread, joined by function calls: what a hop between processes costs is
 * measured against this.
 *
 *   one_process SECONDS
 *
 * Packets come with hash and verified, as from janusd, 64 at a time; the stack is configured as a thread of an app is, and the user
 * echoes and closes as bench/echo_janus.c does.  Prints a JSON object: connections, and the median over samples of the cycles that the
 * stack and its user take for one, the load's excluded.
 */
#include "app/thread.h"
#include "bench/core_env.h"
#include "bench/one_thread.h"

enum {
    SLOTS = CORE_SLOTS,
    BATCH = 64,
};

struct frame {
    uint32_t slot, len;
};

static struct tcp_stack *stack;
static struct load load;
static struct csb_secret secret = {1, 2};
static struct frame to_stack[SLOTS], to_load[SLOTS];
static uint8_t busy[SLOTS], held[SLOTS];
static uint32_t to_stack_first, to_stack_end, to_load_first, to_load_end, next_slot = TCP_NO_SLOT;
static uint16_t tx_offset[SLOTS];

/* --- the stack's environment --- */

static uint32_t env_alloc(void *context)
{
    (void)context;
    if (tx_count == 0)
        return TCP_NO_SLOT;
    held[tx_free[tx_count - 1]] = 1;
    return tx_free[--tx_count];
}

static void env_free(void *context, uint32_t slot)
{
    (void)context;
    held[slot] = 0;
    if (!busy[slot])
        tx_free[tx_count++] = slot;
}

static bool env_send(void *context, uint32_t slot, uint32_t offset, uint32_t len, bool last)
{
    (void)context;
    to_load[to_load_end++ % SLOTS] = (struct frame){slot, len};
    tx_offset[slot] = (uint16_t)offset;
    busy[slot] = 1;
    if (last)
        held[slot] = 0;
    return true;
}

static bool env_busy(void *context, uint32_t slot)
{
    (void)context;
    return busy[slot];
}

/* --- the load's wire --- */

/* Spread over the sets of the caches, as janusd does. */
static uint32_t rx_offset(uint32_t slot)
{
    return TCP_SLOT_HEADROOM + slot % 16 * 64;
}

static uint8_t *room(void *context)
{
    (void)context;
    if (next_slot == TCP_NO_SLOT && rx_count != 0)
        next_slot = rx_free[--rx_count];
    return next_slot == TCP_NO_SLOT ? NULL : rx[next_slot] + rx_offset(next_slot) - ETHER;
}

static void send_frame(void *context, uint32_t len)
{
    (void)context;
    to_stack[to_stack_end++ % SLOTS] = (struct frame){next_slot, len - ETHER};
    next_slot = TCP_NO_SLOT;
}

static void feed_load(void)
{
    while (to_load_first != to_load_end) {
        struct frame f = to_load[to_load_first++ % SLOTS];
        uint8_t *frame = tx[f.slot] + tx_offset[f.slot] - ETHER;

        frame[12] = 8;
        frame[13] = 0;
        load_input(&load, frame, f.len + ETHER);
        busy[f.slot] = 0;
        if (!held[f.slot])
            tx_free[tx_count++] = f.slot;
    }
    load_emit(&load);
}

/* --- the stack and its user, which are what is measured --- */

static bool is_syn(const uint8_t *ip)
{
    return ip[33] == 2;
}

/* Leaves the low half behind a SYN, as janusd does. */
static uint32_t hash_of(uint8_t *ip, uint32_t len)
{
    struct flow flow = {.laddr = ip_addr_from_ipv4(ip + 16), .raddr = ip_addr_from_ipv4(ip + 12), .lport = PORT};

    flow.rport = (uint16_t)(ip[20] << 8 | ip[21]);
    uint64_t hash = csb_hash(&secret, &flow);
    uint32_t low = csb_key(hash);
    if (is_syn(ip))
        memcpy(ip + len, &low, sizeof low);
    return csb_table_hash(hash);
}

static void serve(const struct tcp_event *event, uint64_t now_us)
{
    struct tcp_view views[8];
    uint32_t n;

    if (event->kinds & TCP_EVENT_ACCEPTED)
        tcp_set_nodelay(stack, event->conn, true);
    while ((n = tcp_recv_views(stack, event->conn, views, 8)) != 0) {
        uint32_t taken = 0;

        for (uint32_t i = 0; i < n; i++)
            taken += (uint32_t)tcp_send(stack, event->conn, views[i].data, views[i].len);
        tcp_recv_consume(stack, event->conn, taken);
    }
    if (tcp_recv_eof(stack, event->conn))
        tcp_close(stack, event->conn, now_us);
}

static uint64_t turn(uint64_t now_us)
{
    struct tcp_packet packets[BATCH];
    struct tcp_event event;
    uint32_t n = 0;

    feed_load();
    for (; n < BATCH && to_stack_first != to_stack_end; n++) {
        struct frame f = to_stack[to_stack_first++ % SLOTS];

        packets[n] = (struct tcp_packet){.ip = rx[f.slot] + rx_offset(f.slot),
                                         .slot = f.slot,
                                         .offset = (uint16_t)rx_offset(f.slot),
                                         .len = (uint16_t)f.len,
                                         .hash = hash_of(rx[f.slot] + rx_offset(f.slot), f.len),
                                         .has_hash = true,
                                         .has_low = is_syn(rx[f.slot] + rx_offset(f.slot)),
                                         .verified = true};
    }
    uint64_t begin = __rdtsc();
    tcp_input_batch(stack, packets, n, now_us);
    if (now_us >= tcp_next_deadline(stack))
        tcp_advance(stack, now_us);
    while (tcp_next_event(stack, &event))
        serve(&event, now_us);
    tcp_output(stack, now_us);
    return __rdtsc() - begin;
}

static void start(void)
{
    const struct tcp_env env = {.tx_alloc = env_alloc, .tx_free = env_free, .tx_send = env_send, .tx_busy = env_busy};
    const struct load_wire wire = {NULL, room, send_frame};
    static const uint8_t here[4] = {10, 77, 0, 1};
    const struct janus_options options = {0};
    struct ip_addr address = ip_addr_from_ipv4(here);
    struct tcp_config config = {.flow_secret = secret};

    thread_configure(&config, &options, ROWS);
    stack = core_start(&env, config, &address, PORT, 1);
    one_thread_load(&load, &wire);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    start();
    return one_thread_run(atof(argv[1]), &load, turn);
}
