"""Puts the native test modules of the chosen build on the path, and prints the seed of whatever is drawn."""

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / os.environ.get("JANUS_NATIVE", "build/check/native")))

# A change is judged by the same examples each time it is submitted; anybody's own run draws new ones.
settings.register_profile(
    "default",
    print_blob=True,
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("brief", settings.get_profile("default"), max_examples=25)
settings.load_profile("brief" if os.environ.get("JANUS_BRIEF") else "default")
