"""A script told again: over IPv6, and by a stack that opens the connection itself.  What TCP does is the same."""

import re
from dataclasses import replace

from tests.packet_scripts.script import Event, Icmp, Script

IPV6_MORE_BYTES = 20  # of header: with a link that much wider the segments are the same
ICMP_ALIKE = {
    "net_unreachable": "no_route",
    "host_unreachable": "addr_unreachable",
    "port_unreachable": "port_unreachable",
    "exc_ttl": "exceed_hoplimit",
}
PASSIVE_OPEN = re.compile(
    r"""^ 0   socket\((?P<family>[^,]*), SOCK_STREAM, IPPROTO_TCP\) = 3
(?P<early>(?:\+0   setsockopt\(3.*\n)*)\+0   bind\(3, \.\.\., \.\.\.\) = 0
\+0   listen\(3, \d+\) = 0
(?P<late>(?:\+0   setsockopt\(3.*\n)*)\+0   < S 0:0\(0\) win (?P<syn_win>\d+)(?P<theirs> <.*>)?
\+0   > SE?\. 0:0\(0\) ack 1(?: win \d+)?(?P<ours> <.*>)?
\+\.1  < \. 1:1\(0\) ack 1 win (?P<win>\d+)(?P<last> <.*>)?
\+0   accept\(3, \.\.\., \.\.\.\) = 4$""",
    re.MULTILINE,
)


def over_ipv6(script: Script) -> Script | None:
    """The same conversation over IPv6; None: it is one already, or speaks of addresses."""
    if script.options.keys() & {"ip_version", "local_ip", "remote_ip"}:
        return None
    mtu = int(script.options.get("mtu", "1500")) + IPV6_MORE_BYTES
    options = {**script.options, "ip_version": "ipv6", "mtu": str(mtu)}
    return replace(script, options=options, events=[_icmp_over_ipv6(event) for event in script.events])


def _icmp_over_ipv6(event: Event) -> Event:
    icmp = event.body
    if not isinstance(icmp, Icmp):
        return event
    if icmp.code == "frag_needed":
        mtu = (icmp.mtu or 0) + IPV6_MORE_BYTES
        return replace(event, body=replace(icmp, kind="icmpv6/packet_too_big", code="", mtu=mtu))
    code = ICMP_ALIKE.get(icmp.code, icmp.code)
    return replace(event, body=replace(icmp, kind=icmp.kind.replace("icmp/", "icmpv6/"), code=code))


def as_client(text: str) -> str | None:
    """The text with an active open in place of its plain passive one; None: it begins otherwise."""
    m = PASSIVE_OPEN.search(text)
    if m is None:
        return None
    ours, theirs = "<...>", m["theirs"] or ""
    if "TS" in theirs:
        stamp = re.search(r"TS val (\d+)", m["ours"] or "")
        if stamp is None:
            return None
        ours = f"<mss 1460,sackOK,TS val {stamp[1]} ecr 0,nop,wscale 3>"
        theirs = re.sub(r"ecr \d+", f"ecr {stamp[1]}", theirs)
    settings = (m["early"] + m["late"]).replace("setsockopt(3", "setsockopt(4")
    active = f""" 0   socket({m["family"]}, SOCK_STREAM, IPPROTO_TCP) = 4
{settings}+0...0.1 connect(4, ..., ...) = 0
+0   > S 0:0(0) {ours}
+.1  < S. 0:0(0) ack 1 win {m["syn_win"]}{theirs}
+0   > . 1:1(0) ack 1 <...>
+0   < . 1:1(0) ack 1 win {m["win"]}{m["last"] or ""}"""
    return text[: m.start()] + active + text[m.end() :]
