"""A port that joins what it receives: net_virtio_user, with a process behind it that sends as a host with segmentation
offload does.  Each function runs in a process of its own."""

import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

from dpdk_glue.values import Offload
from tests.dpdk.rig import OURS, OURS6, PEER, PEER6, Rig
from tests.dpdk.wire_side import IP, TCP, Ether, IPv6, Packet, until

PROGRAM, SOCKET = "JANUS_TEST_JOINED", "JANUS_TEST_SOCKET"
MSS = 1400
NEED_CHECKSUM = 4  # SHM_DESC_NEED_CHECKSUM
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


def what_follows_each_other_goes_as_one() -> None:
    with _rig(lro=False) as (rig, peer):
        offloads = rig.plane.ports.info(rig.port).offloads
        assert offloads & Offload.TX_TSO_IPV4
        assert offloads & Offload.TX_TSO_IPV6
        for six in (False, True):
            text = TEXT[: 10 * MSS]
            _push(rig, [text[at : at + MSS] for at in range(0, len(text), MSS)], six)
            got, joined = b"", 0
            while len(got) < len(text):
                segment, frame = _take(peer)
                packet = Ether(frame)[IPv6 if six else IP]
                assert packet[TCP].seq == 5000 + len(got)
                assert bytes(packet) == _summed(packet), (
                    "the far end has completed TCP's sum from what it was given"
                )
                assert segment in (0, MSS)
                joined += segment != 0
                got += bytes(packet[TCP].payload)
            assert got == text
            assert joined >= 1
            rig.completed(0, 10)


def _summed(packet: Packet) -> bytes:
    """The packet with the checksums that scapy computes."""
    copy = packet.copy()
    if IP in copy:
        del copy.chksum
    del copy[TCP].chksum
    return bytes(copy)


def _push(rig: Rig, texts: list[bytes], six: bool) -> None:
    """Segments of one connection, which the I/O thread finds all at once."""
    app = rig.apps[0]
    for i, text in enumerate(texts):
        ip = (
            IPv6(src=str(OURS6), dst=str(PEER6))
            if six
            else IP(src=str(OURS), dst=str(PEER), id=0, flags="DF")
        )
        tcp = TCP(sport=80, dport=1234, flags="A", seq=5000 + i * MSS, ack=1001)
        packet = _pseudo(Ether() / ip / tcp / text)[14:]
        if i == len(texts) - 1:
            app.send(packet, flags=NEED_CHECKSUM)
        else:
            app.place(packet, flags=NEED_CHECKSUM)


def _take(peer: "subprocess.Popen[bytes]") -> tuple[int, bytes]:
    """Segment size and frame of the next that the other process has received."""
    assert peer.stdout is not None
    segment, length = struct.unpack("=II", peer.stdout.read(8))
    return segment, peer.stdout.read(length)
