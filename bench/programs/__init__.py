"""The programs, each a module with a PROGRAM."""

from bench.framework import Program
from bench.programs import coro_switch, python_echo, tcp_instructions

PROGRAMS: tuple[Program, ...] = (python_echo.PROGRAM, tcp_instructions.PROGRAM, coro_switch.PROGRAM)
