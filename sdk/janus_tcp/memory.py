"""Two stacks joined in memory: what janus_tcp.testing and janus_tcp.asyncio_testing stand on."""

from typing import TypedDict, Unpack

from janus_tcp._native import ffi, lib, raise_error
from janus_tcp.addresses import pack

HOST, CLIENT_HOST = "192.0.2.1", "192.0.2.2"


class Bounds(TypedDict, total=False):
    """What can be chosen of both stacks and of the wire."""

    connections: int  # of one side, as the slots
    rx_slots: int
    tx_slots: int
    latency_us: int
    mtu: int
    seed: int
    recv_buffer: int  # bytes of a connection; 0: the stack's default
    send_buffer: int


DEFAULTS = Bounds(
    connections=1024,
    rx_slots=4096,
    tx_slots=4096,
    latency_us=0,
    mtu=1500,
    seed=1,
    recv_buffer=0,
    send_buffer=0,
)
FIELDS = {"connections": "rows", "recv_buffer": "rcv_buf_bytes", "send_buffer": "snd_buf_bytes"}


class Wire:
    """The wire with a stack at each end.  Raises TypeError for a bound that there is not, OSError with the reason."""

    def __init__(self, hosts: tuple[str, str], *, virtual_time: bool, **bounds: Unpack[Bounds]) -> None:
        options = ffi.new("struct janus_loop_options *")
        for name, value in (DEFAULTS | bounds).items():
            if name not in DEFAULTS:
                raise TypeError(f"two stacks in memory have no {name}")
            setattr(options, FIELDS.get(name, name), value)
        options.virtual_time = virtual_time
        self.addresses: list[bytes] = []
        for i, host in enumerate(hosts):
            packed = pack(host)
            assert packed is not None, f"{host} is not one address"
            options.addresses[i].b = packed
            self.addresses.append(packed)
        error = ffi.new("struct janus_error *")
        self._wire = lib.janus_loop_open(options, error)
        if self._wire == ffi.NULL:
            raise_error(error)

    def thread(self, number: int) -> int:
        """The struct janus_thread of one end."""
        return int(ffi.cast("uintptr_t", lib.janus_loop_thread(self._wire, number)))

    def advance(self, us: int) -> None:
        """Move virtual time on."""
        lib.janus_loop_advance(self._wire, us)

    def close(self) -> None:
        """End it; the loops on it are closed before."""
        if self._wire != ffi.NULL:
            lib.janus_loop_close(self._wire)
            self._wire = ffi.NULL


__all__ = ["CLIENT_HOST", "HOST", "Bounds", "Wire"]
