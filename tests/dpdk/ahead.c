/*
 * ahead.c: that ahead_take() gives all frames of a queue once and in their order, however they come, ahead_has_more() knows of the queue's,
 * and ahead_clear() gives back the rest.
 */
#include "dpdk_glue/ahead.h"
#include "tests/dpdk/require.h"

#include <rte_eal.h>

enum { POOL = 1023, FRAMES = 100000 };

static struct rte_mempool *pool;
static struct ahead ahead;
static uint32_t sent, taken;

/* What is sent on the port comes back on it. */
static void send_frames(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct rte_mbuf *m = rte_pktmbuf_alloc(pool);

        REQUIRE(m != NULL);
        memcpy(rte_pktmbuf_append(m, sizeof sent), &sent, sizeof sent);
        REQUIRE(rte_eth_tx_burst(0, 0, &m, 1) == 1);
        sent++;
    }
}

static uint32_t take(void)
{
    struct rte_mbuf *mbufs[BURST];
    uint32_t n = ahead_take(&ahead, 0, 0, mbufs);

    REQUIRE(n <= BURST);
    for (uint32_t i = 0; i < n; i++) {
        REQUIRE(memcmp(rte_pktmbuf_mtod(mbufs[i], const void *), &taken, sizeof taken) == 0);
        taken++;
        rte_pktmbuf_free(mbufs[i]);
    }
    return n;
}

static void in_their_order(void)
{
    while (sent < FRAMES) {
        send_frames((uint32_t)rand() % (3 * BURST));
        uint32_t waiting = sent - taken, n = take();

        REQUIRE(n == (waiting < BURST ? waiting : BURST));
        REQUIRE(ahead.at <= ahead.end && ahead.end <= AHEAD_MAX);
        while (sent - taken > POOL / 2)
            REQUIRE(take() == BURST);
    }
    while (take() != 0)
        continue;
    REQUIRE(taken == sent && rte_mempool_in_use_count(pool) == 0);
}

static void the_rest_is_given_back(void)
{
    send_frames(AHEAD_MAX + 10);
    REQUIRE(take() == BURST && ahead.at < ahead.end);
    ahead_clear(&ahead);
    REQUIRE(ahead.at == ahead.end && rte_mempool_in_use_count(pool) == 10);
    taken += AHEAD_MAX - BURST;
    REQUIRE(take() == 10 && ahead.at == ahead.end);
    REQUIRE(take() == 0 && rte_mempool_in_use_count(pool) == 0);
    ahead_clear(&ahead);
}

/* Whoever stops when there is no more must not stop where the queue was not looked at. */
static void more_is_told(void)
{
    send_frames(5 * BURST);
    while (sent - taken > BURST) {
        REQUIRE(take() == BURST);
        REQUIRE(ahead_has_more(&ahead));
    }
    REQUIRE(take() == BURST && !ahead_has_more(&ahead));
    REQUIRE(take() == 0 && !ahead_has_more(&ahead));
}

int main(void)
{
    char *words[] = {"ahead", "--no-huge", "--no-pci",         "--no-shconf", "--no-telemetry", "-m", "64",
                     "-l",    "0",         "--vdev=net_ring0", NULL};
    struct rte_eth_conf conf = {0};

    REQUIRE(rte_eal_init(10, words) >= 0);
    pool = rte_pktmbuf_pool_create("pool", POOL, 0, 0, 2048 + RTE_PKTMBUF_HEADROOM, SOCKET_ID_ANY);
    REQUIRE(pool != NULL && rte_eth_dev_configure(0, 1, 1, &conf) == 0);
    REQUIRE(rte_eth_rx_queue_setup(0, 0, 512, SOCKET_ID_ANY, NULL, pool) == 0);
    REQUIRE(rte_eth_tx_queue_setup(0, 0, 512, SOCKET_ID_ANY, NULL) == 0 && rte_eth_dev_start(0) == 0);
    the_rest_is_given_back();
    more_is_told();
    in_their_order();
    the_rest_is_given_back();
    return 0;
}
