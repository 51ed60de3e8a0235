"""A port that joins what it receives: net_virtio_user, with a process behind it that sends as a host with segmentation
offload does.  Each function runs in a process of its own."""

import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

from dpdk_glue.values import Offload
from tests.dpdk.rig import Rig
from tests.dpdk.wire_side import IP, TCP, IPv6, Packet, until

PROGRAM, SOCKET = "JANUS_TEST_JOINED", "JANUS_TEST_SOCKET"
MSS = 1400
TEXT = bytes(i * 7 % 251 for i in range(40 * MSS + 99))


@contextmanager
def _rig(lro: bool) -> Iterator[tuple[Rig, "subprocess.Popen[bytes]"]]:
    """A rig on the socket that the other process listens on."""
    path = os.environ[SOCKET]
    peer = subprocess.Popen([os.environ[PROGRAM], path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert peer.stdout is not None
    until(lambda: b"listening" in peer.stdout.readline(), "the other process")
    try:
        rig = Rig(device=f"net_virtio_user0,path={path}", lro=lro, rx_slots=256)
        yield rig, peer
        rig.close()
    finally:
        peer.kill()
        peer.wait()


def _pseudo(frame: Packet) -> bytes:
    """The frame, its TCP checksum that of the pseudo header, as it is handed to who computes the rest."""
    ip = frame[IPv6] if IPv6 in frame else frame[IP]
    length = len(bytes(ip[TCP]))
    if IPv6 in frame:
        head = struct.pack("!16s16sII", *(_raw(a) for a in (ip.src, ip.dst)), length, 6)
    else:
        head = struct.pack("!4s4sHH", *(_raw(a) for a in (ip.src, ip.dst)), 6, length)
    total = sum(struct.unpack(f"!{len(head) // 2}H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    out = bytearray(bytes(frame))
    at = len(out) - length + 16
    out[at : at + 2] = struct.pack("!H", total)
    return bytes(out)


def _raw(address: str) -> bytes:
    return ip_address(address).packed


def _send(peer: "subprocess.Popen[bytes]", frame: bytes, segment: int) -> None:
    assert peer.stdin is not None
    peer.stdin.write(struct.pack("=II", segment, len(frame)) + frame)
    peer.stdin.flush()


def what_the_port_has_joined_arrives_as_segments() -> None:
    with _rig(lro=True) as (rig, peer):
        assert rig.plane.ports.info(rig.port).offloads & Offload.RX_LRO
        for six in (False, True):
            _send(peer, _pseudo(rig.frame(flags="A", payload=TEXT, seq=1000, ack=7, six=six)), MSS)
            got = rig.received(0, -(-len(TEXT) // MSS))
            at = 0
            for one in got:
                packet = IPv6(one.packet) if six else IP(one.packet)
                text = bytes(packet[TCP].payload)
                assert packet[TCP].seq == 1000 + at
                assert text == TEXT[at : at + MSS]
                at += len(text)
                rig.apps[0].give_back(one.slot, one.generation)
            assert at == len(TEXT)
        until(lambda: rig.sessions[0].slots().held == 0, "all slots back")


def what_is_good_but_not_summed_arrives() -> None:
    with _rig(lro=True) as (rig, peer):
        _whole(rig, peer)


def and_so_it_does_from_a_port_that_joins_nothing() -> None:
    with _rig(lro=False) as (rig, peer):
        assert not rig.plane.ports.info(rig.port).offloads & Offload.RX_LRO
        _whole(rig, peer)


def _whole(rig: Rig, peer: "subprocess.Popen[bytes]") -> None:
    for six in (False, True):
        _send(peer, _pseudo(rig.frame(flags="A", payload=b"whole", six=six)), 0)
        [one] = rig.received(0)
        packet = IPv6(one.packet) if six else IP(one.packet)
        assert bytes(packet[TCP].payload) == b"whole"
        rig.apps[0].give_back(one.slot, one.generation)
