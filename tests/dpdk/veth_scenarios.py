"""What happens between a wire and an app; each function runs in a process of its own."""

import time
from itertools import islice

from scapy.layers.inet import fragment
from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Dot1Q
from scapy.packet import Packet

from dpdk_glue.values import SlowReason
from tests.dpdk.rig import INTERFACE, OURS, OURS6, PEER, PEER6, PEER_MAC, Rig, mac_bytes
from tests.dpdk.wire_side import ARP, IP, TCP, Ether, IPv6, until

DROPPED = 2
SYN_HASHED = 8  # SHM_DESC_HASHED


def syn_reaches_the_app_and_its_answer_the_wire() -> None:
    rig = Rig()
    wire = rig.wire()
    for six in (False, True):
        syn = rig.frame(six=six)
        wire.send(syn)
        (got,) = rig.received(0)
        assert got.packet == bytes(syn.payload)
        assert got.flags == 1 | SYN_HASHED, "verified, with all of its hash"
        assert got.hash != 0
        rig.apps[0].send(rig.packet(six=six, payload=b"hello"))
        answer = wire.expect(lambda f: TCP in f and f[TCP].sport == 80, "the answer")
        assert (answer.src, answer.dst) == (rig.mac, PEER_MAC)
        assert bytes(answer[TCP].payload) == b"hello"
        assert (IPv6 in answer) == six
        ((_, flags),) = rig.completed(0)
        assert flags == 0
        rig.apps[0].give_back(got.slot, got.generation)
    until(lambda: rig.sessions[0].slots().held == 0, "the slots back")
    rig.close()


def a_syn_that_fills_its_slot_brings_no_more_than_itself() -> None:
    rig = Rig()
    wire = rig.wire()
    seen = set()
    for sport in range(1000, 1032):  # slots are staggered: in one of 16 nothing is left behind these
        wire.send(rig.frame(sport=sport, payload=bytes(920)))
        (got,) = rig.received(0)
        assert len(got.packet) == 960
        assert got.flags == (1 if got.slot % 16 == 15 else 1 | SYN_HASHED)
        seen.add(got.flags)
    assert len(seen) == 2
    rig.close()


def fragments_are_put_together_if_the_port_does_that() -> None:
    rig = Rig(reassemble=True)
    wire = rig.wire()
    whole = rig.frame(flags="PA", payload=bytes(range(200)) * 5)
    whole[IP].id, whole[IP].flags = 9, 0
    for piece in reversed(fragment(whole[IP], fragsize=400)):
        wire.send(Ether(src=PEER_MAC, dst=rig.mac) / piece)
    (got,) = rig.received(0)
    assert got.packet == bytes(whole.payload)
    six = rig.frame(flags="PA", payload=bytes(1000), six=True)
    cut = IPv6(src=six[IPv6].src, dst=six[IPv6].dst) / IPv6ExtHdrFragment(id=9) / six[TCP]
    for piece in fragment6(cut, 500):
        wire.send(Ether(src=PEER_MAC, dst=rig.mac) / piece)
    (got,) = rig.received(0)
    assert got.packet == bytes(six.payload)
    elsewhere = whole[IP].copy()
    elsewhere.dst = "10.77.0.77"
    for piece in fragment(elsewhere, fragsize=400):
        wire.send(Ether(src=PEER_MAC, dst=rig.mac) / piece)
    syn = rig.frame()
    wire.send(syn)
    (got,) = rig.received(0)
    assert got.packet == bytes(syn.payload), "what was for another address is not here"
    rig.close()


def a_port_in_a_vlan_hears_and_speaks_with_its_tag_alone() -> None:
    rig = Rig(vlan=5, neighbour=False)
    wire = rig.wire()

    def tagged(frame: Packet, vlan: int = 5) -> Packet:
        return Ether(src=frame.src, dst=frame.dst) / Dot1Q(vlan=vlan) / frame.payload

    for six in (True, False):
        syn = rig.frame(six=six)
        wire.send(syn)
        wire.send(tagged(syn, vlan=6))
        wire.send(tagged(rig.frame(sport=77, six=six)))
        (got,) = rig.received(0)
        assert got.packet == bytes(rig.frame(sport=77, six=six).payload), "no other one came before it"
    rig.apps[0].send(rig.packet())
    slow = until(rig.plane.slow_path.recv, "the packet without a neighbour")
    assert bytes(Ether(slow.frame)[IP]) == rig.packet()
    assert Dot1Q not in Ether(slow.frame)
    rig.plane.slow_path.send(0, mac_bytes(PEER_MAC) + slow.frame[6:])
    seen = wire.expect(lambda f: TCP in f and f.src == rig.mac, "the packet from the slow path")
    assert (seen[Dot1Q].vlan, bytes(seen[IP])) == (5, rig.packet())
    for six, peer in ((False, PEER), (True, PEER6)):
        rig.plane.routing.set_neighbour(rig.port, peer, mac_bytes(PEER_MAC))
        packet = rig.packet(payload=b"direct", six=six)
        rig.apps[0].send(packet)
        seen = wire.expect(lambda f: TCP in f and bytes(f[TCP].payload) == b"direct", "the packet")
        assert (seen[Dot1Q].vlan, seen.dst, bytes(seen[Dot1Q].payload)) == (5, PEER_MAC, packet)
    group = Ether(src=PEER_MAC, dst="33:33:ff:00:00:01") / IPv6(
        src=str(PEER6), dst="ff02::1:ff00:1", hlim=255
    )
    for request in (
        Ether(src=PEER_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=PEER_MAC, psrc=str(PEER), pdst=str(OURS)),
        group / ICMPv6ND_NS(tgt=str(OURS6)) / ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC),
    ):
        wire.send(tagged(request))
        slow = until(rig.plane.slow_path.recv, "the request")
        assert slow.frame == bytes(request)
    rig.close()


def forged_packets_are_refused_and_counted() -> None:
    rig = Rig()
    wire = rig.wire()
    app = rig.apps[0]
    good = rig.packet()
    forged = {
        "tx_source": [rig.packet(src="10.77.0.9"), rig.packet(six=True, src="fd77::9")],
        "tx_source_port": [rig.packet(sport=81), rig.packet(sport=39999)],
        "tx_destination": [
            rig.packet(dst="224.0.0.1"),
            rig.packet(dst="127.0.0.1"),
            rig.packet(six=True, dst="ff02::1"),
        ],
        "tx_protocol": [bytes(IP(src=str(OURS), dst=str(PEER), proto=17) / bytes(20))],
        "tx_header": [good + b"x", b"\x46" + good[1:], b"\x55" + good[1:], good[:-1], bytes(40)],
    }
    for packets in forged.values():
        for packet in packets:
            app.send(packet)
    app.send_desc(slot=99999, offset=128, len=40, kind=1)
    app.send_desc(slot=0, offset=2040, len=40, kind=1)
    app.send_desc(slot=0, offset=128, len=40, kind=2)
    app.send(rig.packet(payload=b"last"))
    bad = sum(map(len, forged.values())) + 3
    done = rig.completed(0, bad + 1)
    assert [flags for _, flags in done] == [DROPPED] * bad + [0]
    seen = wire.expect(lambda f: f.src == rig.mac and TCP in f, "the good packet")
    assert bytes(seen[TCP].payload) == b"last", "no forged one came before it"
    info = rig.sessions[0].info()
    assert (info.violations, info.closed) == (bad, False)
    rig.close()


def a_flood_of_violations_closes_the_session_alone() -> None:
    rig = Rig(tids=(0, 1))
    for _ in range(60):
        rig.apps[0].send_desc(slot=1 << 30, offset=0, len=40, kind=1)
    rig.completed(0, 60)
    assert not rig.sessions[0].info().closed
    for _ in range(60):
        rig.apps[0].send_desc(slot=1 << 30, offset=0, len=40, kind=1)
    until(lambda: rig.sessions[0].info().closed, "the session closed")
    rig.plane.clear_wake()
    events = list(rig.plane.events())
    assert [(e.kind.name, e.app, e.tid, e.generation) for e in events] == [("VIOLATION", 1, 0, 7)]
    assert not list(rig.plane.events())
    rig.apps[1].send(rig.packet(payload=b"alive"))
    rig.completed(1)
    rig.close()


def an_impossible_index_closes_the_session() -> None:
    rig = Rig()
    app = rig.apps[0]
    app.index(app.a2j, app.at[0].tx_head)[0] = 1 << 31
    until(lambda: rig.sessions[0].info().closed, "the session closed")
    assert app.index(app.j2a, app.at[0].closed)[0] != 0
    rig.close()


def unknown_neighbour_goes_to_the_control_plane_and_back() -> None:
    rig = Rig(neighbour=False)
    wire = rig.wire()
    rig.apps[0].send(rig.packet(payload=b"queued"))
    slow = until(rig.plane.slow_path.recv, "the packet without a neighbour")
    assert (slow.reason, slow.next_hop, slow.port) == (SlowReason.NEIGHBOUR, PEER, 0)
    assert slow.frame[:6] == bytes(6)
    rig.plane.slow_path.send(0, mac_bytes(PEER_MAC) + slow.frame[6:])
    sent = wire.expect(lambda f: TCP in f, "the queued packet")
    assert bytes(sent[TCP].payload) == b"queued"
    rig.plane.routing.set_neighbour(0, PEER, mac_bytes(PEER_MAC))
    rig.apps[0].send(rig.packet(payload=b"direct"))
    assert bytes(wire.expect(lambda f: TCP in f, "the next one")[TCP].payload) == b"direct"
    assert rig.plane.routing.delete_neighbour(0, PEER)
    assert not rig.plane.routing.delete_neighbour(0, PEER)
    rig.close()


def arp_for_us_comes_to_the_control_plane_and_no_other() -> None:
    rig = Rig(neighbour=False)
    wire = rig.wire()
    for target in ("10.77.0.99", str(OURS)):
        wire.send(
            Ether(src=PEER_MAC, dst="ff:ff:ff:ff:ff:ff")
            / ARP(op=1, hwsrc=PEER_MAC, psrc=str(PEER), pdst=target)
        )
    slow = until(rig.plane.slow_path.recv, "the ARP request")
    assert slow.reason is SlowReason.ARP
    assert Ether(slow.frame)[ARP].pdst == str(OURS)
    assert rig.plane.slow_path.recv() is None
    rig.close()


def unserved_ports_get_a_reset_when_the_policy_says_so() -> None:
    rig = Rig()
    wire = rig.wire()
    rig.plane.services.set_policy(reset=True, recovery=True)
    wire.send(rig.frame(dport=81, sport=1))
    rig.plane.services.set_policy(reset=False, recovery=False)
    wire.send(rig.frame(dport=81, sport=2))
    wire.send(rig.frame(sport=3))
    rig.received(0)  # in order, so the two before have been dealt with
    rig.plane.services.set_policy(reset=True, recovery=False)
    wire.send(rig.frame(dport=81, sport=4, flags="R"))
    wire.send(rig.frame(dport=81, sport=5, flags="S", seq=99))
    wire.send(rig.frame(dport=81, sport=6, flags="A", seq=99, ack=4242))
    resets = [wire.expect(lambda f: TCP in f and f.src == rig.mac, "an RST")[TCP] for _ in range(2)]
    assert [(r.dport, r.flags, r.seq, r.ack) for r in resets] == [(5, "RA", 0, 100), (6, "R", 4242, 0)]
    rig.close()


def two_threads_share_by_the_circle() -> None:
    rig = Rig(tids=(0, 3), rx_slots=256)
    wire = rig.wire()
    for sport in range(1000, 1200):
        wire.send(rig.frame(sport=sport))
    got: dict[int, list[int]] = {0: [], 3: []}

    def collect() -> bool:
        for tid, app in rig.apps.items():
            got[tid] += [TCP(r.packet[20:]).sport for r in app.recv()]
        return sum(map(len, got.values())) >= 200

    until(collect, "all packets")
    assert sorted(got[0] + got[3]) == list(range(1000, 1200))
    assert min(map(len, got.values())) > 40
    rig.circle((3,), epoch=2)
    wire.send(rig.frame(sport=TCP(sport=got[0][0]).sport))
    (moved,) = rig.received(3)
    assert TCP(moved.packet[20:]).sport == got[0][0]
    rig.close()


def a_slow_app_drops_its_own_packets_only() -> None:
    rig = Rig(tids=(0,), rx_slots=64)
    wire = rig.wire()
    for sport in range(1000, 1100):
        wire.send(rig.frame(sport=sport, flags="A"))
    first = rig.received(0, 64)
    until(lambda: rig.plane.ports.stats(0).rx_packets >= 100, "all received")
    assert len(first) == 64
    assert rig.sessions[0].slots().held == 64
    for got in first:
        rig.apps[0].give_back(got.slot, got.generation)
    until(lambda: rig.sessions[0].slots().held == 0, "the slots back")
    wire.send(rig.frame(sport=5000))
    rig.received(0)
    rig.close()


def newcomers_give_way_in_an_overload() -> None:
    rig = Rig(tids=(0,), rx_slots=64)
    wire = rig.wire()
    for sport in range(1000, 1100):
        wire.send(rig.frame(sport=sport))
    for sport in range(2000, 2010):
        wire.send(rig.frame(sport=sport, flags="A"))
    until(lambda: rig.plane.ports.stats(0).rx_packets >= 110, "all received")
    waiting = rig.received(0, 42)
    assert [TCP(got.packet[20:]).sport for got in waiting] == [*range(1000, 1032), *range(2000, 2010)]
    assert rig.sessions[0].slots().held == 42
    wire.send(rig.frame(sport=5000))
    rig.received(0)
    rig.close()


def _owner(rig: Rig, port: int) -> tuple[int | None, int]:
    """The thread that gets this port's packets, and their key."""
    found = rig.plane.balance.explain(1, (PEER, port), (OURS, 80))
    assert found is not None
    return found.tid, found.key


def _ports_of(rig: Rig, tid: int, count: int) -> list[int]:
    """Ports of the peer whose flows the thread has by the circle."""
    return list(islice((p for p in range(2000, 9000) if _owner(rig, p)[0] == tid), count))


def _come(rig: Rig, tid: int, count: int) -> list[int]:
    """The peer's ports of packets in the thread's ring; a marker's attempt is below 0."""
    got = rig.received(tid, count)
    return [int.from_bytes(one.packet[20:22], "big") if one.packet else -one.slot for one in got]


def syns_of_moving_flows_wait_for_the_update_and_nothing_else_does() -> None:
    rig = Rig(tids=(0, 1))
    wire, balance = rig.wire(), rig.plane.balance

    def open_at_0(port: int) -> bytes:
        """The hash of a new flow, as its thread lists it."""
        wire.send(rig.frame(sport=port))
        [got] = rig.received(0)
        return int(got.hash << 32 | _owner(rig, port)[1]).to_bytes(8, "little")

    def data() -> None:
        for port in (early, late):
            wire.send(rig.frame(sport=port, flags="A", payload=b"data"))

    early, late, *fresh = _ports_of(rig, 0, 5)
    balance.plan(1, [(17, 1)], 2)
    balance.add_list(1, 0, open_at_0(early), 100)
    balance.prepare(1)
    listed_late = open_at_0(late)
    balance.drain(1, 5)
    for port in fresh:
        wire.send(rig.frame(sport=port))
    data()
    assert _come(rig, 0, 3) == [-5, early, late], "the marker, and what is open"
    balance.add_list(1, 0, listed_late, 100)
    built = balance.build(1)
    assert (built.exceptions, built.reported) == (2, 2)
    assert _come(rig, 1, 1) == [-5], "no SYN before the end of the update"
    balance.publish(1, 5)
    assert _come(rig, 1, 4) == [-5, *fresh], "behind the second marker"
    data()
    assert _come(rig, 0, 3) == [-5, early, late], "they stay"
    rig.close()


def held_syns_are_bounded_and_an_update_given_up_lets_them_go() -> None:
    rig = Rig(tids=(0, 1), rx_slots=1024)
    wire, balance = rig.wire(), rig.plane.balance
    balance.plan(1, [(17, 0)], 2)
    balance.drain(1, 6)
    flood = _ports_of(rig, 1, 260)
    for port in flood:
        wire.send(rig.frame(sport=port))
    until(lambda: rig.plane.ports.stats(0).rx_packets >= len(flood), "all received")
    balance.abort(1)
    wire.send(rig.frame(sport=flood[-1], flags="A"))
    assert _come(rig, 1, 258) == [-6, *flood[:256], flood[-1]]
    assert rig.plane.ports.stats(0).rx_packets <= len(flood) + 20, "none is counted twice"
    balance.plan(1, [(17, 0)], 3)
    balance.drain(1, 7)
    wire.send(rig.frame(sport=flood[0]))
    assert _come(rig, 0, 2) == [-6, -7]
    rig.close()  # with one that is held


def a_syn_in_fragments_waits_as_a_whole() -> None:
    """Of IPv6: AF_PACKET puts the other kind together itself."""
    rig = Rig(tids=(0, 1), reassemble=True)
    wire, balance = rig.wire(), rig.plane.balance
    balance.plan(1, [(17, 1)], 2)
    balance.drain(1, 5)
    syns = [rig.frame(sport=port, payload=bytes(range(200)) * 5, six=True) for port in range(1000, 1016)]
    for number, syn in enumerate(syns):
        cut = IPv6(src=syn[IPv6].src, dst=syn[IPv6].dst) / IPv6ExtHdrFragment(id=number) / syn[TCP]
        for piece in fragment6(cut, 500):
            wire.send(Ether(src=PEER_MAC, dst=rig.mac) / piece)
    until(lambda: rig.plane.ports.stats(0).rx_packets >= 3 * len(syns), "all received")
    balance.build(1)
    balance.publish(1, 5)
    got = [one.packet for one in rig.received(1, 2 + len(syns)) if one.packet]
    assert sorted(got) == sorted(bytes(syn.payload) for syn in syns), (
        "some were thread 1's before, some have moved"
    )
    rig.close()


def two_io_threads_over_two_queues() -> None:
    rig = Rig(io_threads=2, tids=(0, 1), rx_slots=256)
    assert rig.plane.ports.info(0).rx_queues == 2
    wire = rig.wire()
    for sport in range(1000, 1200):
        wire.send(rig.frame(sport=sport))
    seen: list[tuple[int, int]] = []

    def collect() -> bool:
        for app in rig.apps.values():
            for got in app.recv():
                seen.append((got.slot // 256, TCP(got.packet[20:]).sport))
                app.give_back(got.slot, got.generation)
        return len(seen) >= 200

    until(collect, "all packets of both queues")
    assert sorted(s for _, s in seen) == list(range(1000, 1200))
    assert {io for io, _ in seen} == {0, 1}, "both I/O threads received"
    for tid, app in rig.apps.items():
        app.send(rig.packet(payload=b"from %d" % tid))
    answers = {
        bytes(wire.expect(lambda f: TCP in f and f.src == rig.mac, "an answer")[TCP].payload) for _ in (0, 1)
    }
    assert answers == {b"from 0", b"from 1"}
    rig.close()


def two_io_threads_over_one_queue() -> None:
    """Thread 0 receives and sends; thread 1 hands over what its TCP threads send."""
    rig = Rig(io_threads=2, tids=(0, 1), device=f"net_af_packet0,iface={INTERFACE},qpairs=1")
    assert rig.plane.ports.info(0).tx_queues == 1
    wire = rig.wire()
    for sport in range(1000, 1020):
        wire.send(rig.frame(sport=sport))
    got: list[int] = []
    until(
        lambda: got.extend(r.slot for a in rig.apps.values() for r in a.recv()) or len(got) >= 20,
        "all packets",
    )
    assert max(got) < 64, "all through thread 0's slots"
    for k in range(100):
        rig.apps[1].send(rig.packet(sport=40000 + k))
        rig.completed(1)
    ports = [wire.expect(lambda f: TCP in f and f.src == rig.mac, "an answer")[TCP].sport for _ in range(100)]
    assert ports == list(range(40000, 40100))
    rig.close()


def a_sleeping_io_thread_wakes_for_a_doorbell_and_for_a_frame() -> None:
    """Sleeps last 10 ms at most, so a lost wake-up would show as time: fifty in a row would take half a second."""
    rig = Rig()
    wire = rig.wire()
    asleep = rig.apps[0].index(rig.apps[0].j2a, rig.apps[0].at[0].io_sleeping)
    naps = rig.plane.io_threads.info(0).sleeps
    for k in range(50):
        until(lambda: asleep[0] == 1, "the I/O thread asleep")
        rig.apps[0].send(rig.packet(sport=40000 + k))
        rig.completed(0)
        wire.send(rig.frame(sport=1000 + k))
        (got,) = rig.received(0)
        rig.apps[0].give_back(got.slot, got.generation)
    assert rig.plane.io_threads.info(0).sleeps > naps
    rig.close()


def a_dead_apps_peers_get_resets() -> None:
    rig = Rig()
    wire = rig.wire()
    app = rig.apps[0]
    mapped = bytes(10) + b"\xff\xff" + PEER.packed
    for i in range(300):
        app.set_row(i, raddr=mapped, rport=2000 + i, lport=80, laddr_index=0, snd_nxt=i, rcv_nxt=7, state=5)
    app.set_row(0, lport=81)  # outside the lease
    app.set_row(1, laddr_index=9)
    app.set_row(2, state=11)  # TIME_WAIT
    app.set_row(3, state=0)
    listed = {r.row for r in rig.sessions[0].rows()}
    assert listed == set(range(300)) - {0, 1, 3}, (len(listed), sorted(listed)[:8])
    session = rig.sessions[0]
    session.stop()
    session.reset_peers(rate_per_s=100_000)
    until(lambda: any(e.kind.name == "RESETS_DONE" for e in rig.plane.events()), "the resets")
    progress = session.reset_progress()
    assert (progress.sent, progress.skipped, progress.done) == (296, 3, True)
    got: dict[int, int] = {}

    def collect() -> bool:
        got.update({f[TCP].dport: f[TCP].seq for f in wire.frames() if TCP in f and f[TCP].flags == "RA"})
        return len(got) >= 296

    until(collect, "296 RSTs on the wire")
    assert got == {2000 + i: i for i in range(4, 300)}
    rig.close()


def threads_that_die_together_share_the_rate_of_resets() -> None:
    rig = Rig(tids=(0, 1))
    rig.wire()
    mapped = bytes(10) + b"\xff\xff" + PEER.packed
    for app in rig.apps.values():
        for i in range(1000):
            app.set_row(
                i, raddr=mapped, rport=2000 + i, lport=80, laddr_index=0, snd_nxt=i, rcv_nxt=7, state=5
            )
    for session in rig.sessions.values():
        session.stop()
    begin = time.monotonic()
    for session in rig.sessions.values():
        session.reset_peers(rate_per_s=4000)
    until(lambda: all(s.reset_progress().done for s in rig.sessions.values()), "the resets")
    assert sum(s.reset_progress().sent for s in rig.sessions.values()) == 2000
    assert time.monotonic() - begin > 0.3, "at 4000/s, one more in each step of 1 ms, 2000 take 0.4 s"
    rig.close()


def a_rung_app_wakes_and_only_a_sleeping_one() -> None:
    import select

    rig = Rig()
    wire = rig.wire()
    app, bell = rig.apps[0], rig.sessions[0].info().app_doorbell_fd
    wire.send(rig.frame())
    rig.received(0)
    assert not select.select([bell], [], [], 0)[0]
    app.index(app.a2j, app.at[0].app_sleeping)[0] = 1
    wire.send(rig.frame())
    assert select.select([bell], [], [], 10)[0]
    rig.received(0)
    rig.close()
