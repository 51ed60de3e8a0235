"""Our addresses, routes, and neighbours, as the I/O threads see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network
from typing import Any

from dpdk_glue.native import check, ffi, lib, pack_address, why
from dpdk_glue.values import Address, Route


class Routing:
    """Snapshots that the control plane replaces and the I/O threads read."""

    def __init__(self, glue: Any) -> None:
        self._glue = glue

    def set_addresses(self, addresses: Mapping[Address, int]) -> None:
        """Replace our addresses, each with the number of its port. A frame for another address is dropped."""
        items = ffi.new("struct glue_address[]", max(len(addresses), 1))
        for item, (address, port) in zip(items, addresses.items(), strict=False):
            item.address = pack_address(address)
            item.port = port
        reason = why()
        check(lib.glue_addresses_set(self._glue, items, len(addresses), reason), reason)

    def set_routes(self, routes: Iterable[Route]) -> None:
        """Replace all routes, connected prefixes (next_hop None) included. The longest prefix wins."""
        listed = list(routes)
        items = ffi.new("struct glue_route[]", max(len(listed), 1))
        for item, route in zip(items, listed, strict=False):
            item.prefix = pack_address(route.prefix.network_address)
            item.prefix_len = route.prefix.prefixlen + (96 if isinstance(route.prefix, IPv4Network) else 0)
            item.next_hop = pack_address(route.next_hop) if route.next_hop is not None else bytes(16)
            item.port = route.port
        reason = why()
        check(lib.glue_routes_set(self._glue, items, len(listed), reason), reason)

    def set_neighbour(self, port: int, address: Address, mac: bytes) -> None:
        """Add or change the link-layer address of a neighbour."""
        if len(mac) != 6:
            raise ValueError(f"a MAC address has 6 bytes, not {len(mac)}")
        reason = why()
        check(lib.glue_neighbour_set(self._glue, port, pack_address(address), mac, reason), reason)

    def delete_neighbour(self, port: int, address: Address) -> bool:
        """Forget a neighbour; packets for it come to the slow path again. False: there was none."""
        return check(lib.glue_neighbour_delete(self._glue, port, pack_address(address))) > 0
