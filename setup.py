"""Builds the two cffi extensions over the C libraries that `make libs` builds.

JANUS_WITHOUT_DPDK=1 builds and installs the SDK (janus_tcp) alone: no DPDK, no daemon.
"""

import os
import subprocess

from setuptools import setup
from setuptools.command.build_ext import build_ext

WITH_DPDK = os.environ.get("JANUS_WITHOUT_DPDK") != "1"
# An editable install: `make build` builds them in place.
DEFER_NATIVE = os.environ.get("JANUS_DEFER_NATIVE") == "1"
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
        subprocess.run(["make", "-s", "libs"], check=True)
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
