"""Runs a script: its events at their times, and what the stack does between them."""

from dataclasses import replace
from pathlib import Path

from tests.packet_scripts import assertions
from tests.packet_scripts.calls import Calls
from tests.packet_scripts.check import judge
from tests.packet_scripts.commands import Settings, apply_command, apply_options
from tests.packet_scripts.flow import Flow
from tests.packet_scripts.grammar import parse
from tests.packet_scripts.machine import Machine
from tests.packet_scripts.script import (
    ELLIPSIS,
    Call,
    Code,
    Command,
    Event,
    Expect,
    Icmp,
    Inject,
    Packet,
    Script,
    ScriptError,
    Symbol,
    Unsupported,
)
from tests.packet_scripts.sockets import Blocking, CallFailed, Result, Sockets
from tests.packet_scripts.wire import Segment, build_icmp

PEER_PORT = 50000
PIECE_BYTES = 1460  # of a packet longer than a link carries, as LRO makes them
ANY_TIME_US = 3600 * 1_000_000  # how long `*` waits, and what no timer of TCP exceeds but keepalive


def pieces(packet: Packet) -> list[Packet]:
    """What a link carries of a packet that is longer than it can be."""
    if packet.length <= PIECE_BYTES:
        return [packet]
    parts = []
    for at in range(0, packet.length, PIECE_BYTES):
        length = min(PIECE_BYTES, packet.length - at)
        last = at + length == packet.length
        flags = packet.flags if last else packet.flags.translate({ord("F"): None, ord("P"): None})
        parts.append(replace(packet, flags=flags, seq=packet.seq + at, length=length))
    return parts


class Waiting:
    """A blocked call: where it stands and when it came back."""

    def __init__(self, event: Event, call: Call, running: Blocking, until_us: int) -> None:
        self.event, self.call, self.running, self.until_us = event, call, running, until_us
        self.result: Result | None = None
        self.problem: Exception | None = None
        self.done_us = 0


class Runner:
    def __init__(self, script: Script, *, strict_end: bool = True) -> None:
        self.script = script
        self.strict_end = strict_end  # a packet that nobody expected fails at the end, too
        self.machine = Machine()
        self.settings = Settings()
        apply_options(script.options, self.settings, self.machine)
        for command in script.init:
            apply_command(command.text, self.machine)
        s = self.settings
        self.machine.addresses = [s.local_ip]
        self.machine.watch = self.resume
        self.sockets = Sockets(self.machine, s.local_ip, s.remote_ip)
        self.calls = Calls(self.sockets, s.bind_port, s.connect_port)
        self.flows: list[Flow] = []
        self.current: Flow | None = None  # of packets without ports
        self.waiting: Waiting | None = None
        self.last_us = 0

    # --- time ---

    def window(self, event: Event) -> tuple[int, int]:
        """Earliest and latest time of the event, without tolerance."""
        when = event.when
        if when.any_time:
            return self.machine.now_us, self.machine.now_us + ANY_TIME_US
        base = self.last_us if when.relative else 0
        end = when.end_us if when.end_us is not None else when.begin_us
        return base + when.begin_us, base + end

    def fail(self, event: Event, message: str) -> ScriptError:
        now = f"at {self.machine.now_us / 1e6:.6f}"
        return ScriptError(self.script.path, event.line, f"{message} ({now})\n    line:     {event.source}")

    def run(self) -> None:
        for event in self.script.events:
            begin, end = self.window(event)
            try:
                self.dispatch(event, begin, end)
            except CallFailed as e:
                raise self.fail(event, str(e)) from None
            except Unsupported as e:
                raise Unsupported(f"{self.script.path}:{event.line}: {e}") from None
            moved = event.when.any_time or event.when.end_us is not None
            self.last_us = self.machine.now_us if moved else begin
        self.finish()

    def dispatch(self, event: Event, begin: int, end: int) -> None:
        body = event.body
        if isinstance(body, Expect):
            self.expect(event, body.packet, begin, end)
            return
        self.machine.advance_to(begin)
        if isinstance(body, Inject):
            self.inject(body.packet)
        elif isinstance(body, Call):
            self.call(event, body, begin)
        elif isinstance(body, Code):
            self.assertion(event, body)
        elif isinstance(body, Command):
            apply_command(body.text, self.machine)
        elif isinstance(body, Icmp):
            self.icmp(body)

    def assertion(self, event: Event, body: Code) -> None:
        try:
            assertions.run(body.text, self.sockets)
        except (AssertionError, NameError, SyntaxError, TypeError) as e:
            raise self.fail(event, f"assertion: {e}") from None

    # --- packets ---

    def icmp(self, message: Icmp) -> None:
        """An error about a segment that the stack is said to have sent on the current 4-tuple."""
        name = f"ICMP {message.kind} {message.code}".rstrip()
        if not message.inbound:
            raise Unsupported(f"outbound {name}")
        if self.current is None:
            raise Unsupported(f"{name} before any packet")
        quoted = self.current.quoted(message.seq, message.length)
        packet = build_icmp(quoted, message.kind, message.code, message.mtu or 0)
        if packet is None:
            raise Unsupported(name)
        self.machine.receive([packet])

    def flow_of(self, packet: Packet, inbound: bool) -> Flow:
        """The 4-tuple that the line means; a new one when nobody has spoken on it yet."""
        if packet.ports is None and self.current is not None:
            return self.current
        s = self.settings
        local, remote = s.bind_port, PEER_PORT
        if packet.ports is not None:
            remote, local = packet.ports if inbound else packet.ports[::-1]
        for flow in self.flows:
            if (flow.local_port, flow.remote_port) == (local, remote):
                return flow
        flow = Flow(s.local_ip, s.remote_ip, local, remote)
        self.flows.append(flow)
        if packet.ports is None:
            self.current = flow
        return flow

    def inject(self, packet: Packet) -> None:
        for option in packet.options or ():
            if "S" in packet.flags:
                self.machine.need_option(option.kind)
        flow = self.flow_of(packet, inbound=True)
        self.machine.receive([flow.to_wire(p).build() for p in pieces(packet)])

    def find(self, flow: Flow) -> int | None:
        """Where in the queue of sent packets the next of this flow is."""
        for i, p in enumerate(self.machine.sent):
            if (p.sport, p.dport) == (flow.local_port, flow.remote_port):
                return i
        return None

    def take(self, flow: Flow, want: Packet) -> Segment:
        """The next packet; smaller ones are put together as far as the script has them as one."""
        sent = self.machine.sent
        index = self.find(flow)
        assert index is not None
        first = sent.pop(index)
        while not self.settings.strict_segments and 0 < len(first.data) < want.length and not first.flags & 1:
            index = self.find(flow)
            if index is None:
                break
            more = sent[index]
            if (
                more.seq != (first.seq + len(first.data)) % 2**32
                or not more.data
                or more.at_us != first.at_us
            ):
                break
            sent.pop(index)
            first = replace(first, data=first.data + more.data, flags=first.flags | more.flags)
        return first

    def expect(self, event: Event, want: Packet, begin: int, end: int) -> None:
        flow = self.flow_of(want, inbound=False)
        slack = self.settings.tolerance_us
        self.machine.advance_to(end + slack, until=lambda: self.find(flow) is not None)
        if self.find(flow) is None:
            others = "".join(f"\n    other:    {self.show(s)}" for s in self.machine.sent)
            raise self.fail(event, f"no packet was sent\n    expected: {want}{others}")
        segment = self.take(flow, want)
        wrong = judge(flow, want, segment, self.settings.ts_tick_us)
        if wrong is None and not begin - slack <= segment.at_us <= end + slack:
            due = f"{begin / 1e6:.6f}" if begin == end else f"{begin / 1e6:.6f}~{end / 1e6:.6f}"
            wrong = f"sent at {segment.at_us / 1e6:.6f}, expected at {due}"
        if wrong is not None:
            raise self.fail(event, f"{wrong}\n    expected: {want}\n    actual:   {flow.to_script(segment)}")
        if event.when.any_time or event.when.end_us is not None:
            self.machine.now_us = max(self.machine.now_us, segment.at_us)

    def show(self, segment: Segment) -> str:
        for flow in self.flows:
            if (segment.sport, segment.dport) == (flow.local_port, flow.remote_port):
                return f"{segment.at_us / 1e6:.6f} > {flow.to_script(segment)}"
        return f"{segment.at_us / 1e6:.6f} > from port {segment.sport} to {segment.dport}"

    # --- calls ---

    def call(self, event: Event, call: Call, begin: int) -> None:
        self.await_call()
        until = call.blocks_until_us
        if until is not None and event.when.relative:
            until += begin - event.when.begin_us
        running = self.calls.begin(call)
        self.waiting = w = Waiting(event, call, running, until if until is not None else begin)
        self.resume()
        self.settle(call)
        if w.done_us < 0 or w.problem is not None or w.result is not None:
            self.await_call()
        elif until is None:
            self.waiting = None
            raise self.fail(event, f"{call.name}() waits; a call that may wait says until when, as +0...0.2")

    def settle(self, call: Call) -> None:
        """What the call has marked goes out, and an active open tells its ports."""
        if self.machine.tcp is not None:
            latest = self.sockets.latest
            if call.name == "connect" and latest is not None and latest.conn is not None:
                self.add_active_flow(latest.conn)
            self.machine.step()

    def add_active_flow(self, conn: int) -> None:
        local, remote = self.calls.ports_of(conn)
        if any((f.local_port, f.remote_port) == (local, remote) for f in self.flows):
            return
        self.current = Flow(self.settings.local_ip, self.settings.remote_ip, local, remote)
        self.flows.append(self.current)

    def resume(self) -> bool:
        """Lets the blocked call look again; true: it has returned."""
        w = self.waiting
        if w is None or w.result is not None or w.problem is not None:
            return False
        try:
            next(w.running)
        except StopIteration as stop:
            w.result = stop.value
        except (CallFailed, Unsupported) as e:
            w.problem = e
        else:
            return False
        w.done_us = self.machine.now_us
        return True

    def await_call(self) -> None:
        """A call that still blocks is given until its time to return, and judged."""
        w = self.waiting
        if w is None:
            return
        slack = self.settings.tolerance_us
        if w.result is None and w.problem is None:
            self.machine.advance_to(
                w.until_us + slack, until=lambda: w.result is not None or w.problem is not None
            )
        self.waiting = None
        if isinstance(w.problem, Unsupported):
            raise w.problem
        if w.problem is not None:
            raise self.fail(w.event, str(w.problem))
        if w.result is None:
            raise self.fail(w.event, f"{w.call.name}() has not returned")
        self.judge_result(w.event, w.call, w.result)
        if abs(w.done_us - w.until_us) > slack:
            raise self.fail(w.event, f"{w.call.name}() returned at {w.done_us / 1e6:.6f}")

    def judge_result(self, event: Event, call: Call, got: Result) -> None:
        value, problem = got
        shown = f"{value} {problem}" if problem else str(value)
        want = call.result
        if call.name == "fcntl" and problem is None:
            return  # F_GETFL was judged by its flags
        if want is not ELLIPSIS and (isinstance(want, Symbol) or want != value):
            raise self.fail(event, f"{call.name}() returned {shown}")
        if call.errno != problem and want is not ELLIPSIS:
            raise self.fail(event, f"{call.name}() returned {shown}")

    # --- the end ---

    def finish(self) -> None:
        last = self.script.events[-1]
        self.await_call()
        if self.machine.tcp is None:
            return
        self.machine.step()
        if self.strict_end and self.machine.sent:
            raise self.fail(
                last, f"a packet that no line expects\n    actual:   {self.show(self.machine.sent[0])}"
            )
        for s in list(self.sockets.table.values()):
            s.reset_on_close = True
            self.sockets.close(s)
        self.machine.step()
        assert self.machine.is_tidy(), "the core holds slots of closed connections"


def run_file(path: Path, *, strict_end: bool = True) -> Script:
    """Runs one script; ScriptError: it fails, Unsupported: it cannot be run here."""
    script = parse(str(path), path.read_text())
    Runner(script, strict_end=strict_end).run()
    return script


def run_text(text: str, *, strict_end: bool = True) -> Script:
    """The same for a script that is no file."""
    script = parse("script", text)
    Runner(script, strict_end=strict_end).run()
    return script
