/*
 * port.c: one ethdev from its device string to its first burst.
 */
#include "dpdk_glue/port.h"

#include "dpdk_glue/eal.h"
#include "dpdk_glue/refuse.h"
#include "dpdk_glue/wake_fds.h"

#include <errno.h>
#include <rte_dev.h>
#include <stdio.h>

enum { DESCRIPTORS = 1024, HANDOVER = 1024, MTU_MIN = 576, MTU_MAX = 1500 };

#define AF_PACKET_DRIVER "net_af_packet"
#define TAP_DRIVER       "net_tap"

/* The device's name, which is what stands before its first comma. */
static void device_name(const char *device, char *out, size_t bytes)
{
    snprintf(out, bytes, "%.*s", (int)strcspn(device, ","), device);
}

static bool is_af_packet(const char *name)
{
    return strncmp(name, AF_PACKET_DRIVER, sizeof AF_PACKET_DRIVER - 1) == 0;
}

/* Finds the ethdev of a device, and makes it when it is not there yet. */
static int probe(struct glue *g, const struct glue_port_config *c, uint16_t *ethdev, struct glue_text *why)
{
    char name[GLUE_DEVICE_BYTES], device[GLUE_DEVICE_BYTES + 24];
    struct eal_ear ear;

    device_name(c->device, name, sizeof name);
    snprintf(device, sizeof device, "%s", c->device);
    if (g->io_count > 1 && is_af_packet(name) && strstr(device, "qpairs=") == NULL)
        snprintf(device, sizeof device, "%s,qpairs=%u", c->device, g->io_count);
    if (rte_eth_dev_get_port_by_name(name, ethdev) == 0)
        return 0;
    eal_listen(&ear);
    int rc = rte_dev_probe(device);
    eal_heard(&ear);
    if (rc < 0)
        return refuse(why, -rc, "port %.31s: device %.60s: %s", c->name, c->device, ear.said);
    if (rte_eth_dev_get_port_by_name(name, ethdev) != 0)
        return refuse(why, ENODEV, "port %.31s: device %.60s is no Ethernet device", c->name, c->device);
    return 0;
}

static uint16_t smaller(uint32_t a, uint32_t b)
{
    return (uint16_t)(a < b ? a : b);
}

/* A port that cuts long segments completes their checksums, too.  It states no difference of IPv4 and IPv6; net_tap, which cuts in
 * software, passes IPv6 on uncut and compares the whole frame to the MTU. */
static void choose_tso(struct port *p, const struct rte_eth_dev_info *info, struct rte_eth_conf *conf)
{
    uint64_t needed = RTE_ETH_TX_OFFLOAD_TCP_TSO | RTE_ETH_TX_OFFLOAD_MULTI_SEGS | RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
    uint16_t most = info->tx_desc_lim.nb_seg_max;

    if ((info->tx_offload_capa & needed) != needed || (most != 0 && most < TX_BURST_PER_APP))
        return;
    conf->txmode.offloads |= needed;
    p->offloads |= GLUE_OFFLOAD_TX_TSO_IPV4;
    if ((info->tx_offload_capa & RTE_ETH_TX_OFFLOAD_IPV4_CKSUM) != 0) { /* of virtio its host does it, as it cuts */
        conf->txmode.offloads |= RTE_ETH_TX_OFFLOAD_IPV4_CKSUM;
        p->offloads |= GLUE_OFFLOAD_TX_IPV4;
    }
    if (strcmp(info->driver_name, TAP_DRIVER) != 0)
        p->offloads |= GLUE_OFFLOAD_TX_TSO_IPV6;
}

/* A port that joins what it receives gives chains of buffers (lro.h). */
static void choose_lro(struct port *p, const struct rte_eth_dev_info *info, struct rte_eth_conf *conf)
{
    uint64_t needed = RTE_ETH_RX_OFFLOAD_TCP_LRO | RTE_ETH_RX_OFFLOAD_SCATTER;

    if ((info->rx_offload_capa & needed) != needed)
        return;
    conf->rxmode.offloads |= needed;
    conf->rxmode.max_lro_pkt_size = info->max_lro_pkt_size;
    p->offloads |= GLUE_OFFLOAD_RX_LRO;
}

/* The port's MTU; net_tap's is larger where TSO wants it so (choose_tso()) and the driver takes it. */
static int set_mtu(struct port *p)
{
    uint16_t frame = p->mtu + ETHER_HEADER_MAX;
    bool is_tap = strcmp(p->driver, TAP_DRIVER) == 0;

    p->tso_frame_max = is_tap ? p->mtu : UINT16_MAX;
    if (is_tap && (p->offloads & GLUE_OFFLOAD_TX_TSO) != 0 && rte_eth_dev_set_mtu(p->ethdev, frame) == 0) {
        p->tso_frame_max = frame;
        return 0;
    }
    return rte_eth_dev_set_mtu(p->ethdev, p->mtu);
}

static void choose(struct glue *g, struct port *p, const struct rte_eth_dev_info *info, struct rte_eth_conf *conf,
                   const struct glue_port_config *c)
{
    /* The kernel spreads packets over all of af_packet's queues, so all of them are to be polled. */
    uint32_t rx = is_af_packet(info->driver_name) ? info->max_rx_queues : g->io_count;

    p->rx_queues = smaller(rx, info->max_rx_queues);
    p->tx_queues = smaller(g->io_count, info->max_tx_queues);
    if (is_af_packet(info->driver_name))
        p->tx_queues = p->rx_queues; /* its queues are pairs */
    p->offloads = 0;
    conf->rxmode.mtu = p->mtu;
    if (info->tx_offload_capa & RTE_ETH_TX_OFFLOAD_TCP_CKSUM) {
        conf->txmode.offloads |= RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
        p->offloads |= GLUE_OFFLOAD_TX_TCP;
    }
    if (c->tso != 0)
        choose_tso(p, info, conf);
    if (c->lro != 0)
        choose_lro(p, info, conf);
    if (info->rx_offload_capa & RTE_ETH_RX_OFFLOAD_TCP_CKSUM) {
        conf->rxmode.offloads |= RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
        p->offloads |= GLUE_OFFLOAD_RX_TCP;
    }
    if (p->rx_queues > 1 && (info->flow_type_rss_offloads & RTE_ETH_RSS_TCP) != 0) {
        conf->rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
        conf->rx_adv_conf.rss_conf.rss_hf = info->flow_type_rss_offloads & (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP);
    }
}

static int set_up_queues(struct glue *g, struct port *p)
{
    uint16_t rx_descriptors = DESCRIPTORS, tx_descriptors = DESCRIPTORS;
    unsigned socket = (unsigned)rte_eth_dev_socket_id(p->ethdev);

    p->ahead = calloc(p->rx_queues, sizeof *p->ahead);
    int rc = p->ahead == NULL ? -ENOMEM : rte_eth_dev_adjust_nb_rx_tx_desc(p->ethdev, &rx_descriptors, &tx_descriptors);
    for (uint16_t q = 0; rc == 0 && q < p->rx_queues; q++)
        rc = rte_eth_rx_queue_setup(p->ethdev, q, rx_descriptors, socket, NULL, g->pool);
    for (uint16_t q = 0; rc == 0 && q < p->tx_queues; q++)
        rc = rte_eth_tx_queue_setup(p->ethdev, q, tx_descriptors, socket, NULL);
    return rc;
}

static int configure(struct glue *g, struct port *p, const struct glue_port_config *c)
{
    struct rte_eth_conf conf = {0};
    struct rte_eth_dev_info info;
    struct rte_ether_addr mac;

    int rc = rte_eth_dev_info_get(p->ethdev, &info);
    if (rc != 0)
        return rc;
    snprintf(p->driver, sizeof p->driver, "%s", info.driver_name);
    choose(g, p, &info, &conf, c);
    rc = rte_eth_dev_configure(p->ethdev, p->rx_queues, p->tx_queues, &conf);
    if (rc == 0)
        rc = set_up_queues(g, p);
    if (rc == 0)
        rc = set_mtu(p);
    if (rc == -ENOTSUP) /* net_ring and others have none to set */
        rc = 0;
    if (rc == 0)
        rc = rte_eth_dev_start(p->ethdev);
    if (rc != 0)
        return rc;
    if (c->promiscuous)
        rc = rte_eth_promiscuous_enable(p->ethdev);
    else
        (void)rte_eth_promiscuous_disable(p->ethdev);
    (void)rte_eth_allmulticast_enable(p->ethdev); /* neighbour discovery; a device without it hears all anyway */
    if (rc == 0)
        rc = rte_eth_macaddr_get(p->ethdev, &mac);
    if (rc == 0)
        memcpy(&p->classify.mac, mac.addr_bytes, sizeof p->classify.mac);
    return rc;
}

static int add_stats(struct glue *g, struct port *p, uint32_t number)
{
    for (uint32_t io = 0; io <= GLUE_IO_MAX; io++) {
        if (io >= g->io_count && io != CONTROL)
            continue;
        p->stats[io] = page_block_add(g->page, PAGE_KIND_PORT, number, 0, io == CONTROL ? PAGE_NO_IO : io, 0, p->name);
        if (p->stats[io] == NULL)
            return -ENOSPC;
    }
    return 0;
}

/* Whether a frame on this port ends an I/O thread's sleep. */
static bool watch(struct glue *g, const struct wake_fds *before)
{
    struct wake_fds opened;
    bool watched = true;

    wake_fds_list(&opened);
    wake_fds_subtract(&opened, before);
    for (uint32_t i = 0; i < g->io_count; i++)
        watched &= wake_fds_watch(&opened, g->io[i].epoll_fd);
    return watched && opened.count > 0;
}

static int open_port(struct glue *g, const struct glue_port_config *c, struct glue_text *why)
{
    uint32_t number = atomic_load(&g->port_count);
    struct port *p = &g->ports[number];
    struct wake_fds before;
    struct eal_ear ear;
    char name[GLUE_NAME_BYTES];

    if (number == GLUE_PORTS_MAX)
        return refuse(why, ENOSPC, "at most %d ports", GLUE_PORTS_MAX);
    if (c->mtu < MTU_MIN || c->mtu > MTU_MAX)
        return refuse(why, EINVAL, "port %.31s: mtu must be %d to %d, not %u", c->name, MTU_MIN, MTU_MAX, c->mtu);
    *p = (struct port){.mtu = c->mtu, .reassembles = c->reassemble != 0};
    p->classify = (struct classify_port){.mtu = c->mtu, .vlan_id = c->vlan_id & ETHER_VLAN_ID_MASK};
    snprintf(p->name, sizeof p->name, "%.31s", c->name);
    wake_fds_list(&before);
    int rc = probe(g, c, &p->ethdev, why);
    if (rc != 0)
        return rc;
    for (uint32_t i = 0; i < number; i++) {
        if (g->ports[i].ethdev == p->ethdev)
            return refuse(why, EEXIST, "port %.31s: device %.60s is port %s already", c->name, c->device,
                          g->ports[i].name);
    }
    eal_listen(&ear);
    rc = configure(g, p, c);
    eal_heard(&ear);
    snprintf(name, sizeof name, "janus_handover_%u", number);
    if (rc == 0) {
        p->handover = rte_ring_create(name, HANDOVER, SOCKET_ID_ANY, RING_F_MP_RTS_ENQ | RING_F_SC_DEQ);
        rc = p->handover == NULL ? -ENOMEM : add_stats(g, p, number);
    }
    if (rc != 0) {
        rte_eth_dev_close(p->ethdev);
        rte_ring_free(p->handover);
        free(p->ahead);
        return refuse(why, -rc, "port %.31s: device %.60s does not start (%s): %s", c->name, c->device, strerror(-rc),
                      ear.said);
    }
    p->wakes = watch(g, &before);
    atomic_store_explicit(&g->port_count, number + 1, memory_order_release);
    return (int)number;
}

int glue_port_open(struct glue *g, const struct glue_port_config *config, struct glue_text *why)
{
    mtx_lock(&g->control);
    int rc = open_port(g, config, why);
    mtx_unlock(&g->control);
    return rc;
}

int glue_port_info(struct glue *g, uint32_t port, struct glue_port_info *out)
{
    struct rte_eth_link link = {0};

    if (port >= atomic_load(&g->port_count))
        return -ENODEV;
    struct port *p = &g->ports[port];
    *out = (struct glue_port_info){
        .mtu = p->mtu, .rx_queues = p->rx_queues, .tx_queues = p->tx_queues, .offloads = p->offloads};
    memcpy(out->name, p->name, sizeof out->name);
    memcpy(out->driver, p->driver, sizeof out->driver);
    memcpy(out->mac, &p->classify.mac, sizeof out->mac);
    if (rte_eth_link_get_nowait(p->ethdev, &link) == 0) {
        out->link_up = link.link_status == RTE_ETH_LINK_UP;
        out->link_mbps = link.link_speed == RTE_ETH_SPEED_NUM_UNKNOWN ? 0 : link.link_speed;
    }
    return 0;
}

int glue_port_stats(struct glue *g, uint32_t port, struct glue_port_stats *out)
{
    struct rte_eth_stats s = {0};

    if (port >= atomic_load(&g->port_count))
        return -ENODEV;
    int rc = rte_eth_stats_get(g->ports[port].ethdev, &s);
    *out = (struct glue_port_stats){s.ipackets,  s.ibytes,   s.imissed, s.ierrors,
                                    s.rx_nombuf, s.opackets, s.obytes,  s.oerrors};
    return rc;
}

void ports_close(struct glue *g)
{
    for (uint32_t i = 0; i < atomic_load(&g->port_count); i++) {
        struct rte_mbuf *m;
        while (rte_ring_dequeue(g->ports[i].handover, (void **)&m) == 0)
            rte_pktmbuf_free(m);
        rte_ring_free(g->ports[i].handover);
        (void)rte_eth_dev_stop(g->ports[i].ethdev);
        (void)rte_eth_dev_close(g->ports[i].ethdev);
        free(g->ports[i].ahead);
    }
    atomic_store(&g->port_count, 0);
}
