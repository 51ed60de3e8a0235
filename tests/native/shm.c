/*
 * shm.c: the shared-memory ABI, and the parts of the data plane that judge what comes through it, for tests.
 */
#include "dpdk_glue/cut.h"
#include "dpdk_glue/join.h"
#include "dpdk_glue/ledger.h"
#include "dpdk_glue/overload.h"
#include "dpdk_glue/reset.h"
#include "dpdk_glue/routes.h"
#include "dpdk_glue/rows.h"
#include "dpdk_glue/services.h"
#include "dpdk_glue/stats.h"
#include "dpdk_glue/turns.h"
#include "dpdk_glue/txcheck.h"
#include "shm/doorbell.h"
#include "shm/drops.h"
#include "shm/layout.h"
#include "shm/page.h"
#include "shm/ring.h"

#include <stdlib.h>
#include <sys/mman.h>

static bool test_overload_sheds(struct overload *o, uint32_t waiting, uint32_t slots, uint64_t now, uint64_t tenth)
{
    return overload_sheds(o, waiting, slots, now, tenth);
}
static bool test_turns_is_full(uint32_t free_slots, uint32_t slots)
{
    return turns_is_full(free_slots, slots);
}
static bool test_turns_are_enough(uint32_t turns, bool port_has_more, bool thread_is_full)
{
    return turns_are_enough(turns, port_has_more, thread_is_full);
}
static int32_t test_producer_refresh(struct ring_producer *r)
{
    return ring_producer_refresh(r);
}
static uint32_t test_producer_room(const struct ring_producer *r)
{
    return ring_producer_room(r);
}
static void test_push(struct ring_producer *r, struct shm_desc desc)
{
    ring_push(r, desc);
}
static void test_publish(struct ring_producer *r)
{
    ring_publish(r);
}
static int32_t test_consumer_refresh(struct ring_consumer *r)
{
    return ring_consumer_refresh(r);
}
static struct shm_desc test_pop(struct ring_consumer *r)
{
    return ring_pop(r);
}
static void test_release(struct ring_consumer *r)
{
    ring_release(r);
}

struct test_indices {
    uint64_t rx_head, tx_tail, tx_done_head, rx_return_tail, io_sleeping;
    uint64_t tx_head, rx_tail, rx_return_head, tx_done_tail;
    uint64_t app_sleeping, rows_used, heartbeat, closed, j2a_heartbeat, counters;
};

static struct test_indices test_index_offsets(uint32_t io)
{
    uint64_t j2a = offsetof(struct shm_j2a_header, io) + io * sizeof(struct shm_j2a_io);
    uint64_t a2j = offsetof(struct shm_a2j_header, io) + io * sizeof(struct shm_a2j_io);
    struct test_indices t = {
        .rx_head = j2a + offsetof(struct shm_j2a_io, rx_head),
        .tx_tail = j2a + offsetof(struct shm_j2a_io, tx_tail),
        .tx_done_head = j2a + offsetof(struct shm_j2a_io, tx_done_head),
        .rx_return_tail = j2a + offsetof(struct shm_j2a_io, rx_return_tail),
        .io_sleeping = j2a + offsetof(struct shm_j2a_io, io_sleeping),
        .tx_head = a2j + offsetof(struct shm_a2j_io, tx_head),
        .rx_tail = a2j + offsetof(struct shm_a2j_io, rx_tail),
        .rx_return_head = a2j + offsetof(struct shm_a2j_io, rx_return_head),
        .tx_done_tail = a2j + offsetof(struct shm_a2j_io, tx_done_tail),
        .app_sleeping = offsetof(struct shm_a2j_header, app_sleeping),
        .rows_used = offsetof(struct shm_a2j_header, rows_used),
        .heartbeat = offsetof(struct shm_a2j_header, heartbeat),
        .closed = offsetof(struct shm_j2a_header, closed),
        .j2a_heartbeat = offsetof(struct shm_j2a_header, heartbeat),
        .counters = offsetof(struct shm_a2j_header, counters),
    };
    return t;
}

static uint8_t *test_map(int fd, uint64_t bytes, bool writable)
{
    void *p = mmap(NULL, bytes, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
    return p == MAP_FAILED ? NULL : p;
}

static int test_unmap(uint8_t *p, uint64_t bytes)
{
    return munmap(p, bytes);
}

static void test_doorbell_arm(uint32_t *flag)
{
    doorbell_arm((struct shm_index *)flag);
}
static void test_doorbell_disarm(uint32_t *flag)
{
    doorbell_disarm((struct shm_index *)flag);
}
static bool test_doorbell_wanted(uint32_t *flag)
{
    return doorbell_wanted((struct shm_index *)flag);
}
static void doorbell_ring_app_test(int fd)
{
    doorbell_ring_app(fd);
}
static void doorbell_drain_test(int fd)
{
    doorbell_drain(fd);
}

static int test_drop_count(void)
{
    return SHM_DROP_COUNT;
}

static int test_drop(const char *name)
{
    int drop = 0;

    while (drop < SHM_DROP_COUNT && strcmp(shm_drop_name((enum shm_drop)drop), name) != 0)
        drop++;
    return drop;
}

static struct page *test_page_new(void)
{
    struct page *p = mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        return NULL;
    page_init(p, 1, 2);
    return p;
}

static void test_page_free(struct page *p)
{
    munmap(p, sizeof *p);
}
static uint64_t test_page_bytes(void)
{
    return sizeof(struct page);
}
static void test_page_add(struct page_block *b, uint32_t counter, uint64_t n)
{
    page_add(b, counter, n);
}

static struct ledger *test_ledger_new(uint32_t first, uint32_t count)
{
    struct ledger *l = malloc(sizeof *l);
    return ledger_init(l, first, count) ? l : NULL;
}

static void test_ledger_free(struct ledger *l)
{
    ledger_release(l);
    free(l);
}

static uint32_t test_ledger_lend(struct ledger *l, uint16_t *generation)
{
    return l->free_count != 0 ? ledger_lend(l, generation) : SHM_NO_SLOT;
}

static uint32_t test_ledger_free_count(struct ledger *l)
{
    return l->free_count;
}

static int test_services_owner(const struct services *s, const struct ip_addr *address, uint16_t port)
{
    int i = services_address(s, address);
    return i < 0 ? -1 : s->owners[i][port];
}

static void test_free(void *p)
{
    free(p);
}

static bool test_reset_answer(struct reset *r, const uint8_t *tcp, uint32_t len)
{
    struct tcp_segment seg;
    return tcp_header_parse(tcp, len, &seg) == TCP_HEADER_OK && reset_answer(r, &seg);
}
