/*
 * one_process.c: the load generator and the TCP stack in one thread, joined by function calls: what a hop between processes costs is
 * measured against this.
 *
 *   one_process SECONDS
 *
 * Packets come with hash and verified, as from janusd, 64 at a time; the user echoes and closes as bench/echo_janus.c does.  Prints a
 * JSON object: connections, and the median over batches of the cycles that the stack and its user take for one, the load's excluded.
 */
#include "bench/core_env.h"
#include "bench/load/load.h"

#include <stdio.h>
#include <x86intrin.h>

enum {
    SLOTS = CORE_SLOTS,
    BATCH = 64,
    ETHER = 14,
    ROWS = 65536,
    PORT = 7,
    WINDOW = 512,
    SAMPLES = 1 << 16,
    SAMPLE_TURNS = 1024
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

    for (; n < BATCH && to_stack_first != to_stack_end; n++) {
        struct frame f = to_stack[to_stack_first++ % SLOTS];

        packets[n] = (struct tcp_packet){.slot = f.slot,
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
    const struct load_ends ends = {.server = 0x0a4d0001, .gateway = 0x0a4d0002, .clients = 0x64400000, .port = PORT};
    const struct load_wire wire = {NULL, room, send_frame};
    const struct load_job job = {.phase = LOAD_OPENING, .window = WINDOW, .bytes = 64, .requests = 1, .fin = true};
    static const uint8_t here[4] = {10, 77, 0, 1};
    struct ip_addr address = ip_addr_from_ipv4(here);

    stack = core_start(&env, ROWS, &secret, &address, PORT, 1);
    load_init(&load, &ends, &wire);
    load_time(&load, 1);
    load_begin(&load, &job);
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    static double samples[SAMPLES];
    uint64_t now_us = 1, begin, cycles = 0, done = 0;
    uint32_t n = 0, turns = 0;

    if (argc != 2)
        return 2;
    start();
    begin = __rdtsc();
    uint64_t length = (uint64_t)(atof(argv[1]) * 2.5e9);
    while (__rdtsc() - begin < length && n < SAMPLES) {
        now_us += 20;
        load_time(&load, now_us);
        feed_load();
        cycles += turn(now_us);
        if (++turns % SAMPLE_TURNS != 0 || load.counts.completed == done)
            continue;
        samples[n++] = (double)cycles / (double)(load.counts.completed - done);
        done = load.counts.completed;
        cycles = 0;
    }
    qsort(samples, n, sizeof samples[0], compare);
    printf("{\"connections\": %llu, \"bad\": %llu, \"lost\": %llu, \"cycles\": %.1f}\n",
           (unsigned long long)load.counts.completed, (unsigned long long)load.counts.bad,
           (unsigned long long)load.counts.lost, n != 0 ? samples[n / 2] : 0.0);
    return n == 0;
}
