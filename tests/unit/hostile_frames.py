"""The corpus of hostile frames: one list of (name, frame, verdict), made with scapy, bug class by bug class.

A verdict is "tcp", "slow:KIND" or the name of a drop reason in dpdk_glue/classify_drops.def. OTHERS has the
frames that need a port of their own.
"""

from collections.abc import Callable, Iterator
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.inet6 import (
    HBHOptUnknown,
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6MLQuery,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.l2 import ARP, GRE, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

OUR_MAC, PEER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
OUR4, PEER4 = "10.77.0.1", "10.77.0.2"
OUR6, PEER6 = "fd77::1", "fd77::2"
BROADCAST = "ff:ff:ff:ff:ff:ff"
NODE6, NODE_MAC = "ff02::1:ff00:1", "33:33:ff:00:00:01"
ALL_NODES_MAC = "33:33:00:00:00:01"

Case = tuple[str, bytes, str]
PortCase = tuple[str, bytes, dict[str, Any], str]


def ether(dst: str = OUR_MAC, src: str = PEER_MAC, **fields: Any) -> Packet:
    return Ether(dst=dst, src=src, **fields)


def ip4(src: str = PEER4, dst: str = OUR4, **fields: Any) -> Packet:
    return ether() / IP(src=src, dst=dst, **fields)


def ip6(src: str = PEER6, dst: str = OUR6, **fields: Any) -> Packet:
    return ether() / IPv6(src=src, dst=dst, **fields)


def tcp(**fields: Any) -> Packet:
    return TCP(**{"sport": 40000, "dport": 80, "flags": "S", "seq": 1, **fields})


FAMILIES: list[tuple[str, Callable[..., Packet]]] = [("ipv4", ip4), ("ipv6", ip6)]


def good() -> Iterator[tuple[str, Packet, str]]:
    """What must pass, so that the rest is dropped for its own fault."""
    for name, network in FAMILIES:
        yield f"good syn, {name}", network() / tcp(), "tcp"
        yield f"good data, {name}", network() / tcp(flags="PA") / b"hello", "tcp"
        yield (
            f"good syn with options, {name}",
            network()
            / tcp(
                options=[("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]
            ),
            "tcp",
        )
        yield f"udp, {name}", network() / UDP(sport=53, dport=53), "slow:udp"
    yield "arp request", ether(dst=BROADCAST) / ARP(op=1, psrc=PEER4, pdst=OUR4, hwsrc=PEER_MAC), "slow:arp"
    yield "arp reply", ether() / ARP(op=2, psrc=PEER4, pdst=OUR4, hwsrc=PEER_MAC, hwdst=OUR_MAC), "slow:arp"
    yield "echo request, ipv4", ip4() / ICMP() / b"data", "slow:echo"
    yield "echo request, ipv6", ip6() / ICMPv6EchoRequest(data=b"data"), "slow:echo"
    yield "tag of priority alone", ether() / Dot1Q(vlan=0, prio=5) / IP(src=PEER4, dst=OUR4) / tcp(), "tcp"
    skipped = IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x1E, optdata=bytes(4))])
    yield "unknown IPv6 destination option to be skipped", ip6() / skipped / tcp(), "tcp"


def ethernet() -> Iterator[tuple[str, Packet, str]]:
    inner = IP(src=PEER4, dst=OUR4) / tcp()
    yield "802.3 length", ether(type=100) / Raw(bytes(100)), "no_ether_type"
    yield "802.3 length, the largest", ether(type=0x5FF) / Raw(bytes(100)), "no_ether_type"
    yield "type 0", ether(type=0) / Raw(bytes(46)), "no_ether_type"
    yield "unknown type", ether(type=0x88CC) / Raw(bytes(46)), "ether_type"
    yield "type of MPLS", ether(type=0x8847) / inner, "ether_type"
    yield "type of PPPoE", ether(type=0x8864) / inner, "ether_type"
    yield "type inside a tag is a length", ether() / Dot1Q(vlan=0, type=64) / Raw(bytes(64)), "no_ether_type"
    yield "two tags", ether() / Dot1Q(vlan=0) / Dot1Q(vlan=0) / inner, "double_tag"
    yield "three tags", ether() / Dot1Q(vlan=0) / Dot1Q(vlan=0) / Dot1Q(vlan=0) / inner, "double_tag"
    yield "provider's tag", ether() / Dot1AD(vlan=0) / inner, "double_tag"
    yield "provider's tag and another", ether() / Dot1AD(vlan=0) / Dot1Q(vlan=0) / inner, "double_tag"
    yield "old provider's tag", ether(type=0x9100) / Raw(b"\0\0\x08\0" + bytes(inner)), "double_tag"
    yield "tag of another VLAN", ether() / Dot1Q(vlan=9) / inner, "other_vlan"
    yield "tag of VLAN 4095", ether() / Dot1Q(vlan=4095) / inner, "other_vlan"
    yield "source broadcast", ether(src=BROADCAST) / inner, "ether_source"
    yield "source multicast", ether(src="01:00:5e:00:00:01") / inner, "ether_source"
    yield "source zero", ether(src="00:00:00:00:00:00") / inner, "ether_source"
    yield "another station's", ether(dst="02:00:00:00:00:99") / inner, "not_for_us"
    yield "destination zero", ether(dst="00:00:00:00:00:00") / inner, "not_for_us"
    yield "IPv4 multicast", ether(dst="01:00:5e:00:00:fb") / inner, "not_for_us"
    yield "spanning tree's group", ether(dst="01:80:c2:00:00:00") / inner, "not_for_us"
    yield (
        "an IPv6 group nobody joined",
        ether(dst="33:33:00:00:00:fb") / IPv6(src=PEER6, dst=OUR6) / tcp(),
        "not_for_us",
    )
    yield "IPv4 to an IPv6 group", ether(dst=NODE_MAC) / inner, "not_for_us"
    yield "ARP to an IPv6 group", ether(dst=NODE_MAC) / ARP(op=1, psrc=PEER4, hwsrc=PEER_MAC), "not_for_us"


def versions() -> Iterator[tuple[str, Packet, str]]:
    yield "IPv6 under IPv4's type", ether(type=0x0800) / IPv6(src=PEER6, dst=OUR6) / tcp(), "ip_version"
    yield "IPv4 under IPv6's type", ether(type=0x86DD) / IP(src=PEER4, dst=OUR4) / tcp(), "ip_version"
    for version in (0, 1, 5, 7, 15):
        yield f"version {version}", ip4(version=version) / tcp(), "ip_version"
    yield "IPv6 with version 4", ip6(version=4) / tcp(), "ip_version"


def ip_lengths() -> Iterator[tuple[str, Packet, str]]:
    for length in (0, 1, 19):
        yield f"total length {length} (Ripple20)", ip4(len=length) / tcp(), "ip_header"
    for length in (41, 1500, 65535):
        yield f"total length {length} of 40", ip4(len=length) / tcp(), "ip_truncated"
    yield "total length beyond the padding", ip4(len=61) / tcp() / Raw(bytes(6)), "ip_truncated"
    yield "total length cuts the TCP header", ip4(len=39) / tcp(), "tcp_truncated"
    yield "total length leaves no TCP header", ip4(len=20) / tcp(), "tcp_truncated"
    yield "total length leaves ports alone", ip4(len=24) / tcp(), "tcp_truncated"
    yield "payload length one too long", ip6(plen=21) / tcp(), "ip_truncated"
    yield "payload length 65535", ip6(plen=65535) / tcp(), "ip_header"
    yield "payload length 65495", ip6(plen=65495) / tcp(), "ip_truncated"
    yield "payload length 0", ip6(plen=0) / tcp(), "tcp_truncated"
    yield "payload length 19", ip6(plen=19) / tcp(), "tcp_truncated"
    for ihl in range(5):
        yield f"IHL {ihl}", ip4(ihl=ihl) / tcp(), "ip_header"
    yield "IHL 15 beyond total length", ip4(ihl=15) / tcp(), "ip_header"
    yield "IHL 6 over a checksum of 20 bytes", ip4(ihl=6) / tcp(), "ip_checksum"
    for name, option in [
        ("LSRR (URGENT/11)", b"\x83\x07\x04\x0a\x4d\x00\x09\x00"),
        ("SSRR (URGENT/11)", b"\x89\x07\x04\x0a\x4d\x00\x09\x00"),
        ("LSRR at its end", b"\x83\x07\x08\x0a\x4d\x00\x09\x00"),
        ("SSRR behind another option", b"\x07\x03\x04\x01\x89\x03\x04\x00"),
        ("of length 0", b"\x07\x00\0\0"),
        ("of length 1", b"\x07\x01\0\0"),
        ("beyond the header", b"\x07\x05\0\0"),
        ("kind at the last byte", b"\x01\x01\x01\x07"),
    ]:
        yield f"IPv4 option {name}", ip4(options=[option]) / tcp(), "ip_options"
    for name, option in [
        ("record route", b"\x07\x07\x04\0\0\0\0\0"),
        ("timestamp", b"\x44\x08\x05\0\0\0\0\0"),
        ("NOP and end", b"\x01\x01\x01\x00"),
        ("router alert", b"\x94\x04\0\0"),
        ("that nobody knows", b"\x9e\x04\x83\x89"),
        ("of 40 bytes", b"\x1e\x28" + bytes(38)),
        ("end, and a source route behind it", b"\x00\x83\x03\x04"),
    ]:
        yield f"IPv4 option {name} is skipped", ip4(options=[option]) / tcp(), "tcp"
    yield "IPv4 options over no TCP header", ip4(options=[b"\x94\x04\0\0"], len=24) / tcp(), "tcp_truncated"
    yield "IPv4 options with a bad checksum", ip4(options=[b"\x94\x04\0\0"], chksum=1) / tcp(), "ip_checksum"
    yield "IPv4 checksum 0", ip4(chksum=0) / tcp(), "ip_checksum"
    yield "IPv4 checksum 0xffff", ip4(chksum=0xFFFF) / tcp(), "ip_checksum"


def fragments() -> Iterator[tuple[str, Packet, str]]:
    yield "first fragment", ip4(flags="MF") / tcp(), "ip_fragment"
    yield "tiny first fragment", ip4(flags="MF") / Raw(bytes(tcp())[:8]), "ip_fragment"
    yield "fragment at offset 8 (tiny overlap)", ip4(frag=1) / Raw(bytes(16)), "ip_fragment"
    yield "teardrop's second", ip4(frag=3) / UDP() / Raw(bytes(4)), "ip_fragment"
    yield "ping of death", ip4(frag=8189) / ICMP() / Raw(bytes(100)), "ip_fragment"
    yield "last fragment", ip4(frag=185) / Raw(bytes(20)), "ip_fragment"
    yield "DF and MF", ip4(flags="DF+MF") / tcp(), "ip_fragment"
    yield "fragmented echo", ip4(flags="MF") / ICMP() / Raw(bytes(8)), "ip_fragment"
    yield "fragmented UDP", ip4(flags="MF") / UDP(), "ip_fragment"
    yield "IPv6 first fragment", ip6() / IPv6ExtHdrFragment(m=1, id=7) / tcp(), "ip_fragment"
    yield "IPv6 later fragment", ip6() / IPv6ExtHdrFragment(offset=1, id=7) / tcp(), "ip_fragment"
    yield "IPv6 atomic fragment", ip6() / IPv6ExtHdrFragment(id=7) / tcp(), "ip_fragment"
    yield (
        "IPv6 fragmented solicitation (RFC 6980)",
        ip6(hlim=255) / IPv6ExtHdrFragment() / ICMPv6ND_NS(tgt=OUR6),
        "ip_fragment",
    )
    yield (
        "fragment behind options",
        ip6() / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment(m=1) / tcp(),
        "ip_fragment",
    )
    for length in (3, 7):
        cut = Raw(bytes(IPv6ExtHdrFragment(nh=6))[:length])
        yield f"fragment header cut to {length} bytes", ip6(nh=44) / cut, "ip_extensions"


def extensions() -> Iterator[tuple[str, Packet, str]]:
    route = IPv6ExtHdrRouting(segleft=1, addresses=["fd77::9"])
    yield "routing header that goes on (RFC 5095)", ip6() / route / tcp(), "ip_extensions"
    yield "routing header of 255 segments", ip6(nh=43) / Raw(b"\x06\0\0\xff\0\0\0\0") / tcp(), "ip_extensions"
    yield (
        "hop-by-hop behind another",
        ip6() / IPv6ExtHdrDestOpt() / IPv6ExtHdrHopByHop() / tcp(),
        "ip_extensions",
    )
    yield (
        "two hop-by-hop headers",
        ip6() / IPv6ExtHdrHopByHop() / IPv6ExtHdrHopByHop() / tcp(),
        "ip_extensions",
    )
    yield "extension beyond the packet", ip6(nh=60) / Raw(b"\x06\xff" + bytes(6)) / tcp(), "ip_extensions"
    short = ip6(nh=60, plen=8) / Raw(b"\x06\x01" + bytes(6))
    yield "extension that goes on into the padding", short / Raw(bytes(40)), "ip_extensions"
    yield "extension that is the whole packet", ip6(nh=60) / Raw(b"\x06\0\1\4\0\0\0\0"), "tcp_truncated"
    yield "extension of one byte", ip6(nh=60) / Raw(b"\x06"), "ip_extensions"
    yield "extension chain into nothing", ip6(nh=60) / Raw(b"\x3c\0\1\4\0\0\0\0"), "ip_extensions"
    yield "option beyond its extension", ip6(nh=60) / Raw(b"\x06\0\1\5\0\0\0\0") / tcp(), "ip_extensions"
    yield "option kind at the last byte", ip6(nh=60) / Raw(b"\x06\0\0\0\0\0\0\1") / tcp(), "ip_extensions"
    yield "option length 255", ip6(nh=0) / Raw(b"\x06\0\1\xff\0\0\0\0") / tcp(), "ip_extensions"
    yield "jumbo payload option", ip6(nh=0, plen=0) / Raw(b"\x06\0\xc2\4\0\1\0\0") / tcp(), "ip_extensions"
    for action in (0x40, 0x80, 0xC0):
        option = bytes([6, 0, action | 0x1E, 4, 0, 0, 0, 0])
        yield f"unknown option with action {action:#x}", ip6(nh=60) / Raw(option) / tcp(), "ip_extensions"
    pad = b"\x3c\0\1\4\0\0\0\0"
    yield "nine extension headers", ip6(nh=60) / Raw(pad * 8 + b"\6" + pad[1:]) / tcp(), "ip_extensions"
    yield "a hundred extension headers", ip6(nh=60) / Raw(pad * 99 + b"\6" + pad[1:]) / tcp(), "ip_extensions"
    eight = ip6()
    for _ in range(8):
        eight = eight / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])
    yield "eight extension headers are read", eight / tcp(), "tcp"
    yield "padding options", ip6() / IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(4))]) / tcp(), "tcp"
    yield "no next header", ip6(nh=59), "protocol"


def addresses() -> Iterator[tuple[str, Packet, str]]:
    for src in ("0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.254", "224.0.0.1", "239.1.2.3", "240.0.0.1"):
        yield f"source {src}", ip4(src=src) / tcp(), "ip_source"
    yield "source broadcast address", ip4(src="255.255.255.255") / tcp(), "ip_source"
    yield "LAND", ip4(src=OUR4) / tcp(sport=80), "land"
    yield "LAND, other port", ip4(src=OUR4) / tcp(), "land"
    yield "LAND by echo", ip4(src=OUR4) / ICMP(), "land"
    yield "LAND, ipv6", ip6(src=OUR6) / tcp(sport=80), "land"
    for src in ("::", "::1", "ff02::1", "ff0e::1"):
        yield f"source {src}", ip6(src=src) / tcp(), "ip_source"
    yield "source IPv4-mapped, another flow's", ip6(src=f"::ffff:{PEER4}") / tcp(), "ip_source"
    yield "destination IPv4-mapped, another service's", ip6(dst=f"::ffff:{OUR4}") / tcp(), "ip_destination"
    yield "both IPv4-mapped", ip6(src=f"::ffff:{PEER4}", dst=f"::ffff:{OUR4}") / tcp(), "ip_destination"
    for dst in ("0.0.0.0", "0.9.9.9", "127.0.0.1"):
        yield f"destination {dst}", ip4(dst=dst) / tcp(), "ip_destination"
    for dst in ("::", "::1"):
        yield f"destination {dst}", ip6(dst=dst) / tcp(), "ip_destination"
    for dst in ("224.0.0.1", "240.0.0.1", "255.255.255.255"):
        yield f"SYN to {dst}", ip4(dst=dst) / tcp(), "to_group"
    yield "SYN to a group, ipv6", ip6(dst="ff02::1") / tcp(), "to_group"
    inner = IP(src=PEER4, dst=OUR4)
    yield "SYN in a broadcast frame", ether(dst=BROADCAST) / inner / tcp(), "to_group"
    yield "RST in a broadcast frame", ether(dst=BROADCAST) / inner / tcp(flags="R"), "to_group"
    yield "ACK in a broadcast frame", ether(dst=BROADCAST) / inner / tcp(flags="A"), "to_group"
    yield "UDP in a broadcast frame", ether(dst=BROADCAST) / inner / UDP(), "to_group"
    yield (
        "SYN in a multicast frame, ipv6",
        ether(dst=NODE_MAC) / IPv6(src=PEER6, dst=OUR6) / tcp(),
        "to_group",
    )


def protocols() -> Iterator[tuple[str, Packet, str]]:
    inner = IP(src=PEER4, dst=OUR4) / tcp()
    yield "IP in IP", ip4() / inner, "protocol"
    yield "IPv6 in IPv4", ip4() / IPv6(src=PEER6, dst=OUR6) / tcp(), "protocol"
    yield "IPv4 in IPv6", ip6() / inner, "protocol"
    yield "IPv6 in IPv6", ip6() / IPv6(src=PEER6, dst=OUR6) / tcp(), "protocol"
    yield "GRE", ip4() / GRE() / inner, "protocol"
    yield "IGMP", ip4(proto=2) / Raw(b"\x11\0\xee\xff\0\0\0\0"), "protocol"
    yield "SCTP", ip4(proto=132) / Raw(bytes(12)), "protocol"
    yield "protocol 255", ip4(proto=255) / Raw(bytes(20)), "protocol"
    yield "ESP", ip6(nh=50) / Raw(bytes(20)), "protocol"
    yield "ICMPv6 over IPv4", ip4(proto=58) / Raw(bytes(20)), "protocol"
    yield "ICMP over IPv6", ip6(nh=1) / Raw(bytes(20)), "protocol"
    yield "UDP header cut short", ip4(proto=17) / Raw(bytes(7)), "udp_header"
    yield "UDP length 7", ip4() / UDP(len=7), "udp_header"
    yield "UDP length beyond the packet", ip4() / UDP(len=9), "udp_header"
    yield "UDP length 0, ipv6", ip6() / UDP(len=0), "udp_header"


def tcp_headers() -> Iterator[tuple[str, Packet, str]]:
    for name, network in FAMILIES:
        for offset in range(5):
            yield f"data offset {offset}, {name}", network() / tcp(dataofs=offset), "tcp_offset"
        for offset in (6, 15):
            yield (
                f"data offset {offset} of 20 bytes, {name}",
                network() / tcp(dataofs=offset),
                "tcp_truncated",
            )
        yield f"source port 0, {name}", network() / tcp(sport=0), "tcp_port"
        yield f"destination port 0, {name}", network() / tcp(dport=0), "tcp_port"
        yield f"checksum wrong, {name}", network() / tcp(chksum=0x1234), "tcp_checksum"
        yield f"checksum 0, {name}", network() / tcp(chksum=0) / b"x", "tcp_checksum"
        for name2, option in [
            ("length 0", b"\x02\0\0\0"),
            ("length 1", b"\x02\1\0\0"),
            ("unknown kind, length 0", b"\xfe\0\0\0"),
            ("unknown kind, length 1", b"\xfe\1\0\0"),
            ("beyond the header", b"\x08\x0a\0\0"),
            ("kind at the last byte", b"\1\1\1\2"),
            ("MSS of length 3", b"\x02\3\0\1"),
            ("window scale of length 4", b"\3\4\0\0"),
            ("SACK without block", b"\5\2\1\1"),
            ("SACK of half a block", b"\5\6\0\0\0\0\1\1"),
        ]:
            segment = bytes(tcp(dataofs=5 + len(option) // 4)) + option
            packet = network(**({"proto": 6} if name == "ipv4" else {"nh": 6})) / Raw(segment)
            yield f"TCP option {name2}, {name}", packet, "tcp_options"
    # Flags and urgent pointers are the state machine's matter: none may upset the classifier.
    for flags in ("", "F", "SF", "SR", "FPU", "SFRPAUEC"):
        yield f"flags {flags or 'none'}", ip4() / tcp(flags=flags), "tcp"
    for urgent in (0, 1, 65535):
        yield f"urgent pointer {urgent}", ip4() / tcp(flags="UA", urgptr=urgent) / b"ab", "tcp"


def arp() -> Iterator[tuple[str, Packet, str]]:
    ask = {"op": 1, "hwsrc": PEER_MAC, "psrc": PEER4, "pdst": OUR4}
    for change, verdict in [
        ({"hwtype": 6}, "arp_malformed"),
        ({"hwtype": 0}, "arp_malformed"),
        ({"ptype": 0x86DD}, "arp_malformed"),
        ({"ptype": 0x0806}, "arp_malformed"),
        ({"op": 0}, "arp_malformed"),
        ({"op": 3}, "arp_malformed"),
        ({"op": 0xFFFF}, "arp_malformed"),
        ({"hwsrc": BROADCAST}, "arp_sender"),
        ({"hwsrc": "00:00:00:00:00:00"}, "arp_sender"),
        ({"hwsrc": "01:00:5e:00:00:01"}, "arp_sender"),
        ({"psrc": "255.255.255.255"}, "arp_sender"),
        ({"psrc": "224.0.0.1"}, "arp_sender"),
        ({"psrc": "127.0.0.1"}, "arp_sender"),
        ({"psrc": "0.0.0.0"}, "slow:arp"),
        ({"psrc": OUR4, "op": 2}, "slow:arp"),
    ]:
        said = ", ".join(f"{k}={v}" for k, v in change.items())
        yield f"ARP {said}", ether(dst=BROADCAST) / ARP(**{**ask, **change}), verdict
    whole = bytes(ARP(**ask))
    for length in (0, 7, 8, 27):
        yield f"ARP of {length} bytes", ether(type=0x0806) / Raw(whole[:length]), "arp_malformed"
    for at, value, said in [
        (4, 0, "hardware"),
        (4, 255, "hardware"),
        (5, 0, "protocol"),
        (5, 16, "protocol"),
    ]:
        changed = whole[:at] + bytes([value]) + whole[at + 1 :]
        yield f"ARP {said} length {value}", ether(type=0x0806) / Raw(changed), "arp_malformed"


def icmp() -> Iterator[tuple[str, Packet, str]]:
    sent4 = IP(src=OUR4, dst=PEER4) / TCP(sport=80, dport=40000)
    sent6 = IPv6(src=OUR6, dst=PEER6) / TCP(sport=80, dport=40000)
    yield "port unreachable", ip4() / ICMP(type=3, code=3) / sent4, "icmp"
    yield "fragmentation needed", ip4() / ICMP(type=3, code=4, nexthopmtu=1400) / sent4, "icmp"
    yield "time exceeded", ip4() / ICMP(type=11) / sent4, "icmp"
    yield "packet too big", ip6() / ICMPv6PacketTooBig(mtu=1280) / sent6, "icmp"
    yield "unreachable, ipv6", ip6() / ICMPv6DestUnreach() / sent6, "icmp"
    yield "time exceeded, ipv6", ip6() / ICMPv6TimeExceeded() / sent6, "icmp"
    for length in (0, 1, 19, 20, 27):
        quote = Raw(bytes(sent4)[:length])
        yield f"quote of {length} bytes", ip4() / ICMP(type=3, code=3) / quote, "icmp_quote"
    for length in (0, 39, 40, 47):
        quote = Raw(bytes(sent6)[:length])
        yield f"quote of {length} bytes, ipv6", ip6() / ICMPv6PacketTooBig() / quote, "icmp_quote"
    for said, quote in [
        ("of another host", IP(src=PEER4, dst=OUR4) / TCP()),
        ("of UDP", IP(src=OUR4, dst=PEER4) / UDP()),
        ("of ICMP", IP(src=OUR4, dst=PEER4) / ICMP()),
        ("of a later fragment", IP(src=OUR4, dst=PEER4, frag=5) / TCP()),
        ("with IHL 0", IP(src=OUR4, dst=PEER4, ihl=0) / TCP()),
        ("with IHL 15", IP(src=OUR4, dst=PEER4, ihl=15) / TCP()),
        ("of the other family", IPv6(src=OUR6, dst=PEER6) / TCP()),
    ]:
        yield f"quote {said}", ip4() / ICMP(type=3, code=3) / quote, "icmp_quote"
    yield (
        "quote of IPv6 fragment",
        ip6() / ICMPv6PacketTooBig() / IPv6(src=OUR6, nh=44) / Raw(bytes(8)),
        "icmp_quote",
    )
    for length in (0, 1, 7):
        yield f"ICMP of {length} bytes", ip4(proto=1) / Raw(bytes(length)), "icmp_truncated"
        yield f"ICMPv6 of {length} bytes", ip6(nh=58) / Raw(bytes(length)), "icmp_truncated"
    yield "ICMP checksum", ip4() / ICMP(chksum=1), "icmp_checksum"
    yield "ICMPv6 checksum", ip6() / ICMPv6EchoRequest(cksum=1), "icmp_checksum"
    yield (
        "ICMPv6 checksum without pseudo header",
        ip6(nh=58) / Raw(b"\x80\0\x7f\xff\0\0\0\0"),
        "icmp_checksum",
    )
    for kind, said in [(0, "echo reply"), (4, "source quench"), (5, "redirect"), (9, "router advertisement"),
                       (13, "timestamp"), (17, "address mask"), (255, "type 255")]:  # fmt: skip
        yield f"ICMP {said}", ip4() / ICMP(type=kind), "icmp_type"
    yield "ICMPv6 echo reply", ip6() / ICMPv6EchoReply(), "icmp_type"
    yield "ICMPv6 router advertisement", ip6(hlim=255) / ICMPv6ND_RA(), "icmp_type"
    yield "ICMPv6 redirect", ip6(hlim=255) / ICMPv6ND_Redirect(tgt=PEER6, dst=PEER6), "icmp_type"
    inner = IP(src=PEER4, dst=OUR4)
    yield "echo in a broadcast frame (smurf)", ether(dst=BROADCAST) / inner / ICMP(), "to_group"
    yield "echo to broadcast (smurf)", ip4(dst="255.255.255.255") / ICMP(), "to_group"
    yield "echo to a group", ip4(dst="224.0.0.1") / ICMP(), "to_group"
    yield (
        "echo to all nodes",
        ether(dst=ALL_NODES_MAC) / IPv6(src=PEER6, dst="ff02::1") / ICMPv6EchoRequest(),
        "to_group",
    )
    yield (
        "listener query",
        ether(dst=ALL_NODES_MAC) / IPv6(src=PEER6, dst="ff02::1") / ICMPv6MLQuery(),
        "to_group",
    )
    yield "huge echo", ip4() / ICMP() / Raw(bytes(1472)), "slow:echo"


def neighbours() -> Iterator[tuple[str, Packet, str]]:
    sll, tll = ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC), ICMPv6NDOptDstLLAddr(lladdr=PEER_MAC)
    group = ether(dst=NODE_MAC)
    ask = ICMPv6ND_NS(tgt=OUR6)
    yield "solicitation", group / IPv6(src=PEER6, dst=NODE6, hlim=255) / ask / sll, "slow:nd"
    yield "solicitation to one host", ip6(hlim=255) / ask / sll, "slow:nd"
    yield "duplicate address detection", group / IPv6(src="::", dst=NODE6, hlim=255) / ask, "slow:nd"
    yield "advertisement", ip6(hlim=255) / ICMPv6ND_NA(tgt=PEER6, S=1) / tll, "slow:nd"
    yield (
        "unsolicited advertisement",
        ether(dst=ALL_NODES_MAC)
        / IPv6(src=PEER6, dst="ff02::1", hlim=255)
        / ICMPv6ND_NA(tgt=PEER6, S=0)
        / tll,
        "slow:nd",
    )
    for hlim in (0, 64, 254):
        yield f"solicitation with hop limit {hlim}", ip6(hlim=hlim) / ask / sll, "nd_malformed"
    yield "solicitation code 1", ip6(hlim=255) / ICMPv6ND_NS(tgt=OUR6, code=1), "nd_malformed"
    yield "solicitation of a group", ip6(hlim=255) / ICMPv6ND_NS(tgt="ff02::1"), "nd_malformed"
    yield (
        "DAD with a link-layer address",
        group / IPv6(src="::", dst=NODE6, hlim=255) / ask / sll,
        "nd_malformed",
    )
    yield "DAD to another group", group / IPv6(src="::", dst="ff02::1", hlim=255) / ask, "nd_malformed"
    yield "solicitation from nobody to one host", ip6(src="::", hlim=255) / ask, "ip_source"
    yield "echo from nobody to a group", group / IPv6(src="::", dst=NODE6) / ICMPv6EchoRequest(), "ip_source"
    yield "option length 0", ip6(hlim=255) / ask / Raw(bytes(8)), "nd_malformed"
    yield "option beyond the message", ip6(hlim=255) / ask / Raw(b"\1\2" + bytes(6)), "nd_malformed"
    yield "option of one byte", ip6(hlim=255) / ask / Raw(b"\1"), "nd_malformed"
    short = Raw(b"\x87\0\0\0\0\0\0\0" + bytes(15))
    yield "solicitation of 23 bytes", ip6(hlim=255, nh=58) / short, "icmp_checksum"
    bad = ICMPv6NDOptDstLLAddr(lladdr=BROADCAST)
    yield (
        "advertisement of the broadcast address",
        ip6(hlim=255) / ICMPv6ND_NA(tgt=PEER6) / bad,
        "nd_malformed",
    )
    yield (
        "solicited advertisement to a group",
        ether(dst=ALL_NODES_MAC)
        / IPv6(src=PEER6, dst="ff02::1", hlim=255)
        / ICMPv6ND_NA(tgt=PEER6, S=1)
        / tll,
        "nd_malformed",
    )


def runts() -> Iterator[Case]:
    """Cut frames, as bytes."""
    plain, tagged = bytes(ip4() / tcp()), bytes(ether() / Dot1Q(vlan=0) / IP(src=PEER4, dst=OUR4) / tcp())
    for length in (0, 1, 6, 12, 13):
        yield f"frame of {length} bytes", plain[:length], "runt"
    for length in (14, 16, 17):
        yield f"tagged frame of {length} bytes", tagged[:length], "runt"
    yield "Ethernet header alone", plain[:14], "ip_truncated"
    yield "tagged Ethernet header alone", tagged[:18], "ip_truncated"
    for length in (15, 33, 34, 53):
        yield f"IPv4 frame of {length} bytes", plain[:length], "ip_truncated"
    six = bytes(ip6() / tcp())
    for length in (15, 53, 54, 73):
        yield f"IPv6 frame of {length} bytes", six[:length], "ip_truncated"
    yield "runt that a wire would have padded", plain, "tcp"
    yield "padded to 60", plain.ljust(60, b"\xee"), "tcp"
    yield "padded to 1514", plain.ljust(1514, b"\xee"), "tcp"


def corpus() -> list[Case]:
    classes = (
        *(good, ethernet, versions, ip_lengths, fragments, extensions),
        *(addresses, protocols, tcp_headers, arp, icmp, neighbours),
    )
    return [(name, bytes(packet), verdict) for make in classes for name, packet, verdict in make()] + list(
        runts()
    )


CORPUS: list[Case] = corpus()

OTHERS: list[PortCase] = [
    ("jumbo frame", bytes(ip4() / tcp() / bytes(1461)), {"mtu": 1500}, "oversize"),
    ("jumbo frame, ipv6", bytes(ip6() / tcp() / bytes(8900)), {"mtu": 1500}, "oversize"),
    ("as large as the MTU", bytes(ip4() / tcp() / bytes(1460)), {"mtu": 1500}, "tcp"),
    ("padding beyond the MTU", bytes(ip4() / tcp() / bytes(1460)) + bytes(50), {"mtu": 1500}, "tcp"),
    ("IPv6 when it is off", bytes(ip6() / tcp()), {"no_ipv6": True}, "family_off"),
    (
        "solicitation when IPv6 is off",
        bytes(ip6(hlim=255) / ICMPv6ND_NS(tgt=OUR6)),
        {"no_ipv6": True},
        "family_off",
    ),
    ("IPv4 when it is off", bytes(ip4() / tcp()), {"no_ipv4": True}, "family_off"),
    (
        "ARP when IPv4 is off",
        bytes(ether() / ARP(psrc=PEER4, hwsrc=PEER_MAC)),
        {"no_ipv4": True},
        "family_off",
    ),
    ("untagged on a VLAN port", bytes(ip4() / tcp()), {"vlan_id": 7}, "other_vlan"),
    (
        "the port's VLAN",
        bytes(ether() / Dot1Q(vlan=7, prio=3) / IP(src=PEER4, dst=OUR4) / tcp()),
        {"vlan_id": 7},
        "tcp",
    ),
    (
        "the port's VLAN, ipv6",
        bytes(ether() / Dot1Q(vlan=7, prio=3) / IPv6(src=PEER6, dst=OUR6) / tcp()),
        {"vlan_id": 7},
        "tcp",
    ),
    (
        "the port's VLAN, ipv6 with options",
        bytes(ether() / Dot1Q(vlan=7) / IPv6(src=PEER6, dst=OUR6) / IPv6ExtHdrDestOpt() / tcp()),
        {"vlan_id": 7},
        "tcp",
    ),
    (
        "the port's VLAN, IPv4 with options",
        bytes(ether() / Dot1Q(vlan=7) / IP(src=PEER4, dst=OUR4, options=[IPOption(b"\x94\x04\0\0")]) / tcp()),
        {"vlan_id": 7},
        "tcp",
    ),
    (
        "solicitation in the port's VLAN",
        bytes(
            ether(dst=NODE_MAC) / Dot1Q(vlan=7) / IPv6(src=PEER6, dst=NODE6, hlim=255) / ICMPv6ND_NS(tgt=OUR6)
        ),
        {"vlan_id": 7},
        "slow:nd",
    ),
    ("untagged on a VLAN port, ipv6", bytes(ip6() / tcp()), {"vlan_id": 7}, "other_vlan"),
    (
        "another VLAN, ipv6",
        bytes(ether() / Dot1Q(vlan=8) / IPv6(src=PEER6, dst=OUR6) / tcp()),
        {"vlan_id": 7},
        "other_vlan",
    ),
    (
        "another VLAN",
        bytes(ether() / Dot1Q(vlan=8) / IP(src=PEER4, dst=OUR4) / tcp()),
        {"vlan_id": 7},
        "other_vlan",
    ),
]
