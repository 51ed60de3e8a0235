"""Builds the two cffi extensions over the C libraries that `make libs` builds.

`pip wheel .` and `pip install .` make the SDK (janus_tcp) alone: it needs neither DPDK nor the daemon.
JANUS_WITH_DPDK=1, which `make build` sets, adds both.
"""

import os
import subprocess

from setuptools import setup
from setuptools.command.build_ext import build_ext

# An editable install: `make build` builds them in place.
DEFER_NATIVE = os.environ.get("JANUS_DEFER_NATIVE") == "1"
WITH_DPDK = os.environ.get("JANUS_WITHOUT_DPDK") != "1" and (
    DEFER_NATIVE or os.environ.get("JANUS_WITH_DPDK") == "1"
)
NATIVE = ["sdk/janus_tcp/_build.py:ffi"]
if WITH_DPDK:
    NATIVE.append("dpdk_glue/build.py:ffi")
SCRIPTS = ["janus = janus_tcp.__main__:main"]
if WITH_DPDK:
    SCRIPTS += ["janusd = janusd.__main__:main", "janusctl = janusd.ctl:main"]
    SCRIPTS += ["janus-gateway = janusd.gateway:main"]


class BuildExt(build_ext):
    """Makes the C libraries first."""

    def run(self) -> None:
        env = dict(os.environ, JANUS_WITHOUT_DPDK="" if WITH_DPDK else "1")
        subprocess.run(["make", "-s", "libs"], check=True, env=env)
        super().run()


setup(
    packages=["janus_tcp", "janusd", "dpdk_glue"] if WITH_DPDK else ["janus_tcp"],
    package_dir={"janus_tcp": "sdk/janus_tcp"},
    package_data={
        "janus_tcp": ["py.typed", "*.pyi"],
        "janusd": ["py.typed"],
        "dpdk_glue": ["py.typed", "*.pyi"],
    },
    cffi_modules=[] if DEFER_NATIVE else NATIVE,
    entry_points={"console_scripts": SCRIPTS},
    cmdclass={"build_ext": BuildExt},
)
