"""The programs, each a module with a PROGRAM."""

from bench.framework import Program
from bench.programs import python_echo

PROGRAMS: tuple[Program, ...] = (python_echo.PROGRAM,)
