/*
 * one_thread_rings.c: bench/one_process.c with the rings of the SDK between load and stack, their other end worked in the same thread: what
 * descriptors, slots and returns cost the TCP thread when no cache line moves and nobody else runs.
 *
 *   one_thread_rings SECONDS
 *
 * The stack is configured as a thread of an app is.  Prints a JSON object as one_process does.
 */
#include "app/env_rings.h"
#include "app/thread.h"
#include "bench/one_thread.h"
#include "dpdk_glue/ledger.h"

#include <sys/mman.h>

enum {
    SLOTS = 8192,
    ROW_STRIDE = 128,
    HUGE = 2 << 20,
    VIEWS = 8,
    YIELD_TURNS = 4, /* as threads that share a processor take turns */
};

static struct janus_thread thread;
static struct env_rings rings;
static struct region region;
static struct balance balance;
static struct csb_secret secret = {1, 2};
static struct load load;
static uint64_t clock_us = 1;

/* --- the other end of the rings --- */

static struct ledger ledger;
static struct ring_producer rx, tx_done;
static struct ring_consumer tx, rx_return;
static uint8_t frame[ETHER + SHM_SLOT_BYTES];

static uint8_t *memory(size_t bytes)
{
    void *p = mmap(NULL, bytes + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uintptr_t at = ((uintptr_t)p + HUGE - 1) & ~(uintptr_t)(HUGE - 1);

    if (p == MAP_FAILED)
        exit(1);
    (void)madvise((void *)at, bytes, MADV_HUGEPAGE);
    return memset((void *)at, 0, bytes);
}

static void connect_ends(void)
{
    struct shm_j2a_io *j = &((struct shm_j2a_header *)(uintptr_t)region.j2a)->io[0];
    struct shm_a2j_io *a = &region_a2j(&region)->io[0];
    uint8_t *j2a = (uint8_t *)(uintptr_t)region.j2a;

    rx = (struct ring_producer){
        (struct shm_desc *)(j2a + region.offsets.rx[0]), &j->rx_head.value, &a->rx_tail.value, 2 * SLOTS - 1, 0, 0};
    tx_done = (struct ring_producer){(struct shm_desc *)(j2a + region.offsets.tx_done[0]),
                                     &j->tx_done_head.value,
                                     &a->tx_done_tail.value,
                                     SLOTS - 1,
                                     0,
                                     0};
    tx = (struct ring_consumer){(const struct shm_desc *)(region.a2j + region.offsets.tx[0]),
                                &a->tx_head.value,
                                &j->tx_tail.value,
                                SLOTS - 1,
                                0,
                                0};
    rx_return = (struct ring_consumer){(const struct shm_desc *)(region.a2j + region.offsets.rx_return[0]),
                                       &a->rx_return_head.value,
                                       &j->rx_return_tail.value,
                                       SLOTS - 1,
                                       0,
                                       0};
    if (!ledger_init(&ledger, 0, SLOTS))
        exit(1);
}

static uint8_t *room(void *context)
{
    (void)context;
    return ledger.free_count != 0 ? frame : NULL;
}

static void send_frame(void *context, uint32_t len)
{
    struct shm_desc d = {.len = (uint16_t)(len - ETHER), .kind = SHM_DESC_PACKET, .flags = SHM_DESC_VERIFIED};
    const uint8_t *ip = frame + ETHER;
    struct flow flow = {.laddr = ip_addr_from_ipv4(ip + 16), .raddr = ip_addr_from_ipv4(ip + 12), .lport = PORT};

    (void)context;
    flow.rport = (uint16_t)(ip[20] << 8 | ip[21]);
    uint64_t hash = csb_hash(&secret, &flow);
    uint32_t low = csb_key(hash);
    d.hash = csb_table_hash(hash);
    d.slot = ledger_lend(&ledger, &d.generation);
    d.offset = (uint16_t)(SHM_SLOT_HEADROOM + d.slot % 16 * SHM_CACHE_LINE);
    uint8_t *to =
        (uint8_t *)(uintptr_t)region.j2a + region.offsets.rx_slots + (size_t)d.slot * SHM_SLOT_BYTES + d.offset;
    memcpy(to, ip, d.len);
    if (ip[33] == 2) { /* a SYN's hash is needed whole */
        memcpy(to + d.len, &low, sizeof low);
        d.flags |= SHM_DESC_HASHED;
    }
    ring_push(&rx, d);
}

static void other_end(void)
{
    for (int32_t n = ring_consumer_refresh(&rx_return); n > 0; n--) {
        struct shm_desc d = ring_pop(&rx_return);
        if (ledger_take_back(&ledger, d.slot, d.generation) != SHM_DROP_NONE)
            exit(1);
    }
    ring_release(&rx_return);
    for (int32_t n = ring_consumer_refresh(&tx); n > 0; n--) {
        static uint8_t out[ETHER + SHM_SLOT_BYTES] = {[12] = 8};
        struct shm_desc d = ring_pop(&tx);
        memcpy(out + ETHER, region.a2j + region.offsets.tx_slots + (size_t)d.slot * SHM_SLOT_BYTES + d.offset, d.len);
        load_input(&load, out, d.len + ETHER);
        d.kind = SHM_DESC_RETURN;
        d.flags = 0;
        ring_push(&tx_done, d);
    }
    ring_release(&tx);
    ring_publish(&tx_done);
    load_emit(&load);
    ring_publish(&rx);
}

/* --- the TCP thread and its user, which are what is measured --- */

static uint64_t now_us(void *context)
{
    (void)context;
    return clock_us;
}

static void serve(const struct tcp_event *event)
{
    struct tcp_view views[VIEWS];
    uint32_t n;

    if (event->kinds & TCP_EVENT_ACCEPTED)
        thread_set_nodelay(&thread, event->conn, true);
    while ((n = thread_recv_views(&thread, event->conn, views, VIEWS)) != 0) {
        uint32_t taken = 0;

        for (uint32_t i = 0; i < n; i++)
            taken += (uint32_t)thread_send(&thread, event->conn, views[i].data, views[i].len);
        thread_recv_consume(&thread, event->conn, taken);
    }
    if (thread_recv_eof(&thread, event->conn))
        thread_close_conn(&thread, event->conn);
}

static uint64_t turn(uint64_t time_us)
{
    static uint32_t turns;
    struct tcp_event event;
    uint64_t begin;

    clock_us = time_us;
    if (turns++ % YIELD_TURNS == 0)
        other_end();
    begin = __rdtsc();
    thread_poll(&thread);
    while (thread_next_event(&thread, &event))
        serve(&event);
    thread_flush(&thread);
    return __rdtsc() - begin;
}

static void start(void)
{
    const struct load_wire wire = {NULL, room, send_frame};
    static const uint8_t here[4] = {10, 77, 0, 1};
    struct janus_options options = {0};
    struct janus_error error;

    region.sizes = (struct shm_sizes){1, SLOTS, SLOTS, ROWS, ROW_STRIDE};
    if (!shm_layout(&region.sizes, &region.offsets))
        exit(1);
    region.j2a = memory(region.offsets.j2a_bytes);
    region.a2j = memory(region.offsets.a2j_bytes);
    connect_ends();
    if (env_rings_init(&rings, &region, false) < 0)
        exit(1);
    rings.balance = &balance;
    env_rings_env(&rings, &thread.env);
    env_rings_driver(&rings, &thread.driver);
    thread.driver.now_us = now_us;
    thread_configure(&thread.config, &options, ROWS);
    thread.config.rx_slots = thread.config.tx_slots = SLOTS;
    thread.config.mtu = 1500;
    thread.config.flow_secret = secret;
    thread.addresses[0] = ip_addr_from_ipv4(here);
    thread.address_count = 1;
    if (thread_make_stack(&thread, memory(region.offsets.rows_bytes), clock_us, &error) < 0 ||
        thread_listen(&thread, NULL, PORT, 0, &error) < 0) {
        fprintf(stderr, "%s\n", error.text);
        exit(1);
    }
    one_thread_load(&load, &wire);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    start();
    return one_thread_run(atof(argv[1]), &load, turn);
}
