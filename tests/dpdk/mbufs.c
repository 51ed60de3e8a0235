/*
 * mbufs.c: that mbufs_free() and mbufs_take() give back and take as rte_pktmbuf_free() and rte_pktmbuf_alloc() do.
 */
#include "dpdk_glue/mbufs.h"
#include "tests/dpdk/require.h"

#include <rte_eal.h>

enum { POOL = 127, COUNT = 40 };

static struct rte_mempool *pools[2];

static uint32_t used(int i)
{
    return rte_mempool_in_use_count(pools[i]);
}

static struct rte_mbuf *fresh(int i)
{
    struct rte_mbuf *m = rte_pktmbuf_alloc(pools[i]);

    REQUIRE(m != NULL);
    return m;
}

static void whole_ones_of_both_pools(void)
{
    struct rte_mbuf *mbufs[COUNT];

    for (int i = 0; i < COUNT; i++)
        mbufs[i] = i % 7 == 3 ? NULL : fresh(i / 3 % 2);
    mbufs_free(mbufs, COUNT);
    REQUIRE(used(0) == 0 && used(1) == 0);
    mbufs_free(mbufs, 0);
}

/* Chains, those that somebody else holds too, and those whose data is another's. */
static void those_that_are_not_whole(void)
{
    struct rte_mbuf *mbufs[6], *held, *owner;

    for (int i = 0; i < 6; i++)
        mbufs[i] = fresh(0);
    REQUIRE(rte_pktmbuf_chain(mbufs[1], fresh(1)) == 0);
    held = mbufs[3];
    rte_mbuf_refcnt_update(held, 1);
    owner = fresh(1);
    rte_pktmbuf_attach(mbufs[4], owner);
    mbufs_free(mbufs, 6);
    REQUIRE(used(0) == 1 && rte_mbuf_refcnt_read(held) == 1);
    REQUIRE(used(1) == 1 && rte_mbuf_refcnt_read(owner) == 1);
    mbufs_free(&held, 1);
    mbufs_free(&owner, 1);
    REQUIRE(used(0) == 0 && used(1) == 0);
}

/* None is in a pool twice: all that a pool has are different ones, and as good as new. */
static void each_once(void)
{
    struct rte_mbuf *mbufs[POOL];

    REQUIRE(mbufs_take(pools[0], mbufs, POOL));
    for (int i = 0; i < POOL; i++) {
        REQUIRE(mbufs[i]->pool == pools[0] && rte_mbuf_refcnt_read(mbufs[i]) == 1 && mbufs[i]->nb_segs == 1);
        REQUIRE(mbufs[i]->next == NULL && mbufs[i]->pkt_len == 0 && mbufs[i]->data_len == 0 && mbufs[i]->ol_flags == 0);
        REQUIRE(mbufs[i]->data_off == RTE_PKTMBUF_HEADROOM && mbufs[i]->port == RTE_MBUF_PORT_INVALID);
        mbufs[i]->ol_flags = RTE_MBUF_F_RX_VLAN; /* as it is used */
        mbufs[i]->data_off = 7;
        mbufs[i]->pkt_len = mbufs[i]->data_len = (uint16_t)(i + 1);
        for (int j = 0; j < i; j++)
            REQUIRE(mbufs[i] != mbufs[j]);
    }
    REQUIRE(!mbufs_take(pools[0], mbufs, 1));
    mbufs_free(mbufs, POOL);
    REQUIRE(used(0) == 0);
}

static void all_or_none(void)
{
    struct rte_mbuf *mbufs[POOL], *one = fresh(0);

    REQUIRE(!mbufs_take(pools[0], mbufs, POOL));
    REQUIRE(used(0) == 1);
    rte_pktmbuf_free(one);
}

int main(void)
{
    char *words[] = {"mbufs", "--no-huge", "--no-pci", "--no-shconf", "--no-telemetry", "-m", "64", "-l", "0", NULL};

    REQUIRE(rte_eal_init(9, words) >= 0);
    pools[0] = rte_pktmbuf_pool_create("a", POOL, 0, 0, 2048 + RTE_PKTMBUF_HEADROOM, SOCKET_ID_ANY);
    pools[1] = rte_pktmbuf_pool_create("b", POOL, 0, 0, 2048 + RTE_PKTMBUF_HEADROOM, SOCKET_ID_ANY);
    REQUIRE(pools[0] != NULL && pools[1] != NULL);
    whole_ones_of_both_pools();
    for (int i = 0; i < 3; i++) {
        each_once();
        those_that_are_not_whole();
    }
    all_or_none();
    return 0;
}
