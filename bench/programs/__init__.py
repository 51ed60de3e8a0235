"""The programs, each a module with a PROGRAM."""

from bench.framework import Program
from bench.programs import (
    concurrency,
    coro_switch,
    csb_adjust,
    csb_aged,
    csb_lookup,
    csb_share,
    idle_memory,
    python_echo,
    tcp_instructions,
)

PROGRAMS: tuple[Program, ...] = (
    python_echo.PROGRAM,
    tcp_instructions.PROGRAM,
    coro_switch.PROGRAM,
    idle_memory.PROGRAM,
    concurrency.PROGRAM,
    csb_lookup.PROGRAM,
    csb_adjust.PROGRAM,
    csb_share.PROGRAM,
    csb_aged.PROGRAM,
)
