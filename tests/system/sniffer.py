"""Counts on the client's end the frames that must not be, by a filter in the kernel: at any speed only the bad ones
are queued. Bad is what an app may not have sent, or any reset."""

import ctypes
import socket
import struct

from bench.rig import Network

SO_ATTACH_FILTER = 26
SOL_PACKET = 263
PACKET_IGNORE_OUTGOING = 23
ETH_P_ALL = 3

LD_WORD, LD_HALF, LD_BYTE, LD_HALF_INDEXED, LDX_HEADER_LEN = 0x20, 0x28, 0x30, 0x48, 0xB1
LD_BYTE_INDEXED, ETHER_AND_FLAGS, RST = 0x50, 14 + 13, 4
JUMP_EQUAL, JUMP_SET, JUMP_ABOVE, JUMP_AT_LEAST, RETURN = 0x15, 0x45, 0x25, 0x35, 0x06

Line = tuple[int, int, str | None, str | None]  # code, k, label when true, label when not (None: next)


def _port_lines(ranges: tuple[tuple[int, int], ...]) -> list[Line | str]:
    lines: list[Line | str] = []
    for number, (first, last) in enumerate(ranges):
        lines += [
            (JUMP_AT_LEAST, first, None, f"range{number}"),
            (JUMP_ABOVE, last, f"range{number}", "good"),
            f"range{number}",
        ]
    return [*lines, "bad", (RETURN, 0xFFFF, None, None), "good", (RETURN, 0, None, None)]


def _program(ranges: tuple[tuple[int, int], ...]) -> bytes:
    """Good: ARP; ICMP and unfragmented TCP from 10.77.0.1 or fd77::1, TCP from a port in the ranges."""
    source: list[Line | str] = [
        (LD_HALF, 12, None, None),
        (JUMP_EQUAL, 0x0806, "good", None),
        (JUMP_EQUAL, 0x86DD, "ipv6", None),
        (JUMP_EQUAL, 0x0800, None, "bad"),
        (LD_BYTE, 14, None, None),
        (JUMP_EQUAL, 0x45, None, "bad"),
        (LD_WORD, 26, None, None),
        (JUMP_EQUAL, 0x0A4D0001, None, "bad"),
        (LD_HALF, 20, None, None),
        (JUMP_SET, 0x3FFF, "bad", None),
        (LD_BYTE, 23, None, None),
        (JUMP_EQUAL, 1, "good", None),
        (JUMP_EQUAL, 6, None, "bad"),
        (LDX_HEADER_LEN, 14, None, None),
        (LD_HALF_INDEXED, 14, None, None),
        (JUMP_AT_LEAST, 0, "ports", "ports"),
        "ipv6",
        *(
            line
            for offset, word in ((22, 0xFD770000), (26, 0), (30, 0), (34, 1))
            for line in ((LD_WORD, offset, None, None), (JUMP_EQUAL, word, None, "bad"))
        ),
        (LD_BYTE, 20, None, None),
        (JUMP_EQUAL, 58, "good", None),
        (JUMP_EQUAL, 6, None, "bad"),
        (LD_HALF, 54, None, None),
        "ports",
        *_port_lines(ranges),
    ]
    return _assemble(source)


def _resets() -> bytes:
    """Bad: TCP over IPv4 with RST."""
    return _assemble(
        [
            (LD_HALF, 12, None, None),
            (JUMP_EQUAL, 0x0800, None, "good"),
            (LD_BYTE, 23, None, None),
            (JUMP_EQUAL, 6, None, "good"),
            (LDX_HEADER_LEN, 14, None, None),
            (LD_BYTE_INDEXED, ETHER_AND_FLAGS, None, None),
            (JUMP_SET, RST, "bad", "good"),
            *_port_lines(()),
        ]
    )


def _assemble(source: list[Line | str]) -> bytes:
    labels: dict[str, int] = {}
    lines: list[Line] = []
    for line in source:
        if isinstance(line, str):
            labels[line] = len(lines)
        else:
            lines.append(line)
    out = b""
    for at, (code, k, yes, no) in enumerate(lines):
        jumps = [0 if label is None else labels[label] - at - 1 for label in (yes, no)]
        out += struct.pack("=HBBI", code, *jumps, k)
    return out


class Sniffer:
    """Listens from enter to exit."""

    def __init__(self, network: Network, ports: tuple[tuple[int, int], ...] | None) -> None:
        """ports: from which an app may send; None: resets alone are bad."""
        program = _resets() if ports is None else _program(ports)
        self._code = ctypes.create_string_buffer(program)
        filter_ = struct.pack("HL", len(program) // 8, ctypes.addressof(self._code))
        self._sock = network.inside(
            network.cli, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        )
        self._sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter_)
        self._sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self._sock.bind(("v1", ETH_P_ALL))
        self._sock.setblocking(False)
        self._take()  # what came before the filter was in place

    def _take(self) -> list[bytes]:
        frames = []
        while True:
            try:
                frames.append(self._sock.recv(2048))
            except BlockingIOError:
                return frames

    def bad(self) -> list[str]:
        """The bad frames since the last call, their headers in hexadecimal."""
        return [frame[:64].hex() for frame in self._take()]

    def __enter__(self) -> "Sniffer":
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()
