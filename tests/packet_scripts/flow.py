"""One 4-tuple of a script: the map between its small numbers and those on the wire.

Sequence numbers count from the initial ones of both ends.  The peer's is ours to choose, and lies shortly before the
wrap; the stack's is seen in its SYN, and taken as 0 until then.  A TSval of the stack is known by the name that the
script gave it when it was sent.  Payload is a function of its place in the stream, so that what arrives in the wrong
place is noticed.
"""

from dataclasses import dataclass, field, replace

from tests.packet_scripts.script import Option, Packet
from tests.packet_scripts.wire import ECN_BITS, Segment, bits_to_flags, flags_to_bits

PEER_ISN = 0xFFFFF000


def stream(first: int, length: int) -> bytes:
    """The bytes of a stream from its place `first` on, the first byte being in place 0."""
    begin = first % 251
    return (bytes(range(251)) * (length // 251 + 2))[begin : begin + length]


@dataclass
class Flow:
    local_ip: str
    remote_ip: str
    local_port: int
    remote_port: int
    local_isn: int | None = None
    remote_syn: int = 0  # the script's number of the peer's SYN
    local_syn: int = 0
    offered_syn: int | None = None  # of a SYN on a 4-tuple in use: the stack may begin anew, or not
    tsvals: dict[int, int] = field(default_factory=dict)  # of the stack: the script's -> the wire's
    ts_shift: int | None = None  # wire minus script of the last one, in ticks

    def payload(self, first: int, length: int) -> bytes:
        return stream(first, length)

    def to_wire(self, p: Packet) -> Segment:
        """A packet of the script that the stack is to receive."""
        flags = flags_to_bits(p.flags)
        if flags & 2 and not flags & 4:
            if self.local_isn is None:
                self.remote_syn = p.seq
            elif p.seq != self.remote_syn:
                self.offered_syn = p.seq
        isn = self.local_isn or 0
        options = []
        for o in p.options or ():
            if o.kind == "TS":
                val, ecr = o.numbers
                options.append(Option("TS", (val or 0, self.tsvals.get(ecr or 0, ecr or 0))))
            elif o.kind == "sack":
                options.append(Option("sack", tuple((n or 0) + isn for n in o.numbers)))
            else:
                options.append(o)
        place = 0 if "S" in p.flags else p.seq - self.remote_syn - 1
        return Segment(
            self.remote_ip,
            self.local_ip,
            self.remote_port,
            self.local_port,
            PEER_ISN + p.seq,
            p.ack + isn if p.ack is not None else 0,
            flags,
            p.win or 0,
            p.urg or 0,
            tuple(options),
            stream(place, p.length),
            ECN_BITS[p.ecn or "noecn"],
            p.bad_checksum,
        )

    def quoted(self, seq: int, length: int) -> Segment:
        """A segment of the stack as an ICMP error quotes it: sent by the local side."""
        return Segment(
            self.local_ip,
            self.remote_ip,
            self.local_port,
            self.remote_port,
            seq + (self.local_isn or 0),
            0,
            0x10,
            0,
            0,
            (),
            bytes(length),
        )

    def learn(self, segment: Segment, script_seq: int) -> None:
        """The stack's SYN tells its initial number."""
        if segment.flags & 2 and (self.local_isn is None or self.offered_syn is not None):
            self.local_isn = (segment.seq - script_seq) % 2**32
            self.local_syn = script_seq
            self.remote_syn = self.remote_syn if self.offered_syn is None else self.offered_syn
            self.offered_syn = None

    def to_script(self, segment: Segment) -> Packet:
        """What the stack sent, in the script's numbers.  TSval stays the wire's."""
        isn = self.local_isn or 0
        options = []
        for o in segment.options:
            if o.kind == "sack":
                o = replace(o, numbers=tuple(((n or 0) - PEER_ISN) % 2**32 for n in o.numbers))
            options.append(o)
        ack = (segment.ack - PEER_ISN) % 2**32 if segment.flags & 16 else None
        nobodys = (
            segment.flags & 4 and segment.seq == 0
        )  # <SEQ=0>, RFC 9293 3.10.7.1: a number of no connection
        return Packet(
            bits_to_flags(segment.flags),
            0 if nobodys else (segment.seq - isn) % 2**32,
            len(segment.data),
            ack,
            segment.wnd,
            segment.urg or None,
            tuple(options),
            ecn={0: None, 1: "ect1", 2: "ect0", 3: "ce"}[segment.ecn],
        )
