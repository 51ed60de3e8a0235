"""The programs, each a module with a PROGRAM."""

from bench.framework import Program
from bench.programs import (
    concurrency,
    coro_switch,
    cps,
    csb_adjust,
    csb_aged,
    csb_auto,
    csb_lookup,
    csb_share,
    csb_table,
    idle_memory,
    io_thread,
    latency,
    python_asyncio,
    python_echo,
    short_conn_cycles,
    tcp_instructions,
    throughput,
)

PROGRAMS: tuple[Program, ...] = (
    python_echo.PROGRAM,
    python_asyncio.PROGRAM,
    tcp_instructions.PROGRAM,
    cps.PROGRAM,
    latency.PROGRAM,
    throughput.PROGRAM,
    short_conn_cycles.PROGRAM,
    io_thread.PROGRAM,
    coro_switch.PROGRAM,
    idle_memory.PROGRAM,
    concurrency.PROGRAM,
    concurrency.MOST_PROGRAM,
    csb_lookup.PROGRAM,
    csb_adjust.PROGRAM,
    csb_share.PROGRAM,
    csb_aged.PROGRAM,
    csb_auto.PROGRAM,
    csb_table.PROGRAM,
)
