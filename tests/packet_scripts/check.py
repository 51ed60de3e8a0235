"""Is the packet that the stack sent the one that the script expects?"""

from tests.packet_scripts.flow import Flow, stream
from tests.packet_scripts.script import Option, Packet
from tests.packet_scripts.wire import ECN_BITS, Segment, flags_to_bits


def options_match(want: tuple[Option, ...], got: tuple[Option, ...]) -> bool:
    """The same options in the same order; TSval and TSecr are judged apart."""
    if [o.kind for o in want] != [o.kind for o in got]:
        return False
    for w, g in zip(want, got, strict=True):
        if w.kind == "TS":
            continue
        if len(w.numbers) != len(g.numbers):
            return False
        if any(a not in (None, b) for a, b in zip(w.numbers, g.numbers, strict=True)):
            return False
    return True


def of_kind(options: tuple[Option, ...] | None, kind: str) -> Option | None:
    return next((o for o in options or () if o.kind == kind), None)


def judge_timestamp(flow: Flow, want: Packet, segment: Segment, tick_us: int) -> str | None:
    """TSecr is exact.  TSval has no origin; with a tick given, it has to advance as the script's do."""
    w, g = of_kind(want.options, "TS"), of_kind(segment.options, "TS")
    if w is None or g is None:
        return None
    val, ecr = w.numbers
    wire_val, wire_ecr = g.numbers
    assert wire_val is not None
    if ecr is not None and ecr != wire_ecr:
        return f"TSecr is {wire_ecr}"
    if val is None:
        return None
    if tick_us and flow.ts_shift is not None:
        drift_ms = ((wire_val - val * tick_us // 1000 - flow.ts_shift + 2**31) % 2**32) - 2**31
        if abs(drift_ms) > max(4, tick_us // 1000):
            return f"TSval is off by {drift_ms} ms since the last one"
    if tick_us:
        flow.ts_shift = wire_val - val * tick_us // 1000
    flow.tsvals[val] = wire_val
    return None


def judge(flow: Flow, want: Packet, segment: Segment, tick_us: int) -> str | None:
    """What is wrong with the packet; None: it is the expected one."""
    flow.learn(segment, want.seq)
    got = flow.to_script(segment)
    syn = "S" in want.flags
    place = got.seq - flow.local_syn - (not syn)
    if flags_to_bits(want.flags) != segment.flags:
        return "flags differ"
    if want.seq % 2**32 != got.seq:
        return "sequence numbers differ"
    if want.length != got.length:
        return "lengths differ"
    if "." in want.flags and (want.ack or 0) % 2**32 != got.ack:
        return "acknowledgment numbers differ"
    if want.win is not None and want.win != got.win:
        return "windows differ"
    if (want.urg or 0) != segment.urg:
        return "urgent pointers differ"
    if want.ecn not in (None, "ect01") and ECN_BITS[want.ecn or ""] != segment.ecn:
        return "ECN fields differ"
    if want.ecn == "ect01" and segment.ecn not in (1, 2):
        return "ECN fields differ"
    if want.options is not None and not options_match(want.options, got.options or ()):
        return "options differ"
    wrong = judge_timestamp(flow, want, segment, tick_us)
    # The octet below SND.UNA that a keepalive may carry belongs to nobody (RFC 9293 3.8.4).
    if wrong is None and place >= 0 and segment.data != stream(place, len(segment.data)):
        return "payload is not what was written"
    return wrong
