"""janusd.frames, icmp and neighbours, with scapy as the other opinion on bytes and time as an argument."""

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from janusd import frames, neighbours
from janusd.frames import Advert, Arp, Datagram, Echo, Solicit
from janusd.icmp import IcmpResponder
from janusd.neighbours import Conflict, Link, Neighbours, Publish, Send, State, Withdraw

MAC, PEER, THIEF = (bytes.fromhex(m) for m in ("020000000001", "020000000002", "0200000000ff"))
OWN4, OWN6 = ipaddress.ip_address("10.77.0.1"), ipaddress.ip_address("fd77::1")
HOST4, HOST6 = ipaddress.ip_address("10.77.0.2"), ipaddress.ip_address("fd77::2")
LINK = Link(MAC, (ipaddress.ip_interface("10.77.0.1/24"), ipaddress.ip_interface("fd77::1/64")))
DATA = bytes(6) + MAC + b"\x08\x00" + b"a packet of an app"


def colons(mac: bytes) -> str:
    return mac.hex(":")


def ether(**kw: object) -> Packet:
    return Ether(src=colons(PEER), dst=colons(MAC), **kw)


# --- bytes ---


@given(st.binary(max_size=200))
def test_checksum_verifies_what_it_has_made(data: bytes) -> None:
    made = frames.checksum(data + b"\0" * (len(data) % 2))
    assert frames.checksum(data + b"\0" * (len(data) % 2) + made.to_bytes(2, "big")) == 0 or not any(data)


@given(st.binary(max_size=120))
def test_parse_never_raises(data: bytes) -> None:
    frames.parse(data)


@given(st.sampled_from([0x0800, 0x0806, 0x86DD]), st.binary(max_size=120))
def test_parse_never_raises_behind_an_ethernet_header(kind: int, data: bytes) -> None:
    frames.parse(MAC + PEER + kind.to_bytes(2, "big") + data)


def test_arp_is_read() -> None:
    raw = bytes(ether() / ARP(op=1, hwsrc=colons(PEER), psrc="10.77.0.2", pdst="10.77.0.1"))
    assert frames.parse(raw) == Arp(True, PEER, HOST4, OWN4)
    raw = bytes(ether() / ARP(op=2, hwsrc=colons(PEER), psrc="10.77.0.2", pdst="10.77.0.1"))
    assert frames.parse(raw) == Arp(False, PEER, HOST4, OWN4)


ARP_BAD = [
    pytest.param({"hwtype": 6}, id="hardware type"),
    pytest.param({"ptype": 0x86DD}, id="protocol type"),
    pytest.param({"hwlen": 8}, id="hardware length"),
    pytest.param({"plen": 16}, id="protocol length"),
    pytest.param({"op": 3}, id="RARP"),
    pytest.param({"op": 0}, id="operation 0"),
    pytest.param({"hwsrc": "ff:ff:ff:ff:ff:ff"}, id="sender is broadcast"),
    pytest.param({"hwsrc": "01:00:5e:00:00:01"}, id="sender is a group"),
    pytest.param({"hwsrc": "00:00:00:00:00:00"}, id="sender is zero"),
]


@pytest.mark.parametrize("change", ARP_BAD)
def test_odd_arp_is_nothing(change: dict) -> None:
    fields = {"op": 1, "hwsrc": colons(PEER), "psrc": "10.77.0.2", "pdst": "10.77.0.1", **change}
    assert frames.parse(bytes(ether() / ARP(**fields))) is None


@pytest.mark.parametrize("length", [0, 13, 14, 20, 41])
def test_cut_arp_is_nothing(length: int) -> None:
    raw = bytes(ether() / ARP(op=1, hwsrc=colons(PEER), psrc="10.77.0.2", pdst="10.77.0.1"))
    assert frames.parse(raw[:length]) is None


def test_neighbour_discovery_is_read() -> None:
    head = ether() / IPv6(src="fd77::2", dst="ff02::1:ff00:1", hlim=255)
    solicit = head / ICMPv6ND_NS(tgt="fd77::1") / ICMPv6NDOptSrcLLAddr(lladdr=colons(PEER))
    assert frames.parse(bytes(solicit)) == Solicit(HOST6, OWN6, PEER)
    dad = ether() / IPv6(src="::", dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt="fd77::1")
    assert frames.parse(bytes(dad)) == Solicit(ipaddress.ip_address("::"), OWN6, None)
    answer = ether() / IPv6(src="fd77::2", dst="fd77::1", hlim=255) / ICMPv6ND_NA(tgt="fd77::2", S=1, R=0)
    assert frames.parse(bytes(answer / ICMPv6NDOptDstLLAddr(lladdr=colons(PEER)))) == Advert(
        HOST6, HOST6, PEER, True
    )
    assert frames.parse(bytes(answer)) == Advert(HOST6, HOST6, None, True)


ND_BAD = [
    pytest.param(
        IPv6(src="fd77::2", dst="fd77::1", hlim=254) / ICMPv6ND_NS(tgt="fd77::1"), id="hop limit 254"
    ),
    pytest.param(
        IPv6(src="fd77::2", dst="fd77::1", hlim=255) / ICMPv6ND_NS(tgt="fd77::1", code=1), id="code"
    ),
    pytest.param(
        IPv6(src="fd77::2", dst="fd77::1", hlim=255) / ICMPv6ND_NS(tgt="ff02::1"), id="target is a group"
    ),
    pytest.param(
        IPv6(src="fd77::2", dst="fd77::1", hlim=255) / ICMPv6ND_NS(tgt="fd77::1", cksum=1), id="checksum"
    ),
    pytest.param(
        IPv6(src="fd77::2", dst="fd77::1", hlim=255)
        / ICMPv6ND_NS(tgt="fd77::1")
        / Raw(b"\x01\x00" + bytes(6)),
        id="option length 0",
    ),
    pytest.param(
        IPv6(src="fd77::2", dst="fd77::1", hlim=255)
        / ICMPv6ND_NS(tgt="fd77::1")
        / Raw(b"\x01\x02" + bytes(6)),
        id="option too long",
    ),
    pytest.param(
        IPv6(src="::", dst="ff02::1:ff00:1", hlim=255)
        / ICMPv6ND_NS(tgt="fd77::1")
        / ICMPv6NDOptSrcLLAddr(lladdr=colons(PEER)),
        id="DAD with a source option",
    ),
    pytest.param(
        IPv6(src="ff02::2", dst="fd77::1", hlim=255) / ICMPv6ND_NS(tgt="fd77::1"), id="source is a group"
    ),
    pytest.param(
        IPv6(src="fd77::2", dst="ff02::1", hlim=255) / ICMPv6ND_NA(tgt="fd77::2", S=1),
        id="solicited answer to all nodes",
    ),
]


@pytest.mark.parametrize("packet", ND_BAD)
def test_odd_neighbour_discovery_is_nothing(packet: Packet) -> None:
    assert frames.parse(bytes(ether() / packet)) is None


def test_built_arp_is_what_scapy_reads() -> None:
    raw = frames.build_arp(request=True, sender_mac=MAC, sender=OWN4, target_mac=None, target=HOST4)
    packet = Ether(raw)
    assert (packet.dst, packet.src, len(raw)) == ("ff:ff:ff:ff:ff:ff", colons(MAC), 60)
    assert (packet[ARP].op, packet[ARP].psrc, packet[ARP].pdst) == (1, "10.77.0.1", "10.77.0.2")


def test_built_neighbour_discovery_is_what_scapy_reads() -> None:
    packet = Ether(frames.build_solicit(mac=MAC, source=OWN6, target=HOST6, target_mac=None))
    assert (packet.dst, packet[IPv6].dst, packet[IPv6].hlim) == ("33:33:ff:00:00:02", "ff02::1:ff00:2", 255)
    assert packet[ICMPv6ND_NS].tgt == "fd77::2"
    assert packet[ICMPv6NDOptSrcLLAddr].lladdr == colons(MAC)
    checked = Ether(bytes(packet))
    del checked[ICMPv6ND_NS].cksum
    assert Ether(bytes(checked))[ICMPv6ND_NS].cksum == packet[ICMPv6ND_NS].cksum
    packet = Ether(frames.build_advert(mac=MAC, target=OWN6, destination=HOST6, destination_mac=PEER))
    assert (packet[ICMPv6ND_NA].S, packet[ICMPv6ND_NA].O, packet[ICMPv6NDOptDstLLAddr].lladdr) == (
        1,
        1,
        colons(MAC),
    )
    packet = Ether(frames.build_advert(mac=MAC, target=OWN6, destination=None, destination_mac=None))
    assert (packet.dst, packet[IPv6].dst, packet[ICMPv6ND_NA].S) == ("33:33:00:00:00:01", "ff02::1", 0)


@pytest.mark.parametrize("size", [0, 1, 2, 55, 56, 1000, 1400])
def test_echo_is_answered_with_the_same_bytes(size: int) -> None:
    body = bytes(i % 251 for i in range(size))
    responder = IcmpResponder([OWN4, OWN6])
    request = frames.parse(bytes(ether() / IP(src="10.77.0.2", dst="10.77.0.1") / ICMP(id=7, seq=3) / body))
    assert isinstance(request, Echo)
    raw = responder.answer(request, MAC, 0.0)
    assert raw is not None
    packet = Ether(raw)
    assert (packet.dst, packet.src, packet[IP].src, packet[IP].dst) == (
        colons(PEER),
        colons(MAC),
        "10.77.0.1",
        "10.77.0.2",
    )
    assert (packet[ICMP].type, packet[ICMP].id, packet[ICMP].seq, packet[IP].id) == (0, 7, 3, 0)
    assert bytes(packet[ICMP].payload)[:size] == body
    assert packet[IP].len == 28 + size
    assert frames.checksum(raw[14:34]) == 0
    assert frames.checksum(raw[34 : 42 + size]) == 0

    request = frames.parse(
        bytes(ether() / IPv6(src="fd77::2", dst="fd77::1") / ICMPv6EchoRequest(id=7, seq=3, data=body))
    )
    assert isinstance(request, Echo)
    raw = responder.answer(request, MAC, 0.0)
    assert raw is not None
    packet = Ether(raw)
    assert (packet[ICMPv6EchoReply].id, packet[ICMPv6EchoReply].seq) == (7, 3)
    assert packet[ICMPv6EchoReply].data[:size] == body
    sum_ = packet[ICMPv6EchoReply].cksum
    del packet[ICMPv6EchoReply].cksum
    assert Ether(bytes(packet))[ICMPv6EchoReply].cksum == sum_


def test_udp_gets_port_unreachable_with_a_quote() -> None:
    responder = IcmpResponder([OWN4, OWN6])
    raw = bytes(ether() / IP(src="10.77.0.2", dst="10.77.0.1") / UDP(sport=5, dport=9) / (b"x" * 1200))
    request = frames.parse(raw)
    assert isinstance(request, Datagram)
    packet = Ether(responder.answer(request, MAC, 0.0))
    assert (packet[ICMP].type, packet[ICMP].code, packet[IP].len) == (3, 3, 20 + 8 + frames.QUOTE_MAX)
    assert bytes(packet[ICMP].payload)[:28] == raw[14:42]
    raw = bytes(ether() / IPv6(src="fd77::2", dst="fd77::1") / UDP(sport=5, dport=9) / b"x")
    request = frames.parse(raw)
    assert isinstance(request, Datagram)
    packet = Ether(responder.answer(request, MAC, 0.0))
    assert (packet[ICMPv6DestUnreach].code, packet[IPv6].dst) == (4, "fd77::2")


def test_answers_are_rate_limited_and_for_own_addresses_alone() -> None:
    responder = IcmpResponder([OWN4])
    echo = Echo(HOST4, OWN4, PEER, b"body")
    assert responder.answer(replace(echo, destination=HOST6), MAC, 0.0) is None
    assert responder.answer(replace(echo, source=OWN4), MAC, 0.0) is None
    answered = sum(responder.answer(echo, MAC, 0.0) is not None for _ in range(1000))
    assert (answered, responder.rate_limited) == (200, 800)
    assert responder.answer(echo, MAC, 0.0015) is not None
    assert responder.answer(echo, MAC, 0.0015) is None
    datagrams = sum(
        responder.answer(Datagram(HOST4, OWN4, PEER, b"p"), MAC, 5.0) is not None for _ in range(100)
    )
    assert datagrams == 20


# --- the table ---


@pytest.fixture
def table() -> Neighbours:
    return Neighbours({0: LINK})


def reply(mac: bytes = PEER, host: ipaddress.IPv4Address = HOST4) -> Arp:
    return Arp(False, mac, host, OWN4)


def kinds(effects: list) -> list[type]:
    return [type(effect) for effect in effects]


def test_a_packet_waits_for_the_answer(table: Neighbours) -> None:
    (ask,) = table.want(0, HOST4, DATA, 0.0)
    assert isinstance(ask, Send)
    assert frames.parse(ask.frame) == Arp(True, MAC, OWN4, HOST4)
    publish, send = table.on_arp(0, reply(), 0.1)
    assert publish == Publish(0, HOST4, PEER)
    assert send == Send(0, PEER + DATA[6:])
    assert table.want(0, HOST4, DATA, 0.2) == [publish, send]  # the I/O thread had not seen it yet


def test_ipv6_goes_the_same_way(table: Neighbours) -> None:
    (ask,) = table.want(0, HOST6, DATA, 0.0)
    assert isinstance(ask, Send)
    assert frames.parse(ask.frame) == Solicit(OWN6, HOST6, MAC)
    effects = table.on_advert(0, Advert(HOST6, HOST6, PEER, True), 0.1)
    assert effects == [Publish(0, HOST6, PEER), Send(0, PEER + DATA[6:])]


def test_three_packets_wait_and_no_more(table: Neighbours) -> None:
    for n in range(5):
        table.want(0, HOST4, DATA + bytes([n]), 0.0)
    sent = [e.frame[-1] for e in table.on_arp(0, reply(), 0.1) if isinstance(e, Send)]
    assert sent == [2, 3, 4]
    assert table.counters.pending_full == 2


def test_nobody_answers(table: Neighbours) -> None:
    table.want(0, HOST4, DATA, 0.0)
    assert table.advance(0.9) == []
    assert kinds(table.advance(1.0)) == [Send]
    assert kinds(table.advance(2.0)) == [Send]
    assert table.advance(3.0) == []
    assert table.entries()[0].state is State.FAILED
    assert table.counters.unanswered == 1
    assert table.want(0, HOST4, DATA, 3.1) == []  # not asked again at once
    assert table.advance(6.0) == []
    assert len(table) == 0
    assert kinds(table.want(0, HOST4, DATA, 6.1)) == [Send]


def test_an_entry_is_confirmed_or_withdrawn(table: Neighbours) -> None:
    table.want(0, HOST4, DATA, 0.0)
    table.on_arp(0, reply(), 0.0)
    assert table.next_deadline() == 60.0
    (probe,) = table.advance(60.0)
    assert isinstance(probe, Send)
    assert probe.frame[:6] == PEER  # its own MAC first, then everyone
    assert table.on_arp(0, reply(), 60.5) == []
    assert table.entries()[0].state is State.REACHABLE
    table.advance(120.5)
    (probe,) = table.advance(121.5)
    assert isinstance(probe, Send)
    assert probe.frame[:6] == frames.BROADCAST
    table.advance(122.5)
    assert table.advance(123.5) == [Withdraw(0, HOST4)]


def test_answers_that_nobody_asked_for_change_nothing(table: Neighbours) -> None:
    assert table.on_arp(0, reply(), 0.0) == []
    assert len(table) == 0
    table.want(0, HOST4, DATA, 0.0)
    table.on_arp(0, reply(), 0.0)
    assert table.on_arp(0, reply(THIEF), 1.0) == []
    assert table.on_advert(0, Advert(HOST6, HOST6, THIEF, True), 1.0) == []
    assert table.entries()[0].mac == PEER
    assert table.counters.unsolicited == 3


def test_a_gratuitous_claim_makes_janusd_ask_not_believe(table: Neighbours) -> None:
    table.want(0, HOST4, DATA, 0.0)
    table.on_arp(0, reply(), 0.0)
    (ask,) = table.on_arp(0, Arp(True, THIEF, HOST4, HOST4), 1.0)
    assert isinstance(ask, Send)
    assert ask.frame[:6] == frames.BROADCAST
    assert table.entries()[0].mac == PEER
    assert table.on_arp(0, Arp(True, THIEF, HOST4, HOST4), 1.1) == []  # once
    assert table.on_arp(0, reply(THIEF), 1.2) == [Publish(0, HOST4, THIEF)]  # a real move is found this way


def test_a_host_that_asks_for_us_is_answered_and_learned(table: Neighbours) -> None:
    publish, answer = table.on_arp(0, Arp(True, PEER, HOST4, OWN4), 0.0)
    assert publish == Publish(0, HOST4, PEER)
    assert isinstance(answer, Send)
    assert answer.frame[:6] == PEER
    assert frames.parse(answer.frame) == Arp(False, MAC, OWN4, HOST4)
    ask, answer = table.on_arp(0, Arp(True, THIEF, HOST4, OWN4), 1.0)  # another MAC: asked, not believed
    assert frames.parse(ask.frame) == Arp(True, MAC, OWN4, HOST4)
    assert table.entries()[0].mac == PEER
    publish, answer = table.on_solicit(0, Solicit(HOST6, OWN6, PEER), 0.0)
    assert publish == Publish(0, HOST6, PEER)
    assert Ether(answer.frame)[ICMPv6ND_NA].tgt == "fd77::1"


def test_probes_and_strangers_are_answered_and_not_learned(table: Neighbours) -> None:
    nobody = ipaddress.ip_address("0.0.0.0")
    assert kinds(table.on_arp(0, Arp(True, PEER, nobody, OWN4), 0.0)) == [Send]
    assert kinds(table.on_arp(0, Arp(True, PEER, ipaddress.ip_address("192.0.2.1"), OWN4), 0.0)) == [Send]
    assert kinds(table.on_solicit(0, Solicit(ipaddress.ip_address("fe80::9"), OWN6, PEER), 0.0)) == [Send]
    dad = Solicit(ipaddress.ip_address("::"), OWN6, None)
    assert kinds(table.on_solicit(0, dad, 0.0)) == [Send]
    assert len(table) == 0
    assert table.on_arp(0, Arp(True, PEER, HOST4, ipaddress.ip_address("10.77.0.9")), 0.0) == []
    assert table.on_solicit(0, Solicit(HOST6, ipaddress.ip_address("fd77::9"), PEER), 0.0) == []


def test_a_conflict_is_told_and_defended_not_accepted(table: Neighbours) -> None:
    for packet in (Arp(True, THIEF, OWN4, OWN4), Arp(False, THIEF, OWN4, HOST4)):
        table = Neighbours({0: LINK})
        conflict, defence = table.on_arp(0, packet, 0.0)
        assert conflict == Conflict(0, OWN4, THIEF)
        assert frames.parse(defence.frame) == Arp(True, MAC, OWN4, OWN4)
        assert table.on_arp(0, packet, 9.9) == []
        assert kinds(table.on_arp(0, packet, 10.0)) == [Conflict, Send]
        assert len(table) == 0
    assert kinds(table.on_advert(0, Advert(HOST6, OWN6, THIEF, False), 0.0)) == [Conflict, Send]
    assert table.on_arp(0, Arp(True, MAC, OWN4, OWN4), 0.0) == []  # our own, come back


def test_announcements_name_every_address(table: Neighbours) -> None:
    arp, advert = (frames.parse(e.frame) for e in table.announce() if isinstance(e, Send))
    assert arp == Arp(True, MAC, OWN4, OWN4)
    assert advert == Advert(OWN6, OWN6, MAC, False)


def host(n: int) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(ipaddress.IPv4Address("10.0.0.0")) + n)


@pytest.fixture
def wide() -> Neighbours:
    return Neighbours({0: Link(MAC, (ipaddress.ip_interface("10.255.0.1/8"),))})


def test_a_scan_cannot_fill_the_table(wide: Neighbours) -> None:
    for n in range(5000):
        wide.want(0, host(n), DATA, 0.0)
    assert len(wide) == neighbours.INCOMPLETE_MAX
    assert wide.counters.table_full == 5000 - neighbours.INCOMPLETE_MAX
    me = ipaddress.ip_address("10.255.0.1")
    assert Publish(0, host(9000), PEER) in wide.on_arp(0, Arp(True, PEER, host(9000), me), 0.0)
    assert Publish(0, host(3), PEER) in wide.on_arp(0, Arp(False, PEER, host(3), me), 0.0)


def test_a_flood_of_requests_cannot_push_out_what_we_use(wide: Neighbours) -> None:
    me = ipaddress.ip_address("10.255.0.1")
    wide.want(0, host(1), DATA, 0.0)
    wide.on_arp(0, Arp(False, PEER, host(1), me), 0.0)
    withdrawn = []
    for n in range(2, 4000):
        effects = wide.on_arp(0, Arp(True, PEER, host(n), me), 0.0)
        withdrawn += [e.address for e in effects if isinstance(e, Withdraw)]
    assert len(wide) == neighbours.ENTRIES_MAX
    assert host(1) not in withdrawn
    assert withdrawn == [host(n) for n in range(2, 2 + len(withdrawn))]  # the oldest first


EVENTS = st.one_of(
    st.tuples(st.just("want"), st.integers(1, 8)),
    st.tuples(st.just("reply"), st.integers(1, 8), st.sampled_from([PEER, THIEF])),
    st.tuples(st.just("request"), st.integers(1, 8), st.sampled_from([PEER, THIEF])),
    st.tuples(st.just("claim"), st.integers(1, 8), st.sampled_from([PEER, THIEF])),
    st.tuples(st.just("wait"), st.floats(0, 70)),
)


@given(st.lists(EVENTS, max_size=60))
def test_what_is_published_is_what_the_table_has(events: list) -> None:
    table = Neighbours({0: LINK})
    published: dict = {}
    now = 0.0
    for event in events:
        address = ipaddress.ip_address(f"10.77.0.{10 + event[1]}") if event[0] != "wait" else None
        match event[0]:
            case "want":
                effects = table.want(0, address, DATA, now)
            case "reply":
                effects = table.on_arp(0, Arp(False, event[2], address, OWN4), now)
            case "request":
                effects = table.on_arp(0, Arp(True, event[2], address, OWN4), now)
            case "claim":
                effects = table.on_arp(0, Arp(True, event[2], address, address), now)
            case _:
                now += event[1]
                effects = table.advance(now)
        for effect in effects:
            if isinstance(effect, Publish):
                published[effect.address] = effect.mac
            elif isinstance(effect, Withdraw):
                del published[effect.address]
            elif isinstance(effect, Send):
                assert len(effect.frame) >= 20
        assert published == {e.address: e.mac for e in table.entries() if e.mac is not None}
        assert all(len(e.pending) <= neighbours.PENDING_MAX for e in table.entries())
        deadline = table.next_deadline()
        assert deadline is None or deadline >= 0
