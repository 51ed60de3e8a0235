"""Memory of connections that have ended is spare after a while, and comes into use again."""

from _tcp import ffi, lib

from tests.unit.tcp_talk import Options, Peer, Stack, established

S = 1_000_000
ROW_BYTES = 128
NEVER = 2**64 - 1


def given(stack: Stack) -> list[tuple[int, int]]:
    """Rows (first, count) that one look names; all memory that it names is overwritten by zeros, as by a machine."""
    spare = ffi.new("struct tcp_spare *")
    rows = []
    while lib.tcp_next_spare(stack.tcp, stack.now_us, spare):
        for part in spare.part:
            ffi.memmove(part.memory, bytes(part.bytes), part.bytes)
        if spare.row_count:
            assert spare.part[0].bytes == spare.row_count * ROW_BYTES
            rows.append((spare.first_row, spare.row_count))
    lib.tcp_check(stack.tcp)
    return rows


def crowd(count: int) -> tuple[Stack, list[Peer]]:
    stack, first = established(conn_max=64, extension_max=64, half_open_max=64)
    return stack, [first, *(established(stack, port=6000 + i)[1] for i in range(count - 1))]


def abort(stack: Stack, peers: list[Peer]) -> None:
    for peer in peers:
        lib.tcp_abort(stack.tcp, peer.conn, stack.now_us)
    stack.output()


def test_rows_of_ended_connections_are_spare_after_two_looks() -> None:
    block = int(lib.SLAB_BLOCK)
    stack, peers = crowd(4 * block)
    assert lib.tcp_spare_deadline(stack.tcp) == NEVER
    abort(stack, [p for p in peers if p.conn // block != 2])
    assert lib.tcp_spare_deadline(stack.tcp) != NEVER
    assert given(stack) == []
    assert lib.tcp_spare_deadline(stack.tcp) == stack.now_us + S
    stack.advance(S // 2)
    assert given(stack) == []
    stack.advance(S // 2)
    assert given(stack) == [(block, block), (3 * block, block)]
    assert lib.tcp_spare_deadline(stack.tcp) == NEVER
    held = [p for p in peers if p.conn // block == 2]
    for peer in held:
        peer.send("A", b"still here")
        assert lib.tcp_recv_ready(stack.tcp, peer.conn) == 10
    assert len(stack.events()) == block
    again = [established(stack, port=7000 + i)[1] for i in range(2 * block)]
    assert {p.conn for p in again} == set(range(2 * block))


def test_a_move_to_other_regions_leaves_out_what_is_empty() -> None:
    block = int(lib.SLAB_BLOCK)
    stack, peers = crowd(3 * block)
    abort(stack, peers[block : 2 * block])
    given(stack)
    stack.advance(S)
    assert given(stack) == [(block, block)]
    lib.native_rebase(stack.native, 100, stack.now_us, 0)
    lib.tcp_check(stack.tcp)
    row = ffi.cast("uint8_t *", stack.native.rows)
    assert not any(row[block * ROW_BYTES : 2 * block * ROW_BYTES])
    peers[0].send("A", b"hello")
    assert lib.tcp_recv_ready(stack.tcp, peers[0].conn) == 5


def test_without_memory_for_rows_a_connection_is_refused_until_there_is_some() -> None:
    stack, _ = crowd(int(lib.SLAB_BLOCK))
    stack.native.dry = True
    peer = Peer(stack, 7000)
    peer.send("S", options=Options(mss=1460))
    peer.expect("SA", seq=0)
    assert peer.send("A") == "no_tcb"
    stack.native.dry = False
    assert peer.send("A") == "none"
    assert stack.events()


def test_models_of_bbr_are_spare_with_their_extensions() -> None:
    block = int(lib.SLAB_BLOCK)
    stack, first = established(
        congestion_control=lib.TCP_CC_BBR, tx_slots=512, conn_max=64, extension_max=64, half_open_max=64
    )
    peers = [first, *(established(stack, port=6000 + i)[1] for i in range(3 * block - 1))]
    for peer in peers:
        stack.send(peer.conn, bytes(1000))
        stack.output()
    models = [lib.native_bbr(stack.native, p.conn) for p in peers]
    assert all(m.started for m in models)
    abort(stack, peers[block : 2 * block])
    given(stack)
    stack.advance(S)
    given(stack)
    assert [m.started for m in models] == [True] * block + [False] * block + [True] * block
