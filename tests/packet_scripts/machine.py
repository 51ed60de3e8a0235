"""The stack under a script, in virtual time: its driver, the packets that it sent with their times, and its news."""

from collections.abc import Callable
from typing import Any

from _tcp import ffi, lib

from tests.packet_scripts import wire
from tests.packet_scripts.script import Unsupported
from tests.packets import address

START_US = 1_000_000_000
NEVER = 2**64 - 1

# What `--so_flags=name=value,...` may set: fields of struct tcp_config.
SETTINGS: dict[str, int] = {
    "conn_max": 64,
    "half_open_max": 64,
    "time_wait_max": 16,
    "extension_max": 64,
    "rx_slots": 1024,
    "tx_slots": 1024,
    "mtu": 1500,
    "rcv_buf_bytes": 0,
    "snd_buf_bytes": 0,
    "rcv_buf_max_bytes": 0,
    "snd_buf_max_bytes": 0,
    "msl_ms": 0,
    "fin_wait_2_ms": 0,
    "source_port_first": 40000,
    "source_port_last": 49999,
    "reset_unknown": 1,
    "options_off": 0,
    "window_scale": 0,
    "quick_acks": 0,
    "handshake_rtt": 0,
    "congestion_control": int(lib.TCP_CC_NEWRENO),
    "ecn": int(lib.TCP_ECN_PASSIVE),
    "pacing": 0,
}


class Machine:
    """Time is in microseconds since the script began."""

    def __init__(self) -> None:
        self.settings = dict(SETTINGS)
        self.addresses: list[str] = []
        self.now_us = 0
        self.alarm_us: int | None = None  # when a call's own time-out passes
        self.sent: list[wire.Segment] = []
        self.accepted: dict[int, list[int]] = {}  # a listener's connections that nobody has taken
        self.drops: list[str] = []
        self.switched_off: set[str] = set()  # options that a sysctl takes away, which the core cannot
        self.native: Any = None
        self.tcp: Any = None
        self.buffer = ffi.new("uint8_t[]", 2048)
        self.watch: Callable[[], bool] = lambda: False  # lets a blocked call go on; true: it did something

    # --- before the first packet ---

    def set(self, name: str, value: int) -> None:
        """A setting of the stack; once it runs it can be set to what it is."""
        if name not in self.settings:
            raise Unsupported(f"setting {name}")
        if self.tcp is not None and self.settings[name] != value:
            raise Unsupported(f"{name} of a running stack")
        self.settings[name] = value

    def start(self) -> None:
        if self.tcp is not None:
            return
        for name in ("rcv_buf", "snd_buf"):  # of a fixed size unless the script asks for more
            self.settings[f"{name}_bytes"] = self.settings[f"{name}_bytes"] or 256 * 1024
        config = ffi.new("struct tcp_config *", {**self.settings, "flow_secret": {"k0": 1, "k1": 2}})
        native = lib.native_new(config, START_US + self.now_us)
        if native == ffi.NULL:
            raise Unsupported(f"the core refuses this configuration: {self.settings}")
        self.native = ffi.gc(native, lib.native_free)
        self.tcp = native.stack
        for a in self.addresses:
            assert lib.tcp_add_address(self.tcp, self.ip(a))

    @staticmethod
    def ip(text: str | None) -> Any:
        return ffi.new("struct ip_addr *", {"b": address(text)} if text else None)

    # --- the loop ---

    @property
    def core_us(self) -> int:
        """Now, on the core's clock."""
        return START_US + self.now_us

    def step(self) -> None:
        """Sends what is owed and hands out news, until nothing moves."""
        while True:
            lib.tcp_output(self.tcp, self.core_us)
            lib.tcp_check(self.tcp)
            while (n := lib.native_take(self.native, self.buffer)) >= 0:
                self.sent.append(wire.parse(bytes(ffi.buffer(self.buffer, n)), self.now_us))
            event = ffi.new("struct tcp_event *")
            while lib.tcp_next_event(self.tcp, event):
                if event.kinds & lib.TCP_EVENT_ACCEPTED:
                    self.accepted.setdefault(int(event.user), []).append(int(event.conn))
            if not self.watch():
                return

    def deadline(self) -> int:
        """When something happens by itself, at the earliest."""
        at = NEVER if self.tcp is None else int(lib.tcp_next_deadline(self.tcp))
        at = at - START_US if at != NEVER else NEVER
        if self.alarm_us is not None:
            at = min(at, self.alarm_us)
        return max(at, self.now_us)

    def advance_to(self, target_us: int, until: Callable[[], bool] = lambda: False) -> None:
        """Lets time pass, deadline by deadline, up to target or as soon as `until` holds."""
        if self.tcp is None:
            self.now_us = max(self.now_us, target_us)
            return
        while not until() and (at := self.deadline()) <= target_us:
            stuck = at == self.now_us
            self.now_us = at
            lib.tcp_advance(self.tcp, self.core_us)
            lib.tcp_check(self.tcp)
            self.step()
            assert not stuck or self.deadline() > self.now_us, "a deadline that does not pass"
        if not until() and target_us > self.now_us:
            self.now_us = target_us
            lib.tcp_advance(self.tcp, self.core_us)
            self.step()

    def need_option(self, option: str) -> None:
        """The script is about to offer or use a TCP option."""
        if option in self.switched_off:
            raise Unsupported(f"{option} switched off by a sysctl")

    def receive(self, packets: list[bytes]) -> None:
        """One batch: what it owes is sent when all of it is in."""
        self.start()
        for packet in packets:
            reason = int(lib.native_input(self.native, packet, len(packet), 14, False, self.core_us))
            assert reason >= 0, "the driver has no RX slot left"
            if reason:
                self.drops.append(ffi.string(lib.tcp_drop_name(reason)).decode())
            lib.tcp_check(self.tcp)
        self.step()

    def is_tidy(self) -> bool:
        """When no connection is left: the core holds no slot either."""
        if self.tcp is None:
            return True
        usage = ffi.new("struct tcp_usage *")
        lib.tcp_usage(self.tcp, usage)
        return bool(usage.conns) or not (usage.rx_slots_held or usage.tx_slots_held)
