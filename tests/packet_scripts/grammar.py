"""From text to a Script: a scanner without tokens, since what a `.` means depends on where it stands."""

import re
from decimal import Decimal
from functools import cache
from textwrap import dedent

from tests.packet_scripts.script import (
    ELLIPSIS,
    Apply,
    Call,
    Code,
    Command,
    Event,
    Expect,
    Icmp,
    Inject,
    Option,
    Or,
    Packet,
    Script,
    ScriptError,
    Symbol,
    Unsupported,
    Value,
    When,
)

BLANK = re.compile(r"(?:\s+|//[^\n]*|/\*.*?\*/|#[^\n]*)*", re.DOTALL)
TIME = r"(?:\d+(?:\.(?!\.)\d*)?|\.\d+)"
FLAGS = r"[FSRPUEWCA.]+|-"
ECN = {"noecn", "ect0", "ect1", "ect01", "ce", "nce"}
NO_COUNTERPART_OPTIONS = ("FO", "ECN", "FOEXP", "md5", "exp", "acc", "ace", "mp_", "MP_", "gre", "tfo")


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.DOTALL)


class Scanner:
    """A place in the text."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.text, self.pos = path, text, 0

    @property
    def line(self) -> int:
        return self.text.count("\n", 0, self.pos) + 1

    def fail(self, message: str) -> ScriptError:
        return ScriptError(self.path, self.line, message)

    def skip(self) -> None:
        m = BLANK.match(self.text, self.pos)
        assert m is not None
        self.pos = m.end()

    def at_end(self) -> bool:
        self.skip()
        return self.pos == len(self.text)

    def take(self, pattern: str) -> re.Match[str] | None:
        """What stands here, if it is that."""
        self.skip()
        m = compiled(pattern).match(self.text, self.pos)
        if m is not None:
            self.pos = m.end()
        return m

    def need(self, pattern: str, what: str) -> re.Match[str]:
        m = self.take(pattern)
        if m is None:
            rest = self.text[self.pos :].split("\n", 1)[0]
            raise self.fail(f"expected {what} at {rest[:40]!r}")
        return m

    def peek(self, pattern: str) -> bool:
        self.skip()
        return compiled(pattern).match(self.text, self.pos) is not None


def microseconds(text: str) -> int:
    return int((Decimal("0" + text) * 1_000_000).to_integral_value())


def integer(text: str) -> int:
    return int(text, 16) if text.lower().lstrip("-").startswith("0x") else int(text)


def parse_when(s: Scanner) -> When:
    if s.take(r"\*"):
        return When(any_time=True)
    if m := s.take(rf"~\s*(\+?)\s*({TIME})"):
        return When(0, microseconds(m[2]), relative=bool(m[1]))
    m = s.need(rf"(\+?)\s*({TIME})", "a time")
    begin, relative = microseconds(m[2]), bool(m[1])
    if r := s.take(rf"~\s*(\+?)\s*({TIME})"):
        if bool(r[1]) != relative:
            raise s.fail("a range of times is absolute or relative at both ends")
        end = microseconds(r[2])
        if end < begin:
            raise s.fail("a range of times ends before it begins")
        return When(begin, end, relative)
    return When(begin, None, relative)


# --- calls ---


def parse_atom(s: Scanner) -> Value:
    if s.take(r"\.\.\."):
        return ELLIPSIS
    if m := s.take(r'"([^"]*)"(?:\s*\.\.\.\s*)?'):
        return m[1]
    if m := s.take(r"-?0[xX][0-9a-fA-F]+|-?\d+"):
        return integer(m[0])
    if s.take(r"\["):
        return parse_list(s, r"\]")
    if s.take(r"\{"):
        return parse_struct(s)
    m = s.need(r"[A-Za-z_]\w*", "a value")
    if s.take(r"\("):
        return Apply(m[0], tuple(parse_list(s, r"\)")))
    return Symbol(m[0])


def parse_value(s: Scanner) -> Value:
    parts = [parse_atom(s)]
    while s.take(r"\|"):
        parts.append(parse_atom(s))
    return parts[0] if len(parts) == 1 else Or(tuple(parts))


def parse_list(s: Scanner, end: str) -> list[Value]:
    values: list[Value] = []
    if s.take(end):
        return values
    while True:
        values.append(parse_value(s))
        if s.take(end):
            return values
        s.need(",", "',' or the end of the list")


def parse_struct(s: Scanner) -> Value:
    """{a=1, b(2)=...} is a dict, {1, 2} a list."""
    fields: dict[str, Value] = {}
    values: list[Value] = []
    while not s.take(r"\}"):
        if m := s.take(r"([A-Za-z_]\w*)\s*(?:\(\s*(?:\d+|\.\.\.)\s*\))?\s*="):
            fields[m[1]] = parse_value(s)
        else:
            values.append(parse_value(s))
        if not s.take(","):
            s.need(r"\}", "',' or '}'")
            break
    if fields and values:
        raise s.fail("a struct with and without names")
    return fields or values


def parse_call(s: Scanner) -> Call:
    end: int | None = None
    if m := s.take(rf"\.\.\.\s*(\+?)\s*({TIME})"):
        end = microseconds(m[2])
    name = s.need(r"[a-z_]\w*", "a call")[0]
    s.need(r"\(", "'('")
    args = parse_list(s, r"\)")
    s.need("=", "'=' and what the call returns")
    result = parse_value(s)
    errno: str | None = None
    if m := s.take(r"E[A-Z0-9]+"):
        errno = m[0]
    if s.peek(r"\("):
        s.need(r"\([^)]*\)", "a note in parentheses")
    return Call(name, args, result, errno, end)


# --- packets ---


def parse_number(s: Scanner, what: str) -> int | None:
    m = s.need(r"\*|\d+", what)
    return None if m[0] == "*" else int(m[0])


def parse_option(s: Scanner) -> Option:
    m = s.need(r"[A-Za-z_][\w-]*", "a TCP option")
    kind = m[0]
    if kind in ("nop", "eol", "sackOK"):
        return Option(kind)
    if kind in ("mss", "wscale"):
        return Option(kind, (parse_number(s, f"the number of {kind}"),))
    if kind == "TS":
        s.need("val", "'val'")
        val = parse_number(s, "TSval")
        s.need("ecr", "'ecr'")
        return Option(kind, (val, parse_number(s, "TSecr")))
    if kind == "sack":
        blocks: list[int | None] = []
        while m2 := s.take(r"(\d+)\s*:\s*(\d+)"):
            blocks += [int(m2[1]), int(m2[2])]
        if not blocks:
            raise s.fail("sack without blocks")
        return Option(kind, tuple(blocks))
    if kind.startswith(NO_COUNTERPART_OPTIONS):
        raise Unsupported(f"TCP option {kind}")
    raise s.fail(f"unknown TCP option {kind}")


def option_bytes(o: Option) -> int:
    sizes = {"nop": 1, "eol": 1, "mss": 4, "wscale": 3, "sackOK": 2, "TS": 10}
    return 2 + 4 * len(o.numbers) if o.kind == "sack" else sizes[o.kind]


def parse_options(s: Scanner) -> tuple[Option, ...] | None:
    if s.take(r"\.\.\.\s*>"):
        return None
    options: list[Option] = []
    if not s.take(">"):
        while True:
            options.append(parse_option(s))
            if s.take(">"):
                break
            s.need(",", "',' or '>' after an option")
    size = sum(map(option_bytes, options))
    if size % 4 or size > 40:
        raise s.fail(f"TCP options of {size} bytes: pad them to a multiple of 4, at most 40, as on the wire")
    return tuple(options)


def parse_icmp(s: Scanner, inbound: bool, version: str) -> Icmp:
    kind = s.need(r"[a-z_]\w*", "an ICMP type")[0]
    m = s.take(r"(?!mtu\b)[a-z_]\w*")
    code = m[0] if m else ""
    m = s.take(r"mtu\s+(\d+)")
    mtu = int(m[1]) if m else None
    seq = length = 0
    if s.take(r"\["):
        seq, length = parse_range(s)
        s.need(r"\]", "']'")
    return Icmp(inbound, f"{version}/{kind}", code, mtu, seq, length)


def parse_range(s: Scanner) -> tuple[int, int]:
    m = s.need(r"(\d+):(\d+)\((\d+)\)", "sequence numbers as 1:11(10)")
    begin, end, length = int(m[1]), int(m[2]), int(m[3])
    if (end - begin) % 2**32 != length:
        raise s.fail(f"{m[0]}: the numbers do not agree")
    return begin, length


def parse_ip_info(s: Scanner) -> tuple[str | None, bool]:
    ecn: str | None = None
    bad = False
    while s.take(r"\["):
        for word in re.split(r"[\s,]+", s.need(r"[^\]]*", "IP fields")[0].strip()):
            if word == "bad_checksum":
                bad = True
            elif word in ECN:
                ecn = word
            else:
                raise Unsupported(f"IP field {word}")
        s.need(r"\]", "']'")
    return ecn, bad


def parse_packet(s: Scanner) -> Inject | Expect | Icmp:
    inbound = s.need("[<>]", "'<' or '>'")[0] == "<"
    ecn, bad = parse_ip_info(s)
    if m := s.take(r"(icmp(?:v?6)?)\b"):
        return parse_icmp(s, inbound, m[1])
    if m := s.take(r"(udp|sctp|ipv4|ipv6|gre|mpls|esp)\b"):
        raise Unsupported(f"{m[1]} packet")
    m = s.take(r"(\d+)\s*>\s*(\d+)")
    ports = (int(m[1]), int(m[2])) if m else None
    flags = s.need(FLAGS, "TCP flags")[0].replace("W", "C")
    if "A" in flags:
        raise Unsupported("TCP flag AE (accurate ECN)")
    seq, length = parse_range(s)
    ack = int(m[1]) if (m := s.take(r"ack\s+(\d+)")) else None
    win = int(m[1]) if (m := s.take(r"win\s+(\d+)")) else None
    urg = int(m[1]) if (m := s.take(r"urg\s+(\d+)")) else None
    options = parse_options(s) if s.take("<") else ()
    if s.peek(r"\{"):
        raise Unsupported("changed fields of a packet, {...}")
    if ("." in flags) != (ack is not None) and "R" not in flags:
        raise s.fail("the flag '.' and 'ack N' go together")
    if inbound and win is None:
        raise s.fail("a packet that the stack receives needs 'win N'")
    if inbound and options is None:
        raise s.fail("a packet that the stack receives needs its options")
    packet = Packet(flags, seq, length, ack, win, urg, options, ports, ecn, bad)
    return Inject(packet) if inbound else Expect(packet)


# --- the whole ---


def parse_event(s: Scanner) -> Event:
    when = parse_when(s)
    s.skip()
    line, start = s.line, s.pos
    body: Call | Inject | Expect | Icmp | Code | Command
    if s.peek("[<>]"):
        body = parse_packet(s)
    elif m := s.take(r"%\{(.*?)\}%"):
        body = Code(dedent(m[1]).strip() if "\n" in m[1].strip() else m[1].strip())
    elif m := s.take(r"`([^`]*)`"):
        body = Command(m[1].strip())
    else:
        body = parse_call(s)
    return Event(line, when, body, " ".join(s.text[start : s.pos].split()))


def parse_options_lines(s: Scanner, script: Script) -> None:
    while m := s.take(r"--([a-z_]\w*)(?:=([^\n]*))?"):
        script.options[m[1]] = (m[2] or "").split("//")[0].strip().strip('"')


def parse(path: str, text: str) -> Script:
    """The script of a file; ScriptError when it is none, Unsupported when its language has no counterpart here."""
    script = Script(path)
    if m := re.match(r"\s*(?:((?://[^\n]*\n\s*)+)|/\*(.*?)\*/|((?:#[^\n]*\n\s*)+))", text, re.DOTALL):
        script.first_comment = " ".join(re.sub(r"//|#|\*", " ", m[1] or m[2] or m[3]).split())
    s = Scanner(path, text)
    parse_options_lines(s, script)
    while m := s.take(r"`([^`]*)`"):
        script.init.append(Command(m[1].strip()))
        parse_options_lines(s, script)
    while not s.at_end():
        if s.take(r"`([^`]*)`"):  # the clean-up command behind the last event
            continue
        try:
            script.events.append(parse_event(s))
        except Unsupported as u:
            raise Unsupported(f"{path}:{s.line}: {u}") from None
    if not script.events:
        raise ScriptError(path, 1, "no events: a script that does nothing shows nothing")
    return script
