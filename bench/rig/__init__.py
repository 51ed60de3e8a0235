"""The test bed that the demo, the benchmarks and the system tests stand on.

Two network namespaces joined by a veth pair (or by two pairs with an impairing relay between), janusd on
one end, kernel sockets on the other, applications as an unprivileged user.  Everything is made by a context
manager and undone by it, in reverse."""

from bench.rig.janusd import AppPolicy, Janusd, JanusdConfig
from bench.rig.network import Impairment, Network
from bench.rig.processes import REPO, Process, Workdir, missing_privileges
from bench.rig.tools import build_tool

__all__ = [
    "REPO",
    "AppPolicy",
    "Impairment",
    "Janusd",
    "JanusdConfig",
    "Network",
    "Process",
    "Workdir",
    "build_tool",
    "missing_privileges",
]
