"""Ports: open by vdev string or PCI address, look at link and counters."""

from __future__ import annotations

from typing import Any

from dpdk_glue.native import check, ffi, lib, name_bytes, text_of, why
from dpdk_glue.values import Offload, PortConfig, PortInfo, PortStats


class Ports:
    """The ports of a data plane, numbered in the order in which they were opened."""

    def __init__(self, glue: Any) -> None:
        self._glue = glue

    def open(self, config: PortConfig) -> int:
        """Probe, configure and start a port; return its number.

        GlueError names the device and what is wrong with it.
        """
        c = ffi.new("struct glue_port_config *")
        c.name = name_bytes(config.name, lib.GLUE_NAME_BYTES)
        c.device = name_bytes(config.device, lib.GLUE_DEVICE_BYTES)
        c.mtu = config.mtu
        c.promiscuous = config.promiscuous
        c.vlan_id = config.vlan
        c.reassemble = config.reassemble
        c.tso = config.tso
        c.lro = config.lro
        reason = why()
        return check(lib.glue_port_open(self._glue, c, reason), reason)

    def info(self, port: int) -> PortInfo:
        """Return the port as it is now."""
        out = ffi.new("struct glue_port_info *")
        check(lib.glue_port_info(self._glue, port, out))
        return PortInfo(
            name=text_of(out.name),
            driver=text_of(out.driver),
            mac=bytes(out.mac),
            mtu=out.mtu,
            rx_queues=out.rx_queues,
            tx_queues=out.tx_queues,
            offloads=Offload(out.offloads),
            link_up=bool(out.link_up),
            link_mbps=out.link_mbps,
        )

    def stats(self, port: int) -> PortStats:
        """Return the port's own counters."""
        out = ffi.new("struct glue_port_stats *")
        check(lib.glue_port_stats(self._glue, port, out))
        return PortStats(
            rx_packets=out.rx_packets,
            rx_bytes=out.rx_bytes,
            rx_missed=out.rx_missed,
            rx_errors=out.rx_errors,
            rx_no_mbuf=out.rx_no_mbuf,
            tx_packets=out.tx_packets,
            tx_bytes=out.tx_bytes,
            tx_errors=out.tx_errors,
        )
