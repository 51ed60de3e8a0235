/*
 * joined.c: the far end of a net_virtio_user port: sends what a host with segmentation offload would.
 *
 *     joined SOCKET    then on its input, for each frame: segment size (0: whole) and length, 32 bits each, and the frame
 *
 * What comes the other way is written to its output in the same form, after the line "listening".
 *
 * A frame with a segment size goes as one, its TCP checksum that of the pseudo header; so does a whole one whose checksum nobody has
 * computed yet.  The port behind says of both that the text is good and its checksum is not there.
 */
#include "tests/dpdk/require.h"

#include <pthread.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <unistd.h>

enum { POOL = 1023, DESCRIPTORS = 256, PART = 1500, FRAME_MAX = 65549, LINK_WAIT_MS = 10000 };

static struct rte_mempool *pool;

static void start_port(void)
{
    struct rte_eth_conf conf = {.txmode = {.offloads = RTE_ETH_TX_OFFLOAD_MULTI_SEGS}};

    pool = rte_pktmbuf_pool_create("frames", POOL, 0, 0, 2048 + RTE_PKTMBUF_HEADROOM, SOCKET_ID_ANY);
    REQUIRE(pool != NULL);
    REQUIRE(rte_eth_dev_configure(0, 1, 1, &conf) == 0);
    REQUIRE(rte_eth_rx_queue_setup(0, 0, DESCRIPTORS, SOCKET_ID_ANY, NULL, pool) == 0);
    REQUIRE(rte_eth_tx_queue_setup(0, 0, DESCRIPTORS, SOCKET_ID_ANY, NULL) == 0);
    REQUIRE(rte_eth_dev_start(0) == 0);
}

static void await_link(void)
{
    struct rte_eth_link link = {0};

    for (int ms = 0; ms < LINK_WAIT_MS && link.link_status == 0; ms++) {
        usleep(1000);
        REQUIRE(rte_eth_link_get_nowait(0, &link) == 0);
    }
    REQUIRE(link.link_status != 0);
}

static struct rte_mbuf *chain_of(const uint8_t *frame, uint32_t len)
{
    struct rte_mbuf *first = NULL;

    for (uint32_t at = 0, n; at < len; at += n) {
        struct rte_mbuf *part = rte_pktmbuf_alloc(pool);

        REQUIRE(part != NULL);
        n = len - at < PART ? len - at : PART;
        memcpy(rte_pktmbuf_append(part, (uint16_t)n), frame + at, n);
        if (first == NULL)
            first = part;
        else
            REQUIRE(rte_pktmbuf_chain(first, part) == 0);
    }
    return first;
}

static void send_frame(const uint8_t *frame, uint32_t len, uint32_t segment)
{
    struct rte_mbuf *m = chain_of(frame, len);
    bool six = frame[12] == 0x86;

    m->l2_len = 14;
    m->l3_len = six ? 40 : 20;
    m->l4_len = (frame[14 + m->l3_len + 12] >> 4) * 4u;
    m->ol_flags |= RTE_MBUF_F_TX_TCP_CKSUM | (six ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4);
    if (segment != 0) {
        m->ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
        m->tso_segsz = (uint16_t)segment;
    }
    while (rte_eth_tx_burst(0, 0, &m, 1) != 1)
        usleep(100);
}

/* What the port behind sends, as it is. */
static void *receive(void *unused)
{
    static uint8_t frame[FRAME_MAX];
    struct rte_mbuf *m;

    (void)unused;
    for (;;) {
        if (rte_eth_rx_burst(0, 0, &m, 1) != 1) {
            usleep(100);
            continue;
        }
        uint32_t len = m->pkt_len;
        bool cut = (m->ol_flags & RTE_MBUF_F_RX_LRO) != 0;
        uint32_t head[2] = {cut ? m->tso_segsz : 0, len};
        const void *whole = len <= sizeof frame ? rte_pktmbuf_read(m, 0, len, frame) : NULL;
        REQUIRE(whole != NULL);
        REQUIRE(fwrite(head, sizeof head, 1, stdout) == 1 && fwrite(whole, len, 1, stdout) == 1 && fflush(stdout) == 0);
        rte_pktmbuf_free(m);
    }
}

int main(int argc, char **argv)
{
    static uint8_t frame[FRAME_MAX];
    uint32_t head[2];
    pthread_t receiver;
    char vdev[200];
    char *words[] = {argv[0],  "-l", "0",        "--no-huge",      "--no-shconf",
                     "-m",     "64", "--no-pci", "--no-telemetry", "--iova-mode=va",
                     "--vdev", vdev};

    REQUIRE(argc == 2);
    snprintf(vdev, sizeof vdev, "net_vhost0,iface=%s,tso=1", argv[1]);
    REQUIRE(rte_eal_init(sizeof words / sizeof *words, words) >= 0);
    start_port();
    puts("listening");
    fflush(stdout);
    REQUIRE(pthread_create(&receiver, NULL, receive, NULL) == 0);
    while (fread(head, sizeof head, 1, stdin) == 1) {
        await_link();
        REQUIRE(head[1] <= sizeof frame && fread(frame, head[1], 1, stdin) == 1);
        send_frame(frame, head[1], head[0]);
    }
    return 0;
}
