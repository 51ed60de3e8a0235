"""The runner itself: what is wrong in a script must fail, and what has no counterpart must be named."""

import pytest

from tests.packet_scripts.grammar import parse
from tests.packet_scripts.runner import run_text
from tests.packet_scripts.script import ELLIPSIS, Call, Expect, Inject, Or, ScriptError, Symbol, Unsupported

OPEN = """\
 0   socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0   bind(3, ..., ...) = 0
+0   listen(3, 1) = 0
+0   < S 0:0(0) win 65535 <mss 1000>
+0   > S. 0:0(0) ack 1 win 65535 <mss 1460>
+.1  < . 1:1(0) ack 1 win 65535
+0   accept(3, ..., ...) = 4
"""
FIRST_LINE_AFTER = OPEN.count("\n") + 1

WRONG = {
    "flags": ("+0 write(4, ..., 100) = 100\n+0 > . 1:101(100) ack 1", "flags differ"),
    "sequence number": ("+0 write(4, ..., 100) = 100\n+0 > P. 2:102(100) ack 1", "sequence numbers differ"),
    "length": ("+0 write(4, ..., 100) = 100\n+0 > P. 1:100(99) ack 1", "lengths differ"),
    "acknowledgment": (
        "+0 write(4, ..., 100) = 100\n+0 > P. 1:101(100) ack 2",
        "acknowledgment numbers differ",
    ),
    "window": ("+0 write(4, ..., 100) = 100\n+0 > P. 1:101(100) ack 1 win 5", "windows differ"),
    "option too many": ("+0 write(4, ..., 100) = 100\n+0 > P. 1:101(100) ack 1 <mss 1460>", "options differ"),
    "urgent pointer": (
        "+0 write(4, ..., 100) = 100\n+0 > P. 1:101(100) ack 1 urg 1",
        "urgent pointers differ",
    ),
    "ECN": ("+0 write(4, ..., 100) = 100\n+0 > [ect0] P. 1:101(100) ack 1", "ECN fields differ"),
    "too early": ("+0 write(4, ..., 100) = 100\n+.1 > P. 1:101(100) ack 1", "expected at 0.2"),
    "too late": ("+0 < P. 1:101(100) ack 1 win 65535\n+.02 > . 1:1(0) ack 101", "no packet was sent"),
    "before its range": ("+0 write(4, ..., 100) = 100\n+.1~+.2 > P. 1:101(100) ack 1", "expected at 0.2"),
    "nothing sent": ("+0 > P. 1:101(100) ack 1", "no packet was sent"),
    "nobody expects it": ("+0 write(4, ..., 100) = 100", "a packet that no line expects"),
    "return value": ("+0 read(4, ..., 10) = 10", "read() waits"),
    "result": ("+0 < P. 1:11(10) ack 1 win 65535\n+0 read(4, ..., 100) = 100", "read() returned 10"),
    "errno": (
        "+0 fcntl(4, F_SETFL, O_RDWR|O_NONBLOCK) = 0\n+0 read(4, ..., 9) = -1 EPIPE",
        "returned -1 EAGAIN",
    ),
    "success for an error": ("+0 close(4) = -1 EBADF", "close() returned 0"),
    "closed descriptor": ("+0 read(7, ..., 10) = 0", "descriptor 7 is not open"),
    "descriptor twice": ("+0 socket(..., SOCK_STREAM, 0) = 4", "descriptor 4 is open already"),
    "blocked too long": (
        "+0...0.1 read(4, ..., 10) = 10\n+.2 < P. 1:11(10) ack 1 win 100",
        "read() returned at 0.3",
    ),
    "blocked too short": (
        "+0...0.2 read(4, ..., 10) = 10\n+.1 < P. 1:11(10) ack 1 win 100\n+.04 > . 1:1(0) ack 11",
        "read() returned at 0.2",
    ),
    "assertion": ("+0 %{ assert tcpi_snd_cwnd == 11 }%", "tcpi_snd_cwnd=10"),
    "assertion's name": ("+0 %{ assert unknown == 11 }%", "unknown"),
    "poll": ("+0 poll([{fd=4, events=POLLIN, revents=POLLIN}], 1, 0) = 1", "revents of 4 is 0"),
    "option's value": ("+0 getsockopt(4, SOL_TCP, TCP_NODELAY, [1], [4]) = 0", "the value is 0"),
}


@pytest.mark.parametrize(("tail", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_line_fails(tail: str, message: str) -> None:
    with pytest.raises(ScriptError) as failure:
        run_text(OPEN + tail)
    assert message in failure.value.message
    assert failure.value.line == OPEN.count("\n") + tail.count("\n") + 1 or "blocked" in tail or "..." in tail


def test_a_failure_names_file_line_expected_and_actual() -> None:
    with pytest.raises(ScriptError) as failure:
        run_text(OPEN + "+0 write(4, ..., 100) = 100\n+0 > P. 1:101(100) ack 9")
    text = str(failure.value)
    assert text.startswith(f"script:{FIRST_LINE_AFTER + 1}: ")
    assert "expected: P. 1:101(100) ack 9" in text
    assert "actual:   P. 1:101(100) ack 1 win 65535" in text


WITHOUT_COUNTERPART = {
    "a call": "+0 sendfile(4, 5, [0], 10) = 10",
    "an edge-triggered epoll": "+0 poll([{fd=4, events=POLLIN|EPOLLET, revents=0}], 1, 0) = 0",
    "a socket option": "+0 setsockopt(4, SOL_TCP, TCP_CORK, [1], 4) = 0",
    "a flag": "+0 send(4, ..., 10, MSG_FASTOPEN) = 10",
    "a TCP option": "+0 < . 1:1(0) ack 1 win 100 <FO 0011223344556677,nop,nop>",
    "an ICMP message": "+0 < icmp unreachable host_on_fire [1:11(10)]",
    "outbound ICMP": "+0 > icmp unreachable host_unreachable [1:11(10)]",
    "tcp_info": "+0 %{ assert tcpi_reordering == 3 }%",
    "a shell command": "+0 `ip link set tun0 mtu 1200`",
    "a sysctl": "+0 `sysctl -q net.ipv4.tcp_thin_linear_timeouts=1`",
    "accurate ECN": "+0 < SEWA 1:1(0) win 100",
    "an AccECN option": "+0 < . 1:1(0) ack 1 win 100 <ECN e1b 1 ceb 0 e0b 1,nop>",
    "a mutated packet": "+0 < . 1:1(0) ack 1 win 100 {rep tcp src_port 0x0B63}",
    "a constant": "+0 %{ assert TCP_CA_Open == 0 }%",
    "an IP field": "+0 < [ttl 3] . 1:1(0) ack 1 win 100",
    "UDP": "+0 < udp (100)",
    "shutdown for reading": "+0 shutdown(4, SHUT_RD) = 0",
}


@pytest.mark.parametrize("tail", WITHOUT_COUNTERPART.values(), ids=WITHOUT_COUNTERPART.keys())
def test_what_has_no_counterpart_is_a_named_skip(tail: str) -> None:
    with pytest.raises(Unsupported, match=f"script:{FIRST_LINE_AFTER}: "):
        run_text(OPEN + tail)


BROKEN = {
    "empty": ("", "no events"),
    "only a comment": ("// RFC 9293 says nothing here.\n", "no events"),
    "only an option": ("--tolerance_usecs=4000\n", "no events"),
    "no time": ("socket(..., SOCK_STREAM, 0) = 3", "expected a time"),
    "no result": ("0 socket(..., SOCK_STREAM, 0)", "expected '='"),
    "numbers": ("0 < S 0:1(0) win 100", "the numbers do not agree"),
    "no window": ("0 < S 0:0(0) <mss 1460>", "needs 'win N'"),
    "any options inbound": ("0 < S 0:0(0) win 9 <...>", "needs its options"),
    "padding": ("0 < S 0:0(0) win 9 <wscale 7>", "pad them"),
    "unknown option": ("0 < S 0:0(0) win 9 <msss 7>", "unknown TCP option"),
    "ack without flag": ("0 < P 1:1(0) ack 1 win 9", "go together"),
    "flag without ack": ("0 < P. 1:1(0) win 9", "go together"),
    "range": ("2~1 > S 0:0(0)", "ends before it begins"),
    "mixed range": ("+1~2 > S 0:0(0)", "absolute or relative"),
    "no end": ("0 %{ assert True", "expected a call"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_script_fails(text: str, message: str) -> None:
    with pytest.raises(ScriptError, match=r"^script:\d+: ") as failure:
        run_text(text)
    assert message in failure.value.message


def test_the_language() -> None:
    script = parse(
        "x",
        """// RFC 9293: a comment
--ip_version=ipv6
--tolerance_usecs=5000   // and another
`sysctl -q net.ipv4.tcp_sack=1`
0.5 socket(..., SOCK_STREAM|SOCK_NONBLOCK, IPPROTO_TCP) = 3
+.1...0.3 connect(3, {sa_family = AF_INET, sin_port = htons(80), sin_addr = inet_addr("1.2.3.4")}, 16) = -1
    EINPROGRESS (Operation now in progress)   # wrapped
* > S 0:0(0) <mss 1460,sackOK,TS val 100 ecr 0,nop,wscale 7>
1~2 > SEW 0:0(0) <...>
+0 /* inside */ < [ect0] SEW. 0:0(0) ack 1 win 100 urg 3 <nop,nop,sack 5:9 11:13>
+0 < 5000 > 8080 R 1:1(0) win 0
+0 sendmsg(3, {msg_name(...)=..., msg_iov(1)=[{..., 1000}], msg_flags=0}, MSG_NOSIGNAL) = 1000
""",
    )
    assert script.options == {"ip_version": "ipv6", "tolerance_usecs": "5000"}
    assert [c.text for c in script.init] == ["sysctl -q net.ipv4.tcp_sack=1"]
    whens = [e.when for e in script.events]
    assert whens[0].begin_us == 500_000
    assert (whens[1].begin_us, whens[1].relative) == (100_000, True)
    assert whens[2].any_time
    assert (whens[3].begin_us, whens[3].end_us) == (1_000_000, 2_000_000)
    assert [e.line for e in script.events] == [5, 6, 8, 9, 10, 11, 12]
    connect = script.events[1].body
    assert isinstance(connect, Call)
    assert (connect.errno, connect.result, connect.blocks_until_us) == ("EINPROGRESS", -1, 300_000)
    assert connect.args[1]["sa_family"] == Symbol("AF_INET")
    first = script.events[0].body
    assert isinstance(first, Call)
    assert first.args[0] is ELLIPSIS
    assert isinstance(first.args[1], Or)
    syn, any_options, inbound, other = (e.body for e in script.events[2:6])
    assert isinstance(syn, Expect)
    assert str(syn.packet) == "S 0:0(0) <mss 1460,sackOK,TS val 100 ecr 0,nop,wscale 7>"
    assert isinstance(any_options, Expect)
    assert any_options.packet.options is None
    assert isinstance(inbound, Inject)
    assert (inbound.packet.ecn, inbound.packet.urg) == ("ect0", 3)
    assert inbound.packet.options is not None
    assert inbound.packet.options[2].numbers == (5, 9, 11, 13)
    assert isinstance(other, Inject)
    assert other.packet.ports == (5000, 8080)


def test_a_call_may_block_while_packets_come() -> None:
    run_text(
        OPEN
        + """+0...0.2 read(4, ..., 10) = 10
+.2 < P. 1:11(10) ack 1 win 65535
+.04 > . 1:1(0) ack 11
"""
    )


def test_times_are_those_of_the_script_not_of_the_wall() -> None:
    run_text(OPEN + "+3600 write(4, ..., 100) = 100\n+0 > P. 1:101(100) ack 1\n")


def test_segments_of_one_burst_are_put_together_unless_the_script_is_strict() -> None:
    burst = OPEN + "+0 write(4, ..., 2000) = 2000\n+0 > P. 1:2001(2000) ack 1\n"
    run_text(burst)
    with pytest.raises(ScriptError, match=r"flags differ|lengths differ"):
        run_text("--strict_segments\n" + burst)


def test_a_long_packet_comes_in_pieces_of_one_batch() -> None:
    run_text(
        OPEN
        + """+0 < FP. 1:20001(20000) ack 1 win 65535
+0 > . 1:1(0) ack 20002
+0 read(4, ..., 30000) = 20000
+0 read(4, ..., 30000) = 0
"""
    )


def test_switching_an_option_off_matters_when_a_syn_has_it() -> None:
    off = "`../common/defaults.sh\n ../common/set_sysctls.py /proc/sys/net/ipv4/tcp_sack=0`\n"
    run_text(off + OPEN + "`/tmp/sysctl_restore_${PPID}.sh`\n")
    with pytest.raises(Unsupported, match="sackOK switched off"):
        run_text(off + OPEN.replace("<mss 1000>", "<mss 1000,nop,nop,sackOK>"))
    with pytest.raises(Unsupported, match="switched off"):
        run_text(
            off + "0 socket(..., SOCK_STREAM, 0) = 3\n+0...0.1 connect(3, ..., ...) = 0\n+0 > S 0:0(0) <...>"
        )


def test_a_script_of_another_stack_may_leave_packets_unread() -> None:
    run_text(OPEN + "+0 write(4, ..., 100) = 100", strict_end=False)
